//! An instance's life: made, filled, emptied, freed.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyRecursionError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::message::class::{self, Class, Fill};
use crate::message::{MessageBase, codec};

/// Freed instances that a class keeps: the entities of one snapshot and its echo.
const POOL_MAX: usize = 256;
/// Instances that are freed from within each other before the rest waits: game code can hang any object into a slot.
const DEPTH_MAX: u32 = 64;

/// Lists count too.
const COPY_DEPTH_MAX: u32 = 200;

/// `__init__` of [`MessageBase`]: a class with another one is constructed in Python's slow way.
static OUR_INIT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static WAITING: RefCell<Vec<*mut ffi::PyObject>> = const { RefCell::new(Vec::new()) };
}

/// Makes `__new__` of the base put defaults into the slots, and hides the base from the collector: it has no fields, and
/// only so can its subclasses be hidden.
pub fn adopt(py: Python<'_>) {
    let ty = py.get_type::<MessageBase>().as_type_ptr();
    // SAFETY: the type is ours and has no subclass yet.
    unsafe {
        (*ty).tp_flags &= !ffi::Py_TPFLAGS_HAVE_GC;
        (*ty).tp_free = Some(ffi::PyObject_Free);
        (*ty).tp_traverse = None;
        (*ty).tp_clear = None;
        (*ty).tp_new = Some(new);
        OUR_INIT.store((*ty).tp_init.map_or(0, |init| init as *const () as usize), Relaxed);
    }
}

/// Whether neither `__new__` nor `__init__` is the game's own.
///
/// # Safety
/// `ty` is a live type.
pub unsafe fn has_our_constructor(ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        (*ty).tp_new.is_some_and(|function| function as *const () == new as *const ())
            && (*ty).tp_init.is_some_and(|init| init as *const () as usize == OUR_INIT.load(Relaxed))
    }
}

/// A new instance with empty slots, or NULL with an exception set.
///
/// # Safety
/// The interpreter is held. Whoever takes it fills each slot, or lets nobody but `dealloc` see it.
#[inline]
pub unsafe fn alloc(class: &Class, ty: *mut ffi::PyTypeObject) -> *mut ffi::PyObject {
    // SAFETY: what is in the pool has this type's size, and its slots are empty; no reference into the pool is kept.
    unsafe {
        if ty == class.ty
            && let Some(freed) = (*class.pool.get()).pop()
        {
            return ffi::PyObject_Init(freed, ty);
        }
        ffi::PyType_GenericAlloc(ty, 0)
    }
}

/// Whether nobody else has a reference to it: what it is made of may be changed as if it were new.
#[inline(always)] // once per message
pub fn is_ours_alone(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object, of which the caller has a reference.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// The slot at this offset.
///
/// # Safety
/// `object` is an instance, and the offset is of its class.
#[inline]
pub unsafe fn slot(object: *mut ffi::PyObject, offset: usize) -> *mut *mut ffi::PyObject {
    // SAFETY: as the caller says.
    unsafe { object.byte_add(offset).cast() }
}

/// Puts a value into a slot and takes over its reference.
///
/// # Safety
/// As of [`slot`]; the interpreter is held.
#[inline]
pub unsafe fn store(object: *mut ffi::PyObject, offset: usize, value: *mut ffi::PyObject) {
    // SAFETY: the old value is released last, since that can run code.
    unsafe {
        let old = ptr::replace(slot(object, offset), value);
        ffi::Py_XDECREF(old);
    }
}

/// `tp_vectorcall`: `Move(1, dx=2.0)`.
pub unsafe extern "C" fn construct(
    ty: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this with a type that `install` has marked, and arguments as vectorcall has them:
    // the positional ones, then one for each name in the tuple.
    unsafe {
        let ty = ty.cast::<ffi::PyTypeObject>();
        let class = class::of_unchecked(ty);
        let object = alloc(class, ty);
        if object.is_null() {
            return object;
        }
        let count = ffi::PyVectorcall_NARGS(count) as usize;
        if fill(class, object, arguments, count, names).is_none() {
            ffi::Py_DECREF(object);
            return ptr::null_mut();
        }
        object
    }
}

/// Fills empty slots from arguments and defaults. `None`: an exception is set.
///
/// # Safety
/// As of [`construct`].
#[inline]
unsafe fn fill(
    class: &Class,
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<()> {
    // SAFETY: as the caller says; `count` is checked against the offsets before it is used.
    unsafe {
        if count > class.offsets.len() {
            return refuse(class, |name| {
                let most = class.offsets.len();
                format!("{name}() takes at most {most} positional arguments ({count} given)")
            });
        }
        for (index, &offset) in class.offsets[..count].iter().enumerate() {
            let value = *arguments.add(index);
            ffi::Py_INCREF(value);
            *slot(object, offset) = value;
        }
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) as usize };
        for index in 0..named {
            let name = ffi::PyTuple_GET_ITEM(names, index as isize);
            let at = find(class, name, count + index)?;
            let place = slot(object, class.offsets[at]);
            if !(*place).is_null() {
                return refuse(class, |class| {
                    format!("{class}() got multiple values for argument '{}'", text(name))
                });
            }
            let value = *arguments.add(count + index);
            ffi::Py_INCREF(value);
            *place = value;
        }
        if count + named < class.offsets.len() { fill_defaults(class, object, count, true) } else { Some(()) }
    }
}

