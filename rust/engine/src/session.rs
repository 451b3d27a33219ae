//! One person on this server. A session is never its link: links come and go under it.

use std::borrow::Cow;
use std::sync::Arc;

use wire::handshake::Serializer;

use crate::address::Address;
use crate::event::{LinkId, Nanos, Transport};
use crate::group::GroupKey;
use crate::resume::{Hash, Tokens, Told, Unseen};
use crate::snapshots::AllSnapshots;
use crate::timer::TimerKey;

/// A session of a [`crate::realm::Realm`]; of no meaning once it is closed, and never another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Place in the realm's table: small, so others can keep tables by it.
    pub slot: u32,
    /// Tells the tenants of a place apart.
    pub generation: u32,
}

impl SessionKey {
    /// The key as a number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The key that [`SessionKey::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its client has not acknowledged the handshake yet.
    Connecting,
    /// Its client is there.
    Active,
    /// Its client is silent or cut, and may come back.
    Pending,
    /// Over.
    Closed,
}

impl State {
    /// The word for it in logs and in Python.
    pub fn name(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Active => "active",
            State::Pending => "pending",
            State::Closed => "closed",
        }
    }
}

/// How far a session's link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkStage {
    /// Its handshake waits for the answer.
    Shaking,
    /// The client has not acknowledged the answer yet.
    Answered,
    /// Only now may anything else be sent.
    Acked,
}

/// Whether a client asked for the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SchemaWanted {
    #[default]
    No,
    /// And has the current one.
    Current,
    Document,
}

/// What is known of one person.
#[derive(Debug)]
pub struct Session {
    // What each message touches stands first.
    pub(crate) link: Option<LinkId>,
    pub(crate) state: State,
    pub(crate) serializer: Serializer,
    pub(crate) transport: Transport,
    pub(crate) tls: bool,
    pub(crate) stage: LinkStage,
    /// The game was told of it.
    pub(crate) joined: bool,
    /// The link was told to close: nothing counts any more.
    pub(crate) doomed: bool,
    pub(crate) knows: Knows,
    /// So many requests wait for their answer beyond the dispatch that brought them; [`Rare`] says which.
    in_flight: u32,
    pub(crate) charge: u32,
    pub(crate) last_heard: Nanos,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,

    pub(crate) connected_at: Nanos,
    pub(crate) rtt_us: u32,
    pub(crate) uid: Option<Arc<str>>,
    address: Address,
    rare: Option<Box<Rare>>,
}

/// What a client knows of our additions to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    Nothing,
    /// Its handshake had a `sys.gs`.
    Gs,
    /// And it can come back: its session has a [`Resume`].
    Resume,
}

/// What a session has whose client can come back.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub tokens: Tokens,
    /// Sent to the client. What it sent is [`Session::messages_in`].
    pub unseen: Unseen,
    /// What the client knows of that.
    pub told: Told,
}

/// What few sessions have at a time.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Until `authenticate` has answered, or a client has come back.
    pub timer: Option<TimerKey>,
    /// What its client's handshake asked for.
    pub wants_dict: bool,
    pub schema: SchemaWanted,
    pub wants_resume: bool,
    /// The hash of a token that its client came with, and that is none of this server's.
    pub came_with: Option<Box<Hash>>,
    /// Its link is told to read no more.
    pub paused: bool,
    /// Boxed, since most games and clients have no use for it.
    resume: Option<Box<Resume>>,
    pub groups: Vec<GroupKey>,
    /// Messages that did not decode, in the minute of this number.
    pub bad: u16,
    pub bad_minute: u16,
    /// The second in which it was last told that it sends too much.
    pub limited_second: Option<u32>,
    /// Bytes in and out, of the links before this one.
    pub bytes_before: [u64; 2],
    in_flight: Vec<u32>,
    /// If it is no [`Address`].
    address: Box<str>,
}

