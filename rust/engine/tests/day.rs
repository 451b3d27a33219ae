//! A day with a thousand sessions: they beat, fall silent, are cut, leave, and come anew; driven by timers as a server's are.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{HANDSHAKE, START, Setup};
use engine::event::{Class, Close, LinkId, Nanos, Up, UpLog};
use engine::link::{Ending, Full, Link, LinkConfig, Outbox, Pass};
use engine::realm::{Event, Realm};
use engine::timer::{Fired, TimerKey, Timers};

const SESSIONS: usize = 1000;
const DAY: Nanos = secs_const(86_400);
/// Without optimisation half as many, for the same day in half the time.
const BEAT: Nanos = secs_const(if cfg!(debug_assertions) { 30 } else { 15 });
/// A client's own life: how often it does something unusual, on average.
const FATE: Nanos = secs_const(1800);

const HEARTBEAT: [u8; 4] = [3, 0, 0, 0];
/// The payload of a timer that wakes a client: its generation and place stand behind it.
const WAKES: u64 = 1 << 40;

const fn secs_const(seconds: u64) -> Nanos {
    seconds * 1_000_000_000
}

/// A socket's queue that sends at once, and counts.
#[derive(Default)]
struct Socket {
    bytes: Vec<u8>,
    packets: usize,
}

impl Outbox for Socket {
    fn packet(&mut self, _: Class, _: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        self.bytes.clear();
        write(&mut self.bytes);
        self.packets += 1;
        Ok(())
    }

    fn block(&mut self, _: Class, _: u64, _: &Arc<Bytes>) -> Result<(), Full> {
        unreachable!("nobody is pushed to")
    }
}

/// A place where one client after the other sits.
struct Seat {
    link: Link,
    timer: TimerKey,
    generation: u32,
    is_mute: bool,
    /// When it does something unusual.
    fate: Nanos,
}

struct Day {
    now: Nanos,
    realm: Realm,
    config: Arc<LinkConfig>,
    seats: Vec<Seat>,
    timers: Timers,
    ups: UpLog,
    out: Socket,
    random: u64,
    /// Joined, dropped, resumed, left.
    told: [u64; 4],
    closed: Vec<Close>,
    beats: u64,
    fired: u64,
}

impl Day {
    fn new() -> Self {
        let mut setup = Setup::default();
        (setup.link.heartbeat, setup.link.stale_after) = (BEAT, 2 * BEAT);
        let config = Arc::new(setup.link.clone());
        let mut day = Self {
            now: START,
            realm: Realm::new(setup.realm, config.routes.clone()),
            config,
            seats: Vec::new(),
            timers: Timers::new(START),
            ups: UpLog::default(),
            out: Socket::default(),
            random: 1,
            told: [0; 4],
            closed: Vec::new(),
            beats: 0,
            fired: 0,
        };
        for place in 0..SESSIONS {
            day.now += 86_400_000; // they come within a second and a half
            let seat = day.newcomer(place, 1);
            day.seats.push(seat);
            day.shake_hands(place);
        }
        day
    }

    /// Until tonight.
    fn run(&mut self) {
        let mut due = Vec::new();
        while self.now < START + DAY {
            self.now = self.timers.next_deadline().expect("everybody has a timer");
            self.timers.expire(self.now, &mut due);
            self.fired += due.len() as u64;
            for Fired { payload, .. } in due.drain(..) {
                if payload & WAKES == 0 {
                    self.timeout(payload as usize);
                } else {
                    let payload = payload ^ WAKES;
                    self.client_wakes((payload & 1023) as usize, (payload >> 10) as u32);
                }
            }
        }
    }

    fn client_wakes(&mut self, place: usize, generation: u32) {
        let seat = &mut self.seats[place];
        if seat.generation == generation {
            seat.is_mute = false;
            self.feed(place, &HEARTBEAT);
            self.settle(place);
        }
    }

    /// A seat's link is due: it beats, and its client answers, or does not.
    fn timeout(&mut self, place: usize) {
        let seat = &mut self.seats[place];
        if seat.link.next_timeout() <= self.now {
            let _ = seat.link.handle_timeout(self.now, &mut self.ups, &mut self.out);
        }
        let has_beaten = std::mem::take(&mut self.out.packets) > 0;
        seat.link.handle_sent(0, &mut self.ups);
        if has_beaten && seat.link.ending() == Ending::No {
            self.beats += 1;
            self.client_beats(place);
        }
        self.settle(place);
        let seat = &mut self.seats[place];
        seat.timer = self.timers.insert(seat.link.next_timeout(), place as u64);
    }

