//! What the world costs in a tick, without the game's handlers and without sending: 20 Hz, about 50 entities seen by each client in 3 x 3
//! cells. `cargo bench -p world`. Beside it a bare program: common/bare.rs.

use std::time::Instant;

#[path = "../common/mod.rs"]
mod common;
mod interest;

use common::bare::Bare;
use common::motion::{LOADS, Load, Motion, RATE, SIDE, STEPS};
use world::{ColumnShape, Kind, Number, Part, TableShape, View, World};

const TICKS: usize = 200;
const ROUNDS: usize = 5;
const CHURN: usize = 5;

fn main() {
    println!(
        "load  us a tick: ours, bare, ratio (median of {ROUNDS})   bytes a client and second: ours, bare   entities seen"
    );
    for load in LOADS {
        let mut rounds: Vec<(f64, f64, f64, f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let (ours, bytes, seen) = ours(&load, 0);
                let (bare, bare_bytes) = bare(load);
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
    let [_, _, _, load] = LOADS;
    let churned = (0..ROUNDS).map(|_| (ours(&load, CHURN), ours(&load, 0)));
    let mut rounds: Vec<_> =
        churned.map(|((with, bytes, _), (without, _, _))| (with, without, bytes)).collect();
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (with, without, bytes) = rounds[ROUNDS / 2];
    println!(
        "D with {CHURN} % despawned and spawned in each tick: {with:.1} us, {:.2} times; {bytes:.0} bytes",
        with / without
    );
    interest::run();
}

/// `churn` percent of those that nobody follows are despawned in each tick, and others spawned in their places.
fn ours(load: &Load, churn: usize) -> (f64, f64, f64) {
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
    let mut handles: Vec<_> = (0..load.entities).filter_map(|row| world.handle(0, row)).collect();
    let is_followed = |i: usize| i.is_multiple_of(load.entities / load.clients);
    let mut parts: Vec<Part> = Vec::new();
    let mut out = Vec::new();
    let (mut nanos, mut sent) = (0, 0);
    for tick in 0..TICKS + 20 {
        motion.step(tick, load.moving, |i, at| {
            let row = world.row(0, handles[i]).expect("live");
            put(&mut world, row, at);
        });
        let start = Instant::now();
        for i in (0..load.entities * churn / 100).map(|i| (i * 20 + tick) % load.entities) {
            if !is_followed(i) {
                world.despawn(0, handles[i]);
                let row = world.spawn(0, 1, 0).expect("room");
                handles[i] = world.handle(0, row).expect("live");
                put(&mut world, row, motion.at[i]);
            }
        }
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

fn bare(load: Load) -> (f64, f64) {
    let (clients, mut bare) = (load.clients, Bare::new(load));
    let (mut nanos, mut sent) = (0, 0);
    for tick in 0..TICKS + 20 {
        bare.simulate(tick);
        let start = Instant::now();
        bare.encode();
        for client in 0..clients {
            let len = bare.snapshot(tick, client).len();
            if tick >= 20 && len > 0 {
                sent += framed(len);
            }
        }
        if tick >= 20 {
            nanos += start.elapsed().as_nanos();
        }
    }
    (nanos as f64 / 1000.0 / TICKS as f64, sent as f64 / clients as f64 / (TICKS as f64 / f64::from(RATE)))
}
