//! What the core keeps of each message class, and the metaclass whose objects have room for it.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use crate::error::SCHEMA_ERROR;
use crate::message::MessageBase;
use crate::message::codec::Codec;
use crate::message::object;

/// A class of the game with its slots. Lives as long as its type; touched with the interpreter held alone.
pub struct Class {
    /// Of its instances; not counted, since it owns this.
    pub ty: *mut ffi::PyTypeObject,
    /// Attributes in the order of the constructor, interned.
    pub names: Vec<Py<PyString>>,
    /// Where in an instance each attribute is, in bytes.
    pub offsets: Vec<usize>,
    /// What the constructor puts where no value is given.
    pub defaults: Vec<Fill>,
    /// Whether the garbage collector walks the instances: they could contain themselves.
    pub collected: bool,
    /// Freed instances, their slots empty.
    pub pool: UnsafeCell<Vec<*mut ffi::PyObject>>,
    codec: UnsafeCell<Option<Box<Codec>>>,
}

/// What goes into a slot for which there is no value.
pub enum Fill {
    /// Nothing: a value is needed.
    Nothing,
    /// This very object, which nobody can change.
    Value(Py<PyAny>),
    /// A new list.
    List,
    /// A new dict.
    Dict,
    /// A copy of this message.
    Copy(Py<PyAny>),
    /// What a body without the field reads as.
    Absent,
}

/// A type whose metaclass is ours.
#[repr(C)]
struct ClassObject {
    heap: ffi::PyHeapTypeObject,
    class: *mut Class,
}

/// The metaclass, once made.
static META: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// The metaclass of the classes that were installed last: the face's own, which derives from [`META`].
static FACE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// Makes `MessageType` and adds it to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let slot = |slot: c_int, function: *mut c_void| ffi::PyType_Slot { slot, pfunc: function };
    let mut slots = [
        slot(ffi::Py_tp_dealloc, meta_dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, meta_traverse as *mut c_void),
        slot(ffi::Py_tp_clear, meta_clear as *mut c_void),
        slot(0, std::ptr::null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"gameserver._core.MessageType".as_ptr(),
        basicsize: size_of::<ClassObject>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC) as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: reads a static type of the interpreter.
    let type_size = unsafe { ffi::PyType_Type.tp_basicsize };
    if type_size as usize != size_of::<ffi::PyHeapTypeObject>() {
        return Err(PyTypeError::new_err("this build of the core is for another version of Python"));
    }
    let bases = PyTuple::new(py, [py.get_type::<PyType>()])?;
    // SAFETY: the spec and its slots are valid during the call, and the functions fit their slots.
    let meta = unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&raw mut spec, bases.as_ptr()))?
    };
    META.store(meta.as_ptr().cast(), Relaxed);
    module.add("MessageType", &meta)?;
    std::mem::forget(meta); // classes and `META` point to it: it stays
    object::adopt(py);
    Ok(())
}

