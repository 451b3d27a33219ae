//! The replicated world, whole: entities, their changes, and who is told.

use std::io;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::blocks::{Blocks, Part};
use crate::encode;
use crate::grid::Cell;
use crate::handle::Handle;
use crate::memory::RawColumn;
use crate::shape::{Placement, ShapeError, TableShape, WorldShape};
use crate::table::{NOWHERE, Place, Slots, Table};
use crate::view::{View, Viewer, ViewerKey};

/// Tables of entities, and the viewers that are told what changes in them.
///
/// Entities are in the cells of a uniform grid, and change cells once they are a tenth of a cell beyond their cell's border, with the
/// next move that clients are told of: with `quantize`, one of less than a step is none. A
/// viewer sees whole cells: all that have a part within its radius of a part of the cell in which it is, so it sees at least as far
/// as its radius less a fifth of a cell. What changes in a cell is encoded once per tick, whoever sees it. Sizes are in the game's units.
#[derive(Debug)]
pub struct World {
    shape: WorldShape,
    tables: Vec<Table>,
    slots: Vec<Slots>,
    globals: Vec<u32>,
    spatial: Vec<u32>,
    blocks: Blocks,
    viewers: Vec<(u32, Option<Viewer>)>,
    free_viewers: Vec<u32>,
    /// Who looks around an entity: places of viewers, by the entity's table and index.
    followers: FxHashMap<(u32, u32), SmallVec<[u32; 2]>>,
    /// Which entities an owner has, in the order of their spawning.
    owned: FxHashMap<u64, Vec<(u32, Handle)>>,
    /// Owners whose entities are others since the last tick, and in this one.
    owners_soon: Vec<u64>,
    owners_now: Vec<u64>,
    /// Entities that have another owner since the last tick.
    reowned: Vec<(u32, Handle)>,
    /// Whose private columns changed in this tick: owner, table, row.
    own_changes: Vec<(u64, u32, u32)>,
    tick: u32,
    bytes: Vec<u8>,
    faults: Faults,
    wanted: Vec<u32>,
    /// Rows that change blocks in this tick.
    strays: Vec<u32>,
    /// What of a block changed, while it is encoded: index, row.
    changed_members: Vec<(u32, u32)>,
}

/// A value that stood in a column by a write past the checks. It was put back to the last good one, and not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The table's number.
    pub table: usize,
    /// Whose value.
    pub handle: Handle,
    /// The column's number.
    pub column: usize,
}

/// What the end of a tick consists of, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// What was despawned is removed, what changed is found.
    Diff,
    /// Entities are in the cells to which they moved.
    Cells,
    /// What happened in cells that are seen is encoded.
    Encode,
}

/// Bad values of one tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many there were.
    pub count: usize,
    /// The first ones.
    pub first: Vec<Fault>,
}

const FAULTS_TOLD: usize = 16;

/// Blocks: to encode so many takes about as long as to wait for memory.
const ASKED_AHEAD: usize = 4;

impl World {
    /// An empty world.
    ///
    /// # Panics
    ///
    /// If `cell`, the side of a cell, is no finite number above 0.
    pub fn new(cell: f64) -> Self {
        assert!(cell.is_normal() && cell > 0.0, "a cell's side is {cell}; it is a number above 0");
        Self {
            shape: WorldShape::default(),
            tables: Vec::new(),
            slots: Vec::new(),
            globals: Vec::new(),
            spatial: Vec::new(),
            blocks: Blocks::new(cell),
            viewers: Vec::new(),
            free_viewers: Vec::new(),
            followers: FxHashMap::default(),
            owned: FxHashMap::default(),
            owners_soon: Vec::new(),
            owners_now: Vec::new(),
            reowned: Vec::new(),
            own_changes: Vec::new(),
            tick: 0,
            bytes: Vec::new(),
            faults: Faults::default(),
            wanted: Vec::new(),
            strays: Vec::new(),
            changed_members: Vec::new(),
        }
    }

    // -- tables ------------------------------------------------------------------------------------------------------

