//! What the world costs in a tick, without the game's handlers and without sending: 20 Hz, about 50 entities seen by each client in 3 x 3
//! cells. `cargo bench -p world`. Beside it a bare program that does the same work with arrays that it knows: two columns, one table,
//! no entity that comes or goes, and nobody who loses anything.

use std::time::Instant;

use world::{ColumnShape, Kind, Number, Part, TableShape, View, World};

const SIDE: f32 = 100.0;
const SEEN: f32 = 50.0;
const RATE: f32 = 20.0;
const SPEED: f32 = 20.0;
const STEPS: f32 = 100.0;

struct Load {
    name: &'static str,
    clients: usize,
    entities: usize,
    /// One in so many moves.
    moving: usize,
}

const LOADS: [Load; 4] = [
    Load { name: "A", clients: 100, entities: 1_000, moving: 1 },
    Load { name: "B", clients: 200, entities: 5_000, moving: 10 },
    Load { name: "C", clients: 500, entities: 10_000, moving: 10 },
    Load { name: "D", clients: 1_000, entities: 10_000, moving: 1 },
];

const TICKS: usize = 200;
const ROUNDS: usize = 5;

fn main() {
    println!(
        "load  us a tick: ours, bare, ratio (median of {ROUNDS})   bytes a client and second: ours, bare   entities seen"
    );
    for load in LOADS {
        let mut rounds: Vec<(f64, f64, f64, f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let (ours, bytes, seen) = ours(&load);
                let (bare, bare_bytes) = bare(&load);
                (ours, bare, bytes, bare_bytes, seen)
            })
            .collect();
        rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (ours, bare, bytes, bare_bytes, seen) = rounds[ROUNDS / 2];
        println!(
            "{:<4} {ours:>8.1} {bare:>8.1} {:>6.2}   {bytes:>10.0} {bare_bytes:>10.0}   {seen:>6.1}",
            load.name,
            ours / bare
        );
    }
}

/// Where all are, and where they go: the same for both.
struct Motion {
    side: f32,
    at: Vec<[f32; 2]>,
    by: Vec<[f32; 2]>,
    seed: u64,
}

impl Motion {
    fn new(load: &Load) -> Self {
        let side = SIDE * (load.entities as f32 * 9.0 / SEEN).sqrt();
        let mut motion = Self { side, at: Vec::new(), by: Vec::new(), seed: 7 };
        for _ in 0..load.entities {
            let at = [motion.random() * side, motion.random() * side];
            let angle = motion.random() * std::f32::consts::TAU;
            motion.at.push(at);
            motion.by.push([angle.cos() * SPEED / RATE, angle.sin() * SPEED / RATE]);
        }
        motion
    }

    fn random(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 40) as f32 / (1 << 24) as f32
    }

    /// Every `moving`-th, another one in each tick.
    fn step(&mut self, tick: usize, moving: usize, mut each: impl FnMut(usize, [f32; 2])) {
        for i in (tick % moving..self.at.len()).step_by(moving) {
            for axis in 0..2 {
                let next = self.at[i][axis] + self.by[i][axis];
                if !(0.0..self.side).contains(&next) {
                    self.by[i][axis] = -self.by[i][axis];
                }
                self.at[i][axis] = next.clamp(0.0, self.side - 0.01);
            }
            each(i, self.at[i]);
        }
    }
}

fn ours(load: &Load) -> (f64, f64, f64) {
    let mut world = World::new(f64::from(SIDE));
    let column = |name| ColumnShape::new(name, Kind::Number(Number::F32)).quantize(f64::from(1.0 / STEPS));
    let table = TableShape::spatial("Mover", &["x", "y"]).column(column("x")).column(column("y"));
    world.add_tables(vec![table]).expect("a shape");
    world.spawn(0, load.entities, 0).expect("room");
    let mut motion = Motion::new(load);
    let put = |world: &mut World, row: usize, [x, y]: [f32; 2]| {
        world.value_mut(0, 0, row).copy_from_slice(&x.to_ne_bytes());
        world.value_mut(0, 1, row).copy_from_slice(&y.to_ne_bytes());
    };
    for (row, at) in motion.at.iter().enumerate() {
        put(&mut world, row, *at);
    }
    let viewers: Vec<_> = (0..load.clients)
        .map(|i| {
            let handle = world.handle(0, i * load.entities / load.clients).expect("live");
            world.add_viewer(0, View::Entity { table: 0, handle, radius: f64::from(SIDE) })
        })
        .collect();
    let mut parts: Vec<Part> = Vec::new();
    let mut out = Vec::new();
    let (mut nanos, mut sent) = (0, 0);
    for tick in 0..TICKS + 20 {
        motion.step(tick, load.moving, |row, at| put(&mut world, row, at));
        let start = Instant::now();
        world.end_tick();
        for viewer in &viewers {
            parts.clear();
            if world.snapshot(*viewer, &mut parts) {
                queue(&mut out, world.bytes(), &parts);
                if tick >= 20 {
                    sent += framed(out.len());
                }
                let tick = world.tick();
                world.arrived(*viewer, tick);
            }
        }
        if tick >= 20 {
            nanos += start.elapsed().as_nanos();
        }
    }
    let seen = world.map(0).iter().map(|(_, entities, viewers)| entities * viewers).sum::<usize>();
    (
        nanos as f64 / 1000.0 / TICKS as f64,
        sent as f64 / load.clients as f64 / (TICKS as f64 / f64::from(RATE)),
        seen as f64 / load.clients as f64,
    )
}

