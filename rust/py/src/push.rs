//! Pushes: a route and a body, or a message, whose class says the route. Encoded once for all who share a serializer.

use std::sync::Arc;

use engine::event::{self, Class, Priority};
use engine::realm::{Bodies, RoomNumber};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
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
    delivery: Delivery,
    /// Of `Latest`: its route's number.
    number: u16,
}

/// What may happen to a push; Python's `Delivery`.
#[derive(Clone, Copy)]
struct Delivery {
    class: Class,
    priority: Priority,
    own_key: u16,
}

impl Delivery {
    const RELIABLE: Self = Self { class: Class::Reliable, priority: Priority::Normal, own_key: 0 };

    /// Of Python's, and the field that has the key.
    fn read<'py>(given: &Bound<'py, PyAny>) -> PyResult<(Self, Option<Bound<'py, PyString>>)> {
        let py = given.py();
        let Ok(bits) = given.getattr(intern!(py, "_bits")) else {
            let text = format!("delivery={}: RELIABLE, LATEST or DROPPABLE", given.repr()?);
            return Err(PyTypeError::new_err(text));
        };
        let bits: u32 = bits.extract()?;
        let class = [Class::Reliable, Class::Latest, Class::Droppable][(bits >> 18 & 3).min(2) as usize];
        let priority = [Priority::Low, Priority::Normal, Priority::High][(bits >> 16 & 3).min(2) as usize];
        let field = given.getattr(intern!(py, "field"))?.extract()?;
        Ok((Self { class, priority, own_key: bits as u16 }, field))
    }
}

enum Route<'a> {
    Given(&'a str),
    Known(Arc<str>),
}

/// A class that was pushed before; held, so that no other one gets its address.
pub struct Known {
    route: Arc<str>,
    delivery: Delivery,
    /// The field that has its key.
    field: Option<Py<PyString>>,
    #[expect(dead_code, reason = "see above")]
    class: Py<PyType>,
}

impl<'a, 'py> Push<'a, 'py> {
    /// Of the arguments of a `push`: a route and perhaps a body, or a message.
    pub fn new(
        core: &Shared,
        first: &'a Bound<'py, PyAny>,
        body: Option<&'a Bound<'py, PyAny>>,
        delivery: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let given = delivery.map(Delivery::read).transpose()?;
        if let Ok(route) = first.cast::<PyString>() {
            let body = body.map_or(Ok(Body::Empty), Body::new)?;
            let delivery = given.map_or(Delivery::RELIABLE, |(delivery, _)| delivery);
            return Self { route: Route::Given(value::route(route)?), body, delivery, number: 0 }
                .numbered(core);
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
        let (route, delivery, field) = route_of(core, first)?;
        let (mut delivery, field) = match given {
            Some((delivery, field)) => (delivery, field),
            None => (delivery, field),
        };
        if let Some(field) = field {
            let value = first.getattr(&field)?;
            delivery.own_key = value.extract().map_err(|_| {
                PyValueError::new_err(format!(
                    "{route}.{field} is a key of LATEST: a number from 0 to 65535, not {value}"
                ))
            })?;
        }
        Self { route: Route::Known(route), body: Body::Message(first), delivery, number: 0 }.numbered(core)
    }

    /// What may happen to it.
    pub fn class(&self) -> Class {
        self.delivery.class
    }

    /// Its key in the queues, if it goes to a room (0: to none).
    pub fn key(&self, room: RoomNumber) -> u64 {
        event::key(self.delivery.priority, room, self.number, self.delivery.own_key)
    }

    fn numbered(mut self, core: &Shared) -> PyResult<Self> {
        if self.delivery.class != Class::Latest {
            return Ok(self);
        }
        let mut state = core.enter()?;
        let routes = &mut state.latest_routes;
        self.number = match routes.get(self.route()) {
            Some(&number) => number,
            None => {
                let number = routes.len() as u16;
                if routes.len() >= 1 << event::ROUTE_BITS {
                    let text = "LATEST was pushed to 16384 routes: give one route, and keys: LATEST.keyed(7)";
                    return Err(PyValueError::new_err(text));
                }
                routes.insert(self.route().into(), number);
                number
            }
        };
        drop(state);
        Ok(self)
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
fn route_of<'py>(
    core: &Shared,
    message: &Bound<'py, PyAny>,
) -> PyResult<(Arc<str>, Delivery, Option<Bound<'py, PyString>>)> {
    let (py, class) = (message.py(), message.get_type());
    let address = class.as_ptr() as usize;
    let state = core.enter()?;
    if let Some(known) = state.known.get(&address) {
        let field = known.field.as_ref().map(|field| field.bind(py).clone());
        return Ok((known.route.clone(), known.delivery, field));
    }
    let learn = state.hooks.learn.as_ref().map(|learn| learn.clone_ref(message.py()));
    drop(state);
    let route: String = match learn {
        Some(learn) => learn.bind(message.py()).call1((&class,))?.extract()?,
        None => class.name()?.to_string(),
    };
    let route: Arc<str> = route.into();
    let (delivery, field) = match class.getattr(intern!(py, "__delivery__")) {
        Ok(given) => Delivery::read(&given)?,
        Err(_) => (Delivery::RELIABLE, None), // a class that protoc has generated
    };
    let known = Known {
        route: route.clone(),
        delivery,
        field: field.clone().map(Bound::unbind),
        class: class.unbind(),
    };
    core.enter()?.known.insert(address, known);
    Ok((route, delivery, field))
}
