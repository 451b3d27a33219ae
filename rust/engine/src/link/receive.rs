//! What a link hears: bytes to frames, frames to packets, packets to events, by the phase that it is in.

use std::net::SocketAddr;

use wire::detect::{Detected, detect};
use wire::handshake::ServerAnswer;
use wire::http::{parse_head, parse_response_head};
use wire::message::{self, HEAD_BYTES_MAX, InflateError, Message, MessageKind, RawRoute, Route};
use wire::packet::{self, BODY_BYTES_MAX, Decoded, HEADER_BYTES, Packet, PacketKind};
use wire::proxy::{Proxied, forwarded, parse_proxy};
use wire::websocket::deflate::Deflate;
use wire::websocket::frame::{
    CLOSE_GOING_AWAY, CLOSE_NO_CODE, CLOSE_NORMAL, CLOSE_UNSUPPORTED, CONTROL_BYTES_MAX, Fragments, Frame,
    OpCode, Reader, Role, decode_close, decode_frame,
};
use wire::websocket::upgrade;

use super::{Farewell, Fault, Leftover, Link, Next, Outbox, Pass, Phase, Rare, Taken};
use crate::event::{Class, Close, Nanos, RouteId, Span, Transport, Up, UpLog};
use crate::rate::{Bucket, Over};
use crate::resume::{LEAVE_ROUTE, SEEN_ROUTE, parse_seen};
use crate::route::RouteTable;

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

    /// Packets of a client that is let in: what they say is kept in one piece.
    #[inline]
    fn take_messages(&mut self, bytes: &[u8], pass: &mut Pass, ups: &mut UpLog) -> Result<Taken, Fault> {
        let mut run = Run { bytes, taken: 0, start: 0, stored: ups.stored(), route: None };
        let result = self.take_run(&mut run, pass, ups);
        run.store(ups);
        Ok(Taken { consumed: run.taken, next: result? })
    }

    #[inline]
    fn take_run(&mut self, run: &mut Run<'_>, pass: &mut Pass, ups: &mut UpLog) -> Result<Next, Fault> {
        let max = self.config.body_bytes_max;
        let limit = self.config.messages;
        let address_over = self.address_is_over(pass.at);
        let mut let_in = 0;
        let next = loop {
            if address_over.is_none() {
                let_in += self.take_alike(run, pass, ups);
            }
            if pass.budget == 0 {
                break Next::Again;
            }
            let rest = &run.bytes[run.taken..];
            let (packet, whole) = match packet::decode(rest, max)? {
                Decoded::Complete { item, consumed } => {
                    run.taken += consumed;
                    (item, &rest[..consumed])
                }
                Decoded::Incomplete { needed } => break Next::Bytes(needed),
            };
            pass.budget -= 1;
            match packet.kind {
                PacketKind::Data => {
                    let over = match limit {
                        Some(limit) if !self.bucket.take(pass.at, limit.rate) => Some(limit.over),
                        _ => address_over,
                    };
                    match over {
                        None => {
                            let_in += 1;
                            self.take_message(whole, run, pass, ups)?;
                        }
                        Some(over) => self.take_over_limit(over, None, whole, run, pass, ups)?,
                    }
                }
                PacketKind::Heartbeat => {}
                PacketKind::Kick => ups.push(Up::Ignored { link: self.id }),
                PacketKind::Handshake | PacketKind::HandshakeAck => return Err(Close::HandshakeTwice.into()),
            }
        };
        self.charge_address(pass.at, let_in);
        Ok(next)
    }

    /// Messages to the route of the one before, as most are, in a loop that has nothing else to do. The first that is anything else,
    /// or over a limit, stays for the caller. How many were taken.
    #[inline]
    fn take_alike(&mut self, run: &mut Run<'_>, pass: &mut Pass, ups: &mut UpLog) -> u32 {
        let Some((name, (route, room))) = run.route else { return 0 };
        if self.config.routes.limit(route).is_some() {
            return 0;
        }
        let (max, limit) = (self.config.body_bytes_max, self.config.messages);
        let (all, mut bucket, mut budget) = (&run.bytes[run.taken..], self.bucket, pass.budget);
        let (mut rest, mut count, mut requests) = (all, 0, 0);
        while budget > 0
            && let Ok(Decoded::Complete { item: packet, consumed }) = packet::decode(rest, max)
            && packet.kind == PacketKind::Data
            && let Some(message::Plain { id, name: other, .. }) = message::plain(packet.body)
            && is_same(name, other)
            && limit.is_none_or(|limit| bucket.take(pass.at, limit.rate))
        {
            rest = &rest[consumed..];
            count += 1;
            requests += u32::from(id.is_some());
            budget = (budget - 1).saturating_sub(consumed / BYTES_PER_BUDGET);
        }
        if count > 0 {
            let packets = &all[..all.len() - rest.len()];
            run.taken += packets.len();
            (self.bucket, pass.budget) = (bucket, budget);
            self.owed = self.owed.saturating_add(requests);
            self.tell((route, room), run.span(packets), count, ups);
        }
        count
    }

    /// What becomes of messages in this pass, if the clients of this address have sent too many.
    #[inline]
    fn address_is_over(&self, at: Nanos) -> Option<Over> {
        let rate = self.config.address_messages?;
        let bucket = self.extras.as_ref()?.address.as_ref()?;
        let over = self.config.messages.map_or(Over::Drop, |limit| limit.over);
        (!bucket.has_any(at, rate)).then_some(over)
    }

    #[inline]
    fn charge_address(&self, at: Nanos, count: u32) {
        if let Some(rate) = self.config.address_messages
            && let Some(Some(bucket)) = self.extras.as_ref().map(|extras| &extras.address)
        {
            bucket.spend(at, rate, count);
        }
    }

    /// Whether this route's limit, if it has one, takes one more; else what becomes of it.
    #[inline]
    fn route_over(&mut self, route: RouteId, at: Nanos) -> Option<Over> {
        let (number, limit) = self.config.routes.limit(route)?;
        let buckets = &mut self.extras.get_or_insert_default().routes;
        if buckets.len() <= number {
            buckets.resize(number + 1, Bucket::default());
        }
        (!buckets[number].take(at, limit.rate)).then_some(limit.over)
    }

    /// A message beyond a limit: of `route`, or of the connection or its address.
    fn take_over_limit<'a>(
        &mut self,
        over: Over,
        route: Option<RouteId>,
        packet: &'a [u8],
        run: &mut Run<'a>,
        pass: &mut Pass,
        ups: &mut UpLog,
    ) -> Result<(), Fault> {
        if over == Over::Kick {
            return Err(Close::RateLimited.into());
        }
        let bytes = &packet[HEADER_BYTES..];
        let (name, request) = match message::plain(bytes) {
            Some(message::Plain { id, name, .. }) => (name, id),
            None => {
                let message = message::split(bytes)?;
                let name = if let RawRoute::Name(name) = message.route { name } else { b"" };
                match message.kind {
                    MessageKind::Request => (name, Some(message.id)),
                    MessageKind::Notify => (name, None),
                    MessageKind::Response | MessageKind::Push => {
                        return self.take_unusual(packet, run, pass, ups);
                    }
                }
            }
        };
        match (request, over) {
            // Of these only the last one counts, and no session's count has them.
            (None, _) if name == SEEN_ROUTE.as_bytes() || name == LEAVE_ROUTE.as_bytes() => {
                return self.take_unusual(packet, run, pass, ups);
            }
            (Some(id), Over::Refuse) => {
                self.owed = self.owed.saturating_add(1);
                ups.push(Up::Limited { link: self.id, id, route });
            }
            _ => {
                let tell = over == Over::Refuse;
                match ups.events.last_mut() {
                    Some(Up::Dropped { link, route: last, tell: told, count })
                        if (*link, *last, *told) == (self.id, route, tell) =>
                    {
                        *count += 1;
                    }
                    _ => ups.push(Up::Dropped { link: self.id, route, tell, count: 1 }),
                }
            }
        }
        Ok(())
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

    #[inline]
    fn take_message<'a>(
        &mut self,
        packet: &'a [u8],
        run: &mut Run<'a>,
        pass: &mut Pass,
        ups: &mut UpLog,
    ) -> Result<(), Fault> {
        if let Some(message::Plain { id, name, .. }) = message::plain(&packet[HEADER_BYTES..])
            && let Some(route) = run.route(&self.config.routes, name)
        {
            if let Some(over) = self.route_over(route.0, pass.at) {
                return self.take_over_limit(over, Some(route.0), packet, run, pass, ups);
            }
            self.tell_one(id.is_some(), route, run.span(packet), pass, ups);
            return Ok(());
        }
        self.take_unusual(packet, run, pass, ups)
    }

    #[inline]
    fn tell_one(
        &mut self,
        is_request: bool,
        route: (RouteId, u32),
        packet: Span,
        pass: &mut Pass,
        ups: &mut UpLog,
    ) {
        // Whoever sends much in a message, or what inflates to much, has as much of the pass as who sends many.
        pass.budget = pass.budget.saturating_sub(packet.len as usize / BYTES_PER_BUDGET);
        self.owed = self.owed.saturating_add(u32::from(is_request));
        self.tell(route, packet, 1, ups);
    }

    /// Tells of messages on a route: with those of the last event, if they stand right behind them and are of the same.
    #[inline]
    fn tell(&self, (route, room): (RouteId, u32), packets: Span, count: u32, ups: &mut UpLog) {
        match ups.events.last_mut() {
            Some(Up::Messages { link, route: last, room: of, packets: before, count: told })
                if (*link, *last, *of) == (self.id, route, room)
                    && before.start + before.len == packets.start =>
            {
                before.len += packets.len;
                *told += count;
            }
            _ => ups.push(Up::Messages { link: self.id, route, room, packets, count }),
        }
    }

    #[cold]
    fn take_unusual<'a>(
        &mut self,
        packet: &'a [u8],
        run: &mut Run<'a>,
        pass: &mut Pass,
        ups: &mut UpLog,
    ) -> Result<(), Fault> {
        let message = message::split(&packet[HEADER_BYTES..])?;
        let request = match message.kind {
            MessageKind::Request => Some(message.id),
            MessageKind::Notify => None,
            MessageKind::Response | MessageKind::Push => {
                if let RawRoute::Name(name) = message.route {
                    message::route_name(name)?;
                }
                ups.push(Up::Ignored { link: self.id });
                return Ok(());
            }
        };
        let route = match message.route {
            RawRoute::Name(name) => match run.route(&self.config.routes, name) {
                Some(route) => route,
                None if request.is_none() && name == SEEN_ROUTE.as_bytes() => {
                    let count = parse_seen(message.body).filter(|_| !message.compressed);
                    let count = count.ok_or(Fault::from(Close::MessageInvalid))?;
                    ups.push(Up::Seen { link: self.id, count });
                    return Ok(());
                }
                None if request.is_none() && name == LEAVE_ROUTE.as_bytes() => {
                    ups.push(Up::Leaves { link: self.id });
                    return Ok(());
                }
                None => {
                    let route = run.span(message::route_name(name)?.as_bytes());
                    self.owed = self.owed.saturating_add(u32::from(request.is_some()));
                    ups.push(Up::UnknownRoute { link: self.id, request, route });
                    return Ok(());
                }
            },
            RawRoute::Code(code) if code > 0 && code <= self.codes => (RouteId(u32::from(code) - 1), 0),
            RawRoute::Code(_) | RawRoute::None => return Err(Close::RouteInvalid.into()),
        };
        if let Some(over) = self.route_over(route.0, pass.at) {
            return self.take_over_limit(over, Some(route.0), packet, run, pass, ups);
        }
        let packet = if message.compressed {
            run.store(ups);
            let packet = self.store_inflated(request, message.body, ups)?;
            run.stored = ups.stored();
            packet
        } else {
            run.span(packet)
        };
        self.tell_one(request.is_some(), route, packet, pass, ups);
        Ok(())
    }

    /// Keeps the packet that the client would have sent if it had not compressed the body; its route is left empty.
    fn store_inflated(
        &mut self,
        request: Option<u32>,
        body: &[u8],
        ups: &mut UpLog,
    ) -> Result<Span, InflateError> {
        self.compresses = true;
        let max = self.config.inflate_bytes_max.min(BODY_BYTES_MAX - HEAD_BYTES_MAX);
        let (kind, id) = request.map_or((MessageKind::Notify, 0), |id| (MessageKind::Request, id));
        let head = Message { kind, id, route: Route::Name(""), error: false, compressed: false, body: b"" };
        ups.store_with(|bytes| {
            let start = bytes.len();
            packet::encode(PacketKind::Data, b"", bytes);
            message::encode(&head, bytes).expect("a route of no bytes fits");
            message::inflate(body, max, bytes)?;
            let header = packet::header(PacketKind::Data, bytes.len() - start - HEADER_BYTES);
            bytes[start..start + HEADER_BYTES].copy_from_slice(&header);
            Ok(())
        })
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

/// Packets that stand one behind the other, and how much of them the log has. They are stored in one copy: spans of
/// them are given out before.
struct Run<'a> {
    bytes: &'a [u8],
    /// So many bytes are done with.
    taken: usize,
    /// From here on they are not stored yet.
    start: usize,
    /// Where in the log they will be.
    stored: usize,
    /// The route that was asked for last: often the next one's too.
    route: Option<(&'a [u8], (RouteId, u32))>,
}

impl<'a> Run<'a> {
    #[inline]
    fn route(&mut self, routes: &RouteTable, name: &'a [u8]) -> Option<(RouteId, u32)> {
        if let Some((last, route)) = self.route
            && is_same(last, name)
        {
            return Some(route);
        }
        let route = routes.resolve(name)?;
        self.route = Some((name, route));
        Some(route)
    }

    /// The span of a part of what is not stored yet.
    #[inline]
    fn span(&self, part: &[u8]) -> Span {
        let place = part.as_ptr() as usize - self.bytes.as_ptr() as usize;
        Span { start: (self.stored + place - self.start) as u32, len: part.len() as u32 }
    }

    /// Stores what has been taken.
    #[inline]
    fn store(&mut self, ups: &mut UpLog) {
        debug_assert_eq!(self.stored, ups.stored());
        if self.start < self.taken {
            ups.store(&self.bytes[self.start..self.taken]);
        }
        (self.start, self.stored) = (self.taken, ups.stored());
    }
}

/// `==` is a call, which costs more than to compare a route's few bytes.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        8..=16 => {
            one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk()
        }
        4..8 => one.first_chunk::<4>() == other.first_chunk() && one.last_chunk::<4>() == other.last_chunk(),
        _ => one == other,
    }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// A message that is stored as this many bytes costs as much of the budget as a further one.
const BYTES_PER_BUDGET: usize = 4096;
/// The answer of a server that lets us in.
const ANSWER_OK: u32 = 200;
/// Every zlib stream with the usual window begins with it; no JSON does.
const ZLIB_FIRST_BYTE: u8 = 0x78;
