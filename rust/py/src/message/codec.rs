//! A class's codec: the plans of its schema, and where each field's value is in an instance.

use std::collections::HashMap;
use std::ffi::c_int;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyType};
use schema::error::DecodeError;
use schema::plan::{Limits, Plans, Sink};
use schema::shape::{EnumId, Kind, Label, MessageId, Schema};

use crate::error::SCHEMA_ERROR;
use crate::message::again::AgainSink;
use crate::message::class::{self, Class, Fill};
use crate::message::describe::{self, Description};
use crate::message::object;
use crate::message::sink::ObjectSink;
use crate::message::source::ObjectSource;

/// Of one class as the outermost message, with all that it names.
pub struct Codec {
    plans: Plans,
    messages: Vec<MessageCodec>,
    enums: Vec<EnumCodec>,
}

/// One message of a codec, by [`MessageId`].
pub struct MessageCodec {
    /// Its class; alive, since `cls` is.
    class: *const Class,
    cls: Py<PyType>,
    /// By slot of the shape.
    pub fields: Vec<FieldCodec>,
    by_name: HashMap<String, u16>,
    /// By attribute: where it is, and what is there when no value came.
    absent: Vec<(usize, Absent)>,
    /// By slot: the place in `absent` of its attribute, if there is nothing but numbers, texts and bytes, each in its own attribute.
    own: Option<Vec<usize>>,
    /// By the oneof's index.
    pub oneofs: Vec<Oneof>,
}

/// One field.
pub struct FieldCodec {
    /// Where in an instance its attribute is, in bytes.
    pub offset: usize,
    /// Its name in JSON.
    pub name: Py<PyString>,
    /// The attribute's name, for errors.
    pub attribute: Py<PyString>,
    /// The kind of its values.
    pub kind: Kind,
    /// How often it may be there.
    pub label: Label,
    /// Whether None stands for "not there".
    pub nullable: bool,
    /// The oneof that it is a member of.
    pub oneof: Option<u16>,
}

/// Fields of which at most one is there.
pub struct Oneof {
    /// Whether the members share one attribute, which holds the value of the one that is there.
    pub shared: bool,
    /// Slots of its members.
    pub members: Vec<u16>,
}

/// What an attribute is when no value came.
enum Absent {
    /// As the constructor has it, or protobuf's own default.
    Fill(Fill),
    /// A message of absent fields.
    Make(usize),
    /// There has to be one.
    Refuse(String),
}

/// Numbers and members of an enum.
pub struct EnumCodec {
    by_number: HashMap<i32, Py<PyAny>>,
    /// Members by number, for numbers that are small.
    dense: Vec<Option<Py<PyAny>>>,
    by_member: HashMap<usize, i32>,
    /// Numbers by their names in protobuf.
    pub numbers: HashMap<String, i32>,
    /// Names in protobuf by number.
    pub names: HashMap<i32, Py<PyString>>,
    /// Whether numbers without a name are taken.
    pub open: bool,
    /// The Python name, for errors.
    pub name: String,
}

const DENSE_MAX: i32 = 256;

impl Codec {
    /// Asks Python what the class looks like, with all that it names.
    pub fn new(cls: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = cls.py();
        static DESCRIBE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let describe = DESCRIBE.import(py, "gameserver._message", "describe")?;
        let description: Description = describe.call1((cls,))?.extract()?;
        let schema = description.schema(py)?;
        let messages =
            (0..description.messages.len()).map(|index| MessageCodec::new(py, &description, &schema, index));
        let messages = messages.collect::<PyResult<Vec<_>>>()?;
        let enums =
            description.enums.iter().map(|shape| EnumCodec::new(py, shape)).collect::<PyResult<_>>()?;
        let codec = Self { plans: Plans::new(schema, Limits::default()), messages, enums };
        codec.check_defaults(py)?;
        Ok(codec)
    }

