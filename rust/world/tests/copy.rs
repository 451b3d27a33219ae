//! A copy of a world goes through bytes and back into a world; damaged bytes are refused, or are what they were.

use proptest::prelude::*;
use world::{
    Audience, ColumnShape, Handle, Kind, Number, TableShape, Value, World, WorldCopy, WorldShape, write_value,
};

fn shape() -> Vec<TableShape> {
    let column = ColumnShape::new;
    vec![
        TableShape::spatial("Thing", &["x", "y"])
            .column(column("x", Kind::Number(Number::F32)).quantize(0.5))
            .column(column("y", Kind::Number(Number::F32)))
            .column(column("note", Kind::Str(6)).to(Audience::Nobody))
            .column(column("next", Kind::Reference("Thing".into()))),
        TableShape::global("Score")
            .column(column("points", Kind::List(Number::U16, 3)).default(Value::List(vec![]))),
    ]
}

fn empty() -> World {
    let mut world = World::new(10.0);
    world.add_tables(shape()).unwrap();
    world
}

#[derive(Clone, Debug)]
enum Step {
    Spawn(usize, usize),
    Despawn(usize),
    Write(usize, usize, u8),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..2, 1_usize..4).prop_map(|(table, count)| Step::Spawn(table, count)),
        any::<usize>().prop_map(Step::Despawn),
        (any::<usize>(), any::<usize>(), any::<u8>())
            .prop_map(|(which, column, value)| Step::Write(which, column, value)),
        Just(Step::Tick),
    ]
}

fn run(steps: &[Step]) -> World {
    let mut world = empty();
    let mut all: Vec<(usize, Handle)> = Vec::new();
    for step in steps {
        match *step {
            Step::Spawn(table, count) => {
                let first = world.spawn(table, count, 5).unwrap();
                all.extend((first..first + count).map(|row| (table, world.handle(table, row).unwrap())));
            }
            Step::Despawn(which) if !all.is_empty() => {
                let (table, handle) = all.swap_remove(which % all.len());
                world.despawn(table, handle);
            }
            Step::Write(which, column, value) if !all.is_empty() => {
                let (table, handle) = all[which % all.len()];
                let columns = &world.shape().tables()[table].columns;
                let (column, kind) = (column % columns.len(), columns[column % columns.len()].kind.clone());
                let value = match kind {
                    Kind::Number(_) => Value::Float(value.into()),
                    Kind::Str(_) => Value::Str(format!("{value}")),
                    Kind::Reference(_) => Value::Reference(Some(all[0].1)),
                    _ => Value::List(vec![Value::Int(value.into())]),
                };
                let row = world.row(table, handle).unwrap();
                write_value(&kind, Some(&value), world.value_mut(table, column, row));
            }
            Step::Tick => {
                world.end_tick();
            }
            _ => {}
        }
    }
    world
}

/// Live entities, by handle, and their bytes.
fn entities(world: &World) -> Vec<(usize, Handle, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    for (table, shape) in world.shape().tables().iter().enumerate() {
        for handle in (0..world.rows(table)).filter_map(|row| world.handle(table, row)) {
            let row = world.row(table, handle).unwrap();
            let values = (0..shape.columns.len()).map(|column| world.value(table, column, row).to_vec());
            all.push((table, handle, values.collect()));
        }
    }
    all.sort();
    all
}

proptest! {
    #[test]
    fn a_world_comes_back_as_it_was(steps in prop::collection::vec(step(), 0..40), more in 1_usize..5) {
        let mut world = run(&steps);
        let copy = world.copy();
        let bytes = copy.to_bytes();
        let shape = WorldShape::new(shape()).unwrap();
        let read = WorldCopy::from_bytes(&bytes, &shape).unwrap();
        prop_assert_eq!(&read, &copy);
        let mut other = empty();
        other.restore(&read).unwrap();
        prop_assert_eq!(entities(&other), entities(&world));
        prop_assert_eq!(other.tick(), world.tick());
        prop_assert_eq!(&other.copy(), &copy);
        // Nobody owns anything, nothing is wrong with it, and no handle ever comes to mean another entity.
        prop_assert_eq!(other.owned(5).count(), 0);
        prop_assert_eq!(other.end_tick().count, 0);
        world.end_tick();
        prop_assert_eq!(entities(&other), entities(&world));
        let known: Vec<_> = entities(&world).into_iter().map(|(table, handle, _)| (table, handle)).collect();
        for table in 0..2 {
            let first = other.spawn(table, more, 0).unwrap();
            for row in first..first + more {
                let handle = other.handle(table, row).unwrap();
                prop_assert!(!known.contains(&(table, handle)));
                prop_assert_eq!(world.row(table, handle), None, "not one that was there before");
            }
        }
        prop_assert!(other.restore(&read).is_err(), "not into what is not empty");
    }

    #[test]
    fn damaged_bytes_are_refused(steps in prop::collection::vec(step(), 0..20), at in any::<usize>(), by in 1_u8..=255, cut in any::<bool>()) {
        let mut bytes = run(&steps).copy().to_bytes();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= by;
        }
        let shape = WorldShape::new(shape()).unwrap();
        prop_assert!(WorldCopy::from_bytes(&bytes, &shape).is_err());
    }

    /// As somebody makes them who knows the checksum.
    #[test]
    fn forged_bytes_are_refused_or_a_copy(steps in prop::collection::vec(step(), 0..20), changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        use sha1::{Digest, Sha1};
        let mut bytes = run(&steps).copy().to_bytes();
        bytes.truncate(bytes.len() - 20);
        for (at, by) in changes {
            let at = at % bytes.len();
            bytes[at] ^= by;
        }
        let sum = Sha1::digest(&bytes);
        bytes.extend(sum);
        let shape = WorldShape::new(shape()).unwrap();
        if let Ok(copy) = WorldCopy::from_bytes(&bytes, &shape) {
            let mut world = empty();
            world.restore(&copy).unwrap();
            world.end_tick(); // what is no value of its column is put right
            prop_assert_eq!(copy.to_bytes(), bytes);
        }
    }
}

#[test]
fn another_shape_is_refused() {
    let bytes = run(&[Step::Spawn(0, 2)]).copy().to_bytes();
    let error = |shape: Vec<TableShape>| {
        WorldCopy::from_bytes(&bytes, &WorldShape::new(shape).unwrap()).unwrap_err().to_string()
    };
    assert!(error(vec![]).starts_with("table Thing: this world has no such class"));
    let mut other = shape();
    other[0].columns.swap(0, 1);
    assert!(error(other).starts_with("table Thing: its columns are not those that were saved"));
    // What clients are told of a column, and the order of tables, are nothing that is saved.
    let mut same = shape();
    same.reverse();
    same[1].columns[0].quantize = None;
    assert!(WorldCopy::from_bytes(&bytes, &WorldShape::new(same).unwrap()).is_ok());
}
