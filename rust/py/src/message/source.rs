//! Values out of the slots of instances, checked, for the wire.

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use schema::plan::{Scalar, ScalarType, Source, Stopped};
use schema::shape::{Kind, Label};

use crate::message::codec::{Codec, FieldCodec, MessageCodec};
use crate::message::object;

/// An instance that is being written. After `Stopped`, an exception is set.
///
/// It holds its object: a value of a foreign type may run code of the game when it is asked for its number.
pub struct ObjectSource<'a, 'py> {
    codec: &'a Codec,
    message: &'a MessageCodec,
    object: Bound<'py, PyAny>,
}

impl<'a, 'py> ObjectSource<'a, 'py> {
    /// Reads `object`, which is an instance of `message`'s class.
    #[inline]
    pub fn new(codec: &'a Codec, message: &'a MessageCodec, object: Bound<'py, PyAny>) -> Self {
        Self { codec, message, object }
    }

    #[inline]
    fn field(&self, slot: u16) -> &'a FieldCodec {
        &self.message.fields[usize::from(slot)]
    }

    /// What is in the field's slot; NULL where nothing or None stands for "not there".
    #[inline(always)]
    fn held(&self, field: &FieldCodec) -> Result<*mut ffi::PyObject, Stopped> {
        // SAFETY: the offset is of the object's class, the interpreter is held.
        unsafe {
            let held = *object::slot(self.object.as_ptr(), field.offset);
            if held == ffi::Py_None() {
                if field.nullable {
                    return Ok(std::ptr::null_mut());
                }
                return Err(self.nothing(field, held));
            }
            Ok(held)
        }
    }

    /// A value as the wire wants it. A str or bytes is borrowed: whoever holds `value` has to go on doing so.
    #[inline(always)]
    fn scalar_of<'v>(
        &self,
        field: &FieldCodec,
        value: *mut ffi::PyObject,
        ty: ScalarType,
    ) -> Result<Scalar<'v>, Stopped> {
        // SAFETY: `value` is a live object and the interpreter is held.
        unsafe {
            match ty {
                ScalarType::F64 => Ok(Scalar::F64(self.float(field, value)?)),
                ScalarType::F32 => {
                    let wide = self.float(field, value)?;
                    let narrow = wide as f32;
                    if narrow.is_infinite() && wide.is_finite() {
                        return Err(self.out_of_range(field, value, "a float of 32 bits"));
                    }
                    Ok(Scalar::F32(narrow))
                }
                ScalarType::I64 => Ok(Scalar::I64(self.signed(field, value)?)),
                ScalarType::U64 => Ok(Scalar::U64(self.unsigned(field, value)?)),
                ScalarType::I32 => {
                    let wide = self.signed(field, value)?;
                    let fits = i32::try_from(wide);
                    fits.map(Scalar::I32).map_err(|_| self.out_of_range(field, value, "32 bits, signed"))
                }
                ScalarType::U32 => {
                    let wide = self.signed(field, value)?;
                    let fits = u32::try_from(wide);
                    fits.map(Scalar::U32).map_err(|_| self.out_of_range(field, value, "32 bits, unsigned"))
                }
                ScalarType::Bool => {
                    if value == ffi::Py_True() {
                        Ok(Scalar::Bool(true))
                    } else if value == ffi::Py_False() {
                        Ok(Scalar::Bool(false))
                    } else {
                        self.foreign_bool(field, value)
                    }
                }
                ScalarType::Str => {
                    if ffi::PyUnicode_Check(value) == 0 {
                        return Err(self.wrong_type(field, value, "a str"));
                    }
                    let mut length = 0;
                    let text = ffi::PyUnicode_AsUTF8AndSize(value, &raw mut length);
                    if text.is_null() {
                        return Err(self.not_unicode(field, value));
                    }
                    // SAFETY: the str keeps its UTF-8 as long as it lives.
                    Ok(Scalar::Str(std::str::from_utf8_unchecked(std::slice::from_raw_parts(
                        text.cast(),
                        length as usize,
                    ))))
                }
                ScalarType::Bytes => {
                    if ffi::PyBytes_Check(value) == 0 {
                        return Err(self.wrong_type(field, value, "bytes"));
                    }
                    let (start, length) = (ffi::PyBytes_AsString(value), ffi::PyBytes_Size(value));
                    // SAFETY: bytes never change.
                    Ok(Scalar::Bytes(std::slice::from_raw_parts(start.cast(), length as usize)))
                }
                ScalarType::Enum(_) => Ok(Scalar::Enum(self.enumeration(field, value)?)),
            }
        }
    }

    #[inline(always)]
    fn float(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Result<f64, Stopped> {
        // SAFETY: a live object, the interpreter is held.
        unsafe {
            if ffi::PyFloat_CheckExact(value) != 0 {
                return Ok(ffi::PyFloat_AS_DOUBLE(value));
            }
            let kept = Bound::from_borrowed_ptr(self.object.py(), value);
            let float = ffi::PyFloat_AsDouble(value);
            if float == -1.0 && !ffi::PyErr_Occurred().is_null() {
                return Err(self.not_a_number(field, kept.as_ptr(), "a number"));
            }
            Ok(float)
        }
    }

    #[inline(always)]
    fn signed(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Result<i64, Stopped> {
        // SAFETY: a live object, the interpreter is held.
        unsafe {
            if ffi::PyLong_Check(value) == 0 {
                return self.index(field, value, Self::signed);
            }
            let mut overflow = 0;
            let number = ffi::PyLong_AsLongLongAndOverflow(value, &raw mut overflow);
            if overflow != 0 {
                return Err(self.out_of_range(field, value, "64 bits, signed"));
            }
            Ok(number)
        }
    }

    #[inline]
    fn unsigned(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Result<u64, Stopped> {
        // SAFETY: a live object, the interpreter is held.
        unsafe {
            if ffi::PyLong_Check(value) == 0 {
                return self.index(field, value, Self::unsigned);
            }
            let number = ffi::PyLong_AsUnsignedLongLong(value);
            if number == u64::MAX && !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_Clear();
                return Err(self.out_of_range(field, value, "64 bits, unsigned"));
            }
            Ok(number)
        }
    }

    /// An integer of another type, NumPy's for example.
    #[cold]
    fn index<T>(
        &self,
        field: &FieldCodec,
        value: *mut ffi::PyObject,
        read: fn(&Self, &FieldCodec, *mut ffi::PyObject) -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        // SAFETY: a live object, the interpreter is held; `kept` holds it while its code runs.
        unsafe {
            let kept = Bound::from_borrowed_ptr(self.object.py(), value);
            match Bound::from_owned_ptr_or_opt(kept.py(), ffi::PyNumber_Index(value)) {
                Some(number) => read(self, field, number.as_ptr()),
                None => Err(self.not_a_number(field, value, "an integer")),
            }
        }
    }

    #[inline]
    fn enumeration(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Result<i32, Stopped> {
        let Kind::Enum(id) = field.kind else { return Err(Stopped) };
        let codec = self.codec.enumeration(id);
        if let Some(number) = codec.number(value) {
            return Ok(number);
        }
        // SAFETY: a live object, the interpreter is held.
        if unsafe { ffi::PyLong_Check(value) } == 0 {
            return Err(self.wrong_type(field, value, &codec.name));
        }
        match i32::try_from(self.signed(field, value)?) {
            Ok(number) if codec.open || codec.member(number).is_some() => Ok(number),
            _ => Err(self.out_of_range(field, value, &codec.name)),
        }
    }

    /// 0 and 1, and NumPy's bool.
    #[cold]
    fn foreign_bool(
        &self,
        field: &FieldCodec,
        value: *mut ffi::PyObject,
    ) -> Result<Scalar<'static>, Stopped> {
        // SAFETY: a live object, the interpreter is held.
        let value = unsafe { Bound::from_borrowed_ptr(self.object.py(), value) };
        let name = value.get_type().fully_qualified_name().map(|name| name.to_string()).unwrap_or_default();
        if matches!(name.as_str(), "numpy.bool" | "numpy.bool_") {
            return value.is_truthy().map(Scalar::Bool).map_err(|error| self.stop(error));
        }
        match value.extract::<u8>() {
            Ok(number @ 0..=1) => Ok(Scalar::Bool(number == 1)),
            _ => Err(self.wrong_type(field, value.as_ptr(), "a bool")),
        }
    }

    /// A nested message; of a shared attribute, whether the one that is there is this member.
    #[inline]
    fn child_of(
        &self,
        field: &FieldCodec,
        value: *mut ffi::PyObject,
    ) -> Result<Option<ObjectSource<'a, 'py>>, Stopped> {
        let Kind::Message(id) = field.kind else { return Err(Stopped) };
        let message = self.codec.message(id);
        // SAFETY: a live object, the interpreter is held.
        unsafe {
            let ty = ffi::Py_TYPE(value);
            if ty != message.class().ty && ffi::PyType_IsSubtype(ty, message.class().ty) == 0 {
                if let Some(oneof) = field.oneof.map(|oneof| &self.message.oneofs[usize::from(oneof)])
                    && oneof.shared
                    && self.is_another_member(&oneof.members, ty)
                {
                    return Ok(None);
                }
                return Err(self.wrong_type(field, value, &self.names_of_messages(field)));
            }
            Ok(Some(Self::new(self.codec, message, Bound::from_borrowed_ptr(self.object.py(), value))))
        }
    }

    fn is_another_member(&self, members: &[u16], ty: *mut ffi::PyTypeObject) -> bool {
        members.iter().any(|&slot| match self.field(slot).kind {
            // SAFETY: live types.
            Kind::Message(id) => unsafe { ffi::PyType_IsSubtype(ty, self.codec.message(id).class().ty) != 0 },
            _ => false,
        })
    }

    /// Two members of a oneof have values.
    #[inline(always)]
    fn check_alone(&self, slot: u16, field: &FieldCodec) -> Result<(), Stopped> {
        let Some(oneof) = field.oneof.map(|oneof| &self.message.oneofs[usize::from(oneof)]) else {
            return Ok(());
        };
        if oneof.shared {
            return Ok(());
        }
        for &other in oneof.members.iter().filter(|&&other| other != slot) {
            if !self.held(self.field(other))?.is_null() {
                let text = format!(
                    "{} is set too: of a oneof only one can be, set the other to None",
                    self.field(other).name
                );
                return Err(self.refuse::<PyValueError>(field, &text));
            }
        }
        Ok(())
    }

    /// The items of a list or tuple, each held while it is used.
    #[inline]
    fn each_item(
        &self,
        field: &FieldCodec,
        mut each: impl FnMut(&Bound<'py, PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let list = self.held(field)?;
        if list.is_null() {
            return Ok(());
        }
        // SAFETY: a live object, the interpreter is held; the length is asked anew each time, and `list` is held.
        unsafe {
            let list = Bound::from_borrowed_ptr(self.object.py(), list);
            let pointer = list.as_ptr();
            if ffi::PyList_Check(pointer) != 0 {
                let mut index = 0;
                while index < ffi::PyList_GET_SIZE(pointer) {
                    each(&Bound::from_borrowed_ptr(list.py(), ffi::PyList_GET_ITEM(pointer, index)))?;
                    index += 1;
                }
            } else if ffi::PyTuple_Check(pointer) != 0 {
                for index in 0..ffi::PyTuple_GET_SIZE(pointer) {
                    each(&Bound::from_borrowed_ptr(list.py(), ffi::PyTuple_GET_ITEM(pointer, index)))?;
                }
            } else {
                return Err(self.wrong_type(field, pointer, "a list"));
            }
        }
        Ok(())
    }

    /// The entries of a dict, each held while it is used.
    #[inline]
    fn each_entry(
        &self,
        field: &FieldCodec,
        mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let dict = self.held(field)?;
        if dict.is_null() {
            return Ok(());
        }
        // SAFETY: a live object, the interpreter is held. The dict is left at once when its size has changed.
        unsafe {
            let dict = Bound::from_borrowed_ptr(self.object.py(), dict);
            if ffi::PyDict_Check(dict.as_ptr()) == 0 {
                return Err(self.wrong_type(field, dict.as_ptr(), "a dict"));
            }
            let size = ffi::PyDict_Size(dict.as_ptr());
            let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(dict.as_ptr(), &raw mut at, &raw mut key, &raw mut value) != 0 {
                let key = Bound::from_borrowed_ptr(dict.py(), key);
                let value = Bound::from_borrowed_ptr(dict.py(), value);
                each(&key, &value)?;
                if ffi::PyDict_Size(dict.as_ptr()) != size {
                    return Err(
                        self.refuse::<PyRuntimeError>(field, "the dict was changed while it was encoded")
                    );
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn stop(&self, error: PyErr) -> Stopped {
        error.restore(self.object.py());
        Stopped
    }

    #[cold]
    fn refuse<E: pyo3::type_object::PyTypeInfo>(&self, field: &FieldCodec, text: &str) -> Stopped {
        let py = self.object.py();
        let name = self.message.class().name(py);
        self.stop(PyErr::new::<E, _>(format!("{name}.{}: {text}", field.attribute.bind(py))))
    }

    #[cold]
    fn wrong_type(&self, field: &FieldCodec, value: *mut ffi::PyObject, expected: &str) -> Stopped {
        let text = format!("expected {expected}, not {}", self.shown(value));
        self.refuse::<PyTypeError>(field, &text)
    }

    /// None where the field has to have a value.
    #[cold]
    fn nothing(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Stopped {
        let expected = match (field.label, field.kind.scalar_type()) {
            (Label::Repeated { .. }, _) => "a list".to_owned(),
            (Label::Map { .. }, _) => "a dict".to_owned(),
            (_, Some(ty)) => self.name_of(ty),
            (_, None) => self.names_of_messages(field),
        };
        self.wrong_type(field, value, &expected)
    }

    #[cold]
    fn out_of_range(&self, field: &FieldCodec, value: *mut ffi::PyObject, room: &str) -> Stopped {
        let text = format!("{} does not fit {room}", self.shown(value));
        self.refuse::<PyValueError>(field, &text)
    }

    /// An exception of `__float__` or `__index__` is set: TypeError means that there is none.
    #[cold]
    fn not_a_number(&self, field: &FieldCodec, value: *mut ffi::PyObject, expected: &str) -> Stopped {
        let py = self.object.py();
        let error = PyErr::fetch(py);
        if error.is_instance_of::<PyTypeError>(py) {
            return self.wrong_type(field, value, expected);
        }
        if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(py) {
            return self.out_of_range(field, value, "a float");
        }
        self.stop(error)
    }

    #[cold]
    fn not_unicode(&self, field: &FieldCodec, value: *mut ffi::PyObject) -> Stopped {
        drop(PyErr::take(self.object.py()));
        let text = format!("{} is not valid Unicode (a lone surrogate)", self.shown(value));
        self.refuse::<PyValueError>(field, &text)
    }

    fn name_of(&self, ty: ScalarType) -> String {
        match ty {
            ScalarType::F64 | ScalarType::F32 => "a number",
            ScalarType::Bool => "a bool",
            ScalarType::Str => "a str",
            ScalarType::Bytes => "bytes",
            ScalarType::Enum(id) => &self.codec.enumeration(id).name,
            _ => "an integer",
        }
        .to_owned()
    }

    /// The class of the field, or all classes that its attribute may hold.
    fn names_of_messages(&self, field: &FieldCodec) -> String {
        let oneof = field.oneof.map(|oneof| &self.message.oneofs[usize::from(oneof)]);
        let shared = oneof.filter(|oneof| oneof.shared).into_iter();
        let members: Vec<&FieldCodec> =
            shared.flat_map(|oneof| &oneof.members).map(|&slot| self.field(slot)).collect();
        let fields = if members.is_empty() { vec![field] } else { members };
        let names = fields.into_iter().filter_map(|field| match field.kind {
            Kind::Message(id) => Some(self.codec.message(id).class().name(self.object.py())),
            _ => None,
        });
        names.collect::<Vec<_>>().join(" or ")
    }

    /// A value and its type, short.
    fn shown(&self, value: *mut ffi::PyObject) -> String {
        // SAFETY: a live object, the interpreter is held.
        let value = unsafe { Bound::from_borrowed_ptr(self.object.py(), value) };
        let mut text = value.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string());
        if let Some((end, _)) = text.char_indices().nth(60) {
            text.truncate(end);
            text.push_str("...");
        }
        let ty = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        format!("{text} ({ty})")
    }
}

impl<'a, 'py> Source for ObjectSource<'a, 'py> {
    type Child = ObjectSource<'a, 'py>;

    #[inline(always)]
    fn scalar(&self, slot: u16, ty: ScalarType) -> Result<Option<Scalar<'_>>, Stopped> {
        let field = self.field(slot);
        let held = self.held(field)?;
        if held.is_null() {
            return Ok(None);
        }
        self.check_alone(slot, field)?;
        self.scalar_of(field, held, ty).map(Some)
    }

    #[inline]
    fn message(&self, slot: u16) -> Result<Option<Self::Child>, Stopped> {
        let field = self.field(slot);
        let held = self.held(field)?;
        if held.is_null() {
            return Ok(None);
        }
        self.check_alone(slot, field)?;
        self.child_of(field, held)
    }

    #[inline]
    fn items(
        &self,
        slot: u16,
        ty: ScalarType,
        mut each: impl FnMut(Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let field = self.field(slot);
        self.each_item(field, |item| each(self.scalar_of(field, item.as_ptr(), ty)?))
    }

    #[inline]
    fn messages(
        &self,
        slot: u16,
        mut each: impl FnMut(Self::Child) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let field = self.field(slot);
        self.each_item(field, |item| match self.child_of(field, item.as_ptr())? {
            Some(child) => each(child),
            None => Ok(()),
        })
    }

    #[inline]
    fn entries(
        &self,
        slot: u16,
        key: ScalarType,
        value: ScalarType,
        mut each: impl FnMut(Scalar<'_>, Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let field = self.field(slot);
        self.each_entry(field, |name, item| {
            // The value first: its code may run. The key's borrowed text comes after that.
            let item = self.scalar_of(field, item.as_ptr(), value)?;
            each(self.scalar_of(field, name.as_ptr(), key)?, item)
        })
    }

    #[inline]
    fn message_entries(
        &self,
        slot: u16,
        key: ScalarType,
        mut each: impl FnMut(Scalar<'_>, Self::Child) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let field = self.field(slot);
        self.each_entry(field, |name, item| match self.child_of(field, item.as_ptr())? {
            Some(child) => each(self.scalar_of(field, name.as_ptr(), key)?, child),
            None => Ok(()),
        })
    }
}