/// Gives a class, fresh from `type.__new__`, its part in the core.
pub fn install(
    cls: &Bound<'_, PyType>,
    defaults: &Bound<'_, PyDict>,
    lenient: bool,
    collected: bool,
) -> PyResult<()> {
    let py = cls.py();
    let place = place(cls)?;
    let ty = cls.as_type_ptr();
    let names: Vec<Bound<'_, PyString>> = cls.getattr("__match_args__")?.extract()?;
    let mut offsets = Vec::with_capacity(names.len());
    let mut fills = Vec::with_capacity(names.len());
    for name in &names {
        offsets.push(offset(cls, name)?);
        fills.push(match defaults.get_item(name)? {
            None if lenient => Fill::Absent,
            None => Fill::Nothing,
            Some(value) if value.is_exact_instance_of::<PyList>() => Fill::List,
            Some(value) if value.is_exact_instance_of::<PyDict>() => Fill::Dict,
            Some(value) if value.is_instance_of::<MessageBase>() => Fill::Copy(value.unbind()),
            Some(value) => Fill::Value(value.unbind()),
        });
    }
    // SAFETY: reads and sets fields of a type without instances, which this thread has just made. `collected` false
    // takes the collector's header from them: allocation and freeing go by the flag, which nothing has read yet.
    unsafe {
        if (*ty).tp_dictoffset != 0 || (*ty).tp_weaklistoffset != 0 {
            return Err(
                SCHEMA_ERROR.err(py, "a base class has no __slots__ = (): instances would carry a dict")
            );
        }
        if !collected {
            (*ty).tp_flags &= !ffi::Py_TPFLAGS_HAVE_GC;
            (*ty).tp_free = Some(ffi::PyObject_Free);
        }
        (*ty).tp_dealloc = Some(object::dealloc);
        if object::has_our_constructor(ty) {
            // A type is called by vectorcall where its metaclass says so; before 3.12, subclasses of `type` do not inherit that.
            let meta = ffi::Py_TYPE(cls.as_ptr());
            (*meta).tp_flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL;
            (*meta).tp_vectorcall_offset = std::mem::offset_of!(ffi::PyTypeObject, tp_vectorcall) as isize;
            (*ty).tp_vectorcall = Some(object::construct);
        }
        ffi::PyType_Modified(ty);
    }
    let class = Class {
        ty,
        names: names.into_iter().map(Bound::unbind).collect(),
        offsets,
        defaults: fills,
        collected,
        pool: UnsafeCell::default(),
        codec: UnsafeCell::new(None),
    };
    // SAFETY: `place` is the field of the type, empty so far; `meta_clear` frees it.
    unsafe {
        *place = Box::into_raw(Box::new(class));
        FACE.store(ffi::Py_TYPE(cls.as_ptr()), Relaxed);
    }
    Ok(())
}

/// The part of a class in the core.
///
/// # Errors
/// TypeError: it is not a message class.
#[inline]
pub fn of<'a>(cls: &'a Bound<'_, PyType>) -> PyResult<&'a Class> {
    // SAFETY: `place` checks that the type has the field; it points to what `install` made, which lives as long as the type.
    match unsafe { (*place(cls)?).as_ref() } {
        Some(class) => Ok(class),
        None => Err(not_a_message(cls)),
    }
}

/// As [`of`], where the type is known to descend from an installed class.
///
/// # Safety
/// `ty` is such a type.
#[inline]
pub unsafe fn of_unchecked<'a>(mut ty: *mut ffi::PyTypeObject) -> &'a Class {
    // SAFETY: as the caller says; a class made around the metaclass's `__new__` has none of its own, its base has.
    unsafe {
        loop {
            if let Some(class) = (*ty.cast::<ClassObject>()).class.as_ref() {
                return class;
            }
            ty = (*ty).tp_base;
        }
    }
}

impl Class {
    /// The type itself.
    pub fn bound<'py>(&self, py: Python<'py>) -> Bound<'py, PyType> {
        // SAFETY: the type owns `self`, so it is alive.
        unsafe { Bound::from_borrowed_ptr(py, self.ty.cast()).cast_into_unchecked() }
    }

    /// How to read and write it; made at first use.
    #[inline]
    pub fn codec(&self, py: Python<'_>) -> PyResult<&Codec> {
        // SAFETY: set once, below, and freed with `self`; the interpreter is held.
        if let Some(codec) = unsafe { (*self.codec.get()).as_deref() } {
            return Ok(codec);
        }
        self.make_codec(py)
    }

    #[cold]
    fn make_codec(&self, py: Python<'_>) -> PyResult<&Codec> {
        let made = Box::new(Codec::new(&self.bound(py))?);
        // SAFETY: no reference into an empty cell exists; one that was filled meanwhile is kept.
        unsafe { Ok((*self.codec.get()).get_or_insert(made)) }
    }

    /// The name, for errors.
    pub fn name(&self, py: Python<'_>) -> String {
        self.bound(py).qualname().map_or_else(|_| "message".into(), |name| name.to_string())
    }

    /// Lets go of what it holds; its instances can still be freed.
    fn forget(&mut self) {
        for fill in &mut self.defaults {
            *fill = Fill::Nothing;
        }
        self.codec.get_mut().take();
    }

    fn visit(&self, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
        let values = self.defaults.iter().filter_map(|fill| match fill {
            Fill::Value(value) | Fill::Copy(value) => Some(value.as_ptr()),
            _ => None,
        });
        // SAFETY: called by the collector, which holds the interpreter; `visit` takes live objects.
        unsafe {
            for value in values {
                let answer = visit(value, arg);
                if answer != 0 {
                    return answer;
                }
            }
            (*self.codec.get()).as_deref().map_or(0, |codec| codec.visit(&mut |value| visit(value, arg)))
        }
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        for &freed in self.pool.get_mut().iter() {
            // SAFETY: memory of an instance without a collector's header, which `dealloc` has emptied.
            unsafe { ffi::PyObject_Free(freed.cast()) };
        }
    }
}

