//! Messages of a client that is let in: taken apart, held against limits, told in one piece where they go to one route.

use wire::message::{self, HEAD_BYTES_MAX, InflateError, Message, MessageKind, RawRoute, Route};
use wire::packet::{self, BODY_BYTES_MAX, Decoded, HEADER_BYTES, PacketKind};

use super::{Fault, Link, Next, Pass, Taken};
use crate::event::{Close, Nanos, RouteId, Span, Up, UpLog};
use crate::rate::{Bucket, Over};
use crate::resume::{LEAVE_ROUTE, SEEN_ROUTE, parse_seen};
use crate::route::RouteTable;

impl Link {
    /// Packets of a client that is let in: what they say is kept in one piece.
    #[inline]
    pub(super) fn take_messages(
        &mut self,
        bytes: &[u8],
        pass: &mut Pass,
        ups: &mut UpLog,
    ) -> Result<Taken, Fault> {
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
            && let Some((packet, others)) = packet::data(rest, max)
            && let Some(message::Plain { id, name: other, .. }) = message::plain(packet)
            && is_same(name, other)
            && limit.is_none_or(|limit| bucket.take(pass.at, limit.rate))
        {
            rest = others;
            count += 1;
            requests += u32::from(id.is_some());
            budget = (budget - 1).saturating_sub((HEADER_BYTES + packet.len()) / BYTES_PER_BUDGET);
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

/// A message that is stored as this many bytes costs as much of the budget as a further one.
pub(super) const BYTES_PER_BUDGET: usize = 4096;
