//! Plans: a schema, made ready to read and write bytes. The traits of those who take and give the values.

use std::fmt;

use crate::bounds::{Bounds, Violation};
use crate::codec::Codec;
use crate::shape::{EnumId, Kind, MessageId, Schema};
use crate::steps::{Check, EnumSteps, FieldStep, MessageSteps, Verdict};

/// One value that is no message. Kinds that differ on the wire alone are one here: `S32` and `SFixed32` are `I32`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Scalar<'a> {
    F64(f64),
    F32(f32),
    I64(i64),
    U64(u64),
    I32(i32),
    U32(u32),
    Bool(bool),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// The number; of a closed enum, always one that it names.
    Enum(i32),
}

impl fmt::Display for Scalar<'_> {
    /// Numbers as they are, texts quoted and cut short: for errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64(value) => value.fmt(f),
            Self::F32(value) => value.fmt(f),
            Self::I64(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::I32(value) | Self::Enum(value) => value.fmt(f),
            Self::U32(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Str(text) => match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
                Some((end, _)) => write!(f, "{:?}...", &text[..end]),
                None => write!(f, "{text:?}"),
            },
        }
    }
}

const SHOWN_CHARACTERS_MAX: usize = 32;

/// Which [`Scalar`] a field takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ScalarType {
    F64,
    F32,
    I64,
    U64,
    I32,
    U32,
    Bool,
    Str,
    Bytes,
    Enum(EnumId),
}

/// A sink or a source gave up. It keeps the reason itself (Python's: the exception that is set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Takes the values of one message as they are read. A `slot` is a field's index in its [`MessageShape`](crate::shape::MessageShape).
///
/// Values have been checked: their type is the field's, their bounds are kept, str is UTF-8. Fields come in the order
/// of the bytes; one that is not there does not come at all: whatever the sink has before stays. When a single field
/// comes twice, the last one is its value.
///
/// Mark the methods `#[inline]`: the plan calls each with a variant that the compiler then knows, so a `match` on the
/// [`Scalar`] costs nothing.
///
/// After an error the sink holds a part of the message.
pub trait Sink {
    /// What takes a nested message.
    type Child<'a>: Sink
    where
        Self: 'a;

    /// A single, optional or oneof field has this value.
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped>;

    /// A single, optional or oneof message begins. If it was there before, the same one goes on: protobuf merges.
    fn message(&mut self, slot: u16) -> Result<Self::Child<'_>, Stopped>;

    /// The list has one more item.
    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped>;

    /// So many items will follow. They are there in bytes, and within every limit: memory may be taken for them.
    #[inline]
    fn reserve(&mut self, slot: u16, items: usize) -> Result<(), Stopped> {
        let _ = (slot, items);
        Ok(())
    }

    /// The list has all these items more: a packed run of 4 or 8 bytes each, in place.
    #[inline]
    fn fixed_items(&mut self, slot: u16, items: FixedItems<'_>) -> Result<(), Stopped> {
        self.reserve(slot, items.len())?;
        items.try_for_each(|item| self.item(slot, item))
    }

    /// The list has one more message, a new one; [`Sink::count`] counts it from now on.
    fn message_item(&mut self, slot: u16) -> Result<Self::Child<'_>, Stopped>;

    /// The map has this value at this key, in place of any before.
    fn entry(&mut self, slot: u16, key: Scalar<'_>, value: Scalar<'_>) -> Result<(), Stopped>;

    /// The map has a new message at this key, in place of any before.
    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<Self::Child<'_>, Stopped>;

    /// The value that comes next, at `slot`, is of this oneof: no other member is there any more. `slot` itself stays
    /// (a message merges).
    fn choose(&mut self, oneof: u16, slot: u16) -> Result<(), Stopped>;

    /// Items of the list or entries of the map so far. Asked only for fields with a `count_max`, and for the path of an error.
    fn count(&self, slot: u16) -> usize;

