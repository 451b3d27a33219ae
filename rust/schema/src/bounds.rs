//! What is refused beyond a value's type: ranges, lengths, floats that are no number.

use std::fmt;

use crate::plan::Scalar;

/// Bounds of one field. Checked when bytes are read, and again when they are written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Of the value; of each item of a list; of each value of a map.
    pub value: ValueBounds,
    /// Of each key of a map.
    pub key: ValueBounds,
    /// Items of a list or entries of a map, at most.
    pub count_max: Option<u32>,
}

/// Bounds of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueBounds {
    /// Smallest and largest number, both allowed.
    pub range: Option<Range>,
    /// Longest str, in Unicode characters as Python's `len` has it, or bytes.
    pub len_max: Option<u32>,
    /// Whether a float that is infinite or no number is refused; true by default.
    pub finite: bool,
}

/// Smallest and largest number, both allowed; of the field's own sign and type.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Range {
    Signed { min: i64, max: i64 },
    Unsigned { min: u64, max: u64 },
    Float { min: f64, max: f64 },
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Violation {
    #[error("{value} is not in {range}")]
    Range { value: String, range: Range },
    #[error("{value} is not a finite number")]
    NotFinite { value: f64 },
    #[error("more than {max} {unit}")]
    TooLong { max: u32, unit: &'static str },
    #[error("more than {max} items")]
    TooMany { max: u32 },
    #[error("{value} is no value of enum {name}")]
    NotNamed { value: i32, name: String },
}

impl Bounds {
    /// Nothing is refused.
    pub fn none() -> Self {
        let value = ValueBounds { range: None, len_max: None, finite: false };
        Self { value, key: value, count_max: None }
    }
}

impl ValueBounds {
    /// Whether a value keeps these bounds; `Err` if not. Enums are the plan's own matter.
    pub(crate) fn check(&self, value: &Scalar<'_>) -> Result<(), Violation> {
        let in_range = match (*value, self.range) {
            (Scalar::F64(value), range) => return self.check_float(value, range),
            (Scalar::F32(value), range) => return self.check_float(f64::from(value), range),
            (Scalar::Str(text), _) => return self.check_str(text),
            (Scalar::Bytes(bytes), _) => {
                return self.check_length(|max| bytes.len() <= max, "bytes");
            }
            (Scalar::I64(value), Some(Range::Signed { min, max })) => (min..=max).contains(&value),
            (Scalar::I32(value), Some(Range::Signed { min, max })) => (min..=max).contains(&i64::from(value)),
            (Scalar::U64(value), Some(Range::Unsigned { min, max })) => (min..=max).contains(&value),
            (Scalar::U32(value), Some(Range::Unsigned { min, max })) => {
                (min..=max).contains(&u64::from(value))
            }
            _ => true,
        };
        match self.range {
            Some(range) if !in_range => Err(Violation::Range { value: value.to_string(), range }),
            _ => Ok(()),
        }
    }

    fn check_float(&self, value: f64, range: Option<Range>) -> Result<(), Violation> {
        if self.finite && !value.is_finite() {
            return Err(Violation::NotFinite { value });
        }
        match range {
            // What is no number is in no range.
            Some(range @ Range::Float { min, max }) if !(min..=max).contains(&value) => {
                Err(Violation::Range { value: value.to_string(), range })
            }
            _ => Ok(()),
        }
    }

    fn check_str(&self, text: &str) -> Result<(), Violation> {
        // A character is one to four bytes: most texts need no counting.
        let fits = |max| text.len() <= max || (text.len() / 4 <= max && text.chars().count() <= max);
        self.check_length(fits, "characters")
    }

    fn check_length(&self, fits: impl Fn(usize) -> bool, unit: &'static str) -> Result<(), Violation> {
        match self.len_max {
            Some(max) if !fits(max as usize) => Err(Violation::TooLong { max, unit }),
            _ => Ok(()),
        }
    }
}

impl Default for ValueBounds {
    fn default() -> Self {
        Self { range: None, len_max: None, finite: true }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Signed { min, max } => write!(f, "{min} to {max}"),
            Range::Unsigned { min, max } => write!(f, "{min} to {max}"),
            Range::Float { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_counted_in_characters() {
        let three = ValueBounds { len_max: Some(3), ..ValueBounds::default() };
        for text in ["", "abc", "äöü", "🂡🂢🂣"] {
            assert_eq!(three.check(&Scalar::Str(text)), Ok(()));
        }
        for text in ["abcd", "äöüß", "🂡🂢🂣🂤"] {
            assert_eq!(
                three.check(&Scalar::Str(text)),
                Err(Violation::TooLong { max: 3, unit: "characters" })
            );
        }
        assert!(three.check(&Scalar::Bytes(&[0; 3])).is_ok());
        assert!(three.check(&Scalar::Bytes(&[0; 4])).is_err());
    }

    #[test]
    fn a_range_holds_its_ends_and_no_nan() {
        let unit = ValueBounds {
            range: Some(Range::Float { min: -1.0, max: 1.0 }),
            finite: false,
            ..ValueBounds::default()
        };
        for (value, fits) in [(1.0, true), (-1.0, true), (1.0 + f64::EPSILON, false), (f64::NAN, false)] {
            assert_eq!(unit.check(&Scalar::F64(value)).is_ok(), fits, "{value}");
        }
        let byte =
            ValueBounds { range: Some(Range::Unsigned { min: 1, max: 255 }), ..ValueBounds::default() };
        for (value, fits) in [(0, false), (1, true), (255, true), (256, false)] {
            assert_eq!(byte.check(&Scalar::U32(value)).is_ok(), fits, "{value}");
            assert_eq!(byte.check(&Scalar::U64(value.into())).is_ok(), fits, "{value}");
        }
        let error = byte.check(&Scalar::U32(256)).expect_err("too big");
        assert_eq!(error.to_string(), "256 is not in 1 to 255");
    }
}
