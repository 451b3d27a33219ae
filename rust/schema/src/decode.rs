//! Bytes to values: a plan drives a [`Sink`].

use crate::discard::Discard;
use crate::error::{DecodeError, DecodeReason, Failure};
use crate::plan::{FixedItems, Packed, Plans, Scalar, Sink};
use crate::shape::{Kind, MessageId};
use crate::steps::{Check, FieldStep, Form, NONE, wire_type, with_known_kind};
use crate::wire::{LEN, Malformed, Reader, unzigzag32, unzigzag64};

impl Plans {
    /// Reads one message.
    ///
    /// # Errors
    /// [`DecodeError`]: the bytes are no protobuf message, or break a limit or a bound. Then `sink` holds a part of it.
    ///
    /// # Panics
    /// The id is another schema's.
    pub fn decode<S: Sink>(&self, message: MessageId, bytes: &[u8], sink: &mut S) -> Result<(), DecodeError> {
        let limits = self.limits();
        let mut decoder = Decoder { plans: self, items: limits.items };
        let read = if bytes.len() > limits.bytes {
            Err(Failure::new(DecodeReason::TooLarge { bytes: bytes.len(), max: limits.bytes }))
        } else {
            decoder.message(message, bytes, sink, limits.depth)
        };
        read.map_err(|failure| DecodeError::new(&self.schema().message(message).name, *failure))
    }
}

type Outcome<T = ()> = Result<T, Box<Failure<DecodeReason>>>;

struct Decoder<'p> {
    plans: &'p Plans,
    /// How many items, entries and messages may yet come.
    items: usize,
}