/// Into a client's queue: both do the same.
fn queue(out: &mut Vec<u8>, bytes: &[u8], parts: &[Part]) {
    out.clear();
    for part in parts {
        out.extend_from_slice(&bytes[part.start as usize..][..part.len as usize]);
    }
}

/// With the packet's header, flag and route.
fn framed(body: usize) -> usize {
    4 + 2 + 2 + body
}

/// A cell's changes: 1 byte of index, 2 varints; entities that cross a border are told by both cells.
fn bare(load: &Load) -> (f64, f64) {
    let mut motion = Motion::new(load);
    let width = (motion.side / SIDE).ceil() as usize + 1;
    let cell_of = |x: f32, y: f32| (y / SIDE) as usize * width + (x / SIDE) as usize;
    let (mut x, mut y): (Vec<f32>, Vec<f32>) = motion.at.iter().map(|[x, y]| (*x, *y)).unzip();
    let round = |value: f32| (value * STEPS).round_ties_even() as i32;
    let (mut sent_x, mut sent_y): (Vec<i32>, Vec<i32>) =
        motion.at.iter().map(|[x, y]| (round(*x), round(*y))).unzip();
    let mut cells: Vec<usize> = motion.at.iter().map(|[x, y]| cell_of(*x, *y)).collect();
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); width * width];
    for (i, cell) in cells.iter().enumerate() {
        members[*cell].push(i as u32);
    }
    let mut blocks: Vec<Vec<u8>> = vec![Vec::new(); width * width];
    let mut changed: Vec<(usize, u32)> = Vec::new();
    let mut out = Vec::new();
    let (mut nanos, mut sent) = (0, 0);
    for tick in 0..TICKS + 20 {
        motion.step(tick, load.moving, |i, at| [x[i], y[i]] = at);
        let start = Instant::now();
        changed.clear();
        blocks.iter_mut().for_each(Vec::clear);
        for i in 0..x.len() {
            let (new_x, new_y) = (round(x[i]), round(y[i]));
            if (new_x, new_y) == (sent_x[i], sent_y[i]) {
                continue;
            }
            let cell = cell_of(x[i], y[i]);
            if cell != cells[i] {
                let old = &mut members[cells[i]];
                let at = old.iter().position(|member| *member == i as u32).expect("is there");
                old.swap_remove(at);
                blocks[cells[i]].extend_from_slice(&[0xFF, at as u8]);
                members[cell].push(i as u32);
                blocks[cell].push(0xFE);
                varint(&mut blocks[cell], i as u64);
                varint(&mut blocks[cell], zigzag(new_x));
                varint(&mut blocks[cell], zigzag(new_y));
                (sent_x[i], sent_y[i], cells[i]) = (new_x, new_y, cell);
            } else {
                changed.push((cell, i as u32));
            }
        }
        for &(cell, i) in &changed {
            let at = members[cell].iter().position(|member| *member == i).expect("is there");
            let i = i as usize;
            let (new_x, new_y) = (round(x[i]), round(y[i]));
            blocks[cell].push(at as u8);
            varint(&mut blocks[cell], zigzag(new_x - sent_x[i]));
            varint(&mut blocks[cell], zigzag(new_y - sent_y[i]));
            (sent_x[i], sent_y[i]) = (new_x, new_y);
        }
        for client in 0..load.clients {
            let cell = cells[client * load.entities / load.clients];
            out.clear();
            varint(&mut out, tick as u64);
            for row in -1..=1_isize {
                for column in -1..=1_isize {
                    let other = cell as isize + row * width as isize + column;
                    let Some(block) = usize::try_from(other).ok().and_then(|other| blocks.get(other)) else {
                        continue;
                    };
                    if !block.is_empty() {
                        varint(&mut out, other as u64);
                        out.push(block.len() as u8);
                        out.extend_from_slice(block);
                    }
                }
            }
            if tick >= 20 && out.len() > 2 {
                sent += framed(out.len());
            }
        }
        if tick >= 20 {
            nanos += start.elapsed().as_nanos();
        }
    }
    (
        nanos as f64 / 1000.0 / TICKS as f64,
        sent as f64 / load.clients as f64 / (TICKS as f64 / f64::from(RATE)),
    )
}

fn zigzag(value: i32) -> u64 {
    u64::from((value << 1 ^ value >> 31) as u32)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
