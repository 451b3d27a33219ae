//! Answers and pushes: what goes to sessions, charged to each until it has left.

use std::sync::Arc;

use wire::error_body;
use wire::handshake::Serializer;
use wire::message::{HEAD_BYTES_MAX, ROUTE_BYTES_MAX, ResponseHead};
use wire::packet::{self, BODY_BYTES_MAX, HEADER_BYTES, PacketKind};

use super::{GroupKey, PushError, Realm, SessionKey};
use crate::event::{Class, Down, DownLog, LinkId, Span, charge, charge_answers};
use crate::outbox::push_head;
use crate::resume::{self, ERROR_ROUTE, RECONNECT_ROUTE, UNCOUNTED_PREFIX};
use crate::room::RoomNumber;
use crate::session::{Knows, Session, State};

impl Realm {
    /// Answers a request of `link`. If that link is gone, nothing happens, unless the client can come back: then it gets the
    /// answer over whichever link it has next.
    #[inline(always)] // once per message
    pub fn respond(&mut self, key: SessionKey, link: LinkId, id: u32, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_short = (1..=BODY_BYTES_MAX - HEAD_BYTES_MAX).contains(&body.len());
        if !(is_short && session.takes_any_answer_to(link)) {
            return self.respond_with_care(key, link, id, body);
        }
        session.messages_out += 1;
        let downs = &mut self.downs[usize::from(link.reactor())];
        let head = ResponseHead::new(id, false, false);
        if send_answer(session, self.config.queue_bytes_max, link, head, body, downs) {
            self.stats.messages_out += 1;
        }
    }

    #[inline(never)] // keeps `respond` small
    fn respond_with_care(&mut self, key: SessionKey, link: LinkId, id: u32, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.takes_answer_to(link) {
            return;
        }
        if body.len() > BODY_BYTES_MAX - HEAD_BYTES_MAX {
            self.respond_error(key, link, id, "GS-500", "the answer is longer than a packet can be", &[]);
            return;
        }
        let body = if body.is_empty() && session.serializer == Serializer::Json { b"null" } else { body };
        session.answer_is_given(id);
        if session.can_return() {
            return self.respond_kept(key, id, false, body);
        }
        let downs = &mut self.downs[usize::from(link.reactor())];
        if send_answer(
            session,
            self.config.queue_bytes_max,
            link,
            ResponseHead::new(id, false, false),
            body,
            downs,
        ) {
            self.stats.messages_out += 1;
        }
    }

    /// Answers a request with an error, in the client's serializer.
    pub fn respond_error(
        &mut self,
        key: SessionKey,
        link: LinkId,
        id: u32,
        code: &str,
        msg: &str,
        metadata: &[(String, String)],
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.takes_answer_to(link) {
            return;
        }
        session.answer_is_given(id);
        let mut body = Vec::new();
        error_body::encode(session.serializer, code, msg, metadata, &mut body);
        if body.len() > BODY_BYTES_MAX - HEAD_BYTES_MAX {
            body.clear();
            error_body::encode(
                session.serializer,
                "GS-500",
                "the error is too long to be told",
                &[],
                &mut body,
            );
        }
        if session.can_return() {
            return self.respond_kept(key, id, true, &body);
        }
        let downs = &mut self.downs[usize::from(link.reactor())];
        if send_answer(
            session,
            self.config.queue_bytes_max,
            link,
            ResponseHead::new(id, true, false),
            &body,
            downs,
        ) {
            self.stats.messages_out += 1;
        }
    }

    /// Answers over the link that the client has now, or will have.
    #[inline(never)] // keeps `respond` small where nobody can come back
    fn respond_kept(&mut self, key: SessionKey, id: u32, is_error: bool, body: &[u8]) {
        let head = ResponseHead::new(id, is_error, false);
        let keep_max = self.keep_max();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let header = packet::header(PacketKind::Data, head.as_slice().len() + body.len());
        session.keep(keep_max, &[&header, head.as_slice(), body]);
        if let Some(link) = session.reachable() {
            let downs = &mut self.downs[usize::from(link.reactor())];
            send_answer(session, self.config.queue_bytes_max, link, head, body, downs);
        }
        self.stats.messages_out += 1;
    }

