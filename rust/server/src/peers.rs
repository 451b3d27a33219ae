//! A reactor and its links: what one thread polls.
//!
//! `wait`, `read` what came into a log for the realm, `apply` the realm's log, `flush`: the sockets' half of a turn.

use std::hint::black_box;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use engine::event::{Class, Close, Down, DownLog, LinkId, Nanos, SNAPSHOT_KEY, UpLog};
use engine::link::{Ending, Greeting, Link, LinkConfig, Next, Pass, SharedPush, Taken};
use engine::rate::SharedBucket;
use engine::wheel::{Due, Wheel};
use net::address::{Address, Peer};
use net::pool::Pool;
use net::queue::SendQueue;
use net::reactor::{Flush, Reactor, Read, Ready, Token};
use net::tls::TlsClientConfig;
use wire::detect::{Detected, detect};

use crate::awake::Awake;
use crate::outboxes::{Metered, Out, Said};
use crate::patience::{self, Patience};

/// Messages that one connection may bring in a pass before the others have their turn.
const MESSAGES_PER_PASS: usize = 128;
/// Bytes queued for one connection beyond which it is not read: who does not take answers brings no more requests.
const READ_WHILE_QUEUED_BYTES: usize = 256 * 1024;

/// How long answers may be kept back because more of them come: a send costs as much as many a handler.
const HOLD_NANOS: Nanos = 2_000_000;

/// A foreign descriptor (asyncio's) that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The descriptor.
    pub fd: RawFd,
    /// It can be read, or has failed.
    pub read: bool,
    /// It can be written, or has failed.
    pub write: bool,
}

/// A reactor, its links and their deadlines.
pub struct Peers {
    number: u8,
    reactor: Reactor,
    config: Arc<LinkConfig>,
    slots: Vec<Option<Slot>>,
    wheel: Wheel,
    awake: Awake,
    dirty: Vec<Token>,
    backlog: Vec<Token>,
    backlog_before: Vec<Token>,
    /// Between the first and the last read after a wait; so much of the backlog is done.
    in_pass: bool,
    again_at: usize,
    unread: Vec<Token>,
    foreign: Vec<Foreign>,
    due: Vec<Due>,
    reading: bool,
    /// The last wait was not a long one.
    is_rushed: bool,
    /// What is sent past the queues, one after the other.
    said: Vec<u8>,
    /// Sockets told of since silence was last judged.
    told: usize,
    /// When the first of those was kept back that a flush left unsent.
    holding_since: Option<Nanos>,
    /// The timeouts of this place panic.
    #[cfg(test)]
    fails_at: Option<u32>,
}

struct Slot {
    dirty: bool,
    backlog: bool,
    held: bool,
    choked: bool,
    more_comes: bool,
    patience: Patience,
    /// Where in the log its last row begins; in one of more than 65,536 events perhaps an earlier one, which costs a send.
    last_row: u16,
    link: Link,
}

impl Peers {
    /// Reactor `number` without any link.
    pub fn new(number: u8, reactor: Reactor, config: Arc<LinkConfig>, now: Nanos) -> Self {
        Self {
            number,
            reactor,
            config,
            slots: Vec::new(),
            wheel: Wheel::new(now),
            awake: Awake::new(now),
            dirty: Vec::new(),
            backlog: Vec::new(),
            backlog_before: Vec::new(),
            in_pass: false,
            again_at: 0,
            unread: Vec::new(),
            foreign: Vec::new(),
            due: Vec::new(),
            reading: true,
            is_rushed: false,
            said: Vec::new(),
            told: 0,
            holding_since: None,
            #[cfg(test)]
            fails_at: None,
        }
    }

    /// Settings of all links, from now on.
    pub fn configure(&mut self, config: Arc<LinkConfig>) {
        for slot in self.slots.iter_mut().flatten() {
            slot.link.set_config(config.clone());
        }
        self.config = config;
    }

    /// Waits for sockets, foreign descriptors, a link's deadline, or `until` (monotonic); not at all while a backlog is left.
    pub fn wait(&mut self, until: Option<Nanos>, spin: bool) -> io::Result<()> {
        let began = net::sys::monotonic_now();
        self.awake.begin_wait(began);
        let deadline = if self.reading && !self.backlog.is_empty() {
            Some(0)
        } else {
            let timer = self.wheel.next_deadline().map(|awake| self.awake.to_monotonic(awake));
            [until, timer].into_iter().flatten().min()
        };
        let result = self.reactor.wait(deadline, spin);
        let ended = net::sys::monotonic_now();
        self.awake.end_wait(ended, self.reading);
        self.is_rushed = !patience::is_long(ended - began);
        result
    }

