//! Hyperbolic tangent.

use super::exp::exp2;
use crate::numeric::NAN;

/// `tanh.approx.f32`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = x.abs() as f64;
    // Above 10 the result is 1, to f32.
    let power = exp2(magnitude.min(20.0) * (2.0 * core::f64::consts::LOG2_E));
    let large = 1.0 - 2.0 / (power + 1.0);
    // The first two terms of its series, where the difference above would cancel.
    let small = magnitude - magnitude * magnitude * magnitude * (1.0 / 3.0);
    let value = if magnitude < 1.0 / 256.0 { small } else { large };
    if x.is_nan() { NAN } else { (value as f32).copysign(x) }
}
