//! A message's way through a handler without sockets, for the bench.

use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::message::{decode_body, encode_into};

/// Nanoseconds per call of `handler`, from a body in memory to the body of its answer in memory. With a class, the handler gets
/// and returns messages, as the server has it; without, bytes.
#[pyfunction]
#[pyo3(signature = (handler, cls, body, rounds))]
pub fn message_micro(
    handler: &Bound<'_, PyAny>,
    cls: Option<&Bound<'_, PyType>>,
    body: &[u8],
    rounds: u32,
) -> PyResult<f64> {
    let py = handler.py();
    let mut out = Vec::new();
    let began = Instant::now();
    for _ in 0..rounds {
        out.clear();
        match cls {
            Some(cls) => encode_into(&handler.call1((decode_body(cls, body)?,))?, &mut out)?,
            None => {
                let answer = handler.call1((PyBytes::new(py, body),))?;
                out.extend_from_slice(answer.cast::<PyBytes>()?.as_bytes());
            }
        }
    }
    let spent = began.elapsed().as_nanos() as f64;
    if out.is_empty() {
        return Err(PyValueError::new_err("the handler answered with nothing"));
    }
    Ok(spent / f64::from(rounds))
}