impl Session {
    /// One whose link has just come.
    pub(crate) fn new(
        now: Nanos,
        link: LinkId,
        transport: Transport,
        tls: bool,
        serializer: Serializer,
        address: &str,
    ) -> Self {
        let mut session = Self {
            link: Some(link),
            state: State::Connecting,
            serializer,
            transport,
            tls,
            stage: LinkStage::Shaking,
            joined: false,
            doomed: false,
            knows: Knows::Nothing,
            in_flight: 0,
            charge: 0,
            last_heard: now,
            messages_in: 0,
            messages_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            connected_at: now,
            rtt_us: 0,
            uid: None,
            address: Address::parse(address),
            rare: None,
        };
        if session.address == Address::Other {
            session.rare_mut().address = address.into();
        }
        session
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// The hash of the token that its client came with, if it is none of this server's.
    pub fn came_with(&self) -> Option<Hash> {
        self.rare()?.came_with.as_deref().copied()
    }

    /// The hash of the newest token that its client was given.
    pub fn token_hash(&self) -> Option<Hash> {
        self.rare()?.resume.as_ref()?.tokens.newest()
    }

    /// Who it is, if `authenticate` said so.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// How its client wants bodies written.
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// How its bytes reach us.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Where its client is, as text.
    pub fn address(&self) -> Cow<'_, str> {
        match (self.address, &self.rare) {
            (Address::Other, Some(rare)) => Cow::Borrowed(&rare.address),
            (address, _) => Cow::Owned(address.to_string()),
        }
    }

    /// When its first link came.
    pub fn connected_at(&self) -> Nanos {
        self.connected_at
    }

    /// When its client was last heard; between messages to a heartbeat's precision.
    pub fn last_heard(&self) -> Nanos {
        self.last_heard
    }

    /// The round trip that the system measured, in microseconds; none on Unix sockets and before the first heartbeat.
    pub fn rtt_us(&self) -> Option<u32> {
        (self.rtt_us > 0).then_some(self.rtt_us)
    }

    /// Bytes received: exact at each heartbeat, bodies alone between two.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes sent: exact at each heartbeat, bodies alone between two.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// Messages received.
    pub fn messages_in(&self) -> u64 {
        self.messages_in
    }

    /// Whether it is a member of a group.
    pub fn is_in(&self, group: GroupKey) -> bool {
        self.rare().is_some_and(|rare| rare.groups.contains(&group))
    }

    /// Messages sent.
    pub fn messages_out(&self) -> u64 {
        self.messages_out
    }

    /// Reliable bytes that are on their way and, as far as is known, have not left.
    pub fn queued_bytes(&self) -> u32 {
        self.charge
    }

    /// Its connection, if it has one now.
    pub fn link(&self) -> Option<LinkId> {
        self.link
    }

    pub(crate) fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(crate) fn rare_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Gives the memory of [`Rare`] back if there is nothing in it.
    pub(crate) fn shed_rare(&mut self) {
        self.rare.take_if(|rare| {
            let Rare {
                timer,
                wants_dict,
                schema,
                wants_resume,
                came_with,
                paused,
                resume,
                groups,
                bad,
                bad_minute: _,
                limited_second,
                bytes_before,
                in_flight,
                address,
            } = &**rare;
            timer.is_none()
                && !wants_dict
                && *schema == SchemaWanted::No
                && !wants_resume
                && came_with.is_none()
                && !paused
                && resume.is_none()
                && groups.is_empty()
                && *bad == 0
                && limited_second.is_none()
                && *bytes_before == [0; 2]
                && in_flight.capacity() == 0 // who deferred answers once will do so again
                && address.is_empty()
        });
    }

    /// Whether its client can come back.
    #[inline]
    pub(crate) fn can_return(&self) -> bool {
        self.knows == Knows::Resume
    }

    /// What it has for that, if its client can.
    #[inline]
    pub(crate) fn resume_mut(&mut self) -> Option<&mut Resume> {
        if !self.can_return() {
            return None;
        }
        self.rare.as_mut()?.resume.as_deref_mut()
    }

    /// Its client can come back from now on.
    pub(crate) fn let_return(&mut self) -> &mut Resume {
        self.knows = Knows::Resume;
        self.rare_mut().resume.get_or_insert_default()
    }

    /// Its client can't come back any more.
    pub(crate) fn forbid_return(&mut self) {
        if self.can_return() {
            self.knows = Knows::Gs;
            self.rare_mut().resume = None;
        }
    }

    pub(crate) fn take_timer(&mut self) -> Option<TimerKey> {
        self.rare.as_mut()?.timer.take()
    }

