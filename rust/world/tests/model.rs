//! Whatever happens in a world, each client's replica is what a plain model says that it should see.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use world::{
    Audience, Cell, Change, ColumnShape, Handle, Kind, Number, Part, Replica, TableShape, Value, View,
    ViewerKey, World, WorldShape, quantize, write_value,
};

const SIDE: f64 = 10.0;
const THING: usize = 0;
const SCORE: usize = 1;
const DOT: usize = 2;

fn shape() -> Vec<TableShape> {
    let column = ColumnShape::new;
    vec![
        TableShape::spatial("Thing", &["x", "y"])
            .column(column("x", Kind::Number(Number::F32)).quantize(0.01))
            .column(column("secret", Kind::Number(Number::U8)).to(Audience::Owner))
            .column(column("y", Kind::Number(Number::F32)).quantize(0.01))
            .column(column("hp", Kind::Number(Number::U16)).default(Value::Int(100)))
            .column(column("hidden", Kind::Str(6)).to(Audience::Others))
            .column(column("note", Kind::Str(8)))
            .column(column("slow", Kind::Number(Number::I64)).every(3))
            .column(column("target", Kind::Reference("Thing".into())))
            .column(column("items", Kind::List(Number::U8, 3)))
            .column(column("flag", Kind::Bool))
            .column(column("mood", Kind::Enum(vec![-2, 4, 7])))
            .column(column("server", Kind::Number(Number::U64)).to(Audience::Nobody)),
        TableShape::global("Score")
            .column(column("points", Kind::Number(Number::U64)))
            .column(column("purse", Kind::Vector(Number::F64, 3)).quantize(0.5).to(Audience::Owner)),
        TableShape::spatial("Dot", &["at"])
            .column(column("at", Kind::Vector(Number::F64, 2)).quantize(0.25))
            .column(column("heat", Kind::Number(Number::F32))),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Spawn { table: usize, owner: u64, at: [f64; 2] },
    Despawn { which: usize },
    Move { which: usize, by: [f64; 2] },
    Write { which: usize, column: usize, value: u32 },
    Own { which: usize, owner: u64 },
    Bad { which: usize, column: usize },
    Look { viewer: usize, view: usize, at: [f64; 2], which: usize },
    Leave { viewer: usize },
    Return { viewer: usize },
    Tick { fates: [Fate; 3] },
}

/// What becomes of a viewer's snapshot.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    /// It is lost, and that is known at once.
    Lost,
    /// It is on its way: it arrives, or is overtaken, later.
    Waits,
}

#[derive(Clone, Debug)]
struct Entity {
    table: usize,
    owner: u64,
    cell: Option<Cell>,
    values: Vec<Value>,
    /// As last compared.
    sent: Vec<Value>,
    is_new: bool,
}

struct Watcher {
    key: ViewerKey,
    owner: u64,
    view: View,
    anchor: Option<Cell>,
    at_anchor: Option<[f64; 2]>,
    replica: Replica,
    /// What the changes that were told add up to.
    told: BTreeSet<(usize, Handle)>,
    on_its_way: Vec<(u32, Vec<u8>)>,
}

struct Game {
    world: World,
    entities: BTreeMap<(usize, Handle), Entity>,
    gone: Vec<(usize, Handle)>,
    watchers: Vec<Watcher>,
}

impl Game {
    fn new() -> Self {
        let mut world = World::new(SIDE);
        world.add_tables(shape()).unwrap();
        let mut game = Self { world, entities: BTreeMap::new(), gone: Vec::new(), watchers: Vec::new() };
        for owner in [0, 1, 2] {
            let watcher = game.watcher(owner, View::Nothing);
            game.watchers.push(watcher);
        }
        game
    }

    fn watcher(&mut self, owner: u64, view: View) -> Watcher {
        Watcher {
            key: self.world.add_viewer(owner, view.clone()),
            owner,
            view,
            anchor: None,
            at_anchor: None,
            replica: Replica::new(WorldShape::new(shape()).unwrap().for_clients(), 1000),
            told: BTreeSet::new(),
            on_its_way: Vec::new(),
        }
    }

    fn pick(&self, which: usize) -> Option<(usize, Handle)> {
        let count = self.entities.len();
        (count > 0).then(|| *self.entities.keys().nth(which % count).unwrap())
    }

