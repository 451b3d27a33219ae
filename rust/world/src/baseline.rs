//! What clients were last sent of a column: changes are found against it, and deltas built on it.

use std::ops::Range;

use crate::memory::Memory;
use crate::shape::{ColumnShape, Kind, Number};
use crate::value::{QUANTA_MAX, QUANTA_MAX_NARROW, round};
use crate::varint;

/// The copy last sent of one column, and between diff and settling what is to be sent.
#[derive(Debug)]
pub(crate) struct Baseline {
    /// A diff of all rows was made that is not settled: `new` is what is current, else `old`.
    is_fresh: bool,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Steps of quantised `f32`: `width` of them a row.
    Narrow { steps: Steps, width: usize, old: Vec<i32>, new: Vec<i32> },
    /// Of quantised `f64`.
    Wide { steps: Steps, width: usize, old: Vec<i64>, new: Vec<i64> },
    /// Live entities of a table, or 0.
    Reference { target: usize, old: Vec<u64>, new: Vec<u64> },
    /// The bytes as they are in memory; those are what is new.
    Raw { raw: Raw, bytes: usize, old: Vec<u8> },
}

#[derive(Clone, Copy, Debug)]
struct Steps {
    per_unit: f64,
    step: f64,
}

#[derive(Debug)]
enum Raw {
    Int(Number),
    Float(Number),
    Bool,
    Enum(Vec<i32>),
    Str,
    Bytes,
    List(Number, u16),
}

/// Rows that are compared at once, before they are looked at one by one.
const ROWS_AT_ONCE: usize = 64;

impl Baseline {
    pub fn new(column: &ColumnShape, target_of: impl Fn(&str) -> usize) -> Self {
        let raw = |raw| Store::Raw { raw, bytes: column.kind.row_bytes(), old: Vec::new() };
        let steps = column.quantize.map(|step| Steps { per_unit: 1.0 / step, step });
        let store = match (&column.kind, steps) {
            (Kind::Number(Number::F64), Some(steps)) => wide(steps, 1),
            (Kind::Number(_), Some(steps)) => narrow(steps, 1),
            (Kind::Vector(Number::F64, width), Some(steps)) => wide(steps, (*width).into()),
            (Kind::Vector(_, width), Some(steps)) => narrow(steps, (*width).into()),
            (Kind::Number(number @ (Number::F32 | Number::F64)) | Kind::Vector(number, _), _) => {
                raw(Raw::Float(*number))
            }
            (Kind::Number(number), _) => raw(Raw::Int(*number)),
            (Kind::Bool, _) => raw(Raw::Bool),
            (Kind::Enum(values), _) => raw(Raw::Enum(values.clone())),
            (Kind::Str(_), _) => raw(Raw::Str),
            (Kind::Bytes(_), _) => raw(Raw::Bytes),
            (Kind::List(number, len_max), _) => raw(Raw::List(*number, *len_max)),
            (Kind::Reference(table), _) => {
                Store::Reference { target: target_of(table), old: Vec::new(), new: Vec::new() }
            }
        };
        Self { is_fresh: false, store }
    }

    /// Rows with the default, which is checked.
    pub fn grow(&mut self, rows: usize, default: &[u8]) {
        match &mut self.store {
            Store::Narrow { steps, width, old, new } => {
                for _ in 0..rows {
                    let items = default
                        .chunks_exact(4)
                        .map(|item| f32::from_ne_bytes(item.try_into().expect("4 bytes")));
                    old.extend(items.map(|item| round(f64::from(item) * steps.per_unit) as i32));
                }
                debug_assert_eq!(old.len() % *width, 0);
                new.resize(old.len(), 0);
            }
            Store::Wide { steps, old, new, .. } => {
                for _ in 0..rows {
                    let items = default
                        .chunks_exact(8)
                        .map(|item| f64::from_ne_bytes(item.try_into().expect("8 bytes")));
                    old.extend(items.map(|item| round(item * steps.per_unit)));
                }
                new.resize(old.len(), 0);
            }
            Store::Reference { old, new, .. } => {
                old.resize(old.len() + rows, 0);
                new.resize(old.len(), 0);
            }
            Store::Raw { old, .. } => (0..rows).for_each(|_| old.extend_from_slice(default)),
        }
    }

    /// The last row takes the place of this one.
    pub fn swap_remove(&mut self, row: usize) {
        match &mut self.store {
            Store::Narrow { width, old, new, .. } => {
                swap_remove(old, row, *width);
                swap_remove(new, row, *width);
            }
            Store::Wide { width, old, new, .. } => {
                swap_remove(old, row, *width);
                swap_remove(new, row, *width);
            }
            Store::Reference { old, new, .. } => {
                old.swap_remove(row);
                new.swap_remove(row);
            }
            Store::Raw { bytes, old, .. } => swap_remove(old, row, *bytes),
        }
    }

