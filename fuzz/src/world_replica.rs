//! What a client makes of a server's snapshots: any bytes are a snapshot, are one too old, or are refused; never more
//! entities than may be, and what was told adds up.

use std::collections::BTreeSet;

use world::{Audience, Change, ColumnShape, Kind, Number, Replica, TableShape, WorldShape};

const ENTITIES_MAX: usize = 64;

fn shape() -> WorldShape {
    let column = ColumnShape::new;
    let things = TableShape::spatial("Thing", &["x", "y"])
        .column(column("x", Kind::Number(Number::F32)).quantize(0.01))
        .column(column("y", Kind::Number(Number::F32)))
        .column(column("hp", Kind::Number(Number::U16)))
        .column(column("note", Kind::Str(5)))
        .column(column("mood", Kind::Enum(vec![-1, 3])))
        .column(column("next", Kind::Reference("Thing".into())))
        .column(column("items", Kind::List(Number::I8, 2)))
        .column(column("gold", Kind::Number(Number::U64)).to(Audience::Owner))
        .column(column("hand", Kind::Bytes(3)).to(Audience::Others));
    let flags = TableShape::global("Flag")
        .column(column("at", Kind::Vector(Number::F64, 3)).quantize(0.5))
        .column(column("is_on", Kind::Bool));
    WorldShape::new(vec![things, flags]).expect("a shape")
}

/// Each snapshot has its length before it, a byte.
pub fn world_replica(data: &[u8]) {
    let mut replica = Replica::new(shape(), ENTITIES_MAX);
    let mut told = BTreeSet::new();
    let mut rest = data;
    while let Some((len, others)) = rest.split_first() {
        let (snapshot, others) = others.split_at(usize::from(*len).min(others.len()));
        rest = others;
        let Ok(changes) = replica.apply(snapshot) else { return };
        for change in changes.unwrap_or_default() {
            match *change {
                Change::Added(table, handle) => assert!(told.insert((table, handle)), "added twice"),
                Change::Removed(table, handle) => assert!(told.remove(&(table, handle)), "removed twice"),
                Change::Changed(table, handle) => assert!(told.contains(&(table, handle)), "not there"),
            }
        }
        let seen: BTreeSet<_> = (0..2)
            .flat_map(|table| replica.entities(table).into_iter().map(move |handle| (table, handle)))
            .collect();
        assert!(seen.len() <= ENTITIES_MAX);
        assert_eq!(seen, told, "what was told adds up to what is there");
        for (table, handle) in seen {
            for column in 0..replica.shape().tables()[table].columns.len() {
                replica.value(table, handle, column);
            }
        }
    }
}
