//! Everybody: sessions, groups, timers, and what is asked of the links. Lives on the logic thread.
//!
//! What the links tell goes in through [`Realm::handle_up`] and [`Realm::admit`]; what the game has to know comes out of
//! [`Realm::poll_event`]; what the links have to do lies in one log per reactor, [`Realm::downs`]. The same calls at the
//! same times give the same logs: nothing here follows the order of a hash map.

mod resume;
mod rooms;
mod send;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use wire::handshake::{
    ClientHandshake, GsAnswer, RefusalCode, ResumeAnswer, SchemaAnswer, Serializer, ServerHandshake,
};
use wire::json_text::escape_ascii;

use self::send::Targets;
use crate::event::{Close, Down, DownLog, LinkId, Nanos, RouteId, Transport, Up, UpLog};
use crate::group::Groups;
use crate::resume::{PING_ROUTE, TokenSource};
use crate::room::Rooms;
use crate::route::RouteTable;
use crate::session::{Knows, LinkStage, SchemaWanted, Session, Sessions, State};
use crate::snapshots::Snapshots;
use crate::timer::{Fired, Timers};

pub use self::send::Bodies;
pub use crate::group::GroupKey;
pub use crate::room::{CircleId, ROOM_NUMBER_MAX, RoomNumber, RoomTick};
pub use crate::session::SessionKey;
pub use crate::timer::TimerKey;

/// Settings of a [`Realm`].
#[derive(Clone, Debug)]
pub struct RealmConfig {
    /// This process among all: 28 bits, part of every session's id.
    pub node: u32,
    /// How many reactors there are, and so logs toward them.
    pub reactors: u8,
    /// Told to clients: whole seconds, at least 1.
    pub heartbeat_seconds: u32,
    /// What clients without `sys.gs` are told.
    pub serializer: Serializer,
    /// How long `authenticate` may take.
    pub auth_timeout: Nanos,
    /// How long a session waits for its client to come back once its link is gone; 0: not at all.
    pub resume_grace: Nanos,
    /// Bytes that are kept for one client until it has seen them; beyond that the oldest go. At most `queue_bytes_max` counts:
    /// all of them may be sent at once.
    pub resume_bytes_max: u32,
    /// Sessions that wait at a time; one more is over when its link is gone.
    pub resume_waiting_max: usize,
    /// Reliable bytes on their way to one client, beyond which it is too slow.
    pub queue_bytes_max: u32,
    /// Bytes of one log toward a reactor, beyond which what may be dropped is dropped.
    pub down_bytes_max: usize,
    /// A new login of the same uid replaces the old session; else it is refused.
    pub replace: bool,
    /// Messages that do not decode, in a minute, beyond which a client is closed.
    pub bad_messages_max: u16,
}

impl Default for RealmConfig {
    fn default() -> Self {
        Self {
            node: 0,
            reactors: 1,
            heartbeat_seconds: 15,
            serializer: Serializer::Json,
            auth_timeout: 10_000_000_000,
            resume_grace: 0,
            resume_bytes_max: 256 << 10,
            resume_waiting_max: 100_000,
            queue_bytes_max: 1 << 20,
            down_bytes_max: 64 << 20,
            replace: true,
            bad_messages_max: 60,
        }
    }
}

/// Whom a message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The session.
    pub session: SessionKey,
    /// Its [`Session::queued_bytes`].
    pub queued_bytes: u32,
    /// Its [`Session::serializer`].
    pub serializer: Serializer,
}

/// The messages of the game, told to clients that ask.
#[derive(Clone, Debug)]
pub struct SchemaDocument {
    /// A client that has the document of this digest does not get it again.
    pub digest: String,
    /// JSON text; the digest is in it, too.
    pub json: String,
}

/// What the game has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Event {
    /// Somebody knocks; `user` is the handshake's `user` as JSON text. To be answered by `accept` or `refuse`.
    Authenticate { session: SessionKey, user: Vec<u8> },
    /// The client is ready.
    Joined { session: SessionKey },
    /// It is silent or cut, and may come back.
    Dropped { session: SessionKey },
    /// It came back: over its connection, or over a new one that goes on where that ended.
    Resumed { session: SessionKey },
    /// It takes what is sent more slowly than it comes: much waits for it.
    Congested { session: SessionKey },
    /// It has caught up, or what waited went with its connection.
    Relieved { session: SessionKey },
    /// It is over: once for every session that joined. The session can be asked until the next `poll_event`.
    Left { session: SessionKey, why: Left },
    /// One that never joined is over.
    Gone { session: SessionKey },
    /// A timer of [`Realm::after`].
    Timer { key: TimerKey },
    /// Tick `tick` of the rooms that tick together in `circle`: of those to whom it comes after their `before`.
    RoomTicks { circle: CircleId, tick: u64 },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// The client closed in good order.
    Left,
    /// The server ended it: the game kicked or closed it, or it broke the protocol.
    Kicked,
    /// Its connection is gone, was silent or too slow.
    Lost,
    /// Its uid logged in anew.
    Replaced,
    /// The server stops.
    Shutdown,
}

