//! What a plan is made of: per message its fields in the order of their numbers, tags and checks worked out.

use crate::bounds::Bounds;
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
    /// Its oneof, or `NONE`.
    pub oneof: u16,
    pub check: Check,
    /// Whether a list or map has a `count_max`.
    pub counted: bool,
    /// Whether the default is not written.
    pub implicit: bool,
    pub form: Form,
    /// Whether it is single and its tag is one byte: nearly every field.
    pub plain: bool,
    pub kind: Kind,
    /// Of a map.
    pub key: Kind,
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
    Repeated,
    Packed,
    Map,
}

/// What to do with a value. Small, where a `Result` with the reason would go through memory on each value's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    /// A number that a closed enum does not name: it makes the field an unknown one.
    Skip,
    Refuse,
}

/// The numbers that an enum names.
#[derive(Debug)]
pub(crate) struct EnumSteps {
    unknown: UnknownNumber,
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
        for (step, index) in fields.iter().zip(0u16..) {
            if step.number() < SMALL_NUMBERS {
                by_number.resize(step.number() as usize, NONE);
                by_number.push(index);
            }
        }
        Self { fields: fields.into(), by_number: by_number.into() }
    }

    /// The field that is read from this tag, when it was not the expected one, with those behind it.
    #[inline]
    pub fn find(&self, tag: u32) -> Option<&[FieldStep]> {
        let number = tag >> 3;
        let index = match self.by_number.get(number as usize) {
            Some(&index) => usize::from(index),
            None if number < SMALL_NUMBERS => return None,
            None => self.fields.binary_search_by_key(&number, FieldStep::number).ok()?,
        };
        let found = self.fields.get(index..)?;
        found.first().is_some_and(|step| step.tag == tag || step.other_tag == tag).then_some(found)
    }
}

impl FieldStep {
    fn new(schema: &Schema, field: &FieldShape, slot: u16, all_bounds: &mut Vec<Bounds>) -> Self {
        let tag_of = |wire_type| field.number << 3 | wire_type;
        let own = tag_of(wire_type(field.kind));
        let (form, tag, other_tag) = match field.label {
            Label::Single | Label::Optional => (Form::Single, own, 0),
            Label::Repeated { packed: true } => (Form::Packed, tag_of(LEN), own),
            Label::Repeated { packed: false } if field.kind.is_packable() => {
                (Form::Repeated, own, tag_of(LEN))
            }
            Label::Repeated { packed: false } => (Form::Repeated, own, 0),
            Label::Map { .. } => (Form::Map, tag_of(LEN), 0),
        };
        all_bounds.push(field.bounds);
        Self {
            tag,
            other_tag,
            bounds: u32::try_from(all_bounds.len() - 1).unwrap_or(u32::MAX),
            slot,
            oneof: field.oneof.and_then(|oneof| u16::try_from(oneof).ok()).unwrap_or(NONE),
            check: check_of(schema, field),
            counted: field.bounds.count_max.is_some(),
            implicit: field.label == Label::Single && !field.has_presence(),
            form,
            plain: form == Form::Single && tag < 0x80,
            kind: field.kind,
            key: if let Label::Map { key } = field.label { key } else { field.kind },
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

    pub fn verdict(&self, number: i32) -> Verdict {
        match self.unknown {
            UnknownNumber::Keep => Verdict::Take,
            _ if self.names(number) => Verdict::Take,
            UnknownNumber::Skip => Verdict::Skip,
            UnknownNumber::Refuse => Verdict::Refuse,
        }
    }

    fn names(&self, number: i32) -> bool {
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

/// No index, no oneof. Slots stay below it.
pub(crate) const NONE: u16 = u16::MAX;

/// Field numbers below this are found by their index: 128 bytes per message at most.
const SMALL_NUMBERS: u32 = 64;
