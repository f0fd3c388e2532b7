//! Arithmetic on two 16-bit floats in a register: `f16x2` and `bf16x2`, each half rounded once.

use super::arith::{add_f32, max_f32, max_nan_f32, min_f32, min_nan_f32, mul_f32, sub_f32};
use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::round::{add_to_odd, f32_to_odd};
use super::saturate;

/// A 16-bit format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Half {
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Half {
    /// The number behind a code.
    #[inline(always)]
    pub(crate) fn decode(self, code: u16) -> f32 {
        match self {
            Half::F16 => f16_to_f32(code),
            Half::Bf16 => bf16_to_f32(code),
        }
    }

    /// The code nearest to a number.
    #[inline(always)]
    pub(crate) fn encode(self, x: f32) -> u16 {
        match self {
            Half::F16 => f32_to_f16(x),
            Half::Bf16 => f32_to_bf16(x),
        }
    }

    /// `f` on both halves, rounded to nearest.
    #[inline(always)]
    pub(crate) fn map(self, x: u32, f: impl Fn(f32) -> f32) -> u32 {
        both(
            #[inline(always)]
            |shift| self.encode(f(self.decode((x >> shift) as u16))),
        )
    }

    /// `f` on both halves of two operands.
    #[inline(always)]
    fn map2(self, a: u32, b: u32, f: impl Fn(f32, f32) -> f32) -> u32 {
        both(
            #[inline(always)]
            |shift| self.encode(f(self.decode((a >> shift) as u16), self.decode((b >> shift) as u16))),
        )
    }

    /// `f` on both halves of three operands.
    #[inline(always)]
    fn map3(self, a: u32, b: u32, c: u32, f: impl Fn(f32, f32, f32) -> f32) -> u32 {
        both(
            #[inline(always)]
            |shift| {
                let (a, b) = (self.decode((a >> shift) as u16), self.decode((b >> shift) as u16));
                self.encode(f(a, b, self.decode((c >> shift) as u16)))
            },
        )
    }

    /// `neg`.
    #[inline(always)]
    pub(crate) fn neg(self, x: u32) -> u32 {
        self.map(x, |x| -x)
    }

    /// `abs`.
    #[inline(always)]
    pub(crate) fn abs(self, x: u32) -> u32 {
        self.map(x, f32::abs)
    }

    /// `.sat`: into [0, 1]; NaN becomes 0.
    #[inline(always)]
    pub(crate) fn saturate(self, x: u32) -> u32 {
        self.map(x, saturate)
    }

    /// The smallest normal number.
    #[inline(always)]
    fn least(self) -> f32 {
        match self {
            Half::F16 => f32::from_bits((127 - 14) << 23),
            Half::Bf16 => f32::MIN_POSITIVE,
        }
    }

    /// `.ftz` on an operand or a result other than that of `mul` and `fma`: a subnormal becomes the zero of its sign.
    #[inline(always)]
    pub(crate) fn ftz(self, x: u32) -> u32 {
        self.map(x, |x| if x.abs() < self.least() { 0f32.copysign(x) } else { x })
    }

    /// `mul.ftz`.
    #[inline(always)]
    pub(crate) fn mul_ftz(self, a: u32, b: u32) -> u32 {
        self.map2(self.ftz(a), self.ftz(b), |a, b| self.flush(f32_to_odd(a as f64 * b as f64)))
    }

    /// `fma.ftz`.
    #[inline(always)]
    pub(crate) fn fma_ftz(self, a: u32, b: u32, c: u32) -> u32 {
        let fma = |a: f32, b: f32, c: f32| self.flush(f32_to_odd(add_to_odd(a as f64 * b as f64, c as f64)));
        self.map3(self.ftz(a), self.ftz(b), self.ftz(c), fma)
    }

    /// A zero if `x`, exact or rounded to odd, does not round up to a normal number in as many bits.
    #[inline(always)]
    fn flush(self, x: f32) -> f32 {
        let least = match self {
            Half::F16 => self.least() * (1.0 - 1.0 / (1 << 12) as f32),
            Half::Bf16 => self.least() * (1.0 - 1.0 / (1 << 9) as f32),
        };
        if x.abs() < least { 0f32.copysign(x) } else { x }
    }

    /// `.relu`: a half below zero becomes +0; NaN stays.
    #[inline(always)]
    pub(crate) fn relu(self, x: u32) -> u32 {
        self.map(x, super::half::relu)
    }

    /// `add`. The f32 sum has more than twice the bits of the result, so rounding it again does no harm (Figueroa,
    /// "When is double rounding innocuous?", 1995).
    #[inline(always)]
    pub(crate) fn add(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, add_f32)
    }

    /// `sub`.
    #[inline(always)]
    pub(crate) fn sub(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, sub_f32)
    }

    /// `mul`: the product is exact in f32, but for bf16 below its smallest normal numbers.
    #[inline(always)]
    pub(crate) fn mul(self, a: u32, b: u32) -> u32 {
        match self {
            Half::F16 => self.map2(a, b, mul_f32),
            Half::Bf16 => self.map2(a, b, |a, b| f32_to_odd(a as f64 * b as f64)),
        }
    }

    /// `fma`.
    #[inline(always)]
    pub(crate) fn fma(self, a: u32, b: u32, c: u32) -> u32 {
        self.map3(a, b, c, |a, b, c| f32_to_odd(add_to_odd(a as f64 * b as f64, c as f64)))
    }

    /// `max`, a NaN dropped.
    #[inline(always)]
    pub(crate) fn max(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, max_f32)
    }

    /// `min`, a NaN dropped.
    #[inline(always)]
    pub(crate) fn min(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, min_f32)
    }

    /// `max.NaN`.
    #[inline(always)]
    pub(crate) fn max_nan(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, max_nan_f32)
    }

    /// `min.NaN`.
    #[inline(always)]
    pub(crate) fn min_nan(self, a: u32, b: u32) -> u32 {
        self.map2(a, b, min_nan_f32)
    }
}

