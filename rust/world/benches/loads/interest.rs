//! Who sees whom, alone: 10,000 watchers that all move, with 72 neighbours each. Whole cells of a grid: entities go from cell to cell, and each
//! viewer chooses its cells. Beside it a cross-linked list as MMO engines have it (KBEngine's range list): three nodes a watcher in a sorted list
//! per axis, and a test of the pair whenever a node passes another.

use std::time::Instant;

use crate::common::motion::{Load, Motion};
use world::{Change, ColumnShape, Kind, Number, Part, Phase, Replica, TableShape, View, World};

const WATCHERS: usize = 10_000;
const CELL: f32 = 100.0;
/// A square of this half side has as many neighbours as three cells by three.
const RANGE: f32 = 1.5 * CELL;
const TICKS: usize = 60;
const ROUNDS: usize = 5;

/// Of these the events are counted, by the clients' own decoder.
const COUNTED: usize = 100;

/// Prints a line for each speed, in units a tick.
pub fn run() {
    for speed in [1.0, 5.0] {
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| (grid(speed), list(speed))).collect();
        rounds.sort_by(|(a, b), (c, d)| (b.0 / a.0).total_cmp(&(d.0 / c.0)));
        let ((ours, told), (theirs, events)) = rounds[ROUNDS / 2];
        println!(
            "interest of {WATCHERS} watchers that go {speed} a tick, views of {RANGE} to each side: {ours:.0} us a tick by cells ({told:.0} entities come or go), \
             {theirs:.0} us by a cross-linked list ({events:.0} come or go): {:.1} times faster (median of {ROUNDS})",
            theirs / ours
        );
    }
}

/// 72 neighbours.
fn motion(speed: f32) -> Motion {
    // Its own density is of 50 neighbours in nine cells.
    let mut motion = Motion::new(&Load { name: "", clients: 0, entities: WATCHERS, moving: 1 });
    let scale = (50.0_f32 / 72.0).sqrt();
    motion.side *= scale;
    motion.at.iter_mut().flatten().for_each(|axis| *axis *= scale);
    motion.by.iter_mut().flatten().for_each(|axis| *axis *= speed);
    motion
}

fn grid(speed: f32) -> (f64, f64) {
    let mut world = World::new(f64::from(CELL));
    let column = |name| ColumnShape::new(name, Kind::Number(Number::F32)).quantize(0.5);
    let table = TableShape::spatial("Watcher", &["x", "y"]).column(column("x")).column(column("y"));
    world.add_tables(vec![table]).expect("a shape");
    world.spawn(0, WATCHERS, 0).expect("room");
    let mut motion = motion(speed);
    let mut clients: Vec<_> = (0..COUNTED).map(|_| Replica::new(world.shape().clone(), WATCHERS)).collect();
    let viewers: Vec<_> = (0..WATCHERS)
        .map(|row| {
            let handle = world.handle(0, row).expect("live");
            world.add_viewer(0, View::Entity { table: 0, handle, radius: f64::from(CELL) })
        })
        .collect();
    let mut parts: Vec<Part> = Vec::new();
    let (mut nanos, mut told) = (0, 0);
    for tick in 0..TICKS + 5 {
        motion.step(tick, 1, |row, [x, y]| {
            world.value_mut(0, 0, row).copy_from_slice(&x.to_ne_bytes());
            world.value_mut(0, 1, row).copy_from_slice(&y.to_ne_bytes());
        });
        let mut start = Instant::now();
        let mut took = 0;
        world.end_tick_with(|phase| {
            took += if phase == Phase::Cells { start.elapsed().as_nanos() } else { 0 };
            start = Instant::now();
        });
        start = Instant::now();
        viewers.iter().for_each(|viewer| world.look(*viewer));
        took += start.elapsed().as_nanos();
        for (i, viewer) in viewers.iter().enumerate() {
            parts.clear();
            if !world.snapshot(*viewer, &mut parts) {
                continue;
            }
            world.arrived(*viewer, world.tick());
            let Some(client) = clients.get_mut(i) else { continue };
            let of = |part: &Part| &world.bytes()[part.start as usize..][..part.len as usize];
            let snapshot: Vec<u8> = parts.iter().flat_map(of).copied().collect();
            let changes = client.apply(&snapshot).expect("a snapshot").unwrap_or_default();
            let events = changes.iter().filter(|change| !matches!(change, Change::Changed(..)));
            told += if tick >= 5 { events.count() } else { 0 };
        }
        nanos += if tick >= 5 { took } else { 0 };
    }
    let told = told * (WATCHERS / COUNTED);
    (nanos as f64 / 1000.0 / TICKS as f64, told as f64 / TICKS as f64)
}

