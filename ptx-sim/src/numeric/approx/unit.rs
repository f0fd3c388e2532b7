//! The special function unit of the hardware, bit for bit, and the instructions built on it.
//!
//! The unit takes the upper bits of a mantissa as the row of a table, and 17 lower bits as the argument of a quadratic
//! polynomial whose square is summed from the upper columns of its partial products only (Oberman and Siu, "A
//! high-performance area-efficient multifunction interpolator", ARITH 2005). The rows are the integers that reproduce
//! the results of an H200 for all 2^23 mantissas of every function; there is no other source for them.
//!
//! What an instruction without `.ftz` does around the unit is read off the machine code of ptxas.

use super::tables::{EX2, LG2, RCP, RSQ_EVEN, RSQ_ODD, SIN, SQRT_EVEN, SQRT_ODD, TANH};
use crate::numeric::arith::mul_ftz_f32;
use crate::numeric::{NAN, Rounding, canonical, ftz};

/// A function on one binade, or on several.
pub(super) struct Table {
    /// Trailing zero bits of the constant coefficients, which `rows` leaves out.
    pub(super) grid: u32,
    /// Added to the constant coefficients.
    pub(super) bias: i64,
    /// Fractional bits of the value.
    pub(super) places: i32,
    /// Constant, linear and square coefficient.
    pub(super) rows: &'static [[i32; 3]],
}

impl Table {
    /// The value at `x`, of 17 bits, in a row: an integer of `places` fractional bits.
    #[inline(always)]
    fn at(&self, row: usize, x: u32) -> i64 {
        let [constant, linear, square] = self.rows[row].map(i64::from);
        (constant << self.grid) + self.bias + linear * x as i64 + square * truncated_square(x) as i64
    }

    /// The value at a 23-bit mantissa, of a table with one row for each of its upper bits.
    #[inline(always)]
    fn fixed(&self, mantissa: u32) -> i64 {
        let upper = self.rows.len().ilog2();
        self.at((mantissa >> (23 - upper)) as usize, mantissa << (upper - 6) & 0x1_ffff)
    }

    /// [`Self::fixed`] as a number.
    #[inline(always)]
    fn value(&self, mantissa: u32) -> f64 {
        self.fixed(mantissa) as f64 * power(-self.places)
    }
}

/// `x * x >> 19` of 17 bits, without the partial products in the columns that are shifted out.
#[inline(always)]
fn truncated_square(x: u32) -> u32 {
    let mut sum = 0;
    for i in 2..17 {
        // Products of bit i with itself and, twice each, with the bits above.
        let row = if i < 9 { x >> (18 - i) } else { (x >> (i + 1)) << (2 * i - 17) };
        let diagonal = if i < 10 { 0 } else { 1 << (2 * i - 19) };
        sum += if x >> i & 1 == 1 { row + diagonal } else { 0 };
    }
    sum
}

/// 2^`exponent`.
#[inline(always)]
fn power(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Cut off to f32; a subnormal becomes zero.
#[inline(always)]
fn cut(x: f64) -> f32 {
    ftz(Rounding::Zero.to_f32(x))
}

/// Exponent and mantissa of a positive normal number.
#[inline(always)]
fn split(x: f32) -> (i32, u32) {
    ((x.to_bits() >> 23) as i32 - 127, x.to_bits() & 0x7f_ffff)
}

/// `MUFU.EX2`, which is `ex2.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn ex2_ftz(x: f32) -> f32 {
    if x.is_nan() || x.abs() >= 128.0 {
        return if x.is_nan() {
            NAN
        } else if x > 0.0 {
            f32::INFINITY
        } else {
            0.0
        };
    }
    let magnitude = (x.abs() as f64 * power(23)) as i64;
    // A negative argument is complemented, unless it is whole.
    let whole = magnitude & 0x7f_ffff == 0;
    let fixed = if x > 0.0 {
        magnitude
    } else if whole {
        -magnitude
    } else {
        !magnitude
    };
    cut(EX2.value(fixed as u32 & 0x7f_ffff) * power((fixed >> 23) as i32))
}