/// Which attribute has this name; often the one that comes next.
///
/// # Safety
/// `name` is a str; the interpreter is held.
#[inline]
unsafe fn find(class: &Class, name: *mut ffi::PyObject, next: usize) -> Option<usize> {
    if class.names.get(next).is_some_and(|own| own.as_ptr() == name) {
        return Some(next);
    }
    if let Some(index) = class.names.iter().position(|own| own.as_ptr() == name) {
        return Some(index);
    }
    // SAFETY: as the caller says.
    unsafe {
        let equal = |own: &Py<PyString>| ffi::PyUnicode_Compare(own.as_ptr(), name) == 0;
        if let Some(index) = class.names.iter().position(equal) {
            return Some(index);
        }
        refuse(class, |class| format!("{class}() got an unexpected keyword argument '{}'", text(name)))
    }
}

/// Puts defaults where nothing is, from the attribute `from` on. Where there is none, `needed` refuses.
///
/// # Safety
/// `object` is an instance; the interpreter is held.
unsafe fn fill_defaults(class: &Class, object: *mut ffi::PyObject, from: usize, needed: bool) -> Option<()> {
    // SAFETY: as the caller says: the interpreter is held, and offsets are the class's own.
    unsafe {
        let py = Python::assume_attached();
        for (index, fill) in class.defaults.iter().enumerate().skip(from) {
            let place = slot(object, class.offsets[index]);
            if !(*place).is_null() {
                continue;
            }
            let value = match fill {
                Fill::Value(value) => value.clone_ref(py).into_ptr(),
                Fill::List => ffi::PyList_New(0),
                Fill::Dict => ffi::PyDict_New(),
                Fill::Copy(message) => given(py, deep_copy(message.bind(py)))?,
                Fill::Absent => given(py, codec::absent(py, class, index))?,
                Fill::Nothing if needed => {
                    let missing = missing(class, object);
                    return refuse(class, |name| format!("{name}() needs {missing}"));
                }
                Fill::Nothing => continue,
            };
            if value.is_null() {
                return None;
            }
            *place = value;
        }
        Some(())
    }
}

/// The names of the attributes that have neither a value nor a default.
///
/// # Safety
/// `object` is an instance of the class.
#[cold]
unsafe fn missing(class: &Class, object: *mut ffi::PyObject) -> String {
    // SAFETY: offsets are the class's own; the interpreter is held by the caller's caller.
    unsafe {
        let is_missing = |index: &usize| {
            matches!(class.defaults[*index], Fill::Nothing)
                && (*slot(object, class.offsets[*index])).is_null()
        };
        let names: Vec<String> = (0..class.names.len())
            .filter(is_missing)
            .map(|index| format!("'{}'", text(class.names[index].as_ptr())))
            .collect();
        names.join(", ")
    }
}

