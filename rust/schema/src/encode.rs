//! Values to bytes: a plan asks a [`Source`].
//!
//! The bytes are those of google's deterministic serialization (upb's, which Python has): fields by number, defaults
//! left out where presence is implicit, maps in the order of [`MapOrder`].

use crate::buffer::Buffer;
use crate::codec::{Codec, Raw, with_codec};
use crate::error::{EncodeError, EncodeReason, Failure};
use crate::map_order::MapOrder;
use crate::plan::{Plans, Scalar, Source, Stopped};
use crate::shape::MessageId;
use crate::steps::{FieldStep, Form, Verdict};
use crate::wire::LEN;

impl Plans {
    /// Appends one message to `out`. What is written can be read under the same limits.
    ///
    /// # Errors
    /// [`EncodeError`]: a value breaks a bound or a limit, or is not of its field's type. Then `out` is as before.
    ///
    /// # Panics
    /// The id is another schema's.
    #[inline]
    pub fn encode<S: Source>(
        &self,
        message: MessageId,
        source: &S,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let limits = self.limits();
        let start = out.len();
        let mut encoder = Encoder {
            plans: self,
            out: Buffer::new(out),
            end_max: start.saturating_add(limits.bytes),
            items: limits.items,
            failure: None,
        };
        match encoder.message(message, source, limits.depth, start) {
            Ok(end) => {
                encoder.out.finish(end);
                Ok(())
            }
            Err(Stopped) => {
                let failure = encoder.failure.take();
                encoder.out.finish(start);
                Err(self.refused(message, failure))
            }
        }
    }

    #[cold]
    fn refused(&self, message: MessageId, failure: Option<Box<Failure<EncodeReason>>>) -> EncodeError {
        let failure = failure.unwrap_or_else(|| Failure::new(EncodeReason::Stopped));
        EncodeError::new(&self.schema().message(message).name, *failure)
    }
}

/// Sources pass on `Stopped`; why, unless it was the source's own wish, is in `failure`.
type Outcome<T = ()> = Result<T, Stopped>;
/// What writes takes the place where it begins, and gives the one where it ends.
type Place = usize;

struct Encoder<'p, 'o> {
    plans: &'p Plans,
    out: Buffer<'o>,
    /// Longest that `out` may become.
    end_max: usize,
    /// How many items, entries and messages may yet come.
    items: usize,
    failure: Option<Box<Failure<EncodeReason>>>,
}

impl Encoder<'_, '_> {
    /// `depth`: how many messages within messages this one may yet hold.
    fn message<S: Source>(&mut self, id: MessageId, source: &S, depth: u32, mut at: Place) -> Outcome<Place> {
        for step in &self.plans.steps(id).fields {
            if !step.plain {
                at = match self.not_plain(step, source, depth, at) {
                    Ok(end) => end,
                    Err(Stopped) => return self.stopped(id, step),
                };
                continue;
            }
            at = match self.single(step, step.tag & 0x7f, source, depth, at) {
                Ok(end) => end,
                Err(Stopped) => return self.stopped(id, step),
            };
        }
        // Texts and bytes have been checked before, and items are counted: this is late by some numbers at most.
        if at > self.end_max { self.too_large() } else { Ok(at) }
    }

    #[inline(always)]
    fn single<S: Source>(
        &mut self,
        step: &FieldStep,
        tag: u32,
        source: &S,
        depth: u32,
        at: Place,
    ) -> Outcome<Place> {
        with_codec!(step.kind,
            message id => match source.message(step.slot)? {
                Some(child) => self.nested(tag, id, &child, depth, at),
                None => Ok(at),
            },
            C => match source.scalar(step.slot, C::scalar_type(step.kind))?.map(C::of_scalar) {
                None => Ok(at),
                Some(None) => self.fail(EncodeReason::WrongType),
                Some(Some(value)) if C::is_default(value) && step.implicit => Ok(at),
                Some(Some(value)) => {
                    self.check::<C>(step, value, at)?;
                    Ok(self.out.put_tagged(at, tag, C::raw(value)))
                }
            }
        )
    }

