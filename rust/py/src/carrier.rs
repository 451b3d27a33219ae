//! Tasks that lend themselves to async handlers.
//!
//! An async handler needs a task that is current while it runs, for `asyncio.timeout` and task groups; it needs one of
//! its own only when it waits. So a few real tasks wait, and one of them is made current for a handler's first step. Most
//! handlers end there. One that waits is handed over: the task drives the rest, and lends itself again afterwards.
//!
//! A [`Carrier`] is two things to its task: the coroutine that it runs, and the future that it waits on while it has
//! nothing to run. So a handover is one call of the task's wake-up, and costs no turn of the loop.

use std::sync::Arc;

use pyo3::exceptions::{PyKeyboardInterrupt, PyStopIteration, PySystemExit};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cell::{Entered, LogicCell};
use crate::error::CONFIG_ERROR;
use crate::scope::{self, Scope};
use crate::task::Done;

/// Carriers that are kept for the next handlers; more were needed by those that waited at the same time. Each is
/// about 2 kB.
const IDLE_MAX: usize = 1024;

/// The asyncio loop, and what a step in it needs.
pub struct Steps {
    event_loop: Py<PyAny>,
    enter_task: Py<PyAny>,
    leave_task: Py<PyAny>,
    cancelled_error: Py<PyAny>,
    as_coroutine: Py<PyAny>,
}

/// What a coroutine's step came to.
enum Step<'py> {
    Ended(PyResult<Bound<'py, PyAny>>),
    Yielded(Bound<'py, PyAny>),
}

/// What an async handler's first step came to.
pub enum First<'py> {
    /// It has ended.
    Ended(PyResult<Bound<'py, PyAny>>),
    /// It waits: to be handed over to the carrier that took the step.
    Waits(Waiting<'py>),
}

/// A handler that waits for something, and the carrier whose task took its first step.
pub struct Waiting<'py> {
    carrier: Py<Carrier>,
    coroutine: Bound<'py, PyAny>,
    yielded: Bound<'py, PyAny>,
}

/// A waiting task, its coroutine and its future in one.
#[pyclass(frozen, module = "gameserver._core")]
pub struct Carrier {
    steps: Arc<Steps>,
    context: Py<PyAny>,
    inner: LogicCell<Inner>,
}

#[derive(Default)]
struct Inner {
    task: Option<Py<PyAny>>,
    /// The task's wake-up, while it waits on us.
    wake: Option<Py<PyAny>>,
    /// asyncio's mark of a future that is being awaited.
    is_blocking: bool,
    is_lent: bool,
    /// The task was cancelled while it waited on us.
    is_cancelled: bool,
    job: Option<Job>,
}

/// A handler that waits.
struct Job {
    coroutine: Py<PyAny>,
    /// What its first step yielded, until the task has it.
    yielded: Option<Py<PyAny>>,
    done: Done,
}

impl Steps {
    /// For handlers that run in `event_loop`.
    pub fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let tasks = py.import("asyncio.tasks")?;
        Ok(Arc::new(Self {
            event_loop: event_loop.clone().unbind(),
            enter_task: tasks.getattr("_enter_task")?.unbind(),
            leave_task: tasks.getattr("_leave_task")?.unbind(),
            cancelled_error: py.import("asyncio")?.getattr("CancelledError")?.unbind(),
            as_coroutine: py.import("gameserver._loop")?.getattr("as_coroutine")?.unbind(),
        }))
    }

    /// Takes the first step of what an async handler returned: a coroutine, or something else that can be awaited.
    pub fn first<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        core: &Scope<'_, '_>,
        awaitable: Bound<'py, PyAny>,
    ) -> PyResult<First<'py>> {
        // SAFETY: any object may be asked for its type.
        let is_coroutine = unsafe { ffi::PyCoro_CheckExact(awaitable.as_ptr()) } == 1;
        let coroutine =
            if is_coroutine { awaitable } else { self.as_coroutine.bind(py).call1((awaitable,))? };
        let carrier = self.lend(py, core)?;
        let step = carrier.get().first_step(py, &coroutine)?;
        let was_cancelled = carrier.get().take_back()?;
        match step {
            Step::Yielded(yielded) => Ok(First::Waits(Waiting { carrier, coroutine, yielded })),
            Step::Ended(result) => {
                if !was_cancelled && carrier.get().is_clean(py, core) && has_room(core)? {
                    core.enter()?.carriers.push(carrier);
                } else {
                    carrier.get().retire(py)?;
                }
                Ok(First::Ended(result))
            }
        }
    }

    /// A carrier that nothing has touched.
    fn lend(self: &Arc<Self>, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<Py<Carrier>> {
        loop {
            let idle = core.enter()?.carriers.pop();
            let carrier = match idle {
                Some(carrier) => carrier,
                None => self.make(py, core)?,
            };
            let mut inner = carrier.get().enter()?;
            if !inner.is_cancelled {
                inner.is_lent = true;
                drop(inner);
                return Ok(carrier);
            }
        }
    }

    fn make(self: &Arc<Self>, py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<Py<Carrier>> {
        let context = core.fresh_context()?;
        let carrier = Bound::new(
            py,
            Carrier {
                steps: self.clone(),
                context: context.clone_ref(py),
                inner: LogicCell::new(Inner::default()),
            },
        )?;
        let task = self.event_loop.bind(py).call_method1(intern!(py, "begin"), (&carrier, context))?;
        carrier.get().enter()?.task = Some(task.unbind());
        Ok(carrier.unbind())
    }

    fn call_failed(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let context = PyDict::new(py);
        context.set_item("message", "what follows an async handler failed")?;
        context.set_item("exception", error.into_value(py))?;
        self.event_loop.bind(py).call_method1(intern!(py, "call_exception_handler"), (context,))?;
        Ok(())
    }
}

impl Waiting<'_> {
    /// Has the carrier's task drive the rest of the handler.
    pub fn hand_over(self, py: Python<'_>, core: &Scope<'_, '_>, done: Done) -> PyResult<()> {
        let carrier = self.carrier.get();
        let mut inner = carrier.enter()?;
        let yielded = Some(self.yielded.unbind());
        inner.job = Some(Job { coroutine: self.coroutine.unbind(), yielded, done });
        let wake = inner.wake.take();
        drop(inner);
        core.enter()?.tasks.insert(self.carrier.clone_ref(py));
        let Some(wake) = wake else { return Ok(()) };
        let context = carrier.context.bind(py);
        scope::enter(context)?;
        let woken = wake.call1(py, (&self.carrier,));
        scope::exit(context)?;
        woken.map(drop)
    }
}

