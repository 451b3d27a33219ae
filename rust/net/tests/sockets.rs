//! What a caller sees of real sockets.

mod common;

use common::*;
use net::address::{Address, Peer};
use net::admission::Admission;
use net::listener::Listener;
use net::queue::Class;
use net::reactor::{Flush, Reactor, ReactorConfig, Read, Ready, Taken, Token};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What one read of everything gives, as text.
fn read_text(reactor: &mut Reactor, token: Token) -> String {
    match reactor.read(token, |bytes, _, _| (all(bytes), String::from_utf8(bytes.to_vec()).unwrap())) {
        Read::Data { value, pending: false } => value,
        other => panic!("{other:?}"),
    }
}

fn readable(reactor: &mut Reactor) -> Token {
    poll_until(reactor, |_, ready| match ready {
        Ready::Readable(token) => Some(token),
        _ => None,
    })
}

#[test]
fn bytes_come_and_go() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    client.write_all(b"ping").unwrap();
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
    let read = reactor.read(token, |bytes, queue, pool| {
        queue.append(pool, Class::Reliable, 0, |out| out.extend_from_slice(b"pong")).unwrap();
        (all(bytes), bytes.to_vec())
    });
    assert!(matches!(read, Read::Data { value, pending: false } if value == b"ping"));
    assert!(matches!(reactor.flush(token), Flush::Done));
    assert_eq!(read_exactly(&mut client, 4), b"pong");

    let info = reactor.info(token).unwrap();
    assert_eq!((reactor.stats().bytes_in, reactor.stats().bytes_out, info.tls), (4, 4, false));
    assert_eq!(info.peer, Peer::Tcp(client.local_addr().unwrap()));
    assert!(reactor.rtt_us(token).is_some());
    assert_eq!(reactor.pool().stats().out, 0);
    assert!(matches!(reactor.read(token, |bytes, _, _| (all(bytes), ())), Read::WouldBlock));
}

