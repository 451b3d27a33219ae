//! A link in client role: what it says to a server, and what it makes of what servers say.

mod common;

use std::sync::Arc;

use common::{End, Pair, START, Saw, Server, Setup, hex, secs, spaced};
use engine::event::{Close, Down, DownLog, LinkId, Nanos, Up};
use engine::link::{ClientUpgrade, Greeting, Link, LinkConfig, Phase, StartError};
use wire::packet::{PacketKind, encode};

/// A client and a server that is nothing but bytes.
struct Client {
    now: Nanos,
    end: End,
}

impl Client {
    fn new() -> Self {
        let greeting = Greeting { handshake: b"{}".to_vec(), websocket: None, mask_seed: 0 };
        let config = Arc::new(LinkConfig::default());
        let mut client =
            Self { now: START, end: End::new(Link::client(START, LinkId::from_bits(1), config, greeting)) };
        client.end.link.start(&mut client.end.queue).unwrap();
        assert_eq!(spaced(&client.end.send()), "01 00 00 02 7b 7d");
        client
    }

    /// One whose server has answered so.
    fn answered(json: &str) -> Self {
        let mut client = Self::new();
        assert_eq!(spaced(&client.hears(&packet(PacketKind::Handshake, json.as_bytes()))), "02 00 00 00");
        assert_eq!(client.end.link.phase(), Phase::Ready);
        client
    }

    /// Bytes from the server; says what goes back.
    fn hears(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.end.feed(self.now, bytes);
        self.end.send()
    }

    fn advance(&mut self, time: Nanos) -> Vec<u8> {
        let (end, mut said) = (self.now + time, Vec::new());
        while self.end.link.next_timeout() <= end {
            self.now = self.end.link.next_timeout();
            let End { link, ups, queue, .. } = &mut self.end;
            let _ = link.handle_timeout(self.now, ups, queue);
            said.extend(self.end.send());
        }
        self.now = end;
        said
    }

    fn closed(&self) -> Option<Close> {
        self.end.ups.events.iter().find_map(|up| match *up {
            Up::Closed { why, .. } => Some(why),
            _ => None,
        })
    }

    fn told(&self, wanted: fn(&Up) -> bool) -> bool {
        self.end.ups.events.iter().any(wanted)
    }
}

fn packet(kind: PacketKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(kind, body, &mut bytes);
    bytes
}

const ANSWER: &str = r#"{"code":200,"sys":{"heartbeat":20,"dict":{"onMove":7,"onSay":2}}}"#;

#[test]
fn a_client_speaks_the_golden_bytes() {
    let mut pair = Pair::connected();
    pair.request(1, "room.join", b"{}");
    pair.request(300, "echo", b"");
    pair.notify("a", b"");
    assert_eq!(
        spaced(&pair.client.send()),
        spaced(&hex("04 00 00 0e 00 01 09 72 6f 6f 6d 2e 6a 6f 69 6e 7b 7d  \
                     04 00 00 08 00 ac 02 04 65 63 68 6f  04 00 00 03 02 01 61"))
    );
}

#[test]
fn it_acknowledges_and_then_beats_as_often_as_the_server_says() {
    let mut client = Client::answered(ANSWER);
    for _ in 0..100 {
        assert_eq!(client.advance(secs(20) - 1), b"");
        assert_eq!(spaced(&client.advance(1)), "03 00 00 00");
        client.hears(&hex("03 00 00 00"));
    }
    assert_eq!(client.closed(), None);
}

#[test]
fn a_server_is_silent_after_two_of_its_heartbeats_and_given_up_after_three() {
    let mut client = Client::answered(ANSWER);
    client.advance(secs(40) - 1);
    assert!(!client.told(|up| matches!(up, Up::Silent { .. })));
    client.advance(1);
    assert!(client.told(|up| matches!(up, Up::Silent { .. })));
    client.hears(&hex("03 00 00 00"));
    assert!(client.told(|up| matches!(up, Up::Heard { .. })));
    client.advance(secs(60) - 1);
    assert_eq!(client.closed(), None);
    client.advance(1);
    assert_eq!(client.closed(), Some(Close::Silent));
}

