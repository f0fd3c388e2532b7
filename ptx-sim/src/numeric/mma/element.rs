//! The formats of the operands.

use crate::numeric::fp8::{e4m3_to_f32, e5m2_to_f32};
use crate::numeric::half::{bf16_to_f32, f16_to_f32_raw};

/// A format of A or B.
pub(super) trait Element {
    /// Exponent of the subnormals.
    const LEAST_EXPONENT: i32;
    /// Whether every product of two such numbers is exact in f32.
    const EXACT_PRODUCTS: bool;

    /// The number whose code lies in the low bits.
    fn decode(code: u32) -> f32;
}

pub(super) struct F16;
pub(super) struct Bf16;
pub(super) struct E4m3;
pub(super) struct E5m2;

impl Element for F16 {
    const LEAST_EXPONENT: i32 = -14;
    const EXACT_PRODUCTS: bool = true;

    #[inline(always)]
    fn decode(code: u32) -> f32 {
        f16_to_f32_raw(code)
    }
}

impl Element for Bf16 {
    const LEAST_EXPONENT: i32 = -126;
    // They may leave the range of f32.
    const EXACT_PRODUCTS: bool = false;

    #[inline(always)]
    fn decode(code: u32) -> f32 {
        bf16_to_f32(code as u16)
    }
}

impl Element for E4m3 {
    const LEAST_EXPONENT: i32 = -6;
    const EXACT_PRODUCTS: bool = true;

    #[inline(always)]
    fn decode(code: u32) -> f32 {
        e4m3_to_f32(code as u8)
    }
}

impl Element for E5m2 {
    const LEAST_EXPONENT: i32 = -14;
    const EXACT_PRODUCTS: bool = true;

    #[inline(always)]
    fn decode(code: u32) -> f32 {
        e5m2_to_f32(code as u8)
    }
}
