//! One thread's clients: when they connect, speak and leave, and what comes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use engine::event::{Close, Down, DownLog, LinkId, Nanos, Span, Up, UpLog};
use engine::link::{ClientUpgrade, Greeting, LinkConfig};
use net::reactor::{Reactor, ReactorConfig};
use net::sys::monotonic_now;
use server::peers::Peers;
use world::Replica;

use crate::bot::{Bot, Flight, State};
use crate::plan::{Pace, Plan, Random};
use crate::run::{Stretch, Teller};
use crate::tally::{NAMES_MAX, OTHERS, Tally, count};

/// A thread's state.
pub(crate) struct Worker {
    plan: Arc<Plan>,
    number: u32,
    peers: Peers,
    ups: UpLog,
    /// Its bytes are the plan's routes and bodies, and stay.
    downs: DownLog,
    /// What goes to rooms: their routes are made as they are needed.
    to_rooms: DownLog,
    messages: Vec<Message>,
    turns: Vec<u16>,
    random: Random,
    bots: Vec<Bot>,
    /// By the slot of a connection.
    bot_of: Vec<u32>,
    /// When a client speaks next, its number and its life.
    due: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    /// Of the intended clients, how many are to be there now.
    wanted: u32,
    connecting: u32,
    phase: usize,
    /// Clients that churn owes.
    churned: f64,
    looked_at: Nanos,
    started: Nanos,
    now: Nanos,
    tally: Tally,
    teller: Teller,
    stop: Arc<AtomicBool>,
    scratch: String,
}

/// An action, as the log has it.
struct Message {
    route: Span,
    is_request: bool,
    bodies: Vec<Span>,
}

/// Connections that one thread may have on their way in; a listener's queue is short.
const CONNECTING_MAX: u32 = 512;
/// A client that was refused, or cut off, comes again after about so long.
const AGAIN_AFTER: Nanos = 1_000_000_000;
/// How often the number of clients is brought in line with the plan.
const LOOK_EVERY: Nanos = 5_000_000;
/// Messages that one client catches up with at a time: the others are late, too.
const BURST_MAX: u32 = 64;
const SECOND: Nanos = 1_000_000_000;

impl Worker {
    /// Thread `number` of a plan that starts at `started` (monotonic).
    pub fn new(
        plan: Arc<Plan>,
        number: u32,
        started: Nanos,
        tell: Sender<Stretch>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let now = monotonic_now();
        let config = LinkConfig {
            handshake_timeout: plan.timeout,
            body_bytes_max: (1 << 24) - 1,
            inflate_bytes_max: 1 << 24,
            ..LinkConfig::default()
        };
        let reactor = Reactor::new(ReactorConfig::default())?;
        let mut random = Random(plan.seed ^ u64::from(number) << 32);
        let mut downs = DownLog::default();
        let messages = plan.actions.iter().map(|action| Message {
            route: downs.store(action.route.as_bytes()),
            is_request: action.is_request,
            bodies: action.bodies.iter().map(|body| downs.store(body)).collect(),
        });
        let messages = messages.collect();
        let threads = plan.threads as u32;
        let bots = plan.clients_max().saturating_sub(number).div_ceil(threads);
        let bots = (0..bots).map(|_| Bot::new(random.next() as u32)).collect();
        Ok(Self {
            number,
            peers: Peers::new(number as u8, reactor, Arc::new(config), now),
            ups: UpLog::default(),
            downs,
            to_rooms: DownLog::default(),
            messages,
            turns: plan.turns(&mut random),
            bots,
            random,
            bot_of: Vec::new(),
            due: BinaryHeap::new(),
            wanted: 0,
            connecting: 0,
            phase: usize::MAX,
            churned: 0.0,
            looked_at: started,
            started,
            now,
            tally: Tally::new(plan.actions.len()),
            teller: Teller::new(plan.clone(), started, tell),
            stop,
            scratch: String::new(),
            plan,
        })
    }

