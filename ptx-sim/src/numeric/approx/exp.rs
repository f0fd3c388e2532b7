//! Powers of two.

use crate::numeric::{NAN, ftz};

/// ln(2)^n / n!: the Taylor series of 2^x.
const TERMS: [f64; 11] = terms();

const fn terms() -> [f64; 11] {
    let mut terms = [1.0; 11];
    let mut n = 1;
    while n < terms.len() {
        terms[n] = terms[n - 1] * core::f64::consts::LN_2 / n as f64;
        n += 1;
    }
    terms
}

/// 2^x to within 2^-40 of itself, for -1000 < x < 1000.
#[inline(always)]
pub(super) fn exp2(x: f64) -> f64 {
    // The sum's last place is one, so this rounds to an integer and leaves it in the low bits.
    const TO_INTEGER: f64 = 1.5 * (1u64 << 52) as f64;
    let shifted = x + TO_INTEGER;
    let fraction = x - (shifted - TO_INTEGER);
    let mut power = TERMS[10];
    for n in (0..10).rev() {
        power = power * fraction + TERMS[n];
    }
    let scale = f64::from_bits((shifted.to_bits().wrapping_add(1023)) << 52);
    power * scale
}

/// `ex2.approx.f32`.
#[inline(always)]
pub(crate) fn ex2(x: f32) -> f32 {
    // Beyond these the result is 0 or infinite.
    let inside = if x > 200.0 { 200.0 } else { x };
    let inside = if inside < -200.0 { -200.0 } else { inside };
    let power = exp2(inside as f64) as f32;
    if x.is_nan() { NAN } else { power }
}

/// `ex2.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn ex2_ftz(x: f32) -> f32 {
    ftz(ex2(x))
}