    #[inline(never)]
    fn not_plain<S: Source>(
        &mut self,
        step: &FieldStep,
        source: &S,
        depth: u32,
        at: Place,
    ) -> Outcome<Place> {
        match step.form {
            Form::Single => self.single(step, step.tag, source, depth, at),
            Form::Packed => self.packed(step, source, at),
            Form::Map => self.map(step, source, depth, at),
            Form::Repeated => self.repeated(step, source, depth, at),
        }
    }

    fn packed<S: Source>(&mut self, step: &FieldStep, source: &S, at: Place) -> Outcome<Place> {
        let body = self.out.begin_body(at, step.tag);
        let end = with_codec!(step.kind,
            message _id => Ok(body),
            C => self.packed_items::<C, S>(step, source, body)
        )?;
        Ok(if end == body { at } else { self.out.end_body(body, end) })
    }

    fn packed_items<C: Codec, S: Source>(
        &mut self,
        step: &FieldStep,
        source: &S,
        mut at: Place,
    ) -> Outcome<Place> {
        let mut index = 0;
        source.items(step.slot, C::scalar_type(step.kind), |value| {
            let value = self.item::<C>(step, index, value, at)?;
            index += 1;
            at = self.out.put_number(at, C::raw(value));
            Ok(())
        })?;
        Ok(at)
    }

    fn repeated<S: Source>(
        &mut self,
        step: &FieldStep,
        source: &S,
        depth: u32,
        mut at: Place,
    ) -> Outcome<Place> {
        with_codec!(step.kind,
            message id => {
                let mut index = 0;
                source.messages(step.slot, |child| {
                    self.counted(step, index)?;
                    at = self
                        .nested(step.tag, id, &child, depth, at)
                        .map_err(|Stopped| self.inside(|failure| failure.index(index)))?;
                    index += 1;
                    Ok(())
                })?;
                Ok(at)
            },
            C => self.repeated_items::<C, S>(step, source, at)
        )
    }

    fn repeated_items<C: Codec, S: Source>(
        &mut self,
        step: &FieldStep,
        source: &S,
        mut at: Place,
    ) -> Outcome<Place> {
        let mut index = 0;
        source.items(step.slot, C::scalar_type(step.kind), |value| {
            let value = self.item::<C>(step, index, value, at)?;
            index += 1;
            at = self.out.put_tagged(at, step.tag, C::raw(value));
            Ok(())
        })?;
        Ok(at)
    }

    fn map<S: Source>(&mut self, step: &FieldStep, source: &S, depth: u32, mut at: Place) -> Outcome<Place> {
        let mut order = MapOrder::new(at);
        let Some(key_type) = step.key.scalar_type() else { return Ok(at) };
        with_codec!(step.kind,
            message id => source.message_entries(step.slot, key_type, |key, child| {
                let (body, value) = self.entry(step, &order, key, depth, at)?;
                let end = self
                    .nested(2 << 3 | LEN, id, &child, depth - 1, value)
                    .map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                at = self.out.end_body(body, end);
                order.push(key, at);
                Ok(())
            }),
            C => source.entries(step.slot, key_type, C::scalar_type(step.kind), |key, value| {
                let (body, place) = self.entry(step, &order, key, depth, at)?;
                let end = self
                    .entry_value::<C>(step, value, place)
                    .map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                at = self.out.end_body(body, end);
                order.push(key, at);
                Ok(())
            })
        )?;
        let start = order.start();
        order.sort(self.out.written(start, at));
        Ok(at)
    }

    /// The beginning of a map's next entry, its key written. Gives where its body and where its value starts.
    fn entry(
        &mut self,
        step: &FieldStep,
        order: &MapOrder,
        key: Scalar<'_>,
        depth: u32,
        at: Place,
    ) -> Outcome<(Place, Place)> {
        if depth == 0 {
            return self.too_deep();
        }
        self.counted(step, order.len())?;
        let body = self.out.begin_body(at, step.tag);
        match self.entry_key(step, key, body) {
            Ok(value) => Ok((body, value)),
            Err(Stopped) => Err(self.inside(|failure| failure.key(&key))),
        }
    }

    fn entry_key(&mut self, step: &FieldStep, key: Scalar<'_>, at: Place) -> Outcome<Place> {
        if let Err(violation) = self.plans.bounds(step).key.check(&key) {
            return self.fail(violation);
        }
        with_codec!(step.key, message _id => Ok(at), C => {
            let key = self.narrow::<C>(key)?;
            self.check_room(C::raw(key), at)?;
            Ok(self.out.put_tagged(at, 1 << 3 | C::WIRE_TYPE, C::raw(key)))
        })
    }

