//! Products and sums bit for bit as tensor cores form them.
//!
//! A tensor core takes the exact products of several k and the accumulator, shifts all to the largest exponent among
//! them, cuts each off at a fixed number of fractional bits, adds them as integers, and cuts the sum off at the bits
//! of the result (MMA-Sim, arXiv 2511.10909). What the source leaves open was read off an H200, whose results for
//! `Sm90` a test compares:
//!
//! - the exponent of a product is the sum of those of its factors, a subnormal having the smallest of its format, and
//!   a product of zero has none; the largest is -133 or more;
//! - a result beyond the largest f32 is infinite although rounding is toward zero, and a zero is always +0;
//! - `mma` of 8-bit formats unpacks to f16 on Hopper: one product of the two lower elements of every register, one of
//!   the two upper, and an ordinary addition of the accumulator.
//!
//! Ampere, Ada and the 8-bit products of `wgmma` are as the source says, unchecked.

// Plain loops over indices become vector code in every build profile; iterators only without debug assertions.
#![allow(clippy::needless_range_loop)]

use super::layout::{by_k, matrix, registers, unpack};
use super::{Element, F16, Row};
use crate::numeric::arith::add_f32;
use crate::numeric::{NAN, vectorize};
use crate::options::Arch;

/// How a tensor core adds.
#[derive(Clone, Copy)]
struct Adder {
    /// Fractional bits that are kept of an addend, counted from the largest exponent.
    fraction: u32,
    /// Stored mantissa bits of the result.
    result: u32,
}

/// Least exponent to which addends are shifted.
const LEAST: i32 = -133;

const AMPERE: Adder = Adder { fraction: 24, result: 23 };
const HOPPER: Adder = Adder { fraction: 25, result: 23 };
/// Of 8-bit formats, on Ada and in `wgmma`.
const FP8: Adder = Adder { fraction: 13, result: 13 };

/// Operands of 16 bits: `8 * B` values of k.
pub(super) fn halves<const A: usize, const B: usize, X: Element>(
    arch: Arch,
    a: [&Row; A],
    b: [&Row; B],
    c: [&Row; 4],
) -> [Row; 4] {
    vectorize(
        #[inline(always)]
        |_| {
            let operands = Operands::<A, B, 2>::new::<X, X>(a, b, X::LEAST_EXPONENT);
            let mut sums = matrix(c);
            match arch {
                Arch::Sm90 if B == 2 => HOPPER.add(&operands.group::<16>(0, 0, 2), &mut sums),
                Arch::Sm90 => HOPPER.add(&operands.group::<8>(0, 0, 2), &mut sums),
                // Eight values of k at a time.
                Arch::Sm80 | Arch::Sm89 => {
                    for step in 0..B {
                        AMPERE.add(&operands.group::<8>(step, 0, 2), &mut sums);
                    }
                }
            }
            registers(&sums)
        },
    )
}

/// Operands of 8 bits: 32 values of k. Ampere, which has no such instruction, computes as Hopper does.
pub(super) fn bytes<X: Element, Y: Element>(arch: Arch, a: [&Row; 4], b: [&Row; 2], c: [&Row; 4]) -> [Row; 4] {
    vectorize(
        #[inline(always)]
        |_| {
            if arch == Arch::Sm89 {
                let operands = Operands::<4, 2, 4>::new::<X, Y>(a, b, i32::MAX);
                let mut sums = matrix(c);
                FP8.add(&operands.group::<16>(0, 0, 4), &mut sums);
                FP8.add(&operands.group::<16>(1, 0, 4), &mut sums);
                return registers(&sums);
            }
            let operands = Operands::<4, 2, 4>::new::<X, Y>(a, b, F16::LEAST_EXPONENT);
            let mut sums = [[0; 8]; 16];
            HOPPER.add(&operands.group::<16>(0, 0, 2), &mut sums);
            HOPPER.add(&operands.group::<16>(0, 2, 2), &mut sums);
            let mut d = registers(&sums);
            for register in 0..4 {
                for lane in 0..32 {
                    let sum = add_f32(f32::from_bits(c[register][lane]), f32::from_bits(d[register][lane]));
                    d[register][lane] = sum.to_bits();
                }
            }
            d
        },
    )
}

