//! Whether those who know an old schema and those who know a new one understand each other.

use std::collections::BTreeMap;
use std::fmt;

use crate::bounds::{Bounds, Range, ValueBounds};
use crate::proto_text::scalar_name;
use crate::reserved::ReservedByMessage;
use crate::shape::{EnumShape, FieldShape, Kind, Label, MessageShape, Schema, UnknownNumber};

/// What changed between two schemas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// What old and new peers do not agree on; empty: they understand each other.
    pub breaking: Vec<Breaking>,
    /// What must not be used again: what was reserved before, and the fields that are gone.
    pub reserved: ReservedByMessage,
}

/// One change that breaks old peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaking {
    /// Full name of the message, the field or the enum's value: `arena.Move.dx`.
    pub path: String,
    /// What changed, why that breaks, and what to do.
    pub reason: BreakingReason,
}

/// Why a change breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BreakingReason {
    #[error("the message is gone; old peers still send it")]
    MessageGone,
    #[error("number {number} was {old}: take a new number and reserve this one")]
    NumberReused { number: u32, old: String },
    #[error("number {number} was named {old}; code that is made from the schema knows it by that name")]
    Renamed { number: u32, old: String },
    #[error("its number was {old} and is {new}; keep the number, or take a new name")]
    Renumbered { old: u32, new: u32 },
    #[error("it was {old} and is {new}; add a field of another number instead")]
    TypeChanged { old: String, new: String },
    #[error(
        "it is in another oneof with fields that were independent of it, or no longer in the one it was in"
    )]
    OneofChanged,
    #[error("it takes less than before: what old peers send may be refused")]
    BoundsTightened,
    #[error("number {number} or this name is reserved; take another one")]
    Reserved { number: u32 },
    #[error("the enum's value is gone, and the enum is closed: old peers that send {number} are refused")]
    ValueGone { number: i32 },
    #[error("the value's number was {old} and is {new}")]
    ValueRenumbered { old: i32, new: i32 },
    #[error("the enum is closed now: numbers that old peers may send are refused")]
    EnumClosed,
}

/// Compares two schemas, and what is reserved already.
///
/// Allowed are changes that protobuf calls wire-compatible: new fields, fields that are gone (reserve them), `optional` or not,
/// packed or not, int32, int64, uint32, uint64, bool and enums among each other (big numbers lose their high bits), sint32 and
/// sint64, fixed32 and sfixed32, fixed64 and sfixed64, and string to bytes.
///
/// ```
/// use schema::compatibility::compare;
/// use schema::descriptor::schema_of_text;
///
/// let old = schema_of_text("a.proto", "syntax = \"proto3\"; message Move { float dx = 1; float dy = 2; }")?;
/// let new = schema_of_text("a.proto", "syntax = \"proto3\"; message Move { string dx = 1; }")?;
/// let comparison = compare(&old, &new, &Default::default());
/// assert_eq!(
///     comparison.breaking[0].to_string(),
///     "Move.dx: it was float and is string; add a field of another number instead"
/// );
/// assert!(comparison.reserved["Move"].numbers.contains(&2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compare(old: &Schema, new: &Schema, reserved: &ReservedByMessage) -> Comparison {
    let mut comparer =
        Comparer { old, new, result: Comparison { breaking: Vec::new(), reserved: reserved.clone() } };
    for old_message in old.messages() {
        match new.message_id(&old_message.name) {
            Some(id) => comparer.message(old_message, new.message(id)),
            None => comparer.breaks(old_message.name.clone(), BreakingReason::MessageGone),
        }
    }
    for message in new.messages() {
        comparer.reserved(message, reserved);
    }
    for old_enum in old.enums() {
        if let Some(id) = new.enum_id(&old_enum.name) {
            comparer.enumeration(old_enum, new.enumeration(id));
        }
    }
    comparer.result
}

impl fmt::Display for Breaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

struct Comparer<'s> {
    old: &'s Schema,
    new: &'s Schema,
    result: Comparison,
}

