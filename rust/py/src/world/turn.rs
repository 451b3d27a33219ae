//! Where the world meets a turn of the server: who owns what, who leaves, what a tick has changed.

use engine::session::SessionKey;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::scope::Scope;
use crate::session::Session;
use crate::world::entity::EntityBase;

/// The sender's entity of a class.
#[inline]
pub fn entity_of(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    key: SessionKey,
    class: &Py<PyType>,
) -> PyResult<Option<Py<EntityBase>>> {
    let Some(world) = core.enter()?.world.clone() else { return Ok(None) };
    Ok(world.enter()?.owned(py, key, class))
}

/// A session is gone: what is its own despawns, but for what is kept.
pub fn left(core: &Scope<'_, '_>, key: SessionKey) -> PyResult<()> {
    let Some(world) = core.enter()?.world.clone() else { return Ok(()) };
    let held = world.enter()?.leave(key);
    drop(held); // may run Python
    core.settle()
}

/// The end of a tick: rows of despawned entities go, what has changed is sent to those who see it.
pub fn end_tick(py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
    let Some(world) = core.enter()?.world.clone() else { return Ok(()) };
    let _ = py;
    world.enter()?.world.end_tick();
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