    /// Adds tables, and says the first one's number. They may refer to each other and to those that are there.
    pub fn add_tables(&mut self, tables: Vec<TableShape>) -> Result<usize, ShapeError> {
        let first = self.tables.len();
        let mut all = self.shape.tables().to_vec();
        all.extend(tables);
        self.shape = WorldShape::new(all)?;
        for (number, shape) in self.shape.tables().iter().enumerate().skip(first) {
            let target_of = |name: &str| self.shape.table(name).expect("checked with the shape");
            self.tables.push(Table::new(shape.clone(), target_of));
            self.slots.push(Slots::default());
            match shape.placement {
                Placement::Global => {
                    let block = self.blocks.at(number as u32, None);
                    self.globals.push(block);
                    // Never idle: it is there before its first member.
                    self.blocks.hold(block);
                }
                Placement::Spatial(_) => self.spatial.push(number as u32),
            }
        }
        self.viewers
            .iter_mut()
            .filter_map(|(_, viewer)| viewer.as_mut())
            .for_each(|viewer| viewer.is_moved = true);
        Ok(first)
    }

    /// All tables.
    pub fn shape(&self) -> &WorldShape {
        &self.shape
    }

    /// A column's changes are looked for in every so many ticks from now on.
    pub fn set_every(&mut self, table: usize, column: usize, every: u32) {
        self.shape.table_mut(table).columns[column].every = every;
        self.tables[table].shape.columns[column].every = every;
    }

    /// All rows of a column.
    pub(crate) fn column_bytes(&self, table: usize, column: usize) -> &[u8] {
        self.tables[table].bytes(column, 0, self.rows(table))
    }

    pub(crate) fn column_bytes_mut(&mut self, table: usize, column: usize) -> &mut [u8] {
        let rows = self.rows(table);
        self.tables[table].bytes_mut(column, 0, rows)
    }

    /// The side of a cell.
    pub fn cell(&self) -> f64 {
        self.blocks.grid.side
    }

    /// The number of the last tick that has ended; the first is 1.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    // -- entities ----------------------------------------------------------------------------------------------------

    /// Rows of a table: live ones, and those that were despawned in this tick.
    pub fn rows(&self, table: usize) -> usize {
        self.tables[table].rows()
    }

    /// The row of a live entity.
    #[inline]
    pub fn row(&self, table: usize, handle: Handle) -> Option<usize> {
        self.slots[table].row(handle)
    }

    /// The live entity in a row.
    #[inline]
    pub fn handle(&self, table: usize, row: usize) -> Option<Handle> {
        let handle = *self.tables[table].handles.get(row)?;
        (self.row(table, handle) == Some(row)).then_some(handle)
    }

    /// Spawns `count` entities with the columns' defaults, and says the first one's row; the others follow it. `owner` 0 is
    /// nobody.
    ///
    /// # Errors
    ///
    /// The table is full, or the system has no address space.
    pub fn spawn(&mut self, table: usize, count: usize, owner: u64) -> io::Result<usize> {
        let first = self.tables[table].spawn(&mut self.slots[table], count, owner)?;
        if owner != 0 {
            let handles = self.tables[table].handles[first..].iter();
            self.owned.entry(owner).or_default().extend(handles.map(|handle| (table as u32, *handle)));
            self.owners_soon.push(owner);
        }
        Ok(first)
    }

    /// How often each slot of a table was used before; none: nothing was ever spawned.
    pub(crate) fn generations(&self, table: usize) -> Vec<u32> {
        self.slots[table].generations()
    }

    pub(crate) fn spawn_as(
        &mut self,
        table: usize,
        generations: &[u32],
        handles: &[Handle],
    ) -> io::Result<()> {
        self.tables[table].spawn_as(&mut self.slots[table], generations, handles)
    }

    pub(crate) fn set_tick(&mut self, tick: u32) {
        self.tick = tick;
    }

    /// Ends an entity: its handle is stale at once, its row goes at the tick's end. False if it was stale.
    pub fn despawn(&mut self, table: usize, handle: Handle) -> bool {
        let owner = self.owner(table, handle);
        let is_gone = self.tables[table].despawn(&mut self.slots[table], handle);
        if let Some(owner) = owner {
            self.disown(owner, table, handle);
        }
        is_gone
    }

    /// Who owns an entity.
    pub fn owner(&self, table: usize, handle: Handle) -> Option<u64> {
        let row = self.row(table, handle)?;
        Some(self.tables[table].owners[row]).filter(|&owner| owner != 0)
    }

