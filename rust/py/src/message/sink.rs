//! Values from the wire into the slots of instances.

use pyo3::ffi;
use pyo3::prelude::*;
use schema::plan::{FixedItems, Scalar, Sink, Stopped};
use schema::shape::Kind;

use crate::message::codec::{Codec, FieldCodec, MessageCodec};
use crate::message::object;

/// An instance that is being filled; who made it holds it. After `Stopped`, an exception is set.
pub struct ObjectSink<'a, 'py> {
    pub py: Python<'py>,
    pub codec: &'a Codec,
    pub message: &'a MessageCodec,
    pub object: *mut ffi::PyObject,
    /// Slots that had nothing and have something now.
    filled: usize,
}

impl<'a, 'py> ObjectSink<'a, 'py> {
    /// Fills `object`, an instance of `message`'s class that outlives this.
    #[inline]
    pub fn new(
        py: Python<'py>,
        codec: &'a Codec,
        message: &'a MessageCodec,
        object: *mut ffi::PyObject,
    ) -> Self {
        Self { py, codec, message, object, filled: 0 }
    }

    #[inline]
    fn field(&self, slot: u16) -> &'a FieldCodec {
        &self.message.fields[usize::from(slot)]
    }

    /// What is in the field's slot; NULL if nothing is.
    #[inline]
    fn held(&self, field: &FieldCodec) -> *mut ffi::PyObject {
        // SAFETY: the offset is of the object's class.
        unsafe { *object::slot(self.object, field.offset) }
    }

    #[inline(always)]
    fn store(&mut self, field: &FieldCodec, value: *mut ffi::PyObject) {
        // SAFETY: the offset is of the object's class, and the reference is ours to give. The old value, which nobody
        // else has, is of a checked type: no code of the game runs when it goes.
        unsafe {
            let old = std::ptr::replace(object::slot(self.object, field.offset), value);
            if old.is_null() {
                self.filled += 1;
            } else {
                ffi::Py_DECREF(old);
            }
        }
    }

    /// A new reference to the value as Python has it.
    #[inline(always)]
    pub fn value(&self, field: &FieldCodec, value: Scalar<'_>) -> Result<*mut ffi::PyObject, Stopped> {
        // SAFETY: the interpreter is held; pointers and lengths are of live slices; str is UTF-8.
        let made = unsafe {
            match value {
                Scalar::F64(value) => ffi::PyFloat_FromDouble(value),
                Scalar::F32(value) => ffi::PyFloat_FromDouble(value.into()),
                Scalar::I64(value) => ffi::PyLong_FromLongLong(value),
                Scalar::U64(value) => ffi::PyLong_FromUnsignedLongLong(value),
                Scalar::I32(value) => ffi::PyLong_FromLong(value.into()),
                Scalar::U32(value) => ffi::PyLong_FromLong(value.into()),
                Scalar::Bool(value) => ffi::Py_NewRef(if value { ffi::Py_True() } else { ffi::Py_False() }),
                Scalar::Str(text) => new_str(text),
                Scalar::Bytes(bytes) => {
                    ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize)
                }
                Scalar::Enum(number) => self.member(field, number),
            }
        };
        if made.is_null() { Err(Stopped) } else { Ok(made) }
    }

    #[inline]
    fn member(&self, field: &FieldCodec, number: i32) -> *mut ffi::PyObject {
        if let Kind::Enum(id) = field.kind
            && let Some(member) = self.codec.enumeration(id).member(number)
        {
            return member.clone_ref(self.py).into_ptr();
        }
        // SAFETY: the interpreter is held.
        unsafe { ffi::PyLong_FromLong(number.into()) }
    }

    /// The field's list, made at its first item.
    #[inline]
    fn list(&mut self, field: &FieldCodec, capacity: usize) -> Result<*mut ffi::PyObject, Stopped> {
        let held = self.held(field);
        if !held.is_null() {
            return Ok(held);
        }
        let list = list_with_capacity(capacity)?;
        self.store(field, list);
        Ok(list)
    }

    /// The field's dict, made at its first entry.
    #[inline]
    fn dict(&mut self, field: &FieldCodec) -> Result<*mut ffi::PyObject, Stopped> {
        let held = self.held(field);
        if !held.is_null() {
            return Ok(held);
        }
        // SAFETY: the interpreter is held.
        let dict = unsafe { ffi::PyDict_New() };
        if dict.is_null() {
            return Err(Stopped);
        }
        self.store(field, dict);
        Ok(dict)
    }

    /// A new instance for a nested message of this field.
    #[inline]
    fn make(&self, field: &FieldCodec) -> Result<(&'a MessageCodec, *mut ffi::PyObject), Stopped> {
        let Kind::Message(id) = field.kind else { return Err(Stopped) };
        let message = self.codec.message(id);
        let class = message.class();
        // SAFETY: the interpreter is held; `finish` fills the slots.
        let made = unsafe { object::alloc(class, class.ty) };
        if made.is_null() { Err(Stopped) } else { Ok((message, made)) }
    }

    #[inline]
    fn child(&self, message: &'a MessageCodec, object: *mut ffi::PyObject) -> Self {
        Self::new(self.py, self.codec, message, object)
    }
}

impl<'a, 'py> Sink for ObjectSink<'a, 'py> {
    type Child<'b>
        = ObjectSink<'a, 'py>
    where
        Self: 'b;

