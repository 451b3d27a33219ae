//! `WorldCopy`: an immutable copy of a world, for any thread.

use std::sync::Arc;

use pyo3::exceptions::{PyKeyError, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use world::{CopyError, Handle, TableCopy};

use crate::error::SCHEMA_ERROR;
use crate::world::entity::name_of;
use crate::world::face::World;

/// See `_core.pyi`.
#[pyclass(frozen, module = "gameserver._core")]
pub struct WorldCopy {
    copy: Arc<world::WorldCopy>,
}

#[pymethods]
impl WorldCopy {
    #[staticmethod]
    fn of(world: &World) -> PyResult<Self> {
        Ok(Self { copy: Arc::new(world.shared.enter()?.world.copy()) })
    }

    /// Of bytes of a world with these tables.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, world: &World, bytes: &[u8]) -> PyResult<Self> {
        let shape = world.shared.enter()?.world.shape().clone();
        let copy = py.detach(|| world::WorldCopy::from_bytes(bytes, &shape));
        Ok(Self { copy: Arc::new(copy.map_err(|error| failed(py, &error))?) })
    }

    fn restore(&self, py: Python<'_>, world: &World) -> PyResult<()> {
        world.shared.enter()?.world.restore(&self.copy).map_err(|error| failed(py, &error))
    }

    #[getter]
    fn tick(&self) -> u32 {
        self.copy.tick()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| self.copy.to_bytes());
        PyBytes::new(py, &bytes)
    }

    fn count(&self, cls: &Bound<'_, PyType>) -> PyResult<usize> {
        Ok(self.table(cls)?.handles().len())
    }

    /// 8 bytes each.
    fn ids<'py>(&self, cls: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyBytes>> {
        let ids: Vec<u8> = self
            .table(cls)?
            .handles()
            .iter()
            .map(|handle| Handle::to_bits(*handle))
            .flat_map(u64::to_ne_bytes)
            .collect();
        Ok(PyBytes::new(cls.py(), &ids))
    }

    fn column<'py>(&self, cls: &Bound<'py, PyType>, column: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(cls.py(), self.table(cls)?.column(column)))
    }
}

impl WorldCopy {
    fn table(&self, cls: &Bound<'_, PyType>) -> PyResult<&TableCopy> {
        let name = name_of(cls);
        let found = self.copy.tables().iter().find(|table| table.name() == name);
        found.ok_or_else(|| PyKeyError::new_err(format!("the snapshot has no {name}")))
    }
}

fn failed(py: Python<'_>, error: &CopyError) -> PyErr {
    let text = format!("a saved world: {error}");
    match error {
        CopyError::Damaged { .. } => PyValueError::new_err(text),
        CopyError::Differs { .. } => SCHEMA_ERROR.err(py, text),
        CopyError::Memory(_) => PyMemoryError::new_err(text),
    }
}
