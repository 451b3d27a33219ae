//! What a link hears: bytes to frames, frames to packets, packets to events, by the phase that it is in. What a client says that is let in,
//! `messages.rs` takes apart.

use std::net::SocketAddr;

use wire::detect::{Detected, detect};
use wire::handshake::ServerAnswer;
use wire::http::{parse_head, parse_response_head};
use wire::message::{self, MessageKind, Route};
use wire::packet::{self, Decoded, HEADER_BYTES, Packet, PacketKind};
use wire::proxy::{Proxied, forwarded, parse_proxy};
use wire::websocket::deflate::Deflate;
use wire::websocket::frame::{
    CLOSE_GOING_AWAY, CLOSE_NO_CODE, CLOSE_NORMAL, CLOSE_UNSUPPORTED, CONTROL_BYTES_MAX, Fragments, Frame,
    OpCode, Reader, Role, decode_close, decode_frame,
};
use wire::websocket::upgrade;

use super::messages::BYTES_PER_BUDGET;
use super::{Farewell, Fault, Leftover, Link, Next, Outbox, Pass, Phase, Rare, Taken};
use crate::event::{Class, Close, Nanos, Span, Transport, Up, UpLog};

/// What one step of [`Link::take`] did.
enum Step {
    /// So many bytes are done with: go on behind them.
    Took(usize),
    /// Nothing, for now.
    Wait(Next),
}

