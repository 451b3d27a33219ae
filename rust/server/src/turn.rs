//! One turn of the loop, top to bottom. Start reading here.
//!
//! ```text
//! flush     what asyncio's tasks and threads left to send
//! wait      sockets, timers, ticks, asyncio's descriptors: one epoll
//! read      what came, as logs of events, one per reactor
//!             -> the caller dispatches: handlers run, and speak to the realm
//! timeouts  timers of the game and of sessions
//! ticks     those that are due
//! flush     what all of it left to send: one send per connection
//! ```
//! When much came, it is read in parts that fit the processor's cache, each dispatched and flushed before the next.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::clock::{OnLate, TickClock};
use engine::event::{DownLog, LinkId, Nanos, Up, UpLog};
use engine::link::LinkConfig;
use engine::realm::{Realm, RoomNumber, RoomTick};
use engine::route::RouteTable;
use net::address::Address;
use net::admission::Admission;
use net::listener::Listener;
use net::pool::Pool;
use net::reactor::{Reactor, ReactorConfig, ReactorStats};
use net::tls::TlsConfig;

use crate::options::Options;
use crate::peers::{Foreign, Peers};
use crate::record::{ADDRESSES, ENDED, Recorder, STARTED_WITH, WALL};
use crate::replay::Replay;
use crate::threads::IoThread;
use crate::ticks::TickStats;

/// What is read before it is dispatched and answered. Messages and answers of a part this large stay in the processor's caches
/// together; of smaller ones, what each part costs by itself is seen.
const READ_BYTES: usize = 32 * 1024;

/// Realm, sockets, ticks: all of a server but Python.
pub struct Server {
    /// Sessions, rooms, groups, timers.
    pub realm: Realm,
    /// The logic thread's own reactor: all links with `io_threads=0`, else only foreign descriptors and wakes.
    local: Peers,
    threads: Vec<IoThread>,
    io_threads: u8,
    spin: bool,
    options: Options,
    link_config: Arc<LinkConfig>,
    pool: Pool,
    admission: Arc<Admission>,
    listeners: Vec<Arc<Listener>>,
    clock: Option<TickClock>,
    /// When the server started: the first of the deadlines.
    ticks_from: Nanos,
    tick_rate: u32,
    due: u32,
    ticks: TickStats,
    now: Nanos,
    wall_offset: Nanos,
    /// What links said while the realm's log was applied: part of the next read.
    after: UpLog,
    spare: Vec<UpLog>,
    /// When memory that a burst needed goes back to the system.
    trim_at: Option<Nanos>,
    /// Bytes that were given back to the allocator since it was last looked at.
    released: u64,
    /// The most sessions at a time since memory was last to be given back for them.
    sessions_most: usize,
    recorder: Option<Recorder>,
    pub(crate) replay: Option<Replay>,
}

impl Server {
    /// A server that does not listen yet.
    pub fn new(options: Options) -> io::Result<Self> {
        let now = net::sys::monotonic_now();
        let pool = Pool::new();
        let reactor = Reactor::new(reactor_config(&options, &pool))?;
        let link_config = options.link.clone();
        let proxies = link_config.proxies.networks.clone();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as Nanos;
        Ok(Self {
            realm: Realm::new(options.realm.clone(), link_config.routes.clone()),
            local: Peers::new(0, reactor, link_config.clone(), now),
            threads: Vec::new(),
            io_threads: options.io_threads,
            spin: options.spin,
            link_config,
            admission: Arc::new(
                Admission::new(
                    options.connections_max,
                    options.connections_per_address_max,
                    options.connect_rate,
                )
                .exempting(move |ip| proxies.contains(ip)),
            ),
            listeners: Vec::new(),
            clock: None,
            ticks_from: 0,
            tick_rate: options.tick_rate,
            due: 0,
            ticks: TickStats::default(),
            now,
            wall_offset: since_1970.saturating_sub(now),
            after: UpLog::default(),
            spare: Vec::new(),
            trim_at: None,
            released: 0,
            sessions_most: 0,
            recorder: None,
            replay: None,
            pool,
            options,
        })
    }

