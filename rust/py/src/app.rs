//! `Core`: one running server, as `App` drives it. Start reading at `select`, a turn.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;

use engine::event::{Close, Down, LinkId, Nanos, RouteId};
use engine::link::{LinkConfig, Origins, Proxies};
use engine::rate::{Limit, Over, Rate};
use engine::realm::{RealmConfig, SchemaDocument, TimerKey};
use engine::route::RouteTable;
use net::address::Address;
use net::admission::ConnectRate;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyKeyError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use server::options::Options;
use server::record::{DESERTED, FAILURE, RETURNED, Recorder};
use server::replay::Replay;
use server::turn::Server;
use wire::handshake::Serializer;
use wire::proxy::Networks;
use wire::websocket::deflate::DeflateMode;

use crate::carrier::Steps;
use crate::cell::{Entered, Here, LogicCell};
use crate::dispatch;
use crate::error::CONFIG_ERROR;
use crate::guest::Guest;
use crate::handler::Table;
use crate::push::Push;
use crate::replay;
use crate::room::CoreRooms;
use crate::scope::Scope;
use crate::session::Session;
use crate::state::{Hooks, State};
use crate::stats;
use crate::world::face::World;
use crate::world::turn;

/// The state of one server, shared by `Core` and its sessions.
pub struct Shared {
    cell: LogicCell<State>,
}

impl Shared {
    /// The state; never held while Python runs.
    #[inline]
    pub fn enter(&self) -> PyResult<Entered<'_, State>> {
        self.cell.enter()
    }

    /// The same for who has entered it before, in the same call from Python.
    #[inline]
    pub fn enter_again(&self, here: Here) -> PyResult<Entered<'_, State>> {
        self.cell.enter_again(here)
    }
}

/// See `_core.pyi`.
#[pyclass(frozen, module = "gameserver._core")]
pub struct Core {
    shared: Arc<Shared>,
}

impl Core {
    fn enter(&self) -> PyResult<Entered<'_, State>> {
        self.shared.enter()
    }

    /// `scope` is opened when the first turn needs it, and stays for those that follow.
    fn turn<'a, 'py>(
        &'a self,
        py: Python<'py>,
        scope: &mut Option<Scope<'a, 'py>>,
        until: Option<Nanos>,
        may_hold: bool,
    ) -> PyResult<()> {
        let core = &self.shared;
        let mut state = core.enter()?;
        state.server.flush(may_hold);
        let server = &mut state.server;
        if until == Some(0) {
            server.wait(until)?;
        } else {
            py.detach(|| server.wait(until))?;
        }
        let mut logs = std::mem::take(&mut state.logs);
        let mut more = state.server.read(&mut logs);
        if state.has_ended {
            state.server.recycle(&mut logs);
            state.logs = logs;
            return Ok(());
        }
        drop(state);

        let scope = match scope {
            Some(scope) => scope,
            None => scope.insert(Scope::open(py, core)?),
        };
        loop {
            for log in &logs {
                dispatch::log(py, scope, log)?;
            }
            dispatch::due(py, scope)?;
            let mut state = core.enter()?;
            state.server.flush(true);
            state.server.recycle(&mut logs);
            if !more {
                state.logs = logs;
                return Ok(());
            }
            more = state.server.read(&mut logs);
        }
    }

    /// Whether nothing has happened that asyncio must be told at once.
    fn may_stay(&self, until: Option<Nanos>) -> PyResult<bool> {
        let state = self.enter()?;
        let is_due = until.is_some_and(|until| until == 0 || net::sys::monotonic_now() >= until);
        Ok(!is_due && !state.server.has_foreign() && !state.is_deserted() && !state.has_failed())
    }

    fn tell(&self, link: u64, down: impl FnOnce(LinkId) -> Down) -> PyResult<()> {
        let link = LinkId::from_bits(link);
        self.enter()?.server.realm.downs(link.reactor()).push(down(link));
        Ok(())
    }
}

