//! Whether two contexts of `contextvars` have the very same variables.
//!
//! The variables are an immutable map, and a context points to it: setting one points it to another map. Where in a context
//! that pointer stands, CPython says to nobody outside; so it is found by trial, and done without where it is not found.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Where a context says which variables it has; null: not known.
#[derive(Clone, Copy)]
pub struct Variables(*const usize);

impl Variables {
    /// Of no context.
    pub const UNKNOWN: Self = Self(std::ptr::null());

    /// Of this context.
    pub fn of(context: &Bound<'_, PyAny>) -> Self {
        static INDEX: PyOnceLock<Option<usize>> = PyOnceLock::new();
        let py = context.py();
        // An error: contexts of this interpreter are another thing altogether.
        match *INDEX.get_or_init(py, || find(py).unwrap_or(None)) {
            // SAFETY: the index is of a word of an object of this type.
            Some(index) => Self(unsafe { context.as_ptr().cast::<usize>().add(index) }),
            None => Self::UNKNOWN,
        }
    }

    /// Whether they are those of `other`; false if that is not known.
    ///
    /// # Safety
    /// Both contexts, if they are known, are alive, and the interpreter is attached.
    #[inline(always)] // once per message
    pub unsafe fn are(self, other: Self) -> bool {
        // SAFETY: as the caller says; only who holds the interpreter writes to these words.
        !self.0.is_null() && unsafe { *self.0 == *other.0 }
    }
}

/// The index of the word: the only one that is the same in two copies, and another one after a variable was set.
fn find(py: Python<'_>) -> PyResult<Option<usize>> {
    let contextvars = py.import("contextvars")?;
    let variable = contextvars.getattr("ContextVar")?.call1(("gameserver: which word changes",))?;
    let here = contextvars.getattr("copy_context")?.call0()?;
    let (one, other) = (here.call_method0("copy")?, here.call_method0("copy")?);
    let (same, before) = (words(&one), words(&other));
    other.call_method1("run", (variable.getattr("set")?, 1))?;
    let after = words(&other);
    let mut found = (0..before.len()).filter(|&at| same[at] == before[at] && before[at] != after[at]);
    Ok(found.next().filter(|_| found.next().is_none()))
}

/// What an object's memory holds, but for what its class keeps elsewhere.
fn words(object: &Bound<'_, PyAny>) -> Vec<usize> {
    let start = object.as_ptr().cast::<usize>();
    // SAFETY: an object's memory is aligned as a pointer is, and as long as its type says; the interpreter is attached.
    unsafe {
        let count = (*ffi::Py_TYPE(object.as_ptr())).tp_basicsize as usize / size_of::<usize>();
        (0..count).map(|at| *start.add(at)).collect()
    }
}