#[pymethods]
impl Carrier {
    // -- a coroutine -------------------------------------------------------------------------------------------------

    /// What the task runs, as a coroutine says it.
    #[getter(__qualname__)]
    fn qualname(&self) -> PyResult<String> {
        let inner = self.enter()?;
        Ok(inner.job.as_ref().map_or("an idle task".to_owned(), |job| job.done.place().to_owned()))
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        slf.get().advance(slf, None)
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let _ = value; // a task sends nothing but None
        slf.get().advance(slf, None)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value = None, trace = None))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        error: Bound<'py, PyAny>,
        value: Option<Bound<'py, PyAny>>,
        trace: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = trace;
        let error = PyErr::from_value(value.unwrap_or(error));
        slf.get().advance(slf, Some(error))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = std::mem::take(&mut *self.enter()?);
        if let Some(job) = inner.job {
            job.coroutine.call_method0(py, intern!(py, "close"))?;
        }
        Ok(())
    }

    // -- a future ----------------------------------------------------------------------------------------------------

    #[getter(_asyncio_future_blocking)]
    fn is_blocking(&self) -> PyResult<bool> {
        Ok(self.enter()?.is_blocking)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, is_blocking: bool) -> PyResult<()> {
        self.enter()?.is_blocking = is_blocking;
        Ok(())
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.steps.event_loop.clone_ref(py)
    }

    #[pyo3(signature = (callback, *, context = None))]
    fn add_done_callback(&self, callback: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        let _ = context; // the task's own, which is ours
        self.enter()?.wake = Some(callback);
        Ok(())
    }

    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let _ = msg;
        let carrier = slf.get();
        let mut inner = carrier.enter()?;
        inner.is_cancelled = true;
        // While lent, what comes of it is said when the step is over.
        let wake = if inner.is_lent { None } else { inner.wake.take() };
        drop(inner);
        if let Some(wake) = wake {
            carrier.wake_soon(slf.py(), &wake, slf)?;
        }
        Ok(true)
    }

    fn result(&self, py: Python<'_>) -> PyResult<()> {
        if self.enter()?.is_cancelled {
            return Err(PyErr::from_value(self.steps.cancelled_error.bind(py).call0()?));
        }
        Ok(())
    }
}