    pub(crate) fn take_groups(&mut self) -> Vec<GroupKey> {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.groups)).unwrap_or_default()
    }

    /// Its client comes back over the link of `guest`. Bodies stay as they were agreed on: some are written already.
    pub(crate) fn take_link_of(&mut self, mut guest: Session) {
        let (bytes_in, bytes_out) = (self.bytes_in, self.bytes_out);
        let theirs = std::mem::take(guest.rare_mut());
        let rare = self.rare_mut();
        (rare.wants_dict, rare.schema, rare.address) = (theirs.wants_dict, theirs.schema, theirs.address);
        rare.bytes_before = [bytes_in, bytes_out];
        self.link = guest.link;
        self.transport = guest.transport;
        self.tls = guest.tls;
        self.address = guest.address;
        self.last_heard = guest.last_heard;
        self.rtt_us = 0;
    }

    /// Whether any request still waits for its answer.
    #[inline]
    pub(crate) fn has_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether this request does.
    #[inline]
    pub(crate) fn is_in_flight(&self, id: u32) -> bool {
        self.in_flight > 0 && self.rare().is_some_and(|rare| rare.in_flight.contains(&id))
    }

    /// A request is in flight until it is answered.
    pub(crate) fn defer(&mut self, id: u32) {
        // One that waited for its turn is in flight already.
        if !self.is_in_flight(id) {
            self.rare_mut().in_flight.push(id);
            self.in_flight += 1;
        }
    }

    /// A request is in flight no more.
    #[inline]
    pub(crate) fn answer_is_given(&mut self, id: u32) {
        self.messages_out += 1;
        if self.in_flight > 0
            && let Some(rare) = &mut self.rare
            && let Some(place) = rare.in_flight.iter().position(|&other| other == id)
        {
            rare.in_flight.swap_remove(place);
            self.in_flight -= 1;
        }
    }

    /// No request is in flight: nobody waits for the answers.
    pub(crate) fn forget_in_flight(&mut self) {
        self.in_flight = 0;
        if let Some(rare) = &mut self.rare {
            rare.in_flight = Vec::new();
        }
    }
}

/// All sessions, by key.
#[derive(Default)]
pub(crate) struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// How many have each serializer, in the order of [`Serializer`].
    speaking: [u32; 2],
    /// Those of whom a session's client shows the world.
    pub snapshots: AllSnapshots,
}

struct Slot {
    /// The public id of the session that is or was here.
    id: u64,
    session: Option<Session>,
}

impl Slot {
    /// Ids are counted up, so the low half of each tells the tenants of a place apart as well as a counter of its own.
    #[inline]
    fn generation(&self) -> u32 {
        self.id as u32
    }
}

impl Sessions {
    /// `id` is another for each session, also in its low half.
    pub fn insert(&mut self, id: u64, session: Session) -> SessionKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { id, session: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        self.speaking[session.serializer as usize] += 1;
        (place.id, place.session) = (id, Some(session));
        SessionKey { slot, generation: place.generation() }
    }

    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        let is_it = slot.generation() == key.generation;
        let session = slot.session.take_if(|_| is_it)?;
        self.snapshots.set(key.slot, None);
        self.free.push(key.slot);
        self.speaking[session.serializer as usize] -= 1;
        Some(session)
    }

    /// How many there are, whether they have joined or not.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Sets how a client wants bodies written.
    pub fn set_serializer(&mut self, key: SessionKey, serializer: Serializer) {
        let Some(session) = self.get_mut(key) else { return };
        let old = std::mem::replace(&mut session.serializer, serializer);
        self.speaking[old as usize] -= 1;
        self.speaking[serializer as usize] += 1;
    }

    /// Whether any client has this serializer.
    #[inline]
    pub fn speaks(&self, serializer: Serializer) -> bool {
        self.speaking[serializer as usize] > 0
    }

    #[inline]
    pub fn get(&self, key: SessionKey) -> Option<&Session> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.session.as_ref().filter(|_| slot.generation() == key.generation)
    }

    #[inline]
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        let is_it = slot.generation() == key.generation;
        slot.session.as_mut().filter(|_| is_it)
    }

    /// The public id of a session.
    pub fn id(&self, key: SessionKey) -> Option<u64> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.session.is_some() && slot.generation() == key.generation).then_some(slot.id)
    }

    /// Whoever has this place, and under which key.
    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> Option<(SessionKey, &mut Session)> {
        let place = self.slots.get_mut(slot as usize)?;
        let key = SessionKey { slot, generation: place.generation() };
        place.session.as_mut().map(|session| (key, session))
    }

    #[inline]
    pub fn key_at(&self, slot: u32) -> Option<SessionKey> {
        let place = self.slots.get(slot as usize)?;
        place.session.is_some().then_some(SessionKey { slot, generation: place.generation() })
    }

    /// In the order of their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SessionKey, &mut Session)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, place)| {
            let key = SessionKey { slot: slot as u32, generation: place.generation() };
            place.session.as_mut().map(|session| (key, session))
        })
    }

    /// In the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let key = SessionKey { slot: slot as u32, generation: place.generation() };
            place.session.as_ref().map(|session| (key, session))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        println!("session: {} bytes", size_of::<Slot>());
        assert!(size_of::<Slot>() <= 128, "{}", size_of::<Slot>());
    }
}
