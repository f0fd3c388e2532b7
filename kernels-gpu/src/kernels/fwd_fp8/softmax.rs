//! Online softmax for probabilities in e4m3.
//!
//! Scores are logarithms to base 2 here, scales included. `p = 2^(x - base)`, and the base of a row is its maximum so far
//! less 8, rounded up: probabilities reach 2^8 and never 448, whatever the scores, and those from 2^-9 on have a place,
//! 2^-17 of the largest. The difference is rounded after the product, so that it is exact at the maximum however large the
//! scores are. Row sums are those of the probabilities before they are rounded to e4m3; the 2^8 cancels in the end.

use super::Fp8;
use crate::kernels::registers::Registers;
use crate::kernels::statistics::{finite_base, max_of_row, sum_of_row};
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::math::{add_up, ex2, max};
use crate::ptx::shuffle::any;

/// Logarithm of the largest probability.
const LARGEST: f32 = 8.0;

/// Row statistics of a warp: entry `2 * row_frag + half` is row `16 * row_frag + 8 * half + lane / 4`.
pub struct Softmax<I: Fp8> {
    /// The logarithm whose probability is 1; -inf before the first visible key.
    pub base: I::Rows,
    /// Sum of the lane's own probabilities, of the whole row after [`Softmax::finish`].
    pub row_sum: I::Rows,
}

/// Turns products into logarithms of probabilities.
#[inline(always)]
pub fn scale<I: Fp8>(scores: &mut I::ScoreFrags, factor: f32) {
    for tile in 0..I::CONFIG.score_frags() {
        for s in scores.at(tile) {
            *s *= factor;
        }
    }
}

/// The probabilities of the 32-key part `part`, added to `sums` and rounded to e4m3: an operand of the product with values.
/// A lane has two keys of each eight, and the operand has those of 16 next to each other; values come in this order too.
#[inline(always)]
pub fn exponentiate<I: Fp8>(scores: &I::ScoreFrags, part: u32, bases: &I::Rows, sums: &mut I::Rows, p: &mut I::PFrags) {
    let config = I::CONFIG;
    for frag in 0..config.row_frags() {
        let mut words = [0; 4];
        for word in 0..4 {
            let (row, i) = (2 * frag + word % 2, 2 * (word % 2) as usize);
            let first = frag * config.tile_kv / 8 + 4 * part + 2 * (word / 2);
            let base = finite_base(bases.get(row));
            let probability = |tile, i| ex2(scores.get(tile)[i] - base);
            let [a, b] = [probability(first, i), probability(first, i + 1)];
            let [c, d] = [probability(first + 1, i), probability(first + 1, i + 1)];
            *sums.at(row) += (a + b) + (c + d);
            *words.at(word) = pack_e4m3([a, b, c, d]);
        }
        *p.at(frag * (config.tile_kv / 32) + part) = words;
    }
}

impl<I: Fp8> Softmax<I> {
    #[inline(always)]
    pub fn new() -> Self {
        Self { base: I::Rows::splat(f32::NEG_INFINITY), row_sum: I::Rows::splat(0.0) }
    }

    /// The bases of the rows, these scores included.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn bases(&self, scores: &I::ScoreFrags) -> I::Rows {
        let tiles = I::CONFIG.tile_kv / 8;
        let mut bases = self.base;
        for row in 0..2 * I::CONFIG.row_frags() {
            let (frag, i) = (row / 2, 2 * (row % 2) as usize);
            let first = scores.get(frag * tiles);
            let mut row_max = max(first[i], first[i + 1]);
            for tile in 1..tiles {
                let s = scores.get(frag * tiles + tile);
                row_max = max(row_max, max(s[i], s[i + 1]));
            }
            // SAFETY: the caller's promise.
            row_max = unsafe { max_of_row(row_max) };
            *bases.at(row) = max(self.base.get(row), add_up(row_max, -LARGEST));
        }
        bases
    }

    /// Rescales sums and output to `bases`, and adds the sums of a step that was taken with them.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn move_to(&mut self, bases: &I::Rows, sums: &I::Rows, out: &mut I::OutFrags) {
        let (rows, out_tiles) = (2 * I::CONFIG.row_frags(), I::FP8.head_dim / 8);
        let mut moves = false;
        for row in 0..rows {
            moves |= bases.get(row) > self.base.get(row);
        }
        // SAFETY: the caller's promise.
        if unsafe { any(moves) } {
            for row in 0..rows {
                let (frag, i) = (row / 2, 2 * (row % 2) as usize);
                let factor = ex2(self.base.get(row) - finite_base(bases.get(row)));
                *self.row_sum.at(row) *= factor;
                for tile in 0..out_tiles {
                    let o = out.at(frag * out_tiles + tile);
                    o[i] *= factor;
                    o[i + 1] *= factor;
                }
            }
        }
        for row in 0..rows {
            *self.row_sum.at(row) += sums.get(row);
        }
        self.base = *bases;
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
