//! `transpose_e4m3`: values with their keys next to each other, as `wgmma` wants operands of 8 bits. What the host and the
//! kernel must agree on, and `quantize`, which can leave values so.
//!
//! A row of the output is a column of the values. Sixteen keys in it lie as the products of queries and keys leave their
//! probabilities in the lanes of a warp: byte `4 t + i` is key `2 t + i % 2 + 8 (i / 2)`.

use crate::config::WARP;
use crate::params::Strides;

/// `transpose_e4m3`. A thread turns four columns of sixteen keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transpose {}

impl Transpose {
    /// Its name.
    pub const NAME: &str = "transpose_e4m3";

    /// Threads of a block.
    pub const THREADS: u32 = 256;

    /// Keys that a thread turns.
    pub const KEYS: u32 = 16;

    /// Columns that a thread turns.
    pub const COLUMNS: u32 = 4;

    /// Keys of an output row are a multiple of it, zeros behind the last one: what a step of `fwd_fp8_sm90` takes.
    pub const ROW_KEYS: u32 = 128;

    /// Registers a thread may use: four blocks share an SM.
    pub const REGISTER_BUDGET: u32 = 64;

    /// Bytes of an output row for `keys` keys.
    pub const fn row_bytes(keys: u32) -> u32 {
        keys.next_multiple_of(Self::ROW_KEYS)
    }

    /// Keys of a warp.
    pub const PATCH_KEYS: u32 = 4 * Self::KEYS;

    /// Columns of a warp.
    pub const PATCH_COLUMNS: u32 = 8 * Self::COLUMNS;

    /// Warps side by side in a row.
    pub const fn patches(head_dim: u32) -> u32 {
        head_dim.div_ceil(Self::PATCH_COLUMNS)
    }

    /// Blocks of a head: warps beyond its last key have nothing to do.
    pub const fn blocks(params: &TransposeParams) -> u32 {
        let warps = Self::row_bytes(params.keys) / Self::PATCH_KEYS * Self::patches(params.head_dim);
        warps.div_ceil(Self::THREADS / WARP)
    }

    /// The key whose value is byte `byte` of sixteen.
    pub const fn key(byte: u32) -> u32 {
        byte / 4 * 2 + byte % 2 + byte / 2 % 2 * 8
    }
}

/// Parameters of `transpose_e4m3`, passed by value (`.param` space), 8-byte aligned. The grid is [`Transpose::blocks`],
/// heads, and sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransposeParams {
    /// Values, e4m3 \[batch, heads, keys, head_dim\].
    pub input: u64,
    /// The output, e4m3 \[batch, heads, head_dim, [`Transpose::row_bytes`]\] contiguous.
    pub output: u64,
    /// Number of valid keys of each sequence, 32-bit \[batch\]; 0 when every key is valid. Others become zeros, whatever
    /// their values are.
    pub lens: u64,
    /// Strides of the values.
    pub input_stride: Strides,
    /// Keys of a head.
    pub keys: u32,
    /// Heads of a sequence.
    pub heads: u32,
    /// Columns, a multiple of 16.
    pub head_dim: u32,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::mem::{align_of, offset_of, size_of};
    use std::vec::Vec;

    #[test]
    fn parameter_block_has_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<TransposeParams>(), align_of::<TransposeParams>()), (48, 8));
        assert_eq!(offset_of!(TransposeParams, keys), 36);
    }

    #[test]
    fn bytes_are_in_the_order_of_the_probabilities_of_a_lane() {
        // Lane t of four has the keys 2t, 2t + 1 of each eight, and its operand is a word of four.
        let of_word = |word: u32| (4 * word..4 * word + 4).map(Transpose::key).collect::<Vec<_>>();
        assert_eq!(of_word(0), [0, 1, 8, 9]);
        assert_eq!(of_word(3), [6, 7, 14, 15]);
        let mut keys: Vec<_> = (0..16).map(Transpose::key).collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..16));
    }
}
