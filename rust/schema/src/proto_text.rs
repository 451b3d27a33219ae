//! A schema as the text of a `.proto` file.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::descriptor::Reserved;
use crate::shape::{EnumShape, FieldShape, Kind, Label, MessageShape, Schema};

/// Why a schema is not one `.proto` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A file has one package.
    #[error("{first} and {second} are of two packages, and a .proto file has one; write two files")]
    Packages {
        /// Full name of a message or enum.
        first: String,
        /// Full name of another.
        second: String,
    },
    /// proto3's enums begin with 0, and the name for it is in use.
    #[error(
        "enum {name} has no 0, which proto3 wants, and {zero} is another number; give one of its values 0"
    )]
    NoZero {
        /// Full name of the enum.
        name: String,
        /// The name that 0 would have.
        zero: String,
    },
}

/// The text of a proto3 file: all messages and enums in the order of declaration, nested ones within those around them.
///
/// Bounds are not part of it. An enum begins with its 0; one without gets `..._UNSPECIFIED`. google's well-known types are imported, not written.
///
/// # Arguments
/// `reserved`: by the full name of a message or enum, what it does not use again. `header`: a comment for the beginning.
///
/// # Errors
/// [`TextError`]
///
/// ```
/// use schema::{descriptor::schema_of_text, proto_text::proto_text};
///
/// let text = r#"syntax = "proto3";
///
/// message Move {
///   reserved 2 to 4;
///   reserved "dz";
///   float dx = 1;
/// }
/// "#;
/// let reserved = schema::descriptor::Reserved { numbers: vec![(2, 4)], names: vec!["dz".into()] };
/// let schema = schema_of_text("move.proto", text)?;
/// assert_eq!(proto_text(&schema, &[("Move".into(), reserved)].into(), "")?, text);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn proto_text(
    schema: &Schema,
    reserved: &BTreeMap<String, Reserved>,
    header: &str,
) -> Result<String, TextError> {
    let mut writer = Writer { schema, reserved, package: package_of(schema)?, out: String::new() };
    writer.file(header)?;
    Ok(writer.out)
}

struct Writer<'s> {
    schema: &'s Schema,
    reserved: &'s BTreeMap<String, Reserved>,
    package: &'s str,
    out: String,
}

impl<'s> Writer<'s> {
    fn file(&mut self, header: &str) -> Result<(), TextError> {
        for line in header.lines() {
            self.line(0, format_args!("// {line}"));
        }
        if !header.is_empty() {
            self.out.push('\n');
        }
        self.line(0, format_args!("syntax = \"proto3\";"));
        if !self.package.is_empty() {
            let package = self.package;
            self.line(0, format_args!("\npackage {package};"));
        }
        let names = self.schema.messages().iter().map(|message| &message.name);
        let mut imports: Vec<&str> = names.filter_map(|name| google_file(name)).collect();
        imports.sort_unstable();
        imports.dedup();
        for (index, file) in imports.into_iter().enumerate() {
            let space = if index == 0 { "\n" } else { "" };
            self.line(0, format_args!("{space}import \"google/protobuf/{file}.proto\";"));
        }
        self.within(self.package, 0)
    }

    /// What is declared in this scope itself.
    fn within(&mut self, scope: &str, depth: usize) -> Result<(), TextError> {
        let schema = self.schema;
        for shape in schema.enums().iter().filter(|shape| is_own(&shape.name, scope)) {
            self.space(depth);
            self.enumeration(shape, depth)?;
        }
        for shape in schema.messages().iter().filter(|shape| is_own(&shape.name, scope)) {
            self.space(depth);
            self.message(shape, depth)?;
        }
        Ok(())
    }

