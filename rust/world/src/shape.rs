//! What a world looks like: its tables and their columns, checked once, before anything is spawned.

use sha1::{Digest, Sha1};

use crate::value::{Value, quantize};

/// All tables, checked. The order of tables and columns is part of the shape: indices into it are used everywhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorldShape {
    tables: Vec<TableShape>,
}

/// One class of entities.
#[derive(Clone, Debug, PartialEq)]
pub struct TableShape {
    /// The class's name.
    pub name: String,
    /// The columns, in the order in which they were declared.
    pub columns: Vec<ColumnShape>,
    /// Who sees its entities.
    pub placement: Placement,
    /// The most rows that it may ever have at once: address space is reserved for them.
    pub rows_max: usize,
}

/// Who sees the entities of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// Everybody.
    Global,
    /// Who sees the cell in which the entity is. Either two columns of numbers, x and y, or one column of vectors.
    Spatial(Vec<String>),
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnShape {
    /// The field's name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// What a new entity has. `None`: zero, empty, no entity; of an enum, its first value.
    pub default: Option<Value>,
    /// The step to which floats are rounded before they are compared and sent.
    pub quantize: Option<f64>,
    /// Who is sent it.
    pub audience: Audience,
    /// Compared and sent in every n-th tick only; at least 1.
    pub every: u32,
    /// Whether clients draw values between two snapshots. Nothing here depends on it.
    pub interpolate: bool,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A number.
    Number(Number),
    /// A byte that is 0 or 1.
    Bool,
    /// An `i32` that is one of these.
    Enum(Vec<i32>),
    /// Two or three floats, interleaved.
    Vector(Number, u8),
    /// UTF-8 of at most so many bytes, padded with NULs; holds no NUL otherwise.
    Str(u16),
    /// At most so many bytes, padded with NULs; those at the end are not part of the value.
    Bytes(u16),
    /// An entity of the table of this name, or none: [`crate::Handle::to_bits`] or 0, as `u64`. Weak: once the entity is
    /// despawned, it is read and sent as none.
    Reference(String),
    /// At most so many numbers: a `u32` count, then, at [`Kind::list_offset`], room for all of them.
    List(Number, u16),
}

/// A type of numbers.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

/// Who is sent a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Audience {
    /// Everybody who sees the entity.
    #[default]
    All,
    /// The entity's owner alone, wherever the entity is.
    Owner,
    /// Everybody who sees the entity, but its owner.
    Others,
    /// The column stays on the server.
    Nobody,
}

/// What is wrong with a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table}{}{column}: {reason}", if column.is_empty() { "" } else { "." })]
pub struct ShapeError {
    /// The table's name.
    pub table: String,
    /// The column's name; empty if it is not about a column.
    pub column: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl WorldShape {
    /// Checks tables and columns against each other.
    pub fn new(tables: Vec<TableShape>) -> Result<Self, ShapeError> {
        if tables.len() > TABLES_MAX {
            return Err(fault(&tables[TABLES_MAX].name, "", format!("at most {TABLES_MAX} tables")));
        }
        for (i, table) in tables.iter().enumerate() {
            if tables[..i].iter().any(|other| other.name == table.name) {
                return Err(fault(&table.name, "", "two tables have this name".into()));
            }
            table.check(&tables)?;
        }
        Ok(Self { tables })
    }

    /// The tables, in their order.
    pub fn tables(&self) -> &[TableShape] {
        &self.tables
    }

    pub(crate) fn table_mut(&mut self, table: usize) -> &mut TableShape {
        &mut self.tables[table]
    }

    /// The index of the table of this name.
    pub fn table(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.name == name)
    }

    /// What clients are told: the same without the columns that nobody is sent. It decodes what this one encodes.
    pub fn for_clients(&self) -> Self {
        let mut shape = self.clone();
        for table in &mut shape.tables {
            table.columns.retain(|column| column.audience != Audience::Nobody);
        }
        shape
    }

