//! Bytes from the protobuf documentation, and from google's own protobuf for Python (upb, 7.36): the same messages, made of
//! descriptors, and `SerializeToString(deterministic=True)` of what `FromString` took of each line, `DiscardUnknownFields` in between.

use schema::descriptor::schema_of_text;
use schema::error::{DecodeError, DecodeReason};
use schema::plan::{Limits, Plans};
use schema::shape::MessageId;
use schema::value::{Key, Message, Value};

const TEXT: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto";
    message Test1 { int32 a = 1; }
    message Test2 { string b = 2; }
    message Test3 { Test1 c = 3; }
    message Test4 { string d = 4; repeated int32 e = 5; }
    message Test5 { repeated int32 f = 6; }
    message Test6 { map<string, int32> g = 7; }
    message All {
        uint32 u32 = 1; string s = 2; All m = 3; repeated int32 r = 4; float f = 5; bool b = 6; uint64 u64 = 7;
        repeated float rf = 8; map<string, All> mp = 9; map<int32, int32> mi = 10;
        oneof o { All oa = 11; int32 ob = 12; }
        map<bool, int32> mb = 13; map<uint64, int32> mu = 14; map<sint64, int32> ms = 15; optional sint32 z = 16;
    }
    message Known {
        google.protobuf.Timestamp at = 1; google.protobuf.Duration lasts = 2; google.protobuf.Struct more = 3;
        google.protobuf.Int32Value maybe = 4;
    }
"#;

struct Golden {
    plans: Plans,
}

impl Golden {
    fn new() -> Self {
        let schema = schema_of_text("t.proto", TEXT).expect("a schema").without_bounds();
        Self { plans: Plans::new(schema, Limits { depth: 100, ..Limits::default() }) }
    }

    fn id(&self, name: &str) -> MessageId {
        self.plans.schema().message_id(name).expect("a message")
    }

    fn read(&self, name: &str, hex: &str) -> Result<Message, DecodeError> {
        let mut message = Message::new(self.plans.schema(), self.id(name));
        self.plans.decode(message.id(), &bytes(hex), &mut message.sink(self.plans.schema()))?;
        Ok(message)
    }

