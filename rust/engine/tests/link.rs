//! The rules of one connection, by name: the session flow of the wire, its deadlines and its bounds.

mod common;

use common::{Authenticate, Got, HANDSHAKE, Pair, SECOND, START, Saw, Server, Setup, hex, secs, spaced};
use engine::event::{Class, Close, Down, DownLog, LinkId, Up};
use engine::link::{Ending, Link, Pass, Phase};
use engine::realm::{Left, PushError};
use engine::session::State;
use wire::message::inflate;

const ACK: &str = "02 00 00 00";
const HEARTBEAT: &str = "03 00 00 00";

/// Silence after which a client is taken as dropped.
const STALE: u64 = SECOND * 75 / 2;

/// A request `id` on `echo` with this body.
fn echo(id: u8, body: &[u8]) -> Vec<u8> {
    [&[4, 0, 0, 7 + body.len() as u8, 0, id, 4][..], b"echo", body].concat()
}

/// A server with a client whose session is up, and what the client is told when it sends these bytes.
fn joined() -> (Server, LinkId) {
    let mut server = Server::new(&Setup::default());
    let (link, _) = server.join();
    (server, link)
}

/// What a connection that is up makes of these bytes.
fn verdict(bytes: &[u8]) -> Option<Close> {
    let (mut server, link) = joined();
    server.send(link, bytes);
    server.closed(link)
}

// -- the session flow ------------------------------------------------------------------------------------------------

#[test]
fn the_flow_byte_by_byte() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    let answer = server.send(link, &HANDSHAKE.concat());
    assert_eq!(
        String::from_utf8_lossy(&answer[4..]),
        r#"{"code":200,"sys":{"heartbeat":15,"dict":{},"serializer":"json"},"user":{}}"#
    );
    assert_eq!(spaced(&answer[..4]), "01 00 00 4b");
    assert_eq!(server.story(), "knocked");
    // The heartbeat comes right after the ack.
    assert_eq!(spaced(&server.send(link, &hex(ACK))), HEARTBEAT);
    assert_eq!(server.story(), "knocked joined");
    let request = "04 00 00 09  00 01 04 65 63 68 6f  7b 7d";
    assert_eq!(spaced(&server.send(link, &hex(request))), "04 00 00 04 04 01 7b 7d");
    // A notify on "note".
    assert_eq!(server.send(link, &hex("04 00 00 08  02 04 6e 6f 74 65  7b 7d")), b"");
    assert_eq!(
        server.got,
        [
            Got::Request { id: 1, route: "echo".to_owned(), body: b"{}".to_vec() },
            Got::Notify { route: "note".to_owned(), body: b"{}".to_vec() }
        ]
    );
    let session = server.realm.session_of(link).unwrap();
    server.realm.push(session, Class::Reliable, 0, "onMove", br#"{"x":1}"#).unwrap();
    server.settle();
    assert_eq!(spaced(&server.take(link)), "04 00 00 0f 06 06 6f 6e 4d 6f 76 65 7b 22 78 22 3a 31 7d");
    server.realm.kick(session, "kick");
    server.settle();
    assert_eq!(spaced(&server.take(link)), "05 00 00 11 7b 22 72 65 61 73 6f 6e 22 3a 22 6b 69 63 6b 22 7d");
    assert_eq!((server.closed(link), server.end(link).link.ending()), (Some(Close::Kicked), Ending::Drain));
}

#[test]
fn bytes_one_at_a_time_mean_the_same() {
    let bytes = [HANDSHAKE.concat(), hex(ACK), echo(1, b"{}"), hex(HEARTBEAT), echo(2, b"")].concat();
    let answers = |piece: usize| {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        bytes.chunks(piece).flat_map(|piece| server.send(link, piece)).collect::<Vec<u8>>()
    };
    let whole = answers(bytes.len());
    assert!(whole.ends_with(&hex("03 00 00 00  04 00 00 04 04 01 7b 7d  04 00 00 06 04 02 6e 75 6c 6c")));
    for piece in 1..40 {
        assert_eq!(answers(piece), whole, "{piece} at a time");
    }
}

