//! What clients say, and when.

use std::cmp::Reverse;
use std::fmt::Write as _;

use engine::event::{Down, DownLog, LinkId, Nanos, Span};

use super::{SECOND, Worker};
use crate::bot::{Flight, State};
use crate::plan::{Action, Pace};
use crate::session::Said;

/// An action, as the log has it.
pub(super) struct Message {
    route: Span,
    is_request: bool,
    bodies: Vec<Span>,
    think: (Nanos, Nanos),
}

impl Message {
    /// Its bytes are stored.
    pub fn new(action: &Action, log: &mut DownLog) -> Self {
        Self {
            route: log.store(action.route.as_bytes()),
            is_request: action.is_request,
            bodies: action.bodies.iter().map(|body| log.store(body)).collect(),
            think: action.think,
        }
    }
}

/// Messages that one client catches up with at a time: the others are late, too.
const BURST_MAX: u32 = 64;
const JOIN_ROUTE: &[u8] = b"$join_or_create";
/// No action of the plan.
pub(super) const JOIN: u16 = u16::MAX;

impl Worker {
    fn pace(&self) -> Option<Pace> {
        self.plan.phases.get(self.phase).map(|phase| phase.pace)
    }

    /// It is in: from now on it speaks as the phase says.
    pub(super) fn start(&mut self, place: usize) {
        let Some(pace) = self.pace() else { return };
        let bot = &self.bots[place];
        if self.turns.is_empty() || bot.speaks || self.plan.join.is_some() && bot.room == 0 {
            return;
        }
        self.bots[place].speaks = true;
        match pace {
            Pace::Quiet => {}
            Pace::Open(per_second) => {
                let interval = interval(per_second);
                let first = self.now + self.random.below(interval);
                self.due.push(Reverse((first, place as u32, self.bots[place].life)));
            }
            Pace::Closed(depth) => {
                for _ in self.bots[place].under_way()..u64::from(depth) {
                    self.say(place, self.now);
                }
            }
        }
    }

    /// What is due is said.
    pub(super) fn speak(&mut self) {
        let Some(pace) = self.pace() else { return };
        while let Some(&Reverse((due, place, life))) = self.due.peek() {
            if due > self.now {
                break;
            }
            let is_void = self.bots[place as usize].life != life;
            let Pace::Open(per_second) = pace else {
                self.due.pop();
                if !is_void {
                    self.say(place as usize, due);
                }
                continue;
            };
            if is_void {
                self.due.pop();
                continue;
            }
            let interval = interval(per_second);
            // Whoever thinks does so after each of them.
            let burst_max = if self.thinks { 1 } else { u64::from(BURST_MAX) };
            let missed = ((self.now - due) / interval + 1).min(burst_max);
            let mut next = due;
            for _ in 0..missed {
                self.tally.lateness.record(self.now - next);
                let action = self.say(place as usize, next);
                next += interval + self.thinking(action);
            }
            if let Some(mut first) = self.due.peek_mut() {
                first.0.0 = next;
            }
        }
    }

    fn thinking(&mut self, action: u16) -> Nanos {
        if self.thinks { self.random.between(self.messages[usize::from(action)].think) } else { 0 }
    }

    /// In a closed loop, others for requests that are over: once the client has thought about the last one.
    pub(super) fn replace(&mut self, place: usize, count: u64) {
        if !matches!(self.pace(), Some(Pace::Closed(_))) {
            return;
        }
        for _ in 0..count {
            self.say(place, self.now);
        }
    }

    /// An answer has come: in a closed loop the next request follows.
    pub(super) fn go_on(&mut self, place: usize, action: u16) {
        if let Some(Pace::Closed(_)) = self.pace() {
            match self.thinking(action) {
                0 => _ = self.say(place, self.now),
                nanos => self.due.push(Reverse((self.now + nanos, place as u32, self.bots[place].life))),
            }
        }
    }

    /// Its next message, which was due then. Gives the action.
    fn say(&mut self, place: usize, due: Nanos) -> u16 {
        let bot = &mut self.bots[place];
        let turn = bot.turn;
        let action = self.turns[turn as usize % self.turns.len()];
        let link = bot.link.filter(|_| bot.state == State::In);
        if link.is_none() && bot.session.is_none() {
            return action;
        }
        bot.turn = turn.wrapping_add(1);
        let is_request = self.messages[usize::from(action)].is_request;
        let id = if is_request { bot.ask(Flight { due, action }) } else { 0 };
        let said = Said { id, turn: Some(turn) };
        if bot.session.as_mut().is_some_and(|session| !session.say(said)) {
            bot.answered(id);
            self.tally.lost += u64::from(is_request);
            return action;
        }
        let bytes = u64::from(self.body(turn).len);
        let tally = &mut self.tally.actions[usize::from(action)];
        tally.sent += 1;
        tally.bytes += bytes;
        if let Some(link) = link {
            self.send(place, link, said);
        }
        action
    }

    fn body(&self, turn: u32) -> Span {
        let turn = turn as usize;
        let bodies = &self.messages[usize::from(self.turns[turn % self.turns.len()])].bodies;
        bodies[turn / 7 % bodies.len()]
    }

    /// Puts on the wire what was said.
    fn send(&mut self, place: usize, link: LinkId, Said { id, turn }: Said) {
        let Some(turn) = turn else {
            let Some(body) = &self.plan.join else { return };
            let (route, body) = (self.passing.store(JOIN_ROUTE), self.passing.store(body));
            return self.passing.push(Down::Request { link, id, route, body });
        };
        let action = usize::from(self.turns[turn as usize % self.turns.len()]);
        let (route, body) = (self.messages[action].route, self.body(turn));
        let (log, route, body) = match self.bots[place].room {
            0 => (&mut self.downs, route, body),
            room => {
                self.scratch.clear();
                self.scratch.push_str(&self.plan.actions[action].route);
                let _ = write!(self.scratch, "@{room}"); // a String takes all
                let route = self.passing.store(self.scratch.as_bytes());
                let body = self.passing.store(self.downs.bytes(body));
                (&mut self.passing, route, body)
            }
        };
        log.push(match id {
            0 => Down::Notify { link, route, body },
            id => Down::Request { link, id, route, body },
        });
    }

    /// Its session goes on: what the server has not seen is sent again, in order.
    pub(super) fn send_again(&mut self, place: usize) {
        let Some(link) = self.bots[place].link else { return };
        let unseen: Vec<Said> =
            self.bots[place].session.iter().flat_map(|session| session.unseen()).collect();
        for said in unseen {
            self.send(place, link, said);
        }
    }

    /// It is in, and asks for a seat.
    pub(super) fn join(&mut self, place: usize) {
        let bot = &mut self.bots[place];
        let Some(link) = bot.link else { return };
        let id = bot.ask(Flight { due: self.now, action: JOIN });
        let said = Said { id, turn: None };
        if let Some(session) = &mut bot.session {
            session.say(said); // its first
        }
        self.send(place, link, said);
    }
}

fn interval(per_second: f64) -> Nanos {
    (SECOND as f64 / per_second).max(1.0) as Nanos
}
