//! Tables of live rows, behind handles.

use std::io;
use std::sync::Arc;

use crate::handle::Handle;
use crate::memory::{Memory, RawColumn};
use crate::shape::{Kind, Number, Placement, ShapeError, TableShape, WorldShape};
use crate::value::Value;

pub struct World {
    shape: WorldShape,
    tables: Vec<Table>,
}

struct Table {
    memory: Option<Arc<Memory>>,
    offsets: Vec<usize>,
    /// By slot: generation, row or NONE.
    slots: Vec<(u32, u32)>,
    free: Vec<u32>,
    /// By row.
    handles: Vec<Handle>,
    gone: Vec<bool>,
    owners: Vec<u64>,
    doomed: Vec<u32>,
    len: usize,
}

const NONE: u32 = u32::MAX;

/// A value that was found bad.
pub struct Fault {
    pub table: usize,
    pub handle: Handle,
    pub column: usize,
}

impl Default for World {
    fn default() -> Self {
        Self { shape: WorldShape::new(Vec::new()).expect("empty"), tables: Vec::new() }
    }
}

impl World {
    pub fn add_tables(&mut self, tables: Vec<TableShape>) -> Result<usize, ShapeError> {
        let first = self.tables.len();
        let mut all = self.shape.tables().to_vec();
        all.extend(tables);
        self.shape = WorldShape::new(all)?;
        for table in &self.shape.tables()[first..] {
            let mut len = 0usize;
            let mut offsets = Vec::new();
            for column in &table.columns {
                offsets.push(len);
                len += (column.kind.row_bytes() * table.rows_max).next_multiple_of(4096);
            }
            self.tables.push(Table {
                memory: None,
                offsets,
                slots: Vec::new(),
                free: Vec::new(),
                handles: Vec::new(),
                gone: Vec::new(),
                owners: Vec::new(),
                doomed: Vec::new(),
                len,
            });
        }
        Ok(first)
    }

    pub fn shape(&self) -> &WorldShape {
        &self.shape
    }

    pub fn rows(&self, table: usize) -> usize {
        self.tables[table].handles.len()
    }

    pub fn row(&self, table: usize, handle: Handle) -> Option<usize> {
        let &(generation, row) = self.tables[table].slots.get(handle.index as usize)?;
        (generation == handle.generation && row != NONE).then_some(row as usize)
    }

    pub fn handle(&self, table: usize, row: usize) -> Option<Handle> {
        let table = &self.tables[table];
        (!*table.gone.get(row)?).then(|| table.handles[row])
    }

    pub fn spawn(&mut self, table: usize, count: usize, owner: u64) -> io::Result<usize> {
        let shape = &self.shape.tables()[table];
        let this = &mut self.tables[table];
        if this.handles.len() + count > shape.rows_max {
            return Err(io::Error::other(format!("{} rows at most", shape.rows_max)));
        }
        if this.memory.is_none() {
            this.memory = Some(Arc::new(Memory::reserve(this.len)?));
        }
        let first = this.handles.len();
        for row in first..first + count {
            let index = this.free.pop().unwrap_or_else(|| {
                this.slots.push((0, NONE));
                this.slots.len() as u32 - 1
            });
            let slot = &mut this.slots[index as usize];
            slot.1 = row as u32;
            this.handles.push(Handle { index, generation: slot.0 });
            this.gone.push(false);
            this.owners.push(owner);
        }
        for column in 0..this.offsets.len() {
            let mut bytes = vec![0; self.shape.tables()[table].columns[column].kind.row_bytes()];
            let column_shape = &self.shape.tables()[table].columns[column];
            write(&column_shape.kind, column_shape.default.as_ref(), &mut bytes);
            for row in first..first + count {
                self.cell_mut(table, column, row).copy_from_slice(&bytes);
            }
        }
        Ok(first)
    }

    pub fn despawn(&mut self, table: usize, handle: Handle) -> bool {
        let Some(row) = self.row(table, handle) else { return false };
        let this = &mut self.tables[table];
        let slot = &mut this.slots[handle.index as usize];
        *slot = (slot.0.wrapping_add(1), NONE);
        this.gone[row] = true;
        this.doomed.push(row as u32);
        this.free.push(handle.index);
        true
    }

    pub fn owner(&self, table: usize, handle: Handle) -> Option<u64> {
        let row = self.row(table, handle)?;
        Some(self.tables[table].owners[row]).filter(|&owner| owner != 0)
    }

    pub fn set_owner(&mut self, table: usize, handle: Handle, owner: u64) {
        if let Some(row) = self.row(table, handle) {
            self.tables[table].owners[row] = owner;
        }
    }

    fn place(&self, table: usize, column: usize, row: usize) -> (usize, usize) {
        let bytes = self.shape.tables()[table].columns[column].kind.row_bytes();
        (self.tables[table].offsets[column] + row * bytes, bytes)
    }

    #[inline]
    pub fn cell(&self, table: usize, column: usize, row: usize) -> &[u8] {
        let (offset, bytes) = self.place(table, column, row);
        self.tables[table].memory.as_ref().expect("has rows").slice(offset, bytes)
    }

