//! A game's messages and the `.proto` file that locks their numbers; `gameserver/_lock.py` compares them.

use std::collections::BTreeMap;

use ::schema::compatibility::{breaking_changes, field_type};
use ::schema::descriptor::{
    DescriptorError, Reserved, descriptor_set_of_text, reserved_of_set, schema_of_set,
};
use ::schema::proto_text::proto_text;
use ::schema::shape::Schema;
use pyo3::prelude::*;

use crate::error::SCHEMA_ERROR;
use crate::message::Description;

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(schema_lock, module)?)?;
    module.add_function(wrap_pyfunction!(schema_text, module)?)?;
    module.add_function(wrap_pyfunction!(schema_changes, module)?)
}

/// Full name; fields or values with number and type; numbers and names that are reserved.
type Locked = (String, Vec<(String, i64, String)>, Vec<(i32, i32)>, Vec<String>);
/// By full name, numbers and names that are reserved.
type Kept = BTreeMap<String, (Vec<(i32, i32)>, Vec<String>)>;
/// Full name, part of it, what changed, what to do.
type Change = (String, Option<String>, String, String);

/// Messages and enums that this text declares; what it imports is left out.
#[pyfunction]
fn schema_lock(py: Python<'_>, name: &str, text: &str) -> PyResult<(Vec<Locked>, Vec<Locked>)> {
    locked(name, text).map_err(|error| refused(py, &error))
}

/// The text of a `.proto` file with these messages.
#[pyfunction]
fn schema_text(py: Python<'_>, description: Description, reserved: Kept, header: &str) -> PyResult<String> {
    let reserved =
        reserved.into_iter().map(|(name, (numbers, names))| (name, Reserved { numbers, names })).collect();
    proto_text(&description.schema(py)?, &reserved, header)
        .map_err(|error| SCHEMA_ERROR.err(py, error.to_string()))
}

/// What these messages break for those who know the text.
#[pyfunction]
fn schema_changes(py: Python<'_>, name: &str, text: &str, description: Description) -> PyResult<Vec<Change>> {
    let old = schema_of(name, text).map_err(|error| refused(py, &error))?;
    let changes = breaking_changes(&old, &description.schema(py)?);
    Ok(changes.into_iter().map(|change| (change.name, change.part, change.reason, change.help)).collect())
}

fn schema_of(name: &str, text: &str) -> Result<Schema, DescriptorError> {
    schema_of_set(&descriptor_set_of_text(name, text)?)
}

fn locked(name: &str, text: &str) -> Result<(Vec<Locked>, Vec<Locked>), DescriptorError> {
    let set = descriptor_set_of_text(name, text)?;
    let schema = schema_of_set(&set)?;
    let (mut messages, mut enums) = (Vec::new(), Vec::new());
    for (full, Reserved { numbers, names }) in reserved_of_set(&set, name)? {
        if let Some(id) = schema.message_id(&full) {
            let message = schema.message(id);
            let part = |field: &::schema::shape::FieldShape| {
                let oneof = field.oneof.map(|oneof| format!("oneof {} ", message.oneofs[oneof as usize]));
                let kind = format!("{}{}", oneof.unwrap_or_default(), field_type(&schema, field));
                (field.name.clone(), i64::from(field.number), kind)
            };
            messages.push((full, message.fields.iter().map(part).collect(), numbers, names));
        } else if let Some(id) = schema.enum_id(&full) {
            let values = &schema.enumeration(id).values;
            let part = |(name, number): &(String, i32)| (name.clone(), i64::from(*number), String::new());
            enums.push((full, values.iter().map(part).collect(), numbers, names));
        }
    }
    Ok((messages, enums))
}

fn refused(py: Python<'_>, error: &DescriptorError) -> PyErr {
    SCHEMA_ERROR.err(py, error.to_string())
}