    /// Sets `bit` for each row of `rows` that differs from what was last sent; `changed` is of those. What is no value of the column is put back to that, and
    /// its row told to `fault`.
    #[allow(clippy::too_many_arguments)] // a column is in two halves: its memory, which may outlive the table, and this
    pub fn diff(
        &mut self,
        memory: &Memory,
        offset: usize,
        bytes: usize,
        rows: Range<usize>,
        bit: u64,
        changed: &mut [u64],
        live: &impl Fn(usize, u64) -> bool,
        mut fault: impl FnMut(usize),
    ) {
        let (first, count) = (rows.start, rows.len());
        let offset = offset + first * bytes;
        match &mut self.store {
            Store::Narrow { steps, width, old, new } => {
                let values = memory.slice_mut::<f32>(offset, count * *width);
                let (old, new) = (&old[first * *width..], &mut new[first * *width..]);
                let mut bad = false;
                for ((value, old), new) in values.iter().zip(old).zip(new.iter_mut()) {
                    let scaled = f64::from(*value) * steps.per_unit;
                    let good = scaled.abs() <= QUANTA_MAX_NARROW;
                    bad |= !good;
                    *new = if good { round(scaled) as i32 } else { *old };
                }
                if bad {
                    for row in 0..count {
                        let items = row * *width..(row + 1) * *width;
                        let is_good =
                            |value: &f32| (f64::from(*value) * steps.per_unit).abs() <= QUANTA_MAX_NARROW;
                        if values[items.clone()].iter().all(is_good) {
                            continue;
                        }
                        for i in items {
                            new[i] = old[i];
                            values[i] = (f64::from(old[i]) * steps.step) as f32;
                        }
                        fault(first + row);
                    }
                }
                mark(old, new, *width, bit, changed);
            }
            Store::Wide { steps, width, old, new } => {
                let values = memory.slice_mut::<f64>(offset, count * *width);
                let (old, new) = (&old[first * *width..], &mut new[first * *width..]);
                let mut bad = false;
                for ((value, old), new) in values.iter().zip(old).zip(new.iter_mut()) {
                    let scaled = *value * steps.per_unit;
                    let good = scaled.abs() <= QUANTA_MAX;
                    bad |= !good;
                    *new = if good { round(scaled) } else { *old };
                }
                if bad {
                    for row in 0..count {
                        let items = row * *width..(row + 1) * *width;
                        let is_good = |value: &f64| (*value * steps.per_unit).abs() <= QUANTA_MAX;
                        if values[items.clone()].iter().all(is_good) {
                            continue;
                        }
                        for i in items {
                            new[i] = old[i];
                            values[i] = old[i] as f64 * steps.step;
                        }
                        fault(first + row);
                    }
                }
                mark(old, new, *width, bit, changed);
            }
            Store::Reference { target, old, new } => {
                let values = memory.slice::<u64>(offset, count);
                let (old, new) = (&old[first..], &mut new[first..]);
                for (value, new) in values.iter().zip(new.iter_mut()) {
                    *new = if *value != 0 && live(*target, *value) { *value } else { 0 };
                }
                mark(old, new, 1, bit, changed);
            }
            Store::Raw { raw, old, .. } => {
                let values = memory.slice_mut::<u8>(offset, count * bytes);
                let old = &old[first * bytes..];
                let step = bytes * ROWS_AT_ONCE;
                for (part, (values, old)) in values.chunks_mut(step).zip(old.chunks(step)).enumerate() {
                    if values == old {
                        continue;
                    }
                    let pairs = values.chunks_exact_mut(bytes).zip(old.chunks_exact(bytes));
                    for (row, (value, old)) in pairs.enumerate() {
                        if value == old || raw.is_same(value, old) {
                            continue;
                        }
                        let row = part * ROWS_AT_ONCE + row;
                        if raw.is_good(value) {
                            changed[row] |= bit;
                        } else {
                            value.copy_from_slice(old);
                            fault(first + row);
                        }
                    }
                }
            }
        }
    }

    /// Rows that are told whole have nothing that deltas could build on: they are taken as they are.
    pub fn adopt(
        &mut self,
        memory: &Memory,
        offset: usize,
        bytes: usize,
        row: usize,
        live: &impl Fn(usize, u64) -> bool,
        fault: impl FnMut(usize),
    ) {
        let mut changed = [0];
        let memory_of_row = offset + row * bytes;
        self.diff(memory, offset, bytes, row..row + 1, 1, &mut changed, live, fault);
        if changed[0] == 0 {
            return;
        }
        match &mut self.store {
            Store::Narrow { width, old, new, .. } => renew(old, new, row * *width..(row + 1) * *width),
            Store::Wide { width, old, new, .. } => renew(old, new, row * *width..(row + 1) * *width),
            Store::Reference { old, new, .. } => renew(old, new, row..row + 1),
            Store::Raw { old, .. } => {
                old[row * bytes..][..bytes].copy_from_slice(memory.slice(memory_of_row, bytes));
            }
        }
    }

