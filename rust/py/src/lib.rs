//! `gameserver._core`: what Python sees of the Rust core.
//!
//! Conversion, errors, dispatch, the entry guard; nothing else in the house knows Python.

mod app;
mod batch;
mod call;
mod carrier;
mod cell;
mod context;
mod dispatch;
mod error;
mod guest;
mod handler;
mod message;
mod micro;
mod push;
mod replay;
mod room;
mod schema;
mod scope;
mod scratch;
mod seat;
mod session;
mod state;
mod stats;
mod swarm;
mod task;
mod typed;
mod value;
mod wire;
mod world;

use pyo3::prelude::*;

#[pymodule(name = "_core", gil_used = true)]
mod core_module {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::app::Core;
    #[pymodule_export]
    use crate::room::CoreRooms;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::swarm::SwarmRun;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::message::register(module)?;
        crate::schema::register(module)?;
        crate::world::register(module)?;
        crate::wire::register(module)
    }
}
