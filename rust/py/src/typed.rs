//! Bodies that are messages: instances of `Message` classes, read and written here, or of classes that protoc generated,
//! which google's library reads and writes.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};
use wire::handshake::Serializer;
use wire::json_text::{escape_ascii, repair_surrogates};

use crate::message::{self, Codec, MessageBase};

/// A class whose instances are bodies.
pub struct Typed {
    class: Py<PyType>,
    is_own: bool,
    codec: PyOnceLock<KeptCodec>,
}

/// The codec of a class that is kept beside it.
struct KeptCodec(*const Codec);

// SAFETY: it is only looked at with the interpreter held, as the class that has it.
unsafe impl Send for KeptCodec {}
// SAFETY: as above.
unsafe impl Sync for KeptCodec {}

impl Typed {
    /// Of a message class; anything that is none of ours is taken for a generated one.
    pub fn new(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let is_own = class.is_subclass_of::<MessageBase>()?;
        Ok(Self { is_own, class: class.clone().unbind(), codec: PyOnceLock::new() })
    }

    /// How the class is read and written, looked up once. Of a class of ours.
    ///
    /// # Errors
    /// As [`message::codec`].
    #[inline]
    fn codec(&self, py: Python<'_>) -> PyResult<&Codec> {
        let find = || Ok::<_, PyErr>(KeptCodec(message::codec(self.class.bind(py))?));
        let &KeptCodec(codec) = self.codec.get_or_try_init(py, find)?;
        // SAFETY: a class has its codec for as long as somebody has the class, and this does.
        Ok(unsafe { &*codec })
    }

    /// The class itself.
    pub fn class<'py>(&self, py: Python<'py>) -> &Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// Whether [`Typed::read_again`] reads bodies of this serializer.
    #[inline]
    pub fn is_own_in(&self, serializer: Serializer) -> bool {
        self.is_own && serializer == Serializer::Protobuf
    }

    /// An instance of a class of ours, read from protobuf: the last one, if nobody has kept it and it can be filled anew.
    #[inline]
    pub fn read_again<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
        last: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.codec(py)?.decode_again(py, body, last)
    }

    /// An instance, read from a body.
    #[inline]
    pub fn read<'py>(
        &self,
        py: Python<'py>,
        serializer: Serializer,
        body: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let class = self.class.bind(py);
        match (self.is_own, serializer) {
            (true, Serializer::Protobuf) => message::decode_body(class, body),
            (true, Serializer::Json) => {
                let text = PyBytes::new(py, &repair_surrogates(body));
                class.call_method1(intern!(py, "from_json"), (text,))
            }
            (false, Serializer::Protobuf) => {
                static DECODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                let decode = DECODE.import(py, "gameserver._pb2", "decode")?;
                decode.call1((class, PyBytes::new(py, body)))
            }
            (false, Serializer::Json) => {
                static READ: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                let text = PyBytes::new(py, &repair_surrogates(body));
                READ.import(py, "gameserver._pb2", "from_json")?.call1((class, text))
            }
        }
    }
}

/// What a handler answers, where its annotation names messages: `gameserver._answer.Answer`.
pub struct Answer {
    classes: Vec<Typed>,
    /// Of several classes: the message with a oneof of them, which travels.
    around: Option<Py<PyType>>,
}

impl Answer {
    /// Reads the Python object.
    pub fn new(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let classes: Vec<Py<PyType>> = source.getattr("classes")?.extract()?;
        let around = if classes.len() > 1 { Some(source.getattr("wire")?.extract()?) } else { None };
        let py = source.py();
        let classes = classes.iter().map(|class| Typed::new(class.bind(py))).collect::<PyResult<_>>()?;
        Ok(Self { classes, around })
    }

    /// Appends what `value` is on the wire; `None` is an empty body.
    ///
    /// # Errors
    /// TypeError: it is not what the annotation says. What [`write`] says of its attributes.
    #[inline]
    pub fn write(&self, value: &Bound<'_, PyAny>, serializer: Serializer, out: &mut Vec<u8>) -> PyResult<()> {
        let py = value.py();
        if value.is_none() {
            return Ok(());
        }
        let is_exact = |typed: &&Typed| value.get_type_ptr() == typed.class(py).as_type_ptr();
        let exact = self.classes.iter().find(is_exact);
        if exact.is_none() && !self.is_any(value)? {
            return Err(self.refuse(value));
        }
        match (&self.around, exact) {
            (None, Some(typed)) if typed.is_own && serializer == Serializer::Protobuf => {
                typed.codec(py)?.encode(value, out)
            }
            (None, _) => write(value, serializer, out),
            (Some(around), _) => write(&around.bind(py).call1((value,))?, serializer, out),
        }
    }

    /// Whether it is an instance of a subclass.
    #[cold]
    fn is_any(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        for typed in &self.classes {
            if value.is_instance(typed.class(value.py()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[cold]
    fn refuse(&self, value: &Bound<'_, PyAny>) -> PyErr {
        let py = value.py();
        let name =
            |class: &Bound<'_, PyType>| class.qualname().map_or_else(|_| "?".into(), |name| name.to_string());
        let names: Vec<String> = self.classes.iter().map(|typed| name(typed.class(py))).collect();
        PyTypeError::new_err(format!(
            "returned {}, annotated as {}: return one of those, or None",
            name(&value.get_type()),
            names.join(" | ")
        ))
    }
}

/// Whether it is a message, of either kind.
#[inline]
pub fn is_message(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<MessageBase>() || is_generated(value)?)
}

/// Appends a message in this serializer.
///
/// # Errors
/// TypeError, ValueError: an attribute has a value that its field cannot have.
#[inline]
pub fn write(value: &Bound<'_, PyAny>, serializer: Serializer, out: &mut Vec<u8>) -> PyResult<()> {
    let py = value.py();
    let is_own = value.is_instance_of::<MessageBase>();
    match (is_own, serializer) {
        (true, Serializer::Protobuf) => return message::encode_into(value, out),
        (true, Serializer::Json) => {
            let text = value.call_method0(intern!(py, "to_json"))?.cast_into::<PyString>()?;
            out.extend_from_slice(&escape_ascii(text.to_str()?.as_bytes()));
        }
        (false, Serializer::Protobuf) => {
            static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let encode = ENCODE.import(py, "gameserver._pb2", "encode")?;
            let bytes = encode.call1((value,))?.cast_into::<PyBytes>()?;
            out.extend_from_slice(bytes.as_bytes());
        }
        (false, Serializer::Json) => {
            static WRITE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let write = WRITE.import(py, "gameserver._pb2", "to_json")?;
            let text = write.call1((value,))?.cast_into::<PyBytes>()?;
            out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(())
}

/// Whether it is an instance of a class that protoc generated.
fn is_generated(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    // Only a game that has imported google's library can have one; most values that get here are a dict or a list.
    static BASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let base = match BASE.get(py) {
        Some(base) => base,
        None => {
            let modules = py.import("sys")?.getattr("modules")?;
            let module = modules.call_method1("get", (intern!(py, "google.protobuf.message"),))?;
            if module.is_none() {
                return Ok(false);
            }
            let Ok(base) = module.getattr("Message") else { return Ok(false) }; // it is being imported
            BASE.get_or_init(py, || base.unbind())
        }
    };
    value.is_instance(base.bind(py))
}
