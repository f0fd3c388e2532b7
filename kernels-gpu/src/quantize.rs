//! `token_sums`, `token_mean`, `amax` and `quantize`: tensors become e4m3 with scales of blocks of rows. What the host
//! and the kernels must agree on.
//!
//! A launch has up to three tensors, in a grid along x: first the blocks of the first one. A unit is the rows that a
//! block of threads rounds, 64 or 128 of one head. Where a scale has one unit, `quantize` finds its magnitude itself.
//! Else `amax` comes before it: units of a scale are in parts, each of which leaves its largest magnitude in a place of
//! its own, so that nothing has to be zero beforehand.
//!
//! A tensor may be left transposed, its rows next to each other in the order of [`Transpose::key`].

use crate::config::{DType, WARP};
use crate::params::{Strides, quotient};
use crate::transpose::Transpose;

/// `amax` finds largest magnitudes, `quantize` rounds to e4m3, `token_sums` adds tokens up; all of them of inputs of
/// one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantize {
    /// Type of the input.
    pub dtype: DType,
}

impl Quantize {
    /// Tensors of a launch: queries, keys and values.
    pub const TENSORS: usize = 3;

    /// Least and most rows of a unit.
    pub const UNIT_ROWS: [u32; 2] = [64, 128];

    /// Rows of a unit that is left transposed: the last one of a head fills its rows.
    pub const TRANSPOSED_UNIT_ROWS: u32 = Transpose::ROW_KEYS;

    /// Most columns of a tensor that is left transposed: each warp of a block has a patch of its own.
    pub const TRANSPOSED_HEAD_DIM: u32 =
        Self::THREADS / WARP * Transpose::PATCH_KEYS / Self::TRANSPOSED_UNIT_ROWS * Transpose::PATCH_COLUMNS;

    /// Threads of a block.
    pub const THREADS: u32 = 256;

    /// Elements that a thread rounds at a time: 16 bytes of e4m3.
    pub const ELEMENTS: u32 = 16;

    /// Most parts of a scale: a thread of `quantize` looks at one.
    pub const MAX_PARTS: u32 = Self::THREADS;

    /// Dynamic shared memory of a block, bytes: the largest magnitude of each warp.
    pub const SHARED_BYTES: u32 = 32;

    /// Registers a thread may use: four blocks share an SM.
    pub const fn register_budget(self) -> u32 {
        64
    }
}

/// One tensor \[batch, heads, rows, head_dim\] of a launch.
///
/// Units are counted through: those of a head follow those of the head before. A scale has `units_of_scale` of them,
/// whole heads or equal parts of one; the last units of a head may have no rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizedTensor {
    /// The input.
    pub input: u64,
    /// The output in e4m3, contiguous; where `transposed` is set \[batch, heads, head_dim, [`Transpose::row_bytes`]\],
    /// with zeros behind the last row.
    pub output: u64,
    /// The scales in their order, f32.
    pub scales: u64,
    /// f32 \[scales, parts\]: what `amax` found; 0 where `quantize` finds it.
    pub amax: u64,
    /// What is subtracted from every row, f32 \[batch, heads, head_dim\] contiguous; 0 for nothing.
    pub mean: u64,
    /// Number of valid rows of each sequence, 32-bit \[batch\]; 0 when every row is valid. Others become zeros.
    pub lens: u64,
    /// Strides of the input.
    pub stride: Strides,
    /// Rows of a head.
    pub rows: u32,
    /// Heads of a sequence.
    pub heads: u32,
    /// Columns, a multiple of [`Quantize::ELEMENTS`].
    pub head_dim: u32,
    /// Units of all heads: blocks of `quantize`.
    pub units: u32,
    /// Rows of a unit.
    pub unit_rows: u32,
    /// Units of a head.
    pub units_of_head: u32,
    /// Units with one scale.
    pub units_of_scale: u32,
    /// Units of a part but the last.
    pub units_of_part: u32,
    /// Parts of a scale, at most [`Quantize::MAX_PARTS`].
    pub parts: u32,
    /// Parts of all scales: blocks of `amax`; 0 where `quantize` finds the magnitudes.
    pub all_parts: u32,
    /// 1 where the output is transposed, with units of [`Quantize::TRANSPOSED_UNIT_ROWS`], at most
    /// [`Quantize::TRANSPOSED_HEAD_DIM`] columns and no `mean`; else 0.
    pub transposed: u32,
}

