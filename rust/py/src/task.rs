//! Async handlers: their first step runs at once, in a task that is lent to it; one that waits keeps the task.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::app::Shared;
use crate::carrier::{self, Carrier, First};
use crate::dispatch::{self, Asker};
use crate::handler::Handler;
use crate::scope::Scope;
use crate::typed::Answer;
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
    let waiting = match steps.first(py, core, awaitable)? {
        First::Ended(result) => {
            let about = (&*handler.place, handler.answer.as_deref());
            return finished(py, core, about, after, result, false);
        }
        First::Waits(waiting) => waiting,
    };
    let mut state = core.enter()?;
    if let After::Message { asker, counted } = after {
        state.defer(asker);
        state.task_started(asker.key, counted);
    }
    let number = state.tasks.vacant_key();
    drop(state);
    let (place, answer) = (handler.place.clone(), handler.answer.clone());
    let done = Done { core: core.shared().clone(), place, answer, after, number };
    waiting.hand_over(py, core, done)
}

/// What happens when a handler that waited has ended.
pub struct Done {
    core: Arc<Shared>,
    place: Arc<str>,
    answer: Option<Arc<Answer>>,
    after: After,
    number: usize,
}

impl Done {
    /// The handler, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Answers, and runs what waited for it. Whether the carrier is kept, and how the rest went.
    pub fn call(
        self,
        py: Python<'_>,
        carrier: &Bound<'_, Carrier>,
        result: PyResult<Bound<'_, PyAny>>,
    ) -> PyResult<(bool, PyResult<()>)> {
        self.core.enter()?.tasks.try_remove(self.number);
        let scope = Scope::open(py, &self.core)?;
        let rests = Carrier::rest(carrier, &scope)?;
        let about = (&*self.place, self.answer.as_deref());
        Ok((rests, finished(py, &scope, about, self.after, result, true)))
    }
}

fn finished(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    (place, declared): (&str, Option<&Answer>),
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
                Ok(value) => dispatch::answer(py, core, asker, place, declared, &value)?,
                Err(error) => dispatch::answer_error(py, core, asker, place, error)?,
            }
            if waited {
                core.enter()?.task_finished(asker.key, counted);
                dispatch::resume_waiting(py, core, asker.key)?;
                let mut state = core.enter()?;
                let more_comes = state.is_busy(asker.key);
                state.server.hold(asker.link, more_comes);
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
