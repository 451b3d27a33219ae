//! Pushes: a route and a body, or a message, whose class says the route. Encoded once for all who share a serializer.

use std::sync::Arc;

use engine::realm::Bodies;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use wire::handshake::Serializer;

use crate::app::Shared;
use crate::scratch::with_buffer;
use crate::state::State;
use crate::typed;
use crate::value::{self, Body};

/// What a game pushes.
pub struct Push<'a, 'py> {
    route: Route<'a>,
    body: Body<'a, 'py>,
}

enum Route<'a> {
    Given(&'a str),
    Known(Arc<str>),
}

/// A class that was pushed before; held, so that no other one gets its address.
pub struct Known {
    route: Arc<str>,
    #[expect(dead_code, reason = "see above")]
    class: Py<PyType>,
}

impl<'a, 'py> Push<'a, 'py> {
    /// Of the arguments of a `push`: a route and perhaps a body, or a message.
    pub fn new(
        core: &Shared,
        first: &'a Bound<'py, PyAny>,
        body: Option<&'a Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        if let Ok(route) = first.cast::<PyString>() {
            let body = body.map_or(Ok(Body::Empty), Body::new)?;
            return Ok(Self { route: Route::Given(value::route(route)?), body });
        }
        if !typed::is_message(first)? {
            let class = first.get_type().qualname()?;
            return Err(PyTypeError::new_err(format!(
                "push({class}): push a message, or a route and a body: push(\"moved\", body)"
            )));
        }
        if body.is_some() {
            return Err(PyTypeError::new_err(
                "push(message, body): a message is the body; leave the second away",
            ));
        }
        Ok(Self { route: Route::Known(route_of(core, first)?), body: Body::Message(first) })
    }

    /// Where it goes.
    pub fn route(&self) -> &str {
        match &self.route {
            Route::Given(route) => route,
            Route::Known(route) => route,
        }
    }

    /// Calls `send` with the bytes for a client of this serializer.
    pub fn with_body<T>(
        &self,
        serializer: Serializer,
        send: impl FnOnce(&[u8]) -> PyResult<T>,
    ) -> PyResult<T> {
        with_buffer(|buffer| send(self.body.bytes(serializer, buffer)?))
    }

    /// Calls `send` with the server and with what goes to clients of either serializer; what nobody wants is not made.
    pub fn with_bodies<T>(
        &self,
        core: &Shared,
        send: impl FnOnce(&mut State, Bodies<'_>) -> T,
    ) -> PyResult<T> {
        let Body::Message(message) = &self.body else {
            return Ok(send(&mut *core.enter()?, self.body.as_bytes().into()));
        };
        let state = core.enter()?;
        let [is_protobuf, is_json] =
            [Serializer::Protobuf, Serializer::Json].map(|one| state.realm().speaks(one));
        drop(state);
        with_buffer(|protobuf| {
            with_buffer(|json| {
                if is_protobuf {
                    typed::write(message, Serializer::Protobuf, protobuf)?;
                }
                if is_json {
                    typed::write(message, Serializer::Json, json)?;
                }
                Ok(send(&mut *core.enter()?, Bodies::new(protobuf, json)))
            })
        })
    }
}

/// The route of a message's class. The app is told of each class once: it tells the clients what is pushed.
fn route_of(core: &Shared, message: &Bound<'_, PyAny>) -> PyResult<Arc<str>> {
    let class = message.get_type();
    let address = class.as_ptr() as usize;
    let state = core.enter()?;
    if let Some(known) = state.known.get(&address) {
        return Ok(known.route.clone());
    }
    let learn = state.hooks.learn.as_ref().map(|learn| learn.clone_ref(message.py()));
    drop(state);
    let route: String = match learn {
        Some(learn) => learn.bind(message.py()).call1((&class,))?.extract()?,
        None => class.name()?.to_string(),
    };
    let route: Arc<str> = route.into();
    core.enter()?.known.insert(address, Known { route: route.clone(), class: class.unbind() });
    Ok(route)
}
