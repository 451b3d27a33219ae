//! Which changes break what clients know.

use schema::compatibility::breaking_changes;
use schema::descriptor::schema_of_text;
use schema::shape::Schema;

fn schema(body: &str) -> Schema {
    schema_of_text("a.proto", &format!("syntax = 'proto3'; {body}")).unwrap_or_else(|error| panic!("{error}"))
}

/// `Move.dx: was float and is string`, for each change.
fn changes(old: &str, new: &str) -> Vec<String> {
    breaking_changes(&schema(old), &schema(new))
        .into_iter()
        .map(|change| {
            assert!(!change.help.is_empty());
            let part = change.part.map_or(String::new(), |part| format!(".{part}"));
            format!("{}{part}: {}", change.name, change.reason)
        })
        .collect()
}

fn fields(old: &str, new: &str) -> Vec<String> {
    let around =
        |fields: &str| format!("message P {{}} message Q {{}} enum E {{ Z = 0; }} message M {{ {fields} }}");
    changes(&around(old), &around(new))
}

#[test]
fn what_breaks() {
    for (old, new, reason) in [
        ("float x = 1;", "double x = 1;", "M.x: was float and is double"),
        ("int32 x = 1;", "int64 x = 1;", "M.x: was int32 and is int64"),
        ("int32 x = 1;", "sint32 x = 1;", "M.x: was int32 and is sint32"),
        ("bytes x = 1;", "string x = 1;", "M.x: was bytes and is string"),
        ("E x = 1;", "int32 x = 1;", "M.x: was E and is int32"),
        ("P x = 1;", "Q x = 1;", "M.x: was P and is Q"),
        ("float x = 1;", "optional float x = 1;", "M.x: was float and is optional float"),
        ("optional float x = 1;", "float x = 1;", "M.x: was optional float and is float"),
        ("float x = 1;", "repeated float x = 1;", "M.x: was float and is repeated float"),
        ("map<int32, P> x = 1;", "map<string, P> x = 1;", "M.x: was map<int32, P> and is map<string, P>"),
        ("map<int32, P> x = 1;", "map<int32, Q> x = 1;", "M.x: was map<int32, P> and is map<int32, Q>"),
        ("float x = 1;", "oneof o { float x = 1; }", "M.x: was float and is float in oneof o"),
        ("float x = 1;", "float x = 2;", "M.x: had number 1 and has 2"),
        ("float x = 1;", "float y = 1;", "M.y: number 1 was that of x"),
    ] {
        assert_eq!(fields(old, new), [reason], "{old} -> {new}");
    }
}

#[test]
fn two_fields_that_change_places_are_two_findings() {
    assert_eq!(
        fields("float x = 1; float y = 2;", "float x = 2; float y = 1;"),
        ["M.x: had number 1 and has 2", "M.y: had number 2 and has 1"]
    );
    // One that takes another's number, which is gone: about the one that is there.
    assert_eq!(fields("float x = 1; float y = 2;", "float y = 1;"), ["M.y: had number 2 and has 1"]);
}

#[test]
fn fields_that_come_together_or_part() {
    let (apart, together) = ("P x = 1; Q y = 2;", "oneof o { P x = 1; Q y = 2; }");
    let parted = ["M.x: was in a oneof with y and is not", "M.y: was in a oneof with x and is not"];
    assert_eq!(fields(together, apart), parted);
    assert_eq!(fields(together, "oneof o { P x = 1; } oneof p { Q y = 2; }"), parted);
    let joined = ["M.x: was not in a oneof with y and is", "M.y: was not in a oneof with x and is"];
    assert_eq!(fields(apart, together), joined);
}

#[test]
fn what_does_not() {
    for (old, new) in [
        ("float x = 1;", "float x = 1; string y = 2;"),
        ("float x = 1; string y = 2;", "float x = 1;"),
        ("float x = 1; string y = 2;", "string y = 2; float x = 1;"),
        ("int32 x = 1;", "uint32 x = 1;"),
        ("uint64 x = 1;", "int64 x = 1;"),
        ("fixed32 x = 1;", "sfixed32 x = 1;"),
        ("repeated int32 x = 1;", "repeated int32 x = 1 [packed = false];"),
        ("oneof o { P x = 1; }", "oneof o { P x = 1; Q y = 2; }"),
        // A oneof's name is in no bytes, and one of a single old member excludes nothing that is sent.
        ("oneof o { P x = 1; }", "oneof p { P x = 1; }"),
        ("P x = 1;", "oneof o { P x = 1; Q y = 2; }"),
    ] {
        assert_eq!(fields(old, new), [""; 0], "{old} -> {new}");
    }
    assert_eq!(changes("message M {}", "message N {} message M {}"), [""; 0]);
}

#[test]
fn messages_and_enums() {
    assert_eq!(changes("message M {} message N {}", "message M {}"), ["N: the message is gone"]);
    for (old, new, reason) in [
        ("A = 0; B = 1;", "A = 0; B = 2;", "E.B: was 1 and is 2"),
        ("A = 0; B = 1;", "A = 0; C = 1;", "E.C: 1 was B"),
        ("A = 0; B = 1;", "A = 0;", "E.B: 1 is gone, and a message that holds it is refused"),
        ("option allow_alias = true; A = 0; B = 0;", "A = 0;", "E.B: the second name of a number is gone"),
    ] {
        let around = |values: &str| format!("enum E {{ {values} }}");
        assert_eq!(changes(&around(old), &around(new)), [reason], "{old} -> {new}");
    }
    assert_eq!(changes("enum E { A = 0; }", "enum E { A = 0; B = 1; }"), [""; 0]);
    assert_eq!(changes("enum E { A = 0; }", "enum E { option allow_alias = true; A = 0; B = 0; }"), [""; 0]);
    assert_eq!(changes("enum E { A = 0; }", ""), [""; 0]);
}
