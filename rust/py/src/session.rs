//! `Session`: one person, as the game sees them.

use std::sync::{Arc, OnceLock};

use engine::realm::Realm;
use engine::session::SessionKey;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::app::Shared;
use crate::cell::Entered;
use crate::error::SESSION_CLOSED;
use crate::push::Push;
use crate::state::State;
use wire::handshake::Serializer;

/// One person on this server; see `_core.pyi`.
#[pyclass(subclass, frozen, weakref, module = "gameserver")]
#[derive(Default)]
pub struct Session {
    place: OnceLock<Place>,
    hash: OnceLock<u64>,
}

/// Where a session stands: in which server, under which key.
struct Place {
    core: Arc<Shared>,
    key: SessionKey,
    id: u64,
}

impl Session {
    /// Ties a new object to its session.
    pub fn place(&self, core: Arc<Shared>, key: SessionKey, id: u64) {
        let _ = self.place.set(Place { core, key, id });
    }

    /// Its key, if it belongs to `core`.
    pub fn key_in(&self, py: Python<'_>, core: &Arc<Shared>) -> PyResult<SessionKey> {
        match self.place.get() {
            Some(place) if Arc::ptr_eq(&place.core, core) => Ok(place.key),
            _ => Err(SESSION_CLOSED.err(py, "this session belongs to no running server")),
        }
    }

    fn entered(&self, py: Python<'_>) -> PyResult<(Entered<'_, State>, SessionKey)> {
        let place = self.placed(py)?;
        Ok((place.core.enter()?, place.key))
    }

    fn placed(&self, py: Python<'_>) -> PyResult<&Place> {
        self.place
            .get()
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
        let id = self.place.get().map_or(0, |place| place.id);
        SESSION_CLOSED.err(py, format!("session {id} is closed"))
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
        self.place.get().map_or(0, |place| place.id)
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

    #[pyo3(signature = (route, body = None))]
    fn push(
        &self,
        py: Python<'_>,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let core = &self.placed(py)?.core;
        let push = Push::new(core, route, body)?;
        let (state, key) = self.entered(py)?;
        let serializer = state.realm().session(key).map_or(Serializer::Json, |session| session.serializer());
        drop(state);
        let sent = push.with_body(serializer, |body| Ok(core.enter()?.push(key, push.route(), body)))?;
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

    /// The id's, not the address's: sets of sessions are walked in the same order in a replay. It stays what it was when the
    /// game's `__init__` asked, which has no id yet.
    fn __hash__(slf: &Bound<'_, Self>) -> u64 {
        let this = slf.get();
        let id = this.place.get().map_or_else(|| slf.as_ptr() as u64 >> 4, |place| place.id);
        *this.hash.get_or_init(|| id)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let class = slf.get_type().qualname()?;
        let this = slf.get();
        match this.place.get() {
            Some(place) => Ok(format!("<{class} {}>", place.id)),
            None => Ok(format!("<{class} of no server>")),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