    fn entry_value<C: Codec>(&mut self, step: &FieldStep, value: Scalar<'_>, at: Place) -> Outcome<Place> {
        let value = self.narrow::<C>(value)?;
        self.check::<C>(step, value, at)?;
        Ok(self.out.put_tagged(at, 2 << 3 | C::WIRE_TYPE, C::raw(value)))
    }

    fn nested<S: Source>(
        &mut self,
        tag: u32,
        id: MessageId,
        child: &S,
        depth: u32,
        at: Place,
    ) -> Outcome<Place> {
        let Some(depth) = depth.checked_sub(1) else { return self.too_deep() };
        self.spend()?;
        let body = self.out.begin_body(at, tag);
        let end = self.message(id, child, depth, body)?;
        Ok(self.out.end_body(body, end))
    }

    /// One more item of a list, before it is written.
    #[inline(always)]
    fn item<'v, C: Codec>(
        &mut self,
        step: &FieldStep,
        index: usize,
        value: Scalar<'v>,
        at: Place,
    ) -> Outcome<C::Value<'v>> {
        self.counted(step, index)?;
        let value = self.narrow::<C>(value)?;
        if let Raw::Bytes(bytes) = C::raw(value) {
            self.check_room_for(bytes.len(), at)?;
        }
        match self.check::<C>(step, value, at) {
            Ok(()) => Ok(value),
            Err(Stopped) => Err(self.inside(|failure| failure.index(index))),
        }
    }

    /// The value as its kind has it, if it is of this kind.
    #[inline(always)]
    fn narrow<'v, C: Codec>(&mut self, value: Scalar<'v>) -> Outcome<C::Value<'v>> {
        match C::of_scalar(value) {
            Some(value) => Ok(value),
            None => self.fail(EncodeReason::WrongType),
        }
    }

    /// Bounds, and for texts and bytes the room that there is: before they are copied.
    #[inline(always)]
    fn check<C: Codec>(&mut self, step: &FieldStep, value: C::Value<'_>, at: Place) -> Outcome {
        self.check_room(C::raw(value), at)?;
        match self.plans.verdict::<C>(step, value) {
            Verdict::Take => Ok(()),
            // What a reader would take as an unknown field must not be written.
            Verdict::Skip | Verdict::Refuse => match self.plans.check(step, &C::scalar(value)) {
                Ok(()) => Ok(()),
                Err(violation) => self.fail(violation),
            },
        }
    }

    /// Of short ones the end of the message is soon enough.
    #[inline(always)]
    fn check_room(&mut self, value: Raw<'_>, at: Place) -> Outcome {
        match value {
            Raw::Bytes(bytes) if bytes.len() >= 0x80 => self.check_room_for(bytes.len(), at),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn check_room_for(&mut self, bytes: usize, at: Place) -> Outcome {
        if bytes > self.end_max.saturating_sub(at) { self.too_large() } else { Ok(()) }
    }

    #[inline(always)]
    fn counted(&mut self, step: &FieldStep, index: usize) -> Outcome {
        self.spend()?;
        if step.counted
            && let Err(violation) = self.plans.check_count(step, index + 1)
        {
            return self.fail(violation);
        }
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

    #[cold]
    fn too_deep<T>(&mut self) -> Outcome<T> {
        self.fail(EncodeReason::TooDeep { max: self.plans.limits().depth })
    }

    #[cold]
    fn too_large<T>(&mut self) -> Outcome<T> {
        self.fail(EncodeReason::TooLarge { max: self.plans.limits().bytes })
    }

    #[cold]
    fn fail<T>(&mut self, reason: impl Into<EncodeReason>) -> Outcome<T> {
        self.failure = Some(Failure::new(reason));
        Err(Stopped)
    }

    /// Where it was: at a field.
    #[cold]
    #[inline(never)]
    fn stopped<T>(&mut self, id: MessageId, step: &FieldStep) -> Outcome<T> {
        let name = &self.plans.schema().message(id).field(step.slot).name;
        Err(self.inside(|failure| failure.field(name)))
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
