//! The approximations on two 16-bit floats in a register.
//!
//! The hardware cuts their results off, but for an overflow of f16, which is infinite (seen on an H200).

use super::{ex2, ex2_ftz, tanh};
use crate::numeric::Rounding;
use crate::numeric::half::{bf16_to_f32, f16_to_f32, f32_to_bf16_in, f32_to_f16, f32_to_f16_in};

/// `ex2.approx.f16x2`.
#[inline(always)]
pub(crate) fn ex2_f16x2(x: u32) -> u32 {
    f16x2(x, ex2)
}

/// `tanh.approx.f16x2`.
#[inline(always)]
pub(crate) fn tanh_f16x2(x: u32) -> u32 {
    f16x2(x, tanh)
}

/// `ex2.approx.ftz.bf16x2`.
#[inline(always)]
pub(crate) fn ex2_ftz_bf16x2(x: u32) -> u32 {
    bf16x2(x, ex2_ftz)
}

/// `tanh.approx.bf16x2`.
#[inline(always)]
pub(crate) fn tanh_bf16x2(x: u32) -> u32 {
    bf16x2(x, tanh)
}

fn f16x2(x: u32, f: impl Fn(f32) -> f32) -> u32 {
    let half = |x: u16| {
        let value = f(f16_to_f32(x));
        if value.abs() < 65536.0 { f32_to_f16_in(value, Rounding::Zero) } else { f32_to_f16(value) }
    };
    half(x as u16) as u32 | (half((x >> 16) as u16) as u32) << 16
}

fn bf16x2(x: u32, f: impl Fn(f32) -> f32) -> u32 {
    let half = |x: u16| f32_to_bf16_in(f(bf16_to_f32(x)), Rounding::Zero);
    half(x as u16) as u32 | (half((x >> 16) as u16) as u32) << 16
}
