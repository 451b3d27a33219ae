//! One value of a column: what Python gives, as a row's bytes, checked; a row's bytes, as Python.
//!
//! Both ways go through a buffer, so that no guard of the world is held while Python runs (a value's `__index__`, the
//! collector).

use std::fmt::Display;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use world::{Handle, Kind, Number, quantize};

use crate::world::entity::{self, EntityBase};

/// A column of an entity class, as its descriptors know it.
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its place among the class's columns.
    pub index: usize,
    /// What it holds.
    pub kind: Kind,
    /// Bytes of one row.
    pub row_bytes: usize,
    /// Steps in 1, of a float that is rounded.
    pub per_unit: Option<f64>,
    /// Times a second that it is sent at most.
    pub rate: Option<f64>,
    /// The members of an enum by their number.
    pub members: Vec<(i32, Py<PyAny>)>,
    /// The class of an enum or entity.
    pub of: Option<Py<PyType>>,
}

/// The bytes of one row: most are a few.
pub enum Cell {
    /// The first ones of these.
    Small([u8; SMALL], usize),
    /// All of these.
    Large(Vec<u8>),
}

/// Three doubles, or the longest name that most games have.
const SMALL: usize = 24;

/// What is wrong with a value: to be told with the name of entity and column.
pub enum Wrong {
    /// It is of another type.
    Type(String),
    /// It is out of range, too long, or not finite.
    Value(String),
    /// It raised.
    Raised(PyErr),
}

impl Wrong {
    /// As an exception: `Player 12.hp = 70000: u16 holds 0 to 65535`.
    pub fn error(self, place: impl Display, value: &Bound<'_, PyAny>) -> PyErr {
        let text = |why: String| {
            let value = value.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string());
            let value: String = value.chars().take(80).collect();
            format!("{place} = {value}: {why}")
        };
        match self {
            Self::Type(why) => PyTypeError::new_err(text(why)),
            Self::Value(why) => PyValueError::new_err(text(why)),
            Self::Raised(error) => error,
        }
    }
}

impl Cell {
    /// Zeros.
    pub fn zero(len: usize) -> Self {
        if len <= SMALL { Self::Small([0; SMALL], len) } else { Self::Large(vec![0; len]) }
    }

    /// A copy.
    #[inline]
    pub fn copy(bytes: &[u8]) -> Self {
        let mut cell = Self::zero(bytes.len());
        cell.bytes_mut().copy_from_slice(bytes);
        cell
    }

    /// The row's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes, len) => &bytes[..*len],
            Self::Large(bytes) => bytes,
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes, len) => &mut bytes[..*len],
            Self::Large(bytes) => bytes,
        }
    }
}

impl Column {
    /// The row's bytes that `value` is.
    #[inline]
    pub fn encode(&self, value: &Bound<'_, PyAny>) -> Result<Cell, Wrong> {
        let mut cell = Cell::zero(self.row_bytes);
        let bytes = cell.bytes_mut();
        match &self.kind {
            Kind::Number(number) => self.encode_number(*number, value, bytes)?,
            Kind::Bool => bytes[0] = u8::from(self.bool_of(value)?),
            Kind::Enum(_) => bytes.copy_from_slice(&self.enum_of(value)?.to_ne_bytes()),
            Kind::Vector(number, dims) => {
                let items = sequence(value, "a vector")?;
                if items.len() != usize::from(*dims) {
                    return Err(Wrong::Value(format!("has {} numbers, the vector {dims}", items.len())));
                }
                for (item, place) in items.iter().zip(bytes.chunks_exact_mut(number.bytes())) {
                    self.encode_number(*number, item, place)?;
                }
            }
            Kind::Str(room) => {
                let text = value.cast::<PyString>().map_err(|_| Wrong::Type("it is no str".into()))?;
                let text = text.to_str().map_err(Wrong::Raised)?;
                if text.contains('\0') {
                    return Err(Wrong::Value("a text here can't hold a NUL".into()));
                }
                fill(bytes, text.as_bytes(), *room)?;
            }
            Kind::Bytes(room) => {
                let value = value.cast::<PyBytes>().map_err(|_| Wrong::Type("it is no bytes".into()))?;
                fill(bytes, value.as_bytes(), *room)?;
            }
            Kind::List(number, room) => {
                let items = sequence(value, "a list")?;
                if items.len() > usize::from(*room) {
                    return Err(Wrong::Value(format!("has {} items, MaxLen allows {room}", items.len())));
                }
                let (count, places) = bytes.split_at_mut(Kind::list_offset(*number));
                count[..4].copy_from_slice(&(items.len() as u32).to_ne_bytes());
                for (item, place) in items.iter().zip(places.chunks_exact_mut(number.bytes())) {
                    self.encode_number(*number, item, place)?;
                }
            }
            Kind::Reference(_) => bytes.copy_from_slice(&self.reference_of(value)?.to_ne_bytes()),
        }
        Ok(cell)
    }

