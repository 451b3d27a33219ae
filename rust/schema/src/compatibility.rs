//! What a newer schema breaks for those who know an older one.
//!
//! Both sides are asked: bytes and JSON that one writes, the other reads as what was meant. New fields, new messages and fields that are gone
//! break nothing, as long as a number is never used for something else.

use crate::shape::{EnumShape, FieldShape, Kind, Label, MessageShape, Schema};

/// A change that breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaking {
    /// Full name of the message or enum.
    pub name: String,
    /// Name of the field or value, as the newer schema has it if it is there; `None`: all of it.
    pub part: Option<String>,
    /// What changed.
    pub reason: String,
    /// What to do about it.
    pub help: String,
}

/// All changes from `old` to `new` that break, in the order of `old`.
///
/// ```
/// use schema::{compatibility::breaking_changes, descriptor::schema_of_text};
///
/// let old = schema_of_text("a.proto", "syntax = 'proto3'; message Move { float dx = 1; }")?;
/// let new = schema_of_text("a.proto", "syntax = 'proto3'; message Move { string dx = 1; }")?;
/// assert_eq!(breaking_changes(&old, &old), []);
/// assert_eq!(breaking_changes(&old, &new)[0].reason, "was float and is string");
/// # Ok::<(), schema::descriptor::DescriptorError>(())
/// ```
pub fn breaking_changes(old: &Schema, new: &Schema) -> Vec<Breaking> {
    let mut found = Vec::new();
    for before in old.messages() {
        match new.message_id(&before.name) {
            Some(id) => Messages { old, new, before, after: new.message(id) }.compare(&mut found),
            None => found.push(Breaking {
                name: before.name.clone(),
                part: None,
                reason: "the message is gone".to_owned(),
                help: "keep it as long as a client may send it or wait for it".to_owned(),
            }),
        }
    }
    for before in old.enums() {
        if let Some(id) = new.enum_id(&before.name) {
            compare_enums(before, new.enumeration(id), &mut found);
        } // else: its fields are gone too, or of another type
    }
    found
}

/// One message, before and after.
struct Messages<'s> {
    old: &'s Schema,
    new: &'s Schema,
    before: &'s MessageShape,
    after: &'s MessageShape,
}

impl Messages<'_> {
    fn compare(&self, found: &mut Vec<Breaking>) {
        for was in &self.before.fields {
            let by_name = self.after.fields.iter().find(|field| field.name == was.name);
            let by_number = self.after.fields.iter().find(|field| field.number == was.number);
            match (by_name, by_number) {
                (Some(is), _) if is.number == was.number => {
                    if let Some((reason, help)) =
                        self.compare_fields(was, is).or_else(|| self.compare_oneofs(was, is))
                    {
                        found.push(self.breaking(&is.name, reason, help));
                    }
                }
                (Some(is), _) => {
                    let reason = format!("had number {} and has {}", was.number, is.number);
                    found.push(self.breaking(&is.name, reason, format!("give it {} again", was.number)));
                }
                (None, Some(is)) if !self.before.fields.iter().any(|field| field.name == is.name) => {
                    let reason = format!("number {} was that of {}", was.number, was.name);
                    let help =
                        format!("take another number; if it is {} by another name, keep the name", was.name);
                    found.push(self.breaking(&is.name, reason, help));
                }
                _ => {} // gone, or reported by name
            }
        }
    }

    fn compare_fields(&self, was: &FieldShape, is: &FieldShape) -> Option<(String, String)> {
        let texts = (self.text(self.old, self.before, was), self.text(self.new, self.after, is));
        if self.is_same_label(was, is) && self.is_same_kind(was.kind, is.kind) {
            return None;
        }
        let reason = format!("was {} and is {}", texts.0, texts.1);
        Some((reason, "keep it, and add a field of another name and number".to_owned()))
    }

    /// Neither bytes nor JSON have a oneof's name. But fields that exclude each other for one side alone are lost: who sends
    /// both, keeps one.
    fn compare_oneofs(&self, was: &FieldShape, is: &FieldShape) -> Option<(String, String)> {
        let together = |a: &FieldShape, b: &FieldShape| a.oneof.is_some() && a.oneof == b.oneof;
        let others = self.before.fields.iter().filter(|other| other.number != was.number);
        let pairs = others
            .filter_map(|old| Some((old, self.after.fields.iter().find(|new| new.number == old.number)?)));
        for (old, new) in pairs {
            let reason = match (together(was, old), together(is, new)) {
                (true, false) => format!("was in a oneof with {} and is not", new.name),
                (false, true) => format!("was not in a oneof with {} and is", new.name),
                _ => continue,
            };
            return Some((reason, "keep it so, and add a field of another name and number".to_owned()));
        }
        None
    }

    fn is_same_label(&self, was: &FieldShape, is: &FieldShape) -> bool {
        match (was.label, is.label) {
            (Label::Map { key: was }, Label::Map { key: is }) => self.is_same_kind(was, is),
            (Label::Repeated { .. }, Label::Repeated { .. }) => true, // readers take packed and unpacked alike
            // Who knows a field without presence leaves 0 out, which reads as "not there" where there is presence.
            (Label::Single | Label::Optional, Label::Single | Label::Optional) => {
                was.has_presence() == is.has_presence()
            }
            _ => false,
        }
    }

    /// Whether the same bytes, and the same JSON, are the same value.
    fn is_same_kind(&self, was: Kind, is: Kind) -> bool {
        match (was, is) {
            (Kind::Enum(was), Kind::Enum(is)) => {
                self.old.enumeration(was).name == self.new.enumeration(is).name
            }
            (Kind::Message(was), Kind::Message(is)) => {
                self.old.message(was).name == self.new.message(is).name
            }
            (Kind::I32 | Kind::U32, Kind::I32 | Kind::U32)
            | (Kind::I64 | Kind::U64, Kind::I64 | Kind::U64)
            | (Kind::Fixed32 | Kind::SFixed32, Kind::Fixed32 | Kind::SFixed32)
            | (Kind::Fixed64 | Kind::SFixed64, Kind::Fixed64 | Kind::SFixed64) => true,
            (was, is) => was == is,
        }
    }

    fn oneof<'m>(&self, message: &'m MessageShape, field: &FieldShape) -> Option<&'m str> {
        field.oneof.map(|oneof| &*message.oneofs[oneof as usize])
    }

    fn text(&self, schema: &Schema, message: &MessageShape, field: &FieldShape) -> String {
        let text = field_type(schema, field);
        match self.oneof(message, field) {
            Some(oneof) => format!("{text} in oneof {oneof}"),
            None => text,
        }
    }

    fn breaking(&self, part: &str, reason: String, help: String) -> Breaking {
        Breaking { name: self.before.name.clone(), part: Some(part.to_owned()), reason, help }
    }
}