/// `ex2.approx.f32`.
#[inline(always)]
pub(crate) fn ex2(x: f32) -> f32 {
    if x >= -126.0 || x.is_nan() {
        return ex2_ftz(x);
    }
    let root = ex2_ftz(x * 0.5);
    root * root
}

/// `MUFU.LG2`, which is `lg2.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn lg2_ftz(x: f32) -> f32 {
    let x = ftz(x);
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x.is_nan() || x < 0.0 || x == f32::INFINITY {
        return if x > 0.0 { x } else { NAN };
    }
    let (exponent, mantissa) = split(x);
    // The lowest two bits are lost before the exponent is added; below one, the sum is complemented.
    let sum = ((exponent as i64) << (LG2.places - 2)) + (LG2.fixed(mantissa) >> 2);
    let magnitude = if sum < 0 { !sum } else { sum };
    let log = cut(magnitude as f64 * power(2 - LG2.places));
    if x == 1.0 {
        0.0
    } else if sum < 0 {
        -log
    } else {
        log
    }
}

/// `lg2.approx.f32`.
#[inline(always)]
pub(crate) fn lg2(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { lg2_ftz(x * 16777216.0) - 24.0 } else { lg2_ftz(x) }
}

/// `MUFU.RCP`, which is `rcp.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn rcp_ftz(x: f32) -> f32 {
    let magnitude = ftz(x.abs());
    if magnitude.is_nan() {
        return NAN;
    }
    let value = if magnitude == 0.0 {
        f32::INFINITY
    } else if magnitude == f32::INFINITY {
        0.0
    } else {
        let (exponent, mantissa) = split(magnitude);
        cut(RCP.value(mantissa) * power(-exponent))
    };
    value.copysign(x)
}

/// `rcp.approx.f32`.
#[inline(always)]
pub(crate) fn rcp(x: f32) -> f32 {
    let scale = if x.abs() > LARGE {
        0.25
    } else if x.abs() < f32::MIN_POSITIVE {
        16777216.0
    } else {
        1.0
    };
    canonical(rcp_ftz(x * scale) * scale)
}

/// 2^126, above which reciprocals are subnormal.
const LARGE: f32 = f32::from_bits((126 + 127) << 23);

/// `MUFU.RSQ`, which is `rsqrt.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn rsqrt_ftz(x: f32) -> f32 {
    let x = ftz(x);
    if x == 0.0 {
        return f32::INFINITY.copysign(x);
    }
    if x.is_nan() || x < 0.0 || x == f32::INFINITY {
        return if x > 0.0 { 0.0 } else { NAN };
    }
    let (exponent, mantissa) = split(x);
    let value = match (exponent & 1, mantissa) {
        (0, 0) => 1.0,
        (0, _) => RSQ_EVEN.value(mantissa),
        _ => RSQ_ODD.value(mantissa),
    };
    cut(value * power(-(exponent >> 1)))
}

/// `rsqrt.approx.f32`.
#[inline(always)]
pub(crate) fn rsqrt(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { rsqrt_ftz(x * 16777216.0) * 4096.0 } else { rsqrt_ftz(x) }
}

/// `MUFU.SQRT`, which is `sqrt.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn sqrt_ftz(x: f32) -> f32 {
    let x = ftz(x);
    if x == 0.0 || x == f32::INFINITY {
        return x;
    }
    if x.is_nan() || x < 0.0 {
        return NAN;
    }
    let (exponent, mantissa) = split(x);
    let value = if exponent & 1 == 0 { SQRT_EVEN.value(mantissa) } else { SQRT_ODD.value(mantissa) };
    cut(value * power(exponent >> 1))
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { sqrt_ftz(x * 16777216.0) * (1.0 / 4096.0) } else { sqrt_ftz(x) }
}

/// `sin.approx.f32`.
#[inline(always)]
pub(crate) fn sin(x: f32) -> f32 {
    super::sine::turn(x, 0, |angle| cut(SIN.value(angle)))
}

/// `cos.approx.f32`.
#[inline(always)]
pub(crate) fn cos(x: f32) -> f32 {
    super::sine::turn(x, 1, |angle| cut(SIN.value(angle)))
}