    /// Binds the addresses; nobody is accepted before [`Server::start`]. As people write them; a replay binds none.
    pub fn listen(&mut self) -> Result<Vec<String>, (Address, io::Error)> {
        if let Some(replay) = &mut self.replay {
            let recorded = replay.take_note(ADDRESSES).ok().flatten().unwrap_or_default();
            return Ok(String::from_utf8_lossy(&recorded).lines().map(str::to_owned).collect());
        }
        for address in &self.options.addresses {
            let listener = Listener::bind(address).map_err(|error| (address.clone(), error))?;
            self.listeners.push(Arc::new(listener));
        }
        let addresses: Vec<_> =
            self.listeners.iter().map(|listener| spell(listener.local_address())).collect();
        self.note(ADDRESSES, addresses.join("\n").as_bytes());
        Ok(addresses)
    }

    /// Accepts connections, and starts the ticks and threads; of a replay, the ticks alone.
    pub fn start(&mut self) -> io::Result<()> {
        let tls = match &self.options.tls {
            Some((certificate, key)) if self.replay.is_none() => {
                Some(TlsConfig::from_files(certificate, key).map_err(io::Error::other)?)
            }
            _ => None,
        };
        self.stamp(b'B')?;
        if self.replay.is_some() {
            self.start_ticks();
            return Ok(());
        }
        if self.options.realm.resume_grace > 0 {
            let seed = self.after.store(&net::sys::random_bytes::<32>()?);
            self.after.push(Up::Seeded { seed });
        }
        for number in 1..=self.io_threads {
            let mut reactor = Reactor::new(reactor_config(&self.options, &self.pool))?;
            for listener in &self.listeners {
                reactor.listen(listener.clone(), self.admission.clone(), tls.clone())?;
            }
            let peers = Peers::new(number, reactor, self.link_config.clone(), self.now);
            self.threads.push(IoThread::start(peers, number, self.local.reactor().waker(), self.spin)?);
        }
        if self.io_threads == 0 {
            for listener in &self.listeners {
                self.local.reactor().listen(listener.clone(), self.admission.clone(), tls.clone())?;
            }
        }
        self.start_ticks();
        Ok(())
    }

    /// Takes the time outside of a turn, and records it as `kind`; of a replay, the recorded time.
    pub fn stamp(&mut self, kind: u8) -> io::Result<()> {
        if let Some(replay) = &mut self.replay {
            match replay.take_mark(kind)? {
                Some(now) => self.now = now,
                None => replay.miss("the replay starts or stops where the recorded run did not"),
            }
            return Ok(());
        }
        self.now = net::sys::monotonic_now();
        if let Some(recorder) = &mut self.recorder {
            recorder.mark(kind, self.now);
        }
        Ok(())
    }

    /// No new connections from now on; those that nobody was told of yet are closed.
    pub fn stop_listening(&mut self) {
        self.local.stop_listening(&mut self.after);
        for thread in &self.threads {
            thread.stop_listening();
        }
        self.listeners.clear();
    }

    /// Closes every socket and joins the threads; nothing works afterwards.
    pub fn close(&mut self) {
        self.stop_listening();
        self.threads.clear();
        self.local.close_all();
        self.clock = None;
    }

    /// The routes of all links.
    pub fn routes(&self) -> &RouteTable {
        &self.link_config.routes
    }

    /// Other routes for all links; the numbers of the old ones stay.
    pub fn set_routes(&mut self, routes: RouteTable) {
        let routes = Arc::new(routes);
        let config = Arc::new(LinkConfig { routes: routes.clone(), ..(*self.link_config).clone() });
        self.link_config = config.clone();
        self.realm.set_routes(routes);
        self.local.configure(config.clone());
        for thread in &self.threads {
            thread.configure(config.clone());
        }
    }

    // -- recording and replay ----------------------------------------------------------------------------------------

