//! What must hold for any bytes at all that are read under a schema.

use std::sync::LazyLock;

use schema::descriptor::schema_of_text;
use schema::discard::Discard;
use schema::plan::{Limits, Plans};
use schema::value::Message;

/// `which message u8, body`. The plans have the bounds that Python's classes have, and limits that a few bytes reach.
///
/// No panic; a sink that keeps nothing judges as one that keeps all; what is read is within the limits, can be written,
/// reads as the same again and is written as the same bytes.
pub fn schema_decode(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else {
        return;
    };
    let plans = &*PLANS;
    let id =
        plans.schema().message_id(MESSAGES[usize::from(which) % MESSAGES.len()]).expect("one of the schema");
    let read = |bytes: &[u8]| {
        let mut message = Message::new(plans.schema(), id);
        plans.decode(id, bytes, &mut message.sink(plans.schema())).map(|()| message)
    };
    let judged = plans.decode(id, body, &mut Discard::new());
    let message = match read(body) {
        Ok(message) => message,
        Err(error) => {
            // Of the same fault; as texts, since a NaN equals itself. The path may have another index: a message that comes in
            // pieces is counted by piece where it is not kept.
            let told = judged.expect_err("the one who keeps nothing takes it").reason.to_string();
            assert_eq!(told, error.reason.to_string());
            return;
        }
    };
    assert_eq!(judged, Ok(()));
    let write = |message: &Message| {
        let mut bytes = b"before".to_vec();
        plans.encode(id, &message, &mut bytes).map(|()| bytes.split_off(6))
    };
    // The same values may take more bytes or depth than they came in: an entry's defaults are written out.
    let Ok(bytes) = write(&message) else { return };
    assert!(bytes.len() <= plans.limits().bytes);
    let again = read(&bytes).expect("what was written can be read");
    assert_eq!(again, message);
    assert_eq!(write(&again).expect("what was read can be written"), bytes);
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    let schema = schema_of_text("fuzz.proto", TEXT).expect("a schema");
    Plans::new(schema, Limits { depth: 8, items: 64, bytes: 512 })
});

const MESSAGES: [&str; 4] = ["Numbers", "Lists", "Maps", "Choice"];

const TEXT: &str = r#"
    syntax = "proto3";
    import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto";
    message Numbers {
        double f64 = 1; float f32 = 2; int64 i64 = 3; uint64 u64 = 4; int32 i32 = 5; uint32 u32 = 6; sint32 s32 = 7;
        sint64 s64 = 8; fixed32 fixed32 = 9; fixed64 fixed64 = 10; sfixed32 sfixed32 = 11; sfixed64 sfixed64 = 12;
        bool yes = 13; string text = 14; bytes bytes = 15; Side side = 16; optional uint32 maybe = 3000;
    }
    message Lists {
        repeated float floats = 1; repeated uint32 packed = 2; repeated sint64 loose = 3 [packed = false];
        repeated string texts = 4; repeated Numbers numbers = 5; repeated Side sides = 6; repeated fixed64 wide = 200;
    }
    message Maps {
        map<string, Numbers> by_name = 1; map<int32, string> by_number = 2; map<bool, Side> by_bool = 3;
        map<fixed64, Maps> deeper = 4; map<sint32, bytes> blobs = 5;
    }
    message Choice {
        oneof chosen { uint32 number = 1; string text = 2; Choice choice = 3; Lists lists = 4; }
        google.protobuf.Value value = 5; google.protobuf.Int64Value wrapped = 6; Choice next = 7;
    }
    enum Side { LEFT = 0; RIGHT = 1; FAR = -7; }
"#;
