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

/// See [`Guest::timers`].
pub struct Timers<'py> {
    list: Bound<'py, PyAny>,
    count: usize,
}

impl Guest {
    pub fn new(event_loop: &Bound<'_, PyAny>, keys: Py<PyDict>) -> PyResult<Arc<Self>> {
        let ready = event_loop.getattr("_ready")?.unbind();
        Ok(Arc::new(Self { event_loop: event_loop.clone().unbind(), ready, keys }))
    }

    /// The timers that asyncio has as it begins to wait: meanwhile they only become more, in the same list.
    pub fn timers<'py>(&self, py: Python<'py>) -> PyResult<Timers<'py>> {
        let list = self.event_loop.bind(py).getattr(intern!(py, "_scheduled"))?;
        Ok(Timers { count: list.len()?, list })
    }

    /// Whether there is nothing to be called, and no timer that there was not.
    pub fn is_idle(&self, py: Python<'_>, timers: &Timers<'_>) -> PyResult<bool> {
        Ok(self.ready.bind(py).len()? == 0 && timers.list.len()? == timers.count)
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
