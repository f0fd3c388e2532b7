//! The time of `fwd_sm80` whose blocks share keys: which number of parts is the fastest.
//!
//! More blocks of fewer steps leave SMs less to wait for each other at the end. What they cost is the merge, fitted for
//! `decode` in `stream`: partial results to memory, a ticket, and back. Here the last block has more rows to merge.

use super::Prediction;
use super::rates::Rates;
use super::schedule::{Rounds, Walk};
use super::step::{COPY_LATENCY, Work};
use super::stream::COMBINE;
use evo_sdpa_kernels::config::FwdSm80;
use evo_sdpa_kernels::params::Workspace;
use std::ops::RangeInclusive;

/// Most parts that the planner considers.
const MAX_PARTS: u32 = 8;
/// How often a thread merges eight columns in the launches that [`COMBINE`] was fitted to.
const FITTED_PASSES: f64 = 2.0;

/// What a block of such a kernel does.
pub struct Shared {
    /// The kernel.
    pub config: FwdSm80,
    /// Its steps.
    pub work: Work,
    /// Bytes of the partial result of a block.
    pub partial_bytes: f64,
    /// A read or write of that, by one SM, microseconds.
    partial: f64,
    /// The merge of the blocks, but for these reads and writes, microseconds.
    combine: f64,
}

impl Shared {
    /// A block of `config`, at these rates.
    pub fn new(config: FwdSm80, rates: &Rates) -> Self {
        let workspace = Workspace { splits: 1, rows: config.tile_q, head_dim: config.head_dim };
        let partial_bytes = f64::from(workspace.partial_bytes());
        let partial = partial_bytes / (rates.copy * rates.clock);
        // Each pass waits for statistics, then for columns.
        let passes = f64::from(config.tile_q * config.head_dim / 8) / f64::from(config.threads());
        let combine = COMBINE + 2.0 * (passes - FITTED_PASSES).max(0.0) * COPY_LATENCY / rates.clock;
        Self { config, work: Work::new(config, rates), partial_bytes, partial, combine }
    }

    /// How many parts may be faster than one, for so many tiles of rows whose blocks take `steps` microseconds of steps
    /// on the busiest SM, and `balanced` where all SMs have the same: none where the merge takes more than SMs wait.
    #[inline]
    pub fn parts(&self, row_tiles: f64, steps: f64, balanced: f64) -> RangeInclusive<u32> {
        let pays = steps - balanced > self.combine && row_tiles <= f64::from(Workspace::MAX_ROW_TILES);
        2..=if pays { MAX_PARTS } else { 1 }
    }

    /// The blocks at full clock, `parts` of them for each tile of rows.
    #[inline]
    pub fn terms(&self, launch: f64, parts: u32, rounds: &Rounds, walk: &Walk) -> Prediction {
        // A head comes after the other.
        let terms = Prediction::sm80(launch, &self.work, rounds, walk, false);
        // Every block writes its result; the last block of a tile reads those of all.
        let combine = self.combine + (rounds.per_sm + f64::from(parts)) * self.partial;
        Prediction { merge: terms.merge + if parts > 1 { combine } else { 0.0 }, ..terms }
    }
}
