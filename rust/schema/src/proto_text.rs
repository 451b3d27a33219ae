//! A schema as `.proto` text, for clients in any language.

use std::collections::{BTreeMap, BTreeSet};

use crate::reserved::{Reserved, ReservedByMessage};
use crate::shape::{EnumShape, FieldShape, Kind, Label, MessageShape, Schema};

/// Why a schema has no `.proto` text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtoTextError {
    /// A type of another package, that is none of google's well-known types.
    #[error(
        "{message}.{field} is of type {of}, which is not of package {package:?}; a file holds one package"
    )]
    OtherPackage {
        /// Full name of the message.
        message: String,
        /// Name of the field.
        field: String,
        /// Full name of the type.
        of: String,
        /// The text's package.
        package: String,
    },
    /// `a.Outer.Inner`, but no message `a.Outer`.
    #[error("{name} lies within a message that is not part of the schema")]
    NoOuter {
        /// Full name of the message or enum.
        name: String,
    },
    /// A number or name that is used and reserved.
    #[error("{message}.{field} = {number}: its number or name is reserved; take another one")]
    Reserved {
        /// Full name of the message.
        message: String,
        /// Name of the field.
        field: String,
        /// Number of the field.
        number: u32,
    },
}

/// All messages and enums of one package, as a proto3 file; always the same text for the same schema.
///
/// What it does not say: bounds, and that an enum is closed. An enum without a 0 gets an `..._UNSPECIFIED` of that number,
/// which proto3 asks for. Google's well-known types are imported.
///
/// ```
/// use schema::proto_text::proto_text;
/// use schema::shape::{FieldShape, Kind, SchemaBuilder};
///
/// let mut builder = SchemaBuilder::new();
/// let r#move = builder.message("arena.Move");
/// builder.field(r#move, FieldShape::new("dx", 1, Kind::F32));
/// let text = proto_text(&builder.build()?, "arena", &Default::default())?;
/// assert_eq!(text, "syntax = \"proto3\";\n\npackage arena;\n\nmessage Move {\n  float dx = 1;\n}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ProtoTextError`]
pub fn proto_text(
    schema: &Schema,
    package: &str,
    reserved: &ReservedByMessage,
) -> Result<String, ProtoTextError> {
    let writer = Writer::new(schema, package, reserved)?;
    let mut text = String::from("syntax = \"proto3\";\n");
    if !package.is_empty() {
        text += &format!("\npackage {package};\n");
    }
    let mut body = String::new();
    writer.scope(package, "", &mut body)?;
    let imports = writer.imports();
    if !imports.is_empty() {
        text.push('\n');
    }
    for import in imports {
        text += &format!("import \"{import}\";\n");
    }
    Ok(text + &body)
}

struct Writer<'s> {
    schema: &'s Schema,
    package: &'s str,
    reserved: &'s ReservedByMessage,
    /// What lies directly in a scope, in the order of declaration.
    messages: BTreeMap<&'s str, Vec<&'s MessageShape>>,
    enums: BTreeMap<&'s str, Vec<&'s EnumShape>>,
    /// Last parts of names within messages: a reference that starts with one could mean it.
    nested: BTreeSet<&'s str>,
}

impl<'s> Writer<'s> {
    fn new(
        schema: &'s Schema,
        package: &'s str,
        reserved: &'s ReservedByMessage,
    ) -> Result<Self, ProtoTextError> {
        let mut writer = Self {
            schema,
            package,
            reserved,
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            nested: BTreeSet::new(),
        };
        for message in schema.messages() {
            if let Some(scope) = writer.place(&message.name)? {
                writer.messages.entry(scope).or_default().push(message);
            }
        }
        for shape in schema.enums() {
            if let Some(scope) = writer.place(&shape.name)? {
                writer.enums.entry(scope).or_default().push(shape);
            }
        }
        Ok(writer)
    }