impl Comparer<'_> {
    fn message(&mut self, old: &MessageShape, new: &MessageShape) {
        let by_number: BTreeMap<u32, &FieldShape> =
            new.fields.iter().map(|field| (field.number, field)).collect();
        for old_field in &old.fields {
            let path = format!("{}.{}", new.name, old_field.name);
            let same_name = new.fields.iter().find(|field| field.name == old_field.name);
            match by_number.get(&old_field.number) {
                Some(new_field) => self.field(new, old_field, new_field),
                None => {
                    if let Some(renumbered) = same_name {
                        let reason =
                            BreakingReason::Renumbered { old: old_field.number, new: renumbered.number };
                        self.breaks(path, reason);
                    }
                    let reserved = self.result.reserved.entry(new.name.clone()).or_default();
                    reserved.numbers.insert(old_field.number);
                    if same_name.is_none() {
                        reserved.names.insert(old_field.name.clone());
                    }
                }
            }
        }
        self.oneofs(old, new);
    }

    fn field(&mut self, message: &MessageShape, old: &FieldShape, new: &FieldShape) {
        let path = format!("{}.{}", message.name, new.name);
        let types_agree = self.same_label(old, new) && self.kinds_agree(old.kind, new.kind);
        match (old.name == new.name, types_agree) {
            (true, true) => {
                if tightened(&old.bounds, &new.bounds) {
                    self.breaks(path, BreakingReason::BoundsTightened);
                }
            }
            (true, false) => {
                let (old, new) = (describe(self.old, old), describe(self.new, new));
                self.breaks(path, BreakingReason::TypeChanged { old, new });
            }
            (false, true) => {
                let (number, old) = (new.number, old.name.clone());
                self.breaks(path, BreakingReason::Renamed { number, old });
            }
            (false, false) => {
                let old = format!("{} {}", describe(self.old, old), old.name);
                self.breaks(path, BreakingReason::NumberReused { number: new.number, old });
            }
        }
    }

    fn same_label(&self, old: &FieldShape, new: &FieldShape) -> bool {
        match (old.label, new.label) {
            (Label::Map { key: old }, Label::Map { key: new }) => self.kinds_agree(old, new),
            (Label::Map { .. }, _) | (_, Label::Map { .. }) => false,
            (Label::Repeated { .. }, new) => matches!(new, Label::Repeated { .. }),
            (_, new) => !matches!(new, Label::Repeated { .. }),
        }
    }

    fn kinds_agree(&self, old: Kind, new: Kind) -> bool {
        match (old, new) {
            (Kind::Message(old), Kind::Message(new)) => {
                self.old.message(old).name == self.new.message(new).name
            }
            (Kind::Enum(old), Kind::Enum(new)) => {
                self.old.enumeration(old).name == self.new.enumeration(new).name
            }
            (Kind::Str, Kind::Bytes) => true,
            _ => old == new || (family(old).is_some() && family(old) == family(new)),
        }
    }

    /// Fields that were together must stay so, and those that were not must not come together: a sender that knows the
    /// one would lose it to the other.
    fn oneofs(&mut self, old: &MessageShape, new: &MessageShape) {
        let both: Vec<(&FieldShape, &FieldShape)> = old
            .fields
            .iter()
            .filter_map(|old| Some((old, new.fields.iter().find(|new| new.number == old.number)?)))
            .collect();
        let together = |a: &FieldShape, b: &FieldShape| a.oneof.is_some() && a.oneof == b.oneof;
        for (old_field, new_field) in &both {
            let changed = both.iter().any(|(old_other, new_other)| {
                old_other.number != old_field.number
                    && together(old_field, old_other) != together(new_field, new_other)
            });
            if changed {
                self.breaks(format!("{}.{}", new.name, new_field.name), BreakingReason::OneofChanged);
            }
        }
    }

    fn reserved(&mut self, message: &MessageShape, reserved: &ReservedByMessage) {
        let Some(reserved) = reserved.get(&message.name) else { return };
        for field in &message.fields {
            if reserved.numbers.contains(&field.number) || reserved.names.contains(&field.name) {
                let path = format!("{}.{}", message.name, field.name);
                self.breaks(path, BreakingReason::Reserved { number: field.number });
            }
        }
    }

    fn enumeration(&mut self, old: &EnumShape, new: &EnumShape) {
        let closed = new.unknown == UnknownNumber::Refuse;
        if closed && old.unknown != UnknownNumber::Refuse {
            self.breaks(new.name.clone(), BreakingReason::EnumClosed);
        }
        for (name, number) in &old.values {
            let path = format!("{}.{name}", new.name);
            match new.values.iter().find(|(other, _)| other == name) {
                Some((_, moved)) if moved != number => {
                    self.breaks(path, BreakingReason::ValueRenumbered { old: *number, new: *moved });
                }
                Some(_) => {}
                None if closed && !new.values.iter().any(|(_, other)| other == number) => {
                    self.breaks(path, BreakingReason::ValueGone { number: *number });
                }
                None => {}
            }
        }
    }

    fn breaks(&mut self, path: String, reason: BreakingReason) {
        self.result.breaking.push(Breaking { path, reason });
    }
}