#[test]
fn handshake_ack_and_the_first_request_may_come_in_one_write() {
    let mut setup = Setup { authenticate: Authenticate::Wait, ..Setup::default() };
    setup.realm.auth_timeout = secs(10);
    let mut server = Server::new(&setup);
    let link = server.connect();
    assert_eq!(server.send(link, &[HANDSHAKE.concat(), hex(ACK), echo(1, b"{}")].concat()), b"");
    // The rest waits until authenticate has answered, and nothing is read meanwhile.
    assert!(server.end(link).link.held());
    let session = server.realm.session_of(link).unwrap();
    server.realm.accept(session, Some("ann")).unwrap();
    server.settle();
    let said = server.take(link);
    assert!(said.ends_with(&hex("03 00 00 00  04 00 00 04 04 01 7b 7d")), "{}", spaced(&said));
    assert_eq!(server.story(), "knocked joined");
}

#[test]
fn a_refusal_is_told_and_then_the_socket_is_closed() {
    let mut server = Server::new(&Setup { authenticate: Authenticate::Refuse, ..Setup::default() });
    let link = server.connect();
    let answer = server.send(link, &HANDSHAKE.concat());
    assert_eq!(
        String::from_utf8_lossy(&answer[4..]),
        r#"{"code":500,"sys":{"heartbeat":15},"user":{"code":"no","msg":"not you"}}"#
    );
    assert_eq!((server.closed(link), server.end(link).link.ending()), (Some(Close::Refused), Ending::Drain));
    assert_eq!(server.story(), "knocked gone");
}

#[test]
fn a_handshake_that_is_no_json_object_is_refused() {
    for body in ["", "7", "[]", "{", "{\"a\":\u{1}}", "nonsense"] {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        let answer = server.send(link, &[&[1, 0, 0, body.len() as u8], body.as_bytes()].concat());
        assert!(answer[4..].starts_with(br#"{"code":400,"#), "{body}");
        assert_eq!(server.closed(link), Some(Close::HandshakeInvalid), "{body}");
        assert_eq!(server.story(), "gone");
    }
}

#[test]
fn data_before_the_ack_closes() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    server.send(link, &HANDSHAKE.concat());
    assert_eq!(server.send(link, &echo(1, b"{}")), b"");
    assert_eq!(server.closed(link), Some(Close::DataBeforeAck));
    assert_eq!((server.story().as_str(), server.got.len()), ("knocked gone", 0));
}

#[test]
fn two_handshakes_or_an_ack_that_nothing_asked_for_close() {
    assert_eq!(verdict(&HANDSHAKE.concat()), Some(Close::HandshakeTwice));
    assert_eq!(verdict(&hex(ACK)), Some(Close::HandshakeTwice));
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    server.send(link, &[HANDSHAKE.concat(), HANDSHAKE.concat()].concat());
    assert_eq!(server.closed(link), Some(Close::HandshakeTwice));
}

#[test]
fn bad_packets_and_messages_close_with_their_reason() {
    for (bytes, why) in [
        ("00 00 00 00", Close::PacketType),
        ("06 00 00 00", Close::PacketType),
        ("04 01 00 01", Close::PacketTooLong), // 65,537 bytes, by the declared length
        ("04 00 00 00", Close::MessageInvalid), // an empty Data
        ("04 00 00 01 40", Close::MessageInvalid), // flag bits
        ("04 00 00 01 80", Close::MessageInvalid),
        ("04 00 00 03 08 01 61", Close::MessageInvalid), // types 4 to 7
        ("04 00 00 03 0e 01 61", Close::MessageInvalid),
        ("04 00 00 06 00 80 80 80 80 80", Close::MessageInvalid), // an id without end
        ("04 00 00 06 00 ff ff ff ff 1f", Close::MessageInvalid), // an id over 32 bits
        ("04 00 00 03 02 05 61", Close::MessageInvalid),          // a route that runs over
        ("04 00 00 03 02 01 ff", Close::RouteInvalid),            // no UTF-8
        ("04 00 00 03 03 00 01", Close::RouteInvalid),            // a code that was never given
        ("04 00 00 08 12 04 6e 6f 74 65 78 9c", Close::InflateInvalid), // a stream that is cut
    ] {
        assert_eq!(verdict(&hex(bytes)), Some(why), "{bytes}");
    }
}

#[test]
fn a_kick_a_push_or_a_response_from_a_client_is_ignored_and_counted() {
    let (mut server, link) = joined();
    server.send(link, &hex("05 00 00 00  04 00 00 03 06 01 61  04 00 00 03 04 01 61"));
    assert_eq!((server.closed(link), server.realm.stats().ignored), (None, 3));
    assert_eq!(spaced(&server.send(link, &echo(1, b"{}"))), "04 00 00 04 04 01 7b 7d");
}

#[test]
fn an_unknown_route_answers_a_request_and_is_counted() {
    let (mut server, link) = joined();
    assert_eq!(server.send(link, &hex("04 00 00 03 02 01 61")), b"");
    let answer = server.send(link, &hex("04 00 00 04 00 00 01 61"));
    assert_eq!(spaced(&answer[..6]), "04 00 00 36 24 00");
    assert_eq!(
        String::from_utf8_lossy(&answer[6..]),
        r#"{"code":"GS-404","msg":"no handler for route \"a\""}"#
    );
    assert_eq!((server.realm.stats().unknown_routes, server.closed(link)), (2, None));
}

#[test]
fn a_ping_is_answered_and_is_no_unknown_route() {
    let (mut server, link) = joined();
    let ping = [&hex("04 00 00 08 00 07 05")[..], b"$ping"].concat();
    assert_eq!(spaced(&server.send(link, &ping)), "04 00 00 06 04 07 6e 75 6c 6c");
    assert_eq!(server.realm.stats().unknown_routes, 0);
    let notify = [&hex("04 00 00 07 02 05")[..], b"$ping"].concat();
    assert_eq!((server.send(link, &notify).len(), server.realm.stats().unknown_routes), (0, 1));
}

#[test]
fn before_the_ack_packets_are_short_and_after_it_longer() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    server.send(link, &hex("01 00 10 01")); // 4097
    assert_eq!(server.closed(link), Some(Close::PacketTooLong));
    let link = server.connect();
    server.send(link, &hex("01 00 10 00"));
    assert_eq!(server.closed(link), None);
    assert_eq!(verdict(&hex("04 01 00 00")), None);
}

