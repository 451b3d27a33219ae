//! Schemas from `.proto` files and descriptors, as plain values for Python.

use std::path::PathBuf;

use pyo3::prelude::*;
use schema::descriptor::{self, DescriptorError};
use schema::shape::{FieldShape, Kind, Label, Schema, UnknownNumber};

use crate::error::SCHEMA_ERROR;

/// Name, number, kind, label, index of the enum or message, kind of the keys, oneof, packed.
type Field =
    (String, u32, &'static str, &'static str, Option<u32>, Option<&'static str>, Option<String>, bool);
/// Full name and fields.
type Message = (String, Vec<Field>);
/// Full name, names and numbers, what an unknown number does.
type Enum = (String, Vec<(String, i32)>, &'static str);

/// What `.proto` files declare, with all that they import.
#[pyfunction]
pub fn message_schema_of_files(
    py: Python<'_>,
    files: Vec<PathBuf>,
    includes: Vec<PathBuf>,
) -> PyResult<(Vec<Message>, Vec<Enum>)> {
    plain(py, descriptor::schema_of_files(&files, &includes))
}

/// What an encoded `FileDescriptorSet` declares.
#[pyfunction]
pub fn message_schema_of_set(py: Python<'_>, set: &[u8]) -> PyResult<(Vec<Message>, Vec<Enum>)> {
    plain(py, descriptor::schema_of_set(set))
}

fn plain(py: Python<'_>, schema: Result<Schema, DescriptorError>) -> PyResult<(Vec<Message>, Vec<Enum>)> {
    let schema = schema.map_err(|error| SCHEMA_ERROR.err(py, error.to_string()))?;
    let messages = schema.messages().iter().map(|message| {
        (
            message.name.clone(),
            message.fields.iter().map(|field| plain_field(field, &message.oneofs)).collect(),
        )
    });
    let enums = schema.enums().iter().map(|shape| {
        let unknown = match shape.unknown {
            UnknownNumber::Keep => "keep",
            UnknownNumber::Skip => "skip",
            UnknownNumber::Refuse => "refuse",
        };
        (shape.name.clone(), shape.values.clone(), unknown)
    });
    Ok((messages.collect(), enums.collect()))
}

fn plain_field(field: &FieldShape, oneofs: &[String]) -> Field {
    let of = match field.kind {
        Kind::Enum(id) => Some(id.0),
        Kind::Message(id) => Some(id.0),
        _ => None,
    };
    let (label, key, packed) = match field.label {
        Label::Repeated { packed } => ("repeated", None, packed),
        Label::Map { key } => ("map", Some(name(key)), true),
        Label::Single if !field.has_presence() => ("single", None, true),
        Label::Single | Label::Optional => ("optional", None, true),
    };
    let oneof = field.oneof.and_then(|oneof| oneofs.get(oneof as usize).cloned());
    (field.name.clone(), field.number, name(field.kind), label, of, key, oneof, packed)
}

fn name(kind: Kind) -> &'static str {
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