impl Carrier {
    fn enter(&self) -> PyResult<Entered<'_, Inner>> {
        self.inner.enter()
    }

    /// Runs a coroutine's first step in the task's context, with the task as the current one.
    fn first_step<'py>(&self, py: Python<'py>, coroutine: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let context = self.context.bind(py);
        scope::enter(context)?;
        let step = self.enter_task(py).and_then(|()| {
            let step = send(coroutine);
            self.leave_task(py)?;
            Ok(step)
        });
        scope::exit(context)?;
        step
    }

    /// The first step is over. Whether the handler has cancelled its task in it.
    fn take_back(&self) -> PyResult<bool> {
        let mut inner = self.enter()?;
        inner.is_lent = false;
        Ok(inner.is_cancelled)
    }

    /// Ends the idle task.
    fn retire(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.enter()?;
        let task = inner.task.as_ref().map(|task| task.clone_ref(py));
        let (is_cancelled, wake) = (inner.is_cancelled, inner.wake.as_ref().map(|wake| wake.clone_ref(py)));
        drop(inner);
        match (task, wake) {
            (Some(task), Some(wake)) if is_cancelled => {
                self.enter()?.wake = None;
                let coroutine = task.call_method0(py, intern!(py, "get_coro"))?;
                self.wake_soon(py, &wake, coroutine.bind(py))
            }
            (Some(task), _) => task.call_method0(py, intern!(py, "cancel")).map(drop),
            _ => Ok(()),
        }
    }

    fn wake_soon(&self, py: Python<'_>, wake: &Py<PyAny>, carrier: &Bound<'_, PyAny>) -> PyResult<()> {
        let context = PyDict::new(py);
        context.set_item(intern!(py, "context"), &self.context)?;
        let event_loop = self.steps.event_loop.bind(py);
        event_loop.call_method(intern!(py, "call_soon"), (wake, carrier), Some(&context))?;
        Ok(())
    }

    /// A step of the task. `None` ends it.
    fn advance<'py>(
        &self,
        slf: &Bound<'py, Self>,
        thrown: Option<PyErr>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let Some(mut job) = self.enter()?.job.take() else {
            return match thrown {
                None => self.wait(slf),
                Some(error) => {
                    *self.enter()? = Inner::default();
                    Err(error)
                }
            };
        };
        let step = match (job.yielded.take(), thrown) {
            (Some(yielded), None) => Step::Yielded(yielded.into_bound(py)),
            // Cancelled in the first step: told as to a task that is cancelled while it runs.
            (Some(yielded), Some(error)) => {
                self.enter()?.is_cancelled = false;
                if yielded.is_none(py) {
                    throw(job.coroutine.bind(py), error)
                } else {
                    yielded.call_method0(py, intern!(py, "cancel"))?;
                    Step::Yielded(yielded.into_bound(py))
                }
            }
            (None, None) => send(job.coroutine.bind(py)),
            (None, Some(error)) => throw(job.coroutine.bind(py), error),
        };
        match step {
            Step::Yielded(yielded) => {
                self.enter()?.job = Some(job);
                Ok(Some(yielded))
            }
            Step::Ended(result) => self.end(slf, job.done, result),
        }
    }

    /// The handler has ended. What follows is no part of this task, so no task is current meanwhile.
    fn end<'py>(
        &self,
        slf: &Bound<'py, Self>,
        done: Done,
        result: PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let exits = result.as_ref().err().filter(|error| {
            error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
        });
        let exits = exits.map(|error| error.clone_ref(py));
        self.leave_task(py)?;
        let told = done.call(py, slf, result);
        self.enter_task(py)?;
        let (rests, outcome) = told.unwrap_or_else(|error| (false, Err(error)));
        if let Err(error) = outcome {
            self.steps.call_failed(py, error)?;
        }
        if let Some(error) = exits {
            *self.enter()? = Inner::default();
            return Err(error);
        }
        if rests {
            return self.wait(slf);
        }
        *self.enter()? = Inner::default();
        Ok(None)
    }

    /// Keeps it for the next turn's handlers; false if a handler has left its traces, or if there are enough.
    pub fn rest(slf: &Bound<'_, Self>, core: &Scope<'_, '_>) -> PyResult<bool> {
        let py = slf.py();
        let carrier = slf.get();
        let task = carrier.enter()?.task.as_ref().map(|task| task.clone_ref(py));
        let Some(task) = task else { return Ok(false) };
        let cancels: usize = task.call_method0(py, intern!(py, "cancelling"))?.extract(py)?;
        if cancels > 0 || !carrier.is_clean(py, core) || !has_room(core)? {
            return Ok(false);
        }
        core.enter()?.resting.push(slf.clone().unbind());
        Ok(true)
    }

    /// Waits for the next handler.
    fn wait<'py>(&self, slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.enter()?.is_blocking = true;
        Ok(Some(slf.clone().into_any()))
    }

    fn is_clean(&self, py: Python<'_>, core: &Scope<'_, '_>) -> bool {
        core.is_clean(self.context.bind(py))
    }

    fn enter_task(&self, py: Python<'_>) -> PyResult<()> {
        self.switch(py, &self.steps.enter_task)
    }

    fn leave_task(&self, py: Python<'_>) -> PyResult<()> {
        self.switch(py, &self.steps.leave_task)
    }

    fn switch(&self, py: Python<'_>, to: &Py<PyAny>) -> PyResult<()> {
        let task = self.enter()?.task.as_ref().map(|task| task.clone_ref(py));
        to.bind(py).call1((&self.steps.event_loop, task))?;
        Ok(())
    }
}

