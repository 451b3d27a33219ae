//! What comes back to clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use engine::event::{Close, Down, LinkId, Nanos, Up, UpLog};
use engine::resume::{SEEN_ROUTE, is_counted, parse_seen};
use serde::Deserialize;
use world::{Replica, WorldShape};

use super::speak::JOIN;
use super::{SECOND, Worker};
use crate::bot::{Flight, State};
use crate::session::Session;
use crate::tally::{NAMES_MAX, OTHERS, count};

/// A handshake's answer, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u32,
    sys: Sys,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sys {
    gs: Gs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Gs {
    resume: Option<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    token: String,
    seen: Option<u64>,
}

impl Worker {
    fn place(&self, link: LinkId) -> Option<usize> {
        let place = *self.bot_of.get(link.slot() as usize)? as usize;
        (self.bots.get(place)?.link == Some(link)).then_some(place)
    }

    /// One thing that a server did.
    pub(super) fn take(&mut self, up: &Up, ups: &UpLog) {
        let Some(place) = self.place(up.link()) else { return };
        match *up {
            Up::Response { id, error, body, .. } => self.take_response(place, id, error, ups.bytes(body)),
            Up::Push { route, body, .. } => self.take_push(place, ups.bytes(route), ups.bytes(body)),
            Up::Ready { .. } => self.take_ready(place),
            Up::Kicked { body, .. } => {
                count(&mut self.tally.ended, &format!("kicked: {}", code_of(ups.bytes(body))));
                let lost = self.end(place);
                self.tally.lost += lost;
                self.bots[place].since = self.now + SECOND;
            }
            Up::Handshake { body, .. } => self.take_handshake(place, ups.bytes(body)),
            Up::Closed { why, .. } => {
                let text = match self.bots[place].state {
                    State::In => why.name().to_owned(),
                    _ if why == Close::Reset && self.plan.tls.is_some() => {
                        "not let in: reset, in TLS (is its certificate trusted?)".to_owned()
                    }
                    _ => format!("not let in: {}", why.name()),
                };
                self.cut_off(place, &text);
            }
            _ => {}
        }
    }

    fn take_handshake(&mut self, place: usize, body: &[u8]) {
        let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
        if answer.code != 200 {
            // Its close follows, and says less.
            return self.cut_off(place, &format!("refused: {} {}", answer.code, code_of(body)));
        }
        let Some(Offer { token, seen }) = answer.sys.gs.resume.filter(|_| self.plan.resume) else { return };
        let bot = &mut self.bots[place];
        match (&mut bot.session, seen) {
            (Some(session), Some(seen)) => {
                if !session.go_on(&token, seen) {
                    self.give_up_on(place, "says that it has seen what it has not");
                }
            }
            (None, Some(_)) => self.give_up_on(place, "goes on with a session that is none"),
            (before, None) => {
                if before.is_some() {
                    let link = bot.link;
                    self.tally.lost += bot.end_life();
                    self.tally.renewed += 1;
                    bot.link = link;
                }
                bot.cut_at = 0;
                bot.session = Some(Box::new(Session::new(&token)));
            }
        }
    }

    fn take_ready(&mut self, place: usize) {
        let bot = &mut self.bots[place];
        bot.state = State::In;
        self.connecting -= 1;
        self.tally.opened += 1;
        self.tally.clients += 1;
        self.tally.connecting.record(self.now - bot.since);
        let new = |shape: &Option<WorldShape>| {
            shape.as_ref().map(|shape| Box::new(Replica::new(shape.clone(), ENTITIES_MAX)))
        };
        bot.replica = new(&self.plan.world.shape);
        bot.room_replica = new(&self.plan.world.room_shape);
        match std::mem::take(&mut bot.cut_at) {
            0 if self.plan.join.is_some() => return self.join(place),
            0 => {}
            cut_at => {
                self.tally.resumed += 1;
                self.tally.resuming.record(self.now - cut_at);
                self.send_again(place);
            }
        }
        self.start(place);
    }

    fn take_response(&mut self, place: usize, id: u32, error: bool, body: &[u8]) {
        self.heard(place);
        let Some(Flight { due, action }) = self.bots[place].answered(id) else { return };
        let took = self.now - due;
        if action == JOIN {
            return self.take_seat(place, took, error, body);
        }
        let tally = &mut self.tally.actions[usize::from(action)];
        tally.answered += 1;
        tally.latency.record(took);
        self.tally.latency.record(took);
        if error {
            count(&mut tally.errors, &code_of(body));
        }
        self.go_on(place, action);
    }

    fn take_seat(&mut self, place: usize, took: Nanos, error: bool, body: &[u8]) {
        let bot = &mut self.bots[place];
        bot.room = if error { 0 } else { number_after(body, "\"room\":") };
        if bot.room == 0 {
            return self.give_up_on(place, &format!("no room: {}", code_of(body)));
        }
        self.tally.joining.record(took);
        self.start(place);
    }

    fn take_push(&mut self, place: usize, route: &[u8], body: &[u8]) {
        let full = std::str::from_utf8(route).unwrap_or("?");
        if full == SEEN_ROUTE {
            let Some(session) = &mut self.bots[place].session else { return };
            if !parse_seen(body).is_some_and(|seen| session.handle_seen(seen)) {
                self.give_up_on(place, "says that it has seen what it has not");
            }
            return;
        }
        if is_counted(full) {
            self.heard(place);
        }
        // One of a room counts with those of all rooms: names would never end.
        let route = full.split_once('@').map_or(full, |(name, _)| name);
        if route == SNAPSHOT_ROUTE && !self.take_snapshot(place, full.len() > route.len(), body) {
            return self.give_up_on(place, "sent a snapshot that cannot be decoded");
        }
        let bytes = body.len() as u64;
        if self.scratch != route {
            self.scratch.clear();
            self.scratch.push_str(route);
        }
        match self.tally.pushes.get_mut(&self.scratch) {
            Some((count, sum)) => (*count, *sum) = (*count + 1, *sum + bytes),
            None => {
                let known = if self.tally.pushes.len() < NAMES_MAX {
                    self.scratch.clone()
                } else {
                    OTHERS.to_owned()
                };
                let (count, sum) = self.tally.pushes.entry(known).or_default();
                (*count, *sum) = (*count + 1, *sum + bytes);
            }
        }
    }

    /// False: it can't be decoded.
    fn take_snapshot(&mut self, place: usize, is_rooms: bool, body: &[u8]) -> bool {
        let bot = &mut self.bots[place];
        let replica = if is_rooms { &mut bot.room_replica } else { &mut bot.replica };
        if let Some(replica) = replica {
            let Ok(news) = replica.apply(body) else { return false };
            if news.is_some() {
                self.tally.decoded += 1;
                self.tally.entities += replica.count() as u64;
            }
        }
        self.tally.snapshots += 1;
        // Those of a room come beside the app's, in a time of their own.
        if is_rooms && self.plan.world.tick_rate > 0 {
            return true;
        }
        let before = std::mem::replace(&mut bot.snapshot_at, self.now);
        if before != 0 {
            self.tally.snapshot_gaps.record(self.now - before);
        }
        if let Some(age) = tick_of(body).and_then(|tick| self.ages.age(self.now, tick)) {
            self.tally.snapshot_ages.record(age);
        }
        true
    }

    /// A counted message.
    fn heard(&mut self, place: usize) {
        if let Some(seen) = self.bots[place].session.as_mut().and_then(|session| session.heard()) {
            self.tell_seen(place, seen);
        }
    }

    /// It leaves, since the server has not done its part.
    fn give_up_on(&mut self, place: usize, why: &str) {
        if let Some(link) = self.bots[place].link {
            self.downs.push(Down::Close { link, why: Close::Left });
        }
        count(&mut self.tally.ended, why);
        let lost = self.end(place);
        self.tally.lost += lost;
        self.bots[place].since = self.now + SECOND;
    }
}

/// How old snapshots are: by when the server began its ticks, or else beside the freshest that came lately.
pub(super) struct Ages {
    /// 0: nothing is known.
    tick_nanos: f64,
    /// When tick 0 was due, if the server has said; else `UNKNOWN`.
    origin: Arc<AtomicI64>,
    /// The least that arrival was behind a tick's number: in this window, and in the one before.
    least: (i64, i64),
    window_ends: Nanos,
}

impl Ages {
    /// Of a world with so many ticks a second.
    pub fn new(tick_rate: u32, origin: Arc<AtomicI64>) -> Self {
        let tick_nanos = if tick_rate == 0 { 0.0 } else { SECOND as f64 / f64::from(tick_rate) };
        Self { tick_nanos, origin, least: (i64::MAX, i64::MAX), window_ends: 0 }
    }

    fn age(&mut self, now: Nanos, tick: u64) -> Option<Nanos> {
        if self.tick_nanos == 0.0 {
            return None;
        }
        let behind = now as i64 - (tick as f64 * self.tick_nanos) as i64;
        let origin = match self.origin.load(Ordering::Relaxed) {
            ORIGIN_UNKNOWN => {
                if now >= self.window_ends {
                    (self.least, self.window_ends) = ((i64::MAX, self.least.0), now + WINDOW);
                }
                self.least.0 = self.least.0.min(behind);
                self.least.0.min(self.least.1)
            }
            origin => origin,
        };
        Some(behind.saturating_sub(origin).max(0) as Nanos)
    }
}

/// Of [`Ages`].
pub(crate) const ORIGIN_UNKNOWN: i64 = i64::MIN;
const WINDOW: Nanos = 5 * SECOND;

/// A snapshot begins with its tick, twice, and a bit.
fn tick_of(body: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (place, byte) in body.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number >> 1);
        }
    }
    None
}