#[pymethods]
impl Core {
    #[new]
    fn new(
        options: &Bound<'_, PyDict>,
        session_class: Py<PyAny>,
        failed: Py<PyAny>,
        fire: Py<PyAny>,
    ) -> PyResult<Self> {
        let options = Settings(options).options()?;
        let server = Server::new(options)?;
        let hooks = Hooks {
            session_class,
            failed,
            fire,
            learn: None,
            task: None,
            http: None,
            steps: None,
            guest: None,
            on_empty: None,
            on_failure: None,
            on_over: None,
        };
        Ok(Self { shared: Arc::new(Shared { cell: LogicCell::new(State::new(server, hooks)) }) })
    }

    // -- before it runs ----------------------------------------------------------------------------------------------

    /// `rooms`: the handlers of each class of rooms. `limits`: of each limited route its name, messages in a second, burst,
    /// and what becomes of more.
    fn bind(
        &self,
        py: Python<'_>,
        handlers: Vec<Bound<'_, PyAny>>,
        rust_echo: bool,
        rooms: Vec<Vec<Bound<'_, PyAny>>>,
        limits: Vec<(String, f64, u32, String)>,
    ) -> PyResult<()> {
        let mut routes = RouteTable::clone(self.enter()?.server.routes());
        let (table, batches) = Table::new(py, &handlers, &rooms, &mut routes)?;
        (0..routes.len()).for_each(|id| routes.set_limit(RouteId(id as u32), None));
        for (route, per_second, burst, over) in limits {
            let id = routes.intern(&route);
            routes.set_limit(id, Some(Limit { rate: Rate::new(per_second, burst), over: over_of(&over) }));
        }
        let mut state = self.enter()?;
        state.rust_echo = if rust_echo { routes.lookup("echo") } else { None };
        state.server.set_routes(routes);
        let known = std::mem::take(&mut state.known);
        let old = (
            std::mem::replace(&mut state.table, table),
            std::mem::replace(&mut state.batches, batches),
            known,
        );
        drop(state);
        drop(old); // may run Python
        Ok(())
    }

    /// What clients are told of the game's messages, as JSON, with its digest; `None`: nothing.
    #[pyo3(signature = (document))]
    fn set_schema(&self, document: Option<(String, String)>) -> PyResult<()> {
        let document = document.map(|(digest, json)| SchemaDocument { digest, json });
        self.enter()?.server.realm.set_schema(document);
        Ok(())
    }

    /// Called with a session and a coroutine, which it runs until that leaves.
    fn set_task(&self, task: Py<PyAny>) -> PyResult<()> {
        self.enter()?.hooks.task = Some(task);
        Ok(())
    }

    /// Called with each class of messages that is pushed, once; says its route.
    fn set_learn(&self, learn: Py<PyAny>) -> PyResult<()> {
        self.enter()?.hooks.learn = Some(learn);
        Ok(())
    }

    fn set_http(&self, host: Py<PyAny>) -> PyResult<()> {
        self.enter()?.hooks.http = Some(host);
        Ok(())
    }

    fn set_on_failure(&self, on_failure: Py<PyAny>) -> PyResult<()> {
        self.enter()?.hooks.on_failure = Some(on_failure);
        Ok(())
    }

    /// asyncio's loop, and its selector's keys by descriptor.
    fn set_loop(&self, event_loop: &Bound<'_, PyAny>, keys: Py<PyDict>) -> PyResult<()> {
        let steps = Steps::new(event_loop)?;
        let guest = Guest::new(event_loop, keys)?;
        let mut state = self.enter()?;
        state.hooks.steps = Some(steps);
        state.hooks.guest = Some(guest);
        Ok(())
    }

    fn watch(&self, fd: i32, read: bool, write: bool) -> PyResult<()> {
        Ok(self.enter()?.server.watch(fd, read, write)?)
    }

    fn unwatch(&self, fd: i32) -> PyResult<()> {
        Ok(self.enter()?.server.unwatch(fd)?)
    }

