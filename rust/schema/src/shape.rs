//! What messages and enums look like, checked once when the schema is built.

use std::collections::{HashMap, HashSet};

use crate::bounds::{Bounds, Range, ValueBounds};

/// Index of a message in [`Schema::messages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u32);

/// Index of an enum in [`Schema::enums`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnumId(pub u32);

/// A checked set of messages and enums; every id in it points at something.
///
/// ```
/// use schema::shape::{FieldShape, Kind, SchemaBuilder};
///
/// let mut builder = SchemaBuilder::new();
/// let r#move = builder.message("arena.Move");
/// builder.field(r#move, FieldShape::new("dx", 1, Kind::F32));
/// builder.field(r#move, FieldShape::new("dy", 2, Kind::F32));
/// let schema = builder.build()?;
/// assert_eq!(schema.message_id("arena.Move"), Some(r#move));
/// # Ok::<(), schema::shape::SchemaError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    messages: Vec<MessageShape>,
    enums: Vec<EnumShape>,
}

/// One message. A field's *slot* is its index in `fields`, in the order of declaration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MessageShape {
    /// Full name, without a leading dot: `arena.Move`, `arena.Move.Step`.
    pub name: String,
    /// Fields by slot, in the order of declaration; their numbers need not ascend.
    pub fields: Vec<FieldShape>,
    /// Names of the oneofs; [`FieldShape::oneof`] is an index into them. The one that proto3 makes up for an
    /// `optional` field is not among them.
    pub oneofs: Vec<String>,
}

/// One field of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldShape {
    /// Its name, unique in the message.
    pub name: String,
    /// Its number on the wire: 1 to 2^29 - 1 without 19000 to 19999.
    pub number: u32,
    /// Type of the value, of the items or of the map's values.
    pub kind: Kind,
    /// How often it may be there.
    pub label: Label,
    /// The oneof that it is a member of: then `label` is `Single`, and presence is explicit.
    pub oneof: Option<u32>,
    /// What is refused beyond the type.
    pub bounds: Bounds,
}

/// Type of a value, as `.proto` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    F64,
    F32,
    I64,
    U64,
    I32,
    U32,
    S32,
    S64,
    Fixed32,
    Fixed64,
    SFixed32,
    SFixed64,
    Bool,
    Str,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

/// How often a field may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// Implicit presence: the default (zero, empty) is not written. A message has explicit presence anyway.
    Single,
    /// Explicit presence: absent, or present with any value.
    Optional,
    /// A list; numbers, bools and enums are written `packed` or one by one, and read either way.
    Repeated {
        /// How it is written. `false` for str, bytes and messages.
        packed: bool,
    },
    /// A map; the field's kind is that of the values.
    Map {
        /// Kind of the keys: an integer, `Bool` or `Str`.
        key: Kind,
    },
}

/// One enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumShape {
    /// Full name.
    pub name: String,
    /// Names and numbers in the order of declaration; several names may share a number. Protobuf puts these names into the scope
    /// around the enum: two enums of one package have no value name in common (`TEAM_RED`, not `RED`).
    pub values: Vec<(String, i32)>,
    /// What a number without a name does.
    pub unknown: UnknownNumber,
}

/// What decoding does with a number that the enum does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnknownNumber {
    /// Take it: proto3's open enums. Their first value is 0.
    Keep,
    /// Take the field as unknown: proto2's closed enums.
    Skip,
    /// Refuse the message.
    Refuse,
}

/// Collects shapes; [`SchemaBuilder::build`] checks them.
#[derive(Debug, Clone, Default)]
pub struct SchemaBuilder {
    messages: Vec<MessageShape>,
    enums: Vec<EnumShape>,
}

