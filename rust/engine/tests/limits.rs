//! What a connection may cost: how often it may speak, what it may compress, and whom it may say that it stands for.

mod common;

use std::sync::Arc;

use common::{HANDSHAKE, Pair, SECOND, Saw, Server, Setup, hex};
use engine::event::{Class, Close, LinkId, Up};
use engine::link::{Phase, Proxies};
use engine::rate::{Limit, Over, Rate, SharedBucket};
use engine::route::RouteTable;
use proptest::prelude::*;
use wire::proxy::Networks;
use wire::websocket::deflate::DeflateMode;
use wire::websocket::frame::{FrameHead, OpCode, apply_mask, encode_frame};
use wire::websocket::upgrade;

const ACK: [u8; 4] = [2, 0, 0, 0];

fn limit(per_second: f64, burst: u32, over: Over) -> Limit {
    Limit { rate: Rate::new(per_second, burst), over }
}

/// With a limit on `note`, and one on all messages.
fn setup(note: Option<Limit>, messages: Option<Limit>) -> Setup {
    let mut setup = Setup::default();
    let mut routes = RouteTable::clone(&setup.link.routes);
    let id = routes.lookup("note").unwrap();
    routes.set_limit(id, note);
    setup.link.routes = Arc::new(routes);
    setup.link.messages = messages;
    setup
}

fn notify(route: &str) -> Vec<u8> {
    let length = route.len() as u8;
    [&[4, 0, 0, 4 + length, 2, length][..], route.as_bytes(), b"{}"].concat()
}

fn request(id: u8, route: &str) -> Vec<u8> {
    let length = route.len() as u8;
    [&[4, 0, 0, 5 + length, 0, id, length][..], route.as_bytes(), b"{}"].concat()
}

fn dropped(server: &Server, link: LinkId) -> u32 {
    let count = |up: &Up| match *up {
        Up::Dropped { link: of, count, .. } if of == link => count,
        _ => 0,
    };
    server.ups.iter().map(count).sum()
}

#[test]
fn a_route_takes_its_rate_and_no_more() {
    let mut server = Server::new(&setup(Some(limit(10.0, 3, Over::Drop)), None));
    let (link, session) = server.join();
    server.send(link, &notify("note").repeat(8));
    assert_eq!((server.got.len(), dropped(&server, link)), (3, 5));
    server.send(link, &request(1, "echo").repeat(1));
    assert_eq!(server.got.len(), 4, "another route");
    server.advance(SECOND / 10);
    server.send(link, &notify("note").repeat(2));
    assert_eq!((server.got.len(), dropped(&server, link)), (5, 6));
    let stats = server.realm.stats();
    assert_eq!((stats.limited, stats.messages_in), (6, 11), "what was dropped is counted as heard");
    assert_eq!(
        server.realm.session(session).unwrap().messages_in(),
        11,
        "or a client that comes back sends it again"
    );
    assert_eq!(server.closed(link), None);
    let (other, _) = server.join();
    server.send(other, &notify("note"));
    assert_eq!(dropped(&server, other), 0, "of each client");
}

#[test]
fn a_refused_request_is_answered_and_a_refused_notify_told_once_a_second() {
    let mut server = Server::new(&setup(Some(limit(1.0, 1, Over::Refuse)), None));
    let (link, _) = server.join_with(br#"{"sys":{"gs":{}},"user":{}}"#);
    let answer = server.send(link, &[request(1, "note"), request(2, "note")].concat());
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains("GS-429") && text.contains("\"route\":\"note\""), "{text}");
    assert_eq!(server.got.len(), 1);
    let told = |server: &mut Server, count| {
        let bytes = server.send(link, &notify("note").repeat(count));
        String::from_utf8_lossy(&bytes).matches("GS-429").count()
    };
    assert_eq!((told(&mut server, 5), told(&mut server, 5)), (1, 0));
    assert_eq!(server.realm.stats().limited, 11);
    server.advance(SECOND);
    assert_eq!(told(&mut server, 5), 1, "one was let in");
    assert_eq!(server.got.len(), 2);
}

#[test]
fn who_is_kicked_for_it_is_counted_under_its_name() {
    let mut server = Server::new(&setup(None, Some(limit(1.0, 4, Over::Kick))));
    let (link, _) = server.join();
    server.send(link, &notify("note").repeat(5));
    assert_eq!((server.got.len(), server.closed(link)), (4, Some(Close::RateLimited)));
    assert_eq!(server.left(), [engine::realm::Left::Kicked]);
}