#[test]
fn ipv6_and_unix_sockets_work_alike() {
    let directory = std::env::temp_dir().join(format!("net-sockets-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let admission = Arc::new(Admission::new(0, 0, None));
    let v6 = Arc::new(Listener::bind(&Address::Tcp("[::1]:0".parse().unwrap())).unwrap());
    let unix = Arc::new(Listener::bind(&Address::Unix(path.clone())).unwrap());
    let Address::Tcp(address) = *v6.local_address() else { panic!("not TCP") };
    reactor.listen(v6, admission.clone(), None).unwrap();
    reactor.listen(unix, admission.clone(), None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut over_v6 = TcpStream::connect(address).unwrap();
    let first = accepted(&mut reactor);
    over_v6.write_all(b"six").unwrap();
    assert_eq!(readable(&mut reactor), first);
    assert_eq!(read_text(&mut reactor, first), "six");
    assert!(reactor.info(first).unwrap().peer.to_string().starts_with("[::1]:"));

    let mut over_unix = UnixStream::connect(&path).unwrap();
    let second = accepted(&mut reactor);
    over_unix.write_all(b"unix").unwrap();
    assert_eq!(readable(&mut reactor), second);
    assert_eq!(read_text(&mut reactor, second), "unix");
    assert_eq!((reactor.info(second).unwrap().peer, reactor.rtt_us(second)), (Peer::Unix, None));

    assert_eq!(admission.connections(), 2);
    drop(reactor);
    assert_eq!(admission.connections(), 0);
    assert!(!path.exists(), "the socket's file goes with its listener");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn only_a_stale_socket_file_is_replaced() {
    let directory = std::env::temp_dir().join(format!("net-stale-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let in_use = || Listener::bind(&Address::Unix(path.clone())).unwrap_err().kind();
    let other = UnixListener::bind(&path).unwrap();
    assert_eq!(in_use(), std::io::ErrorKind::AddrInUse);
    drop(other); // its file stays
    drop(Listener::bind(&Address::Unix(path.clone())).unwrap());
    std::fs::write(&path, "somebody's notes").unwrap();
    assert_eq!(in_use(), std::io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_end_of_the_stream_is_told_once_and_sending_still_works() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
    assert!(matches!(reactor.read(token, |bytes, _, _| (all(bytes), ())), Read::Eof));
    assert_eq!(poll_now(&mut reactor), []);
    let (queue, pool) = reactor.queue(token).unwrap();
    queue.append(pool, Class::Reliable, 0, |out| out.extend_from_slice(b"bye")).unwrap();
    assert!(matches!(reactor.flush(token), Flush::Done));
    reactor.shutdown_write(token);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    // Both directions are over: epoll reports that for ever, the reactor must not.
    assert_eq!(poll_now(&mut reactor), []);
    assert_eq!(poll_now(&mut reactor), []);
    assert!(reactor.close(token));
    assert!(!reactor.close(token));
}

#[test]
fn a_broken_pipe_is_an_answer_and_no_signal() {
    let (mut reactor, client, token) = connected(ReactorConfig::default());
    drop(client);
    let closed = (0..1000).any(|_| {
        let (queue, pool) = reactor.queue(token).unwrap();
        queue.append(pool, Class::Reliable, 0, |out| out.push(1)).unwrap();
        matches!(reactor.flush(token), Flush::Closed(_))
    });
    assert!(closed);
    reactor.close(token);
    assert_eq!(reactor.pool().stats().out, 0);
}

#[test]
fn a_stale_token_does_nothing() {
    let (mut reactor, _client, old) = connected(ReactorConfig::default());
    reactor.close(old);
    assert!(matches!(reactor.read(old, |bytes, _, _| (all(bytes), ())), Read::Gone));
    assert!(matches!(reactor.flush(old), Flush::Gone));
    assert!(reactor.queue(old).is_none() && reactor.info(old).is_none() && !reactor.is_open(old));
    reactor.pause(old);
    reactor.resume(old);
    reactor.shutdown_write(old);
    reactor.linger(old);
}

#[test]
fn an_incomplete_item_is_kept_until_it_is_complete() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    // Every size class, and more than one receive brings.
    for total in [10, 700, 3_000, 20_000, 100_000, 700_000] {
        let item: Vec<u8> = (0..total).map(|n| n as u8).collect();
        let mut calls = Vec::new();
        let mut sent = 0;
        let mut got = Vec::new();
        while got.is_empty() {
            let piece = (total / 7 + 1).min(total - sent);
            client.write_all(&item[sent..sent + piece]).unwrap();
            sent += piece;
            // All of this piece is read before the next one is sent.
            let mut here = reactor.stats().bytes_in;
            let until = here + piece as u64;
            while here < until {
                poll(&mut reactor);
                let read = reactor.read(token, |bytes, _, _| {
                    calls.push(bytes.len());
                    if bytes.len() < total {
                        return (Taken { consumed: 0, needed: total }, Vec::new());
                    }
                    (all(bytes), bytes.to_vec())
                });
                here = reactor.stats().bytes_in;
                match read {
                    Read::Data { value, pending: false } => got = value,
                    Read::Partial => {}
                    other => panic!("{other:?}"),
                }
                assert!(reactor.pool().stats().out <= 1);
            }
        }
        assert_eq!(got, item);
        assert_eq!(calls.len(), 2, "called for the first bytes, and for all of them: {calls:?}");
        assert_eq!(reactor.pool().stats().out, 0, "an idle connection owns no block");
    }
}

#[test]
fn what_the_budget_left_is_offered_again_before_anything_is_received() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    client.write_all(b"aabbccdd").unwrap();
    poll(&mut reactor);
    let two = |bytes: &mut [u8], _: &mut _, _: &_| {
        let value = String::from_utf8(bytes[..2].to_vec()).unwrap();
        (Taken { consumed: 2, needed: if bytes.len() > 2 { 2 } else { 0 } }, value)
    };
    let mut seen = Vec::new();
    let Read::Data { value, pending: true } = reactor.read(token, two) else { panic!("no data") };
    seen.push(value);
    client.write_all(b"ee").unwrap();
    poll(&mut reactor);
    let before = reactor.stats().bytes_in;
    let Read::Data { value, pending: true } = reactor.read(token, two) else { panic!("no data") };
    assert_eq!(reactor.stats().bytes_in, before, "the peer waits in its own buffers");
    seen.push(value);
    loop {
        let Read::Data { value, pending } = reactor.pending(token, two) else { panic!("no data") };
        seen.push(value);
        if !pending {
            break;
        }
    }
    assert_eq!(reactor.pool().stats().out, 0);
    assert!(matches!(reactor.pending(token, two), Read::WouldBlock));
    let Read::Data { value, pending: false } = reactor.read(token, two) else { panic!("no data") };
    seen.push(value);
    assert_eq!(seen, ["aa", "bb", "cc", "dd", "ee"]);
}

#[test]
fn a_panic_in_the_closure_leaks_nothing_and_harms_nobody_else() {
    let (mut reactor, address) = listening(ReactorConfig::default(), None);
    let (mut first, mut second) = (client(address), client(address));
    let mut tokens = Vec::new();
    while tokens.len() < 2 {
        tokens.extend(poll(&mut reactor).into_iter().map(|ready| match ready {
            Ready::Accepted(token) => token,
            other => panic!("{other:?}"),
        }));
    }
    // With an empty tail, with a small one, and with one that is received into.
    for held in [0, 100, 5_000] {
        if held > 0 {
            first.write_all(&vec![1; held]).unwrap();
            while reactor.pool().stats().out == 0 {
                assert_eq!(poll(&mut reactor), [Ready::Readable(tokens[0])]);
                reactor.read(tokens[0], |_, _, _| (Taken { consumed: 0, needed: held + 1 }, ()));
            }
        }
        first.write_all(b"bomb").unwrap();
        assert_eq!(poll(&mut reactor), [Ready::Readable(tokens[0])]);
        let read = catch_unwind(AssertUnwindSafe(|| {
            reactor.read(tokens[0], |_, queue, pool| -> (Taken, ()) {
                let _ = queue.append(pool, Class::Reliable, 0, |_| panic!("while an answer is written"));
                unreachable!()
            })
        }));
        assert!(read.is_err());
        assert_eq!(reactor.pool().stats().out, 0);
    }
    reactor.close(tokens[0]);
    second.write_all(b"fine").unwrap();
    assert_eq!(readable(&mut reactor), tokens[1]);
    assert_eq!(read_text(&mut reactor, tokens[1]), "fine");
}

#[test]
fn a_blocked_socket_is_told_when_it_takes_bytes_again() {
    let (mut reactor, mut client, token) =
        connected(ReactorConfig { queue_bytes_max: 64 << 20, ..ReactorConfig::default() });
    let block = Arc::new(bytes::Bytes::from(vec![7; 1 << 20]));
    let mut queued = 0;
    loop {
        let (queue, pool) = reactor.queue(token).unwrap();
        queue.append_shared(pool, Class::Reliable, 0, &block).unwrap();
        queued += block.len();
        if matches!(reactor.flush(token), Flush::Blocked) {
            break;
        }
    }
    assert_eq!(poll_now(&mut reactor), []);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while received < queued {
        received += client.read(&mut buffer).unwrap();
        for ready in poll_now(&mut reactor) {
            assert_eq!(ready, Ready::Writable(token));
            reactor.flush(token);
        }
    }
    assert!(reactor.queue(token).unwrap().0.is_empty());
    assert_eq!(poll_now(&mut reactor), [], "not told any longer");
    assert_eq!(reactor.stats().bytes_out, queued as u64);
}

#[test]
fn a_paused_socket_is_silent_until_it_is_resumed() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    reactor.pause(token);
    client.write_all(b"later").unwrap();
    for _ in 0..3 {
        assert_eq!(poll_now(&mut reactor), []);
    }
    reactor.resume(token);
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
    assert_eq!(read_text(&mut reactor, token), "later");
    // Paused and resumed with nothing in between: no call to the system is needed, and nothing is missed.
    reactor.pause(token);
    reactor.resume(token);
    client.write_all(b"more").unwrap();
    assert_eq!(readable(&mut reactor), token);
}

#[test]
fn a_paused_socket_that_breaks_does_not_spin() {
    let (mut reactor, client, token) = connected(ReactorConfig::default());
    reactor.pause(token);
    // Unread bytes at the client make its close a reset: an error, which epoll reports whether asked or not.
    let (queue, pool) = reactor.queue(token).unwrap();
    queue.append(pool, Class::Reliable, 0, |out| out.push(1)).unwrap();
    reactor.flush(token);
    (&client).write_all(b"last words").unwrap();
    let mut peeked = [0];
    client.peek(&mut peeked).unwrap();
    drop(client);
    for _ in 0..3 {
        assert_eq!(poll_now(&mut reactor), []);
    }
    // The wait really sleeps: it ends by its deadline, with no event.
    let deadline = net::sys::monotonic_now() + 20_000_000;
    reactor.wait(Some(deadline), false).unwrap();
    assert_eq!(reactor.next_ready(), None);
    assert!(net::sys::monotonic_now() >= deadline);
    reactor.resume(token);
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
}

#[test]
fn accept_is_paced_and_the_rest_comes_next_time() {
    let (mut reactor, address) =
        listening(ReactorConfig { accepts_per_wait: 4, ..ReactorConfig::default() }, None);
    let _clients: Vec<_> = (0..10).map(|_| client(address)).collect();
    let counts: Vec<_> = (0..4).map(|_| poll_now(&mut reactor).len()).collect();
    assert_eq!(counts, [4, 4, 2, 0]);
}

#[test]
fn who_is_not_admitted_is_closed_and_counted() {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let listener = Arc::new(Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap());
    let Address::Tcp(address) = *listener.local_address() else { panic!("not TCP") };
    reactor.listen(listener, Arc::new(Admission::new(0, 2, None)), None).unwrap();
    let (_first, mut second) = (client(address), client(address));
    let mut tokens = vec![accepted(&mut reactor)];
    if tokens.len() < 2 {
        tokens.push(accepted(&mut reactor));
    }
    let mut third = client(address);
    assert_eq!(poll_now(&mut reactor), []);
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    assert_eq!(reactor.stats().refused_address, 1);
    reactor.close(tokens[1]);
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    let _fourth = client(address);
    accepted(&mut reactor);
    assert_eq!((reactor.stats().accepted, reactor.stats().open), (3, 2));
}

#[test]
fn it_connects_as_well() {
    let (mut reactor, address) = listening(ReactorConfig::default(), None);
    let ours = reactor.connect(&Address::Tcp(address)).unwrap();
    let (mut theirs, mut connected) = (None, false);
    while theirs.is_none() || !connected {
        for ready in poll(&mut reactor) {
            match ready {
                Ready::Accepted(token) => theirs = Some(token),
                Ready::Connected(token) if token == ours => connected = true,
                other => panic!("{other:?}"),
            }
        }
    }
    let (queue, pool) = reactor.queue(ours).unwrap();
    queue.append(pool, Class::Reliable, 0, |out| out.extend_from_slice(b"hello")).unwrap();
    assert!(matches!(reactor.flush(ours), Flush::Done));
    let token = readable(&mut reactor);
    assert_eq!(Some(token), theirs);
    assert_eq!(read_text(&mut reactor, token), "hello");
}

#[test]
fn a_refused_connect_is_an_error_on_reading() {
    let (reactor, address) = listening(ReactorConfig::default(), None);
    drop(reactor); // nobody listens there now
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let token = reactor.connect(&Address::Tcp(address)).unwrap();
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
    match reactor.read(token, |bytes, _, _| (all(bytes), ())) {
        Read::Error(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lingering_lets_the_last_word_arrive() {
    let (mut reactor, mut client, token) = connected(ReactorConfig::default());
    let (queue, pool) = reactor.queue(token).unwrap();
    queue.append(pool, Class::Reliable, 0, |out| out.extend_from_slice(b"kicked")).unwrap();
    client.write_all(b"unread").unwrap();
    assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
    assert!(matches!(reactor.flush(token), Flush::Done));
    reactor.linger(token);
    assert!(!reactor.is_open(token) && reactor.info(token).is_none() && !reactor.close(token));
    // The client goes on sending for a moment; none of it makes the connection reset.
    for _ in 0..5 {
        client.write_all(b"and on").unwrap();
        assert_eq!(poll_now(&mut reactor), []);
    }
    let mut last = String::new();
    client.read_to_string(&mut last).unwrap();
    assert_eq!(last, "kicked");
    assert_eq!(reactor.stats().open, 1);
    drop(client);
    let deadline = net::sys::monotonic_now() + PATIENCE.as_nanos() as u64;
    while reactor.stats().open > 0 {
        reactor.wait(Some(deadline), false).unwrap();
        assert_eq!(reactor.next_ready(), None);
        assert!(net::sys::monotonic_now() < deadline);
    }
}

#[test]
fn lingering_ends_by_itself() {
    let (mut reactor, _client, token) = connected(ReactorConfig::default());
    let before = net::sys::monotonic_now();
    reactor.linger(token);
    while reactor.stats().open > 0 {
        reactor.wait(None, false).unwrap();
        assert_eq!(reactor.next_ready(), None);
    }
    let took = net::sys::monotonic_now() - before;
    assert!((1_000_000_000..3_000_000_000).contains(&took), "{took} ns");
}

#[test]
fn foreign_descriptors_are_watched_for_what_was_asked() {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let (ours, mut other) = UnixStream::pair().unwrap();
    let fd = ours.as_raw_fd();
    reactor.watch(fd, true, false).unwrap();
    assert_eq!(poll_now(&mut reactor), []);
    other.write_all(b"x").unwrap();
    let both = |read, write| Ready::Foreign { fd, read, write, error: false };
    for _ in 0..2 {
        assert_eq!(poll_now(&mut reactor), [both(true, false)], "level-triggered");
    }
    reactor.watch(fd, true, true).unwrap();
    assert_eq!(poll_now(&mut reactor), [both(true, true)]);
    reactor.watch(fd, false, true).unwrap();
    assert_eq!(poll_now(&mut reactor), [both(false, true)]);
    reactor.unwatch(fd).unwrap();
    assert_eq!(poll_now(&mut reactor), []);
    assert!(reactor.unwatch(fd).is_err());
    assert!(reactor.watch(-1, true, true).is_err());

    // Closed without a word, its number given to somebody else.
    reactor.watch(fd, true, false).unwrap();
    drop(ours);
    let (again, mut other) = UnixStream::pair().unwrap();
    let again = if again.as_raw_fd() == fd { OwnedFd::from(again) } else { panic!("not the same number") };
    reactor.watch(fd, true, false).unwrap();
    other.write_all(b"y").unwrap();
    assert_eq!(poll_now(&mut reactor), [both(true, false)]);
    drop(again);
}

#[test]
fn a_burst_of_wakes_is_one() {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let waker = reactor.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        std::thread::spawn(move || (0..100).for_each(|_| waker.wake())).join().unwrap();
    }
    assert_eq!(poll(&mut reactor), [Ready::Woken]);
    assert_eq!(poll_now(&mut reactor), []);
    waker.wake();
    reactor.wait(None, false).unwrap(); // and what it found is not asked for
    assert_eq!(poll(&mut reactor), [Ready::Woken]);
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    for spin in [false, true] {
        for millis in [2, 1, 3] {
            let deadline = net::sys::monotonic_now() + millis * 1_000_000;
            while net::sys::monotonic_now() < deadline {
                reactor.wait(Some(deadline), spin).unwrap();
                assert_eq!(reactor.next_ready(), None);
            }
        }
    }
    // In the past, now, and with a later one set before.
    let now = net::sys::monotonic_now();
    reactor.wait(Some(1), false).unwrap();
    reactor.wait(Some(now - 1), false).unwrap();
    reactor.wait(Some(now + 1_000), false).unwrap();
    reactor.wait(Some(now + 500), false).unwrap();
}

#[test]
fn a_full_batch_says_that_there_may_be_more() {
    let (mut reactor, address) =
        listening(ReactorConfig { events_per_wait: 2, ..ReactorConfig::default() }, None);
    let mut clients: Vec<_> = (0..3).map(|_| client(address)).collect();
    for _ in 0..3 {
        poll_now(&mut reactor);
    }
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    assert_eq!(poll_now(&mut reactor).len(), 2);
    assert!(reactor.ready_is_partial());
}

#[test]
fn two_reactors_share_a_listener() {
    let listener = Arc::new(Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap());
    let Address::Tcp(address) = *listener.local_address() else { panic!("not TCP") };
    let admission = Arc::new(Admission::new(0, 0, None));
    let mut reactors: Vec<_> = (0..2).map(|_| Reactor::new(ReactorConfig::default()).unwrap()).collect();
    for reactor in &mut reactors {
        reactor.listen(listener.clone(), admission.clone(), None).unwrap();
    }
    let _client = client(address);
    let accepted: usize = reactors.iter_mut().map(|reactor| poll_now(reactor).len()).sum();
    assert_eq!((accepted, admission.connections()), (1, 1));
    reactors[0].stop_listening();
    let _second = client(address);
    assert_eq!(poll_now(&mut reactors[0]), []);
    assert!(matches!(poll(&mut reactors[1])[..], [Ready::Accepted(_)]));
}

/// Three clients whose sockets may be told of late.
fn late_ones() -> (Reactor, Vec<(TcpStream, Token)>) {
    let (mut reactor, address) = listening(ReactorConfig::default(), None);
    let clients = (0..3).map(|_| (client(address), accepted(&mut reactor))).collect::<Vec<_>>();
    clients.iter().for_each(|(_, token)| reactor.set_late(*token, true));
    (reactor, clients)
}

#[test]
fn a_socket_that_may_be_told_of_late_is_told_of_all_the_same() {
    let (mut reactor, mut clients) = late_ones();
    for round in 0..500 {
        let (client, token) = &mut clients[round % 3];
        client.write_all(b"x").unwrap();
        if round % 5 == 0 {
            reactor.set_late(*token, round % 2 == 0); // with a byte that nobody has seen yet
        }
        assert_eq!(readable(&mut reactor), *token);
        assert_eq!(read_text(&mut reactor, *token), "x");
    }
    let told = reactor.stats().told_late;
    assert!((100..500).contains(&told), "{told}");
    for (client, token) in clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(readable(&mut reactor), token);
        assert!(matches!(reactor.read(token, |bytes, _, _| (all(bytes), ())), Read::Eof));
        assert!(reactor.close(token));
    }
    assert!(poll_now(&mut reactor).is_empty());
}

#[test]
fn a_wait_that_ends_at_its_deadline_tells_of_all_that_has_come() {
    let (mut reactor, mut clients) = late_ones();
    for round in 0..300 {
        let (client, token) = &mut clients[round % 3];
        client.write_all(b"x").unwrap();
        reactor.wait(Some(1), false).unwrap(); // long ago
        assert_eq!(reactor.next_ready(), Some(Ready::Readable(*token)), "round {round}");
        assert_eq!(read_text(&mut reactor, *token), "x");
        assert_eq!(reactor.next_ready(), None);
    }
}