    /// Gives an entity to another owner; 0: to nobody.
    pub fn set_owner(&mut self, table: usize, handle: Handle, owner: u64) {
        let Some(row) = self.row(table, handle) else { return };
        let old = std::mem::replace(&mut self.tables[table].owners[row], owner);
        if old == owner {
            return;
        }
        if old != 0 {
            self.disown(old, table, handle);
        }
        if owner != 0 {
            self.owned.entry(owner).or_default().push((table as u32, handle));
            self.owners_soon.push(owner);
        }
        self.reowned.push((table as u32, handle));
    }

    /// The entities of an owner, in the order in which it got them.
    pub fn owned(&self, owner: u64) -> impl Iterator<Item = (usize, Handle)> {
        self.owned.get(&owner).into_iter().flatten().map(|(table, handle)| (*table as usize, *handle))
    }

    fn disown(&mut self, owner: u64, table: usize, handle: Handle) {
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.retain(|one| *one != (table as u32, handle));
            if owned.is_empty() {
                self.owned.remove(&owner);
            }
        }
        self.owners_soon.push(owner);
    }

    // -- values ------------------------------------------------------------------------------------------------------

    /// The bytes of a value.
    #[inline]
    pub fn value(&self, table: usize, column: usize, row: usize) -> &[u8] {
        self.tables[table].bytes(column, row, 1)
    }

    /// The same, to write: what is no value of the column is put back at the tick's end.
    #[inline]
    pub fn value_mut(&mut self, table: usize, column: usize, row: usize) -> &mut [u8] {
        self.tables[table].bytes_mut(column, row, 1)
    }

    /// All rows of a column, to be lent.
    pub fn column(&self, table: usize, column: usize) -> RawColumn {
        self.tables[table].raw_column(column)
    }

    pub(crate) fn table(&self, table: usize) -> &Table {
        &self.tables[table]
    }

    /// Bytes of memory of all entities, all in.
    pub fn memory_bytes(&self) -> usize {
        self.tables.iter().map(Table::memory_bytes).sum()
    }

    // -- viewers -----------------------------------------------------------------------------------------------------

    /// Somebody looks; `owner` is whose entities they own, or 0.
    pub fn add_viewer(&mut self, owner: u64, view: View) -> ViewerKey {
        let viewer = Viewer::new(owner, view);
        let slot = self.free_viewers.pop().unwrap_or_else(|| {
            self.viewers.push((0, None));
            self.viewers.len() as u32 - 1
        });
        self.follow(slot, &viewer.view);
        let (generation, place) = &mut self.viewers[slot as usize];
        *place = Some(viewer);
        ViewerKey { slot, generation: *generation }
    }

    /// They look no more.
    pub fn remove_viewer(&mut self, key: ViewerKey) {
        let Some((generation, place)) = self.viewers.get_mut(key.slot as usize) else { return };
        if *generation != key.generation {
            return;
        }
        if let Some(mut viewer) = place.take() {
            viewer.release(&mut self.blocks);
            *generation = generation.wrapping_add(1);
            self.free_viewers.push(key.slot);
            self.unfollow(key.slot, &viewer.view);
        }
    }

    /// They look at something else.
    pub fn set_view(&mut self, key: ViewerKey, view: View) {
        let Some(viewer) = viewer(&mut self.viewers, key) else { return };
        viewer.is_moved = true;
        let old = std::mem::replace(&mut viewer.view, view.clone());
        self.unfollow(key.slot, &old);
        self.follow(key.slot, &view);
    }

    fn follow(&mut self, viewer: u32, view: &View) {
        if let View::Entity { table, handle, .. } = view {
            self.followers.entry((*table as u32, handle.index)).or_default().push(viewer);
        }
    }

    fn unfollow(&mut self, viewer: u32, view: &View) {
        let View::Entity { table, handle, .. } = view else { return };
        let key = (*table as u32, handle.index);
        if let Some(followers) = self.followers.get_mut(&key) {
            followers.retain(|other| *other != viewer);
            if followers.is_empty() {
                self.followers.remove(&key);
            }
        }
    }

    /// What they look at.
    pub fn view(&self, key: ViewerKey) -> Option<&View> {
        let (generation, viewer) = self.viewers.get(key.slot as usize)?;
        viewer.as_ref().filter(|_| *generation == key.generation).map(|viewer| &viewer.view)
    }

    /// The snapshot of this tick was applied by their client.
    pub fn arrived(&mut self, key: ViewerKey, tick: u32) {
        if let Some(viewer) = viewer(&mut self.viewers, key) {
            viewer.arrived(tick, &mut self.blocks);
        }
    }

    /// The snapshot of this tick never will be.
    pub fn lost(&mut self, key: ViewerKey, tick: u32) {
        if let Some(viewer) = viewer(&mut self.viewers, key) {
            viewer.lost(tick);
        }
    }

    /// Their client is another one, or has come back: it has nothing.
    pub fn forget(&mut self, key: ViewerKey) {
        if let Some(viewer) = viewer(&mut self.viewers, key) {
            viewer.forget(&mut self.blocks);
        }
    }

    /// The cells that are seen or have entities: cell, entities, viewers. For a map of who sees what.
    pub fn map(&self, table: usize) -> Vec<(Option<Cell>, usize, usize)> {
        let mut cells: Vec<_> = self
            .blocks
            .of(table as u32)
            .map(|(cell, members, watchers)| (cell, members, watchers as usize))
            .collect();
        cells.sort_unstable();
        cells
    }

    // -- the end of a tick -------------------------------------------------------------------------------------------

    /// Ends the tick: finds what changed, removes what was despawned, moves entities between cells, and encodes what
    /// happened in cells that are seen. Then [`World::snapshot`] can be asked for.
    pub fn end_tick(&mut self) -> &Faults {
        self.end_tick_with(|_| ())
    }

    /// The same; `passed` is told when each phase is over.
    pub fn end_tick_with(&mut self, mut passed: impl FnMut(Phase)) -> &Faults {
        self.tick = self.tick.wrapping_add(1).max(1);
        self.bytes.clear();
        self.faults.count = 0;
        self.faults.first.clear();
        self.own_changes.clear();
        std::mem::swap(&mut self.owners_now, &mut self.owners_soon);
        self.owners_soon.clear();
        self.owners_now.sort_unstable();
        self.owners_now.dedup();
        let touched = self.blocks.take_touched();
        self.blocks.rest(touched);

        for table in 0..self.tables.len() {
            self.remove_despawned(table);
        }
        self.find_changes();
        passed(Phase::Diff);
        for table in 0..self.tables.len() {
            self.change_cells(table);
        }
        passed(Phase::Cells);
        for table in 0..self.tables.len() {
            self.mark_changed(table);
        }
        self.own_changes.sort_unstable();
        self.encode();
        self.tables.iter_mut().for_each(Table::settle);
        passed(Phase::Encode);
        &self.faults
    }

    fn find_changes(&mut self) {
        let Self { tables, slots, faults, tick, reowned, .. } = self;
        let live = |table: usize, bits: u64| {
            Handle::from_bits(bits).is_some_and(|handle| slots[table].row(handle).is_some())
        };
        for (number, table) in tables.iter_mut().enumerate() {
            table.diff(*tick, &live, |handle, column| {
                faults.count += 1;
                if faults.first.len() < FAULTS_TOLD {
                    faults.first.push(Fault { table: number, handle, column });
                }
            });
        }
        for (number, handle) in reowned.drain(..) {
            if let Some(row) = slots[number as usize].row(handle) {
                let table = &mut tables[number as usize];
                table.changed[row] |= table.to_others;
            }
        }
    }

    fn remove_despawned(&mut self, number: usize) {
        let Self { tables, slots, blocks, .. } = self;
        let table = &mut tables[number];
        for i in 0..table.doomed.len() {
            leave(table, blocks, table.doomed[i] as usize);
        }
        table.compact(&mut slots[number], |place, row| blocks.set_row(place, row));
    }

    /// Those that are new, and those that went over a border. In a block all leave before others enter.
    fn change_cells(&mut self, number: usize) {
        let Self { tables, blocks, strays, followers, viewers, .. } = self;
        let table = &mut tables[number];
        strays.clear();
        table.strays(&blocks.grid, strays);
        for &row in &*strays {
            leave(table, blocks, row as usize);
        }
        for &row in &*strays {
            let cell = table.position(row as usize).map(|at| blocks.grid.cell_at(at));
            let block = blocks.at(number as u32, cell);
            table.places[row as usize] = blocks.enter(block, row);
        }
        if followers.is_empty() {
            return;
        }
        for &row in &*strays {
            let index = table.handles[row as usize].index;
            for &follower in followers.get(&(number as u32, index)).into_iter().flatten() {
                if let Some(viewer) = &mut viewers[follower as usize].1 {
                    viewer.is_moved = true;
                }
            }
        }
    }

    fn mark_changed(&mut self, number: usize) {
        let Self { tables, blocks, own_changes, .. } = self;
        let table = &mut tables[number];
        table.gather_changed(|place| blocks.mark(place));
        if table.to_owner == 0 {
            return;
        }
        for (row, (&changed, &owner)) in table.changed.iter().zip(&table.owners).enumerate() {
            if changed & table.to_owner != 0 && owner != 0 {
                own_changes.push((owner, number as u32, row as u32));
            }
        }
    }

    fn encode(&mut self) {
        let Self { tables, blocks, bytes, tick, changed_members, .. } = self;
        let mut touched = blocks.take_touched();
        // As they stand in memory; and what a viewer sees is in fewer parts.
        touched.sort_unstable();
        // A block is asked for its table while those before it are encoded, so that its memory is there when its turn comes.
        let table_of =
            |blocks: &Blocks, i: usize| touched.get(i).map_or(0, |number| blocks.get(*number).table);
        let mut ahead: [u32; ASKED_AHEAD] = std::array::from_fn(|i| table_of(blocks, i));
        for (i, &number) in touched.iter().enumerate() {
            let table = &tables[ahead[i % ASKED_AHEAD] as usize];
            ahead[i % ASKED_AHEAD] = table_of(blocks, i + ASKED_AHEAD);
            let mark = blocks.marks[number as usize];
            if mark.watchers == 0 {
                continue;
            }
            let block = blocks.get(number);
            let leaves = mark.has_moves.then(|| &blocks.rare[number as usize].leaves[..]);
            let delta = encode::changes(bytes, number, block, leaves, table, changed_members);
            let others = match table.to_others {
                0 => Part::default(),
                _ => encode::others(bytes, number, block, table, 0, false),
            };
            if delta.len + others.len > 0 {
                let mark = &mut blocks.marks[number as usize];
                (mark.changed_at, mark.delta, mark.others) = (*tick, delta, others);
            }
        }
        blocks.give_touched(touched);
    }

    // -- snapshots ---------------------------------------------------------------------------------------------------

    /// Chooses the cells that a viewer sees from now on, as [`World::snapshot`] does first.
    #[inline]
    pub fn look(&mut self, key: ViewerKey) {
        let Self { tables, slots, globals, spatial, blocks, viewers, wanted, .. } = self;
        let Some(viewer) = viewer(viewers, key) else { return };
        let around = |table: usize, handle: Handle| {
            let place = tables[table].places.get(slots[table].row(handle)?)?;
            (tables[table].to_place != 0 && !place.is_nowhere()).then_some(place.cell)
        };
        viewer.look(blocks, globals, spatial, around, wanted);
    }

    /// What a viewer is to be sent of the tick that has ended, as parts of [`World::bytes`], put behind those in `parts`. False,
    /// and nothing, if nothing is new to it. The snapshot is outstanding until [`World::arrived`] or [`World::lost`].
    pub fn snapshot(&mut self, key: ViewerKey, parts: &mut Vec<Part>) -> bool {
        self.look(key);
        let Self { tables, slots, blocks, viewers, owned, bytes, tick, .. } = self;
        let Some(viewer) = viewer(viewers, key) else { return false };
        let tick = *tick;
        let owner = viewer.owner;
        let owned = || -> &[(u32, Handle)] {
            match owner {
                0 => &[],
                owner => owned.get(&owner).map_or(&[], Vec::as_slice),
            }
        };
        let first = parts.len();
        parts.push(Part::default()); // its own part, which is written at the end
        let mut forgets = 0;
        for i in 0..viewer.seen.len() {
            let seen = viewer.seen[i];
            let has = viewer.has(seen.sent_in);
            if seen.is_over {
                // Told again until it is known to have arrived.
                forgets += 1;
                viewer.seen[i].sent_in = tick;
                continue;
            }
            let mark = blocks.marks[seen.block as usize];
            if has && mark.changed_at != tick {
                continue;
            }
            viewer.seen[i].sent_in = tick;
            if has {
                push(parts, mark.delta);
                if mark.others.len == 0 {
                    continue;
                }
            }
            let block = blocks.get(seen.block);
            let table = &tables[block.table as usize];
            let mut others = mark.others;
            if !has {
                if blocks.rare[seen.block as usize].whole_at != tick {
                    let whole = encode::whole(bytes, seen.block, block, table);
                    let whole_others = match table.to_others {
                        0 => Part::default(),
                        _ => encode::others(bytes, seen.block, block, table, 0, true),
                    };
                    let rare = &mut blocks.rare[seen.block as usize];
                    (rare.whole_at, rare.whole, rare.whole_others) = (tick, whole, whole_others);
                }
                let rare = &blocks.rare[seen.block as usize];
                push(parts, rare.whole);
                others = rare.whole_others;
            }
            let block = blocks.get(seen.block);
            let is_in = |(number, handle): &(u32, Handle)| {
                *number == block.table
                    && slots[*number as usize]
                        .row(*handle)
                        .is_some_and(|row| table.places[row].block == seen.block)
            };
            if others.len > 0 && owned().iter().any(is_in) {
                others = encode::others(bytes, seen.block, block, table, owner, !has);
            }
            push(parts, others);
        }

        let changes = {
            let from = self.own_changes.partition_point(|(owner, ..)| *owner < viewer.owner);
            let count = self.own_changes[from..].partition_point(|(owner, ..)| *owner == viewer.owner);
            &self.own_changes[from..from + count]
        };
        let owns_others = self.owners_now.binary_search(&viewer.owner).is_ok();
        let has_own = viewer.has(viewer.own_sent_in) && !owns_others;
        let is_own_due = viewer.owner != 0 && (!has_own || !changes.is_empty());
        // Who never had anything, and has nothing now, need not be told.
        let is_own_due = is_own_due && (has_own || owns_others || !viewer.is_new || !owned().is_empty());
        if parts.len() == first + 1 && forgets == 0 && !is_own_due && !viewer.is_new {
            parts.truncate(first);
            return false;
        }
        let start = bytes.len();
        crate::varint::write(bytes, u64::from(tick) << 1 | u64::from(viewer.is_new));
        for seen in viewer.seen.iter().filter(|seen| seen.is_over) {
            encode::head(bytes, encode::FORGET, encode::SPECIAL);
            crate::varint::write(bytes, seen.block.into());
        }
        let is_own_first = is_own_due;
        if is_own_first {
            if has_own {
                encode::head(bytes, encode::OWN_CHANGES, encode::SPECIAL);
                crate::varint::write(bytes, changes.len() as u64);
                for &(_, table, row) in changes {
                    encode::own_change(bytes, table, &tables[table as usize], row as usize);
                }
            } else {
                let owned = owned();
                let rows = owned.iter().filter_map(|&(number, handle)| {
                    let table = &tables[number as usize];
                    Some((number, handle, slots[number as usize].row(handle)?, table))
                });
                encode::own_all(bytes, owned.len(), rows);
            }
            viewer.own_sent_in = tick;
        }
        parts[first] = Part { start: start as u32, len: (bytes.len() - start) as u32 };
        viewer.outstanding.push(tick);
        true
    }

    /// What this tick's snapshots are parts of.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn viewer(viewers: &mut [(u32, Option<Viewer>)], key: ViewerKey) -> Option<&mut Viewer> {
    let (generation, viewer) = viewers.get_mut(key.slot as usize)?;
    viewer.as_mut().filter(|_| *generation == key.generation)
}

fn push(parts: &mut Vec<Part>, part: Part) {
    if part.len == 0 {
        return;
    }
    match parts.last_mut() {
        Some(last) if last.len > 0 && last.start + last.len == part.start => last.len += part.len,
        _ => parts.push(part),
    }
}

fn leave(table: &mut Table, blocks: &mut Blocks, row: usize) {
    let place: Place = std::mem::replace(&mut table.places[row], NOWHERE);
    if place.is_nowhere() {
        return;
    }
    if let Some(moved) = blocks.leave(place) {
        table.places[moved as usize] = place;
    }
}