/// Why a schema was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Not an identifier, or not identifiers with dots between.
    #[error("{what} {name:?}: not a protobuf name (letters, digits and _, not first a digit)")]
    BadName {
        /// What is named so.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two messages or enums, or a message and an enum's value, have one full name.
    #[error(
        "{name} is there twice; messages, enums and the values of the enums beside them share their names"
    )]
    DuplicateName {
        /// The full name.
        name: String,
    },
    /// Something about one field.
    #[error("{message}.{field}: {reason}")]
    Field {
        /// Full name of the message.
        message: String,
        /// Name of the field.
        field: String,
        /// What is wrong with it.
        reason: FieldError,
    },
    /// Something about one enum.
    #[error("enum {name}: {reason}")]
    Enum {
        /// Full name of the enum.
        name: String,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// A oneof of no members.
    #[error("{message}: oneof {oneof} has no members; give it one or leave it out")]
    EmptyOneof {
        /// Full name of the message.
        message: String,
        /// Name of the oneof.
        oneof: String,
    },
    /// More fields than slots.
    #[error("{message} has {count} fields; at most {FIELDS_MAX}")]
    TooManyFields {
        /// Full name of the message.
        message: String,
        /// How many it has.
        count: usize,
    },
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Outside of what protobuf allows.
    #[error("number {0} is not allowed; take one from 1 to 536870911, but not 19000 to 19999")]
    Number(u32),
    /// Two fields of a message have one number.
    #[error("number {0} belongs to {1} already")]
    DuplicateNumber(u32, String),
    /// Two fields, or a field and a oneof, of a message have one name.
    #[error("the name is there twice in this message")]
    DuplicateName,
    /// The kind's id is not one of this schema.
    #[error("its type is not part of this schema: {0}")]
    Dangling(String),
    /// The oneof's index is not one of this message.
    #[error("oneof {0} is not one of this message")]
    DanglingOneof(u32),
    /// Optional, repeated or map in a oneof.
    #[error("a member of a oneof is not optional, repeated or a map")]
    OneofLabel,
    /// str, bytes or message, packed.
    #[error("str, bytes and messages cannot be packed")]
    Packed,
    /// A key that protobuf does not allow.
    #[error("a map's key is an integer, a bool or a str")]
    MapKey,
    /// Bounds that this kind cannot have, or that nothing satisfies.
    #[error("bounds: {0}")]
    Bounds(&'static str),
}

impl Schema {
    /// All messages; [`MessageId`] is an index into them.
    pub fn messages(&self) -> &[MessageShape] {
        &self.messages
    }

    /// All enums; [`EnumId`] is an index into them.
    pub fn enums(&self) -> &[EnumShape] {
        &self.enums
    }

    /// The message of this id.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn message(&self, id: MessageId) -> &MessageShape {
        &self.messages[id.0 as usize]
    }

    /// The enum of this id.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn enumeration(&self, id: EnumId) -> &EnumShape {
        &self.enums[id.0 as usize]
    }

    /// The message of this full name.
    pub fn message_id(&self, name: &str) -> Option<MessageId> {
        index(self.messages.iter().position(|message| message.name == name)).map(MessageId)
    }

    /// The enum of this full name.
    pub fn enum_id(&self, name: &str) -> Option<EnumId> {
        index(self.enums.iter().position(|shape| shape.name == name)).map(EnumId)
    }

    /// The same schema, refusing nothing but what protobuf itself refuses: floats may be infinite or no number.
    #[must_use]
    pub fn without_bounds(mut self) -> Self {
        for field in self.messages.iter_mut().flat_map(|message| &mut message.fields) {
            field.bounds = Bounds::none();
        }
        self
    }
}

impl MessageShape {
    /// The slot of the field of this name.
    pub fn slot(&self, name: &str) -> Option<u16> {
        self.fields.iter().position(|field| field.name == name).and_then(|slot| u16::try_from(slot).ok())
    }

    /// The field at this slot.
    ///
    /// # Panics
    /// The slot is another message's.
    pub fn field(&self, slot: u16) -> &FieldShape {
        &self.fields[usize::from(slot)]
    }
}

impl FieldShape {
    /// A single field in no oneof, with the bounds that every field has (finite floats).
    pub fn new(name: impl Into<String>, number: u32, kind: Kind) -> Self {
        Self { name: name.into(), number, kind, label: Label::Single, oneof: None, bounds: Bounds::default() }
    }

    /// The same with another label.
    #[must_use]
    pub fn label(mut self, label: Label) -> Self {
        self.label = label;
        self
    }

    /// The same as a member of a oneof.
    #[must_use]
    pub fn member_of(mut self, oneof: u32) -> Self {
        self.oneof = Some(oneof);
        self
    }