fn has_room(core: &Scope<'_, '_>) -> PyResult<bool> {
    let state = core.enter()?;
    Ok(state.carriers.len() + state.resting.len() < IDLE_MAX)
}

fn send<'py>(coroutine: &Bound<'py, PyAny>) -> Step<'py> {
    let mut value = std::ptr::null_mut();
    // SAFETY: a coroutine can be sent to; `value` gets a new reference, or null with an exception.
    let sent = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), ffi::Py_None(), &mut value) };
    // SAFETY: as said; the exception is fetched before anything else runs.
    let value = unsafe { Bound::from_owned_ptr_or_err(coroutine.py(), value) };
    match (sent, value) {
        (ffi::PySendResult::PYGEN_NEXT, Ok(yielded)) => Step::Yielded(yielded),
        (_, result) => Step::Ended(result),
    }
}

fn throw<'py>(coroutine: &Bound<'py, PyAny>, error: PyErr) -> Step<'py> {
    let py = coroutine.py();
    match coroutine.call_method1(intern!(py, "throw"), (error.into_value(py),)) {
        Ok(yielded) => Step::Yielded(yielded),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Step::Ended(error.value(py).getattr(intern!(py, "value")))
        }
        Err(error) => Step::Ended(Err(error)),
    }
}

/// The loop's steps, if it has been made.
pub fn steps(steps: Option<&Arc<Steps>>, py: Python<'_>) -> PyResult<Arc<Steps>> {
    steps.cloned().ok_or_else(|| CONFIG_ERROR.err(py, "no event loop: run the app by App.run"))
}
