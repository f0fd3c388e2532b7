//! f32 products and sums in the order of k: what plain code would do.
//!
//! Products of f16, e4m3 and e5m2 are exact in f32, so a fused multiply-add gives the bits of a multiplication and an
//! addition, and is taken where it is one instruction. Products of bf16 may leave the range of f32, so they never are.

// Plain loops over indices become vector code in every build profile; iterators only without debug assertions.
#![allow(clippy::needless_range_loop)]

use super::{Fp8, Half, Row};
use crate::numeric::fp8::{e4m3_to_f32, e5m2_to_f32};
use crate::numeric::half::{bf16_to_f32, f16_to_f32_raw};
use crate::numeric::{canonical, vectorize};

/// Operands of 16 bits: `8 * B` values of k.
pub(super) fn halves<const A: usize, const B: usize>(
    format: Half,
    a: &[Row; A],
    b: &[Row; B],
    c: &[Row; 4],
) -> [Row; 4] {
    // One copy of the code a format, each without a choice inside its loops.
    match format {
        Half::F16 => multiply::<A, B, 2, true>(a, b, c, f16_to_f32_raw, f16_to_f32_raw),
        Half::Bf16 => {
            let decode = |x: u32| bf16_to_f32(x as u16);
            multiply::<A, B, 2, false>(a, b, c, decode, decode)
        }
    }
}

/// Operands of 8 bits: 32 values of k.
pub(super) fn bytes(formats: [Fp8; 2], a: &[Row; 4], b: &[Row; 2], c: &[Row; 4]) -> [Row; 4] {
    let e4m3 = |x: u32| e4m3_to_f32(x as u8);
    let e5m2 = |x: u32| e5m2_to_f32(x as u8);
    match formats {
        [Fp8::E4m3, Fp8::E4m3] => multiply::<4, 2, 4, true>(a, b, c, e4m3, e4m3),
        [Fp8::E4m3, Fp8::E5m2] => multiply::<4, 2, 4, true>(a, b, c, e4m3, e5m2),
        [Fp8::E5m2, Fp8::E4m3] => multiply::<4, 2, 4, true>(a, b, c, e5m2, e4m3),
        [Fp8::E5m2, Fp8::E5m2] => multiply::<4, 2, 4, true>(a, b, c, e5m2, e5m2),
    }
}

/// The product, of `E` elements a register; `EXACT` if no product of two elements is rounded.
fn multiply<const A: usize, const B: usize, const E: usize, const EXACT: bool>(
    a: &[Row; A],
    b: &[Row; B],
    c: &[Row; 4],
    decode_a: impl Fn(u32) -> f32,
    decode_b: impl Fn(u32) -> f32,
) -> [Row; 4] {
    vectorize(
        #[inline(always)]
        |fused| {
            let mut rows = [[[0.0; 32]; E]; A];
            for i in 0..A {
                unpack(&a[i], &decode_a, &mut rows[i]);
            }
            let mut columns = [[[0.0; 32]; E]; B];
            for i in 0..B {
                unpack(&by_k(&b[i]), &decode_b, &mut columns[i]);
            }
            let mut sums = matrix(c);
            for row in 0..16 {
                let mut sum = [0.0; 8];
                for j in 0..8 {
                    sum[j] = f32::from_bits(sums[row][j]);
                }
                for step in 0..B {
                    for lane in 0..4 {
                        for i in 0..E {
                            let x = rows[row / 8 + 2 * step][i][row % 8 * 4 + lane];
                            for j in 0..8 {
                                let y = columns[step][i][lane * 8 + j];
                                sum[j] = if EXACT & fused.0 { x.mul_add(y, sum[j]) } else { sum[j] + x * y };
                            }
                        }
                    }
                }
                for j in 0..8 {
                    sums[row][j] = canonical(sum[j]).to_bits();
                }
            }
            registers(&sums)
        },
    )
}

/// A register of B with its lanes in the order of k, then of the columns as in [`matrix`].
#[inline(always)]
fn by_k(b: &Row) -> Row {
    let mut by_k = [0; 32];
    for k in 0..4 {
        for j in 0..8 {
            by_k[8 * k + j] = b[4 * (2 * (j % 4) + j / 4) + k];
        }
    }
    by_k
}

/// The elements of a register, first those in the low bits of all lanes.
#[inline(always)]
fn unpack<const E: usize>(row: &Row, decode: impl Fn(u32) -> f32, elements: &mut [[f32; 32]; E]) {
    for i in 0..E {
        for lane in 0..32 {
            elements[i][lane] = decode(row[lane] >> (32 / E * i));
        }
    }
}

/// The accumulator by rows, its columns in the order 0 2 4 6, 1 3 5 7 in which the registers hold them.
#[inline(always)]
fn matrix(c: &[Row; 4]) -> [[u32; 8]; 16] {
    let mut rows = [[0; 8]; 16];
    for row in 0..16 {
        let (register, at, to) = (row / 8 * 2, row % 8 * 4, &mut rows[row]);
        to[..4].copy_from_slice(&c[register][at..at + 4]);
        to[4..].copy_from_slice(&c[register + 1][at..at + 4]);
    }
    rows
}

/// Undoes [`matrix`].
#[inline(always)]
fn registers(rows: &[[u32; 8]; 16]) -> [Row; 4] {
    let mut d = [[0; 32]; 4];
    for row in 0..16 {
        let (register, at, from) = (row / 8 * 2, row % 8 * 4, &rows[row]);
        d[register][at..at + 4].copy_from_slice(&from[..4]);
        d[register + 1][at..at + 4].copy_from_slice(&from[4..]);
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
            let decode = |x: u32| if elements == 2 { f16_to_f32_raw(x) } else { e4m3_to_f32(x as u8) };
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
