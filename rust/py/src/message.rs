//! `Message`: Python classes with slots, read from and written to protobuf without a detour.
//!
//! `class.rs` is what the core keeps of a class, `object.rs` an instance's life, `codec.rs` joins both to a schema's
//! plans, `sink.rs` and `source.rs` are the two directions. `gameserver/_message.py` is their face.

mod again;
mod class;
mod codec;
mod describe;
mod json;
mod micro;
mod object;
mod protos;
mod sink;
mod source;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::pyclass::CompareOp;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

use crate::error::PROTOCOL_ERROR;
use crate::scratch::with_buffer;

pub use codec::Codec;
pub use describe::{Description, decode_error};
pub use object::is_ours_alone;

/// Adds all of it to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MessageBase>()?;
    class::register(module)?;
    module.add_function(wrap_pyfunction!(micro::message_micro, module)?)?;
    module.add_function(wrap_pyfunction!(protos::message_schema_of_files, module)?)?;
    module.add_function(wrap_pyfunction!(protos::message_schema_of_set, module)?)?;
    module.add_function(wrap_pyfunction!(message_install, module)?)?;
    module.add_function(wrap_pyfunction!(message_prepare, module)?)?;
    module.add_function(wrap_pyfunction!(message_restore, module)?)?;
    Ok(())
}

/// What an instance of a message class can do; `gameserver.Message` derives from it.
#[pyclass(module = "gameserver._core", subclass, frozen)]
pub struct MessageBase;

#[pymethods]
impl MessageBase {
    #[new]
    #[pyo3(signature = (*_arguments, **_named))]
    fn new(_arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        Self // `object::adopt` puts another function in place of this one
    }

    #[pyo3(signature = (*arguments, **named))]
    fn __init__(
        slf: &Bound<'_, Self>,
        arguments: &Bound<'_, PyTuple>,
        named: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        object::init(slf.as_any(), arguments, named)
    }

    /// The message as protobuf.
    fn encode<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyBytes>> {
        with_buffer(|out| {
            encode_into(slf.as_any(), out)?;
            Ok(PyBytes::new(slf.py(), out))
        })
    }

