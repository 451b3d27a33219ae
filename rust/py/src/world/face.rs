//! `World`: what `gameserver.World` asks of a world.

use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};
use world::{Handle, Placement, View};

use crate::error::ENTITY_GONE;
use crate::session::Session;
use crate::world::columns::ColumnBuffer;
use crate::world::entity::{self, EntityBase, name_of};
use crate::world::state::{Shared, State};
use crate::world::value::Cell;
use crate::world::viewers::Look;

/// See `_core.pyi`.
#[pyclass(frozen, module = "gameserver._core")]
pub struct World {
    /// The world.
    pub shared: Arc<Shared>,
}

#[pymethods]
impl World {
    #[new]
    fn new(cell: f64, view: f64) -> Self {
        Self { shared: Arc::new(Shared::new(world::World::new(cell), view)) }
    }

    /// One more without entities, of the same classes.
    fn like(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self { shared: Arc::new(self.shared.like(py)?) })
    }

    /// How many ticks the rates of columns are; of a world that no server shows.
    fn set_tick_rate(&self, tick_rate: u32) -> PyResult<()> {
        self.shared.enter()?.set_tick_rate(tick_rate);
        Ok(())
    }

    #[getter]
    fn cell(&self) -> PyResult<f64> {
        Ok(self.shared.enter()?.world.cell())
    }

    #[getter]
    fn view(&self) -> PyResult<f64> {
        Ok(self.shared.enter()?.viewers.radius)
    }

    /// The classes that it has tables for.
    fn classes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyType>>> {
        let state = self.shared.enter()?;
        Ok(state.tables.iter().map(|table| table.class.clone_ref(py)).collect())
    }

    /// Makes tables for classes, in this order.
    fn add(&self, classes: Vec<Bound<'_, PyType>>) -> PyResult<()> {
        classes.iter().try_for_each(|cls| self.shared.table_of(cls).map(drop))
    }

    fn count(&self, cls: &Bound<'_, PyType>) -> PyResult<usize> {
        let table = self.shared.table_of(cls)?;
        Ok(self.shared.enter()?.world.rows(table as usize))
    }

    /// How many rows there are, of which some may be written from now on.
    fn lend(&self, cls: &Bound<'_, PyType>) -> PyResult<usize> {
        self.shared.touch()?;
        self.count(cls)
    }

    fn spawn<'py>(
        &self,
        cls: &Bound<'py, PyType>,
        values: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, EntityBase>> {
        let py = cls.py();
        let index = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let table = &state.tables[index as usize];
        let (columns, required) = (table.columns.clone(), table.required.clone());
        drop(state);
        let (mut owner, mut keep) = (None, false);
        let mut cells: Vec<(usize, Cell)> = Vec::with_capacity(values.len());
        for (name, value) in values {
            let name = name.cast_into::<PyString>()?;
            let name = name.to_str()?;
            if let Some(column) = columns.iter().find(|column| column.name == name) {
                let named = || format!("{}.{name}", name_of(cls));
                cells.push((column.index, entity::encode(&self.shared, column, &value, named)?));
            } else if name == "owner" {
                let session: Option<Bound<'_, Session>> = value.extract().map_err(|_| {
                    PyTypeError::new_err(format!("{}.owner is a Session or None, not {value}", name_of(cls)))
                })?;
                owner = session.map(|session| self.shared.owner_of(&session)).transpose()?;
            } else if name == "keep" {
                keep = value.extract()?;
            } else {
                let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                let suggest = py.import("gameserver._signature")?.getattr("suggest")?;
                let hint: String = suggest.call1((name, known))?.extract()?;
                return Err(PyTypeError::new_err(format!("{} has no column {name:?}{hint}", name_of(cls))));
            }
        }
        if let Some(&missing) = required.iter().find(|&&index| cells.iter().all(|(given, _)| *given != index))
        {
            let (name, column) = (name_of(cls), &columns[missing].name);
            return Err(PyTypeError::new_err(format!(
                "{name}.{column} has no default: world.spawn({name}, {column}=...)"
            )));
        }
        let mut state = self.shared.enter()?;
        let row = spawn_rows(&mut state, index, 1)?;
        for (column, cell) in &cells {
            state.cell_mut(index, *column, row).copy_from_slice(cell.bytes());
        }
        let Some(handle) = state.world.handle(index as usize, row) else {
            return Err(PyMemoryError::new_err("no row")); // it was made just now
        };
        drop(state);
        let made = entity::object(cls, &self.shared, index, handle)?;
        if owner.is_some() || keep {
            let mut state = self.shared.enter()?;
            let old = state.set_owner(&made, index, handle, owner);
            state.set_keep(index, handle, keep);
            drop(state);
            drop(old);
        }
        self.shared.touch()?;
        Ok(made)
    }

    /// New rows at the end, with defaults: the first one.
    fn spawn_rows(&self, cls: &Bound<'_, PyType>, count: usize) -> PyResult<usize> {
        let table = self.shared.table_of(cls)?;
        let first = spawn_rows(&mut *self.shared.enter()?, table, count)?;
        self.shared.touch()?;
        Ok(first)
    }

    /// Despawns rows, 4 bytes each. How many were there.
    fn despawn_rows(&self, cls: &Bound<'_, PyType>, rows: &[u8]) -> PyResult<usize> {
        let table = self.shared.table_of(cls)?;
        let mut dropped = Vec::new();
        let mut state = self.shared.enter()?;
        let count = state.world.rows(table as usize);
        if let Some(row) = rows_of(rows).find(|&row| row >= count) {
            return Err(no_row(cls, row, count));
        }
        let mut gone = 0;
        for row in rows_of(rows) {
            let Some(handle) = state.world.handle(table as usize, row) else { continue };
            dropped.extend(state.despawn(table, handle));
            gone += 1;
        }
        drop(state);
        self.shared.touch()?;
        Ok(gone)
    }

    fn at<'py>(&self, cls: &Bound<'py, PyType>, rows: &[u8]) -> PyResult<Vec<Bound<'py, EntityBase>>> {
        let table = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let count = state.world.rows(table as usize);
        let mut handles = Vec::with_capacity(rows.len() / 4);
        for row in rows_of(rows) {
            if row >= count {
                return Err(no_row(cls, row, count));
            }
            match state.world.handle(table as usize, row) {
                Some(handle) => handles.push(handle),
                None => {
                    drop(state);
                    let text = format!("the {} of row {row} is gone: it was despawned", name_of(cls));
                    return Err(ENTITY_GONE.err(cls.py(), text));
                }
            }
        }
        drop(state);
        self.objects(cls, table, handles)
    }

    /// Every entity that was not despawned.
    fn live<'py>(&self, cls: &Bound<'py, PyType>) -> PyResult<Vec<Bound<'py, EntityBase>>> {
        let table = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let rows = 0..state.world.rows(table as usize);
        let handles = rows.filter_map(|row| state.world.handle(table as usize, row)).collect();
        drop(state);
        self.objects(cls, table, handles)
    }

    /// A bool for each of the first rows: whether its entity was not despawned.
    fn live_rows<'py>(&self, cls: &Bound<'py, PyType>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let table = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let live = |row| u8::from(state.world.handle(table as usize, row).is_some());
        let bytes: Vec<u8> = (0..count.min(state.world.rows(table as usize))).map(live).collect();
        drop(state);
        Ok(PyBytes::new(cls.py(), &bytes))
    }

    /// The ids of the first rows, 8 bytes each; 0 of one that was despawned.
    fn ids<'py>(&self, cls: &Bound<'py, PyType>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let table = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let id = |row| state.world.handle(table as usize, row).map_or(0, Handle::to_bits);
        let bytes: Vec<u8> =
            (0..count.min(state.world.rows(table as usize))).flat_map(|row| id(row).to_ne_bytes()).collect();
        drop(state);
        Ok(PyBytes::new(cls.py(), &bytes))
    }

    fn has(&self, entity: &Bound<'_, EntityBase>) -> PyResult<bool> {
        let Some(place) = entity.get().place() else { return Ok(false) };
        let is_here = Arc::ptr_eq(&place.world, &self.shared);
        Ok(is_here && self.shared.enter()?.row(place.table, place.handle).is_some())
    }

    /// The memory of the first rows of a column.
    fn column(&self, cls: &Bound<'_, PyType>, column: usize, rows: usize) -> PyResult<ColumnBuffer> {
        let table = self.shared.table_of(cls)?;
        let state = self.shared.enter()?;
        let columns = state.tables[table as usize].columns.len();
        if column >= columns {
            return Err(PyIndexError::new_err(format!("column {column} of {columns}")));
        }
        let memory = state.world.column(table as usize, column);
        Ok(ColumnBuffer::new(memory, rows))
    }

    fn owned(
        &self,
        cls: &Bound<'_, PyType>,
        session: &Bound<'_, Session>,
    ) -> PyResult<Option<Py<EntityBase>>> {
        let py = cls.py();
        let key = self.shared.owner_of(session)?.key;
        Ok(self.shared.enter()?.owned(py, key, &cls.clone().unbind()))
    }

    /// The entities of a session, oldest first.
    fn owned_all(&self, session: &Bound<'_, Session>) -> PyResult<Vec<Py<EntityBase>>> {
        let py = session.py();
        let key = session.get().placed_key(py)?;
        Ok(self.shared.enter()?.all_owned(py, key))
    }

    /// The entities of a session, which are nobody's from now on.
    fn release(&self, session: &Bound<'_, Session>) -> PyResult<Vec<Py<EntityBase>>> {
        let py = session.py();
        let key = session.get().placed_key(py)?;
        let mut state = self.shared.enter()?;
        let (released, held) = state.release(py, key);
        drop(state);
        drop(held); // may run Python
        self.shared.touch()?;
        Ok(released)
    }

    /// The tables as clients are told of them, JSON.
    fn document(&self) -> PyResult<String> {
        Ok(self.shared.enter()?.world.shape().to_json())
    }

    /// From the end of this tick on a session follows an entity; None: the first of its own that is on the grid.
    fn follow(
        &self,
        session: &Bound<'_, Session>,
        entity: Option<&Bound<'_, EntityBase>>,
        radius: f64,
    ) -> PyResult<bool> {
        let look = match entity {
            None => Look::Own(radius),
            Some(entity) => {
                entity.getattr("row")?; // raises what there is to raise
                let place = self.place(entity)?;
                check_grid(&*self.shared.enter()?, place.table, &entity.get_type())?;
                Look::At(View::Entity { table: place.table as usize, handle: place.handle, radius })
            }
        };
        self.look(session, look)
    }

    /// It looks at a place.
    fn watch_place(&self, session: &Bound<'_, Session>, x: f64, y: f64, radius: f64) -> PyResult<bool> {
        self.look(session, Look::At(View::Point { at: [x, y], radius }))
    }

    /// It looks at these cells of the grid.
    fn watch_cells(&self, session: &Bound<'_, Session>, cells: Vec<(i32, i32)>) -> PyResult<bool> {
        self.look(session, Look::At(View::Cells(cells)))
    }

    /// It looks at everything, or at global tables alone.
    fn watch_all(&self, session: &Bound<'_, Session>, everything: bool) -> PyResult<bool> {
        self.look(session, Look::At(if everything { View::Everything } else { View::Nothing }))
    }

    /// Who sees what of a class: of each cell its place (None of a global table), its entities and its viewers.
    fn map(&self, cls: &Bound<'_, PyType>) -> PyResult<Vec<(Option<world::Cell>, usize, usize)>> {
        let table = self.shared.table_of(cls)?;
        Ok(self.shared.enter()?.world.map(table as usize))
    }

    fn near<'py>(
        &self,
        entity: &Bound<'py, EntityBase>,
        radius: f64,
    ) -> PyResult<Vec<Bound<'py, EntityBase>>> {
        let cls = entity.get_type();
        let row = entity.getattr("row")?.extract::<usize>()?; // raises what there is to raise
        let place = self.place(entity)?;
        let state = self.shared.enter()?;
        check_grid(&state, place.table, &cls)?;
        let table = place.table as usize;
        let at = state.world.position(table, row).unwrap_or_default();
        let rows = state.world.near(table, at, radius).into_iter().map(|row| row as usize);
        let handles =
            rows.filter(|other| *other != row).filter_map(|row| state.world.handle(table, row)).collect();
        drop(state);
        self.objects(&cls, place.table, handles)
    }

    /// Pairs within a radius: the rows of either, 4 bytes each.
    fn pairs<'py>(
        &self,
        one: &Bound<'py, PyType>,
        other: &Bound<'py, PyType>,
        radius: f64,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let py = one.py();
        let tables = [self.shared.table_of(one)?, self.shared.table_of(other)?];
        let state = self.shared.enter()?;
        check_grid(&state, tables[0], one)?;
        check_grid(&state, tables[1], other)?;
        let (first, second) = state.world.pairs(tables[0] as usize, tables[1] as usize, radius);
        drop(state);
        let bytes = |rows: Vec<u32>| -> Vec<u8> { rows.iter().flat_map(|row| row.to_ne_bytes()).collect() };
        Ok((PyBytes::new(py, &bytes(first)), PyBytes::new(py, &bytes(second))))
    }

    /// Ends a tick without a server: rows of despawned entities are gone, what is bad is restored and told.
    fn end_tick(&self) -> PyResult<Vec<(u64, String)>> {
        let mut state = self.shared.enter()?;
        let faults = state.world.end_tick();
        let told = faults.first.iter().map(|fault| (fault.handle.to_bits(), fault.column.to_string()));
        Ok(told.collect())
    }
}

