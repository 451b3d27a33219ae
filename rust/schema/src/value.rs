//! Values as a plain tree: for tests and tools.

use std::collections::BTreeMap;

use crate::plan::{Scalar, ScalarType, Sink, Source, Stopped};
use crate::shape::{Kind, MessageId, Schema};

/// One message: a value by slot, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    id: MessageId,
    values: Box<[Option<Value>]>,
}

/// The value of a field. Equal are floats of the same bits, so a NaN equals itself, and 0.0 is not -0.0.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Value {
    F64(f64),
    F32(f32),
    I64(i64),
    U64(u64),
    I32(i32),
    U32(u32),
    Bool(bool),
    Str(String),
    Bytes(Vec<u8>),
    Enum(i32),
    Message(Message),
    List(Vec<Value>),
    Map(BTreeMap<Key, Value>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key {
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    Str(String),
}

/// Fills a [`Message`].
#[derive(Debug)]
pub struct MessageSink<'a> {
    schema: &'a Schema,
    message: &'a mut Message,
}

impl Message {
    /// Without any value.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn new(schema: &Schema, id: MessageId) -> Self {
        Self { id, values: vec![None; schema.message(id).fields.len()].into() }
    }

    /// Which message it is.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// The value at a slot. `None`: absent; where presence is implicit: the default; of a list or map: empty.
    pub fn get(&self, slot: u16) -> Option<&Value> {
        self.values.get(usize::from(slot))?.as_ref()
    }

    /// Puts a value at a slot, or takes it away. For a value to equal what is read, a default of implicit presence and
    /// an empty list or map are `None`.
    ///
    /// # Panics
    /// The slot is another message's.
    pub fn set(&mut self, slot: u16, value: Option<Value>) {
        self.values[usize::from(slot)] = value;
    }

    /// A sink that puts what is read here.
    pub fn sink<'a>(&'a mut self, schema: &'a Schema) -> MessageSink<'a> {
        MessageSink { schema, message: self }
    }
}

impl Value {
    /// What a scalar becomes.
    pub fn new(scalar: Scalar<'_>) -> Self {
        match scalar {
            Scalar::F64(value) => Self::F64(value),
            Scalar::F32(value) => Self::F32(value),
            Scalar::I64(value) => Self::I64(value),
            Scalar::U64(value) => Self::U64(value),
            Scalar::I32(value) => Self::I32(value),
            Scalar::U32(value) => Self::U32(value),
            Scalar::Bool(value) => Self::Bool(value),
            Scalar::Str(value) => Self::Str(value.to_owned()),
            Scalar::Bytes(value) => Self::Bytes(value.to_owned()),
            Scalar::Enum(value) => Self::Enum(value),
        }
    }

    /// `None` for a message, a list or a map.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        Some(match self {
            Self::F64(value) => Scalar::F64(*value),
            Self::F32(value) => Scalar::F32(*value),
            Self::I64(value) => Scalar::I64(*value),
            Self::U64(value) => Scalar::U64(*value),
            Self::I32(value) => Scalar::I32(*value),
            Self::U32(value) => Scalar::U32(*value),
            Self::Bool(value) => Scalar::Bool(*value),
            Self::Str(value) => Scalar::Str(value),
            Self::Bytes(value) => Scalar::Bytes(value),
            Self::Enum(value) => Scalar::Enum(*value),
            Self::Message(_) | Self::List(_) | Self::Map(_) => return None,
        })
    }

    /// Whether it is what an absent field of implicit presence means: zero, empty.
    pub fn is_default(&self) -> bool {
        match self {
            Self::F64(value) => value.to_bits() == 0,
            Self::F32(value) => value.to_bits() == 0,
            Self::I64(value) => *value == 0,
            Self::U64(value) => *value == 0,
            Self::I32(value) | Self::Enum(value) => *value == 0,
            Self::U32(value) => *value == 0,
            Self::Bool(value) => !value,
            Self::Str(value) => value.is_empty(),
            Self::Bytes(value) => value.is_empty(),
            Self::Message(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::F32(a), Self::F32(b)) => a.to_bits() == b.to_bits(),
            (Self::Message(a), Self::Message(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => self.scalar().is_some() && self.scalar() == other.scalar(),
        }
    }
}

impl Key {
    /// `None`: floats, bytes and enums are no keys.
    pub fn new(scalar: Scalar<'_>) -> Option<Self> {
        Some(match scalar {
            Scalar::Bool(key) => Self::Bool(key),
            Scalar::I32(key) => Self::I32(key),
            Scalar::I64(key) => Self::I64(key),
            Scalar::U32(key) => Self::U32(key),
            Scalar::U64(key) => Self::U64(key),
            Scalar::Str(key) => Self::Str(key.to_owned()),
            Scalar::F64(_) | Scalar::F32(_) | Scalar::Bytes(_) | Scalar::Enum(_) => return None,
        })
    }

    /// The key as a value.
    pub fn scalar(&self) -> Scalar<'_> {
        match self {
            Self::Bool(key) => Scalar::Bool(*key),
            Self::I32(key) => Scalar::I32(*key),
            Self::I64(key) => Scalar::I64(*key),
            Self::U32(key) => Scalar::U32(*key),
            Self::U64(key) => Scalar::U64(*key),
            Self::Str(key) => Scalar::Str(key),
        }
    }
}

