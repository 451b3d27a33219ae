//! Messages as JSON's values and back: protobuf's JSON mapping with the names of the `.proto` file.
//!
//! What a codec refuses on the wire it refuses here: a message is encoded once before it is shown, and once after it was
//! read. JSON is for tools and old clients; the wire is the fast way.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use schema::plan::{Limits, Scalar, ScalarType, Source, Stopped};
use schema::shape::{Kind, Label};

use crate::error::SCHEMA_ERROR;
use crate::message::codec::{Codec, FieldCodec, MessageCodec};
use crate::message::object;
use crate::message::source::ObjectSource;

const STANDARD: GeneralPurpose = base64::engine::general_purpose::STANDARD;
/// Padding is optional when it is read.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const READ_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const READ_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Below it a float holds every integer.
const EXACT: f64 = (1u64 << 53) as f64;

/// Where a value is, for errors.
struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    part: &'a dyn std::fmt::Display,
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
        }
        self.part.fmt(f)
    }
}

impl<'a> Path<'a> {
    fn to(&'a self, part: &'a dyn std::fmt::Display) -> Path<'a> {
        Path { outer: Some(self), part }
    }

    fn refuse(&self, py: Python<'_>, text: impl std::fmt::Display) -> PyErr {
        SCHEMA_ERROR.err(py, format!("{self}: {text}"))
    }

    fn expected(&self, what: &str, value: &Bound<'_, PyAny>) -> PyErr {
        let mut shown = value.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string());
        if let Some((end, _)) = shown.char_indices().nth(60) {
            shown.truncate(end);
            shown.push_str("...");
        }
        self.refuse(value.py(), format!("expected {what}, not {shown}"))
    }
}

/// What JSON would hold of an instance of the codec's class.
pub fn to_dict<'py>(codec: &Codec, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    codec.encode(object, &mut Vec::new())?; // checks it all, its depth too
    let source = ObjectSource::new(codec, codec.root(), object.clone());
    shown_message(object.py(), codec, codec.root(), &source)
}

/// An instance of the codec's class, made of what JSON held.
///
/// # Errors
/// SchemaError: something does not fit the class.
pub fn from_dict<'py>(codec: &Codec, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let name = codec.root().class().name(py);
    let object = read_message(codec, codec.root(), value, &Path { outer: None, part: &name }, 0)?;
    match codec.encode(&object, &mut Vec::new()) {
        Ok(()) => Ok(object),
        Err(error) => Err(SCHEMA_ERROR.err(py, error.value(py).to_string())),
    }
}

fn shown_message<'py>(
    py: Python<'py>,
    codec: &Codec,
    message: &MessageCodec,
    source: &ObjectSource<'_, 'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let stopped = |Stopped| PyErr::fetch(py);
    let dict = PyDict::new(py);
    for (field, slot) in message.fields.iter().zip(0..) {
        let ty = field.kind.scalar_type();
        // A closure cannot pass on a PyErr through the traits of the plan: it sets the exception instead.
        let show = |value: Scalar<'_>| shown(py, codec, field, value).map_err(|error| stop(py, error));
        let show_child = |id, child: ObjectSource<'_, 'py>| {
            let shown = shown_message(py, codec, codec.message(id), &child);
            shown.map(Bound::into_any).map_err(|error| stop(py, error))
        };
        let value = match (field.label, field.kind) {
            (Label::Single | Label::Optional, Kind::Message(id)) => {
                let Some(child) = source.message(slot).map_err(stopped)? else { continue };
                show_child(id, child).map_err(stopped)?
            }
            (Label::Single | Label::Optional, _) => {
                let Some(ty) = ty else { continue };
                let Some(value) = source.scalar(slot, ty).map_err(stopped)? else { continue };
                show(value).map_err(stopped)?
            }
            (Label::Repeated { .. }, kind) => {
                let list = PyList::empty(py);
                let append = |item| list.append(item).map_err(|error| stop(py, error));
                match (kind, ty) {
                    (Kind::Message(id), _) => source.messages(slot, |child| append(show_child(id, child)?)),
                    (_, Some(ty)) => source.items(slot, ty, |value| append(show(value)?)),
                    _ => Ok(()),
                }
                .map_err(stopped)?;
                list.into_any()
            }
            (Label::Map { key }, kind) => {
                let entries = PyDict::new(py);
                let key_type = key.scalar_type().unwrap_or(ScalarType::Str);
                let put = |key: Scalar<'_>, value| {
                    let key = match key {
                        Scalar::Str(text) => text.to_owned(),
                        number => number.to_string(), // also true and false
                    };
                    entries.set_item(key, value).map_err(|error| stop(py, error))
                };
                match (kind, ty) {
                    (Kind::Message(id), _) => {
                        source.message_entries(slot, key_type, |key, child| put(key, show_child(id, child)?))
                    }
                    (_, Some(ty)) => source.entries(slot, key_type, ty, |key, value| put(key, show(value)?)),
                    _ => Ok(()),
                }
                .map_err(stopped)?;
                entries.into_any()
            }
        };
        dict.set_item(field.name.bind(py), value)?;
    }
    Ok(dict)
}

