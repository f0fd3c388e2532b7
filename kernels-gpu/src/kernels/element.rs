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

/// The two elements of a word.
#[cfg(not(hopper))]
#[inline(always)]
pub fn unpack(dtype: DType, pair: u32) -> [f32; 2] {
    if matches!(dtype, DType::F16) { cvt::unpack_f16(pair) } else { cvt::unpack_bf16(pair) }
}