impl MessageSink<'_> {
    fn list(&mut self, slot: u16) -> Result<&mut Vec<Value>, Stopped> {
        match self.message.values[usize::from(slot)].get_or_insert_with(|| Value::List(Vec::new())) {
            Value::List(items) => Ok(items),
            _ => Err(Stopped),
        }
    }

    fn map(&mut self, slot: u16) -> Result<&mut BTreeMap<Key, Value>, Stopped> {
        match self.message.values[usize::from(slot)].get_or_insert_with(|| Value::Map(BTreeMap::new())) {
            Value::Map(entries) => Ok(entries),
            _ => Err(Stopped),
        }
    }

    /// An empty message of a field's kind.
    fn child(&self, slot: u16) -> Result<Message, Stopped> {
        match self.schema.message(self.message.id).field(slot).kind {
            Kind::Message(id) => Ok(Message::new(self.schema, id)),
            _ => Err(Stopped),
        }
    }
}

impl Sink for MessageSink<'_> {
    type Child<'a>
        = MessageSink<'a>
    where
        Self: 'a;

    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        let value = Value::new(value);
        let field = self.schema.message(self.message.id).field(slot);
        self.message.set(slot, (field.has_presence() || !value.is_default()).then_some(value));
        Ok(())
    }

    fn message(&mut self, slot: u16) -> Result<MessageSink<'_>, Stopped> {
        let empty = self.child(slot)?;
        match self.message.values[usize::from(slot)].get_or_insert(Value::Message(empty)) {
            Value::Message(message) => Ok(message.sink(self.schema)),
            _ => Err(Stopped),
        }
    }

    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        self.list(slot)?.push(Value::new(value));
        Ok(())
    }

    fn reserve(&mut self, slot: u16, items: usize) -> Result<(), Stopped> {
        if items > 0 {
            self.list(slot)?.reserve(items);
        }
        Ok(())
    }

    fn message_item(&mut self, slot: u16) -> Result<MessageSink<'_>, Stopped> {
        let (schema, empty) = (self.schema, self.child(slot)?);
        let items = self.list(slot)?;
        items.push(Value::Message(empty));
        match items.last_mut() {
            Some(Value::Message(message)) => Ok(message.sink(schema)),
            _ => Err(Stopped),
        }
    }

    fn entry(&mut self, slot: u16, key: Scalar<'_>, value: Scalar<'_>) -> Result<(), Stopped> {
        self.map(slot)?.insert(Key::new(key).ok_or(Stopped)?, Value::new(value));
        Ok(())
    }

    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<MessageSink<'_>, Stopped> {
        let (schema, empty) = (self.schema, self.child(slot)?);
        let key = Key::new(key).ok_or(Stopped)?;
        let value = self.map(slot)?.entry(key).or_insert(Value::List(Vec::new()));
        *value = Value::Message(empty);
        match value {
            Value::Message(message) => Ok(message.sink(schema)),
            _ => Err(Stopped),
        }
    }

    fn choose(&mut self, oneof: u16, slot: u16) -> Result<(), Stopped> {
        let fields = &self.schema.message(self.message.id).fields;
        for (other, field) in (0u16..).zip(fields) {
            if field.oneof == Some(oneof.into()) && other != slot {
                self.message.set(other, None);
            }
        }
        Ok(())
    }

    fn count(&self, slot: u16) -> usize {
        match self.message.get(slot) {
            Some(Value::List(items)) => items.len(),
            Some(Value::Map(entries)) => entries.len(),
            _ => 0,
        }
    }
}

impl<'v> Source for &'v Message {
    type Child = &'v Message;

    fn scalar(&self, slot: u16, _: ScalarType) -> Result<Option<Scalar<'_>>, Stopped> {
        self.get(slot).map(|value| value.scalar().ok_or(Stopped)).transpose()
    }

    fn message(&self, slot: u16) -> Result<Option<&'v Message>, Stopped> {
        match Message::get(self, slot) {
            None => Ok(None),
            Some(Value::Message(message)) => Ok(Some(message)),
            Some(_) => Err(Stopped),
        }
    }

    fn items(
        &self,
        slot: u16,
        _: ScalarType,
        mut each: impl FnMut(Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match self.get(slot) {
            None => Ok(()),
            Some(Value::List(items)) => items.iter().try_for_each(|item| each(item.scalar().ok_or(Stopped)?)),
            Some(_) => Err(Stopped),
        }
    }

    fn messages(&self, slot: u16, mut each: impl FnMut(Self) -> Result<(), Stopped>) -> Result<(), Stopped> {
        match Message::get(self, slot) {
            None => Ok(()),
            Some(Value::List(items)) => items.iter().try_for_each(|item| match item {
                Value::Message(message) => each(message),
                _ => Err(Stopped),
            }),
            Some(_) => Err(Stopped),
        }
    }

    fn entries(
        &self,
        slot: u16,
        _: ScalarType,
        _: ScalarType,
        mut each: impl FnMut(Scalar<'_>, Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match self.get(slot) {
            None => Ok(()),
            Some(Value::Map(entries)) => {
                entries.iter().try_for_each(|(key, value)| each(key.scalar(), value.scalar().ok_or(Stopped)?))
            }
            Some(_) => Err(Stopped),
        }
    }

    fn message_entries(
        &self,
        slot: u16,
        _: ScalarType,
        mut each: impl FnMut(Scalar<'_>, Self) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match Message::get(self, slot) {
            None => Ok(()),
            Some(Value::Map(entries)) => entries.iter().try_for_each(|(key, value)| match value {
                Value::Message(message) => each(key.scalar(), message),
                _ => Err(Stopped),
            }),
            Some(_) => Err(Stopped),
        }
    }
}
