//! What is refused beyond a value's type: ranges, lengths, floats that are no number.

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

impl Bounds {
    /// Nothing is refused.
    pub fn none() -> Self {
        let value = ValueBounds { range: None, len_max: None, finite: false };
        Self { value, key: value, count_max: None }
    }
}

impl Default for ValueBounds {
    fn default() -> Self {
        Self { range: None, len_max: None, finite: true }
    }
}