    fn listen(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let listening = self.enter()?.server.listen();
        match listening {
            Ok(addresses) => Ok(addresses),
            Err((address, error)) => {
                let number = match error.raw_os_error() {
                    Some(number) => number,
                    None => py.import("errno")?.getattr("EADDRINUSE")?.extract()?, // what stands there is no socket
                };
                let text: String = py.import("os")?.call_method1("strerror", (number,))?.extract()?;
                Err(PyOSError::new_err((number, text, address.to_string())))
            }
        }
    }

    /// Raises the soft limit of descriptors to the hard one, and returns it.
    #[staticmethod]
    fn raise_descriptor_limit() -> PyResult<u64> {
        Ok(net::sys::raise_descriptor_limit()?.1)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let started = self.enter()?.server.start();
        started.map_err(|error| match error.raw_os_error() {
            Some(_) => error.into(),
            None => CONFIG_ERROR.err(py, format!("{error}")), // certificate or key
        })
    }

    /// Takes the time before `on_start` (`S`) or `on_stop` (`P`), for the recording.
    fn stamp(&self, kind: char) -> PyResult<()> {
        Ok(self.enter()?.server.stamp(kind as u8)?)
    }

    // -- recording and replay ----------------------------------------------------------------------------------------

    /// Keeps the run in a file, from now on; `start` is what its replay has to begin with.
    fn record(&self, path: PathBuf, start: &[u8]) -> PyResult<()> {
        let recorder = Recorder::create(&path)?;
        self.enter()?.server.record(recorder, start);
        Ok(())
    }

    /// What a recorded run was started with.
    #[staticmethod]
    fn started_with(path: PathBuf) -> PyResult<Vec<u8>> {
        replay::started_with(&path)
    }

    /// Takes a recording in place of sockets and clock; `on_over` is called once, when nothing more is to be replayed.
    fn replay(&self, path: PathBuf, on_over: Py<PyAny>) -> PyResult<()> {
        let recording = Replay::open(&path)?;
        let mut state = self.enter()?;
        state.server.replay(recording)?;
        state.hooks.on_over = Some(on_over);
        Ok(())
    }

    /// Turns replayed, logs compared, the first difference.
    fn replayed(&self) -> PyResult<(u64, u64, Option<String>)> {
        let state = self.enter()?;
        let Some(replay) = state.server.replaying() else { return Ok((0, 0, None)) };
        match replay.damage() {
            Some(damage) => Err(PyOSError::new_err(format!("after turn {}: {damage}", replay.turns()))),
            None => Ok((replay.turns(), replay.compared(), replay.difference().map(str::to_owned))),
        }
    }

    /// Notes something in the recording, if there is one.
    fn note(&self, kind: char, bytes: &[u8]) -> PyResult<()> {
        self.enter()?.server.note(kind as u8, bytes);
        Ok(())
    }

    /// The recorded run's next note, if it is of this kind.
    fn next_note(&self, kind: char) -> PyResult<Option<Vec<u8>>> {
        Ok(self.enter()?.server.next_note(kind as u8)?)
    }

    /// The replay can't do what the recorded run did.
    fn differ(&self, what: &str) -> PyResult<()> {
        self.enter()?.server.differ(what);
        Ok(())
    }

    // -- a turn ------------------------------------------------------------------------------------------------------