#[test]
fn all_messages_count_whatever_their_route_and_heartbeats_do_not() {
    let mut server = Server::new(&setup(None, Some(limit(1.0, 3, Over::Drop))));
    let (link, _) = server.join();
    server.send(link, &hex("03 00 00 00").repeat(10));
    server.send(link, &[notify("note"), notify("nobody's"), request(9, "echo"), notify("note")].concat());
    assert_eq!((server.got.len(), dropped(&server, link)), (2, 1));
    // What is wrong is wrong beyond the limit, too.
    server.send(link, &hex("04 00 00 01 ff"));
    assert_eq!(server.closed(link), Some(Close::MessageInvalid));
}

#[test]
fn a_client_that_leaves_is_heard_beyond_every_limit() {
    let mut server = Server::new(&setup(None, Some(limit(1.0, 1, Over::Drop))));
    let (link, _) = server.join();
    server.send(link, &[notify("note"), notify("note"), notify("$leave")].concat());
    assert_eq!((dropped(&server, link), server.left().as_slice()), (1, &[engine::realm::Left::Left][..]));
}

#[test]
fn the_clients_of_one_address_share_a_bucket() {
    let mut setup = Setup::default();
    setup.link.address_messages = Some(Rate::new(10.0, 20));
    let mut server = Server::new(&setup);
    let bucket = SharedBucket::default();
    let links: Vec<LinkId> = (0..3).map(|_| server.join().0).collect();
    for &link in &links[..2] {
        server.end(link).link.share_bucket(bucket.clone());
    }
    server.send(links[0], &notify("note").repeat(20));
    server.send(links[1], &notify("note").repeat(5));
    server.send(links[2], &notify("note").repeat(5));
    assert_eq!((server.got.len(), dropped(&server, links[1])), (25, 5));
    server.advance(SECOND);
    server.send(links[1], &notify("note").repeat(5));
    assert_eq!(dropped(&server, links[1]), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// However the messages are cut and timed: what is let in, dropped and refused is all that came.
    #[test]
    fn every_message_is_let_in_or_accounted_for(
        steps in proptest::collection::vec((0u64..400_000_000, 0usize..12, any::<bool>()), 1..40),
        budget in 1usize..20,
    ) {
        let mut server = Server::new(&setup(Some(limit(20.0, 4, Over::Refuse)), Some(limit(50.0, 10, Over::Drop))));
        let (link, session) = server.join();
        server.end(link).budget = budget;
        let (mut sent, mut id) = (0, 0u8);
        for (pause, count, asks) in steps {
            server.advance(pause);
            let mut bytes = Vec::new();
            for _ in 0..count {
                id = (id + 1) % 100;
                bytes.extend(if asks { request(id, "note") } else { notify("note") });
            }
            sent += count as u64;
            server.send(link, &bytes);
        }
        let stats = server.realm.stats();
        prop_assert_eq!(server.got.len() as u64 + stats.limited, sent);
        prop_assert_eq!(server.realm.session(session).unwrap().messages_in(), sent);
        prop_assert_eq!(server.closed(link), None);
    }
}

// -- slow readers ----------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_does_not_read_is_congested_until_it_does() {
    let mut setup = Setup::default();
    setup.link.congested_bytes = 1000;
    let mut server = Server::new(&setup);
    let (link, session) = server.join();
    let sent = |server: &mut Server, queued| {
        let end = server.end(link);
        end.link.handle_sent(queued, &mut end.ups);
        server.settle();
    };
    for (queued, story) in [
        (1000, ""),
        (1001, "congested"),
        (5000, "congested"),
        (251, "congested"),
        (250, "congested relieved"),
    ] {
        sent(&mut server, queued);
        assert_eq!(server.story().trim_start_matches("knocked joined").trim(), story, "{queued}");
    }
    assert_eq!(server.realm.push(session, Class::Droppable, 0, "note", b"x"), Ok(()));
    sent(&mut server, 5000);
    let now = server.now;
    let end = server.end(link);
    end.link.handle_end(now, Close::Reset, &mut end.ups);
    server.settle();
    let story = server.story();
    assert!(
        story.ends_with("congested relieved dropped left"),
        "{story}: what waited went with the connection"
    );
}

