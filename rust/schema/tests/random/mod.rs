//! Schemas and messages made of arbitrary bytes: whoever has the bytes has the same schema, and fewer bytes make less.

use schema::plan::Scalar;
use schema::shape::{
    EnumId, EnumShape, FieldShape, Kind, Label, MessageId, Schema, SchemaBuilder, UnknownNumber,
};
use schema::value::{Key, Message, Value};

/// Choices, taken from bytes; 0 when they are used up.
pub struct Choices<'b> {
    bytes: &'b [u8],
}

impl<'b> Choices<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    pub fn byte(&mut self) -> u8 {
        match self.bytes {
            [first, rest @ ..] => {
                self.bytes = rest;
                *first
            }
            [] => 0,
        }
    }

    pub fn below(&mut self, end: u32) -> u32 {
        u32::from_le_bytes([self.byte(), if end > 255 { self.byte() } else { 0 }, 0, 0]) % end
    }

    pub fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == count - 1
    }

    /// Any number, mostly a small one, of either sign, or one at the edge.
    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0..4 => u64::from(self.byte()),
            4 => u64::from(self.byte()).wrapping_neg(),
            5 => 1u64.wrapping_shl(self.byte().into()).wrapping_sub(1),
            6 => i64::MIN as u64 >> (self.byte() % 2 * 32),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    pub fn text(&mut self) -> String {
        let letters = ['a', 'b', 'z', 'é', '\0', '\u{ffff}', '\u{10000}', '"'];
        let length = self.below(4) * if self.one_in(8) { 100 } else { 1 };
        (0..length).map(|_| letters[self.below(8) as usize]).collect()
    }
}

/// A proto3 schema in package `t`; the first message is the outermost one.
pub fn schema(choices: &mut Choices<'_>, maps: bool) -> Schema {
    let mut builder = SchemaBuilder::new();
    let enums: Vec<EnumId> = (0..2).map(|index| enumeration(choices, &mut builder, index)).collect();
    let messages: Vec<MessageId> =
        (0..=choices.below(3)).map(|index| builder.message(format!("t.M{index}"))).collect();
    for &message in &messages {
        let mut oneof = None;
        let mut last = 0;
        for _ in 0..choices.below(7) {
            last += 1 + if choices.one_in(4) { choices.below(3000) } else { choices.below(3) };
            let number = if matches!(last, 19000..=19999) { 20000 } else { last };
            last = number;
            let kind = kind(choices, &enums, &messages);
            let mut field = FieldShape::new(format!("f{number}"), number, kind);
            match choices.below(8) {
                0 | 1 => field.label = Label::Optional,
                2 | 3 => {
                    field.label = Label::Repeated { packed: kind.is_packable() && !choices.one_in(3) };
                }
                4 if maps => field.label = Label::Map { key: key_kind(choices) },
                5 => {
                    let oneof = *oneof.get_or_insert_with(|| builder.oneof(message, "chosen"));
                    field.oneof = Some(oneof);
                }
                _ => {}
            }
            builder.field(message, field);
        }
    }
    builder.build().expect("made to be right").without_bounds()
}

fn enumeration(choices: &mut Choices<'_>, builder: &mut SchemaBuilder, index: u32) -> EnumId {
    let mut values = vec![(format!("E{index}_V0"), 0)];
    for value in 1..=choices.below(3) {
        values.push((format!("E{index}_V{value}"), choices.number() as i32));
    }
    builder.enumeration(EnumShape { name: format!("t.E{index}"), values, unknown: UnknownNumber::Keep })
}

fn kind(choices: &mut Choices<'_>, enums: &[EnumId], messages: &[MessageId]) -> Kind {
    let scalars = [
        Kind::F64,
        Kind::F32,
        Kind::I64,
        Kind::U64,
        Kind::I32,
        Kind::U32,
        Kind::S32,
        Kind::S64,
        Kind::Fixed32,
        Kind::Fixed64,
        Kind::SFixed32,
        Kind::SFixed64,
        Kind::Bool,
        Kind::Str,
        Kind::Bytes,
    ];
    match choices.below(21) {
        0..4 => Kind::Message(messages[choices.below(messages.len() as u32) as usize]),
        4 | 5 => Kind::Enum(enums[choices.below(enums.len() as u32) as usize]),
        index => scalars[index as usize - 6],
    }
}

fn key_kind(choices: &mut Choices<'_>) -> Kind {
    let keys = [
        Kind::Str,
        Kind::I32,
        Kind::I64,
        Kind::U32,
        Kind::U64,
        Kind::S32,
        Kind::S64,
        Kind::Fixed32,
        Kind::Fixed64,
        Kind::SFixed32,
        Kind::SFixed64,
        Kind::Bool,
    ];
    keys[choices.below(keys.len() as u32) as usize]
}

/// A message of this shape; its defaults are absent, as when it is read.
pub fn message(choices: &mut Choices<'_>, schema: &Schema, id: MessageId, depth: u32) -> Message {
    let mut message = Message::new(schema, id);
    let mut chosen = Vec::new();
    for (slot, field) in (0u16..).zip(&schema.message(id).fields) {
        if choices.one_in(4) || (depth == 0 && matches!(field.kind, Kind::Message(_))) {
            continue;
        }
        if field.oneof.is_some() && std::mem::replace(&mut chosen, vec![field.oneof]) == [field.oneof] {
            continue;
        }
        let count = choices.below(4) * if choices.one_in(8) { 20 } else { 1 };
        let value = match field.label {
            Label::Single | Label::Optional => value(choices, schema, field.kind, depth),
            Label::Repeated { .. } => {
                Value::List((0..count).map(|_| value(choices, schema, field.kind, depth)).collect())
            }
            Label::Map { key } => Value::Map(
                (0..count)
                    .map(|_| {
                        let key = Key::new(scalar(choices, key).scalar().expect("a scalar"));
                        (key.expect("a key"), value(choices, schema, field.kind, depth))
                    })
                    .collect(),
            ),
        };
        message.set(slot, (field.has_presence() || !value.is_default()).then_some(value));
    }
    message
}

fn value(choices: &mut Choices<'_>, schema: &Schema, kind: Kind, depth: u32) -> Value {
    match kind {
        Kind::Message(id) => Value::Message(message(choices, schema, id, depth - 1)),
        kind => scalar(choices, kind),
    }
}

fn scalar(choices: &mut Choices<'_>, kind: Kind) -> Value {
    let number = choices.number();
    match kind {
        Kind::F64 => Value::F64(f64::from_bits(number)),
        Kind::F32 => Value::F32(f32::from_bits(number as u32)),
        Kind::I64 | Kind::S64 | Kind::SFixed64 => Value::I64(number as i64),
        Kind::U64 | Kind::Fixed64 => Value::U64(number),
        Kind::I32 | Kind::S32 | Kind::SFixed32 => Value::I32(number as i32),
        Kind::U32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Bool => Value::Bool(number % 2 == 1),
        Kind::Str => Value::Str(choices.text()),
        Kind::Bytes => Value::Bytes(choices.text().into_bytes()),
        Kind::Enum(_) => Value::Enum(number as i32),
        Kind::Message(_) => Value::new(Scalar::Bool(false)),
    }
}

/// The bytes with some of them changed.
#[allow(dead_code)]
pub fn mutated(choices: &mut Choices<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=choices.below(3) {
        let at = choices.below(bytes.len() as u32 + 1) as usize;
        match choices.below(5) {
            0 => bytes.insert(at, choices.byte()),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << choices.below(8),
            _ => {
                let copied = bytes[at..].to_vec();
                bytes.extend(copied);
            }
        }
    }
    bytes
}