impl Decoder<'_> {
    /// `depth`: how many messages within messages this one may yet hold.
    fn message<S: Sink>(&mut self, id: MessageId, bytes: &[u8], sink: &mut S, depth: u32) -> Outcome {
        let steps = self.plans.steps(id);
        let mut reader = Reader::new(bytes);
        let mut expected = 0;
        while !reader.is_empty() {
            let tag = reader.tag()?;
            let step = match steps.fields.get(expected) {
                Some(step) if step.tag == tag => step,
                _ => match steps.find(tag) {
                    Some(step) => step,
                    None => {
                        self.skip(&mut reader, tag, depth)?;
                        continue;
                    }
                },
            };
            expected = usize::from(step.next);
            if let Err(failure) = self.field(step, tag, &mut reader, sink, depth) {
                return Err(failure.field(&self.plans.schema().message(id).field(step.slot).name));
            }
        }
        Ok(sink.finish()?)
    }

    #[inline(always)]
    fn field<S: Sink>(
        &mut self,
        step: &FieldStep,
        tag: u32,
        reader: &mut Reader<'_>,
        sink: &mut S,
        depth: u32,
    ) -> Outcome {
        match step.form {
            Form::Single => with_known_kind!(step.kind,
                message id => {
                    let bytes = reader.delimited()?;
                    choose(step, sink)?;
                    let depth = self.deeper(depth)?;
                    self.spend(1)?;
                    self.message(id, bytes, &mut sink.message(step.slot)?, depth)
                },
                kind => {
                    let value = scalar(kind, reader)?;
                    if self.plans.check(step, &value)? {
                        choose(step, sink)?;
                        sink.set(step.slot, value)?;
                    }
                    Ok(())
                }
            ),
            Form::Repeated { .. } if tag & 7 == LEN && step.kind.is_packable() => {
                self.packed(step, reader.delimited()?, sink)
            }
            Form::Repeated { .. } => self.item(step, reader, sink, depth),
            Form::Map { key } => {
                let bytes = reader.delimited()?;
                self.entry(step, key, bytes, sink, depth)
            }
        }
    }

    #[inline(never)]
    fn item<S: Sink>(
        &mut self,
        step: &FieldStep,
        reader: &mut Reader<'_>,
        sink: &mut S,
        depth: u32,
    ) -> Outcome {
        self.spend(1)?;
        if step.counted {
            self.plans.check_count(step, sink.count(step.slot) + 1)?;
        }
        if let Kind::Message(id) = step.kind {
            let bytes = reader.delimited()?;
            let depth = self.deeper(depth)?;
            let read = self.message(id, bytes, &mut sink.message_item(step.slot)?, depth);
            return read.map_err(|failure| failure.index(sink.count(step.slot).saturating_sub(1)));
        }
        let value = scalar(step.kind, reader).map_err(|failure| failure.index(sink.count(step.slot)))?;
        if self.checked_item(step, &value, sink)? {
            sink.item(step.slot, value)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn checked_item<S: Sink>(&self, step: &FieldStep, value: &Scalar<'_>, sink: &S) -> Outcome<bool> {
        self.plans
            .check(step, value)
            .map_err(|violation| Failure::new(violation).index(sink.count(step.slot)))
    }

    #[inline(never)]
    fn packed<S: Sink>(&mut self, step: &FieldStep, bytes: &[u8], sink: &mut S) -> Outcome {
        let Some(run) = fixed_items(step.kind, bytes)? else {
            return self.packed_varints(step, bytes, sink);
        };
        self.room(step, run.len(), sink)?;
        if step.check != Check::Nothing {
            let mut index = 0;
            run.try_for_each(|value| {
                let checked = self.plans.check(step, &value).map(drop);
                index += 1;
                checked.map_err(|violation| Failure::new(violation).index(sink.count(step.slot) + index - 1))
            })?;
        }
        Ok(sink.fixed_items(step.slot, run)?)
    }

    fn packed_varints<S: Sink>(&mut self, step: &FieldStep, bytes: &[u8], sink: &mut S) -> Outcome {
        if bytes.last().is_some_and(|&last| last >= 0x80) {
            return Err(Malformed::Packed.into());
        }
        let count = bytes.iter().filter(|&&byte| byte < 0x80).count();
        self.room(step, count, sink)?;
        sink.reserve(step.slot, count)?;
        let mut reader = Reader::new(bytes);
        with_known_kind!(step.kind, message _id => Ok(()), kind => {
            while !reader.is_empty() {
                let value = scalar(kind, &mut reader)?;
                if self.checked_item(step, &value, sink)? {
                    sink.item(step.slot, value)?;
                }
            }
            Ok(())
        })
    }

    /// Whether a packed run of `count` items may come.
    fn room<S: Sink>(&mut self, step: &FieldStep, count: usize, sink: &S) -> Outcome {
        self.spend(count)?;
        if step.counted {
            self.plans.check_count(step, sink.count(step.slot) + count)?;
        }
        Ok(())
    }

    /// An entry is a message of key 1 and value 2. As google has it: either may be missing, come twice or second; an
    /// entry with anything else in it is an unknown field as a whole.
    #[inline(never)]
    fn entry<S: Sink>(
        &mut self,
        step: &FieldStep,
        key_kind: Kind,
        bytes: &[u8],
        sink: &mut S,
        depth: u32,
    ) -> Outcome {
        let depth = self.deeper(depth)?;
        self.spend(1)?;
        if step.counted {
            self.plans.check_count(step, sink.count(step.slot) + 1)?;
        }
        let (key_tag, value_tag) = (1 << 3 | wire_type(key_kind), 2 << 3 | wire_type(step.kind));
        let mut key = default_scalar(key_kind);
        let mut value = default_scalar(step.kind);
        let mut known = true;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let tag = reader.tag()?;
            if tag == key_tag {
                key = scalar(key_kind, &mut reader)?;
            } else if tag != value_tag {
                self.skip(&mut reader, tag, depth)?;
                known = false;
            } else if let Kind::Message(_) = step.kind {
                reader.delimited()?;
            } else {
                value = scalar(step.kind, &mut reader)?;
                if let Scalar::Enum(_) = value {
                    known &= self.plans.check(step, &value).map_err(|e| Failure::new(e).key(&key))?;
                }
            }
        }
        if known && step.check == Check::All {
            self.plans.bounds(step).key.check(&key).map_err(|violation| Failure::new(violation).key(&key))?;
        }
        if let Kind::Message(id) = step.kind {
            self.spend(1)?;
            let depth = self.deeper(depth)?;
            let read = if known {
                let mut child = sink.message_entry(step.slot, key)?;
                self.entry_message(id, bytes, value_tag, &mut child, depth)
            } else {
                self.entry_message(id, bytes, value_tag, &mut Discard::new(), depth)
            };
            return read.map_err(|failure| failure.key(&key));
        }
        if known {
            known = self.plans.check(step, &value).map_err(|violation| Failure::new(violation).key(&key))?;
        }
        if known {
            sink.entry(step.slot, key, value)?;
        }
        Ok(())
    }

    /// The message of an entry, whose bytes have been walked through once: all pieces of it, merged.
    fn entry_message<S: Sink>(
        &mut self,
        id: MessageId,
        entry: &[u8],
        value_tag: u32,
        sink: &mut S,
        depth: u32,
    ) -> Outcome {
        let mut reader = Reader::new(entry);
        let mut empty = true;
        while !reader.is_empty() {
            let tag = reader.tag()?;
            if tag == value_tag {
                self.message(id, reader.delimited()?, sink, depth)?;
                empty = false;
            } else {
                self.skip(&mut reader, tag, depth)?;
            }
        }
        if empty { self.message(id, &[], sink, depth) } else { Ok(()) }
    }

    #[inline(never)]
    fn skip(&mut self, reader: &mut Reader<'_>, tag: u32, depth: u32) -> Outcome {
        if reader.skip(tag, depth)? { Ok(()) } else { Err(self.too_deep()) }
    }

    #[inline(always)]
    fn deeper(&self, depth: u32) -> Outcome<u32> {
        depth.checked_sub(1).ok_or_else(|| self.too_deep())
    }

    #[cold]
    fn too_deep(&self) -> Box<Failure<DecodeReason>> {
        Failure::new(DecodeReason::TooDeep { max: self.plans.limits().depth })
    }

    #[inline(always)]
    fn spend(&mut self, items: usize) -> Outcome {
        match self.items.checked_sub(items) {
            Some(left) => self.items = left,
            None => {
                return Err(Failure::new(DecodeReason::TooManyItems { max: self.plans.limits().items }));
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn choose<S: Sink>(step: &FieldStep, sink: &mut S) -> Outcome {
    if step.oneof != NONE {
        sink.choose(step.oneof, step.slot)?;
    }
    Ok(())
}

#[inline(always)]
fn scalar<'b>(kind: Kind, reader: &mut Reader<'b>) -> Outcome<Scalar<'b>> {
    Ok(match kind {
        Kind::F64 => Scalar::F64(f64::from_le_bytes(reader.fixed()?)),
        Kind::F32 => Scalar::F32(f32::from_le_bytes(reader.fixed()?)),
        Kind::Fixed64 => Scalar::U64(u64::from_le_bytes(reader.fixed()?)),
        Kind::SFixed64 => Scalar::I64(i64::from_le_bytes(reader.fixed()?)),
        Kind::Fixed32 => Scalar::U32(u32::from_le_bytes(reader.fixed()?)),
        Kind::SFixed32 => Scalar::I32(i32::from_le_bytes(reader.fixed()?)),
        Kind::I64 => Scalar::I64(reader.varint()? as i64),
        Kind::U64 => Scalar::U64(reader.varint()?),
        Kind::I32 => Scalar::I32(reader.varint()? as i32),
        Kind::U32 => Scalar::U32(reader.varint()? as u32),
        Kind::S64 => Scalar::I64(unzigzag64(reader.varint()?)),
        Kind::S32 => Scalar::I32(unzigzag32(reader.varint()? as u32)),
        Kind::Bool => Scalar::Bool(reader.varint()? != 0),
        Kind::Enum(_) => Scalar::Enum(reader.varint()? as i32),
        Kind::Str => match std::str::from_utf8(reader.delimited()?) {
            Ok(text) => Scalar::Str(text),
            Err(_) => return Err(Failure::new(DecodeReason::Utf8)),
        },
        // A message's bytes are read by their own plan; nobody asks for them as a scalar.
        Kind::Bytes | Kind::Message(_) => Scalar::Bytes(reader.delimited()?),
    })
}

/// What a key or value is that is not there; for a message, which has no scalar, anything.
fn default_scalar(kind: Kind) -> Scalar<'static> {
    match kind {
        Kind::F64 => Scalar::F64(0.0),
        Kind::F32 => Scalar::F32(0.0),
        Kind::I64 | Kind::S64 | Kind::SFixed64 => Scalar::I64(0),
        Kind::U64 | Kind::Fixed64 => Scalar::U64(0),
        Kind::I32 | Kind::S32 | Kind::SFixed32 => Scalar::I32(0),
        Kind::U32 | Kind::Fixed32 => Scalar::U32(0),
        Kind::Bool => Scalar::Bool(false),
        Kind::Str => Scalar::Str(""),
        Kind::Enum(_) => Scalar::Enum(0),
        Kind::Bytes | Kind::Message(_) => Scalar::Bytes(&[]),
    }
}

/// `None`: items of this kind are varints.
fn fixed_items(kind: Kind, bytes: &[u8]) -> Result<Option<FixedItems<'_>>, Malformed> {
    let run4 = || Packed::<4>::new(bytes).ok_or(Malformed::Packed);
    let run8 = || Packed::<8>::new(bytes).ok_or(Malformed::Packed);
    Ok(Some(match kind {
        Kind::F64 => FixedItems::F64(run8()?),
        Kind::F32 => FixedItems::F32(run4()?),
        Kind::Fixed64 => FixedItems::U64(run8()?),
        Kind::SFixed64 => FixedItems::I64(run8()?),
        Kind::Fixed32 => FixedItems::U32(run4()?),
        Kind::SFixed32 => FixedItems::I32(run4()?),
        _ => return Ok(None),
    }))
}