    /// The message has ended. Of a message that is merged from pieces, each piece ends so.
    #[inline]
    fn finish(&mut self) -> Result<(), Stopped> {
        Ok(())
    }
}

/// Gives the values of one message to be written. A cheap handle, such as a reference.
///
/// The plan asks for each field once, in the order of the numbers. Mark the methods `#[inline]`, see [`Sink`].
pub trait Source {
    /// What gives a nested message.
    type Child: Source;

    /// Value of a single, optional or oneof field, or `None`: it is not there. The variant is the one of `ty`.
    /// Of a oneof at most one member is there.
    fn scalar(&self, slot: u16, ty: ScalarType) -> Result<Option<Scalar<'_>>, Stopped>;

    /// A single, optional or oneof message, or `None`: it is not there.
    fn message(&self, slot: u16) -> Result<Option<Self::Child>, Stopped>;

    /// Calls `each` with each item of the list, in order; what `each` answers is passed on with `?`.
    fn items(
        &self,
        slot: u16,
        ty: ScalarType,
        each: impl FnMut(Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped>;

    /// Calls `each` with each message of the list, in order.
    fn messages(
        &self,
        slot: u16,
        each: impl FnMut(Self::Child) -> Result<(), Stopped>,
    ) -> Result<(), Stopped>;

    /// Calls `each` with each key and value of the map, in any order.
    fn entries(
        &self,
        slot: u16,
        key: ScalarType,
        value: ScalarType,
        each: impl FnMut(Scalar<'_>, Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped>;

    /// Calls `each` with each key and message of the map, in any order.
    fn message_entries(
        &self,
        slot: u16,
        key: ScalarType,
        each: impl FnMut(Scalar<'_>, Self::Child) -> Result<(), Stopped>,
    ) -> Result<(), Stopped>;
}

/// What any message is held to, whatever its shape. All of it is checked before memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages within the outermost one, a map's entry counted as one: 32. At most 100, which is google's own limit;
    /// more is taken as 100.
    pub depth: u32,
    /// List items, map entries and nested messages of one outermost message, all together: 65536.
    pub items: usize,
    /// Bytes of one outermost message: 16 MiB.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 32, items: 1 << 16, bytes: 16 << 20 }
    }
}

/// A packed run of numbers of 4 or 8 bytes each, little-endian, in place.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum FixedItems<'a> {
    F64(Packed<'a, 8>),
    F32(Packed<'a, 4>),
    I64(Packed<'a, 8>),
    U64(Packed<'a, 8>),
    I32(Packed<'a, 4>),
    U32(Packed<'a, 4>),
}

/// Bytes, a whole number of times `N`.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a, const N: usize> {
    bytes: &'a [u8],
}

impl<'a, const N: usize> Packed<'a, N> {
    /// `None`: not a whole number of pieces.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(N).then_some(Self { bytes })
    }

    /// All of it: `N * len()` bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The pieces, each for a `from_le_bytes`.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = [u8; N]> + 'a {
        self.bytes.chunks_exact(N).map(|piece| piece.try_into().unwrap_or([0; N]))
    }

    /// How many there are.
    #[inline]
    pub fn len(self) -> usize {
        self.bytes.len() / N
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }
}

impl FixedItems<'_> {
    /// How many there are.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::F64(run) | Self::I64(run) | Self::U64(run) => run.len(),
            Self::F32(run) | Self::I32(run) | Self::U32(run) => run.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Calls `each` with each item, in order, until one answers an error.
    #[inline]
    pub fn try_for_each<E>(self, mut each: impl FnMut(Scalar<'static>) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::F64(run) => run.iter().try_for_each(|item| each(Scalar::F64(f64::from_le_bytes(item)))),
            Self::F32(run) => run.iter().try_for_each(|item| each(Scalar::F32(f32::from_le_bytes(item)))),
            Self::I64(run) => run.iter().try_for_each(|item| each(Scalar::I64(i64::from_le_bytes(item)))),
            Self::U64(run) => run.iter().try_for_each(|item| each(Scalar::U64(u64::from_le_bytes(item)))),
            Self::I32(run) => run.iter().try_for_each(|item| each(Scalar::I32(i32::from_le_bytes(item)))),
            Self::U32(run) => run.iter().try_for_each(|item| each(Scalar::U32(u32::from_le_bytes(item)))),
        }
    }
}

/// A schema, made ready to read and write bytes.
///
/// ```
/// use schema::plan::{Limits, Plans};
/// use schema::shape::{FieldShape, Kind, SchemaBuilder};
/// use schema::value::{Message, Value};
///
/// let mut builder = SchemaBuilder::new();
/// let r#move = builder.message("Move");
/// builder.field(r#move, FieldShape::new("tick", 1, Kind::U32));
/// let plans = Plans::new(builder.build()?, Limits::default());
///
/// let mut message = Message::new(plans.schema(), r#move);
/// plans.decode(r#move, &[0x08, 0x96, 0x01], &mut message.sink(plans.schema()))?;
/// assert_eq!(message.get(0), Some(&Value::U32(150)));
///
/// let mut bytes = Vec::new();
/// plans.encode(r#move, &&message, &mut bytes)?;
/// assert_eq!(bytes, [0x08, 0x96, 0x01]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plans {
    schema: Schema,
    limits: Limits,
    messages: Box<[MessageSteps]>,
    enums: Box<[EnumSteps]>,
    bounds: Box<[Bounds]>,
}

impl Plans {
    /// Makes the plans of all messages of a schema.
    pub fn new(schema: Schema, limits: Limits) -> Self {
        let limits = Limits { depth: limits.depth.min(DEPTH_MAX), ..limits };
        let mut bounds = Vec::new();
        let messages =
            schema.messages().iter().map(|shape| MessageSteps::new(&schema, shape, &mut bounds)).collect();
        let enums = schema.enums().iter().map(EnumSteps::new).collect();
        Self { schema, limits, messages, enums, bounds: bounds.into() }
    }

    /// What they were made of.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What every message is held to.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    #[inline(always)]
    pub(crate) fn steps(&self, message: MessageId) -> &MessageSteps {
        &self.messages[message.0 as usize]
    }

    pub(crate) fn bounds(&self, step: &FieldStep) -> &Bounds {
        &self.bounds[step.bounds as usize]
    }

    #[inline(always)]
    pub(crate) fn verdict<C: Codec>(&self, step: &FieldStep, value: C::Value<'_>) -> Verdict {
        if C::is_finite(value) && step.check != Check::All {
            return Verdict::Take;
        }
        self.verdict_of(step, &C::scalar(value))
    }

    #[inline(never)]
    fn verdict_of(&self, step: &FieldStep, value: &Scalar<'_>) -> Verdict {
        match (step.kind, *value) {
            _ if step.check == Check::Nothing => Verdict::Take,
            (Kind::Enum(id), Scalar::Enum(number)) => self.enums[id.0 as usize].verdict(number),
            _ if self.bounds(step).value.check(value).is_ok() => Verdict::Take,
            _ => Verdict::Refuse,
        }
    }

    /// Why the verdict on a value was not to take it.
    #[cold]
    pub(crate) fn check(&self, step: &FieldStep, value: &Scalar<'_>) -> Result<(), Violation> {
        match (step.kind, *value) {
            (Kind::Enum(id), Scalar::Enum(value)) => {
                Err(Violation::NotNamed { value, name: self.schema.enumeration(id).name.clone() })
            }
            _ => self.bounds(step).value.check(value),
        }
    }

    /// Whether `count` items or entries are too many for a field.
    #[inline]
    pub(crate) fn check_count(&self, step: &FieldStep, count: usize) -> Result<(), Violation> {
        match self.bounds(step).count_max {
            Some(max) if count > max as usize => Err(Violation::TooMany { max }),
            _ => Ok(()),
        }
    }
}

/// Google's own limit; recursion must not be bounded by a setting alone.
const DEPTH_MAX: u32 = 100;
