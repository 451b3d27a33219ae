//! What must hold for the codecs of `wire`.

use wire::packet::{self, Decoded, HEADER_BYTES, Packet, PacketDecoder, PacketError, PacketKind};
use wire::websocket::connection::{Event, WebSocket};
use wire::websocket::frame::{
    CONTROL_BYTES_MAX, FRAME_HEAD_BYTES_MAX, OpCode, Role, decode_frame, encode_frame,
};
use wire::{detect, error_body, handshake, http, json_text, message, websocket};

/// A stream of packets: `cap u8 (times 16), size of the pieces u8, stream`.
///
/// However it is cut, it gives the same packets and the same error; no more is kept than the cap and a header; and
/// what was read is written the same.
pub fn packets(data: &[u8]) {
    let Some((&[cap, piece], stream)) = data.split_first_chunk::<2>() else {
        return;
    };
    let cap = usize::from(cap) * 16;
    let whole = packets_of(stream, stream.len().max(1), cap);
    assert_eq!(packets_of(stream, usize::from(piece).max(1), cap), whole);
    let mut written = Vec::new();
    whole.0.iter().for_each(|(kind, body)| packet::encode(*kind, body, &mut written));
    assert!(stream.starts_with(&written));
    let rest = &stream[written.len()..];
    match (packet::decode(rest, cap), whole.1) {
        (Err(error), Some(seen)) => assert_eq!(error, seen),
        (Ok(Decoded::Incomplete { needed }), None) => {
            assert!(rest.len() < needed && needed <= HEADER_BYTES + cap);
        }
        other => panic!("{other:?}"),
    }
}

type Packets = (Vec<(PacketKind, Vec<u8>)>, Option<PacketError>);

fn packets_of(stream: &[u8], piece: usize, cap: usize) -> Packets {
    let mut decoder = PacketDecoder::new(cap);
    let mut packets = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Packet { kind, body })) => packets.push((kind, body.to_vec())),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
            assert!(decoder.capacity() <= HEADER_BYTES + cap);
        }
        assert!(decoder.capacity() <= HEADER_BYTES + cap);
    }
    (packets, None)
}

/// The body of a Data packet, and every other body that a peer can send.
///
/// A message that was read is written and read as the same; compressed bodies stay under their cap; JSON is repaired
/// and escaped without a change of its meaning.
pub fn messages(data: &[u8]) {
    if let Ok(read) = message::decode(data) {
        let mut written = Vec::new();
        message::encode(&read, &mut written).expect("what was read can be written");
        assert_eq!(written.len(), message::encoded_bytes(&read));
        assert!(written.len() <= data.len());
        assert_eq!(message::decode(&written), Ok(read));
        inflated(read.body);
        bodies(read.body);
    }
    inflated(data);
    bodies(data);
}

fn inflated(body: &[u8]) {
    const MAX: usize = 4096;
    let mut out = vec![7];
    match message::inflate(body, MAX, &mut out) {
        Ok(()) => assert!(out.len() <= 1 + MAX),
        Err(_) => assert_eq!(out, [7]),
    }
    assert!(out.capacity() <= 2 * MAX + 2);
}

fn bodies(body: &[u8]) {
    for serializer in [handshake::Serializer::Json, handshake::Serializer::Protobuf] {
        if let Ok(error) = error_body::decode(serializer, body) {
            let mut written = Vec::new();
            error_body::encode(serializer, &error.code, &error.msg, &error.metadata, &mut written);
            assert_eq!(error_body::decode(serializer, &written).as_ref(), Ok(&error));
        }
    }
    if let Ok(client) = handshake::ClientHandshake::parse(body) {
        let again =
            handshake::ClientHandshake::parse(&client.to_bytes()).expect("what was read can be written");
        assert_eq!((again.sys_type, again.version), (client.sys_type, client.version));
    }
    let _ = handshake::ServerAnswer::parse(body);
    let repaired = json_text::repair_surrogates(body);
    assert!(repaired.len() <= body.len());
    assert_eq!(json_text::repair_surrogates(&repaired), repaired);
    let escaped = json_text::escape_ascii(&repaired);
    assert!(escaped.is_ascii());
}

