//! f32 arithmetic in the four roundings, `fma`, minimum and maximum.
//!
//! `.sat` is [`super::saturate`] on the result, `.ftz` is [`super::ftz`] on the operands and on the result, but for
//! products: those are subnormal if they would be below the normal numbers, rounded to as many bits (seen on an H200).

use super::round::add_to_odd;
use super::{NAN, Rounding, canonical, ftz, vectorize};

/// `add.rn.f32`.
#[inline(always)]
pub(crate) fn add_f32(a: f32, b: f32) -> f32 {
    canonical(a + b)
}

/// `sub.rn.f32`.
#[inline(always)]
pub(crate) fn sub_f32(a: f32, b: f32) -> f32 {
    canonical(a - b)
}

/// `mul.rn.f32`.
#[inline(always)]
pub(crate) fn mul_f32(a: f32, b: f32) -> f32 {
    canonical(a * b)
}

/// `div.rn.f32`.
#[inline(always)]
pub(crate) fn div_f32(a: f32, b: f32) -> f32 {
    canonical(a / b)
}

/// `sqrt.rn.f32`.
#[inline(always)]
pub(crate) fn sqrt_f32(x: f32) -> f32 {
    canonical(x.sqrt())
}

/// `fma.rn.f32`: `a * b + c` rounded once. Vectorises without fused instructions.
///
/// The product of two f32 is exact in f64; the sum, rounded to odd at 53 bits, then rounds to 24 as the exact one.
#[inline(always)]
pub(crate) fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    canonical(add_to_odd(a as f64 * b as f64, c as f64) as f32)
}

/// `mul.rn.ftz.f32`.
#[inline(always)]
pub(crate) fn mul_ftz_f32(a: f32, b: f32) -> f32 {
    flush(ftz(a) as f64 * ftz(b) as f64)
}

/// `fma.rn.ftz.f32`.
#[inline(always)]
pub(crate) fn fma_ftz_f32(a: f32, b: f32, c: f32) -> f32 {
    flush(add_to_odd(ftz(a) as f64 * ftz(b) as f64, ftz(c) as f64))
}

/// To nearest, or a zero if `x`, exact or rounded to odd, does not round up to a normal number in 24 bits.
#[inline(always)]
fn flush(x: f64) -> f32 {
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1u64 << 25) as f64);
    canonical(if x.abs() < LEAST { 0f32.copysign(x as f32) } else { x as f32 })
}

/// [`fma_f32`] for the lanes of a warp, in the host's fused instructions if it has them.
pub(crate) fn fma_f32_lanes(a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) -> [u32; 32] {
    vectorize(
        #[inline(always)]
        |fused| {
            let mut d = [0; 32];
            for l in 0..32 {
                let (a, b, c) = (f32::from_bits(a[l]), f32::from_bits(b[l]), f32::from_bits(c[l]));
                d[l] = if fused.0 { canonical(a.mul_add(b, c)) } else { fma_f32(a, b, c) }.to_bits();
            }
            d
        },
    )
}

/// `add.f32` in any direction.
pub(crate) fn add_f32_in(a: f32, b: f32, rounding: Rounding) -> f32 {
    fma_f32_in(a, 1.0, b, rounding)
}

/// `mul.f32` in any direction.
pub(crate) fn mul_f32_in(a: f32, b: f32, rounding: Rounding) -> f32 {
    canonical(rounding.to_f32(a as f64 * b as f64))
}

/// `fma.f32` in any direction.
pub(crate) fn fma_f32_in(a: f32, b: f32, c: f32, rounding: Rounding) -> f32 {
    let (product, c) = (a as f64 * b as f64, c as f64);
    let cancels = product + c == 0.0 && product.is_sign_negative() != c.is_sign_negative();
    if cancels && rounding == Rounding::Down {
        return -0.0;
    }
    canonical(rounding.to_f32(add_to_odd(product, c)))
}

/// `div.f32` in any direction.
pub(crate) fn div_f32_in(a: f32, b: f32, rounding: Rounding) -> f32 {
    let quotient = a / b;
    // Exact in f64; its sign is that of the error times that of `b`. NaN where the quotient has no error.
    let remainder = a as f64 - quotient as f64 * b as f64;
    canonical(rounding.apply(quotient, if b < 0.0 { -remainder } else { remainder }))
}