    /// What came, as events, until the log has about `bytes_max` bytes: then there is more, to be read before the next
    /// wait. At the end what is due by time, unless somebody may have spoken whom no wait has shown.
    pub fn read(&mut self, ups: &mut UpLog, bytes_max: usize) -> bool {
        if !std::mem::replace(&mut self.in_pass, true) {
            std::mem::swap(&mut self.backlog, &mut self.backlog_before);
        }
        while self.again_at < self.backlog_before.len() {
            if ups.size() >= bytes_max {
                return true;
            }
            let token = self.backlog_before[self.again_at];
            self.again_at += 1;
            self.receive(token, true, ups);
        }
        while ups.size() < bytes_max {
            let Some(ready) = self.reactor.next_ready() else {
                self.end_pass(ups);
                return false;
            };
            self.told += 1;
            match ready {
                Ready::Readable(token) => self.receive(token, false, ups),
                Ready::Writable(token) => self.mark_dirty(token),
                Ready::Accepted(token) => self.open(token),
                Ready::Connected(token) => self.greet(token, ups),
                Ready::Foreign { fd, read, write, error } => {
                    self.foreign.push(Foreign { fd, read: read || error, write: write || error });
                }
                Ready::Woken => {}
            }
        }
        true
    }

    fn end_pass(&mut self, ups: &mut UpLog) {
        (self.in_pass, self.again_at) = (false, 0);
        self.backlog_before.clear();
        // Ready sockets are told in turn: after more tellings than there are sockets, each was told at least once. So
        // those that are always ready put nobody's deadline off.
        if !self.reactor.ready_is_partial() || self.told > self.slots.len() {
            self.told = 0;
            self.expire(ups);
        }
    }

    /// Does what the realm asks. Where nothing waits and nothing more follows for a link, what has to be sent goes at once: its part
    /// of memory is in the processor's caches now. All else waits for `flush`.
    pub fn apply(&mut self, downs: &DownLog, ups: &mut UpLog) {
        let snapshots = last_snapshots(&downs.events);
        let (events, snapshots) = downs.events.split_at(downs.events.len() - snapshots);
        if self.said.capacity() > SAID_MAX {
            self.said = Vec::new();
        }
        let for_all = if snapshots.is_empty() { self.note_last_rows(events) } else { events.len() };
        let mut at = 0;
        while let Some(first) = events.get(at) {
            let Some(id) = first.link() else {
                at += 1;
                self.broadcast(first, at == downs.events.len(), downs, ups);
                continue;
            };
            // What is asked of one link in a row, as the answers to all that it sent, finds it once.
            let row = events[at..].iter().take_while(|down| down.link() == Some(id)).count();
            let row = &events[at..at + row];
            if at >= for_all && self.may_send_past(id, at, row) {
                let answers = match *row {
                    [Down::Answers { packets, .. }] => downs.bytes(packets),
                    _ => &[],
                };
                self.send_past(id, answers, ups, |link, now, ups, out| {
                    row.iter().try_for_each(|down| link.handle_down(now, down, downs, ups, out))
                });
            } else {
                self.with_link(id, ups, |link, now, ups, out| {
                    row.iter().try_for_each(|down| link.handle_down(now, down, downs, ups, out))
                });
            }
            at += row.len();
        }
        for some in snapshots.chunks(FETCHED_TOGETHER) {
            fetch(&mut self.slots, &self.reactor, some.iter().filter_map(Down::link).map(token));
            for down in some {
                let Some(id) = down.link() else { continue };
                if self.reactor.is_clear(token(id)) {
                    self.send_past(id, &[], ups, |link, now, ups, out| {
                        link.handle_down(now, down, downs, ups, out)
                    });
                    continue;
                }
                self.with_link(id, ups, |link, now, ups, out| link.handle_down(now, down, downs, ups, out));
                let token = token(id);
                self.dirty.pop_if(|last| *last == token);
                self.flush_one(token, ups);
            }
        }
    }

    /// Says in each link's slot where the last row of events begins that is the link's; returns where what is for all ends.
    fn note_last_rows(&mut self, events: &[Down]) -> usize {
        let (mut for_all, mut before) = (0, None);
        for (at, down) in events.iter().enumerate() {
            let link = down.link();
            match link {
                None => for_all = at + 1,
                Some(id) if link != before => {
                    if let Some(slot) = slot_of(&mut self.slots, token(id)) {
                        slot.last_row = at as u16;
                    }
                }
                Some(_) => {}
            }
            before = link;
        }
        for_all
    }

