//! Entity objects: handles whose attributes are the world's columns.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use world::{Handle, Kind};

use crate::error::ENTITY_GONE;
use crate::session::Session;
use crate::world::declare;
use crate::world::state::Shared;
use crate::world::value::{Cell, Column, handle_at};

/// The base of entity classes; see `_core.pyi`.
#[pyclass(subclass, frozen, weakref, module = "gameserver._core")]
#[derive(Default)]
pub struct EntityBase {
    place: OnceLock<Place>,
}

/// Which entity of which world an object stands for.
pub struct Place {
    /// The world.
    pub world: Arc<Shared>,
    /// The index of its table.
    pub table: u32,
    /// Its name there.
    pub handle: Handle,
}

impl EntityBase {
    /// Which entity it is; none of an object that was made by hand.
    #[inline]
    pub fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    #[inline]
    fn placed(&self) -> PyResult<&Place> {
        self.place.get().ok_or_else(unplaced)
    }
}

#[cold]
fn unplaced() -> PyErr {
    PyTypeError::new_err("this entity was made by hand and is of no world: write world.spawn(Player, x=1)")
}

/// A new object of `class` for an entity.
pub fn object<'py>(
    class: &Bound<'py, PyType>,
    world: &Arc<Shared>,
    table: u32,
    handle: Handle,
) -> PyResult<Bound<'py, EntityBase>> {
    let made = class.call0()?.cast_into::<EntityBase>()?;
    let _ = made.get().place.set(Place { world: world.clone(), table, handle });
    Ok(made)
}

/// The qualified name of a class, for errors.
pub fn name_of(class: &Bound<'_, PyType>) -> String {
    class.qualname().map_or_else(|_| "?".into(), |name| name.to_string())
}

/// `Player 12`, for errors.
struct Named<'a, 'py>(&'a Bound<'py, EntityBase>);

impl fmt::Display for Named<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(&self.0.get_type()))?;
        match self.0.get().place() {
            Some(place) => write!(f, " {}", place.handle.to_bits()),
            None => Ok(()),
        }
    }
}

#[cold]
fn gone(entity: &Bound<'_, EntityBase>) -> PyErr {
    ENTITY_GONE.err(entity.py(), format!("{} is gone: it was despawned", Named(entity)))
}

// -- attributes ------------------------------------------------------------------------------------------------------

/// Gives a class its descriptors. `columns` are `gameserver._columns.ColumnShape` objects.
#[pyfunction]
pub fn entity_install(cls: &Bound<'_, PyType>, columns: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
    let py = cls.py();
    if !cls.is_subclass_of::<EntityBase>()? {
        return Err(PyTypeError::new_err(format!("{cls} is no entity class: subclass gameserver.Entity")));
    }
    for (index, source) in columns.iter().enumerate() {
        let column = declare::column(source, index)?;
        let name = CString::new(column.name.as_str())?;
        // A class lives as long as the program, and its descriptors point to this.
        let definition = Box::leak(Box::new(ffi::PyGetSetDef {
            name: Box::leak(name.into_boxed_c_str()).as_ptr(),
            get: Some(get),
            set: Some(set),
            doc: std::ptr::null(),
            closure: std::ptr::from_ref(Box::leak(Box::new(column))).cast_mut().cast(),
        }));
        // SAFETY: the definition lives for ever; a new reference, or null with an exception.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewGetSet(cls.as_type_ptr(), definition))?
        };
        cls.setattr(source.getattr("name")?.cast_into::<pyo3::types::PyString>()?, descriptor)?;
    }
    Ok(())
}

unsafe extern "C" fn get(object: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the interpreter is held; the descriptor was made with a subclass of `EntityBase`, of which it has checked the
    // object to be one, and with a column that lives for ever.
    let (entity, column) = unsafe {
        let py = Python::assume_attached();
        (Borrowed::from_ptr(py, object).cast_unchecked::<EntityBase>(), &*closure.cast::<Column>())
    };
    match read(&entity, column) {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(entity.py());
            std::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn set(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: as in `get`; the value is a live object, or null to delete.
    let (entity, value, column) = unsafe {
        let py = Python::assume_attached();
        let entity = Borrowed::from_ptr(py, object).cast_unchecked::<EntityBase>();
        (entity, Bound::from_borrowed_ptr_or_opt(py, value), &*closure.cast::<Column>())
    };
    match write(&entity, column, value.as_ref()) {
        Ok(()) => 0,
        Err(error) => {
            error.restore(entity.py());
            -1
        }
    }
}

#[inline]
fn read<'py>(entity: &Bound<'py, EntityBase>, column: &Column) -> PyResult<Bound<'py, PyAny>> {
    let place = entity.get().placed()?;
    let state = place.world.enter()?;
    let Some(row) = state.row(place.table, place.handle) else {
        drop(state);
        return Err(gone(entity));
    };
    let cell = Cell::copy(state.cell(place.table, column.index, row));
    if let Kind::Reference(_) = column.kind {
        drop(state);
        return refer(entity.py(), place, column, cell.bytes());
    }
    drop(state);
    column.decode(entity.py(), cell.bytes())
}

/// The entity that a reference means; None if it is gone.
fn refer<'py>(py: Python<'py>, place: &Place, column: &Column, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (Some(handle), Some(of)) = (handle_at(bytes), &column.of) else {
        return Ok(py.None().into_bound(py));
    };
    let class = of.bind(py);
    let table = place.world.table_of(class)?;
    if place.world.enter()?.row(table, handle).is_none() {
        return Ok(py.None().into_bound(py));
    }
    Ok(object(class, &place.world, table, handle)?.into_any())
}

