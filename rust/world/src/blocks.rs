//! Blocks: what is encoded once for all who see it. A block is the entities of one table in one cell of a uniform grid, or
//! all of a global table.

use std::collections::HashMap;

use crate::table::{NOWHERE, Place, Table};

/// A cell of the grid: its column and row.
pub type Cell = (i32, i32);

/// A range of the bytes that a tick encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u32,
    /// How many.
    pub len: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Block {
    pub table: u32,
    /// `None` of a global table.
    pub cell: Option<Cell>,
    /// Rows, in the order that clients know too.
    pub members: Vec<u32>,
    /// Viewers that are to be sent what changes.
    pub watchers: u32,
    /// Viewers whose clients may have it: those, and those that were not yet told to forget it.
    pub holders: u32,
    /// In this tick: indices from which members left, in their order; how many entered, at the end; which others changed.
    pub leaves: Vec<u32>,
    pub entered: u32,
    pub dirty: Vec<u32>,
    /// The last tick in which anything was to be sent, and that.
    pub changed_at: u32,
    pub delta: Part,
    pub others: Part,
    /// The last tick in which all of it was encoded, and that.
    pub whole_at: u32,
    pub whole: Part,
    pub whole_others: Part,
    is_touched: bool,
}

/// All blocks. Their numbers are small, used again, and what clients know them by.
#[derive(Debug)]
pub(crate) struct Blocks {
    cell: f64,
    /// How far beyond its cell's border an entity goes before it changes cells.
    margin: f64,
    blocks: Vec<Block>,
    by_cell: HashMap<(u32, Cell), u32>,
    free: Vec<u32>,
    touched: Vec<u32>,
    /// Perhaps of use to nobody.
    idle: Vec<u32>,
    /// Another number whenever a block gets its first member or loses its last.
    pub epoch: u64,
}

/// Of a cell's side.
const MARGIN: f64 = 0.1;

impl Blocks {
    pub fn new(cell: f64) -> Self {
        Self {
            cell,
            margin: cell * MARGIN,
            blocks: Vec::new(),
            by_cell: HashMap::new(),
            free: Vec::new(),
            touched: Vec::new(),
            idle: Vec::new(),
            epoch: 0,
        }
    }

    /// The side of a cell.
    pub fn side(&self) -> f64 {
        self.cell
    }

    pub fn get(&self, block: u32) -> &Block {
        &self.blocks[block as usize]
    }

    pub fn get_mut(&mut self, block: u32) -> &mut Block {
        &mut self.blocks[block as usize]
    }

    /// Blocks that have members, by number.
    pub fn filled(&self) -> impl Iterator<Item = u32> {
        let filled = self.blocks.iter().enumerate().filter(|(_, block)| !block.members.is_empty());
        filled.map(|(number, _)| number as u32)
    }

    /// The cell of a place.
    pub fn cell_at(&self, [x, y]: [f64; 2]) -> Cell {
        // Conversions saturate: all that is too far away is in the outermost cells.
        ((x / self.cell).floor() as i32, (y / self.cell).floor() as i32)
    }

    /// The cell of what was in `old`: that, until it is well beyond its border.
    pub fn cell_from(&self, old: Cell, [x, y]: [f64; 2]) -> Cell {
        let near = |at: f64, cell: i32| {
            let low = f64::from(cell) * self.cell;
            at >= low - self.margin && at < low + self.cell + self.margin
        };
        if near(x, old.0) && near(y, old.1) { old } else { self.cell_at([x, y]) }
    }

    /// The block of a table in a cell, or of a global table.
    pub fn at(&mut self, table: u32, cell: Option<Cell>) -> u32 {
        let key = (table, cell.unwrap_or_default());
        if let Some(&block) = self.by_cell.get(&key) {
            return block;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            self.blocks.len() as u32 - 1
        });
        self.blocks[number as usize] = Block { table, cell, ..Block::default() };
        self.by_cell.insert(key, number);
        number
    }

    /// A viewer begins to hold it.
    pub fn hold(&mut self, block: u32) {
        let block = self.get_mut(block);
        block.watchers += 1;
        block.holders += 1;
    }

    /// It is not watched any more; its client has yet to be told.
    pub fn unwatch(&mut self, block: u32) {
        self.get_mut(block).watchers -= 1;
    }

    /// It was not watched any more, and is again.
    pub fn watch(&mut self, block: u32) {
        self.get_mut(block).watchers += 1;
    }

    /// No client of this viewer has it any more.
    pub fn release(&mut self, block: u32) {
        self.get_mut(block).holders -= 1;
        self.idle.push(block);
    }

    /// A member leaves: the last one takes its place. Returns the row of that.
    pub fn leave(&mut self, place: Place) -> Option<u32> {
        self.touch(place.block);
        let block = &mut self.blocks[place.block as usize];
        block.members.swap_remove(place.index as usize);
        if block.watchers > 0 {
            block.leaves.push(place.index);
        }
        let moved = block.members.get(place.index as usize).copied();
        if block.members.is_empty() {
            self.idle.push(place.block);
            self.epoch += 1;
        }
        moved
    }

    /// A member enters, at the end.
    pub fn enter(&mut self, number: u32, row: u32) -> Place {
        self.touch(number);
        let block = &mut self.blocks[number as usize];
        block.members.push(row);
        block.entered += 1;
        if block.members.len() == 1 {
            self.epoch += 1;
        }
        Place { block: number, index: block.members.len() as u32 - 1 }
    }

    /// A member is in another row.
    pub fn set_row(&mut self, place: Place, row: u32) {
        if place.block != NOWHERE.block {
            self.blocks[place.block as usize].members[place.index as usize] = row;
        }
    }

    /// A member has changed.
    #[inline]
    pub fn mark(&mut self, place: Place) {
        let block = &mut self.blocks[place.block as usize];
        if block.watchers == 0 || place.index >= block.members.len() as u32 - block.entered {
            return; // nobody looks, or it is sent in full
        }
        block.dirty.push(place.index);
        self.touch(place.block);
    }

    #[inline]
    fn touch(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        if !block.is_touched {
            block.is_touched = true;
            self.touched.push(number);
        }
    }

    /// Takes the blocks in which anything happened in this tick; [`Blocks::rest`] gives them back.
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Gives back what was taken.
    pub fn give_touched(&mut self, touched: Vec<u32>) {
        self.touched = touched;
    }

    /// The blocks of a table.
    pub fn of(&self, table: u32) -> impl Iterator<Item = &Block> {
        let kept = self.by_cell.iter().filter(move |((of, _), _)| *of == table);
        kept.map(|(_, number)| self.get(*number))
    }

    /// All of this tick is encoded.
    pub fn rest(&mut self, mut touched: Vec<u32>) {
        for number in touched.drain(..) {
            let block = &mut self.blocks[number as usize];
            block.leaves.clear();
            block.dirty.clear();
            block.entered = 0;
            block.is_touched = false;
        }
        self.touched = touched;
        for number in std::mem::take(&mut self.idle) {
            let block = &self.blocks[number as usize];
            let key = (block.table, block.cell.unwrap_or_default());
            if block.holders == 0 && block.members.is_empty() && self.by_cell.get(&key) == Some(&number) {
                self.by_cell.remove(&key);
                self.free.push(number);
            }
        }
    }

    /// Where a row of a table belongs, given where it stood.
    pub fn cell_of(&self, table: &Table, row: usize, old: Option<Cell>) -> Option<Cell> {
        let at = table.position(row)?;
        Some(match old {
            Some(old) => self.cell_from(old, at),
            None => self.cell_at(at),
        })
    }
}
