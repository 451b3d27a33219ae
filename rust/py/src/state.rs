//! Everything of one server that lives on the logic thread, behind the entry guard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use engine::event::{Class, Close, Down, LinkId, RouteId, Up, UpLog};
use engine::realm::{Admitted, Event, PushError, Realm, RoomNumber};
use engine::session::{self, SessionKey};
use pyo3::prelude::*;
use server::turn::Server;
use slab::Slab;

use crate::batch::Batches;
use crate::carrier::{Carrier, Steps};
use crate::dispatch::Asker;
use crate::guest::Guest;
use crate::handler::Table;
use crate::push::Known;
use crate::room::Rooms;
use crate::scope::Contexts;
use crate::seat::{Seat, Waiting};
use crate::session::Session;
use crate::world::state as world_state;

/// Answers queued for one session beyond which its further messages wait.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// The server, the handlers, and what ties sessions to Python.
pub struct State {
    pub server: Server,
    pub table: Arc<Table>,
    pub hooks: Hooks,
    /// Suspended async handlers: asyncio holds tasks weakly.
    pub tasks: Slab<Py<Carrier>>,
    /// Tasks that wait for a handler.
    pub carriers: Vec<Py<Carrier>>,
    /// Tasks whose handler has ended: they wait again when asyncio has stepped them, at the next `select`.
    pub resting: Vec<Py<Carrier>>,
    pub http_links: BTreeSet<LinkId>,
    /// A route that is answered here, without Python: for the bench.
    pub rust_echo: Option<RouteId>,
    /// Messages whose body was not what their route takes, by route.
    pub bodies_refused: BTreeMap<RouteId, u64>,
    /// What waits for the tick, by the index that its handler has.
    pub batches: Batches,
    /// Messages that found a batch full.
    pub batch_dropped: u64,
    /// Classes of messages that were pushed, by their address.
    pub known: HashMap<usize, Known>,
    /// Routes that were pushed as latest, with their numbers in keys.
    pub latest_routes: HashMap<Box<str>, u16>,
    /// Async `on_leave` handlers that wait: the server does not end before them.
    pub leaving: usize,
    pub contexts: Option<Contexts>,
    /// The run has ended: nothing is called of the game any more.
    pub has_ended: bool,
    /// What the sessions see.
    pub world: Option<Arc<world_state::Shared>>,
    /// Logs of a turn, kept for their buffers.
    pub logs: Vec<UpLog>,
    pub rooms: Rooms,
    seats: Vec<Option<Seat>>,
    seated: usize,
}

/// When a message is handled.
pub enum Turn<'a> {
    /// At once.
    Now(&'a Py<Session>),
    /// Behind others of its session, or when its answers have left.
    Later,
    /// Its session has no object: it is gone.
    Never,
}

/// What of Python the core calls.
pub struct Hooks {
    pub session_class: Py<PyAny>,
    pub failed: Py<PyAny>,
    pub fire: Py<PyAny>,
    pub learn: Option<Py<PyAny>>,
    /// Runs a coroutine until a session leaves.
    pub task: Option<Py<PyAny>>,
    pub http: Option<Py<PyAny>>,
    pub steps: Option<Arc<Steps>>,
    pub guest: Option<Arc<Guest>>,
    pub on_empty: Option<Py<PyAny>>,
    /// Told once why an I/O thread has ended.
    pub on_failure: Option<Py<PyAny>>,
    /// Told once that a replay is at its end.
    pub on_over: Option<Py<PyAny>>,
}

impl State {
    pub fn new(server: Server, hooks: Hooks) -> Self {
        Self {
            server,
            table: Arc::default(),
            hooks,
            tasks: Slab::new(),
            carriers: Vec::new(),
            resting: Vec::new(),
            http_links: BTreeSet::new(),
            rust_echo: None,
            bodies_refused: BTreeMap::new(),
            batches: Vec::new(),
            batch_dropped: 0,
            known: HashMap::new(),
            latest_routes: HashMap::new(),
            leaving: 0,
            contexts: None,
            has_ended: false,
            world: None,
            logs: Vec::new(),
            rooms: Rooms::default(),
            seats: Vec::new(),
            seated: 0,
        }
    }

    pub fn realm(&self) -> &Realm {
        &self.server.realm
    }

    /// The time of this turn.
    pub fn now(&self) -> u64 {
        self.server.now()
    }

    /// A time of ours as seconds since 1970.
    pub fn wall(&self, at: u64) -> f64 {
        self.server.wall(at)
    }

    // -- the realm's verbs, at this turn's time ----------------------------------------------------------------------

