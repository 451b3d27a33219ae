//! What holds for any message, any packet, any frame, and any cutting of a stream of them.

#[path = "../../../fuzz/src/codecs.rs"]
mod codecs;

use proptest::collection::vec;
use proptest::prelude::*;
use wire::error_body::{self, ErrorBody};
use wire::handshake::{ClientHandshake, Serializer, ServerHandshake};
use wire::json_text::{escape_ascii, repair_surrogates};
use wire::message::{self, Message, MessageKind, Route};
use wire::packet::{self, BODY_BYTES_MAX, Decoded, Packet, PacketDecoder, PacketKind};
use wire::websocket::connection::{Event, WebSocket};
use wire::websocket::frame::{OpCode, Role, decode_frame, encode_frame};

fn kinds() -> impl Strategy<Value = PacketKind> {
    (1u8..=5).prop_map(|byte| PacketKind::from_byte(byte).expect("1 to 5 are all"))
}

fn packets() -> impl Strategy<Value = Vec<(PacketKind, Vec<u8>)>> {
    vec((kinds(), vec(any::<u8>(), 0..300)), 0..12)
}

/// Sizes of the pieces that a stream is cut into, over and over.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(1usize..40, 1..20)
}

fn cut<'a>(mut stream: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> + 'a {
    cuts.iter().cycle().map_while(move |size| {
        let (piece, rest) = stream.split_at(stream.len().min(*size));
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Owned, and so that every one of them has bytes.
#[derive(Debug, Clone)]
enum OwnedRoute {
    Name(String),
    Code(u16),
}

fn routes() -> impl Strategy<Value = OwnedRoute> {
    prop_oneof![
        "\\PC{0,60}".prop_map(OwnedRoute::Name),
        Just(OwnedRoute::Name("r".repeat(255))),
        any::<u16>().prop_map(OwnedRoute::Code),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_round_trips(
        kind in 0usize..4,
        id: u32,
        route in routes(),
        error: bool,
        compressed: bool,
        body in vec(any::<u8>(), 0..400),
    ) {
        let kind = [MessageKind::Request, MessageKind::Notify, MessageKind::Response, MessageKind::Push][kind];
        let route = match &route {
            _ if !kind.has_route() => Route::None,
            OwnedRoute::Name(name) => Route::Name(name),
            OwnedRoute::Code(code) => Route::Code(*code),
        };
        let id = if kind.has_id() { id } else { 0 };
        let message = Message { kind, id, route, error, compressed, body: &body };
        let mut bytes = Vec::new();
        message::encode(&message, &mut bytes).unwrap();
        prop_assert_eq!(bytes.len(), message::encoded_bytes(&message));
        prop_assert!(bytes.len() <= message::HEAD_BYTES_MAX + body.len());
        prop_assert_eq!(message::decode(&bytes), Ok(message));
        // Cut within what stands before the body, it is no message.
        for end in 0..bytes.len() - body.len() {
            prop_assert!(message::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn any_cutting_gives_the_same_packets(packets in packets(), cuts in cuts()) {
        let mut stream = Vec::new();
        packets.iter().for_each(|(kind, body)| packet::encode(*kind, body, &mut stream));
        let mut decoder = PacketDecoder::new(300);
        let mut seen = Vec::new();
        for mut piece in cut(&stream, &cuts) {
            while let Some(Packet { kind, body }) = decoder.next(&mut piece).unwrap() {
                seen.push((kind, body.to_vec()));
            }
            prop_assert!(decoder.capacity() <= 304);
        }
        prop_assert_eq!(seen, packets);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_packet_says_how_much_it_needs(kind in kinds(), body in vec(any::<u8>(), 0..300), end: prop::sample::Index) {
        let mut bytes = Vec::new();
        packet::encode(kind, &body, &mut bytes);
        let end = end.index(bytes.len());
        let needed = if end < 4 { 4 } else { bytes.len() };
        prop_assert_eq!(packet::decode(&bytes[..end], BODY_BYTES_MAX), Ok(Decoded::Incomplete { needed }));
    }

    #[test]
    fn any_bytes_are_packets_or_an_error(data in vec(any::<u8>(), 0..600)) {
        codecs::packets(&data);
    }

    /// Mostly well-formed, so that a fault comes late.
    #[test]
    fn packets_with_one_byte_changed(packets in packets(), cap: u8, piece: u8, at: prop::sample::Index, to: u8) {
        let mut data = vec![cap, piece];
        packets.iter().for_each(|(kind, body)| packet::encode(*kind, body, &mut data));
        let at = at.index(data.len());
        data[at] = to;
        codecs::packets(&data);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(data in vec(any::<u8>(), 0..600)) {
        codecs::messages(&data);
    }

    #[test]
    fn any_bytes_are_an_upgrade_or_refused(data in vec(any::<u8>(), 0..600)) {
        codecs::upgrade(&data);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(data in vec(any::<u8>(), 0..600)) {
        codecs::websocket_frames(&data);
    }

    #[test]
    fn any_body_deflates_and_inflates(body in vec(0u8..4, 0..3000)) {
        let mut packed = Vec::new();
        if message::deflate_if_smaller(&body, &mut packed) {
            prop_assert!(packed.len() < body.len());
            let mut out = Vec::new();
            message::inflate(&packed, body.len(), &mut out).unwrap();
            prop_assert_eq!(&out, &body);
            prop_assert!(message::inflate(&packed, body.len() - 1, &mut out).is_err());
        } else {
            prop_assert!(packed.is_empty());
        }
    }

    #[test]
    fn any_error_round_trips(
        code in "\\PC{0,20}",
        msg in any::<String>(),
        metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
    ) {
        let error = ErrorBody { code, msg, metadata: metadata.into_iter().collect() };
        for serializer in [Serializer::Json, Serializer::Protobuf] {
            let mut body = Vec::new();
            error_body::encode(serializer, &error.code, &error.msg, &error.metadata, &mut body);
            let mut read = error_body::decode(serializer, &body).unwrap();
            read.metadata.sort();
            prop_assert_eq!(&read, &error);
        }
    }

    #[test]
    fn any_text_escaped_or_garbled_means_the_same(text: String) {
        let json = serde_json::to_vec(&text).unwrap();
        let escaped = escape_ascii(&json);
        prop_assert!(escaped.is_ascii());
        prop_assert_eq!(&serde_json::from_slice::<String>(&escaped).unwrap(), &text);
        let garbled: Vec<u8> = text.encode_utf16().flat_map(utf8_of_unit).collect();
        prop_assert_eq!(&*repair_surrogates(&garbled), text.as_bytes());
    }

    #[test]
    fn no_answer_is_a_multiple_of_1024(user in "[a-zé]{0,1200}", seconds in 1u32..100) {
        let user = serde_json::to_string(&user).unwrap();
        let heartbeat = seconds.try_into().unwrap();
        let body = ServerHandshake { heartbeat, serializer: Serializer::Json, dict: &[], gs: None, user: &user }.to_bytes();
        prop_assert!(!(4 + body.len()).is_multiple_of(1024));
    }

    #[test]
    fn the_user_of_a_handshake_is_handed_on(user in any::<String>()) {
        let user = serde_json::to_string(&user).unwrap();
        let client = ClientHandshake::parse(format!("{{\"user\":{{\"a\":{user}}}}}").as_bytes()).unwrap();
        prop_assert_eq!(client.user.unwrap(), format!("{{\"a\":{user}}}"));
    }

    #[test]
    fn any_frame_round_trips(
        opcode in prop::sample::select(vec![OpCode::Continuation, OpCode::Text, OpCode::Binary]),
        fin: bool,
        mask: Option<[u8; 4]>,
        payload in prop_oneof![vec(any::<u8>(), 0..300), Just(vec![3; 70_000])],
    ) {
        let mut bytes = Vec::new();
        encode_frame(opcode, fin, mask, &payload, &mut bytes);
        let total = bytes.len();
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let Ok(Decoded::Complete { item, consumed }) = decode_frame(&mut bytes, role, payload.len()) else {
            return Err(TestCaseError::fail("incomplete"));
        };
        prop_assert_eq!((item.fin, item.opcode, &*item.payload, consumed), (fin, opcode, &payload[..], total));
    }

    /// Messages in pieces with pings between them, cut anywhere: the same messages.
    #[test]
    fn any_pieces_of_websocket_messages_are_joined(
        messages in vec((any::<bool>(), "\\PC{0,80}"), 0..6),
        pieces in cuts(),
        cuts in cuts(),
        mask: [u8; 4],
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (is_text, text) in &messages {
            let parts: Vec<&[u8]> = cut(text.as_bytes(), &pieces).collect();
            let parts = if parts.is_empty() { vec![&b""[..]] } else { parts };
            for (index, part) in parts.iter().enumerate() {
                let opcode = match (index, is_text) {
                    (0, true) => OpCode::Text,
                    (0, false) => OpCode::Binary,
                    _ => OpCode::Continuation,
                };
                encode_frame(opcode, index == parts.len() - 1, Some(mask), part, &mut stream);
                encode_frame(OpCode::Ping, true, Some(mask), b"", &mut stream);
            }
            for _ in 1..parts.len() {
                expected.push(Event::Ping(Vec::new()));
            }
            expected.push(if *is_text { Event::Text(text.clone()) } else { Event::Binary(text.clone().into_bytes()) });
            expected.push(Event::Ping(Vec::new()));
        }
        let mut socket = WebSocket::opened(Role::Server, 400, None);
        cut(&stream, &cuts).for_each(|piece| socket.handle_bytes(piece));
        let events: Vec<Event> = std::iter::from_fn(|| socket.poll_event()).collect();
        prop_assert_eq!(events, expected);
    }
}

/// As JavaScript clients do it: each half of a surrogate pair by itself.
fn utf8_of_unit(unit: u16) -> Vec<u8> {
    match unit {
        0..0x80 => vec![unit as u8],
        0x80..0x800 => vec![0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8],
        _ => vec![0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8],
    }
}