/// `tanh.approx.f32`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    /// First row, and lower mantissa bits that are dropped, for every exponent from -8 to 2.
    const PIECES: [(u32, u32); 11] =
        [(0, 6), (1, 6), (2, 6), (3, 5), (5, 5), (7, 4), (11, 4), (15, 4), (19, 3), (27, 2), (43, 3)];
    let (exponent, mantissa) = split(x.abs());
    if x.is_nan() || exponent < -8 {
        return canonical(x);
    }
    let value = match PIECES.get((exponent + 8) as usize) {
        None => 1.0,
        Some((first, dropped)) => {
            let rest = mantissa >> dropped;
            TANH.at((first + (rest >> 17)) as usize, rest & 0x1_ffff) as f64 * power(-TANH.places)
        }
    };
    cut(value).copysign(x)
}

/// `div.full.f32`.
#[inline(always)]
pub(crate) fn div_full(a: f32, b: f32) -> f32 {
    let scale = if b.abs() > LARGE {
        0.25
    } else if b.abs() < f32::MIN_POSITIVE {
        16777216.0
    } else {
        1.0
    };
    canonical(rcp_ftz(b * scale) * (a * scale))
}

/// `div.full.ftz.f32`.
#[inline(always)]
pub(crate) fn div_full_ftz(a: f32, b: f32) -> f32 {
    let scale = if b.abs() > LARGE { 0.25 } else { 1.0 };
    mul_ftz_f32(rcp_ftz(b * scale), mul_ftz_f32(a, scale))
}

/// `div.approx.f32`.
#[inline(always)]
pub(crate) fn div_approx(a: f32, b: f32) -> f32 {
    let scale = if b.abs() < f32::MIN_POSITIVE { 16777216.0 } else { 1.0 };
    canonical(rcp_ftz(b * scale) * (a * scale))
}

/// `div.approx.ftz.f32`.
#[inline(always)]
pub(crate) fn div_approx_ftz(a: f32, b: f32) -> f32 {
    mul_ftz_f32(rcp_ftz(b), a)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results for all mantissas of an exponent, each times an odd number of its own, summed.
    fn sum(f: fn(f32) -> f32, exponent: i32) -> u64 {
        let first = ((127 + exponent) as u32) << 23;
        (0..1 << 23).fold(0, |sum: u64, mantissa| {
            let result = f(f32::from_bits(first | mantissa)).to_bits();
            sum.wrapping_add(result as u64 * (2 * mantissa as u64 + 1))
        })
    }

    #[test]
    fn every_mantissa_gives_the_result_of_the_hardware() {
        // The sums are those of an H200.
        assert_eq!(sum(ex2_ftz, 0), 0x7514_e0e9_17ab_950e);
        assert_eq!(sum(lg2_ftz, 0), 0x0324_1e33_a86b_fa9f);
        assert_eq!(sum(lg2_ftz, -1), 0x2a8b_6cca_ae2b_65bc);
        assert_eq!(sum(rcp_ftz, 0), 0x46f4_2047_e2dd_df03);
        assert_eq!(sum(rsqrt_ftz, 0), 0xfcb3_3e16_4802_0413);
        assert_eq!(sum(rsqrt_ftz, 1), 0x58a2_2bef_4804_d2fa);
        assert_eq!(sum(sqrt_ftz, 0), 0x33dc_1314_03ef_9280);
        assert_eq!(sum(sqrt_ftz, 1), 0x44ed_1f17_3670_8513);
        assert_eq!(sum(sin, 0), 0xf2d6_11b2_176a_0c13);
        assert_eq!(sum(sin, 1), 0xd2f4_638e_95ef_9b79);
        assert_eq!(sum(cos, 0), 0x55d3_1ca3_6ba6_9272);
        assert_eq!(sum(tanh, -1), 0x54c5_201c_a16a_1400);
        assert_eq!(sum(tanh, 0), 0x1af3_eb2e_a024_9200);
    }

    #[test]
    fn the_square_loses_only_what_lies_in_the_lower_columns() {
        for x in 0..1u32 << 17 {
            let exact = ((x as u64 * x as u64) >> 19) as u32;
            let got = truncated_square(x);
            assert!(got <= exact && exact - got <= 8, "{x}");
        }
    }
}
