//! How the blocks of a grid are spread over SMs and time, and how far each of them walks.

use crate::device::DeviceSpec;
use crate::limits;
use crate::problem::Problem;
use crate::splits::Splits;
use evo_sdpa_kernels::config::{Kernel, WARP};
use evo_sdpa_kernels::mask::kv_steps;

/// Most query tiles of a head whose steps are counted one by one; of more, as many, evenly spread.
const COUNTED_TILES: u64 = 64;

/// The blocks of the grid, and how the busiest SM runs its share of them.
pub struct Rounds {
    /// Blocks of the grid.
    pub blocks: f64,
    /// Blocks of the busiest SM.
    pub per_sm: f64,
    /// Blocks that it holds at a time.
    resident: u32,
}

impl Rounds {
    /// The blocks of `kernel`.
    pub fn new(kernel: Kernel, problem: &Problem, device: &DeviceSpec) -> Self {
        let splits = Splits::planned(kernel, problem, device);
        let blocks = limits::grid(kernel, problem, &splits).iter().map(|&n| f64::from(n)).product::<f64>();
        let per_sm = (blocks / f64::from(device.sm_count.max(1))).ceil();
        Self { blocks, per_sm, resident: device.resident_blocks(kernel) }
    }

    /// Most blocks at a time.
    pub fn at_a_time(&self) -> u32 {
        self.per_sm.min(f64::from(self.resident)) as u32
    }

    /// How many rounds.
    pub fn count(&self) -> f64 {
        (self.per_sm / f64::from(self.resident)).ceil()
    }

    /// The sum of all rounds, where one of so many blocks at a time takes `time`.
    pub fn time(&self, time: impl Fn(u32) -> f64) -> f64 {
        let resident = f64::from(self.resident);
        let left = (self.per_sm % resident) as u32;
        (self.per_sm / resident).floor() * time(self.resident) + if left > 0 { time(left) } else { 0.0 }
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
    /// The blocks of `kernel`, of which there is at least one.
    pub fn new(kernel: Kernel, problem: &Problem) -> Self {
        let step = match kernel {
            Kernel::FwdScalar(_) => WARP,
            Kernel::FwdSm80(config) => config.step(),
            Kernel::Decode(config) => config.step(),
        };
        let (q_len, tile_q) = (problem.q_len() as u64, u64::from(kernel.tile_q()));
        let (kv_len, offset) = (problem.kv_len() as i32, limits::causal_offset(problem));
        let tiles = q_len.div_ceil(tile_q);
        let counted = tiles.min(COUNTED_TILES);
        let steps = |tile: u64| {
            let (first, last) = (tile * tile_q, ((tile + 1) * tile_q).min(q_len) - 1);
            kv_steps(first as i32, last as i32, kv_len, offset, step).total
        };
        // The last rows see the most keys; where the first see as many, all do.
        let longest = steps(tiles - 1);
        let average = if steps(0) == longest {
            f64::from(longest)
        } else {
            let sum: u64 = (0..counted).map(|i| u64::from(steps((2 * i + 1) * tiles / (2 * counted)))).sum();
            sum as f64 / counted as f64
        };
        let keys = (average * f64::from(step)).min(f64::from(kv_len));
        Self { average, longest: f64::from(longest), keys }
    }
}
