//! What planning needs of each kernel, worked out once, and found by data type and head dim.

use super::divisor::Divisor;
use super::persistent::Persistent;
use super::rates::Rates;
use super::schedule::Ramp;
use super::shared::Shared;
use super::step::Work;
use super::stream::Stream;
use crate::device;
use crate::limits;
use crate::problem::Problem;
use evo_sdpa_kernels::config::{DType, Kernel, MAX_HEAD_DIM, WARP};
use evo_sdpa_kernels::instances::KERNELS;
use std::sync::LazyLock;

/// `fwd_scalar`: four rows and 32 keys, clocks.
const SCALAR_STEP: f64 = 2930.0;
/// Head dims are multiples of this.
const HEAD_DIM_UNIT: usize = 8;
/// How many head dims there are.
const HEAD_DIMS: usize = MAX_HEAD_DIM as usize / HEAD_DIM_UNIT;

/// A kernel, and what follows from it for one family of devices.
pub(crate) struct Row {
    /// The kernel.
    pub(crate) kernel: Kernel,
    /// Where it is in [`KERNELS`].
    pub(crate) index: usize,
    /// Query rows of a block.
    pub(super) tile_q: Divisor,
    /// Keys of a step.
    pub(super) step: Divisor,
    /// Steps under a causal mask.
    pub(super) ramp: Ramp,
    /// Shared memory that a block takes of an SM, bytes.
    pub(super) shared: Divisor,
    /// Blocks that fit an SM by their registers.
    pub(super) blocks_by_registers: u32,
    /// What its time goes with.
    pub(super) pace: Pace,
}

/// What a kernel's time goes with.
pub(super) enum Pace {
    /// Four rows and 32 keys at a time, microseconds.
    Scalar(f64),
    /// Steps of keys.
    Sm80(Work),
    /// The same, where several blocks may share them.
    Shared(Shared),
    /// Steps of keys of tile after tile.
    Persistent(Persistent),
    /// Tiles of keys on their way from memory.
    Decode(Stream),
}

impl Row {
    /// The row of `KERNELS[index]` at these rates of an SM.
    pub(super) fn new(index: usize, rates: &Rates) -> Self {
        let kernel = KERNELS[index];
        let (step, pace) = match kernel {
            Kernel::FwdScalar(_) => (WARP, Pace::Scalar(SCALAR_STEP / rates.clock)),
            Kernel::FwdSm80(config) if config.shares_keys => (config.step(), Pace::Shared(Shared::new(config, rates))),
            Kernel::FwdSm80(config) => (config.step(), Pace::Sm80(Work::new(config, rates))),
            Kernel::FwdFp8(config) => (config.tile_kv, Pace::Sm80(Work::fp8(config, rates))),
            Kernel::FwdSm90(config) => (config.tile_kv, Pace::Persistent(Persistent::new(config, rates))),
            Kernel::Decode(config) => (config.step(), Pace::Decode(Stream::new(config, rates))),
        };
        Self {
            kernel,
            index,
            tile_q: Divisor::new(kernel.tile_q()),
            step: Divisor::new(step),
            ramp: Ramp::new(kernel.tile_q(), step),
            shared: Divisor::new(device::shared_taken(kernel.shared_bytes())),
            blocks_by_registers: kernel.min_blocks_per_sm(),
            pace,
        }
    }

    /// The kernels of a problem's data types and head dim, in the order of [`KERNELS`]. The problem is valid.
    pub(super) fn of(family: usize, problem: &Problem) -> &'static [Self] {
        // Of e4m3 inputs, and of those of the output's type.
        type Cells = [[[Vec<Row>; HEAD_DIMS]; DType::ALL.len()]; 2];
        static TABLE: LazyLock<[Cells; Rates::FAMILIES.len()]> = LazyLock::new(|| {
            Rates::FAMILIES.map(|(_, rates)| {
                [false, true].map(|fp8| {
                    DType::ALL.map(|dtype| {
                        std::array::from_fn(|cell| {
                            let head_dim = (cell + 1) * HEAD_DIM_UNIT;
                            let inputs = |k: &Kernel| k.takes_e4m3() == fp8 && k.dtype() == dtype;
                            let takes = |k: &Kernel| inputs(k) && limits::takes_head_dim(k, head_dim);
                            let indices = (0..KERNELS.len()).filter(|&index| takes(&KERNELS[index]));
                            indices.map(|index| Row::new(index, &rates)).collect()
                        })
                    })
                })
            })
        });
        let cells = &TABLE[family][usize::from(problem.fp8.is_some())][problem.dtype as usize];
        &cells[problem.head_dim().div_ceil(HEAD_DIM_UNIT) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceSpec;
    use crate::fp8::{Fp8, ScaleBlocks};

    #[test]
    fn every_kernel_that_takes_a_problem_is_found_in_the_order_of_the_table() {
        for dtype in DType::ALL {
            for head_dim in (HEAD_DIM_UNIT..=MAX_HEAD_DIM as usize).step_by(HEAD_DIM_UNIT) {
                for fp8 in [None, Some(Fp8::uniform(ScaleBlocks::Head))] {
                    let problem = Problem::contiguous(dtype, [1, 2, 2, 64, 64, head_dim]).with_fp8(fp8);
                    let takes = |kernel: &&Kernel| limits::takes_valid(kernel, &problem, &DeviceSpec::H200);
                    for family in 0..Rates::FAMILIES.len() {
                        let found = Row::of(family, &problem).iter().map(|row| row.kernel);
                        assert!(found.eq(KERNELS.iter().filter(takes).copied()), "{problem}");
                    }
                }
            }
        }
    }
}