    /// A message from protobuf.
    #[classmethod]
    #[pyo3(signature = (data, /))]
    fn decode<'py>(cls: &Bound<'py, PyType>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match data.cast::<PyBytes>() {
            Ok(bytes) => decode_body(cls, bytes.as_bytes()),
            Err(_) => decode_body(cls, &data.extract::<PyBackedBytes>()?),
        }
    }

    /// What `to_json` writes, as a dict.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let ty = slf.get_type();
        json::to_dict(class::of(&ty)?.codec(slf.py())?, slf.as_any())
    }

    /// The message as JSON.
    fn to_json<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let encode = ENCODE.import(slf.py(), "msgspec.json", "encode")?;
        encode.call1((Self::to_dict(slf)?,))?.call_method0("decode")
    }

    /// A message from JSON.
    #[classmethod]
    fn from_json<'py>(cls: &Bound<'py, PyType>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static DECODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = cls.py();
        let codec = class::of(cls)?.codec(py)?;
        let decode = DECODE.import(py, "msgspec.json", "decode")?;
        let value = decode.call1((data,)).map_err(|error| {
            if error.is_instance_of::<PyTypeError>(py) {
                return error; // neither bytes nor str
            }
            PROTOCOL_ERROR
                .err(py, format!("{}: not JSON: {}", codec.root().class().name(py), error.value(py)))
        })?;
        json::from_dict(codec, &value)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let ty = slf.get_type();
        let class = class::of(&ty)?;
        // SAFETY: the interpreter is held; left below as often as entered.
        let entered = unsafe { pyo3::ffi::Py_ReprEnter(slf.as_ptr()) };
        if entered != 0 {
            return if entered < 0 { Err(PyErr::fetch(py)) } else { Ok(format!("{}(...)", class.name(py))) };
        }
        let parts: PyResult<Vec<String>> = object::attributes(class, slf.as_any())
            .filter_map(|(name, value)| value.map(|value| Ok(format!("{name}={}", value.repr()?))))
            .collect();
        // SAFETY: as above.
        unsafe { pyo3::ffi::Py_ReprLeave(slf.as_ptr()) };
        Ok(format!("{}({})", class.name(py), parts?.join(", ")))
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !matches!(op, CompareOp::Eq | CompareOp::Ne) || !slf.get_type().is(other.get_type()) {
            return Ok(py.NotImplemented());
        }
        let ty = slf.get_type();
        let class = class::of(&ty)?;
        let mut equal = true;
        for ((_, left), (_, right)) in object::attributes(class, slf).zip(object::attributes(class, other)) {
            equal = match (left, right) {
                (Some(left), Some(right)) => left.is(&right) || left.eq(&right)?,
                (left, right) => left.is_none() && right.is_none(),
            };
            if !equal {
                break;
            }
        }
        Ok((equal == matches!(op, CompareOp::Eq)).into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        object::copy(slf.as_any())
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        object::deep_copy(slf.as_any())
    }

    /// A copy with some attributes replaced: `copy.replace`.
    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(
        slf: &Bound<'py, Self>,
        changes: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ty = slf.get_type();
        let class = class::of(&ty)?;
        let new = object::copy(slf.as_any())?;
        for (name, value) in changes.into_iter().flatten() {
            let name = name.cast_into::<PyString>()?;
            if !class.names.iter().any(|own| own.bind(slf.py()) == name.to_cow().as_deref().unwrap_or("")) {
                let class = class.name(slf.py());
                return Err(PyTypeError::new_err(format!("{class} has no field {name}")));
            }
            new.setattr(name, value)?;
        }
        Ok(new)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let ty = slf.get_type();
        let class = class::of(&ty)?;
        let values = object::attributes(class, slf.as_any())
            .map(|(_, value)| value.unwrap_or_else(|| py.None().into_bound(py)));
        let values = PyTuple::new(py, values.collect::<Vec<_>>())?;
        let restore = py.import("gameserver._core")?.getattr("message_restore")?;
        PyTuple::new(py, [restore, PyTuple::new(py, [ty.into_any(), values.into_any()])?.into_any()])
    }
}

/// An instance of `cls`, read from a body.
///
/// # Errors
/// TypeError: no message class. ProtocolError: not protobuf. SchemaError: a value that the class forbids, or a class that cannot be.
#[inline]
pub fn decode_body<'py>(cls: &Bound<'py, PyType>, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    class::of(cls)?.codec(cls.py())?.decode(cls.py(), body)
}

/// How a class is read and written; made at first use.
///
/// # Errors
/// TypeError: no message class. SchemaError: a class that cannot be.
#[inline]
pub fn codec<'a>(cls: &'a Bound<'_, PyType>) -> PyResult<&'a Codec> {
    class::of(cls)?.codec(cls.py())
}

/// Appends a message's bytes; whatever fails, `out` is as before.
///
/// # Errors
/// TypeError: no message, or an attribute is of a wrong type. ValueError: an attribute's value is not allowed.
#[inline]
pub fn encode_into(message: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let ty = message.get_type();
    class::of(&ty)?.codec(message.py())?.encode(message, out)
}

/// Gives a new class its part in the core.
#[pyfunction]
fn message_install(
    cls: &Bound<'_, PyType>,
    defaults: &Bound<'_, PyDict>,
    lenient: bool,
    collected: bool,
) -> PyResult<()> {
    class::install(cls, defaults, lenient, collected)
}

/// Makes the codec of a class now, to find its mistakes.
#[pyfunction]
fn message_prepare(cls: &Bound<'_, PyType>) -> PyResult<()> {
    class::of(cls)?.codec(cls.py()).map(drop)
}

/// What pickle makes an instance with.
#[pyfunction]
fn message_restore<'py>(
    cls: &Bound<'py, PyType>,
    values: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    object::restore(cls, values)
}
