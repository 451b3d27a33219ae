//! Time of one message beside prost's, which generates code: `cargo bench -p schema`.
//!
//! Both fill and read the same struct, in turns within one run; what counts is the ratio (above 1: faster than prost).

use std::hint::black_box;
use std::time::{Duration, Instant};

use prost::Message as _;
use schema::plan::{Limits, Plans, Scalar, ScalarType, Sink, Source, Stopped};
use schema::shape::{FieldShape, Kind, Label, MessageId, SchemaBuilder};

#[derive(Clone, PartialEq, prost::Message)]
struct Move {
    #[prost(uint32, tag = "1")]
    seq: u32,
    #[prost(float, tag = "2")]
    x: f32,
    #[prost(float, tag = "3")]
    y: f32,
    #[prost(string, tag = "4")]
    note: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Path {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Move>,
    #[prost(float, repeated, tag = "2")]
    weights: Vec<f32>,
    #[prost(uint32, repeated, tag = "3")]
    marks: Vec<u32>,
}

impl Sink for &mut Move {
    type Child<'a>
        = &'a mut Move
    where
        Self: 'a;

    #[inline]
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        match (slot, value) {
            (0, Scalar::U32(value)) => self.seq = value,
            (1, Scalar::F32(value)) => self.x = value,
            (2, Scalar::F32(value)) => self.y = value,
            (3, Scalar::Str(value)) => {
                self.note.clear();
                self.note.push_str(value);
            }
            _ => return Err(Stopped),
        }
        Ok(())
    }

    fn message(&mut self, _: u16) -> Result<&mut Move, Stopped> {
        Err(Stopped)
    }

    fn item(&mut self, _: u16, _: Scalar<'_>) -> Result<(), Stopped> {
        Err(Stopped)
    }

    fn message_item(&mut self, _: u16) -> Result<&mut Move, Stopped> {
        Err(Stopped)
    }

    fn entry(&mut self, _: u16, _: Scalar<'_>, _: Scalar<'_>) -> Result<(), Stopped> {
        Err(Stopped)
    }

    fn message_entry(&mut self, _: u16, _: Scalar<'_>) -> Result<&mut Move, Stopped> {
        Err(Stopped)
    }

    fn choose(&mut self, _: u16, _: u16) -> Result<(), Stopped> {
        Ok(())
    }

    fn count(&self, _: u16) -> usize {
        0
    }
}

impl Sink for &mut Path {
    type Child<'a>
        = &'a mut Move
    where
        Self: 'a;

    fn set(&mut self, _: u16, _: Scalar<'_>) -> Result<(), Stopped> {
        Err(Stopped)
    }

    fn message(&mut self, _: u16) -> Result<&mut Move, Stopped> {
        Err(Stopped)
    }

    #[inline]
    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        match (slot, value) {
            (1, Scalar::F32(value)) => self.weights.push(value),
            (2, Scalar::U32(value)) => self.marks.push(value),
            _ => return Err(Stopped),
        }
        Ok(())
    }

    fn reserve(&mut self, slot: u16, items: usize) -> Result<(), Stopped> {
        match slot {
            1 => self.weights.reserve(items),
            _ => self.marks.reserve(items),
        }
        Ok(())
    }

    fn message_item(&mut self, _: u16) -> Result<&mut Move, Stopped> {
        self.steps.push(Move::default());
        self.steps.last_mut().ok_or(Stopped)
    }

    fn entry(&mut self, _: u16, _: Scalar<'_>, _: Scalar<'_>) -> Result<(), Stopped> {
        Err(Stopped)
    }

    fn message_entry(&mut self, _: u16, _: Scalar<'_>) -> Result<&mut Move, Stopped> {
        Err(Stopped)
    }

    fn choose(&mut self, _: u16, _: u16) -> Result<(), Stopped> {
        Ok(())
    }

    fn count(&self, _: u16) -> usize {
        self.steps.len()
    }
}

impl<'m> Source for &'m Move {
    type Child = &'m Move;