/// Kinds of one family read each other's bytes.
fn family(kind: Kind) -> Option<u8> {
    match kind {
        Kind::I32 | Kind::I64 | Kind::U32 | Kind::U64 | Kind::Bool | Kind::Enum(_) => Some(0),
        Kind::S32 | Kind::S64 => Some(1),
        Kind::Fixed32 | Kind::SFixed32 => Some(2),
        Kind::Fixed64 | Kind::SFixed64 => Some(3),
        _ => None,
    }
}

fn describe(schema: &Schema, field: &FieldShape) -> String {
    let name = |kind| match kind {
        Kind::Message(id) => schema.message(id).name.clone(),
        Kind::Enum(id) => schema.enumeration(id).name.clone(),
        kind => scalar_name(kind).unwrap_or_default().to_owned(),
    };
    match field.label {
        Label::Single | Label::Optional => name(field.kind),
        Label::Repeated { .. } => format!("repeated {}", name(field.kind)),
        Label::Map { key } => format!("map<{}, {}>", name(key), name(field.kind)),
    }
}

fn tightened(old: &Bounds, new: &Bounds) -> bool {
    value_tightened(&old.value, &new.value)
        || value_tightened(&old.key, &new.key)
        || less(old.count_max, new.count_max)
}

fn value_tightened(old: &ValueBounds, new: &ValueBounds) -> bool {
    let range = match (old.range, new.range) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => !contains(new, old),
    };
    range || less(old.len_max, new.len_max) || (new.finite && !old.finite)
}

fn less(old: Option<u32>, new: Option<u32>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new < old))
}