    /// A diff of all rows was made.
    pub fn is_made(&mut self) {
        self.is_fresh = true;
    }

    /// What was new is what was last sent, if a diff of all rows was made.
    pub fn settle(&mut self, memory: &Memory, offset: usize, bytes: usize, bit: u64, changed: &[u64]) {
        if !std::mem::take(&mut self.is_fresh) {
            return;
        }
        match &mut self.store {
            Store::Narrow { old, new, .. } => std::mem::swap(old, new),
            Store::Wide { old, new, .. } => std::mem::swap(old, new),
            Store::Reference { old, new, .. } => std::mem::swap(old, new),
            Store::Raw { old, .. } => {
                let values = memory.slice::<u8>(offset, changed.len() * bytes);
                let rows = old.chunks_exact_mut(bytes).zip(values.chunks_exact(bytes)).zip(changed);
                for ((old, value), changed) in rows {
                    if changed & bit != 0 {
                        old.copy_from_slice(value);
                    }
                }
            }
        }
    }

    /// Appends what a row has, built on nothing. `live` is its memory.
    #[inline]
    pub fn write_whole(&self, live: &[u8], row: usize, out: &mut Vec<u8>) {
        match &self.store {
            Store::Narrow { width, old, new, .. } => {
                let current = if self.is_fresh { new } else { old };
                for item in &current[row * width..][..*width] {
                    varint::write(out, varint::zigzag((*item).into()));
                }
            }
            Store::Wide { width, old, new, .. } => {
                let current = if self.is_fresh { new } else { old };
                for item in &current[row * width..][..*width] {
                    varint::write(out, varint::zigzag(*item));
                }
            }
            Store::Reference { old, new, .. } => {
                let bits = if self.is_fresh { new[row] } else { old[row] };
                write_reference(out, bits);
            }
            Store::Raw { raw, old, .. } => {
                let current = if self.is_fresh { live } else { &old[row * live.len()..][..live.len()] };
                raw.write(current, &[], out);
            }
        }
    }

    /// Appends what a row has, built on what was last sent of it.
    #[inline]
    pub fn write_delta(&self, live: &[u8], row: usize, out: &mut Vec<u8>) {
        match &self.store {
            Store::Narrow { width: 1, old, new, .. } => {
                varint::write(out, varint::zigzag(i64::from(new[row]) - i64::from(old[row])));
            }
            Store::Narrow { width, old, new, .. } => {
                let rows = row * width..(row + 1) * width;
                for (new, old) in new[rows.clone()].iter().zip(&old[rows]) {
                    varint::write(out, varint::zigzag(i64::from(*new) - i64::from(*old)));
                }
            }
            Store::Wide { width, old, new, .. } => {
                let rows = row * width..(row + 1) * width;
                for (new, old) in new[rows.clone()].iter().zip(&old[rows]) {
                    varint::write(out, varint::zigzag(new.wrapping_sub(*old)));
                }
            }
            Store::Reference { new, .. } => write_reference(out, new[row]),
            Store::Raw { raw, old, .. } => raw.write(live, &old[row * live.len()..][..live.len()], out),
        }
    }

    /// Bytes of a row here.
    pub fn row_bytes(&self) -> usize {
        match &self.store {
            Store::Narrow { width, .. } => 8 * width,
            Store::Wide { width, .. } => 16 * width,
            Store::Reference { .. } => 16,
            Store::Raw { bytes, .. } => *bytes,
        }
    }
}

impl Raw {
    /// Whether bytes that differ mean the same.
    fn is_same(&self, value: &[u8], old: &[u8]) -> bool {
        match self {
            Self::List(number, len_max) => {
                match (list_items(*number, *len_max, value), list_items(*number, *len_max, old)) {
                    (Some(value), Some(old)) => value == old,
                    _ => false,
                }
            }
            _ => false,
        }
    }