    /// Whether these events, which begin at this place of the log, are answers and pushes behind which no more is sent in this pass, and
    /// before which nothing waits.
    fn may_send_past(&mut self, id: LinkId, at: usize, row: &[Down]) -> bool {
        let is_last = |slot: &mut Slot| slot.last_row == at as u16 && !slot.more_comes && !slot.dirty;
        // What may be replaced or dropped waits by itself, if it has to.
        let waits_joined =
            |down: &Down| matches!(down, Down::Answers { .. } | Down::Push { class: Class::Reliable, .. });
        row.iter().all(waits_joined)
            && slot_of(&mut self.slots, token(id)).is_some_and(is_last)
            && self.reactor.is_clear(token(id))
    }

    /// Runs `work` on a link in whose queue nothing waits, and sends what comes of it at once: no block is needed but for what the
    /// system does not take. `log`: what it will say mostly, and need not be copied then.
    fn send_past(
        &mut self,
        id: LinkId,
        log: &[u8],
        ups: &mut UpLog,
        work: impl FnOnce(&mut Link, Nanos, &mut UpLog, &mut Said<'_>) -> Result<(), Close>,
    ) {
        let token = token(id);
        let now = self.awake.now();
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        let link = &mut slot.link;
        let mut out = Said::new(&mut self.said, log);
        let result = catch_unwind(AssertUnwindSafe(|| work(link, now, ups, &mut out)));
        let ((class, key), mut said) = (out.kind(), out.into_bytes());
        if result.is_err() {
            link.handle_end(now, Close::Panic, ups);
            said = &[]; // perhaps half a packet
        }
        let sent = if said.is_empty() { Ok(0) } else { self.reactor.send_past(token, said) };
        match sent {
            Ok(sent) if sent == said.len() => {
                link.handle_sent(0, ups);
                if link.snapshot_waits() {
                    link.handle_snapshot_left(ups);
                }
                self.settle(token);
            }
            Ok(sent) => {
                if let Some((queue, pool)) = self.reactor.queue(token) {
                    let write = |bytes: &mut Vec<u8>| bytes.extend_from_slice(said);
                    let result = queue.append_sized(pool, class, key, said.len(), write);
                    // It may have been dropped, which does for what has not begun to leave.
                    let waits = result.is_ok() && queue.len_bytes() == said.len();
                    if waits {
                        queue.advance(sent); // now it can't be replaced any more
                    } else if result.is_err() || sent > 0 {
                        link.handle_end(now, Close::Slow, ups);
                    }
                }
                slot.dirty = true;
                self.flush_one(token, ups);
            }
            Err(_) => {
                link.handle_end(now, Close::Reset, ups);
                self.settle(token);
            }
        }
    }

    /// Begins to connect, in client role: once it is connected it says its greeting. With TLS, to a server of this name.
    pub fn connect(
        &mut self,
        address: &Address,
        tls: Option<(&TlsClientConfig, &str)>,
        greeting: Greeting,
    ) -> io::Result<LinkId> {
        let token = match tls {
            Some((config, name)) => self.reactor.connect_tls(address, config, name)?,
            None => self.reactor.connect(address)?,
        };
        let id = LinkId::new(self.number, token.slot, token.generation);
        self.insert(token, Link::client(self.awake.now(), id, self.config.clone(), greeting));
        Ok(id)
    }

    /// What is queued for a link may wait for more that is about to be, or may not any longer.
    pub fn hold(&mut self, id: LinkId, more_comes: bool) {
        if let Some(slot) = slot_of(&mut self.slots, token(id)) {
            slot.more_comes = more_comes;
        }
    }

    /// Sends what is queued, once per connection, and ends those that have said all. With `may_hold`, those for whom more
    /// comes wait for it, as long as a player does not notice.
    pub fn flush(&mut self, may_hold: bool, ups: &mut UpLog) {
        let mut now = None; // asked for only if somebody holds
        let (mut held, dirty) = (0, self.dirty.len());
        for index in 0..dirty {
            let token = self.dirty[index];
            let Some(slot) = slot_of(&mut self.slots, token).filter(|slot| slot.dirty) else { continue };
            if may_hold && slot.more_comes {
                let now = *now.get_or_insert_with(net::sys::monotonic_now);
                if self.holding_since.is_none_or(|since| now - since < HOLD_NANOS) {
                    self.dirty[held] = token;
                    held += 1;
                    continue;
                }
            }
            self.flush_one(token, ups);
        }
        // `settle` marks those that have a last word to send: they come behind.
        self.dirty.drain(held..dirty);
        self.holding_since = if held > 0 { self.holding_since.or(now) } else { None };
    }

    /// Sends what is queued for one, unless that was done since it was marked.
    #[inline]
    fn flush_one(&mut self, token: Token, ups: &mut UpLog) {
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        if !std::mem::take(&mut slot.dirty) {
            return;
        }
        let before = match slot.choked {
            true => self.reactor.queue(token).map_or(0, |(queue, _)| queue.len_bytes()),
            false => 0, // asked for by choked ones alone
        };
        let flush = self.reactor.flush(token);
        let queued = self.reactor.queue(token).map_or(0, |(queue, _)| queue.len_bytes());
        match flush {
            Flush::Done | Flush::Blocked => {
                slot.link.handle_sent(queued, ups);
                if slot.link.snapshot_waits() {
                    let waits = queued > 0
                        && self
                            .reactor
                            .queue(token)
                            .is_some_and(|(queue, _)| queue.has_replaceable(SNAPSHOT_KEY));
                    if !waits {
                        slot.link.handle_snapshot_left(ups);
                    }
                }
                if slot.choked && queued < before {
                    // It takes what we send, so it is there, though we do not read from it.
                    slot.link.handle_heard(self.awake.now(), ups);
                    slot.choked = queued >= READ_WHILE_QUEUED_BYTES / 2;
                }
            }
            Flush::Closed(_) | Flush::Gone => slot.link.handle_end(self.awake.now(), Close::Reset, ups),
        }
        self.settle(token);
    }

    /// No new connections; those that have not said yet what they speak are closed, since nobody else knows of them.
    pub fn stop_listening(&mut self, ups: &mut UpLog) {
        self.reactor.stop_listening();
        for place in 0..self.slots.len() {
            if let Some(slot) = &mut self.slots[place]
                && !slot.link.is_opened()
            {
                slot.link.handle_end(self.awake.now(), Close::Shutdown, ups);
                let token = token(slot.link.id());
                self.settle(token);
            }
        }
    }

    /// Every link is over, and its connection closed.
    pub fn end_all(&mut self, why: Close, ups: &mut UpLog) {
        for slot in self.slots.iter_mut().flatten() {
            slot.link.handle_end(self.awake.now(), why, ups);
        }
        self.close_all();
    }

    /// Closes every connection at once.
    pub fn close_all(&mut self) {
        for slot in &mut self.slots {
            if let Some(slot) = slot.take() {
                let token = token(slot.link.id());
                self.wheel.clear(token.slot);
                self.reactor.close(token);
            }
        }
        self.dirty.clear();
        self.backlog.clear();
        self.unread.clear();
    }

    /// Stops or resumes reading from all links: the log's other end is full, or takes again.
    pub fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
        if reading {
            for token in std::mem::take(&mut self.unread) {
                // One that is held meanwhile is resumed when it no longer is: until then it would be told in vain.
                if slot_of(&mut self.slots, token).is_some_and(|slot| !slot.held) {
                    self.reactor.resume(token);
                    self.mark_backlog(token);
                }
            }
        }
    }

