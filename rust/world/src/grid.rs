//! A uniform grid of cells without end, with hysteresis at the borders.

/// A cell of the grid: its column and row.
pub type Cell = (i32, i32);

/// Which cell a place is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// The side of a cell.
    pub side: f64,
    /// How far beyond its cell's border something goes before it changes cells.
    margin: f64,
}

/// Of a cell's side.
const MARGIN: f64 = 0.1;

/// Cells to each side, whatever the radius: 16,641 in all.
const REACH_MAX: f64 = 64.0;

impl Grid {
    pub fn new(side: f64) -> Self {
        Self { side, margin: side * MARGIN }
    }

    /// The cell of a place.
    pub fn cell_at(&self, [x, y]: [f64; 2]) -> Cell {
        // Conversions saturate: all that is too far away is in the outermost cells.
        ((x / self.side).floor() as i32, (y / self.side).floor() as i32)
    }

    /// Whether what was in a cell still is: until it is well beyond its border.
    #[inline(always)]
    pub fn keeps(&self, cell: Cell, [x, y]: [f64; 2]) -> bool {
        let is_near = |at: f64, cell: i32| {
            let low = f64::from(cell) * self.side;
            (at >= low - self.margin) & (at < low + self.side + self.margin)
        };
        is_near(x, cell.0) & is_near(y, cell.1)
    }

    /// All cells of which a part is within `radius` of a part of `anchor`'s.
    pub fn around(&self, anchor: Cell, radius: f64, mut each: impl FnMut(Cell)) {
        let reach = (radius / self.side).ceil().clamp(0.0, REACH_MAX) as i32;
        for down in -reach..=reach {
            for right in -reach..=reach {
                let gap_squared = |cells: i32| (f64::from((cells.abs() - 1).max(0)) * self.side).powi(2);
                if gap_squared(right) + gap_squared(down) < radius * radius || (right, down) == (0, 0) {
                    each((anchor.0.saturating_add(right), anchor.1.saturating_add(down)));
                }
            }
        }
    }
}
