//! Any stream of items, however it is cut and however few are taken at a time, arrives as it was sent.

mod common;

use common::*;
use net::reactor::{Reactor, ReactorConfig, Read, Ready, Taken, Token};
use proptest::prelude::*;
use std::io::Write as _;

/// An item on the wire: its length in three bytes, then its content.
fn item(len: usize, seed: usize) -> Vec<u8> {
    let mut item = (len as u32).to_be_bytes()[1..].to_vec();
    item.extend((0..len).map(|at| (at * 7 + seed) as u8));
    item
}

/// Takes up to `budget` items off `bytes`.
fn take(bytes: &[u8], mut budget: usize, items: &mut Vec<Vec<u8>>) -> Taken {
    let mut consumed = 0;
    loop {
        let left = &bytes[consumed..];
        let Some(&[a, b, c]) = left.first_chunk() else {
            return Taken { consumed, needed: if left.is_empty() { 0 } else { 3 } };
        };
        let needed = 3 + u32::from_be_bytes([0, a, b, c]) as usize;
        if left.len() < needed || budget == 0 {
            return Taken { consumed, needed };
        }
        items.push(left[..needed].to_vec());
        consumed += needed;
        budget -= 1;
    }
}

fn read_all(reactor: &mut Reactor, token: Token, budget: usize, items: &mut Vec<Vec<u8>>) -> bool {
    let mut read = reactor.read(token, |bytes, _, _| (take(bytes, budget, items), ()));
    loop {
        match read {
            Read::Data { pending: true, .. } => {
                read = reactor.pending(token, |bytes, _, _| (take(bytes, budget, items), ()));
            }
            Read::Data { pending: false, .. } | Read::Partial => return true,
            Read::WouldBlock => return false,
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn items_arrive_as_they_were_sent(
        lens in prop::collection::vec(prop_oneof![4 => 0..200usize, 2 => 1_500..9_000usize, 1 => 30_000..150_000usize], 1..25),
        cuts in prop::collection::vec(prop_oneof![1..50usize, 1_000..10_000usize, 20_000..90_000usize], 1..20),
        budget in 1..6usize,
    ) {
        let (mut reactor, mut client, token) = connected(ReactorConfig::default());
        let sent: Vec<_> = lens.iter().enumerate().map(|(seed, &len)| item(len, seed)).collect();
        let stream = sent.concat();
        let (mut items, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().cycle());
        while at < stream.len() {
            let end = stream.len().min(at + cuts.next().unwrap());
            client.write_all(&stream[at..end]).unwrap();
            at = end;
            while reactor.stats().bytes_in < at as u64 {
                prop_assert_eq!(poll(&mut reactor), [Ready::Readable(token)]);
                read_all(&mut reactor, token, budget, &mut items);
                prop_assert!(reactor.pool().stats().out <= 1);
            }
        }
        prop_assert!(items == sent);
        prop_assert_eq!(reactor.pool().stats().out, 0);
    }
}
