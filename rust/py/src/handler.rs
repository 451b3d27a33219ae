//! The table of handlers: resolved once, called by number.

use std::sync::Arc;

use engine::event::RouteId;
use engine::realm::RoomNumber;
use engine::route::RouteTable;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use wire::handshake::Serializer;
use wire::json_text::repair_surrogates;

use crate::batch::{Batch, Batches};
use crate::call::call2;
use crate::error::CONFIG_ERROR;
use crate::message::is_ours_alone;
use crate::session::Session;
use crate::typed::{Answer, Typed};
use crate::world::entity::EntityBase;

/// One function of the game, and how its arguments are filled.
pub struct Handler {
    call: Py<PyAny>,
    shape: Shape,
    /// The class of the sender's entity that it takes.
    pub entity: Option<Py<PyType>>,
    takes: Takes,
    /// What it answers, where its annotation names messages.
    pub answer: Option<Arc<Answer>>,
    /// `file:line: name`, for logs.
    pub place: Arc<str>,
    /// Whether it returns a coroutine.
    pub is_async: bool,
    /// Whether others of the same session may run while it waits.
    pub concurrent: bool,
    /// Whether no room handles its route, too.
    is_alone: bool,
}

/// What becomes of messages to a route.
pub enum Way<'a> {
    /// A plain function is called for each; that is all.
    Called(&'a Handler),
    /// They are rows of the batch with this index.
    Batched(usize),
    /// It has to be looked at closely: rooms, entities, coroutines, nobody.
    Other,
}

/// What a handler was given last. If nobody has kept it, it becomes what the handler is given next.
#[derive(Default)]
pub struct Given<'py>(Option<Bound<'py, PyAny>>);

impl<'py> Given<'py> {
    #[inline(always)] // once per message
    fn bytes(&mut self, py: Python<'py>, body: &[u8]) -> &Bound<'py, PyAny> {
        let is_free = |last: &Bound<'_, PyAny>| {
            // Empty bytes and those of one byte are the interpreter's own.
            let fits = |bytes: &Bound<'_, PyBytes>| body.len() > 1 && bytes.as_bytes().len() == body.len();
            is_ours_alone(last) && last.cast_exact::<PyBytes>().is_ok_and(fits)
        };
        let Some(last) = self.0.take().filter(is_free) else {
            return self.0.insert(PyBytes::new(py, body).into_any());
        };
        #[expect(deprecated, reason = "there is no other way to forget a hash")]
        // SAFETY: the only reference to these bytes is ours and the interpreter is held, so they are as unseen as new
        // ones; they are as long as the body. Their hash, if it was asked for, was another one's.
        unsafe {
            let object = last.as_ptr().cast::<ffi::PyBytesObject>();
            (*object).ob_shash = -1;
            (&raw mut (*object).ob_sval).cast::<u8>().copy_from_nonoverlapping(body.as_ptr(), body.len());
        }
        self.0.insert(last)
    }

