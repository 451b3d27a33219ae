//! Values to bytes: a plan asks a [`Source`].
//!
//! The bytes are those of google's deterministic serialization (upb's, which Python has): fields by number, defaults
//! left out where presence is implicit, maps in the order of `MapOrder`.

use std::cmp::Ordering;

use crate::bounds::Violation;
use crate::error::{EncodeError, EncodeReason, Failure};
use crate::plan::{Plans, Scalar, Source, Stopped};
use crate::shape::{Kind, MessageId};
use crate::steps::{FieldStep, Form, wire_type, with_known_kind};
use crate::wire::{FIXED32, FIXED64, LEN, Reader, VARINT, put_varint, varint_bytes, zigzag32, zigzag64};

impl Plans {
    /// Appends one message to `out`. What is written can be read under the same limits.
    ///
    /// # Errors
    /// [`EncodeError`]: a value breaks a bound or a limit, or is not of its field's type. Then `out` is as before.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn encode<S: Source>(
        &self,
        message: MessageId,
        source: &S,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let limits = self.limits();
        let start = out.len();
        let end_max = start.saturating_add(limits.bytes);
        let mut encoder = Encoder { plans: self, out, end_max, items: limits.items, failure: None };
        let Err(Stopped) = encoder.message(message, source, limits.depth) else { return Ok(()) };
        let failure = encoder.failure.take().unwrap_or_else(|| Failure::new(EncodeReason::Stopped));
        out.truncate(start);
        Err(EncodeError::new(&self.schema().message(message).name, *failure))
    }
}

/// Sources pass on `Stopped`; why, unless it was the source's own wish, is in `failure`.
type Outcome = Result<(), Stopped>;

struct Encoder<'p, 'o> {
    plans: &'p Plans,
    out: &'o mut Vec<u8>,
    /// Longest that `out` may become.
    end_max: usize,
    /// How many items, entries and messages may yet come.
    items: usize,
    failure: Option<Box<Failure<EncodeReason>>>,
}

impl Encoder<'_, '_> {
    /// `depth`: how many messages within messages this one may yet hold.
    fn message<S: Source>(&mut self, id: MessageId, source: &S, depth: u32) -> Outcome {
        for step in &self.plans.steps(id).fields {
            let written = match step.form {
                Form::Single => self.single(step, source, depth),
                Form::Repeated { packed: true } => self.packed(step, source),
                Form::Repeated { packed: false } => self.repeated(step, source, depth),
                Form::Map { key } => self.map(step, key, source, depth),
            };
            if written.is_err() || self.out.len() > self.end_max {
                return self.at_field(id, step, written);
            }
        }
        Ok(())
    }

    #[cold]
    fn at_field(&mut self, id: MessageId, step: &FieldStep, written: Outcome) -> Outcome {
        let reason = if written.is_ok() { self.too_large() } else { EncodeReason::Stopped };
        let failure = self.failure.take().unwrap_or_else(|| Failure::new(reason));
        self.failure = Some(failure.field(&self.plans.schema().message(id).field(step.slot).name));
        Err(Stopped)
    }

    #[inline(always)]
    fn single<S: Source>(&mut self, step: &FieldStep, source: &S, depth: u32) -> Outcome {
        with_known_kind!(step.kind,
            message id => match source.message(step.slot)? {
                Some(child) => self.nested(step.tag, id, &child, depth),
                None => Ok(()),
            },
            kind => {
                let Some(ty) = kind.scalar_type() else { return Ok(()) };
                match source.scalar(step.slot, ty)? {
                    Some(value) if !(step.implicit && is_default(kind, &value)) => {
                        self.check(step, &value)?;
                        self.tagged(step.tag, kind, &value)
                    }
                    _ => Ok(()),
                }
            }
        )
    }

    #[inline(never)]
    fn packed<S: Source>(&mut self, step: &FieldStep, source: &S) -> Outcome {
        let Some(ty) = step.kind.scalar_type() else { return Ok(()) };
        let start = self.out.len();
        put_varint(step.tag.into(), self.out);
        let body = self.begin();
        let mut index = 0;
        source.items(step.slot, ty, |value| {
            self.item(step, index, &value)?;
            index += 1;
            with_known_kind!(step.kind, message _id => Ok(()), kind => self.value(kind, &value))
        })?;
        if index == 0 {
            self.out.truncate(start);
            return Ok(());
        }
        self.end(body)
    }