    /// The reactor itself: for listening, watching, waking.
    pub fn reactor(&mut self) -> &mut Reactor {
        &mut self.reactor
    }

    /// Whether any foreign descriptor was found ready.
    pub fn has_foreign(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// Foreign descriptors that were found ready.
    pub fn take_foreign(&mut self) -> std::vec::Drain<'_, Foreign> {
        self.foreign.drain(..)
    }

    /// Whether no link is left.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    fn open(&mut self, token: Token) {
        let Some(info) = self.reactor.info(token) else { return };
        let id = LinkId::new(self.number, token.slot, token.generation);
        let mut link = Link::server(self.awake.now(), id, self.config.clone(), &info.peer.to_string());
        if let Some(bucket) = bucket_of(&self.config, &self.reactor, token) {
            link.share_bucket(bucket);
        }
        self.insert(token, link);
    }

    fn insert(&mut self, token: Token, link: Link) {
        let place = token.slot as usize;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.wheel.set(token.slot, link.next_timeout());
        self.slots[place] = Some(Slot {
            dirty: false,
            backlog: false,
            held: false,
            choked: false,
            more_comes: false,
            patience: Patience::default(),
            last_row: 0,
            link,
        });
    }

    fn greet(&mut self, token: Token, ups: &mut UpLog) {
        let id = LinkId::new(self.number, token.slot, token.generation);
        self.with_link(id, ups, |link, now, ups, out| {
            link.start(out).map_err(|_| {
                link.handle_end(now, Close::UnknownProtocol, ups); // a host that no request can name
                Close::UnknownProtocol
            })
        });
    }

    #[inline]
    fn receive(&mut self, token: Token, again: bool, ups: &mut UpLog) {
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        if again {
            slot.backlog = false;
        }
        // With a backlog, its turn comes first, and once a pass.
        if slot.held || slot.choked || slot.backlog {
            return;
        }
        if !self.reading {
            self.reactor.pause(token);
            self.unread.push(token);
            return;
        }
        let (now, at) = (self.awake.now(), self.awake.monotonic());
        let before = ups.events.len();
        let has_leftover = again && slot.link.has_leftover();
        let mut see_tls = false;
        let mut work = |bytes: &mut [u8], queue: &mut SendQueue, pool: &Pool| {
            if slot.link.may_be_tls() {
                see_tls = detect(bytes) == Detected::Tls;
                if see_tls {
                    return (net::reactor::Taken { consumed: 0, needed: usize::MAX }, 0);
                }
            }
            let mut pass = Pass { budget: MESSAGES_PER_PASS, at };
            let length = bytes.len();
            let link = &mut slot.link;
            let result = catch_unwind(AssertUnwindSafe(|| {
                link.handle_bytes(now, bytes, &mut pass, ups, &mut Out { queue: &mut *queue, pool })
            }));
            let taken = match result {
                Ok(Ok(Taken { consumed, next: Next::Bytes(needed) })) => {
                    net::reactor::Taken { consumed, needed }
                }
                Ok(Ok(Taken { consumed, next: Next::Again })) => {
                    slot.backlog = true;
                    net::reactor::Taken { consumed, needed: 0 }
                }
                Ok(Ok(Taken { consumed, next: Next::Held })) => net::reactor::Taken { consumed, needed: 0 },
                Ok(Err(_)) => net::reactor::Taken { consumed: length, needed: 0 },
                Err(_) => {
                    link.handle_end(now, Close::Panic, ups);
                    net::reactor::Taken { consumed: length, needed: 0 }
                }
            };
            (taken, queue.len_bytes())
        };
        let outcome = match again {
            false => self.reactor.read(token, work),
            true if has_leftover => self.reactor.queue(token).map_or(Read::Gone, |(queue, pool)| {
                let (_, value) = work(&mut [], queue, pool);
                Read::Data { value, pending: true }
            }),
            true => self.reactor.pending(token, work),
        };
        match outcome {
            Read::Data { value: queued, .. } => {
                // The socket may have more behind what the link had left.
                slot.backlog |= has_leftover;
                if slot.backlog {
                    self.backlog.push(token);
                }
                if queued > 0 && !slot.dirty {
                    slot.dirty = true;
                    self.dirty.push(token);
                }
                slot.choked = queued > READ_WHILE_QUEUED_BYTES;
                if let Some(late) =
                    slot.patience.judge(&ups.events[before..], &self.config.routes, self.is_rushed)
                {
                    self.reactor.set_late(token, late);
                }
            }
            Read::Eof => slot.link.handle_eof(now, ups),
            Read::Error(_) => slot.link.handle_end(now, Close::Reset, ups),
            Read::Partial => return slot.link.handle_heard(now, ups),
            Read::WouldBlock | Read::Gone => return,
        }
        if let Some(address) = slot.link.take_moved() {
            match self.reactor.set_peer(token, Peer::tcp(address)) {
                Ok(()) => {
                    if let Some(bucket) = bucket_of(&self.config, &self.reactor, token) {
                        slot.link.share_bucket(bucket);
                    }
                }
                Err(_) => slot.link.handle_end(now, Close::Refused, ups),
            }
        }
        if see_tls {
            match self.reactor.start_tls(token) {
                Ok(()) => {
                    slot.link.mark_tls();
                    self.mark_backlog(token);
                }
                Err(_) => slot.link.handle_end(now, Close::UnknownProtocol, ups),
            }
        }
        self.settle(token);
    }

    /// The log's last one, if it is small, is sent at once where nothing waits before it.
    fn broadcast(&mut self, down: &Down, is_last: bool, downs: &DownLog, ups: &mut UpLog) {
        let Down::Broadcast { targets, class, key, route, body } = *down else { return };
        let shared = SharedPush::new(class, downs.bytes(route), downs.bytes(body));
        for target in downs.bytes(targets).chunks_exact(size_of::<LinkId>()) {
            let id = LinkId::from_bits(u64::from_le_bytes(target.try_into().expect("chunks of 8")));
            if is_last && body.len <= COPIED_MAX && self.reactor.is_clear(token(id)) {
                self.send_past(id, &[], ups, |link, now, ups, out| {
                    link.handle_shared(now, &shared, class, key, ups, out)
                });
                continue;
            }
            self.with_link(id, ups, |link, now, ups, out| {
                link.handle_shared(now, &shared, class, key, ups, out)
            });
        }
    }

    fn expire(&mut self, ups: &mut UpLog) {
        let now = self.awake.now();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        for Due { place, .. } in due.drain(..) {
            let Some(Some(slot)) = self.slots.get_mut(place as usize) else { continue };
            let token = token(slot.link.id());
            let rtt_us = self.reactor.rtt_us(token).unwrap_or(0);
            if let Some((queue, pool)) = self.reactor.queue(token)
                && slot.link.next_timeout() <= now
            {
                let mut out = Out { queue, pool };
                // An error is told by `ending`, as everywhere. A panic ends the link that it came from, and nobody else.
                let result = catch_unwind(AssertUnwindSafe(|| {
                    #[cfg(test)]
                    assert_ne!(self.fails_at, Some(place), "a fault for the test");
                    slot.link.handle_timeout(now, ups, &mut Metered { out: &mut out, rtt_us })
                }));
                if result.is_err() {
                    slot.link.handle_end(now, Close::Panic, ups);
                }
            }
            self.wheel.set(place, slot.link.next_timeout());
            self.mark_dirty(token);
            self.settle(token);
        }
        self.due = due;
    }

    /// Runs `work` on a link and its queue; what it queued is sent by the next flush.
    fn with_link(
        &mut self,
        id: LinkId,
        ups: &mut UpLog,
        work: impl FnOnce(&mut Link, Nanos, &mut UpLog, &mut Out<'_>) -> Result<(), Close>,
    ) {
        let token = token(id);
        let now = self.awake.now();
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        let Some((queue, pool)) = self.reactor.queue(token) else { return };
        let link = &mut slot.link;
        // An error is told by `ending`, as everywhere. A panic ends the link that it came from, and nobody else.
        let result = catch_unwind(AssertUnwindSafe(|| work(link, now, ups, &mut Out { queue, pool })));
        if result.is_err() {
            slot.link.handle_end(now, Close::Panic, ups);
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(token);
        }
        if slot.link.timeout_moved() {
            self.wheel.set(token.slot, slot.link.next_timeout());
        }
        if slot.held != slot.link.held() {
            self.settle(token);
        }
    }

    /// Brings the socket in line with what its link wants: reading or not, a new deadline, its end.
    #[inline]
    fn settle(&mut self, token: Token) {
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        if slot.link.timeout_moved() {
            self.wheel.set(token.slot, slot.link.next_timeout());
        }
        let held = slot.link.held() || slot.choked;
        if held != slot.held {
            slot.held = held;
            if held {
                self.reactor.pause(token);
            } else {
                self.reactor.resume(token);
                self.mark_backlog(token);
            }
        }
        let Some(slot) = slot_of(&mut self.slots, token) else { return };
        match slot.link.ending() {
            Ending::No => {}
            Ending::Drain => {
                // What is queued is dirty, or blocked and will be told as writable: either way a flush comes.
                if self.reactor.queue(token).is_none_or(|(queue, _)| queue.is_empty()) {
                    self.reactor.linger(token);
                    self.forget(token);
                }
            }
            Ending::Now => {
                let _ = self.reactor.flush(token); // a last attempt; nobody waits for it
                self.reactor.close(token);
                self.forget(token);
            }
        }
    }

    fn forget(&mut self, token: Token) {
        self.slots[token.slot as usize] = None;
        self.wheel.clear(token.slot);
    }

    fn mark_dirty(&mut self, token: Token) {
        if let Some(slot) = slot_of(&mut self.slots, token)
            && !slot.dirty
        {
            slot.dirty = true;
            self.dirty.push(token);
        }
    }

    fn mark_backlog(&mut self, token: Token) {
        if let Some(slot) = slot_of(&mut self.slots, token)
            && !slot.backlog
        {
            slot.backlog = true;
            self.backlog.push(token);
        }
    }
}