    /// The same with other bounds.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Whether "not there" differs from the default.
    pub fn has_presence(&self) -> bool {
        match self.label {
            Label::Single => self.oneof.is_some() || matches!(self.kind, Kind::Message(_)),
            Label::Optional => true,
            Label::Repeated { .. } | Label::Map { .. } => false,
        }
    }
}

impl Kind {
    /// Whether a list of it may be packed: every number, bool and enum.
    pub fn is_packable(self) -> bool {
        !matches!(self, Kind::Str | Kind::Bytes | Kind::Message(_))
    }

    /// Whether it may be a map's key: integers, bool and str.
    pub fn is_map_key(self) -> bool {
        !matches!(self, Kind::F64 | Kind::F32 | Kind::Bytes | Kind::Enum(_) | Kind::Message(_))
    }
}

impl SchemaBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces a message by its full name; fields may point to it from now on.
    pub fn message(&mut self, name: impl Into<String>) -> MessageId {
        self.messages.push(MessageShape { name: name.into(), ..MessageShape::default() });
        MessageId(index(Some(self.messages.len() - 1)).unwrap_or(u32::MAX))
    }

    /// Adds an enum.
    pub fn enumeration(&mut self, shape: EnumShape) -> EnumId {
        self.enums.push(shape);
        EnumId(index(Some(self.enums.len() - 1)).unwrap_or(u32::MAX))
    }

    /// Adds a field behind those that the message has; gives its slot.
    ///
    /// # Panics
    /// The id is not of this builder.
    pub fn field(&mut self, message: MessageId, field: FieldShape) -> u16 {
        let fields = &mut self.messages[message.0 as usize].fields;
        fields.push(field);
        u16::try_from(fields.len() - 1).unwrap_or(u16::MAX)
    }

    /// Adds a oneof to a message; gives the index for [`FieldShape::oneof`].
    ///
    /// # Panics
    /// The id is not of this builder.
    pub fn oneof(&mut self, message: MessageId, name: impl Into<String>) -> u32 {
        let oneofs = &mut self.messages[message.0 as usize].oneofs;
        oneofs.push(name.into());
        index(Some(oneofs.len() - 1)).unwrap_or(u32::MAX)
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`SchemaError`] for the first thing that protobuf would not allow, in the order of declaration.
    pub fn build(self) -> Result<Schema, SchemaError> {
        let schema = Schema { messages: self.messages, enums: self.enums };
        check_names(&schema)?;
        schema.enums.iter().try_for_each(check_enum)?;
        schema.messages.iter().try_for_each(|message| check_message(&schema, message))?;
        Ok(schema)
    }
}

/// Slots are 16 bits wide.
pub const FIELDS_MAX: usize = u16::MAX as usize;

fn index(position: Option<usize>) -> Option<u32> {
    position.and_then(|position| u32::try_from(position).ok())
}