    #[inline(never)]
    fn repeated<S: Source>(&mut self, step: &FieldStep, source: &S, depth: u32) -> Outcome {
        let mut index = 0;
        if let Kind::Message(id) = step.kind {
            return source.messages(step.slot, |child| {
                self.counted(step, index)?;
                let written = self.nested(step.tag, id, &child, depth);
                index += 1;
                written.map_err(|Stopped| self.inside(|failure| failure.index(index - 1)))
            });
        }
        let Some(ty) = step.kind.scalar_type() else { return Ok(()) };
        source.items(step.slot, ty, |value| {
            self.item(step, index, &value)?;
            index += 1;
            self.tagged(step.tag, step.kind, &value)
        })
    }

    #[inline(never)]
    fn map<S: Source>(&mut self, step: &FieldStep, key_kind: Kind, source: &S, depth: u32) -> Outcome {
        let Some(key_type) = key_kind.scalar_type() else { return Ok(()) };
        let Some(depth) = depth.checked_sub(1) else { return self.too_deep() };
        let key_tag = 1 << 3 | wire_type(key_kind);
        let value_tag = 2 << 3 | wire_type(step.kind);
        let mut order = MapOrder { start: self.out.len(), entries: Vec::new() };
        if let Kind::Message(id) = step.kind {
            source.message_entries(step.slot, key_type, |key, child| {
                let (start, body) = self.entry(step, order.entries.len(), key_tag, key_kind, &key)?;
                self.nested(value_tag, id, &child, depth)
                    .map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                self.end(body)?;
                order.push(&key, start, self.out.len());
                Ok(())
            })?;
        } else if let Some(ty) = step.kind.scalar_type() {
            source.entries(step.slot, key_type, ty, |key, value| {
                let (start, body) = self.entry(step, order.entries.len(), key_tag, key_kind, &key)?;
                self.check(step, &value).map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                self.tagged(value_tag, step.kind, &value)?;
                self.end(body)?;
                order.push(&key, start, self.out.len());
                Ok(())
            })?;
        }
        order.sort(self.out);
        Ok(())
    }

    /// The beginning of a map's entry, its key written. Gives where the entry and where its body starts.
    fn entry(
        &mut self,
        step: &FieldStep,
        index: usize,
        key_tag: u32,
        key_kind: Kind,
        key: &Scalar<'_>,
    ) -> Result<(usize, usize), Stopped> {
        self.counted(step, index)?;
        let start = self.out.len();
        put_varint(step.tag.into(), self.out);
        let body = self.begin();
        if let Err(violation) = self.plans.bounds(step).key.check(key) {
            self.fail(violation)?;
        }
        self.tagged(key_tag, key_kind, key)?;
        Ok((start, body))
    }

    fn nested<S: Source>(&mut self, tag: u32, id: MessageId, child: &S, depth: u32) -> Outcome {
        let Some(depth) = depth.checked_sub(1) else { return self.too_deep() };
        self.spend()?;
        put_varint(tag.into(), self.out);
        let body = self.begin();
        self.message(id, child, depth)?;
        self.end(body)
    }

    /// One more item of a list, before it is written.
    #[inline(always)]
    fn item(&mut self, step: &FieldStep, index: usize, value: &Scalar<'_>) -> Outcome {
        self.counted(step, index)?;
        self.check(step, value).map_err(|Stopped| self.inside(|failure| failure.index(index)))
    }

