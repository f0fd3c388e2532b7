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
/// In f32, `plain` rounds no coarser than what it judges, so that the ratio of the two errors is a matter of luck,
/// most of all in heads where a near tie of two large scores decides the error. There an element passes within eight
/// times the largest error of `plain` and one rounding of the largest element, over all heads.
///
/// `got`, `exact` and `plain` are contiguous \[batch, heads_q, q_len, head_dim\]; `rows_of_a_group` counts the elements
/// of one (batch, head), q_len * head_dim. Missing elements count as bad.
pub fn compare_out<T: Element>(got: &[T], exact: &[f64], plain: &[f64], rows_of_a_group: usize) -> Comparison {
    let group = rows_of_a_group.max(1);
    let plain_errors = largest_errors(plain, exact, group);
    let limit = match T::DTYPE {
        DType::F16 => 1e-3,
        DType::Bf16 => 5e-3,
        DType::F32 => 1e-4,
    };
    let largest = exact.iter().filter(|x| x.is_finite()).fold(0.0, |largest, x| f64::max(largest, x.abs()));
    let worst_plain = plain_errors.iter().copied().fold(0.0, f64::max);
    Comparison::new(got.iter().map(|x| x.to_f64()), exact, limit, |index| match T::DTYPE {
        DType::F32 => 8.0 * (worst_plain + rounding::<T>(largest)),
        _ => 2.0 * plain_errors.get(index / group).copied().unwrap_or(0.0) + rounding::<T>(exact[index]),
    })
}

/// Compares an output in `T` of e4m3 inputs with the exact one of the numbers that the inputs stand for.
///
/// `rounded` is the exact output but for its probabilities, which are rounded to e4m3 (as in
/// [`reference::with_e4m3_probabilities`](crate::cpu::reference::with_e4m3_probabilities), but with the largest one of a row
/// between two numbers of e4m3). A kernel rounds them as well, at bases of its own: its errors are as large, but others. So an element passes when its error is at most
/// three times the largest one of `rounded` in the same (batch, head), plus one rounding of `T`: three quarters of that
/// were seen, in heads of one row, whose largest error is that of few elements. All together pass when the relative
/// Frobenius error is below 5e-2; 2.8e-2 were seen. The slices are those of [`compare_out`].
pub fn compare_e4m3_out<T: Element>(got: &[T], exact: &[f64], rounded: &[f64], rows_of_a_group: usize) -> Comparison {
    let group = rows_of_a_group.max(1);
    let errors = largest_errors(rounded, exact, group);
    Comparison::new(got.iter().map(|x| x.to_f64()), exact, 5e-2, |index| {
        3.0 * errors.get(index / group).copied().unwrap_or(0.0) + rounding::<T>(exact[index])
    })
}

/// The largest error of `plain` in each group.
fn largest_errors(plain: &[f64], exact: &[f64], group: usize) -> Vec<f64> {
    exact
        .chunks(group)
        .zip(plain.chunks(group))
        .map(|(exact, plain)| {
            // Where the plain result overflowed there is nothing to learn from it.
            exact.iter().zip(plain).map(|(&e, &p)| error(p, e)).filter(|e| e.is_finite()).fold(0.0, f64::max)
        })
        .collect()
}

/// One rounding of a number to `T`: at most half the distance of neighbours, or half the smallest subnormal.
fn rounding<T: Element>(x: f64) -> f64 {
    let (relative, smallest) = match T::DTYPE {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
        DType::F32 => (2f64.powi(-24), 2f64.powi(-150)),
    };
    f64::max(relative * x.abs(), smallest)
}

/// Compares a log-sum-exp with the exact one, \[batch, heads_q, q_len\] each.
///
/// An element passes within 1e-4 + 2e-6 |exact|: scores are sums of products in f32, which lose up to some sixteen
/// roundings of 2^-23 relative to the largest score, and the logarithm of the sum of weights adds a few more near
/// zero. -inf passes only for -inf. There is no relative limit: an lse may lie anywhere around zero.
pub fn compare_lse(got: &[f32], exact: &[f64]) -> Comparison {
    Comparison::new(got.iter().map(|&x| f64::from(x)), exact, f64::INFINITY, |index| 1e-4 + 2e-6 * exact[index].abs())
}

/// [`compare_lse`] of e4m3 inputs: an element passes within 2e-3 + 2^-11 |exact|. Sums are of the probabilities before
/// they are rounded, but Hopper's matrix units add up no more than 14 bits of e4m3 products: each step of 32 columns
/// may cut off 2^-13 of a score, and there are up to eight.
pub fn compare_e4m3_lse(got: &[f32], exact: &[f64]) -> Comparison {
    let allowed = |index: usize| 2e-3 + 2f64.powi(-11) * exact[index].abs();
    Comparison::new(got.iter().map(|&x| f64::from(x)), exact, f64::INFINITY, allowed)
}