#[test]
fn first_bytes_of_no_protocol_close() {
    for bytes in [&b"\x02\x00\x00\x00"[..], b"SSH-2.0", b"\x16\x03\x01", b"\x00"] {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        assert_eq!(server.send(link, bytes), b"");
        assert_eq!((server.closed(link), server.story().as_str()), (Some(Close::UnknownProtocol), ""));
    }
}

// -- deadlines -------------------------------------------------------------------------------------------------------

#[test]
fn a_handshake_has_to_be_whole_before_its_deadline() {
    let mut server = Server::new(&Setup::default());
    let (silent, dripping) = (server.connect(), server.connect());
    for byte in &HANDSHAKE.concat()[..4] {
        server.send(dripping, &[*byte]);
        server.advance(SECOND);
    }
    server.advance(SECOND - 1);
    assert_eq!((server.closed(silent), server.closed(dripping)), (None, None));
    server.advance(1);
    for link in [silent, dripping] {
        assert_eq!(server.closed(link), Some(Close::HandshakeTimeout));
    }
}

#[test]
fn an_answer_has_to_be_acknowledged_before_its_deadline() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    server.advance(4 * SECOND);
    server.send(link, &HANDSHAKE.concat());
    server.advance(5 * SECOND - 1); // from the answer on
    assert_eq!(server.closed(link), None);
    server.advance(1);
    assert_eq!(server.closed(link), Some(Close::HandshakeTimeout));
    assert_eq!(server.story(), "knocked gone");
}

#[test]
fn while_authenticate_thinks_no_deadline_of_the_link_runs() {
    let mut setup = Setup { authenticate: Authenticate::Wait, ..Setup::default() };
    setup.realm.auth_timeout = secs(60);
    let mut server = Server::new(&setup);
    let link = server.connect();
    server.send(link, &HANDSHAKE.concat());
    server.advance(secs(60) - 1);
    assert_eq!(server.closed(link), None);
    server.advance(2_000_000); // the realm's timers are good to a millisecond
    // Without a refusal: some clients come back after a close, and not after a refusal.
    assert_eq!((server.closed(link), server.take(link)), (Some(Close::AuthTimeout), vec![]));
}