/// `tp_new`: an instance with its defaults, whatever the arguments are: those are `__init__`'s.
unsafe extern "C" fn new(
    ty: *mut ffi::PyTypeObject,
    _: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter with a subclass of `MessageBase`, or with that itself, which has no class.
    unsafe {
        let py = Python::assume_attached();
        let cls = Bound::from_borrowed_ptr(py, ty.cast()).cast_into_unchecked();
        let class = match class::of(&cls) {
            Ok(class) => class,
            Err(error) => {
                error.restore(py);
                return ptr::null_mut();
            }
        };
        let object = alloc(class, ty);
        if !object.is_null() && fill_defaults(class, object, 0, false).is_none() {
            ffi::Py_DECREF(object);
            return ptr::null_mut();
        }
        object
    }
}

/// `__init__`, for classes whose own calls it: sets all attributes anew.
pub fn init(
    object: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
    named: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let py = object.py();
    let ty = object.get_type();
    let class = class::of(&ty)?;
    let mut values: Vec<Bound<'_, PyAny>> = arguments.iter().collect();
    let mut names = Vec::new();
    for (name, value) in named.into_iter().flatten() {
        names.push(name);
        values.push(value);
    }
    let names = PyTuple::new(py, names)?;
    let pointers: Vec<*mut ffi::PyObject> = values.iter().map(Bound::as_ptr).collect();
    // SAFETY: an instance of the class, and arguments as `fill` wants them; `values` and `names` hold what they point to.
    let filled = unsafe {
        empty(class, object.as_ptr());
        fill(class, object.as_ptr(), pointers.as_ptr(), arguments.len(), names.as_ptr())
    };
    filled.ok_or_else(|| PyErr::fetch(py))
}

/// A copy that shares the values.
pub fn copy<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let ty = object.get_type();
    let class = class::of(&ty)?;
    // SAFETY: both are instances of this class, and the new one's slots are empty.
    unsafe {
        let new = Bound::from_owned_ptr_or_err(object.py(), alloc(class, ty.as_type_ptr()))?;
        for &offset in &class.offsets {
            let value = *slot(object.as_ptr(), offset);
            ffi::Py_XINCREF(value);
            *slot(new.as_ptr(), offset) = value;
        }
        Ok(new)
    }
}

/// A copy whose messages, lists and dicts are copies too.
pub fn deep_copy<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    deep_copy_within(object, 0)
}

fn deep_copy_within<'py>(value: &Bound<'py, PyAny>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
    if depth > COPY_DEPTH_MAX {
        return Err(PyRecursionError::new_err("a message is too deep to copy: does it contain itself?"));
    }
    if value.is_instance_of::<MessageBase>() {
        let new = copy(value)?;
        for &offset in &class::of(&new.get_type())?.offsets {
            // SAFETY: `new` is of this class; the value is held while it is copied.
            unsafe {
                let Some(old) = Bound::from_borrowed_ptr_or_opt(value.py(), *slot(new.as_ptr(), offset))
                else {
                    continue;
                };
                store(new.as_ptr(), offset, deep_copy_within(&old, depth + 1)?.into_ptr());
            }
        }
        return Ok(new);
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        let new = PyList::empty(value.py());
        for item in list {
            new.append(deep_copy_within(&item, depth + 1)?)?;
        }
        return Ok(new.into_any());
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        let new = PyDict::new(value.py());
        for (key, item) in dict {
            new.set_item(key, deep_copy_within(&item, depth + 1)?)?;
        }
        return Ok(new.into_any());
    }
    Ok(value.clone())
}

/// An instance with these values, made around its constructor.
pub fn restore<'py>(
    cls: &Bound<'py, pyo3::types::PyType>,
    values: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let class = class::of(cls)?;
    if values.len() != class.offsets.len() {
        return Err(PyTypeError::new_err(format!(
            "{} values for {}, which has {} fields: was it pickled by another version of the class?",
            values.len(),
            class.name(cls.py()),
            class.offsets.len()
        )));
    }
    // SAFETY: the slots of a new instance are empty.
    unsafe {
        let new = Bound::from_owned_ptr_or_err(cls.py(), alloc(class, cls.as_type_ptr()))?;
        for (value, &offset) in values.iter().zip(&class.offsets) {
            *slot(new.as_ptr(), offset) = value.into_ptr();
        }
        Ok(new)
    }
}

