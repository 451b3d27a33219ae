//! Snapshots of the replicated world: one at a time, for those who asked, at nobody's charge.

mod common;

use common::{Pair, SECOND, Server, Setup, hex, spaced};
use engine::event::{Class, LinkId, Up, UpLog};
use engine::realm::SessionKey;

const WATCHER: &str = r#"{"sys":{"type":"test","gs":{"world":true}},"user":{}}"#;

/// Two parts in the log of the first reactor.
fn push(server: &mut Server, session: SessionKey, head: &[u8], body: &[u8]) -> bool {
    let log = server.realm.downs(0);
    let parts = [log.store(head), log.store(body)];
    server.realm.push_snapshot(session, 0, "$w", parts)
}

fn watcher(websocket: bool) -> Pair {
    Pair::connected_by(Setup { handshake: WATCHER.to_owned(), websocket, ..Setup::default() })
}

fn left(server: &mut Server, link: LinkId, number: u16) {
    server.realm.handle_up(server.now, &Up::SnapshotLeft { link, number }, &UpLog::default());
}

#[test]
fn only_who_asked_gets_snapshots() {
    let mut pair = Pair::connected();
    let session = pair.session();
    assert!(!push(&mut pair.server, session, b"a", b"b"));
    assert_eq!(pair.server.realm.snapshot_link(session, 0), None);
    let mut pair = watcher(false);
    let session = pair.session();
    assert!(pair.server.realm.wants_world(session));
    assert!(push(&mut pair.server, session, b"a", b"b"));
}

#[test]
fn a_snapshot_is_one_push_of_its_parts() {
    for (websocket, bytes) in
        [(false, "04 00 00 08 06 02 24 77 68 65 61 64"), (true, "82 0c 04 00 00 08 06 02 24 77 68 65 61 64")]
    {
        let mut pair = watcher(websocket);
        let (link, session) = (pair.link, pair.session());
        assert!(push(&mut pair.server, session, b"he", b"ad"));
        pair.server.settle();
        let packet = pair.server.end(link).queue.packets.pop_back().unwrap();
        assert_eq!((packet.class, spaced(&packet.bytes)), (Class::Latest, spaced(&hex(bytes))));
        assert_eq!(pair.server.realm.session(session).unwrap().queued_bytes(), 0);
    }
}

#[test]
fn it_waits_until_its_first_byte_has_left_and_no_other_ones() {
    let mut pair = watcher(false);
    let (link, session) = (pair.link, pair.session());
    let waits = |pair: &Pair| pair.server.realm.snapshot_link(session, 0).unwrap().1;
    assert!(!waits(&pair));
    push(&mut pair.server, session, b"1", b"");
    assert!(waits(&pair));
    pair.server.settle();
    let end = pair.server.end(link);
    assert!(end.link.snapshot_waits());
    end.link.handle_snapshot_left(&mut end.ups);
    assert!(!end.link.snapshot_waits());
    pair.server.settle();
    assert!(!waits(&pair));
    // What is told of the second comes when the third has been asked for: that one still waits.
    push(&mut pair.server, session, b"2", b"");
    push(&mut pair.server, session, b"3", b"");
    left(&mut pair.server, link, 2);
    assert!(waits(&pair));
    left(&mut pair.server, link, 3);
    assert!(!waits(&pair));
}

#[test]
fn each_rooms_last_snapshot_waits_by_itself() {
    let mut pair = watcher(false);
    let (link, session) = (pair.link, pair.session());
    let send = |pair: &mut Pair, room: u32, body: &[u8]| {
        let part = pair.server.realm.downs(0).store(body);
        pair.server.realm.push_snapshot(session, room, &format!("$w@{room}"), [part])
    };
    let waits = |pair: &Pair, room| pair.server.realm.snapshot_link(session, room).unwrap().1;
    assert!(send(&mut pair, 1, b"a") && send(&mut pair, 2, b"b"));
    pair.server.settle();
    // Either replaces its own room's alone.
    let keys: Vec<_> = pair.server.end(link).queue.packets.iter().map(|packet| packet.key).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    assert!(send(&mut pair, 1, b"c"));
    left(&mut pair.server, link, 2);
    assert!(waits(&pair, 1) && !waits(&pair, 2) && !waits(&pair, 0));
    left(&mut pair.server, link, 3);
    assert!(!waits(&pair, 1));
    // Who joins and leaves rooms without reading gets so many, and no more.
    let taken = (1..=100).filter(|&room| send(&mut pair, room, b"d")).count();
    assert_eq!(taken, 32);
    assert!(send(&mut pair, 1, b"e"));
}

#[test]
fn a_client_that_comes_back_owes_nothing_of_its_old_link() {
    let mut setup = Setup { handshake: WATCHER.to_owned(), ..Setup::default() };
    setup.realm.resume_grace = 10 * SECOND;
    let mut pair = Pair::connected_by(setup);
    let session = pair.session();
    push(&mut pair.server, session, b"1", b"");
    pair.cut_off();
    pair.server.settle();
    assert_eq!(pair.server.realm.snapshot_link(session, 0), None);
    assert!(!push(&mut pair.server, session, b"2", b""));
}

#[test]
fn parts_that_a_log_does_not_have_are_left_out() {
    let mut pair = watcher(false);
    let log = pair.server.realm.downs(0);
    let good = log.store(b"good");
    let wrong = log.store_parts([
        engine::event::Span { start: u32::MAX, len: 1 },
        good,
        engine::event::Span { start: good.start, len: u32::MAX },
    ]);
    assert_eq!(log.parts(wrong).collect::<Vec<_>>(), [b"good"]);
}

#[test]
fn what_no_packet_holds_is_not_sent_and_said() {
    let mut pair = watcher(false);
    let session = pair.session();
    let part = pair.server.realm.downs(0).store(&vec![0; 1 << 20]);
    assert!(pair.server.realm.push_snapshot(session, 0, "$w", [part; 15]));
    assert!(!pair.server.realm.push_snapshot(session, 0, "$w", [part; 16]));
    assert_eq!(pair.server.realm.stats().dropped, 1);
    // The one before is still the last.
    let link = pair.link;
    left(&mut pair.server, link, 1);
    assert!(!pair.server.realm.snapshot_link(session, 0).unwrap().1);
}
