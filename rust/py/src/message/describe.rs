//! What Python says of its classes, as a schema; what the schema says of values, as exceptions.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use schema::bounds::{Bounds, Range, ValueBounds};
use schema::error::{DecodeError, DecodeReason, EncodeError, EncodeReason};
use schema::shape::{
    EnumId, EnumShape, FieldShape, Kind, Label, MessageId, Schema, SchemaBuilder, UnknownNumber,
};

use crate::error::{PROTOCOL_ERROR, SCHEMA_ERROR};

/// `gameserver._message.Description`.
#[derive(FromPyObject)]
pub struct Description {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
}

/// `gameserver._message.MessageShape`.
#[derive(FromPyObject)]
pub struct Message {
    pub name: String,
    pub fields: Vec<Field>,
    pub cls: Py<PyType>,
}

/// `gameserver._message.EnumShape`.
#[derive(FromPyObject)]
pub struct Enum {
    pub name: String,
    /// Names in protobuf, and numbers.
    pub values: Vec<(String, i32)>,
    pub members: Vec<(Py<PyAny>, i32)>,
    pub cls: Py<PyAny>,
    /// What a number without a name does: `keep`, `skip`, `refuse`.
    pub unknown: String,
}

/// `gameserver._fields.FieldShape`, which says what each is.
#[derive(FromPyObject)]
pub struct Field {
    pub name: String,
    pub attribute: String,
    number: u32,
    kind: String,
    label: String,
    of: Option<Py<PyAny>>,
    key: Option<String>,
    oneof: Option<String>,
    pub shared: bool,
    pub nullable: bool,
    packed: bool,
    bounds: FieldBounds,
    key_bounds: FieldBounds,
    count_max: Option<u32>,
}

#[derive(FromPyObject)]
struct FieldBounds {
    low: Option<Py<PyAny>>,
    high: Option<Py<PyAny>>,
    finite: bool,
    length_max: Option<u32>,
}

impl Description {
    /// The same as a checked schema: messages and enums have their index here as id.
    ///
    /// # Errors
    /// SchemaError: protobuf does not allow it.
    pub fn schema(&self, py: Python<'_>) -> PyResult<Schema> {
        let mut builder = SchemaBuilder::new();
        for shape in &self.enums {
            let unknown = match shape.unknown.as_str() {
                "keep" => UnknownNumber::Keep,
                "skip" => UnknownNumber::Skip,
                _ => UnknownNumber::Refuse,
            };
            builder.enumeration(EnumShape {
                name: shape.name.clone(),
                values: shape.values.clone(),
                unknown,
            });
        }
        let ids: Vec<MessageId> =
            self.messages.iter().map(|message| builder.message(message.name.as_str())).collect();
        for (message, &id) in self.messages.iter().zip(&ids) {
            let mut oneofs: Vec<(&str, u32)> = Vec::new();
            for field in &message.fields {
                let mut shape = field.shape(py, self)?;
                if let Some(name) = &field.oneof {
                    let known = oneofs.iter().find(|(oneof, _)| oneof == name).map(|(_, index)| *index);
                    let oneof = known.unwrap_or_else(|| {
                        let index = builder.oneof(id, name.as_str());
                        oneofs.push((name, index));
                        index
                    });
                    shape = shape.label(Label::Single).member_of(oneof);
                }
                builder.field(id, shape);
            }
        }
        builder.build().map_err(|error| SCHEMA_ERROR.err(py, error.to_string()))
    }