    #[inline]
    fn encode_number(&self, number: Number, value: &Bound<'_, PyAny>, out: &mut [u8]) -> Result<(), Wrong> {
        match number {
            Number::F32 => {
                let float = self.float_of(value)?;
                let narrow = float as f32;
                let fits = narrow.is_finite()
                    && self.per_unit.is_none_or(|per_unit| {
                        quantize(float, per_unit).is_some_and(|quanta| i32::try_from(quanta).is_ok())
                    });
                if !fits {
                    return Err(self.not_finite(float, "f32"));
                }
                out.copy_from_slice(&narrow.to_ne_bytes());
            }
            Number::F64 => {
                let float = self.float_of(value)?;
                let fits = float.is_finite()
                    && self.per_unit.is_none_or(|per_unit| quantize(float, per_unit).is_some());
                if !fits {
                    return Err(self.not_finite(float, "f64"));
                }
                out.copy_from_slice(&float.to_ne_bytes());
            }
            Number::U64 => out.copy_from_slice(&unsigned_of(value)?.to_ne_bytes()),
            _ => {
                let int = int_of(value, number)?;
                let (low, high) = range(number);
                if !(low..=high).contains(&int) {
                    return Err(out_of_range(number));
                }
                // The low bytes are the narrow number, whatever its sign.
                let bytes = int.to_le_bytes();
                let len = out.len();
                out.copy_from_slice(&bytes[..len]);
                if cfg!(target_endian = "big") {
                    out.reverse();
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn float_of(&self, value: &Bound<'_, PyAny>) -> Result<f64, Wrong> {
        if let Ok(float) = value.cast_exact::<PyFloat>() {
            return Ok(float.value());
        }
        if value.is_instance_of::<PyString>() {
            return Err(Wrong::Type("it is no number".into()));
        }
        value.extract::<f64>().map_err(|error| of_another_type(value.py(), error, "it is no number"))
    }

    #[cold]
    fn not_finite(&self, float: f64, name: &str) -> Wrong {
        match self.per_unit {
            Some(per_unit) if float.is_finite() => {
                Wrong::Value(format!("too large for {name} in steps of {}", 1.0 / per_unit))
            }
            _ => Wrong::Value(format!("{name} has to be finite")),
        }
    }

    fn bool_of(&self, value: &Bound<'_, PyAny>) -> Result<bool, Wrong> {
        if let Ok(value) = value.cast::<PyBool>() {
            return Ok(value.is_true());
        }
        value.extract::<bool>().map_err(|error| of_another_type(value.py(), error, "it is no bool")) // NumPy's
    }

    fn enum_of(&self, value: &Bound<'_, PyAny>) -> Result<i32, Wrong> {
        let found = self.members.iter().find(|(_, member)| member.is(value));
        let name = || self.of.as_ref().map_or_else(String::new, |of| entity::name_of(of.bind(value.py())));
        found.map(|(number, _)| *number).ok_or_else(|| Wrong::Type(format!("it is no {}", name())))
    }

    fn reference_of(&self, value: &Bound<'_, PyAny>) -> Result<u64, Wrong> {
        if value.is_none() {
            return Ok(0);
        }
        let (Some(of), Ok(object)) = (&self.of, value.cast::<EntityBase>()) else {
            return Err(Wrong::Type("it is no entity".into()));
        };
        if !value.get_type().is(of.bind(value.py())) {
            return Err(Wrong::Type(format!("it is no {}", entity::name_of(of.bind(value.py())))));
        }
        match object.get().place() {
            Some(place) => Ok(place.handle.to_bits()),
            None => Err(Wrong::Value("it is of no world".into())),
        }
    }

    /// What Python sees of a row's bytes; of a reference, see [`entity::read`].
    #[inline]
    pub fn decode<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match &self.kind {
            Kind::Number(number) => number_at(py, *number, bytes),
            Kind::Bool => Ok(PyBool::new(py, bytes[0] != 0).to_owned().into_any()),
            Kind::Enum(_) => {
                let number = i32::from_ne_bytes(first(bytes));
                match self.members.iter().find(|(value, _)| *value == number) {
                    Some((_, member)) => Ok(member.bind(py).clone()),
                    None => number.into_pyobject(py).map(Bound::into_any).map_err(Into::into), // NumPy wrote it, before the diff
                }
            }
            Kind::Vector(number, _) => {
                let items = bytes.chunks_exact(number.bytes()).map(|item| number_at(py, *number, item));
                Ok(PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            Kind::Str(_) => {
                Ok(PyString::new(py, &String::from_utf8_lossy(without_padding(bytes))).into_any())
            }
            Kind::Bytes(_) => Ok(PyBytes::new(py, without_padding(bytes)).into_any()),
            Kind::List(number, room) => {
                let (count, places) = bytes.split_at(Kind::list_offset(*number));
                let count = u32::from_ne_bytes(first(count)).min(u32::from(*room)) as usize;
                let items = places.chunks_exact(number.bytes()).take(count);
                let items = items.map(|item| number_at(py, *number, item));
                Ok(PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            Kind::Reference(_) => Ok(py.None().into_bound(py)),
        }
    }
}

/// The handle in the bytes of a reference.
pub fn handle_at(bytes: &[u8]) -> Option<Handle> {
    Handle::from_bits(u64::from_ne_bytes(first(bytes)))
}

#[inline]
fn number_at<'py>(py: Python<'py>, number: Number, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let int: i64 = match number {
        Number::F32 => return Ok(PyFloat::new(py, f32::from_ne_bytes(first(bytes)).into()).into_any()),
        Number::F64 => return Ok(PyFloat::new(py, f64::from_ne_bytes(first(bytes))).into_any()),
        Number::U64 => {
            let int = u64::from_ne_bytes(first(bytes));
            return int.into_pyobject(py).map(Bound::into_any).map_err(Into::into);
        }
        Number::I8 => i8::from_ne_bytes(first(bytes)).into(),
        Number::I16 => i16::from_ne_bytes(first(bytes)).into(),
        Number::I32 => i32::from_ne_bytes(first(bytes)).into(),
        Number::I64 => i64::from_ne_bytes(first(bytes)),
        Number::U8 => u8::from_ne_bytes(first(bytes)).into(),
        Number::U16 => u16::from_ne_bytes(first(bytes)).into(),
        Number::U32 => u32::from_ne_bytes(first(bytes)).into(),
    };
    int.into_pyobject(py).map(Bound::into_any).map_err(Into::into)
}

/// The bytes of a column's value that a text or bytes is.
fn fill(out: &mut [u8], value: &[u8], room: u16) -> Result<(), Wrong> {
    if value.len() > usize::from(room) {
        return Err(Wrong::Value(format!("has {} bytes, MaxLen allows {room}", value.len())));
    }
    out[..value.len()].copy_from_slice(value);
    Ok(())
}

fn without_padding(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[inline]
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

fn sequence<'py>(value: &Bound<'py, PyAny>, what: &str) -> Result<Vec<Bound<'py, PyAny>>, Wrong> {
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(Wrong::Type(format!("it is no {what}", what = what.trim_start_matches("a "))));
    }
    let items =
        value.try_iter().map_err(|error| of_another_type(value.py(), error, &format!("it is not {what}")))?;
    // A list of ours has at most 65,535 items: what has more is refused by its length, without end is cut.
    items.take(ITEMS_MAX).collect::<PyResult<Vec<_>>>().map_err(Wrong::Raised)
}

const ITEMS_MAX: usize = 1 << 16;

#[inline]
fn int_of(value: &Bound<'_, PyAny>, number: Number) -> Result<i64, Wrong> {
    if value.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: a live int; nothing but the overflow can go wrong.
        let int = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
        return if overflow == 0 { Ok(int) } else { Err(out_of_range(number)) };
    }
    value
        .extract::<i128>()
        .map_err(|error| of_another_type(value.py(), error, "it is no whole number"))
        .and_then(|int| i64::try_from(int).map_err(|_| out_of_range(number)))
}

fn unsigned_of(value: &Bound<'_, PyAny>) -> Result<u64, Wrong> {
    let overflows = |_| out_of_range(Number::U64);
    match value.extract::<i128>() {
        Ok(int) => u64::try_from(int).map_err(overflows),
        Err(error) => Err(of_another_type(value.py(), error, "it is no whole number")),
    }
}

#[cold]
fn out_of_range(number: Number) -> Wrong {
    let (low, high) = range(number);
    let high = if number == Number::U64 { u64::MAX.into() } else { i128::from(high) };
    Wrong::Value(format!("{} holds {low} to {high}", number.name()))
}

/// Of a whole number that an `i64` holds.
fn range(number: Number) -> (i64, i64) {
    match number {
        Number::I8 => (i8::MIN.into(), i8::MAX.into()),
        Number::I16 => (i16::MIN.into(), i16::MAX.into()),
        Number::I32 => (i32::MIN.into(), i32::MAX.into()),
        Number::U8 => (0, u8::MAX.into()),
        Number::U16 => (0, u16::MAX.into()),
        Number::U32 => (0, u32::MAX.into()),
        Number::U64 => (0, i64::MAX),
        Number::I64 | Number::F32 | Number::F64 => (i64::MIN, i64::MAX),
    }
}

/// TypeErrors and overflows of a conversion say what we say; what the value's own code raised stays.
fn of_another_type(py: Python<'_>, error: PyErr, why: &str) -> Wrong {
    if error.is_instance_of::<PyTypeError>(py) {
        Wrong::Type(why.into())
    } else if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(py) {
        Wrong::Value("too large".into())
    } else {
        Wrong::Raised(error)
    }
}