// -- proxies ---------------------------------------------------------------------------------------------------------

/// All links of the tests are from 10.0.0.7.
fn proxies(range: &str, protocol: bool) -> Setup {
    let mut setup = Setup::default();
    let networks = Networks { ranges: vec![range.parse().unwrap()], unix: false };
    setup.link.proxies = Proxies { networks: Arc::new(networks), protocol };
    setup
}

fn address(server: &Server, link: LinkId) -> String {
    let session = server.realm.session_of(link).expect("it has a session");
    server.realm.session(session).unwrap().address().into_owned()
}

const PROXIED: &str = "0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a  21 11 00 0c  c0 00 02 2b 0a 00 00 01 1f 90 1e 61";

#[test]
fn a_proxy_says_who_is_behind_it() {
    for cut in [1, 5, usize::MAX] {
        let mut server = Server::new(&proxies("10.0.0.0/8", true));
        let link = server.connect();
        assert_eq!(server.end(link).link.phase(), Phase::Proxy);
        let bytes = [hex(PROXIED), HANDSHAKE.concat()].concat();
        for piece in bytes.chunks(cut.min(bytes.len())) {
            server.send(link, piece);
        }
        let moved = server.end(link).link.take_moved();
        assert_eq!(
            moved.map(|client| client.to_string()),
            Some("192.0.2.43:8080".to_owned()),
            "for the caps on addresses"
        );
        assert_eq!(address(&server, link), "192.0.2.43:8080");
    }
}

#[test]
fn what_is_no_proxy_and_what_is_not_believed() {
    let mut server = Server::new(&proxies("10.0.0.0/8", true));
    let link = server.connect();
    server.send(link, &HANDSHAKE.concat());
    assert_eq!(server.closed(link), Some(Close::ProxyInvalid));
    let link = server.connect();
    server.advance(10 * SECOND);
    assert_eq!(server.closed(link), Some(Close::HandshakeTimeout), "its header has a deadline");
    // From elsewhere the header is what it looks like: nothing that we speak.
    let mut server = Server::new(&proxies("10.1.0.0/16", true));
    let link = server.connect();
    server.send(link, &hex(PROXIED));
    assert_eq!(server.closed(link), Some(Close::UnknownProtocol));
}

fn upgrade_with(headers: &str) -> Vec<u8> {
    let request = upgrade::request("game.example", "/", Some("https://game.example"), [7; 16]).unwrap();
    [&request[..request.len() - 2], headers.as_bytes(), b"\r\n"].concat()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(OpCode::Binary, true, Some([1, 2, 3, 4]), payload, &mut out);
    out
}

#[test]
fn a_believed_forwarded_header_is_the_clients_address_and_scheme() {
    let ask = |setup: &Setup, headers: &str| {
        let mut server = Server::new(setup);
        let link = server.connect();
        server.send(link, &upgrade_with(headers));
        server.send(link, &frame(&HANDSHAKE.concat()));
        let session = server.realm.session_of(link).unwrap();
        let session = server.realm.session(session).unwrap();
        (session.address().into_owned(), session.tls())
    };
    let told = "Forwarded: for=192.0.2.9;proto=https\r\n";
    assert_eq!(ask(&proxies("10.0.0.7", false), told), ("192.0.2.9:0".to_owned(), true));
    assert_eq!(ask(&proxies("10.0.0.8", false), told), ("10.0.0.7:1234".to_owned(), false), "not believed");
    assert_eq!(ask(&proxies("10.0.0.7", false), ""), ("10.0.0.7:1234".to_owned(), false));
    let mut server = Server::new(&proxies("10.0.0.7", true));
    let link = server.connect();
    server.send(link, &[hex(PROXIED), upgrade_with(told)].concat());
    server.send(link, &frame(&HANDSHAKE.concat()));
    assert_eq!(
        address(&server, link),
        "192.0.2.43:8080",
        "with PROXY headers, others are the client's own word"
    );
}

// -- compressed messages ---------------------------------------------------------------------------------------------

fn compressing(mode: DeflateMode) -> Setup {
    let mut setup = Setup::default();
    setup.link.deflate = mode;
    setup
}

