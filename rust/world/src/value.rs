//! One value, whatever its column; and rounding, the same on both sides.

use std::fmt;

use crate::handle::Handle;

/// One value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number, or an enum's.
    Int(i128),
    /// A float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Two or three floats.
    Vector(Vec<f64>),
    /// Text without NULs.
    Str(String),
    /// Bytes; NULs at the end are not kept.
    Bytes(Vec<u8>),
    /// An entity, or none.
    Reference(Option<Handle>),
    /// Numbers.
    List(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(int) => int.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Bool(bool) => bool.fmt(f),
            Self::Vector(items) => write!(f, "{items:?}"),
            Self::Str(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Reference(None) => f.write_str("none"),
            Self::Reference(Some(handle)) => handle.fmt(f),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// How many steps `value` is, to the nearest, half to even; `per_unit` is the steps in 1. `None` beyond what a double holds
/// exactly, and for NaN.
#[inline(always)]
pub fn quantize(value: f64, per_unit: f64) -> Option<i64> {
    let scaled = value * per_unit;
    (scaled.abs() <= QUANTA_MAX).then(|| round(scaled))
}

/// The nearest whole number of a float of at most [`QUANTA_MAX`]: adding 1.5 * 2^52 leaves no room for a fraction, and the
/// whole number in the low bits. Unlike a conversion, compilers make vector instructions of it.
#[inline(always)]
pub(crate) fn round(scaled: f64) -> i64 {
    (scaled + SHIFTER).to_bits().wrapping_sub(SHIFTER.to_bits()) as i64
}

pub(crate) const QUANTA_MAX: f64 = (1_i64 << 50) as f64;
/// What a rounded `f32` may have, so that it fits an `i32`.
pub(crate) const QUANTA_MAX_NARROW: f64 = i32::MAX as f64;
const SHIFTER: f64 = 6_755_399_441_055_744.0;
