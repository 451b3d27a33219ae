//! An instance that its handler has not kept becomes the next message: what is in its slots is replaced, numbers in place.

use pyo3::ffi;
use pyo3::prelude::*;
use schema::discard::Discard;
use schema::plan::{Scalar, Sink, Stopped};

use crate::message::codec::{Codec, MessageCodec};
use crate::message::object;
use crate::message::sink::ObjectSink;

/// Fills an instance that nobody else has, of a class with [`MessageCodec::can_be_again`]. After `Stopped`, an exception is set.
pub struct AgainSink<'a, 'py> {
    /// What is filled, and who makes the values that are not there.
    fresh: ObjectSink<'a, 'py>,
    /// By slot: whether a value came.
    came: u64,
}

impl<'a, 'py> AgainSink<'a, 'py> {
    /// Fills `object`, which is an exact instance of `message`'s class and outlives this.
    #[inline]
    pub fn new(
        py: Python<'py>,
        codec: &'a Codec,
        message: &'a MessageCodec,
        object: *mut ffi::PyObject,
    ) -> Self {
        Self { fresh: ObjectSink::new(py, codec, message, object), came: 0 }
    }
}

impl Sink for AgainSink<'_, '_> {
    type Child<'b>
        = Discard
    where
        Self: 'b;

    #[inline(always)]
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        self.came |= 1 << slot;
        let field = &self.fresh.message.fields[usize::from(slot)];
        // SAFETY: the offset is of the object's class, and what is in a slot is alive.
        let held = unsafe { *object::slot(self.fresh.object, field.offset) };
        if let Scalar::F64(number) = value
            && is_free_float(held)
        {
            return set_float(held, number);
        }
        if let Scalar::F32(number) = value
            && is_free_float(held)
        {
            return set_float(held, number.into());
        }
        if let Scalar::Str(text) = value
            && is_text(held, text)
        {
            return Ok(()); // a name, a command: it is often the one before
        }
        let value = self.fresh.value(field, value)?;
        // SAFETY: as above, and the reference is ours to give.
        unsafe { object::store(self.fresh.object, field.offset, value) };
        Ok(())
    }

    // Such classes have none of these.

    fn message(&mut self, slot: u16) -> Result<Discard, Stopped> {
        Discard::new().message(slot)
    }

    fn item(&mut self, _: u16, _: Scalar<'_>) -> Result<(), Stopped> {
        Ok(())
    }

    fn message_item(&mut self, slot: u16) -> Result<Discard, Stopped> {
        Discard::new().message_item(slot)
    }

    fn entry(&mut self, _: u16, _: Scalar<'_>, _: Scalar<'_>) -> Result<(), Stopped> {
        Ok(())
    }

    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<Discard, Stopped> {
        Discard::new().message_entry(slot, key)
    }

    fn choose(&mut self, _: u16, _: u16) -> Result<(), Stopped> {
        Ok(())
    }

    fn count(&self, _: u16) -> usize {
        0
    }

    #[inline]
    fn finish(&mut self) -> Result<(), Stopped> {
        let fields = self.fresh.message.fields.len();
        let all = u64::MAX.checked_shr(u64::BITS - fields as u32).unwrap_or(0);
        if self.came == all {
            return Ok(());
        }
        for slot in 0..fields {
            if self.came & 1 << slot == 0 {
                let filled =
                    self.fresh.message.make_absent(self.fresh.py, self.fresh.codec, slot, self.fresh.object);
                filled.map_err(|error| {
                    error.restore(self.fresh.py);
                    Stopped
                })?;
            }
        }
        Ok(())
    }
}

/// Whether it is a float of which the slot has the only reference.
#[inline(always)]
fn is_free_float(held: *mut ffi::PyObject) -> bool {
    // SAFETY: NULL, or a live object; the interpreter is held.
    unsafe { !held.is_null() && ffi::Py_REFCNT(held) == 1 && ffi::PyFloat_CheckExact(held) != 0 }
}

/// Whether it is a str of this text, and nothing else.
#[inline(always)]
fn is_text(held: *mut ffi::PyObject, text: &str) -> bool {
    // SAFETY: NULL, or a live object, which keeps its UTF-8; the interpreter is held. A str of as many characters as the
    // text has bytes is ASCII if it is equal: so nothing is encoded but what differs.
    unsafe {
        if held.is_null()
            || ffi::PyUnicode_CheckExact(held) == 0
            || ffi::PyUnicode_GET_LENGTH(held) as usize != text.len()
        {
            return false;
        }
        let mut bytes = 0;
        let start = ffi::PyUnicode_AsUTF8AndSize(held, &raw mut bytes);
        if start.is_null() {
            ffi::PyErr_Clear(); // a lone surrogate
            return false;
        }
        std::slice::from_raw_parts(start.cast::<u8>(), bytes as usize) == text.as_bytes()
    }
}

#[inline(always)]
fn set_float(held: *mut ffi::PyObject, number: f64) -> Result<(), Stopped> {
    // SAFETY: a float that nobody else can see, so it is as good as a new one.
    unsafe { (*held.cast::<ffi::PyFloatObject>()).ob_fval = number };
    Ok(())
}
