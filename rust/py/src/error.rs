//! Exceptions of `gameserver.errors`, raised from Rust.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// One exception class of `gameserver.errors`, imported when first raised.
pub struct Exception {
    name: &'static str,
    class: PyOnceLock<Py<PyAny>>,
}

/// Bytes that break the wire's rules.
pub static PROTOCOL_ERROR: Exception = Exception::new("ProtocolError");
/// A message that does not fit its declaration, or a declaration that cannot be.
pub static SCHEMA_ERROR: Exception = Exception::new("SchemaError");
/// The entity was despawned.
pub static ENTITY_GONE: Exception = Exception::new("EntityGone");
/// The session is gone.
pub static SESSION_CLOSED: Exception = Exception::new("SessionClosed");
/// A mistake in the game's code or settings.
pub static CONFIG_ERROR: Exception = Exception::new("ConfigError");
/// What a handler raises to answer with a code and a text.
pub static REFUSE: Exception = Exception::new("Refuse");

impl Exception {
    const fn new(name: &'static str) -> Self {
        Self { name, class: PyOnceLock::new() }
    }

    /// The class itself.
    pub fn class<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let class = self.class.get_or_try_init(py, || {
            Ok::<_, PyErr>(py.import("gameserver.errors")?.getattr(self.name)?.unbind())
        })?;
        Ok(class.bind(py))
    }

    /// An exception with this text.
    pub fn err(&self, py: Python<'_>, text: impl Into<String>) -> PyErr {
        match self.class(py).and_then(|class| class.call1((text.into(),))) {
            Ok(value) => PyErr::from_value(value),
            Err(error) => error,
        }
    }

    /// Whether `error` is one of these.
    pub fn matches(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.class(py).is_ok_and(|class| error.is_instance(py, class))
    }
}