/// Links whose memory stays in the processor's caches until the last of them has been sent something.
const FETCHED_TOGETHER: usize = 16;

/// What a broadcast has at most that is copied for each; of a longer one the queues have references.
const COPIED_MAX: u32 = 2048;

/// Bytes that are kept for what is said past the queues.
const SAID_MAX: usize = 64 * 1024;

/// How many events at a log's end are snapshots of one world, so that no link is asked for anything behind its own.
fn last_snapshots(downs: &[Down]) -> usize {
    let room_of = |down: &Down| if let Down::Snapshot { room, .. } = *down { Some(room) } else { None };
    let Some(last) = downs.last().and_then(room_of) else { return 0 };
    downs.iter().rev().take_while(|down| room_of(down) == Some(last)).count()
}

#[inline]
fn slot_of(slots: &mut [Option<Slot>], token: Token) -> Option<&mut Slot> {
    slots
        .get_mut(token.slot as usize)?
        .as_mut()
        .filter(|slot| slot.link.id().generation() == token.generation)
}

/// Brings the memory of several links into the processor's caches: at once, where one after the other would be waited for.
#[inline]
fn fetch(slots: &mut [Option<Slot>], reactor: &Reactor, tokens: impl Iterator<Item = Token>) {
    let is_there = |token: &Token| slot_of(slots, *token).is_some() & reactor.is_open(*token);
    black_box(tokens.filter(is_there).count()); // asked for its memory, not for its answer
}

