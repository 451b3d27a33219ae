//! Many messages of one kind as columns: a vector per numeric field, and no object per message.

use crate::discard::Discard;
use crate::error::DecodeError;
use crate::plan::{Plans, Scalar, Sink, Stopped};
use crate::shape::{Kind, Label, MessageId, Schema};

/// Rows of one message kind. Every single or optional number, bool and enum has a column; what is not there is 0.
///
/// Texts, bytes, lists, maps and messages within have none: they are checked like the rest, and dropped.
///
/// ```
/// use schema::columns::{Column, Columns};
/// use schema::plan::{Limits, Plans};
/// use schema::shape::{FieldShape, Kind, SchemaBuilder};
///
/// let mut builder = SchemaBuilder::new();
/// let r#move = builder.message("Move");
/// let dx = builder.field(r#move, FieldShape::new("dx", 1, Kind::F32));
/// let plans = Plans::new(builder.build()?, Limits::default());
///
/// let mut moves = Columns::new(plans.schema(), r#move);
/// moves.push(&plans, &[0x0d, 0, 0, 0x80, 0x3f])?;
/// moves.push(&plans, &[])?;
/// assert_eq!(moves.column(dx), Some(&Column::F32(vec![1.0, 0.0])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Columns {
    message: MessageId,
    rows: usize,
    /// By slot.
    columns: Box<[Option<Column>]>,
    /// The oneof of each field, by slot.
    oneofs: Box<[Option<u32>]>,
    dropped: Discard,
}

/// One field of all rows. An enum's column holds its numbers.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Column {
    F64(Vec<f64>),
    F32(Vec<f32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    Bool(Vec<bool>),
}

impl Columns {
    /// No rows yet.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn new(schema: &Schema, message: MessageId) -> Self {
        let fields = &schema.message(message).fields;
        let oneofs = fields.iter().map(|field| field.oneof).collect();
        let columns = fields
            .iter()
            .map(|field| match field.label {
                Label::Single | Label::Optional => Column::new(field.kind),
                Label::Repeated { .. } | Label::Map { .. } => None,
            })
            .collect();
        Self { message, rows: 0, columns, oneofs, dropped: Discard::new() }
    }

    /// Appends one message as a row.
    ///
    /// # Errors
    /// [`DecodeError`], as [`Plans::decode`]; then there is no new row.
    ///
    /// # Panics
    /// `plans` are not of the schema that this was made for.
    pub fn push(&mut self, plans: &Plans, bytes: &[u8]) -> Result<(), DecodeError> {
        self.dropped.clear();
        self.columns.iter_mut().flatten().for_each(Column::push_default);
        let read = plans.decode(self.message, bytes, &mut Row { columns: self });
        match read {
            Ok(()) => self.rows += 1,
            Err(_) => self.truncate(self.rows),
        }
        read
    }

    /// How many messages there are: the length of each column.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The column of a slot; `None` if its field has none.
    pub fn column(&self, slot: u16) -> Option<&Column> {
        self.columns.get(usize::from(slot))?.as_ref()
    }

    /// Takes a column out, with an empty one of the same type in its place: the caller owns it without a copy. Take
    /// all that you want, then [`clear`](Columns::clear).
    pub fn take(&mut self, slot: u16) -> Option<Column> {
        self.columns.get_mut(usize::from(slot))?.as_mut().map(Column::take)
    }

    /// Drops all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    fn truncate(&mut self, rows: usize) {
        self.rows = rows;
        self.columns.iter_mut().flatten().for_each(|column| column.truncate(rows));
    }
}

/// Does the same to the vector of each variant.
macro_rules! each_column {
    ($column:expr, $values:ident => $body:expr) => {
        match $column {
            Column::F64($values) => $body,
            Column::F32($values) => $body,
            Column::I64($values) => $body,
            Column::U64($values) => $body,
            Column::I32($values) => $body,
            Column::U32($values) => $body,
            Column::Bool($values) => $body,
        }
    };
}

