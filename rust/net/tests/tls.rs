//! TLS over real sockets, both roles.

mod common;

use common::*;
use net::address::Address;
use net::queue::Class;
use net::reactor::{Flush, Reactor, ReactorConfig, Read, Ready, StartTlsError, Taken, Token};
use net::tls::{TlsClientConfig, TlsConfig, TlsError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A certificate for `localhost` that signs itself, in files that go with it.
struct Certificate {
    directory: PathBuf,
}

impl Certificate {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("net-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { directory }
    }

    fn cert(&self) -> PathBuf {
        self.directory.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.join("key.pem")
    }

    fn server(&self) -> TlsConfig {
        TlsConfig::from_files(&self.cert(), &self.key()).unwrap()
    }

    fn client(&self) -> TlsClientConfig {
        TlsClientConfig::trusting(&self.cert()).unwrap()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A server that has seen the beginning of TLS on its connection, and the client's reactor.
struct Pair {
    server: Reactor,
    here: Token,
    client: Reactor,
    there: Token,
}

impl Pair {
    fn connected(certificate: &Certificate) -> Self {
        let config = || ReactorConfig { queue_bytes_max: 16 << 20, ..ReactorConfig::default() };
        let (mut server, address) = listening(config(), Some(certificate.server()));
        let mut client = Reactor::new(config()).unwrap();
        let there = client.connect_tls(&Address::Tcp(address), &certificate.client(), "localhost").unwrap();
        let here = accepted(&mut server);
        poll_until(&mut client, |_, ready| (ready == Ready::Connected(there)).then_some(()));
        poll_until(&mut server, |_, ready| (ready == Ready::Readable(here)).then_some(()));
        let read = server.read(here, |bytes, _, _| {
            assert_eq!(&bytes[..2], [0x16, 3]);
            (Taken { consumed: 0, needed: bytes.len() + 1 }, ())
        });
        assert!(matches!(read, Read::Data { pending: false, .. }));
        server.start_tls(here).unwrap();
        assert!(matches!(server.start_tls(here), Err(StartTlsError::NotPossible)));
        Self { server, here, client, there }
    }

    /// Reads on both sides whatever is there; gives what came, server's first.
    fn turn(&mut self, came: &mut [Vec<u8>; 2]) {
        let sides = [(&mut self.server, self.here), (&mut self.client, self.there)];
        for ((reactor, token), came) in sides.into_iter().zip(came) {
            for ready in poll_now(reactor) {
                match ready {
                    Ready::Readable(_) => {
                        let read = reactor.read(token, |bytes, _, _| {
                            came.extend_from_slice(bytes);
                            (all(bytes), ())
                        });
                        assert!(!matches!(read, Read::Error(_) | Read::Eof | Read::Gone), "{read:?}");
                    }
                    Ready::Writable(_) => assert!(!matches!(reactor.flush(token), Flush::Closed(_))),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Takes turns until both sides have as many bytes as they should.
    fn exchange(&mut self, server_bytes: usize, client_bytes: usize) -> [Vec<u8>; 2] {
        let mut came = [Vec::new(), Vec::new()];
        let end = std::time::Instant::now() + PATIENCE;
        while came[0].len() < server_bytes || came[1].len() < client_bytes {
            self.turn(&mut came);
            assert!(std::time::Instant::now() < end, "{} and {} bytes came", came[0].len(), came[1].len());
        }
        came
    }
}

fn queue(reactor: &mut Reactor, token: Token, bytes: &[u8]) -> Flush {
    let (queue, pool) = reactor.queue(token).unwrap();
    queue.append(pool, Class::Reliable, 0, |out| out.extend_from_slice(bytes)).unwrap();
    reactor.flush(token)
}

#[test]
fn bytes_come_and_go_encrypted() {
    let certificate = Certificate::new("bytes");
    let mut pair = Pair::connected(&certificate);
    // Queued while the handshake still runs, and more than rustls would keep: it goes when that is done.
    let early: Vec<u8> = (0..200_000).map(|n| (n >> 3) as u8).collect();
    assert!(matches!(queue(&mut pair.client, pair.there, &early), Flush::Blocked));
    assert_eq!(
        poll_now(&mut pair.client),
        [Ready::Readable(pair.there)],
        "it waits for the server, and does not spin"
    );
    assert!(pair.exchange(early.len(), 0)[0] == early);
    assert!(matches!(queue(&mut pair.server, pair.here, b"pong"), Flush::Done));
    assert_eq!(pair.exchange(0, 4)[1], b"pong");
    assert!(pair.server.info(pair.here).unwrap().tls);
    assert!(pair.server.stats().bytes_in > 100, "counted as on the network: {:?}", pair.server.stats());
    assert_eq!((pair.server.pool().stats().out, pair.client.pool().stats().out), (0, 0));
}

#[test]
fn megabytes_pass_in_both_directions_at_once() {
    let certificate = Certificate::new("megabytes");
    let mut pair = Pair::connected(&certificate);
    let bytes = |factor: usize| (0..3_000_000).map(|n| ((n * factor) >> 8) as u8).collect::<Vec<u8>>();
    let (up, down) = (bytes(7), bytes(11));
    queue(&mut pair.client, pair.there, &up);
    queue(&mut pair.server, pair.here, &down);
    let came = pair.exchange(up.len(), down.len());
    assert!(came[0] == up && came[1] == down);
    assert_eq!((pair.server.pool().stats().out, pair.client.pool().stats().out), (0, 0));
}

#[test]
fn a_long_item_is_collected_and_a_budget_is_kept() {
    let certificate = Certificate::new("items");
    let mut pair = Pair::connected(&certificate);
    let item: Vec<u8> = (0..300_000).map(|n| (n >> 4) as u8).collect();
    let (first, second) = item.split_at(150_000);
    queue(&mut pair.client, pair.there, first);
    let (mut got, mut calls, mut rest_is_sent) = (None, 0, false);
    let end = std::time::Instant::now() + PATIENCE;
    while got.is_none() {
        pair.client.wait(Some(0), false).unwrap();
        while let Some(ready) = pair.client.next_ready() {
            if matches!(ready, Ready::Readable(_)) {
                pair.client.read(pair.there, |bytes, _, _| (all(bytes), ()));
            }
            pair.client.flush(pair.there);
        }
        for ready in poll_now(&mut pair.server) {
            assert_eq!(ready, Ready::Readable(pair.here));
            let read = pair.server.read(pair.here, |bytes, _, _| {
                calls += 1;
                if bytes.len() < item.len() {
                    return (Taken { consumed: 0, needed: item.len() }, None);
                }
                assert!(bytes == item);
                // Take some, and leave items of a byte each.
                (Taken { consumed: item.len() - 3, needed: 1 }, Some(()))
            });
            match read {
                Read::Data { value: Some(()), pending: true } => got = Some(()),
                Read::Data { value: None, pending: false } | Read::Partial => {}
                other => panic!("{other:?}"),
            }
        }
        if !rest_is_sent && pair.client.queue(pair.there).unwrap().0.is_empty() {
            queue(&mut pair.client, pair.there, second);
            rest_is_sent = true;
        }
        assert!(std::time::Instant::now() < end);
    }
    assert_eq!(calls, 2);
    for left in [true, true, false] {
        let read = pair.server.pending(pair.here, |bytes, _, _| {
            (Taken { consumed: 1, needed: usize::from(bytes.len() > 1) }, bytes[0])
        });
        assert!(matches!(read, Read::Data { pending, .. } if pending == left));
    }
    assert_eq!(pair.server.pool().stats().out, 0);
}

#[test]
fn the_end_comes_after_the_last_bytes() {
    let certificate = Certificate::new("end");
    let mut pair = Pair::connected(&certificate);
    queue(&mut pair.client, pair.there, b"hello");
    pair.exchange(5, 0);
    // The last bytes, TLS's own end, and the stream's, likely all in one receive.
    queue(&mut pair.client, pair.there, b"last");
    pair.client.shutdown_write(pair.there);
    let (mut came, mut ended) = (Vec::new(), false);
    while !ended {
        for ready in poll(&mut pair.server) {
            assert_eq!(ready, Ready::Readable(pair.here));
            match pair.server.read(pair.here, |bytes, _, _| (all(bytes), bytes.to_vec())) {
                Read::Data { value, .. } => came.extend(value),
                Read::Eof => ended = true,
                Read::Partial => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(came, b"last");
    assert_eq!(poll_now(&mut pair.server), [], "told once");
    // And back: a polite close is seen as an end by the other side.
    queue(&mut pair.server, pair.here, b"bye");
    pair.server.linger(pair.here);
    let mut came = Vec::new();
    poll_until(&mut pair.client, |client, ready| {
        match client.read(pair.there, |bytes, _, _| (all(bytes), bytes.to_vec())) {
            Read::Data { value, .. } => came.extend(value),
            Read::Eof => return Some(()),
            Read::Partial | Read::WouldBlock => {}
            other => panic!("{ready:?}: {other:?}"),
        }
        None
    });
    assert_eq!(came, b"bye");
}

/// A client that is not ours: it ends TLS, and leaves the stream open.
fn half_closing_client(certificate: &Certificate, address: SocketAddr) -> std::thread::JoinHandle<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.cert()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    std::thread::spawn(move || {
        let name = "localhost".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = client(address);
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        tls.writer().write_all(b"ab").unwrap();
        tls.send_close_notify();
        let mut last = Vec::new();
        tls.write_tls(&mut last).unwrap();
        stream.write_all(&last).unwrap();
        stream
    })
}

#[test]
fn the_end_of_tls_is_told_after_its_last_bytes_and_waits_for_who_has_paused() {
    for paused in [false, true] {
        let certificate = Certificate::new(if paused { "paused" } else { "notify" });
        let (mut reactor, address) = listening(ReactorConfig::default(), Some(certificate.server()));
        let client = half_closing_client(&certificate, address);
        let token = accepted(&mut reactor);
        poll(&mut reactor);
        reactor.read(token, |bytes, _, _| (Taken { consumed: 0, needed: bytes.len() + 1 }, ()));
        reactor.start_tls(token).unwrap();
        let one = |bytes: &mut [u8], _: &mut _, _: &_| {
            (Taken { consumed: 1, needed: usize::from(bytes.len() > 1) }, bytes[0])
        };
        poll_until(&mut reactor, |reactor, _| match reactor.read(token, one) {
            Read::Data { value: b'a', pending: true } => Some(()),
            Read::Partial | Read::WouldBlock => None,
            other => panic!("{other:?}"),
        });
        let _open = client.join().unwrap();
        assert!(matches!(reactor.pending(token, one), Read::Data { value: b'b', pending: false }));
        if paused {
            reactor.pause(token);
            assert_eq!(poll_now(&mut reactor), []);
            reactor.resume(token);
        }
        assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
        assert!(matches!(reactor.read(token, one), Read::Eof));
        assert_eq!(poll_now(&mut reactor), []);
        assert_eq!(reactor.pool().stats().out, 0);
    }
}

fn begin(reactor: &mut Reactor, address: SocketAddr, bytes: &[u8]) -> (TcpStream, Token) {
    let mut client = client(address);
    let token = accepted(reactor);
    client.write_all(bytes).unwrap();
    poll(reactor);
    reactor.read(token, |bytes, _, _| (Taken { consumed: 0, needed: bytes.len() + 1 }, ()));
    (client, token)
}

#[test]
fn without_a_certificate_it_cannot_begin() {
    let (mut reactor, address) = listening(ReactorConfig::default(), None);
    let (_client, token) = begin(&mut reactor, address, &[0x16, 3, 1]);
    assert!(matches!(reactor.start_tls(token), Err(StartTlsError::NotConfigured)));
}

#[test]
fn a_wrong_hello_is_an_error_and_answered_by_an_alert() {
    let certificate = Certificate::new("wrong");
    let (mut reactor, address) = listening(ReactorConfig::default(), Some(certificate.server()));
    let (mut client, token) = begin(&mut reactor, address, &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]);
    assert!(matches!(reactor.start_tls(token), Err(StartTlsError::Handshake(_))));
    reactor.close(token);
    let mut alert = Vec::new();
    client.read_to_end(&mut alert).unwrap();
    assert_eq!((alert[0], reactor.pool().stats().out), (0x15, 0));

    // And the same a little later, when the first bytes were not enough to tell.
    let (mut client, token) = begin(&mut reactor, address, &[0x16, 3]);
    reactor.start_tls(token).unwrap();
    client.write_all(&[1, 0, 4, 1, 0, 0, 0]).unwrap();
    poll(&mut reactor);
    assert!(matches!(reactor.read(token, |bytes, _, _| (all(bytes), ())), Read::Error(_)));
}

#[test]
fn a_server_that_is_not_trusted_is_refused() {
    let (certificate, other) = (Certificate::new("mine"), Certificate::new("other"));
    let (mut server, address) = listening(ReactorConfig::default(), Some(certificate.server()));
    let mut client = Reactor::new(ReactorConfig::default()).unwrap();
    let there = client.connect_tls(&Address::Tcp(address), &other.client(), "localhost").unwrap();
    let here = accepted(&mut server);
    poll(&mut client);
    poll(&mut server);
    server.read(here, |bytes, _, _| (Taken { consumed: 0, needed: bytes.len() + 1 }, ()));
    server.start_tls(here).unwrap();
    poll(&mut client);
    match client.read(there, |bytes, _, _| (all(bytes), ())) {
        Read::Error(error) => assert!(error.to_string().contains("certificate"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_files_are_named() {
    let (certificate, other) = (Certificate::new("files"), Certificate::new("more-files"));
    let error = |cert: &Path, key: &Path| TlsConfig::from_files(cert, key).unwrap_err();
    let missing = error(Path::new("no-such.pem"), &certificate.key());
    assert!(missing.to_string().contains("no-such.pem"), "{missing}");
    let swapped = error(&certificate.key(), &certificate.cert());
    assert!(matches!(swapped, TlsError::NoCertificate(_)), "{swapped}");
    let mismatch = error(&certificate.cert(), &other.key());
    assert!(matches!(mismatch, TlsError::Rejected(_)), "{mismatch}");
}