    #[inline(always)] // once per message
    fn message(&mut self, py: Python<'py>, typed: &Typed, body: &[u8]) -> PyResult<&Bound<'py, PyAny>> {
        let last = self.0.take();
        Ok(self.0.insert(typed.read_again(py, body, last)?))
    }
}

/// What becomes of a body.
enum Takes {
    /// Bytes as they came.
    Bytes,
    /// What this makes of JSON.
    Json(Py<PyAny>),
    /// A message.
    Message(Typed),
    /// Nothing at once: a message becomes a row of the batch with this index.
    Batch(usize),
}

/// The order of a handler's arguments; `Item` is the body, the reason, or the step.
#[derive(Clone, Copy)]
enum Shape {
    Nothing,
    Session,
    Item,
    SessionItem,
    ItemSession,
    /// With the sender's entity: the letters, in their order; 0 behind the last.
    WithEntity([u8; 3]),
}

/// All handlers, by what they answer to. Swapped as a whole: calls under way keep the one that they began with.
#[derive(Default)]
pub struct Table {
    routes: Vec<Option<Handler>>,
    /// The handlers of each lifecycle event, in the order of registration.
    pub join: Vec<Handler>,
    /// See [`Table::join`].
    pub drop: Vec<Handler>,
    /// See [`Table::join`].
    pub resume: Vec<Handler>,
    /// See [`Table::join`].
    pub leave: Vec<Handler>,
    /// See [`Table::join`].
    pub congested: Vec<Handler>,
    /// See [`Table::join`].
    pub relieved: Vec<Handler>,
    /// The tick handlers.
    pub tick: Vec<Handler>,
    /// The routes of batch handlers, in the order of their batches.
    pub batches: Vec<RouteId>,
    /// Who a client is.
    pub authenticate: Option<Handler>,
    /// The classes of rooms, by their numbers.
    pub rooms: Vec<RoomClass>,
    /// Which routes some class of rooms handles.
    in_rooms: Vec<bool>,
}

/// What a class of rooms handles.
#[derive(Default)]
pub struct RoomClass {
    routes: Vec<Option<Handler>>,
    /// Called at each tick of a room.
    pub tick: Option<Handler>,
}

impl RoomClass {
    /// The handler of a route in such a room.
    #[inline]
    pub fn route(&self, route: RouteId) -> Option<&Handler> {
        self.routes.get(route.0 as usize)?.as_ref()
    }
}

impl Table {
    /// Reads `gameserver._signature.Handler` objects, and adds their routes to `names`.
    pub fn new(
        py: Python<'_>,
        handlers: &[Bound<'_, PyAny>],
        rooms: &[Vec<Bound<'_, PyAny>>],
        names: &mut RouteTable,
    ) -> PyResult<(Arc<Self>, Batches)> {
        let mut table = Self::default();
        let mut batches = Vec::new();
        for source in handlers {
            let kind: String = source.getattr("kind")?.extract()?;
            let handler = Handler::new(source, &mut batches)?;
            match kind.as_str() {
                "route" => {
                    let route: String = source.getattr("route")?.extract()?;
                    let RouteId(number) = names.intern(&route);
                    let place = number as usize;
                    if table.routes.len() <= place {
                        table.routes.resize_with(place + 1, || None);
                    }
                    if let Takes::Batch(_) = handler.takes {
                        table.batches.push(RouteId(number));
                    }
                    table.routes[place] = Some(handler);
                }
                "join" => table.join.push(handler),
                "drop" => table.drop.push(handler),
                "resume" => table.resume.push(handler),
                "congested" => table.congested.push(handler),
                "relieved" => table.relieved.push(handler),
                "leave" => table.leave.push(handler),
                "tick" => table.tick.push(handler),
                "authenticate" => table.authenticate = Some(handler),
                "every" | "start" | "stop" | "drain" => {} // called from Python
                other => return Err(CONFIG_ERROR.err(py, format!("{}: unknown kind {other}", handler.place))),
            }
        }
        for handlers in rooms {
            let mut class = RoomClass::default();
            for source in handlers {
                let kind: String = source.getattr("kind")?.extract()?;
                let handler = Handler::new(source, &mut batches)?;
                if kind == "tick" {
                    class.tick = Some(handler);
                    continue;
                }
                let RouteId(number) = names.intern(&source.getattr("route")?.extract::<String>()?);
                let place = number as usize;
                if class.routes.len() <= place {
                    class.routes.resize_with(place + 1, || None);
                }
                class.routes[place] = Some(handler);
                if table.in_rooms.len() <= place {
                    table.in_rooms.resize(place + 1, false);
                }
                table.in_rooms[place] = true;
            }
            table.rooms.push(class);
        }
        for (route, handler) in table.routes.iter_mut().enumerate() {
            if let Some(handler) = handler {
                handler.is_alone = table.in_rooms.get(route).is_none_or(|&is_in_rooms| !is_in_rooms);
            }
        }
        let waiting = table.batches.iter().copied();
        names.set_waiting(waiting.filter(|&route| matches!(table.way(route, 0), Way::Batched(_))).collect());
        Ok((Arc::new(table), batches))
    }

    /// Whether any class of rooms handles this route.
    #[inline]
    pub fn is_in_rooms(&self, route: RouteId) -> bool {
        self.in_rooms.get(route.0 as usize).is_some_and(|&is_in_rooms| is_in_rooms)
    }

    /// The handler of a route; none when a swapped table has it no longer.
    #[inline]
    pub fn route(&self, route: RouteId) -> Option<&Handler> {
        self.routes.get(route.0 as usize)?.as_ref()
    }

    /// What becomes of messages to a route, in the room of this number.
    #[inline]
    pub fn way(&self, route: RouteId, room: RoomNumber) -> Way<'_> {
        match self.route(route) {
            Some(handler) if room == 0 && handler.is_alone => match handler.takes {
                Takes::Batch(index) => Way::Batched(index),
                _ if handler.is_async || handler.entity.is_some() => Way::Other,
                _ => Way::Called(handler),
            },
            _ => Way::Other,
        }
    }
}

impl Handler {
    /// The index of the batch of which its messages are rows.
    #[inline]
    pub fn batch(&self) -> Option<usize> {
        if let Takes::Batch(index) = self.takes { Some(index) } else { None }
    }