/// Parameters of `amax` and `quantize`, passed by value (`.param` space), 8-byte aligned. A tensor that is not there
/// has no units.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizeParams {
    /// The tensors.
    pub tensors: [QuantizedTensor; Quantize::TENSORS],
}

/// How the tokens of a head are in parts, whose sums `token_sums` leaves for `token_mean`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenParts {}

impl TokenParts {
    /// The name of `token_mean`.
    pub const MEAN_NAME: &str = "token_mean";

    /// Threads of a block of either kernel.
    pub const THREADS: u32 = 256;

    /// Most parts of a head.
    pub const MAX: u32 = 64;

    /// Least rows of a part.
    pub const MIN_ROWS: u32 = 32;

    /// Rows of a part, the last one may have fewer, of a head of `rows` rows, below 2^31: the least power of two from
    /// [`TokenParts::MIN_ROWS`] with which there are at most [`TokenParts::MAX`] parts.
    pub const fn rows(rows: u32) -> u32 {
        let least = rows.div_ceil(Self::MAX).next_power_of_two();
        if least < Self::MIN_ROWS { Self::MIN_ROWS } else { least }
    }

    /// Registers that a thread may use.
    pub const REGISTER_BUDGET: u32 = 64;
}

/// Parameters of `token_sums` and `token_mean`, passed by value (`.param` space), 8-byte aligned.
///
/// The mean of a column, all in f32: numbers that are not finite count as 0; the tokens of a part are added to 0 in
/// their order, the sums of the parts to 0 in theirs, and that is divided by the number of valid tokens. 0 where there
/// are none, or where the mean would not be finite.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenMeanParams {
    /// The input, \[batch, heads, rows, head_dim\].
    pub input: u64,
    /// Number of valid rows of each sequence, 32-bit \[batch\]; 0 when every row is valid.
    pub lens: u64,
    /// Sums of the parts, f32 \[batch, heads, parts, head_dim\] contiguous.
    pub sums: u64,
    /// The mean, f32 \[batch, heads, head_dim\] contiguous.
    pub mean: u64,
    /// Strides of the input.
    pub stride: Strides,
    /// Rows of a head.
    pub rows: u32,
    /// Heads of a sequence.
    pub heads: u32,
    /// Heads of all sequences.
    pub all_heads: u32,
    /// Columns, an even number.
    pub head_dim: u32,
    /// Rows of a part: see [`TokenParts::rows`].
    pub part_rows: u32,
    /// Parts of a head.
    pub parts: u32,
    /// Fills the struct.
    pub pad: u32,
}

impl TokenMeanParams {
    /// Threads that `token_sums` needs for inputs of this type: each adds up a 32-bit word of the rows of a part.
    pub const fn sum_threads(&self, dtype: DType) -> u64 {
        self.all_heads as u64 * self.parts as u64 * self.words(dtype) as u64
    }

    /// Threads that `token_mean` needs.
    pub const fn mean_threads(&self) -> u64 {
        self.all_heads as u64 * self.head_dim as u64
    }

    /// 32-bit words of a row.
    #[inline(always)]
    pub const fn words(&self, dtype: DType) -> u32 {
        quotient(self.head_dim * dtype.size(), 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn parameter_blocks_have_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<QuantizedTensor>(), align_of::<QuantizedTensor>()), (104, 8));
        assert_eq!(size_of::<QuantizeParams>(), 3 * 104);
        assert_eq!((offset_of!(QuantizedTensor, amax), offset_of!(QuantizedTensor, rows)), (24, 60));
        assert_eq!(offset_of!(QuantizedTensor, transposed), 100);
        assert_eq!((size_of::<TokenMeanParams>(), align_of::<TokenMeanParams>()), (72, 8));
        assert_eq!(offset_of!(TokenMeanParams, rows), 44);
    }

    #[test]
    fn parts_of_tokens_are_powers_of_two_and_few() {
        for (rows, of_part) in [(0, 32), (1, 32), (2048, 32), (2049, 64), (4096, 64), (100_000, 2048)] {
            assert_eq!(TokenParts::rows(rows), of_part, "{rows}");
            assert!(rows.div_ceil(of_part) <= TokenParts::MAX);
        }
    }
}