impl Left {
    /// The word for it in Python.
    pub fn name(self) -> &'static str {
        match self {
            Left::Left => "left",
            Left::Kicked => "kicked",
            Left::Lost => "lost",
            Left::Replaced => "replaced",
            Left::Shutdown => "shutdown",
        }
    }
}

/// The session is over, or was never asked what is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed")]
pub struct SessionClosed;

/// Why a session was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// It is gone, or was answered already.
    #[error("the session is closed")]
    Closed,
    /// The uid is online and is not replaced: the newcomer was refused.
    #[error("the uid is online already")]
    UidTaken,
}

/// Why a push was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The session is over, or has not joined.
    #[error("the session is closed")]
    Closed,
    /// Its queue is full. If the push was reliable, the session is closed for it.
    #[error("the session's queue is full")]
    Full,
    /// Route over 255 bytes, or more in all than a packet holds.
    #[error("a push holds a route of at most 255 bytes and a body of less than 16 MiB")]
    TooLong,
}

/// Counters since the start.
#[derive(Clone, Debug, Default)]
pub struct RealmStats {
    /// Messages that sessions sent.
    pub messages_in: u64,
    /// Messages toward sessions, each receiver counted.
    pub messages_out: u64,
    /// Messages to routes that nobody handles.
    pub unknown_routes: u64,
    /// Kicks, pushes and responses from clients.
    pub ignored: u64,
    /// Messages over a limit: dropped, or refused.
    pub limited: u64,
    /// What was dropped because a log was full.
    pub dropped: u64,
    /// Sessions that went on over a new connection.
    pub resumed: u64,
    /// Clients that wanted to go on with a session and got a new one.
    pub resume_refused: u64,
    closed: [u64; Close::ALL.len()],
}

impl RealmStats {
    /// How many links ended for this reason.
    pub fn closed(&self, why: Close) -> u64 {
        self.closed[why as usize]
    }
}

/// All sessions of this process.
pub struct Realm {
    config: RealmConfig,
    heartbeat: NonZeroU32,
    routes: Arc<RouteTable>,
    schema: Option<SchemaDocument>,
    sessions: Sessions,
    /// Which session a link belongs to, by reactor and slot.
    links: Vec<Vec<Place>>,
    uids: HashMap<Arc<str>, SessionKey>,
    groups: Groups,
    rooms: Rooms,
    timers: Timers,
    fired: Vec<Fired>,
    events: VecDeque<Event>,
    /// A closed session whose end is being told.
    parting: Option<SessionKey>,
    downs: Vec<DownLog>,
    targets: Vec<Targets>,
    stats: RealmStats,
    /// Once the seed has come.
    tokens: Option<TokenSource>,
    /// Sessions without a link that wait for their client.
    waiting: usize,
    is_draining: bool,
    last_id: u64,
    /// Whose message was let in last.
    spoke_last: SessionKey,
}

#[derive(Clone, Copy)]
struct Place {
    generation: u32,
    session: u32,
}

impl Realm {
    /// A realm without anybody, at time 0 of whatever clock drives it.
    pub fn new(config: RealmConfig, routes: Arc<RouteTable>) -> Self {
        let reactors = usize::from(config.reactors.max(1));
        Self {
            heartbeat: NonZeroU32::new(config.heartbeat_seconds).unwrap_or(NonZeroU32::MIN),
            routes,
            schema: None,
            sessions: Sessions::default(),
            links: vec![Vec::new(); reactors],
            uids: HashMap::new(),
            groups: Groups::default(),
            rooms: Rooms::default(),
            timers: Timers::new(0),
            fired: Vec::new(),
            events: VecDeque::new(),
            parting: None,
            downs: vec![DownLog::default(); reactors],
            targets: vec![Targets::default(); reactors],
            stats: RealmStats::default(),
            tokens: None,
            waiting: 0,
            is_draining: false,
            last_id: 0,
            spoke_last: SessionKey { slot: NOBODY, generation: 0 },
            config,
        }
    }

    /// Another table of routes; the numbers of the old one stay.
    pub fn set_routes(&mut self, routes: Arc<RouteTable>) {
        self.routes = routes;
    }

    /// Another schema, for handshakes from now on.
    pub fn set_schema(&mut self, schema: Option<SchemaDocument>) {
        self.schema = schema;
    }