    /// Pushes to one. A session that waits for its client to come back keeps what is reliable until that has acknowledged its
    /// new link; the rest goes nowhere, and is no error.
    pub fn push(
        &mut self,
        key: SessionKey,
        class: Class,
        latest_key: u64,
        route: &str,
        body: &[u8],
    ) -> Result<(), PushError> {
        fits(class, route, body.len())?;
        let keep_max = self.keep_max();
        let session = self.sessions.get_mut(key).filter(|session| session.joined).ok_or(PushError::Closed)?;
        if session.state == State::Closed {
            return Err(PushError::Closed);
        }
        let body = if body.is_empty() && session.serializer == Serializer::Json { EMPTY_JSON } else { body };
        let is_kept = class == Class::Reliable && session.can_return() && resume::is_counted(route);
        if is_kept {
            let header = packet::header(PacketKind::Data, 2 + route.len() + body.len());
            session.keep(keep_max, &[&header, &push_head(route.len(), false), route.as_bytes(), body]);
        }
        let Some(link) = session.reachable() else { return Ok(()) };
        let downs = &mut self.downs[usize::from(link.reactor())];
        let is_taken = if class == Class::Reliable {
            session.take_charge(self.config.queue_bytes_max, charge(route.len(), body.len()), link, downs)
        } else {
            downs.stored() + body.len() <= self.config.down_bytes_max
        };
        if !is_taken {
            if is_kept {
                return Ok(()); // for when the client comes back
            }
            self.stats.dropped += 1;
            return Err(PushError::Full);
        }
        session.messages_out += 1;
        session.bytes_out += body.len() as u64;
        self.stats.messages_out += 1;
        let (route, body) = (downs.store(route.as_bytes()), downs.store(body));
        downs.push(Down::Push { link, class, key: latest_key, route, body });
        Ok(())
    }

    /// Pushes a snapshot of a room's world (0: the app's), in pieces that stand in the log of [`Realm::downs`] already: it
    /// replaces the last one of that world, if no byte of it has left. It is charged to nobody: there is never more than one.
    /// False: nobody is there to take it, it is longer than a packet can be, or those of too many rooms wait.
    pub fn push_snapshot(
        &mut self,
        key: SessionKey,
        room: RoomNumber,
        route: &str,
        parts: impl IntoIterator<Item = Span>,
    ) -> bool {
        let Some(link) = self.sessions.get(key).and_then(Session::reachable) else { return false };
        let Some(snapshots) = self.sessions.snapshots.get_mut(key.slot) else { return false };
        let downs = &mut self.downs[usize::from(link.reactor())];
        let mut body_bytes = 0;
        let parts = parts.into_iter().inspect(|part| body_bytes += part.len as usize);
        let (name, parts) = (downs.store(route.as_bytes()), downs.store_parts(parts));
        if fits(Class::Latest, route, body_bytes).is_err() {
            self.stats.dropped += 1;
            return false;
        }
        let Some(number) = snapshots.next(room) else { return false };
        let Some(session) = self.sessions.get_mut(key) else { return false };
        session.messages_out += 1;
        session.bytes_out += body_bytes as u64;
        self.stats.messages_out += 1;
        downs.push(Down::Snapshot { link, number, room, route: name, parts });
        true
    }

    /// Where a snapshot of a room's world (0: the app's) goes; `None`: the session's client shows no world, or none is there.
    /// Whether the last one waits still: then its client has none of it, as far as is known.
    pub fn snapshot_link(&self, key: SessionKey, room: RoomNumber) -> Option<(LinkId, bool)> {
        let session = self.sessions.get(key).filter(|session| session.joined)?;
        Some((session.reachable()?, self.sessions.snapshots.get(key.slot)?.waits(room)))
    }

    /// Whether a session's client shows the replicated world.
    pub fn wants_world(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some() && self.sessions.snapshots.get(key.slot).is_some()
    }

    /// A notify was refused: told by a push to `$error`, if the client knows of such.
    pub fn refuse_notify(
        &mut self,
        key: SessionKey,
        link: LinkId,
        code: &str,
        msg: &str,
        metadata: &[(String, String)],
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        if !session.takes_answer_to(link) || session.knows == Knows::Nothing {
            return;
        }
        let mut body = Vec::new();
        error_body::encode(session.serializer, code, msg, metadata, &mut body);
        let _ = self.push(key, Class::Reliable, 0, ERROR_ROUTE, &body); // too slow, or too long: not told
    }

