//! One step of keys: what it asks of the pipes of an SM, and how long it takes.

use super::rates::Rates;
use evo_sdpa_kernels::config::{FwdFp8, FwdSm80};
use std::fmt;

/// Share of the shorter pipes' time that does not hide under the longest pipe, fitted.
const EXPOSED: f64 = 0.65;
/// The same where the product with values lags, of copies as well: that product runs beside the exponentials of the next
/// step, which wait for no maximum, and beside the copies of later ones. Fitted.
const EXPOSED_LAGGING: f64 = 0.35;
/// What barriers, shuffles and the first of each chain of instructions cost a block that is alone, clocks a step. Fitted.
const STEP_LATENCY: f64 = 450.0;
/// From the issue of a copy to its first bytes from L2, clocks. Published for Hopper and Ada: 220 to 340.
const COPY_LATENCY: f64 = 300.0;
/// Bytes of one `ldmatrix.x4`.
const LDMATRIX_BYTES: f64 = 512.0;

/// Microseconds of one step of keys on one SM, at full clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Blocks that take the step together.
    pub blocks: u32,
    /// Tensor cores busy with both products.
    pub tensor: f64,
    /// Exponentials of the softmax.
    pub exponentials: f64,
    /// Shared memory busy with `ldmatrix`.
    pub shared: f64,
    /// What the three take together, overlapping in part, with the copies beside them.
    pub together: f64,
    /// What a block that is alone takes, with its barriers and waits: the least time of a step.
    pub alone: f64,
}

/// What a launch, or a step of it, waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `mma.sync`, or `wgmma`.
    TensorCores,
    /// `ex2`.
    Exponentials,
    /// `ldmatrix`.
    SharedMemory,
    /// What a block that is alone waits for: its own instructions, barriers and copies.
    Latency,
    /// f32 arithmetic on plain cores.
    Arithmetic,
    /// Traffic between L2 and the SMs.
    L2,
    /// Traffic of device memory.
    Dram,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::TensorCores => "tensor cores",
            Bound::Exponentials => "exponentials",
            Bound::SharedMemory => "shared memory",
            Bound::Latency => "latency",
            Bound::Arithmetic => "f32 arithmetic",
            Bound::L2 => "L2 traffic",
            Bound::Dram => "DRAM traffic",
        })
    }
}

impl Step {
    /// The time of the step.
    pub fn total(&self) -> f64 {
        self.together.max(self.alone)
    }

    /// What the step waits for.
    pub fn bound(&self) -> Bound {
        let Self { tensor, exponentials, shared, together, alone, .. } = *self;
        match tensor.max(exponentials).max(shared) {
            longest if alone - together > longest => Bound::Latency,
            longest if longest == tensor => Bound::TensorCores,
            longest if longest == shared => Bound::SharedMemory,
            _ => Bound::Exponentials,
        }
    }

    /// The parts by name, microseconds. The first three overlap in the fourth; the step takes the longer of the fourth
    /// and the fifth.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let Self { tensor, exponentials, shared, together, alone, .. } = *self;
        [
            ("tensor cores", tensor),
            ("exponentials", exponentials),
            ("shared memory", shared),
            ("together", together),
            ("one block alone", alone),
        ]
        .into_iter()
    }
}

/// What one block does in one step: microseconds of its SM, at full clock.
pub struct Work {
    /// Tensor cores busy with both products.
    pub tensor: f64,
    exponentials: f64,
    shared: f64,
    /// The three, overlapping in part, and the copies beside them.
    together: f64,
    /// The step of a block that is alone.
    alone: f64,
    /// The copies that the first step waits for, and the product with values that comes after the last one.
    pub ends: f64,
    /// Two barriers of the merge: written before one, read behind the other.
    merge_latency: f64,
    /// Partial outputs to shared memory and back.
    merge_traffic: f64,
}

impl Work {
    /// One step of `config`, at these rates.
    pub fn new(config: FwdSm80, rates: &Rates) -> Self {
        let q_loads = (config.head_dim / 16 - config.q_steps_in_registers()) * config.row_frags();
        Self::of(config, config.head_dim, rates.tensor, q_loads, rates)
    }

    /// The same of a kernel for e4m3.
    pub fn fp8(config: FwdFp8, rates: &Rates) -> Self {
        let q_loads = (config.key_steps() - config.q_steps_in_registers()) * config.block().row_frags();
        Self::of(config.block(), config.head_dim, rates.fp8, q_loads, rates)
    }

    /// One step of `config` with tiles of `columns` columns, products at `rate` FLOP per SM and clock, and `q_loads` loads
    /// of queries.
    fn of(config: FwdSm80, columns: u32, rate: f64, q_loads: u32, rates: &Rates) -> Self {
        let [rows, keys, columns] = [config.tile_q, config.step(), columns].map(f64::from);
        let tensor = 4.0 * rows * keys * columns / rate;
        let exponentials = rows * keys / rates.exponentials;
        // A warp loads its keys and values, and the queries that it does not keep.
        let loads = f64::from(2 * config.tile_kv * config.row_bytes()) / LDMATRIX_BYTES + f64::from(q_loads);
        let shared = f64::from(config.warps) * loads * LDMATRIX_BYTES / rates.shared;
        let longest = tensor.max(exponentials).max(shared);
        let others = tensor + exponentials + shared - longest;
        let product = tensor.max(shared) / 2.0;
        let copy = f64::from(config.step_bytes()) / rates.copy;
        let first_keys = copy / f64::from(config.key_groups());
        let (busy, first_copy, last_product, wait) = if config.values_lag() {
            // Keys and values of the first step come together.
            (longest + EXPOSED_LAGGING * (others + 2.0 * copy), 2.0 * copy, product, 0.0)
        } else {
            // Keys are copied during the product with values, values during the rest of the step.
            let wait = |copy: f64, meanwhile: f64| (COPY_LATENCY + copy - meanwhile).max(0.0);
            let wait = wait(first_keys, product) + wait(copy, product + exponentials);
            (longest + EXPOSED * others, first_keys, 0.0, wait)
        };
        let queries = f64::from(config.q_bytes()) / rates.copy;
        let (merge_latency, merge_traffic) = match config.kv_splits {
            1 => (0.0, 0.0),
            splits => (2.0 * STEP_LATENCY, 2.0 * f64::from(splits) * rows * columns * 4.0 / rates.shared),
        };
        let time = |clocks: f64| clocks / rates.clock;
        Self {
            tensor: time(tensor),
            exponentials: time(exponentials),
            shared: time(shared),
            together: time(busy),
            alone: time(busy + STEP_LATENCY + wait),
            ends: time(queries + first_copy + last_product),
            merge_latency: time(merge_latency),
            merge_traffic: time(merge_traffic),
        }
    }

    /// A step that `blocks` blocks take together.
    #[inline]
    pub fn step(&self, blocks: f64) -> Step {
        Step {
            blocks: blocks as u32,
            tensor: blocks * self.tensor,
            exponentials: blocks * self.exponentials,
            shared: blocks * self.shared,
            together: blocks * self.together,
            alone: self.alone,
        }
    }

    /// The merge of `blocks` blocks.
    #[inline]
    pub fn merge(&self, blocks: f64) -> f64 {
        self.merge_latency + blocks * self.merge_traffic
    }
}
