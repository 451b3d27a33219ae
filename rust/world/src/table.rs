//! One class of entities: live rows, dense, behind handles that never come to mean another entity.

use std::io;
use std::sync::Arc;

use crate::baseline::Baseline;
use crate::grid::{Cell, Grid};
use crate::handle::Handle;
use crate::memory::{Memory, RawColumn};
use crate::shape::{Audience, Kind, Number, Placement, TableShape};
use crate::value::Value;

/// Rows, their columns' live memory, and what was last sent of them.
#[derive(Debug)]
pub(crate) struct Table {
    pub shape: TableShape,
    pub columns: Vec<Column>,
    /// Columns that place an entity, and the item in each.
    position: Option<[(usize, usize); 2]>,
    memory: Option<Arc<Memory>>,
    memory_bytes: usize,
    pub handles: Vec<Handle>,
    pub owners: Vec<u64>,
    pub places: Vec<Place>,
    /// Some stand nowhere.
    has_new: bool,
    /// Columns that differ from what was last sent, a bit each; of meaning from the diff until the end of the tick.
    pub changed: Vec<u64>,
    /// A bit for each row: something of it changed that is sent to all.
    is_changed: Vec<u64>,
    /// Despawned in this tick: their rows go at its end.
    pub doomed: Vec<u32>,
    /// Bits of columns by audience.
    pub to_all: u64,
    pub to_owner: u64,
    pub to_others: u64,
    pub to_place: u64,
}

/// A column's place in memory, and its baseline.
#[derive(Debug)]
pub(crate) struct Column {
    offset: usize,
    pub bytes: usize,
    pub baseline: Baseline,
}

/// Where an entity stands: a block, its index there, and the block's cell, which says nothing in a global table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub block: u32,
    pub index: u32,
    pub cell: Cell,
}

/// In no block: spawned in this tick.
pub(crate) const NOWHERE: Place = Place { block: u32::MAX, index: 0, cell: (0, 0) };

/// Which row a handle means.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    row: u32,
}

impl Slots {
    /// The row of a live entity.
    #[inline]
    pub fn row(&self, handle: Handle) -> Option<usize> {
        let slot = self.slots.get(handle.index as usize)?;
        (slot.generation == handle.generation && slot.row != NO_ROW).then_some(slot.row as usize)
    }

    /// How often each slot was used before.
    pub fn generations(&self) -> Vec<u32> {
        self.slots.iter().map(|slot| slot.generation).collect()
    }

    /// As they were: those that no row has are free, the first ones to be used first.
    fn restore(&mut self, generations: &[u32], handles: &[Handle]) {
        let slot = |generation: &u32| Slot { generation: *generation, row: NO_ROW };
        self.slots = generations.iter().map(slot).collect();
        for (row, handle) in handles.iter().enumerate() {
            self.slots[handle.index as usize].row = row as u32;
        }
        let free = |index: &u32| self.slots[*index as usize].row == NO_ROW;
        self.free = (0..generations.len() as u32).rev().filter(free).collect();
    }

    fn take(&mut self, row: usize) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, row: NO_ROW });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.row = row as u32;
        Handle { index, generation: slot.generation }
    }
}

const NO_ROW: u32 = u32::MAX;

impl Table {
    pub fn new(shape: TableShape, target_of: impl Fn(&str) -> usize) -> Self {
        let mut memory_bytes = 0;
        let mut columns = Vec::with_capacity(shape.columns.len());
        let [mut to_all, mut to_owner, mut to_others, mut to_place] = [0; 4];
        for (i, column) in shape.columns.iter().enumerate() {
            let bytes = column.kind.row_bytes();
            columns.push(Column { offset: memory_bytes, bytes, baseline: Baseline::new(column, &target_of) });
            memory_bytes += (bytes * shape.rows_max).next_multiple_of(4096);
            match column.audience {
                Audience::All => to_all |= 1 << i,
                Audience::Owner => to_owner |= 1 << i,
                Audience::Others => to_others |= 1 << i,
                Audience::Nobody => {}
            }
        }
        let position = match &shape.placement {
            Placement::Global => None,
            Placement::Spatial(names) => {
                let index = |name: &String| shape.column_index(name).expect("checked with the shape");
                Some(match names.as_slice() {
                    [x, y] => [(index(x), 0), (index(y), 0)],
                    [vector] => [(index(vector), 0), (index(vector), 1)],
                    _ => unreachable!("checked with the shape"),
                })
            }
        };
        for (column, _) in position.iter().flatten() {
            to_place |= 1 << column;
        }
        Self {
            shape,
            columns,
            position,
            memory: None,
            memory_bytes,
            handles: Vec::new(),
            owners: Vec::new(),
            places: Vec::new(),
            has_new: false,
            changed: Vec::new(),
            is_changed: Vec::new(),
            doomed: Vec::new(),
            to_all,
            to_owner,
            to_others,
            to_place,
        }
    }