/// |got - exact|, zero for equal infinities and for two NaN, infinite for any other NaN or infinity.
pub(crate) fn error(got: f64, exact: f64) -> f64 {
    if got == exact || (got.is_nan() && exact.is_nan()) {
        0.0
    } else if got.is_finite() && exact.is_finite() {
        (got - exact).abs()
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    const EXACT: [f64; 4] = [1.0, -0.5, 0.25, 2.0];

    fn out<T: Element>(got: [f64; 4]) -> Comparison {
        let got = got.map(T::from_f64);
        compare_out(&got, &EXACT, &EXACT, 2)
    }

    #[test]
    fn the_rounded_exact_result_passes_and_one_bit_off_fails() {
        let exact: Vec<f64> = (1..100).map(|i| (f64::from(i) * 0.37).sin()).collect();
        let mut got: Vec<f16> = exact.iter().map(|&x| f16::from_f64(x)).collect();
        assert!(compare_out(&got, &exact, &exact, 99).passes());
        got[42] = f16::from_bits(got[42].to_bits() + 2);
        let comparison = compare_out(&got, &exact, &exact, 99);
        assert_eq!((comparison.passes(), comparison.bad, comparison.first_bad), (false, 1, Some(42)));
    }

    #[test]
    fn nan_and_infinity_fail_where_the_exact_value_is_finite() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for comparison in [out::<f32>([1.0, wrong, 0.25, 2.0]), out::<bf16>([1.0, wrong, 0.25, 2.0])] {
                assert_eq!((comparison.passes(), comparison.bad, comparison.first_bad), (false, 1, Some(1)));
                assert!(comparison.max_abs.is_infinite() && comparison.worst.is_infinite());
                assert!(comparison.relative.is_infinite());
            }
        }
        assert_eq!(out::<f32>([f64::NAN; 4]).bad, 4);
    }

    #[test]
    fn an_exact_nan_is_matched_by_nan_alone() {
        let exact = [f64::NAN, 1.0];
        assert!(compare_out(&[f32::NAN, 1.0], &exact, &exact, 2).passes());
        for wrong in [0.0, 1.0, f32::INFINITY] {
            assert!(!compare_out(&[wrong, 1.0], &exact, &exact, 2).passes());
        }
    }

    #[test]
    fn an_unwritten_element_fails_whatever_the_poison() {
        for poison in [f64::NAN, 0.0, -7777.0] {
            assert!(!out::<f16>([1.0, -0.5, poison, 2.0]).passes());
        }
        let short = compare_out(&[1.0f32, -0.5, 0.25], &EXACT, &EXACT, 2);
        assert_eq!((short.passes(), short.bad, short.first_bad, short.elements), (false, 1, Some(3), 4));
        assert!(!compare_out::<f32>(&[1.0; 5], &EXACT, &EXACT, 2).passes());
    }

    #[test]
    fn the_allowance_is_twice_the_plain_error_of_the_same_head() {
        let plain = [1.0, -0.5 + 0.01, 0.25, 2.0];
        let near = |index: usize, by: f64| {
            let mut got = EXACT;
            got[index] += by;
            compare_out(&got.map(f16::from_f64), &EXACT, &plain, 2).bad == 0
        };
        assert!(near(0, 0.019) && !near(0, 0.022));
        assert!(!near(2, 1e-3), "the other head has a plain error of zero");
        let overflow = [1.0, f64::NAN, f64::INFINITY, 2.0];
        assert!(!compare_out(&[1.1f32, -0.5, 0.25, 2.0], &EXACT, &overflow, 2).passes());
    }

    #[test]
    fn many_small_errors_fail_by_the_relative_limit() {
        let exact = [1.0; 64];
        let plain = exact.map(|x| x + 0.01);
        let comparison = compare_out(&[f16::from_f32(1.01); 64], &exact, &plain, 64);
        assert_eq!((comparison.bad, comparison.passes()), (0, false));
        assert!(comparison.to_string().starts_with("WRONG: "), "{comparison}");
    }

    #[test]
    fn an_lse_of_minus_infinity_is_matched_exactly() {
        let exact = [f64::NEG_INFINITY, 300.0, 0.0];
        assert!(compare_lse(&[f32::NEG_INFINITY, 300.0005, 1e-5], &exact).passes());
        for wrong in [-1e30, f32::MIN, f32::INFINITY, f32::NAN] {
            assert!(!compare_lse(&[wrong, 300.0, 0.0], &exact).passes());
        }
        assert!(!compare_lse(&[f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0], &exact).passes());
        assert!(!compare_lse(&[f32::NEG_INFINITY, 300.0, f32::NAN], &exact).passes());
        assert!(!compare_lse(&[f32::NEG_INFINITY, 300.01, 0.0], &exact).passes());
    }

    #[test]
    fn nothing_compared_with_nothing_passes() {
        assert!(compare_out::<f32>(&[], &[], &[], 0).passes());
        assert!(compare_lse(&[], &[]).passes());
    }
}
