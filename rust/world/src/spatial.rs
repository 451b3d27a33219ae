//! Who is near whom, by where they are now: the columns are read anew, since they may have been written past the world.

use crate::world::World;

impl World {
    /// Rows of a table within `radius` of a place, in their order. A despawned one is none.
    pub fn near(&self, table: usize, [x, y]: [f64; 2], radius: f64) -> Vec<u32> {
        let is_near = |[a, b]: [f64; 2]| (a - x).powi(2) + (b - y).powi(2) <= radius * radius;
        let rows = 0..self.rows(table);
        let found = rows.filter(|row| self.table(table).position(*row).is_some_and(is_near));
        found.filter(|row| self.handle(table, *row).is_some()).map(|row| row as u32).collect()
    }

    /// Where the entity in a row is; `None` in a global table.
    pub fn position(&self, table: usize, row: usize) -> Option<[f64; 2]> {
        self.table(table).position(row)
    }

    /// All pairs of a row of `one` and a row of `other` within `radius` of each other, ordered by the first, then by the second. Within one
    /// table, each pair once, the lower row first.
    pub fn pairs(&self, one: usize, other: usize, radius: f64) -> (Vec<u32>, Vec<u32>) {
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        let (mut places, mut others) = (Vec::new(), Vec::new());
        self.table(one).positions(&mut places);
        self.table(other).positions(&mut others);
        if !(radius >= 0.0 && radius.is_finite()) || places.is_empty() || others.is_empty() {
            return (firsts, seconds);
        }
        let side = if radius > 0.0 { radius } else { 1.0 };
        let cell = |[x, y]: [f64; 2]| ((x / side).floor() as i32, (y / side).floor() as i32);
        // Rows of `other`, ordered by cell: those of a cell stand side by side.
        let mut sorted: Vec<_> = (0..others.len() as u32)
            .filter(|row| self.handle(other, *row as usize).is_some())
            .map(|row| (cell(others[row as usize]), row))
            .collect();
        sorted.sort_unstable();
        let mut found = Vec::new();
        for (first, &[x, y]) in places.iter().enumerate() {
            if self.handle(one, first).is_none() {
                continue;
            }
            let (column, row) = cell([x, y]);
            found.clear();
            for column in column.saturating_sub(1)..=column.saturating_add(1) {
                // Three cells of a column are one range.
                let (low, high) = ((column, row.saturating_sub(1)), (column, row.saturating_add(1)));
                let from = sorted.partition_point(|(cell, _)| *cell < low);
                for &(_, second) in sorted[from..].iter().take_while(|(cell, _)| *cell <= high) {
                    let [a, b] = others[second as usize];
                    let is_near = (a - x).powi(2) + (b - y).powi(2) <= radius * radius;
                    if is_near && (one != other || second as usize > first) {
                        found.push(second);
                    }
                }
            }
            found.sort_unstable();
            found.dedup();
            firsts.resize(firsts.len() + found.len(), first as u32);
            seconds.extend_from_slice(&found);
        }
        (firsts, seconds)
    }
}
