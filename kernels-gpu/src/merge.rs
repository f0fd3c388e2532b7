//! `merge_states`: two attention results over disjoint sets of keys become the result over all of them. What the host
//! and the kernel must agree on.

use crate::config::DType;
use crate::params::Strides;

/// `merge_states`: `LANES` lanes walk a row in 16-byte chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergeStates {
    /// Type of both results and of the merged one.
    pub dtype: DType,
}

impl MergeStates {
    /// Lanes that share a row: their chunks fill a line of 128 bytes.
    pub const LANES: u32 = 8;

    /// Rows of a block.
    pub const ROWS: u32 = 16;

    /// Threads of a block.
    pub const THREADS: u32 = Self::LANES * Self::ROWS;

    /// Registers a thread may use: as few as fill an SM of sm_89 with threads, 12 blocks, since loads under way are
    /// what speed depends on.
    pub const fn register_budget(self) -> u32 {
        40
    }
}

/// Parameters of `merge_states`, passed by value (`.param` space), 8-byte aligned.
///
/// Tensors have the axes \[batch, heads, seq, head_dim\], log-sum-exps are f32 \[batch, heads, seq\], contiguous, natural
/// logarithm. The grid is tiles of [`MergeStates::ROWS`] positions, heads, and sequences. The host fills this in from
/// validated layouts; the kernel trusts it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeParams {
    /// The first result.
    pub out_a: u64,
    /// Its log-sum-exp.
    pub lse_a: u64,
    /// The second result.
    pub out_b: u64,
    /// Its log-sum-exp.
    pub lse_b: u64,
    /// The merged result. It may be `out_a` or `out_b`, with the same strides.
    pub out: u64,
    /// The merged log-sum-exp, 0 when not wanted. It may be `lse_a` or `lse_b`.
    pub lse: u64,
    /// Strides of `out_a`.
    pub a_stride: Strides,
    /// Strides of `out_b`.
    pub b_stride: Strides,
    /// Strides of `out`.
    pub out_stride: Strides,
    /// Bytes of a row, a multiple of 16.
    pub row_bytes: u32,
    /// Positions of a sequence.
    pub seq: u32,
    /// Heads of a sequence.
    pub heads: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn parameter_block_has_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<MergeParams>(), align_of::<MergeParams>()), (96, 8));
        assert_eq!(offset_of!(MergeParams, a_stride), 48);
        assert_eq!(offset_of!(MergeParams, row_bytes), 84);
    }
}