    /// Turns, see `server::turn`, until asyncio has something to do. Returns its descriptors that are ready, as its
    /// selector does.
    #[pyo3(signature = (timeout = None))]
    fn select<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        let is_busy = timeout.is_some_and(|seconds| seconds <= 0.0);
        let mut state = self.enter()?;
        let State { carriers, resting, .. } = &mut *state;
        carriers.append(resting);
        // asyncio's clock: the machine's, or the turn's.
        let (is_recording, is_replaying) = (state.server.is_recording(), state.server.replaying().is_some());
        let now = if is_recording || is_replaying { state.now() } else { net::sys::monotonic_now() };
        let guest = state.hooks.guest.clone();
        let is_touched = !state.rooms.touched.is_empty();
        drop(state);
        let until = match timeout {
            None => None,
            Some(_) if is_busy => Some(0),
            Some(seconds) => Some(now + (seconds.min(1e9) * 1e9) as Nanos),
        };
        if is_touched {
            turn::end_touched(py, &Scope::open(py, &self.shared)?)?; // by tasks, since the last turn
        }
        if is_replaying {
            replay::select(py, &self.shared, until)?;
            return Ok(PyList::empty(py));
        }
        let guest = match guest {
            Some(guest) => Some((guest.timers(py)?, guest)),
            None => None,
        };
        // While asyncio has something ready, answers may still come that go with those that are queued.
        let mut scope = None;
        self.turn(py, &mut scope, until, is_busy)?;
        if let Some((timers, guest)) = &guest {
            while self.may_stay(until)? && guest.is_idle(py, timers)? {
                py.check_signals()?;
                if let Some(scope) = &scope {
                    scope.settle()?; // a signal's handler is a call, too
                }
                self.turn(py, &mut scope, until, false)?;
            }
        }
        drop(scope);
        let mut state = self.enter()?;
        let ready: Vec<_> = state.server.take_foreign().collect();
        let on_empty = if state.is_deserted() { state.hooks.on_empty.take() } else { None };
        let failure = match state.server.failure() {
            Some(why) => state.hooks.on_failure.take().map(|on_failure| (on_failure, why)),
            None => None,
        };
        if is_recording {
            if on_empty.is_some() {
                state.server.note(DESERTED, &[]);
            }
            if let Some((_, why)) = &failure {
                state.server.note(FAILURE, why.as_bytes());
            }
            state.server.note(RETURNED, &[]);
        }
        drop(state);
        if let Some(on_empty) = on_empty {
            on_empty.call0(py)?;
        }
        if let Some((on_failure, why)) = failure {
            on_failure.call1(py, (why,))?;
        }
        match guest {
            Some((_, guest)) if !ready.is_empty() => guest.keys(py, &ready),
            _ => Ok(PyList::empty(py)),
        }
    }

    /// Nanoseconds per message from bytes in a receive buffer to bytes in a send buffer, without sockets.
    fn micro(&self, py: Python<'_>, route: &str, body: &[u8], depth: usize, rounds: usize) -> PyResult<f64> {
        crate::micro::run(py, &self.shared, route, body, depth, rounds)
    }

    // -- the end -----------------------------------------------------------------------------------------------------

    /// Sends what is left to send; from now on nothing is called of the game, and nothing recorded or replayed.
    fn end_run(&self) -> PyResult<()> {
        let mut state = self.enter()?;
        state.has_ended = true;
        Ok(state.server.end_run()?)
    }

    fn stop_accepting(&self) -> PyResult<()> {
        self.enter()?.server.stop_listening();
        Ok(())
    }

    /// Nobody new is let in from now on; who has a session may come back to it.
    fn set_draining(&self) -> PyResult<()> {
        self.enter()?.server.realm.set_draining();
        Ok(())
    }

    /// Asks a client to connect anew, in so many seconds; false if it knows nothing of such.
    fn send_away(&self, py: Python<'_>, session: &Bound<'_, Session>, delay: f64) -> PyResult<bool> {
        let key = session.get().key_in(py, &self.shared)?;
        Ok(self.enter()?.server.realm.send_away(key, delay))
    }

    /// Kicks everybody. False if nobody is there; else `on_empty` is called when the last one has gone.
    fn shut_down(&self, reason: &str, on_empty: Py<PyAny>) -> PyResult<bool> {
        let mut state = self.enter()?;
        state.server.stamp(b'X')?;
        state.shut_down(reason);
        let any = if state.server.replaying().is_some() {
            state.server.next_note(DESERTED)?.is_none()
        } else {
            !state.is_empty() || state.server.connections() > 0
        };
        if any {
            state.hooks.on_empty = Some(on_empty);
        } else {
            state.server.note(DESERTED, &[]);
        }
        Ok(any)
    }

    /// Shows a world to the sessions, from the next tick on.
    fn set_world(&self, py: Python<'_>, world: &Bound<'_, World>) -> PyResult<()> {
        let world = world.get().shared.clone();
        let tick_rate = self.enter()?.server.tick_rate();
        world.attach(py, &self.shared, tick_rate, 0)?;
        self.enter()?.world = Some(world);
        Ok(())
    }

    /// Drops everything: sockets, threads, sessions.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.enter()?;
        let mut worlds = state.rooms.take_worlds();
        worlds.extend(state.world.take());
        drop(state);
        worlds.iter().try_for_each(|world| world.detach())?;
        let mut state = self.enter()?;
        let objects = state.take_objects();
        let server = &mut state.server;
        py.detach(|| server.close()); // joins the threads
        drop(state);
        drop(objects); // may run Python
        Ok(())
    }

    /// This is a forked child: nothing works here.
    fn forked(&self) {
        self.shared.cell.forked();
    }

    // -- what the game asks ------------------------------------------------------------------------------------------

    fn now(&self) -> PyResult<f64> {
        Ok(self.enter()?.now() as f64 / 1e9)
    }

    /// The time of this turn in seconds since 1970.
    fn wall(&self) -> PyResult<f64> {
        let state = self.enter()?;
        Ok(state.wall(state.now()))
    }

    #[pyo3(signature = (route, body, skip, delivery = None))]
    fn broadcast(
        &self,
        py: Python<'_>,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
        skip: Option<&Bound<'_, Session>>,
        delivery: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let push = Push::new(&self.shared, route, body, delivery)?;
        let skip = skip.map(|session| session.get().key_in(py, &self.shared)).transpose()?;
        push.with_bodies(&self.shared, |state, bodies| {
            state.server.realm.push_all(skip, push.class(), push.key(0), push.route(), bodies)
        })
    }

    fn group_add(&self, py: Python<'_>, name: &str, session: &Bound<'_, Session>) -> PyResult<bool> {
        let key = session.get().key_in(py, &self.shared)?;
        let mut state = self.enter()?;
        if state.realm().session(key).is_none() {
            drop(state);
            return Err(session.get().closed(py));
        }
        let realm = &mut state.server.realm;
        let group = realm.group(name);
        Ok(realm.group_add(group, key))
    }

    fn group_remove(&self, py: Python<'_>, name: &str, session: &Bound<'_, Session>) -> PyResult<bool> {
        let key = session.get().key_in(py, &self.shared)?;
        let mut state = self.enter()?;
        let realm = &mut state.server.realm;
        let Some(group) = realm.find_group(name) else { return Ok(false) };
        let removed = realm.group_remove(group, key);
        realm.group_forget(group);
        Ok(removed)
    }

    #[pyo3(signature = (name, route, body, skip, delivery = None))]
    fn group_push(
        &self,
        py: Python<'_>,
        name: &str,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
        skip: Option<&Bound<'_, Session>>,
        delivery: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let push = Push::new(&self.shared, route, body, delivery)?;
        let skip = skip.map(|session| session.get().key_in(py, &self.shared)).transpose()?;
        push.with_bodies(&self.shared, |state, bodies| {
            let realm = &mut state.server.realm;
            let Some(group) = realm.find_group(name) else { return 0 };
            realm.push_group(group, skip, push.class(), push.key(0), push.route(), bodies)
        })
    }

    fn group_has(&self, py: Python<'_>, name: &str, session: &Bound<'_, Session>) -> PyResult<bool> {
        let key = session.get().key_in(py, &self.shared)?;
        let state = self.enter()?;
        let realm = state.realm();
        let Some(group) = realm.find_group(name) else { return Ok(false) };
        Ok(realm.session(key).is_some_and(|session| session.is_in(group)))
    }

    fn group_len(&self, name: &str) -> PyResult<usize> {
        let state = self.enter()?;
        Ok(state.realm().find_group(name).map_or(0, |group| state.realm().group_len(group)))
    }

    fn group_members(&self, py: Python<'_>, name: &str) -> PyResult<Vec<Py<Session>>> {
        let state = self.enter()?;
        let Some(group) = state.realm().find_group(name) else { return Ok(Vec::new()) };
        Ok(state.realm().group_members(group).filter_map(|key| state.session(py, key)).collect())
    }

    /// What rooms ask.
    fn rooms(&self) -> CoreRooms {
        CoreRooms::new(self.shared.clone())
    }

    fn user(&self, py: Python<'_>, uid: &str) -> PyResult<Option<Py<Session>>> {
        let state = self.enter()?;
        Ok(state.realm().user(uid).and_then(|key| state.session(py, key)))
    }

    fn sessions(&self, py: Python<'_>) -> PyResult<Vec<Py<Session>>> {
        let state = self.enter()?;
        Ok(state.realm().sessions().filter_map(|key| state.session(py, key)).collect())
    }

    fn timer_start(&self, seconds: f64) -> PyResult<u64> {
        let mut state = self.enter()?;
        let now = state.now();
        Ok(state.server.realm.after(now, (seconds * 1e9) as Nanos).to_bits())
    }

    fn timer_cancel(&self, key: u64) -> PyResult<()> {
        self.enter()?.server.realm.cancel(TimerKey::from_bits(key));
        Ok(())
    }

    // -- plain HTTP --------------------------------------------------------------------------------------------------

    fn http_write(&self, link: u64, data: &[u8]) -> PyResult<()> {
        let link = LinkId::from_bits(link);
        let mut state = self.enter()?;
        let downs = state.server.realm.downs(link.reactor());
        let body = downs.store(data);
        downs.push(Down::HttpBytes { link, body });
        Ok(())
    }

    fn http_close(&self, link: u64) -> PyResult<()> {
        self.tell(link, |link| Down::Close { link, why: Close::Closed })
    }

    fn http_abort(&self, link: u64) -> PyResult<()> {
        self.tell(link, |link| Down::Abort { link, why: Close::Closed })
    }

    fn http_pause(&self, link: u64) -> PyResult<()> {
        self.tell(link, |link| Down::Pause { link })
    }

    fn http_resume(&self, link: u64) -> PyResult<()> {
        self.tell(link, |link| Down::Resume { link })
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats::read(py, &mut *self.enter()?)
    }
}