    /// Asks a client to connect anew, to whatever server is there then, in so many seconds. False if it knows nothing of such.
    pub fn send_away(&mut self, key: SessionKey, seconds: f64) -> bool {
        let knows = self.sessions.get(key).is_some_and(|session| session.knows != Knows::Nothing);
        let body = format!("{{\"delay\":{seconds:.3}}}");
        knows && self.push(key, Class::Reliable, 0, RECONNECT_ROUTE, body.as_bytes()).is_ok()
    }

    /// Pushes the same to everybody: one [`Down::Broadcast`] per reactor and body. Says to how many.
    pub fn push_all<'a>(
        &mut self,
        skip: Option<SessionKey>,
        class: Class,
        latest_key: u64,
        route: &str,
        bodies: impl Into<Bodies<'a>>,
    ) -> usize {
        let Some(mut aim) = self.aim(class, route, bodies.into()) else { return 0 };
        for (key, session) in self.sessions.iter_mut() {
            if Some(key) != skip {
                aim.add(session, &mut self.targets, &mut self.downs);
            }
        }
        self.send_broadcast(&aim, latest_key, route)
    }

    /// As [`Realm::push_all`], to the members of a group, in the order in which they came.
    pub fn push_group<'a>(
        &mut self,
        group: GroupKey,
        skip: Option<SessionKey>,
        class: Class,
        latest_key: u64,
        route: &str,
        bodies: impl Into<Bodies<'a>>,
    ) -> usize {
        let Some(mut aim) = self.aim(class, route, bodies.into()) else { return 0 };
        for key in self.groups.members(group) {
            if Some(key) != skip
                && let Some(session) = self.sessions.get_mut(key)
            {
                aim.add(session, &mut self.targets, &mut self.downs);
            }
        }
        self.send_broadcast(&aim, latest_key, route)
    }

    /// None if it is longer than a packet can be.
    fn aim<'a>(&self, class: Class, route: &'a str, bodies: Bodies<'a>) -> Option<Aim<'a>> {
        fits(class, route, bodies.longest().len()).ok()?;
        let charges = [bodies.plain, bodies.json].map(|body| charge(route.len(), body.len()));
        Some(Aim {
            queue_bytes_max: self.config.queue_bytes_max,
            keep_max: self.keep_max(),
            class,
            route,
            is_counted: class == Class::Reliable && resume::is_counted(route),
            bodies,
            charges,
            packets: [None, None],
            count: 0,
        })
    }

    /// What is kept for one client is charged at most so much.
    fn keep_max(&self) -> u32 {
        self.config.resume_bytes_max.min(self.config.queue_bytes_max)
    }

    fn send_broadcast(&mut self, aim: &Aim<'_>, latest_key: u64, route: &str) -> usize {
        for (downs, [plain, json]) in self.downs.iter_mut().zip(&mut self.targets) {
            for (targets, body) in [(plain, aim.bodies.plain), (json, aim.bodies.json)] {
                if targets.is_empty() {
                    continue;
                }
                if aim.class != Class::Reliable && downs.stored() + body.len() > self.config.down_bytes_max {
                    self.stats.dropped += (targets.len() / size_of::<LinkId>()) as u64;
                } else {
                    let (route, body, span) =
                        (downs.store(route.as_bytes()), downs.store(body), downs.store(targets));
                    downs.push(Down::Broadcast {
                        targets: span,
                        class: aim.class,
                        key: latest_key,
                        route,
                        body,
                    });
                }
                targets.clear();
            }
        }
        self.stats.messages_out += aim.count as u64;
        aim.count
    }
}

/// What a push says. Clients that agreed on JSON may be told in other words than those of protobuf.
#[derive(Clone, Copy, Debug)]
pub struct Bodies<'a> {
    plain: &'a [u8],
    json: &'a [u8],
    differ: bool,
}

impl<'a> Bodies<'a> {
    /// One for the clients of each serializer.
    pub fn new(protobuf: &'a [u8], json: &'a [u8]) -> Self {
        Self { plain: protobuf, json, differ: true }
    }

    fn longest(&self) -> &'a [u8] {
        if self.json.len() > self.plain.len() { self.json } else { self.plain }
    }
}