    fn kind(&self, name: &str, of: Option<&Py<PyAny>>) -> PyResult<Kind> {
        let is = |cls: *mut pyo3::ffi::PyObject| of.is_some_and(|of| of.as_ptr() == cls);
        let unknown = || PyValueError::new_err(format!("{name} is not the kind of a field"));
        Ok(match name {
            "enum" => {
                let index = self.enums.iter().position(|one| is(one.cls.as_ptr())).ok_or_else(unknown)?;
                Kind::Enum(EnumId(index as u32))
            }
            "message" => {
                let index = self.messages.iter().position(|one| is(one.cls.as_ptr())).ok_or_else(unknown)?;
                Kind::Message(MessageId(index as u32))
            }
            "double" => Kind::F64,
            "float" => Kind::F32,
            "int64" => Kind::I64,
            "uint64" => Kind::U64,
            "int32" => Kind::I32,
            "uint32" => Kind::U32,
            "sint32" => Kind::S32,
            "sint64" => Kind::S64,
            "fixed32" => Kind::Fixed32,
            "fixed64" => Kind::Fixed64,
            "sfixed32" => Kind::SFixed32,
            "sfixed64" => Kind::SFixed64,
            "bool" => Kind::Bool,
            "string" => Kind::Str,
            "bytes" => Kind::Bytes,
            _ => return Err(unknown()),
        })
    }
}

impl Field {
    fn shape(&self, py: Python<'_>, description: &Description) -> PyResult<FieldShape> {
        let kind = description.kind(&self.kind, self.of.as_ref())?;
        let key = self.key.as_deref().map(|key| description.kind(key, None)).transpose()?;
        let label = match (self.label.as_str(), key) {
            ("optional", _) if matches!(kind, Kind::Message(_)) => Label::Single,
            ("optional", _) => Label::Optional,
            ("repeated", _) => Label::Repeated { packed: self.packed && kind.is_packable() },
            ("map", Some(key)) => Label::Map { key },
            _ => Label::Single,
        };
        let bounds = Bounds {
            value: self.bounds.of(py, kind)?,
            key: key.map_or(Ok(ValueBounds::default()), |key| self.key_bounds.of(py, key))?,
            count_max: self.count_max,
        };
        Ok(FieldShape::new(self.name.as_str(), self.number, kind).label(label).bounded(bounds))
    }
}

impl FieldBounds {
    fn of(&self, py: Python<'_>, kind: Kind) -> PyResult<ValueBounds> {
        let range = if self.low.is_none() && self.high.is_none() {
            None
        } else {
            Some(match kind {
                Kind::F64 | Kind::F32 => Range::Float {
                    min: end(py, self.low.as_ref(), f64::NEG_INFINITY)?,
                    max: end(py, self.high.as_ref(), f64::INFINITY)?,
                },
                Kind::U64 | Kind::U32 | Kind::Fixed32 | Kind::Fixed64 => Range::Unsigned {
                    min: end(py, self.low.as_ref(), 0)?,
                    max: end(py, self.high.as_ref(), u64::MAX)?,
                },
                _ => Range::Signed {
                    min: end(py, self.low.as_ref(), i64::MIN)?,
                    max: end(py, self.high.as_ref(), i64::MAX)?,
                },
            })
        };
        Ok(ValueBounds { range, len_max: self.length_max, finite: self.finite })
    }
}

fn end<'py, T: for<'a> FromPyObject<'a, 'py>>(
    py: Python<'py>,
    end: Option<&'py Py<PyAny>>,
    open: T,
) -> PyResult<T> {
    end.map_or(Ok(open), |end| end.bind(py).extract().map_err(Into::into))
}

/// Bytes that are not this message. The path, as in `Move.path[3].x`, goes in front of what the sink says, too.
#[cold]
pub fn decode_error(py: Python<'_>, error: DecodeError) -> PyErr {
    match error.reason {
        DecodeReason::Stopped => PyErr::fetch(py),
        DecodeReason::Violation(_) => SCHEMA_ERROR.err(py, error.to_string()),
        _ => PROTOCOL_ERROR.err(py, error.to_string()),
    }
}

/// An instance that cannot be written.
#[cold]
pub fn encode_error(py: Python<'_>, error: EncodeError) -> PyErr {
    match error.reason {
        EncodeReason::Stopped => PyErr::fetch(py),
        _ => PyValueError::new_err(error.to_string()),
    }
}
