//! Packets in WebSocket frames: how they may be cut, what is answered to control frames, and how such links end.

mod common;

use common::{Authenticate, HANDSHAKE, Pair, Saw, Server, Setup, hex, secs, spaced};
use engine::event::{Class, Close, LinkId};
use engine::link::{Ending, Origins, Pass, Phase};
use wire::websocket::frame::{OpCode, encode_frame};
use wire::websocket::upgrade;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const ACK: [u8; 4] = [2, 0, 0, 0];

/// A client's frame.
fn frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(opcode, fin, Some(MASK), payload, &mut out);
    out
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Binary, true, payload)
}

/// A request `id` on `echo` with the body `{}`.
fn echo(id: u8) -> Vec<u8> {
    [&[4, 0, 0, 9, 0, id, 4][..], b"echo{}"].concat()
}

/// Its answer, in a frame.
fn echoed(id: u8) -> Vec<u8> {
    vec![0x82, 8, 4, 0, 0, 4, 4, id, b'{', b'}']
}

fn request() -> Vec<u8> {
    upgrade::request("game.example:7777", "/", None, *b"the sample nonce").unwrap()
}

fn upgraded_by(setup: &Setup) -> (Server, LinkId) {
    let mut server = Server::new(setup);
    let link = server.connect();
    let answer = server.send(link, &request());
    assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    (server, link)
}

/// A session over WebSocket.
fn joined() -> (Server, LinkId) {
    let (mut server, link) = upgraded_by(&Setup::default());
    let answer = server.send(link, &binary(&HANDSHAKE.concat()));
    assert_eq!(spaced(&answer[..6]), "82 4f 01 00 00 4b");
    assert_eq!(spaced(&server.send(link, &binary(&ACK))), "82 04 03 00 00 00");
    (server, link)
}

// -- how packets may be cut ------------------------------------------------------------------------------------------

#[test]
fn each_packet_that_we_send_is_a_frame() {
    let (mut server, link) = joined();
    assert_eq!(server.send(link, &binary(&echo(1))), echoed(1));
    let session = server.realm.session_of(link).unwrap();
    server.realm.push(session, Class::Reliable, 0, "a", b"{}").unwrap();
    server.realm.push_all(None, Class::Reliable, 0, "b", &[b'x'; 200][..]);
    server.settle();
    let said = server.take(link);
    let start = "82 09 04 00 00 05 06 01 61 7b 7d  82 7e 00 cf 04 00 00 cb 06 01 62 78";
    assert!(said.starts_with(&hex(start)), "{}", spaced(&said));
}

#[test]
fn a_frame_may_hold_several_packets() {
    let (mut server, link) = joined();
    let answer = server.send(link, &binary(&[echo(1), vec![3, 0, 0, 0], echo(2)].concat()));
    assert_eq!(answer, [echoed(1), echoed(2)].concat());
}

#[test]
fn a_packet_may_span_frames() {
    let bytes = [echo(1), echo(2)].concat();
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let (mut server, link) = joined();
            let mut answer = Vec::new();
            for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                answer.extend(server.send(link, &binary(part)));
            }
            assert_eq!(answer, [echoed(1), echoed(2)].concat(), "cut at {first} and {second}");
            assert!(format!("{:?}", server.end(link).link).contains("rare: None"), "it keeps no buffer");
        }
    }
}

#[test]
fn a_message_may_be_fragmented_with_control_frames_between() {
    let (mut server, link) = joined();
    let bytes = echo(1);
    let answer = server.send(
        link,
        &[
            frame(OpCode::Binary, false, &bytes[..3]),
            frame(OpCode::Ping, true, b"now"),
            frame(OpCode::Continuation, false, &[]),
            frame(OpCode::Pong, true, b"unasked"),
            frame(OpCode::Continuation, true, &bytes[3..]),
        ]
        .concat(),
    );
    assert_eq!(answer, [hex("8a 03 6e 6f 77"), echoed(1)].concat());
}

#[test]
fn what_a_frame_holds_beyond_the_budget_comes_first_in_the_next_pass() {
    let (mut server, link) = joined();
    let end = server.end(link);
    (end.budget, end.passes) = (4, 0);
    let ids = |range: std::ops::Range<u8>| range.flat_map(echo).collect::<Vec<u8>>();
    let half = &ids(10..11)[..7];
    let bytes = [binary(&[&ids(0..10), half].concat()), binary(&[&echo(10)[7..], &ids(11..13)].concat())];
    let answer = server.send(link, &bytes.concat());
    assert_eq!(answer, (0..13).flat_map(echoed).collect::<Vec<u8>>());
    // 13 packets and two frames, four a pass.
    assert_eq!((server.end(link).passes, server.end(link).link.has_leftover()), (4, false));
}

