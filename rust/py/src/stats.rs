//! Counters of a server, as a dict of plain numbers.

use engine::event::Close;
use net::reactor::ReactorStats;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::state::State;

/// What `App.stats` gives, but for the errors, which Python counts.
pub fn read<'py>(py: Python<'py>, state: &mut State) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("connections", connections(py, state)?)?;
    dict.set_item("sessions", state.realm().sessions().count())?;
    let realm = state.realm().stats();
    let resume = PyDict::new(py);
    resume.set_item("resumed", realm.resumed)?;
    resume.set_item("refused", realm.resume_refused)?;
    dict.set_item("resume", resume)?;
    let closed = PyDict::new(py);
    for why in Close::ALL {
        closed.set_item(why.name(), realm.closed(why))?;
    }
    dict.set_item("closed", closed)?;
    let messages = PyDict::new(py);
    messages.set_item("in", realm.messages_in)?;
    messages.set_item("out", realm.messages_out)?;
    messages.set_item("limited", realm.limited)?;
    messages.set_item("unknown_route", realm.unknown_routes)?;
    messages.set_item("ignored", realm.ignored)?;
    messages.set_item("bodies_refused", state.bodies_refused.values().sum::<u64>())?;
    let refused = PyDict::new(py);
    for (&route, count) in &state.bodies_refused {
        refused.set_item(state.server.routes().name(route), count)?;
    }
    messages.set_item("bodies_refused_by_route", refused)?;
    messages.set_item("batch_dropped", state.batch_dropped)?;
    messages.set_item("tasks", state.tasks.len())?;
    dict.set_item("messages", messages)?;
    let pool = state.server.pool().stats();
    let buffers = PyDict::new(py);
    buffers.set_item("out", pool.out)?;
    buffers.set_item("high_water", pool.high_water)?;
    buffers.set_item("hits", pool.hits)?;
    buffers.set_item("misses", pool.misses)?;
    dict.set_item("pool", buffers)?;
    let ticks = state.server.ticks();
    let tick = PyDict::new(py);
    tick.set_item("count", ticks.count)?;
    tick.set_item("skipped", ticks.skipped)?;
    tick.set_item("dilated_ns", ticks.dilated)?;
    let (next, due) = state.server.tick_due().unwrap_or_default();
    tick.set_item("next", next)?;
    tick.set_item("next_due_ns", due)?;
    tick.set_item("lateness_p50_ns", ticks.quantile(0.5))?;
    tick.set_item("lateness_p99_ns", ticks.quantile(0.99))?;
    dict.set_item("tick", tick)?;
    Ok(dict)
}

fn connections<'py>(py: Python<'py>, state: &mut State) -> PyResult<Bound<'py, PyDict>> {
    let all = state.server.socket_stats();
    let sum = |read: fn(&ReactorStats) -> u64| all.iter().map(read).sum::<u64>();
    let dict = PyDict::new(py);
    dict.set_item("open", state.server.connections())?;
    dict.set_item("accepted", sum(|stats| stats.accepted))?;
    dict.set_item("refused_full", sum(|stats| stats.refused_full))?;
    dict.set_item("refused_address", sum(|stats| stats.refused_address))?;
    dict.set_item("refused_rate", sum(|stats| stats.refused_rate))?;
    dict.set_item("refused_descriptors", sum(|stats| stats.refused_descriptors))?;
    dict.set_item("accept_errors", sum(|stats| stats.accept_errors))?;
    dict.set_item("tls", sum(|stats| stats.tls))?;
    dict.set_item("tls_failed", sum(|stats| stats.tls_failed))?;
    dict.set_item("tls_truncated", sum(|stats| stats.tls_truncated))?;
    dict.set_item("reads", sum(|stats| stats.reads))?;
    dict.set_item("flushes", sum(|stats| stats.flushes))?;
    dict.set_item("waits", sum(|stats| stats.waits))?;
    dict.set_item("told_late", sum(|stats| stats.told_late))?;
    Ok(dict)
}