/// `sqrt.f32` in any direction.
pub(crate) fn sqrt_f32_in(x: f32, rounding: Rounding) -> f32 {
    let root = x.sqrt();
    canonical(rounding.apply(root, x as f64 - root as f64 * root as f64))
}

/// `max.f32`: the other operand if one is NaN; -0 is less than +0.
#[inline(always)]
pub(crate) fn max_f32(a: f32, b: f32) -> f32 {
    let same = f32::from_bits(a.to_bits() & b.to_bits());
    let number = if a == b {
        same
    } else if a > b {
        a
    } else {
        b
    };
    pick(a, b, number)
}

/// `min.f32`: the other operand if one is NaN; -0 is less than +0.
#[inline(always)]
pub(crate) fn min_f32(a: f32, b: f32) -> f32 {
    let same = f32::from_bits(a.to_bits() | b.to_bits());
    let number = if a == b {
        same
    } else if a < b {
        a
    } else {
        b
    };
    pick(a, b, number)
}

/// `number` if neither operand is NaN, else the other one, else NaN.
#[inline(always)]
fn pick(a: f32, b: f32, number: f32) -> f32 {
    let other = if a.is_nan() { canonical(b) } else { a };
    if a.is_nan() | b.is_nan() { other } else { number }
}

/// `max.NaN.f32`: NaN if either operand is.
#[inline(always)]
pub(crate) fn max_nan_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() | b.is_nan() { NAN } else { max_f32(a, b) }
}

/// `min.NaN.f32`: NaN if either operand is.
#[inline(always)]
pub(crate) fn min_nan_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() | b.is_nan() { NAN } else { min_f32(a, b) }
}

/// `.xorsign.abs` of a minimum or maximum: `f` of the magnitudes, with the product of the signs.
#[inline(always)]
pub(crate) fn xorsign_abs(a: f32, b: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    canonical(f32::from_bits(f(a.abs(), b.abs()).to_bits() | sign))
}

/// `neg.f32`.
#[inline(always)]
pub(crate) fn neg_f32(x: f32) -> f32 {
    canonical(-x)
}

/// `abs.f32`.
#[inline(always)]
pub(crate) fn abs_f32(x: f32) -> f32 {
    canonical(x.abs())
}

