//! `WorldReplica`: what a client knows of a world.

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::sync::{Mutex, MutexGuard, PoisonError};
use world::{Change, Handle, Replica, Value, WorldShape};

use crate::error::{PROTOCOL_ERROR, SCHEMA_ERROR};

/// See `_core.pyi`.
#[pyclass(frozen, module = "gameserver._core")]
pub struct WorldReplica {
    replica: Mutex<Replica>,
}

#[pymethods]
impl WorldReplica {
    #[new]
    #[pyo3(signature = (tables, entities_max = 65_536))]
    fn new(py: Python<'_>, tables: &str, entities_max: usize) -> PyResult<Self> {
        let shape = WorldShape::from_json(tables).map_err(|error| SCHEMA_ERROR.err(py, error.to_string()))?;
        Ok(Self { replica: Mutex::new(Replica::new(shape, entities_max)) })
    }

    /// The tick of the last snapshot; 0: there was none.
    #[getter]
    fn tick(&self) -> u32 {
        self.replica().tick()
    }

    /// Takes a snapshot.
    fn apply<'py>(&self, py: Python<'py>, snapshot: &[u8]) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut replica = self.replica();
        let names: Vec<String> = replica.shape().tables().iter().map(|table| table.name.clone()).collect();
        let changes = replica.apply(snapshot).map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
        let Some(changes) = changes else { return Ok(None) };
        let told = changes.iter().map(|change| {
            let (what, table, handle) = match *change {
                Change::Added(table, handle) => ("add", table, handle),
                Change::Changed(table, handle) => ("change", table, handle),
                Change::Removed(table, handle) => ("remove", table, handle),
            };
            (what, &names[table], handle.to_bits())
        });
        PyList::new(py, told.collect::<Vec<_>>()).map(Some)
    }

    /// Bytes of all snapshots so far, by table; "" has what belongs to none.
    fn bytes(&self) -> Vec<(String, u64)> {
        let replica = self.replica();
        let tables = replica.shape().tables().iter().enumerate();
        let mut bytes: Vec<_> =
            tables.map(|(i, table)| (table.name.clone(), replica.bytes(Some(i)))).collect();
        bytes.push((String::new(), replica.bytes(None)));
        bytes
    }

    /// The ids of the entities of a table that are in view, ascending by their slots.
    fn entities(&self, table: &str) -> PyResult<Vec<u64>> {
        let replica = self.replica();
        let table = table_of(&replica, table)?;
        Ok(replica.entities(table).into_iter().map(Handle::to_bits).collect())
    }

    /// Tables and ids of the entities that this client owns.
    fn owned(&self) -> Vec<(String, u64)> {
        let replica = self.replica();
        let tables = replica.shape().tables();
        let owned = replica.owned().into_iter();
        owned.map(|(table, handle)| (tables[table].name.clone(), handle.to_bits())).collect()
    }

    /// A value; None if it is not told to this client.
    fn value<'py>(
        &self,
        py: Python<'py>,
        table: &str,
        id: u64,
        column: &str,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let replica = self.replica();
        let number = table_of(&replica, table)?;
        let index = replica.shape().tables()[number].column_index(column);
        let index = index.ok_or_else(|| PyKeyError::new_err(format!("{table} has no column {column}")))?;
        let value = Handle::from_bits(id).and_then(|handle| replica.value(number, handle, index));
        value.map(|value| to_python(py, &value)).transpose()
    }
}

impl WorldReplica {
    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn table_of(replica: &Replica, name: &str) -> PyResult<usize> {
    replica.shape().table(name).ok_or_else(|| PyKeyError::new_err(format!("no table {name}")))
}

fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Int(int) => int.into_pyobject(py)?.into_any(),
        Value::Float(float) => float.into_pyobject(py)?.into_any(),
        Value::Bool(bool) => bool.into_pyobject(py)?.to_owned().into_any(),
        Value::Vector(items) => PyTuple::new(py, items)?.into_any(),
        Value::Str(text) => text.into_pyobject(py)?.into_any(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Reference(handle) => handle.map(Handle::to_bits).into_pyobject(py)?,
        Value::List(items) => {
            let items = items.iter().map(|item| to_python(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, items)?.into_any()
        }
    })
}