#[test]
fn what_a_frame_holds_behind_a_handshake_waits_for_the_answer() {
    let setup = Setup { authenticate: Authenticate::Wait, ..Setup::default() };
    let (mut server, link) = upgraded_by(&setup);
    let whole = [HANDSHAKE.concat(), ACK.to_vec(), echo(1)].concat();
    assert_eq!(server.send(link, &binary(&whole)), b"");
    assert!(server.end(link).link.held());
    server.send(link, &binary(&echo(2)));
    let session = server.realm.session_of(link).unwrap();
    server.realm.accept(session, None).unwrap();
    server.settle();
    let said = server.take(link);
    let rest = [hex("82 04 03 00 00 00"), echoed(1), echoed(2)].concat();
    assert!(said.ends_with(&rest), "{}", spaced(&said));
    assert_eq!(server.story(), "knocked joined");
}

#[test]
fn a_packet_in_frames_is_bounded_by_its_declared_length() {
    let (mut server, link) = joined();
    server.send(link, &binary(&hex("04 01")));
    assert_eq!(server.closed(link), None);
    let said = server.send(link, &binary(&hex("00 01")));
    assert_eq!((server.closed(link), spaced(&said).as_str()), (Some(Close::PacketTooLong), "88 02 03 f1"));
}

// -- against the rules -----------------------------------------------------------------------------------------------

#[test]
fn frames_against_the_rules_close_with_their_code() {
    for (bytes, why, said) in [
        (frame(OpCode::Text, true, b"hi"), Close::WebSocketInvalid, "88 02 03 eb"),
        (hex("82 02 00 00"), Close::WebSocketInvalid, "88 02 03 ea"), // no mask
        (hex("c2 80 00 00 00 00"), Close::WebSocketInvalid, "88 02 03 ea"), // reserved bits
        (hex("83 80 00 00 00 00"), Close::WebSocketInvalid, "88 02 03 ea"), // opcode 3
        (hex("80 80 00 00 00 00"), Close::WebSocketInvalid, "88 02 03 ea"), // continues nothing
        (hex("82 ff 00 00 00 00 00 01 00 05"), Close::WebSocketInvalid, "88 02 03 f1"), // too long
        (frame(OpCode::Close, true, &[3]), Close::WebSocketInvalid, "88 02 03 ea"),
        (binary(&[9]), Close::PacketType, "88 02 03 f0"),
        (binary(&[4, 0, 0, 1, 0x40]), Close::MessageInvalid, "88 02 03 f0"),
        (binary(&ACK), Close::HandshakeTwice, "88 02 03 f0"),
    ] {
        let (mut server, link) = joined();
        let answer = spaced(&server.send(link, &bytes));
        assert_eq!((server.closed(link), answer.as_str()), (Some(why), said), "{}", spaced(&bytes));
        assert_eq!(server.end(link).link.ending(), Ending::Drain);
    }
}

#[test]
fn before_the_ack_frames_are_short() {
    let (mut server, link) = upgraded_by(&Setup::default());
    server.send(link, &hex("82 fe 10 05")); // 4101: a packet of 4096 and its header are 4100
    assert_eq!(server.closed(link), Some(Close::WebSocketInvalid));
}

#[test]
fn a_request_that_is_no_upgrade_gets_its_status() {
    let right = String::from_utf8(request()).unwrap();
    for (from, to, status) in [
        ("Version: 13", "Version: 8", "426"),
        ("GET", "POST", "405"),
        ("Host: game.example:7777\r\n", "", "400"),
        ("\r\n\r\n", "\r\nno colon\r\n\r\n", "400"),
    ] {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        let answer = server.send(link, right.replacen(from, to, 1).as_bytes());
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{to}");
        assert_eq!((server.closed(link), server.events.len()), (Some(Close::HttpInvalid), 0));
    }
}

#[test]
fn pages_from_elsewhere_are_refused_unless_they_are_on_the_list() {
    let ask = |allowed: &[&str], origin: &str| {
        let mut setup = Setup::default();
        setup.link.allowed_origins = Origins::new(allowed.iter().map(|&origin| origin.to_owned()).collect());
        let mut server = Server::new(&setup);
        let link = server.connect();
        let request = upgrade::request("game.example", "/", Some(origin), [0; 16]).unwrap();
        let answer = server.send(link, &request);
        (String::from_utf8_lossy(&answer[9..12]).into_owned(), server.closed(link))
    };
    let refused = ("403".to_owned(), Some(Close::OriginRefused));
    let welcome = ("101".to_owned(), None);
    assert_eq!(ask(&[], "https://evil.example"), refused);
    assert_eq!(ask(&[], "http://game.example"), welcome);
    assert_eq!(ask(&["https://friend.example"], "https://friend.example"), welcome);
    assert_eq!(ask(&["*"], "https://evil.example"), welcome);
}

// -- ends ------------------------------------------------------------------------------------------------------------