#[test]
fn a_server_without_heartbeats_gets_none_and_is_never_silent() {
    let mut client = Client::answered(r#"{"code":200}"#);
    assert_eq!(client.advance(secs(86_400)), b"");
    assert_eq!((client.closed(), client.end.link.next_timeout()), (None, Nanos::MAX));
}

#[test]
fn codes_of_the_dictionary_are_names() {
    let mut client = Client::answered(ANSWER);
    client.hears(&hex("04 00 00 05 07 00 07 7b 7d  04 00 00 03 07 00 02  04 00 00 03 06 01 61"));
    let log = &client.end.ups;
    let push = |up: &Up| match *up {
        Up::Push { route, .. } => Some(String::from_utf8_lossy(log.bytes(route)).into_owned()),
        _ => None,
    };
    let pushes: Vec<String> = log.events.iter().filter_map(push).collect();
    assert_eq!(pushes, ["onMove", "onSay", "a"]);
    client.hears(&hex("04 00 00 03 07 00 01"));
    assert_eq!(client.closed(), Some(Close::RouteInvalid));
}

#[test]
fn an_answer_may_be_compressed_and_is_bounded_then() {
    use wire::message::deflate_if_smaller;
    let mut body = Vec::new();
    let long = format!("{}{}", ANSWER, " ".repeat(500));
    assert!(deflate_if_smaller(long.as_bytes(), &mut body));
    let mut client = Client::new();
    assert_eq!(spaced(&client.hears(&packet(PacketKind::Handshake, &body))), "02 00 00 00");
    assert_eq!(client.end.link.next_timeout(), START + secs(20));
    body.clear();
    assert!(deflate_if_smaller(&[b' '; 70_000], &mut body));
    let mut client = Client::new();
    client.hears(&packet(PacketKind::Handshake, &body));
    assert_eq!(client.closed(), Some(Close::InflateInvalid));
}

#[test]
fn a_compressed_body_is_opened() {
    let mut client = Client::answered(ANSWER);
    let packed = hex("78 9c 4b 4c a4 3d 00 00 7a 47 25 e5");
    client.hears(&packet(PacketKind::Data, &[&[0x14, 3][..], &packed].concat()));
    let log = &client.end.ups;
    let Some(&Up::Response { id: 3, error: false, body, .. }) = log.events.last() else { panic!() };
    assert_eq!(log.bytes(body), [b'a'; 100]);
}

#[test]
fn an_error_is_told_as_one() {
    let mut client = Client::answered(ANSWER);
    client.hears(&hex("04 00 00 03 24 01 0a"));
    assert!(matches!(client.end.ups.events.last(), Some(Up::Response { id: 1, error: true, .. })));
}

#[test]
fn a_refusal_is_told_and_ends_it() {
    let mut client = Client::new();
    assert_eq!(client.hears(&packet(PacketKind::Handshake, br#"{"code":500}"#)), b"");
    assert!(client.told(|up| matches!(up, Up::Handshake { .. })));
    assert!(!client.told(|up| matches!(up, Up::Ready { .. })));
    assert_eq!(client.closed(), Some(Close::Refused));
}

#[test]
fn a_kick_is_told_and_then_the_close_is_one() {
    let mut client = Client::answered(ANSWER);
    client.hears(&packet(PacketKind::Kick, br#"{"reason":"kick"}"#));
    assert_eq!(client.closed(), None);
    client.end.link.handle_eof(client.now, &mut client.end.ups);
    assert!(client.told(|up| matches!(up, Up::Kicked { .. })));
    assert_eq!(client.closed(), Some(Close::Kicked));
    let mut client = Client::answered(ANSWER);
    client.end.link.handle_eof(client.now, &mut client.end.ups);
    assert_eq!(client.closed(), Some(Close::Left));
}

#[test]
fn a_server_against_the_rules_is_left() {
    let handshake = packet(PacketKind::Handshake, ANSWER.as_bytes());
    for (before, bytes, why) in [
        (false, hex("04 00 00 03 06 01 61"), Close::DataBeforeAck),
        (false, hex("01 00 00 01 5b"), Close::HandshakeInvalid),
        (false, packet(PacketKind::Handshake, br#"{"sys":{}}"#), Close::HandshakeInvalid), // no code
        (false, hex("02 00 00 00"), Close::PacketType),
        (false, hex("07 00 00 00"), Close::PacketType),
        (false, hex("01 01 00 01"), Close::PacketTooLong),
        (true, handshake.clone(), Close::HandshakeTwice),
        (true, hex("04 00 00 01 40"), Close::MessageInvalid),
        (true, hex("04 00 00 03 14 01 78"), Close::InflateInvalid),
    ] {
        let mut client = if before { Client::answered(ANSWER) } else { Client::new() };
        client.hears(&bytes);
        assert_eq!(client.closed(), Some(why), "{}", spaced(&bytes));
    }
    // What only clients send means nothing.
    let mut client = Client::answered(ANSWER);
    client.hears(&hex("04 00 00 04 00 01 01 61  04 00 00 03 02 01 61"));
    assert_eq!((client.closed(), client.told(|up| matches!(up, Up::Ignored { .. }))), (None, true));
}

#[test]
fn a_server_that_does_not_answer_in_time_is_left() {
    let mut client = Client::new();
    client.hears(&hex("03 00 00 00")); // allowed, and no answer
    client.advance(secs(5) - 1);
    assert_eq!(client.closed(), None);
    client.advance(1);
    assert_eq!(client.closed(), Some(Close::HandshakeTimeout));
}

#[test]
fn nothing_is_asked_before_the_server_has_answered() {
    let mut client = Client::new();
    let mut log = DownLog::default();
    let (route, body) = (log.store(b"echo"), log.store(b""));
    let down = Down::Request { link: client.end.link.id(), id: 1, route, body };
    let End { link, ups, queue, .. } = &mut client.end;
    link.handle_down(client.now, &down, &log, ups, queue).unwrap();
    assert_eq!(client.end.send(), b"");
}

#[test]
fn only_a_client_starts_and_only_with_a_host_that_can_be_written() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    let end = server.end(link);
    assert_eq!(end.link.start(&mut end.queue), Err(StartError::NoClient));
    let websocket = Some(ClientUpgrade { host: "a b".to_owned(), path: "/".to_owned(), key: [0; 16] });
    let greeting = Greeting { handshake: Vec::new(), websocket, mask_seed: 0 };
    let mut link = Link::client(START, LinkId::from_bits(1), Arc::default(), greeting);
    assert!(matches!(link.start(&mut end.queue), Err(StartError::Request(_))));
    let greeting = Greeting { handshake: vec![b' '; 100], websocket: None, mask_seed: 0 };
    let mut link = Link::client(START, LinkId::from_bits(1), Arc::default(), greeting);
    end.queue.bytes_max = 100;
    assert!(matches!(link.start(&mut end.queue), Err(StartError::Full(_))));
}

#[test]
fn client_and_server_of_ours_stay_together_for_a_day_without_a_word() {
    for websocket in [false, true] {
        let mut pair = Pair::connected_by(Setup { websocket, ..Setup::default() });
        pair.advance(secs(86_400));
        assert_eq!((pair.closed(), pair.server.story().as_str()), (None, "knocked joined"));
        assert!(!pair.saw.contains(&Saw::Silent));
    }
}