    fn set(&mut self, (table, handle): (usize, Handle), column: usize, value: Value) {
        let row = self.world.row(table, handle).unwrap();
        let kind = &shape()[table].columns[column].kind;
        write_value(kind, Some(&value), self.world.value_mut(table, column, row));
        self.entities.get_mut(&(table, handle)).unwrap().values[column] = value;
    }

    fn place(&mut self, key: (usize, Handle), at: [f64; 2]) {
        match key.0 {
            THING => {
                self.set(key, 0, Value::Float(f64::from(at[0] as f32)));
                self.set(key, 2, Value::Float(f64::from(at[1] as f32)));
            }
            DOT => self.set(key, 0, Value::Vector(at.to_vec())),
            _ => {}
        }
    }

    fn position(&self, key: (usize, Handle)) -> Option<[f64; 2]> {
        let float = |value: &Value| if let Value::Float(float) = value { *float } else { unreachable!() };
        let entity = &self.entities[&key];
        match key.0 {
            THING => Some([float(&entity.values[0]), float(&entity.values[2])]),
            DOT => match &entity.values[0] {
                Value::Vector(at) => Some([at[0], at[1]]),
                _ => unreachable!(),
            },
            _ => None,
        }
    }

    fn step(&mut self, step: &Step) {
        match step.clone() {
            Step::Spawn { table, owner, at } => {
                let row = self.world.spawn(table, 1, owner).unwrap();
                let handle = self.world.handle(table, row).unwrap();
                let values: Vec<_> = shape()[table].columns.iter().map(default).collect();
                let sent = values.clone();
                let entity = Entity { table, owner, cell: None, values, sent, is_new: true };
                assert!(
                    self.entities.insert((table, handle), entity).is_none(),
                    "a handle means one entity only"
                );
                assert!(!self.gone.contains(&(table, handle)), "a handle never means another one");
                self.place((table, handle), at);
            }
            Step::Despawn { which } => {
                if let Some((table, handle)) = self.pick(which) {
                    assert!(self.world.despawn(table, handle));
                    assert!(!self.world.despawn(table, handle));
                    assert_eq!(self.world.row(table, handle), None);
                    self.entities.remove(&(table, handle));
                    self.gone.push((table, handle));
                }
            }
            Step::Move { which, by } => {
                if let Some(key) = self.pick(which)
                    && let Some([x, y]) = self.position(key)
                {
                    self.place(key, [x + by[0], y + by[1]]);
                }
            }
            Step::Write { which, column, value } => {
                let Some(key) = self.pick(which) else { return };
                let columns = &shape()[key.0].columns;
                let column = column % columns.len();
                let at =
                    self.pick(value as usize).filter(|(table, _)| *table == THING).map(|(_, handle)| handle);
                let value = match &columns[column].kind {
                    _ if columns[column].quantize.is_some() && key.0 != SCORE => return, // places it
                    Kind::Number(Number::F32) => Value::Float(f64::from(value as f32 / 7.0)),
                    Kind::Number(Number::U8) => Value::Int((value % 256).into()),
                    Kind::Number(Number::U16) => Value::Int((value % 65536).into()),
                    Kind::Number(Number::I64) => Value::Int(-i128::from(value) * 2_000_000_000),
                    Kind::Number(Number::U64) => Value::Int(i128::from(u64::MAX - u64::from(value))),
                    Kind::Vector(..) => Value::Vector(vec![f64::from(value) / 3.0, -1.0, 2.5]),
                    Kind::Str(_) => Value::Str(["", "a", "ähm", "sechs6"][value as usize % 4].into()),
                    Kind::Reference(_) => Value::Reference(at),
                    Kind::List(..) => {
                        Value::List((0..value % 4).map(|i| Value::Int((i * 60).into())).collect())
                    }
                    Kind::Bool => Value::Bool(value % 2 == 1),
                    Kind::Enum(values) => Value::Int(values[value as usize % 3].into()),
                    kind => unreachable!("{kind:?}"),
                };
                self.set(key, column, value);
            }
            Step::Own { which, owner } => {
                if let Some((table, handle)) = self.pick(which) {
                    self.world.set_owner(table, handle, owner);
                    self.entities.get_mut(&(table, handle)).unwrap().owner = owner;
                }
            }
            Step::Bad { which, column } => {
                let Some((table, handle)) = self.pick(which) else { return };
                let columns = &shape()[table].columns;
                let column = column % columns.len();
                let row = self.world.row(table, handle).unwrap();
                let bytes = self.world.value_mut(table, column, row);
                match (&columns[column].kind, columns[column].audience) {
                    (_, Audience::Nobody) => return,
                    (Kind::Number(Number::F32) | Kind::Bool | Kind::Str(_) | Kind::Enum(_), _) => {
                        bytes.fill(0xFF)
                    }
                    (Kind::Vector(..), _) => bytes[8..16].copy_from_slice(&f64::NAN.to_ne_bytes()),
                    (Kind::List(..), _) => bytes[..4].copy_from_slice(&4_u32.to_ne_bytes()),
                    _ => return,
                }
                let entity = self.entities.get_mut(&(table, handle)).unwrap();
                // At the next comparison it is what it was at the last.
                entity.values[column] = match &entity.sent[column] {
                    Value::Float(float) if columns[column].quantize.is_some() => {
                        Value::Float(f64::from((float / 0.01).round() as f32 * 0.01_f32))
                    }
                    value => value.clone(),
                };
            }
            Step::Look { viewer, view, at, which } => {
                let view = match view {
                    0 => View::Nothing,
                    1 => View::Point { at, radius: 12.0 },
                    2 => View::Cells(vec![(0, 0), (1, 1), (-1, 0), (0, 0)]),
                    3 => View::Everything,
                    _ => match self.pick(which) {
                        Some((table, handle)) => View::Entity { table, handle, radius: 10.0 },
                        None => return,
                    },
                };
                let watcher = &mut self.watchers[viewer];
                self.world.set_view(watcher.key, view.clone());
                watcher.at_anchor = None;
                watcher.view = view;
            }
            Step::Leave { viewer } => {
                let old = &self.watchers[viewer];
                let (key, owner, view) = (old.key, old.owner, old.view.clone());
                self.world.remove_viewer(key);
                self.watchers[viewer] = self.watcher(owner, view);
            }
            Step::Return { viewer } => {
                let watcher = &mut self.watchers[viewer];
                self.world.forget(watcher.key);
                watcher.on_its_way.clear();
            }
            Step::Tick { fates } => self.tick(fates),
        }
    }