#[cold]
fn stop(py: Python<'_>, error: PyErr) -> Stopped {
    error.restore(py);
    Stopped
}

fn shown<'py>(
    py: Python<'py>,
    codec: &Codec,
    field: &FieldCodec,
    value: Scalar<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Scalar::F64(value) => shown_float(py, value, value),
        // As short as 32 bits allow: 0.1, not 0.10000000149011612.
        Scalar::F32(value) => {
            shown_float(py, value.into(), value.to_string().parse().unwrap_or(value.into()))
        }
        // As text: JavaScript's numbers have 53 bits.
        Scalar::I64(value) => value.to_string().into_bound_py_any(py),
        Scalar::U64(value) => value.to_string().into_bound_py_any(py),
        Scalar::I32(value) => value.into_bound_py_any(py),
        Scalar::U32(value) => value.into_bound_py_any(py),
        Scalar::Bool(value) => value.into_bound_py_any(py),
        Scalar::Str(value) => value.into_bound_py_any(py),
        Scalar::Bytes(value) => STANDARD.encode(value).into_bound_py_any(py),
        Scalar::Enum(number) => match field.kind {
            Kind::Enum(id) => match codec.enumeration(id).names.get(&number) {
                Some(name) => Ok(name.bind(py).clone().into_any()),
                None => number.into_bound_py_any(py),
            },
            _ => number.into_bound_py_any(py),
        },
    }
}

fn shown_float(py: Python<'_>, value: f64, short: f64) -> PyResult<Bound<'_, PyAny>> {
    if value.is_nan() {
        "NaN".into_bound_py_any(py)
    } else if value.is_infinite() {
        (if value > 0.0 { "Infinity" } else { "-Infinity" }).into_bound_py_any(py)
    } else {
        short.into_bound_py_any(py)
    }
}

fn read_message<'py>(
    codec: &Codec,
    message: &MessageCodec,
    value: &Bound<'py, PyAny>,
    path: &Path<'_>,
    depth: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let Ok(dict) = value.cast::<PyDict>() else { return Err(path.expected("an object", value)) };
    if depth > Limits::default().depth {
        return Err(
            path.refuse(py, format!("more than {} objects within each other", Limits::default().depth))
        );
    }
    let made = message.make(py)?;
    for (key, value) in dict {
        let key =
            key.cast::<PyString>().map_err(|_| path.expected("names as keys", &key))?.to_cow()?.into_owned();
        let Some(field) = message.field(&key) else { continue }; // as unknown fields on the wire
        if value.is_none() {
            continue; // as if it were not there
        }
        let part = format!(".{key}");
        let path = path.to(&part);
        let single = matches!(field.label, Label::Single | Label::Optional);
        // SAFETY: an instance of the message's class, and an offset of it.
        let place = unsafe { object::slot(made.as_ptr(), field.offset) };
        // SAFETY: as above.
        if single && unsafe { !(*place).is_null() } {
            return Err(path.refuse(py, "comes twice, or is another member of a oneof that has a value"));
        }
        let read = match field.label {
            Label::Single | Label::Optional => read_value(codec, field.kind, &value, &path, depth)?,
            Label::Repeated { .. } => {
                let Ok(items) = value.cast::<PyList>() else { return Err(path.expected("a list", &value)) };
                let list = PyList::empty(py);
                for (index, item) in items.iter().enumerate() {
                    let part = format!("[{index}]");
                    list.append(read_value(codec, field.kind, &item, &path.to(&part), depth)?)?;
                }
                list.into_any()
            }
            Label::Map { key: kind } => {
                let Ok(entries) = value.cast::<PyDict>() else {
                    return Err(path.expected("an object", &value));
                };
                let dict = PyDict::new(py);
                for (key, item) in entries {
                    let part = format!("[{key}]");
                    let path = path.to(&part);
                    let key = read_key(codec, kind, &key, &path)?;
                    dict.set_item(key, read_value(codec, field.kind, &item, &path, depth)?)?;
                }
                dict.into_any()
            }
        };
        // SAFETY: as above; the slot takes the reference.
        unsafe { object::store(made.as_ptr(), field.offset, read.into_ptr()) };
    }
    message.fill_absent(py, codec, made.as_ptr())?;
    Ok(made)
}