/// `wgmma`: `K` values of k at once. A by row and then by k, B by k and then by column.
#[inline(always)]
pub(super) fn warpgroup<const K: usize, X: Element, Y: Element>(rows: &[f32], columns: &[f32], sums: &mut [f32]) {
    let n = columns.len() / K;
    let adder = if K == 32 { FP8 } else { HOPPER };
    for (rows, sums) in rows.chunks_exact(16 * K).zip(sums.chunks_exact_mut(16 * n)) {
        let rows = std::array::from_fn(|row| std::array::from_fn(|k| rows[row * K + k]));
        for column in (0..n).step_by(8) {
            let columns = std::array::from_fn(|k| std::array::from_fn(|j| columns[k * n + column + j]));
            let group = Group::<K>::new(rows, columns, [X::LEAST_EXPONENT, Y::LEAST_EXPONENT]);
            let mut tile = [[0; 8]; 16];
            for row in 0..16 {
                for j in 0..8 {
                    tile[row][j] = sums[row * n + column + j].to_bits();
                }
            }
            adder.add(&group, &mut tile);
            for row in 0..16 {
                for j in 0..8 {
                    sums[row * n + column + j] = f32::from_bits(tile[row][j]);
                }
            }
        }
    }
}

/// Decoded elements of the operands, by register, element, and lane.
struct Operands<const A: usize, const B: usize, const E: usize> {
    rows: [[[f32; 32]; E]; A],
    /// The lanes in the order of [`by_k`].
    columns: [[[f32; 32]; E]; B],
    /// Exponents of the subnormals of A and B.
    least: [i32; 2],
}

impl<const A: usize, const B: usize, const E: usize> Operands<A, B, E> {
    /// `format` is the exponent of the subnormals of a format to which the elements are converted before.
    #[inline(always)]
    fn new<X: Element, Y: Element>(a: [&Row; A], b: [&Row; B], format: i32) -> Self {
        let (mut rows, mut columns) = ([[[0.0; 32]; E]; A], [[[0.0; 32]; E]; B]);
        for i in 0..A {
            unpack::<X, E>(a[i], &mut rows[i]);
        }
        for i in 0..B {
            unpack::<Y, E>(&by_k(b[i]), &mut columns[i]);
        }
        Self { rows, columns, least: [X::LEAST_EXPONENT.min(format), Y::LEAST_EXPONENT.min(format)] }
    }

    /// `K` values of k: from register `step` of B on, `count` elements of every lane from `element` on.
    #[inline(always)]
    fn group<const K: usize>(&self, step: usize, element: usize, count: usize) -> Group<K> {
        let (mut rows, mut columns) = ([[0.0; K]; 16], [[0.0; 8]; K]);
        for k in 0..K {
            let (step, lane, i) = (step + k / (4 * count), k / count % 4, element + k % count);
            for row in 0..16 {
                rows[row][k] = self.rows[row / 8 + 2 * step][i][row % 8 * 4 + lane];
            }
            for j in 0..8 {
                columns[k][j] = self.columns[step][i][lane * 8 + j];
            }
        }
        Group::new(rows, columns, self.least)
    }
}

/// Factors of the products that are added at once, and their exponents.
struct Group<const K: usize> {
    rows: [[f32; K]; 16],
    columns: [[f32; 8]; K],
    row_exponents: [[i32; K]; 16],
    column_exponents: [[i32; 8]; K],
}

impl<const K: usize> Group<K> {
    /// `least` are the exponents of the subnormals of A and B.
    #[inline(always)]
    fn new(rows: [[f32; K]; 16], columns: [[f32; 8]; K], least: [i32; 2]) -> Self {
        let (mut row_exponents, mut column_exponents) = ([[0; K]; 16], [[0; 8]; K]);
        for k in 0..K {
            for row in 0..16 {
                row_exponents[row][k] = exponent(rows[row][k], least[0]);
            }
            for j in 0..8 {
                column_exponents[k][j] = exponent(columns[k][j], least[1]);
            }
        }
        Self { rows, columns, row_exponents, column_exponents }
    }
}

