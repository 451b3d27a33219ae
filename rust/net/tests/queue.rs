//! The send queue against a plain model of it: a list of packets.

use bytes::Bytes;
use net::pool::Pool;
use net::queue::{Class, KEY_FEW, PRIORITY_NORMAL, SendQueue};
use proptest::prelude::*;
use std::io::IoSlice;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Append { class: Class, key: u64, len: usize, how: How },
    Send(usize),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Unsized,
    Sized,
    Shared,
}

struct Packet {
    class: Class,
    key: u64,
    bytes: Vec<u8>,
    sent: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop_oneof![Just(Class::Reliable), Just(Class::Latest), Just(Class::Droppable)];
    let how = prop_oneof![Just(How::Unsized), Just(How::Sized), Just(How::Shared)];
    let len = prop_oneof![0..80usize, 400..600usize, 1_000..5_000usize];
    let append =
        (class, key(), len, how).prop_map(|(class, key, len, how)| Step::Append { class, key, len, how });
    let send = prop_oneof![1..20usize, 1..6_000usize].prop_map(Step::Send);
    prop::collection::vec(prop_oneof![3 => append, 1 => send], 1..120)
}

/// Any priority, and one of three of the latest; some of them are few.
fn key() -> impl Strategy<Value = u64> {
    (-1..2i64, 0..3u64, prop::bool::weighted(0.2))
        .prop_map(|(priority, key, is_few)| (priority as u64) << 62 | if is_few { KEY_FEW } else { 0 } | key)
}

fn priority(class: Class, key: u64) -> i8 {
    if class == Class::Reliable { PRIORITY_NORMAL } else { (key as i64 >> 62) as i8 }
}

fn queued(queue: &SendQueue) -> Vec<u8> {
    let mut slices = vec![IoSlice::new(&[]); 500];
    let filled = queue.slices(&mut slices);
    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
}

fn modelled(model: &[Packet]) -> Vec<u8> {
    model.iter().flat_map(|packet| packet.bytes[packet.sent..].iter().copied()).collect()
}

/// What counts toward the bound: at least its bytes, and at most a segment for each packet.
fn bounded(model: &[Packet]) -> (usize, usize) {
    let counts = |packet: &&Packet| packet.class != Class::Latest;
    let bytes = model.iter().filter(counts).map(|packet| packet.bytes.len() - packet.sent).sum::<usize>();
    (bytes, bytes + 512 * model.iter().filter(counts).count())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn a_queue_is_a_list_of_packets(steps in steps(), bytes_max in 500..20_000usize) {
        let pool = Pool::new();
        let mut queue = SendQueue::new(bytes_max);
        let mut model: Vec<Packet> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let before = queue.len_bytes();
            match step {
                Step::Send(bytes) => {
                    let bytes = bytes.min(before);
                    queue.advance(bytes);
                    let mut left = bytes;
                    while left > 0 {
                        let leaves = left.min(model[0].bytes.len() - model[0].sent);
                        model[0].sent += leaves;
                        left -= leaves;
                        if model[0].sent == model[0].bytes.len() {
                            model.remove(0);
                        }
                    }
                    prop_assert_eq!(queue.take_dropped(), 0);
                }
                Step::Append { class, key, len, how } => {
                    let bytes: Vec<u8> = (0..len).map(|at| (n + at) as u8).collect();
                    let write = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
                    let appended = match how {
                        How::Unsized => queue.append(&pool, class, key, write),
                        How::Sized => queue.append_sized(&pool, class, key, len, write),
                        How::Shared => queue.append_shared(&pool, class, key, &Arc::new(Bytes::copy_from_slice(&bytes))),
                    };
                    let (least, most) = bounded(&model);
                    let waits = |packet: &&Packet| packet.class == Class::Latest && packet.key & KEY_FEW == 0 && packet.sent == 0;
                    let latest: usize = model.iter().filter(waits).map(|packet| packet.bytes.len() + 512).sum();
                    let mut dropped = queue.take_dropped() as usize;
                    let replaced = model.iter_mut().find(|packet| {
                        class == Class::Latest && len > 0 && packet.class == class && packet.key == key && packet.sent == 0
                    });
                    if let Some(replaced) = replaced {
                        prop_assert_eq!(dropped, 1);
                        dropped = 0;
                        replaced.bytes = bytes;
                    } else if class == Class::Latest && key & KEY_FEW == 0 && len > 0 && latest + len + 512 > bytes_max {
                        prop_assert_eq!(dropped, 1, "the bound of the latest");
                        dropped = 0;
                    } else if appended.is_ok() {
                        let own = priority(class, key);
                        let goes_before = |other: &Packet| {
                            other.class != Class::Reliable && priority(other.class, other.key) < own && other.sent == 0
                        };
                        let at = model.iter().rposition(|other| !goes_before(other)).map_or(0, |place| place + 1);
                        model.insert(at, Packet { class, key, bytes, sent: 0 });
                    } else {
                        prop_assert_eq!(class, Class::Reliable, "only a reliable packet is refused");
                        prop_assert!(most + len + 512 > bytes_max);
                    }
                    if dropped > 0 {
                        prop_assert!(most + len + 512 > bytes_max, "dropped although there was room");
                    }
                    // The oldest unsent droppable ones of the lowest priority go; of higher ones than its own, none for it, but
                    // it itself.
                    for _ in 0..dropped {
                        let droppable = |packet: &&Packet| packet.class == Class::Droppable && packet.sent == 0;
                        let lowest = model.iter().filter(droppable).map(|packet| priority(packet.class, packet.key)).min();
                        prop_assert!(lowest.is_some(), "nothing droppable was left");
                        let is_oldest = |packet: &Packet| droppable(&packet) && priority(packet.class, packet.key) == lowest.unwrap();
                        let at = model.iter().position(is_oldest).unwrap();
                        prop_assert!(class == Class::Reliable || lowest.unwrap() <= priority(class, key));
                        model.remove(at);
                    }
                    model.retain(|packet| packet.sent < packet.bytes.len());
                    prop_assert!(least <= bytes_max);
                }
            }
            prop_assert_eq!(queued(&queue), modelled(&model));
            prop_assert_eq!(queue.len_bytes(), modelled(&model).len());
            prop_assert_eq!(queue.is_empty(), model.is_empty());
            prop_assert!(bounded(&model).0 <= bytes_max, "the bound holds");
        }
        queue.advance(queue.len_bytes());
        prop_assert!(queue.is_empty());
        prop_assert_eq!(pool.stats().out, 0);
    }
}