    fn tick(&mut self, fates: [Fate; 3]) {
        self.world.end_tick();
        let tick = self.world.tick();
        let live: BTreeSet<_> = self.entities.keys().copied().collect();
        let mut moved = BTreeSet::new();
        for (key, entity) in &mut self.entities {
            let before = entity.sent.clone();
            for (i, column) in shape()[entity.table].columns.iter().enumerate() {
                if tick.is_multiple_of(column.every) || entity.is_new {
                    entity.sent[i] = match &entity.values[i] {
                        Value::Reference(Some(handle)) if !live.contains(&(THING, *handle)) => {
                            Value::Reference(None)
                        }
                        value => rounded(column, value),
                    };
                }
            }
            let is_moved = position_columns(entity.table).iter().any(|&i| entity.sent[i] != before[i]);
            if is_moved || entity.is_new {
                moved.insert(*key);
            }
            entity.is_new = false;
        }
        // Of whom clients are told no other position, nobody looks whether it is in another cell by less than a step.
        let places: Vec<_> = moved.iter().map(|key| (*key, self.position(*key))).collect();
        for (key, at) in places {
            let entity = self.entities.get_mut(&key).unwrap();
            entity.cell = at.map(|at| cell_from(entity.cell, at));
        }
        for (viewer, fate) in fates.into_iter().enumerate() {
            let mut parts = Vec::new();
            let is_due = self.world.snapshot(self.watchers[viewer].key, &mut parts);
            let bytes: Vec<u8> =
                parts.iter().flat_map(|part| bytes_of(&self.world, *part)).copied().collect();
            let expected = self.expected(viewer);
            let watcher = &mut self.watchers[viewer];
            assert_eq!(is_due, !bytes.is_empty());
            // Later ones overtake: those that waited are not applied any more.
            let is_applied = match (is_due, fate) {
                (false, _) => watcher.on_its_way.is_empty(),
                (true, Fate::Lost) => {
                    self.world.lost(watcher.key, tick);
                    false
                }
                (true, Fate::Waits) => {
                    watcher.on_its_way.push((tick, bytes));
                    false
                }
                (true, Fate::Arrives) => {
                    watcher.apply(&mut self.world, tick, &bytes);
                    for (old, bytes) in std::mem::take(&mut watcher.on_its_way) {
                        assert_eq!(watcher.replica.apply(&bytes), Ok(None));
                        self.world.lost(watcher.key, old);
                    }
                    true
                }
            };
            if is_applied && watcher.has_all() {
                assert_eq!(watcher.sees(), expected, "viewer {viewer} in tick {tick}");
            }
            // The first of those that wait may arrive in order.
            if tick.is_multiple_of(4) && !watcher.on_its_way.is_empty() {
                let (old, bytes) = watcher.on_its_way.remove(0);
                watcher.apply(&mut self.world, old, &bytes);
            }
        }
    }

