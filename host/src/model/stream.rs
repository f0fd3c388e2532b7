//! The time of `decode`: keys and values on their way from memory, and little else.
//!
//! A warp takes its tiles one after the other. However fast memory is, a tile takes the latency of its products,
//! shuffles and exponentials, and the warps of an SM share its issue slots. However fast warps are, an SM has no more
//! bytes on their way than its stages hold. The launch as a whole takes at least the time of its bytes.
//!
//! On the H200 of the README, bf16, 32 query heads on 8 key heads of 128 columns, 16 sequences of 8192 keys took 122.1
//! to 123.9 us, one of 32768 took 37.0 to 38.2 us in 16 splits, by kernel, and up to a third more in more splits. What
//! is said to be fitted was fitted to these launches.

use super::rates::Rates;
use super::schedule::{Rounds, Walk};
use super::step::Bound;
use super::{Prediction, START};
use crate::splits::Splits;
use evo_sdpa_kernels::config::{Decode, WARP};
use evo_sdpa_kernels::params::Workspace;

/// A tile of keys from its wait to the next one, of a warp that waits for nobody, clocks: barriers, shuffles and
/// addresses, whatever its size. Fitted with the next one to 512 and 2048 queries a head, whose keys L2 holds.
const TILE_LATENCY: f64 = 500.0;
/// What each key of the tile adds to that, clocks.
const KEY_LATENCY: f64 = 25.0;
/// From the first copy to the first tile, microseconds, of a block that starts. Fitted.
const FIRST_TILE: f64 = 0.4;
/// Instructions of a warp for a tile, beside those for each element of it. Counted in the simulator.
const TILE_INSTRUCTIONS: f64 = 100.0;
/// Elements of a tile for each further instruction of the warp. Counted in the simulator.
const ELEMENTS_PER_INSTRUCTION: f64 = 8.0;
/// Instructions that an SM issues in a clock.
const ISSUE: f64 = 4.0;
/// From the issue of a copy to its bytes from memory under load, microseconds. Assumed.
const MEMORY_LATENCY: f64 = 0.8;
/// What a block loses while memory keeps it waiting goes with the reciprocal of the bytes that it has on their way:
/// microseconds for one byte. Fitted.
const STALL: f64 = 120e3;
/// The merge of the warps of a block, and its stores, microseconds. Assumed.
const MERGE: f64 = 0.6;
/// The merge of the blocks, but for the partial results that the last of them reads: partial results to memory, the
/// ticket, the first partial result. Microseconds, fitted.
const COMBINE: f64 = 3.1;

/// What a block of a `decode` kernel does: microseconds of its SM.
pub struct Stream {
    /// The kernel.
    pub config: Decode,
    /// One tile of every warp, of a block that is alone.
    alone: f64,
    /// The same where the block shares its SM: issue slots, or the way from L2.
    shared: f64,
    /// What it waits for memory beyond the time of all bytes.
    pub stall: f64,
    /// Bytes of the partial result of a split.
    pub partial_bytes: f64,
    /// A read of that, by one SM.
    partial: f64,
}

impl Stream {
    /// A block of `config`, at these rates.
    pub fn new(config: Decode, rates: &Rates) -> Self {
        let warps = f64::from(config.threads() / WARP);
        let elements = f64::from(config.tile_kv * config.head_dim);
        let instructions = warps * (TILE_INSTRUCTIONS + elements / ELEMENTS_PER_INSTRUCTION);
        let bytes = 2.0 * warps * elements * f64::from(config.dtype.size());
        let stages = f64::from(config.stages);
        let workspace = Workspace { splits: 1, rows: Decode::ROWS, head_dim: config.head_dim };
        let partial_bytes = f64::from(workspace.partial_bytes());
        Self {
            config,
            alone: ((TILE_LATENCY + KEY_LATENCY * f64::from(config.tile_kv)) / rates.clock)
                .max(MEMORY_LATENCY / stages),
            shared: (instructions / ISSUE).max(bytes / rates.copy) / rates.clock,
            stall: STALL / (stages * bytes),
            partial_bytes,
            partial: partial_bytes / (rates.copy * rates.clock),
        }
    }

    /// The blocks as if memory had any rate.
    #[inline]
    pub fn terms(&self, launch: f64, splits: &Splits, rounds: &Rounds, walk: &Walk) -> Prediction {
        let tiles = |walked: f64| walked.min(f64::from(splits.keys / self.config.step()));
        let steps = tiles(walk.average) * rounds.time(|blocks| self.alone.max(blocks * self.shared));
        let combine = if splits.count > 1 { COMBINE + f64::from(splits.count) * self.partial } else { 0.0 };
        Prediction {
            launch,
            start: rounds.time(|_| START + FIRST_TILE),
            steps,
            tail: (tiles(walk.longest) * self.alone - steps).max(0.0),
            merge: rounds.time(|_| MERGE) + combine,
            bound: Some(Bound::Latency),
            ..Prediction::default()
        }
    }
}