    #[inline(always)]
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        let field = self.field(slot);
        let value = self.value(field, value)?;
        self.store(field, value);
        Ok(())
    }

    #[inline]
    fn message(&mut self, slot: u16) -> Result<Self::Child<'_>, Stopped> {
        let field = self.field(slot);
        let held = self.held(field);
        if !held.is_null()
            && let Kind::Message(id) = field.kind
        {
            let message = self.codec.message(id);
            // SAFETY: `held` is a live object.
            if unsafe { ffi::Py_TYPE(held) } == message.class().ty {
                return Ok(self.child(message, held)); // protobuf merges
            }
        }
        let (message, made) = self.make(field)?;
        self.store(field, made);
        Ok(self.child(message, made))
    }

    #[inline]
    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        let field = self.field(slot);
        let list = self.list(field, 0)?;
        append(list, self.value(field, value)?)
    }

    #[inline]
    fn reserve(&mut self, slot: u16, items: usize) -> Result<(), Stopped> {
        self.list(self.field(slot), items).map(drop)
    }

    #[inline]
    fn fixed_items(&mut self, slot: u16, items: FixedItems<'_>) -> Result<(), Stopped> {
        let field = self.field(slot);
        let list = self.list(field, items.len())?;
        items.try_for_each(|item| append(list, self.value(field, item)?))
    }

    #[inline]
    fn message_item(&mut self, slot: u16) -> Result<Self::Child<'_>, Stopped> {
        let field = self.field(slot);
        let list = self.list(field, 0)?;
        let (message, made) = self.make(field)?;
        append(list, made)?;
        Ok(self.child(message, made))
    }

    #[inline]
    fn entry(&mut self, slot: u16, key: Scalar<'_>, value: Scalar<'_>) -> Result<(), Stopped> {
        let field = self.field(slot);
        let value = self.value(field, value)?;
        self.put(field, key, value)
    }

    #[inline]
    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<Self::Child<'_>, Stopped> {
        let field = self.field(slot);
        let (message, made) = self.make(field)?;
        self.put(field, key, made)?;
        Ok(self.child(message, made))
    }

    #[inline]
    fn choose(&mut self, oneof: u16, slot: u16) -> Result<(), Stopped> {
        let oneof = &self.message.oneofs[usize::from(oneof)];
        if !oneof.shared {
            for &other in oneof.members.iter().filter(|&&other| other != slot) {
                let field = self.field(other);
                if !self.held(field).is_null() {
                    self.store(field, std::ptr::null_mut());
                    self.filled = 0; // `finish` has to look
                }
            }
        }
        Ok(()) // where they share an attribute, `message` puts the new one in place of another
    }

    fn count(&self, slot: u16) -> usize {
        let held = self.held(self.field(slot));
        if held.is_null() {
            return 0;
        }
        // SAFETY: a live list or dict.
        usize::try_from(unsafe { ffi::PyObject_Size(held) }).unwrap_or(0)
    }

    #[inline]
    fn finish(&mut self) -> Result<(), Stopped> {
        if self.filled == self.message.attributes() {
            return Ok(());
        }
        self.message.fill_absent(self.py, self.codec, self.object).map_err(|error| {
            error.restore(self.py);
            Stopped
        })
    }
}

impl ObjectSink<'_, '_> {
    /// Sets an entry of the field's dict; takes over `value`, which the dict then holds.
    #[inline]
    fn put(&mut self, field: &FieldCodec, key: Scalar<'_>, value: *mut ffi::PyObject) -> Result<(), Stopped> {
        // SAFETY: the interpreter is held, and these are live objects.
        unsafe {
            // Owned until the end: the dict takes references of its own.
            let value = Bound::from_owned_ptr(self.py, value);
            let dict = self.dict(field)?;
            let key = Bound::from_owned_ptr(self.py, self.value(field, key)?);
            if ffi::PyDict_SetItem(dict, key.as_ptr(), value.as_ptr()) < 0 { Err(Stopped) } else { Ok(()) }
        }
    }
}

/// A str; short and ASCII, mostly, which needs no decoder.
#[inline]
fn new_str(text: &str) -> *mut ffi::PyObject {
    // SAFETY: the interpreter is held. A new str of ASCII has its characters behind its head, one byte each, and nobody
    // has seen it yet. Those of no or one character are the interpreter's own.
    unsafe {
        if text.len() < 2 || !text.is_ascii() {
            return ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize);
        }
        let made = ffi::PyUnicode_New(text.len() as isize, 0x7f);
        if !made.is_null() {
            let characters = made.byte_add(size_of::<ffi::PyASCIIObject>()).cast::<u8>();
            characters.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
        made
    }
}

/// An empty list with room.
#[inline]
fn list_with_capacity(capacity: usize) -> Result<*mut ffi::PyObject, Stopped> {
    // SAFETY: the interpreter is held. A new list of n items that are not set yet becomes an empty one with room for n.
    unsafe {
        let list = ffi::PyList_New(capacity as isize);
        if list.is_null() {
            return Err(Stopped);
        }
        (*list.cast::<ffi::PyVarObject>()).ob_size = 0;
        Ok(list)
    }
}

/// Appends to a list; takes over `value`.
#[inline]
fn append(list: *mut ffi::PyObject, value: *mut ffi::PyObject) -> Result<(), Stopped> {
    // SAFETY: `list` is a live list that no Python code has seen; the item is written before the size says so.
    unsafe {
        let inside = list.cast::<ffi::PyListObject>();
        let size = (*inside).ob_base.ob_size;
        if size < (*inside).allocated {
            *(*inside).ob_item.offset(size) = value;
            (*inside).ob_base.ob_size = size + 1;
            return Ok(());
        }
        let appended = ffi::PyList_Append(list, value);
        ffi::Py_DECREF(value);
        if appended < 0 { Err(Stopped) } else { Ok(()) }
    }
}
