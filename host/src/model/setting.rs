//! What a launch meets whatever its kernel: the problem and the device, once for all kernels that are compared.

use super::rates::Rates;
use super::schedule::{Rounds, Walk};
use super::shared::Shared;
use super::step::Bound;
use super::stream::Stream;
use super::table::{Pace, Row};
use super::{Prediction, START};
use crate::device::DeviceSpec;
use crate::grid;
use crate::limits;
use crate::problem::Problem;
use crate::splits::{SplitReason, Splits};
use crate::value_layout::ValueLayout;
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::params::Workspace;

/// A problem, validated, on a device.
pub(crate) struct Setting<'a> {
    problem: &'a Problem,
    device: &'a DeviceSpec,
    pub(super) rates: Rates,
    pub(super) sm_count: f64,
    pub(super) q_len: u32,
    pub(super) kv_len: i32,
    pub(super) causal_offset: i32,
    /// Query heads of all sequences.
    pub(super) slices: f64,
    /// Key heads of all sequences.
    kv_slices: f64,
    /// Tiles of the query rows that share a key head, of all key heads and sequences.
    row_tiles: u64,
    /// Bytes of queries and output.
    q_out: f64,
    /// Bytes of one key and its value.
    key: f64,
    /// Groups of heads that blocks may take side by side.
    groups: Option<u32>,
    /// Microseconds that the tensors take from DRAM, each of them once.
    dram: f64,
}

impl<'a> Setting<'a> {
    /// At the device's own rates.
    pub(crate) fn new(problem: &'a Problem, device: &'a DeviceSpec) -> Self {
        Self::with_rates(problem, device, Rates::of(device))
    }

    pub(super) fn with_rates(problem: &'a Problem, device: &'a DeviceSpec, rates: Rates) -> Self {
        let input = f64::from(problem.input_bytes());
        let q_out =
            problem.q.elements() as f64 * input + problem.out.elements() as f64 * f64::from(problem.dtype.size());
        let tensors = problem.bytes();
        Self {
            problem,
            device,
            rates,
            sm_count: device.sm_count.max(1).into(),
            q_len: problem.q_len() as u32,
            kv_len: problem.kv_len() as i32,
            causal_offset: limits::causal_offset(problem),
            slices: problem.heads_q() as f64 * problem.batch() as f64,
            kv_slices: problem.heads_kv() as f64 * problem.batch() as f64,
            row_tiles: limits::row_tiles_of_all_heads(problem),
            q_out,
            key: 2.0 * problem.head_dim() as f64 * input,
            groups: grid::groups_of_heads(problem, &rates),
            // Launches back to back find in L2 what fits there.
            dram: if tensors > rates.l2_capacity { tensors / rates.dram } else { 0.0 },
        }
    }

