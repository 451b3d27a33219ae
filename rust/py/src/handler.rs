//! The table of handlers: resolved once, called by number.

use std::sync::Arc;

use engine::event::RouteId;
use engine::route::RouteTable;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use wire::json_text::repair_surrogates;

use crate::error::CONFIG_ERROR;
use crate::session::Session;

/// One function of the game, and how its arguments are filled.
pub struct Handler {
    call: Py<PyAny>,
    shape: Shape,
    decode: Option<Py<PyAny>>,
    /// `file:line: name`, for logs.
    pub place: Arc<str>,
    /// Whether it returns a coroutine.
    pub is_async: bool,
    /// Whether others of the same session may run while it waits.
    pub concurrent: bool,
}

/// The order of a handler's arguments; `Item` is the body, the reason, or the step.
#[derive(Clone, Copy)]
enum Shape {
    Nothing,
    Session,
    Item,
    SessionItem,
    ItemSession,
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
    /// The tick handlers.
    pub tick: Vec<Handler>,
    /// Who a client is.
    pub authenticate: Option<Handler>,
}

impl Table {
    /// Reads `gameserver._handlers.Handler` objects, and adds their routes to `names`.
    pub fn new(py: Python<'_>, handlers: &[Bound<'_, PyAny>], names: &mut RouteTable) -> PyResult<Arc<Self>> {
        let mut table = Self::default();
        for source in handlers {
            let kind: String = source.getattr("kind")?.extract()?;
            let handler = Handler::new(source)?;
            match kind.as_str() {
                "route" => {
                    let route: String = source.getattr("route")?.extract()?;
                    let RouteId(number) = names.intern(&route);
                    let place = number as usize;
                    if table.routes.len() <= place {
                        table.routes.resize_with(place + 1, || None);
                    }
                    table.routes[place] = Some(handler);
                }
                "join" => table.join.push(handler),
                "drop" => table.drop.push(handler),
                "resume" => table.resume.push(handler),
                "leave" => table.leave.push(handler),
                "tick" => table.tick.push(handler),
                "authenticate" => table.authenticate = Some(handler),
                "every" | "start" | "stop" => {} // called from Python
                other => return Err(CONFIG_ERROR.err(py, format!("{}: unknown kind {other}", handler.place))),
            }
        }
        Ok(Arc::new(table))
    }

    /// The handler of a route; none when a swapped table has it no longer.
    #[inline]
    pub fn route(&self, route: RouteId) -> Option<&Handler> {
        self.routes.get(route.0 as usize)?.as_ref()
    }
}

impl Handler {
    fn new(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = source.py();
        let letters: String = source.getattr("arguments")?.extract()?;
        let place: String = source.getattr("where")?.extract()?;
        let shape = match letters.as_bytes() {
            [] => Shape::Nothing,
            [b's'] => Shape::Session,
            [_] => Shape::Item,
            [b's', _] => Shape::SessionItem,
            [_, b's'] => Shape::ItemSession,
            _ => return Err(CONFIG_ERROR.err(py, format!("{place}: arguments {letters:?}"))),
        };
        let decode = source.getattr("decode")?;
        Ok(Self {
            call: source.getattr("call")?.unbind(),
            shape,
            decode: (!decode.is_none()).then(|| decode.unbind()),
            place: place.into(),
            is_async: source.getattr("is_async")?.extract()?,
            concurrent: source.getattr("concurrent")?.extract()?,
        })
    }

    /// Calls it for a message. The error of a body that does not decode is `Err(Call::Body)`.
    #[inline(always)] // once per message
    pub fn call_message<'py>(
        &self,
        py: Python<'py>,
        session: &Py<Session>,
        body: &[u8],
    ) -> Result<Bound<'py, PyAny>, Failure> {
        let item = match (&self.decode, self.shape) {
            (_, Shape::Nothing | Shape::Session) => return Ok(self.call_with(py, session, None)?),
            (None, _) => PyBytes::new(py, body).into_any(),
            (Some(decode), _) => {
                decode.bind(py).call1((PyBytes::new(py, &repair_surrogates(body)),)).map_err(Failure::Body)?
            }
        };
        Ok(self.call_with(py, session, Some(item))?)
    }

    /// Calls it with a session and one more argument, as far as it takes them.
    #[inline(always)] // once per message
    pub fn call_with<'py>(
        &self,
        py: Python<'py>,
        session: &Py<Session>,
        item: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = self.call.bind(py);
        match (self.shape, item) {
            (Shape::SessionItem, Some(item)) => call.call1((session, item)),
            (Shape::ItemSession, Some(item)) => call.call1((item, session)),
            (Shape::Item, Some(item)) => call.call1((item,)),
            (Shape::Nothing, _) => call.call0(),
            (_, _) => call.call1((session,)),
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
