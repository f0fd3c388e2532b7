//! What ships besides attention kernels, and all of it under one type: entry points of the PTX text.

use crate::config::{DType, Kernel, WARP, blocks_by_registers};
use crate::merge::MergeStates;
use crate::quantize::{Quantize, TokenParts};
use crate::transpose::Transpose;

/// `mma_rate`: `mma.sync` m16n8k16 with f32 accumulation, from registers to registers and nothing else. Its rate is a
/// ceiling for kernels that use the instruction.
///
/// Parameters: the address `out` (u64) of one f32 for each thread of the grid, and `iterations` (u32). A lane's operands
/// are `r = lane / 4 + 1` times 1, 2, 3 and 4 in the registers of A, times 5 and 6 in those of B; a thread stores the
/// sum of its accumulators, which begin with the number of their chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmaRate {
    /// Type of the operands: [`DType::F16`] or [`DType::Bf16`].
    pub dtype: DType,
}

impl MmaRate {
    /// Threads of a block.
    pub const THREADS: u32 = 256;

    /// Accumulator fragments of a warp. An instruction waits for the one before it on the same fragment; with four
    /// warps on each scheduler, eight fragments hide that.
    pub const CHAINS: u32 = 8;

    /// Registers a thread may use: two blocks, which are four warps on each scheduler, fit an SM.
    pub const fn register_budget(self) -> u32 {
        128
    }

    /// Multiplications and additions that a grid of `blocks` carries out.
    pub const fn flops(blocks: u32, iterations: u32) -> u64 {
        let products = 16 * 8 * 16;
        let instructions = (blocks * Self::THREADS / WARP) as u64 * Self::CHAINS as u64 * iterations as u64;
        instructions * 2 * products
    }
}

/// An entry point that ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// An attention kernel.
    Forward(Kernel),
    /// Two attention results become one.
    MergeStates(MergeStates),
    /// What the matrix units can do at most.
    MmaRate(MmaRate),
    /// Sums of parts of the tokens of each head.
    TokenSums(Quantize),
    /// The mean of the tokens of each head, from these sums.
    TokenMean,
    /// The largest magnitudes of tensors.
    Amax(Quantize),
    /// Tensors in e4m3.
    Quantize(Quantize),
    /// Values in e4m3 with their keys next to each other.
    Transpose,
}

impl Entry {
    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        match self {
            Entry::Forward(kernel) => kernel.threads(),
            Entry::MergeStates(_) => MergeStates::THREADS,
            Entry::MmaRate(_) => MmaRate::THREADS,
            Entry::TokenSums(_) | Entry::TokenMean => TokenParts::THREADS,
            Entry::Amax(_) | Entry::Quantize(_) => Quantize::THREADS,
            Entry::Transpose => Transpose::THREADS,
        }
    }

    /// Dynamic shared memory of a block, bytes.
    pub const fn shared_bytes(self) -> u32 {
        match self {
            Entry::Forward(kernel) => kernel.shared_bytes(),
            Entry::MergeStates(_) | Entry::MmaRate(_) => 0,
            Entry::TokenSums(_) | Entry::TokenMean | Entry::Transpose => 0,
            Entry::Amax(_) | Entry::Quantize(_) => Quantize::SHARED_BYTES,
        }
    }

    /// Registers that a thread may use on sm_89.
    pub const fn register_budget(self) -> u32 {
        match self {
            Entry::Forward(kernel) => kernel.register_budget(),
            Entry::MergeStates(merge) => merge.register_budget(),
            Entry::MmaRate(rate) => rate.register_budget(),
            Entry::TokenMean => TokenParts::REGISTER_BUDGET,
            Entry::TokenSums(config) | Entry::Amax(config) | Entry::Quantize(config) => config.register_budget(),
            Entry::Transpose => Transpose::REGISTER_BUDGET,
        }
    }

    /// Blocks of a cluster along x; 1 for an entry that is not launched in clusters.
    pub const fn cluster(self) -> u32 {
        match self {
            Entry::Forward(Kernel::FwdSm90(config)) => config.cluster,
            _ => 1,
        }
    }

    /// Blocks that fit an SM by the register budget: the `.minnctapersm` of the entry.
    pub const fn min_blocks_per_sm(self) -> u32 {
        blocks_by_registers(self.register_budget(), self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::{ENTRIES, KERNELS};

    #[test]
    fn every_kernel_is_an_entry_point_with_the_same_bounds() {
        for (entry, kernel) in ENTRIES.iter().zip(KERNELS) {
            assert_eq!(*entry, Entry::Forward(*kernel));
            assert_eq!(entry.min_blocks_per_sm(), kernel.min_blocks_per_sm(), "{kernel}");
        }
        assert!(ENTRIES[KERNELS.len()..].iter().all(|entry| !matches!(entry, Entry::Forward(_))));
    }

    #[test]
    fn every_type_of_the_matrix_instruction_has_its_rate_measured_with_four_warps_a_scheduler() {
        for dtype in [DType::F16, DType::Bf16] {
            let entry = Entry::MmaRate(MmaRate { dtype });
            assert!(ENTRIES.contains(&entry), "{entry}");
            assert_eq!(entry.min_blocks_per_sm() * entry.threads() / WARP, 4 * 4, "{entry}");
        }
    }

    #[test]
    fn every_type_has_its_merge_and_merges_fill_an_sm_with_threads() {
        for dtype in DType::ALL {
            let entry = Entry::MergeStates(MergeStates { dtype });
            assert!(ENTRIES.contains(&entry), "{entry}");
            // An SM of sm_89 holds 1536 threads.
            assert_eq!(entry.min_blocks_per_sm() * entry.threads(), 1536, "{entry}");
        }
    }

    #[test]
    fn operations_are_those_of_the_instructions() {
        // One block, 8 warps, 8 chains, 3 iterations; 2048 products each.
        assert_eq!(MmaRate::flops(1, 3), 8 * 8 * 3 * 2 * 2048);
        assert_eq!(MmaRate::flops(264, 1 << 14), 264 * 64 * 16384 * 4096);
    }
}