    fn new(source: &Bound<'_, PyAny>, batches: &mut Batches) -> PyResult<Self> {
        let py = source.py();
        let letters: String = source.getattr("arguments")?.extract()?;
        let place: String = source.getattr("where")?.extract()?;
        let shape = match letters.as_bytes() {
            [] => Shape::Nothing,
            [b's'] => Shape::Session,
            &[first, ref rest @ ..] if letters.contains('e') && rest.len() < 3 => Shape::WithEntity([
                first,
                rest.first().copied().unwrap_or(0),
                rest.get(1).copied().unwrap_or(0),
            ]),
            [_] => Shape::Item,
            [b's', _] => Shape::SessionItem,
            [_, b's'] => Shape::ItemSession,
            _ => return Err(CONFIG_ERROR.err(py, format!("{place}: arguments {letters:?}"))),
        };
        let (decode, message) = (source.getattr("decode")?, source.getattr("message")?);
        let takes = if letters == "n" {
            let keeps_last = source.getattr("keep")?.extract::<String>()? == "last";
            let made = Batch::new(message.cast::<PyType>()?, keeps_last);
            let batch =
                made.map_err(|error| CONFIG_ERROR.err(py, format!("{place}: {}", error.value(py))))?;
            batches.push(Some(Box::new(batch)));
            Takes::Batch(batches.len() - 1)
        } else if !message.is_none() {
            Takes::Message(Typed::new(message.cast::<PyType>()?)?)
        } else if !decode.is_none() {
            Takes::Json(decode.unbind())
        } else {
            Takes::Bytes
        };
        let answer = source.getattr("answer")?;
        let answer = if answer.is_none() { None } else { Some(Arc::new(Answer::new(&answer)?)) };
        Ok(Self {
            call: source.getattr("call")?.unbind(),
            shape,
            entity: source.getattr("entity_class")?.extract()?,
            takes,
            answer,
            place: place.into(),
            is_async: source.getattr("is_async")?.extract()?,
            concurrent: source.getattr("concurrent")?.extract()?,
            is_alone: false, // until all of the table is known
        })
    }

    /// As [`Handler::call_message`], of a handler that is plain.
    #[inline(always)] // once per message
    pub fn call_plain<'py>(
        &self,
        py: Python<'py>,
        session: &Py<Session>,
        serializer: Serializer,
        body: &[u8],
        given: &mut Given<'py>,
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let takes_item = matches!(self.shape, Shape::Item | Shape::SessionItem | Shape::ItemSession);
        let made;
        let item = match &self.takes {
            Takes::Bytes if takes_item => Some(given.bytes(py, body)),
            Takes::Message(typed) if takes_item && typed.is_own_in(serializer) => {
                Some(given.message(py, typed, body).map_err(Failure::Body)?)
            }
            _ => {
                made = self.item(py, serializer, body)?;
                made.as_ref()
            }
        };
        Ok(self.call_with(py, session, item)?)
    }

    /// What it has returned, if that is an answer as it stands.
    #[inline(always)] // once per message
    pub fn bytes_of<'a>(&self, result: &'a Bound<'_, PyAny>) -> Option<&'a [u8]> {
        if self.answer.is_some() {
            return None;
        }
        // Of a class of the game's own they may run code when they go, which nobody may who has entered the core.
        result.cast_exact::<PyBytes>().ok().map(|bytes| bytes.as_bytes())
    }

    /// Calls it for a message, with the sender's entity if it takes one. The error of a body that does not decode is
    /// [`Failure::Body`].
    pub fn call_message<'py>(
        &self,
        py: Python<'py>,
        session: &Py<Session>,
        entity: Option<&Py<EntityBase>>,
        serializer: Serializer,
        body: &[u8],
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let item = self.item(py, serializer, body)?;
        match self.shape {
            Shape::WithEntity(letters) => {
                let session = session.bind(py).as_any();
                Ok(self.call_with_entity(py, letters, None, session, entity, item)?)
            }
            _ => Ok(self.call_with(py, session, item.as_ref())?),
        }
    }

