//! How the blocks of a grid are spread over SMs and time, and how far each of them walks.

use super::Setting;
use super::divisor::Divisor;
use super::table::Row;
use evo_sdpa_kernels::mask::visible_keys;

/// The blocks of the grid, and how the busiest SM runs its share of them.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// Blocks of the grid.
    pub blocks: f64,
    /// Blocks of the busiest SM.
    pub per_sm: f64,
    /// Blocks that it holds at a time.
    resident: f64,
    /// Rounds of so many.
    full: f64,
    /// Blocks of one round more.
    left: f64,
}

impl Rounds {
    /// So many blocks of a kernel, of which an SM holds `resident` at a time.
    #[inline]
    pub fn new(blocks: f64, resident: u32, sm_count: f64) -> Self {
        // `f64::floor` is a call on processors that Rust builds for by default.
        let floor = |x: f64| x as i64 as f64;
        let resident = f64::from(resident);
        let share = blocks / sm_count;
        let per_sm = if floor(share) < share { floor(share) + 1.0 } else { share };
        let full = floor(per_sm / resident);
        Self { blocks, per_sm, resident, full, left: per_sm - full * resident }
    }

    /// Most blocks at a time.
    #[inline]
    pub fn at_a_time(&self) -> f64 {
        if self.full > 0.0 { self.resident } else { self.left }
    }

    /// How many rounds.
    #[inline]
    pub fn count(&self) -> f64 {
        if self.left > 0.0 { self.full + 1.0 } else { self.full }
    }

    /// The sum of all rounds, where one of so many blocks at a time takes `time`.
    #[inline]
    pub fn time(&self, time: impl Fn(f64) -> f64) -> f64 {
        self.full * time(self.resident) + if self.left > 0.0 { time(self.left) } else { 0.0 }
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
    #[inline]
    pub fn new(row: &Row, setting: &Setting) -> Self {
        let Setting { q_len, kv_len, causal_offset, .. } = *setting;
        // A block takes the steps of its last row.
        let steps = |last: u32| row.step.quotient_up(visible_keys(last as i32, kv_len, causal_offset) as u32);
        // The last rows see the most keys; where the first see as many, all do.
        let longest = steps(q_len - 1);
        let average = if steps(row.tile_q.value().min(q_len) - 1) == longest {
            f64::from(longest)
        } else {
            let sum = u64::from(longest) + Self::steps_but_for_the_last_tile(row, setting);
            sum as f64 / f64::from(row.tile_q.quotient_up(q_len))
        };
        let keys = (average * f64::from(row.step.value())).min(f64::from(kv_len));
        Self { average, longest: f64::from(longest), keys }
    }

    /// The sum of the steps of all tiles of queries but the last, which may be a short one.
    fn steps_but_for_the_last_tile(row: &Row, setting: &Setting) -> u64 {
        let Setting { q_len, kv_len, causal_offset, .. } = *setting;
        let tiles = row.tile_q.quotient_up(q_len) - 1;
        // Tiles before `first` see no key, those from `full` on see all, those between see more and more.
        let tile_that_sees = |keys: i32| row.tile_q.quotient((keys - causal_offset).max(0) as u32).min(tiles);
        let (first, full) = (tile_that_sees(0), tile_that_sees(kv_len));
        let keys = (i64::from(first) + 1) * i64::from(row.tile_q.value()) + i64::from(causal_offset);
        let rising = if first < full { row.ramp.steps(full - first, keys as u32) } else { 0 };
        rising + u64::from(tiles - full) * u64::from(row.step.quotient_up(kv_len as u32))
    }
}

/// The sum of the steps of tiles of which each sees the keys of a tile of queries more than the one before: by Euclid's
/// algorithm for the queries of a tile and the keys of a step, which counts the lattice points below a line.
pub struct Ramp {
    step: u32,
    /// Of each division of the algorithm: divisor, quotient, remainder.
    divisions: Vec<(Divisor, u32, u32)>,
}

impl Ramp {
    /// Tiles of `tile_q` queries, steps of `step` keys.
    pub fn new(tile_q: u32, step: u32) -> Self {
        let mut divisions = Vec::new();
        let (mut dividend, mut divisor) = (tile_q, step);
        while divisor > 0 {
            divisions.push((Divisor::new(divisor), dividend / divisor, dividend % divisor));
            (dividend, divisor) = (divisor, dividend % divisor);
        }
        Self { step, divisions }
    }

    /// The steps of `tiles` tiles, at least one, the first of which sees `keys` keys, at least one. The last sees fewer
    /// than 2^31.
    fn steps(&self, tiles: u32, keys: u32) -> u64 {
        // Rounded up is rounded down with `step - 1` more.
        let (mut n, mut start) = (tiles, keys + self.step - 1);
        let mut sum = 0;
        for &(divisor, slope, rest) in &self.divisions {
            let (quotient, remainder) = divisor.quotient_and_rest(start);
            sum += u64::from(n) * u64::from(n - 1) / 2 * u64::from(slope) + u64::from(n) * u64::from(quotient);
            (n, start) = divisor.quotient_and_rest(rest * n + remainder);
            if n == 0 {
                break;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceSpec;
    use crate::model::Rates;
    use crate::problem::{Causal, Problem};
    use evo_sdpa_kernels::instances::KERNELS;
    use evo_sdpa_kernels::mask::kv_steps;

    #[test]
    fn the_average_block_takes_the_steps_that_counting_every_tile_finds() {
        let masks = [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(-70))];
        for (index, kernel) in KERNELS.iter().enumerate() {
            let row = Row::new(index, &Rates::of(&DeviceSpec::H200));
            let (tile_q, step) = (row.tile_q.value() as usize, row.step.value());
            for q_len in [1, 5, 64, 130, 1000, 9000] {
                for (kv_len, causal) in [0, 1, 100, 513, 4096].into_iter().flat_map(|kv| masks.map(|mask| (kv, mask))) {
                    let shape = [1, 1, 1, q_len, kv_len, kernel.head_dim() as usize];
                    let problem = Problem::contiguous(kernel.dtype(), shape).with_causal(causal);
                    let setting = Setting::new(&problem, &DeviceSpec::H200);
                    let walk = Walk::new(&row, &setting);
                    let steps = |first: usize| {
                        let last = (first + tile_q).min(q_len) as i32 - 1;
                        kv_steps(first as i32, last, setting.kv_len, setting.causal_offset, step).total
                    };
                    let counted: Vec<_> = (0..q_len).step_by(tile_q).map(steps).collect();
                    let sum: u32 = counted.iter().sum();
                    assert_eq!(walk.average, f64::from(sum) / counted.len() as f64, "{kernel} {problem}");
                    assert_eq!(Some(walk.longest as u32), counted.iter().copied().max(), "{kernel} {problem}");
                }
            }
        }
    }

    #[test]
    fn a_ramp_has_the_steps_that_counting_finds() {
        for (tile_q, step) in [(64, 64), (128, 64), (32, 512), (4, 32), (96, 64), (64, 96), (192, 80), (5, 7)] {
            let ramp = Ramp::new(tile_q, step);
            for (tiles, keys) in [(1, 1), (1, 700), (7, 3), (40, 64), (1000, 65)] {
                let counted: u32 = (0..tiles).map(|tile| (keys + tile * tile_q).div_ceil(step)).sum();
                assert_eq!(
                    ramp.steps(tiles, keys),
                    u64::from(counted),
                    "{tiles} tiles of {tile_q}, {step} keys, {keys}"
                );
            }
        }
    }
}
