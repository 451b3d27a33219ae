//! A copy of a world: immutable, for readers in other threads and for files.
//!
//! As bytes, all little-endian: `GSWORLD` and the format's version, a byte; the tick, `u32`; how many tables, `u32`. Each table: its name's length, `u16`,
//! and name; the digest of its columns, 8 bytes; rows and slots, `u32` each; the generation of each slot, `u32`; the slot of each row, `u32`; each
//! column's rows as they stand in memory. Last, the SHA-1 of all that.

use std::io;

use sha1::{Digest, Sha1};

use crate::handle::Handle;
use crate::shape::{TableShape, WorldShape};
use crate::world::World;

/// What [`World::copy`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldCopy {
    tick: u32,
    tables: Vec<TableCopy>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCopy {
    name: String,
    digest: [u8; 8],
    /// Of all slots, also those that are free: an old handle stays stale.
    generations: Vec<u32>,
    handles: Vec<Handle>,
    columns: Vec<Vec<u8>>,
}

/// Why bytes are no copy of a world of this shape, or why a copy can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The bytes are no such file, or a damaged one.
    #[error("byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The table is not there any more, or another one.
    #[error("table {table}: {what}")]
    Differs {
        /// The table's name.
        table: String,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// The system has no address space.
    #[error(transparent)]
    Memory(#[from] io::Error),
}

const MAGIC: &[u8; 8] = b"GSWORLD\x01";
const SUM_BYTES: usize = 20;

impl WorldCopy {
    /// The tick that had ended last.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// All tables.
    pub fn tables(&self) -> &[TableCopy] {
        &self.tables
    }

    /// As a file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.tables.iter().map(TableCopy::bytes).sum::<usize>());
        out.extend(MAGIC);
        out.extend(self.tick.to_le_bytes());
        out.extend((self.tables.len() as u32).to_le_bytes());
        for table in &self.tables {
            out.extend((table.name.len() as u16).to_le_bytes());
            out.extend(table.name.as_bytes());
            out.extend(table.digest);
            out.extend((table.handles.len() as u32).to_le_bytes());
            out.extend((table.generations.len() as u32).to_le_bytes());
            out.extend(table.generations.iter().flat_map(|generation| generation.to_le_bytes()));
            out.extend(table.handles.iter().flat_map(|handle| handle.index.to_le_bytes()));
            table.columns.iter().for_each(|column| out.extend(column));
        }
        let sum = Sha1::digest(&out);
        out.extend(sum);
        out
    }

    /// The inverse of [`WorldCopy::to_bytes`], of a world that has these tables. Nothing is taken that the bytes don't hold.
    ///
    /// # Errors
    ///
    /// The bytes are cut, damaged, of another version, or of tables that this shape has not.
    pub fn from_bytes(bytes: &[u8], shape: &WorldShape) -> Result<Self, CopyError> {
        let mut from = Reader { bytes, at: 0 };
        if from.take(MAGIC.len())? != MAGIC {
            return Err(CopyError::Damaged { at: 0, what: "no saved world of this version" });
        }
        let Some(end) = bytes.len().checked_sub(SUM_BYTES) else {
            return Err(from.damaged("the end is missing"));
        };
        if Sha1::digest(&bytes[..end])[..] != bytes[end..] {
            return Err(CopyError::Damaged {
                at: end,
                what: "the checksum is another: it was cut or damaged",
            });
        }
        from.bytes = &bytes[..end];
        let tick = from.number()?;
        let count = from.count(1)?;
        let mut tables: Vec<TableCopy> = Vec::new();
        for _ in 0..count {
            let table = TableCopy::read(&mut from, shape)?;
            if tables.iter().any(|other| other.name == table.name) {
                return Err(from.damaged("a table twice"));
            }
            tables.push(table);
        }
        if from.at != end {
            return Err(from.damaged("more than the tables"));
        }
        Ok(Self { tick, tables })
    }
}

impl TableCopy {
    /// The class's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who is in which row.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// The rows of a column, as they stand in memory.
    pub fn column(&self, column: usize) -> &[u8] {
        &self.columns[column]
    }

    fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Vec::len).sum();
        18 + self.name.len() + 4 * (self.generations.len() + self.handles.len()) + columns
    }

    fn read(from: &mut Reader<'_>, shape: &WorldShape) -> Result<Self, CopyError> {
        let len = u16::from_le_bytes(from.array()?);
        let name = std::str::from_utf8(from.take(len.into())?)
            .map_err(|_| from.damaged("a name that is no UTF-8"))?
            .to_owned();
        let digest = from.array()?;
        let differs = |what| CopyError::Differs { table: name.clone(), what };
        let index = shape
            .table(&name)
            .ok_or_else(|| differs("this world has no such class; declare it, or drop it from the file"))?;
        let table = &shape.tables()[index];
        if digest != digest_of(table) {
            return Err(differs(
                "its columns are not those that were saved; load it by the code that saved it",
            ));
        }
        let (rows, slots) = (from.number()? as usize, from.number()? as usize);
        if rows > table.rows_max || slots < rows {
            return Err(from.damaged("more rows than there may be"));
        }
        let generations: Vec<u32> = from.numbers(slots)?;
        let mut is_taken = vec![false; slots];
        let mut handles = Vec::with_capacity(rows);
        for index in from.numbers(rows)? {
            match is_taken.get_mut(index as usize) {
                Some(taken @ false) => *taken = true,
                _ => return Err(from.damaged("a slot that two rows have, or none")),
            }
            handles.push(Handle { index, generation: generations[index as usize] });
        }
        let columns = table.columns.iter().map(|column| {
            let len = rows.checked_mul(column.kind.row_bytes());
            let len = len.ok_or(CopyError::Damaged { at: from.at, what: "more rows than there may be" })?;
            Ok(from.take(len)?.to_vec())
        });
        let columns = columns.collect::<Result<_, CopyError>>()?;
        Ok(Self { name, digest, generations, handles, columns })
    }
}

impl World {
    /// All entities as they are now, but for those that were despawned in this tick.
    pub fn copy(&self) -> WorldCopy {
        let tables = self.shape().tables().iter().enumerate().map(|(number, shape)| {
            let rows = 0..self.rows(number);
            let live: Vec<usize> = rows.filter(|&row| self.handle(number, row).is_some()).collect();
            let is_whole = live.len() == self.rows(number);
            let columns = shape.columns.iter().enumerate().map(|(column, _)| {
                if is_whole {
                    return self.column_bytes(number, column).to_vec();
                }
                live.iter().flat_map(|&row| self.value(number, column, row)).copied().collect()
            });
            TableCopy {
                name: shape.name.clone(),
                digest: digest_of(shape),
                generations: self.generations(number),
                handles: live.iter().filter_map(|&row| self.handle(number, row)).collect(),
                columns: columns.collect(),
            }
        });
        WorldCopy { tick: self.tick(), tables: tables.collect() }
    }

    /// Into a world in which nothing was spawned yet: the same entities by the same handles, which belong to nobody.
    ///
    /// # Errors
    ///
    /// It is not empty, has another shape, or the system has no address space. Nothing is changed then, but by the last.
    pub fn restore(&mut self, copy: &WorldCopy) -> Result<(), CopyError> {
        let mut numbers = Vec::with_capacity(copy.tables.len());
        for table in &copy.tables {
            let differs = |what| CopyError::Differs { table: table.name.clone(), what };
            let number =
                self.shape().table(&table.name).ok_or_else(|| differs("this world has no such class"))?;
            if digest_of(&self.shape().tables()[number]) != table.digest {
                return Err(differs("its columns are not those that were saved"));
            }
            if !self.generations(number).is_empty() {
                return Err(differs("entities were spawned already: restore comes first"));
            }
            numbers.push(number);
        }
        for (table, number) in copy.tables.iter().zip(numbers) {
            self.spawn_as(number, &table.generations, &table.handles)?;
            for (column, bytes) in table.columns.iter().enumerate() {
                self.column_bytes_mut(number, column).copy_from_slice(bytes);
            }
        }
        self.set_tick(copy.tick);
        Ok(())
    }
}

/// Of what stands in memory: names and kinds of columns, in their order.
fn digest_of(table: &TableShape) -> [u8; 8] {
    let columns: Vec<_> = table.columns.iter().map(|column| (&column.name, &column.kind)).collect();
    let sum = Sha1::digest(format!("{:?} {columns:?}", table.name));
    let mut digest = [0; 8];
    digest.copy_from_slice(&sum[..8]);
    digest
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self, what: &'static str) -> CopyError {
        CopyError::Damaged { at: self.at, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], CopyError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| self.damaged("the end is missing"))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CopyError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn number(&mut self) -> Result<u32, CopyError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// So many follow, of at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, CopyError> {
        let count = self.number()? as usize;
        if count > (self.bytes.len() - self.at) / least {
            return Err(self.damaged("a count beyond the end"));
        }
        Ok(count)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<u32>, CopyError> {
        let len = count.checked_mul(4).ok_or_else(|| self.damaged("a count beyond the end"))?;
        let numbers = self.take(len)?.chunks_exact(4);
        Ok(numbers.map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
    }
}
