//! Columns as buffers: memory of the world that NumPy's arrays look at, for as long as they do.

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use world::RawColumn;

/// The first rows of a column, as bytes.
#[pyclass(frozen, module = "gameserver._core")]
pub struct ColumnBuffer {
    column: RawColumn,
    len: usize,
}

// SAFETY: it is a range of a mapping that it keeps alive. Python's threads touch it one at a time, under the interpreter's lock,
// as they do any array; the world does too, in turns.
unsafe impl Send for ColumnBuffer {}
// SAFETY: as above.
unsafe impl Sync for ColumnBuffer {}

impl ColumnBuffer {
    /// Of the first `rows` rows; fewer if there are not as many.
    pub fn new(column: RawColumn, rows: usize) -> Self {
        let len = column.rows.min(rows) * column.stride;
        Self { column, len }
    }
}

#[pymethods]
impl ColumnBuffer {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let this = slf.get();
        // SAFETY: the first `len` bytes at the pointer are readable and writable as long as the column's `memory`, which this object
        // keeps, and which the view keeps by its reference to this object.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                this.column.pointer.cast::<c_void>(),
                this.len as ffi::Py_ssize_t,
                0,
                flags,
            )
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }

    fn __len__(&self) -> usize {
        self.len
    }
}