    #[inline]
    pub fn cell_mut(&mut self, table: usize, column: usize, row: usize) -> &mut [u8] {
        let (offset, bytes) = self.place(table, column, row);
        self.tables[table].memory.as_ref().expect("has rows").slice_mut(offset, bytes)
    }

    pub fn column(&self, table: usize, column: usize) -> RawColumn {
        let this = &self.tables[table];
        RawColumn {
            pointer: this
                .memory
                .as_ref()
                .map_or(std::ptr::null_mut(), |memory| memory.pointer(this.offsets[column])),
            rows: this.handles.len(),
            stride: self.shape.tables()[table].columns[column].kind.row_bytes(),
            memory: this.memory.clone(),
        }
    }

    fn position(&self, table: usize, row: usize) -> Option<(f64, f64)> {
        let shape = &self.shape.tables()[table];
        let Placement::Spatial(names) = &shape.placement else { return None };
        let one = |name: &str, item: usize| {
            let index = shape.column_index(name)?;
            let (Kind::Number(number) | Kind::Vector(number, _)) = shape.columns[index].kind else {
                return None;
            };
            let bytes = &self.cell(table, index, row)[item * number.bytes()..][..number.bytes()];
            Some(match number {
                Number::F32 => f32::from_ne_bytes(bytes.try_into().ok()?).into(),
                _ => f64::from_ne_bytes(bytes.try_into().ok()?),
            })
        };
        if names.len() == 1 {
            Some((one(&names[0], 0)?, one(&names[0], 1)?))
        } else {
            Some((one(&names[0], 0)?, one(&names[1], 0)?))
        }
    }

    pub fn near(&self, table: usize, row: usize, radius: f64) -> Vec<u32> {
        let Some((x, y)) = self.position(table, row) else { return Vec::new() };
        (0..self.rows(table))
            .filter(|&other| other != row && !self.tables[table].gone[other])
            .filter(|&other| self.position(table, other).is_some_and(|(a, b)| (a - x).hypot(b - y) <= radius))
            .map(|other| other as u32)
            .collect()
    }

    pub fn pairs(&self, one: usize, other: usize, radius: f64) -> (Vec<u32>, Vec<u32>) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for a in 0..self.rows(one) {
            let Some((x, y)) = self.position(one, a) else { continue };
            for b in 0..self.rows(other) {
                if self.tables[one].gone[a] || self.tables[other].gone[b] || (one == other && b <= a) {
                    continue;
                }
                if self.position(other, b).is_some_and(|(p, q)| (p - x).hypot(q - y) <= radius) {
                    first.push(a as u32);
                    second.push(b as u32);
                }
            }
        }
        (first, second)
    }

    pub fn end_tick(&mut self) -> Vec<Fault> {
        for table in 0..self.tables.len() {
            let mut doomed = std::mem::take(&mut self.tables[table].doomed);
            doomed.sort_unstable_by(|a, b| b.cmp(a));
            for row in doomed {
                let last = self.tables[table].handles.len() - 1;
                let row = row as usize;
                if row != last {
                    for column in 0..self.tables[table].offsets.len() {
                        let bytes = self.cell(table, column, last).to_vec();
                        self.cell_mut(table, column, row).copy_from_slice(&bytes);
                    }
                    let index = self.tables[table].handles[last].index as usize;
                    self.tables[table].slots[index].1 = row as u32;
                }
                let this = &mut self.tables[table];
                this.handles.swap_remove(row);
                this.gone.swap_remove(row);
                this.owners.swap_remove(row);
            }
        }
        Vec::new()
    }
}

fn write(kind: &Kind, value: Option<&Value>, out: &mut [u8]) {
    let number = |number: Number, value: &Value, out: &mut [u8]| match (number, value) {
        (Number::F32, Value::Float(v)) => out.copy_from_slice(&(*v as f32).to_ne_bytes()),
        (Number::F64, Value::Float(v)) => out.copy_from_slice(&v.to_ne_bytes()),
        (_, Value::Int(v)) => {
            let len = out.len();
            out.copy_from_slice(&v.to_le_bytes()[..len]);
        }
        _ => {}
    };
    match (kind, value) {
        (Kind::Enum(values), None) => out.copy_from_slice(&values[0].to_ne_bytes()),
        (_, None) => {}
        (Kind::Number(n), Some(v)) => number(*n, v, out),
        (Kind::Bool, Some(Value::Bool(v))) => out[0] = u8::from(*v),
        (Kind::Enum(_), Some(Value::Int(v))) => out.copy_from_slice(&(*v as i32).to_ne_bytes()),
        (Kind::Vector(n, _), Some(Value::Vector(items))) => {
            for (item, place) in items.iter().zip(out.chunks_exact_mut(n.bytes())) {
                number(*n, &Value::Float(*item), place);
            }
        }
        (Kind::Str(_), Some(Value::Str(v))) => out[..v.len()].copy_from_slice(v.as_bytes()),
        (Kind::Bytes(_), Some(Value::Bytes(v))) => out[..v.len()].copy_from_slice(v),
        (Kind::List(n, _), Some(Value::List(items))) => {
            out[..4].copy_from_slice(&(items.len() as u32).to_ne_bytes());
            for (item, place) in items.iter().zip(out[Kind::list_offset(*n)..].chunks_exact_mut(n.bytes())) {
                number(*n, item, place);
            }
        }
        _ => {}
    }
}