/// A server, and a client that offered to compress.
fn deflating(mode: DeflateMode) -> (Server, LinkId, String) {
    let mut server = Server::new(&compressing(mode));
    let link = server.connect();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let answer = server.send(link, &upgrade_with(offer));
    server.send(link, &frame(&HANDSHAKE.concat()));
    server.send(link, &frame(&ACK));
    (server, link, String::from_utf8_lossy(&answer).into_owned())
}

fn packed_frame(fin: bool, opcode: OpCode, compressed: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [9, 8, 7, 6];
    let head = FrameHead { fin, compressed, opcode, mask: Some(mask), payload_bytes: payload.len() }.encode();
    let mut payload = payload.to_vec();
    apply_mask(&mut payload, mask);
    [head.as_slice(), &payload].concat()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use flate2::{Compress, Compression, FlushCompress};
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(bytes.len() + 1000);
    compress.compress_vec(bytes, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

#[test]
fn a_client_may_compress_if_the_server_lets_it() {
    let (_, _, answer) = deflating(DeflateMode::Off);
    assert!(!answer.contains("Sec-WebSocket-Extensions"), "{answer}");
    let (mut server, link, answer) = deflating(DeflateMode::On);
    assert!(
        answer.contains("permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n")
    );
    let body = vec![b'a'; 3000];
    let request = [&[4, 0, 0x0b, 0xbf, 0, 1, 4][..], b"echo", &body].concat();
    let packed = deflate(&request);
    let answer = server.send(link, &packed_frame(true, OpCode::Binary, true, &packed));
    assert_eq!(server.got.len(), 1);
    assert_eq!(answer[0], 0xc2, "the answer is compressed as well");
    assert!(answer.len() < 100, "{}", answer.len());
    // In pieces, with a ping between; and small messages go as they are.
    let (first, second) = packed.split_at(packed.len() / 2);
    let bytes = [
        packed_frame(false, OpCode::Binary, true, first),
        packed_frame(true, OpCode::Ping, false, b"!"),
        packed_frame(true, OpCode::Continuation, false, second),
        frame(&hex("04 00 00 09 00 02 04 65 63 68 6f 7b 7d")),
    ];
    let answer = server.send(link, &bytes.concat());
    assert_eq!(server.got.len(), 3);
    assert!(answer.ends_with(&hex("82 08 04 00 00 04 04 02 7b 7d")));
}

#[test]
fn what_a_compressed_message_may_not_be() {
    let bomb = deflate(&vec![0; 70_000]);
    for (bytes, why, code) in [
        (packed_frame(true, OpCode::Binary, true, &bomb), Close::InflateInvalid, 1009u16),
        (packed_frame(true, OpCode::Binary, true, b"\xff\xff\xff"), Close::InflateInvalid, 1008),
        (packed_frame(true, OpCode::Ping, true, b""), Close::WebSocketInvalid, 1002),
        (packed_frame(true, OpCode::Continuation, true, b""), Close::WebSocketInvalid, 1002),
    ] {
        let (mut server, link, _) = deflating(DeflateMode::On);
        let answer = server.send(link, &bytes);
        assert_eq!(server.closed(link), Some(why));
        assert_eq!(answer[2..4], code.to_be_bytes(), "{why:?}");
    }
    let (mut server, link, _) = deflating(DeflateMode::Off);
    server.send(link, &packed_frame(true, OpCode::Binary, true, &bomb));
    assert_eq!(server.closed(link), Some(Close::WebSocketInvalid), "nothing was agreed on");
}

#[test]
fn a_push_to_many_goes_as_it_is() {
    let (mut server, link, _) = deflating(DeflateMode::On);
    let body = vec![b'a'; 5000];
    server.realm.push_all(None, Class::Reliable, 0, "news", &body[..]);
    server.settle();
    let bytes = server.take(link);
    assert!(bytes.len() > 5000 && bytes[0] == 0x82, "one block for all");
}

#[test]
fn our_own_client_knows_nothing_of_it() {
    let mut setup = compressing(DeflateMode::On);
    setup.websocket = true;
    let mut pair = Pair::connected_by(setup);
    pair.run();
    pair.request(1, "echo", &[b'a'; 3000]);
    pair.run();
    assert!(pair.saw.iter().any(|saw| matches!(saw, Saw::Response { body, .. } if body.len() == 3000)));
}
