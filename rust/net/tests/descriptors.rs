//! What happens when there are no descriptors left. The limit is the process's, so this test has a process of its own.

mod common;

use common::*;
use net::reactor::{ReactorConfig, Ready};
use net::sys::{monotonic_now, raise_descriptor_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Read as _;
use std::net::TcpStream;

#[test]
fn without_descriptors_it_neither_spins_nor_forgets_its_listener() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let (mut reactor, address) = listening(ReactorConfig::default(), None);

    // The clients take descriptors as well: whoever comes first, in the end there is none.
    let mut clients = Vec::new();
    let mut tokens = Vec::new();
    while let Ok(client) = TcpStream::connect(address) {
        clients.push(client);
    }
    // Some clients go, their places are for the server; the last of them has to wait.
    clients.drain(..clients.len() / 3);
    let started = monotonic_now();
    let (mut waits, mut cpu) = (0, rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime));
    while monotonic_now() < started + 350_000_000 {
        reactor.wait(Some(started + 350_000_000), false).unwrap();
        waits += 1;
        while let Some(ready) = reactor.next_ready() {
            match ready {
                Ready::Accepted(token) => tokens.push(token),
                // The end of one that went before it was let in.
                Ready::Readable(token) => drop(reactor.read(token, |bytes, _, _| (all(bytes), ()))),
                other => panic!("{other:?}"),
            }
        }
    }
    let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    cpu.tv_nsec = (after.tv_sec - cpu.tv_sec) * 1_000_000_000 + after.tv_nsec - cpu.tv_nsec;
    let refused = reactor.stats().refused_descriptors;
    assert!((2..=4).contains(&refused), "one at each try: {refused}");
    assert!(waits < 20, "{waits} waits");
    assert!(cpu.tv_nsec < 50_000_000, "{} ns of CPU", cpu.tv_nsec);
    assert!(!tokens.is_empty());

    // Relief: those that wait come in within a second, and a new one too.
    let before = tokens.len();
    for token in tokens.drain(..) {
        reactor.close(token);
    }
    let relieved = monotonic_now();
    accepted(&mut reactor);
    assert!(monotonic_now() - relieved < 1_000_000_000);
    assert!(before > 0);

    // Who was turned away knows it.
    let told = |client: &mut TcpStream| {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    };
    assert!(clients.iter_mut().any(told));

    let (soft, now) = raise_descriptor_limit().unwrap();
    assert_eq!((soft, Some(now)), (64, limit.maximum));
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    assert_eq!(raise_descriptor_limit().unwrap(), (now, now));
}
