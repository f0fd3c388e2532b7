//! Operations that differ between the 16-bit element types. `dtype` is a constant at every call and folds away.

use crate::config::DType;
use crate::ptx::{cvt, mma};

/// `c += a b` for one m16n8k16 tile.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn mma_m16n8k16(dtype: DType, c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        if matches!(dtype, DType::F16) {
            mma::mma_m16n8k16_f16(c, a, b);
        } else {
            mma::mma_m16n8k16_bf16(c, a, b);
        }
    }
}

/// Two values rounded to the element type, the first in the lower half.
#[inline(always)]
pub fn pack(dtype: DType, low: f32, high: f32) -> u32 {
    if matches!(dtype, DType::F16) { cvt::pack_f16(low, high) } else { cvt::pack_bf16(low, high) }
}

/// The probabilities of 16 keys, from the accumulators of eight keys and of the next eight, rounded to the element type:
/// an operand of the product with values.
#[inline(always)]
pub fn pack_probabilities(dtype: DType, left: [f32; 4], right: [f32; 4]) -> [u32; 4] {
    let pair = |low, high| pack(dtype, low, high);
    [pair(left[0], left[1]), pair(left[2], left[3]), pair(right[0], right[1]), pair(right[2], right[3])]
}

/// The two elements of a word.
#[cfg(any(ampere, ada))]
#[inline(always)]
pub fn unpack(dtype: DType, pair: u32) -> [f32; 2] {
    if matches!(dtype, DType::F16) { cvt::unpack_f16(pair) } else { cvt::unpack_bf16(pair) }
}
