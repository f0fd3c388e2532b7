//! Conversions between integers and floating point.

use super::half::{f32_to_bf16_in, f32_to_f16_in};
use super::round::f32_to_odd;
use super::{Rounding, canonical};

/// Direction of rounding to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Integral {
    /// `.rni`: to nearest, ties to even.
    Nearest,
    /// `.rzi`: toward zero.
    Zero,
    /// `.rmi`: toward minus infinity.
    Down,
    /// `.rpi`: toward plus infinity.
    Up,
}

impl Integral {
    /// `x` without a fraction.
    #[inline(always)]
    pub(crate) fn round(self, x: f64) -> f64 {
        match self {
            Integral::Nearest => x.round_ties_even(),
            Integral::Zero => x.trunc(),
            Integral::Down => x.floor(),
            Integral::Up => x.ceil(),
        }
    }

    /// `cvt.f32.f32` with an integer rounding.
    #[inline(always)]
    pub(crate) fn round_f32(self, x: f32) -> f32 {
        canonical(self.round(x as f64) as f32)
    }
}

/// `cvt` from floating point to a signed or unsigned integer of `bits` bits, which clamps to its range.
///
/// NaN is 0, but for a 64-bit side (`from_f64` or 64-bit result): then only the top bit is set (PTX ISA, "cvt").
pub(crate) fn to_integer(x: f64, rounding: Integral, signed: bool, bits: u32, from_f64: bool) -> u64 {
    if x.is_nan() {
        return if from_f64 || bits == 64 { 1 << (bits - 1) } else { 0 };
    }
    let (low, high) = if signed { (-1i128 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    let clamped = (rounding.round(x) as i128).clamp(low, high);
    clamped as u64 & (u64::MAX >> (64 - bits))
}

/// `cvt` from an integer to f32.
pub(crate) fn to_f32(x: i128, rounding: Rounding) -> f32 {
    let nearest = x as f32;
    rounding.apply(nearest, (x - nearest as i128) as f64)
}

/// `cvt` from an integer to f64.
pub(crate) fn to_f64(x: i128, rounding: Rounding) -> f64 {
    let nearest = x as f64;
    let step = rounding.step(nearest < 0.0, (x - nearest as i128) as f64);
    f64::from_bits(nearest.to_bits().wrapping_add_signed(step as i64))
}

/// `cvt` from an integer to f16.
pub(crate) fn to_f16(x: i128, rounding: Rounding) -> u16 {
    f32_to_f16_in(to_odd_f32(x), rounding)
}

/// `cvt` from an integer to bf16.
pub(crate) fn to_bf16(x: i128, rounding: Rounding) -> u16 {
    f32_to_bf16_in(to_odd_f32(x), rounding)
}

/// `x` rounded to odd.
fn to_odd_f32(x: i128) -> f32 {
    let toward_zero = to_f64(x, Rounding::Zero);
    let inexact = toward_zero as i128 != x;
    f32_to_odd(f64::from_bits(toward_zero.to_bits() | inexact as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{NASTY, Random};

    #[test]
    fn conversions_to_integers_clamp_as_casts_do() {
        let mut random = Random::new(5);
        let values = (0..100_000).map(|_| random.near_one(66)).chain(NASTY.map(f32::from_bits));
        for x in values.filter(|x| !x.is_nan()) {
            let convert = |signed, bits| to_integer(x as f64, Integral::Zero, signed, bits, false);
            assert_eq!(convert(true, 32), x as i32 as u32 as u64);
            assert_eq!(convert(false, 32), x as u32 as u64);
            assert_eq!(convert(true, 64), x as i64 as u64);
            assert_eq!(convert(false, 64), x as u64);
            assert_eq!(convert(true, 8), x as i8 as u8 as u64);
            assert_eq!(convert(false, 16), x as u16 as u64);
        }
    }

    #[test]
    fn nan_is_zero_in_32_bits_and_the_top_bit_in_64() {
        assert_eq!(to_integer(f64::NAN, Integral::Zero, true, 32, false), 0);
        assert_eq!(to_integer(f64::NAN, Integral::Zero, false, 64, false), 1 << 63);
        assert_eq!(to_integer(f64::NAN, Integral::Zero, true, 32, true), 1 << 31);
    }

    #[test]
    fn integral_roundings_differ_in_ties_and_signs() {
        let round = |x| {
            [Integral::Nearest, Integral::Zero, Integral::Down, Integral::Up]
                .map(|r| to_integer(x, r, true, 32, false) as i32)
        };
        assert_eq!(round(2.5), [2, 2, 2, 3]);
        assert_eq!(round(3.5), [4, 3, 3, 4]);
        assert_eq!(round(-2.5), [-2, -2, -3, -2]);
        assert_eq!(round(-0.75), [-1, 0, -1, 0]);
    }

    #[test]
    fn integers_round_in_the_direction_asked_for() {
        let mut random = Random::new(6);
        for _ in 0..200_000 {
            let x = (random.next() >> (random.next() % 64)) as i128 * if random.next() >> 63 == 0 { 1 } else { -1 };
            assert_eq!(to_f32(x, Rounding::Nearest), x as f32);
            let (down, up) = (to_f32(x, Rounding::Down), to_f32(x, Rounding::Up));
            assert!(down as i128 <= x && x <= up as i128 && (down == up || up == down.next_up()), "{x}");
            assert_eq!(down == up, x as f32 as i128 == x);
            assert_eq!(to_f32(x, Rounding::Zero), if x < 0 { up } else { down });
            assert_eq!(to_f64(x, Rounding::Nearest), x as f64);
            let (down, up) = (to_f64(x, Rounding::Down), to_f64(x, Rounding::Up));
            assert!(down as i128 <= x && x <= up as i128, "{x}");
        }
    }

    #[test]
    fn integers_round_once_to_16_bits() {
        for x in -70_000..70_000i128 {
            assert_eq!(to_f16(x, Rounding::Nearest), half::f16::from_f64(x as f64).to_bits());
            assert_eq!(to_bf16(x, Rounding::Nearest), half::bf16::from_f64(x as f64).to_bits());
        }
    }
}
