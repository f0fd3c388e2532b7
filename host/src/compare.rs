//! Whether a result is right: every element against the exact one, with a tolerance that is measured, not guessed.
//!
//! NaN never passes for a number: every test here is written so that it is true only for a good value.

use crate::tensor::Element;
use evo_sdpa_kernels::config::DType;
use std::fmt;

/// The outcome of comparing a result with the exact one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Elements compared; the longer length when lengths differ.
    pub elements: usize,
    /// Largest |got - exact|; infinite when some element is NaN, infinite or missing on one side only.
    pub max_abs: f64,
    /// Relative Frobenius error, |got - exact| / |exact|, infinite like `max_abs`.
    pub relative: f64,
    /// Largest error in units of its element's allowance; at most 1 when no element is bad.
    pub worst: f64,
    /// Elements beyond their allowance.
    pub bad: usize,
    /// Index of the first of them.
    pub first_bad: Option<usize>,
    /// What `relative` may be at most.
    pub relative_limit: f64,
}

impl Comparison {
    /// Whether every element lies within its allowance and the relative error below its limit.
    pub fn passes(&self) -> bool {
        self.bad == 0 && self.relative <= self.relative_limit
    }

    fn new(got: impl ExactSizeIterator<Item = f64>, exact: &[f64], limit: f64, allowed: impl Fn(usize) -> f64) -> Self {
        let (shorter, longer) = (got.len().min(exact.len()), got.len().max(exact.len()));
        let missing = longer - shorter;
        let mut max_abs = if missing > 0 { f64::INFINITY } else { 0.0 };
        let (mut worst, mut bad, mut first_bad) = (max_abs, missing, None);
        let (mut error_square, mut exact_square) = (max_abs, 0.0);
        for (index, (got, &exact)) in got.zip(exact).enumerate() {
            let error = error(got, exact);
            let ratio = if error == 0.0 { 0.0 } else { error / allowed(index) };
            let within = ratio <= 1.0;
            if !within {
                bad += 1;
                first_bad = first_bad.or(Some(index));
            }
            max_abs = f64::max(max_abs, error);
            worst = f64::max(worst, if ratio.is_nan() { f64::INFINITY } else { ratio });
            error_square += error * error;
            exact_square += if exact.is_finite() { exact * exact } else { 0.0 };
        }
        if missing > 0 {
            first_bad = first_bad.or(Some(shorter));
        }
        let relative = if error_square == 0.0 { 0.0 } else { (error_square / exact_square).sqrt() };
        Self { elements: longer, max_abs, relative, worst, bad, first_bad, relative_limit: limit }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elements, max_abs, relative, worst, bad, relative_limit, .. } = self;
        let verdict = if self.passes() { "ok" } else { "WRONG" };
        write!(f, "{verdict}: max abs {max_abs:.2e}, relative {relative:.2e} (limit {relative_limit:.0e}), ")?;
        write!(f, "worst {worst:.2} of allowance, {bad} of {elements} bad")?;
        self.first_bad.map_or(Ok(()), |index| write!(f, ", first at {index}"))
    }
}

/// Compares an output in `T` with the exact one of the same inputs.
///
/// An element passes when its error is at most twice the largest error of `plain` (see
/// [`reference::plain`](crate::cpu::reference::plain)) in the same (batch, head), plus one rounding of `T` at that
/// element; all together pass when the relative Frobenius error is below 1e-3 (f16), 5e-3 (bf16) or 1e-4 (f32: a
/// logit of a few hundred carries f32 roundings of some 1e-5, and a weight carries them as relative error). Where
/// `exact` is NaN or infinite, only the same value passes.
///
/// `got`, `exact` and `plain` are contiguous \[batch, heads_q, q_len, head_dim\]; `rows_of_a_group` counts the elements
/// of one (batch, head), q_len * head_dim. Missing elements count as bad.
pub fn compare_out<T: Element>(got: &[T], exact: &[f64], plain: &[f64], rows_of_a_group: usize) -> Comparison {
    let group = rows_of_a_group.max(1);
    let plain_errors: Vec<f64> = exact
        .chunks(group)
        .zip(plain.chunks(group))
        .map(|(exact, plain)| {
            // Where the plain result overflowed there is nothing to learn from it.
            exact.iter().zip(plain).map(|(&e, &p)| error(p, e)).filter(|e| e.is_finite()).fold(0.0, f64::max)
        })
        .collect();
    // One rounding: at most `relative` of the value, or half the smallest subnormal. f32 results come from arithmetic
    // without spare bits, so that `plain` is exact only by luck: four roundings there.
    let (relative, smallest, limit) = match T::DTYPE {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25), 1e-3),
        DType::Bf16 => (2f64.powi(-8), 2f64.powi(-134), 5e-3),
        DType::F32 => (2f64.powi(-22), 2f64.powi(-148), 1e-4),
    };
    Comparison::new(got.iter().map(|x| x.to_f64()), exact, limit, |index| {
        let plain_error = plain_errors.get(index / group).copied().unwrap_or(0.0);
        2.0 * plain_error + f64::max(relative * exact[index].abs(), smallest)
    })
}

/// Compares a log-sum-exp with the exact one, \[batch, heads_q, q_len\] each.
///
/// An element passes within 1e-4 + 2e-6 |exact|: scores are sums of products in f32, which lose up to some sixteen
/// roundings of 2^-23 relative to the largest score, and the logarithm of the sum of weights adds a few more near
/// zero. -inf passes only for -inf. There is no relative limit: an lse may lie anywhere around zero.
pub fn compare_lse(got: &[f32], exact: &[f64]) -> Comparison {
    Comparison::new(got.iter().map(|&x| f64::from(x)), exact, f64::INFINITY, |index| 1e-4 + 2e-6 * exact[index].abs())
}

/// |got - exact|, zero for equal infinities and for two NaN, infinite for any other NaN or infinity.
fn error(got: f64, exact: f64) -> f64 {
    if got == exact || (got.is_nan() && exact.is_nan()) {
        0.0
    } else if got.is_finite() && exact.is_finite() {
        (got - exact).abs()
    } else {
        f64::INFINITY
    }
}