/// The code in an error's body, `GS-404`: of JSON its `code`, of protobuf its first field.
fn code_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if let Some(at) = text.find("\"code\":\"").or_else(|| text.find("\"reason\":\"")) {
        let from = text[at..].find(":\"").map_or(at, |colon| at + colon + 2);
        return text[from..].split('"').next().unwrap_or("?").chars().take(CODE_CHARS_MAX).collect();
    }
    match body {
        [0x0a, length, rest @ ..] if usize::from(*length) <= rest.len() => {
            String::from_utf8_lossy(&rest[..usize::from(*length)]).chars().take(CODE_CHARS_MAX).collect()
        }
        _ => "?".to_owned(),
    }
}

/// The number behind a name in JSON; 0 if there is none.
fn number_after(body: &[u8], name: &str) -> u32 {
    let text = String::from_utf8_lossy(body);
    let Some((_, rest)) = text.split_once(name) else { return 0 };
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

const SNAPSHOT_ROUTE: &str = "$w";
/// That one client may have in view.
const ENTITIES_MAX: usize = 1 << 20;
const CODE_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_from_the_tick_or_else_from_the_freshest_lately() {
        let origin = Arc::new(AtomicI64::new(ORIGIN_UNKNOWN));
        let mut ages = Ages::new(20, Arc::clone(&origin)); // 50 ms
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(ages.age(ms(1003), 20), Some(0), "the first is the freshest known");
        assert_eq!(ages.age(ms(1060), 21), Some(ms(7)));
        assert_eq!(ages.age(ms(1101), 22), Some(0), "fresher than any before");
        assert_eq!(ages.age(ms(1151), 23), Some(0));
        // The server has left out a second of ticks: in a while that is how it is.
        assert_eq!(ages.age(ms(7151), 23), Some(ms(6000)));
        assert_eq!(ages.age(ms(13_151), 143), Some(0));
        origin.store(1_000_000, Ordering::Relaxed);
        assert_eq!(ages.age(ms(1054), 21), Some(ms(3)));
        assert_eq!(Ages::new(0, origin).age(5, 5), None);
    }

    #[test]
    fn a_tick_is_read_as_worlds_write_it() {
        assert_eq!(tick_of(&[0x13]), Some(9));
        assert_eq!(tick_of(&[0x80, 0x01, 7]), Some(64));
        assert_eq!((tick_of(&[]), tick_of(&[0x80; 20])), (None, None));
    }
}