    /// Nobody new is let in from now on; who has a session may come back to it.
    pub fn set_draining(&mut self) {
        self.is_draining = true;
    }

    /// Whether any client has this serializer.
    #[inline]
    pub fn speaks(&self, serializer: Serializer) -> bool {
        self.sessions.speaks(serializer)
    }

    // -- from the links ----------------------------------------------------------------------------------------------

    /// Takes what a link tells, but for requests and notifies, which [`Realm::admit`] lets in one by one.
    pub fn handle_up(&mut self, now: Nanos, up: &Up, log: &UpLog) {
        match *up {
            Up::Opened { link, transport, tls, address } => {
                if transport != Transport::Http {
                    self.open(now, link, transport, tls, log.bytes(address));
                }
            }
            Up::Handshake { link, body } => self.greet(now, link, log.bytes(body)),
            Up::Ready { link } => self.ready(now, link),
            Up::UnknownRoute { link, request, route } => {
                self.unknown_route(now, link, request, log.bytes(route))
            }
            Up::Dropped { link, route, tell, count } => self.dropped(now, link, route, tell, count),
            Up::Limited { link, id, route } => {
                self.stats.limited += 1;
                if let Some(Admitted { session, .. }) = self.admit(now, link, Some(id), 0) {
                    let metadata = self.limit_metadata(route);
                    self.respond_error(session, link, id, "GS-429", TOO_MANY, &metadata);
                }
            }
            Up::Silent { link } => {
                if let Some((session, entry)) = self.of(link)
                    && entry.state == State::Active
                {
                    entry.state = State::Pending;
                    self.events.push_back(Event::Dropped { session });
                }
            }
            Up::Heard { link } => {
                if let Some((session, entry)) = self.of(link)
                    && entry.state == State::Pending
                {
                    entry.state = State::Active;
                    entry.last_heard = now;
                    self.events.push_back(Event::Resumed { session });
                }
            }
            Up::Meter { link, bytes_in, bytes_out, rtt_us, quiet } => {
                if let Some((_, entry)) = self.of(link) {
                    let [before_in, before_out] = entry.rare().map_or([0; 2], |rare| rare.bytes_before);
                    (entry.bytes_in, entry.bytes_out) = (before_in + bytes_in, before_out + bytes_out);
                    entry.rtt_us = rtt_us;
                    entry.last_heard = entry.last_heard.max(now.saturating_sub(quiet));
                }
                self.tell_seen_at_heartbeat(link);
            }
            Up::Sent { link, bytes } => {
                if let Some((_, entry)) = self.of(link) {
                    entry.charge = entry.charge.saturating_sub(bytes);
                }
            }
            Up::Congested { link } => {
                if let Some((session, _)) = self.of(link).filter(|(_, entry)| entry.joined) {
                    self.events.push_back(Event::Congested { session });
                }
            }
            Up::Relieved { link } => {
                if let Some((session, _)) = self.of(link).filter(|(_, entry)| entry.joined) {
                    self.events.push_back(Event::Relieved { session });
                }
            }
            Up::SnapshotLeft { link, number } => {
                if let Some(place) = self.place_of(link)
                    && let Some(snapshots) = self.sessions.snapshots.get_mut(place)
                {
                    snapshots.left(number);
                }
            }
            Up::Closed { link, why } => self.link_closed(now, link, why),
            Up::Seen { link, count } => self.seen(link, count),
            Up::Leaves { link } => {
                if let Some(key) = self.session_of(link) {
                    self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::Left });
                    self.end(key, Left::Left, None);
                }
            }
            Up::Seeded { seed } => self.tokens = log.bytes(seed).try_into().ok().map(TokenSource::new),
            Up::Ignored { .. } => self.stats.ignored += 1,
            // Dispatched by the caller.
            Up::Messages { .. } => {}
            // The HTTP side's, and a client's.
            Up::HttpBytes { .. } | Up::HttpEnded { .. } | Up::HttpDrained { .. } => {}
            Up::Response { .. } | Up::Push { .. } | Up::Kicked { .. } => {}
        }
    }

    /// The session that a message of this link belongs to, if it may be handled. Counts the message.
    ///
    /// A `request` whose id is still in flight would make its answer ambiguous: the link is closed.
    #[inline(always)] // once per message
    pub fn admit(
        &mut self,
        now: Nanos,
        link: LinkId,
        request: Option<u32>,
        body_len: usize,
    ) -> Option<Admitted> {
        // Most messages follow another of their link.
        let (key, session) = match self.sessions.get_mut(self.spoke_last) {
            Some(session) if session.link == Some(link) => (self.spoke_last, session),
            _ => {
                let place = self.links.get(usize::from(link.reactor()))?.get(link.slot() as usize)?;
                if place.generation != link.generation() {
                    return None;
                }
                let (key, session) = self.sessions.at_mut(place.session)?;
                self.spoke_last = key;
                (key, session)
            }
        };
        if session.state != State::Active || session.doomed {
            return None;
        }
        session.last_heard = now;
        session.messages_in += 1;
        session.bytes_in += body_len as u64;
        self.stats.messages_in += 1;
        if let Some(id) = request
            && session.is_in_flight(id)
        {
            session.doomed = true;
            self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::MessageInvalid });
            return None;
        }
        session.tell_seen_if_due(link, &mut self.downs[usize::from(link.reactor())]);
        Some(Admitted { session: key, queued_bytes: session.charge, serializer: session.serializer })
    }

    /// As [`Realm::admit`], of one more message of a link from which one was let in, if nothing has happened since but answers to
    /// it: and no more than `queued_bytes_max` of them wait. False: it is not let in, and has to be looked at closely.
    #[inline(always)] // once per message
    pub fn admit_next(
        &mut self,
        link: LinkId,
        from: SessionKey,
        request: Option<u32>,
        body_len: usize,
        queued_bytes_max: u32,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(from) else { return false };
        let is_in_flight = request.is_some_and(|id| session.is_in_flight(id));
        if is_in_flight || session.doomed || session.charge > queued_bytes_max {
            return false;
        }
        session.messages_in += 1;
        session.bytes_in += body_len as u64;
        self.stats.messages_in += 1;
        session.tell_seen_if_due(link, &mut self.downs[usize::from(link.reactor())]);
        true
    }

    /// So many notifies more of a link from which one was just let in: nothing has happened since that could keep them out. They
    /// are counted.
    pub fn admit_more(&mut self, link: LinkId, from: SessionKey, count: u64, body_bytes: u64) {
        let Some(session) = self.sessions.get_mut(from) else { return };
        session.messages_in += count;
        session.bytes_in += body_bytes;
        self.stats.messages_in += count;
        session.tell_seen_if_due(link, &mut self.downs[usize::from(link.reactor())]);
    }

    /// A message of this session was not what its route takes. Beyond `bad_messages_max` in a minute its link is closed.
    pub fn bad_message(&mut self, now: Nanos, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let minute = (now / MINUTE) as u16;
        let rare = session.rare_mut();
        if rare.bad_minute != minute {
            (rare.bad, rare.bad_minute) = (0, minute);
        }
        rare.bad = rare.bad.saturating_add(1);
        if rare.bad > self.config.bad_messages_max
            && !session.doomed
            && let Some(link) = session.link
        {
            session.doomed = true;
            self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::BadMessages });
        }
    }

    /// The session of a link, if it has one.
    #[inline]
    pub fn session_of(&self, link: LinkId) -> Option<SessionKey> {
        let place = self.links.get(usize::from(link.reactor()))?.get(link.slot() as usize)?;
        if place.generation != link.generation() {
            return None;
        }
        self.sessions.key_at(place.session)
    }

    /// The request stays unanswered beyond the dispatch that brought it: its id is in flight until it is answered.
    pub fn defer(&mut self, session: SessionKey, id: u32) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.defer(id);
        }
    }

    // -- the handshake's answer --------------------------------------------------------------------------------------

    /// Lets somebody in who knocked. Binds the uid: the old session of it is replaced. One whose client is not there is in
    /// nobody's way.
    pub fn accept(&mut self, key: SessionKey, uid: Option<&str>) -> Result<(), AcceptError> {
        if !self.awaits_answer(key) {
            return Err(AcceptError::Closed);
        }
        if let Some(uid) = uid {
            if let Some(old) = self.user(uid) {
                let is_there = self.sessions.get(old).is_some_and(|old| old.link.is_some());
                if !self.config.replace && is_there {
                    self.refuse(key, "GS-409", "this user is online already");
                    return Err(AcceptError::UidTaken);
                }
                self.end(old, Left::Replaced, Some((Close::Replaced, "replaced")));
            }
            let uid: Arc<str> = uid.into();
            self.uids.insert(uid.clone(), key);
            self.sessions.get_mut(key).expect("asked above").uid = Some(uid);
        }
        self.answer(key, None);
        Ok(())
    }

    /// Turns somebody away who knocked.
    pub fn refuse(&mut self, key: SessionKey, code: &str, text: &str) {
        self.turn_away(key, Close::Refused, RefusalCode::Failed, code, text);
    }

    // -- verbs -------------------------------------------------------------------------------------------------------

    /// Ends a session with a Kick packet that says why.
    pub fn kick(&mut self, key: SessionKey, reason: &str) {
        self.end(key, Left::Kicked, Some((Close::Kicked, reason)));
    }

    /// Ends a session without a word.
    pub fn close(&mut self, key: SessionKey) {
        if let Some(link) = self.sessions.get(key).and_then(|session| session.link) {
            self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::Closed });
        }
        self.end(key, Left::Kicked, None);
    }

    /// Stops reading from a session: what it has sent already is still to be handled.
    pub fn pause(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.rare_mut().paused = true;
        if let Some(link) = session.link {
            self.downs[usize::from(link.reactor())].push(Down::Pause { link });
        }
    }

    /// Reads from it again.
    pub fn resume(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(rare) = session.rare_if_any() {
            rare.paused = false;
        }
        if let Some(link) = session.link {
            self.downs[usize::from(link.reactor())].push(Down::Resume { link });
        }
    }

    /// Kicks everybody.
    pub fn shutdown(&mut self, reason: &str) {
        let everybody: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in everybody {
            self.end(key, Left::Shutdown, Some((Close::Shutdown, reason)));
        }
    }

    // -- groups ------------------------------------------------------------------------------------------------------

    /// The group of this name, a new one if there is none.
    pub fn group(&mut self, name: &str) -> GroupKey {
        self.groups.open(name)
    }

    /// The group of this name.
    pub fn find_group(&self, name: &str) -> Option<GroupKey> {
        self.groups.find(name)
    }

    /// Adds a member until it leaves or its session ends. False if it is one, or either is gone.
    pub fn group_add(&mut self, group: GroupKey, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.state != State::Closed)
        else {
            return false;
        };
        let is_new = self.groups.add(group, key);
        if is_new {
            session.rare_mut().groups.push(group);
        }
        is_new
    }

    /// Takes a member out; false if it is none.
    pub fn group_remove(&mut self, group: GroupKey, key: SessionKey) -> bool {
        if !self.groups.remove(group, key) {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.rare_mut().groups.retain(|&other| other != group);
        }
        true
    }

    /// Members, in the order in which they came.
    pub fn group_members(&self, group: GroupKey) -> impl Iterator<Item = SessionKey> {
        self.groups.members(group)
    }

    /// How many members it has.
    pub fn group_len(&self, group: GroupKey) -> usize {
        self.groups.len(group)
    }

    /// Its name, if it is still there.
    pub fn group_name(&self, group: GroupKey) -> Option<&str> {
        self.groups.name(group)
    }

    /// Forgets a group, if it has no members.
    pub fn group_forget(&mut self, group: GroupKey) -> bool {
        self.groups.forget(group)
    }

    // -- time --------------------------------------------------------------------------------------------------------

    /// Has [`Event::Timer`] come `delay` from now.
    pub fn after(&mut self, now: Nanos, delay: Nanos) -> TimerKey {
        self.timers.insert(now.saturating_add(delay), GAME_TIMER)
    }

    /// Takes a timer back; false if it has fired already.
    pub fn cancel(&mut self, timer: TimerKey) -> bool {
        self.timers.cancel(timer).is_some()
    }

    /// Does what is due: timers, deadlines of `authenticate`, sessions whose client did not come back.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.expire(now, &mut fired);
        for Fired { key, payload, .. } in fired.drain(..) {
            if payload == GAME_TIMER {
                self.events.push_back(Event::Timer { key });
            } else if payload & rooms::ROOM_TIMER != 0 {
                self.rooms_due(now, payload as u32);
            } else {
                self.session_due(payload as u32, key);
            }
        }
        self.fired = fired;
        while let Some(circle) = self.rooms.next_due(now) {
            self.rooms_due(now, circle);
        }
    }

    /// When [`Realm::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.timers.next_deadline().into_iter().chain(self.rooms.next_deadline()).min()
    }

    // -- what comes out ----------------------------------------------------------------------------------------------

    /// What the game has to know next. A session that has left is gone with the call after the one that told it.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(key) = self.parting.take() {
            self.sessions.remove(key);
        }
        let event = self.events.pop_front();
        if let Some(Event::Left { session, .. }) = event {
            self.parting = Some(session);
        }
        event
    }

    /// Whether there is anything that [`Realm::poll_event`] gives: it may be nobody's doing that a socket could tell of.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What the links of a reactor have to do; the caller empties it.
    #[inline]
    pub fn downs(&mut self, reactor: u8) -> &mut DownLog {
        &mut self.downs[usize::from(reactor)]
    }

    /// One session; also one that has left, while that is being told.
    #[inline]
    pub fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key)
    }

    /// A session's public id: unique over all processes whose node numbers differ.
    pub fn session_id(&self, key: SessionKey) -> Option<u64> {
        self.sessions.id(key)
    }

    /// Everybody who has joined and not left.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.sessions.iter().filter(|(_, session)| session.is_present()).map(|(key, _)| key)
    }

    /// How many sessions there are, also those that have not joined yet, or wait for their client.
    pub fn sessions_held(&self) -> usize {
        self.sessions.len()
    }

    /// The session of this uid.
    pub fn user(&self, uid: &str) -> Option<SessionKey> {
        self.uids.get(uid).copied()
    }

    /// Counters.
    pub fn stats(&self) -> &RealmStats {
        &self.stats
    }

    // -- inside ------------------------------------------------------------------------------------------------------

    fn open(&mut self, now: Nanos, link: LinkId, transport: Transport, tls: bool, address: &[u8]) {
        self.last_id += 1;
        let id = u64::from(self.config.node & NODE_MASK) << COUNTER_BITS | self.last_id & COUNTER_MASK;
        let address = String::from_utf8_lossy(address);
        let serializer = self.config.serializer;
        let key = self.sessions.insert(id, Session::new(now, link, transport, tls, serializer, &address));
        let places = &mut self.links[usize::from(link.reactor())];
        let slot = link.slot() as usize;
        if places.len() <= slot {
            places.resize(slot + 1, Place { generation: 0, session: NOBODY });
        }
        places[slot] = Place { generation: link.generation(), session: key.slot };
    }

    fn greet(&mut self, now: Nanos, link: LinkId, body: &[u8]) {
        let Some(key) = self.session_of(link) else { return };
        let handshake = match ClientHandshake::parse(body) {
            Ok(handshake) => handshake,
            Err(error) => {
                let text = error.to_string();
                self.turn_away(key, Close::HandshakeInvalid, RefusalCode::Rejected, "GS-400", &text);
                return;
            }
        };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut serializer = self.config.serializer;
        match &handshake.gs {
            Some(gs) => {
                session.knows = Knows::Gs;
                let rare = session.rare_mut();
                rare.wants_dict = gs.dict;
                rare.schema = match (&gs.schema, &self.schema) {
                    (Some(has), Some(schema)) if *has == schema.digest => SchemaWanted::Current,
                    (Some(_), Some(_)) => SchemaWanted::Document,
                    _ => SchemaWanted::No,
                };
                rare.wants_resume = gs.resume.is_some();
                serializer = gs.serializer.unwrap_or(serializer);
                self.sessions.snapshots.set(key.slot, gs.world.then(Snapshots::default));
            }
            None if handshake.is_javascript() => serializer = Serializer::Json,
            None => {}
        }
        if let Some(resume) = handshake.gs.as_ref().and_then(|gs| gs.resume.as_ref()) {
            if self.take_over(key, resume) {
                return;
            }
            self.note_token(key, resume);
        }
        if self.is_draining {
            let text = "the server is about to stop; connect again";
            return self.turn_away(key, Close::Shutdown, RefusalCode::Failed, DRAINING, text);
        }
        let timer = self.timers.insert(now.saturating_add(self.config.auth_timeout), u64::from(key.slot));
        if let Some(session) = self.sessions.get_mut(key) {
            session.rare_mut().timer = Some(timer);
        }
        self.sessions.set_serializer(key, serializer);
        let user = handshake.user.unwrap_or_else(|| "{}".to_owned()).into_bytes();
        self.events.push_back(Event::Authenticate { session: key, user });
    }

    fn awaits_answer(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| {
            session.state == State::Connecting
                && session.stage == LinkStage::Shaking
                && session.link.is_some()
        })
    }

    /// `seen`: of a session that goes on.
    fn answer(&mut self, key: SessionKey, seen: Option<u64>) {
        let Some(id) = self.sessions.id(key) else { return };
        let wants_resume =
            self.sessions.get(key).and_then(Session::rare).is_some_and(|rare| rare.wants_resume);
        let token = self.issue_token(key, wants_resume);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(link) = session.link else { return };
        session.stage = LinkStage::Answered;
        if let Some(timer) = session.take_timer() {
            self.timers.cancel(timer);
        }
        // Asked for by this link, and answered now.
        let rare = session.rare_mut();
        let (wants_dict, schema_wanted) =
            (std::mem::take(&mut rare.wants_dict), std::mem::take(&mut rare.schema));
        rare.wants_resume = false;
        session.shed_rare();
        let codes = if wants_dict { self.routes.len().min(usize::from(u16::MAX)) as u16 } else { 0 };
        let dict: Vec<(&str, u16)> = self.routes.names().zip(1..=codes).collect();
        let schema = match (&self.schema, schema_wanted) {
            (Some(schema), SchemaWanted::Document) => Some(SchemaAnswer::Document(&schema.json)),
            (Some(schema), SchemaWanted::Current) => Some(SchemaAnswer::Current(&schema.digest)),
            _ => None,
        };
        let grace_ms = self.config.resume_grace / 1_000_000;
        let resume = token.as_deref().map(|token| ResumeAnswer { token, grace_ms, seen });
        let body = ServerHandshake {
            heartbeat: self.heartbeat,
            serializer: session.serializer,
            dict: &dict,
            gs: (session.knows != Knows::Nothing).then(|| GsAnswer {
                session: id,
                schema,
                resume,
                ..GsAnswer::default()
            }),
            user: "{}",
        }
        .to_bytes();
        let downs = &mut self.downs[usize::from(link.reactor())];
        let body = downs.store(&body);
        downs.push(Down::Accept { link, body, codes, counts: token.is_some() });
    }

    fn turn_away(&mut self, key: SessionKey, why: Close, status: RefusalCode, code: &str, text: &str) {
        if !self.awaits_answer(key) {
            return;
        }
        if let Some(link) = self.sessions.get(key).and_then(|session| session.link) {
            let body = ServerHandshake::refusal(self.heartbeat, status, code, text);
            let downs = &mut self.downs[usize::from(link.reactor())];
            let body = downs.store(&body);
            downs.push(Down::Refuse { link, why, body });
        }
        self.end(key, Left::Kicked, None);
    }

    fn ready(&mut self, now: Nanos, link: LinkId) {
        let Some((key, session)) = self.of(link) else { return };
        if session.stage != LinkStage::Answered {
            return;
        }
        session.stage = LinkStage::Acked;
        session.state = State::Active;
        session.last_heard = now;
        let was_joined = std::mem::replace(&mut session.joined, true);
        let event = if was_joined { Event::Resumed { session: key } } else { Event::Joined { session: key } };
        if let Some(session) = self.sessions.get_mut(key) {
            session.send_again(link, &mut self.downs[usize::from(link.reactor())]);
        }
        self.stats.resumed += u64::from(was_joined);
        self.events.push_back(event);
    }

    fn unknown_route(&mut self, now: Nanos, link: LinkId, request: Option<u32>, route: &[u8]) {
        let is_ping = request.is_some() && route == PING_ROUTE.as_bytes();
        self.stats.unknown_routes += u64::from(!is_ping);
        let Some(Admitted { session: key, .. }) = self.admit(now, link, request, 0) else { return };
        if let (true, Some(id)) = (is_ping, request) {
            return self.respond(key, link, id, b"");
        }
        let route = String::from_utf8_lossy(route);
        let text = format!("no handler for route {route:?}");
        match request {
            Some(id) => self.respond_error(key, link, id, "GS-404", &text, &[]),
            None => {
                self.refuse_notify(key, link, "GS-404", &text, &[("route".to_owned(), route.into_owned())])
            }
        }
    }

    /// Messages over a limit were dropped. The session counts them as others, or who comes back would send them again; and its
    /// client is told, once a second.
    fn dropped(&mut self, now: Nanos, link: LinkId, route: Option<RouteId>, tell: bool, count: u32) {
        self.stats.limited += u64::from(count);
        let Some(Admitted { session: key, .. }) = self.admit(now, link, None, 0) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let more = u64::from(count - 1);
        session.messages_in += more;
        self.stats.messages_in += more;
        let second = (now / SECOND) as u32;
        if tell && session.rare_mut().limited_second.replace(second) != Some(second) {
            let metadata = self.limit_metadata(route);
            self.refuse_notify(key, link, "GS-429", TOO_MANY, &metadata);
        }
    }

    fn limit_metadata(&self, route: Option<RouteId>) -> Vec<(String, String)> {
        route.map(|route| ("route".to_owned(), self.routes.name(route).to_owned())).into_iter().collect()
    }

    fn link_closed(&mut self, now: Nanos, link: LinkId, why: Close) {
        self.stats.closed[why as usize] += 1;
        let Some((key, session)) = self.of(link) else { return };
        let can_return = session.can_return();
        let is_lost = match why {
            Close::Reset | Close::Silent | Close::Slow | Close::Panic => true,
            // One that leaves for good says so.
            Close::Left => can_return,
            // On its way back, or in, it got no further: the answer may have been lost.
            Close::HandshakeTimeout => session.stage == LinkStage::Answered,
            _ => false,
        };
        if !is_lost || !session.joined && !can_return {
            let left = match why {
                Close::Left => Left::Left,
                Close::Shutdown => Left::Shutdown,
                Close::Replaced => Left::Replaced,
                _ if is_lost => Left::Lost,
                _ => Left::Kicked,
            };
            self.end(key, left, None);
            return;
        }
        let was_active = session.state == State::Active;
        session.state = State::Pending;
        session.link = None;
        (session.stage, session.doomed) = (LinkStage::Shaking, false);
        session.charge = 0;
        if was_active {
            self.events.push_back(Event::Dropped { session: key });
        }
        self.forget_link(link);
        if !can_return || !self.wait_for_client(now, key) {
            self.end(key, Left::Lost, None);
        }
    }

    /// `authenticate` did not answer in time, or nobody came back.
    fn session_due(&mut self, slot: u32, timer: TimerKey) {
        let Some((key, session)) = self.sessions.at_mut(slot) else { return };
        if session.rare().and_then(|rare| rare.timer) != Some(timer) {
            return;
        }
        if session.state == State::Pending {
            self.end(key, Left::Lost, None);
            return;
        }
        session.take_timer();
        if let Some(link) = session.link {
            // No refusal: some clients come back after a close and not after a refusal.
            self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::AuthTimeout });
        }
        self.end(key, Left::Kicked, None);
    }

    /// The one way in which a session ends.
    fn end(&mut self, key: SessionKey, left: Left, kick: Option<(Close, &str)>) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.state != State::Closed)
        else {
            return;
        };
        let was_waiting = session.is_waiting();
        session.state = State::Closed;
        session.charge = 0;
        session.forbid_return();
        session.forget_in_flight();
        let (link, timer, joined) = (session.link.take(), session.take_timer(), session.joined);
        let groups = session.take_groups();
        self.waiting -= usize::from(was_waiting);
        if let Some(uid) = &session.uid
            && self.uids.get(uid) == Some(&key)
        {
            self.uids.remove(uid);
        }
        for group in groups {
            self.groups.remove(group, key);
        }
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        if let Some(link) = link {
            self.forget_link(link);
            if let Some((why, reason)) = kick {
                let downs = &mut self.downs[usize::from(link.reactor())];
                let body = downs.store(&kick_body(reason));
                downs.push(Down::Kick { link, why, body });
            }
        }
        if joined {
            self.events.push_back(Event::Left { session: key, why: left });
        } else {
            self.sessions.remove(key);
            self.events.push_back(Event::Gone { session: key });
        }
    }

    fn forget_link(&mut self, link: LinkId) {
        let place = self
            .links
            .get_mut(usize::from(link.reactor()))
            .and_then(|places| places.get_mut(link.slot() as usize));
        if let Some(place) = place.filter(|place| place.generation == link.generation()) {
            place.session = NOBODY;
        }
    }

    fn of(&mut self, link: LinkId) -> Option<(SessionKey, &mut Session)> {
        let place = self.place_of(link)?;
        self.sessions.at_mut(place)
    }

    /// The place of a link's session.
    #[inline]
    fn place_of(&self, link: LinkId) -> Option<u32> {
        let place = self.links.get(usize::from(link.reactor()))?.get(link.slot() as usize)?;
        (place.generation == link.generation()).then_some(place.session)
    }
}