    /// The scope that a name lies in; `None` if it is not of this package.
    fn place(&mut self, name: &'s str) -> Result<Option<&'s str>, ProtoTextError> {
        let (scope, last) = name.rsplit_once('.').unwrap_or(("", name));
        if scope == self.package {
            return Ok(Some(scope));
        }
        if self.schema.message_id(scope).is_some() {
            self.nested.insert(last);
            return Ok(self.is_ours(name).then_some(scope));
        }
        if self.is_ours(name) && !self.package.is_empty() {
            return Err(ProtoTextError::NoOuter { name: name.to_owned() });
        }
        Ok(None)
    }

    fn is_ours(&self, name: &str) -> bool {
        if self.package.is_empty() {
            let first = name.split('.').next().unwrap_or(name);
            return self.schema.message_id(first).is_some() || self.schema.enum_id(first).is_some();
        }
        name.strip_prefix(self.package).is_some_and(|rest| rest.starts_with('.'))
    }

    fn scope(&self, scope: &str, indent: &str, text: &mut String) -> Result<(), ProtoTextError> {
        let top = indent.is_empty();
        for shape in self.enums.get(scope).into_iter().flatten() {
            text.push_str(if top { "\n" } else { "" });
            enumeration(shape, indent, text);
        }
        for message in self.messages.get(scope).into_iter().flatten() {
            text.push_str(if top { "\n" } else { "" });
            self.message(message, indent, text)?;
        }
        Ok(())
    }

    fn message(&self, message: &MessageShape, indent: &str, text: &mut String) -> Result<(), ProtoTextError> {
        let inner = format!("{indent}  ");
        *text += &format!("{indent}message {} {{\n", last_part(&message.name));
        if let Some(reserved) = self.reserved.get(&message.name) {
            check_reserved(message, reserved)?;
            reservations(reserved, &inner, text);
        }
        self.scope(&message.name, &inner, text)?;
        let mut written = BTreeSet::new();
        for field in &message.fields {
            let Some(oneof) = field.oneof else {
                self.field(message, field, &inner, text)?;
                continue;
            };
            // A oneof stands where its first member stood.
            if written.insert(oneof) {
                *text += &format!("{inner}oneof {} {{\n", message.oneofs[oneof as usize]);
                for member in message.fields.iter().filter(|member| member.oneof == Some(oneof)) {
                    self.field(message, member, &format!("{inner}  "), text)?;
                }
                *text += &format!("{inner}}}\n");
            }
        }
        *text += &format!("{indent}}}\n");
        Ok(())
    }

    fn field(
        &self,
        message: &MessageShape,
        field: &FieldShape,
        indent: &str,
        text: &mut String,
    ) -> Result<(), ProtoTextError> {
        let kind = self.type_name(message, field)?;
        let (before, after) = match field.label {
            Label::Single => (kind, ""),
            Label::Optional => (format!("optional {kind}"), ""),
            Label::Repeated { packed: false } if field.kind.is_packable() => {
                (format!("repeated {kind}"), " [packed = false]")
            }
            Label::Repeated { .. } => (format!("repeated {kind}"), ""),
            Label::Map { key } => (format!("map<{}, {kind}>", scalar_name(key).unwrap_or_default()), ""),
        };
        *text += &format!("{indent}{before} {} = {}{after};\n", field.name, field.number);
        Ok(())
    }

    fn type_name(&self, message: &MessageShape, field: &FieldShape) -> Result<String, ProtoTextError> {
        let name = match field.kind {
            Kind::Message(id) => &self.schema.message(id).name,
            Kind::Enum(id) => &self.schema.enumeration(id).name,
            kind => return Ok(scalar_name(kind).unwrap_or_default().to_owned()),
        };
        if well_known_file(name).is_some() {
            return Ok(name.clone());
        }
        if !self.is_ours(name) {
            return Err(ProtoTextError::OtherPackage {
                message: message.name.clone(),
                field: field.name.clone(),
                of: name.clone(),
                package: self.package.to_owned(),
            });
        }
        let short = name.strip_prefix(self.package).unwrap_or(name).trim_start_matches('.');
        let first = short.split('.').next().unwrap_or(short);
        Ok(if self.nested.contains(first) { format!(".{name}") } else { short.to_owned() })
    }

    /// Files of the well-known types that are in use.
    fn imports(&self) -> BTreeSet<&'static str> {
        let ours = self.schema.messages().iter().filter(|message| self.is_ours(&message.name));
        ours.flat_map(|message| &message.fields)
            .filter_map(|field| match field.kind {
                Kind::Message(id) => well_known_file(&self.schema.message(id).name),
                Kind::Enum(id) => well_known_file(&self.schema.enumeration(id).name),
                _ => None,
            })
            .collect()
    }
}

fn enumeration(shape: &EnumShape, indent: &str, text: &mut String) {
    let name = last_part(&shape.name);
    *text += &format!("{indent}enum {name} {{\n");
    let numbers: BTreeSet<i32> = shape.values.iter().map(|(_, number)| *number).collect();
    if numbers.len() < shape.values.len() {
        *text += &format!("{indent}  option allow_alias = true;\n");
    }
    // proto3's first value is 0.
    let mut values: Vec<&(String, i32)> = shape.values.iter().collect();
    match values.iter().position(|(_, number)| *number == 0) {
        Some(zero) => values[..=zero].rotate_right(1),
        None => *text += &format!("{indent}  {}_UNSPECIFIED = 0;\n", screaming(name)),
    }
    for (value, number) in values {
        *text += &format!("{indent}  {value} = {number};\n");
    }
    *text += &format!("{indent}}}\n");
}

/// `SkillKind` as `SKILL_KIND`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        out.push(letter.to_ascii_uppercase());
    }
    out
}

fn reservations(reserved: &Reserved, indent: &str, text: &mut String) {
    let ranges: Vec<String> = reserved
        .ranges()
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
        .collect();
    if !ranges.is_empty() {
        *text += &format!("{indent}reserved {};\n", ranges.join(", "));
    }
    if !reserved.names.is_empty() {
        let names: Vec<String> = reserved.names.iter().map(|name| format!("\"{name}\"")).collect();
        *text += &format!("{indent}reserved {};\n", names.join(", "));
    }
}

fn check_reserved(message: &MessageShape, reserved: &Reserved) -> Result<(), ProtoTextError> {
    let mut taken = message
        .fields
        .iter()
        .filter(|field| reserved.numbers.contains(&field.number) || reserved.names.contains(&field.name));
    match taken.next() {
        None => Ok(()),
        Some(field) => Err(ProtoTextError::Reserved {
            message: message.name.clone(),
            field: field.name.clone(),
            number: field.number,
        }),
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `None` for messages and enums.
pub(crate) fn scalar_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
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
        Kind::Enum(_) | Kind::Message(_) => return None,
    })
}

/// The file of a well-known type.
fn well_known_file(name: &str) -> Option<&'static str> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Any" => "google/protobuf/any.proto",
        "Duration" => "google/protobuf/duration.proto",
        "Empty" => "google/protobuf/empty.proto",
        "FieldMask" => "google/protobuf/field_mask.proto",
        "ListValue" | "NullValue" | "Struct" | "Value" => "google/protobuf/struct.proto",
        "Timestamp" => "google/protobuf/timestamp.proto",
        "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value" | "Int64Value"
        | "StringValue" | "UInt32Value" | "UInt64Value" => "google/protobuf/wrappers.proto",
        _ => return None,
    })
}
