//! How the blocks of a grid are spread over SMs and time, and how far each of them walks.

use super::Setting;
use super::table::Row;
use evo_sdpa_kernels::mask::visible_keys;

/// The blocks of the grid, and how the busiest SM runs its share of them.
pub struct Rounds {
    /// Blocks of the grid.
    pub blocks: f64,
    /// Blocks of the busiest SM.
    pub per_sm: f64,
    /// Blocks that it holds at a time.
    resident: u32,
    /// Rounds of so many.
    full: f64,
    /// Blocks of one round more.
    left: u32,
}

impl Rounds {
    /// The blocks of a kernel.
    pub fn new(row: &Row, setting: &Setting) -> Self {
        let resident = setting.resident(row);
        let blocks = u64::from(setting.q_len.div_ceil(row.tile_q)) * setting.slices;
        let per_sm = blocks.div_ceil(setting.sm_count);
        let (full, left) = (per_sm / u64::from(resident), (per_sm % u64::from(resident)) as u32);
        Self { blocks: blocks as f64, per_sm: per_sm as f64, resident, full: full as f64, left }
    }

    /// Most blocks at a time.
    pub fn at_a_time(&self) -> u32 {
        if self.full > 0.0 { self.resident } else { self.left }
    }

    /// How many rounds.
    pub fn count(&self) -> f64 {
        if self.left > 0 { self.full + 1.0 } else { self.full }
    }

    /// The sum of all rounds, where one of so many blocks at a time takes `time`.
    pub fn time(&self, time: impl Fn(u32) -> f64) -> f64 {
        self.full * time(self.resident) + if self.left > 0 { time(self.left) } else { 0.0 }
    }
}

/// How many steps of keys the blocks of a head take.
pub struct Walk {
    /// Steps of the average block.
    pub average: f64,
    /// Steps of the block with the most.
    pub longest: f64,
    /// Keys of the average block.
    pub keys: f64,
}

impl Walk {
    /// The blocks of a kernel, of which there is at least one.
    pub fn new(row: &Row, setting: &Setting) -> Self {
        let (tile_q, step) = (row.tile_q, row.step);
        let Setting { q_len, kv_len, causal_offset, .. } = *setting;
        // A block takes the steps of its last row.
        let steps = |last: u32| visible_keys(last as i32, kv_len, causal_offset).unsigned_abs().div_ceil(step);
        // The last rows see the most keys; where the first see as many, all do.
        let longest = steps(q_len - 1);
        let average = if steps(tile_q.min(q_len) - 1) == longest {
            f64::from(longest)
        } else {
            let tiles = q_len.div_ceil(tile_q);
            // Tiles but the last: those before `first` see no key, those from `full` on see all.
            let ends = |keys: i32| (keys - causal_offset).max(0) as u32 / tile_q;
            let first = ends(0).min(tiles - 1);
            let full = ends(kv_len).clamp(first, tiles - 1);
            let keys = ((first + 1) * tile_q).checked_add_signed(causal_offset).unwrap_or(0);
            let sum = sum_of_steps(full - first, keys, tile_q, step)
                + u64::from(tiles - 1 - full) * u64::from((kv_len as u32).div_ceil(step))
                + u64::from(longest);
            sum as f64 / f64::from(tiles)
        };
        let keys = (average * f64::from(step)).min(f64::from(kv_len));
        Self { average, longest: f64::from(longest), keys }
    }
}

/// The steps of `count` tiles: the first sees `keys` keys, each other `tile` more than the one before it.
fn sum_of_steps(count: u32, keys: u32, tile: u32, step: u32) -> u64 {
    // Rounded up is rounded down with `step - 1` more.
    sum_of_quotients(count.into(), step.into(), tile.into(), u64::from(keys) + u64::from(step) - 1)
}

/// The sum of `(a * i + b) / m`, rounded down, for `i` in `0..n`: Euclid's algorithm counts the lattice points below
/// the line, whose slope and inverse slope it takes by turns.
fn sum_of_quotients(mut n: u64, mut m: u64, mut a: u64, mut b: u64) -> u64 {
    let mut sum = 0;
    loop {
        if n == 0 {
            return sum;
        }
        sum += n * (n - 1) / 2 * (a / m) + n * (b / m);
        (a, b) = (a % m, b % m);
        let top = a * n + b;
        (n, m, a, b) = (top / m, a, m, top % m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_quotients_are_those_of_counting() {
        for (n, m, a, b) in [(0, 5, 3, 2), (1, 1, 0, 0), (7, 64, 64, 63), (9, 512, 32, 600), (33, 96, 128, 5), (20, 7, 4, 6)]
        {
            assert_eq!(sum_of_quotients(n, m, a, b), (0..n).map(|i| (a * i + b) / m).sum(), "{n} {m} {a} {b}");
        }
    }
}