#[test]
fn a_heartbeat_comes_every_fifteen_seconds_whatever_else_is_sent() {
    let (mut server, link) = joined();
    for second in 1..=60 {
        server.advance(SECOND);
        let answer = server.send(link, &echo(1, b"{}"));
        let beat = if second % 15 == 0 { "03 00 00 00 " } else { "" };
        assert_eq!(spaced(&answer), format!("{beat}04 00 00 04 04 01 7b 7d"), "second {second}");
    }
}

#[test]
fn a_heartbeat_that_is_late_is_not_made_up_for() {
    let (mut server, link) = joined();
    let now = server.now + secs(40);
    let end = server.end(link);
    end.feed(now, &hex(HEARTBEAT));
    end.link.handle_timeout(now, &mut end.ups, &mut end.queue).unwrap();
    assert_eq!(spaced(&end.send()), HEARTBEAT);
    assert_eq!(end.link.next_timeout(), now + secs(15));
}

#[test]
fn a_silent_client_is_pending_after_two_and_a_half_heartbeats_and_active_when_heard() {
    let mut pair = Pair::connected();
    pair.client.mute();
    pair.advance(STALE - 1);
    assert_eq!(pair.server.story(), "knocked joined");
    pair.advance(1);
    assert_eq!(pair.server.story(), "knocked joined dropped");
    let session = pair.session();
    assert_eq!(pair.server.realm.session(session).unwrap().state(), State::Pending);
    // What is pushed still goes its way.
    pair.server.realm.push(session, Class::Reliable, 0, "onMove", b"{}").unwrap();
    pair.client.unmute();
    pair.request(1, "echo", b"here");
    pair.run();
    assert_eq!(pair.server.story(), "knocked joined dropped resumed");
    assert_eq!(pair.server.realm.session(session).unwrap().state(), State::Active);
    assert_eq!(pair.bodies(), ["{}", "here"]);
    pair.advance(secs(3600));
    assert_eq!((pair.server.story().as_str(), pair.closed()), ("knocked joined dropped resumed", None));
}

#[test]
fn a_silent_client_is_closed_after_three_missed_heartbeats() {
    let mut pair = Pair::connected();
    pair.client.mute();
    pair.advance(secs(45) - 1);
    assert_eq!(pair.closed(), None);
    pair.advance(1);
    assert_eq!(pair.closed(), Some(Close::Silent));
    assert_eq!(pair.server.story(), "knocked joined dropped left");
    assert_eq!(pair.server.left(), [Left::Lost]);
}

#[test]
fn silence_is_counted_from_the_last_byte_and_not_the_last_packet() {
    let (mut server, link) = joined();
    for byte in echo(1, b"slowly") {
        server.send(link, &[byte]);
        server.advance(secs(29));
    }
    assert_eq!((server.closed(link), server.story().as_str()), (None, "knocked joined"));
}

#[test]
fn settings_say_how_long_and_how_often() {
    let mut setup = Setup::default();
    (setup.link.heartbeat, setup.link.stale_after, setup.link.missed_max) = (secs(2), secs(3), 5);
    let mut server = Server::new(&setup);
    let (link, _) = server.join();
    server.advance(secs(2));
    assert_eq!(spaced(&server.take(link)), HEARTBEAT);
    server.advance(secs(1));
    assert_eq!(server.story(), "knocked joined dropped");
    // Heard and silent again before it would have been given up: told in time again.
    server.end(link).link.timeout_moved();
    server.send(link, &hex(HEARTBEAT));
    assert!(server.end(link).link.timeout_moved(), "or its timer is late");
    server.advance(secs(3));
    assert_eq!(server.story(), "knocked joined dropped resumed dropped");
    server.advance(secs(7) - 1);
    assert_eq!(server.closed(link), None);
    server.advance(1);
    assert_eq!(server.closed(link), Some(Close::Silent));
}

#[test]
fn a_client_that_is_not_read_is_not_judged() {
    let mut pair = Pair::connected();
    let session = pair.session();
    pair.server.realm.pause(session);
    pair.server.settle();
    pair.client.mute(); // or so it seems to who does not listen
    pair.advance(secs(3600));
    assert_eq!((pair.server.story().as_str(), pair.closed()), ("knocked joined", None));
    pair.server.realm.resume(session);
    pair.server.settle();
    pair.advance(STALE - 1);
    assert_eq!(pair.server.story(), "knocked joined");
    pair.advance(1);
    assert_eq!(pair.server.story(), "knocked joined dropped");
    pair.advance(secs(45) - STALE);
    assert_eq!(pair.closed(), Some(Close::Silent));
}