    fn is_good(&self, value: &[u8]) -> bool {
        match self {
            Self::Int(_) | Self::Bytes => true,
            Self::Float(number) => value.chunks_exact(number.bytes()).all(|item| is_finite(*number, item)),
            Self::Bool => value[0] <= 1,
            Self::Enum(values) => {
                value.try_into().is_ok_and(|bytes| values.contains(&i32::from_ne_bytes(bytes)))
            }
            Self::Str => {
                let text = trimmed(value);
                !text.contains(&0) && std::str::from_utf8(text).is_ok()
            }
            Self::List(number, len_max) => list_items(*number, *len_max, value)
                .is_some_and(|items| items.chunks_exact(number.bytes()).all(|item| is_finite(*number, item))),
        }
    }

    /// `old` is empty where nothing is built on.
    fn write(&self, value: &[u8], old: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Int(number) => {
                let before = if old.is_empty() { 0 } else { read_int(*number, old) };
                varint::write(out, varint::zigzag(read_int(*number, value).wrapping_sub(before)));
            }
            Self::Float(number) => {
                value.chunks_exact(number.bytes()).for_each(|item| write_float(*number, item, out))
            }
            Self::Bool => out.push(value[0]),
            Self::Enum(_) => varint::write(out, varint::zigzag(read_int(Number::I32, value))),
            Self::Str | Self::Bytes => {
                let value = trimmed(value);
                varint::write(out, value.len() as u64);
                out.extend_from_slice(value);
            }
            Self::List(number, len_max) => {
                let items = list_items(*number, *len_max, value).unwrap_or_default();
                varint::write(out, (items.len() / number.bytes()) as u64);
                for item in items.chunks_exact(number.bytes()) {
                    match number {
                        Number::F32 | Number::F64 => write_float(*number, item, out),
                        _ => varint::write(out, varint::zigzag(read_int(*number, item))),
                    }
                }
            }
        }
    }
}

fn narrow(steps: Steps, width: usize) -> Store {
    Store::Narrow { steps, width, old: Vec::new(), new: Vec::new() }
}

fn wide(steps: Steps, width: usize) -> Store {
    Store::Wide { steps, width, old: Vec::new(), new: Vec::new() }
}

fn mark<T: PartialEq>(old: &[T], new: &[T], width: usize, bit: u64, changed: &mut [u64]) {
    if width == 1 {
        for ((old, new), changed) in old.iter().zip(new).zip(changed) {
            *changed |= if old == new { 0 } else { bit };
        }
        return;
    }
    for ((old, new), changed) in old.chunks_exact(width).zip(new.chunks_exact(width)).zip(changed) {
        *changed |= if old == new { 0 } else { bit };
    }
}

fn swap_remove<T: Copy>(items: &mut Vec<T>, row: usize, width: usize) {
    let last = items.len() - width;
    items.copy_within(last.., row * width);
    items.truncate(last);
}

fn renew<T: Copy>(old: &mut [T], new: &[T], items: Range<usize>) {
    old[items.clone()].copy_from_slice(&new[items]);
}

fn write_reference(out: &mut Vec<u8>, bits: u64) {
    varint::write(out, bits & u64::from(u32::MAX));
    if bits != 0 {
        varint::write(out, bits >> 32);
    }
}

fn write_float(number: Number, item: &[u8], out: &mut Vec<u8>) {
    match number {
        Number::F32 => {
            out.extend(item.try_into().map_or([0; 4], |item| f32::from_ne_bytes(item).to_le_bytes()))
        }
        _ => out.extend(item.try_into().map_or([0; 8], |item| f64::from_ne_bytes(item).to_le_bytes())),
    }
}

fn is_finite(number: Number, item: &[u8]) -> bool {
    match number {
        Number::F32 => item.try_into().is_ok_and(|item| f32::from_ne_bytes(item).is_finite()),
        Number::F64 => item.try_into().is_ok_and(|item| f64::from_ne_bytes(item).is_finite()),
        _ => true,
    }
}

/// A whole number as 64 bits: a `u64` keeps its bits.
fn read_int(number: Number, bytes: &[u8]) -> i64 {
    macro_rules! read {
        ($type:ty) => {
            bytes.try_into().map_or(0, |bytes| <$type>::from_ne_bytes(bytes) as i64)
        };
    }
    match number {
        Number::I8 => read!(i8),
        Number::I16 => read!(i16),
        Number::I32 => read!(i32),
        Number::U8 => read!(u8),
        Number::U16 => read!(u16),
        Number::U32 => read!(u32),
        Number::U64 => read!(u64),
        Number::I64 | Number::F32 | Number::F64 => read!(i64),
    }
}

/// Without the NULs at the end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..len]
}

/// The bytes of a list's items; `None` if its count is beyond its room.
fn list_items(number: Number, len_max: u16, bytes: &[u8]) -> Option<&[u8]> {
    let count = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if count > usize::from(len_max) {
        return None;
    }
    bytes.get(Kind::list_offset(number)..)?.get(..count.checked_mul(number.bytes())?)
}
