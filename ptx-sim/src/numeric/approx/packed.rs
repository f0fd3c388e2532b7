//! The approximations on two 16-bit floats in a register.
//!
//! The hardware cuts their results off, but for an overflow of f16, which is infinite: with the functions of
//! [`super::unit`], these are its bits for all 65536 operands.

use crate::numeric::Rounding;
use crate::numeric::half::{bf16_to_f32, f16_to_f32, f32_to_bf16_in, f32_to_f16, f32_to_f16_in};
use crate::numeric::packed::both;

/// `f` on both halves: `ex2.approx.f16x2` and `tanh.approx.f16x2`.
#[inline(always)]
pub(crate) fn f16x2(x: u32, f: impl Fn(f32) -> f32) -> u32 {
    both(
        #[inline(always)]
        |shift| {
            let value = f(f16_to_f32((x >> shift) as u16));
            if value.abs() < 65536.0 { f32_to_f16_in(value, Rounding::Zero) } else { f32_to_f16(value) }
        },
    )
}

/// `f` on both halves: `ex2.approx.ftz.bf16x2` and `tanh.approx.bf16x2`.
#[inline(always)]
pub(crate) fn bf16x2(x: u32, f: impl Fn(f32) -> f32) -> u32 {
    both(
        #[inline(always)]
        |shift| f32_to_bf16_in(f(bf16_to_f32((x >> shift) as u16)), Rounding::Zero),
    )
}