impl World {
    fn look(&self, session: &Bound<'_, Session>, look: Look) -> PyResult<bool> {
        let key = self.shared.owner_of(session)?.key;
        let mut state = self.shared.enter()?;
        let State { world, viewers, .. } = &mut *state;
        let is_taken = viewers.look(world, key, look);
        drop(state);
        self.shared.touch()?;
        Ok(is_taken)
    }

    fn place<'a>(&self, entity: &'a Bound<'_, EntityBase>) -> PyResult<&'a entity::Place> {
        match entity.get().place() {
            Some(place) if Arc::ptr_eq(&place.world, &self.shared) => Ok(place),
            _ => Err(PyTypeError::new_err(format!("{} is of another world", entity.repr()?))),
        }
    }

    fn objects<'py>(
        &self,
        cls: &Bound<'py, PyType>,
        table: u32,
        handles: Vec<Handle>,
    ) -> PyResult<Vec<Bound<'py, EntityBase>>> {
        handles.into_iter().map(|handle| entity::object(cls, &self.shared, table, handle)).collect()
    }
}

fn spawn_rows(state: &mut State, table: u32, count: usize) -> PyResult<usize> {
    state.world.spawn(table as usize, count, 0).map_err(|error| PyMemoryError::new_err(error.to_string()))
}

fn rows_of(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.chunks_exact(4).map(|row| u32::from_ne_bytes(row.try_into().expect("four bytes")) as usize)
}

#[cold]
fn no_row(cls: &Bound<'_, PyType>, row: usize, count: usize) -> PyErr {
    PyIndexError::new_err(format!("{} has no row {row}: there are {count}", name_of(cls)))
}

fn check_grid(state: &State, table: u32, cls: &Bound<'_, PyType>) -> PyResult<()> {
    match state.world.shape().tables()[table as usize].placement {
        Placement::Spatial(_) => Ok(()),
        Placement::Global => {
            let text = "is not on the grid: it has no columns x and y, and says no position=";
            Err(PyTypeError::new_err(format!("{} {text}", name_of(cls))))
        }
    }
}
