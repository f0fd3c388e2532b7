//! The element type e4m3: codes and conversions (PTX ISA, "Alternate floating-point data formats").

use std::fmt;

/// A floating-point number of 8 bits: sign, four bits of exponent with bias 7, three of mantissa.
///
/// It has no infinity. The codes 0x7f and 0xff are not numbers; the largest number is 448, the least positive one 2^-9.
/// The memory of a slice of them is that of the codes: `bytemuck::cast_slice` makes bytes of it, and candle's F8E4M3.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct E4m3(u8);

/// Bits of the mantissa that f32 has and e4m3 does not.
const DROPPED: u32 = f32::MANTISSA_DIGITS - 1 - 3;
/// 2^-6, the least number with an implicit bit.
const LEAST_NORMAL: f32 = 0.015625;
/// Numbers of this size have a last place of 2^-9, the distance of two e4m3 numbers below 2^-6.
const ROUNDER: f32 = 16384.0;

impl E4m3 {
    /// The largest number.
    pub const MAX: f32 = 448.0;
    /// The NaN that conversions give.
    pub const NAN: Self = Self(0x7f);

    /// The number, or NaN, with this code.
    pub const fn from_bits(code: u8) -> Self {
        Self(code)
    }

    /// The code.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// Rounds to nearest, ties to even; what is larger than 448, infinity too, becomes 448 with its sign, and a NaN of
    /// either sign [`E4m3::NAN`]. The very bits of `cvt.rn.satfinite.e4m3x2.f32`.
    #[inline]
    pub const fn from_f32(x: f32) -> Self {
        let (bits, magnitude) = (x.to_bits(), x.to_bits() & 0x7fff_ffff);
        if magnitude > f32::INFINITY.to_bits() {
            return Self::NAN;
        }
        let saturated = if magnitude > Self::MAX.to_bits() { Self::MAX.to_bits() } else { magnitude };
        let code = if saturated < LEAST_NORMAL.to_bits() {
            (f32::from_bits(saturated) + ROUNDER).to_bits() - ROUNDER.to_bits()
        } else {
            // Half of the last place that stays, and one less where that place is even; then the exponent's bias.
            let odd = saturated >> DROPPED & 1;
            ((saturated + (1 << (DROPPED - 1)) - 1 + odd) >> DROPPED) - ((127 - 7) << 3)
        };
        Self((bits >> 24) as u8 & 0x80 | code as u8)
    }

    /// The number itself: exact.
    #[inline]
    pub const fn to_f32(self) -> f32 {
        const TABLE: [f32; 256] = table();
        TABLE[self.0 as usize]
    }
}

/// The number behind each code.
const fn table() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = (code as u32 >> 3 & 15, code as u32 & 7);
        let magnitude = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa as f32 / 512.0,
            _ => f32::from_bits((exponent + 127 - 7) << 23 | mantissa << DROPPED),
        };
        table[code] = if code < 128 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

impl fmt::Debug for E4m3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_f32())
    }
}

impl fmt::Display for E4m3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f32(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use float8::F8E4M3;

    /// The crate that candle takes e4m3 from; it keeps the sign of a NaN, which the instruction does not.
    fn by_another_crate(x: f32) -> u8 {
        if x.is_nan() { 0x7f } else { F8E4M3::from_f32(x).to_bits() }
    }

    #[test]
    fn every_code_decodes_by_the_definition_and_comes_back() {
        for code in 0..=u8::MAX {
            let number = E4m3::from_bits(code).to_f32();
            if code & 0x7f == 0x7f {
                assert!(number.is_nan());
                continue;
            }
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7) / 8.0);
            let magnitude = match exponent {
                0 => mantissa * 2f64.powi(-6),
                _ => (1.0 + mantissa) * 2f64.powi(exponent - 7),
            };
            assert_eq!(f64::from(number).to_bits(), magnitude.copysign(if code < 128 { 1.0 } else { -1.0 }).to_bits());
            assert_eq!(E4m3::from_f32(number).to_bits(), code, "{number}");
            assert_eq!(number, F8E4M3::from_bits(code).to_f32());
        }
        assert_eq!(E4m3::from_bits(0x7e).to_f32(), E4m3::MAX);
    }

    #[test]
    fn a_number_becomes_the_nearest_code_and_the_even_one_of_two() {
        for code in 0..0x7e {
            let [low, high] = [code, code + 1].map(|code| E4m3::from_bits(code).to_f32());
            let tie = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            for (x, nearest) in [(tie, even), (tie.next_down(), code), (tie.next_up(), code + 1)] {
                assert_eq!(E4m3::from_f32(x).to_bits(), nearest, "{x:e}");
                assert_eq!(E4m3::from_f32(-x).to_bits(), nearest | 0x80, "{x:e}");
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates_and_nan_is_one_code() {
        for x in [448.0, 464.0, 465.0, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!([x, -x].map(|x| E4m3::from_f32(x).to_bits()), [0x7e, 0xfe], "{x}");
        }
        assert_eq!([f32::NAN, -f32::NAN].map(E4m3::from_f32), [E4m3::NAN; 2]);
    }

    #[test]
    fn conversions_agree_with_another_implementation_on_every_f16_bf16_and_a_lattice_of_f32() {
        let sixteen = (0..=u16::MAX).map(|bits| half::f16::from_bits(bits).to_f32());
        let thirty_two = (0..=u32::MAX).step_by(997).map(f32::from_bits);
        let upper = (0..=u16::MAX).map(|bits| half::bf16::from_bits(bits).to_f32());
        for x in sixteen.chain(upper).chain(thirty_two) {
            assert_eq!(E4m3::from_f32(x).to_bits(), by_another_crate(x), "{x:e} {:#x}", x.to_bits());
        }
    }
}