fn token(id: LinkId) -> Token {
    Token { slot: id.slot(), generation: id.generation() }
}

/// The bucket that a connection shares with the others of its address, if there is a limit.
fn bucket_of(config: &LinkConfig, reactor: &Reactor, token: Token) -> Option<SharedBucket> {
    config.address_messages?;
    reactor.shared_number(token).map(SharedBucket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    use engine::event::Up;
    use net::address::Address;
    use net::admission::Admission;
    use net::listener::Listener;
    use net::reactor::ReactorConfig;

    use super::*;

    #[test]
    fn a_panic_in_a_timeout_ends_that_link_alone() {
        // All are due at about the same time: what one does must not lose the others' timeouts.
        let config = LinkConfig { handshake_timeout: 50_000_000, ..LinkConfig::default() };
        let (mut peers, address) = listening(config);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut ups = UpLog::default();
        let mut turn = |peers: &mut Peers| {
            peers.wait(None, false).unwrap();
            peers.read(&mut ups, usize::MAX);
            peers.flush(false, &mut ups);
            ups.events.len()
        };
        while peers.slots.iter().flatten().count() < 3 {
            turn(&mut peers);
        }
        peers.fails_at = Some(1);
        while turn(&mut peers) < 3 {}
        let whys: Vec<_> = ups.events.iter().map(|up| (up.link().slot(), *up)).collect();
        for (slot, up) in whys {
            let expected = if slot == 1 { Close::Panic } else { Close::HandshakeTimeout };
            assert!(matches!(up, Up::Closed { why, .. } if why == expected), "{slot}: {up:?}");
        }
        assert!(peers.is_empty());
        drop(clients);
    }

    /// Peers on a port of their own.
    fn listening(config: LinkConfig) -> (Peers, SocketAddr) {
        let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Arc::new(Listener::bind(&Address::Tcp(anywhere)).unwrap());
        let Address::Tcp(address) = *listener.local_address() else { unreachable!("as asked for") };
        reactor.listen(listener, Arc::new(Admission::new(0, 0, None)), None).unwrap();
        (Peers::new(0, reactor, Arc::new(config), net::sys::monotonic_now()), address)
    }

    /// Turns until `wanted` finds something in what came.
    fn until<T>(peers: &mut Peers, wanted: impl Fn(&Up) -> Option<T>) -> T {
        loop {
            let mut ups = UpLog::default();
            peers.wait(None, false).unwrap();
            peers.read(&mut ups, usize::MAX);
            peers.flush(false, &mut ups);
            if let Some(found) = ups.events.iter().find_map(&wanted) {
                return found;
            }
        }
    }

    /// A client to which data flows, and its link.
    fn let_in(peers: &mut Peers, address: SocketAddr) -> (TcpStream, LinkId) {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[1, 0, 0, 2, b'{', b'}']).unwrap();
        let is_handshake = |up: &Up| if let Up::Handshake { link, .. } = *up { Some(link) } else { None };
        let link = until(peers, is_handshake);
        let (mut downs, mut ups) = (DownLog::default(), UpLog::default());
        let body = downs.store(b"{}");
        downs.push(Down::Accept { link, body, codes: 0, counts: false });
        peers.apply(&downs, &mut ups);
        peers.flush(false, &mut ups);
        client.write_all(&[2, 0, 0, 0]).unwrap();
        until(peers, |up| matches!(up, Up::Ready { .. }).then_some(()));
        (client, link)
    }

    #[test]
    fn each_link_is_sent_to_once_whatever_the_order() {
        let (mut peers, address) = listening(LinkConfig::default());
        let links = [let_in(&mut peers, address), let_in(&mut peers, address)];
        let [one, other] = [links[0].1, links[1].1];
        let mut sends = |order: &[Option<LinkId>]| {
            let (mut downs, mut ups) = (DownLog::default(), UpLog::default());
            let (packets, route, body) =
                (downs.store(&[4, 0, 0, 2, 4, 0]), downs.store(b"r"), downs.store(b"b"));
            let targets = [one, other].map(|link| link.to_bits().to_le_bytes()).concat();
            let targets = downs.store(&targets);
            for link in order {
                downs.push(match *link {
                    Some(link) => Down::Answers { link, packets, count: 1 },
                    None => Down::Broadcast { targets, class: Class::Reliable, key: 0, route, body },
                });
            }
            let before = peers.reactor.stats().flushes;
            peers.apply(&downs, &mut ups);
            peers.flush(false, &mut ups);
            peers.reactor.stats().flushes - before
        };
        assert_eq!(sends(&[Some(one)]), 1);
        assert_eq!(sends(&[Some(one), Some(other), Some(one)]), 2);
        assert_eq!(sends(&[Some(one), None]), 2);
        assert_eq!(sends(&[None, Some(one)]), 2);
        assert_eq!(sends(&[None, Some(other), None, Some(one)]), 2);
    }

    #[test]
    fn a_client_that_does_not_read_gets_whole_snapshots_and_then_the_newest() {
        let (mut peers, address) = listening(LinkConfig::default());
        let (mut client, link) = let_in(&mut peers, address);
        let mut ups = UpLog::default();
        // Larger than the queue's bound, and many more than the system's buffers hold.
        const LENGTH: usize = 3 << 20;
        let mut left = Vec::new();
        for number in 1..=20 {
            let (mut downs, mut ups) = (DownLog::default(), UpLog::default());
            let body = downs.store(&vec![number as u8; LENGTH]);
            let (parts, route) = (downs.store_parts([body]), downs.store(b"$w"));
            downs.push(Down::Snapshot { link, number, room: 0, route, parts });
            peers.apply(&downs, &mut ups);
            assert!(peers.reactor.queue(token(link)).unwrap().0.len_bytes() < 3 * LENGTH, "they pile up");
            left.extend(ups.events.iter().filter_map(|up| match *up {
                Up::SnapshotLeft { number, .. } => Some(number),
                _ => None,
            }));
            assert!(!ups.events.iter().any(|up| matches!(up, Up::Closed { .. })), "{:?}", ups.events);
        }
        assert!(!left.is_empty() && left.len() < 20, "both ways are taken: {left:?}");

        let reader = std::thread::spawn(move || {
            let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
            while numbers.last() != Some(&20) {
                let mut some = vec![0; 1 << 20];
                let count = client.read(&mut some).unwrap();
                assert!(count > 0, "closed after {numbers:?}");
                bytes.extend_from_slice(&some[..count]);
                while let Some((packet, _)) = wire::packet::first(&bytes) {
                    let whole = packet.len();
                    if packet[0] == 4 {
                        let number = packet[whole - 1];
                        assert_eq!(packet[whole - LENGTH..], vec![number; LENGTH]);
                        numbers.push(number);
                    }
                    bytes.drain(..whole);
                }
            }
            assert!(bytes.is_empty());
            numbers
        });
        let newest = |up: &Up| matches!(up, Up::SnapshotLeft { number: 20, .. }).then_some(());
        until(&mut peers, newest);
        while !reader.is_finished() {
            peers.wait(Some(net::sys::monotonic_now() + 1_000_000), false).unwrap();
            peers.read(&mut ups, usize::MAX);
            peers.flush(false, &mut ups);
        }
        let numbers = reader.join().unwrap();
        assert!(numbers.is_sorted() && numbers.len() > left.len() && numbers.len() < 20, "{numbers:?}");
        assert_eq!(peers.reactor.pool().stats().out, 0);
    }

    #[test]
    fn a_place_is_small() {
        assert!(size_of::<Option<Slot>>() <= 104, "{} bytes", size_of::<Option<Slot>>());
    }
}
