//! Random schemas and values, against prost-reflect: a reader and a writer of protobuf that shares nothing with ours.

mod random;

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MapKey, MessageDescriptor, ReflectMessage, Value as Theirs,
};
use random::Choices;
use schema::Malformed;
use schema::descriptor::{descriptor_set_of_text, schema_of_set};
use schema::error::{DecodeError, DecodeReason};
use schema::plan::{Limits, Plans};
use schema::proto_text::proto_text;
use schema::shape::{MessageId, Schema};
use schema::value::{Key, Message, Value};

const OUTER: MessageId = MessageId(0);

fn their_message(schema: &Schema) -> MessageDescriptor {
    let text = proto_text(schema, &BTreeMap::new(), "").expect("a text");
    let set = descriptor_set_of_text("t.proto", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let pool = DescriptorPool::decode(set.as_slice()).expect("a pool");
    pool.get_message_by_name(&schema.message(OUTER).name).expect("the message")
}

fn to_theirs(schema: &Schema, message: &Message, descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut theirs = DynamicMessage::new(descriptor.clone());
    for (slot, field) in (0u16..).zip(&schema.message(message.id()).fields) {
        let Some(value) = message.get(slot) else { continue };
        let field = descriptor.get_field(field.number).expect("the field");
        let kind = field.kind();
        let child = |value: &Value| match value {
            Value::Message(message) => {
                Theirs::Message(to_theirs(schema, message, kind.as_message().expect("a message")))
            }
            value => scalar_to_theirs(value),
        };
        let value = match value {
            Value::List(items) => Theirs::List(items.iter().map(child).collect()),
            Value::Map(entries) => {
                let value_kind = kind.as_message().expect("an entry").map_entry_value_field().kind();
                let child = |value: &Value| match value {
                    Value::Message(message) => Theirs::Message(to_theirs(
                        schema,
                        message,
                        value_kind.as_message().expect("a message"),
                    )),
                    value => scalar_to_theirs(value),
                };
                Theirs::Map(entries.iter().map(|(key, value)| (key_to_theirs(key), child(value))).collect())
            }
            value => child(value),
        };
        theirs.set_field(&field, value);
    }
    theirs
}

fn scalar_to_theirs(value: &Value) -> Theirs {
    match value {
        Value::F64(value) => Theirs::F64(*value),
        Value::F32(value) => Theirs::F32(*value),
        Value::I64(value) => Theirs::I64(*value),
        Value::U64(value) => Theirs::U64(*value),
        Value::I32(value) => Theirs::I32(*value),
        Value::U32(value) => Theirs::U32(*value),
        Value::Bool(value) => Theirs::Bool(*value),
        Value::Str(value) => Theirs::String(value.clone()),
        Value::Bytes(value) => Theirs::Bytes(value.clone().into()),
        Value::Enum(value) => Theirs::EnumNumber(*value),
        Value::Message(_) | Value::List(_) | Value::Map(_) => panic!("not a scalar"),
    }
}

fn key_to_theirs(key: &Key) -> MapKey {
    match key {
        Key::Bool(key) => MapKey::Bool(*key),
        Key::I32(key) => MapKey::I32(*key),
        Key::I64(key) => MapKey::I64(*key),
        Key::U32(key) => MapKey::U32(*key),
        Key::U64(key) => MapKey::U64(*key),
        Key::Str(key) => MapKey::String(key.clone()),
    }
}

fn read(plans: &Plans, bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut message = Message::new(plans.schema(), OUTER);
    plans.decode(OUTER, bytes, &mut message.sink(plans.schema()))?;
    Ok(message)
}

fn write(plans: &Plans, message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    plans.encode(OUTER, &message, &mut bytes).expect("can be written");
    bytes
}

/// prost takes -0.0 as a default, and does not write it; google does, and so do we.
fn has_negative_zero(message: &Message) -> bool {
    format!("{message:?}").contains("-0.0")
}

/// The names that a schema's text and back does not keep the order of: messages by name, fields by number.
fn in_order(schema: &Schema) -> Vec<String> {
    let mut lines = Vec::new();
    for message in schema.messages() {
        for field in &message.fields {
            let of = match field.kind {
                schema::shape::Kind::Message(id) => schema.message(id).name.clone(),
                schema::shape::Kind::Enum(id) => schema.enumeration(id).name.clone(),
                kind => format!("{kind:?}"),
            };
            let oneof = field.oneof.map(|oneof| &message.oneofs[oneof as usize]);
            lines.push(format!(
                "{}.{} {:?} {of} {:?} {oneof:?}",
                message.name, field.name, field.number, field.label
            ));
        }
        lines.push(message.name.clone());
    }
    lines.extend(schema.enums().iter().map(|shape| format!("{shape:?}")));
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn a_schema_is_its_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = random::schema(&mut Choices::new(&bytes), true);
        let text = proto_text(&schema, &BTreeMap::new(), "").expect("a text");
        let set = descriptor_set_of_text("t.proto", &text).expect("compiles");
        let again = schema_of_set(&set).expect("a schema");
        prop_assert_eq!(in_order(&again), in_order(&schema), "{}", text);
    }

    #[test]
    fn both_write_and_read_the_same(
        shape in prop::collection::vec(any::<u8>(), 0..120),
        values in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let schema = random::schema(&mut Choices::new(&shape), true);
        let descriptor = their_message(&schema);
        let message = random::message(&mut Choices::new(&values), &schema, OUTER, 4);
        prop_assume!(!has_negative_zero(&message));
        let theirs = to_theirs(&schema, &message, &descriptor);
        let plans = Plans::new(schema, Limits::default());
        let bytes = write(&plans, &message);
        let their_bytes = theirs.encode_to_vec();
        // Their maps are in no order, and leave out keys and values that are defaults.
        let maps = format!("{message:?}").contains("Map(");
        if !maps {
            prop_assert_eq!(&bytes, &their_bytes);
        }
        prop_assert_eq!(&read(&plans, &bytes).expect("reads what it wrote"), &message);
        prop_assert_eq!(&read(&plans, &their_bytes).expect("reads what they wrote"), &message);
        let again = DynamicMessage::decode(descriptor, bytes.as_slice()).expect("they read what we wrote");
        prop_assert_eq!(again.encode_to_vec().len(), their_bytes.len());
    }

    #[test]
    fn both_take_or_refuse_what_is_broken(
        shape in prop::collection::vec(any::<u8>(), 0..120),
        values in prop::collection::vec(any::<u8>(), 0..400),
        mutations in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let schema = random::schema(&mut Choices::new(&shape), false);
        let descriptor = their_message(&schema);
        let message = random::message(&mut Choices::new(&values), &schema, OUTER, 4);
        let plans = Plans::new(schema, Limits::default());
        let bytes = random::mutated(&mut Choices::new(&mutations), &write(&plans, &message));
        let ours = read(&plans, &bytes);
        let theirs = DynamicMessage::decode(descriptor.clone(), bytes.as_slice());
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assume!(!has_negative_zero(ours));
                let again = DynamicMessage::decode(descriptor, write(&plans, ours).as_slice()).expect("they read it");
                let known = without_unknown(theirs);
                prop_assert_eq!(again.encode_to_vec(), known.encode_to_vec());
            }
            (Err(_), Err(_)) => {}
            (Ok(_), Err(theirs)) => prop_assert!(LENIENT.iter().any(|text| theirs.to_string().contains(text)), "{theirs}"),
            (Err(ours), Ok(_)) => prop_assert!(STRICT.contains(&ours.reason), "{ours}"),
        }
    }
}

/// What prost refuses and google, and we, take: a known field of another wire type is an unknown field, and a varint's bits
/// beyond 64 are dropped.
const LENIENT: [&str; 2] = ["invalid wire type", "invalid varint"];
/// What prost takes and google, and we, refuse: a tag or a length of more than five bytes, however small the number is.
const STRICT: [DecodeReason; 1] = [DecodeReason::Malformed(Malformed::Varint)];

fn without_unknown(message: &DynamicMessage) -> DynamicMessage {
    let mut known = DynamicMessage::new(message.descriptor());
    for (field, value) in message.fields() {
        known.set_field(&field, known_value(value));
    }
    known
}

fn known_value(value: &Theirs) -> Theirs {
    match value {
        Theirs::Message(message) => Theirs::Message(without_unknown(message)),
        Theirs::List(items) => Theirs::List(items.iter().map(known_value).collect()),
        value => value.clone(),
    }
}