    /// An instance of the class, read from bytes.
    ///
    /// # Errors
    /// ProtocolError: not a message at all. SchemaError: a value that the class forbids.
    #[inline]
    pub fn decode<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let root = &self.messages[0];
        let object = root.make(py)?;
        let mut sink = ObjectSink::new(py, self, root, object.as_ptr());
        match self.plans.decode(MessageId(0), bytes, &mut sink) {
            Ok(()) => Ok(object),
            Err(error) => Err(describe::decode_error(py, error)),
        }
    }

    /// The same, for which `last` is taken if nobody else has it: a handler that has kept its message has a reference to it.
    ///
    /// # Errors
    /// As [`Codec::decode`].
    #[inline]
    pub fn decode_again<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        last: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let root = &self.messages[0];
        let is_free = |object: &Bound<'_, PyAny>| {
            object::is_ours_alone(object) && root.can_be_again() && object.get_type_ptr() == root.class().ty
        };
        let Some(object) = last.filter(is_free) else { return self.decode(py, bytes) };
        let mut sink = AgainSink::new(py, self, root, object.as_ptr());
        match self.plans.decode(MessageId(0), bytes, &mut sink) {
            Ok(()) => Ok(object),
            Err(error) => Err(describe::decode_error(py, error)),
        }
    }

    /// What it was made of.
    pub fn schema(&self) -> &Schema {
        self.plans.schema()
    }

    /// Has `sink` take the values of a body, checked like those of an instance; no Python runs but the sink's.
    ///
    /// # Errors
    /// What `decode_error` makes the error of [`Codec::decode`] of.
    #[inline]
    pub fn read_into(&self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), DecodeError> {
        self.plans.decode(MessageId(0), bytes, sink)
    }

    /// Appends the bytes of an instance of the class.
    ///
    /// # Errors
    /// TypeError, ValueError: an attribute has a value that the field cannot have.
    #[inline]
    pub fn encode(&self, object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let source = ObjectSource::new(self, &self.messages[0], object.clone());
        let before = out.len();
        self.plans.encode(MessageId(0), &source, out).map_err(|error| {
            out.truncate(before);
            describe::encode_error(object.py(), error)
        })
    }

    /// The outermost message.
    pub fn root(&self) -> &MessageCodec {
        &self.messages[0]
    }

    /// The message of this id.
    #[inline]
    pub fn message(&self, id: MessageId) -> &MessageCodec {
        &self.messages[id.0 as usize]
    }

    /// The enum of this id.
    #[inline]
    pub fn enumeration(&self, id: EnumId) -> &EnumCodec {
        &self.enums[id.0 as usize]
    }

    /// Shows the collector what it holds.
    pub fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        let classes = self.messages.iter().map(|message| message.cls.as_ptr());
        let fills =
            self.messages.iter().flat_map(|message| &message.absent).filter_map(|(_, absent)| match absent {
                Absent::Fill(Fill::Value(value) | Fill::Copy(value)) => Some(value.as_ptr()),
                _ => None,
            });
        let members = self.enums.iter().flat_map(EnumCodec::held);
        classes.chain(fills).chain(members).map(visit).find(|&answer| answer != 0).unwrap_or(0)
    }

    /// A default that the field cannot have is a mistake of the class.
    fn check_defaults(&self, py: Python<'_>) -> PyResult<()> {
        for (id, message) in self.messages.iter().enumerate() {
            let object = message.make(py)?;
            for (index, fill) in message.class().defaults.iter().enumerate() {
                let value = match fill {
                    Fill::Value(value) | Fill::Copy(value) if !value.is_none(py) => {
                        value.clone_ref(py).into_ptr()
                    }
                    _ => continue,
                };
                // SAFETY: an instance of the class, and an offset of it.
                unsafe { object::store(object.as_ptr(), message.class().offsets[index], value) };
            }
            let source = ObjectSource::new(self, message, object);
            let encoded = self.plans.encode(MessageId(id as u32), &source, &mut Vec::new());
            if let Err(error) = encoded {
                let error = describe::encode_error(py, error);
                return Err(SCHEMA_ERROR.err(py, format!("default of {}", error.value(py))));
            }
        }
        Ok(())
    }
}