#[test]
fn a_paused_client_keeps_its_bytes_until_it_is_read_again() {
    let mut pair = Pair::connected();
    let session = pair.session();
    pair.server.realm.pause(session);
    pair.server.settle();
    pair.request(1, "echo", b"one");
    pair.advance(secs(100));
    assert_eq!((pair.server.got.len(), pair.server.end(pair.link).link.held()), (0, true));
    pair.server.realm.resume(session);
    pair.run();
    assert_eq!(pair.bodies(), ["one"]);
}

#[test]
fn a_closing_link_may_drain_for_a_while_and_then_goes() {
    let (mut server, link) = joined();
    let session = server.realm.session_of(link).unwrap();
    server.realm.kick(session, "go");
    server.settle();
    let end = server.end(link);
    assert_eq!(
        (end.link.phase(), end.link.ending(), end.queue.packets.len()),
        (Phase::Closing, Ending::Drain, 1)
    );
    // Whatever it says now is thrown away; nothing that the realm asks wakes it up.
    server.send(link, &echo(1, b"late"));
    server.realm.pause(session);
    server.advance(secs(5) - 1);
    assert_eq!((server.end(link).link.ending(), server.end(link).link.held()), (Ending::Drain, false));
    server.advance(1);
    assert_eq!(server.end(link).link.ending(), Ending::Now);
    assert_eq!((server.closed(link), server.got.len()), (Some(Close::Kicked), 0));
}

// -- bounds ----------------------------------------------------------------------------------------------------------

#[test]
fn one_pass_takes_its_budget_and_no_more() {
    let (mut server, link) = joined();
    let many: Vec<u8> = (0..100).flat_map(|id| echo(id, b"x")).collect();
    let now = server.now;
    let end = server.end(link);
    let mut bytes = many.clone();
    let (mut pass, ups, out) = (Pass { budget: 30, at: now }, &mut end.ups, &mut end.queue);
    let taken = end.link.handle_bytes(now, &mut bytes, &mut pass, ups, out).unwrap();
    assert_eq!((taken.consumed, pass.budget), (30 * 12, 0));
    // To one route, one behind the other: told in one piece.
    let [Up::Messages { count: 30, packets, .. }] = end.ups.events[..] else {
        panic!("{:?}", end.ups.events)
    };
    assert_eq!(end.ups.bytes(packets), &many[..30 * 12]);
    assert_eq!(taken.next, engine::link::Next::Again);
    end.ups.clear();
    (end.budget, end.passes) = (30, 0);
    server.send(link, &many);
    assert_eq!((server.got.len(), server.end(link).passes), (100, 4));
}

#[test]
fn a_client_whose_queue_is_full_is_closed_as_slow() {
    let mut pair = Pair::connected();
    pair.is_stuck = true;
    pair.server.end(pair.link).queue.bytes_max = 1000;
    let session = pair.session();
    for _ in 0..20 {
        pair.server.realm.push(session, Class::Reliable, 0, "onMove", &[b'x'; 100]).unwrap();
    }
    pair.run();
    assert_eq!(pair.closed(), Some(Close::Slow));
    assert_eq!(pair.server.end(pair.link).link.ending(), Ending::Now);
    assert_eq!(
        (pair.server.story().as_str(), pair.server.left()),
        ("knocked joined dropped left", vec![Left::Lost])
    );
    assert_eq!(pair.server.realm.stats().closed(Close::Slow), 1);
}

#[test]
fn the_realm_closes_a_slow_client_before_its_bytes_are_queued() {
    let mut setup = Setup::default();
    setup.realm.queue_bytes_max = 1000;
    let mut pair = Pair::connected_by(setup);
    pair.is_stuck = true;
    let session = pair.session();
    let push = |pair: &mut Pair| pair.server.realm.push(session, Class::Reliable, 0, "onMove", &[b'x'; 400]);
    assert_eq!((push(&mut pair), push(&mut pair)), (Ok(()), Ok(())));
    assert_eq!(push(&mut pair), Err(PushError::Full));
    pair.run();
    assert_eq!((pair.closed(), pair.server.left()), (Some(Close::Slow), vec![Left::Lost]));
    assert_eq!(push(&mut pair), Err(PushError::Closed));
}

