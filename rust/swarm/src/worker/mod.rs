//! One thread's clients: when they connect and leave. [`speak`] has what they say, [`hear`] what comes back.

mod hear;
mod speak;

pub(crate) use hear::ORIGIN_UNKNOWN;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use engine::event::{Close, Down, DownLog, Nanos, Span, UpLog};
use engine::link::{ClientUpgrade, Greeting, LinkConfig};
use engine::resume::{LEAVE_ROUTE, SEEN_ROUTE};
use net::reactor::{Reactor, ReactorConfig};
use net::sys::monotonic_now;
use server::peers::Peers;

use crate::bot::{Bot, State};
use crate::plan::{Plan, Random};
use crate::proxy::Proxy;
use crate::run::{Place, Teller};
use crate::tally::{Tally, count};
use hear::Ages;
use speak::Message;

/// A thread's state.
pub(crate) struct Worker {
    plan: Arc<Plan>,
    at: Place,
    peers: Peers,
    proxy: Option<Proxy>,
    /// By the number of a client, modulo how many there are.
    network_of: Vec<u16>,
    ups: UpLog,
    /// Its bytes are the plan's routes and bodies, and stay.
    downs: DownLog,
    /// What is made as it is needed: routes of rooms, counts.
    passing: DownLog,
    messages: Vec<Message>,
    leave_route: Span,
    turns: Vec<u16>,
    /// Whether any action has its client think.
    thinks: bool,
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
    /// Clients that are to leave, and to be cut off.
    owed: (f64, f64),
    looked_at: Nanos,
    now: Nanos,
    ages: Ages,
    tally: Tally,
    teller: Teller,
    scratch: String,
}

/// Connections that one thread may have on their way in; a listener's queue is short.
const CONNECTING_MAX: u32 = 512;
/// A client that was refused, or cut off, comes again after about so long.
const AGAIN_AFTER: Nanos = 1_000_000_000;
/// How often the number of clients is brought in line with the plan.
const LOOK_EVERY: Nanos = 5_000_000;
const SECOND: Nanos = 1_000_000_000;

impl Worker {
    /// A thread's clients.
    pub fn new(plan: Arc<Plan>, at: Place) -> io::Result<Self> {
        let now = monotonic_now();
        let config = LinkConfig {
            handshake_timeout: plan.timeout,
            body_bytes_max: (1 << 24) - 1,
            inflate_bytes_max: 1 << 24,
            ..LinkConfig::default()
        };
        let reactor = Reactor::new(ReactorConfig::default())?;
        let mut random = Random(plan.seed ^ u64::from(at.number) << 32);
        let mut downs = DownLog::default();
        let messages = plan.actions.iter().map(|action| Message::new(action, &mut downs)).collect();
        let threads = plan.threads as u32;
        let bots = plan.clients_max().saturating_sub(at.number).div_ceil(threads);
        let bots = (0..bots).map(|_| Bot::new(random.next() as u32)).collect();
        let networks: Vec<_> = plan.networks.iter().map(|(_, network)| *network).collect();
        let proxy = match networks.iter().any(Option::is_some) {
            true => Some(Proxy::start(&plan.address, &networks, random.next())?),
            false => None,
        };
        Ok(Self {
            peers: Peers::new(at.number as u8, reactor, Arc::new(config), now),
            proxy,
            network_of: plan.network_of_clients(),
            ups: UpLog::default(),
            leave_route: downs.store(LEAVE_ROUTE.as_bytes()),
            downs,
            passing: DownLog::default(),
            messages,
            turns: plan.turns(&mut random),
            thinks: plan.actions.iter().any(|action| action.think.1 > 0),
            bots,
            random,
            bot_of: Vec::new(),
            due: BinaryHeap::new(),
            wanted: 0,
            connecting: 0,
            phase: usize::MAX,
            owed: (0.0, 0.0),
            looked_at: at.started,
            now,
            ages: Ages::new(plan.world.tick_rate, Arc::clone(&at.tick_origin)),
            tally: Tally::new(plan.actions.len()),
            teller: Teller::new(plan.clone(), &at),
            scratch: String::new(),
            at,
            plan,
        })
    }