    /// The kernels that take the problem on the device, in the order of the table.
    pub(crate) fn takers(&self) -> impl Iterator<Item = &'static Row> {
        let rows = Row::of(Rates::family(self.device), self.problem);
        rows.iter().filter(|row| limits::takes_valid(&row.kernel, self.problem, self.device))
    }

    /// Blocks of a kernel that one SM holds at a time.
    pub(crate) fn resident(&self, row: &Row) -> u32 {
        row.blocks_by_registers.min(row.shared.quotient(self.device.shared_per_sm)).max(1)
    }

    /// The prediction for a kernel that takes the problem.
    pub(crate) fn predict(&self, row: &Row) -> Prediction {
        self.at_full_clock(row).throttled()
    }

    /// The prediction for a kernel that takes the problem, before what power and memory add.
    #[inline]
    pub(crate) fn at_full_clock(&self, row: &Row) -> FullClock {
        if self.q_len == 0 || self.slices == 0.0 {
            return FullClock {
                terms: Prediction::default(),
                busy: 0.0,
                sustained: 1.0,
                floor: 0.0,
                memory: Bound::L2,
            };
        }
        let walk = Walk::new(row, self);
        let rounds = |blocks| Rounds::new(blocks, self.resident(row), self.sm_count);
        let query_blocks = || rounds(f64::from(row.tile_q.quotient_up(self.q_len)) * self.slices);
        let launch = self.rates.launch;
        let (rounds, terms, tensor, sustained) = match &row.pace {
            Pace::Scalar(step) => {
                let rounds = query_blocks();
                (rounds, Prediction::scalar(launch, *step, &rounds, &walk), 0.0, 1.0)
            }
            Pace::Sm80(work) => {
                let rounds = query_blocks();
                let tiles = row.tile_q.quotient_up(self.q_len);
                let groups = grid::side_by_side(self.groups, tiles, rounds.blocks as u64, self.device.sm_count);
                let terms = Prediction::sm80(launch, work, &rounds, &walk, groups.is_some());
                (rounds, terms, work.tensor, self.rates.sustained)
            }
            Pace::Persistent(persistent) => {
                let tiles = persistent.tiles(row.tile_q.quotient_up(self.q_len), self.problem);
                let rounds = rounds(f64::from(tiles) * self.slices);
                let transpose = match self.problem.value_layout {
                    // Keys and values are as many bytes as values there and back.
                    ValueLayout::Rows => {
                        persistent.transpose(launch, self.kv_slices * f64::from(self.kv_len) * self.key)
                    }
                    ValueLayout::Transposed | ValueLayout::Planned => 0.0,
                };
                let terms = persistent.terms(launch, transpose, &rounds, &walk, self.problem, self.sm_count);
                (rounds, terms, persistent.tensor, self.rates.wgmma_sustained)
            }
            Pace::Shared(shared) => return self.shared(shared, row, &walk).1,
            Pace::Decode(stream) => {
                let splits = Splits::planned(stream.config, self.kv_len as u32, self.row_tiles, self.device.sm_count);
                let rounds = rounds(self.row_tiles as f64 * f64::from(splits.count));
                return self.stream(stream, &splits, &rounds, &walk);
            }
        };
        let (floor, memory) = self.memory_floor(&rounds, &walk);
        let busy = rounds.blocks * walk.average * tensor / self.sm_count;
        FullClock { terms, busy, sustained, floor, memory }
    }

    /// How a kernel whose blocks share keys splits them.
    pub(crate) fn splits(&self, kernel: Kernel) -> Option<Splits> {
        if self.q_len == 0 || self.slices == 0.0 {
            return None;
        }
        let rows = Row::of(Rates::family(self.device), self.problem);
        let row = rows.iter().find(|row| row.kernel == kernel)?;
        match &row.pace {
            Pace::Shared(shared) => Some(self.shared(shared, row, &Walk::new(row, self)).0),
            _ => None,
        }
    }

    /// The prediction for `fwd_sm80` whose blocks share keys, with the number of parts that takes the least time: one, or
    /// the most with which no SM has more than so many blocks, for as many as fit.
    #[inline]
    fn shared(&self, shared: &Shared, row: &Row, walk: &Walk) -> (Splits, FullClock) {
        let tiles = f64::from(row.tile_q.quotient_up(self.q_len)) * self.slices;
        let most = self.resident(row);
        let (mut best, mut least) = (1, f64::INFINITY);
        if tiles <= f64::from(Workspace::MAX_ROW_TILES) {
            for blocks_per_sm in 1..=most {
                let parts = f64::from(blocks_per_sm) * self.sm_count / tiles;
                let time = shared.steps_and_merge(parts, f64::from(blocks_per_sm), walk.longest);
                if parts >= 2.0 && time < least {
                    (best, least) = (parts as u32, time);
                }
            }
        }
        let whole = self.in_parts(1, shared, row, walk, tiles);
        if best == 1 {
            return whole;
        }
        let other = self.in_parts(best, shared, row, walk, tiles);
        if other.1.least() < whole.1.least() { other } else { whole }
    }

    /// The same with so many parts, or fewer where there are not so many steps, for so many tiles of rows.
    #[inline]
    fn in_parts(&self, parts: u32, shared: &Shared, row: &Row, walk: &Walk, tiles: f64) -> (Splits, FullClock) {
        let splits = Splits::of_count(shared.config.step(), self.kv_len as u32, parts, SplitReason::Predicted);
        let count = f64::from(splits.count);
        let rounds = Rounds::new(tiles * count, self.resident(row), self.sm_count);
        let walk = Walk {
            average: walk.average / count,
            longest: walk.longest.min(f64::from(splits.keys / shared.config.step())),
            keys: walk.keys / count,
        };
        let terms = shared.terms(self.rates.launch, splits.count, &rounds, &walk);
        let partials = partials(&splits, &rounds, shared.partial_bytes);
        let (floor, memory) = self.memory_floor(&rounds, &walk);
        let floor = floor + partials / self.rates.l2;
        let busy = rounds.blocks * walk.average * shared.work.tensor / self.sm_count;
        (splits, FullClock { terms, busy, sustained: self.rates.sustained, floor, memory })
    }

    /// The prediction for `decode`: keys and values once from memory, and from L2 once for each tile of rows.
    #[inline]
    fn stream(&self, stream: &Stream, splits: &Splits, rounds: &Rounds, walk: &Walk) -> FullClock {
        let terms = stream.terms(self.rates.launch, splits, rounds, walk);
        let partials = partials(splits, rounds, stream.partial_bytes);
        let (head, other) = (walk.keys * self.key, self.q_out + partials);
        let l2 = (self.row_tiles as f64 * head + other) / self.rates.l2;
        let tensors = self.kv_slices * head + other;
        let stalls = rounds.count() * stream.stall;
        let dram = if tensors > self.rates.l2_capacity { tensors / self.rates.reads + stalls } else { 0.0 };
        let floor = terms.total() - terms.steps - terms.tail + l2.max(dram);
        let memory = if dram > l2 { Bound::Dram } else { Bound::L2 };
        FullClock { terms, busy: 0.0, sustained: 1.0, floor, memory }
    }

    /// The least time that the bytes of the launch take, and the memory that takes it.
    fn memory_floor(&self, rounds: &Rounds, walk: &Walk) -> (f64, Bound) {
        let l2 = (self.q_out + rounds.blocks * walk.keys * self.key) / self.rates.l2;
        (self.rates.launch + START + l2.max(self.dram), if self.dram > l2 { Bound::Dram } else { Bound::L2 })
    }
}

