//! The bytes of a snapshot: see docs/wire.md, "The world".

use crate::blocks::{Block, Part};
use crate::handle::Handle;
use crate::table::Table;
use crate::varint;

/// What a record does, in the low two bits of its head; the rest is a block's number, or one of [`Special`].
pub(crate) const CHANGES: u64 = 0;
pub(crate) const MOVES: u64 = 1;
pub(crate) const WHOLE: u64 = 2;
pub(crate) const SPECIAL: u64 = 3;

/// Records that are about no block, or say so themselves.
pub(crate) const FORGET: u64 = 0;
pub(crate) const OWN_ALL: u64 = 1;
pub(crate) const OWN_CHANGES: u64 = 2;
pub(crate) const OTHERS: u64 = 3;

/// Up to so many columns' mask stands in one number with the distance to the last row.
pub(crate) const MASK_BITS_JOINED: u32 = 5;

pub(crate) fn head(out: &mut Vec<u8>, number: u64, kind: u64) {
    varint::write(out, number << 2 | kind);
}

/// Appends what happened in a block in this tick; members left it or entered if there are `leaves`. `changed` is a scratch.
pub(crate) fn changes(
    out: &mut Vec<u8>,
    number: u32,
    block: &Block,
    leaves: Option<&[u32]>,
    table: &Table,
    changed: &mut Vec<(u32, u32)>,
) -> Part {
    let start = out.len();
    let (old, entered) = block.members.split_at(block.members.len() - block.entered as usize);
    // Each is put down, and the next one over it if it has not changed: a branch would be guessed wrong too often.
    if changed.len() < old.len() {
        changed.resize(old.len(), (0, 0));
    }
    let mut count = 0;
    for (index, &row) in (0..).zip(old) {
        changed[count] = (index, row);
        count += table.is_changed(row);
    }
    let changed = &changed[..count];
    if leaves.is_none() && changed.is_empty() {
        return Part::default();
    }
    head(out, number.into(), if leaves.is_some() { MOVES } else { CHANGES });
    if let Some(leaves) = leaves {
        varint::write(out, leaves.len() as u64);
        leaves.iter().for_each(|index| varint::write(out, (*index).into()));
        varint::write(out, entered.len() as u64);
        for row in entered {
            entity(out, table, *row as usize);
        }
    }
    varint::write(out, changed.len() as u64);
    let mut next = 0;
    for &(index, row) in changed {
        let row = row as usize;
        let mask = table.changed[row] & table.to_all;
        row_head(out, u64::from(index - next), mask, table.to_all);
        next = index + 1;
        let mut left = mask;
        while left != 0 {
            let column = left.trailing_zeros() as usize;
            table.columns[column].baseline.write_delta(table.live(column, row), row, out);
            left &= left - 1;
        }
    }
    part(start, out)
}

/// Appends all of a block.
pub(crate) fn whole(out: &mut Vec<u8>, number: u32, block: &Block, table: &Table) -> Part {
    let start = out.len();
    head(out, number.into(), WHOLE);
    varint::write(out, block.table.into());
    varint::write(out, block.members.len() as u64);
    for row in &block.members {
        entity(out, table, *row as usize);
    }
    part(start, out)
}

/// Appends what only those who don't own an entity are sent: of all members or of those that changed, without those that
/// `owner` owns.
pub(crate) fn others(
    out: &mut Vec<u8>,
    number: u32,
    block: &Block,
    table: &Table,
    owner: u64,
    all: bool,
) -> Part {
    let start = out.len();
    let old = block.members.len() as u32 - block.entered;
    let mask_of = |index: u32| {
        let row = block.members[index as usize];
        match (owner != 0 && table.owners[row as usize] == owner, all || index >= old) {
            (true, _) => 0,
            (_, true) => table.to_others,
            (_, false) => table.changed[row as usize] & table.to_others,
        }
    };
    let indices = || (0..block.members.len() as u32).filter(|index| mask_of(*index) != 0);
    let count = indices().count();
    if count == 0 {
        return Part::default();
    }
    head(out, OTHERS, SPECIAL);
    varint::write(out, number.into());
    varint::write(out, count as u64);
    let mut next = 0;
    for index in indices() {
        let mask = mask_of(index);
        row_head(out, u64::from(index - next), mask, table.to_others);
        next = index + 1;
        values(out, table, block.members[index as usize] as usize, mask);
    }
    part(start, out)
}

/// Appends which entities an owner has, and what only the owner is sent of them.
pub(crate) fn own_all<'a>(
    out: &mut Vec<u8>,
    count: usize,
    owned: impl Iterator<Item = (u32, Handle, usize, &'a Table)>,
) {
    head(out, OWN_ALL, SPECIAL);
    varint::write(out, count as u64);
    for (number, handle, row, table) in owned {
        varint::write(out, number.into());
        varint::write(out, handle.index.into());
        varint::write(out, handle.generation.into());
        values(out, table, row, table.to_owner);
    }
}

/// Appends what changed of that.
pub(crate) fn own_change(out: &mut Vec<u8>, number: u32, table: &Table, row: usize) {
    let mask = table.changed[row] & table.to_owner;
    varint::write(out, number.into());
    varint::write(out, table.handles[row].index.into());
    row_head(out, 0, mask, table.to_owner);
    values(out, table, row, mask);
}

fn entity(out: &mut Vec<u8>, table: &Table, row: usize) {
    let handle = table.handles[row];
    varint::write(out, handle.index.into());
    varint::write(out, handle.generation.into());
    values(out, table, row, table.to_all);
}

fn values(out: &mut Vec<u8>, table: &Table, row: usize, mut mask: u64) {
    while mask != 0 {
        let column = mask.trailing_zeros() as usize;
        table.columns[column].baseline.write_whole(table.live(column, row), row, out);
        mask &= mask - 1;
    }
}

/// The distance to the last row, and which of the `group`'s columns follow.
fn row_head(out: &mut Vec<u8>, gap: u64, mask: u64, group: u64) {
    let columns = group.count_ones();
    let packed = pack(mask, group);
    if columns <= MASK_BITS_JOINED {
        varint::write(out, gap << columns | packed);
        return;
    }
    varint::write(out, gap);
    out.extend_from_slice(&packed.to_le_bytes()[..columns.div_ceil(8) as usize]);
}

/// The bits of `mask` that are in `group`, side by side.
fn pack(mask: u64, group: u64) -> u64 {
    if group & (group + 1) == 0 {
        return mask; // they are already
    }
    let (mut packed, mut left, mut at) = (0, group, 0);
    while left != 0 {
        packed |= (mask >> left.trailing_zeros() & 1) << at;
        at += 1;
        left &= left - 1;
    }
    packed
}

fn part(start: usize, out: &[u8]) -> Part {
    Part { start: start as u32, len: (out.len() - start) as u32 }
}
