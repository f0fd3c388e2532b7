//! Conversions between f32 and pairs of 16-bit elements, or four of 8 bits; the first is the lowest.
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

/// `cvt.rn.satfinite.e4m3x2.f32` (sm_89) twice: four e4m3 elements. Beyond 448 they are 448, a NaN stays one.
#[cfg(any(ada, hopper))]
#[inline(always)]
pub fn pack_e4m3(values: [f32; 4]) -> u32 {
    let word;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{{ .reg .b16 low, high; cvt.rn.satfinite.e4m3x2.f32 low, {2}, {1}; \
             cvt.rn.satfinite.e4m3x2.f32 high, {4}, {3}; mov.b32 {0}, {{low, high}}; }}",
            out(reg32) word, in(reg32) values[0], in(reg32) values[1], in(reg32) values[2], in(reg32) values[3],
            options(nomem, nostack),
        );
    }
    word
}

/// `cvt.rn.f16x2.e4m3x2` of the lower half: its two e4m3 elements as f16.
#[cfg(hopper)]
#[inline(always)]
pub fn unpack_e4m3(pair: u32) -> u32 {
    let word;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{{ .reg .b16 low, high; mov.b32 {{low, high}}, {1}; cvt.rn.f16x2.e4m3x2 {0}, low; }}",
            out(reg32) word, in(reg32) pair, options(nomem, nostack),
        );
    }
    word
}