    fn write(&self, message: &Message) -> String {
        let mut out = Vec::new();
        self.plans.encode(message.id(), &message, &mut out).expect("can be written");
        out.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is read from the one is written as the other.
    fn becomes(&self, name: &str, read: &str, written: &str) {
        let message = self.read(name, read).unwrap_or_else(|error| panic!("{read}: {error}"));
        assert_eq!(self.write(&message), written.replace(' ', ""), "{read}");
    }

    fn get(&self, message: &Message, field: &str) -> Option<Value> {
        let slot = self.plans.schema().message(message.id()).slot(field).expect("a field");
        message.get(slot).cloned()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    hex.chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect()
}

#[test]
fn the_messages_of_the_documentation() {
    let golden = Golden::new();
    for (name, hex, field, value) in [
        ("t.Test1", "08 9601", "a", Value::I32(150)),
        ("t.Test1", "08 feffffffffffffffff01", "a", Value::I32(-2)),
        ("t.Test2", "12 07 74657374696e67", "b", Value::Str("testing".into())),
        ("t.Test5", "32 06 03 8e02 9ea705", "f", Value::List([3, 270, 86942].map(Value::I32).into())),
    ] {
        let message = golden.read(name, hex).expect("reads");
        assert_eq!(golden.get(&message, field), Some(value));
        assert_eq!(golden.write(&message), hex.replace(' ', ""));
    }
    let nested = golden.read("t.Test3", "1a 03 08 9601").expect("reads");
    let Some(Value::Message(inner)) = golden.get(&nested, "c") else { panic!("a message") };
    assert_eq!(golden.get(&inner, "a"), Some(Value::I32(150)));
    golden.becomes("t.Test4", "2205 68656c6c6f 2801 2802 2803", "2205 68656c6c6f 2a03 010203");
    // Split and interleaved, both forms.
    golden.becomes("t.Test4", "2801 2205 68656c6c6f 2a02 0203", "2205 68656c6c6f 2a03 010203");
}

#[test]
fn well_known_types_are_messages() {
    let golden = Golden::new();
    // google's: 1,700,000,000.5 s; -1 s and -5 ns; 5; 0; {"a": "abcd"}; {"b": null}.
    for hex in [
        "0a0c 0880e2cfaa06 1080cab5ee01",
        "1216 08ffffffffffffffffff01 10fbffffffffffffffff01",
        "2202 0805",
        "2200",
        "1a0d 0a0b 0a0161 1206 1a04 61626364",
        "1a09 0a07 0a0162 1202 0800",
    ] {
        golden.becomes("t.Known", hex, hex);
    }
    let null = golden.read("t.Known", "1a09 0a07 0a0162 1202 0800").expect("reads");
    let Some(Value::Message(fields)) = golden.get(&null, "more") else { panic!("a Struct") };
    let Some(Value::Map(entries)) = golden.get(&fields, "fields") else { panic!("a map") };
    let Some(Value::Message(value)) = entries.get(&Key::Str("b".into())) else { panic!("a Value") };
    assert_eq!(golden.get(value, "null_value"), Some(Value::Enum(0)));
}

/// Left: bytes; right: what google makes of them in `SerializeToString(deterministic=True)`, unknown fields taken out.
#[test]
fn read_and_written_as_google_does() {
    let golden = Golden::new();
    for (read, written) in [
        ("08ffffffffff01", "08ffffffff0f"),
        ("38ffffffffffffffffff7f", "38ffffffffffffffffff01"),
        ("880001", "0801"),
        ("888080800001", "0801"),
        ("f8ffffff0f01", ""),
        ("0d01020304", ""),
        ("1001", ""),
        ("a3060801a406", ""),
        ("0b08010c", ""),
        ("12818080800061", "120161"),
        ("20012202020320ff01", "2205010203ff01"),
        ("120100", "120100"),
        ("3080808080808001", "3001"),
        ("3080808080808080808002", ""),
        ("4a00", "4a04 0a00 1200"),
        ("4a070a0161120208014a070a016112022001", "4a08 0a0161 1203 220101"),
        ("4a0b0a01611202080112022001", "4a0a 0a0161 1205 0801 220101"),
        ("4a080a01610a01621200", "4a05 0a0162 1200"),
        ("4a070a016112001801", ""),
        ("4a090a01611200a306a406", ""),
        ("52050d01020304", ""),
        ("5202080552005202 1007", "5204 0805 1000 5204 0800 1007"),
        ("5a0208016001", "6001"),
        ("5a02080160015a022001", "5a03 220101"),
        ("5a0208015a022001", "5a05 0801 220101"),
        ("2d00000080", "2d00000080"),
        ("2d0000c07f", "2d0000c07f"),
        ("2d0100a07f", "2d0100a07f"),
        ("2205ffffffff0f", "220a ffffffffffffffffff01"),
        ("5a00", "5a00"),
        ("6000", "6000"),
        ("800100", "800100"),
    ] {
        golden.becomes("t.All", read, written);
    }
}

#[test]
fn refused_as_google_does() {
    let golden = Golden::new();
    for hex in [
        "38ffffffffffffffffff8001",
        "88808080800001",
        "888080801001",
        "888080801001",
        "0001",
        "0e",
        "0f",
        "a30608019406",
        "0c",
        "1a010c",
        "a306",
        "1281808080800061",
        "12ffffffff0f",
        "22030102ff",
        "4203010203",
        "1201ff",
        "1203eda080",
        "1204f4908080",
        "1a0508",
        "4a020a05",
        "4a04120208ff",
    ] {
        let error = golden.read("t.All", hex).expect_err(hex);
        assert!(matches!(error.reason, DecodeReason::Malformed(_)), "{hex}: {error}");
    }
}

#[test]
fn maps_are_in_googles_order() {
    let golden = Golden::new();
    let mut message = Message::new(golden.plans.schema(), golden.id("t.All"));
    let slot = |field| golden.plans.schema().message(message.id()).slot(field).expect("a field");
    let (ints, texts, bools) = (slot("mi"), slot("mp"), slot("mb"));
    let none = Message::new(golden.plans.schema(), golden.id("t.All"));
    let keys = [-1, 0, 5, -100, i32::MAX];
    message.set(ints, Some(Value::Map(keys.map(|key| (Key::I32(key), Value::I32(0))).into())));
    assert_eq!(
        golden.write(&message),
        "520d08ffffffffffffffffff011000520d089cffffffffffffffff011000520808ffffffff071000520408051000520408001000"
    );
    message.set(ints, None);
    let keys = ["b", "a", "aa", "", "é", "z", "\u{10000}", "\u{ffff}"];
    let entries = keys.map(|key| (Key::Str(key.into()), Value::Message(none.clone()))).into();
    message.set(texts, Some(Value::Map(entries)));
    assert_eq!(
        golden.write(&message),
        "4a060a02616112004a050a016112004a050a016212004a050a017a12004a060a02c3a912004a070a03efbfbf12004a080a04f0908080\
         12004a040a001200"
    );
    message.set(texts, None);
    let entries = [false, true].map(|key| (Key::Bool(key), Value::I32(0))).into();
    message.set(bools, Some(Value::Map(entries)));
    assert_eq!(golden.write(&message), "6a0408011000 6a0408001000".replace(' ', ""));
}
