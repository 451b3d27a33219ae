//! Calls of the game's functions by the shortest way that C has.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

/// Calls `function` with two arguments, by position.
///
/// A function of Python's own is called as the interpreter calls it: by the pointer that it carries, which is asked for each
/// time, as a debugger may change it. All else goes by the general way, which asks what the object can.
#[inline(always)] // once per message
pub fn call2<'py>(
    function: &Bound<'py, PyAny>,
    one: &Bound<'_, PyAny>,
    two: &Bound<'_, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let object = function.as_ptr();
    // In front is a place that who is called may use.
    let arguments = [ptr::null_mut(), one.as_ptr(), two.as_ptr()];
    let count = 2 | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
    // SAFETY: function and arguments are alive and outlive the call, and the interpreter is attached. Only what is
    // exactly a function is read as one. Either way gives a new reference, or null with an exception.
    unsafe {
        let by_pointer = match ffi::PyFunction_Check(object) {
            0 => None,
            _ => (*object.cast::<ffi::PyFunctionObject>()).vectorcall,
        };
        let call = by_pointer.unwrap_or(ffi::PyObject_Vectorcall);
        let result = call(object, arguments[1..].as_ptr(), count, ptr::null_mut());
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}