    pub fn handle_up(&mut self, up: &Up, ups: &UpLog) {
        let now = self.server.now();
        self.server.realm.handle_up(now, up, ups);
    }

    /// The session that a message belongs to, if it may be handled.
    #[inline(always)] // once per message
    pub fn admit(&mut self, link: LinkId, request: Option<u32>, body_len: usize) -> Option<Admitted> {
        let now = self.server.now();
        self.server.realm.admit(now, link, request, body_len)
    }

    /// Whether one more message from where one was let in may be handled, too: if nobody has entered the core since.
    #[inline(always)] // once per message
    pub fn admit_next(
        &mut self,
        link: LinkId,
        from: SessionKey,
        request: Option<u32>,
        body_len: usize,
    ) -> bool {
        self.server.realm.admit_next(link, from, request, body_len, ANSWERS_BYTES_MAX as u32)
    }

    pub fn accept(&mut self, key: SessionKey, uid: Option<&str>) {
        let _ = self.server.realm.accept(key, uid); // gone meanwhile: nobody to answer
    }

    pub fn refuse(&mut self, key: SessionKey, code: &str, text: &str) {
        self.server.realm.refuse(key, code, text);
    }

    #[inline]
    pub fn respond(&mut self, asker: Asker, id: u32, body: &[u8]) {
        self.server.realm.respond(asker.key, asker.link, id, body);
    }

    /// Says that a message came to nothing: a request is answered, a notify told by a push to `$error`.
    pub fn respond_error(&mut self, asker: Asker, code: &str, text: &str, metadata: &[(String, String)]) {
        let Some(id) = asker.request else {
            let mut metadata = metadata.to_vec();
            let mut route = self.server.routes().name(asker.route).to_owned();
            if asker.room != 0 {
                route = format!("{route}@{}", asker.room);
            }
            metadata.push(("route".to_owned(), route));
            self.server.realm.refuse_notify(asker.key, asker.link, code, text, &metadata);
            return;
        };
        self.server.realm.respond_error(asker.key, asker.link, id, code, text, metadata);
    }

    /// A body is not what its route takes: told, counted, and after too many of them the client is closed.
    pub fn refuse_body(&mut self, asker: Asker, text: &str) {
        *self.bodies_refused.entry(asker.route).or_default() += 1;
        self.respond_error(asker, "GS-400", text, &[]);
        let now = self.server.now();
        self.server.realm.bad_message(now, asker.key);
    }

    /// False if the session is gone. A full queue closes a client that is too slow: its game is told by `on_leave`.
    pub fn push(&mut self, key: SessionKey, class: Class, latest_key: u64, route: &str, body: &[u8]) -> bool {
        !matches!(self.server.realm.push(key, class, latest_key, route, body), Err(PushError::Closed))
    }

    pub fn kick(&mut self, key: SessionKey, reason: &str) {
        self.server.realm.kick(key, reason);
    }

    pub fn close(&mut self, key: SessionKey) {
        self.server.realm.close(key);
    }

    /// Kicks everybody, and closes what speaks plain HTTP.
    pub fn shut_down(&mut self, reason: &str) {
        for &link in &self.http_links {
            self.server.realm.downs(link.reactor()).push(Down::Close { link, why: Close::Shutdown });
        }
        self.server.realm.shutdown(reason);
    }

    /// Everything of Python's that the server kept alive, to be dropped when the guard is.
    ///
    /// Python's collector does not see through the core: what points back to it (loop, selector, host) would stay for ever.
    pub fn take_objects(&mut self) -> impl Sized + use<> {
        self.seated = 0;
        let hooks = &mut self.hooks;
        let callbacks = (hooks.on_empty.take(), hooks.on_failure.take(), hooks.on_over.take());
        let hooks = (
            hooks.guest.take(),
            hooks.steps.take(),
            hooks.http.take(),
            hooks.learn.take(),
            hooks.task.take(),
        );
        let seats = (std::mem::take(&mut self.seats), std::mem::take(&mut self.rooms));
        let carriers = (std::mem::take(&mut self.carriers), std::mem::take(&mut self.resting));
        let tasks = (std::mem::take(&mut self.tasks), carriers);
        let messages = (std::mem::take(&mut self.batches), std::mem::take(&mut self.known));
        (hooks, callbacks, seats, tasks, messages, std::mem::take(&mut self.table), self.contexts.take())
    }

    /// The world of a room or, for 0, of the app.
    #[inline]
    pub fn world_of(&self, room: RoomNumber) -> Option<Arc<world_state::Shared>> {
        if room == 0 { self.world.clone() } else { self.rooms.world(room) }
    }

