//! Rounding in the four directions, from a result rounded to nearest and the sign of its error.

/// Direction of rounding of a floating-point result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Rounding {
    /// `.rn`: to nearest, ties to even.
    #[default]
    Nearest,
    /// `.rz`: toward zero.
    Zero,
    /// `.rm`: toward minus infinity.
    Down,
    /// `.rp`: toward plus infinity.
    Up,
}

impl Rounding {
    /// Step from `nearest`, a result rounded to nearest, to the result in this direction, in units of the last place
    /// of the magnitude. `error` has the sign of (exact result - `nearest`), and is zero if that is exact.
    #[inline(always)]
    pub(crate) fn step(self, nearest_is_negative: bool, error: f64) -> i32 {
        // Whether the exact result is smaller in magnitude than the nearest.
        let inward = if nearest_is_negative { error > 0.0 } else { error < 0.0 };
        let outward = if nearest_is_negative { error < 0.0 } else { error > 0.0 };
        match self {
            Rounding::Nearest => 0,
            Rounding::Zero => -(inward as i32),
            Rounding::Down if nearest_is_negative => outward as i32,
            Rounding::Down => -(inward as i32),
            Rounding::Up if nearest_is_negative => -(inward as i32),
            Rounding::Up => outward as i32,
        }
    }

    /// `nearest` moved to this direction; an infinity that stands for a finite overflow becomes the largest number.
    #[inline(always)]
    pub(crate) fn apply(self, nearest: f32, error: f64) -> f32 {
        let step = self.step(nearest.is_sign_negative(), error);
        f32::from_bits(nearest.to_bits().wrapping_add_signed(step))
    }

    /// `x` to f32; `x` is exact or rounded to odd.
    #[inline(always)]
    pub(crate) fn to_f32(self, x: f64) -> f32 {
        let nearest = x as f32;
        self.apply(nearest, x - nearest as f64)
    }
}

/// `p + c` rounded to odd: the last bit is set if anything was lost, so that a later rounding to fewer bits is right.
///
/// Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008; the error of the
/// sum by Knuth's TwoSum. Free of branches.
#[inline(always)]
pub(crate) fn add_to_odd(p: f64, c: f64) -> f64 {
    let sum = p + c;
    let c_part = sum - p;
    let error = (p - (sum - c_part)) + (c - c_part);
    // NaN if the sum is not finite: then nothing is to be done, and `<` says so.
    let inexact = error.abs() > 0.0;
    let even = sum.to_bits() & 1 == 0;
    // The neighbour on the side of the error is odd: one up if the signs agree, one down if not.
    let toward = 1 - ((sum.to_bits() ^ error.to_bits()) >> 63 << 1) as i64;
    let step = if inexact & even { toward } else { 0 };
    f64::from_bits(sum.to_bits().wrapping_add_signed(step))
}

/// `x` rounded to f32 to odd.
#[inline(always)]
pub(crate) fn f32_to_odd(x: f64) -> f32 {
    let toward_zero = Rounding::Zero.to_f32(x);
    let inexact = (toward_zero as f64 != x) & !x.is_nan();
    f32::from_bits(toward_zero.to_bits() | inexact as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{NASTY, Random};

    #[test]
    fn directed_roundings_enclose_the_exact_value() {
        let mut random = Random::new(1);
        for _ in 0..200_000 {
            let x = f64::from_bits(random.next() & !(0x7ff << 52) | (random.next() % 300 + 860) << 52);
            let [n, z, d, u] =
                [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up].map(|r| r.to_f32(x) as f64);
            assert!(d <= x && x <= u && (n == d || n == u) && z == if x < 0.0 { u } else { d }, "{x:e}");
            let exact = (x as f32) as f64 == x;
            assert_eq!(exact, d == u);
            let next = if d.is_finite() { (d as f32).next_up() as f64 } else { -f32::MAX as f64 };
            assert!(exact || next == u, "{x:e} {d:e} {u:e}");
        }
    }

    #[test]
    fn a_finite_overflow_toward_zero_is_the_largest_number_and_infinity_stays() {
        assert_eq!(Rounding::Zero.to_f32(1e300), f32::MAX);
        assert_eq!(Rounding::Down.to_f32(-1e300), f32::NEG_INFINITY);
        assert_eq!(Rounding::Up.to_f32(-1e300), -f32::MAX);
        assert_eq!(Rounding::Zero.to_f32(f64::INFINITY), f32::INFINITY);
    }

    #[test]
    fn rounding_to_odd_keeps_exact_sums_and_marks_others() {
        assert_eq!(add_to_odd(1.0, 2.0), 3.0);
        assert_eq!(add_to_odd(1.0, 1e-30).to_bits(), 1f64.to_bits() + 1);
        assert_eq!(add_to_odd(1.0, -1e-30).to_bits(), 1f64.to_bits() - 1);
        assert_eq!(add_to_odd(-1.0, 1e-30).to_bits(), (-1f64).to_bits() - 1);
        assert_eq!(f32_to_odd(1.0 + 1e-12).to_bits(), 1f32.to_bits() + 1);
        for &bits in &NASTY {
            let x = f32::from_bits(bits);
            assert!(x.is_nan() || f32_to_odd(x as f64).to_bits() == bits);
        }
    }
}
