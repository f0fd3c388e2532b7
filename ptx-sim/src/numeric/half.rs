//! f16, bf16 and tf32: codes and conversions.

use super::round::f32_to_odd;
use super::{Rounding, canonical};

/// NaN of a conversion to f16 or bf16 (PTX ISA, "cvt").
pub(crate) const NAN16: u16 = 0x7fff;

/// The code of a finite magnitude, rounded to nearest even, in a format of `MANTISSA` stored bits and exponent bias
/// `BIAS`, as if its exponent had no upper end.
#[inline(always)]
pub(super) fn narrow<const MANTISSA: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    let dropped = 23 - MANTISSA;
    let half = (1 << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
    let normal = magnitude.wrapping_add(half).wrapping_sub((127 - BIAS) << 23) >> dropped;
    if BIAS == 127 {
        // f32 has the same exponents, so its subnormals are subnormal here too.
        return normal;
    }
    // The last place of the sum with this power of two is that of the subnormals: the addition rounds.
    let magic = f32::from_bits((127 + 24 - BIAS - MANTISSA) << 23);
    let subnormal = (f32::from_bits(magnitude) + magic).to_bits().wrapping_sub(magic.to_bits());
    if magnitude < (128 - BIAS) << 23 { subnormal } else { normal }
}

/// f16 of `x`, to nearest.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let (bits, magnitude) = (x.to_bits(), x.to_bits() & 0x7fff_ffff);
    let signed = bits >> 16 & 0x8000 | narrow::<10, 15>(magnitude).min(0x7c00);
    (if magnitude > 0x7f80_0000 { NAN16 as u32 } else { signed }) as u16
}

/// bf16 of `x`, to nearest.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let (bits, magnitude) = (x.to_bits(), x.to_bits() & 0x7fff_ffff);
    let signed = bits >> 16 & 0x8000 | narrow::<7, 127>(magnitude);
    (if magnitude > 0x7f80_0000 { NAN16 as u32 } else { signed }) as u16
}

/// The number behind an f16 code.
#[inline(always)]
pub(crate) fn f16_to_f32(code: u16) -> f32 {
    canonical(f16_to_f32_raw(code as u32))
}

/// The number behind an f16 code in the low half of `code`; a NaN keeps its bits.
#[inline(always)]
pub(crate) fn f16_to_f32_raw(code: u32) -> f32 {
    // Sign, exponent and mantissa in their places; the exponent still counts from that of f16.
    let placed = ((code << 16) as i32 >> 3) as u32 & 0x8fff_e000;
    let magnitude = placed & 0x0fff_e000;
    let normal = f32::from_bits(magnitude.wrapping_add((127 - 15) << 23));
    // That gave a subnormal an implicit bit and one exponent too few: twice it, less that bit.
    let subnormal = if magnitude < 1 << 23 { normal - f32::from_bits((127 - 14) << 23) } else { 0.0 };
    // Infinity and NaN take the last exponent of f32.
    let special = if magnitude >= 31 << 23 { (127 - 15) << 23 } else { 0 };
    f32::from_bits((normal + subnormal).to_bits().wrapping_add(special) | placed & 0x8000_0000)
}

/// The number behind a bf16 code: its bits on top, a NaN as it is.
#[inline(always)]
pub(crate) fn bf16_to_f32(code: u16) -> f32 {
    f32::from_bits((code as u32) << 16)
}

/// NaN of a conversion to tf32.
const NAN_TF32: f32 = f32::from_bits(0x7fff_e000);

/// tf32 of `x`, to nearest: f32 bits with the low 13 clear.
#[inline(always)]
pub(crate) fn f32_to_tf32(x: f32) -> f32 {
    let bits = x.to_bits();
    let signed = bits & 0x8000_0000 | narrow::<10, 127>(bits & 0x7fff_ffff) << 13;
    if x.is_nan() { NAN_TF32 } else { f32::from_bits(signed) }
}

/// tf32 of `x`, to nearest, ties away from zero (`.rna`); infinity and NaN only lose their low bits.
#[inline(always)]
pub(crate) fn f32_to_tf32_away(x: f32) -> f32 {
    let half = if x.is_finite() { 0x1000 } else { 0 };
    f32::from_bits((x.to_bits() + half) & !0x1fff)
}

