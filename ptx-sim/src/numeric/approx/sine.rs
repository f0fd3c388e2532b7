//! Sine and cosine.
//!
//! The argument becomes a fixed-point number of turns as on hardware, which divides it by a rounded 2 pi and drops
//! what lies below 2^-25 turns (seen on an H200): so the error is absolute, and grows with the argument as there.

use crate::numeric::{NAN, Rounding};

/// (-1)^n / (2n + 1)!: the Taylor series of the sine.
const TERMS: [f64; 8] = terms();

const fn terms() -> [f64; 8] {
    let mut terms = [1.0; 8];
    let mut n = 1;
    while n < terms.len() {
        terms[n] = -terms[n - 1] / (2 * n * (2 * n + 1)) as f64;
        n += 1;
    }
    terms
}

/// `sin.approx.f32`.
#[inline(always)]
pub(crate) fn sin(x: f32) -> f32 {
    turn(x, 0, quarter)
}

/// `cos.approx.f32`.
#[inline(always)]
pub(crate) fn cos(x: f32) -> f32 {
    turn(x, 1, quarter)
}

/// Sine of `angle` / 2^23 of a quarter turn.
#[inline(always)]
fn quarter(angle: u32) -> f32 {
    let angle = angle as f64 * (core::f64::consts::FRAC_PI_2 / (1 << 23) as f64);
    let square = angle * angle;
    let mut sine = TERMS[7];
    for n in (0..7).rev() {
        sine = sine * square + TERMS[n];
    }
    (sine * angle) as f32
}

/// Sine or, with one quarter more, cosine of `x`; `sine` is that of 2^-23 quarter turns.
#[inline(always)]
pub(super) fn turn(x: f32, quarters: u32, sine: impl Fn(u32) -> f32) -> f32 {
    const TURN: f32 = 0.15915494;
    let turns = Rounding::Zero.to_f32(x.abs() as f64 * TURN as f64);
    // From here on f32 has whole numbers only.
    let turns = if turns < (1 << 24) as f32 { turns as f64 } else { 0.0 };
    let fixed = (turns * (1 << 25) as f64) as u64 as u32;
    let quadrant = (fixed >> 23).wrapping_add(quarters);
    // Falling quarters are read backwards, by a complement.
    let angle = if quadrant & 1 == 0 { fixed } else { !fixed };
    let value = sine(angle & 0x7f_ffff);
    // The sine is odd, the cosine even.
    let negative = (quadrant & 2 != 0) != (quarters == 0 && x.is_sign_negative());
    let value = if negative { -value } else { value };
    if x.is_finite() { value } else { NAN }
}