/// Messages, enums and the values of enums live in one tree of scopes.
fn check_names(schema: &Schema) -> Result<(), SchemaError> {
    let mut seen = HashSet::new();
    let messages = schema.messages.iter().map(|message| ("message", &message.name));
    let enums = schema.enums.iter().map(|shape| ("enum", &shape.name));
    for (what, name) in messages.chain(enums) {
        if !name.split('.').all(is_identifier) {
            return Err(SchemaError::BadName { what, name: name.clone() });
        }
        if !seen.insert(name.clone()) {
            return Err(SchemaError::DuplicateName { name: name.clone() });
        }
    }
    for shape in &schema.enums {
        for (value, _) in &shape.values {
            if !is_identifier(value) {
                return Err(SchemaError::BadName { what: "enum value", name: value.clone() });
            }
            let name = match shape.name.rsplit_once('.') {
                Some((scope, _)) => format!("{scope}.{value}"),
                None => value.clone(),
            };
            if !seen.insert(name.clone()) {
                return Err(SchemaError::DuplicateName { name });
            }
        }
    }
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_enum(shape: &EnumShape) -> Result<(), SchemaError> {
    let reason = match shape.values.first() {
        None => "it has no values; give it one",
        Some((_, first)) if *first != 0 && shape.unknown == UnknownNumber::Keep => {
            "the first value of an open enum is 0; put it first"
        }
        Some(_) => return Ok(()),
    };
    Err(SchemaError::Enum { name: shape.name.clone(), reason })
}

fn check_message(schema: &Schema, message: &MessageShape) -> Result<(), SchemaError> {
    if message.fields.len() > FIELDS_MAX {
        return Err(SchemaError::TooManyFields {
            message: message.name.clone(),
            count: message.fields.len(),
        });
    }
    let mut names = HashSet::new();
    let mut numbers = HashMap::new();
    for oneof in &message.oneofs {
        if !is_identifier(oneof) {
            return Err(SchemaError::BadName { what: "oneof", name: oneof.clone() });
        }
        if !names.insert(oneof.as_str()) {
            return Err(SchemaError::DuplicateName { name: format!("{}.{oneof}", message.name) });
        }
    }
    for field in &message.fields {
        if !is_identifier(&field.name) {
            return Err(SchemaError::BadName { what: "field", name: field.name.clone() });
        }
        let twice = if !names.insert(&field.name) {
            Err(FieldError::DuplicateName)
        } else if let Some(other) = numbers.insert(field.number, &field.name) {
            Err(FieldError::DuplicateNumber(field.number, other.clone()))
        } else {
            Ok(())
        };
        twice.and_then(|()| check_field(schema, message, field)).map_err(|reason| SchemaError::Field {
            message: message.name.clone(),
            field: field.name.clone(),
            reason,
        })?;
    }
    for (oneof, index) in message.oneofs.iter().zip(0..) {
        if !message.fields.iter().any(|field| field.oneof == Some(index)) {
            return Err(SchemaError::EmptyOneof { message: message.name.clone(), oneof: oneof.clone() });
        }
    }
    Ok(())
}

fn check_field(schema: &Schema, message: &MessageShape, field: &FieldShape) -> Result<(), FieldError> {
    if !matches!(field.number, 1..=0x1fff_ffff) || matches!(field.number, 19000..=19999) {
        return Err(FieldError::Number(field.number));
    }
    match field.kind {
        Kind::Message(id) if id.0 as usize >= schema.messages.len() => {
            return Err(FieldError::Dangling(format!("{id:?}")));
        }
        Kind::Enum(id) if id.0 as usize >= schema.enums.len() => {
            return Err(FieldError::Dangling(format!("{id:?}")));
        }
        _ => {}
    }
    match field.oneof {
        Some(oneof) if oneof as usize >= message.oneofs.len() => {
            return Err(FieldError::DanglingOneof(oneof));
        }
        Some(_) if field.label != Label::Single => return Err(FieldError::OneofLabel),
        _ => {}
    }
    let Bounds { value, key: key_bounds, count_max } = &field.bounds;
    match field.label {
        Label::Repeated { packed: true } if !field.kind.is_packable() => return Err(FieldError::Packed),
        Label::Map { key } if !key.is_map_key() => return Err(FieldError::MapKey),
        Label::Map { key } => check_bounds(key, key_bounds)?,
        Label::Single | Label::Optional if count_max.is_some() => {
            return Err(FieldError::Bounds("only a list or a map has a count"));
        }
        _ => {}
    }
    check_bounds(field.kind, value)
}

fn check_bounds(kind: Kind, bounds: &ValueBounds) -> Result<(), FieldError> {
    if bounds.len_max.is_some() && !matches!(kind, Kind::Str | Kind::Bytes) {
        return Err(FieldError::Bounds("only str and bytes have a length"));
    }
    let fits = match (bounds.range, kind) {
        (None, _) => return Ok(()),
        (Some(Range::Float { min, max }), Kind::F64 | Kind::F32) => min <= max,
        (
            Some(Range::Signed { min, max }),
            Kind::I32 | Kind::I64 | Kind::S32 | Kind::S64 | Kind::SFixed32 | Kind::SFixed64,
        ) => min <= max,
        (Some(Range::Unsigned { min, max }), Kind::U32 | Kind::U64 | Kind::Fixed32 | Kind::Fixed64) => {
            min <= max
        }
        _ => return Err(FieldError::Bounds("a range of another type than the field's")),
    };
    if fits { Ok(()) } else { Err(FieldError::Bounds("no number is in this range")) }
}