/// `gameserver._settings.Settings` as a dict.
struct Settings<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Settings<'_, 'py> {
    fn options(&self) -> PyResult<Options> {
        let io_threads: u8 = self.read("io_threads")?;
        let serializer = match self.read::<String>("serializer")?.as_str() {
            "protobuf" => Serializer::Protobuf,
            _ => Serializer::Json,
        };
        let origins: Vec<String> = self.read("allowed_origins")?;
        let queue_bytes_max: usize = self.read("queue_bytes_max")?;
        let link = LinkConfig {
            handshake_timeout: self.nanos("handshake_timeout")?,
            heartbeat: self.nanos("heartbeat")?,
            stale_after: self.nanos("stale_after")?,
            missed_max: self.read("missed_heartbeats")?,
            drain_timeout: self.nanos("drain_timeout")?,
            auth_bytes_max: self.read("auth_bytes_max")?,
            body_bytes_max: self.read("body_bytes_max")?,
            inflate_bytes_max: self.read("body_bytes_max")?,
            queue_bytes_max: u32::try_from(queue_bytes_max).unwrap_or(u32::MAX),
            congested_bytes: u32::try_from(self.read::<u64>("congested_bytes")?).unwrap_or(u32::MAX),
            messages: self
                .rate("message_rate", "message_burst")?
                .map(|rate| {
                    Ok::<_, PyErr>(Limit { rate, over: over_of(&self.read::<String>("message_over")?) })
                })
                .transpose()?,
            address_messages: self.rate("address_message_rate", "address_message_burst")?,
            proxies: Proxies { networks: Arc::new(self.proxies()?), protocol: self.read("proxy_protocol")? },
            deflate: match self.read::<String>("websocket_deflate")?.as_str() {
                "on" => DeflateMode::On,
                "takeover" => DeflateMode::Takeover,
                _ => DeflateMode::Off,
            },
            allowed_origins: Origins::new(origins),
            http: true,
            ..LinkConfig::default()
        };
        let realm = RealmConfig {
            node: self.read("node")?,
            reactors: io_threads + 1,
            heartbeat_seconds: (self.read::<f64>("heartbeat")?.ceil() as u32).max(1),
            serializer,
            auth_timeout: self.nanos("auth_timeout")?,
            resume_grace: self.nanos("resume_grace")?,
            resume_bytes_max: self.read("resume_bytes_max")?,
            resume_waiting_max: self.read("resume_waiting_max")?,
            queue_bytes_max: u32::try_from(queue_bytes_max).unwrap_or(u32::MAX),
            bad_messages_max: self.read("bad_messages_max")?,
            ..RealmConfig::default()
        };
        let addresses = match self.read::<Option<String>>("unix")? {
            Some(path) => vec![Address::Unix(path.into())],
            None => vec![resolve(self.0.py(), &self.read::<String>("host")?, self.read("port")?)?],
        };
        let certificate: Option<PathBuf> = self.read("tls_cert")?;
        let key: Option<PathBuf> = self.read("tls_key")?;
        Ok(Options {
            addresses,
            tls: certificate.zip(key),
            io_threads,
            spin: self.read("spin")?,
            connections_max: self.read("max_connections")?,
            connections_per_address_max: self.read("max_connections_per_address")?,
            connect_rate: self.connect_rate()?,
            queue_bytes_max,
            tick_rate: self.read("tick_rate")?,
            catch_up_max: self.read("max_catch_up")?,
            dilate: self.read::<String>("on_late")? == "dilate",
            link: Arc::new(link),
            realm,
            through_bytes: self.read("through_bytes")?,
        })
    }

