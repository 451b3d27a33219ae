//! A recorded run once more, without sockets: where the core would wait for them, it takes the recorded turns.

use std::path::Path;
use std::sync::Arc;

use engine::event::{Nanos, UpLog};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use server::record::{Part, Player, STARTED_WITH};
use server::replay::Played;

use crate::app::Shared;
use crate::dispatch;
use crate::scope::Scope;

/// What the run was started with, as its recording's first part says.
pub fn started_with(path: &Path) -> PyResult<Vec<u8>> {
    match Player::open(path)?.next_part()? {
        Some(Part::Note(STARTED_WITH, bytes)) => Ok(bytes),
        _ => Err(PyOSError::new_err(format!("{}: no recording of App.run(record=...)", path.display()))),
    }
}

/// The turns up to where the recorded run returned to asyncio; behind the end, a wait for what is left to do.
pub fn select(py: Python<'_>, core: &Arc<Shared>, until: Option<Nanos>) -> PyResult<()> {
    loop {
        py.check_signals()?;
        let mut state = core.enter()?;
        let played = state.server.play()?;
        match played {
            Played::Returned => return Ok(()),
            Played::Sent => {}
            Played::Turn(logs) => {
                drop(state);
                step(py, core, &logs)?;
            }
            Played::Deserted => {
                let on_empty = state.hooks.on_empty.take();
                drop(state);
                on_empty.map(|on_empty| on_empty.call0(py)).transpose()?;
            }
            Played::Failed(why) => {
                let on_failure = state.hooks.on_failure.take();
                drop(state);
                on_failure.map(|on_failure| on_failure.call1(py, (why,))).transpose()?;
            }
            Played::Over => {
                let on_over = state.hooks.on_over.take();
                let Some(on_over) = on_over else {
                    let server = &mut state.server;
                    py.detach(|| server.idle(until))?;
                    return Ok(());
                };
                state.server.resume_clock();
                drop(state);
                on_over.call0(py)?;
                return Ok(());
            }
        }
    }
}

fn step(py: Python<'_>, core: &Arc<Shared>, logs: &[UpLog]) -> PyResult<()> {
    let scope = Scope::open(py, core)?;
    for log in logs {
        dispatch::log(py, &scope, log)?;
    }
    dispatch::due(py, &scope)
}