    /// Keeps all that enters and leaves the logic thread from now on; `with` is what a replay has to begin with.
    pub fn record(&mut self, mut recorder: Recorder, with: &[u8]) {
        recorder.note(STARTED_WITH, with);
        recorder.mark(WALL, self.wall_offset);
        self.recorder = Some(recorder);
    }

    /// Takes a recording in place of sockets and clock.
    pub fn replay(&mut self, mut replay: Replay) -> io::Result<()> {
        replay.take_note(STARTED_WITH)?;
        let wall = replay.take_mark(WALL)?;
        self.wall_offset =
            wall.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a recording"))?;
        self.replay = Some(replay);
        Ok(())
    }

    /// Notes something in the recording, if there is one.
    pub fn note(&mut self, kind: u8, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(kind, bytes);
        }
    }

    /// The recorded run's next note, if it is of this kind.
    pub fn next_note(&mut self, kind: u8) -> io::Result<Option<Vec<u8>>> {
        self.replay.as_mut().map_or(Ok(None), |replay| replay.take_note(kind))
    }

    /// Whether a recording is being written.
    pub fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// The recording that is being replayed.
    pub fn replaying(&self) -> Option<&Replay> {
        self.replay.as_ref()
    }

    /// The run has ended: what is left to send is sent, and nothing more is recorded, or replayed.
    pub fn end_run(&mut self) -> io::Result<()> {
        if self.replay.is_some() {
            return self.end_replay();
        }
        self.flush(false);
        self.note(ENDED, &[]);
        self.recorder = None;
        Ok(())
    }

    /// Waits as a turn does, and takes the time; nothing is read. For what is left to do after a replay.
    pub fn idle(&mut self, until: Option<Nanos>) -> io::Result<()> {
        self.local.wait(until, false)?;
        drop(self.local.take_foreign());
        self.now = net::sys::monotonic_now();
        Ok(())
    }

    /// Takes the machine's time: the recorded one has ended.
    pub fn resume_clock(&mut self) {
        self.now = net::sys::monotonic_now();
    }

    // -- a turn, in its order ----------------------------------------------------------------------------------------

    /// Waits until something is to be done, or `until` (monotonic).
    pub fn wait(&mut self, until: Option<Nanos>) -> io::Result<()> {
        self.release_memory(); // before, not behind: what has come by then is not kept waiting
        let is_idle = self.after.is_empty() && !self.realm.has_events();
        let until = if is_idle { self.deadline(until) } else { Some(0) };
        self.local.wait(until, self.spin)
    }

    /// Gives back what a burst has needed, once it is over: else the allocator keeps it between what is still in use.
    fn release_memory(&mut self) {
        self.released += self.pool.take_released();
        if self.released > SWOLLEN_BYTES {
            self.released = 0;
            self.trim_at = Some(self.now + TRIM_AFTER);
        }
        // Sessions are small, and lie between others: none of them is a burst, but thousands are.
        let sessions = self.realm.sessions_held();
        self.sessions_most = self.sessions_most.max(sessions);
        if self.sessions_most - sessions > SESSIONS_GONE {
            self.sessions_most = sessions;
            self.trim_at = Some(self.now + TRIM_AFTER);
        }
        if self.trim_at.is_some_and(|at| at <= self.now) {
            self.trim_at = None;
            self.threads.iter().for_each(IoThread::release_memory);
            net::sys::release_free_memory();
        }
    }

    /// What came, one log per reactor and burst, oldest first; give them back with [`Server::recycle`]. True: there is
    /// more, to be read when this has been dispatched and flushed, before the next wait.
    pub fn read(&mut self, logs: &mut Vec<UpLog>) -> bool {
        self.now = net::sys::monotonic_now();
        let mut local = self.spare.pop().unwrap_or_default();
        std::mem::swap(&mut local, &mut self.after);
        let more = self.local.read(&mut local, READ_BYTES);
        logs.push(local);
        for thread in &self.threads {
            while let Some(log) = thread.poll() {
                logs.push(log);
            }
        }
        if self.options.through_bytes {
            for log in logs.iter_mut() {
                let mut bytes = Vec::new();
                log.encode(&mut bytes);
                *log = UpLog::decode(&bytes).expect("a log that was just encoded");
            }
        }
        self.due = self.ticks_due();
        if let Some(recorder) = &mut self.recorder {
            recorder.turn(self.now, logs);
        }
        more
    }

    /// What is queued for a link may wait for more that is about to be, or may not any longer.
    pub fn hold(&mut self, link: LinkId, more_comes: bool) {
        if link.reactor() == 0 {
            self.local.hold(link, more_comes);
        }
    }

    /// Takes logs back that were dispatched.
    pub fn recycle(&mut self, logs: &mut Vec<UpLog>) {
        for (place, mut log) in logs.drain(..).enumerate() {
            log.clear();
            match (place, self.threads.first()) {
                (1.., Some(thread)) => thread.recycle(log),
                _ if self.spare.len() < 2 => self.spare.push(log),
                _ => {}
            }
        }
    }

    /// Lets the realm do what is due by time.
    pub fn handle_timeouts(&mut self) {
        self.realm.handle_timeout(self.now);
    }

    /// The step in seconds of the next tick that is due in this turn.
    pub fn next_tick(&mut self) -> Option<f64> {
        if self.due == 0 {
            return None;
        }
        self.due -= 1;
        self.ticks.count += 1;
        self.clock.as_ref().map(TickClock::dt)
    }

    /// The next tick's number, and when it is due (monotonic).
    pub fn tick_due(&self) -> Option<(u64, Nanos)> {
        self.clock.as_ref().map(|clock| (clock.next_tick(), clock.next_deadline()))
    }

    /// Hands over and sends what the realm asked for; see [`Peers::flush`] for `may_hold`.
    pub fn flush(&mut self, may_hold: bool) {
        for number in 0..=self.io_threads {
            let downs = self.realm.downs(number);
            if downs.is_empty() {
                continue;
            }
            if downs.room() as u64 > SWOLLEN_BYTES {
                self.trim_at = Some(self.now + TRIM_AFTER);
            }
            if self.options.through_bytes {
                let mut bytes = Vec::new();
                downs.encode(&mut bytes);
                *downs = DownLog::decode(&bytes).expect("a log that was just encoded");
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.sent(number, downs);
            }
            if number == 0 {
                self.local.apply(downs, &mut self.after);
                downs.clear();
            } else if let Some(thread) = self.threads.get(usize::from(number) - 1) {
                thread.apply(downs);
            }
        }
        self.local.flush(may_hold, &mut self.after);
    }

    // -- a recorded turn once more: see `replay.rs` ------------------------------------------------------------------

    pub(crate) fn replay_turn(&mut self, now: Nanos) {
        self.now = now;
        self.due = self.ticks_due();
    }

    /// What the realm asks of reactor `number` now, as a recording has it.
    pub(crate) fn replay_sent(&mut self, number: u8) -> Vec<u8> {
        let mut bytes = vec![number];
        if number <= self.io_threads {
            let downs = self.realm.downs(number);
            downs.encode(&mut bytes);
            downs.clear();
        }
        bytes
    }

    pub(crate) fn is_owing(&mut self) -> bool {
        (0..=self.io_threads).any(|number| !self.realm.downs(number).is_empty())
    }

    // -- what a turn asks --------------------------------------------------------------------------------------------

    /// The time of this turn.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// A time of ours as seconds since 1970.
    pub fn wall(&self, at: Nanos) -> f64 {
        at.saturating_add(self.wall_offset) as f64 / 1e9
    }

    /// Has asyncio's descriptor waited for beside ours.
    pub fn watch(&mut self, fd: i32, read: bool, write: bool) -> io::Result<()> {
        self.local.reactor().watch(fd, read, write)
    }

    /// Forgets a descriptor.
    pub fn unwatch(&mut self, fd: i32) -> io::Result<()> {
        self.local.reactor().unwatch(fd)
    }

    /// Whether any of asyncio's descriptors was found ready.
    pub fn has_foreign(&self) -> bool {
        self.local.has_foreign()
    }

    /// Descriptors of asyncio's that the last wait found ready.
    pub fn take_foreign(&mut self) -> std::vec::Drain<'_, Foreign> {
        self.local.take_foreign()
    }

    /// Sockets' counters, summed over all reactors.
    pub fn socket_stats(&mut self) -> Vec<ReactorStats> {
        let mut all = vec![self.local.reactor().stats()];
        all.extend(self.threads.iter().map(IoThread::stats));
        all
    }

    /// Why an I/O thread has ended without being asked to, if one has: its clients are gone, and it serves no new ones.
    pub fn failure(&self) -> Option<String> {
        let failures = self.threads.iter().map(IoThread::failure);
        let (number, why) = (1..).zip(failures).find_map(|(number, why)| Some((number, why?)))?;
        Some(format!("I/O thread {number} of {} has ended: {why}", self.io_threads))
    }

    /// The buffers of all reactors.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Ticks in a second; 0: there are none.
    pub fn tick_rate(&self) -> u32 {
        self.tick_rate
    }

    /// Ticks so far.
    pub fn ticks(&self) -> &TickStats {
        &self.ticks
    }

    /// Open connections of all kinds.
    pub fn connections(&self) -> usize {
        self.admission.connections()
    }

    /// A room with `tick_rate` ticks a second, 0 for none, the first of them `first` from now; see [`Realm::room_open`]. Else
    /// rooms of one rate tick together, and with the app: one wake for all.
    pub fn room_open(&mut self, tick_rate: u32, first: Option<Nanos>) -> Option<RoomNumber> {
        let tick = (tick_rate > 0).then(|| {
            let Some(first) = first else {
                let seconds = self.now.saturating_sub(self.ticks_from) / SECOND;
                let clock = self.tick_clock(self.ticks_from + seconds * SECOND, tick_rate);
                return RoomTick::Together(clock.joined_at(self.now));
            };
            let period = SECOND / Nanos::from(tick_rate);
            RoomTick::Alone(self.tick_clock((self.now + first).saturating_sub(period), tick_rate))
        });
        self.realm.room_open(self.now, tick)
    }

    fn start_ticks(&mut self) {
        self.ticks_from = self.now;
        if self.tick_rate > 0 {
            self.clock = Some(self.tick_clock(self.now, self.tick_rate));
        }
    }

    fn tick_clock(&self, start: Nanos, rate: u32) -> TickClock {
        let on_late = if self.options.dilate { OnLate::Dilate } else { OnLate::Skip };
        TickClock::new(start, rate, self.options.catch_up_max, on_late)
    }

    fn ticks_due(&mut self) -> u32 {
        let Some(clock) = &mut self.clock else { return 0 };
        let deadline = clock.next_deadline();
        if self.now < deadline {
            return 0;
        }
        self.ticks.late(self.now - deadline);
        let due = clock.due(self.now);
        self.ticks.skipped = clock.skipped();
        self.ticks.dilated = clock.dilation();
        due.count
    }

    fn deadline(&self, until: Option<Nanos>) -> Option<Nanos> {
        let tick = self.clock.as_ref().map(TickClock::next_deadline);
        [until, tick, self.realm.next_deadline(), self.trim_at].into_iter().flatten().min()
    }
}

fn reactor_config(options: &Options, pool: &Pool) -> ReactorConfig {
    ReactorConfig { queue_bytes_max: options.queue_bytes_max, pool: pool.clone(), ..ReactorConfig::default() }
}

/// `127.0.0.1:7777`, or the path of a Unix socket.
fn spell(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}

const SECOND: Nanos = 1_000_000_000;
/// A turn that needed more memory than this is a burst.
const SWOLLEN_BYTES: u64 = 4 << 20;
/// So many sessions fewer than there were are one, too.
const SESSIONS_GONE: usize = 2048;
/// When no other one has come for so long, its memory goes back.
const TRIM_AFTER: Nanos = SECOND;