#[derive(Clone, Copy)]
struct Node {
    at: f32,
    watcher: u32,
    is_border: bool,
    before: u32,
    behind: u32,
}

const NONE: u32 = u32::MAX;

/// One axis: each watcher's lower border, itself and its upper border.
struct Axis {
    nodes: Vec<Node>,
}

impl Axis {
    fn new(at: impl Iterator<Item = f32>) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        for (watcher, at) in at.enumerate() {
            for offset in [-RANGE, 0.0, RANGE] {
                let (watcher, is_border) = (watcher as u32, offset != 0.0);
                nodes.push(Node { at: at + offset, watcher, is_border, before: NONE, behind: NONE });
            }
        }
        let mut order: Vec<u32> = (0..nodes.len() as u32).collect();
        order.sort_by(|a, b| nodes[*a as usize].at.total_cmp(&nodes[*b as usize].at));
        for pair in order.windows(2) {
            nodes[pair[0] as usize].behind = pair[1];
            nodes[pair[1] as usize].before = pair[0];
        }
        Self { nodes }
    }

    fn shift(&mut self, watcher: usize, at: f32, mut passed: impl FnMut(u32, u32)) {
        for (i, offset) in [-RANGE, 0.0, RANGE].into_iter().enumerate() {
            let node = (watcher * 3 + i) as u32;
            self.nodes[node as usize].at = at + offset;
            loop {
                let Node { at, before, behind, .. } = self.nodes[node as usize];
                if behind != NONE && self.nodes[behind as usize].at < at {
                    self.swap(node, behind, &mut passed);
                } else if before != NONE && self.nodes[before as usize].at > at {
                    self.swap(before, node, &mut passed);
                } else {
                    break;
                }
            }
        }
    }

    /// `first` stands right before `second`, and goes behind it.
    fn swap(&mut self, first: u32, second: u32, passed: &mut impl FnMut(u32, u32)) {
        let (a, b) = (self.nodes[first as usize], self.nodes[second as usize]);
        if a.before != NONE {
            self.nodes[a.before as usize].behind = second;
        }
        if b.behind != NONE {
            self.nodes[b.behind as usize].before = first;
        }
        (self.nodes[second as usize].before, self.nodes[second as usize].behind) = (a.before, first);
        (self.nodes[first as usize].before, self.nodes[first as usize].behind) = (second, b.behind);
        if a.watcher != b.watcher && a.is_border != b.is_border {
            let (border, entity) = if a.is_border { (a, b) } else { (b, a) };
            passed(border.watcher, entity.watcher);
        }
    }
}

fn list(speed: f32) -> (f64, f64) {
    let mut motion = motion(speed);
    let mut axes = [0, 1].map(|axis| Axis::new(motion.at.iter().map(|at| at[axis])));
    let mut last = motion.at.clone();
    let mut now = motion.at.clone();
    let (mut nanos, mut events) = (0, 0);
    for tick in 0..TICKS + 5 {
        motion.step(tick, 1, |i, at| now[i] = at);
        let start = Instant::now();
        let sees = |at: &[[f32; 2]], watcher: u32, entity: u32| {
            let (from, to) = (at[watcher as usize], at[entity as usize]);
            (from[0] - to[0]).abs() <= RANGE && (from[1] - to[1]).abs() <= RANGE
        };
        let mut seen = 0;
        for (axis, nodes) in axes.iter_mut().enumerate() {
            for (watcher, at) in now.iter().enumerate() {
                // In range now, or in range in the last tick: not both.
                nodes.shift(watcher, at[axis], |watcher, entity| {
                    seen += usize::from(sees(&now, watcher, entity) != sees(&last, watcher, entity));
                });
            }
        }
        last.copy_from_slice(&now);
        nanos += if tick >= 5 { start.elapsed().as_nanos() } else { 0 };
        events += if tick >= 5 { seen } else { 0 };
    }
    (nanos as f64 / 1000.0 / TICKS as f64, events as f64 / TICKS as f64)
}