    #[inline(always)]
    fn counted(&mut self, step: &FieldStep, index: usize) -> Outcome {
        self.spend()?;
        if step.counted {
            if let Err(violation) = self.plans.check_count(step, index + 1) {
                return self.fail(violation);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn check(&mut self, step: &FieldStep, value: &Scalar<'_>) -> Outcome {
        match self.plans.check(step, value) {
            Ok(true) => Ok(()),
            Ok(false) => self.not_named(step, &{ *value }),
            Err(violation) => self.fail(violation),
        }
    }

    /// What a reader would take as an unknown field must not be written.
    #[cold]
    fn not_named(&mut self, step: &FieldStep, value: &Scalar<'_>) -> Outcome {
        match (step.kind, value) {
            (Kind::Enum(id), Scalar::Enum(value)) => {
                let name = self.plans.schema().enumeration(id).name.clone();
                self.fail(Violation::NotNamed { value: *value, name })
            }
            _ => self.fail(EncodeReason::WrongType),
        }
    }

    #[inline(always)]
    fn tagged(&mut self, tag: u32, kind: Kind, value: &Scalar<'_>) -> Outcome {
        match (wire_type(kind), tag) {
            // Two bytes, mostly, and one growth: the usual number.
            (VARINT, 0..0x80) => match varint(kind, value) {
                Some(number @ 0..0x80) => self.out.extend_from_slice(&[tag as u8, number as u8]),
                Some(number) => {
                    self.out.push(tag as u8);
                    put_varint(number, self.out);
                }
                None => return self.fail(EncodeReason::WrongType),
            },
            (FIXED32, 0..0x80) => match fixed32(kind, value) {
                Some([a, b, c, d]) => self.out.extend_from_slice(&[tag as u8, a, b, c, d]),
                None => return self.fail(EncodeReason::WrongType),
            },
            _ => {
                put_varint(tag.into(), self.out);
                return self.value(kind, value);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn value(&mut self, kind: Kind, value: &Scalar<'_>) -> Outcome {
        match wire_type(kind) {
            VARINT => match varint(kind, value) {
                Some(number) => put_varint(number, self.out),
                None => return self.fail(EncodeReason::WrongType),
            },
            FIXED32 => match fixed32(kind, value) {
                Some(bytes) => self.out.extend_from_slice(&bytes),
                None => return self.fail(EncodeReason::WrongType),
            },
            FIXED64 => match fixed64(kind, value) {
                Some(bytes) => self.out.extend_from_slice(&bytes),
                None => return self.fail(EncodeReason::WrongType),
            },
            _ => match (kind, *value) {
                (Kind::Str, Scalar::Str(text)) => return self.delimited(text.as_bytes()),
                (Kind::Bytes, Scalar::Bytes(bytes)) => return self.delimited(bytes),
                _ => return self.fail(EncodeReason::WrongType),
            },
        }
        Ok(())
    }

    #[inline(always)]
    fn delimited(&mut self, bytes: &[u8]) -> Outcome {
        if bytes.len() > self.end_max.saturating_sub(self.out.len()) {
            let reason = self.too_large();
            return self.fail(reason);
        }
        put_varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// A length is not known yet: leaves one byte for it. Gives where the body starts.
    #[inline(always)]
    fn begin(&mut self) -> usize {
        self.out.push(0);
        self.out.len()
    }

    /// The body that began at `body` ends here: writes its length in front of it.
    #[inline(always)]
    fn end(&mut self, body: usize) -> Outcome {
        let length = self.out.len() - body;
        if length < 0x80 {
            self.out[body - 1] = length as u8;
            return Ok(());
        }
        self.end_long(body, length)
    }

    #[inline(never)]
    fn end_long(&mut self, body: usize, length: usize) -> Outcome {
        if self.out.len() > self.end_max {
            let reason = self.too_large();
            return self.fail(reason);
        }
        let moved = body + varint_bytes(length as u64) - 1;
        self.out.resize(moved + length, 0);
        self.out.copy_within(body..body + length, moved);
        let mut rest = length;
        for byte in &mut self.out[body - 1..moved] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[moved - 1] &= 0x7f;
        Ok(())
    }

    #[inline(always)]
    fn spend(&mut self) -> Outcome {
        match self.items.checked_sub(1) {
            Some(left) => self.items = left,
            None => return self.fail(EncodeReason::TooManyItems { max: self.plans.limits().items }),
        }
        Ok(())
    }

    fn too_deep(&mut self) -> Outcome {
        self.fail(EncodeReason::TooDeep { max: self.plans.limits().depth })
    }

    fn too_large(&self) -> EncodeReason {
        EncodeReason::TooLarge { max: self.plans.limits().bytes }
    }

    #[cold]
    fn fail(&mut self, reason: impl Into<EncodeReason>) -> Outcome {
        self.failure = Some(Failure::new(reason));
        Err(Stopped)
    }

    /// Adds a part of the path to the failure.
    #[cold]
    fn inside(
        &mut self,
        add: impl FnOnce(Box<Failure<EncodeReason>>) -> Box<Failure<EncodeReason>>,
    ) -> Stopped {
        let failure = self.failure.take().unwrap_or_else(|| Failure::new(EncodeReason::Stopped));
        self.failure = Some(add(failure));
        Stopped
    }
}

/// The order of a map's entries: by the key as an unsigned number, the largest first; texts by their bytes, where the
/// end of a text comes after any byte (`ab`, `a`, `b`). It is upb's, which writes from the back.
struct MapOrder {
    start: usize,
    entries: Vec<MapEntry>,
}

struct MapEntry {
    number: u64,
    start: usize,
    end: usize,
}

impl MapOrder {
    fn push(&mut self, key: &Scalar<'_>, start: usize, end: usize) {
        let number = match *key {
            Scalar::Bool(key) => u64::from(key),
            Scalar::I32(key) => key as u64,
            Scalar::I64(key) => key as u64,
            Scalar::U32(key) => u64::from(key),
            Scalar::U64(key) => key,
            _ => 0,
        };
        self.entries.push(MapEntry { number, start, end });
    }

    fn sort(mut self, out: &mut [u8]) {
        let order = |a: &MapEntry, b: &MapEntry| {
            // Texts have no number; theirs is read from what was written.
            b.number
                .cmp(&a.number)
                .then_with(|| text_order(key_of(&out[a.start..a.end]), key_of(&out[b.start..b.end])))
        };
        if self.entries.is_sorted_by(|a, b| order(a, b) != Ordering::Greater) {
            return;
        }
        self.entries.sort_by(order);
        let sorted: Vec<u8> =
            self.entries.iter().flat_map(|entry| &out[entry.start..entry.end]).copied().collect();
        out[self.start..].copy_from_slice(&sorted);
    }
}

fn text_order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then(b.len().cmp(&a.len()))
}

/// The text that is the key of an entry just written; empty for a number.
fn key_of(entry: &[u8]) -> &[u8] {
    let mut reader = Reader::new(entry);
    let body = reader.tag().and_then(|_| reader.delimited()).unwrap_or_default();
    let mut reader = Reader::new(body);
    match reader.tag() {
        Ok(tag) if tag & 7 == LEN => reader.delimited().unwrap_or_default(),
        _ => &[],
    }
}

#[inline(always)]
fn is_default(kind: Kind, value: &Scalar<'_>) -> bool {
    match (kind, *value) {
        // -0.0 is no default.
        (Kind::F64, Scalar::F64(value)) => value.to_bits() == 0,
        (Kind::F32, Scalar::F32(value)) => value.to_bits() == 0,
        (Kind::Str, Scalar::Str(value)) => value.is_empty(),
        (Kind::Bytes, Scalar::Bytes(value)) => value.is_empty(),
        (_, Scalar::I64(value)) => value == 0,
        (_, Scalar::U64(value)) => value == 0,
        (_, Scalar::I32(value) | Scalar::Enum(value)) => value == 0,
        (_, Scalar::U32(value)) => value == 0,
        (_, Scalar::Bool(value)) => !value,
        // Of another type: the one who writes it says so.
        _ => false,
    }
}

/// `None`: a value of another type.
#[inline(always)]
fn varint(kind: Kind, value: &Scalar<'_>) -> Option<u64> {
    Some(match (kind, *value) {
        (Kind::I64, Scalar::I64(value)) => value as u64,
        (Kind::U64, Scalar::U64(value)) => value,
        // A negative number takes ten bytes: it is sign-extended.
        (Kind::I32, Scalar::I32(value)) | (Kind::Enum(_), Scalar::Enum(value)) => value as u64,
        (Kind::U32, Scalar::U32(value)) => u64::from(value),
        (Kind::S32, Scalar::I32(value)) => u64::from(zigzag32(value)),
        (Kind::S64, Scalar::I64(value)) => zigzag64(value),
        (Kind::Bool, Scalar::Bool(value)) => u64::from(value),
        _ => return None,
    })
}

#[inline(always)]
fn fixed32(kind: Kind, value: &Scalar<'_>) -> Option<[u8; 4]> {
    Some(match (kind, *value) {
        (Kind::F32, Scalar::F32(value)) => value.to_le_bytes(),
        (Kind::Fixed32, Scalar::U32(value)) => value.to_le_bytes(),
        (Kind::SFixed32, Scalar::I32(value)) => value.to_le_bytes(),
        _ => return None,
    })
}

#[inline(always)]
fn fixed64(kind: Kind, value: &Scalar<'_>) -> Option<[u8; 8]> {
    Some(match (kind, *value) {
        (Kind::F64, Scalar::F64(value)) => value.to_le_bytes(),
        (Kind::Fixed64, Scalar::U64(value)) => value.to_le_bytes(),
        (Kind::SFixed64, Scalar::I64(value)) => value.to_le_bytes(),
        _ => return None,
    })
}