/// `copysign.f32`: `b` with the sign of `a`.
#[inline(always)]
pub(crate) fn copysign_f32(a: f32, b: f32) -> f32 {
    b.copysign(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{NASTY, Random};

    fn same(got: f32, want: f32) -> bool {
        got.to_bits() == want.to_bits() || want.is_nan() && got.to_bits() == NAN.to_bits()
    }

    /// Triples of every kind: nasty ones, random bits, near ties, near cancellation, results about the subnormals.
    fn triples() -> impl Iterator<Item = [f32; 3]> {
        let nasty = NASTY.into_iter().flat_map(|a| NASTY.into_iter().flat_map(move |b| NASTY.map(|c| [a, b, c])));
        let mut random = Random::new(4);
        let random = (0..600_000).map(move |i| {
            let (a, b) = (random.near_one(70), random.near_one(70));
            let product = a as f64 * b as f64;
            match i % 6 {
                0 => [random.f32(), random.f32(), random.f32()],
                1 => [a, b, random.near_one(140 - 20)],
                // A tie in the product, broken by a tiny addend.
                2 => {
                    let a = f32::from_bits(a.to_bits() & 0xffff_f000 | 0x800);
                    let b = f32::from_bits(b.to_bits() & 0xffff_f000 | 0x800);
                    [a, b, random.near_one(1) * f32::from_bits(1 << (random.next() % 23))]
                }
                // An addend just as large as the product, or a tie's worth away.
                3 => [a, b, -(product as f32)],
                4 => [a, b, (product * 2f64.powi((random.next() % 60) as i32 - 30)) as f32],
                _ => [a * 2f32.powi(-60), b * 2f32.powi(-70), f32::from_bits(random.next() as u32 & 0x80ff_ffff)],
            }
        });
        nasty.map(|bits| bits.map(f32::from_bits)).chain(random)
    }

    #[test]
    fn fma_is_rounded_once() {
        for [a, b, c] in triples() {
            let want = a.mul_add(b, c);
            assert!(same(fma_f32(a, b, c), want), "{a:e} {b:e} {c:e}: {want:e}");
        }
    }

    #[test]
    fn fma_of_a_warp_is_that_of_its_lanes() {
        let all: Vec<_> = triples().map(|t| t.map(f32::to_bits)).collect();
        for warp in all.chunks_exact(32) {
            let rows: [[u32; 32]; 3] = core::array::from_fn(|i| core::array::from_fn(|l| warp[l][i]));
            let got = fma_f32_lanes(&rows[0], &rows[1], &rows[2]);
            for l in 0..32 {
                let [a, b, c] = warp[l].map(f32::from_bits);
                assert_eq!(got[l], fma_f32(a, b, c).to_bits());
            }
        }
    }

    #[test]
    fn directed_results_enclose_the_nearest_and_meet_when_exact() {
        type In = fn(f32, f32, f32, Rounding) -> f32;
        type Nearest = fn(f32, f32, f32) -> f32;
        let operations: [(In, Nearest); 4] = [
            (fma_f32_in, fma_f32),
            (|a, b, _, r| mul_f32_in(a, b, r), |a, b, _| a * b),
            (|a, b, _, r| div_f32_in(a, b, r), |a, b, _| a / b),
            (|a, _, _, r| sqrt_f32_in(a, r), |a, _, _| a.sqrt()),
        ];
        for [a, b, c] in triples() {
            for (directed, nearest) in operations {
                let [n, z, d, u] = [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up]
                    .map(|rounding| directed(a, b, c, rounding));
                assert!(same(n, nearest(a, b, c)));
                if n.is_nan() {
                    continue;
                }
                assert!(d <= n && n <= u && (d == n || u == n) && (u == d || u == d.next_up()), "{a:e} {b:e} {c:e}");
                assert!(
                    z.to_bits() == if d < 0.0 || d == 0.0 && n.is_sign_negative() { u } else { d }.to_bits() || d == u
                );
            }
        }
    }

    #[test]
    fn directed_zeros_have_the_sign_of_ieee() {
        assert!(same(add_f32_in(1.0, -1.0, Rounding::Down), -0.0));
        assert!(same(add_f32_in(1.0, -1.0, Rounding::Up), 0.0));
        assert!(same(add_f32_in(-0.0, -0.0, Rounding::Up), -0.0));
        assert!(same(add_f32_in(0.0, 0.0, Rounding::Down), 0.0));
        assert!(same(div_f32_in(-1.0, 0.0, Rounding::Up), f32::NEG_INFINITY));
    }

    #[test]
    fn minimum_and_maximum_drop_nan_and_order_zeros() {
        for a in NASTY.map(f32::from_bits) {
            for b in NASTY.map(f32::from_bits) {
                let key = |x: f32| x.to_bits() as i32 ^ (x.to_bits() as i32 >> 31 & 0x7fff_ffff);
                let (low, high) = match (a.is_nan(), b.is_nan()) {
                    (false, false) if key(a) < key(b) => (a, b),
                    (false, false) => (b, a),
                    (true, _) => (b, b),
                    (_, true) => (a, a),
                };
                assert!(same(min_f32(a, b), low) && same(max_f32(a, b), high), "{a:e} {b:e}");
                let either = a.is_nan() || b.is_nan();
                assert!(same(min_nan_f32(a, b), if either { NAN } else { low }));
                assert!(same(max_nan_f32(a, b), if either { NAN } else { high }));
            }
        }
    }

    #[test]
    fn every_nan_is_the_canonical_one() {
        let nan = f32::from_bits(0xffc0_1234);
        for x in [add_f32(nan, 1.0), mul_f32(0.0, f32::INFINITY), sub_f32(f32::INFINITY, f32::INFINITY), sqrt_f32(-1.0)]
        {
            assert_eq!(x.to_bits(), 0x7fff_ffff);
        }
        assert_eq!(div_f32(0.0, 0.0).to_bits(), 0x7fff_ffff);
    }
}
