//! Schemas from descriptors that google made, and from files.

use std::fs;

use schema::descriptor::{DescriptorError, schema_of_files, schema_of_set, schema_of_text};
use schema::shape::{FieldShape, Kind, Label, Schema, UnknownNumber};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn field<'s>(schema: &'s Schema, message: &str, name: &str) -> &'s FieldShape {
    let message = schema.message(schema.message_id(message).expect("a message"));
    message.field(message.slot(name).expect("a field"))
}

/// google's `FileDescriptorSet` of a file of edition 2023, with features on fields and enums: made with
/// `descriptor_pb2` of protobuf 7.36 for Python, taken by its `DescriptorPool`, and serialized.
const EDITION_2023: &str = "\
0afc010a07652e70726f746f12016522a2010a014d12100a086578706c6963697418012001280512170a08696d706c6963697418022001280542\
05aa01020802120e0a067061636b656418032003280512170a08657870616e6465641804200328054205aa0102180212150a046f70656e180520\
01280e32072e652e4f70656e12190a06636c6f73656418062001280e32092e652e436c6f73656412170a08726571756972656418072001280542\
05aa010208032a1e0a044f70656e120a0a064f50454e5f411000120a0a064f50454e5f4210012a1c0a06436c6f736564120c0a08434c4f534544\
5f4110051a043a021002620865646974696f6e7370e807";

/// And of a proto2 file: a default, a list as it is by default and a packed one, a required closed enum.
const PROTO2: &str = "0a6e0a076f2e70726f746f12016f22480a014d120c0a01611801200128053a013712090a0162180220032805120d0a01631803\
200328054202100112140a016418042002280e32092e6f2e436c6f7365642a05086410c8012a160a06436c6f736564120c0a08434c4f5345445f4110\
05";

/// A delimited message, in edition 2023.
const DELIMITED: &str = "0a360a07672e70726f746f120167221b0a014d12160a016d18032001280b32042e672e4d4205aa01022802620865646974696f6e7370e807";

#[test]
fn editions_decide_by_features() {
    let schema = schema_of_set(&bytes(EDITION_2023)).expect("a schema");
    for (name, label) in [
        ("explicit", Label::Optional),
        ("implicit", Label::Single),
        ("packed", Label::Repeated { packed: true }),
        ("expanded", Label::Repeated { packed: false }),
        ("required", Label::Optional),
    ] {
        assert_eq!(field(&schema, "e.M", name).label, label, "{name}");
    }
    for (name, unknown) in [("open", UnknownNumber::Keep), ("closed", UnknownNumber::Skip)] {
        let Kind::Enum(id) = field(&schema, "e.M", name).kind else { panic!("an enum") };
        assert_eq!(schema.enumeration(id).unknown, unknown, "{name}");
    }
}

#[test]
fn proto2_is_explicit_expanded_and_closed() {
    let schema = schema_of_set(&bytes(PROTO2)).expect("a schema");
    for (name, label) in [
        ("a", Label::Optional),
        ("b", Label::Repeated { packed: false }),
        ("c", Label::Repeated { packed: true }),
        ("d", Label::Optional),
    ] {
        assert_eq!(field(&schema, "o.M", name).label, label, "{name}");
    }
    assert_eq!(schema.enums()[0].unknown, UnknownNumber::Skip);
}

#[test]
fn what_is_not_supported_is_said() {
    let error = schema_of_set(&bytes(DELIMITED)).expect_err("delimited");
    assert_eq!(
        error.to_string(),
        "g.M.m: groups (delimited messages) are not supported; make it a length-prefixed message"
    );
    assert!(matches!(schema_of_set(&[0x0a, 0x05, 1]), Err(DescriptorError::Bytes(_))));
    // Edition 9999.
    let newer = bytes("0a0f620865646974696f6e7370 8f4e0a00".replace(' ', "").as_str());
    assert!(matches!(schema_of_set(&newer), Err(DescriptorError::Edition { edition: 9999, .. })));
    // A type of a file that is not in the set.
    let missing = bytes("0a1422120a014d120d0a016118012001280b32022e58");
    let error = schema_of_set(&missing).expect_err("missing");
    assert_eq!(error.to_string(), "M.a: .X is in none of the files; add the file that it comes from");
}

#[test]
fn presence_oneofs_and_maps_of_proto3() {
    let text = r#"
        syntax = "proto3";
        import "google/protobuf/timestamp.proto";
        message M {
            optional int32 before = 1;
            oneof first { int32 a = 2; M b = 3; }
            optional M inner = 4;
            map<string, M> by = 5;
            oneof second { string c = 6; }
            google.protobuf.Timestamp at = 7;
            enum Side { LEFT = 0; }
            Side side = 8;
        }
    "#;
    let schema = schema_of_text("m.proto", text).expect("a schema");
    let message = schema.message(schema.message_id("M").expect("a message"));
    assert_eq!(message.oneofs, ["first", "second"]);
    for (name, label, oneof) in [
        ("before", Label::Optional, None),
        ("a", Label::Single, Some(0)),
        ("b", Label::Single, Some(0)),
        ("inner", Label::Optional, None),
        ("by", Label::Map { key: Kind::Str }, None),
        ("c", Label::Single, Some(1)),
        ("at", Label::Single, None),
        ("side", Label::Single, None),
    ] {
        let field = field(&schema, "M", name);
        assert_eq!((field.label, field.oneof), (label, oneof), "{name}");
    }
    assert!(schema.enum_id("M.Side").is_some());
    assert!(schema.message_id("google.protobuf.Timestamp").is_some());
    assert!(schema.message_id("M.ByEntry").is_none());
}

#[test]
fn errors_in_files_say_file_line_and_column() {
    let folder = std::env::temp_dir().join(format!("schema-descriptors-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("writes");
    write("part.proto", "syntax = \"proto3\";\npackage a;\nmessage Part { int32 x = 1; }\n");
    write(
        "good.proto",
        "syntax = \"proto3\";\npackage a;\nimport \"part.proto\";\nmessage M { Part part = 1; }\n",
    );
    write("syntax.proto", "syntax = \"proto3\";\nmessage M {\n  int32 x = ;\n}\n");
    write("type.proto", "syntax = \"proto3\";\nmessage M {\n  Missing x = 1;\n}\n");
    write("import.proto", "syntax = \"proto3\";\nimport \"missing.proto\";\n");
    let load = |name: &str| schema_of_files(&[folder.join(name)], &[&folder]);
    let good = load("good.proto").expect("a schema");
    assert!(good.message_id("a.M").is_some() && good.message_id("a.Part").is_some());
    for (name, expected) in [
        ("syntax.proto", "syntax.proto:3:13: expected an integer, but found ';'"),
        ("type.proto", "type.proto:3:3: name 'Missing' is not defined"),
        ("import.proto", "import.proto:2:1: import 'missing.proto' not found"),
        ("nothing.proto", "nothing.proto' is not in any include path"),
    ] {
        let error = load(name).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    fs::remove_dir_all(&folder).expect("removes");
}
