//! `amax` and `quantize`: tensors become e4m3 with scales of blocks of rows. What the host and the kernels must agree on.

use crate::config::DType;
use crate::params::{Scales, Strides};

/// `amax` finds the largest magnitude of each block with one scale, `quantize` rounds to e4m3. A block of threads has
/// [`Quantize::ROWS`] rows.
///
/// Where a scale has as many rows, `quantize` finds the magnitude itself; else `amax` comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantize {
    /// Type of the input.
    pub dtype: DType,
}

impl Quantize {
    /// Rows of a block of threads: fewer have no scale of their own.
    pub const ROWS: u32 = 64;

    /// Threads of a block.
    pub const THREADS: u32 = 256;

    /// Elements that a thread rounds at a time: 16 bytes of e4m3.
    pub const ELEMENTS: u32 = 16;

    /// Dynamic shared memory of a block, bytes: the largest magnitude of each warp.
    pub const SHARED_BYTES: u32 = 32;

    /// Registers a thread may use: four blocks share an SM.
    pub const fn register_budget(self) -> u32 {
        64
    }
}

/// Parameters of `amax` and `quantize`, passed by value (`.param` space), 8-byte aligned.
///
/// Tensors have the axes \[batch, heads, seq, head_dim\]. The grid is groups of [`Quantize::ROWS`] rows, heads, and
/// sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizeParams {
    /// The input.
    pub input: u64,
    /// The output in e4m3.
    pub output: u64,
    /// Scales to write, and which rows share one.
    pub scales: Scales,
    /// Where the largest magnitudes are, as the bits of an f32 and like the scales, zero before `amax`; 0 where `quantize`
    /// finds them, and every [`Quantize::ROWS`] rows have a scale.
    pub amax: u64,
    /// What is subtracted from every row, f32 \[batch, heads, head_dim\] contiguous; 0 for nothing.
    pub mean: u64,
    /// Number of valid rows of each sequence, 32-bit \[batch\]; 0 when every row is valid. Others become zeros.
    pub lens: u64,
    /// Strides of the input.
    pub input_stride: Strides,
    /// Strides of the output.
    pub output_stride: Strides,
    /// Rows of a head.
    pub rows: u32,
    /// Heads of a sequence.
    pub heads: u32,
    /// Columns, a multiple of [`Quantize::ELEMENTS`].
    pub head_dim: u32,
    /// Fills the struct.
    pub pad: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn parameter_block_has_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<QuantizeParams>(), align_of::<QuantizeParams>()), (104, 8));
        assert_eq!(offset_of!(QuantizeParams, amax), 40);
        assert_eq!(offset_of!(QuantizeParams, rows), 88);
    }
}