/// `.relu`: anything below zero becomes +0; NaN stays.
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x > 0.0 || x.is_nan() { x } else { 0.0 }
}

/// f16 of `x` in any direction.
pub(crate) fn f32_to_f16_in(x: f32, rounding: Rounding) -> u16 {
    let code = f32_to_f16(x);
    step(code, rounding, x as f64 - f16_to_f32(code) as f64)
}

/// bf16 of `x` in any direction.
pub(crate) fn f32_to_bf16_in(x: f32, rounding: Rounding) -> u16 {
    let code = f32_to_bf16(x);
    step(code, rounding, x as f64 - bf16_to_f32(code) as f64)
}

/// tf32 of `x` in any direction.
pub(crate) fn f32_to_tf32_in(x: f32, rounding: Rounding) -> f32 {
    let nearest = f32_to_tf32(x);
    let step = rounding.step(nearest.is_sign_negative(), x as f64 - nearest as f64);
    f32::from_bits(nearest.to_bits().wrapping_add_signed(step << 13))
}

fn step(code: u16, rounding: Rounding, error: f64) -> u16 {
    code.wrapping_add_signed(rounding.step(code >> 15 == 1, error) as i16)
}

/// `.satfinite` for f16: no infinity, the largest number instead; NaN stays.
#[inline(always)]
pub(crate) fn satfinite_f16(code: u16) -> u16 {
    if code & 0x7fff == 0x7c00 { code - 1 } else { code }
}

/// `.satfinite` for bf16: no infinity, the largest number instead; NaN stays.
#[inline(always)]
pub(crate) fn satfinite_bf16(code: u16) -> u16 {
    if code & 0x7fff == 0x7f80 { code - 1 } else { code }
}

/// f16 of `x`, rounded once. A NaN keeps its sign (seen on an H200).
pub(crate) fn f64_to_f16(x: f64, rounding: Rounding) -> u16 {
    if x.is_nan() { signed_nan(x) } else { f32_to_f16_in(f32_to_odd(x), rounding) }
}

/// bf16 of `x`, rounded once. A NaN keeps its sign (seen on an H200).
pub(crate) fn f64_to_bf16(x: f64, rounding: Rounding) -> u16 {
    if x.is_nan() { signed_nan(x) } else { f32_to_bf16_in(f32_to_odd(x), rounding) }
}

fn signed_nan(x: f64) -> u16 {
    ((x.to_bits() >> 48) as u16 & 0x8000) | NAN16
}

/// f32 of `x`, rounded once. A NaN keeps its sign and the upper bits of its payload (seen on an H200).
pub(crate) fn f64_to_f32(x: f64, rounding: Rounding) -> f32 {
    let nan = ((x.to_bits() >> 32) as u32 & 0x8000_0000) | 0x7fc0_0000 | ((x.to_bits() >> 29) as u32 & 0x7f_ffff);
    if x.is_nan() { f32::from_bits(nan) } else { rounding.to_f32(x) }
}