impl Column {
    /// `None`: not a number, bool or enum.
    fn new(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::F64 => Self::F64(Vec::new()),
            Kind::F32 => Self::F32(Vec::new()),
            Kind::I64 | Kind::S64 | Kind::SFixed64 => Self::I64(Vec::new()),
            Kind::U64 | Kind::Fixed64 => Self::U64(Vec::new()),
            Kind::I32 | Kind::S32 | Kind::SFixed32 | Kind::Enum(_) => Self::I32(Vec::new()),
            Kind::U32 | Kind::Fixed32 => Self::U32(Vec::new()),
            Kind::Bool => Self::Bool(Vec::new()),
            Kind::Str | Kind::Bytes | Kind::Message(_) => return None,
        })
    }

    fn push_default(&mut self) {
        each_column!(self, values => values.push(Default::default()));
    }

    fn reset_last(&mut self) {
        each_column!(self, values => if let Some(last) = values.last_mut() {
            *last = Default::default();
        });
    }

    fn truncate(&mut self, rows: usize) {
        each_column!(self, values => values.truncate(rows));
    }

    fn take(&mut self) -> Self {
        match self {
            Self::F64(values) => Self::F64(std::mem::take(values)),
            Self::F32(values) => Self::F32(std::mem::take(values)),
            Self::I64(values) => Self::I64(std::mem::take(values)),
            Self::U64(values) => Self::U64(std::mem::take(values)),
            Self::I32(values) => Self::I32(std::mem::take(values)),
            Self::U32(values) => Self::U32(std::mem::take(values)),
            Self::Bool(values) => Self::Bool(std::mem::take(values)),
        }
    }

    /// Puts a value into the last row.
    #[inline]
    fn set_last(&mut self, value: Scalar<'_>) -> Result<(), Stopped> {
        fn put<T>(values: &mut [T], value: T) -> Result<(), Stopped> {
            *values.last_mut().ok_or(Stopped)? = value;
            Ok(())
        }
        match (self, value) {
            (Self::F64(values), Scalar::F64(value)) => put(values, value),
            (Self::F32(values), Scalar::F32(value)) => put(values, value),
            (Self::I64(values), Scalar::I64(value)) => put(values, value),
            (Self::U64(values), Scalar::U64(value)) => put(values, value),
            (Self::I32(values), Scalar::I32(value) | Scalar::Enum(value)) => put(values, value),
            (Self::U32(values), Scalar::U32(value)) => put(values, value),
            (Self::Bool(values), Scalar::Bool(value)) => put(values, value),
            _ => Err(Stopped),
        }
    }
}

/// The last row, which holds defaults until something comes.
struct Row<'c> {
    columns: &'c mut Columns,
}

impl Sink for Row<'_> {
    type Child<'a>
        = Discard
    where
        Self: 'a;

    #[inline]
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        match &mut self.columns.columns[usize::from(slot)] {
            Some(column) => column.set_last(value),
            None => Ok(()),
        }
    }

    fn message(&mut self, slot: u16) -> Result<Discard, Stopped> {
        self.columns.dropped.message(slot)
    }

    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        self.columns.dropped.item(slot, value)
    }

    fn message_item(&mut self, slot: u16) -> Result<Discard, Stopped> {
        self.columns.dropped.message_item(slot)
    }

    fn entry(&mut self, slot: u16, key: Scalar<'_>, value: Scalar<'_>) -> Result<(), Stopped> {
        self.columns.dropped.entry(slot, key, value)
    }

    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<Discard, Stopped> {
        self.columns.dropped.message_entry(slot, key)
    }

    /// Another member that came before is 0 again.
    fn choose(&mut self, oneof: u16, slot: u16) -> Result<(), Stopped> {
        let columns = &mut *self.columns;
        for (other, column) in columns.columns.iter_mut().enumerate() {
            if columns.oneofs[other] == Some(oneof.into()) && other != usize::from(slot) {
                if let Some(column) = column {
                    column.reset_last();
                }
            }
        }
        Ok(())
    }

    fn count(&self, slot: u16) -> usize {
        self.columns.dropped.count(slot)
    }
}
