//! The bytes of docs/wire.md, "The world".

use world::{
    Audience, ColumnShape, Kind, Number, Part, Replica, TableShape, Value, View, World, write_value,
};

fn player() -> TableShape {
    let column = ColumnShape::new;
    TableShape::spatial("Player", &["x", "y"])
        .column(column("x", Kind::Number(Number::F32)).quantize(0.01))
        .column(column("y", Kind::Number(Number::F32)).quantize(0.01))
        .column(column("hp", Kind::Number(Number::U16)).default(Value::Int(100)))
        .column(column("gold", Kind::Number(Number::U16)).to(Audience::Owner))
}

fn set(world: &mut World, column: usize, value: Value) {
    let kind = world.shape().tables()[0].columns[column].kind.clone();
    write_value(&kind, Some(&value), world.value_mut(0, column, 0));
}

fn bytes(world: &World, parts: &[Part]) -> Vec<u8> {
    let bytes = |part: &Part| &world.bytes()[part.start as usize..][..part.len as usize];
    parts.iter().flat_map(bytes).copied().collect()
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_documents_snapshots() {
    let mut world = World::new(100.0);
    world.add_tables(vec![player()]).unwrap();
    // Blocks 0 to 2 are somebody else's.
    let other = world.add_viewer(0, View::Cells(vec![(5, 5), (6, 5), (7, 5)]));
    world.end_tick();
    world.snapshot(other, &mut Vec::new());
    for _ in 2..9 {
        world.end_tick();
    }
    world.spawn(0, 1, 77).unwrap();
    let handle = world.handle(0, 0).unwrap();
    set(&mut world, 0, Value::Float(1.5));
    set(&mut world, 1, Value::Float(-0.25));
    set(&mut world, 3, Value::Int(7));
    let viewer = world.add_viewer(77, View::Entity { table: 0, handle, radius: 0.0 });
    world.end_tick();
    let mut parts = Vec::new();
    assert!(world.snapshot(viewer, &mut parts));
    let first = bytes(&world, &parts);
    assert_eq!(first, hex("13  07 01 00 00 00 0e  0e 00 01 00 00 ac 02 31 c8 01"));
    world.arrived(viewer, 9);

    set(&mut world, 0, Value::Float(1.55));
    set(&mut world, 1, Value::Float(-0.24));
    world.end_tick();
    parts.clear();
    assert!(world.snapshot(viewer, &mut parts));
    let second = bytes(&world, &parts);
    assert_eq!(second, hex("14  0c 01 03 0a 02"));
    world.arrived(viewer, 10);
    world.end_tick();
    assert!(!world.snapshot(viewer, &mut parts), "nothing is new");

    let mut replica = Replica::new(world.shape().for_clients(), 10);
    replica.apply(&first).unwrap();
    replica.apply(&second).unwrap();
    let values: Vec<_> = (0..4).map(|column| replica.value(0, handle, column).unwrap()).collect();
    assert_eq!(values[2..], [Value::Int(100), Value::Int(7)]);
    assert_eq!(values[..2], [Value::Float(155.0 * 0.01), Value::Float(-24.0 * 0.01)]);
}

/// What goes to an owner is in nobody else's bytes, whatever happens to the entity; what goes to others not in the owner's.
#[test]
fn private_values_leave_toward_those_alone_whom_they_are_for() {
    let column = ColumnShape::new;
    let table = TableShape::spatial("Card", &["x", "y"])
        .column(column("x", Kind::Number(Number::F32)))
        .column(column("y", Kind::Number(Number::F32)))
        .column(column("secret", Kind::Str(16)).default(Value::Str("the default".into())).to(Audience::Owner))
        .column(column("hand", Kind::Str(16)).to(Audience::Others));
    let mut world = World::new(10.0);
    world.add_tables(vec![table]).unwrap();
    let viewers = [0, 1, 2].map(|owner| world.add_viewer(owner, View::Everything));
    let mut heard = [Vec::new(), Vec::new(), Vec::new()];
    let tick = |world: &mut World, heard: &mut [Vec<u8>; 3], lose: bool| {
        world.end_tick();
        for (viewer, heard) in viewers.iter().zip(heard) {
            let mut parts = Vec::new();
            if world.snapshot(*viewer, &mut parts) {
                heard.extend(bytes(world, &parts));
                let tick = world.tick();
                if lose { world.lost(*viewer, tick) } else { world.arrived(*viewer, tick) }
            }
        }
    };
    let set = |world: &mut World, column: usize, text: &str| {
        write_value(&Kind::Str(16), Some(&Value::Str(text.into())), world.value_mut(0, column, 0));
    };
    let says = |heard: &[u8], text: &str| heard.windows(text.len()).any(|window| window == text.as_bytes());
    world.spawn(0, 1, 1).unwrap();
    set(&mut world, 3, "not for one A");
    tick(&mut world, &mut heard, true);
    set(&mut world, 2, "for one alone");
    set(&mut world, 3, "not for one B");
    tick(&mut world, &mut heard, false);
    tick(&mut world, &mut heard, false);
    for (viewer, heard) in heard.iter().enumerate() {
        assert_eq!(says(heard, "the default"), viewer == 1, "{viewer}");
        assert_eq!(says(heard, "for one alone"), viewer == 1, "{viewer}");
        assert_eq!(says(heard, "not for one A"), viewer != 1, "{viewer}");
        assert_eq!(says(heard, "not for one B"), viewer != 1, "{viewer}");
    }
    // Another owner: what the old one knew, the new one does.
    let handle = world.handle(0, 0).unwrap();
    world.set_owner(0, handle, 2);
    heard.iter_mut().for_each(Vec::clear);
    tick(&mut world, &mut heard, false);
    set(&mut world, 2, "for two alone");
    tick(&mut world, &mut heard, false);
    for (viewer, heard) in heard.iter().enumerate() {
        assert_eq!(says(heard, "for one alone"), viewer == 2, "{viewer}");
        assert_eq!(says(heard, "for two alone"), viewer == 2, "{viewer}");
        assert_eq!(says(heard, "not for one B"), viewer != 2, "{viewer}");
    }
}

#[test]
fn of_a_crowd_those_alone_are_sent_that_changed() {
    let mut world = World::new(100.0);
    world.add_tables(vec![player()]).unwrap();
    world.spawn(0, 20, 0).unwrap();
    let viewer = world.add_viewer(0, View::Everything);
    world.end_tick();
    let mut parts = Vec::new();
    assert!(world.snapshot(viewer, &mut parts));
    world.arrived(viewer, 1);
    for row in [3, 4, 17] {
        let kind = world.shape().tables()[0].columns[0].kind.clone();
        write_value(&kind, Some(&Value::Float(0.01)), world.value_mut(0, 0, row));
    }
    world.end_tick();
    parts.clear();
    assert!(world.snapshot(viewer, &mut parts));
    // Tick, block, three rows: each the rows between it and the one before, with the mask of `x`, and 1 step.
    assert_eq!(bytes(&world, &parts), hex("04  00 03  19 02  01 02  61 02"));
}
