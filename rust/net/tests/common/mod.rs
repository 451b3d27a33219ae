//! A reactor and plain blocking clients, driven from one thread.

#![allow(dead_code)] // each test binary uses its own part

use net::address::Address;
use net::admission::Admission;
use net::listener::Listener;
use net::reactor::{Reactor, ReactorConfig, Ready, Taken, Token};
use net::sys::monotonic_now;
use net::tls::TlsConfig;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something is ready and returns all of it.
pub fn poll(reactor: &mut Reactor) -> Vec<Ready> {
    let deadline = monotonic_now() + PATIENCE.as_nanos() as u64;
    loop {
        reactor.wait(Some(deadline), false).unwrap();
        let ready: Vec<_> = std::iter::from_fn(|| reactor.next_ready()).collect();
        if !ready.is_empty() {
            return ready;
        }
        assert!(monotonic_now() < deadline, "nothing became ready");
    }
}

/// What is ready now, without waiting.
pub fn poll_now(reactor: &mut Reactor) -> Vec<Ready> {
    reactor.wait(Some(0), false).unwrap();
    std::iter::from_fn(|| reactor.next_ready()).collect()
}

/// Polls until `wanted` gives something, handing it each thing that is ready.
pub fn poll_until<T>(reactor: &mut Reactor, mut wanted: impl FnMut(&mut Reactor, Ready) -> Option<T>) -> T {
    let deadline = monotonic_now() + PATIENCE.as_nanos() as u64;
    loop {
        reactor.wait(Some(deadline), false).unwrap();
        while let Some(ready) = reactor.next_ready() {
            if let Some(found) = wanted(reactor, ready) {
                return found;
            }
        }
        assert!(monotonic_now() < deadline, "what was waited for did not happen");
    }
}

/// A reactor that listens on a free port of the loopback.
pub fn listening(config: ReactorConfig, tls: Option<TlsConfig>) -> (Reactor, SocketAddr) {
    let mut reactor = Reactor::new(config).unwrap();
    let listener = Arc::new(Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap());
    let Address::Tcp(address) = *listener.local_address() else { unreachable!() };
    reactor.listen(listener, Arc::new(Admission::new(0, 0, None)), tls).unwrap();
    (reactor, address)
}

/// A blocking client.
pub fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A reactor, a client, and the token of their connection.
pub fn connected(config: ReactorConfig) -> (Reactor, TcpStream, Token) {
    let (mut reactor, address) = listening(config, None);
    let client = client(address);
    let token = accepted(&mut reactor);
    (reactor, client, token)
}

/// The next connection that is accepted.
pub fn accepted(reactor: &mut Reactor) -> Token {
    poll_until(reactor, |_, ready| match ready {
        Ready::Accepted(token) => Some(token),
        _ => None,
    })
}

/// A closure's answer that takes everything.
pub fn all(bytes: &[u8]) -> Taken {
    Taken { consumed: bytes.len(), needed: 0 }
}

/// Reads exactly `bytes` bytes.
pub fn read_exactly(stream: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).unwrap();
    buffer
}