impl Session {
    /// Its client is gone and has a deadline.
    fn is_waiting(&self) -> bool {
        self.state == State::Pending && self.rare().is_some_and(|rare| rare.timer.is_some())
    }

    /// Joined and not left.
    fn is_present(&self) -> bool {
        self.joined && self.state != State::Closed
    }

    /// The link that pushes go to; also that of a client that is silent, but not one that waits for its acknowledgement:
    /// it would drop them.
    #[inline]
    fn reachable(&self) -> Option<LinkId> {
        self.link.filter(|_| self.stage == LinkStage::Acked && !self.doomed)
    }

    /// Charges reliable bytes that are about to be sent; a client that does not take them is closed.
    #[inline]
    fn take_charge(&mut self, max: u32, charge: u32, link: LinkId, downs: &mut DownLog) -> bool {
        let total = self.charge.saturating_add(charge);
        if total > max {
            self.doomed = true;
            downs.push(Down::Abort { link, why: Close::Slow });
            return false;
        }
        self.charge = total;
        true
    }
}

/// ASCII, as everything toward JavaScript.
fn kick_body(reason: &str) -> Vec<u8> {
    let json = serde_json::json!({ "reason": reason }).to_string();
    escape_ascii(json.as_bytes()).into_owned()
}

/// A newcomer's error while the server drains: clients try again.
const DRAINING: &str = "GS-503";
const TOO_MANY: &str = "more messages than the server takes; slow down";
const SECOND: Nanos = 1_000_000_000;
const MINUTE: Nanos = 60 * SECOND;
/// A place of a link that has no session.
const NOBODY: u32 = u32::MAX;
/// The payload of a timer that is the game's; a session's is its slot.
const GAME_TIMER: u64 = u64::MAX;
/// A public id is 28 bits of node and 36 of counter.
const COUNTER_BITS: u32 = 36;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;
const NODE_MASK: u32 = (1 << 28) - 1;
