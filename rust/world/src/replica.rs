//! What a client knows of the world: shape and snapshots in, entities out. Bytes may be anybody's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::encode::{CHANGES, FORGET, MASK_BITS_JOINED, MOVES, OTHERS, OWN_ALL, OWN_CHANGES, SPECIAL, WHOLE};
use crate::handle::Handle;
use crate::shape::{Audience, ColumnShape, Kind, Number, WorldShape};
use crate::value::Value;
use crate::varint;

/// The entities that a client was told of.
#[derive(Debug)]
pub struct Replica {
    shape: WorldShape,
    plans: Vec<Plan>,
    entities_max: usize,
    tick: u32,
    blocks: HashMap<u32, Block>,
    entities: HashMap<Key, Entity>,
    own: HashMap<Key, Own>,
    own_order: Vec<Key>,
    touched: Vec<(Key, Option<u32>)>,
    changes: Vec<Change>,
    /// Of all snapshots, by table; the last one has what belongs to none.
    bytes: Vec<u64>,
}

/// What a snapshot did to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came into view.
    Added(usize, Handle),
    /// It was told anew, in part or whole.
    Changed(usize, Handle),
    /// It went out of view, or is no more.
    Removed(usize, Handle),
}

/// Why bytes are no snapshot that this replica can take. It is of no use any more: a client asks for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of a snapshot: {what}")]
pub struct ReplicaError {
    /// Where.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// A table's number, and an entity's index.
type Key = (u32, u32);

#[derive(Debug, Default)]
struct Block {
    table: u32,
    members: Vec<u32>,
}

#[derive(Debug)]
struct Entity {
    generation: u32,
    /// The block that told of it last: another that has it no more says nothing of it.
    block: u32,
    /// Of all columns, in their order; of those that it was not told, nothing.
    items: Vec<Item>,
}

#[derive(Debug)]
struct Own {
    generation: u32,
    items: Vec<Item>,
}

/// A value as deltas build on it.
#[derive(Clone, Debug, Default)]
enum Item {
    #[default]
    None,
    /// Whole numbers, enums, bools, and steps of quantised ones.
    Int(i64),
    Ints([i64; 3]),
    Float(f64),
    Floats([f64; 3]),
    Bytes(Box<[u8]>),
    Reference(Option<Handle>),
    List(Box<[Item]>),
}

/// Columns of a table by audience.
#[derive(Debug)]
struct Plan {
    to_all: Vec<usize>,
    to_owner: Vec<usize>,
    to_others: Vec<usize>,
}

impl Replica {
    /// A replica of a world of this shape ([`WorldShape::for_clients`]), that takes at most `entities_max` entities at a time.
    pub fn new(shape: WorldShape, entities_max: usize) -> Self {
        let plans = shape.tables().iter().map(|table| {
            let to = |audience| {
                let columns = table.columns.iter().enumerate();
                columns.filter(|(_, column)| column.audience == audience).map(|(i, _)| i).collect()
            };
            Plan { to_all: to(Audience::All), to_owner: to(Audience::Owner), to_others: to(Audience::Others) }
        });
        Self {
            bytes: vec![0; shape.tables().len() + 1],
            plans: plans.collect(),
            shape,
            entities_max,
            tick: 0,
            blocks: HashMap::new(),
            entities: HashMap::new(),
            own: HashMap::new(),
            own_order: Vec::new(),
            touched: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What it is of.
    pub fn shape(&self) -> &WorldShape {
        &self.shape
    }

    /// The tick of the last snapshot that was applied; 0: none was.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// Takes a snapshot, and says what it changed. `None`: one that is not newer than the last, and was not looked at.
    ///
    /// # Errors
    ///
    /// The bytes are no snapshot, or one that does not follow the last.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<Option<&[Change]>, ReplicaError> {
        let mut from = Reader { bytes, at: 0 };
        let head = from.number()?;
        let tick = u32::try_from(head >> 1).map_err(|_| from.error("a tick beyond 32 bits"))?;
        if self.tick != 0 && tick.wrapping_sub(self.tick) as i32 <= 0 {
            return Ok(None);
        }
        self.touched.clear();
        self.changes.clear();
        if head & 1 != 0 {
            self.forget_all();
        }
        while !from.is_empty() {
            let start = from.at;
            let table = self.take_record(&mut from)?.map_or(self.plans.len(), |table| table as usize);
            self.bytes[table] += (from.at - start) as u64;
        }
        self.tick = tick;
        self.tell();
        Ok(Some(&self.changes))
    }

    /// Bytes of all snapshots so far of a table or, without one, of what belongs to none.
    pub fn bytes(&self, table: Option<usize>) -> u64 {
        self.bytes[table.unwrap_or(self.plans.len())]
    }

    /// How many entities are in view, of all tables.
    pub fn count(&self) -> usize {
        self.entities.len()
    }

    /// The entities of a table that are in view, by handle.
    pub fn entities(&self, table: usize) -> Vec<Handle> {
        let mut handles: Vec<_> = self
            .entities
            .iter()
            .filter(|((of, _), _)| *of as usize == table)
            .map(|((_, index), entity)| Handle { index: *index, generation: entity.generation })
            .collect();
        handles.sort_unstable();
        handles
    }

    /// The entities that this client owns, in view or not: table and handle, in the order in which it got them.
    pub fn owned(&self) -> Vec<(usize, Handle)> {
        let handle = |key: &Key| Handle { index: key.1, generation: self.own[key].generation };
        self.own_order.iter().map(|key| (key.0 as usize, handle(key))).collect()
    }

    /// A value of an entity; `None`: the entity is not in view, or the column is not told to this client.
    pub fn value(&self, table: usize, handle: Handle, column: usize) -> Option<Value> {
        let key = (table as u32, handle.index);
        let shape = self.shape.tables().get(table)?.columns.get(column)?;
        let item = if shape.audience == Audience::Owner {
            let own = self.own.get(&key).filter(|own| own.generation == handle.generation)?;
            own.items.get(column)?
        } else {
            let entity = self.entities.get(&key).filter(|entity| entity.generation == handle.generation)?;
            entity.items.get(column)?
        };
        item.value(shape)
    }

    // -- records -----------------------------------------------------------------------------------------------------

    /// Says which table it was about, if one.
    fn take_record(&mut self, from: &mut Reader<'_>) -> Result<Option<u32>, ReplicaError> {
        let head = from.number()?;
        let number = u32::try_from(head >> 2).map_err(|_| from.error("a block's number beyond 32 bits"))?;
        match head & 3 {
            CHANGES => self.take_changes(from, number, false).map(Some),
            MOVES => self.take_changes(from, number, true).map(Some),
            WHOLE => self.take_whole(from, number).map(Some),
            SPECIAL => match u64::from(number) {
                FORGET => {
                    let number = from.small()?;
                    self.drop_block(number); // which may never have arrived
                    Ok(None)
                }
                OWN_ALL => self.take_own(from).map(|()| None),
                OWN_CHANGES => self.take_own_changes(from).map(|()| None),
                OTHERS => self.take_others(from).map(Some),
                _ => Err(from.error("a record of no known kind")),
            },
            _ => unreachable!("two bits"),
        }
    }

    fn take_whole(&mut self, from: &mut Reader<'_>, number: u32) -> Result<u32, ReplicaError> {
        let table = from.small()?;
        if table as usize >= self.plans.len() {
            return Err(from.error("a table that there is not"));
        }
        self.drop_block(number);
        let count = from.count()?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(self.take_entity(from, number, table)?);
        }
        self.blocks.insert(number, Block { table, members });
        Ok(table)
    }

