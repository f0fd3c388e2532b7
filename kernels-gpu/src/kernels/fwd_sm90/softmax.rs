//! Online softmax of a warpgroup's rows, of which a lane holds two.
//!
//! As in [`crate::kernels::softmax`], a step first keeps the base of the steps before it: no maximum, no exchange between
//! lanes, no rescaling. Where a sum then passes [`LIMIT`], the warp takes the step again with its row maximum.

use super::Instance;
use crate::kernels::registers::Registers;
use crate::kernels::statistics::{LIMIT, finite_base, max_of_row, sum_of_row};
use crate::ptx::math::{ex2, fma, max};
use crate::ptx::shuffle::{all, any};
use crate::ptx::wgmma::Accumulators;

/// Scores of a step, then probabilities.
pub trait Scores: Registers<[f32; 4]> + Accumulators {
    /// Fragments, of eight keys each.
    const LEN: u32;
}

impl<const N: usize> Scores for [[f32; 4]; N]
where
    [[f32; 4]; N]: Accumulators,
{
    const LEN: u32 = N as u32;
}

/// Statistics of the rows `lane / 4` and `lane / 4 + 8` of a warp.
#[derive(Clone, Copy)]
pub struct Softmax {
    /// The unscaled score whose probability is 1, or its logarithm where `scale_log2` is 1; -inf before the first visible
    /// key.
    pub base: [f32; 2],
    /// Sum of the lane's own probabilities.
    pub row_sum: [f32; 2],
    /// What scores become logarithms to base 2 by.
    pub scale_log2: f32,
}

impl Softmax {
    /// Before the first step.
    #[inline(always)]
    pub fn new(scale_log2: f32) -> Self {
        Self { base: [f32::NEG_INFINITY; 2], row_sum: [0.0; 2], scale_log2 }
    }

    /// Turns scores into probabilities with the base that is there. Gives their sums, which count once
    /// [`Softmax::keep_base`] has taken them.
    #[inline(always)]
    pub fn exponentiate<S: Scores>(&self, scores: &mut S, base: [f32; 2]) -> [f32; 2] {
        exponentiate(scores, self.scale_log2, [-base[0] * self.scale_log2, -base[1] * self.scale_log2])
    }

    /// Adds the sums of a step that kept the base, if they are in range in the whole warp. Else nothing changes.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn keep_base(&mut self, sums: [f32; 2]) -> bool {
        // SAFETY: the caller's promise.
        if !unsafe { all((sums[0] < LIMIT) & (sums[1] < LIMIT)) } {
            return false;
        }
        self.row_sum[0] += sums[0];
        self.row_sum[1] += sums[1];
        true
    }

    /// Turns scores into probabilities with the row maximum as the base. Gives the factors by which outputs so far have to
    /// be rescaled. A row may have seen no key yet.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn move_base<S: Scores>(&mut self, scores: &mut S) -> [f32; 2] {
        let maxima = maxima(scores, self.base);
        let mut factors = [0.0; 2];
        let mut bases = [0.0; 2];
        for row in 0..2 {
            // SAFETY: the caller's promise.
            let new = unsafe { max_of_row(maxima[row]) };
            bases[row] = finite_base(new);
            factors[row] = ex2((self.base[row] - bases[row]) * self.scale_log2);
            self.base[row] = new;
        }
        let sums = self.exponentiate(scores, bases);
        for row in 0..2 {
            self.row_sum[row] = fma(self.row_sum[row], factors[row], sums[row]);
        }
        factors
    }

    /// Sums over whole rows.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn row_sums(&self) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe { [sum_of_row(self.row_sum[0]), sum_of_row(self.row_sum[1])] }
    }
}

/// Turns scores into probabilities `2^(score * factor + shift)`. Gives their sums.
#[inline(always)]
pub fn exponentiate<S: Scores>(scores: &mut S, factor: f32, shift: [f32; 2]) -> [f32; 2] {
    // Two chains a row.
    let mut sums = [[0.0f32; 2]; 2];
    for tile in 0..S::LEN {
        let s = scores.at(tile);
        for i in 0..4 {
            s[i] = ex2(fma(s[i], factor, shift[i / 2]));
            sums[i / 2][i % 2] += s[i];
        }
    }
    [sums[0][0] + sums[0][1], sums[1][0] + sums[1][1]]
}

/// The largest of the lane's scores of each row, at least `least`.
#[inline(always)]
pub fn maxima<S: Scores>(scores: &S, least: [f32; 2]) -> [f32; 2] {
    // Two chains a row.
    let mut maxima = [[least[0]; 2], [least[1]; 2]];
    for tile in 0..S::LEN {
        let s = scores.get(tile);
        for i in 0..4 {
            maxima[i / 2][i % 2] = max(maxima[i / 2][i % 2], s[i]);
        }
    }
    maxima.map(|of_row| max(of_row[0], of_row[1]))
}

/// Rescales the outputs, where some row of the warp asks for it.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn rescale<I: Instance>(out: &mut I::OutFrags, factors: [f32; 2]) {
    // SAFETY: the caller's promise.
    if unsafe { any((factors[0] != 1.0) | (factors[1] != 1.0)) } {
        for tile in 0..I::CONFIG.head_dim / 8 {
            let o = out.at(tile);
            for i in 0..4 {
                o[i] *= factors[i / 2];
            }
        }
    }
}
