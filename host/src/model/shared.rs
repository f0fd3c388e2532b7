//! The time of `fwd_sm80` whose blocks share keys: which number of parts is the fastest.
//!
//! More blocks of fewer steps leave SMs less to wait for each other at the end. What they cost is the merge: every block
//! writes its partial result and takes a ticket, and the last one of a tile reads those of all, one after the other.
//!
//! On the H200 of the README, bf16, 8 heads, 64 queries and 16384 keys of 64 columns took 157.2 us in one part, 25.5 in 8,
//! 19.4 in 16 and 23.8 in 32; 128 queries and 16384 keys of 128 columns 337 us in one, 55.4 in 8, 44.2 in 16 and 59.4 in
//! 32. What is said to be fitted was fitted to these launches.

use super::Prediction;
use super::rates::Rates;
use super::schedule::{Rounds, Walk};
use super::step::Work;
use evo_sdpa_kernels::config::FwdSm80;
use evo_sdpa_kernels::params::Workspace;

/// The merge of the blocks, but for reads and writes of partial results: barriers and the ticket. Microseconds, fitted.
const TICKET: f64 = 1.0;
/// What the last block takes for a part: statistics, then outputs, each a way to L2 and back. Clocks, fitted.
const PART_LATENCY: f64 = 800.0;

/// What a block of such a kernel does.
pub struct Shared {
    /// The kernel.
    pub config: FwdSm80,
    /// Its steps.
    pub work: Work,
    /// Bytes of the partial result of a block.
    pub partial_bytes: f64,
    /// A write of that, by one SM, microseconds.
    write: f64,
    /// What the last block takes to read that of one part, microseconds.
    read: f64,
}

impl Shared {
    /// A block of `config`, at these rates.
    pub fn new(config: FwdSm80, rates: &Rates) -> Self {
        let workspace = Workspace { splits: 1, rows: config.tile_q, head_dim: config.head_dim };
        let partial_bytes = f64::from(workspace.partial_bytes());
        Self {
            config,
            work: Work::new(config, rates),
            partial_bytes,
            write: partial_bytes / (rates.copy * rates.clock),
            read: PART_LATENCY / rates.clock,
        }
    }

    /// What `blocks` of an SM take for the steps and the merge of so many parts of `steps` steps.
    #[inline]
    pub fn steps_and_merge(&self, parts: f64, blocks: f64, steps: f64) -> f64 {
        steps / parts * self.work.step(blocks).total() + parts * self.read + blocks * self.write
    }

    /// The blocks at full clock, `parts` of them for each tile of rows.
    #[inline]
    pub fn terms(&self, launch: f64, parts: u32, rounds: &Rounds, walk: &Walk) -> Prediction {
        // A head comes after the other.
        let terms = Prediction::sm80(launch, &self.work, rounds, walk, false);
        let combine = TICKET + rounds.per_sm * self.write + f64::from(parts) * self.read;
        Prediction { merge: terms.merge + if parts > 1 { combine } else { 0.0 }, ..terms }
    }
}
