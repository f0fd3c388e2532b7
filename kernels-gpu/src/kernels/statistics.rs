//! What base and sum of a row mean, in every kernel.

use crate::ptx::math::{fma, lg2, max, rcp};
use crate::ptx::shuffle::butterfly;

/// Bound of the sum of a lane's probabilities in a step that keeps its base. Each of them is then a finite f16, and the
/// sum of 2^30 keys a finite f32.
pub const LIMIT: f32 = 32768.0;

/// A base to subtract: without a visible key the maximum is -inf, and -inf - -inf would be NaN.
#[inline(always)]
pub fn finite_base(row_max: f32) -> f32 {
    if row_max == f32::NEG_INFINITY { 0.0 } else { row_max }
}

/// Log-sum-exp in natural logarithm of a row with base `base` and sum `row_sum`; -inf for a row without keys.
#[inline(always)]
pub fn log_sum_exp(base: f32, row_sum: f32, scale_log2: f32) -> f32 {
    fma(base, scale_log2, lg2(row_sum)) * core::f32::consts::LN_2
}

/// `1 / sum`, and 0 for a row without keys, whose output is zero.
#[inline(always)]
pub fn inverse(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { rcp(sum) }
}

/// The largest number of the four lanes that share a row of a matrix fragment, which are neighbours.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn max_of_row(x: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = max(x, butterfly(x, 1));
        max(pair, butterfly(pair, 2))
    }
}

/// The sum of these lanes.
///
/// # Safety
/// That of [`max_of_row`].
#[inline(always)]
pub unsafe fn sum_of_row(x: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = x + butterfly(x, 1);
        pair + butterfly(pair, 2)
    }
}