    /// 16 hexadecimal digits that differ if the shape does.
    pub fn digest(&self) -> String {
        // Of `Debug`'s text: it names everything that there is, and only our own builds compare it.
        let sum = Sha1::digest(format!("{:?}", self.tables));
        sum[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TableShape {
    /// A table that everybody sees, without a column.
    pub fn global(name: &str) -> Self {
        Self { name: name.into(), columns: Vec::new(), placement: Placement::Global, rows_max: ROWS_MAX }
    }

    /// A table whose entities are where these columns say.
    pub fn spatial(name: &str, position: &[&str]) -> Self {
        let columns = position.iter().map(|&name| name.into()).collect();
        Self { placement: Placement::Spatial(columns), ..Self::global(name) }
    }

    /// With one more column.
    #[must_use]
    pub fn column(mut self, column: ColumnShape) -> Self {
        self.columns.push(column);
        self
    }

    /// The index of the column of this name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    fn check(&self, tables: &[TableShape]) -> Result<(), ShapeError> {
        let wrong = |column: &str, reason: &str| Err(fault(&self.name, column, reason.into()));
        if self.columns.len() > COLUMNS_MAX {
            return wrong("", &format!("{} columns; at most {COLUMNS_MAX}", self.columns.len()));
        }
        if self.rows_max == 0 || self.rows_max > ROWS_MAX {
            return wrong("", &format!("rows_max is {}; it is 1 to {ROWS_MAX}", self.rows_max));
        }
        for (i, column) in self.columns.iter().enumerate() {
            if self.columns[..i].iter().any(|other| other.name == column.name) {
                return wrong(&column.name, "two columns have this name");
            }
            column.check(tables).map_err(|reason| fault(&self.name, &column.name, reason))?;
        }
        let Placement::Spatial(position) = &self.placement else { return Ok(()) };
        let mut dims = 0;
        for name in position {
            let Some(column) = self.column_index(name).map(|i| &self.columns[i]) else {
                return wrong(name, "is to place the entity, and there is no such column");
            };
            dims += match column.kind {
                Kind::Number(_) => 1,
                Kind::Vector(_, dims) => usize::from(dims),
                _ => return wrong(name, "places the entity, so it is a number or a vector"),
            };
            if !matches!(column.audience, Audience::All | Audience::Others) {
                return wrong(name, "places the entity, so it goes to all, or to all others");
            }
        }
        match (position.len(), dims) {
            (2, 2) | (1, 2 | 3) => Ok(()),
            _ => wrong("", "the position is two columns of numbers, or one of vectors"),
        }
    }
}

impl ColumnShape {
    /// A column that all see, that starts as zero, is not rounded and sent in every tick.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            default: None,
            quantize: None,
            audience: Audience::All,
            every: 1,
            interpolate: false,
        }
    }

    /// With this value for new entities.
    #[must_use]
    pub fn default(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }

    /// Rounded to multiples of `step`.
    #[must_use]
    pub fn quantize(mut self, step: f64) -> Self {
        self.quantize = Some(step);
        self
    }