    fn expected(&mut self, viewer: usize) -> Seen {
        let watcher = &self.watchers[viewer];
        let anchor = match &watcher.view {
            View::Entity { table, handle, .. } => {
                self.entities.get(&(*table, *handle)).and_then(|entity| entity.cell).or(watcher.anchor)
            }
            View::Point { at, .. } if watcher.at_anchor == Some(*at) => watcher.anchor,
            View::Point { at, .. } => Some(cell_from(watcher.anchor, *at)),
            _ => None,
        };
        let is_seen = |cell: Option<Cell>| match (&watcher.view, cell) {
            (_, None) | (View::Everything, _) => true,
            (View::Nothing, _) => false,
            (View::Cells(cells), Some(cell)) => cells.contains(&cell),
            (View::Entity { radius, .. } | View::Point { radius, .. }, Some(cell)) => {
                anchor.is_some_and(|anchor| {
                    let gap = |a: i32, b: i32| f64::from(((a - b).abs() - 1).max(0)) * SIDE;
                    cell == anchor || gap(cell.0, anchor.0).hypot(gap(cell.1, anchor.1)) < *radius
                })
            }
        };
        let mut seen = Seen::default();
        for (&(table, handle), entity) in &self.entities {
            let is_own = watcher.owner != 0 && entity.owner == watcher.owner;
            for (column, shape) in shape()[table].columns.iter().enumerate() {
                let is_told = match shape.audience {
                    Audience::All => is_seen(entity.cell),
                    Audience::Others => is_seen(entity.cell) && !is_own,
                    Audience::Owner => is_own,
                    Audience::Nobody => false,
                };
                if is_told {
                    seen.values.insert((table, handle, shape.name.clone()), entity.sent[column].clone());
                }
            }
            if is_seen(entity.cell) {
                seen.entities.insert((table, handle));
            }
            if is_own {
                seen.own.insert((table, handle));
            }
        }
        let watcher = &mut self.watchers[viewer];
        watcher.anchor = anchor;
        watcher.at_anchor = if let View::Point { at, .. } = &watcher.view { Some(*at) } else { None };
        seen
    }
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    entities: BTreeSet<(usize, Handle)>,
    own: BTreeSet<(usize, Handle)>,
    values: BTreeMap<(usize, Handle, String), Value>,
}

impl Watcher {
    fn apply(&mut self, world: &mut World, tick: u32, bytes: &[u8]) {
        let changes = self.replica.apply(bytes).expect("what is encoded decodes");
        let Some(changes) = changes else {
            world.lost(self.key, tick);
            return;
        };
        for change in changes {
            match *change {
                Change::Added(table, handle) => assert!(self.told.insert((table, handle)), "added twice"),
                Change::Removed(table, handle) => {
                    assert!(self.told.remove(&(table, handle)), "removed twice")
                }
                Change::Changed(table, handle) => {
                    assert!(self.told.contains(&(table, handle)), "changed, not there")
                }
            }
        }
        world.arrived(self.key, tick);
    }

    /// Nothing is lost that was not sent again.
    fn has_all(&self) -> bool {
        self.on_its_way.is_empty()
    }