/// Exponent of a number whose format has subnormals of exponent `least`; zero has one that loses every comparison,
/// also after another was added.
#[inline(always)]
fn exponent(x: f32, least: i32) -> i32 {
    let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
    if x == 0.0 { -1 << 16 } else { exponent.max(least) }
}

impl Adder {
    /// Adds the products of a group to `sums`, all at once.
    #[inline(always)]
    fn add<const K: usize>(self, group: &Group<K>, sums: &mut [[u32; 8]; 16]) {
        // Bits of an f64 between 2^(largest exponent + 3) and the last bit that an addend keeps.
        let kept = !0 << (52 - 3 - self.fraction);
        for row in 0..16 {
            let mut largest = [0; 8];
            for j in 0..8 {
                largest[j] = exponent(f32::from_bits(sums[row][j]), -126).max(LEAST);
            }
            for k in 0..K {
                for j in 0..8 {
                    largest[j] = largest[j].max(group.row_exponents[row][k] + group.column_exponents[k][j]);
                }
            }
            // Every addend is below this power of two, so its sum with one has a known exponent.
            let mut above = [0.0; 8];
            let mut sum = [0.0; 8];
            for j in 0..8 {
                above[j] = f64::from_bits(((largest[j] + 3 + 1023) as u64) << 52);
                sum[j] = cut(f32::from_bits(sums[row][j]) as f64, above[j], kept);
            }
            for k in 0..K {
                for j in 0..8 {
                    let product = group.rows[row][k] as f64 * group.columns[k][j] as f64;
                    sum[j] += cut(product, above[j], kept);
                }
            }
            for j in 0..8 {
                sums[row][j] = finish(sum[j], self.result);
            }
        }
    }
}

/// `x` without the bits that `kept` lacks in the sum `above + |x|`.
///
/// That sum is exact where `x` is large enough for any of its bits to stay; where it is not, it rounds far below them.
#[inline(always)]
fn cut(x: f64, above: f64, kept: u64) -> f64 {
    let sign = x.to_bits() & 1 << 63;
    let sum = f64::from_bits((x.abs() + above).to_bits() & kept);
    f64::from_bits((sum - above).to_bits() | sign)
}

/// The exact sum, toward zero in `mantissa` bits.
#[inline(always)]
fn finish(sum: f64, mantissa: u32) -> u32 {
    let nearest = sum as f32;
    let toward_zero = nearest.to_bits().wrapping_sub((nearest.abs() as f64 > sum.abs()) as u32);
    let cut = toward_zero & !0 << (23 - mantissa);
    let infinite = sum.abs() >= f32::MAX as f64 + (1u128 << 104) as f64;
    let bits = if infinite { cut & 0x8000_0000 | f32::INFINITY.to_bits() } else { cut };
    let bits = if bits << 1 == 0 { 0 } else { bits };
    if sum.is_nan() { NAN.to_bits() } else { bits }
}

#[cfg(test)]
mod tests {
    use super::super::{Bf16, E4m3};
    use super::*;

    /// One row of A times one column of B, by k, plus `c`: cell (0, 0) of an m16n8k16.
    fn dot<X: Element>(arch: Arch, a: [u16; 16], b: [u16; 16], c: f32) -> f32 {
        let word = |codes: &[u16; 16], k: usize| codes[k] as u32 | (codes[k + 1] as u32) << 16;
        let (mut x, mut y, mut z) = ([[0; 32]; 4], [[0; 32]; 2], [[0; 32]; 4]);
        for lane in 0..4 {
            (x[0][lane], x[2][lane]) = (word(&a, 2 * lane), word(&a, 8 + 2 * lane));
            (y[0][lane], y[1][lane]) = (word(&b, 2 * lane), word(&b, 8 + 2 * lane));
        }
        z[0][0] = c.to_bits();
        f32::from_bits(halves::<4, 2, X>(arch, x.each_ref(), y.each_ref(), z.each_ref())[0][0])
    }

