//! The time of `fwd_sm90` and `fwd_fp8_sm90`: persistent blocks, one on each SM, which take tile after tile.
//!
//! A step is both products by `wgmma` and the exponentials of all scores. Two or three warpgroups take turns, so that the
//! products of one run beside the exponentials of another, but for a part. A tile adds what its first and last products do
//! not hide.
//!
//! Where it says "fitted", it was to times on the H200 of the README, bf16, with the power limit of [`super::rates`]: see
//! docs/PERF.md.

use super::rates::Rates;
use super::schedule::{Rounds, Walk};
use super::step::Step;
use super::{Prediction, START};
use crate::limits;
use crate::problem::Problem;
use evo_sdpa_kernels::config::FwdSm90;

/// Part of the shorter of products and exponentials that the longer one does not hide, with two warpgroups and with
/// more. Fitted.
const EXPOSED: [f64; 2] = [0.70, 0.62];
/// What softmax takes for e4m3 products as a part of its exponentials: conversions and sums are in its way too. Fitted to clocks
/// of head dims 64 and 128.
const E4M3_SOFTMAX: f64 = 1.15;
/// Bytes of values that the kernel ahead of e4m3 products reads and writes in a microsecond. Measured.
const TRANSPOSED: f64 = 3.2e6;
/// What a tile adds to its steps, microseconds: queries to wait for, the first scores, the last product, the output.
/// Fitted.
const TILE: f64 = 1.4;
/// The same where blocks on their own do not have to ask which tile is next. Fitted.
const EQUAL_TILE: f64 = 1.0;
/// From the start of a block to its first tile, beyond that of any block, microseconds: barriers, tensor maps, the first
/// copies. Fitted.
const FIRST_TILE: f64 = 1.0;
/// What a cluster of two blocks adds, which wait for each other at the start and at the end, microseconds. Fitted.
const CLUSTER: f64 = 1.2;
/// The time of a step where two blocks copy keys and values for each other, as a part of that where each does for itself: L2 is
/// read half as often, and the power that this saves goes into the clock. Fitted.
const CLUSTERED: f64 = 0.96;
/// What a tile of a cluster takes beyond its steps, as a part of one, where one of its blocks sees more keys than the other.
/// Fitted.
const UNLIKE: f64 = 0.2;
/// What a step with a mask takes beyond another one, as a part of it; a tile on the diagonal has a step for every `tile_kv`
/// of its rows. Fitted.
const MASKED: f64 = 0.7;

/// What a block of such a kernel does: microseconds of its SM, which it has to itself.
pub struct Persistent {
    /// Tensor cores busy with both products of a step.
    pub tensor: f64,
    exponentials: f64,
    /// A step.
    step: f64,
    /// Steps with a mask in a tile on the diagonal.
    masked: f64,
    /// Whether a kernel ahead of it transposes values that lie in rows.
    transposes: bool,
    /// Blocks of a cluster.
    cluster: u32,
}

impl Persistent {
    /// One step of `config`, at these rates.
    pub fn new(config: FwdSm90, rates: &Rates) -> Self {
        let [rows, keys, columns] = [config.tile_q, config.tile_kv, config.head_dim].map(f64::from);
        // Operands of half the size, products at twice the rate.
        let rate = rates.wgmma * 2.0 / f64::from(config.operand_bytes());
        let tensor = 4.0 * rows * keys * columns / rate / rates.clock;
        let softmax = if config.e4m3 { E4M3_SOFTMAX } else { 1.0 };
        let exponentials = softmax * rows * keys / rates.exponentials / rates.clock;
        let exposed = EXPOSED[usize::from(config.groups() > 2)];
        let clustered = if config.is_alone() { 1.0 } else { CLUSTERED };
        let step = clustered * (tensor.max(exponentials) + exposed * tensor.min(exponentials));
        Self { tensor, exponentials, step, masked: rows / keys, transposes: config.e4m3, cluster: config.cluster }
    }

    /// Tiles of a head of `tiles`, with those that fill up a cluster.
    pub fn tiles(&self, tiles: u32, problem: &Problem) -> u32 {
        tiles.next_multiple_of(self.rows_together(problem))
    }

    /// Tiles of a head that a cluster takes together.
    fn rows_together(&self, problem: &Problem) -> u32 {
        self.cluster / limits::heads_together(self.cluster, problem)
    }

    /// The time of the kernel ahead of values in rows, if there is one, which moves so many bytes, where an empty one
    /// takes `launch`.
    pub fn transpose(&self, launch: f64, bytes: f64) -> f64 {
        if self.transposes { launch + bytes / TRANSPOSED } else { 0.0 }
    }

    /// The tiles, one for each of `rounds`, at full clock.
    #[inline]
    pub fn terms(
        &self,
        launch: f64,
        transpose: f64,
        rounds: &Rounds,
        walk: &Walk,
        problem: &Problem,
        sm_count: f64,
    ) -> Prediction {
        // Tiles of one length end in rounds. Unequal ones come longest first, and SMs get equal shares, if not less than a
        // whole tile.
        let unequal = walk.longest > walk.average;
        let (tiles, masked) =
            if unequal { (rounds.blocks / sm_count, MASKED * self.masked) } else { (rounds.per_sm, 0.0) };
        let unlike = if unequal && self.rows_together(problem) > 1 { UNLIKE } else { 0.0 };
        let steps = tiles * (walk.average + masked + unlike) * self.step;
        let cluster = if self.cluster > 1 { CLUSTER } else { 0.0 };
        let tile = if self.cluster > 1 || limits::shares_out(problem) { TILE } else { EQUAL_TILE };
        Prediction {
            launch,
            transpose,
            start: START + FIRST_TILE + cluster + tiles.max(1.0) * tile,
            steps,
            tail: (walk.longest * self.step - steps).max(0.0),
            step: Some(self.one_step()),
            bound: (walk.longest > 0.0).then(|| self.one_step().bound()),
            ..Prediction::default()
        }
    }

    fn one_step(&self) -> Step {
        let Self { tensor, exponentials, step, .. } = *self;
        Step { blocks: 1, tensor, exponentials, shared: 0.0, together: step, alone: step }
    }
}
