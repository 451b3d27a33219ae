//! What is refused beyond the wire format: limits, bounds, closed enums; where it is, and that nothing is left behind.

use schema::bounds::{Bounds, Range, ValueBounds, Violation};
use schema::discard::Discard;
use schema::error::{DecodeReason, EncodeReason};
use schema::plan::{Limits, Plans, Scalar, Sink, Stopped};
use schema::shape::{EnumShape, FieldShape, Kind, Label, MessageId, SchemaBuilder, UnknownNumber};
use schema::value::{Key, Message, Value};

const MOVE: MessageId = MessageId(0);

/// A message of everything that has bounds; `Move` holds itself.
fn plans(limits: Limits) -> Plans {
    let mut builder = SchemaBuilder::new();
    let r#move = builder.message("Move");
    let side = |name: &str, unknown| EnumShape {
        name: name.to_owned(),
        values: vec![(format!("{name}_LEFT"), 1), (format!("{name}_RIGHT"), 2)],
        unknown,
    };
    let refused = builder.enumeration(side("Side", UnknownNumber::Refuse));
    let skipped = builder.enumeration(side("Old", UnknownNumber::Skip));
    let bounds = |value: ValueBounds| Bounds { value, ..Bounds::default() };
    let plain = ValueBounds::default();
    let unit = bounds(ValueBounds { range: Some(Range::Float { min: -1.0, max: 1.0 }), ..plain });
    let byte = ValueBounds { range: Some(Range::Unsigned { min: 0, max: 255 }), ..plain };
    let short = ValueBounds { len_max: Some(3), ..plain };
    let list = Label::Repeated { packed: true };
    let three = Bounds { count_max: Some(3), ..Bounds::default() };
    for field in [
        FieldShape::new("x", 1, Kind::F32).bounded(unit),
        FieldShape::new("path", 2, Kind::Message(r#move))
            .label(Label::Repeated { packed: false })
            .bounded(three),
        FieldShape::new("hp", 3, Kind::U32).bounded(bounds(byte)),
        FieldShape::new("name", 4, Kind::Str).bounded(bounds(short)),
        FieldShape::new("side", 5, Kind::Enum(refused)),
        FieldShape::new("old", 6, Kind::Enum(skipped)),
        FieldShape::new("xs", 7, Kind::F32).label(list).bounded(unit),
        FieldShape::new("hps", 8, Kind::U32)
            .label(list)
            .bounded(Bounds { count_max: Some(3), ..bounds(byte) }),
        FieldShape::new("by", 9, Kind::Message(r#move))
            .label(Label::Map { key: Kind::Str })
            .bounded(Bounds { key: short, ..three }),
        FieldShape::new("next", 10, Kind::Message(r#move)),
        FieldShape::new("olds", 11, Kind::Enum(skipped)).label(list),
        FieldShape::new("at", 12, Kind::Enum(skipped)).label(Label::Map { key: Kind::U32 }),
    ] {
        builder.field(r#move, field);
    }
    Plans::new(builder.build().expect("a schema"), limits)
}

fn read(plans: &Plans, bytes: &[u8]) -> Result<Message, String> {
    let mut message = Message::new(plans.schema(), MOVE);
    let read = plans.decode(MOVE, bytes, &mut message.sink(plans.schema()));
    assert_eq!(plans.decode(MOVE, bytes, &mut Discard::new()).is_ok(), read.is_ok());
    read.map(|()| message).map_err(|error| error.to_string())
}

fn write(plans: &Plans, message: &Message) -> Result<Vec<u8>, String> {
    let mut out = vec![7];
    let written = plans.encode(MOVE, &message, &mut out);
    match written {
        Ok(()) => Ok(out.split_off(1)),
        Err(error) => {
            assert_eq!(out, [7], "something is left behind");
            Err(error.to_string())
        }
    }
}

fn with(plans: &Plans, field: &str, value: Value) -> Message {
    let mut message = Message::new(plans.schema(), MOVE);
    message.set(plans.schema().message(MOVE).slot(field).expect("a field"), Some(value));
    message
}

/// One that breaks a bound is refused in the same words when it is written and when it is read.
#[test]
fn bounds_are_checked_both_ways_and_say_where() {
    let plans = plans(Limits::default());
    let free = Plans::new(plans.schema().clone().without_bounds(), Limits::default());
    let inner = |field: &str, value| Value::Message(with(&plans, field, value));
    let two = || inner("x", Value::F32(2.0));
    let none = || Value::Message(Message::new(plans.schema(), MOVE));
    let map = |entries: Vec<(&str, Value)>| {
        Value::Map(entries.into_iter().map(|(key, value)| (Key::Str(key.into()), value)).collect())
    };
    for (field, value, expected) in [
        ("x", Value::F32(2.0), "Move.x: 2 is not in -1 to 1"),
        ("x", Value::F32(f32::NAN), "Move.x: NaN is not a finite number"),
        ("x", Value::F32(f32::INFINITY), "Move.x: inf is not a finite number"),
        ("hp", Value::U32(256), "Move.hp: 256 is not in 0 to 255"),
        ("name", Value::Str("äöüß".into()), "Move.name: more than 3 characters"),
        ("path", Value::List(vec![none(), none(), two()]), "Move.path[2].x: 2 is not in -1 to 1"),
        ("path", Value::List(vec![none(); 4]), "Move.path: more than 3 items"),
        ("xs", Value::List(vec![Value::F32(0.0), Value::F32(-2.0)]), "Move.xs[1]: -2 is not in -1 to 1"),
        ("hps", Value::List(vec![Value::U32(1), Value::U32(300)]), "Move.hps[1]: 300 is not in 0 to 255"),
        ("hps", Value::List(vec![Value::U32(1); 4]), "Move.hps: more than 3 items"),
        ("by", map(vec![("a", two())]), "Move.by[\"a\"].x: 2 is not in -1 to 1"),
        ("by", map(vec![("long", none())]), "Move.by[\"long\"]: more than 3 characters"),
        ("next", inner("next", two()), "Move.next.next.x: 2 is not in -1 to 1"),
    ] {
        let message = with(&plans, field, value);
        assert_eq!(write(&plans, &message), Err(expected.to_owned()));
        let bytes = write(&free, &message).expect("free of bounds");
        assert_eq!(read(&plans, &bytes), Err(expected.to_owned()));
        assert_eq!(read(&free, &bytes), Ok(message));
    }
}

#[test]
fn a_count_is_of_all_pieces() {
    let plans = plans(Limits::default());
    // Packed runs, single items, and two pieces of one message, which merge.
    for bytes in [
        &b"\x42\x02\x01\x02\x42\x02\x01\x02"[..],
        b"\x40\x01\x40\x01\x42\x02\x01\x02",
        b"\x52\x04\x42\x02\x01\x02\x52\x04\x42\x02\x01\x02",
    ] {
        let mut message = Message::new(plans.schema(), MOVE);
        let error = plans.decode(MOVE, bytes, &mut message.sink(plans.schema())).expect_err("too many");
        assert_eq!(error.reason, DecodeReason::Violation(Violation::TooMany { max: 3 }), "{error}");
    }
}

#[test]
fn closed_enums_refuse_or_skip_what_they_do_not_name() {
    let plans = plans(Limits::default());
    assert_eq!(read(&plans, &[0x28, 3]), Err("Move.side: 3 is no value of enum Side".to_owned()));
    assert_eq!(read(&plans, &[0x28, 0]), Err("Move.side: 0 is no value of enum Side".to_owned()));
    let left = with(&plans, "old", Value::Enum(1));
    assert_eq!(read(&plans, &[0x30, 1, 0x30, 9]), Ok(left));
    assert_eq!(read(&plans, &[0x30, 9]), Ok(Message::new(plans.schema(), MOVE)));
    let list = with(&plans, "olds", Value::List(vec![Value::Enum(1), Value::Enum(2)]));
    assert_eq!(read(&plans, &[0x5a, 3, 1, 9, 2]), Ok(list));
    // An entry with such a number is unknown as a whole, whatever follows it.
    let entry = with(&plans, "at", Value::Map([(Key::U32(1), Value::Enum(2))].into()));
    let bytes = [0x62, 4, 8, 1, 16, 2, 0x62, 4, 8, 1, 16, 9, 0x62, 6, 8, 5, 16, 9, 16, 2];
    assert_eq!(read(&plans, &bytes), Ok(entry));
    let unnamed = with(&plans, "old", Value::Enum(9));
    assert_eq!(write(&plans, &unnamed), Err("Move.old: 9 is no value of enum Old".to_owned()));
}

/// `next` within `next`, `depth` times.
fn nested(plans: &Plans, depth: u32) -> Message {
    (0..depth).fold(Message::new(plans.schema(), MOVE), |inner, _| with(plans, "next", Value::Message(inner)))
}

#[test]
fn depth_is_bounded_in_messages_entries_and_groups() {
    let (plans, deep) = (plans(Limits::default()), plans(Limits { depth: 1000, ..Limits::default() }));
    assert_eq!(deep.limits().depth, 100);
    for (depth, fits) in [(32, true), (33, false)] {
        let message = nested(&deep, depth);
        assert_eq!(write(&plans, &message).is_ok(), fits);
        let bytes = write(&deep, &message).expect("100 deep");
        assert_eq!(read(&plans, &bytes).is_ok(), fits);
        let groups = [[0xa3, 6].repeat(depth as usize), [0xa4, 6].repeat(depth as usize)].concat();
        assert_eq!(read(&plans, &groups).is_ok(), fits);
    }
    let error = write(&plans, &nested(&deep, 33)).expect_err("too deep");
    assert!(error.ends_with(".next: messages within messages, more than 32 deep"), "{error}");
    // An entry is a message, too: 16 maps within maps are 32 deep.
    for (depth, fits) in [(16, true), (17, false)] {
        let message = (0..depth).fold(Message::new(plans.schema(), MOVE), |inner, _| {
            with(&plans, "by", Value::Map([(Key::Str("a".into()), Value::Message(inner))].into()))
        });
        assert_eq!(write(&plans, &message).is_ok(), fits);
        assert_eq!(read(&plans, &write(&deep, &message).expect("deep enough")).is_ok(), fits);
    }
    let mountain = [0xa3, 6].repeat(1_000_000);
    assert!(read(&deep, &mountain).is_err());
}

#[test]
fn items_and_bytes_are_bounded() {
    let free = plans(Limits::default());
    let tight = plans(Limits { items: 3, ..Limits::default() });
    let xs = |count| with(&free, "xs", Value::List(vec![Value::F32(0.5); count]));
    for (message, fits) in [
        (xs(3), true),
        (xs(4), false),
        (with(&free, "path", Value::List(vec![Value::Message(xs(1)), Value::Message(xs(0))])), true),
        (with(&free, "path", Value::List(vec![Value::Message(xs(1)), Value::Message(xs(1))])), false),
        (nested(&free, 3), true),
        (nested(&free, 4), false),
    ] {
        let bytes = write(&free, &message).expect("fits");
        assert_eq!(read(&tight, &bytes).is_ok(), fits, "{message:?}");
    }
    // One by one, and as varints.
    assert!(read(&tight, &[0x58, 1].repeat(3)).is_ok());
    assert!(read(&tight, &[0x58, 1].repeat(4)).is_err());
    assert!(read(&tight, &[0x5a, 3, 1, 1, 1]).is_ok());
    assert!(read(&tight, &[0x5a, 4, 1, 1, 1, 1]).is_err());

    let small = plans(Limits { bytes: 14, ..Limits::default() });
    let bytes = write(&free, &xs(3)).expect("fits");
    assert_eq!(bytes.len(), 14);
    assert!(read(&small, &bytes).is_ok());
    assert!(write(&small, &xs(3)).is_ok());
    assert_eq!(write(&small, &xs(4)), Err("Move: more than 14 bytes".to_owned()));
    assert_eq!(read(&small, &[0; 15]), Err("Move: 15 bytes; at most 14".to_owned()));
}

#[test]
fn values_of_another_type_are_refused() {
    let plans = plans(Limits::default());
    for (field, value) in [
        ("x", Value::F64(0.5)),
        ("hp", Value::I32(1)),
        ("name", Value::Bytes(vec![1])),
        ("side", Value::I32(1)),
        ("xs", Value::List(vec![Value::U32(1)])),
        ("by", Value::Map([(Key::U32(1), Value::Message(Message::new(plans.schema(), MOVE)))].into())),
        ("at", Value::Map([(Key::U32(1), Value::U32(1))].into())),
    ] {
        let mut out = Vec::new();
        let error = plans.encode(MOVE, &&with(&plans, field, value), &mut out).expect_err(field);
        assert_eq!(error.reason, EncodeReason::WrongType, "{error}");
        assert!(error.path.starts_with(&format!("Move.{field}")), "{error}");
    }
    for (field, value) in [("x", Value::List(vec![])), ("xs", Value::F32(1.0)), ("next", Value::F32(1.0))] {
        let mut out = Vec::new();
        let error = plans.encode(MOVE, &&with(&plans, field, value), &mut out).expect_err(field);
        assert_eq!((error.reason, error.path), (EncodeReason::Stopped, format!("Move.{field}")));
    }
}

/// Takes nothing: whatever is refused must be refused before a sink hears of it.
struct Deaf;

impl Sink for Deaf {
    type Child<'a> = Deaf;

    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        panic!("slot {slot} is {value}")
    }

    fn message(&mut self, _: u16) -> Result<Deaf, Stopped> {
        Ok(Deaf)
    }

    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        panic!("slot {slot} has {value}")
    }

    fn reserve(&mut self, slot: u16, items: usize) -> Result<(), Stopped> {
        panic!("slot {slot} is to take {items}")
    }

    fn message_item(&mut self, _: u16) -> Result<Deaf, Stopped> {
        panic!("a message")
    }

    fn entry(&mut self, _: u16, _: Scalar<'_>, _: Scalar<'_>) -> Result<(), Stopped> {
        panic!("an entry")
    }

    fn message_entry(&mut self, _: u16, _: Scalar<'_>) -> Result<Deaf, Stopped> {
        panic!("an entry")
    }

    fn choose(&mut self, _: u16, _: u16) -> Result<(), Stopped> {
        panic!("a choice")
    }

    fn count(&self, _: u16) -> usize {
        0
    }
}

#[test]
fn what_is_too_much_takes_no_memory() {
    let tight = plans(Limits { items: 3, bytes: 64, depth: 2 });
    let key = |text: &str| [&[0x4a, text.len() as u8 + 2, 0x0a, text.len() as u8], text.as_bytes()].concat();
    for (bytes, reason) in [
        (vec![0; 65], "Move: 65 bytes; at most 64"),
        (vec![0x52, 4, 0x52, 2, 0x52, 0], "Move.next.next.next: messages within messages, more than 2 deep"),
        (
            [vec![0x3a, 16], vec![0; 16]].concat(),
            "Move.xs: more than 3 items, entries and messages in one message",
        ),
        (vec![0x42, 4, 1, 1, 1, 1], "Move.hps: more than 3 items, entries and messages in one message"),
        (vec![0x5a, 4, 1, 1, 1, 1], "Move.olds: more than 3 items, entries and messages in one message"),
        (vec![0x22, 2, 0xc3, 0x28], "Move.name: no protobuf message: a text is not UTF-8"),
        (vec![0x22, 4, b'a', b'b', b'c', b'd'], "Move.name: more than 3 characters"),
        (key("abcd"), "Move.by[\"abcd\"]: more than 3 characters"),
        (
            vec![0x22, 0xff, 0xff, 0xff, 0x7f],
            "Move.name: no protobuf message: the bytes end inside of a value",
        ),
        (
            vec![0x42, 0xff, 0xff, 0xff, 0x7f],
            "Move.hps: no protobuf message: the bytes end inside of a value",
        ),
    ] {
        let error = tight.decode(MOVE, &bytes, &mut Deaf).expect_err(reason);
        assert_eq!(error.to_string(), reason);
    }
    // A field's own count, too.
    let counted = plans(Limits::default());
    let error = counted.decode(MOVE, &[0x42, 4, 1, 1, 1, 1], &mut Deaf).expect_err("too many");
    assert_eq!(error.to_string(), "Move.hps: more than 3 items");
}
