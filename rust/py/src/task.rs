//! Async handlers: their first step runs at once, in a task that is lent to it; one that waits keeps the task.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::app::Shared;
use crate::carrier::{self, Step};
use crate::dispatch::{self, Asker};
use crate::handler::Handler;
use crate::scope::Scope;
use engine::session::SessionKey;

/// What follows when an async handler has finished.
#[derive(Clone, Copy)]
pub enum After {
    /// Nothing: a lifecycle handler.
    Nothing,
    /// Nothing, but the server waits for it before it ends: an `on_leave` may be saving something.
    Left,
    /// The answer; `counted` if the session's other messages wait for it.
    Message { asker: Asker, counted: bool },
    /// Messages may run.
    Joined { key: SessionKey },
    /// The handshake is answered.
    Authenticated { key: SessionKey },
}

/// Takes the first step of an async handler; answers at once if it was the last.
pub fn start(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    handler: &Handler,
    awaitable: Bound<'_, PyAny>,
    after: After,
) -> PyResult<()> {
    let steps = carrier::steps(core.enter()?.hooks.steps.as_ref(), py)?;
    let (step, coroutine) = steps.first(py, core, &awaitable)?;
    let (yielded, carrier) = match step {
        Step::Ended(result) => return finished(py, core, &handler.place, after, result, false),
        Step::Waits(yielded, carrier) => (yielded, carrier),
    };
    let mut state = core.enter()?;
    if let After::Message { asker, counted } = after {
        state.defer(asker);
        state.task_started(asker.key, counted);
    }
    let number = state.tasks.vacant_key();
    drop(state);
    let done = Done { core: core.shared().clone(), place: handler.place.clone(), after, number };
    carrier.hand_over(py, coroutine, yielded, Bound::new(py, done)?.into_any())?;
    core.enter()?.tasks.insert(carrier);
    Ok(())
}

/// Called by a carrier when the handler has ended.
#[pyclass(frozen)]
struct Done {
    core: Arc<Shared>,
    place: String,
    after: After,
    number: usize,
}

#[pymethods]
impl Done {
    fn __call__(&self, py: Python<'_>, value: Bound<'_, PyAny>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let carrier = self.core.enter()?.tasks.try_remove(self.number);
        let scope = Scope::enter(py, &self.core)?;
        if let Some(carrier) = carrier {
            carrier.rest(py, &scope)?;
        }
        let result = if error.is_none() { Ok(value) } else { Err(PyErr::from_value(error)) };
        finished(py, &scope, &self.place, self.after, result, true)
    }
}

fn finished(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    place: &str,
    after: After,
    result: PyResult<Bound<'_, PyAny>>,
    waited: bool,
) -> PyResult<()> {
    match after {
        After::Nothing => match result {
            Ok(_) => Ok(()),
            Err(error) => dispatch::failed(py, core, place, error),
        },
        After::Left => {
            core.enter()?.leaving -= 1;
            match result {
                Ok(_) => Ok(()),
                Err(error) => dispatch::failed(py, core, place, error),
            }
        }
        After::Message { asker, counted } => {
            match result {
                Ok(value) => dispatch::answer(py, core, asker, place, &value)?,
                Err(error) => dispatch::answer_error(py, core, asker, place, error)?,
            }
            if waited {
                core.enter()?.task_finished(asker.key, counted);
                dispatch::resume_waiting(py, core, asker.key)?;
            }
            Ok(())
        }
        After::Joined { key } => {
            if let Err(error) = result {
                dispatch::failed(py, core, place, error)?;
            }
            dispatch::join_finished(py, core, key)
        }
        After::Authenticated { key } => dispatch::authenticated(py, core, key, place, result),
    }
}