#[test]
fn what_was_charged_is_given_back_to_the_last_byte() {
    for websocket in [false, true] {
        let mut pair = Pair::connected_by(Setup { websocket, ..Setup::default() });
        let session = pair.session();
        let owed = |pair: &Pair| pair.server.realm.session(session).unwrap().queued_bytes();
        for body in [&b""[..], b"{}", &[b'x'; 3000]] {
            pair.request(1, "echo", body);
            pair.request(2, "no such", body);
            pair.server.realm.push(session, Class::Reliable, 0, "onMove", body).unwrap();
            pair.server.realm.push(session, Class::Latest, 3, "onMove", body).unwrap();
            assert_eq!(pair.server.realm.push_all(None, Class::Reliable, 0, "onMove", body), 1);
            pair.run();
        }
        // Exactly so at the latest after the next heartbeat, and earlier the more there is.
        pair.advance(secs(15));
        pair.request(3, "echo", b"");
        pair.run();
        assert_eq!(owed(&pair), 0, "websocket: {websocket}");
        pair.is_stuck = true;
        pair.server.realm.push(session, Class::Reliable, 0, "onMove", &[b'x'; 60_000]).unwrap();
        pair.run();
        assert!(owed(&pair) >= 60_000);
        pair.is_stuck = false;
        pair.run();
        assert_eq!(owed(&pair), 0);
    }
}

#[test]
fn a_link_that_closes_takes_its_charges_with_it() {
    let mut pair = Pair::connected();
    pair.is_stuck = true;
    let session = pair.session();
    pair.server.realm.push(session, Class::Reliable, 0, "onMove", b"{}").unwrap();
    pair.server.settle();
    let before = pair.server.ups.len();
    pair.cut_off();
    let now = pair.now();
    let end = pair.server.end(pair.link);
    end.link.handle_sent(0, &mut end.ups);
    end.feed(now, &hex(HEARTBEAT));
    assert!(end.link.handle_timeout(now + secs(100), &mut end.ups, &mut end.queue).is_ok());
    pair.server.settle();
    assert!(matches!(pair.server.ups[before..], [Up::Closed { why: Close::Reset, .. }]));
}

#[test]
fn an_end_is_told_once_and_nothing_after_it_even_of_one_that_was_silent() {
    let mut pair = Pair::connected();
    pair.client.mute();
    pair.advance(STALE);
    let session = pair.session();
    pair.server.realm.close(session);
    pair.server.settle();
    let now = pair.now();
    let end = pair.server.end(pair.link);
    end.feed(now, &hex(HEARTBEAT));
    end.link.handle_eof(now, &mut end.ups);
    end.link.handle_end(now, Close::Reset, &mut end.ups);
    pair.server.settle();
    assert_eq!(pair.closed(), Some(Close::Closed));
    assert_eq!(pair.server.story(), "knocked joined dropped left");
}

#[test]
fn an_idle_link_is_small() {
    println!("link: {} bytes", size_of::<Link>());
    assert!(size_of::<Link>() <= 96, "{}", size_of::<Link>());
    // And owns nothing beside itself once its session is up.
    let (mut server, link) = joined();
    let debug = format!("{:?}", server.end(link).link);
    assert!(debug.contains("rare: None"), "{debug}");
}

// -- compression -----------------------------------------------------------------------------------------------------

