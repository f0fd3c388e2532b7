//! Online softmax on score fragments (Milakov and Gimelshein, arXiv 1805.02867; per tile as in FlashAttention-2,
//! arXiv 2307.08691).
//!
//! Scores stay unscaled. `p = 2^(scale_log2 * s - scale_log2 * base)` is one fused multiply-add and one exponential.
//! Any base serves that keeps `p` in range, as it cancels in the end. A step first keeps the base of the steps before
//! it, which costs no maximum and no rescaling, and adds up its probabilities. Where a sum passes [`LIMIT`], or is no
//! number, the step is taken again and moves the base to the row maximum, as every first step does.
//!
//! The row sum stays a lane's own until the end.

use super::block::Instance;
use super::registers::Registers;
use super::statistics::{LIMIT, finite_base, max_of_row, sum_of_row};
use crate::ptx::math::{ex2, fma, max};
use crate::ptx::shuffle::all;

/// Row statistics of a warp: entry `2 * row_frag + half` is row `16 * row_frag + 8 * half + lane / 4`.
pub struct Softmax<I: Instance> {
    /// The unscaled score whose probability is 1: a row maximum so far; -inf before the first visible key.
    pub base: I::Rows,
    /// Sum of the lane's own probabilities, of the whole row after [`Softmax::finish`].
    pub row_sum: I::Rows,
    scale_log2: f32,
}

impl<I: Instance> Softmax<I> {
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        Self { base: I::Rows::splat(f32::NEG_INFINITY), row_sum: I::Rows::splat(0.0), scale_log2 }
    }

    /// Adds the sums of a step whose probabilities were taken with the base that is there, if they are in range. Else
    /// nothing changes, and the step has to be taken again with [`Softmax::move_base`].
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn keep_base(&mut self, sums: &I::Rows) -> bool {
        let rows = 2 * I::CONFIG.row_frags();
        let mut in_range = true;
        for row in 0..rows {
            in_range &= sums.get(row) < LIMIT;
        }
        // SAFETY: the caller's promise.
        if !unsafe { all(in_range) } {
            return false;
        }
        for row in 0..rows {
            *self.row_sum.at(row) += sums.get(row);
        }
        true
    }

    /// Turns the scores of a step into probabilities with the row maximum as the base, and rescales the output to it.
    /// A row may have seen no key yet.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn move_base(&mut self, scores: &mut I::ScoreFrags, out: &mut I::OutFrags) {
        let config = I::CONFIG;
        let (score_tiles, out_tiles) = (config.tile_kv / 8, config.head_dim / 8);
        let mut bases = I::Rows::splat(0.0);
        for row in 0..2 * config.row_frags() {
            let (frag, i) = (row / 2, 2 * (row % 2) as usize);
            let old = self.base.get(row);
            let mut new = old;
            for tile in 0..score_tiles {
                let s = scores.get(frag * score_tiles + tile);
                new = max(new, max(s[i], s[i + 1]));
            }
            // SAFETY: the caller's promise.
            new = unsafe { max_of_row(new) };
            *self.base.at(row) = new;
            let finite = finite_base(new);
            let factor = ex2((old - finite) * self.scale_log2);
            *bases.at(row) = finite;
            *self.row_sum.at(row) *= factor;
            for tile in 0..out_tiles {
                let o = out.at(frag * out_tiles + tile);
                o[i] *= factor;
                o[i + 1] *= factor;
            }
        }
        let mut sums = self.row_sum;
        for part in 0..score_tiles / 2 {
            self.exponentiate(scores, part, &bases, &mut sums);
        }
        self.row_sum = sums;
    }

    /// Turns the scores of the 16-key part `part` into probabilities relative to `base`, and adds them to `sums`.
    #[inline(always)]
    pub fn exponentiate(&self, scores: &mut I::ScoreFrags, part: u32, base: &I::Rows, sums: &mut I::Rows) {
        for row in 0..2 * I::CONFIG.row_frags() {
            let (frag, i) = (row / 2, 2 * (row % 2) as usize);
            let shift = -base.get(row) * self.scale_log2;
            for tile in 2 * part..2 * part + 2 {
                let s = scores.at(frag * I::CONFIG.tile_kv / 8 + tile);
                s[i] = ex2(fma(s[i], self.scale_log2, shift));
                s[i + 1] = ex2(fma(s[i + 1], self.scale_log2, shift));
                *sums.at(row) += s[i] + s[i + 1];
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
            // SAFETY: the caller's promise.
            *self.row_sum.at(row) = unsafe { sum_of_row(self.row_sum.get(row)) };
        }
    }
}