/// Bytes of the partial results of blocks that share keys, `bytes` each: written by one block, read by another.
fn partials(splits: &Splits, rounds: &Rounds, bytes: f64) -> f64 {
    if splits.count > 1 { 2.0 * rounds.blocks * bytes } else { 0.0 }
}

/// A prediction without the power limit.
pub(crate) struct FullClock {
    terms: Prediction,
    /// Microseconds in which the average SM keeps its tensor cores busy.
    busy: f64,
    /// Share of their rate that they sustain at the power limit.
    sustained: f64,
    /// The least time that the bytes of the launch take, and the memory that takes it.
    floor: f64,
    memory: Bound,
}

impl FullClock {
    /// Microseconds below which the whole prediction does not lie.
    #[inline]
    pub(crate) fn least(&self) -> f64 {
        self.terms.total().max(self.floor)
    }

    /// The whole prediction.
    #[inline]
    pub(crate) fn throttled(self) -> Prediction {
        let activity = self.busy / self.least();
        let Self { terms: mut prediction, sustained, floor, memory, .. } = self;
        if activity > sustained * sustained * sustained {
            let at_work = prediction.total() - prediction.launch - prediction.transpose;
            prediction.power = at_work * (activity.cbrt() / sustained - 1.0);
        }
        prediction.memory = (floor - prediction.total()).max(0.0);
        if prediction.memory > 0.0 {
            prediction.bound = Some(memory);
        }
        prediction
    }
}
