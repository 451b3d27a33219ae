//! How another thread ends a reactor's wait.

use crate::sys;
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes one reactor: its wait returns with [`crate::reactor::Ready::Woken`]. A clone wakes the same reactor.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { counter: sys::wake_counter()?, woken: AtomicBool::new(false) }) })
    }

    /// Wakes the reactor. From the first call until the reactor has told of it, further ones cost no system call: a
    /// burst is one wake.
    #[inline]
    pub fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            sys::wake(&self.shared.counter);
        }
    }

    /// The wake is about to be told. A wake after this is a new one, so whoever looks at what woke it after it was
    /// told misses nothing.
    pub(crate) fn told(&self) {
        self.shared.woken.swap(false, Ordering::AcqRel);
    }

    /// The wake was seen but not told.
    pub(crate) fn wake_again(&self) {
        sys::wake(&self.shared.counter);
    }

    pub(crate) fn counter(&self) -> &OwnedFd {
        &self.shared.counter
    }
}

#[derive(Debug)]
struct Shared {
    counter: OwnedFd,
    woken: AtomicBool,
}