#[test]
fn a_close_is_answered_with_its_code_and_nothing_behind_it() {
    for (payload, answer) in [(&[0x03, 0xe9][..], "88 02 03 e9"), (&[], "88 00")] {
        let (mut server, link) = joined();
        let session = server.realm.session_of(link).unwrap();
        let bytes = [binary(&echo(1)), frame(OpCode::Close, true, payload), binary(&echo(2))].concat();
        let now = server.now;
        server.end(link).feed(now, &bytes);
        // The game kicks whom it does not know to be gone yet.
        server.realm.kick(session, "too late");
        server.settle();
        let said = spaced(&server.take(link));
        assert_eq!((server.closed(link), said.as_str()), (Some(Close::Left), answer));
        assert_eq!(server.end(link).link.phase(), Phase::Closing);
    }
}

#[test]
fn a_kick_is_a_packet_and_then_a_close_frame() {
    let (mut server, link) = joined();
    let session = server.realm.session_of(link).unwrap();
    server.realm.kick(session, "a");
    server.settle();
    let kick = "82 12 05 00 00 0e 7b 22 72 65 61 73 6f 6e 22 3a 22 61 22 7d";
    assert_eq!(spaced(&server.take(link)), format!("{kick} 88 02 03 e8"));
    // The client's own close comes when all is said.
    assert_eq!(server.send(link, &frame(OpCode::Close, true, &[0x03, 0xe8])), b"");
    assert_eq!(server.closed(link), Some(Close::Kicked));
}

#[test]
fn a_server_that_stops_is_going_away() {
    let (mut server, link) = joined();
    server.realm.shutdown("bye");
    server.settle();
    assert!(server.take(link).ends_with(&hex("88 02 03 e9")));
    assert_eq!(server.closed(link), Some(Close::Shutdown));
}

#[test]
fn a_silent_one_is_told_the_rule_that_it_broke() {
    let (mut server, link) = joined();
    server.advance(secs(45));
    let said = spaced(&server.take(link));
    assert_eq!(said, "82 04 03 00 00 00 82 04 03 00 00 00 88 02 03 f0");
    assert_eq!(server.closed(link), Some(Close::Silent));
}

#[test]
fn pings_are_signs_of_life() {
    let (mut server, link) = joined();
    for _ in 0..100 {
        server.advance(secs(29));
        server.send(link, &frame(OpCode::Ping, true, b""));
    }
    assert_eq!((server.closed(link), server.story().as_str()), (None, "knocked joined"));
}

// -- client role -----------------------------------------------------------------------------------------------------

#[test]
fn a_client_masks_each_frame_with_another_number() {
    let mut pair = Pair::connected_by_websocket();
    let masks: Vec<Vec<u8>> = (0..50)
        .map(|id| {
            pair.request(id, "echo", b"{}");
            let bytes = pair.client.queue.packets.pop_back().unwrap().bytes;
            assert_eq!((bytes[0], bytes[1]), (0x82, 0x80 | 13));
            let mut unmasked = bytes[6..].to_vec();
            wire::websocket::frame::apply_mask(&mut unmasked, bytes[2..6].try_into().unwrap());
            assert_eq!(unmasked, echo(id as u8));
            bytes[2..6].to_vec()
        })
        .collect();
    let mut different = masks.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), masks.len());
}

#[test]
fn a_client_takes_no_masked_frame_and_no_answer_to_another_key() {
    let mut pair = Pair::connected_by_websocket();
    let now = pair.now();
    pair.client.feed(now, &binary(&[3, 0, 0, 0]));
    pair.run();
    assert_eq!(pair.saw.last(), Some(&Saw::Closed(Close::WebSocketInvalid)));
    let mut pair = Pair::new(Setup { websocket: true, ..Setup::default() });
    let other = upgrade::request("a", "/", None, [1; 16]).unwrap();
    let link = pair.server.connect();
    let answer = pair.server.send(link, &other);
    pair.client.feed(now, &answer);
    pair.advance(0);
    assert_eq!(pair.saw, [Saw::Closed(Close::HttpInvalid)]);
}

#[test]
fn a_client_reads_packets_however_they_are_framed() {
    let mut pair = Pair::connected_by_websocket();
    let now = pair.now();
    let push = hex("04 00 00 05 06 01 61 7b 7d");
    let mut bytes = Vec::new();
    let both = [push.clone(), push].concat();
    for part in [&both[..3], &both[3..13], &both[13..]] {
        encode_frame(OpCode::Binary, true, None, part, &mut bytes);
    }
    pair.client.budget = 1;
    pair.client.feed(now, &bytes);
    pair.run();
    assert_eq!(pair.bodies(), ["{}", "{}"]);
}

#[test]
fn a_client_that_closes_has_nothing_left_over() {
    let mut pair = Pair::connected_by_websocket();
    let now = pair.now();
    let push = hex("04 00 00 05 06 01 61 7b 7d");
    let mut frame = Vec::new();
    encode_frame(OpCode::Binary, true, None, &push.repeat(3), &mut frame);
    let (mut pass, end) = (Pass { budget: 2, at: now }, &mut pair.client);
    end.link.handle_bytes(now, &mut frame, &mut pass, &mut end.ups, &mut end.queue).unwrap();
    assert!(end.link.has_leftover());
    end.link.handle_eof(now, &mut end.ups);
    assert!(!end.link.has_leftover() && end.link.ending() == Ending::Drain);
}