/// Where a type keeps its [`Class`].
#[inline]
fn place(cls: &Bound<'_, PyType>) -> PyResult<*mut *mut Class> {
    let meta = META.load(Relaxed);
    // SAFETY: compares types; only objects of the metaclass have the field.
    unsafe {
        let of = ffi::Py_TYPE(cls.as_ptr());
        if of != FACE.load(Relaxed) && ffi::PyType_IsSubtype(of, meta) == 0 {
            return Err(not_a_message(cls));
        }
        Ok(&raw mut (*cls.as_ptr().cast::<ClassObject>()).class)
    }
}

#[cold]
fn not_a_message(cls: &Bound<'_, PyType>) -> PyErr {
    PyTypeError::new_err(format!("{cls} is not a message class: subclass gameserver.Message"))
}

/// Where the slot of this name is.
fn offset(cls: &Bound<'_, PyType>, name: &Bound<'_, PyString>) -> PyResult<usize> {
    let descriptor = cls.getattr(name)?;
    // SAFETY: reads the offset out of a member descriptor, once its type is known to be that.
    unsafe {
        if ffi::Py_TYPE(descriptor.as_ptr()) != &raw mut ffi::PyMemberDescr_Type {
            return Err(SCHEMA_ERROR.err(cls.py(), format!("{name} hides the field of this name")));
        }
        let member = (*descriptor.as_ptr().cast::<ffi::PyMemberDescrObject>()).d_member;
        Ok((*member).offset as usize)
    }
}

unsafe extern "C" fn meta_traverse(
    cls: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls it with an object of the metaclass.
    unsafe {
        if let Some(class) = (*cls.cast::<ClassObject>()).class.as_ref() {
            let answer = class.visit(visit, arg);
            if answer != 0 {
                return answer;
            }
        }
        ffi::PyType_Type.tp_traverse.map_or(0, |traverse| traverse(cls, visit, arg))
    }
}

unsafe extern "C" fn meta_clear(cls: *mut ffi::PyObject) -> c_int {
    // SAFETY: as above. Instances may still be freed after this: the offsets stay.
    unsafe {
        if let Some(class) = (*cls.cast::<ClassObject>()).class.as_mut() {
            class.forget();
        }
        ffi::PyType_Type.tp_clear.map_or(0, |clear| clear(cls))
    }
}

unsafe extern "C" fn meta_dealloc(cls: *mut ffi::PyObject) {
    // SAFETY: the last reference to the type is gone, so it has no instances. `type`'s own dealloc expects a tracked
    // object, and the collector must not see it while the class is freed.
    unsafe {
        ffi::PyObject_GC_UnTrack(cls.cast());
        let class = std::mem::replace(&mut (*cls.cast::<ClassObject>()).class, std::ptr::null_mut());
        if !class.is_null() {
            drop(Box::from_raw(class));
        }
        ffi::PyObject_GC_Track(cls.cast());
        if let Some(dealloc) = ffi::PyType_Type.tp_dealloc {
            dealloc(cls);
        }
    }
}