    /// Live rows, and those that were despawned in this tick.
    #[inline]
    pub fn rows(&self) -> usize {
        self.handles.len()
    }

    /// Adds rows with the columns' defaults, and says the first.
    pub fn spawn(&mut self, slots: &mut Slots, count: usize, owner: u64) -> io::Result<usize> {
        let first = self.rows();
        if count > self.shape.rows_max - first {
            let text = format!("{} has room for {} entities at once", self.shape.name, self.shape.rows_max);
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        let memory = match &self.memory {
            Some(memory) => memory,
            None => self.memory.insert(Arc::new(Memory::reserve(self.memory_bytes)?)),
        };
        for (column, shape) in self.columns.iter_mut().zip(&self.shape.columns) {
            let bytes = memory.slice_mut::<u8>(column.offset + first * column.bytes, count * column.bytes);
            let mut default = vec![0; column.bytes];
            write_value(&shape.kind, shape.default.as_ref(), &mut default);
            for row in bytes.chunks_exact_mut(column.bytes) {
                row.copy_from_slice(&default);
            }
            column.baseline.grow(count, &default);
        }
        self.handles.extend((first..first + count).map(|row| slots.take(row)));
        self.owners.resize(first + count, owner);
        self.places.resize(first + count, NOWHERE);
        self.has_new = true;
        self.changed.resize(first + count, 0);
        Ok(first)
    }

    /// Rows with these handles, of nobody, in a table that never had one.
    pub fn spawn_as(&mut self, slots: &mut Slots, generations: &[u32], handles: &[Handle]) -> io::Result<()> {
        if !handles.is_empty() {
            self.spawn(slots, handles.len(), 0)?;
            self.handles.copy_from_slice(handles);
        }
        slots.restore(generations, handles);
        Ok(())
    }

    /// The handle is stale from now on; the row goes at the tick's end. False if it was stale already.
    pub fn despawn(&mut self, slots: &mut Slots, handle: Handle) -> bool {
        let Some(row) = slots.row(handle) else { return false };
        let slot = &mut slots.slots[handle.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.row = NO_ROW;
        self.doomed.push(row as u32);
        true
    }

    /// Removes the doomed rows: the last row takes the place of each. `moved` is told the new row of each that moved.
    pub fn compact(&mut self, slots: &mut Slots, mut moved: impl FnMut(Place, u32)) {
        let mut doomed = std::mem::take(&mut self.doomed);
        doomed.sort_unstable_by(|a, b| b.cmp(a));
        for &row in &doomed {
            let (row, last) = (row as usize, self.rows() - 1);
            slots.free.push(self.handles[row].index);
            for column in &mut self.columns {
                if row != last
                    && let Some(memory) = &self.memory
                {
                    let (to, from) =
                        (column.offset + row * column.bytes, column.offset + last * column.bytes);
                    memory.copy_within(from, to, column.bytes);
                }
                column.baseline.swap_remove(row);
            }
            self.handles.swap_remove(row);
            self.owners.swap_remove(row);
            self.places.swap_remove(row);
            self.changed.swap_remove(row);
            if row != last {
                slots.slots[self.handles[row].index as usize].row = row as u32;
                moved(self.places[row], row as u32);
            }
        }
        doomed.clear();
        self.doomed = doomed;
    }

    /// A range of live memory: `count` rows of a column, from `row`.
    #[inline]
    pub fn bytes(&self, column: usize, row: usize, count: usize) -> &[u8] {
        let Column { offset, bytes, .. } = self.columns[column];
        match &self.memory {
            Some(memory) => memory.slice(offset + row * bytes, count * bytes),
            None => &[],
        }
    }

    /// The same, to write.
    #[inline]
    pub fn bytes_mut(&mut self, column: usize, row: usize, count: usize) -> &mut [u8] {
        let Column { offset, bytes, .. } = self.columns[column];
        match &self.memory {
            Some(memory) => memory.slice_mut(offset + row * bytes, count * bytes),
            None => &mut [],
        }
    }

    /// All rows of a column, to be lent.
    pub fn raw_column(&self, column: usize) -> RawColumn {
        let Column { offset, bytes, .. } = self.columns[column];
        RawColumn {
            pointer: self.memory.as_ref().map_or(std::ptr::null_mut(), |memory| memory.pointer(offset)),
            rows: self.rows(),
            stride: bytes,
            memory: self.memory.clone(),
        }
    }

    /// Where a row is; `None` in a global table. What stands there may be no number.
    pub fn position(&self, row: usize) -> Option<[f64; 2]> {
        Some(self.axes()?.map(|axis| axis.at(row)))
    }

    /// Rows that belong in another block than they stand in, into `out`: those that stand in none, and those that went beyond their
    /// cell's border.
    pub fn strays(&mut self, grid: &Grid, out: &mut Vec<u32>) {
        if std::mem::take(&mut self.has_new) {
            let places = self.places.iter().enumerate();
            out.extend(places.filter(|(_, place)| place.is_nowhere()).map(|(row, _)| row as u32));
        }
        let Some([x, y]) = self.axes() else { return };
        for (number, changed) in self.changed.chunks(64).enumerate() {
            each_bit(bits_of(changed, self.to_place), |bit| {
                let row = number * 64 + bit;
                let place = &self.places[row];
                if !place.is_nowhere() && !grid.keeps(place.cell, [x.at(row), y.at(row)]) {
                    out.push(row as u32);
                }
            });
        }
    }

    /// `None` of a global table.
    fn axes(&self) -> Option<[Axis<'_>; 2]> {
        Some(self.position?.map(|(column, item)| {
            let (Kind::Number(number) | Kind::Vector(number, _)) = self.shape.columns[column].kind else {
                unreachable!("checked with the shape")
            };
            let stride = self.columns[column].bytes;
            Axis { bytes: self.bytes(column, 0, self.rows()), stride, first: item * number.bytes(), number }
        }))
    }

    /// The place of every row, into `out`.
    pub fn positions(&self, out: &mut Vec<[f64; 2]>) {
        out.clear();
        let Some([x, y]) = self.axes() else { return };
        out.extend((0..self.rows()).map(|row| [x.at(row), y.at(row)]));
    }

    /// Finds what differs from what was last sent, in columns that are due: [`Table::changed`]. What is no value of its column is
    /// put back, and told to `fault`.
    pub fn diff(
        &mut self,
        tick: u32,
        live: &impl Fn(usize, u64) -> bool,
        mut fault: impl FnMut(Handle, usize),
    ) {
        let Self { columns, memory, shape, changed, handles, places, .. } = self;
        let Some(memory) = memory else { return };
        changed.fill(0);
        let rows = handles.len();
        for (i, (column, shape)) in columns.iter_mut().zip(&shape.columns).enumerate() {
            let (offset, bytes) = (column.offset, column.bytes);
            let baseline = &mut column.baseline;
            if shape.audience == Audience::Nobody {
                continue;
            }
            if tick.is_multiple_of(shape.every) {
                let fault = |row| fault(handles[row], i);
                baseline.diff(memory, offset, bytes, 0..rows, 1 << i, changed, live, fault);
                baseline.is_made();
                continue;
            }
            for (row, place) in places.iter().enumerate() {
                if place.is_nowhere() {
                    baseline.adopt(memory, offset, bytes, row, live, |row| fault(handles[row], i));
                }
            }
        }
    }

    /// Finds rows of which something changed that is sent to many, and tells their places to `each`.
    pub fn gather_changed(&mut self, mut each: impl FnMut(Place)) {
        self.is_changed.clear();
        for (changed, places) in self.changed.chunks(64).zip(self.places.chunks(64)) {
            let to_all = bits_of(changed, self.to_all);
            self.is_changed.push(to_all);
            let to_others = if self.to_others == 0 { 0 } else { bits_of(changed, self.to_others) };
            each_bit(to_all | to_others, |bit| each(places[bit]));
        }
    }

    /// Whether something changed in a row that is sent to all: 1 or 0, for who counts without a branch.
    #[inline]
    pub fn is_changed(&self, row: u32) -> usize {
        (self.is_changed[row as usize / 64] >> (row % 64) & 1) as usize
    }

    /// What was found to differ has been sent, or will be in full.
    pub fn settle(&mut self) {
        let Self { columns, memory, shape, changed, .. } = self;
        let Some(memory) = memory else { return };
        for (i, (column, shape)) in columns.iter_mut().zip(&shape.columns).enumerate() {
            if shape.audience != Audience::Nobody {
                column.baseline.settle(memory, column.offset, column.bytes, 1 << i, changed);
            }
        }
    }

    /// The live memory of a column, for the encoder.
    #[inline]
    pub fn live(&self, column: usize, row: usize) -> &[u8] {
        self.bytes(column, row, 1)
    }

    /// Bytes of memory that the rows take, all in.
    pub fn memory_bytes(&self) -> usize {
        let row: usize = self.columns.iter().map(|column| column.bytes + column.baseline.row_bytes()).sum();
        let fixed = size_of::<Slot>() + size_of::<Handle>() + size_of::<Place>() + 8 + 8 + 4;
        self.rows() * (row + fixed)
    }
}

/// A bit for each of up to 64 rows of which something in `group` changed.
#[inline]
fn bits_of(changed: &[u64], group: u64) -> u64 {
    let bit = |(row, changed): (usize, &u64)| u64::from(changed & group != 0) << row;
    changed.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
}

#[inline]
fn each_bit(mut left: u64, mut each: impl FnMut(usize)) {
    while left != 0 {
        each(left.trailing_zeros() as usize);
        left &= left - 1;
    }
}

impl Place {
    #[inline]
    pub fn is_nowhere(&self) -> bool {
        self.block == NOWHERE.block
    }
}

/// One number of each row.
struct Axis<'a> {
    bytes: &'a [u8],
    stride: usize,
    first: usize,
    number: Number,
}

impl Axis<'_> {
    #[inline(always)]
    fn at(&self, row: usize) -> f64 {
        let bytes = &self.bytes[row * self.stride + self.first..];
        match (self.number, bytes.first_chunk()) {
            (Number::F32, Some(bytes)) => f64::from(f32::from_ne_bytes(*bytes)), // by far the most frequent
            _ => read_number(self.number, &bytes[..self.number.bytes()]),
        }
    }
}

