//! `Session`: one person, as the game sees them.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use engine::realm::Realm;
use engine::session::SessionKey;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::app::Shared;
use crate::cell::Entered;
use crate::error::SESSION_CLOSED;
use crate::push::Push;
use crate::state::State;
use crate::world::state as world_state;
use wire::handshake::Serializer;

/// One person on this server; see `_core.pyi`.
#[pyclass(subclass, frozen, weakref, module = "gameserver")]
#[derive(Default)]
pub struct Session {
    place: Place,
}

/// Where a session stands: in which server, under which key. Set once, by the server that the object is made for.
///
/// Three words; a `OnceLock` of the same would make each session's object 16 bytes larger.
#[derive(Default)]
struct Place {
    /// A counted reference. Null: the object was made by hand and is of no server.
    core: AtomicPtr<Shared>,
    key: AtomicU64,
    id: AtomicU64,
}

/// In a place's key: its hash was asked for before it was set, by the game's `__init__`. No table has so many slots.
const HASHED_EARLY: u64 = 1 << 31;

impl Place {
    fn set(&self, core: Arc<Shared>, key: SessionKey, id: u64) {
        if self.core().is_some() {
            return;
        }
        self.key.fetch_or(key.to_bits(), Ordering::Relaxed);
        self.id.store(id, Ordering::Relaxed);
        let core = Arc::into_raw(core).cast_mut();
        // Who sees the server sees the key and the id that were stored before.
        if self.core.compare_exchange(ptr::null_mut(), core, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: `into_raw` above gave it, and it was stored nowhere.
            drop(unsafe { Arc::from_raw(core) });
        }
    }

    fn core(&self) -> Option<&Shared> {
        // SAFETY: null, or what `into_raw` gave in `set`. It is never replaced, and only `drop`, when there is no `&self`
        // any more, gives its count back: so what it points to outlives the reference.
        unsafe { self.core.load(Ordering::Acquire).as_ref() }
    }

    /// Of no meaning without `core`.
    fn key(&self) -> SessionKey {
        SessionKey::from_bits(self.key.load(Ordering::Relaxed) & !HASHED_EARLY)
    }

    /// The id, or `address` for ever if it was asked for before there was an id: a hash must stay what it is.
    fn hash(&self, address: u64) -> u64 {
        let is_early = match self.core() {
            Some(_) => self.key.load(Ordering::Relaxed) & HASHED_EARLY != 0,
            None => {
                self.key.fetch_or(HASHED_EARLY, Ordering::Relaxed);
                true
            }
        };
        if is_early { address } else { self.id() }
    }

    /// 0 without `core`.
    fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let core = *self.core.get_mut();
        if !core.is_null() {
            // SAFETY: `into_raw` gave it in `set`, and this is the one place that takes its count back.
            drop(unsafe { Arc::from_raw(core) });
        }
    }
}

impl Session {
    /// Ties a new object to its session.
    pub fn place(&self, core: Arc<Shared>, key: SessionKey, id: u64) {
        self.place.set(core, key, id);
    }

    /// Its key, if it belongs to `core`.
    pub fn key_in(&self, py: Python<'_>, core: &Arc<Shared>) -> PyResult<SessionKey> {
        match self.place.core() {
            Some(own) if ptr::eq(own, Arc::as_ptr(core)) => Ok(self.place.key()),
            _ => Err(SESSION_CLOSED.err(py, "this session belongs to no running server")),
        }
    }

    /// Its key in its server.
    pub fn placed_key(&self, py: Python<'_>) -> PyResult<SessionKey> {
        self.placed(py)?;
        Ok(self.place.key())
    }

    /// The world that its server shows.
    pub fn world(&self, py: Python<'_>) -> PyResult<Option<Arc<world_state::Shared>>> {
        Ok(self.placed(py)?.enter()?.world.clone())
    }

    fn entered(&self, py: Python<'_>) -> PyResult<(Entered<'_, State>, SessionKey)> {
        let core = self.placed(py)?;
        Ok((core.enter()?, self.place.key()))
    }

    fn placed(&self, py: Python<'_>) -> PyResult<&Shared> {
        self.place
            .core()
            .ok_or_else(|| SESSION_CLOSED.err(py, "this session was made by hand and belongs to no server"))
    }

    fn read<T>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&Realm, SessionKey, u64) -> Option<T>,
        gone: T,
    ) -> PyResult<T> {
        let (state, key) = self.entered(py)?;
        Ok(read(state.realm(), key, state.now()).unwrap_or(gone))
    }

    /// What to raise when the session is gone.
    pub fn closed(&self, py: Python<'_>) -> PyErr {
        SESSION_CLOSED.err(py, format!("session {} is closed", self.place.id()))
    }
}