fn read_key<'py>(
    codec: &Codec,
    kind: Kind,
    key: &Bound<'py, PyAny>,
    path: &Path<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    if kind == Kind::Bool {
        let text = key.extract::<&str>().unwrap_or_default();
        return match text {
            "true" => true.into_bound_py_any(key.py()),
            "false" => false.into_bound_py_any(key.py()),
            _ => Err(path.expected("true or false as key", key)),
        };
    }
    read_value(codec, kind, key, path, 0)
}

fn read_value<'py>(
    codec: &Codec,
    kind: Kind,
    value: &Bound<'py, PyAny>,
    path: &Path<'_>,
    depth: u32,
) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let text = value.cast::<PyString>().ok();
    match kind {
        Kind::Message(id) => read_message(codec, codec.message(id), value, path, depth + 1),
        Kind::Bool if value.is_exact_instance_of::<PyBool>() => Ok(value.clone()),
        Kind::Bool => Err(path.expected("true or false", value)),
        Kind::Str if text.is_some() => Ok(value.clone()),
        Kind::Str => Err(path.expected("a text", value)),
        Kind::Bytes => {
            let text = text.ok_or_else(|| path.expected("base64", value))?.to_cow()?;
            let engine = if text.contains(['-', '_']) { READ_URL_SAFE } else { READ_STANDARD };
            let bytes = engine.decode(text.as_bytes()).map_err(|_| path.expected("base64", value))?;
            Ok(pyo3::types::PyBytes::new(py, &bytes).into_any())
        }
        Kind::Enum(id) => {
            let codec = codec.enumeration(id);
            let number = match text {
                Some(name) => codec.numbers.get(&*name.to_cow()?).copied(),
                None => whole(value).and_then(|number| number.extract().ok()),
            };
            match number.and_then(|number| codec.member(number).map(|member| (number, member))) {
                Some((_, member)) => Ok(member.bind(py).clone()),
                None => match number {
                    Some(number) if codec.open => number.into_bound_py_any(py),
                    Some(number) => {
                        Err(path.refuse(py, format!("{number} is no value of enum {}", codec.name)))
                    }
                    None => Err(path.expected(&format!("a value of {}", codec.name), value)),
                },
            }
        }
        Kind::F64 => read_float(value, path)?.into_bound_py_any(py),
        Kind::F32 => {
            let wide = read_float(value, path)?;
            let narrow = wide as f32; // what the wire would hold
            if narrow.is_infinite() && wide.is_finite() {
                return Err(path.expected("a float of 32 bits", value));
            }
            f64::from(narrow).into_bound_py_any(py)
        }
        _ => match text {
            Some(text) => {
                let text = text.to_cow()?;
                // At most the digits of 64 bits: Python's integers have no end. "1e3" and "1.0" are integers too.
                let plain = text.parse::<i128>().ok().filter(|_| text.len() <= 20 && !text.starts_with('+'));
                let exact =
                    || text.parse::<f64>().ok().filter(|float| float.fract() == 0.0 && float.abs() < EXACT);
                let number = plain.or_else(|| exact().map(|float| float as i128));
                number.ok_or_else(|| path.expected("an integer", value))?.into_bound_py_any(py)
            }
            None => whole(value).ok_or_else(|| path.expected("an integer", value)),
        },
    }
}

fn read_float(value: &Bound<'_, PyAny>, path: &Path<'_>) -> PyResult<f64> {
    let refuse = || path.expected("a number", value);
    if value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyFloat>() {
        return value.extract().map_err(|_| refuse());
    }
    let text = value.cast::<PyString>().map_err(|_| refuse())?.to_cow()?;
    match &*text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        // Rust reads "inf" and the like too.
        number => match number.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(float),
            _ => Err(refuse()),
        },
    }
}

/// An integer, or a float without a fraction.
fn whole<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if value.is_exact_instance_of::<PyInt>() {
        return Some(value.clone());
    }
    let float = value.cast_exact::<PyFloat>().ok()?.extract::<f64>().ok()?;
    (float.fract() == 0.0 && float.abs() < 2f64.powi(64))
        .then(|| (float as i128).into_bound_py_any(value.py()).ok())?
}
