//! Async handlers: real asyncio tasks, whose first step runs at once.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;

use crate::app::Shared;
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

/// Starts a task for a coroutine; answers at once if its first step was its last.
pub fn start(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    handler: &Handler,
    coroutine: Bound<'_, PyAny>,
    after: After,
) -> PyResult<()> {
    let begin = core.enter()?.hooks.begin(py)?;
    let task = match begin.bind(py).call1((coroutine,)) {
        Ok(task) => task,
        // No coroutine, because a decorator of the game's has run it already, or one that raised `SystemExit` at once.
        Err(error) => return finished(py, core, &handler.place, after, Err(error), false),
    };
    if task.call_method0(intern!(py, "done"))?.is_truthy()? {
        return finished(py, core, &handler.place, after, task.call_method0(intern!(py, "result")), false);
    }
    let mut state = core.enter()?;
    if let After::Message { asker, counted } = after {
        state.defer(asker);
        state.task_started(asker.key, counted);
    }
    // asyncio holds tasks weakly; this table keeps them alive.
    let number = state.tasks.insert(task.clone().unbind());
    drop(state);
    let done = Done { core: core.shared().clone(), place: handler.place.clone(), after, number };
    task.call_method1(intern!(py, "add_done_callback"), (Py::new(py, done)?,))?;
    Ok(())
}

/// Called by asyncio when the task is done.
#[pyclass(frozen)]
struct Done {
    core: Arc<Shared>,
    place: String,
    after: After,
    number: usize,
}

#[pymethods]
impl Done {
    fn __call__(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut state = self.core.enter()?;
        let kept = state.tasks.try_remove(self.number);
        drop(state);
        drop(kept);
        let result = task.call_method0(intern!(py, "result"));
        finished(py, &Scope::enter(py, &self.core)?, &self.place, self.after, result, true)
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
