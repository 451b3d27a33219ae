//! A schema written as `.proto` text and compiled by protox is the same schema, and compatible with itself.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use schema::compatibility::{breaking_changes, field_type};
use schema::descriptor::{Reserved, descriptor_set_of_text, reserved_of_set, schema_of_set, schema_of_text};
use schema::proto_text::{TextError, proto_text};
use schema::shape::{
    EnumId, EnumShape, FieldShape, Kind, Label, MessageId, Schema, SchemaBuilder, UnknownNumber,
};

const SCALARS: [Kind; 15] = [
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
/// Names that hide others, and names that are words of the language.
const MESSAGES: [&str; 8] = ["A", "B", "A.B", "A.C", "A.B.A", "B.Kind", "message", "A.B.arena"];
const ENUMS: [&str; 3] = ["Kind", "A.Kind", "B.E"];
const FIELDS: [&str; 10] =
    ["x", "reserved", "string", "optional", "syntax", "B", "arena", "message", "max", "to_x"];
const NUMBERS: [u32; 12] = [1, 2, 3, 4, 15, 16, 17, 2047, 2048, 18_999, 20_000, 536_870_911];

#[derive(Debug, Clone)]
struct Plan {
    kind: Index,
    label: u8,
    key: Index,
    member: bool,
}

fn plans() -> impl Strategy<Value = Vec<(&'static str, u32, Plan)>> {
    let plan = (any::<Index>(), 0..6u8, any::<Index>(), any::<bool>());
    let plan = plan.prop_map(|(kind, label, key, member)| Plan { kind, label, key, member });
    (0..FIELDS.len()).prop_flat_map(move |count| {
        let numbers = subsequence(NUMBERS.to_vec(), count).prop_shuffle();
        let names = subsequence(FIELDS.to_vec(), count).prop_shuffle();
        (names, numbers, vec(plan.clone(), count)).prop_map(|(names, numbers, plans)| {
            names.into_iter().zip(numbers).zip(plans).map(|((a, b), c)| (a, b, c)).collect()
        })
    })
}

prop_compose! {
    fn schemas()(
        package in prop_oneof![Just(""), Just("arena."), Just("arena.B.")],
        fields in vec(plans(), MESSAGES.len()),
        alias in any::<bool>(),
    ) -> Schema {
        let mut builder = SchemaBuilder::new();
        let enums: Vec<EnumId> = (0..).zip(ENUMS).map(|(index, name)| {
            let mut values = vec![(format!("ZERO_{index}"), 0), (format!("LOW_{index}"), i32::MIN)];
            values.extend(alias.then(|| (format!("NONE_{index}"), 0)));
            builder.enumeration(EnumShape { name: format!("{package}{name}"), values, unknown: UnknownNumber::Keep })
        }).collect();
        let messages: Vec<MessageId> =
            MESSAGES.iter().map(|name| builder.message(format!("{package}{name}"))).collect();
        let mut kinds = SCALARS.to_vec();
        kinds.extend(enums.into_iter().map(Kind::Enum).chain(messages.iter().copied().map(Kind::Message)));
        let keys: Vec<Kind> = SCALARS.into_iter().filter(|kind| kind.is_map_key()).collect();
        for (&id, (name, plans)) in messages.iter().zip(MESSAGES.iter().zip(fields)) {
            let mut oneof = None;
            for (field, number, plan) in plans {
                // A message's fields and what is nested in it share their names.
                if MESSAGES.contains(&&*format!("{name}.{field}")) {
                    continue;
                }
                let kind = *plan.kind.get(&kinds);
                let shape = FieldShape::new(field, number, kind);
                let shape = match plan.label {
                    0 if plan.member => {
                        shape.member_of(*oneof.get_or_insert_with(|| builder.oneof(id, "choice")))
                    }
                    1 if !matches!(kind, Kind::Message(_)) => shape.label(Label::Optional),
                    2 => shape.label(Label::Repeated { packed: kind.is_packable() }),
                    3 => shape.label(Label::Repeated { packed: false }),
                    4 => shape.label(Label::Map { key: *plan.key.get(&keys) }),
                    _ => shape,
                };
                builder.field(id, shape);
            }
        }
        builder.build().expect("a schema")
    }
}

/// Everything of a schema, by names: what nests, and the members of a oneof, are written together.
fn told(schema: &Schema) -> BTreeMap<String, Vec<String>> {
    let enums = schema.enums().iter().map(|shape| (shape.name.clone(), vec![format!("{shape:?}")]));
    let messages = schema.messages().iter().map(|message| {
        let oneof = |field: &FieldShape| field.oneof.map(|index| &message.oneofs[index as usize]);
        let mut fields: Vec<String> = message
            .fields
            .iter()
            .map(|field| {
                let type_ = field_type(schema, field);
                format!("{type_} {} = {} {:?} {:?}", field.name, field.number, oneof(field), field.bounds)
            })
            .collect();
        fields.sort();
        (message.name.clone(), fields)
    });
    enums.chain(messages).collect()
}

proptest! {
    #[test]
    fn text_says_all_of_a_schema(schema in schemas(), gone in any::<Index>()) {
        let name = gone.get(schema.messages()).name.clone();
        let used = |number: u32| schema.messages().iter().any(|message| message.fields.iter().any(|field| field.number == number));
        let numbers: Vec<(i32, i32)> = [(5, 5), (7, 9), (600, 1000)].into_iter().filter(|&(first, _)| !used(first as u32)).collect();
        let reserved = Reserved { numbers, names: vec!["old".into(), "older".into()] };
        let kept: BTreeMap<_, _> = [
            (name.clone(), reserved.clone()),
            (schema.enums()[0].name.clone(), Reserved { numbers: vec![(-5, -3), (9, i32::MAX)], names: vec![] }),
        ].into();

        let text = proto_text(&schema, &kept, "A schema.\nOf two lines.").expect("a file");
        let set = descriptor_set_of_text("a.proto", &text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        let back = schema_of_set(&set).expect("a schema");

        prop_assert_eq!(told(&schema), told(&back), "{}", text);
        let found: BTreeMap<_, _> = reserved_of_set(&set, "a.proto").expect("a set").into_iter().filter(|(_, one)| *one != Reserved::default()).collect();
        prop_assert_eq!(found, kept);
        prop_assert_eq!(breaking_changes(&schema, &back), []);
        prop_assert_eq!(breaking_changes(&back, &schema), []);
    }
}

#[test]
fn text_is_made_to_be_read() {
    let text = r#"// Two lines
// of header.

syntax = "proto3";

package arena;

import "google/protobuf/timestamp.proto";

enum Kind {
  option allow_alias = true;
  reserved 7;
  KIND_WALK = 0;
  KIND_GO = 0;
  KIND_RUN = -1;
}

message Move {
  reserved 2 to 4, 100 to max;
  reserved "dz";

  message Step {
    sint32 by = 1;
  }

  repeated Move.Step steps = 1;
  .google.protobuf.Timestamp at = 5;
  optional Kind kind = 6;
  map<string, bytes> notes = 9;
  oneof what {
    Move jump = 7;
    bool wait = 8;
  }
}
"#;
    let set = descriptor_set_of_text("a.proto", text).expect("it is protobuf");
    let schema = schema_of_set(&set).expect("a schema");
    let reserved = reserved_of_set(&set, "a.proto").expect("a set").into_iter().collect();
    let written = proto_text(&schema, &reserved, "Two lines\nof header.").expect("a file");
    assert_eq!(written, text);
}

#[test]
fn two_packages_are_two_files() {
    let mut builder = SchemaBuilder::new();
    builder.message("arena.Move");
    builder.message("arena.Move.Step");
    builder.message("chat.Say");
    let error = proto_text(&builder.build().expect("a schema"), &[].into(), "").expect_err("two packages");
    assert_eq!(error, TextError::Packages { first: "arena.Move".into(), second: "chat.Say".into() });
}

#[test]
fn an_enum_begins_with_zero() {
    let text = |values: &[(&str, i32)]| {
        let mut builder = SchemaBuilder::new();
        let values = values.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        builder.enumeration(EnumShape { name: "SkillKind".into(), values, unknown: UnknownNumber::Refuse });
        let schema = builder.build().expect("a schema");
        let text = proto_text(&schema, &[].into(), "")?;
        let again = schema_of_text("a.proto", &text).expect("it compiles");
        assert_eq!(breaking_changes(&again, &schema), [], "what is written is what is there");
        Ok(again.enums()[0]
            .values
            .iter()
            .map(|(name, number)| format!("{name} {number}"))
            .collect::<Vec<_>>())
    };
    assert_eq!(text(&[("ONE", 1)]), Ok(vec!["SKILL_KIND_UNSPECIFIED 0".into(), "ONE 1".into()]));
    assert_eq!(
        text(&[("TWO", 2), ("ONE", 1), ("NONE", 0), ("FAR", 9)]),
        Ok(["NONE 0", "TWO 2", "ONE 1", "FAR 9"].map(String::from).into())
    );
    let taken = TextError::NoZero { name: "SkillKind".into(), zero: "SKILL_KIND_UNSPECIFIED".into() };
    assert_eq!(text(&[("SKILL_KIND_UNSPECIFIED", 4)]), Err(taken));
}
