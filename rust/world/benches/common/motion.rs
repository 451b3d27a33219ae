//! The four loads: who moves where. 20 Hz, about 50 entities seen by each client in 3 x 3 cells.

pub const SIDE: f32 = 100.0;
const SEEN: f32 = 50.0;
pub const RATE: f32 = 20.0;
const SPEED: f32 = 20.0;
pub const STEPS: f32 = 100.0;

#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub clients: usize,
    pub entities: usize,
    /// One in so many moves.
    pub moving: usize,
}

pub const LOADS: [Load; 4] = [
    Load { name: "A", clients: 100, entities: 1_000, moving: 1 },
    Load { name: "B", clients: 200, entities: 5_000, moving: 10 },
    Load { name: "C", clients: 500, entities: 10_000, moving: 10 },
    Load { name: "D", clients: 1_000, entities: 10_000, moving: 1 },
];

/// Where all are, and where they go: the same for everybody who asks.
pub struct Motion {
    pub side: f32,
    pub at: Vec<[f32; 2]>,
    pub by: Vec<[f32; 2]>,
    seed: u64,
}

impl Motion {
    pub fn new(load: &Load) -> Self {
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
    pub fn step(&mut self, tick: usize, moving: usize, mut each: impl FnMut(usize, [f32; 2])) {
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