impl MessageCodec {
    fn new(py: Python<'_>, description: &Description, schema: &Schema, index: usize) -> PyResult<Self> {
        let shape = &description.messages[index];
        let cls = shape.cls.bind(py);
        let class = class::of(cls)?;
        let position = |attribute: &str| {
            let found = class.names.iter().position(|name| name.bind(py) == attribute);
            found.ok_or_else(|| PyValueError::new_err(format!("{} has no attribute {attribute}", shape.name)))
        };
        let mut fields = Vec::with_capacity(shape.fields.len());
        let mut absent: Vec<Option<Absent>> = class.names.iter().map(|_| None).collect();
        let built = schema.message(MessageId(index as u32));
        for (field, built) in shape.fields.iter().zip(&built.fields) {
            let at = position(&field.attribute)?;
            fields.push(FieldCodec {
                offset: class.offsets[at],
                name: PyString::intern(py, &field.name).unbind(),
                attribute: PyString::intern(py, &field.attribute).unbind(),
                kind: built.kind,
                label: built.label,
                nullable: field.nullable,
                oneof: built.oneof.map(|oneof| oneof as u16),
            });
            if absent[at].is_none() {
                absent[at] =
                    Some(Absent::new(py, description, &shape.name, field, built, &class.defaults[at])?);
            }
        }
        let mut oneofs: Vec<Oneof> =
            built.oneofs.iter().map(|_| Oneof { shared: false, members: Vec::new() }).collect();
        for (slot, field) in fields.iter().enumerate() {
            if let Some(oneof) = field.oneof {
                oneofs[usize::from(oneof)].members.push(slot as u16);
                oneofs[usize::from(oneof)].shared = shape.fields[slot].shared;
            }
        }
        let nothing = || Absent::Fill(Fill::Value(py.None()));
        let absent: Vec<(usize, Absent)> = (class.offsets.iter().zip(absent))
            .map(|(&offset, one)| (offset, one.unwrap_or_else(nothing)))
            .collect();
        let place = |field: &FieldCodec| {
            let is_single = matches!(field.label, Label::Single | Label::Optional) && field.oneof.is_none();
            let is_plain = is_single && !matches!(field.kind, Kind::Message(_));
            absent.iter().position(|(offset, _)| is_plain && *offset == field.offset)
        };
        let own = fields.iter().map(place).collect::<Option<Vec<_>>>();
        let is_all = |own: &Vec<usize>| own.len() == absent.len() && own.len() <= u64::BITS as usize;
        // One that the collector knows has slots of other bases, perhaps.
        let own = own.filter(|own| is_all(own) && !class.collected);
        let mut by_name = HashMap::new();
        for (field, slot) in shape.fields.iter().zip(0..) {
            by_name.insert(camel_case(&field.name), slot);
        }
        for (field, slot) in shape.fields.iter().zip(0..) {
            by_name.insert(field.name.clone(), slot); // goes before another's lowerCamelCase
        }
        Ok(Self { class, by_name, cls: shape.cls.clone_ref(py), absent, own, fields, oneofs })
    }

    /// The field of this name in JSON: as in the `.proto` file, or in lowerCamelCase.
    pub fn field(&self, name: &str) -> Option<&FieldCodec> {
        let slot = self.by_name.get(name)?;
        Some(&self.fields[usize::from(*slot)])
    }

    /// The class of its instances.
    #[inline]
    pub fn class(&self) -> &Class {
        // SAFETY: `cls` keeps the type alive, and the type owns the class.
        unsafe { &*self.class }
    }

    /// How many attributes an instance has.
    #[inline]
    pub fn attributes(&self) -> usize {
        self.absent.len()
    }

    /// An instance with empty slots.
    #[inline]
    pub fn make<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let class = self.class();
        // SAFETY: the interpreter is held; the slots are filled by the callers.
        unsafe { Bound::from_owned_ptr_or_err(py, object::alloc(class, class.ty)) }
    }

    /// Whether an instance can be filled anew.
    #[inline]
    pub fn can_be_again(&self) -> bool {
        self.own.is_some()
    }

    /// Puts into a slot of an instance that is filled anew what is there when no value came.
    pub fn make_absent(
        &self,
        py: Python<'_>,
        codec: &Codec,
        slot: usize,
        instance: *mut ffi::PyObject,
    ) -> PyResult<()> {
        let place = self.own.as_ref().and_then(|own| own.get(slot));
        if let Some((offset, absent)) = place.and_then(|&place| self.absent.get(place)) {
            // SAFETY: the caller's instance is of this class, and the offset too.
            unsafe { object::store(instance, *offset, absent.value(py, codec)?) };
        }
        Ok(())
    }

    /// Fills the slots for which no value came.
    #[inline]
    pub fn fill_absent(&self, py: Python<'_>, codec: &Codec, instance: *mut ffi::PyObject) -> PyResult<()> {
        for (offset, absent) in &self.absent {
            // SAFETY: the callers' instance is of this class, and the offset too.
            unsafe {
                let place = object::slot(instance, *offset);
                if (*place).is_null() {
                    *place = absent.value(py, codec)?;
                }
            }
        }
        Ok(())
    }
}

