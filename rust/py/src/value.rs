//! Bodies: what Python gives, as bytes; what the wire gives, as Python.

use std::borrow::Cow;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};
use wire::handshake::Serializer;

use crate::typed;

/// A body on its way to the wire.
pub enum Body<'a, 'py> {
    /// `None`: empty, or `null` where JSON was agreed.
    Empty,
    /// Bytes as the game gave them.
    Raw(&'a Bound<'py, PyBytes>),
    /// JSON text, ASCII only.
    Json(Bound<'py, PyBytes>),
    /// A message: its bytes depend on the client.
    Message(&'a Bound<'py, PyAny>),
}

impl<'a, 'py> Body<'a, 'py> {
    /// `bytes` as they are, `None` as empty, messages as the client agreed, all else as JSON by msgspec.
    #[inline]
    pub fn new(value: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Body::Raw(bytes));
        }
        if value.is_none() {
            return Ok(Body::Empty);
        }
        if typed::is_message(value)? {
            return Ok(Body::Message(value));
        }
        Self::json(value)
    }

    /// The bytes for a client of this serializer; a message's are put into `buffer`.
    pub fn bytes<'b>(&'b self, serializer: Serializer, buffer: &'b mut Vec<u8>) -> PyResult<&'b [u8]> {
        let Body::Message(message) = self else { return Ok(self.as_bytes()) };
        typed::write(message, serializer, buffer)?;
        Ok(buffer)
    }

    fn json(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = value.py();
        static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let encode = ENCODE.get_or_try_init(py, || {
            let encoder = py.import("msgspec.json")?.getattr("Encoder")?.call0()?;
            Ok::<_, PyErr>(encoder.getattr("encode")?.unbind())
        })?;
        if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
            // bytearray and memoryview would be base64 text in JSON; the game means the bytes.
            let bytes = py.get_type::<PyBytes>().call1((value,))?.cast_into::<PyBytes>()?;
            return Ok(Body::Json(bytes));
        }
        let text = encode.bind(py).call1((value,)).map_err(|error| {
            PyTypeError::new_err(format!(
                "body of type {}: bytes, None, or what JSON can hold ({})",
                value.get_type().qualname().map_or_else(|_| "?".into(), |name| name.to_string()),
                error.value(py)
            ))
        })?;
        let text = text.cast_into::<PyBytes>()?;
        match wire::json_text::escape_ascii(text.as_bytes()) {
            Cow::Borrowed(_) => Ok(Body::Json(text)),
            Cow::Owned(escaped) => Ok(Body::Json(PyBytes::new(py, &escaped))),
        }
    }

    /// The bytes that are the same for every client; none of an empty body, or of a message.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Body::Empty | Body::Message(_) => b"",
            Body::Raw(bytes) => bytes.as_bytes(),
            Body::Json(bytes) => bytes.as_bytes(),
        }
    }
}

/// A route as Python gives it: 1 to 255 bytes of UTF-8.
pub fn route<'a>(route: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    let text = route.to_str()?;
    if (1..=255).contains(&text.len()) {
        return Ok(text);
    }
    Err(pyo3::exceptions::PyValueError::new_err(format!(
        "route of {} bytes: 1 to 255 fit on the wire",
        text.len()
    )))
}