/// A number as a float.
pub(crate) fn read_number(number: Number, bytes: &[u8]) -> f64 {
    macro_rules! read {
        ($type:ty) => {
            bytes.try_into().map_or(0.0, |bytes| <$type>::from_ne_bytes(bytes) as f64)
        };
    }
    match number {
        Number::I8 => read!(i8),
        Number::I16 => read!(i16),
        Number::I32 => read!(i32),
        Number::I64 => read!(i64),
        Number::U8 => read!(u8),
        Number::U16 => read!(u16),
        Number::U32 => read!(u32),
        Number::U64 => read!(u64),
        Number::F32 => read!(f32),
        Number::F64 => read!(f64),
    }
}

/// Writes a checked value as it stands in memory; `None` is the kind's own default.
pub fn write_value(kind: &Kind, value: Option<&Value>, out: &mut [u8]) {
    out.fill(0);
    match (kind, value) {
        (Kind::Enum(values), None) => out.copy_from_slice(&values[0].to_ne_bytes()),
        (Kind::Number(number), Some(value)) => write_number(*number, value, out),
        (Kind::Bool, Some(Value::Bool(bool))) => out[0] = u8::from(*bool),
        (Kind::Enum(_), Some(Value::Int(int))) => out.copy_from_slice(&(*int as i32).to_ne_bytes()),
        (Kind::Vector(number, _), Some(Value::Vector(items))) => {
            for (item, place) in items.iter().zip(out.chunks_exact_mut(number.bytes())) {
                write_number(*number, &Value::Float(*item), place);
            }
        }
        (Kind::Str(_), Some(Value::Str(text))) => out[..text.len()].copy_from_slice(text.as_bytes()),
        (Kind::Bytes(_), Some(Value::Bytes(bytes))) => out[..bytes.len()].copy_from_slice(bytes),
        (Kind::Reference(_), Some(Value::Reference(handle))) => {
            out.copy_from_slice(&handle.map_or(0, Handle::to_bits).to_ne_bytes());
        }
        (Kind::List(number, _), Some(Value::List(items))) => {
            out[..4].copy_from_slice(&(items.len() as u32).to_ne_bytes());
            let places = out[Kind::list_offset(*number)..].chunks_exact_mut(number.bytes());
            items.iter().zip(places).for_each(|(item, place)| write_number(*number, item, place));
        }
        _ => {}
    }
}

fn write_number(number: Number, value: &Value, out: &mut [u8]) {
    match (number, value) {
        (Number::F32, Value::Float(float)) => out.copy_from_slice(&(*float as f32).to_ne_bytes()),
        (Number::F32, Value::Int(int)) => out.copy_from_slice(&(*int as f32).to_ne_bytes()),
        (Number::F64, Value::Float(float)) => out.copy_from_slice(&float.to_ne_bytes()),
        (Number::F64, Value::Int(int)) => out.copy_from_slice(&(*int as f64).to_ne_bytes()),
        (Number::U64, Value::Int(int)) => out.copy_from_slice(&(*int as u64).to_ne_bytes()),
        (_, Value::Int(int)) => {
            let int = (*int as i64).to_ne_bytes();
            let len = out.len();
            // The low bytes are the number's, in whichever order the machine has them.
            let low = if cfg!(target_endian = "little") { &int[..len] } else { &int[8 - len..] };
            out.copy_from_slice(low);
        }
        _ => {}
    }
}
