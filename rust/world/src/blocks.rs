//! Blocks: what is encoded once for all who see it. A block is the entities of one table in one cell of a uniform grid, or
//! all of a global table.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::grid::{Cell, Grid};
use crate::table::Place;

/// A range of the bytes that a tick encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u32,
    /// How many.
    pub len: u32,
}

/// One line of the processor's caches: each block that changed is a miss of them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Block {
    pub table: u32,
    /// In this tick so many members entered, at the end.
    pub entered: u32,
    /// Rows, in the order that clients know too.
    pub members: SmallVec<[u32; MEMBERS_INLINE]>,
}

const _: () = assert!(size_of::<Block>() == 64);

/// What is asked of a block only when somebody comes, leaves, or has to be told all.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// `None` of a global table.
    pub cell: Option<Cell>,
    /// Viewers whose clients may have it: those who watch it, and those that were not yet told to forget it.
    pub holders: u32,
    /// In this tick: indices from which members left, in their order.
    pub leaves: Vec<u32>,
    /// The last tick in which all of it was encoded, and that.
    pub whole_at: u32,
    pub whole: Part,
    pub whole_others: Part,
}

/// Of a cell that is not crowded: a list elsewhere would be another miss.
const MEMBERS_INLINE: usize = 10;

/// What is asked of a block for every entity and every viewer, close together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// Viewers that are to be sent what changes.
    pub watchers: u32,
    /// The last tick in which anything was to be sent, and that.
    pub changed_at: u32,
    pub delta: Part,
    pub others: Part,
    is_touched: bool,
    /// In this tick members left or entered.
    pub has_moves: bool,
}

/// All blocks. Their numbers are small, used again, and what clients know them by.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub grid: Grid,
    blocks: Vec<Block>,
    /// One of each block.
    pub marks: Vec<Mark>,
    /// One of each block.
    pub rare: Vec<Rare>,
    by_cell: FxHashMap<(u32, Cell), u32>,
    free: Vec<u32>,
    touched: Vec<u32>,
    /// Perhaps of use to nobody.
    idle: Vec<u32>,
    /// Another number whenever a block gets its first member or loses its last.
    pub epoch: u64,
}

impl Blocks {
    pub fn new(side: f64) -> Self {
        Self {
            grid: Grid::new(side),
            blocks: Vec::new(),
            marks: Vec::new(),
            rare: Vec::new(),
            by_cell: FxHashMap::default(),
            free: Vec::new(),
            touched: Vec::new(),
            idle: Vec::new(),
            epoch: 0,
        }
    }

    pub fn get(&self, block: u32) -> &Block {
        &self.blocks[block as usize]
    }

    /// Blocks that have members, by number.
    pub fn filled(&self) -> impl Iterator<Item = u32> {
        let filled = self.blocks.iter().enumerate().filter(|(_, block)| !block.members.is_empty());
        filled.map(|(number, _)| number as u32)
    }

    /// The block of a table in a cell, or of a global table.
    pub fn at(&mut self, table: u32, cell: Option<Cell>) -> u32 {
        let key = (table, cell.unwrap_or_default());
        if let Some(&block) = self.by_cell.get(&key) {
            return block;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            self.marks.push(Mark::default());
            self.rare.push(Rare::default());
            self.blocks.len() as u32 - 1
        });
        self.blocks[number as usize] = Block { table, ..Block::default() };
        self.marks[number as usize] = Mark::default();
        self.rare[number as usize] = Rare { cell, ..Rare::default() };
        self.by_cell.insert(key, number);
        number
    }

    /// A viewer begins to hold it.
    pub fn hold(&mut self, block: u32) {
        self.watch(block);
        self.rare[block as usize].holders += 1;
    }

    /// It is not watched any more; its client has yet to be told.
    pub fn unwatch(&mut self, block: u32) {
        self.marks[block as usize].watchers -= 1;
    }

    /// It was not watched any more, and is again.
    pub fn watch(&mut self, block: u32) {
        self.marks[block as usize].watchers += 1;
    }

    /// No client of this viewer has it any more.
    pub fn release(&mut self, block: u32) {
        self.rare[block as usize].holders -= 1;
        self.idle.push(block);
    }

    /// A member leaves: the last one takes its place. Returns the row of that.
    pub fn leave(&mut self, place: Place) -> Option<u32> {
        self.touch_moved(place.block);
        let block = &mut self.blocks[place.block as usize];
        block.members.swap_remove(place.index as usize);
        if self.marks[place.block as usize].watchers > 0 {
            self.rare[place.block as usize].leaves.push(place.index);
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
        self.touch_moved(number);
        let block = &mut self.blocks[number as usize];
        block.members.push(row);
        block.entered += 1;
        if block.members.len() == 1 {
            self.epoch += 1;
        }
        let cell = self.rare[number as usize].cell.unwrap_or_default();
        Place { block: number, index: block.members.len() as u32 - 1, cell }
    }

    /// A member is in another row.
    pub fn set_row(&mut self, place: Place, row: u32) {
        if !place.is_nowhere() {
            self.blocks[place.block as usize].members[place.index as usize] = row;
        }
    }

    /// A member has changed.
    #[inline]
    pub fn mark(&mut self, place: Place) {
        if self.marks[place.block as usize].watchers > 0 {
            self.touch(place.block);
        }
    }

    #[inline]
    fn touch(&mut self, number: u32) {
        let mark = &mut self.marks[number as usize];
        if !mark.is_touched {
            mark.is_touched = true;
            self.touched.push(number);
        }
    }

    fn touch_moved(&mut self, number: u32) {
        self.touch(number);
        self.marks[number as usize].has_moves = true;
    }

    /// Takes the blocks in which anything happened in this tick; [`Blocks::rest`] gives them back.
    pub fn take_touched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Gives back what was taken.
    pub fn give_touched(&mut self, touched: Vec<u32>) {
        self.touched = touched;
    }

    /// The blocks of a table: cell, members, and how many viewers watch it.
    pub fn of(&self, table: u32) -> impl Iterator<Item = (Option<Cell>, usize, u32)> {
        let kept = self.by_cell.iter().filter(move |((of, _), _)| *of == table);
        kept.map(|(_, &number)| {
            let (cell, watchers) = (self.rare[number as usize].cell, self.marks[number as usize].watchers);
            (cell, self.get(number).members.len(), watchers)
        })
    }

    /// All of this tick is encoded.
    pub fn rest(&mut self, mut touched: Vec<u32>) {
        for number in touched.drain(..) {
            let mark = &mut self.marks[number as usize];
            mark.is_touched = false;
            if std::mem::take(&mut mark.has_moves) {
                self.rare[number as usize].leaves.clear();
                self.blocks[number as usize].entered = 0;
            }
        }
        self.touched = touched;
        for number in std::mem::take(&mut self.idle) {
            let (block, rare) = (&self.blocks[number as usize], &self.rare[number as usize]);
            let key = (block.table, rare.cell.unwrap_or_default());
            if rare.holders == 0 && block.members.is_empty() && self.by_cell.get(&key) == Some(&number) {
                self.by_cell.remove(&key);
                self.free.push(number);
            }
        }
    }
}
