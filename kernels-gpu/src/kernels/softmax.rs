//! Online softmax on score fragments (Milakov and Gimelshein, arXiv 1805.02867; per tile as in FlashAttention-2,
//! arXiv 2307.08691).
//!
//! Scores stay unscaled. `p = 2^(scale_log2 * s - scale_log2 * row_max)` is one fused multiply-add and one
//! exponential. The row sum stays a lane's own until the end, only the row maximum is exchanged in every step.

use super::fwd_sm80::Instance;
use super::registers::Registers;
use crate::ptx::math::{ex2, fma, lg2, max};
use crate::ptx::shuffle::butterfly;

/// Row statistics of a warp: entry `2 * row_frag + half` is row `16 * row_frag + 8 * half + lane / 4`.
pub struct Softmax<I: Instance> {
    /// Largest unscaled score so far; -inf before the first visible key.
    pub row_max: I::Rows,
    /// Sum of the lane's own probabilities, of the whole row after [`Softmax::finish`].
    pub row_sum: I::Rows,
    scale_log2: f32,
}

impl<I: Instance> Softmax<I> {
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        Self { row_max: I::Rows::splat(f32::NEG_INFINITY), row_sum: I::Rows::splat(0.0), scale_log2 }
    }

    /// Turns the scores of a step into probabilities, and rescales the output to the new row maximum. With `MASKED`
    /// a row may have seen no key yet.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn update<const MASKED: bool>(&mut self, scores: &mut I::ScoreFrags, out: &mut I::OutFrags) {
        let config = I::CONFIG;
        let (score_tiles, out_tiles) = (config.tile_kv / 8, config.head_dim / 8);
        for row in 0..2 * config.row_frags() {
            let (frag, i) = (row / 2, 2 * (row % 2) as usize);
            let old = self.row_max.get(row);
            let mut new = old;
            for tile in 0..score_tiles {
                let s = scores.get(frag * score_tiles + tile);
                new = max(new, max(s[i], s[i + 1]));
            }
            // SAFETY: the caller's promise. The four lanes of a row are neighbours.
            unsafe {
                new = max(new, butterfly(new, 1));
                new = max(new, butterfly(new, 2));
            }
            *self.row_max.at(row) = new;
            // Without a visible key the maximum is -inf, and -inf - -inf would be NaN.
            let base = if MASKED && new == f32::NEG_INFINITY { 0.0 } else { new };
            let factor = ex2((old - base) * self.scale_log2);
            let shift = -base * self.scale_log2;
            let mut sum = 0.0;
            for tile in 0..score_tiles {
                let s = scores.at(frag * score_tiles + tile);
                s[i] = ex2(fma(s[i], self.scale_log2, shift));
                s[i + 1] = ex2(fma(s[i + 1], self.scale_log2, shift));
                sum += s[i] + s[i + 1];
            }
            *self.row_sum.at(row) = fma(self.row_sum.get(row), factor, sum);
            for tile in 0..out_tiles {
                let o = out.at(frag * out_tiles + tile);
                o[i] *= factor;
                o[i + 1] *= factor;
            }
        }
    }

    /// Adds up the row sums of the four lanes of each row.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn finish(&mut self) {
        for row in 0..2 * I::CONFIG.row_frags() {
            let mut sum = self.row_sum.get(row);
            // SAFETY: the caller's promise.
            unsafe {
                sum += butterfly(sum, 1);
                sum += butterfly(sum, 2);
            }
            *self.row_sum.at(row) = sum;
        }
    }
}

/// Log-sum-exp in natural logarithm of a row with maximum `row_max` and sum `row_sum`; -inf for a row without keys.
#[inline(always)]
pub fn log_sum_exp(row_max: f32, row_sum: f32, scale_log2: f32) -> f32 {
    fma(row_max, scale_log2, lg2(row_sum)) * core::f32::consts::LN_2
}

/// `1 / sum`, and 0 for a row without keys, whose output is zero.
#[inline(always)]
pub fn inverse(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { crate::ptx::math::rcp(sum) }
}
