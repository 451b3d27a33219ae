//! How many may come in, over each kind of socket.

mod common;

use common::*;
use net::address::Address;
use net::admission::Admission;
use net::listener::Listener;
use net::reactor::{Reactor, ReactorConfig, Ready, Token};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A reactor that listens at `address` as `admission` allows, and where.
fn capped(address: &Address, admission: &Arc<Admission>) -> (Reactor, Address) {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let listener = Arc::new(Listener::bind(address).unwrap());
    let address = listener.local_address().clone();
    reactor.listen(listener, admission.clone(), None).unwrap();
    (reactor, address)
}

fn tcp(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}

fn connect(address: &Address) -> Box<dyn Read> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
    }
}

/// Accepts whoever waits; everybody has connected already.
fn accept_all(reactor: &mut Reactor) -> Vec<Token> {
    poll_now(reactor)
        .into_iter()
        .map(|ready| match ready {
            Ready::Accepted(token) => token,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn beyond_the_cap_for_one_address_a_connection_is_closed_and_counted() {
    for (address, refused) in [("127.0.0.1:0", true), ("[::1]:0", true), ("unix", false)] {
        let path = std::env::temp_dir().join(format!("net-caps-{}", std::process::id()));
        let address = if refused { tcp(address) } else { Address::Unix(path) };
        let admission = Arc::new(Admission::new(0, 3, None));
        let (mut reactor, address) = capped(&address, &admission);
        let mut clients: Vec<_> = (0..5).map(|_| connect(&address)).collect();
        let tokens = accept_all(&mut reactor);
        if !refused {
            // Who comes by a Unix socket has no address.
            assert_eq!((tokens.len(), reactor.stats().refused_address), (5, 0));
            assert_eq!((admission.connections(), admission.addresses_known()), (5, 0));
            continue;
        }
        assert_eq!((tokens.len(), reactor.stats().refused_address), (3, 2), "{address}");
        assert_eq!((admission.connections(), admission.addresses_known()), (3, 1));
        for client in &mut clients[3..] {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "who is turned away is told");
        }
        // A place is free as soon as one goes, and for one alone.
        reactor.close(tokens[1]);
        let _more = [connect(&address), connect(&address)];
        assert_eq!((accept_all(&mut reactor).len(), reactor.stats().refused_address), (1, 3));
        drop(reactor);
        assert_eq!((admission.connections(), admission.addresses_known()), (0, 0));
    }
}

#[test]
fn beyond_the_cap_in_all_a_connection_is_closed_and_counted_whatever_it_comes_by() {
    // One admission for all of a server's listeners.
    let path = std::env::temp_dir().join(format!("net-caps-all-{}", std::process::id()));
    let admission = Arc::new(Admission::new(4, 0, None));
    let mut listening =
        [tcp("127.0.0.1:0"), tcp("[::1]:0"), Address::Unix(path)].map(|address| capped(&address, &admission));
    let mut clients = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for (reactor, address) in &mut listening {
        clients.extend([connect(address), connect(address)]);
        accepted += accept_all(reactor).len();
        refused += reactor.stats().refused_full;
    }
    assert_eq!((accepted, refused, admission.connections()), (4, 2, 4));
    for client in &mut clients[4..] {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}