/// Whether all of `inner` is in `outer`; of another sign, which other kinds have, it is not.
fn contains(outer: Range, inner: Range) -> bool {
    match (outer, inner) {
        (Range::Signed { min, max }, Range::Signed { min: low, max: high }) => min <= low && high <= max,
        (Range::Unsigned { min, max }, Range::Unsigned { min: low, max: high }) => min <= low && high <= max,
        (Range::Float { min, max }, Range::Float { min: low, max: high }) => min <= low && high <= max,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::schema_of_text;
    use crate::reserved::Reserved;

    fn schema(body: &str) -> Schema {
        schema_of_text("a.proto", &format!("syntax = \"proto3\"; package a; {body}")).expect("a schema")
    }

    fn breaking(old: &str, new: &str) -> Vec<String> {
        let comparison = compare(&schema(old), &schema(new), &ReservedByMessage::new());
        comparison.breaking.iter().map(Breaking::to_string).collect()
    }

    #[test]
    fn what_protobuf_calls_compatible_is_allowed() {
        for (old, new) in [
            ("message M { int32 a = 1; }", "message M { int32 a = 1; string b = 2; }"),
            ("message M { int32 a = 1; }", "message M { optional int64 a = 1; }"),
            ("message M { uint32 a = 1; }", "enum E { Z = 0; } message M { E a = 1; }"),
            ("message M { repeated int32 a = 1; }", "message M { repeated int32 a = 1 [packed = false]; }"),
            ("message M { string a = 1; }", "message M { bytes a = 1; }"),
            ("message M { int32 a = 1; }", "message M { oneof o { int32 a = 1; string b = 2; } }"),
            ("enum E { Z = 0; A = 1; } message M { E e = 1; }", "enum E { Z = 0; } message M { E e = 1; }"),
            ("message M { map<int32, M> a = 1; }", "message M { map<int64, M> a = 1; }"),
        ] {
            assert_eq!(breaking(old, new), Vec::<String>::new(), "{old} -> {new}");
        }
    }

    #[test]
    fn what_breaks_says_where_and_why() {
        for (old, new, expected) in [
            ("message M {}", "message N {}", "a.M: the message is gone; old peers still send it"),
            (
                "message M { int32 a = 1; }",
                "message M { sint32 a = 1; }",
                "a.M.a: it was int32 and is sint32; add a field of another number instead",
            ),
            (
                "message M { bytes a = 1; }",
                "message M { string a = 1; }",
                "a.M.a: it was bytes and is string; add a field of another number instead",
            ),
            (
                "message M { int32 a = 1; }",
                "message M { repeated int32 a = 1; }",
                "a.M.a: it was int32 and is repeated int32; add a field of another number instead",
            ),
            (
                "message M { map<int32, M> a = 1; }",
                "message M { map<string, M> a = 1; }",
                "a.M.a: it was map<int32, a.M> and is map<string, a.M>; add a field of another number instead",
            ),
            (
                "message M { int32 a = 1; }",
                "message M { int32 b = 1; }",
                "a.M.b: number 1 was named a; code that is made from the schema knows it by that name",
            ),
            (
                "message M { int32 a = 1; }",
                "message M { string b = 1; }",
                "a.M.b: number 1 was int32 a: take a new number and reserve this one",
            ),
            (
                "message M { int32 a = 1; }",
                "message M { int32 a = 2; }",
                "a.M.a: its number was 1 and is 2; keep the number, or take a new name",
            ),
            (
                "enum E { Z = 0; A = 1; } message M { E e = 1; }",
                "enum E { Z = 0; A = 2; } message M { E e = 1; }",
                "a.E.A: the value's number was 1 and is 2",
            ),
        ] {
            assert_eq!(breaking(old, new), [expected], "{old} -> {new}");
        }
        let apart = "message M { int32 a = 1; int32 b = 2; }";
        let together = "message M { oneof o { int32 a = 1; int32 b = 2; } }";
        assert_eq!(breaking(apart, together).len(), 2);
        assert_eq!(breaking(together, apart).len(), 2);
    }

    #[test]
    fn fields_that_are_gone_are_reserved_and_stay_so() {
        let (old, new) =
            (schema("message M { int32 a = 1; int32 b = 2; }"), schema("message M { int32 a = 1; }"));
        let before = [("a.M".to_owned(), Reserved { numbers: [7].into(), names: ["z".to_owned()].into() })];
        let comparison = compare(&old, &new, &before.into());
        assert_eq!(comparison.breaking, []);
        let reserved = &comparison.reserved["a.M"];
        assert_eq!(reserved.numbers, [2, 7].into());
        assert_eq!(reserved.names, ["b".to_owned(), "z".to_owned()].into());
        let again = compare(&new, &old, &comparison.reserved);
        assert_eq!(again.breaking[0].reason, BreakingReason::Reserved { number: 2 });
    }

    #[test]
    fn bounds_may_become_wider_only() {
        let bound = |min, max| {
            let mut builder = crate::shape::SchemaBuilder::new();
            let id = builder.message("a.M");
            let range = Some(Range::Signed { min, max });
            let value = ValueBounds { range, ..ValueBounds::default() };
            let bounds = Bounds { value, ..Bounds::default() };
            builder.field(id, FieldShape::new("a", 1, Kind::I32).bounded(bounds));
            builder.build().expect("a schema")
        };
        let none = ReservedByMessage::new();
        assert_eq!(compare(&bound(-1, 1), &bound(-2, 1), &none).breaking, []);
        let breaking = compare(&bound(-1, 1), &bound(-1, 0), &none).breaking;
        assert_eq!(breaking[0].reason, BreakingReason::BoundsTightened);
    }
}