    #[inline]
    fn scalar(&self, slot: u16, ty: ScalarType) -> Result<Option<Scalar<'_>>, Stopped> {
        Ok(Some(match (slot, ty) {
            (0, ScalarType::U32) => Scalar::U32(self.seq),
            (1, ScalarType::F32) => Scalar::F32(self.x),
            (2, ScalarType::F32) => Scalar::F32(self.y),
            (3, ScalarType::Str) => Scalar::Str(&self.note),
            _ => return Err(Stopped),
        }))
    }

    fn message(&self, _: u16) -> Result<Option<Self>, Stopped> {
        Ok(None)
    }

    fn items(
        &self,
        _: u16,
        _: ScalarType,
        _: impl FnMut(Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }

    fn messages(&self, _: u16, _: impl FnMut(Self) -> Result<(), Stopped>) -> Result<(), Stopped> {
        Ok(())
    }

    fn entries(
        &self,
        _: u16,
        _: ScalarType,
        _: ScalarType,
        _: impl FnMut(Scalar<'_>, Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }

    fn message_entries(
        &self,
        _: u16,
        _: ScalarType,
        _: impl FnMut(Scalar<'_>, Self) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }
}

impl<'m> Source for &'m Path {
    type Child = &'m Move;

    fn scalar(&self, _: u16, _: ScalarType) -> Result<Option<Scalar<'_>>, Stopped> {
        Ok(None)
    }

    fn message(&self, _: u16) -> Result<Option<&'m Move>, Stopped> {
        Ok(None)
    }

    #[inline]
    fn items(
        &self,
        slot: u16,
        _: ScalarType,
        mut each: impl FnMut(Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match slot {
            1 => self.weights.iter().try_for_each(|value| each(Scalar::F32(*value))),
            _ => self.marks.iter().try_for_each(|value| each(Scalar::U32(*value))),
        }
    }

    fn messages(&self, _: u16, each: impl FnMut(&'m Move) -> Result<(), Stopped>) -> Result<(), Stopped> {
        self.steps.iter().try_for_each(each)
    }

    fn entries(
        &self,
        _: u16,
        _: ScalarType,
        _: ScalarType,
        _: impl FnMut(Scalar<'_>, Scalar<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }

    fn message_entries(
        &self,
        _: u16,
        _: ScalarType,
        _: impl FnMut(Scalar<'_>, &'m Move) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }
}

fn plans() -> (Plans, MessageId, MessageId) {
    let mut builder = SchemaBuilder::new();
    let [r#move, path] = ["Move", "Path"].map(|name| builder.message(name));
    for (name, number, kind) in
        [("seq", 1, Kind::U32), ("x", 2, Kind::F32), ("y", 3, Kind::F32), ("note", 4, Kind::Str)]
    {
        builder.field(r#move, FieldShape::new(name, number, kind));
    }
    for (name, number, kind, packed) in [
        ("steps", 1, Kind::Message(r#move), false),
        ("weights", 2, Kind::F32, true),
        ("marks", 3, Kind::U32, true),
    ] {
        builder.field(path, FieldShape::new(name, number, kind).label(Label::Repeated { packed }));
    }
    (Plans::new(builder.build().expect("a schema"), Limits::default()), r#move, path)
}

/// The fastest of many rounds of each, taken in turns, so that both see the same machine.
fn ratio(what: &str, mut theirs: impl FnMut(), mut ours: impl FnMut()) {
    const CALLS: u32 = 2_000;
    // `cargo bench -p schema -- "encode Move"` measures one of them.
    if std::env::args().skip(1).any(|wanted| !wanted.starts_with('-') && !what.contains(&wanted)) {
        return;
    }
    let round = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| run());
        start.elapsed()
    };
    let (mut best_theirs, mut best_ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..500 {
        best_theirs = best_theirs.min(round(&mut theirs));
        best_ours = best_ours.min(round(&mut ours));
    }
    let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(CALLS);
    println!(
        "{what:<24} prost {:8.1} ns   schema {:8.1} ns   {:5.2} x",
        nanoseconds(best_theirs),
        nanoseconds(best_ours),
        best_theirs.as_secs_f64() / best_ours.as_secs_f64()
    );
}

fn main() {
    let (plans, r#move, path) = plans();
    let message = Move { seq: 70_000, x: 0.5, y: -1.25, note: "player 7".into() };
    let bytes = message.encode_to_vec();
    let mut ours = Vec::new();
    plans.encode(r#move, &&message, &mut ours).expect("encodes");
    assert_eq!(ours, bytes);

    ratio(
        "decode Move, new",
        || drop(black_box(Move::decode(black_box(bytes.as_slice())).expect("decodes"))),
        || {
            let mut out = Move::default();
            plans.decode(r#move, black_box(&bytes), &mut &mut out).expect("decodes");
            drop(black_box(out));
        },
    );
    let (mut theirs_into, mut ours_into) = (Move::default(), Move::default());
    ratio(
        "decode Move, in place",
        || theirs_into.merge(black_box(bytes.as_slice())).expect("decodes"),
        || plans.decode(r#move, black_box(&bytes), &mut &mut ours_into).expect("decodes"),
    );
    let mut out = Vec::with_capacity(64);
    let mut out_ours = Vec::with_capacity(64);
    ratio(
        "encode Move",
        || {
            out.clear();
            black_box(&message).encode(&mut out).expect("encodes");
            black_box(&out);
        },
        || {
            out_ours.clear();
            plans.encode(r#move, &black_box(&message), &mut out_ours).expect("encodes");
            black_box(&out_ours);
        },
    );

    let walked = Path { steps: vec![message; 10], ..Path::default() };
    let listed = Path {
        weights: (0..100u8).map(f32::from).collect(),
        marks: (0..100).map(|mark| mark * 37).collect(),
        ..Path::default()
    };
    for (what, message) in [("Path", walked), ("lists", listed)] {
        let bytes = message.encode_to_vec();
        ours.clear();
        plans.encode(path, &&message, &mut ours).expect("encodes");
        assert_eq!(ours, bytes);
        ratio(
            &format!("decode {what}"),
            || drop(black_box(Path::decode(black_box(bytes.as_slice())).expect("decodes"))),
            || {
                let mut out = Path::default();
                plans.decode(path, black_box(&bytes), &mut &mut out).expect("decodes");
                drop(black_box(out));
            },
        );
        ratio(
            &format!("encode {what}"),
            || {
                out.clear();
                black_box(&message).encode(&mut out).expect("encodes");
                black_box(&out);
            },
            || {
                out_ours.clear();
                plans.encode(path, &black_box(&message), &mut out_ours).expect("encodes");
                black_box(&out_ours);
            },
        );
    }
}