impl Link {
    /// Any phase, any framing.
    pub(super) fn take(
        &mut self,
        now: Nanos,
        bytes: &mut [u8],
        pass: &mut Pass,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<Taken, Fault> {
        let mut consumed = 0;
        loop {
            let rest = &mut bytes[consumed..];
            let step = match self.phase {
                // Paused before it was let in: what came behind the acknowledgement waits.
                Phase::Ready if self.is_paused => Step::Wait(Next::Held),
                Phase::Proxy => return self.take_proxy(rest, pass),
                Phase::Detect => self.take_first(rest, ups)?,
                Phase::Head => self.take_head(rest, ups, out)?,
                Phase::Upgrading => self.take_upgrade(rest, out)?,
                Phase::Http => self.take_http(rest, ups),
                Phase::Waiting if self.has_more(rest) => {
                    self.waits = true;
                    Step::Wait(Next::Held)
                }
                Phase::Ended | Phase::Closing | Phase::Closed => {
                    return Ok(Taken { consumed: bytes.len(), next: Next::Bytes(1) });
                }
                _ if self.websocket.is_some() => self.take_frame(now, rest, pass, ups, out)?,
                _ => {
                    let taken = self.take_packets(now, rest, pass, ups, out)?;
                    match taken.next {
                        // The phase changed: what follows is read by its rules.
                        Next::Again if pass.budget > 0 => Step::Took(taken.consumed),
                        next => return Ok(Taken { consumed: consumed + taken.consumed, next }),
                    }
                }
            };
            match step {
                Step::Took(taken) => consumed += taken,
                Step::Wait(next) => return Ok(Taken { consumed, next }),
            }
        }
    }

    /// Packets straight on the stream, as long as the phase and the budget last.
    #[inline]
    pub(super) fn take_packets(
        &mut self,
        now: Nanos,
        bytes: &[u8],
        pass: &mut Pass,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<Taken, Fault> {
        if self.phase == Phase::Ready && self.role == Role::Server {
            return self.take_messages(bytes, pass, ups);
        }
        let phase = self.phase;
        let mut consumed = 0;
        while pass.budget > 0 && self.phase == phase {
            let packet = match packet::decode(&bytes[consumed..], self.body_bytes_max())? {
                Decoded::Complete { item, consumed: taken } => {
                    consumed += taken;
                    item
                }
                Decoded::Incomplete { needed } => {
                    return Ok(Taken { consumed, next: Next::Bytes(needed) });
                }
            };
            pass.budget -= 1;
            self.take_packet(now, packet, ups, out)?;
        }
        Ok(Taken { consumed, next: Next::Again })
    }

    #[inline]
    fn take_packet(
        &mut self,
        now: Nanos,
        packet: Packet<'_>,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Fault> {
        match (packet.kind, self.phase) {
            (PacketKind::Data, Phase::Ready) => self.take_server_message(packet.body, ups),
            (PacketKind::Data, _) => Err(Close::DataBeforeAck.into()),
            (PacketKind::Heartbeat, _) => Ok(()),
            _ if self.role == Role::Client => self.take_server_packet(now, packet, ups, out),
            (PacketKind::Handshake, Phase::Handshake) => {
                let body = ups.store(packet.body);
                ups.push(Up::Handshake { link: self.id, body });
                // Until when is the realm's business.
                self.enter(Phase::Waiting, Nanos::MAX);
                Ok(())
            }
            (PacketKind::HandshakeAck, Phase::Answered) => {
                self.enter(Phase::Ready, now);
                ups.push(Up::Ready { link: self.id });
                // Some clients start their own heartbeats only when they get one.
                Ok(self.send_heartbeat(now, out)?)
            }
            (PacketKind::Handshake | PacketKind::HandshakeAck, _) => Err(Close::HandshakeTwice.into()),
            (PacketKind::Kick, _) => {
                ups.push(Up::Ignored { link: self.id });
                Ok(())
            }
        }
    }

    fn inflate(&mut self, body: &[u8], ups: &mut UpLog) -> Result<Span, Fault> {
        self.compresses = true;
        let max = self.config.inflate_bytes_max;
        Ok(ups.store_with(|bytes| message::inflate(body, max, bytes))?)
    }

    // -- the first moments -------------------------------------------------------------------------------------------

    /// What a proxy says of its client. Whoever calls has to know it, and what comes behind may be TLS: so the pass ends.
    fn take_proxy(&mut self, bytes: &[u8], pass: &mut Pass) -> Result<Taken, Fault> {
        let (proxied, consumed) = match parse_proxy(bytes)? {
            Decoded::Complete { item, consumed } => (item, consumed),
            Decoded::Incomplete { needed } => return Ok(Taken { consumed: 0, next: Next::Bytes(needed) }),
        };
        if let Proxied::Client(client) = proxied {
            self.move_to(client);
        }
        self.enter(Phase::Detect, self.due);
        if consumed == bytes.len() {
            return Ok(Taken { consumed, next: Next::Bytes(1) });
        }
        pass.budget = 0;
        Ok(Taken { consumed, next: Next::Again })
    }

    fn move_to(&mut self, client: SocketAddr) {
        let rare = self.rare_half();
        (rare.address, rare.moved) = (client.to_string().into(), Some(client));
    }

    fn take_first(&mut self, bytes: &[u8], ups: &mut UpLog) -> Result<Step, Fault> {
        match detect(bytes) {
            Detected::Incomplete => return Ok(Step::Wait(Next::Bytes(bytes.len() + 1))),
            Detected::Packets => {
                self.opened(Transport::Tcp, ups);
                self.enter(Phase::Handshake, self.due);
            }
            Detected::Http => self.enter(Phase::Head, self.due),
            // TLS is the socket's: one that speaks it hands us what is inside.
            Detected::Tls | Detected::Unknown => return Err(Close::UnknownProtocol.into()),
        }
        Ok(Step::Took(0))
    }

    fn take_head(&mut self, bytes: &[u8], ups: &mut UpLog, out: &mut impl Outbox) -> Result<Step, Fault> {
        let max = self.config.http_head_bytes_max;
        // A head that drips in is not parsed at each drop.
        let seen = self.rare.as_ref().map_or(0, |rare| rare.head_seen);
        if seen > 0 && bytes.len() < max && !has_blank_line(&bytes[seen.saturating_sub(3).min(bytes.len())..])
        {
            self.rare_half().head_seen = bytes.len();
            return Ok(Step::Wait(Next::Bytes(bytes.len() + 1)));
        }
        let (head, head_bytes) = match parse_head(bytes, max)? {
            Decoded::Complete { item, consumed } => (item, consumed),
            Decoded::Incomplete { needed } => {
                self.rare_half().head_seen = bytes.len();
                return Ok(Step::Wait(Next::Bytes(needed)));
            }
        };
        let proxies = self.config.proxies.clone();
        if !proxies.protocol
            && self.rare.as_ref().is_some_and(|rare| rare.is_proxy)
            && let Some(forwarded) = forwarded(&head.headers, &proxies.networks)
        {
            self.move_to(forwarded.client);
            self.rare_half().is_tls |= forwarded.is_secure;
        }
        if upgrade::wants_upgrade(&head) {
            let origins = &self.config.allowed_origins;
            let is_tls = self.rare.as_ref().is_some_and(|rare| rare.is_tls);
            let (deflate, extension) = Deflate::agree(&head.headers, self.config.deflate).unzip();
            let answer =
                upgrade::accept(&head, extension, |origin, host| origins.allow(origin, host, is_tls))?;
            if deflate.is_some() {
                self.extras.get_or_insert_default().deflate = deflate;
            }
            self.send_plain(&answer, out)?;
            self.opened(Transport::WebSocket, ups);
            self.websocket = Some(Fragments::default());
            self.enter(Phase::Handshake, self.due);
            return Ok(Step::Took(head_bytes));
        }
        if !self.config.http {
            let answer = wire::http::plain_response(404, "Not Found", "", "this port speaks no plain HTTP\n");
            return Err(Fault { why: Close::HttpInvalid, farewell: Farewell::Http(answer) });
        }
        self.opened(Transport::Http, ups);
        self.enter(Phase::Http, Nanos::MAX);
        Ok(Step::Took(0))
    }

    fn take_http(&mut self, bytes: &[u8], ups: &mut UpLog) -> Step {
        if bytes.is_empty() || self.rare.as_ref().is_some_and(|rare| rare.http_ended) {
            return Step::Wait(Next::Bytes(1));
        }
        let body = ups.store(bytes);
        ups.push(Up::HttpBytes { link: self.id, body });
        Step::Took(bytes.len())
    }

    fn opened(&mut self, transport: Transport, ups: &mut UpLog) {
        let Rare { address, is_tls, moved, .. } = self.rare.take().map_or_else(Rare::default, |rare| *rare);
        if moved.is_some() {
            self.rare_half().moved = moved;
        }
        let address = ups.store(address.as_bytes());
        ups.push(Up::Opened { link: self.id, transport, tls: is_tls, address });
    }

    // -- WebSocket ---------------------------------------------------------------------------------------------------

    /// One frame; before it, what earlier ones left.
    fn take_frame(
        &mut self,
        now: Nanos,
        bytes: &mut [u8],
        pass: &mut Pass,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<Step, Fault> {
        let mut joined = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.joined)).unwrap_or_default();
        if !joined.is_empty() {
            let phase = self.phase;
            let taken = self.take_packets(now, joined.rest(), pass, ups, out)?;
            joined.consume(taken.consumed);
            self.keep_joined(joined);
            match taken.next {
                Next::Again if pass.budget == 0 => return Ok(Step::Wait(Next::Again)),
                _ if self.phase != phase => return Ok(Step::Took(0)),
                _ => {}
            }
            joined = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.joined)).unwrap_or_default();
        }
        if pass.budget == 0 {
            self.keep_joined(joined);
            return Ok(Step::Wait(Next::Again));
        }
        let max = self.body_bytes_max() + HEADER_BYTES;
        let reader = Reader { role: self.role, deflate: self.deflates() };
        let (Frame { fin, compressed, opcode, payload }, frame_bytes) =
            match decode_frame(bytes, reader, max)? {
                Decoded::Complete { item, consumed } => (item, consumed),
                Decoded::Incomplete { needed } => {
                    self.keep_joined(joined);
                    return Ok(Step::Wait(Next::Bytes(needed)));
                }
            };
        pass.budget -= 1;
        match self.websocket.get_or_insert_default().check(opcode, fin)? {
            OpCode::Text => {
                return Err(Fault {
                    why: Close::WebSocketInvalid,
                    farewell: Farewell::Code(CLOSE_UNSUPPORTED),
                });
            }
            OpCode::Close => {
                let (code, _) = decode_close(payload)?;
                let echo = if code == CLOSE_NO_CODE { Vec::new() } else { code.to_be_bytes().to_vec() };
                let _ = self.send_control(OpCode::Close, &echo, out); // no room: the socket's end says it too
                // Else the client has a reason, such as silence, that is none to leave for good.
                let is_good = matches!(code, CLOSE_NORMAL | CLOSE_GOING_AWAY | CLOSE_NO_CODE);
                if is_good && self.phase == Phase::Ready && self.role == Role::Server {
                    ups.push(Up::Leaves { link: self.id });
                }
                self.handle_eof(now, ups);
                return Ok(Step::Took(frame_bytes));
            }
            OpCode::Ping => {
                debug_assert!(payload.len() <= CONTROL_BYTES_MAX);
                self.send_control(OpCode::Pong, payload, out)?;
                self.keep_joined(joined);
                return Ok(Step::Took(frame_bytes));
            }
            OpCode::Pong => {
                self.keep_joined(joined);
                return Ok(Step::Took(frame_bytes));
            }
            OpCode::Binary | OpCode::Continuation => {}
        }
        let mut plain = Vec::new();
        let deflate = self.extras.as_mut().and_then(|extras| extras.deflate.as_mut());
        let payload = match deflate {
            Some(deflate) => match deflate.opens(opcode != OpCode::Continuation, compressed) {
                true => {
                    deflate.inflate(payload, fin, max, &mut plain)?;
                    pass.budget = pass.budget.saturating_sub(plain.len() / BYTES_PER_BUDGET);
                    &plain[..]
                }
                false => payload,
            },
            None => payload,
        };
        if joined.is_empty() {
            let taken = self.take_packets(now, payload, pass, ups, out)?;
            joined.extend(&payload[taken.consumed..]);
        } else {
            // It goes on with a packet; the next step reads it.
            joined.extend(payload);
        }
        self.keep_joined(joined);
        Ok(Step::Took(frame_bytes))
    }

    /// Whether its client may compress messages.
    #[inline]
    pub(super) fn deflates(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.deflate.is_some())
    }

    /// The rest of frames; an empty one leaves no memory behind.
    fn keep_joined(&mut self, joined: Leftover) {
        if !joined.is_empty() {
            self.rare_half().joined = joined;
        } else if self.rare.as_ref().is_some_and(|rare| rare.client.is_none()) {
            self.rare = None;
        }
    }

    // -- client role -------------------------------------------------------------------------------------------------

    fn take_upgrade(&mut self, bytes: &[u8], out: &mut impl Outbox) -> Result<Step, Fault> {
        let (head, head_bytes) = match parse_response_head(bytes, self.config.http_head_bytes_max)? {
            Decoded::Complete { item, consumed } => (item, consumed),
            Decoded::Incomplete { needed } => return Ok(Step::Wait(Next::Bytes(needed))),
        };
        let key = self.client_half().and_then(|client| client.greeting.websocket.as_ref()).map(|ask| ask.key);
        upgrade::check_answer(&head, key.unwrap_or_default())?;
        self.websocket = Some(Fragments::default());
        self.enter(Phase::Greeting, self.due);
        self.greet(out)?;
        Ok(Step::Took(head_bytes))
    }

    fn take_server_packet(
        &mut self,
        now: Nanos,
        packet: Packet<'_>,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Fault> {
        match (packet.kind, self.phase) {
            (PacketKind::Handshake, Phase::Greeting) => {
                // The Go servers may compress their answer.
                let body = if packet.body.first() == Some(&ZLIB_FIRST_BYTE) {
                    let max = self.config.inflate_bytes_max;
                    ups.store_with(|bytes| message::inflate(packet.body, max, bytes))?
                } else {
                    ups.store(packet.body)
                };
                let answer =
                    ServerAnswer::parse(ups.bytes(body)).map_err(|_| Fault::from(Close::HandshakeInvalid))?;
                ups.push(Up::Handshake { link: self.id, body });
                if answer.code != ANSWER_OK {
                    return Err(Close::Refused.into());
                }
                if let Some(client) = self.client_half_mut() {
                    let seconds = answer.heartbeat.map(|seconds| Nanos::from(seconds.get()) * 1_000_000_000);
                    client.heartbeat = seconds.unwrap_or(Nanos::MAX);
                    client.dict = answer.dict;
                    client.dict.sort_unstable_by_key(|entry| entry.1);
                }
                self.send(Class::Reliable, 0, PacketKind::HandshakeAck, [], out)?;
                self.enter(Phase::Ready, now.saturating_add(self.heartbeat()));
                ups.push(Up::Ready { link: self.id });
                Ok(())
            }
            (PacketKind::Kick, _) => {
                let body = ups.store(packet.body);
                ups.push(Up::Kicked { link: self.id, body });
                if let Some(client) = self.client_half_mut() {
                    client.is_kicked = true;
                }
                Ok(())
            }
            (PacketKind::HandshakeAck, _) => Err(Close::PacketType.into()),
            _ => Err(Close::HandshakeTwice.into()),
        }
    }

    fn take_server_message(&mut self, message: &[u8], ups: &mut UpLog) -> Result<(), Fault> {
        let message = message::decode(message)?;
        if matches!(message.kind, MessageKind::Request | MessageKind::Notify) {
            ups.push(Up::Ignored { link: self.id });
            return Ok(());
        }
        let body = match message.compressed {
            true => self.inflate(message.body, ups)?,
            false => ups.store(message.body),
        };
        if message.kind == MessageKind::Response {
            ups.push(Up::Response { link: self.id, id: message.id, error: message.error, body });
            return Ok(());
        }
        let dict = self.client_half().map_or(&[][..], |client| &client.dict);
        let route = match message.route {
            Route::Name(name) => name,
            Route::Code(code) => match dict.binary_search_by_key(&code, |entry| entry.1) {
                Ok(place) => dict[place].0.as_str(),
                Err(_) => return Err(Close::RouteInvalid.into()),
            },
            Route::None => return Err(Close::RouteInvalid.into()),
        };
        let route = ups.store(route.as_bytes());
        ups.push(Up::Push { link: self.id, route, body });
        Ok(())
    }

    // -- inside ------------------------------------------------------------------------------------------------------

    /// The longest body of a packet now.
    #[inline]
    fn body_bytes_max(&self) -> usize {
        match (self.role, self.phase) {
            (Role::Server, Phase::Ready) | (Role::Client, _) => self.config.body_bytes_max,
            (Role::Server, _) => self.config.auth_bytes_max,
        }
    }

    /// Whether bytes begin with something that can be taken now: a whole packet, or a fault.
    pub(super) fn is_packet_next(&self, bytes: &[u8]) -> bool {
        !matches!(packet::decode(bytes, self.body_bytes_max()), Ok(Decoded::Incomplete { .. }))
    }

    fn has_more(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() || self.rare.as_ref().is_some_and(|rare| !rare.joined.is_empty())
    }

    pub(super) fn rare_half(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// The answer of a server that lets us in.
const ANSWER_OK: u32 = 200;
/// Every zlib stream with the usual window begins with it; no JSON does.
const ZLIB_FIRST_BYTE: u8 = 0x78;