#[pymethods]
impl Session {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[getter]
    fn id(&self) -> u64 {
        self.place.id()
    }

    #[getter]
    fn uid(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.read(
            py,
            |realm, key, _| realm.session(key).map(|session| session.uid().map(str::to_owned)),
            None,
        )
    }

    #[getter]
    fn _came_with<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let hash =
            self.read(py, |realm, key, _| realm.session(key).map(|session| session.came_with()), None)?;
        Ok(hash.map(|hash| PyBytes::new(py, &hash)))
    }

    #[getter]
    fn _token_hash<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let hash =
            self.read(py, |realm, key, _| realm.session(key).map(|session| session.token_hash()), None)?;
        Ok(hash.map(|hash| PyBytes::new(py, &hash)))
    }

    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.state().name()), "closed")
    }

    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<String> {
        self.read(
            py,
            |realm, key, _| realm.session(key).map(|session| session.address().into_owned()),
            String::new(),
        )
    }

    #[getter]
    fn transport(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.transport().name()), "tcp")
    }

    #[getter]
    fn tls(&self, py: Python<'_>) -> PyResult<bool> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.tls()), false)
    }

    #[getter]
    fn serializer(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.serializer().name()), "json")
    }

    #[getter]
    fn connected_at(&self, py: Python<'_>) -> PyResult<f64> {
        let (state, key) = self.entered(py)?;
        Ok(state.realm().session(key).map_or(0.0, |session| state.wall(session.connected_at())))
    }

    #[getter]
    fn online_time(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(
            py,
            |realm, key, now| {
                realm.session(key).map(|session| seconds(now.saturating_sub(session.connected_at())))
            },
            0.0,
        )
    }

    #[getter]
    fn last_heard(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(
            py,
            |realm, key, now| {
                realm.session(key).map(|session| seconds(now.saturating_sub(session.last_heard())))
            },
            0.0,
        )
    }

    #[getter]
    fn rtt(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.read(
            py,
            |realm, key, _| Some(realm.session(key)?.rtt_us().map(|rtt_us| f64::from(rtt_us) / 1e6)),
            None,
        )
    }

    #[getter]
    fn bytes_in(&self, py: Python<'_>) -> PyResult<u64> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.bytes_in()), 0)
    }

    #[getter]
    fn bytes_out(&self, py: Python<'_>) -> PyResult<u64> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.bytes_out()), 0)
    }

    #[getter]
    fn messages_in(&self, py: Python<'_>) -> PyResult<u64> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.messages_in()), 0)
    }

    #[getter]
    fn messages_out(&self, py: Python<'_>) -> PyResult<u64> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.messages_out()), 0)
    }

    #[getter]
    fn backlog(&self, py: Python<'_>) -> PyResult<u32> {
        self.read(py, |realm, key, _| realm.session(key).map(|session| session.queued_bytes()), 0)
    }

    #[pyo3(signature = (route, body = None, *, delivery = None))]
    fn push(
        &self,
        py: Python<'_>,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
        delivery: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let core = self.placed(py)?;
        let push = Push::new(core, route, body, delivery)?;
        let (state, key) = self.entered(py)?;
        let serializer = state.realm().session(key).map_or(Serializer::Json, |session| session.serializer());
        drop(state);
        let sent = push.with_body(serializer, |body| {
            Ok(core.enter()?.push(key, push.class(), push.key(0), push.route(), body))
        })?;
        if sent { Ok(()) } else { Err(self.closed(py)) }
    }

    #[pyo3(signature = (reason = ""))]
    fn kick(&self, py: Python<'_>, reason: &str) -> PyResult<()> {
        let (mut state, key) = self.entered(py)?;
        state.kick(key, reason);
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let (mut state, key) = self.entered(py)?;
        state.close(key);
        Ok(())
    }

    fn task<'py>(slf: &Bound<'py, Self>, coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (state, _) = slf.get().entered(py)?;
        let task = state.hooks.task.as_ref().map(|task| task.clone_ref(py));
        drop(state);
        match task {
            Some(task) => task.bind(py).call1((slf, coroutine)),
            None => Err(slf.get().closed(py)),
        }
    }

    /// Not the address's: sets of sessions are walked in the same order in a replay.
    fn __hash__(slf: &Bound<'_, Self>) -> u64 {
        slf.get().place.hash(slf.as_ptr() as u64 >> 4)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().qualname()?;
        let this = slf.get();
        match this.place.core() {
            Some(_) => Ok(format!("<{class} {}>", this.place.id())),
            None => Ok(format!("<{class} of no server>")),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