    /// Plays to the end of the plan, then waits for what is under way.
    pub fn play(&mut self) -> io::Result<()> {
        self.teller.begin();
        let end = self.started + self.plan.nanos();
        while self.now < end && !self.stop.load(Ordering::Relaxed) {
            self.look();
            self.speak();
            self.turn(self.next_due().min(end))?;
        }
        let patience = self.now + self.plan.timeout;
        self.phase = usize::MAX;
        while self.bots.iter().any(|bot| bot.under_way() > 0)
            && self.now < patience
            && !self.stop.load(Ordering::Relaxed)
        {
            self.turn(self.now + LOOK_EVERY)?;
        }
        for place in 0..self.bots.len() {
            self.tally.timed_out += self.bots[place].give_up(Nanos::MAX);
            self.leave(place);
        }
        self.turn(self.now)?;
        self.peers.close_all();
        self.tell();
        Ok(())
    }

    /// Sends what was said, waits, and takes what comes.
    fn turn(&mut self, until: Nanos) -> io::Result<()> {
        self.peers.apply(&self.downs, &mut self.ups);
        self.downs.events.clear();
        self.peers.apply(&self.to_rooms, &mut self.ups);
        self.to_rooms.clear();
        self.peers.flush(false, &mut self.ups);
        if self.now >= self.teller.due() {
            self.tell();
        }
        self.peers.wait(Some(until.min(self.teller.due())), false)?;
        self.now = monotonic_now();
        self.peers.read(&mut self.ups, usize::MAX);
        let ups = std::mem::take(&mut self.ups);
        for up in &ups.events {
            self.take(up, &ups);
        }
        self.ups = ups;
        self.ups.clear();
        Ok(())
    }

    fn next_due(&self) -> Nanos {
        let look = self.looked_at + LOOK_EVERY;
        self.due.peek().map_or(look, |Reverse((due, ..))| look.min(*due))
    }

    // -- what clients do ---------------------------------------------------------------------------------------------

    /// Brings the clients in line with the plan.
    fn look(&mut self) {
        if self.now < self.looked_at + LOOK_EVERY {
            return;
        }
        let passed = self.now - self.looked_at;
        self.looked_at = self.now;
        let at = self.now.saturating_sub(self.started);
        let Some((phase, _)) = self.plan.phase_at(at) else { return };
        if phase != self.phase {
            self.begin(phase);
        }
        let threads = self.plan.threads as u32;
        self.wanted = self.plan.clients_at(at).saturating_sub(self.number).div_ceil(threads);
        for place in self.wanted as usize..self.bots.len() {
            self.leave(place);
        }
        self.churned += self.plan.phases[phase].churn / f64::from(threads) * passed as f64 / SECOND as f64;
        while self.churned >= 1.0 {
            self.churned -= 1.0;
            if self.wanted > 0 {
                let place = self.random.below(u64::from(self.wanted)) as usize;
                self.leave(place);
            }
        }
        let old = self.now.saturating_sub(self.plan.timeout);
        for place in 0..self.wanted as usize {
            let bot = &mut self.bots[place];
            if bot.under_way() > 0 {
                self.tally.timed_out += bot.give_up(old);
            }
            if bot.state == State::Out && bot.since <= self.now && self.connecting < CONNECTING_MAX {
                self.connect(place);
            }
        }
    }

    /// Another phase: all who are in begin its pace.
    fn begin(&mut self, phase: usize) {
        self.phase = phase;
        self.due.clear();
        self.churned = 0.0;
        for place in 0..self.bots.len() {
            if self.plan.phases[phase].storms {
                if let Some(link) = self.bots[place].link {
                    self.downs.push(Down::Abort { link, why: Close::Left });
                }
                self.end(place, None);
                self.bots[place].since = self.now;
            } else if self.bots[place].state == State::In {
                self.start(place);
            }
        }
    }

    fn connect(&mut self, place: usize) {
        let plan = Arc::clone(&self.plan);
        let client = place * plan.threads + self.number as usize;
        let websocket = plan.websocket.as_ref().map(|(host, path)| ClientUpgrade {
            host: host.clone(),
            path: path.clone(),
            key: u128::from(self.random.next()).to_le_bytes(),
        });
        let greeting = Greeting {
            handshake: plan.handshakes[client % plan.handshakes.len()].clone(),
            websocket,
            mask_seed: self.random.next(),
        };
        let tls = plan.tls.as_ref().map(|(config, name)| (config, name.as_str()));
        self.tally.begun += 1;
        let bot = &mut self.bots[place];
        match self.peers.connect(&plan.address, tls, greeting) {
            Ok(link) => {
                let slot = link.slot() as usize;
                if self.bot_of.len() <= slot {
                    self.bot_of.resize(slot + 1, u32::MAX);
                }
                self.bot_of[slot] = place as u32;
                (bot.state, bot.link, bot.since) = (State::Connecting, Some(link), self.now);
                self.connecting += 1;
            }
            Err(error) => {
                bot.since = self.now + AGAIN_AFTER;
                count(&mut self.tally.ended, &format!("cannot connect: {}", error.kind()));
            }
        }
    }