#[test]
fn a_body_is_compressed_only_toward_a_client_that_did_so() {
    let mut setup = Setup::default();
    setup.link.compress_bytes_min = Some(20);
    let mut server = Server::new(&setup);
    let (link, _) = server.join();
    let long = [b'a'; 100];
    let plain = server.send(link, &echo(1, &long));
    assert_eq!((spaced(&plain[..6]).as_str(), &plain[6..]), ("04 00 00 66 04 01", &long[..]));
    // The same, compressed by the client: flag 0x10.
    let packed = hex("78 9c 4b 4c a4 3d 00 00 7a 47 25 e5");
    let head = hex("04 00 00 13  10 02 04 65 63 68 6f");
    let answer = server.send(link, &[head, packed].concat());
    assert_eq!(
        server.got.last(),
        Some(&Got::Request { id: 2, route: "echo".to_owned(), body: long.to_vec() })
    );
    assert_eq!(answer[4..6], [0x14, 2]);
    let mut body = Vec::new();
    inflate(&answer[6..], 1000, &mut body).unwrap();
    assert_eq!(body, long);
    // Short ones, and those that would only grow, go as they are.
    assert_eq!(spaced(&server.send(link, &echo(3, b"short"))[4..6]), "04 03");
    let noise: Vec<u8> = (0..50u8).map(|byte| byte.wrapping_mul(83)).collect();
    assert_eq!(server.send(link, &echo(4, &noise))[4], 0x04);
}

#[test]
fn messages_of_all_kinds_arrive_in_the_order_in_which_they_were_sent() {
    let (mut server, link) = joined();
    let packed = hex("04 00 00 13  10 02 04 65 63 68 6f  78 9c 4b 4c a4 3d 00 00 7a 47 25 e5");
    let notify = hex("04 00 00 07  02 04 65 63 68 6f 33");
    let long_id = hex("04 00 00 0a  00 80 80 01 04 65 63 68 6f 34");
    let hold = hex("04 00 00 07  00 05 04 68 6f 6c 64");
    let heartbeat = hex("03 00 00 00");
    let all =
        [echo(1, b"1"), packed, notify, long_id, heartbeat, echo(6, b"5"), hold, echo(7, b"6")].concat();
    // However they are cut.
    for piece in [all.len(), 40, 7, 1] {
        server.got.clear();
        for bytes in all.chunks(piece) {
            server.send(link, bytes);
        }
        let got = server.got.iter().map(|got| match got {
            Got::Request { id, route, body } => format!("{id} {route} {}", body.len()),
            Got::Notify { route, body } => format!("{route} {}", body.len()),
        });
        let expected =
            ["1 echo 1", "2 echo 100", "echo 1", "16384 echo 1", "6 echo 1", "5 hold 0", "7 echo 1"];
        assert_eq!(got.collect::<Vec<_>>(), expected, "{piece}");
        let session = server.realm.session_of(link).unwrap();
        server.realm.respond(session, link, 5, b"let go");
    }
}

#[test]
fn what_inflates_to_more_than_its_cap_closes() {
    let mut setup = Setup::default();
    setup.link.inflate_bytes_max = 99;
    let mut server = Server::new(&setup);
    let (link, _) = server.join();
    server.send(link, &hex("04 00 00 13  10 02 04 65 63 68 6f  78 9c 4b 4c a4 3d 00 00 7a 47 25 e5"));
    assert_eq!((server.closed(link), server.got.len()), (Some(Close::InflateInvalid), 0));
}

// -- what the game asks ----------------------------------------------------------------------------------------------

#[test]
fn a_request_id_that_is_in_flight_may_not_come_again() {
    let (mut server, link) = joined();
    let hold = hex("04 00 00 07  00 05 04 68 6f 6c 64");
    server.send(link, &hold);
    server.send(link, &echo(6, b"another"));
    assert_eq!((server.closed(link), server.got.len()), (None, 2));
    let session = server.realm.session_of(link).unwrap();
    server.realm.respond(session, link, 5, b"done");
    server.send(link, &hold); // answered: the id is free again
    assert_eq!((server.closed(link), server.got.len()), (None, 3));
    server.send(link, &hold);
    assert_eq!((server.closed(link), server.got.len()), (Some(Close::MessageInvalid), 3));
}

#[test]
fn the_meter_is_read_at_each_heartbeat() {
    let (mut server, link) = joined();
    server.end(link).queue.rtt_us = 321;
    let handshake = HANDSHAKE.concat().len() as u64;
    server.advance(secs(14));
    server.send(link, &echo(1, b"{}"));
    server.advance(secs(1));
    let session = server.realm.session(server.realm.session_of(link).unwrap()).unwrap();
    assert_eq!((session.bytes_in(), session.rtt_us()), (handshake + 4 + 13, Some(321)));
    assert_eq!(session.bytes_out(), 79 + 4 + 8 + 4);
    assert_eq!((session.messages_in(), session.messages_out()), (1, 1));
    assert_eq!((session.last_heard(), session.connected_at()), (START + secs(14), START));
}