    fn read<T: FromPyObjectOwned<'py>>(&self, name: &str) -> PyResult<T> {
        let value = self.0.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        value.extract().map_err(Into::into)
    }

    fn proxies(&self) -> PyResult<Networks> {
        let mut networks = Networks::default();
        for text in self.read::<Vec<String>>("proxies")? {
            if text == "unix" {
                networks.unix = true;
            } else {
                let wrong = |error| CONFIG_ERROR.err(self.0.py(), format!("proxies: {text:?}: {error}"));
                networks.ranges.push(text.parse().map_err(wrong)?);
            }
        }
        Ok(networks)
    }

    /// 0 in a second: there is no limit.
    fn rate(&self, rate: &str, burst: &str) -> PyResult<Option<Rate>> {
        let (per_second, burst): (f64, u32) = (self.read(rate)?, self.read(burst)?);
        Ok((per_second > 0.0).then(|| Rate::new(per_second, burst)))
    }

    fn connect_rate(&self) -> PyResult<Option<ConnectRate>> {
        let (per_second, burst): (f64, u32) = (self.read("connect_rate")?, self.read("connect_burst")?);
        Ok((per_second > 0.0).then(|| ConnectRate { interval: (1e9 / per_second) as u64, burst }))
    }

    fn nanos(&self, name: &str) -> PyResult<Nanos> {
        Ok((self.read::<f64>(name)? * 1e9) as Nanos)
    }
}

fn over_of(word: &str) -> Over {
    match word {
        "drop" => Over::Drop,
        "kick" => Over::Kick,
        _ => Over::Refuse,
    }
}

/// The first address that a host name stands for.
fn resolve(py: Python<'_>, host: &str, port: u16) -> PyResult<Address> {
    let unknown =
        || CONFIG_ERROR.err(py, format!("host={host:?}: no such host; give an address of this machine"));
    let mut found = (host, port).to_socket_addrs().map_err(|_| unknown())?;
    found.next().map(Address::Tcp).ok_or_else(unknown)
}