    /// Plays to the end of the plan, then waits for what is under way.
    pub fn play(&mut self) -> io::Result<()> {
        self.teller.begin();
        let end = self.at.started + self.plan.nanos();
        while self.now < end && !self.at.is_stopped() {
            self.look();
            self.speak();
            self.turn(self.next_due().min(end))?;
        }
        let patience = self.now + self.plan.timeout;
        self.phase = usize::MAX;
        while self.bots.iter().any(|bot| bot.under_way() > 0) && self.now < patience && !self.at.is_stopped()
        {
            for place in 0..self.bots.len() {
                if self.bots[place].under_way() > 0 {
                    self.come(place);
                }
            }
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
        self.peers.apply(&self.passing, &mut self.ups);
        self.passing.clear();
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

    // -- who is there ------------------------------------------------------------------------------------------------

    /// Brings the number of clients in line with the plan, and gives up on what takes too long.
    fn look(&mut self) {
        let passed = self.now - self.looked_at;
        if passed < LOOK_EVERY && self.phase != usize::MAX {
            return;
        }
        self.looked_at = self.now;
        let at = self.now.saturating_sub(self.at.started);
        let Some((number, _)) = self.plan.phase_at(at) else { return };
        if number != self.phase {
            self.begin(number);
        }
        let threads = self.plan.threads as u32;
        self.wanted = self.plan.clients_at(at).saturating_sub(self.at.number).div_ceil(threads);
        for place in self.wanted as usize..self.bots.len() {
            self.leave(place);
        }
        let phase = &self.plan.phases[number];
        let seconds = passed as f64 / SECOND as f64 / f64::from(threads);
        self.owed = (self.owed.0 + phase.churn * seconds, self.owed.1 + phase.drops * seconds);
        while self.owed.0 >= 1.0 {
            self.owed.0 -= 1.0;
            if let Some(place) = self.anybody() {
                self.leave(place);
            }
        }
        while self.owed.1 >= 1.0 {
            self.owed.1 -= 1.0;
            if let Some(place) = self.anybody() {
                self.cut(place);
            }
        }
        let old = self.now.saturating_sub(self.plan.timeout);
        for place in 0..self.wanted as usize {
            if self.bots[place].under_way() > 0 {
                let given_up = self.bots[place].give_up(old);
                self.tally.timed_out += given_up;
                self.replace(place, given_up);
            }
            self.come(place);
        }
    }

    fn anybody(&mut self) -> Option<usize> {
        (self.wanted > 0).then(|| self.random.below(u64::from(self.wanted)) as usize)
    }

    /// Another phase: all who are in begin its pace.
    fn begin(&mut self, phase: usize) {
        self.phase = phase;
        self.due.clear();
        self.owed = (0.0, 0.0);
        for place in 0..self.bots.len() {
            self.bots[place].speaks = false;
            if self.plan.phases[phase].storms {
                self.cut(place);
            } else if self.bots[place].state == State::In {
                self.start(place);
            }
        }
    }

    /// If it is out, and may be in, it connects.
    fn come(&mut self, place: usize) {
        let bot = &self.bots[place];
        if bot.state != State::Out || bot.since > self.now || self.connecting >= CONNECTING_MAX {
            return;
        }
        let plan = Arc::clone(&self.plan);
        let client = place * plan.threads + self.at.number as usize;
        let websocket = plan.websocket.as_ref().map(|(host, path)| ClientUpgrade {
            host: host.clone(),
            path: path.clone(),
            key: u128::from(self.random.next()).to_le_bytes(),
        });
        let first = &plan.handshakes[client % plan.handshakes.len()];
        let bot = &mut self.bots[place];
        let handshake =
            bot.session.as_ref().map_or_else(|| first.clone(), |session| session.handshake(first));
        let greeting = Greeting { handshake, websocket, mask_seed: self.random.next() };
        let tls = plan.tls.as_ref().map(|(config, name)| (config, name.as_str()));
        let network = self
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.address(usize::from(self.network_of[client % self.network_of.len()])));
        self.tally.begun += 1;
        match self.peers.connect(network.unwrap_or(&plan.address), tls, greeting) {
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

    /// It leaves in good order, for good.
    fn leave(&mut self, place: usize) {
        let bot = &self.bots[place];
        match bot.link {
            Some(link) if bot.state == State::In => {
                if bot.session.is_some() {
                    let (route, body) = (self.leave_route, Span::default());
                    self.downs.push(Down::Notify { link, route, body });
                }
                self.downs.push(Down::Close { link, why: Close::Left });
            }
            Some(link) => self.downs.push(Down::Abort { link, why: Close::Left }),
            None if bot.session.is_none() => return,
            None => {}
        }
        self.end(place);
    }

    /// Its connection is cut off; it comes back.
    fn cut(&mut self, place: usize) {
        if let Some(link) = self.bots[place].link {
            self.downs.push(Down::Abort { link, why: Close::Left });
            self.lose(place);
        }
    }

    /// The server has ended its connection: it comes again in a while, if it can to its session.
    fn cut_off(&mut self, place: usize, why: &str) {
        if self.bots[place].state != State::Out {
            count(&mut self.tally.ended, why);
            let lost = self.lose(place);
            self.tally.lost += lost;
            self.bots[place].since = self.now + AGAIN_AFTER / 2 + self.random.below(AGAIN_AFTER);
        }
    }

    /// It has no connection any more. How many requests that has cost it: none if its session may go on.
    fn lose(&mut self, place: usize) -> u64 {
        let bot = &mut self.bots[place];
        if bot.session.is_none() {
            return self.end(place);
        }
        match bot.state {
            State::Out => {}
            State::Connecting => self.connecting -= 1,
            State::In => {
                self.tally.clients -= 1;
                bot.cut_at = self.now;
            }
        }
        (bot.state, bot.link, bot.since, bot.snapshot_at) = (State::Out, None, self.now, 0);
        0
    }

    /// Its session is over, and with it the requests that are under way: so many.
    fn end(&mut self, place: usize) -> u64 {
        let bot = &mut self.bots[place];
        match bot.state {
            State::Out => {}
            State::Connecting => self.connecting -= 1,
            State::In => self.tally.clients -= 1,
        }
        (bot.state, bot.link, bot.since) = (State::Out, None, self.now);
        bot.end_life()
    }

    fn tell(&mut self) {
        let clients = self.tally.clients;
        let empty = Tally { clients, ..Tally::new(self.plan.actions.len()) };
        let mut tally = std::mem::replace(&mut self.tally, empty);
        if let Some(proxy) = &self.proxy {
            tally.lateness.add(&proxy.take_lateness());
        }
        let stats = self.peers.reactor().stats();
        self.teller.tell(self.now, tally, stats);
    }

    /// A count of what was handled, which the server may forget.
    fn tell_seen(&mut self, place: usize, seen: u64) {
        if let Some(link) = self.bots[place].link {
            let route = self.passing.store(SEEN_ROUTE.as_bytes());
            let body = self.passing.store(seen.to_string().as_bytes());
            self.passing.push(Down::Notify { link, route, body });
        }
    }
}
