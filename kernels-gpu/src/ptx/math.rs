//! Arithmetic that Rust has no operator for.

use core::arch::asm;

/// `ex2.approx.ftz.f32`: 2^x within 2 ulp (PTX ISA); 2^-inf is 0.
#[inline(always)]
pub fn ex2(x: f32) -> f32 {
    let y;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("ex2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack)) }
    y
}

/// `lg2.approx.ftz.f32`: log2(x); log2(0) is -inf.
#[inline(always)]
pub fn lg2(x: f32) -> f32 {
    let y;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("lg2.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack)) }
    y
}

/// `rcp.approx.ftz.f32`: 1/x within 1 ulp.
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    let y;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("rcp.approx.ftz.f32 {}, {};", out(reg32) y, in(reg32) x, options(pure, nomem, nostack)) }
    y
}

/// `max.f32`: the larger of two; a NaN loses against a number.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    let c;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("max.f32 {}, {}, {};", out(reg32) c, in(reg32) a, in(reg32) b, options(pure, nomem, nostack)) }
    c
}

/// `min.f32`: the smaller of two; a NaN loses against a number.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    let c;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("min.f32 {}, {}, {};", out(reg32) c, in(reg32) a, in(reg32) b, options(pure, nomem, nostack)) }
    c
}

/// `add.rp.f32`: a + b rounded up.
#[inline(always)]
pub fn add_up(a: f32, b: f32) -> f32 {
    let c;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("add.rp.f32 {}, {}, {};", out(reg32) c, in(reg32) a, in(reg32) b, options(pure, nomem, nostack)) }
    c
}

/// `fma.rn.f32`: a * b + c, rounded once. rustc does not contract the operators.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let d;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "fma.rn.f32 {}, {}, {}, {};",
            out(reg32) d, in(reg32) a, in(reg32) b, in(reg32) c, options(pure, nomem, nostack),
        );
    }
    d
}

/// `sub.u32`: `x - 1`. LLVM does not look into it, and so neither knows how often a loop runs that counts with it, nor
/// unrolls the loop.
#[inline(always)]
pub fn count_down(x: u32) -> u32 {
    let y;
    // SAFETY: arithmetic on registers.
    unsafe { asm!("sub.u32 {}, {}, 1;", out(reg32) y, in(reg32) x, options(pure, nomem, nostack)) }
    y
}