    /// For these only.
    #[must_use]
    pub fn to(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// In every n-th tick only.
    #[must_use]
    pub fn every(mut self, ticks: u32) -> Self {
        self.every = ticks;
        self
    }

    fn check(&self, tables: &[TableShape]) -> Result<(), String> {
        if let Some(step) = self.quantize {
            let float = matches!(
                self.kind,
                Kind::Number(Number::F32 | Number::F64) | Kind::Vector(Number::F32 | Number::F64, _)
            );
            if !float {
                return Err("only floats and vectors of them are quantised".into());
            }
            if !(step.is_normal() && step > 0.0 && (1.0 / step).is_normal()) {
                return Err(format!("quantize is {step}; it is a number above 0, such as 0.01"));
            }
        }
        if self.every == 0 {
            return Err("a rate of 0: the column would never be sent; use the audience Nobody".into());
        }
        match &self.kind {
            Kind::Enum(values) if values.is_empty() => return Err("an enum without a value".into()),
            Kind::Vector(Number::F32 | Number::F64, 2 | 3) => {}
            Kind::Vector(..) => return Err("a vector is two or three floats".into()),
            Kind::Str(0) | Kind::Bytes(0) | Kind::List(_, 0) => {
                return Err("room for nothing: MaxLen is at least 1".into());
            }
            Kind::Reference(target) if !tables.iter().any(|table| table.name == *target) => {
                return Err(format!("refers to {target}, which is no table of this world"));
            }
            _ => {}
        }
        match &self.default {
            Some(value) => {
                self.check_value(value).map_err(|reason| format!("its default {reason}"))?;
                if matches!(value, Value::Reference(Some(_))) {
                    return Err("its default is an entity: it can only be none".into());
                }
            }
            None if matches!(&self.kind, Kind::Enum(_)) => {}
            None => {}
        }
        Ok(())
    }

    /// Whether this value may stand in the column; if not, why.
    pub fn check_value(&self, value: &Value) -> Result<(), String> {
        let wrong = || Err(format!("is {value}, which is no {}", self.kind.describe()));
        match (&self.kind, value) {
            (Kind::Number(number), value) => {
                if number.holds(value) && self.holds_quantised(*number, value) {
                    Ok(())
                } else {
                    wrong()
                }
            }
            (Kind::Bool, Value::Bool(_)) => Ok(()),
            (Kind::Enum(values), Value::Int(int)) if values.iter().any(|&one| i128::from(one) == *int) => {
                Ok(())
            }
            (Kind::Vector(number, dims), Value::Vector(items)) if items.len() == usize::from(*dims) => {
                let fits = |&item| {
                    let item = Value::Float(item);
                    number.holds(&item) && self.holds_quantised(*number, &item)
                };
                if items.iter().all(fits) { Ok(()) } else { wrong() }
            }
            (Kind::Str(len_max), Value::Str(text)) => match text {
                text if text.contains('\0') => Err("holds a NUL, which ends a string here".into()),
                text if text.len() > usize::from(*len_max) => {
                    Err(format!("has {} bytes of UTF-8; at most {len_max}", text.len()))
                }
                _ => Ok(()),
            },
            (Kind::Bytes(len_max), Value::Bytes(bytes)) if bytes.len() > usize::from(*len_max) => {
                Err(format!("has {} bytes; at most {len_max}", bytes.len()))
            }
            (Kind::Bytes(_), Value::Bytes(_)) | (Kind::Reference(_), Value::Reference(_)) => Ok(()),
            (Kind::List(_, len_max), Value::List(items)) if items.len() > usize::from(*len_max) => {
                Err(format!("has {} items; at most {len_max}", items.len()))
            }
            (Kind::List(number, _), Value::List(items)) => {
                match items.iter().find(|item| !number.holds(item)) {
                    Some(item) => Err(format!("holds {item}, which is no {}", number.name())),
                    None => Ok(()),
                }
            }
            _ => wrong(),
        }
    }

    fn holds_quantised(&self, number: Number, value: &Value) -> bool {
        match (self.quantize, value) {
            (Some(step), Value::Float(float)) => {
                let quanta = quantize(*float, 1.0 / step);
                quanta.is_some_and(|quanta| number == Number::F64 || i32::try_from(quanta).is_ok())
            }
            (Some(step), Value::Int(int)) => self.holds_quantised_float(number, *int as f64, step),
            _ => true,
        }
    }

    fn holds_quantised_float(&self, number: Number, float: f64, step: f64) -> bool {
        let quanta = quantize(float, 1.0 / step);
        quanta.is_some_and(|quanta| number == Number::F64 || i32::try_from(quanta).is_ok())
    }
}

impl Kind {
    /// Bytes of one row's value in memory.
    pub fn row_bytes(&self) -> usize {
        match self {
            Self::Number(number) => number.bytes(),
            Self::Bool => 1,
            Self::Enum(_) => 4,
            Self::Vector(number, dims) => number.bytes() * usize::from(*dims),
            Self::Str(len_max) | Self::Bytes(len_max) => usize::from(*len_max),
            Self::Reference(_) => 8,
            Self::List(number, len_max) => {
                let bytes = Self::list_offset(*number) + number.bytes() * usize::from(*len_max);
                bytes.next_multiple_of(Self::list_offset(*number))
            }
        }
    }

    /// Where in a list's bytes its first item is.
    pub fn list_offset(number: Number) -> usize {
        number.bytes().max(4)
    }

    /// What it is called in messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Number(number) => number.name().into(),
            Self::Bool => "bool".into(),
            Self::Enum(_) => "value of its enum".into(),
            Self::Vector(number, dims) => format!("vector of {dims} {}", number.name()),
            Self::Str(len_max) => format!("str of at most {len_max} bytes"),
            Self::Bytes(len_max) => format!("bytes, at most {len_max}"),
            Self::Reference(table) => format!("{table} or none"),
            Self::List(number, len_max) => format!("list of at most {len_max} {}", number.name()),
        }
    }
}

impl Number {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::F32,
        Self::F64,
    ];

    /// Its size.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// As Python's annotations name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Whether 64 bits are a whole number of this type; of a `u64`, they always are.
    pub(crate) fn holds_bits(self, int: i64) -> bool {
        self == Self::U64 || self.holds(&Value::Int(int.into()))
    }

    fn holds(self, value: &Value) -> bool {
        let (min, max): (i128, i128) = match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
            Self::F32 => {
                return match value {
                    Value::Float(float) => float.is_finite() && (*float as f32).is_finite(),
                    Value::Int(int) => (*int as f32).is_finite(),
                    _ => false,
                };
            }
            Self::F64 => {
                return matches!(value, Value::Float(float) if float.is_finite())
                    || matches!(value, Value::Int(_));
            }
        };
        matches!(value, Value::Int(int) if (min..=max).contains(int))
    }
}

fn fault(table: &str, column: &str, reason: String) -> ShapeError {
    ShapeError { table: table.into(), column: column.into(), reason }
}

/// Rows for which address space is reserved unless a table says less: 2^20 of 100 bytes are 100 MB of address space, of
/// which the rows that are used take memory.
pub const ROWS_MAX: usize = 1 << 20;
const TABLES_MAX: usize = 256;
const COLUMNS_MAX: usize = 64; // a bit each in a row's mask
