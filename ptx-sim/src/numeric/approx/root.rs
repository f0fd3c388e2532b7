//! Reciprocals, roots and quotients: all rounded correctly or nearly so, by IEEE operations.

use crate::numeric::{canonical, ftz};

/// `rcp.approx.f32` (which knows no subnormal results or operands on hardware only under `.ftz`).
#[inline(always)]
pub(crate) fn rcp(x: f32) -> f32 {
    canonical(1.0 / x)
}

/// `rcp.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn rcp_ftz(x: f32) -> f32 {
    ftz(rcp(ftz(x)))
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    canonical(x.sqrt())
}

/// `sqrt.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn sqrt_ftz(x: f32) -> f32 {
    sqrt(ftz(x))
}

/// `rsqrt.approx.f32`.
#[inline(always)]
pub(crate) fn rsqrt(x: f32) -> f32 {
    canonical((1.0 / (x as f64).sqrt()) as f32)
}

/// `rsqrt.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn rsqrt_ftz(x: f32) -> f32 {
    rsqrt(ftz(x))
}

/// `div.full.f32`: two units of error over the full range; here none.
#[inline(always)]
pub(crate) fn div_full(a: f32, b: f32) -> f32 {
    canonical(a / b)
}

/// `div.approx.f32`: `a * (1 / b)`; a divisor above 2^126 gives 0 (PTX ISA, "div").
#[inline(always)]
pub(crate) fn div_approx(a: f32, b: f32) -> f32 {
    const LIMIT: f32 = f32::from_bits((126 + 127) << 23);
    let flushed = b.abs() > LIMIT && b.abs() < f32::INFINITY;
    canonical(if flushed { a * 0f32.copysign(b) } else { a / b })
}
