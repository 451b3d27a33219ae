//! What surrounds a batch of calls into the game: a context of `contextvars` that no handler leaves its traces in.
//!
//! asyncio gives each callback a copy of the context; a copy per message would cost more than many a handler does. So calls
//! run in a shared copy, which is replaced only after one that has set a variable: a comparison of two pointers tells (see
//! [`crate::context`]).

use std::cell::Cell;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::app::Shared;
use crate::cell::{Entered, Here};
use crate::context::Variables;
use crate::state::State;

/// A server whose game is being called; the context is left when it is dropped.
pub struct Scope<'a, 'py> {
    py: Python<'py>,
    core: &'a Arc<Shared>,
    here: Here,
    clean: Bound<'py, PyAny>,
    compare: ffi::richcmpfunc,
    /// Entered; empty only while it is being compared or replaced.
    current: Cell<Option<Bound<'py, PyAny>>>,
    /// Of `clean`, and of `current`.
    variables: (Variables, Cell<Variables>),
}

/// The contexts of a server between two scopes.
pub struct Contexts {
    /// As it was when the first call came; never entered.
    clean: Py<PyAny>,
    /// A copy for the next scope; none while a scope has it.
    spare: Option<Py<PyAny>>,
}

impl<'a, 'py> Scope<'a, 'py> {
    /// Enters the server's context.
    #[inline]
    pub fn open(py: Python<'py>, core: &'a Arc<Shared>) -> PyResult<Self> {
        let mut state = core.enter()?;
        let here = state.here();
        let kept = state.contexts.as_mut().map(|kept| (kept.clean.clone_ref(py), kept.spare.take()));
        drop(state);
        let (clean, spare) = match kept {
            Some((clean, spare)) => (clean.into_bound(py), spare.map(|spare| spare.into_bound(py))),
            None => {
                let clean = copy_current(py)?;
                core.enter()?.contexts = Some(Contexts { clean: clean.clone().unbind(), spare: None });
                (clean, None)
            }
        };
        let current = match spare {
            Some(spare) => spare,
            None => copy(&clean)?,
        };
        enter(&current)?;
        // SAFETY: a type is read whose object is alive.
        let compare = unsafe { (*ffi::Py_TYPE(clean.as_ptr())).tp_richcompare };
        let compare = compare.unwrap_or(ffi::PyObject_RichCompare);
        let variables = (Variables::of(&clean), Cell::new(Variables::of(&current)));
        Ok(Self { py, core, here, clean, compare, current: Cell::new(Some(current)), variables })
    }

    /// The server's state; never held while Python runs. Who has a scope is on the right thread: asked once, not per message.
    #[inline]
    pub fn enter(&self) -> PyResult<Entered<'a, State>> {
        self.core.enter_again(self.here)
    }

    /// The server.
    pub fn shared(&self) -> &'a Arc<Shared> {
        self.core
    }

    /// A call has ended: what it set in the context is gone for the next one.
    #[inline(always)] // once per message
    pub fn settle(&self) -> PyResult<()> {
        let (clean, current) = &self.variables;
        // SAFETY: both contexts are kept by this scope, and the interpreter is attached.
        if unsafe { current.get().are(*clean) } { Ok(()) } else { self.settle_changed() }
    }

    #[inline(never)] // keeps `settle` small
    fn settle_changed(&self) -> PyResult<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if self.is_clean(&current) {
            self.current.set(Some(current));
            return Ok(());
        }
        self.replace(&current)
    }

    /// Whether a context is as it was before any call.
    #[inline(always)] // once per message
    pub fn is_clean(&self, context: &Bound<'_, PyAny>) -> bool {
        // SAFETY: both are live contexts, `compare` is their type's, and the interpreter is attached; it returns a new
        // reference, or null with an exception.
        let same = unsafe {
            let same = (self.compare)(context.as_ptr(), self.clean.as_ptr(), ffi::Py_EQ);
            Bound::from_owned_ptr_or_opt(self.py, same)
        };
        let Some(same) = same else {
            drop(PyErr::take(self.py)); // of a variable whose value can't be compared
            return false;
        };
        // SAFETY: it only tells the address of an object that always lives.
        same.as_ptr() == unsafe { ffi::Py_True() }
    }

    /// A context of its own for a task.
    pub fn fresh_context(&self) -> PyResult<Py<PyAny>> {
        Ok(copy(&self.clean)?.unbind())
    }

    #[cold]
    fn replace(&self, current: &Bound<'py, PyAny>) -> PyResult<()> {
        self.variables.1.set(Variables::UNKNOWN); // should anything fail, nobody keeps `current`
        exit(current)?;
        let fresh = copy(&self.clean)?;
        enter(&fresh)?;
        self.variables.1.set(Variables::of(&fresh));
        self.current.set(Some(fresh));
        Ok(())
    }
}

impl Drop for Scope<'_, '_> {
    fn drop(&mut self) {
        let Some(current) = self.current.take() else { return };
        if exit(&current).is_err() {
            return;
        }
        if let Ok(mut state) = self.enter()
            && let Some(contexts) = &mut state.contexts
            && contexts.spare.is_none()
        {
            contexts.spare = Some(current.unbind());
        }
    }
}

fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: it returns a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

fn copy<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `context` is a live context; it returns a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr())) }
}

/// Enters a context.
pub fn enter(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: `context` is a live context.
    done(context.py(), unsafe { ffi::PyContext_Enter(context.as_ptr()) })
}

/// Leaves the context that was entered last.
pub fn exit(context: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: `context` is a live context.
    done(context.py(), unsafe { ffi::PyContext_Exit(context.as_ptr()) })
}

fn done(py: Python<'_>, code: i32) -> PyResult<()> {
    if code == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}
