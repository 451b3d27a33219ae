//! asyncio, the guest in our loop: what it has to do, and which of its descriptors are ready.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use server::peers::Foreign;

/// asyncio's loop, as far as a turn has to know it.
pub struct Guest {
    event_loop: Py<PyAny>,
    /// A deque of what is to be called, the same for ever.
    ready: Py<PyAny>,
    /// The selector's keys, by descriptor.
    keys: Py<PyDict>,
}

impl Guest {
    pub fn new(event_loop: &Bound<'_, PyAny>, keys: Py<PyDict>) -> PyResult<Arc<Self>> {
        let ready = event_loop.getattr("_ready")?.unbind();
        Ok(Arc::new(Self { event_loop: event_loop.clone().unbind(), ready, keys }))
    }

    /// How many timers asyncio has: while it waits, they only become more.
    pub fn timers(&self, py: Python<'_>) -> PyResult<usize> {
        self.event_loop.bind(py).getattr(intern!(py, "_scheduled"))?.len()
    }

    /// Whether there is nothing to be called, and no timer that there was not.
    pub fn is_idle(&self, py: Python<'_>, timers: usize) -> PyResult<bool> {
        Ok(self.ready.bind(py).len()? == 0 && self.timers(py)? == timers)
    }

    /// The keys of ready descriptors, each with the events that it waited for.
    pub fn keys<'py>(&self, py: Python<'py>, ready: &[Foreign]) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for foreign in ready {
            if let Some(key) = self.keys.bind(py).get_item(foreign.fd)? {
                let wanted: i32 = key.getattr("events")?.extract()?;
                let mask = (i32::from(foreign.read) | i32::from(foreign.write) << 1) & wanted;
                list.append((key, mask))?;
            }
        }
        Ok(list)
    }
}
