//! What a plan is made of: per message its fields in the order of their numbers, tags and checks worked out.

use crate::bounds::Bounds;
use crate::plan::ScalarType;
use crate::shape::{EnumId, EnumShape, FieldShape, Kind, Label, MessageShape, Schema, UnknownNumber};
use crate::wire::{FIXED32, FIXED64, LEN, VARINT};

/// One message.
#[derive(Debug)]
pub(crate) struct MessageSteps {
    /// By ascending number: the order in which fields are written, and mostly arrive.
    pub fields: Box<[FieldStep]>,
    /// Index in `fields` by number, for the small numbers; `NONE` where there is no field.
    by_number: Box<[u16]>,
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldStep {
    /// The tag that it is written with.
    pub tag: u32,
    /// The other tag that it is read with: a list comes packed or one by one. Else 0, which no tag is.
    other_tag: u32,
    /// Index of its bounds in the plans.
    pub bounds: u32,
    pub slot: u16,
    /// Index of the field that most likely follows: a list's next item, else the next number.
    pub next: u16,
    /// Its oneof, or `NONE`.
    pub oneof: u16,
    pub check: Check,
    /// Whether a list or map has a `count_max`.
    pub counted: bool,
    /// Whether the default is not written.
    pub implicit: bool,
    pub form: Form,
    pub kind: Kind,
}

/// How much there is to check about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Nothing,
    /// A float that is finite: nearly every float.
    Finite,
    /// What its bounds or its enum say; of a map, also what the bounds say of the key.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Single,
    Repeated { packed: bool },
    Map { key: Kind },
}

/// The numbers that an enum names.
#[derive(Debug)]
pub(crate) struct EnumSteps {
    pub unknown: UnknownNumber,
    /// Ascending, each once.
    numbers: Box<[i32]>,
}

impl MessageSteps {
    pub fn new(schema: &Schema, shape: &MessageShape, all_bounds: &mut Vec<Bounds>) -> Self {
        let mut fields: Vec<FieldStep> = shape
            .fields
            .iter()
            .zip(0..)
            .map(|(field, slot)| FieldStep::new(schema, field, slot, all_bounds))
            .collect();
        fields.sort_by_key(|step| step.number());
        let mut by_number = Vec::new();
        for (step, index) in fields.iter_mut().zip(0u16..) {
            step.next = if step.form == Form::Single { index + 1 } else { index };
            if step.number() < SMALL_NUMBERS {
                by_number.resize(step.number() as usize, NONE);
                by_number.push(index);
            }
        }
        Self { fields: fields.into(), by_number: by_number.into() }
    }

    /// The field that is read from this tag, when it was not the expected one.
    #[inline]
    pub fn find(&self, tag: u32) -> Option<&FieldStep> {
        let number = tag >> 3;
        let index = match self.by_number.get(number as usize) {
            Some(&index) => usize::from(index),
            None if number < SMALL_NUMBERS => return None,
            None => self.fields.binary_search_by_key(&number, FieldStep::number).ok()?,
        };
        self.fields.get(index).filter(|step| step.tag == tag || step.other_tag == tag)
    }
}

impl FieldStep {
    fn new(schema: &Schema, field: &FieldShape, slot: u16, all_bounds: &mut Vec<Bounds>) -> Self {
        let tag_of = |wire_type| field.number << 3 | wire_type;
        let own = tag_of(wire_type(field.kind));
        let (form, tag, other_tag) = match field.label {
            Label::Single | Label::Optional => (Form::Single, own, 0),
            Label::Repeated { packed: true } => (Form::Repeated { packed: true }, tag_of(LEN), own),
            Label::Repeated { packed: false } if field.kind.is_packable() => {
                (Form::Repeated { packed: false }, own, tag_of(LEN))
            }
            Label::Repeated { packed: false } => (Form::Repeated { packed: false }, own, 0),
            Label::Map { key } => (Form::Map { key }, tag_of(LEN), 0),
        };
        all_bounds.push(field.bounds);
        Self {
            tag,
            other_tag,
            bounds: u32::try_from(all_bounds.len() - 1).unwrap_or(u32::MAX),
            slot,
            next: 0,
            oneof: field.oneof.and_then(|oneof| u16::try_from(oneof).ok()).unwrap_or(NONE),
            check: check_of(schema, field),
            counted: field.bounds.count_max.is_some(),
            implicit: field.label == Label::Single && !field.has_presence(),
            form,
            kind: field.kind,
        }
    }

