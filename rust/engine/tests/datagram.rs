//! A peer behind datagrams: what may be dropped is dropped and comes in any order, what is reliable comes in order.
//!
//! `poll_transmit` is the outbox here: each packet is whole and bears its class, so a transport may treat each as it may.

mod common;

use std::collections::BTreeMap;

use common::{Packet, Pair, Saw, Setup};
use engine::event::Class;
use engine::link::Phase;
use proptest::collection::vec;
use proptest::prelude::*;

const KEYS: u64 = 4;

/// What the game does.
#[derive(Clone, Debug)]
enum Op {
    Push(Class, u64),
    Broadcast(Class, u64),
    Request,
    Beat,
    /// The network carries what is on its way, after this fate of each packet that may be dropped.
    Carry(Vec<Fate>),
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    IsLost,
    /// It comes with the next load, behind younger ones.
    IsLate,
}

/// The network between: a stream for what is reliable, datagrams for the rest.
#[derive(Default)]
struct Network {
    late: Vec<Packet>,
}

impl Network {
    /// What arrives of these packets, in the order in which it does.
    fn carry(&mut self, packets: Vec<Packet>, fates: &[Fate]) -> Vec<Vec<u8>> {
        let (mut arrived, mut fates) = (Vec::new(), fates.iter().cycle());
        let late = std::mem::take(&mut self.late);
        for packet in packets.into_iter().chain(late) {
            let fate = if packet.class == Class::Reliable { &Fate::Arrives } else { fates.next().unwrap() };
            match fate {
                Fate::Arrives => arrived.push(packet.bytes),
                Fate::IsLost => {}
                Fate::IsLate => self.late.push(packet),
            }
        }
        arrived
    }
}

/// A game whose pushes are numbered, and what its client makes of them.
struct Game {
    pair: Pair,
    network: Network,
    number: u64,
    reliable: Vec<String>,
    sent: BTreeMap<String, Class>,
    /// What a client does with values of its own: keeps the newest of each key.
    shown: BTreeMap<String, u64>,
}

impl Game {
    fn new(websocket: bool) -> Self {
        let mut pair = Pair::connected_by(Setup { websocket, ..Setup::default() });
        pair.saw.clear();
        pair.is_stuck = true; // the network carries, not the pair
        Self {
            pair,
            network: Network::default(),
            number: 0,
            reliable: Vec::new(),
            sent: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    fn push(&mut self, class: Class, key: u64, to_all: bool) {
        self.number += 1;
        let (route, body) = (format!("k{key}"), self.number.to_string());
        let session = self.pair.session();
        let realm = &mut self.pair.server.realm;
        if to_all {
            assert_eq!(realm.push_all(None, class, key, &route, body.as_bytes()), 1);
        } else {
            realm.push(session, class, key, &route, body.as_bytes()).unwrap();
        }
        if class == Class::Reliable {
            self.reliable.push(body.clone());
        }
        self.sent.insert(body, class);
        self.pair.server.settle();
    }

    fn carry(&mut self, fates: &[Fate]) {
        self.pair.run(); // the client's requests arrive, their answers are queued
        let now = self.pair.now();
        let end = self.pair.server.end(self.pair.link);
        let packets: Vec<Packet> = end.queue.packets.drain(..).collect();
        end.link.handle_sent(0, &mut end.ups);
        for bytes in self.network.carry(packets, fates) {
            self.pair.client.feed(now, &bytes);
            self.read();
        }
    }

    fn read(&mut self) {
        self.pair.run();
        for saw in std::mem::take(&mut self.pair.saw) {
            let (route, body) = match saw {
                Saw::Push { route, body } => (route, String::from_utf8(body).unwrap()),
                Saw::Response { error: false, body, .. } => {
                    ("answer".to_owned(), String::from_utf8(body).unwrap())
                }
                other => panic!("{other:?}"),
            };
            let class = self.sent.remove(&body).expect("sent, and seen once");
            if class == Class::Reliable {
                assert_eq!(self.reliable.remove(0), body, "in order, without a gap");
            }
            if class == Class::Latest {
                let number = body.parse().unwrap();
                // An older one that comes late shows nothing.
                let shown = self.shown.entry(route).or_default();
                *shown = (*shown).max(number);
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Push(class, key) => self.push(*class, *key, false),
            Op::Broadcast(class, key) => self.push(*class, *key, true),
            Op::Request => {
                self.number += 1;
                let body = self.number.to_string();
                self.pair.request(self.number as u32, "echo", body.as_bytes());
                self.reliable.push(body.clone());
                self.sent.insert(body, Class::Reliable);
                self.pair.run();
            }
            Op::Beat => {
                self.pair.advance(common::secs(15));
                self.carry(&[Fate::Arrives]);
            }
            Op::Carry(fates) => self.carry(fates),
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let class = || prop_oneof![Just(Class::Reliable), Just(Class::Latest), Just(Class::Droppable)];
    let fate = prop_oneof![2 => Just(Fate::Arrives), 1 => Just(Fate::IsLost), 1 => Just(Fate::IsLate)];
    prop_oneof![
        4 => (class(), 0..KEYS).prop_map(|(class, key)| Op::Push(class, key)),
        2 => (class(), 0..KEYS).prop_map(|(class, key)| Op::Broadcast(class, key)),
        1 => Just(Op::Request),
        1 => Just(Op::Beat),
        2 => vec(fate, 1..6).prop_map(Op::Carry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_peer_that_drops_and_reorders_what_may_be_dropped_stays_right(ops in vec(op(), 1..60), websocket: bool) {
        let mut game = Game::new(websocket);
        ops.iter().for_each(|op| game.run(op));
        // At last the network is well, and one more value of each key comes.
        game.carry(&[Fate::Arrives]);
        let latest: Vec<u64> = (0..KEYS).map(|key| {
            game.push(Class::Latest, key, false);
            game.number
        }).collect();
        game.carry(&[Fate::Arrives]);
        prop_assert!(game.reliable.is_empty() && game.sent.values().all(|class| *class != Class::Reliable));
        let shown: Vec<u64> = game.shown.values().copied().collect();
        prop_assert_eq!(shown, latest, "the newest of each key");
        prop_assert_eq!(game.pair.client.link.phase(), Phase::Ready);
        prop_assert_eq!((game.pair.closed(), game.pair.server.story()), (None, "knocked joined".to_owned()));
        let session = game.pair.session();
        game.run(&Op::Beat);
        prop_assert!(game.pair.server.realm.session(session).unwrap().queued_bytes() <= 8 * 1024);
    }
}

/// One packet, one call: whatever the class, alone it means what it means among others.
#[test]
fn each_packet_stands_alone() {
    for websocket in [false, true] {
        let mut game = Game::new(websocket);
        game.push(Class::Latest, 1, false);
        game.push(Class::Reliable, 2, true);
        game.push(Class::Droppable, 3, true);
        let end = game.pair.server.end(game.pair.link);
        let classes: Vec<(Class, u64)> =
            end.queue.packets.iter().map(|packet| (packet.class, packet.key)).collect();
        assert_eq!(classes, [(Class::Latest, 1), (Class::Reliable, 2), (Class::Droppable, 3)]);
        for packet in end.queue.packets.clone().into_iter().rev() {
            let now = game.pair.now();
            game.pair.client.feed(now, &packet.bytes);
        }
        assert!(!game.pair.client.link.has_leftover());
        game.pair.server.end(game.pair.link).queue.packets.clear();
        game.pair.run();
        assert_eq!(game.pair.bodies(), ["3", "2", "1"]);
    }
}