    /// f16 codes of powers of two at the given places.
    fn powers<const N: usize>(at: [(usize, i32); N]) -> [u16; 16] {
        let mut codes = [0; 16];
        for (k, exponent) in at {
            codes[k] = ((exponent + 15) as u16) << 10;
        }
        codes
    }

    #[test]
    fn addends_lose_what_lies_below_the_kept_bits_before_they_are_added() {
        // 1 - 1 and twice 2^exponent.
        let sum = |arch, exponent| {
            let (a, b) =
                (powers([(0, 0), (1, exponent + 13), (2, exponent + 13)]), powers([(0, 0), (1, -13), (2, -13)]));
            dot::<F16>(arch, a, b, -1.0)
        };
        assert_eq!([sum(Arch::Sm90, -25), sum(Arch::Sm90, -26)], [2f32.powi(-24), 0.0]);
        assert_eq!([sum(Arch::Sm80, -24), sum(Arch::Sm80, -25)], [2f32.powi(-23), 0.0]);
    }

    #[test]
    fn ampere_adds_the_second_eight_after_the_first() {
        // The first eight cancel the accumulator, the second are then no longer small beside anything.
        let (a, b) = (powers([(0, 0), (8, -14)]), powers([(0, 0), (8, -14)]));
        assert_eq!(dot::<F16>(Arch::Sm80, a, b, -1.0), 2f32.powi(-28));
        assert_eq!(dot::<F16>(Arch::Sm90, a, b, -1.0), 0.0);
    }

    #[test]
    fn results_are_cut_off_and_overflow_to_infinity() {
        let one = powers([(0, 0)]);
        assert_eq!(dot::<F16>(Arch::Sm90, one, powers([(0, -14)]), 1024.0 - 2f32.powi(-14)), 1024.0);
        assert_eq!(dot::<F16>(Arch::Sm90, one, powers([(0, -13)]), 2048.0), 2048.0);
        assert_eq!(dot::<F16>(Arch::Sm90, one, powers([(0, -14)]), -2048.0), (-2048f32).next_up());
        let max = [0x7f7f; 16];
        assert_eq!(dot::<Bf16>(Arch::Sm90, max, max, 0.0), f32::INFINITY);
        assert_eq!(dot::<F16>(Arch::Sm90, powers([(0, 15)]), powers([(0, 15)]), f32::MAX), f32::MAX);
    }

    #[test]
    fn infinities_and_nans_follow_ieee() {
        let one = powers([(0, 0), (1, 0)]);
        let with = |code| {
            let mut a = one;
            a[0] = code;
            a
        };
        for arch in [Arch::Sm80, Arch::Sm90] {
            assert_eq!(dot::<F16>(arch, with(0x7c00), one, 1.0), f32::INFINITY);
            assert!(dot::<F16>(arch, with(0x7c00), one, f32::NEG_INFINITY).is_nan());
            assert!(dot::<F16>(arch, with(0x7c00), powers([(1, 0)]), 1.0).is_nan(), "infinity times zero");
            assert_eq!(dot::<F16>(arch, with(0xfe00), one, 1.0).to_bits(), 0x7fff_ffff);
        }
    }

    #[test]
    fn ada_keeps_thirteen_bits_of_eight_bit_products() {
        // 1 * 1 in cell (0, 0), beside an accumulator of 2^-13 + 2^-14.
        let (mut a, mut b, mut c) = ([[0; 32]; 4], [[0; 32]; 2], [[0; 32]; 4]);
        (a[0][0], b[0][0]) = (0x38, 0x38);
        c[0][0] = (2f32.powi(-13) + 2f32.powi(-14)).to_bits();
        let cell = |arch| f32::from_bits(bytes::<E4m3, E4m3>(arch, a.each_ref(), b.each_ref(), c.each_ref())[0][0]);
        assert_eq!(cell(Arch::Sm89), 1.0 + 2f32.powi(-13));
        assert_eq!(cell(Arch::Sm90), 1.0 + 2f32.powi(-13) + 2f32.powi(-14));
    }
}