    fn message(&mut self, shape: &'s MessageShape, depth: usize) -> Result<(), TextError> {
        self.line(depth, format_args!("message {} {{", last(&shape.name)));
        self.reserved(&shape.name, FIELD_MAX, depth + 1);
        let before = self.out.len();
        self.within(&shape.name, depth + 1)?;
        if self.out.len() > before && !shape.fields.is_empty() {
            self.out.push('\n');
        }
        for (slot, field) in shape.fields.iter().enumerate() {
            let Some(oneof) = field.oneof else {
                self.field(field, depth + 1);
                continue;
            };
            if shape.fields[..slot].iter().any(|before| before.oneof == Some(oneof)) {
                continue; // written with the first member
            }
            self.line(depth + 1, format_args!("oneof {} {{", shape.oneofs[oneof as usize]));
            for member in shape.fields.iter().filter(|member| member.oneof == Some(oneof)) {
                self.field(member, depth + 2);
            }
            self.line(depth + 1, format_args!("}}"));
        }
        self.line(depth, format_args!("}}"));
        Ok(())
    }

    fn field(&mut self, field: &FieldShape, depth: usize) {
        let kind = self.kind(field.kind);
        let unpacked = field.label == Label::Repeated { packed: false } && field.kind.is_packable();
        let options = if unpacked { " [packed = false]" } else { "" };
        let typed = match field.label {
            Label::Single => kind,
            Label::Optional => format!("optional {kind}"),
            Label::Repeated { .. } => format!("repeated {kind}"),
            Label::Map { key } => format!("map<{}, {kind}>", self.kind(key)),
        };
        self.line(depth, format_args!("{typed} {} = {}{options};", field.name, field.number));
    }

    fn enumeration(&mut self, shape: &EnumShape, depth: usize) -> Result<(), TextError> {
        let mut values: Vec<(&str, i32)> =
            shape.values.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        let unspecified = unspecified(&shape.name);
        match values.iter().position(|(_, number)| *number == 0) {
            Some(zero) => values[..=zero].rotate_right(1),
            None if values.iter().any(|(name, _)| *name == unspecified) => {
                return Err(TextError::NoZero { name: shape.name.clone(), zero: unspecified });
            }
            None => values.insert(0, (&unspecified, 0)),
        }
        self.line(depth, format_args!("enum {} {{", last(&shape.name)));
        let is_taken =
            |slot: usize| shape.values[..slot].iter().any(|(_, number)| *number == shape.values[slot].1);
        if (0..shape.values.len()).any(is_taken) {
            self.line(depth + 1, format_args!("option allow_alias = true;"));
        }
        self.reserved(&shape.name, i32::MAX, depth + 1);
        for (name, number) in values {
            self.line(depth + 1, format_args!("{name} = {number};"));
        }
        self.line(depth, format_args!("}}"));
        Ok(())
    }

    fn reserved(&mut self, name: &str, max: i32, depth: usize) {
        let Some(Reserved { numbers, names }) = self.reserved.get(name) else { return };
        let ranges: Vec<String> = numbers
            .iter()
            .map(|&(first, last)| match last {
                last if last == first => first.to_string(),
                last if last == max => format!("{first} to max"),
                last => format!("{first} to {last}"),
            })
            .collect();
        if !ranges.is_empty() {
            self.line(depth, format_args!("reserved {};", ranges.join(", ")));
        }
        if !names.is_empty() {
            self.line(depth, format_args!("reserved \"{}\";", names.join("\", \"")));
        }
    }

    fn kind(&self, kind: Kind) -> String {
        let full = match kind {
            Kind::Enum(id) => &self.schema.enumeration(id).name,
            Kind::Message(id) => &self.schema.message(id).name,
            scalar => return scalar_name(scalar).to_owned(),
        };
        let short = if self.package.is_empty() { Some(&**full) } else { inside(full, self.package) };
        // protobuf looks from the inside out: what is nested hides what is further out.
        match short {
            Some(short) if !self.is_hidden(short) => short.to_owned(),
            _ => format!(".{full}"),
        }
    }

