//! `merge_states`: two attention results over disjoint sets of keys become the result over all of them.
//!
//! ```text
//! lse = ln(e^lse_a + e^lse_b)        out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b
//! ```
//!
//! Memory is all that it waits for: every element is read once and written once, in 16-byte chunks.

use super::element::{pack, unpack};
use crate::config::DType;
use crate::merge::{MergeParams, MergeStates};
use crate::params::Strides;
use crate::ptx::ld_st::{load_global_4, load_global_16, store_global_16, store_global_f32};
use crate::ptx::math::{ex2, fma, lg2, rcp};
use crate::ptx::{barrier, sreg};

/// The kernel.
///
/// # Safety
/// Launched with blocks of [`MergeStates::THREADS`] and the grid and parameters of a plan.
#[inline(always)]
pub unsafe fn run(config: MergeStates, params: MergeParams) {
    let (row_in_block, lane) = (sreg::thread_idx_x() / MergeStates::LANES, sreg::thread_idx_x() % MergeStates::LANES);
    let (batch, head) = (sreg::block_idx_z(), sreg::block_idx_y());
    let row = sreg::block_idx_x() * MergeStates::ROWS + row_in_block;
    let exists = row < params.seq;
    let lse_offset = (u64::from(batch * params.heads + head) * u64::from(params.seq) + u64::from(row)) * 4;
    let place = |address: u64, stride: &Strides| address + stride.slice_offset(batch, head) + stride.row_offset(row);
    // SAFETY: only rows and chunks that exist are read and written; every lane reaches the barrier.
    unsafe {
        let mut lse = [f32::NEG_INFINITY; 2];
        if exists {
            lse = [params.lse_a, params.lse_b].map(|address| f32::from_bits(load_global_4(address + lse_offset)));
        }
        // The merged one may take the place of one of them, which the other lanes of the row have read by now.
        barrier::sync_warp();
        if !exists {
            return;
        }
        let merge = Merge::new(lse);
        if lane == 0 && params.lse != 0 {
            store_global_f32(params.lse + lse_offset, merge.lse);
        }
        let [a, b] = [place(params.out_a, &params.a_stride), place(params.out_b, &params.b_stride)];
        let out = place(params.out, &params.out_stride);
        let mut offset = 16 * lane;
        while offset < params.row_bytes {
            let [a, b] = [a, b].map(|row| load_global_16(row + u64::from(offset)));
            store_global_16(out + u64::from(offset), merge.chunk(config.dtype, a, b));
            offset += 16 * MergeStates::LANES;
        }
    }
}

/// How one row is merged.
struct Merge {
    /// Whether the first, and the second result saw no key: what stands in them counts for nothing, even if it is NaN.
    empty: [bool; 2],
    weights: [f32; 2],
    lse: f32,
}

impl Merge {
    #[inline(always)]
    fn new(lse: [f32; 2]) -> Self {
        let empty = lse.map(|lse| lse == f32::NEG_INFINITY);
        let first_is_larger = lse[0] >= lse[1];
        let [larger, smaller] = if first_is_larger { lse } else { [lse[1], lse[0]] };
        // NaN where one of them is NaN.
        let ratio = ex2((smaller - larger) * core::f32::consts::LOG2_E);
        let weight = rcp(1.0 + ratio);
        let weights = if first_is_larger { [weight, weight * ratio] } else { [weight * ratio, weight] };
        let sum = fma(lg2(1.0 + ratio), core::f32::consts::LN_2, larger);
        let lse = if empty[1] {
            lse[0]
        } else if empty[0] {
            lse[1]
        } else {
            sum
        };
        Self { empty, weights, lse }
    }

    /// Merges two chunks of the row.
    #[inline(always)]
    fn chunk(&self, dtype: DType, a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        match self.empty {
            [true, true] => [0; 4],
            [false, true] => a,
            [true, false] => b,
            [false, false] => core::array::from_fn(|i| self.word(dtype, a[i], b[i])),
        }
    }

    /// Merges two words: an f32 each, or two elements of 16 bits.
    #[inline(always)]
    fn word(&self, dtype: DType, a: u32, b: u32) -> u32 {
        let sum = |a: f32, b: f32| fma(self.weights[0], a, self.weights[1] * b);
        if matches!(dtype, DType::F32) {
            return sum(f32::from_bits(a), f32::from_bits(b)).to_bits();
        }
        let ([a_low, a_high], [b_low, b_high]) = (unpack(dtype, a), unpack(dtype, b));
        pack(dtype, sum(a_low, b_low), sum(a_high, b_high))
    }
}