fn compare_enums(before: &EnumShape, after: &EnumShape, found: &mut Vec<Breaking>) {
    let unspecified = crate::proto_text::unspecified(&after.name);
    for (name, number) in &before.values {
        if *number == 0 && *name == unspecified && after.values.iter().all(|(_, number)| *number != 0) {
            continue; // the text of an enum without 0 has it, nobody sends it
        }
        let by_name = after.values.iter().find(|(other, _)| other == name);
        let by_number = after.values.iter().find(|(_, other)| other == number);
        let (part, reason, help) = match (by_name, by_number) {
            (Some((_, is)), _) if is == number => continue,
            (Some((_, is)), _) => {
                (name, format!("was {number} and is {is}"), format!("give it {number} again"))
            }
            (None, Some((other, _))) if before.values.iter().any(|(old, _)| old == other) => {
                (name, "the second name of a number is gone".to_owned(), "keep it: JSON may have it".to_owned())
            }
            (None, Some((other, _))) => (
                other,
                format!("{number} was {name}"),
                "JSON has names: keep the old one, and add the new one as a second name or with a number of its own"
                    .to_owned(),
            ),
            (None, None) => (
                name,
                format!("{number} is gone, and a message that holds it is refused"),
                "keep it as long as a client may send it".to_owned(),
            ),
        };
        found.push(Breaking { name: before.name.clone(), part: Some(part.clone()), reason, help });
    }
}

/// A field's type as `.proto` has it, with its label: `repeated arena.Point`.
pub fn field_type(schema: &Schema, field: &FieldShape) -> String {
    let kind = |kind| match kind {
        Kind::Enum(id) => schema.enumeration(id).name.clone(),
        Kind::Message(id) => schema.message(id).name.clone(),
        scalar => crate::proto_text::scalar_name(scalar).to_owned(),
    };
    match field.label {
        Label::Single => kind(field.kind),
        Label::Optional => format!("optional {}", kind(field.kind)),
        Label::Repeated { packed: false } if field.kind.is_packable() => {
            format!("unpacked {}", kind(field.kind))
        }
        Label::Repeated { .. } => format!("repeated {}", kind(field.kind)),
        Label::Map { key } => format!("map<{}, {}>", kind(key), kind(field.kind)),
    }
}