/// Each attribute's name and value, in order; `None` where the slot is empty.
pub fn attributes<'a, 'py>(
    class: &'a Class,
    object: &'a Bound<'py, PyAny>,
) -> impl Iterator<Item = (&'a Bound<'py, PyString>, Option<Bound<'py, PyAny>>)> {
    class.names.iter().zip(&class.offsets).map(|(name, &offset)| {
        // SAFETY: the callers have found the class by the object's type.
        let value = unsafe { Bound::from_borrowed_ptr_or_opt(object.py(), *slot(object.as_ptr(), offset)) };
        (name.bind(object.py()), value)
    })
}

/// `tp_dealloc` of every message class.
pub unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this when the last reference is gone.
    unsafe { free(object) }
}

/// Frees a message that was another one's value. Lists, dicts and what else can be deep in each other bound themselves.
#[inline(never)]
fn free_within(object: *mut ffi::PyObject) {
    let depth = DEPTH.get();
    if depth >= DEPTH_MAX && WAITING.try_with(|waiting| waiting.borrow_mut().push(object)).is_ok() {
        // SAFETY: a live object, which the collector should not find meanwhile; one that it does not know has no flag.
        unsafe {
            if (*ffi::Py_TYPE(object)).tp_flags & ffi::Py_TPFLAGS_HAVE_GC != 0 {
                ffi::PyObject_GC_UnTrack(object.cast());
            }
        }
        return;
    }
    DEPTH.set(depth + 1);
    // SAFETY: the caller had the last reference; the interpreter is held.
    unsafe { free(object) };
    DEPTH.set(depth);
    if depth == 0 {
        let next = || WAITING.try_with(|waiting| waiting.borrow_mut().pop()).ok().flatten();
        while let Some(object) = next() {
            free_within(object);
        }
    }
}

/// Releases the values, then the memory.
///
/// # Safety
/// Nobody else has the object; the interpreter is held.
#[inline]
unsafe fn free(object: *mut ffi::PyObject) {
    // SAFETY: the object holds its type until the last line, and the type its class.
    unsafe {
        let ty = ffi::Py_TYPE(object);
        if (*ty).tp_flags & ffi::Py_TPFLAGS_HAVE_GC != 0 {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        let class = class::of_unchecked(ty);
        empty(class, object);
        if ty == class.ty && !class.collected && (*class.pool.get()).len() < POOL_MAX {
            (*class.pool.get()).push(object);
        } else if let Some(free) = (*ty).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(ty.cast());
    }
}

/// Empties all slots.
///
/// # Safety
/// `object` is an instance of the class; the interpreter is held.
#[inline]
unsafe fn empty(class: &Class, object: *mut ffi::PyObject) {
    for &offset in &class.offsets {
        // SAFETY: as the caller says. The slot is empty before anything is released: that can run code.
        unsafe {
            let value = ptr::replace(slot(object, offset), ptr::null_mut());
            if value.is_null() {
                continue;
            }
            if ffi::Py_REFCNT(value) == 1 && is_ours(ffi::Py_TYPE(value)) {
                free_within(value);
            } else {
                ffi::Py_DECREF(value);
            }
        }
    }
}

/// Whether instances of this type are freed here.
///
/// # Safety
/// `ty` is a live type.
#[inline]
unsafe fn is_ours(ty: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: as the caller says.
    unsafe { (*ty).tp_dealloc.is_some_and(|function| function as *const () == dealloc as *const ()) }
}

/// The pointer, or `None` with the exception set.
fn given(py: Python<'_>, made: PyResult<Bound<'_, PyAny>>) -> Option<*mut ffi::PyObject> {
    made.map(Bound::into_ptr).map_err(|error| error.restore(py)).ok()
}

#[cold]
fn refuse<T>(class: &Class, text: impl FnOnce(&str) -> String) -> Option<T> {
    // SAFETY: only called from functions that hold the interpreter.
    let py = unsafe { Python::assume_attached() };
    PyTypeError::new_err(text(&class.name(py))).restore(py);
    None
}

/// A str, for errors.
///
/// # Safety
/// It is a live str; the interpreter is held.
unsafe fn text(name: *mut ffi::PyObject) -> String {
    // SAFETY: as the caller says.
    unsafe { Bound::from_borrowed_ptr(Python::assume_attached(), name) }.to_string()
}