    /// Whether something else may be meant by the first part of this name.
    fn is_hidden(&self, short: &str) -> bool {
        let first = short.split('.').next().unwrap_or_default();
        let messages = self.schema.messages();
        let shapes = messages.iter().map(|shape| &shape.name);
        let mut nested = shapes
            .chain(self.schema.enums().iter().map(|shape| &shape.name))
            .filter(|name| !is_own(name, self.package));
        let mut members = messages
            .iter()
            .flat_map(|message| message.fields.iter().map(|field| &field.name).chain(&message.oneofs));
        KEYWORDS.contains(&first)
            || nested.any(|name| last(name) == first)
            || members.any(|name| name == first)
    }

    /// An empty line, but after a bracket.
    fn space(&mut self, depth: usize) {
        if depth == 0 || !self.out.ends_with("{\n") {
            self.out.push('\n');
        }
    }

    fn line(&mut self, depth: usize, line: std::fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = writeln!(self.out, "{:1$}{line}", "", depth * 2);
    }
}

/// The name that 0 gets in an enum without one, as protobuf's style guide has it: `SKILL_KIND_UNSPECIFIED`.
pub(crate) fn unspecified(name: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for letter in last(name).chars() {
        if letter.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        out.push(letter.to_ascii_uppercase());
    }
    out + "_UNSPECIFIED"
}

/// protobuf's name of a scalar type.
pub(crate) fn scalar_name(kind: Kind) -> &'static str {
    match kind {
        Kind::F64 => "double",
        Kind::F32 => "float",
        Kind::I64 => "int64",
        Kind::U64 => "uint64",
        Kind::I32 => "int32",
        Kind::U32 => "uint32",
        Kind::S32 => "sint32",
        Kind::S64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::SFixed32 => "sfixed32",
        Kind::SFixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::Str => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        Kind::Message(_) => "message",
    }
}

/// The package that the outermost messages and enums share.
fn package_of(schema: &Schema) -> Result<&str, TextError> {
    let messages = schema.messages().iter().map(|shape| &*shape.name);
    let names = messages.chain(schema.enums().iter().map(|shape| &*shape.name));
    let mut tops = names.filter(|name| google_file(name).is_none() && is_top(schema, name));
    let Some(first) = tops.next() else { return Ok("") };
    match tops.find(|name| scope_of(name) != scope_of(first)) {
        Some(second) => Err(TextError::Packages { first: first.to_owned(), second: second.to_owned() }),
        None => Ok(scope_of(first)),
    }
}

fn is_top(schema: &Schema, name: &str) -> bool {
    schema.message_id(scope_of(name)).is_none()
}

fn is_own(name: &str, scope: &str) -> bool {
    scope_of(name) == scope && google_file(name).is_none()
}

fn scope_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(scope, _)| scope)
}

fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn inside<'n>(name: &'n str, scope: &str) -> Option<&'n str> {
    name.strip_prefix(scope)?.strip_prefix('.')
}

/// The file of google's that declares one of its well-known types.
fn google_file(name: &str) -> Option<&'static str> {
    Some(match inside(name, "google.protobuf")? {
        "Any" => "any",
        "Duration" => "duration",
        "Empty" => "empty",
        "FieldMask" => "field_mask",
        "Timestamp" => "timestamp",
        "Struct" | "Struct.FieldsEntry" | "Value" | "ListValue" | "NullValue" => "struct",
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
        | "BoolValue" | "StringValue" | "BytesValue" => "wrappers",
        _ => return None,
    })
}

/// Words that begin a statement, and names of types.
const KEYWORDS: [&str; 29] = [
    "bool",
    "bytes",
    "double",
    "enum",
    "export",
    "extend",
    "extensions",
    "fixed32",
    "fixed64",
    "float",
    "group",
    "int32",
    "int64",
    "local",
    "map",
    "message",
    "oneof",
    "option",
    "optional",
    "repeated",
    "required",
    "reserved",
    "sfixed32",
    "sfixed64",
    "sint32",
    "sint64",
    "string",
    "uint32",
    "uint64",
];
const FIELD_MAX: i32 = 0x1fff_ffff;
