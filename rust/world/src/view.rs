//! What each viewer sees, and what its client has of it.

use smallvec::SmallVec;

use crate::blocks::Blocks;
use crate::grid::Cell;
use crate::handle::Handle;

/// What a viewer looks at, beside global tables, which all see. Views are whole cells: see [`crate::World`].
#[derive(Clone, Debug, Default, PartialEq)]
pub enum View {
    /// Global tables alone.
    #[default]
    Nothing,
    /// Around an entity of a table, wherever it goes; once it is gone, where it was last.
    Entity {
        /// Its table.
        table: usize,
        /// Which.
        handle: Handle,
        /// How far.
        radius: f64,
    },
    /// Around a place: a camera.
    Point {
        /// Where.
        at: [f64; 2],
        /// How far.
        radius: f64,
    },
    /// These cells.
    Cells(Vec<Cell>),
    /// Everything there is.
    Everything,
}

/// A viewer of a world; of no meaning once it is removed, and never another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewerKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// One viewer.
#[derive(Debug)]
pub(crate) struct Viewer {
    /// Whose entities it owns; 0: nobody's.
    pub owner: u64,
    pub view: View,
    /// The view is another one than the blocks were chosen by, or what is followed has changed cells.
    pub is_moved: bool,
    /// The cell around which the blocks were chosen.
    anchor: Option<Cell>,
    /// Of the blocks, when everything is seen.
    epoch: u64,
    /// Blocks that its client may have, by number.
    pub seen: SmallVec<[Seen; SEEN_INLINE]>,
    /// Ticks of snapshots of which it is not known whether they arrived.
    pub outstanding: SmallVec<[u32; 2]>,
    /// When its own part was last sent; 0: not, or it is lost.
    pub own_sent_in: u32,
    /// Its client is to forget all it has, and is not known to have done so.
    pub is_new: bool,
}

/// Nine cells of one table, and some that are left: at a tick's end viewers are walked one after the other, and a list elsewhere would be another
/// miss of the caches for each.
const SEEN_INLINE: usize = 12;

/// What a viewer's client has of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub block: u32,
    /// The snapshot that last said something of it; 0: none, or it is lost.
    pub sent_in: u32,
    /// The client is to forget it, or was told so in `sent_in`.
    pub is_over: bool,
}

impl Viewer {
    pub fn new(owner: u64, view: View) -> Self {
        Self {
            owner,
            view,
            is_moved: true,
            anchor: None,
            epoch: 0,
            seen: SmallVec::new(),
            outstanding: SmallVec::new(),
            own_sent_in: 0,
            is_new: true,
        }
    }

    /// Its client has nothing.
    pub fn forget(&mut self, blocks: &mut Blocks) {
        self.is_new = true;
        self.outstanding.clear();
        self.own_sent_in = 0;
        self.seen.retain_mut(|seen| {
            seen.sent_in = 0;
            if seen.is_over {
                blocks.release(seen.block);
            }
            !seen.is_over
        });
    }

    /// A snapshot was applied.
    pub fn arrived(&mut self, tick: u32, blocks: &mut Blocks) {
        let Some(at) = self.outstanding.iter().position(|&out| out == tick) else { return };
        self.outstanding.swap_remove(at);
        self.is_new = false;
        self.seen.retain(|seen| {
            let is_done = seen.is_over && seen.sent_in == tick;
            if is_done {
                blocks.release(seen.block);
            }
            !is_done
        });
    }

    /// A snapshot was not applied, and never will be.
    pub fn lost(&mut self, tick: u32) {
        let Some(at) = self.outstanding.iter().position(|&out| out == tick) else { return };
        self.outstanding.swap_remove(at);
        for seen in &mut self.seen {
            if seen.sent_in == tick {
                seen.sent_in = 0;
            }
        }
        if self.own_sent_in == tick {
            self.own_sent_in = 0;
        }
    }

    /// Whether the client has what was last sent in this snapshot.
    #[inline]
    pub fn has(&self, sent_in: u32) -> bool {
        sent_in != 0 && !self.outstanding.contains(&sent_in)
    }

    /// Chooses the blocks anew if that may give others. `around` is where the followed entity is, if it is anywhere; `globals`
    /// are the blocks of global tables, and `tables` the others.
    pub fn look(
        &mut self,
        blocks: &mut Blocks,
        globals: &[u32],
        tables: &[u32],
        around: impl Fn(usize, Handle) -> Option<Cell>,
        wanted: &mut Vec<u32>,
    ) {
        let (anchor, radius) = match &self.view {
            View::Entity { .. } if !self.is_moved => return,
            View::Entity { table, handle, radius } => (around(*table, *handle).or(self.anchor), *radius),
            View::Point { at, radius } => (
                Some(match self.anchor {
                    Some(old) if !self.is_moved || blocks.grid.keeps(old, *at) => old,
                    _ => blocks.grid.cell_at(*at),
                }),
                *radius,
            ),
            View::Everything if self.epoch == blocks.epoch && !self.is_moved => return,
            _ => (None, 0.0),
        };
        if !self.is_moved && anchor == self.anchor && !matches!(self.view, View::Everything) {
            return;
        }
        (self.is_moved, self.anchor) = (false, anchor);
        wanted.clear();
        wanted.extend_from_slice(globals);
        match &self.view {
            View::Everything => {
                wanted.extend(blocks.filled());
                self.epoch = blocks.epoch;
            }
            View::Cells(cells) => {
                wanted.extend(
                    cells
                        .iter()
                        .flat_map(|cell| tables.iter().map(|table| (*table, *cell)))
                        .map(|(table, cell)| blocks.at(table, Some(cell))),
                );
            }
            _ => {
                if let Some(anchor) = anchor {
                    let grid = blocks.grid;
                    grid.around(anchor, radius, |cell| {
                        wanted.extend(tables.iter().map(|table| blocks.at(*table, Some(cell))));
                    });
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.take(wanted, blocks);
    }

    /// Merges: `wanted` and `seen` are both by number.
    fn take(&mut self, wanted: &[u32], blocks: &mut Blocks) {
        for seen in &mut self.seen {
            let is_over = wanted.binary_search(&seen.block).is_err();
            if is_over == seen.is_over {
                continue;
            }
            if is_over {
                blocks.unwatch(seen.block);
            } else {
                blocks.watch(seen.block);
            }
            // To be forgotten, or sent in full: neither was.
            (seen.is_over, seen.sent_in) = (is_over, 0);
        }
        let old = self.seen.len();
        for &block in wanted {
            if self.seen[..old].binary_search_by_key(&block, |seen| seen.block).is_err() {
                blocks.hold(block);
                self.seen.push(Seen { block, sent_in: 0, is_over: false });
            }
        }
        self.seen.sort_unstable_by_key(|seen| seen.block);
    }

    /// It is gone.
    pub fn release(&mut self, blocks: &mut Blocks) {
        for seen in self.seen.drain(..) {
            if !seen.is_over {
                blocks.unwatch(seen.block);
            }
            blocks.release(seen.block);
        }
    }
}
