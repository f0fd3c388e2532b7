//! Conversions between f32 and pairs of 16-bit elements; the first of a pair is the lower half.
//!
//! Packing is not `pure`: LLVM would move it behind the branch that asks whether a step counts, and away from the products
//! beside which it costs nothing.

use core::arch::asm;

/// `cvt.rn.f16x2.f32`.
#[inline(always)]
pub fn pack_f16(low: f32, high: f32) -> u32 {
    let pair;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "cvt.rn.f16x2.f32 {}, {}, {};",
            out(reg32) pair, in(reg32) high, in(reg32) low, options(nomem, nostack),
        );
    }
    pair
}

/// `cvt.rn.bf16x2.f32`.
#[inline(always)]
pub fn pack_bf16(low: f32, high: f32) -> u32 {
    let pair;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "cvt.rn.bf16x2.f32 {}, {}, {};",
            out(reg32) pair, in(reg32) high, in(reg32) low, options(nomem, nostack),
        );
    }
    pair
}

/// `cvt.f32.f16` of both halves.
#[inline(always)]
pub fn unpack_f16(pair: u32) -> [f32; 2] {
    let (low, high);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {2}; cvt.f32.f16 {0}, l; cvt.f32.f16 {1}, h; }}",
            out(reg32) low, out(reg32) high, in(reg32) pair, options(nomem, nostack),
        );
    }
    [low, high]
}

/// The upper half of an f32 is its bfloat16: widening is a shift.
#[inline(always)]
pub fn unpack_bf16(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}