    fn take_entity(&mut self, from: &mut Reader<'_>, block: u32, table: u32) -> Result<u32, ReplicaError> {
        let (index, generation) = (from.small()?, from.small()?);
        let key = (table, index);
        self.touch(key);
        let columns = &self.shape.tables()[table as usize].columns;
        let mut items = vec![Item::None; columns.len()];
        for &column in &self.plans[table as usize].to_all {
            items[column] = from.item(&columns[column], &Item::None)?;
        }
        let entity = Entity { generation, block, items };
        let len = self.entities.len();
        match self.entities.entry(key) {
            Entry::Occupied(mut old) => {
                old.insert(entity);
            }
            Entry::Vacant(_) if len >= self.entities_max => {
                return Err(from.error("more entities than may be"));
            }
            Entry::Vacant(place) => {
                place.insert(entity);
            }
        }
        Ok(index)
    }

    fn take_changes(
        &mut self,
        from: &mut Reader<'_>,
        number: u32,
        is_moved: bool,
    ) -> Result<u32, ReplicaError> {
        let mut block =
            self.blocks.remove(&number).ok_or(from.error("changes of a block that is not known"))?;
        if is_moved {
            for _ in 0..from.count()? {
                let at = from.small()? as usize;
                if at >= block.members.len() {
                    return Err(from.error("a member leaves that there is not"));
                }
                let key = (block.table, block.members.swap_remove(at));
                self.drop_from(key, number);
            }
            for _ in 0..from.count()? {
                block.members.push(self.take_entity(from, number, block.table)?);
            }
        }
        let Self { plans, shape, entities, .. } = self;
        let columns = &shape.tables()[block.table as usize].columns;
        let group = &plans[block.table as usize].to_all;
        let mut keys = Vec::new();
        from.rows(group.len(), block.members.len(), |from, at, mask| {
            let key = (block.table, block.members[at]);
            let entity = entities.get_mut(&key).filter(|entity| entity.block == number);
            let entity = entity.ok_or(from.error("a member that another block has"))?;
            keys.push((key, entity.generation));
            for (bit, &column) in group.iter().enumerate() {
                if mask >> bit & 1 != 0 {
                    let item = from.item(&columns[column], &entity.items[column])?;
                    entity.items[column] = item;
                }
            }
            Ok(())
        })?;
        for (key, generation) in keys {
            self.touch_as(key, Some(generation));
        }
        let table = block.table;
        self.blocks.insert(number, block);
        Ok(table)
    }