impl Absent {
    fn new(
        py: Python<'_>,
        description: &Description,
        message: &str,
        field: &describe::Field,
        built: &schema::shape::FieldShape,
        default: &Fill,
    ) -> PyResult<Self> {
        let value = |value: Py<PyAny>| Ok(Absent::Fill(Fill::Value(value)));
        match (default, built.label) {
            (_, Label::Repeated { .. }) => return Ok(Absent::Fill(Fill::List)),
            (_, Label::Map { .. }) => return Ok(Absent::Fill(Fill::Dict)),
            (Fill::Value(given), _) => return value(given.clone_ref(py)),
            (Fill::Copy(given), _) => return Ok(Absent::Fill(Fill::Copy(given.clone_ref(py)))),
            _ if field.nullable => return value(py.None()),
            _ if field.shared => {
                return Ok(Absent::Refuse(format!(
                    "{message}.{}: one of its messages is needed",
                    field.attribute
                )));
            }
            _ => {}
        }
        match built.kind {
            Kind::Message(id) => Ok(Absent::Make(id.0 as usize)),
            Kind::Enum(id) => {
                let members = &description.enums[id.0 as usize].members;
                value(members.iter().find(|(_, number)| *number == 0).map_or_else(
                    || {
                        0i32.into_pyobject(py)
                            .map(|zero| zero.into_any().unbind())
                            .unwrap_or_else(|e| match e {})
                    },
                    |(member, _)| member.clone_ref(py),
                ))
            }
            Kind::F64 | Kind::F32 => value(0f64.into_pyobject(py)?.into_any().unbind()),
            Kind::Bool => value(false.into_pyobject(py)?.to_owned().into_any().unbind()),
            Kind::Str => value(PyString::new(py, "").into_any().unbind()),
            Kind::Bytes => value(pyo3::types::PyBytes::new(py, b"").into_any().unbind()),
            _ => value(0i32.into_pyobject(py)?.into_any().unbind()),
        }
    }

    #[inline]
    fn value(&self, py: Python<'_>, codec: &Codec) -> PyResult<*mut ffi::PyObject> {
        Ok(match self {
            Absent::Fill(Fill::Value(value)) => value.clone_ref(py).into_ptr(),
            Absent::Fill(Fill::List) => PyList::empty(py).into_ptr(),
            Absent::Fill(Fill::Dict) => PyDict::new(py).into_ptr(),
            Absent::Fill(Fill::Copy(message)) => object::deep_copy(message.bind(py))?.into_ptr(),
            Absent::Fill(Fill::Nothing | Fill::Absent) => py.None().into_ptr(),
            Absent::Make(index) => {
                let message = &codec.messages[*index];
                let made = message.make(py)?;
                message.fill_absent(py, codec, made.as_ptr())?;
                made.into_ptr()
            }
            Absent::Refuse(text) => return Err(SCHEMA_ERROR.err(py, text.clone())),
        })
    }
}

impl EnumCodec {
    fn new(py: Python<'_>, shape: &describe::Enum) -> PyResult<Self> {
        let mut codec = Self {
            by_number: HashMap::new(),
            dense: Vec::new(),
            by_member: HashMap::new(),
            numbers: HashMap::new(),
            names: HashMap::new(),
            open: shape.unknown == "keep",
            name: shape.name.clone(),
        };
        for (name, number) in &shape.values {
            codec.numbers.insert(name.clone(), *number);
            codec.names.entry(*number).or_insert_with(|| PyString::new(py, name).unbind());
        }
        for (member, number) in &shape.members {
            codec.by_number.insert(*number, member.clone_ref(py));
            codec.by_member.insert(member.as_ptr() as usize, *number);
            if (0..DENSE_MAX).contains(number) {
                let at = *number as usize;
                if codec.dense.len() <= at {
                    codec.dense.resize_with(at + 1, || None);
                }
                codec.dense[at] = Some(member.clone_ref(py));
            }
        }
        Ok(codec)
    }

    /// The member of this number.
    #[inline]
    pub fn member(&self, number: i32) -> Option<&Py<PyAny>> {
        match usize::try_from(number).ok().and_then(|at| self.dense.get(at)) {
            Some(member) => member.as_ref(),
            None => self.by_number.get(&number),
        }
    }

    /// The number of a member.
    #[inline]
    pub fn number(&self, member: *mut ffi::PyObject) -> Option<i32> {
        let is_it = |one: &Option<Py<PyAny>>| one.as_ref().is_some_and(|one| one.as_ptr() == member);
        if self.dense.len() <= 16
            && let Some(at) = self.dense.iter().position(is_it)
        {
            return Some(at as i32);
        }
        self.by_member.get(&(member as usize)).copied()
    }

    fn held(&self) -> impl Iterator<Item = *mut ffi::PyObject> {
        self.by_number.values().chain(self.dense.iter().flatten()).map(Py::as_ptr)
    }
}

/// What the constructor of a lenient class puts into this attribute.
pub fn absent<'py>(py: Python<'py>, class: &Class, index: usize) -> PyResult<Bound<'py, PyAny>> {
    let codec = class.codec(py)?;
    let value = codec.root().absent[index].1.value(py, codec)?;
    // SAFETY: `value` gives a new reference.
    Ok(unsafe { Bound::from_owned_ptr(py, value) })
}

/// As protobuf makes JSON names: `max_speed` is `maxSpeed`.
fn camel_case(name: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
        } else {
            out.push(if upper { letter.to_ascii_uppercase() } else { letter });
            upper = false;
        }
    }
    out
}