    // -- seats -------------------------------------------------------------------------------------------------------

    pub fn seat(&mut self, key: SessionKey, session: Py<Session>) {
        let place = key.slot as usize;
        if self.seats.len() <= place {
            self.seats.resize_with(place + 1, || None);
        }
        self.seats[place] = Some(Seat::new(session, key.generation));
        self.seated += 1;
    }

    /// The game's object of a session.
    #[inline]
    pub fn session(&self, py: Python<'_>, key: SessionKey) -> Option<Py<Session>> {
        let seat = self.seats.get(key.slot as usize)?.as_ref()?;
        (seat.generation == key.generation).then(|| seat.session.clone_ref(py))
    }

    /// The session is gone for good.
    pub fn forget(&mut self, key: SessionKey) {
        if self.seat_of(key).is_some() {
            self.seats[key.slot as usize] = None;
            self.seated -= 1;
        }
    }

    /// Whether what waits for the last one to go is to be told.
    pub fn is_deserted(&self) -> bool {
        self.hooks.on_empty.is_some() && self.is_empty() && self.server.connections() == 0
    }

    /// Whether there is a failure that nobody was told of.
    pub fn has_failed(&self) -> bool {
        self.hooks.on_failure.is_some() && self.server.failure().is_some()
    }

    /// Whether any session is left, or what its end has to do.
    pub fn is_empty(&self) -> bool {
        self.seated == 0 && self.leaving == 0
    }

    /// Who handles a message now.
    #[inline(always)] // once per message
    pub fn turn_of(&self, from: Admitted) -> Turn<'_> {
        let key = from.session;
        match self.seats.get(key.slot as usize) {
            Some(Some(seat)) if seat.generation == key.generation => {
                if from.queued_bytes as usize > ANSWERS_BYTES_MAX || seat.is_busy() {
                    Turn::Later
                } else {
                    Turn::Now(&seat.session)
                }
            }
            _ => Turn::Never,
        }
    }

    /// Whether a handler of this session is under way that others wait for.
    pub fn is_busy(&mut self, key: SessionKey) -> bool {
        self.seat_of(key).is_some_and(|seat| seat.is_busy())
    }

    /// Queues a message behind others of its session.
    pub fn wait(&mut self, asker: Asker, body: &[u8]) {
        self.defer(asker);
        let waiting = Waiting { asker, body: body.into() };
        if self.seat_of(asker.key).is_some_and(|seat| seat.wait(waiting)) {
            self.server.realm.pause(asker.key);
        }
    }

    /// The next message that may run now; when there is none, reading goes on. A session that has ended has none.
    pub fn next_waiting(&mut self, key: SessionKey) -> Option<Waiting> {
        if self.realm().session(key)?.state() == session::State::Closed {
            return None;
        }
        if self.queued(key) <= ANSWERS_BYTES_MAX
            && let Some(waiting) = self.seat_of(key)?.next()
        {
            return Some(waiting);
        }
        if self.seat_of(key)?.resume() {
            self.server.realm.resume(key);
        }
        None
    }

    /// The answer will come later than this dispatch.
    pub fn defer(&mut self, asker: Asker) {
        if let Some(id) = asker.request {
            self.server.realm.defer(asker.key, id);
        }
    }

    pub fn task_started(&mut self, key: SessionKey, ordered: bool) {
        if let Some(seat) = self.seat_of(key) {
            seat.task_started(ordered);
        }
    }

    pub fn task_finished(&mut self, key: SessionKey, ordered: bool) {
        if let Some(seat) = self.seat_of(key) {
            seat.task_finished(ordered);
        }
    }

    pub fn join_started(&mut self, key: SessionKey) {
        if let Some(seat) = self.seat_of(key) {
            seat.join_started();
        }
    }

    pub fn join_finished(&mut self, key: SessionKey) -> Vec<Event> {
        self.seat_of(key).map(Seat::join_finished).unwrap_or_default()
    }

    pub fn put_off(&mut self, key: SessionKey, event: &Event) -> bool {
        self.seat_of(key).is_some_and(|seat| seat.put_off(event))
    }

    #[inline]
    fn queued(&self, key: SessionKey) -> usize {
        self.server.realm.session(key).map_or(0, |session| session.queued_bytes() as usize)
    }

    #[inline]
    fn seat_of(&mut self, key: SessionKey) -> Option<&mut Seat> {
        self.seats.get_mut(key.slot as usize)?.as_mut().filter(|seat| seat.generation == key.generation)
    }
}
