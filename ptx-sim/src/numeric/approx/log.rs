//! Logarithm to base two.

use crate::numeric::{NAN, ftz};

/// log2(x) to within 2^-40 of itself, for positive normal finite x.
///
/// log2(m) = 2/ln(2) artanh(s), s = (m - 1) / (m + 1), by the series of artanh; sqrt(1/2) <= m < sqrt(2).
#[inline(always)]
fn log2(x: f64) -> f64 {
    const SQRT_HALF: u64 = core::f64::consts::FRAC_1_SQRT_2.to_bits();
    /// Makes the difference below positive, and the exponent exact in the low bits of 2^52 + exponent.
    const BIAS: u64 = 1 << 10;
    let above = x.to_bits().wrapping_sub(SQRT_HALF).wrapping_add(BIAS << 52);
    let exponent = f64::from_bits(above >> 52 | 0x433 << 52) - ((1u64 << 52) + BIAS) as f64;
    let m = f64::from_bits((above & !(0xfff << 52)).wrapping_add(SQRT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 1.0 / 15.0;
    for n in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / n;
    }
    exponent + s * series * (2.0 * core::f64::consts::LOG2_E)
}

/// `lg2.approx.f32`.
#[inline(always)]
pub(crate) fn lg2(x: f32) -> f32 {
    let log = log2(x as f64) as f32;
    let log = if x == f32::INFINITY { x } else { log };
    let log = if x == 0.0 { f32::NEG_INFINITY } else { log };
    if x < 0.0 || x.is_nan() { NAN } else { log }
}

/// `lg2.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn lg2_ftz(x: f32) -> f32 {
    ftz(lg2(ftz(x)))
}
