//! The replicated world as Python sees it: entity objects, columns, and how it meets the sessions.

pub mod columns;
mod copy;
pub mod declare;
pub mod entity;
pub mod face;
pub mod replica;
pub mod state;
pub mod turn;
pub mod value;
pub mod viewers;

use pyo3::prelude::*;

/// Adds the world's part to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<face::World>()?;
    module.add_class::<replica::WorldReplica>()?;
    module.add_class::<copy::WorldCopy>()?;
    module.add_class::<entity::EntityBase>()?;
    module.add_class::<columns::ColumnBuffer>()?;
    module.add_function(wrap_pyfunction!(entity::entity_install, module)?)?;
    module.add_function(wrap_pyfunction!(turn::world_rows, module)?)
}
