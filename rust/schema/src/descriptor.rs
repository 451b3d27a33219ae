//! Schemas from protobuf's own descriptors, and from `.proto` files without protoc.
//!
//! Fields get the default bounds, so floats are finite; [`Schema::without_bounds`] takes that away. Not kept: services, extensions
//! (they are read as unknown fields), the default values of proto2 (absent is absent), and that a proto2 field is
//! required (it is optional here).

mod file;
mod reserved;

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use protox::Compiler;
use protox::file::{ChainFileResolver, File as ProtoFile, FileResolver, GoogleFileResolver};

use crate::shape::{
    EnumId, EnumShape, FieldShape, Kind, Label, MessageId, Schema, SchemaBuilder, SchemaError, UnknownNumber,
};
use file::{Enum, Features, Field, FieldLabel, FieldType, File, FileSet, ListEncoding, MessageEncoding};
use file::{Openness, Presence, Type};

pub use reserved::{Reserved, reserved_of_set};

/// Why descriptors or files were not taken.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// The bytes are no `FileDescriptorSet`.
    #[error("no FileDescriptorSet: {0}")]
    Bytes(#[from] prost::DecodeError),
    /// A file is not there, or not protobuf: `file:line:column: what is wrong`.
    #[error("{0}")]
    Compile(String),
    /// An edition that is newer than this code.
    #[error("{file}: edition {edition} (syntax {syntax:?}) is not known; proto2, proto3, 2023 and 2024 are")]
    Edition {
        /// Name of the file.
        file: String,
        /// Its edition's number.
        edition: i32,
        /// Its syntax.
        syntax: String,
    },
    /// A field of a type that is not there or not supported.
    #[error("{message}.{field}: {reason}")]
    Field {
        /// Full name of the message.
        message: String,
        /// Name of the field.
        field: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// What the descriptors say is no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// The schema of an encoded `FileDescriptorSet`: of all its files, which must hold what they import.
///
/// proto2, proto3 and the editions 2023 and 2024. The descriptor of a Python `_pb2` module is one file of it.
///
/// # Errors
/// [`DescriptorError`]
pub fn schema_of_set(bytes: &[u8]) -> Result<Schema, DescriptorError> {
    let set = FileSet::decode(bytes)?;
    let mut collected = Collected::default();
    for file in &set.file {
        collected.file(file)?;
    }
    collected.fields()?;
    Ok(collected.builder.build()?)
}

/// The schema of `.proto` files and of what they import, found in the folders `includes`; google's own files are built in.
///
/// # Errors
/// [`DescriptorError::Compile`] says file, line and column.
pub fn schema_of_files(
    files: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<Schema, DescriptorError> {
    let mut compiler = Compiler::new(includes).map_err(compile_error)?;
    for file in files {
        compiler.open_file(file).map_err(compile_error)?;
    }
    schema_of_set(&compiler.include_imports(true).encode_file_descriptor_set())
}

/// The schema of one `.proto` file's text, which imports nothing but google's own files.
///
/// ```
/// let schema = schema::descriptor::schema_of_text("arena.proto", r#"
///     syntax = "proto3";
///     package arena;
///     message Move { float dx = 1; float dy = 2; }
/// "#)?;
/// assert!(schema.message_id("arena.Move").is_some());
/// # Ok::<(), schema::descriptor::DescriptorError>(())
/// ```
///
/// # Errors
/// [`DescriptorError::Compile`] says file, line and column.
pub fn schema_of_text(name: &str, text: &str) -> Result<Schema, DescriptorError> {
    schema_of_set(&descriptor_set_of_text(name, text)?)
}

/// The encoded `FileDescriptorSet` of one `.proto` file's text and of google's files that it imports.
///
/// # Errors
/// [`DescriptorError::Compile`] says file, line and column.
pub fn descriptor_set_of_text(name: &str, text: &str) -> Result<Vec<u8>, DescriptorError> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(OneFile { name: name.to_owned(), text: text.to_owned() });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(name).map_err(compile_error)?;
    Ok(compiler.include_imports(true).encode_file_descriptor_set())
}

struct OneFile {
    name: String,
    text: String,
}

impl FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<ProtoFile, protox::Error> {
        if name == self.name {
            ProtoFile::from_source(name, &self.text)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// protox shows file, line and column in its `Debug` alone.
fn compile_error(error: protox::Error) -> DescriptorError {
    DescriptorError::Compile(format!("{error:?}"))
}

/// All messages and enums are announced before the first field is made, which may point to any of them.
#[derive(Default)]
struct Collected<'d> {
    builder: SchemaBuilder,
    messages: Vec<(MessageId, &'d Type, Features, String)>,
    /// By full name with the leading dot, as descriptors have it.
    ids: HashMap<String, Named<'d>>,
}

#[derive(Clone, Copy)]
enum Named<'d> {
    Message(MessageId),
    Enum(EnumId),
    /// The made-up message of a map.
    MapEntry(&'d Type),
}

impl<'d> Collected<'d> {
    fn file(&mut self, file: &'d File) -> Result<(), DescriptorError> {
        let features = file.features().ok_or_else(|| DescriptorError::Edition {
            file: file.name.clone(),
            edition: file.edition,
            syntax: file.syntax.clone(),
        })?;
        let scope = if file.package.is_empty() { String::new() } else { format!(".{}", file.package) };
        for shape in &file.enum_type {
            self.enumeration(&scope, shape, features);
        }
        for shape in &file.message_type {
            self.message(&scope, shape, features, NESTING_MAX)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        scope: &str,
        shape: &'d Type,
        around: Features,
        depth: u32,
    ) -> Result<(), DescriptorError> {
        let name = format!("{scope}.{}", shape.name);
        let options = shape.options.unwrap_or_default();
        let features = Features::within(options.features, around);
        if options.map_entry {
            self.ids.insert(name, Named::MapEntry(shape));
            return Ok(());
        }
        let id = self.builder.message(&name[1..]);
        self.ids.insert(name.clone(), Named::Message(id));
        self.messages.push((id, shape, features, name[1..].to_owned()));
        let Some(depth) = depth.checked_sub(1) else {
            return Err(DescriptorError::Compile(format!("{}: messages nested too deep", &name[1..])));
        };
        for nested in &shape.enum_type {
            self.enumeration(&name, nested, features);
        }
        shape.nested_type.iter().try_for_each(|nested| self.message(&name, nested, features, depth))
    }

    fn enumeration(&mut self, scope: &str, shape: &'d Enum, around: Features) {
        let name = format!("{scope}.{}", shape.name);
        let features = Features::within(shape.options.and_then(|options| options.features), around);
        let closed = features.enum_type() == Openness::Closed;
        let id = self.builder.enumeration(EnumShape {
            name: name[1..].to_owned(),
            values: shape.value.iter().map(|value| (value.name.clone(), value.number)).collect(),
            unknown: if closed { UnknownNumber::Skip } else { UnknownNumber::Keep },
        });
        self.ids.insert(name, Named::Enum(id));
    }

    fn fields(&mut self) -> Result<(), DescriptorError> {
        for (id, shape, features, name) in std::mem::take(&mut self.messages) {
            // A proto3 `optional` is alone in a oneof that nobody wrote.
            let written = |index: u32| {
                shape.field.iter().any(|field| field.oneof_index == Some(index) && !field.proto3_optional)
            };
            let oneofs: HashMap<u32, u32> = (0u32..)
                .zip(&shape.oneof_decl)
                .filter(|(index, _)| written(*index))
                .map(|(index, oneof)| (index, self.builder.oneof(id, &oneof.name)))
                .collect();
            for field in &shape.field {
                let made = self.field(field, features, &oneofs).map_err(|reason| DescriptorError::Field {
                    message: name.clone(),
                    field: field.name.clone(),
                    reason,
                })?;
                self.builder.field(id, made);
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        around: Features,
        oneofs: &HashMap<u32, u32>,
    ) -> Result<FieldShape, String> {
        let options = field.options.unwrap_or_default();
        let features = Features::within(options.features, around);
        if field.r#type() == FieldType::Message {
            if let Some(Named::MapEntry(entry)) = self.ids.get(&field.type_name) {
                return self.map(field, entry);
            }
            if features.message_encoding() == MessageEncoding::Delimited {
                return Err(NO_GROUPS.to_owned());
            }
        }
        let kind = self.kind(field)?;
        let label = match field.label() {
            FieldLabel::Repeated => {
                let packed = match options.packed {
                    Some(packed) => packed,
                    None => features.repeated_field_encoding() == ListEncoding::Packed,
                };
                Label::Repeated { packed: packed && kind.is_packable() }
            }
            _ if field.proto3_optional => Label::Optional,
            _ if field.oneof_index.is_some() || matches!(kind, Kind::Message(_)) => Label::Single,
            _ if features.field_presence() == Presence::Implicit => Label::Single,
            _ => Label::Optional,
        };
        let mut made = FieldShape::new(&field.name, field.number, kind).label(label);
        if label == Label::Single {
            made.oneof = field.oneof_index.and_then(|index| oneofs.get(&index).copied());
        }
        Ok(made)
    }

    fn map(&self, field: &Field, entry: &Type) -> Result<FieldShape, String> {
        let of = |number| {
            let part = entry.field.iter().find(|part| part.number == number);
            part.ok_or_else(|| format!("its map entry has no field {number}"))
                .and_then(|part| self.kind(part))
        };
        Ok(FieldShape::new(&field.name, field.number, of(2)?).label(Label::Map { key: of(1)? }))
    }

    fn kind(&self, field: &Field) -> Result<Kind, String> {
        Ok(match field.r#type() {
            FieldType::Double => Kind::F64,
            FieldType::Float => Kind::F32,
            FieldType::Int64 => Kind::I64,
            FieldType::Uint64 => Kind::U64,
            FieldType::Int32 => Kind::I32,
            FieldType::Fixed64 => Kind::Fixed64,
            FieldType::Fixed32 => Kind::Fixed32,
            FieldType::Bool => Kind::Bool,
            FieldType::String => Kind::Str,
            FieldType::Bytes => Kind::Bytes,
            FieldType::Uint32 => Kind::U32,
            FieldType::Sfixed32 => Kind::SFixed32,
            FieldType::Sfixed64 => Kind::SFixed64,
            FieldType::Sint32 => Kind::S32,
            FieldType::Sint64 => Kind::S64,
            FieldType::Group => return Err(NO_GROUPS.to_owned()),
            FieldType::Unset => return Err("it has no type".to_owned()),
            FieldType::Message | FieldType::Enum => match self.ids.get(&field.type_name) {
                Some(Named::Message(id)) => Kind::Message(*id),
                Some(Named::Enum(id)) => Kind::Enum(*id),
                Some(Named::MapEntry(_)) => return Err("a map within a map".to_owned()),
                None => {
                    return Err(format!(
                        "{} is in none of the files; add the file that it comes from",
                        field.type_name
                    ));
                }
            },
        })
    }
}

const NO_GROUPS: &str = "groups (delimited messages) are not supported; make it a length-prefixed message";
/// Deeper than anybody writes, and than prost reads.
const NESTING_MAX: u32 = 100;