    fn take_others(&mut self, from: &mut Reader<'_>) -> Result<u32, ReplicaError> {
        let number = from.small()?;
        let Self { plans, shape, entities, blocks, .. } = self;
        let block = blocks.get(&number).ok_or(from.error("a block that is not known"))?;
        let columns = &shape.tables()[block.table as usize].columns;
        let group = &plans[block.table as usize].to_others;
        let table = block.table;
        let mut keys = Vec::new();
        from.rows(group.len(), block.members.len(), |from, at, mask| {
            let key = (block.table, block.members[at]);
            let entity = entities.get_mut(&key).ok_or(from.error("a member that is not known"))?;
            keys.push((key, entity.generation));
            for (bit, &column) in group.iter().enumerate() {
                if mask >> bit & 1 != 0 {
                    entity.items[column] = from.item(&columns[column], &Item::None)?;
                }
            }
            Ok(())
        })?;
        for (key, generation) in keys {
            self.touch_as(key, Some(generation));
        }
        Ok(table)
    }

    fn take_own(&mut self, from: &mut Reader<'_>) -> Result<(), ReplicaError> {
        self.own.clear();
        for key in std::mem::take(&mut self.own_order) {
            self.touch(key);
        }
        for _ in 0..from.count()? {
            let (table, index, generation) = (from.small()?, from.small()?, from.small()?);
            let Some(plan) = self.plans.get(table as usize) else {
                return Err(from.error("a table that there is not"));
            };
            let columns = &self.shape.tables()[table as usize].columns;
            let mut items = vec![Item::None; columns.len()];
            for &column in &plan.to_owner {
                items[column] = from.item(&columns[column], &Item::None)?;
            }
            let key = (table, index);
            if self.own.len() >= self.entities_max {
                return Err(from.error("more entities than may be"));
            }
            if self.own.insert(key, Own { generation, items }).is_some() {
                return Err(from.error("an own entity twice"));
            }
            self.own_order.push(key);
            self.touch(key);
            // What others see of it is not for its owner.
            let seen = self.entities.get_mut(&key).filter(|entity| entity.generation == generation);
            if let Some(entity) = seen {
                for &column in &self.plans[table as usize].to_others {
                    entity.items[column] = Item::None;
                }
            }
        }
        Ok(())
    }

    fn take_own_changes(&mut self, from: &mut Reader<'_>) -> Result<(), ReplicaError> {
        for _ in 0..from.count()? {
            let key = (from.small()?, from.small()?);
            let own = self.own.get_mut(&key).ok_or(from.error("an own entity that is not known"))?;
            let group = &self.plans[key.0 as usize].to_owner;
            let (_, mask) = from.row_head(group.len())?;
            let columns = &self.shape.tables()[key.0 as usize].columns;
            for (bit, &column) in group.iter().enumerate() {
                if mask >> bit & 1 != 0 {
                    own.items[column] = from.item(&columns[column], &Item::None)?;
                }
            }
            self.touch(key);
        }
        Ok(())
    }

    // -- what changed ------------------------------------------------------------------------------------------------

