//! Online softmax that makes weights in e4m3: probabilities times the scale of their values, over the unit that the output
//! counts in.
//!
//! As in [`super::super::softmax`], a step first keeps the base of the steps before it. Weights are f32 until they are packed,
//! so that one beyond [`LIMIT`] is no loss: the weights are lowered, and the base with them. Only where they come near the end
//! of f32's range does the warp need its scores again.
//!
//! The sum of packed weights is a column of the product with values, and costs next to nothing. Exact sums, of weights that
//! are not rounded, are for those who want log-sum-exps, and for values with scales of blocks: weights of a block whose scale is
//! small may be rounded to zero, their probabilities still count.

use crate::kernels::fwd_sm90::softmax::{Scores, Softmax, exponentiate, maxima};
use crate::kernels::scales::Factors;
use crate::kernels::statistics::{finite_base, max_of_row};
use crate::ptx::math::{ex2, fma, lg2, max, min};
use crate::ptx::shuffle::any;

/// Logarithm of the largest weight of a first step, at most: ten binades below it have all bits of e4m3, and 27 times that
/// weight is within [`LIMIT`].
const LARGEST: f32 = 4.0;

/// Logarithm of the largest weight before a base moves: below 448, the largest number of e4m3.
const BOUND: f32 = 8.5;

/// From here on weights are packed as 448, the largest number of e4m3.
const LIMIT: f32 = 432.0;

/// From here on weights are taken for lost: their sums come near the end of f32's range.
const LOST: f32 = (1u128 << 100) as f32;

/// Bound of a base below which a score and its factor may be multiplied without rounding: the base, which was rounded, is
/// then off by no more than 2^-4.
const FAR: f32 = (1 << 20) as f32;

/// Bound of the logarithm of a scale of values over the unit: sums of probabilities stay in the range of f32. Scales of a head
/// that are farther from each other count as that far.
const MAX_GAIN: f32 = 100.0;

/// Two rows of a lane.
#[derive(Clone, Copy)]
pub struct Weights {
    /// The base is that of weights, a logarithm; sums are those of probabilities, exact ones or up to the last
    /// [`Weights::count_packed`].
    pub softmax: Softmax,
    /// The scale of values that the output counts in: that of the tile's first step.
    pub unit: f32,
    /// What scores become logarithms by, to base 2.
    factor: f32,
    /// Logarithm of the scale of the step's values over the unit.
    gain: f32,
    /// 2^-gain.
    inverse_gain: f32,
    /// What makes logarithms of weights of those of scores in a step that keeps its bases. For a base beyond [`FAR`] it is
    /// infinite, so that all weights are lost.
    shift: [f32; 2],
}

/// Scales of the keys and values of a step.
#[derive(Clone, Copy)]
pub struct StepScales {
    keys: f32,
    values: f32,
}

impl StepScales {
    /// Loads them. Ahead of the step's products they come beside those.
    ///
    /// # Safety
    /// There is a key `first_key`.
    #[inline(always)]
    pub unsafe fn load(factors: &Factors, first_key: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { keys: factors.keys(first_key), values: factors.values(first_key) } }
    }
}

/// By what the outputs so far of a lane's rows have to be rescaled.
pub type Rescale = [f32; 2];

impl Weights {
    /// Before the first step of a tile, whose scales are those.
    #[inline(always)]
    pub fn new(factors: &Factors, scales: StepScales) -> Self {
        let (factor, unit) = (factors.scores(scales.keys), scales.values);
        Self { softmax: Softmax::new(1.0), unit, factor, gain: 0.0, inverse_gain: 1.0, shift: [0.0; 2] }
    }

    /// Takes the scales of a step, before [`Weights::move_base`].
    #[inline(always)]
    pub fn go_on(&mut self, factors: &Factors, scales: StepScales) {
        self.factor = factors.scores(scales.keys);
        let gain = lg2(scales.values) - lg2(self.unit);
        self.gain = max(min(gain, MAX_GAIN), -MAX_GAIN);
        self.inverse_gain = ex2(-self.gain);
    }