    fn client_beats(&mut self, place: usize) {
        let (now, random) = (self.now, self.random());
        let seat = &mut self.seats[place];
        if now >= seat.fate && !seat.is_mute {
            seat.fate = now + random % (2 * FATE);
            match random >> 40 & 3 {
                0 => seat.link.handle_eof(now, &mut self.ups),
                1 => seat.link.handle_end(now, Close::Reset, &mut self.ups),
                fate => {
                    seat.is_mute = true;
                    if fate == 2 {
                        // It was last heard a heartbeat ago, so it is silent when it comes back.
                        self.timers.insert(
                            now + BEAT * 4 / 3,
                            WAKES | u64::from(seat.generation) << 10 | place as u64,
                        );
                    }
                }
            }
        }
        if !seat.is_mute && seat.link.ending() == Ending::No {
            self.feed(place, &HEARTBEAT);
        }
    }

    fn feed(&mut self, place: usize, bytes: &[u8]) {
        let (mut buffer, mut pass) = ([0; 64], Pass { budget: 128, at: self.now });
        let bytes_in = &mut buffer[..bytes.len()];
        bytes_in.copy_from_slice(bytes);
        let seat = &mut self.seats[place];
        seat.link.handle_bytes(self.now, bytes_in, &mut pass, &mut self.ups, &mut self.out).unwrap();
        self.out.packets = 0;
    }

    /// The realm hears what the link told and the other way round; who is gone is followed by another.
    fn settle(&mut self, place: usize) {
        let ups = std::mem::take(&mut self.ups);
        for up in &ups.events {
            if let Up::Closed { why, .. } = *up {
                self.closed.push(why);
            }
            self.realm.handle_up(self.now, up, &ups);
            while let Some(event) = self.realm.poll_event() {
                match event {
                    Event::Authenticate { session, .. } => {
                        self.realm.accept(session, None).unwrap();
                    }
                    Event::Joined { .. } => self.told[0] += 1,
                    Event::Dropped { .. } => self.told[1] += 1,
                    Event::Resumed { .. } => self.told[2] += 1,
                    Event::Left { .. } => self.told[3] += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        self.ups = ups;
        self.ups.clear();
        let seat = &mut self.seats[place];
        let downs = self.realm.downs(0);
        for down in &downs.events {
            seat.link.handle_down(self.now, down, downs, &mut self.ups, &mut self.out).unwrap();
        }
        downs.clear();
        if seat.link.timeout_moved() {
            self.timers.rearm(seat.timer, seat.link.next_timeout());
        }
        if seat.link.ending() != Ending::No {
            self.timers.cancel(seat.timer);
            let generation = seat.generation + 1;
            self.seats[place] = self.newcomer(place, generation);
            self.shake_hands(place);
            self.timers.cancel(self.seats[place].timer); // the caller sets it
        }
    }

    fn newcomer(&mut self, place: usize, generation: u32) -> Seat {
        let id = LinkId::new(0, place as u32, generation);
        let link = Link::server(self.now, id, self.config.clone(), "10.0.0.7:1234");
        let timer = self.timers.insert(link.next_timeout(), place as u64);
        Seat { link, timer, generation, is_mute: false, fate: self.now + self.random() % (2 * FATE) }
    }

    fn shake_hands(&mut self, place: usize) {
        self.feed(place, &HANDSHAKE.concat());
        self.settle(place);
        self.feed(place, &[2, 0, 0, 0]);
        self.settle(place);
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[test]
fn a_day_with_a_thousand_sessions() {
    let began = std::time::Instant::now();
    let mut day = Day::new();
    day.run();
    let [joined, dropped, resumed, left] = day.told;
    let (beats, fired) = (day.beats, day.fired);
    println!(
        "{beats} heartbeats, {fired} timers, {joined} joined, {dropped} dropped, {resumed} resumed, {left} left: {:.1} s",
        began.elapsed().as_secs_f64()
    );
    // So many each, but for those who had just come.
    let most = SESSIONS as u64 * DAY / BEAT;
    assert!((most * 99 / 100..=most).contains(&beats), "{beats} of {most}");
    // A timer for each heartbeat, and one now and then for a silence: nobody is looked at in vain.
    assert!(fired < beats + 4 * (dropped + joined), "{fired}");
    assert_eq!(day.realm.sessions().count(), SESSIONS, "a seat is never empty");
    assert_eq!((joined - left) as usize, SESSIONS, "who joined leaves, once");
    let count = |wanted| day.closed.iter().filter(|&&why| why == wanted).count() as u64;
    let (eof, reset, silent) = (count(Close::Left), count(Close::Reset), count(Close::Silent));
    assert_eq!((eof + reset + silent, day.closed.len() as u64), (left, left));
    assert!(eof > 5000 && reset > 5000 && silent > 5000 && resumed > 5000, "all of it happened");
    // Each drop was told: those who came back, those who were given up, those who were cut.
    let pending = day
        .realm
        .sessions()
        .filter(|&session| day.realm.session(session).unwrap().state() == engine::session::State::Pending);
    assert_eq!(dropped, resumed + silent + reset + pending.count() as u64);
}
