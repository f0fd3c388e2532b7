//! Reciprocals, roots and quotients, by IEEE operations: rounded correctly or nearly so.

use crate::numeric::{canonical, ftz};

/// `rcp.approx.f32`.
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

/// `div.full.f32`.
#[inline(always)]
pub(crate) fn div_full(a: f32, b: f32) -> f32 {
    canonical(a / b)
}

/// `div.full.ftz.f32`.
#[inline(always)]
pub(crate) fn div_full_ftz(a: f32, b: f32) -> f32 {
    ftz(div_full(ftz(a), ftz(b)))
}

/// `div.approx.f32`: `a * (1 / b)`, where the reciprocal of a divisor above 2^126 is 0 (PTX ISA, "div").
#[inline(always)]
pub(crate) fn div_approx(a: f32, b: f32) -> f32 {
    const LIMIT: f32 = f32::from_bits((126 + 127) << 23);
    canonical(if b.abs() > LIMIT { a * 0f32.copysign(b) } else { a / b })
}

/// `div.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn div_approx_ftz(a: f32, b: f32) -> f32 {
    ftz(div_approx(ftz(a), ftz(b)))
}