#[inline]
fn write(entity: &Bound<'_, EntityBase>, column: &Column, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(value) = value else {
        return Err(PyAttributeError::new_err(format!("{}.{} can't be deleted", Named(entity), column.name)));
    };
    let place = entity.get().placed()?;
    let cell = encode(&place.world, column, value, || format!("{}.{}", Named(entity), column.name))?;
    let mut state = place.world.enter()?;
    let Some(row) = state.row(place.table, place.handle) else {
        drop(state);
        return Err(gone(entity));
    };
    state.cell_mut(place.table, column.index, row).copy_from_slice(cell.bytes());
    let is_untold = state.is_untold();
    drop(state);
    if is_untold { place.world.tell_touched() } else { Ok(()) }
}

/// A value as a row's bytes; `named` says where it was to go.
#[inline]
pub fn encode(
    world: &Arc<Shared>,
    column: &Column,
    value: &Bound<'_, PyAny>,
    named: impl Fn() -> String,
) -> PyResult<Cell> {
    let cell = column.encode(value).map_err(|wrong| wrong.error(named(), value))?;
    if let Kind::Reference(_) = column.kind
        && let Ok(other) = value.cast::<EntityBase>()
        && other.get().place().is_some_and(|place| !Arc::ptr_eq(&place.world, world))
    {
        return Err(PyValueError::new_err(format!("{}: {} is of another world", named(), Named(other))));
    }
    Ok(cell)
}

// -- members ---------------------------------------------------------------------------------------------------------

#[pymethods]
impl EntityBase {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*arguments, **named))]
    fn new(
        cls: &Bound<'_, PyType>,
        arguments: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        if arguments.is_empty() && named.is_none_or(|named| named.is_empty()) {
            return Ok(Self::default());
        }
        let name = name_of(cls);
        Err(PyTypeError::new_err(format!(
            "{name}(...): entities live in a world: write world.spawn({name}, ...)"
        )))
    }

    #[getter]
    fn id(&self) -> PyResult<u64> {
        Ok(self.placed()?.handle.to_bits())
    }

    #[getter]
    fn row(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let place = slf.get().placed()?;
        let row = place.world.enter()?.row(place.table, place.handle);
        row.ok_or_else(|| gone(slf))
    }

    #[getter]
    fn is_live(&self) -> PyResult<bool> {
        let Some(place) = self.place() else { return Ok(false) };
        Ok(place.world.enter()?.row(place.table, place.handle).is_some())
    }

    #[getter]
    fn owner(slf: &Bound<'_, Self>) -> PyResult<Option<Py<Session>>> {
        let place = slf.get().placed()?;
        let state = place.world.enter()?;
        match state.row(place.table, place.handle) {
            Some(_) => Ok(state.owner(slf.py(), place.table, place.handle)),
            None => {
                drop(state);
                Err(gone(slf))
            }
        }
    }

    #[setter]
    fn set_owner(slf: &Bound<'_, Self>, owner: Option<&Bound<'_, Session>>) -> PyResult<()> {
        let place = slf.get().placed()?;
        let owner = owner.map(|session| place.world.owner_of(session)).transpose()?;
        let old = {
            let mut state = place.world.enter()?;
            let row = state.row(place.table, place.handle);
            row.map(|_| state.set_owner(slf, place.table, place.handle, owner))
        };
        old.map(drop).ok_or_else(|| gone(slf))?;
        place.world.touch()
    }

    #[getter]
    fn keep(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let place = slf.get().placed()?;
        let state = place.world.enter()?;
        match state.row(place.table, place.handle) {
            Some(_) => Ok(state.keeps(place.table, place.handle)),
            None => {
                drop(state);
                Err(gone(slf))
            }
        }
    }

    #[setter]
    fn set_keep(slf: &Bound<'_, Self>, keep: bool) -> PyResult<()> {
        let place = slf.get().placed()?;
        let mut state = place.world.enter()?;
        match state.row(place.table, place.handle) {
            Some(_) => {
                state.set_keep(place.table, place.handle, keep);
                Ok(())
            }
            None => {
                drop(state);
                Err(gone(slf))
            }
        }
    }

    fn despawn(slf: &Bound<'_, Self>) -> PyResult<()> {
        let place = slf.get().placed()?;
        let is_gone = place.world.enter()?.despawn(place.table, place.handle).is_none();
        if is_gone { Err(gone(slf)) } else { place.world.touch() }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let other = other.cast::<Self>().ok();
        match (self.place(), other.as_ref().and_then(|other| other.get().place())) {
            (Some(one), Some(other)) => {
                Arc::ptr_eq(&one.world, &other.world)
                    && (one.table, one.handle) == (other.table, other.handle)
            }
            _ => other.is_some_and(|other| std::ptr::eq(other.get(), self)),
        }
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.place() {
            Some(place) => (Arc::as_ptr(&place.world) as usize, place.table, place.handle).hash(&mut hasher),
            None => std::ptr::from_ref(self).hash(&mut hasher),
        }
        hasher.finish()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let Some(place) = slf.get().place() else {
            return Ok(format!("<{} of no world>", name_of(&slf.get_type())));
        };
        let Ok(state) = place.world.enter() else { return Ok(format!("<{} of another thread>", Named(slf))) };
        let is_live = state.row(place.table, place.handle).is_some();
        drop(state);
        if !is_live {
            return Ok(format!("<{}, gone>", Named(slf)));
        }
        let mut text = format!("<{}:", Named(slf));
        for name in slf.get_type().getattr("__columns__")?.try_iter()? {
            let name = name?.str()?;
            text += &format!(" {name}={}", slf.as_any().getattr(&name)?.repr()?);
        }
        Ok(text + ">")
    }
}