/// The first bytes of a connection, up to and behind the upgrade.
///
/// However they are cut, they give the same events and the same answer, in both roles.
pub fn upgrade(data: &[u8]) {
    detected(data);
    let server = || WebSocket::server(1000, vec!["https://friend.example".to_owned()]);
    same_however_cut(server, data, 1);
    let client = || {
        WebSocket::client(1000, "a:1", "/", None, *b"the sample nonce", Box::new(|| [1, 2, 3, 4]))
            .expect("printable")
    };
    same_however_cut(client, data, 1);
    if let Ok(Decoded::Complete { item, consumed }) = http::parse_head(data, http::HEAD_BYTES_MAX) {
        assert!(consumed <= data.len());
        match websocket::upgrade::accept(&item, None, |_, _| true) {
            Ok(answer) => {
                assert!(websocket::upgrade::wants_upgrade(&item));
                let parsed = http::parse_response_head(&answer, http::HEAD_BYTES_MAX);
                assert!(matches!(parsed, Ok(Decoded::Complete { .. })));
            }
            Err(error) => assert!((400..=505).contains(&error.status())),
        }
    }
}

/// Once told, no further byte changes what a connection speaks.
fn detected(data: &[u8]) {
    let mut told = detect::Detected::Incomplete;
    for end in 0..data.len().min(16) {
        let now = detect::detect(&data[..end]);
        assert!(told == detect::Detected::Incomplete || now == told);
        told = now;
    }
}

/// Frames behind an upgrade: `role u8 (odd: a client reads), size of the pieces u8, frames`.
///
/// However they are cut, they give the same events and the same bytes to send; no more is kept than the cap, a frame's
/// header and a control frame.
pub fn websocket_frames(data: &[u8]) {
    let Some((&[role, piece], stream)) = data.split_first_chunk::<2>() else {
        return;
    };
    let role = if role % 2 == 0 { Role::Server } else { Role::Client };
    let socket = || {
        let masks: Option<websocket::connection::Masks> = match role {
            Role::Server => None,
            Role::Client => Some(Box::new(|| [1, 2, 3, 4])),
        };
        WebSocket::opened(role, FRAMES_CAP, masks)
    };
    same_however_cut(socket, stream, usize::from(piece).max(1));
    frames_again(stream, role);
}

/// What was read as a frame is written, and read as the same.
fn frames_again(stream: &[u8], role: Role) {
    let mut bytes = stream.to_vec();
    let mut at = 0;
    while let Ok(Decoded::Complete { item, consumed }) = decode_frame(&mut bytes[at..], role, FRAMES_CAP) {
        assert!(item.payload.len() <= FRAMES_CAP.max(CONTROL_BYTES_MAX));
        let mask = (role == Role::Server).then_some([5, 6, 7, 8]);
        let mut written = Vec::new();
        encode_frame(item.opcode, item.fin, mask, item.payload, &mut written);
        assert_eq!(written.len(), consumed);
        let Ok(Decoded::Complete { item: again, .. }) = decode_frame(&mut written, role, FRAMES_CAP) else {
            panic!("not read again")
        };
        assert_eq!(again, item);
        at += consumed;
    }
}

fn same_however_cut(socket: impl Fn() -> WebSocket, stream: &[u8], piece: usize) {
    let whole = run(&mut socket(), stream, stream.len().max(1));
    let cut = run(&mut socket(), stream, piece);
    assert_eq!(cut, whole);
    let ends = |event: &Event| matches!(event, Event::Closed { .. } | Event::Refused { .. });
    assert!(whole.0.iter().rev().skip(1).all(|event| !ends(event)), "an event behind the last");
}

fn run(socket: &mut WebSocket, stream: &[u8], piece: usize) -> (Vec<Event>, Vec<u8>) {
    for input in stream.chunks(piece) {
        socket.handle_bytes(input);
        let bound = http::HEAD_BYTES_MAX.max(FRAMES_CAP + FRAME_HEAD_BYTES_MAX + CONTROL_BYTES_MAX);
        assert!(socket.buffered() <= bound);
    }
    let events: Vec<Event> = std::iter::from_fn(|| socket.poll_event()).collect();
    let pings = events.iter().filter(|event| matches!(event, Event::Ping(_))).count();
    let out = socket.poll_transmit();
    assert!(pings == 0 || socket.is_closed() || out.contains(&(0x80 | OpCode::Pong as u8)));
    (events, out)
}

const FRAMES_CAP: usize = 1000;