/// f64 of `x`. A NaN keeps its sign and payload (seen on an H200).
pub(crate) fn f32_to_f64(x: f32) -> f64 {
    let bits = x.to_bits() as u64;
    let nan = ((bits & 0x8000_0000) << 32) | (0x7ff8 << 48) | ((bits & 0x7f_ffff) << 29);
    if x.is_nan() { f64::from_bits(nan) } else { x as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{NASTY, Random};

    /// All f16 or bf16 codes beside each other: `x` is rounded right if no neighbour of `code` is closer.
    fn patterns() -> impl Iterator<Item = f32> {
        let mut random = Random::new(2);
        let around = (0..=u16::MAX).flat_map(|code| {
            let ends = [half::f16::from_bits(code).to_f32(), half::bf16::from_bits(code).to_f32()];
            ends.into_iter().flat_map(|x| (-2i32..=2).map(move |d| x.to_bits().wrapping_add_signed(d)))
        });
        // Halfway between two codes and beside it.
        let ties = (0..=u16::MAX).flat_map(|code| {
            let f16 = half::f16::from_bits(code).to_f32().to_bits().wrapping_add(0x1000);
            let bf16 = (code as u32) << 16 | 0x8000;
            [f16, bf16].into_iter().flat_map(|x| (-1i32..=1).map(move |d| x.wrapping_add_signed(d)))
        });
        let subnormal_ties = (0..0x400u32).flat_map(|code| {
            let x = ((code as f32 + 0.5) * 2f32.powi(-24)).to_bits();
            [x - 1, x, x + 1]
        });
        let random = (0..300_000).map(move |_| random.f32().to_bits());
        around.chain(ties).chain(subnormal_ties).chain(random).chain(NASTY).map(f32::from_bits)
    }

    #[test]
    fn f16_codes_decode_as_in_half() {
        for code in 0..=u16::MAX {
            let want = half::f16::from_bits(code).to_f32();
            let got = f16_to_f32(code);
            assert!(got.to_bits() == want.to_bits() || want.is_nan() && got.to_bits() == 0x7fff_ffff, "{code:#x}");
            assert!(want.is_nan() || f32_to_f16(got) == code, "{code:#x}");
        }
    }

    #[test]
    fn bf16_codes_decode_as_in_half() {
        for code in 0..=u16::MAX {
            let want = half::bf16::from_bits(code).to_f32();
            assert!(bf16_to_f32(code).to_bits() == want.to_bits() || want.is_nan(), "{code:#x}");
            assert!(want.is_nan() || f32_to_bf16(want) == code, "{code:#x}");
        }
    }

    #[test]
    fn conversions_to_16_bit_round_as_in_half() {
        for x in patterns() {
            let (f16, bf16) = (half::f16::from_f32(x), half::bf16::from_f32(x));
            assert_eq!(f32_to_f16(x), if x.is_nan() { NAN16 } else { f16.to_bits() }, "{:#x}", x.to_bits());
            assert_eq!(f32_to_bf16(x), if x.is_nan() { NAN16 } else { bf16.to_bits() }, "{:#x}", x.to_bits());
        }
    }

    #[test]
    fn rounding_toward_zero_drops_bits() {
        for x in patterns().filter(|x| !x.is_nan()) {
            let bits = x.to_bits();
            assert_eq!(f32_to_bf16_in(x, Rounding::Zero), (bits >> 16) as u16);
            assert_eq!(f32_to_tf32_in(x, Rounding::Zero).to_bits(), bits & !0x1fff);
            let code = f32_to_f16_in(x, Rounding::Zero);
            let (at, above) = (f16_to_f32(code).abs(), f16_to_f32(code + 1).abs());
            assert!(at <= x.abs() && (x.abs() < above || x.is_infinite()) || code & 0x7fff == 0x7bff, "{bits:#x}");
        }
    }

    #[test]
    fn up_and_down_mirror_each_other_and_enclose() {
        for x in patterns().filter(|x| !x.is_nan()) {
            let (down, up) = (f32_to_f16_in(x, Rounding::Down), f32_to_f16_in(x, Rounding::Up));
            assert_eq!(down ^ 0x8000, f32_to_f16_in(-x, Rounding::Up));
            assert!(f16_to_f32(down) <= x && x <= f16_to_f32(up));
        }
    }

    #[test]
    fn f64_is_rounded_once() {
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(f64_to_f16(tie, Rounding::Nearest), 0x3c00);
        assert_eq!(f64_to_f16(tie + 1e-15, Rounding::Nearest), 0x3c01);
        assert_eq!(f64_to_bf16(1.0 + 2f64.powi(-8) + 1e-15, Rounding::Nearest), 0x3f81);
        assert_eq!(f64_to_f16(f64::NAN, Rounding::Nearest), NAN16);
        for x in patterns() {
            let (f16, bf16) = (f64_to_f16(x as f64, Rounding::Nearest), f64_to_bf16(x as f64, Rounding::Nearest));
            assert!(
                [f16, bf16] == [f32_to_f16(x), f32_to_bf16(x)]
                    || x.is_nan() && [f16 | 0x8000, bf16 | 0x8000] == [0xffff; 2]
            );
        }
    }

    #[test]
    fn satfinite_and_relu_touch_only_what_they_should() {
        assert_eq!(satfinite_f16(f32_to_f16(1e9)), 0x7bff);
        assert_eq!(satfinite_f16(f32_to_f16(-1e9)), 0xfbff);
        assert_eq!(satfinite_bf16(0xff80), 0xff7f);
        assert_eq!(satfinite_f16(NAN16), NAN16);
        assert_eq!(relu(-0.0).to_bits(), 0);
        assert!(relu(f32::NAN).is_nan());
    }
}