/// The codes that `f` gives for the lower and, shifted by 16, the upper half.
#[inline(always)]
pub(super) fn both(f: impl Fn(u32) -> u16) -> u32 {
    f(0) as u32 | (f(16) as u32) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::Rounding;
    use crate::numeric::half::{f64_to_bf16, f64_to_f16};
    use crate::numeric::testing::Random;

    fn rounded(format: Half, exact: f64) -> u16 {
        let code = match format {
            Half::F16 => f64_to_f16(exact, Rounding::Nearest),
            Half::Bf16 => f64_to_bf16(exact, Rounding::Nearest),
        };
        if exact.is_nan() { 0x7fff } else { code }
    }

    #[test]
    fn both_halves_are_rounded_once() {
        let mut random = Random::new(10);
        for format in [Half::F16, Half::Bf16] {
            for round in 0..300_000 {
                let [x, y, z] = [(); 3].map(|()| random.next() as u32);
                // Every other time of like size, so that sums and products of all three meet.
                let [x, y, z] =
                    if round % 2 == 0 { [x, y, z] } else { [x, y, z].map(|x| x & 0x87ff_87ff | 0x3800_3800) };
                let decode = |x: u32| format.decode(x as u16) as f64;
                let (a, b, c) = (decode(x), decode(y), decode(z));
                let low = |x: u32| x as u16;
                assert_eq!(low(format.add(x, y)), rounded(format, a + b), "{format:?} {x:x} + {y:x}");
                assert_eq!(low(format.sub(x, y)), rounded(format, a - b), "{format:?} {x:x} - {y:x}");
                assert_eq!(low(format.mul(x, y)), rounded(format, a * b), "{format:?} {x:x} * {y:x}");
                assert_eq!(low(format.fma(x, y, z)), rounded(format, add_to_odd(a * b, c)), "{x:x} * {y:x} + {z:x}");
                // The upper halves likewise.
                let swap = |x: u32| x.rotate_left(16);
                assert_eq!(swap(format.fma(x, y, z)), format.fma(swap(x), swap(y), swap(z)));
            }
        }
    }

    #[test]
    fn changes_of_one_operand_touch_only_what_they_should() {
        // -1, 2; a NaN, the largest subnormal.
        let (numbers, edges) = (0xbc00_4000, 0xfe01_03ff);
        let all = |f: fn(Half, u32) -> u32| [f(Half::F16, numbers), f(Half::F16, edges)];
        assert_eq!(all(Half::neg), [0x3c00_c000, 0x7fff_83ff]);
        assert_eq!(all(Half::abs), [0x3c00_4000, 0x7fff_03ff]);
        assert_eq!(all(Half::saturate), [0x0000_3c00, 0x0000_03ff]);
        assert_eq!(all(Half::relu), [0x0000_4000, 0x7fff_03ff]);
        assert_eq!(all(Half::ftz), [numbers, 0x7fff_0000]);
    }
}
