//! The vector arithmetic of the fast path: exp2 and two register-blocked products, generic over the instruction set.
//!
//! Lanes are query rows. A row of a tile here is `[V; NR]`: one value for each of `NR * lanes` query rows.

use pulp::Simd;

/// 2^x to within 1 ulp (2 without fused multiply-add) for x <= 0: NaN for NaN, 0 below -126.5, exactly 1 at 0.
///
/// x = n + f with |f| <= 1/2. The polynomial is the minimax fit of 2^f in relative error with its constant term held
/// at 1 (iteratively reweighted least squares on 4001 Chebyshev nodes); with coefficients rounded to f32 its error is
/// 1.6e-8, a quarter of an f32 rounding.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const COEFFICIENTS: [f32; 7] =
        [1.0, std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_5, 0.000_153_533_62];
    // 1.5 * 2^23 makes an addition round to an integer; 127 more leave the biased exponent in the low bits.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let low = simd.splat_f32s(-127.0);
    // Not max(): it may drop a NaN.
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    let rounded = simd.add_f32s(x, simd.splat_f32s(ROUND));
    let f = simd.sub_f32s(x, simd.sub_f32s(rounded, simd.splat_f32s(ROUND)));
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
    let mut sum = simd.splat_f32s(COEFFICIENTS[6]);
    for coefficient in COEFFICIENTS[..6].iter().rev() {
        sum = simd.mul_add_e_f32s(sum, f, simd.splat_f32s(*coefficient));
    }
    simd.mul_f32s(sum, simd.transmute_f32s_u32s(power))
}

/// `scores[key] = sum over d of keys[key][d] * queries[d]`: `MR` keys at a time, whole blocks of them.
#[inline(always)]
pub(super) fn scores<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    keys: &[f32],
    queries: &[[S::f32s; NR]],
    scores: &mut [[S::f32s; NR]],
) {
    let dim = queries.len();
    for (keys, scores) in keys.chunks_exact(MR * dim).zip(scores.chunks_exact_mut(MR)) {
        let mut rows = [keys; MR];
        for (row, key) in rows.iter_mut().zip(keys.chunks_exact(dim)) {
            *row = key;
        }
        let mut sums = [[simd.splat_f32s(0.0); NR]; MR];
        for (d, query) in queries.iter().enumerate() {
            for (row, sum) in rows.iter().zip(&mut sums) {
                // SAFETY: every row has dim elements, and d < dim. (Left checked, the loop compares once for each row.)
                let key = simd.splat_f32s(unsafe { *row.get_unchecked(d) });
                for (sum, &query) in sum.iter_mut().zip(query) {
                    *sum = simd.mul_add_e_f32s(key, query, *sum);
                }
            }
        }
        scores.copy_from_slice(&sums);
    }
}

/// `out[d] = out[d] * rescale + sum over keys of values[key][d] * weights[key]` for one panel of `MR` columns d.
///
/// With `limits`, a row takes key k only where k < its limit: a NaN in a value that a row does not see stays out.
#[inline(always)]
pub(super) fn mix<S: Simd, const MR: usize, const NR: usize>(
    simd: S,
    values: &[[f32; MR]],
    weights: &[[S::f32s; NR]],
    limits: Option<&[S::f32s; NR]>,
    rescale: &[S::f32s; NR],
    out: &mut [[S::f32s; NR]; MR],
) {
    let mut sums = *out;
    for sum in &mut sums {
        for (sum, &rescale) in sum.iter_mut().zip(rescale) {
            *sum = simd.mul_f32s(*sum, rescale);
        }
    }
    match limits {
        None => {
            for (value, weight) in values.iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(value) {
                    let value = simd.splat_f32s(value);
                    for (sum, &weight) in sum.iter_mut().zip(weight) {
                        *sum = simd.mul_add_e_f32s(value, weight, *sum);
                    }
                }
            }
        }
        Some(limits) => {
            for (k, (value, weight)) in values.iter().zip(weights).enumerate() {
                let k = simd.splat_f32s(k as f32);
                for (sum, &value) in sums.iter_mut().zip(value) {
                    let value = simd.splat_f32s(value);
                    for n in 0..NR {
                        let added = simd.mul_add_e_f32s(value, weight[n], sum[n]);
                        sum[n] = simd.select_f32s(simd.less_than_f32s(k, limits[n]), added, sum[n]);
                    }
                }
            }
        }
    }
    *out = sums;
}