    pub fn number(&self) -> u32 {
        self.tag >> 3
    }
}

impl EnumSteps {
    pub fn new(shape: &EnumShape) -> Self {
        let mut numbers: Vec<i32> = shape.values.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self { unknown: shape.unknown, numbers: numbers.into() }
    }

    pub fn names(&self, number: i32) -> bool {
        // Most enums have no gaps: then the place of a number is its distance from the first.
        let Some(first) = self.numbers.first() else { return false };
        let place = usize::try_from(i64::from(number) - i64::from(*first));
        place.is_ok_and(|place| self.numbers.get(place) == Some(&number))
            || self.numbers.binary_search(&number).is_ok()
    }
}

fn check_of(schema: &Schema, field: &FieldShape) -> Check {
    let Bounds { value, key, .. } = &field.bounds;
    let closed = |id| schema.enumeration(id).unknown != UnknownNumber::Keep;
    let float = matches!(field.kind, Kind::F32 | Kind::F64);
    if value.range.is_some()
        || value.len_max.is_some()
        || key.range.is_some()
        || key.len_max.is_some()
        || matches!(field.kind, Kind::Enum(id) if closed(id))
    {
        Check::All
    } else if float && value.finite {
        Check::Finite
    } else {
        Check::Nothing
    }
}

pub(crate) fn wire_type(kind: Kind) -> u32 {
    match kind {
        Kind::F64 | Kind::Fixed64 | Kind::SFixed64 => FIXED64,
        Kind::F32 | Kind::Fixed32 | Kind::SFixed32 => FIXED32,
        Kind::Str | Kind::Bytes | Kind::Message(_) => LEN,
        Kind::I64
        | Kind::U64
        | Kind::I32
        | Kind::U32
        | Kind::S32
        | Kind::S64
        | Kind::Bool
        | Kind::Enum(EnumId(_)) => VARINT,
    }
}

/// Runs `$body` with `$known` as a `Kind` that the compiler knows in each arm, so that what the body matches on it
/// costs one jump in all. Messages have an arm of their own.
macro_rules! with_known_kind {
    ($kind:expr, message $id:ident => $message:expr, $known:ident => $body:expr) => {
        with_known_kind!(@arms $kind, $id => $message, $known => $body,
            F64 F32 I64 U64 I32 U32 S32 S64 Fixed32 Fixed64 SFixed32 SFixed64 Bool Str Bytes)
    };
    (@arms $kind:expr, $id:ident => $message:expr, $known:ident => $body:expr, $($name:ident)*) => {
        match $kind {
            $(Kind::$name => { let $known = Kind::$name; $body })*
            Kind::Enum(id) => { let $known = Kind::Enum(id); $body }
            Kind::Message($id) => $message,
        }
    };
}
pub(crate) use with_known_kind;

impl Kind {
    /// What a value of this kind is to sinks and sources; `None` for a message.
    #[inline(always)]
    pub fn scalar_type(self) -> Option<ScalarType> {
        Some(match self {
            Kind::F64 => ScalarType::F64,
            Kind::F32 => ScalarType::F32,
            Kind::I64 | Kind::S64 | Kind::SFixed64 => ScalarType::I64,
            Kind::U64 | Kind::Fixed64 => ScalarType::U64,
            Kind::I32 | Kind::S32 | Kind::SFixed32 => ScalarType::I32,
            Kind::U32 | Kind::Fixed32 => ScalarType::U32,
            Kind::Bool => ScalarType::Bool,
            Kind::Str => ScalarType::Str,
            Kind::Bytes => ScalarType::Bytes,
            Kind::Enum(id) => ScalarType::Enum(id),
            Kind::Message(_) => return None,
        })
    }
}

/// No index, no oneof. Slots stay below it.
pub(crate) const NONE: u16 = u16::MAX;

/// Field numbers below this are found by their index: 128 bytes per message at most.
const SMALL_NUMBERS: u32 = 64;
