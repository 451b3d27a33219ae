//! Values to bytes: a plan asks a [`Source`].
//!
//! The bytes are those of google's deterministic serialization (upb's, which Python has): fields by number, defaults
//! left out where presence is implicit, maps in the order of [`MapOrder`].

use crate::buffer::{Piece, begin_body, end_body};
use crate::codec::{Codec, Raw, with_codec};
use crate::error::{EncodeError, EncodeReason, Failure};
use crate::map_order::MapOrder;
use crate::plan::{Plans, Scalar, ScalarType, Source, Stopped};
use crate::shape::{Kind, MessageId};
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
        match encoder.message(message, source, limits.depth) {
            Ok(()) => Ok(()),
            Err(Stopped) => {
                let failure = encoder.failure.take();
                self.refuse(start, message, out, failure)
            }
        }
    }

    #[cold]
    fn refuse(
        &self,
        start: usize,
        message: MessageId,
        out: &mut Vec<u8>,
        failure: Option<Box<Failure<EncodeReason>>>,
    ) -> Result<(), EncodeError> {
        out.truncate(start);
        let failure = failure.unwrap_or_else(|| Failure::new(EncodeReason::Stopped));
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
        let mut piece = Piece::new();
        for step in &self.plans.steps(id).fields {
            let written = match step.form {
                Form::Single => self.single(&mut piece, step, source, depth),
                form => {
                    piece.flush(self.out);
                    match form {
                        Form::Packed => self.packed(step, source),
                        Form::Map => self.map(step, source, depth),
                        _ => self.repeated(step, source, depth),
                    }
                }
            };
            if written.is_err() {
                let name = &self.plans.schema().message(id).field(step.slot).name;
                return Err(self.inside(|failure| failure.field(name)));
            }
        }
        piece.flush(self.out);
        // Texts and bytes have been checked before, and items are counted: this is late by some numbers at most.
        if self.out.len() > self.end_max { self.too_large() } else { Ok(()) }
    }

    #[inline(always)]
    fn single<S: Source>(&mut self, piece: &mut Piece, step: &FieldStep, source: &S, depth: u32) -> Outcome {
        with_codec!(step.kind,
            message id => match source.message(step.slot)? {
                Some(child) => {
                    piece.flush(self.out);
                    self.nested(step.tag, id, &child, depth)
                }
                None => Ok(()),
            },
            C => match source.scalar(step.slot, C::scalar_type(step.kind))?.map(C::of_scalar) {
                None => Ok(()),
                Some(None) => self.fail(EncodeReason::WrongType),
                Some(Some(value)) if step.implicit && C::is_default(value) => Ok(()),
                Some(Some(value)) => {
                    self.check::<C>(step, value)?;
                    piece.put_tagged(step.tag, C::raw(value), self.out);
                    Ok(())
                }
            }
        )
    }

    #[inline(never)]
    fn packed<S: Source>(&mut self, step: &FieldStep, source: &S) -> Outcome {
        let start = self.out.len();
        let body = begin_body(step.tag, self.out);
        with_codec!(step.kind, message _id => Ok(()), C => self.packed_items::<C, S>(step, source))?;
        if self.out.len() == body {
            self.out.truncate(start);
        } else {
            end_body(body, self.out);
        }
        Ok(())
    }

    fn packed_items<C: Codec, S: Source>(&mut self, step: &FieldStep, source: &S) -> Outcome {
        let mut piece = Piece::new();
        let mut index = 0;
        source.items(step.slot, C::scalar_type(step.kind), |value| {
            let value = self.item::<C>(step, index, value)?;
            index += 1;
            piece.put(C::raw(value), self.out);
            Ok(())
        })?;
        piece.flush(self.out);
        Ok(())
    }

    #[inline(never)]
    fn repeated<S: Source>(&mut self, step: &FieldStep, source: &S, depth: u32) -> Outcome {
        with_codec!(step.kind,
            message id => {
                let mut index = 0;
                source.messages(step.slot, |child| {
                    self.counted(step, index)?;
                    self.nested(step.tag, id, &child, depth)
                        .map_err(|Stopped| self.inside(|failure| failure.index(index)))?;
                    index += 1;
                    Ok(())
                })
            },
            C => self.repeated_items::<C, S>(step, source)
        )
    }

    fn repeated_items<C: Codec, S: Source>(&mut self, step: &FieldStep, source: &S) -> Outcome {
        let mut piece = Piece::new();
        let mut index = 0;
        source.items(step.slot, C::scalar_type(step.kind), |value| {
            let value = self.item::<C>(step, index, value)?;
            index += 1;
            piece.put_tagged(step.tag, C::raw(value), self.out);
            Ok(())
        })?;
        piece.flush(self.out);
        Ok(())
    }

    #[inline(never)]
    fn map<S: Source>(&mut self, step: &FieldStep, source: &S, depth: u32) -> Outcome {
        let mut order = MapOrder::new(self.out.len());
        let key_type = scalar_type(step.key);
        with_codec!(step.kind,
            message id => source.message_entries(step.slot, key_type, |key, child| {
                let body = self.entry(step, &order, key, depth)?;
                self.nested(2 << 3 | LEN, id, &child, depth - 1)
                    .map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                end_body(body, self.out);
                order.push(key, self.out.len());
                Ok(())
            }),
            C => source.entries(step.slot, key_type, C::scalar_type(step.kind), |key, value| {
                let body = self.entry(step, &order, key, depth)?;
                self.entry_value::<C>(step, value)
                    .map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
                end_body(body, self.out);
                order.push(key, self.out.len());
                Ok(())
            })
        )?;
        order.sort(self.out);
        Ok(())
    }

    /// The beginning of a map's next entry, its key written. Gives where its body starts.
    fn entry(
        &mut self,
        step: &FieldStep,
        order: &MapOrder,
        key: Scalar<'_>,
        depth: u32,
    ) -> Result<usize, Stopped> {
        if depth == 0 {
            self.too_deep()?;
        }
        self.counted(step, order.len())?;
        let body = begin_body(step.tag, self.out);
        self.entry_key(step, key).map_err(|Stopped| self.inside(|failure| failure.key(&key)))?;
        Ok(body)
    }

    fn entry_key(&mut self, step: &FieldStep, key: Scalar<'_>) -> Outcome {
        if let Err(violation) = self.plans.bounds(step).key.check(&key) {
            return self.fail(violation);
        }
        with_codec!(step.key, message _id => Ok(()), C => {
            let key = self.narrow::<C>(key)?;
            let mut piece = Piece::new();
            piece.put_tagged(1 << 3 | C::WIRE_TYPE, C::raw(key), self.out);
            piece.flush(self.out);
            Ok(())
        })
    }

    fn entry_value<C: Codec>(&mut self, step: &FieldStep, value: Scalar<'_>) -> Outcome {
        let value = self.narrow::<C>(value)?;
        self.check::<C>(step, value)?;
        let mut piece = Piece::new();
        piece.put_tagged(2 << 3 | C::WIRE_TYPE, C::raw(value), self.out);
        piece.flush(self.out);
        Ok(())
    }

    fn nested<S: Source>(&mut self, tag: u32, id: MessageId, child: &S, depth: u32) -> Outcome {
        let Some(depth) = depth.checked_sub(1) else { return self.too_deep() };
        self.spend()?;
        let body = begin_body(tag, self.out);
        self.message(id, child, depth)?;
        end_body(body, self.out);
        Ok(())
    }

    /// One more item of a list, before it is written.
    #[inline(always)]
    fn item<'v, C: Codec>(
        &mut self,
        step: &FieldStep,
        index: usize,
        value: Scalar<'v>,
    ) -> Result<C::Value<'v>, Stopped> {
        self.counted(step, index)?;
        let value = self.narrow::<C>(value)?;
        match self.check::<C>(step, value) {
            Ok(()) => Ok(value),
            Err(Stopped) => Err(self.inside(|failure| failure.index(index))),
        }
    }

    /// The value as its kind has it, if it is of this kind.
    #[inline(always)]
    fn narrow<'v, C: Codec>(&mut self, value: Scalar<'v>) -> Result<C::Value<'v>, Stopped> {
        match C::of_scalar(value) {
            Some(value) => Ok(value),
            None => self.fail(EncodeReason::WrongType),
        }
    }

    /// Bounds, and for texts and bytes the room that there is: before they are copied.
    #[inline(always)]
    fn check<C: Codec>(&mut self, step: &FieldStep, value: C::Value<'_>) -> Outcome {
        if let Raw::Bytes(bytes) = C::raw(value) {
            if bytes.len() > self.end_max.saturating_sub(self.out.len()) {
                return self.too_large();
            }
        }
        match self.plans.verdict::<C>(step, value) {
            Verdict::Take => Ok(()),
            // What a reader would take as an unknown field must not be written.
            Verdict::Skip | Verdict::Refuse => match self.plans.check(step, &C::scalar(value)) {
                Ok(()) => Ok(()),
                Err(violation) => self.fail(violation),
            },
        }
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
    fn spend(&mut self) -> Outcome {
        match self.items.checked_sub(1) {
            Some(left) => self.items = left,
            None => return self.fail(EncodeReason::TooManyItems { max: self.plans.limits().items }),
        }
        Ok(())
    }

    #[cold]
    fn too_deep(&mut self) -> Outcome {
        self.fail(EncodeReason::TooDeep { max: self.plans.limits().depth })
    }

    #[cold]
    fn too_large(&mut self) -> Outcome {
        self.fail(EncodeReason::TooLarge { max: self.plans.limits().bytes })
    }

    #[cold]
    fn fail<T>(&mut self, reason: impl Into<EncodeReason>) -> Result<T, Stopped> {
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

fn scalar_type(kind: Kind) -> ScalarType {
    with_codec!(kind, message _id => ScalarType::Bytes, C => C::scalar_type(kind))
}