    fn leave(&mut self, place: usize) {
        let Some(link) = self.bots[place].link else { return };
        let down = match self.bots[place].state {
            State::In => Down::Close { link, why: Close::Left },
            State::Connecting => Down::Abort { link, why: Close::Left },
            State::Out => return,
        };
        self.downs.push(down);
        self.end(place, None);
    }

    /// Its connection is over; `why`, unless we have ended it.
    fn end(&mut self, place: usize, why: Option<&str>) {
        let bot = &mut self.bots[place];
        match bot.state {
            State::Out => return,
            State::Connecting => self.connecting -= 1,
            State::In => self.tally.clients -= 1,
        }
        (bot.state, bot.since) = (State::Out, self.now);
        let lost = bot.end_life();
        if let Some(why) = why {
            self.tally.lost += lost;
            bot.since = self.now + AGAIN_AFTER / 2 + self.random.below(AGAIN_AFTER);
            count(&mut self.tally.ended, why);
        }
    }

    /// It is in: from now on it speaks as the phase says.
    fn start(&mut self, place: usize) {
        let Some(phase) = self.plan.phases.get(self.phase) else { return };
        if self.turns.is_empty() || self.plan.join.is_some() && self.bots[place].room == 0 {
            return;
        }
        match phase.pace {
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
    fn speak(&mut self) {
        let Some(Pace::Open(per_second)) = self.plan.phases.get(self.phase).map(|phase| phase.pace) else {
            return;
        };
        let interval = interval(per_second);
        while let Some(&Reverse((due, place, life))) = self.due.peek() {
            if due > self.now {
                break;
            }
            if self.bots[place as usize].life != life {
                self.due.pop();
                continue;
            }
            let missed = ((self.now - due) / interval + 1).min(u64::from(BURST_MAX));
            if let Some(mut first) = self.due.peek_mut() {
                first.0.0 = due + missed * interval;
            }
            for number in 0..missed {
                let due = due + number * interval;
                self.tally.lateness.record(self.now - due);
                self.say(place as usize, due);
            }
        }
    }

    fn say(&mut self, place: usize, due: Nanos) {
        let bot = &mut self.bots[place];
        let Some(link) = bot.link else { return };
        let turn = bot.turn as usize;
        bot.turn = bot.turn.wrapping_add(1);
        let action = self.turns[turn % self.turns.len()];
        let Message { route, is_request, bodies } = &self.messages[usize::from(action)];
        let (route, body) = (*route, bodies[turn / 7 % bodies.len()]);
        let tally = &mut self.tally.actions[usize::from(action)];
        tally.sent += 1;
        tally.bytes += u64::from(body.len);
        let request = is_request.then(|| bot.ask(Flight { due, action }));
        let (downs, route, body) = match bot.room {
            0 => (&mut self.downs, route, body),
            room => {
                self.scratch.clear();
                self.scratch.push_str(&self.plan.actions[usize::from(action)].route);
                let _ = write!(self.scratch, "@{room}"); // a String takes all
                let route = self.to_rooms.store(self.scratch.as_bytes());
                let body = self.to_rooms.store(self.downs.bytes(body));
                (&mut self.to_rooms, route, body)
            }
        };
        downs.push(match request {
            Some(id) => Down::Request { link, id, route, body },
            None => Down::Notify { link, route, body },
        });
    }

    /// It is in, and asks for a seat.
    fn join(&mut self, place: usize, body: &[u8]) {
        let bot = &mut self.bots[place];
        let Some(link) = bot.link else { return };
        let id = bot.ask(Flight { due: self.now, action: JOIN });
        let (route, body) = (self.to_rooms.store(JOIN_ROUTE), self.to_rooms.store(body));
        self.to_rooms.push(Down::Request { link, id, route, body });
    }

    // -- what comes back ---------------------------------------------------------------------------------------------

    fn place(&self, link: LinkId) -> Option<usize> {
        let place = *self.bot_of.get(link.slot() as usize)? as usize;
        (self.bots.get(place)?.link == Some(link)).then_some(place)
    }

    fn take(&mut self, up: &Up, ups: &UpLog) {
        let Some(place) = self.place(up.link()) else { return };
        match *up {
            Up::Response { id, error, body, .. } => self.take_response(place, id, error, ups.bytes(body)),
            Up::Push { route, body, .. } => self.take_push(place, ups.bytes(route), ups.bytes(body)),
            Up::Ready { .. } => {
                let bot = &mut self.bots[place];
                bot.state = State::In;
                self.connecting -= 1;
                self.tally.opened += 1;
                self.tally.clients += 1;
                self.tally.connecting.record(self.now - bot.since);
                if let Some(shape) = &self.plan.world {
                    bot.replica = Some(Box::new(Replica::new(shape.clone(), ENTITIES_MAX)));
                }
                let plan = Arc::clone(&self.plan);
                match &plan.join {
                    Some(body) => self.join(place, body),
                    None => self.start(place),
                }
            }
            Up::Kicked { body, .. } => {
                let why = format!("kicked: {}", code_of(ups.bytes(body)));
                self.end(place, Some(&why));
            }
            Up::Handshake { body, .. } => {
                // A refusal; its close follows, and says less.
                let code = number_after(ups.bytes(body), "\"code\":");
                if code != 200 {
                    self.end(place, Some(&format!("refused: {} {}", code, code_of(ups.bytes(body)))));
                }
            }
            Up::Closed { why, .. } => {
                let text = match self.bots[place].state {
                    State::In => why.name().to_owned(),
                    _ if why == Close::Reset && self.plan.tls.is_some() => {
                        "not let in: reset, in TLS (is its certificate trusted?)".to_owned()
                    }
                    _ => format!("not let in: {}", why.name()),
                };
                self.end(place, Some(&text));
            }
            _ => {}
        }
    }

    fn take_response(&mut self, place: usize, id: u32, error: bool, body: &[u8]) {
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
        if let Some(Pace::Closed(_)) = self.plan.phases.get(self.phase).map(|phase| phase.pace) {
            self.say(place, self.now);
        }
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
        let route = std::str::from_utf8(route).unwrap_or("?");
        if route == SNAPSHOT_ROUTE
            && let Some(replica) = &mut self.bots[place].replica
        {
            let Ok(news) = replica.apply(body) else {
                return self.give_up_on(place, "sent a snapshot that cannot be decoded");
            };
            if news.is_some() {
                self.tally.decoded += 1;
                self.tally.entities += replica.count() as u64;
            }
        }
        let bytes = body.len() as u64;
        // One of a room counts with those of all rooms: names would never end.
        let route = route.split_once('@').map_or(route, |(name, _)| name);
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
        if route == SNAPSHOT_ROUTE {
            self.tally.snapshots += 1;
            let before = std::mem::replace(&mut self.bots[place].snapshot_at, self.now);
            if before != 0 {
                self.tally.snapshot_gaps.record(self.now - before);
            }
        }
    }

    /// It leaves, since the server has not done its part.
    fn give_up_on(&mut self, place: usize, why: &str) {
        if let Some(link) = self.bots[place].link {
            self.downs.push(Down::Close { link, why: Close::Left });
        }
        self.end(place, Some(why));
    }

    // -- what it tells -----------------------------------------------------------------------------------------------

    fn tell(&mut self) {
        let clients = self.tally.clients;
        let empty = Tally { clients, ..Tally::new(self.plan.actions.len()) };
        let tally = std::mem::replace(&mut self.tally, empty);
        let stats = self.peers.reactor().stats();
        self.teller.tell(self.now, tally, stats);
    }
}

fn interval(per_second: f64) -> Nanos {
    (SECOND as f64 / per_second).max(1.0) as Nanos
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
const JOIN_ROUTE: &[u8] = b"$join_or_create";
/// No action of the plan.
const JOIN: u16 = u16::MAX;
/// That one client may have in view.
const ENTITIES_MAX: usize = 1 << 20;
const CODE_CHARS_MAX: usize = 60;