#[test]
fn codes_are_for_a_client_that_asked() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    let handshake = br#"{"sys":{"gs":{"dict":true}}}"#;
    let answer = server.send(link, &[&[1, 0, 0, handshake.len() as u8][..], handshake].concat());
    assert!(String::from_utf8_lossy(&answer).contains(r#""dict":{"echo":1,"note":2,"hold":3}"#));
    server.send(link, &hex(ACK));
    let answer = server.send(link, &hex("04 00 00 07  01 ac 02 00 01  7b 7d"));
    assert_eq!(spaced(&answer), "04 00 00 05 04 ac 02 7b 7d");
    server.send(link, &hex("04 00 00 05  03 00 04  7b 7d"));
    assert_eq!(server.closed(link), Some(Close::RouteInvalid));
}

#[test]
fn before_the_answer_nothing_else_is_said() {
    let mut server = Server::new(&Setup { authenticate: Authenticate::Wait, ..Setup::default() });
    let link = server.connect();
    server.send(link, &HANDSHAKE.concat());
    let session = server.realm.session_of(link).unwrap();
    assert_eq!(server.realm.push(session, Class::Reliable, 0, "onMove", b"{}"), Err(PushError::Closed));
    server.realm.kick(session, "go");
    server.settle();
    assert_eq!((server.take(link), server.closed(link)), (vec![], Some(Close::Kicked)));
}

#[test]
fn what_the_realm_asks_of_a_link_that_is_gone_is_nothing() {
    let mut pair = Pair::connected();
    pair.cut_off();
    let before = pair.server.end(pair.link).queue.packets.len();
    let (mut log, link, now) = (DownLog::default(), pair.link, pair.now());
    let text = log.store(b"{}");
    for down in [
        Down::Accept { link, body: text, codes: 0, counts: false },
        Down::Refuse { link, why: Close::Refused, body: text },
        Down::Answers { link, packets: text, count: 1 },
        Down::Push { link, class: Class::Reliable, key: 0, route: text, body: text },
        Down::Kick { link, why: Close::Kicked, body: text },
        Down::Close { link, why: Close::Closed },
        Down::Pause { link },
        Down::Resume { link },
        Down::HttpBytes { link, body: text },
        Down::Abort { link, why: Close::Slow },
        Down::Request { link, id: 1, route: text, body: text },
        Down::Notify { link, route: text, body: text },
    ] {
        let end = pair.server.end(link);
        assert_eq!(end.link.handle_down(now, &down, &log, &mut end.ups, &mut end.queue), Ok(()));
        assert!(end.ups.is_empty() && !end.link.held(), "{down:?}");
        assert_eq!((end.queue.packets.len(), end.link.phase()), (before, Phase::Closed), "{down:?}");
    }
}

#[test]
fn a_whole_conversation_however_the_stream_is_cut() {
    for websocket in [false, true] {
        for cut in [1, 2, 3, 7, 100, usize::MAX] {
            let mut pair = Pair::connected_by(Setup { websocket, cut, ..Setup::default() });
            pair.request(1, "echo", b"one");
            pair.notify("note", &[b'n'; 70_000 / 2]);
            pair.request(2, "echo", &[b'e'; 300]);
            pair.run();
            pair.advance(secs(100));
            let session = pair.session();
            pair.server.realm.push(session, Class::Reliable, 0, "onMove", b"{}").unwrap();
            pair.server.realm.push_all(None, Class::Reliable, 0, "onAll", &b""[..]);
            pair.server.realm.kick(session, "enough");
            pair.run();
            let e = "e".repeat(300);
            assert_eq!(pair.bodies(), ["one", e.as_str(), "{}", "{}"], "cut at {cut}");
            let end = [Saw::Kicked(r#"{"reason":"enough"}"#.to_owned()), Saw::Closed(Close::Kicked)];
            assert!(pair.saw.ends_with(&end), "{:?}", pair.saw);
            assert_eq!((pair.server.got.len(), pair.closed()), (3, Some(Close::Kicked)));
        }
    }
}