    fn sees(&self) -> Seen {
        let mut seen = Seen { own: self.replica.owned().into_iter().collect(), ..Seen::default() };
        for (table, shape) in self.replica.shape().tables().iter().enumerate() {
            let own = seen.own.iter().filter(|(of, _)| *of == table).map(|(_, handle)| *handle);
            let all: BTreeSet<_> = self.replica.entities(table).into_iter().chain(own).collect();
            for handle in all {
                for (column, shape) in shape.columns.iter().enumerate() {
                    if let Some(value) = self.replica.value(table, handle, column) {
                        seen.values.insert((table, handle, shape.name.clone()), value);
                    }
                }
            }
            seen.entities.extend(self.replica.entities(table).into_iter().map(|handle| (table, handle)));
        }
        assert_eq!(self.told, seen.entities, "the changes that were told");
        seen
    }
}

fn bytes_of(world: &World, part: Part) -> &[u8] {
    &world.bytes()[part.start as usize..][..part.len as usize]
}

fn position_columns(table: usize) -> &'static [usize] {
    match table {
        THING => &[0, 2],
        DOT => &[0],
        _ => &[],
    }
}

fn cell_from(old: Option<Cell>, [x, y]: [f64; 2]) -> Cell {
    let beyond = |at: f64, cell: i32| {
        let low = f64::from(cell) * SIDE;
        at < low - 1.0 || at >= low + SIDE + 1.0
    };
    match old {
        Some(old) if !beyond(x, old.0) && !beyond(y, old.1) => old,
        _ => ((x / SIDE).floor() as i32, (y / SIDE).floor() as i32),
    }
}

fn default(column: &ColumnShape) -> Value {
    match (&column.default, &column.kind) {
        (Some(value), _) => value.clone(),
        (None, Kind::Number(Number::F32 | Number::F64)) => Value::Float(0.0),
        (None, Kind::Number(_)) => Value::Int(0),
        (None, Kind::Vector(_, width)) => Value::Vector(vec![0.0; usize::from(*width)]),
        (None, Kind::Str(_)) => Value::Str(String::new()),
        (None, Kind::Bytes(_)) => Value::Bytes(Vec::new()),
        (None, Kind::Reference(_)) => Value::Reference(None),
        (None, Kind::List(..)) => Value::List(Vec::new()),
        (None, Kind::Bool) => Value::Bool(false),
        (None, Kind::Enum(values)) => Value::Int(values[0].into()),
    }
}

fn rounded(column: &ColumnShape, value: &Value) -> Value {
    let Some(step) = column.quantize else { return value.clone() };
    let round = |float: f64| quantize(float, 1.0 / step).unwrap() as f64 * step;
    match value {
        Value::Float(float) => Value::Float(round(*float)),
        Value::Vector(items) => Value::Vector(items.iter().map(|item| round(*item)).collect()),
        value => value.clone(),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || [-25.0..35.0_f64, -15.0..25.0_f64];
    let fate = || prop_oneof![6 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Waits)];
    let which = || 0..100_usize;
    let step = prop_oneof![
        4 => (0..3_usize, 0..3_u64, at()).prop_map(|(table, owner, at)| Step::Spawn { table, owner, at }),
        2 => which().prop_map(|which| Step::Despawn { which }),
        6 => (which(), [-6.0..6.0_f64, -6.0..6.0_f64]).prop_map(|(which, by)| Step::Move { which, by }),
        6 => (which(), 0..12_usize, any::<u32>())
            .prop_map(|(which, column, value)| Step::Write { which, column, value }),
        1 => (which(), 0..3_u64).prop_map(|(which, owner)| Step::Own { which, owner }),
        1 => (which(), 0..12_usize).prop_map(|(which, column)| Step::Bad { which, column }),
        2 => (0..3_usize, 0..5_usize, at(), which())
            .prop_map(|(viewer, view, at, which)| Step::Look { viewer, view, at, which }),
        1 => prop_oneof![
            (0..3_usize).prop_map(|viewer| Step::Leave { viewer }),
            (0..3_usize).prop_map(|viewer| Step::Return { viewer }),
        ],
        8 => [fate(), fate(), fate()].prop_map(|fates| Step::Tick { fates }),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_client_sees_what_it_should(steps in steps()) {
        let mut game = Game::new();
        for step in &steps {
            game.step(step);
        }
        game.tick([Fate::Arrives; 3]);
    }
}
