//! What must hold for a link (`engine::link`) whatever its peer sends, however it is cut.

use std::sync::Arc;

use bytes::Bytes;
use engine::event::{Class, Close, Down, DownLog, LinkId, Message, Nanos, Up, UpLog};
use engine::link::{ClientUpgrade, Ending, Full, Greeting, Link, LinkConfig, Next, Outbox, Pass, Phase};
use engine::rate::{Limit, Over, Rate};
use engine::route::RouteTable;
use wire::message::ResponseHead;
use wire::websocket::deflate::DeflateMode;

/// A peer's bytes: `how u8, size of the pieces u8, budget u8, stream`.
///
/// `how`: bit 0 a client's link, bit 1 over WebSocket, bit 2 the peer's good beginning comes before the stream, so that it
/// reaches a link that is up, bit 3 the game pauses the link after each piece, bit 4 the stream ends behind it, bit 5 a client offers to compress.
///
/// No panic; not more is taken than was given, and no more asked for than a packet, frame or head may have; what is kept and
/// what is told is bounded by what came; the end is told once, and nothing behind it.
pub fn link(data: &[u8]) {
    let Some((&[how, piece, budget], stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let mut run = Run::new(how, usize::from(budget % 16) + 1);
    if how & 4 != 0 {
        let good = run.good_beginning();
        run.pieces(&good, 7);
        assert_eq!(run.link.phase(), Phase::Ready, "the good beginning is one");
    }
    run.pauses = how & 8 != 0;
    run.pieces(stream, usize::from(piece).max(1));
    if how & 16 != 0 {
        run.link.handle_eof(run.now, &mut run.ups);
        run.obey();
    }
    run.grow_old();
}

struct Run {
    link: Link,
    id: LinkId,
    is_client: bool,
    is_websocket: bool,
    deflates: bool,
    pauses: bool,
    budget: usize,
    now: Nanos,
    ups: UpLog,
    out: Sink,
    /// What the link has not taken, and how much it wants to see.
    rest: Vec<u8>,
    needed: usize,
    received: usize,
    is_closed: bool,
}

impl Run {
    fn new(how: u8, budget: usize) -> Self {
        let (is_client, is_websocket) = (how & 1 != 0, how & 2 != 0);
        let mut routes = RouteTable::new();
        routes.intern("echo");
        let config = Arc::new(LinkConfig {
            routes: Arc::new(routes),
            auth_bytes_max: AUTH_BYTES_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            inflate_bytes_max: INFLATE_BYTES_MAX,
            http_head_bytes_max: HEAD_BYTES_MAX,
            compress_bytes_min: Some(1),
            messages: Some(Limit { rate: Rate::new(1e6, 1000), over: Over::Refuse }),
            deflate: DeflateMode::Takeover,
            ..LinkConfig::default()
        });
        let id = LinkId::new(0, 1, 1);
        let mut out = Sink::default();
        let link = if is_client {
            let (host, path) = ("a:1".to_owned(), "/".to_owned());
            let websocket = is_websocket.then_some(ClientUpgrade { host, path, key: *b"the sample nonce" });
            let mut link =
                Link::client(0, id, config, Greeting { handshake: b"{}".to_vec(), websocket, mask_seed: 7 });
            link.start(&mut out).expect("a client's link starts");
            link
        } else {
            Link::server(0, id, config, "10.0.0.7:1234")
        };
        Self {
            link,
            id,
            is_client,
            is_websocket,
            deflates: how & 32 != 0 && is_websocket && !is_client,
            pauses: false,
            budget,
            now: 0,
            ups: UpLog::default(),
            out,
            rest: Vec::new(),
            needed: 1,
            received: 0,
            is_closed: false,
        }
    }

    /// What a peer says until messages can come.
    fn good_beginning(&self) -> Vec<u8> {
        let mut packets = Vec::new();
        let (body, ack): (&[u8], _) = match self.is_client {
            true => (br#"{"code":200,"sys":{"heartbeat":15},"user":{}}"#, None),
            false => (br#"{"sys":{},"user":{}}"#, Some(wire::packet::PacketKind::HandshakeAck)),
        };
        wire::packet::encode(wire::packet::PacketKind::Handshake, body, &mut packets);
        if let Some(ack) = ack {
            wire::packet::encode(ack, b"", &mut packets);
        }
        if !self.is_websocket {
            return packets;
        }
        use wire::websocket::frame::{OpCode, encode_frame};
        use wire::websocket::upgrade;
        let mut bytes = match self.is_client {
            true => {
                let request =
                    upgrade::request("a:1", "/", None, *b"the sample nonce").expect("it can be asked");
                let Ok(wire::packet::Decoded::Complete { item, .. }) =
                    wire::http::parse_head(&request, HEAD_BYTES_MAX)
                else {
                    unreachable!("it was just written")
                };
                upgrade::accept(&item, None, |_, _| true).expect("it is a good one")
            }
            false => {
                let mut request =
                    upgrade::request("a:1", "/", None, *b"the sample nonce").expect("it can be asked");
                if self.deflates {
                    request.truncate(request.len() - 2);
                    request.extend(b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
                }
                request
            }
        };
        let mask = (!self.is_client).then_some([1, 2, 3, 4]);
        encode_frame(OpCode::Binary, true, mask, &packets, &mut bytes);
        bytes
    }

    fn pieces(&mut self, stream: &[u8], piece: usize) {
        for bytes in stream.chunks(piece) {
            self.received += bytes.len();
            self.now += 1_000_000;
            if self.link.ending() != Ending::No {
                return; // the socket is not read any more
            }
            self.rest.extend_from_slice(bytes);
            self.read();
            if self.pauses {
                self.tell(Down::Pause { link: self.id });
                assert!(self.link.held() || self.link.ending() != Ending::No);
                self.tell(Down::Resume { link: self.id });
                self.read();
            }
            self.link.handle_sent(0, &mut self.ups);
            self.obey();
        }
    }

    /// As the contract of `handle_bytes` has it.
    fn read(&mut self) {
        let mut passes = 0;
        while self.link.ending() == Ending::No && !self.link.held() {
            let has_leftover = self.link.has_leftover();
            if !has_leftover && (self.rest.is_empty() || self.rest.len() < self.needed) {
                break;
            }
            // Each pass takes a packet or frame, or says that it needs more.
            passes += 1;
            assert!(passes <= 2 * self.received + 16, "it turns around on the spot");
            let mut rest = if has_leftover { Vec::new() } else { std::mem::take(&mut self.rest) };
            let (mut pass, offered) = (Pass { budget: self.budget, at: self.now }, rest.len());
            let taken = self.link.handle_bytes(self.now, &mut rest, &mut pass, &mut self.ups, &mut self.out);
            if let Ok(taken) = taken {
                assert!(taken.consumed <= offered);
                rest.drain(..taken.consumed);
                if !has_leftover {
                    self.rest = rest;
                }
                self.needed = match taken.next {
                    Next::Bytes(needed) if !has_leftover => {
                        assert!(needed > self.rest.len(), "it has so many already");
                        assert!(needed <= NEEDED_MAX.max(self.rest.len() + 1), "it wants {needed} bytes");
                        needed
                    }
                    Next::Bytes(_) => 1,
                    Next::Again => {
                        assert_eq!(pass.budget, 0, "it gave up within its budget");
                        1
                    }
                    Next::Held => {
                        assert!(self.link.held());
                        1
                    }
                };
            } else {
                assert_ne!(self.link.ending(), Ending::No, "an error is the end");
                self.rest.clear();
            }
            assert!(self.rest.len() <= NEEDED_MAX + self.received);
            self.obey();
        }
    }

    /// Does what the realm would: lets in, answers, drops what is plain HTTP. Checks what was told.
    fn obey(&mut self) {
        let ups = std::mem::take(&mut self.ups);
        // Compressed bodies alone become more than came; each has its cap, and is at least one packet.
        let received = if self.deflates { self.received * DEFLATE_RATIO_MAX } else { self.received };
        assert!(ups.stored() <= received + (INFLATE_BYTES_MAX + 64) * ups.events.len() + 64);
        for up in &ups.events {
            assert!(!self.is_closed, "{up:?} behind the end");
            assert_eq!(up.link(), self.id);
            match *up {
                Up::Closed { .. } => self.is_closed = true,
                Up::Handshake { .. } if !self.is_client => self.accept(),
                Up::Messages { packets, count, .. } => {
                    assert_eq!(ups.messages(packets).count(), count as usize);
                    let (mut answers, mut count) = (Vec::new(), 0);
                    for Message { request, body } in ups.messages(packets) {
                        let Some(id) = request else { continue };
                        ResponseHead::new(id, false, false).append_packet(body, &mut answers);
                        count += 1;
                    }
                    let mut downs = DownLog::default();
                    let packets = downs.store(&answers);
                    if count == 0 {
                        continue;
                    }
                    self.tell_with(Down::Answers { link: self.id, packets, count }, &downs);
                }
                _ => {}
            }
        }
        // What an answer has ended is told in the next log.
        let is_told = self.is_closed || self.ups.events.iter().any(|up| matches!(up, Up::Closed { .. }));
        assert_eq!(is_told, self.link.ending() != Ending::No, "the end is told");
        assert!(self.link.buffered() <= KEPT_MAX);
        assert!(self.out.bytes <= OUT_BASE + (64 + INFLATE_BYTES_MAX) * self.received);
    }

    fn accept(&mut self) {
        let mut downs = DownLog::default();
        let body = downs.store(br#"{"code":200,"sys":{"heartbeat":15}}"#);
        self.tell_with(Down::Accept { link: self.id, body, codes: 1, counts: true }, &downs);
    }

    fn tell(&mut self, down: Down) {
        self.tell_with(down, &DownLog::default());
    }

    fn tell_with(&mut self, down: Down, downs: &DownLog) {
        let _ = self.link.handle_down(self.now, &down, downs, &mut self.ups, &mut self.out); // told by `ending`
    }

    /// Time passes until the link is over: it must not stay for ever, nor be due again at once.
    fn grow_old(&mut self) {
        for _ in 0..64 {
            self.obey();
            let due = self.link.next_timeout();
            if due == Nanos::MAX {
                break;
            }
            self.now = self.now.max(due);
            let _ = self.link.handle_timeout(self.now, &mut self.ups, &mut self.out);
            assert!(self.link.next_timeout() > self.now, "due again at once");
        }
        // HTTP has its deadlines in the game's HTTP side; a server may tell us that it sends no heartbeats.
        let may_stay =
            self.link.phase() == Phase::Http || self.is_client && self.link.phase() == Phase::Ready;
        assert!(may_stay || self.link.ending() == Ending::Now, "a silent peer is closed: {:?}", self.link);
        self.link.handle_end(self.now, Close::Reset, &mut self.ups);
        self.obey();
        assert!(self.is_closed && self.link.ending() == Ending::Now);
    }
}

/// A send queue that counts.
#[derive(Default)]
struct Sink {
    bytes: usize,
}

impl Outbox for Sink {
    fn packet(&mut self, _: Class, _: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.bytes += bytes.len();
        Ok(())
    }

    fn block(&mut self, _: Class, _: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.bytes += bytes.len();
        Ok(())
    }
}

const AUTH_BYTES_MAX: usize = 300;
const BODY_BYTES_MAX: usize = 1000;
const INFLATE_BYTES_MAX: usize = 2000;
const HEAD_BYTES_MAX: usize = 2048;
/// The longest thing that a link may want to see as a whole: a packet in a frame, or a head.
const NEEDED_MAX: usize = HEAD_BYTES_MAX + 16;
/// Deflate makes nothing more than so many times smaller.
const DEFLATE_RATIO_MAX: usize = 1032;
/// A packet but its last byte, and the frame that goes on with it.
const KEPT_MAX: usize = 2 * (BODY_BYTES_MAX + 4);
/// Upgrade, handshakes, heartbeats, farewells.
const OUT_BASE: usize = 16 << 10;
