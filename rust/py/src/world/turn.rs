//! Where the world meets a turn of the server: who owns what, who leaves, what a tick has changed.

use engine::realm::RoomNumber;
use engine::session::SessionKey;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::app;
use crate::scope::Scope;
use crate::session::Session;
use crate::world::entity::EntityBase;
use crate::world::state::State;

/// The sender's entity of a class, in a room's world or, for 0, the app's.
#[inline]
pub fn entity_of(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    room: RoomNumber,
    key: SessionKey,
    class: &Py<PyType>,
) -> PyResult<Option<Py<EntityBase>>> {
    let Some(world) = core.enter()?.world_of(room) else { return Ok(None) };
    Ok(world.enter()?.owned(py, key, class))
}

/// A session is gone from a room or, for 0, from the app: what is its own there despawns, but for what is kept.
pub fn left(core: &app::Shared, room: RoomNumber, key: SessionKey) -> PyResult<()> {
    let Some(world) = core.enter()?.world_of(room) else { return Ok(()) };
    let held = world.enter()?.leave(key);
    drop(held); // may run Python
    world.touch()
}

/// A session has joined a room or, for 0, the app: it sees the world from now on, if its client shows it.
pub fn joined(core: &app::Shared, room: RoomNumber, key: SessionKey) -> PyResult<()> {
    let state = core.enter()?;
    let wants_world = state.realm().wants_world(key);
    let Some(world) = state.world_of(room).filter(|_| wants_world) else { return Ok(()) };
    drop(state);
    let mut state = world.enter()?;
    let State { world: columns, viewers, .. } = &mut *state;
    viewers.joined(columns, key);
    drop(state);
    world.touch()
}

/// Rooms without ticks of whose worlds something was written: it is shown now.
pub fn end_touched(py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
    let touched = std::mem::take(&mut core.enter()?.rooms.touched);
    for room in touched {
        let Some(world) = core.enter()?.world_of(room) else { continue };
        world.told(room)?;
        end_tick(py, core, room)?;
    }
    Ok(())
}

/// The end of a tick of a room or, for 0, of the app: rows of despawned entities go, what has changed is sent to those who
/// see it.
pub fn end_tick(py: Python<'_>, core: &Scope<'_, '_>, room: RoomNumber) -> PyResult<()> {
    let Some(shared) = core.enter()?.world_of(room) else { return Ok(()) };
    let mut state = shared.enter()?;
    let faults = state.world.end_tick().clone();
    let mut server = core.enter()?;
    let State { world, viewers, .. } = &mut *state;
    viewers.send(world, &mut server.server.realm);
    drop(server);
    for fault in faults.first {
        let is_new = state.faulty.insert((fault.table, fault.column));
        if !is_new {
            continue;
        }
        let table = &state.tables[fault.table];
        let (class, column) = (table.class.clone_ref(py), table.columns[fault.column].name.clone());
        drop(state);
        let report = py.import("gameserver._world")?.getattr("report_fault")?;
        report.call1((class, column, fault.handle.to_bits()))?;
        core.settle()?;
        state = shared.enter()?;
    }
    Ok(())
}

/// For sessions of one server, whether each has an entity of this class, a byte each, and the rows of those entities,
/// 4 bytes each.
#[pyfunction]
pub fn world_rows<'py>(
    cls: &Bound<'py, PyType>,
    sessions: Vec<Bound<'py, Session>>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let py = cls.py();
    let class = cls.clone().unbind();
    let (mut has, mut rows) = (Vec::with_capacity(sessions.len()), Vec::with_capacity(4 * sessions.len()));
    let world = match sessions.first() {
        Some(session) => session.get().world(py)?,
        None => None,
    };
    for session in &sessions {
        let row = match (&world, session.get().placed_key(py)) {
            (Some(world), Ok(key)) => world.enter()?.row_owned(key, &class),
            _ => None,
        };
        has.push(u8::from(row.is_some()));
        rows.extend(row.iter().flat_map(|&row| (row as u32).to_ne_bytes()));
    }
    Ok((PyBytes::new(py, &has), PyBytes::new(py, &rows)))
}