/// Running maximum (of the unscaled scores) and sum of weights of each row.
#[derive(Clone, Copy)]
pub(super) struct Softmax<V, const NR: usize> {
    pub max: [V; NR],
    pub sum: [V; NR],
}

impl<V: Copy, const NR: usize> Softmax<V, NR> {
    /// Turns a tile of scores into weights, `2^(scale * (score - max))`, and returns the factor on what was summed
    /// with the earlier maximum. `scale` is positive.
    #[inline(always)]
    pub fn update<S: Simd<f32s = V>>(&mut self, simd: S, scale: V, scores: &mut [[V; NR]]) -> [V; NR] {
        let zero = simd.splat_f32s(0.0);
        let lowest = simd.splat_f32s(f32::NEG_INFINITY);
        // Four chains: one would wait for its own latency.
        let mut max = [self.max; 4];
        let (fours, rest) = scores.as_chunks::<4>();
        for four in fours.iter().map(|four| &four[..]).chain([rest]) {
            for (max, row) in max.iter_mut().zip(four) {
                for (max, &score) in max.iter_mut().zip(row) {
                    *max = simd.max_f32s(*max, score);
                }
            }
        }
        let (mut base, mut rescale, mut sum) = ([zero; NR], [zero; NR], [zero; NR]);
        for n in 0..NR {
            let new = simd.max_f32s(simd.max_f32s(max[0][n], max[1][n]), simd.max_f32s(max[2][n], max[3][n]));
            // Without a score yet there is nothing to subtract, and -inf - -inf would be NaN.
            base[n] = simd.select_f32s(simd.equal_f32s(new, lowest), zero, simd.mul_f32s(new, scale));
            rescale[n] = exp2(simd, simd.sub_f32s(simd.mul_f32s(self.max[n], scale), base[n]));
            sum[n] = simd.mul_f32s(self.sum[n], rescale[n]);
            self.max[n] = new;
        }
        for row in scores {
            for n in 0..NR {
                row[n] = exp2(simd, simd.mul_add_e_f32s(row[n], scale, simd.neg_f32s(base[n])));
                sum[n] = simd.add_f32s(sum[n], row[n]);
            }
        }
        self.sum = sum;
        rescale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{WithSimd, bytemuck};

    struct Exp2<'a>(&'a [f32]);

    impl WithSimd for Exp2<'_> {
        type Output = Vec<f32>;

        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let splat = |&x: &f32| exp2(simd, simd.splat_f32s(x));
            self.0.iter().map(|x| bytemuck::cast_slice::<_, f32>(&[splat(x)])[0]).collect()
        }
    }

    #[test]
    fn exp2_is_within_two_ulp_and_keeps_the_special_values() {
        let xs: Vec<f32> = (0..=126_000).map(|i| i as f32 * -1e-3).chain([1e-5, -1e-30, -0.5, -1.5, -125.5]).collect();
        for arch in crate::cpu::flash::tests::arches() {
            for (x, got) in xs.iter().zip(arch.dispatch(Exp2(&xs))) {
                let exact = f64::from(*x).exp2();
                let ulp = 2f64.powi(exact.log2().floor() as i32 - 23);
                assert!((f64::from(got) - exact).abs() <= 2.0 * ulp, "{arch:?}: 2^{x} = {exact}, got {got}");
            }
            let special = arch.dispatch(Exp2(&[0.0, f32::NEG_INFINITY, f32::MIN, -127.0, f32::NAN]));
            assert_eq!(special[..4], [1.0, 0.0, 0.0, 0.0], "{arch:?}");
            assert!(special[4].is_nan(), "{arch:?}");
        }
    }
}
