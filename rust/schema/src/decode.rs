//! Bytes to values: a plan drives a [`Sink`].

use crate::codec::{self, Codec, with_codec};
use crate::discard::Discard;
use crate::error::{DecodeError, DecodeReason, Failure};
use crate::plan::{FixedItems, Packed, Plans, Scalar, Sink};
use crate::shape::{Kind, MessageId};
use crate::steps::{Check, FieldStep, Form, NONE, Verdict, wire_type};
use crate::wire::{LEN, Malformed, Reader};

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
        let mut expected: &[FieldStep] = &steps.fields;
        while !reader.is_empty() {
            let tag = reader.tag()?;
            let found = match expected.first() {
                Some(step) if step.tag == tag => expected,
                _ => match steps.find(tag) {
                    Some(found) => found,
                    None => {
                        reader = self.skip(reader, tag, depth)?;
                        continue;
                    }
                },
            };
            let Some((step, next)) = found.split_first() else { continue }; // never: a tag was found
            // An item is mostly followed by the next one.
            expected = if step.form == Form::Single { next } else { found };
            match self.field(step, tag, reader, sink, depth) {
                Ok(rest) => reader = rest,
                Err(failure) => {
                    return Err(failure.field(&self.plans.schema().message(id).field(step.slot).name));
                }
            }
        }
        Ok(sink.finish()?)
    }

    /// Reads the value behind a tag; gives what is left.
    #[inline(always)]
    fn field<'b, S: Sink>(
        &mut self,
        step: &FieldStep,
        tag: u32,
        mut reader: Reader<'b>,
        sink: &mut S,
        depth: u32,
    ) -> Outcome<Reader<'b>> {
        match step.form {
            Form::Single => with_codec!(step.kind,
                message id => {
                    let bytes = reader.delimited()?;
                    choose(step, sink)?;
                    let depth = self.deeper(depth)?;
                    self.spend(1)?;
                    self.message(id, bytes, &mut sink.message(step.slot)?, depth)?;
                },
                C => {
                    let value = C::read(&mut reader)?;
                    if self.takes::<C>(step, value)? {
                        choose(step, sink)?;
                        sink.set(step.slot, C::scalar(value))?;
                    }
                }
            ),
            Form::Repeated | Form::Packed if tag & 7 == LEN && step.kind.is_packable() => {
                self.packed(step, reader.delimited()?, sink)?;
            }
            Form::Repeated | Form::Packed => return self.item(step, reader, sink, depth),
            Form::Map => self.entry(step, reader.delimited()?, sink, depth)?,
        }
        Ok(reader)
    }

    #[inline(never)]
    fn item<'b, S: Sink>(
        &mut self,
        step: &FieldStep,
        mut reader: Reader<'b>,
        sink: &mut S,
        depth: u32,
    ) -> Outcome<Reader<'b>> {
        self.spend(1)?;
        if step.counted {
            self.plans.check_count(step, sink.count(step.slot) + 1)?;
        }
        if let Kind::Message(id) = step.kind {
            let bytes = reader.delimited()?;
            let depth = self.deeper(depth)?;
            let read = self.message(id, bytes, &mut sink.message_item(step.slot)?, depth);
            return match read {
                Ok(()) => Ok(reader),
                Err(failure) => Err(failure.index(sink.count(step.slot).saturating_sub(1))),
            };
        }
        with_codec!(step.kind, message _id => {}, C => {
            let value = C::read(&mut reader)
                .map_err(|malformed| Failure::new(malformed).index(sink.count(step.slot)))?;
            if self.takes_item::<C, S>(step, value, sink)? {
                sink.item(step.slot, C::scalar(value))?;
            }
        });
        Ok(reader)
    }

    /// Whether a value is taken; if not, the field is an unknown one.
    #[inline(always)]
    fn takes<C: Codec>(&self, step: &FieldStep, value: C::Value<'_>) -> Outcome<bool> {
        match self.plans.verdict::<C>(step, value) {
            Verdict::Take => Ok(true),
            Verdict::Skip => Ok(false),
            Verdict::Refuse => Ok(self.plans.check(step, &C::scalar(value)).map(|()| true)?),
        }
    }

    #[inline(always)]
    fn takes_item<C: Codec, S: Sink>(
        &self,
        step: &FieldStep,
        value: C::Value<'_>,
        sink: &S,
    ) -> Outcome<bool> {
        self.takes::<C>(step, value).map_err(|failure| failure.index(sink.count(step.slot)))
    }

    #[inline(never)]
    fn packed<S: Sink>(&mut self, step: &FieldStep, bytes: &[u8], sink: &mut S) -> Outcome {
        with_codec!(step.kind, message _id => Ok(()), C => match fixed_items(step.kind, bytes)? {
            Some(run) => self.packed_fixed::<C, S>(step, bytes, run, sink),
            None => self.packed_varints::<C, S>(step, bytes, sink),
        })
    }

    fn packed_fixed<C: Codec, S: Sink>(
        &mut self,
        step: &FieldStep,
        bytes: &[u8],
        run: FixedItems<'_>,
        sink: &mut S,
    ) -> Outcome {
        self.room(step, run.len(), sink)?;
        if step.check != Check::Nothing {
            let mut reader = Reader::new(bytes);
            for index in 0..run.len() {
                let value = C::read(&mut reader)?;
                self.takes::<C>(step, value)
                    .map_err(|failure| failure.index(sink.count(step.slot) + index))?;
            }
        }
        Ok(sink.fixed_items(step.slot, run)?)
    }

    fn packed_varints<C: Codec, S: Sink>(&mut self, step: &FieldStep, bytes: &[u8], sink: &mut S) -> Outcome {
        if bytes.last().is_some_and(|&last| last >= 0x80) {
            return Err(Malformed::Packed.into());
        }
        let count = bytes.iter().filter(|&&byte| byte < 0x80).count();
        self.room(step, count, sink)?;
        sink.reserve(step.slot, count)?;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let value = C::read(&mut reader)?;
            if self.takes_item::<C, S>(step, value, sink)? {
                sink.item(step.slot, C::scalar(value))?;
            }
        }
        Ok(())
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
    fn entry<S: Sink>(&mut self, step: &FieldStep, bytes: &[u8], sink: &mut S, depth: u32) -> Outcome {
        let depth = self.deeper(depth)?;
        self.spend(1)?;
        if step.counted {
            self.plans.check_count(step, sink.count(step.slot) + 1)?;
        }
        let (key_tag, value_tag) = (1 << 3 | wire_type(step.key), 2 << 3 | wire_type(step.kind));
        let mut key = default_scalar(step.key);
        let mut value = default_scalar(step.kind);
        let mut known = true;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let tag = reader.tag()?;
            if tag == key_tag {
                key = scalar(step.key, &mut reader)?;
            } else if tag != value_tag {
                reader = self.skip(reader, tag, depth)?;
                known = false;
            } else if let Kind::Message(_) = step.kind {
                reader.delimited()?;
            } else {
                value = scalar(step.kind, &mut reader)?;
                // Each number that a closed enum does not name counts, not only the last.
                if let Scalar::Enum(number) = value {
                    known &= self.takes::<codec::Enum>(step, number).map_err(|e| e.key(&key))?;
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
        if known && self.takes_entry(step, value).map_err(|failure| failure.key(&key))? {
            sink.entry(step.slot, key, value)?;
        }
        Ok(())
    }

    /// The last word on an entry's value, which may be a default that did not come.
    fn takes_entry(&self, step: &FieldStep, value: Scalar<'_>) -> Outcome<bool> {
        with_codec!(step.kind, message _id => Ok(true), C => match C::of_scalar(value) {
            Some(value) => self.takes::<C>(step, value),
            None => Ok(false),
        })
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
                reader = self.skip(reader, tag, depth)?;
            }
        }
        if empty { self.message(id, &[], sink, depth) } else { Ok(()) }
    }

    #[inline(never)]
    fn skip<'b>(&self, reader: Reader<'b>, tag: u32, depth: u32) -> Outcome<Reader<'b>> {
        reader.skip(tag, depth)?.ok_or_else(|| self.too_deep())
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

/// A message's bytes are read by their own plan; nobody asks for them as a scalar.
fn scalar<'b>(kind: Kind, reader: &mut Reader<'b>) -> Result<Scalar<'b>, Malformed> {
    with_codec!(kind, message _id => reader.delimited().map(Scalar::Bytes), C => C::read(reader).map(C::scalar))
}

/// What a key or value is that is not there; for a message, which has no scalar, anything.
fn default_scalar(kind: Kind) -> Scalar<'static> {
    with_codec!(kind, message _id => Scalar::Bytes(&[]), C => C::scalar(C::DEFAULT))
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