impl<'a> From<&'a [u8]> for Bodies<'a> {
    /// The same for all, but for an empty one.
    fn from(body: &'a [u8]) -> Self {
        let json = if body.is_empty() { EMPTY_JSON } else { body };
        Self { plain: body, json, differ: body.is_empty() }
    }
}

/// Collects who gets a broadcast.
struct Aim<'a> {
    queue_bytes_max: u32,
    keep_max: u32,
    class: Class,
    route: &'a str,
    is_counted: bool,
    bodies: Bodies<'a>,
    /// Plain, and as JSON clients get it.
    charges: [u32; 2],
    /// The same as packets, for those that keep them.
    packets: [Option<Arc<[u8]>>; 2],
    count: usize,
}

/// Link ids as bytes, by reactor: those who get the plain body, and those who get another one because they agreed on JSON.
pub(super) type Targets = [Vec<u8>; 2];

impl Aim<'_> {
    #[inline]
    fn add(&mut self, session: &mut Session, targets: &mut [Targets], downs: &mut [DownLog]) {
        let is_json = self.bodies.differ && session.serializer == Serializer::Json;
        if session.can_return() && self.is_counted && session.joined {
            self.keep(session, is_json);
        }
        let Some(link) = session.reachable() else { return };
        let reactor = usize::from(link.reactor());
        let charge = self.charges[usize::from(is_json)];
        let is_taken = self.class != Class::Reliable
            || session.take_charge(self.queue_bytes_max, charge, link, &mut downs[reactor]);
        if is_taken {
            targets[reactor][usize::from(is_json)].extend_from_slice(&link.to_bits().to_le_bytes());
            session.messages_out += 1;
            let body = if is_json { self.bodies.json } else { self.bodies.plain };
            session.bytes_out += body.len() as u64;
            self.count += 1;
        }
    }

    fn keep(&mut self, session: &mut Session, is_json: bool) {
        let Some(resume) = session.resume_mut() else { return };
        let body = if is_json { self.bodies.json } else { self.bodies.plain };
        let packet = self.packets[usize::from(is_json)].get_or_insert_with(|| {
            let header = packet::header(PacketKind::Data, 2 + self.route.len() + body.len());
            let route = self.route.as_bytes();
            [&header[..], &push_head(route.len(), false), route, body].concat().into()
        });
        resume.unseen.keep_shared(packet.clone(), self.keep_max);
    }
}

impl Session {
    /// Whether an answer to what came by this link goes there, and nothing has to be remembered about it.
    #[inline(always)] // once per message
    fn takes_any_answer_to(&self, link: LinkId) -> bool {
        self.link == Some(link) && !self.doomed && !self.has_in_flight() && !self.can_return()
    }

    /// Whether an answer to what came by this link still reaches who asked.
    #[inline]
    fn takes_answer_to(&self, link: LinkId) -> bool {
        self.link == Some(link) && !self.doomed || self.can_return()
    }
}

/// Asks `link` to send an answer: behind the last one, if that goes there too.
#[inline(always)] // once per message
fn send_answer(
    session: &mut Session,
    queue_bytes_max: u32,
    link: LinkId,
    head: ResponseHead,
    body: &[u8],
    downs: &mut DownLog,
) -> bool {
    let charge = charge_answers(HEADER_BYTES + head.as_slice().len() + body.len(), 1);
    if !session.take_charge(queue_bytes_max, charge, link, downs) {
        return false;
    }
    let packet = downs.append_with(|bytes| head.append_packet(body, bytes));
    match downs.events.last_mut() {
        Some(Down::Answers { link: last, packets, count })
            if *last == link && packets.start + packets.len == packet.start =>
        {
            packets.len += packet.len;
            *count += 1;
        }
        _ => downs.push(Down::Answers { link, packets: packet, count: 1 }),
    }
    true
}

fn fits(class: Class, route: &str, body_bytes: usize) -> Result<(), PushError> {
    let prefix = if class == Class::Reliable { 0 } else { UNCOUNTED_PREFIX.len() };
    let fits = prefix + route.len() <= ROUTE_BYTES_MAX && body_bytes <= BODY_BYTES_MAX - HEAD_BYTES_MAX;
    if fits { Ok(()) } else { Err(PushError::TooLong) }
}

/// What a push without a body is to a JSON client: an empty one throws in JavaScript.
const EMPTY_JSON: &[u8] = b"{}";
