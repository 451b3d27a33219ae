//! Tasks that lend themselves to async handlers: the core's half of `gameserver._carrier`.

use std::sync::Arc;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::error::CONFIG_ERROR;
use crate::scope::{self, Scope};

/// Carriers that are kept for the next handlers; more were needed by those that waited at the same time. Each is about 2 kB.
const IDLE_MAX: usize = 1024;

/// The asyncio loop, and what a step in it needs.
pub struct Steps {
    event_loop: Py<PyAny>,
    enter_task: Py<PyAny>,
    leave_task: Py<PyAny>,
    carrier: Py<PyAny>,
    as_coroutine: Py<PyAny>,
}

/// A waiting task.
pub struct Carrier {
    object: Py<PyAny>,
    task: Py<PyAny>,
    context: Py<PyAny>,
}

/// What a handler's first step came to.
pub enum Step<'py> {
    /// It has ended.
    Ended(PyResult<Bound<'py, PyAny>>),
    /// It waits for something, as this carrier.
    Waits(Bound<'py, PyAny>, Carrier),
}

impl Steps {
    /// For handlers that run in `event_loop`.
    pub fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let tasks = py.import("asyncio.tasks")?;
        let carrier = py.import("gameserver._carrier")?;
        Ok(Arc::new(Self {
            event_loop: event_loop.clone().unbind(),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            carrier: carrier.getattr("Carrier")?.unbind(),
            as_coroutine: carrier.getattr("as_coroutine")?.unbind(),
        }))
    }

    /// Takes the first step of what an async handler returned: a coroutine, or something else that can be awaited.
    pub fn first<'py>(
        &self,
        py: Python<'py>,
        core: &Scope<'_, '_>,
        awaitable: &Bound<'py, PyAny>,
    ) -> PyResult<(Step<'py>, Bound<'py, PyAny>)> {
        // SAFETY: any object may be asked for its type.
        let is_coroutine = unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } == 1;
        let coroutine =
            if is_coroutine { awaitable.clone() } else { self.as_coroutine.bind(py).call1((awaitable,))? };
        let carrier = match core.enter()?.carriers.pop() {
            Some(carrier) => carrier,
            None => self.make(py, core)?,
        };
        let stepped = carrier.step(py, self, &coroutine)?;
        let step = match stepped {
            Stepped::Ended(result) => {
                carrier.give_back(py, core)?;
                Step::Ended(result)
            }
            Stepped::Yielded(yielded) => Step::Waits(yielded, carrier),
        };
        Ok((step, coroutine))
    }

    fn make(&self, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<Carrier> {
        let context = core.fresh_context()?;
        let object = self.carrier.bind(py).call1((&self.event_loop, &context))?;
        let task = object.getattr(intern!(py, "task"))?.unbind();
        Ok(Carrier { object: object.unbind(), task, context })
    }
}

enum Stepped<'py> {
    Ended(PyResult<Bound<'py, PyAny>>),
    Yielded(Bound<'py, PyAny>),
}

impl Carrier {
    /// Has its task drive the rest of a handler; `done(value, error)` is called at its end.
    pub fn hand_over(
        &self,
        py: Python<'_>,
        coroutine: Bound<'_, PyAny>,
        yielded: Bound<'_, PyAny>,
        done: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.object.bind(py).call_method1(intern!(py, "hand_over"), (coroutine, yielded, done))?;
        Ok(())
    }

    /// Keeps it for the next handler.
    fn give_back(self, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
        if self.is_reusable(py, core)? {
            core.enter()?.carriers.push(self);
        }
        Ok(())
    }

    /// As [`Carrier::give_back`], from within its own task's step: it can be lent from the next turn on.
    pub fn rest(self, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
        if self.is_reusable(py, core)? {
            core.enter()?.resting.push(self);
        }
        Ok(())
    }

    /// Ends it if there are enough, or if a handler has left its traces: a context variable, or a cancellation.
    fn is_reusable(&self, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<bool> {
        let task = self.task.bind(py);
        let cancels: usize = task.call_method0(intern!(py, "cancelling"))?.extract()?;
        if cancels == 0 && core.is_clean(self.context.bind(py)) {
            let state = core.enter()?;
            if state.carriers.len() + state.resting.len() < IDLE_MAX {
                return Ok(true);
            }
        }
        self.object.bind(py).call_method0(intern!(py, "retire"))?;
        Ok(false)
    }

    /// Runs a coroutine's first step in this task's context, with this task as the current one.
    fn step<'py>(
        &self,
        py: Python<'py>,
        steps: &Steps,
        coroutine: &Bound<'py, PyAny>,
    ) -> PyResult<Stepped<'py>> {
        let context = self.context.bind(py);
        let task = (&steps.event_loop, &self.task);
        scope::enter(context)?;
        if let Err(error) = steps.enter_task.bind(py).call1(task) {
            scope::exit(context)?;
            return Err(error);
        }
        let mut value = std::ptr::null_mut();
        // SAFETY: a coroutine is an iterator that can be sent to; `value` gets a new reference, or null with an exception.
        let sent = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &mut value) };
        // SAFETY: as said; the exception is fetched before anything else runs.
        let value = unsafe { Bound::from_owned_ptr_or_err(py, value) };
        steps.leave_task.bind(py).call1(task)?;
        scope::exit(context)?;
        Ok(match (sent, value) {
            (ffi::PySendResult::PYGEN_NEXT, Ok(yielded)) => Stepped::Yielded(yielded),
            (_, result) => Stepped::Ended(result),
        })
    }
}

/// The loop's steps, if it has been made.
pub fn steps(steps: Option<&Arc<Steps>>, py: Python<'_>) -> PyResult<Arc<Steps>> {
    steps.cloned().ok_or_else(|| CONFIG_ERROR.err(py, "no event loop: run the app by App.run"))
}
