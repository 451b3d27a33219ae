//! A recorded run once more, without sockets: the same times and logs in, the same bytes out.

use std::path::Path;
use std::sync::Arc;

use engine::event::UpLog;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use server::record::{Part, Player};

use crate::app::Shared;
use crate::dispatch;
use crate::scope::Scope;

/// What a replay found.
#[derive(Default)]
pub struct Outcome {
    /// Turns replayed.
    pub turns: u64,
    /// Logs toward links that were compared.
    pub compared: u64,
    /// Where the first difference is, if there is one.
    pub difference: Option<String>,
}

/// Replays a recording; `note(kind, bytes)` is called for what the recording says beside turns.
pub fn run(py: Python<'_>, core: &Arc<Shared>, path: &Path, note: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    let mut player = Player::open(path)?;
    let mut outcome = Outcome::default();
    let mut turn: Option<Vec<UpLog>> = None;
    loop {
        let part = player.next_part()?;
        if let Some(Part::Up(log)) = part {
            turn.get_or_insert_default().push(log);
            continue;
        }
        if let Some(logs) = turn.take() {
            step(py, core, &logs)?;
        }
        match part {
            None => break,
            Some(Part::Up(_)) => unreachable!("taken above"),
            Some(Part::Turn(now)) => {
                outcome.turns += 1;
                let mut state = core.enter()?;
                if state.server.is_owing() {
                    outcome.difference =
                        Some(format!("before turn {}: more was sent than recorded", outcome.turns));
                    break;
                }
                state.server.replay_turn(now);
                turn = Some(Vec::new());
            }
            Some(Part::Mark(kind, now)) => {
                core.enter()?.server.replay_mark(now);
                note.call1((char::from(kind).to_string(), PyBytes::new(py, b"")))?;
            }
            Some(Part::Note(bytes)) => {
                note.call1(("N", PyBytes::new(py, &bytes)))?;
            }
            Some(Part::Down(recorded)) => {
                outcome.compared += 1;
                if core.enter()?.server.replay_sent(recorded.first().copied().unwrap_or(0)) != recorded {
                    outcome.difference =
                        Some(format!("in turn {}: other bytes were sent than recorded", outcome.turns));
                    break;
                }
            }
        }
    }
    Ok(outcome)
}

fn step(py: Python<'_>, core: &Arc<Shared>, logs: &[UpLog]) -> PyResult<()> {
    let scope = Scope::open(py, core)?;
    for log in logs {
        dispatch::log(py, &scope, log)?;
    }
    dispatch::due(py, &scope)
}