    /// What a body becomes, if the handler takes it.
    #[inline(always)] // once per message
    fn item<'py>(
        &self,
        py: Python<'py>,
        serializer: Serializer,
        body: &[u8],
    ) -> Result<Option<Bound<'py, PyAny>>, Failure> {
        let item = match (&self.takes, self.shape) {
            (_, Shape::Nothing | Shape::Session) => return Ok(None),
            (_, Shape::WithEntity(letters)) if letters.iter().all(|letter| b"\0es".contains(letter)) => {
                return Ok(None);
            }
            (Takes::Bytes, _) => PyBytes::new(py, body).into_any(),
            (Takes::Message(typed), _) => typed.read(py, serializer, body).map_err(Failure::Body)?,
            (Takes::Json(decode), _) => {
                decode.bind(py).call1((PyBytes::new(py, &repair_surrogates(body)),)).map_err(Failure::Body)?
            }
            (Takes::Batch(_), _) => return Ok(None), // goes another way
        };
        Ok(Some(item))
    }

    /// Calls it for a message to a room, with the room and the sender's seat in it.
    pub fn call_in_room<'py>(
        &self,
        py: Python<'py>,
        (room, seat): (&Py<PyAny>, &Py<PyAny>),
        entity: Option<&Py<EntityBase>>,
        serializer: Serializer,
        body: &[u8],
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let call = self.call.bind(py);
        let called = match (self.shape, self.item(py, serializer, body)?) {
            (Shape::SessionItem, Some(item)) => call.call1((room, seat, item)),
            (Shape::ItemSession, Some(item)) => call.call1((room, item, seat)),
            (Shape::Item, Some(item)) => call.call1((room, item)),
            (Shape::Nothing, _) => call.call1((room,)),
            (Shape::WithEntity(letters), item) => {
                self.call_with_entity(py, letters, Some(room), seat.bind(py), entity, item)
            }
            (_, _) => call.call1((room, seat)),
        };
        Ok(called?)
    }

    /// The sender's entity is one of its arguments; the first one is a method's room.
    fn call_with_entity<'py>(
        &self,
        py: Python<'py>,
        letters: [u8; 3],
        room: Option<&Py<PyAny>>,
        sender: &Bound<'py, PyAny>,
        entity: Option<&Py<EntityBase>>,
        item: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let argument = |letter: u8| match letter {
            b's' => sender.clone(),
            b'e' => {
                entity.map_or_else(|| py.None().into_bound(py), |entity| entity.bind(py).as_any().clone())
            }
            _ => item.clone().unwrap_or_else(|| py.None().into_bound(py)),
        };
        let call = self.call.bind(py);
        match (letters, room) {
            ([one, 0, _], None) => call.call1((argument(one),)),
            ([one, two, 0], None) => call.call1((argument(one), argument(two))),
            ([one, two, three], None) => call.call1((argument(one), argument(two), argument(three))),
            ([one, 0, _], Some(room)) => call.call1((room, argument(one))),
            ([one, two, 0], Some(room)) => call.call1((room, argument(one), argument(two))),
            ([one, two, three], Some(room)) => {
                call.call1((room, argument(one), argument(two), argument(three)))
            }
        }
    }

    /// Calls it with a session and one more argument, as far as it takes them.
    #[inline(always)] // once per message
    pub fn call_with<'py>(
        &self,
        py: Python<'py>,
        session: &Py<Session>,
        item: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = self.call.bind(py);
        match (self.shape, item) {
            (Shape::SessionItem, Some(item)) => call2(call, session.bind(py).as_any(), item),
            (Shape::ItemSession, Some(item)) => call2(call, item, session.bind(py).as_any()),
            (Shape::Item, Some(item)) => call.call1((item,)),
            (Shape::Nothing, _) => call.call0(),
            (_, _) => call.call1((session,)),
        }
    }

    /// Calls it for a tick of a room.
    pub fn call_tick_of<'py>(
        &self,
        py: Python<'py>,
        room: &Py<PyAny>,
        dt: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.shape {
            Shape::Nothing => self.call.bind(py).call1((room,)),
            _ => self.call.bind(py).call1((room, dt)),
        }
    }

    /// Calls it without a session: a tick.
    pub fn call_alone<'py>(&self, py: Python<'py>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.shape {
            Shape::Nothing => self.call.bind(py).call0(),
            _ => self.call.bind(py).call1((item,)),
        }
    }
}

/// Why a message was not handled.
pub enum Failure {
    /// The body is not what the handler takes: the client's fault.
    Body(PyErr),
    /// The handler raised.
    Raised(PyErr),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}