    fn touch(&mut self, key: Key) {
        let generation = self.entities.get(&key).map(|entity| entity.generation);
        self.touch_as(key, generation);
    }

    fn touch_as(&mut self, key: Key, generation: Option<u32>) {
        self.touched.push((key, generation));
    }

    /// A block has an entity no more.
    fn drop_from(&mut self, key: Key, number: u32) {
        if self.entities.get(&key).is_some_and(|entity| entity.block == number) {
            self.touch(key);
            self.entities.remove(&key);
        }
    }

    fn drop_block(&mut self, number: u32) {
        if let Some(block) = self.blocks.remove(&number) {
            block.members.into_iter().for_each(|index| self.drop_from((block.table, index), number));
        }
    }

    fn forget_all(&mut self) {
        let mut keys: Vec<Key> = self.entities.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().for_each(|key| self.touch(key));
        self.entities.clear();
        self.blocks.clear();
        self.own.clear();
        self.own_order.clear();
    }

    /// Of each entity that was touched, what it was before the first touch against what it is now.
    fn tell(&mut self) {
        let mut first: HashMap<Key, ()> = HashMap::with_capacity(self.touched.len());
        for &(key, before) in &self.touched {
            if first.insert(key, ()).is_some() {
                continue;
            }
            let now = self.entities.get(&key).map(|entity| entity.generation);
            let handle = |generation| Handle { index: key.1, generation };
            let table = key.0 as usize;
            match (before, now) {
                (Some(before), Some(now)) if before == now => {
                    self.changes.push(Change::Changed(table, handle(now)))
                }
                _ => {
                    self.changes.extend(before.map(|before| Change::Removed(table, handle(before))));
                    self.changes.extend(now.map(|now| Change::Added(table, handle(now))));
                }
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> ReplicaError {
        ReplicaError { at: self.at, what }
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn number(&mut self) -> Result<u64, ReplicaError> {
        let (number, len) =
            varint::read(&self.bytes[self.at..]).ok_or(self.error("a number that does not end"))?;
        self.at += len;
        Ok(number)
    }

    fn small(&mut self) -> Result<u32, ReplicaError> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| self.error("a number beyond 32 bits"))
    }

    /// How many follow: each takes a byte at least.
    fn count(&mut self) -> Result<usize, ReplicaError> {
        let count = self.small()? as usize;
        if count > self.bytes.len() - self.at {
            return Err(self.error("a count beyond the snapshot's end"));
        }
        Ok(count)
    }

    fn take(&mut self, len: usize) -> Result<&[u8], ReplicaError> {
        let taken = self.bytes[self.at..]
            .get(..len)
            .ok_or(ReplicaError { at: self.at, what: "the end is missing" })?;
        self.at += len;
        Ok(taken)
    }

    /// The distance to the last row, and the mask of the columns that follow.
    fn row_head(&mut self, columns: usize) -> Result<(u64, u64), ReplicaError> {
        let gap = self.number()?;
        if columns as u32 <= MASK_BITS_JOINED {
            return Ok((gap >> columns, gap & ((1 << columns) - 1)));
        }
        let mut mask = [0; 8];
        let len = columns.div_ceil(8);
        mask[..len].copy_from_slice(self.take(len)?);
        Ok((gap, u64::from_le_bytes(mask)))
    }

    /// A count of rows, each with a head.
    fn rows(
        &mut self,
        columns: usize,
        rows: usize,
        mut each: impl FnMut(&mut Self, usize, u64) -> Result<(), ReplicaError>,
    ) -> Result<(), ReplicaError> {
        let mut next = 0_u64;
        for _ in 0..self.count()? {
            let (gap, mask) = self.row_head(columns)?;
            let at = next.saturating_add(gap);
            if at >= rows as u64 {
                return Err(self.error("a row beyond the block's last"));
            }
            next = at + 1;
            each(self, at as usize, mask)?;
        }
        Ok(())
    }

    fn int(&mut self, old: i64) -> Result<i64, ReplicaError> {
        Ok(varint::unzigzag(self.number()?).wrapping_add(old))
    }

    fn float(&mut self, number: Number) -> Result<f64, ReplicaError> {
        let float = match number {
            Number::F32 => f32::from_le_bytes(self.take(4)?.try_into().expect("4 bytes")).into(),
            _ => f64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes")),
        };
        if float.is_finite() { Ok(float) } else { Err(self.error("a float that is not finite")) }
    }

    /// A column's value, built on `old`.
    fn item(&mut self, column: &ColumnShape, old: &Item) -> Result<Item, ReplicaError> {
        Ok(match &column.kind {
            Kind::Number(_) if column.quantize.is_some() => Item::Int(self.int(old.int())?),
            Kind::Number(number @ (Number::F32 | Number::F64)) => Item::Float(self.float(*number)?),
            Kind::Number(number) => {
                let int = self.int(old.int())?;
                if !number.holds_bits(int) {
                    return Err(self.error("a number beyond its column's range"));
                }
                Item::Int(int)
            }
            Kind::Bool => match self.take(1)?[0] {
                byte @ (0 | 1) => Item::Int(byte.into()),
                _ => return Err(self.error("a bool that is neither 0 nor 1")),
            },
            Kind::Enum(values) => {
                let int = self.int(0)?;
                if !values.iter().any(|value| i64::from(*value) == int) {
                    return Err(self.error("a number that is none of its enum's"));
                }
                Item::Int(int)
            }
            Kind::Vector(number, width) => {
                let width = usize::from(*width);
                if column.quantize.is_some() {
                    let old = if let Item::Ints(old) = old { *old } else { [0; 3] };
                    let mut items = [0; 3];
                    for (item, old) in items.iter_mut().zip(old).take(width) {
                        *item = self.int(old)?;
                    }
                    Item::Ints(items)
                } else {
                    let mut items = [0.0; 3];
                    for item in items.iter_mut().take(width) {
                        *item = self.float(*number)?;
                    }
                    Item::Floats(items)
                }
            }
            Kind::Str(len_max) | Kind::Bytes(len_max) => {
                let len = self.count()?;
                if len > usize::from(*len_max) {
                    return Err(self.error("more bytes than its column has room for"));
                }
                let is_text = matches!(column.kind, Kind::Str(_));
                let bytes: Box<[u8]> = self.take(len)?.into();
                if is_text && std::str::from_utf8(&bytes).is_err() {
                    return Err(self.error("text that is no UTF-8"));
                }
                Item::Bytes(bytes)
            }
            Kind::Reference(_) => match self.small()? {
                0 => Item::Reference(None),
                index => Item::Reference(Some(Handle { index: index - 1, generation: self.small()? })),
            },
            Kind::List(number, len_max) => {
                let len = self.count()?;
                if len > usize::from(*len_max) {
                    return Err(self.error("more items than its column has room for"));
                }
                let mut items = Vec::with_capacity(len);
                for _ in 0..len {
                    items.push(match number {
                        Number::F32 | Number::F64 => Item::Float(self.float(*number)?),
                        _ => Item::Int(self.int(0)?),
                    });
                }
                Item::List(items.into())
            }
        })
    }
}

impl Item {
    fn int(&self) -> i64 {
        if let Self::Int(int) = self { *int } else { 0 }
    }

    fn value(&self, column: &ColumnShape) -> Option<Value> {
        let step = column.quantize.unwrap_or(1.0);
        Some(match (self, &column.kind) {
            (Self::None, _) => return None,
            (Self::Int(int), Kind::Bool) => Value::Bool(*int != 0),
            (Self::Int(int), Kind::Number(_)) if column.quantize.is_some() => {
                Value::Float(*int as f64 * step)
            }
            (Self::Int(int), Kind::Number(Number::U64) | Kind::List(Number::U64, _)) => {
                Value::Int((*int as u64).into())
            }
            (Self::Int(int), _) => Value::Int((*int).into()),
            (Self::Ints(ints), Kind::Vector(_, width)) => {
                Value::Vector(ints[..usize::from(*width)].iter().map(|int| *int as f64 * step).collect())
            }
            (Self::Ints(_) | Self::Floats(_), _) if !matches!(column.kind, Kind::Vector(..)) => return None,
            (Self::Float(float), _) => Value::Float(*float),
            (Self::Floats(floats), Kind::Vector(_, width)) => {
                Value::Vector(floats[..usize::from(*width)].to_vec())
            }
            (Self::Bytes(bytes), Kind::Str(_)) => Value::Str(String::from_utf8_lossy(bytes).into_owned()),
            (Self::Bytes(bytes), _) => Value::Bytes(bytes.to_vec()),
            (Self::Reference(handle), _) => Value::Reference(*handle),
            (Self::List(items), _) => {
                Value::List(items.iter().filter_map(|item| item.value(column)).collect())
            }
            _ => return None,
        })
    }
}
