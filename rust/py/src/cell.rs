//! State that belongs to the logic thread.
//!
//! Python may call in from anywhere: from a handler in the middle of a turn, from a foreign thread, from a forked child.
//! Each entry is checked here, once, so that nothing behind it needs a lock.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use pyo3::PyErr;
use pyo3::exceptions::PyRuntimeError;

/// A value that only the thread which claimed it may enter, one entry at a time.
pub struct LogicCell<T> {
    thread: AtomicUsize,
    forked: AtomicBool,
    entered: Cell<bool>,
    /// How often somebody has entered who had not proved before to be on the thread.
    visits: Cell<usize>,
    value: UnsafeCell<T>,
}

// SAFETY: `enter` lets in the claiming thread alone, so `entered` and `value` are never touched by two threads; of a released cell,
// whoever holds the interpreter, which guards of such cells never outlast;
// `T: Send` because the claiming thread may be another one than the thread that made or drops it.
unsafe impl<T: Send> Sync for LogicCell<T> {}

impl<T> LogicCell<T> {
    /// A cell that the current thread may enter.
    pub fn new(value: T) -> Self {
        Self {
            thread: AtomicUsize::new(this_thread()),
            forked: AtomicBool::new(false),
            entered: Cell::new(false),
            visits: Cell::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the cell for the current thread alone, if nobody has entered it.
    pub fn claim(&self) {
        self.thread.store(this_thread(), Relaxed);
    }

    /// Lets any thread enter, one at a time: with the interpreter held, and no guard ever kept while it is given away.
    pub fn release(&self) {
        self.thread.store(ANYBODY, Relaxed);
    }

    /// Says that this is a forked child, where nothing works any more.
    pub fn forked(&self) {
        self.forked.store(true, Relaxed);
    }

    /// The value, until the guard is dropped. Never hold the guard while Python runs.
    #[inline]
    pub fn enter(&self) -> Result<Entered<'_, T>, PyErr> {
        let thread = self.thread.load(Relaxed);
        if thread != this_thread() && thread != ANYBODY || self.forked.load(Relaxed) {
            return Err(self.refuse());
        }
        if self.entered.replace(true) {
            return Err(twice());
        }
        self.visits.set(self.visits.get().wrapping_add(1));
        Ok(Entered { cell: self, stays: PhantomData })
    }

    /// As [`LogicCell::enter`], for who has proved on this cell to be on its thread.
    #[inline]
    pub fn enter_again(&self, here: Here) -> Result<Entered<'_, T>, PyErr> {
        let Here(_) = here;
        if self.forked.load(Relaxed) {
            return Err(self.refuse()); // a handler has forked: the child goes no further
        }
        if self.entered.replace(true) {
            return Err(twice());
        }
        Ok(Entered { cell: self, stays: PhantomData })
    }

    #[cold]
    fn refuse(&self) -> PyErr {
        PyRuntimeError::new_err(if self.forked.load(Relaxed) {
            "this process was forked from a running server: start processes with spawn, or fork before app.run()"
        } else {
            "called from a thread that is not the server's: use app.call_soon_threadsafe(function, ...) from other threads"
        })
    }
}

/// Shown by who has entered a cell: it stays on the cell's thread.
#[derive(Clone, Copy)]
pub struct Here(PhantomData<*const ()>);

#[cold]
fn twice() -> PyErr {
    PyRuntimeError::new_err("the core was entered twice: please report this as a defect")
}

/// The value of a [`LogicCell`], entered.
pub struct Entered<'a, T> {
    cell: &'a LogicCell<T>,
    stays: PhantomData<*const ()>, // on its thread
}

impl<T> Entered<'_, T> {
    /// How often the cell was entered, but for [`LogicCell::enter_again`].
    #[inline]
    pub fn visits(&self) -> usize {
        self.cell.visits.get()
    }

    /// For [`LogicCell::enter_again`] of the same cell.
    pub fn here(&self) -> Here {
        Here(self.stays)
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `entered` is set and only this guard clears it: no other reference exists.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard itself is borrowed mutably.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.entered.set(false);
    }
}

/// In place of a thread: the address of nothing.
const ANYBODY: usize = 0;

/// A number that no other living thread has.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}
