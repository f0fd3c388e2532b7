//! f32 products and sums in the order of k: what plain code would do.
//!
//! Products of these formats are exact in f32 (but for bf16 at the ends of its range), so an addition after a
//! multiplication rounds as a fused one would.

use super::{Fp8, Half, Row};
use crate::numeric::fp8::{e4m3_to_f32, e5m2_to_f32};
use crate::numeric::half::{bf16_to_f32, f16_to_f32};
use crate::numeric::{canonical, vectorize};

/// A register of `E` elements a lane, element by element.
type Elements<const E: usize> = [[f32; 32]; E];

/// 16-bit operands of `A / 2 * 8` values of k.
pub(super) fn halves<const A: usize, const B: usize>(
    format: Half,
    a: &[Row; A],
    b: &[Row; B],
    c: &[Row; 4],
) -> [Row; 4] {
    // One copy of the code a format, each without a choice inside its loops.
    match format {
        Half::F16 => vectorize(
            #[inline(always)]
            || multiply(a, b, c, unpack16(f16_to_f32), unpack16(f16_to_f32)),
        ),
        Half::Bf16 => vectorize(
            #[inline(always)]
            || multiply(a, b, c, unpack16(bf16_to_f32), unpack16(bf16_to_f32)),
        ),
    }
}

/// 8-bit operands of 32 values of k.
pub(super) fn bytes(formats: [Fp8; 2], a: &[Row; 4], b: &[Row; 2], c: &[Row; 4]) -> [Row; 4] {
    vectorize(
        #[inline(always)]
        || multiply(a, b, c, |row| unpack8(formats[0], row), |row| unpack8(formats[1], row)),
    )
}

#[inline(always)]
fn unpack16(decode: impl Fn(u16) -> f32) -> impl Fn(&Row) -> Elements<2> {
    #[inline(always)]
    move |row| [row.map(|x| decode(x as u16)), row.map(|x| decode((x >> 16) as u16))]
}

#[inline(always)]
fn unpack8(format: Fp8, row: &Row) -> Elements<4> {
    let mut out = [[0.0; 32]; 4];
    for (i, out) in out.iter_mut().enumerate() {
        match format {
            Fp8::E4m3 => *out = row.map(|x| e4m3_to_f32((x >> (8 * i)) as u8)),
            Fp8::E5m2 => *out = row.map(|x| e5m2_to_f32((x >> (8 * i)) as u8)),
        }
    }
    out
}

#[inline(always)]
fn multiply<const A: usize, const B: usize, const E: usize>(
    a: &[Row; A],
    b: &[Row; B],
    c: &[Row; 4],
    unpack_a: impl Fn(&Row) -> Elements<E>,
    unpack_b: impl Fn(&Row) -> Elements<E>,
) -> [Row; 4] {
    // B by k, its columns in the order of the accumulator's registers: 0 2 4 6, 1 3 5 7.
    let mut by_k = [[[[0f32; 8]; E]; 4]; B];
    for (by_k, b) in by_k.iter_mut().zip(b) {
        let elements = unpack_b(b);
        for lane in 0..32 {
            let column = lane / 4 / 2 + lane / 4 % 2 * 4;
            for i in 0..E {
                by_k[lane % 4][i][column] = elements[i][lane];
            }
        }
    }
    let mut d = [[0; 32]; 4];
    for half in 0..2 {
        let a: [Elements<E>; B] = core::array::from_fn(|step| unpack_a(&a[half + 2 * step]));
        for row in 0..8 {
            let at = 4 * row;
            let mut sum = [0f32; 8];
            for j in 0..4 {
                sum[j] = f32::from_bits(c[2 * half][at + j]);
                sum[4 + j] = f32::from_bits(c[2 * half + 1][at + j]);
            }
            for (a, b) in a.iter().zip(&by_k) {
                for lane in 0..4 {
                    for i in 0..E {
                        let (x, y) = (a[i][at + lane], &b[lane][i]);
                        for j in 0..8 {
                            sum[j] += x * y[j];
                        }
                    }
                }
            }
            for j in 0..4 {
                d[2 * half][at + j] = canonical(sum[j]).to_bits();
                d[2 * half + 1][at + j] = canonical(sum[4 + j]).to_bits();
            }
        }
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::Random;

    /// Row and column of accumulator register `i` of `lane` (PTX ISA, "Matrix Fragments for mma.m16n8k16").
    fn cell(lane: usize, i: usize) -> (usize, usize) {
        (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2)
    }

    /// `elements` of 32 / `elements` bits in a register.
    fn element(row: &Row, lane: usize, i: usize, elements: usize) -> u32 {
        let bits = 32 / elements;
        row[lane] >> (bits * i) & (u32::MAX >> (32 - bits))
    }

    #[test]
    fn a_product_is_the_textbook_sum_in_the_order_of_k() {
        let mut random = Random::new(7);
        for round in 0..200 {
            let elements = if round % 2 == 0 { 2 } else { 4 };
            let k = 8 * elements;
            let mut registers = || core::array::from_fn(|_| random.next() as u32 & 0xbbff_bbff & !0x4000_4000);
            let a: [Row; 4] = core::array::from_fn(|_| registers());
            let b: [Row; 2] = core::array::from_fn(|_| registers());
            let c: [Row; 4] = core::array::from_fn(|_| core::array::from_fn(|_| random.near_one(3).to_bits()));
            let decode = |x: u32| if elements == 2 { f16_to_f32(x as u16) } else { e4m3_to_f32(x as u8) };
            let got = if elements == 2 { halves(Half::F16, &a, &b, &c) } else { bytes([Fp8::E4m3; 2], &a, &b, &c) };
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = cell(lane, i);
                    let mut sum = f32::from_bits(c[i][lane]);
                    for k in 0..k {
                        let (step, k) = (k / (k_of_register(elements)), k % k_of_register(elements));
                        let at = |line: usize| 4 * (line % 8) + k / elements;
                        let x = decode(element(&a[row / 8 + 2 * step], at(row), k % elements, elements));
                        let y = decode(element(&b[step], at(column), k % elements, elements));
                        sum += x * y;
                    }
                    assert_eq!(got[i][lane], canonical(sum).to_bits());
                }
            }
        }
    }

    fn k_of_register(elements: usize) -> usize {
        4 * elements
    }
}