    /// Turns scores into weights with the bases that are there. Gives their sums.
    #[inline(always)]
    pub fn keep_base<S: Scores>(&self, scores: &mut S) -> [f32; 2] {
        exponentiate(scores, self.factor, self.shift)
    }

    /// Counts exact sums of weights.
    #[inline(always)]
    pub fn count(&mut self, sums: [f32; 2]) {
        for row in 0..2 {
            self.softmax.row_sum[row] = fma(sums[row], self.inverse_gain, self.softmax.row_sum[row]);
        }
    }

    /// Whether the largest weights of a lane say that they are lost.
    #[inline(always)]
    pub fn is_lost(maxima: [f32; 2]) -> bool {
        max(maxima[0], maxima[1]) >= LOST
    }

    /// Counts the sums of packed weights, which are in the first of the eight columns of `sums`, and clears them.
    #[inline(always)]
    pub fn count_packed(&mut self, sums: &mut [f32; 4]) {
        for row in 0..2 {
            self.softmax.row_sum[row] += sums[2 * row];
        }
        *sums = [0.0; 4];
    }

    /// Turns scores into weights, with the row maximum where a base has to move. Counts their sums if they are to be `exact`.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn move_base<S: Scores>(&mut self, scores: &mut S, exact: bool) -> Rescale {
        let maxima = maxima(scores, [f32::NEG_INFINITY; 2]).map(|score| fma(score, self.factor, self.gain));
        let mut rescale = [1.0; 2];
        // SAFETY: the caller's promise.
        let is_far = unsafe {
            for row in 0..2 {
                let largest = max_of_row(maxima[row]);
                if largest > self.softmax.base[row] + BOUND {
                    rescale[row] = self.set_base(row, largest - LARGEST);
                }
            }
            self.set_shift();
            any(max(self.shift[0], self.shift[1]) == f32::INFINITY)
        };
        let (mut factor, mut shift) = (self.factor, self.shift);
        if is_far {
            // Rounded like the base before it is subtracted: exact at the maximum.
            for tile in 0..S::LEN {
                let s = scores.at(tile);
                for i in 0..4 {
                    s[i] = fma(s[i], self.factor, self.gain) - finite_base(self.softmax.base[i / 2]);
                }
            }
            (factor, shift) = (1.0, [0.0; 2]);
        }
        let sums = exponentiate(scores, factor, shift);
        if exact {
            self.count(sums);
        }
        rescale
    }

    /// Lowers the weights of a row that has one beyond [`LIMIT`], and its base, by a power of two. `maxima` are the lane's own
    /// largest weights.
    ///
    /// # Safety
    /// All lanes of the warp are converged, and no weight is lost.
    #[inline(always)]
    pub unsafe fn lower<S: Scores>(&mut self, weights: &mut S, maxima: [f32; 2]) -> Rescale {
        let mut rescale = [1.0; 2];
        // SAFETY: the caller's promise.
        unsafe {
            for row in 0..2 {
                let largest = max_of_row(maxima[row]);
                if largest >= LIMIT {
                    let exponent = (largest.to_bits() >> 23) as f32 - 127.0;
                    rescale[row] = self.set_base(row, self.softmax.base[row] + (exponent - LARGEST));
                }
            }
        }
        self.set_shift();
        for tile in 0..S::LEN {
            let w = weights.at(tile);
            for i in 0..4 {
                w[i] *= rescale[i / 2];
            }
        }
        rescale
    }

    /// Moves the base of a row. Gives the factor of what was there.
    #[inline(always)]
    fn set_base(&mut self, row: usize, base: f32) -> f32 {
        let rescale = ex2(self.softmax.base[row] - base);
        self.softmax.base[row] = base;
        self.softmax.row_sum[row] *= rescale;
        rescale
    }

    /// Makes the shifts those of the bases.
    #[inline(always)]
    fn set_shift(&mut self) {
        for row in 0..2 {
            let base = finite_base(self.softmax.base[row]);
            self.shift[row] = if base.abs() > FAR { f32::INFINITY } else { self.gain - base };
        }
    }
}
