//! The reference: the same work with arrays that it knows: two columns, one table, no entity that comes or goes, and nobody who loses anything.

use super::motion::{Load, Motion, SIDE, STEPS};

pub struct Bare {
    pub motion: Motion,
    load: Load,
    width: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    sent_x: Vec<i32>,
    sent_y: Vec<i32>,
    cells: Vec<usize>,
    members: Vec<Vec<u32>>,
    blocks: Vec<Vec<u8>>,
    changed: Vec<(usize, u32)>,
    out: Vec<u8>,
}

impl Bare {
    pub fn new(load: Load) -> Self {
        let motion = Motion::new(&load);
        let width = (motion.side / SIDE).ceil() as usize + 1;
        let (x, y): (Vec<f32>, Vec<f32>) = motion.at.iter().map(|[x, y]| (*x, *y)).unzip();
        let (sent_x, sent_y) = motion.at.iter().map(|[x, y]| (round(*x), round(*y))).unzip();
        let cells: Vec<usize> = motion.at.iter().map(|[x, y]| cell_of(*x, *y, width)).collect();
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); width * width];
        for (i, cell) in cells.iter().enumerate() {
            members[*cell].push(i as u32);
        }
        let blocks = vec![Vec::new(); width * width];
        Self {
            motion,
            load,
            width,
            x,
            y,
            sent_x,
            sent_y,
            cells,
            members,
            blocks,
            changed: Vec::new(),
            out: Vec::new(),
        }
    }

    pub fn simulate(&mut self, tick: usize) {
        let Self { motion, x, y, load, .. } = self;
        motion.step(tick, load.moving, |i, at| [x[i], y[i]] = at);
    }

    /// A cell's changes: 1 byte of index, 2 varints; entities that cross a border are told by both cells.
    pub fn encode(&mut self) {
        let Self { x, y, sent_x, sent_y, cells, members, blocks, changed, width, .. } = self;
        changed.clear();
        blocks.iter_mut().for_each(Vec::clear);
        for i in 0..x.len() {
            let (new_x, new_y) = (round(x[i]), round(y[i]));
            if (new_x, new_y) == (sent_x[i], sent_y[i]) {
                continue;
            }
            let cell = cell_of(x[i], y[i], *width);
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
        for &(cell, i) in &*changed {
            let at = members[cell].iter().position(|member| *member == i).expect("is there");
            let i = i as usize;
            let (new_x, new_y) = (round(x[i]), round(y[i]));
            blocks[cell].push(at as u8);
            varint(&mut blocks[cell], zigzag(new_x - sent_x[i]));
            varint(&mut blocks[cell], zigzag(new_y - sent_y[i]));
            (sent_x[i], sent_y[i]) = (new_x, new_y);
        }
    }

    /// What a client is to be sent; nothing if nothing changed.
    pub fn snapshot(&mut self, tick: usize, client: usize) -> &[u8] {
        let Self { load, cells, blocks, out, width, .. } = self;
        let cell = cells[client * load.entities / load.clients];
        out.clear();
        varint(out, tick as u64);
        let head = out.len();
        for row in -1..=1_isize {
            for column in -1..=1_isize {
                let other = cell as isize + row * *width as isize + column;
                let Some(block) = usize::try_from(other).ok().and_then(|other| blocks.get(other)) else {
                    continue;
                };
                if !block.is_empty() {
                    varint(out, other as u64);
                    out.push(block.len() as u8);
                    out.extend_from_slice(block);
                }
            }
        }
        if out.len() == head { &[] } else { out }
    }
}

fn cell_of(x: f32, y: f32, width: usize) -> usize {
    (y / SIDE) as usize * width + (x / SIDE) as usize
}

fn round(value: f32) -> i32 {
    (value * STEPS).round_ties_even() as i32
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
