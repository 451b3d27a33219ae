//! The replicated world: entities as columns, what changed in them, and who is told. No I/O, no clock.
//!
//! A game writes columns ([`World::column`], [`World::value_mut`]); once per tick [`World::end_tick`] compares them with what was
//! last sent, and encodes what changed once per cell of a grid; [`World::snapshot`] is the list of what one viewer is to be
//! sent of it; [`Replica`] is what its client makes of that.

mod baseline;
mod blocks;
mod copy;
mod document;
mod encode;
mod grid;
mod handle;
mod memory;
mod replica;
mod shape;
mod spatial;
mod table;
mod value;
mod varint;
mod view;
mod world;

pub use blocks::Part;
pub use copy::{CopyError, TableCopy, WorldCopy};
pub use grid::Cell;
pub use handle::Handle;
pub use memory::{Memory, RawColumn};
pub use replica::{Change, Replica, ReplicaError};
pub use shape::{
    Audience, ColumnShape, Kind, Number, Placement, ROWS_MAX, ShapeError, TableShape, WorldShape,
};
pub use table::write_value;
pub use value::{Value, quantize};
pub use view::{View, ViewerKey};
pub use world::{Fault, Faults, Phase, World};
