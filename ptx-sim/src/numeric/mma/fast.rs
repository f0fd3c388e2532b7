//! f32 products and sums in the order of k: what plain code would do.
//!
//! Products of f16, e4m3 and e5m2 are exact in f32, so a fused multiply-add gives the bits of a multiplication and an
//! addition, and is taken where it is one instruction. Products of bf16 may leave the range of f32, so they never are.

// Plain loops over indices become vector code in every build profile; iterators only without debug assertions.
#![allow(clippy::needless_range_loop)]

use super::layout::{by_k, matrix, registers, unpack};
use super::{Element, Row};
use crate::numeric::{canonical, vectorize};

/// Rows whose sums are made side by side: additions of one sum wait for each other.
const TOGETHER: usize = 4;

/// `4 * B * E` values of k, `E` elements a register.
pub(super) fn multiply<const A: usize, const B: usize, const E: usize, X: Element, Y: Element>(
    a: [&Row; A],
    b: [&Row; B],
    c: [&Row; 4],
) -> [Row; 4] {
    let exact = X::EXACT_PRODUCTS & Y::EXACT_PRODUCTS;
    vectorize(
        #[inline(always)]
        |fused| {
            let mut rows = [[[0.0; 32]; E]; A];
            for i in 0..A {
                unpack::<X, E>(a[i], &mut rows[i]);
            }
            let mut columns = [[[0.0; 32]; E]; B];
            for i in 0..B {
                unpack::<Y, E>(&by_k(b[i]), &mut columns[i]);
            }
            let mut sums = matrix(c);
            for first in (0..16).step_by(TOGETHER) {
                let mut sum = [[0.0; 8]; TOGETHER];
                for row in 0..TOGETHER {
                    for j in 0..8 {
                        sum[row][j] = f32::from_bits(sums[first + row][j]);
                    }
                }
                for step in 0..B {
                    for lane in 0..4 {
                        for i in 0..E {
                            for row in 0..TOGETHER {
                                let x = rows[first / 8 + 2 * step][i][(first + row) % 8 * 4 + lane];
                                for j in 0..8 {
                                    let (y, z) = (columns[step][i][lane * 8 + j], sum[row][j]);
                                    sum[row][j] = if exact & fused.0 { x.mul_add(y, z) } else { z + x * y };
                                }
                            }
                        }
                    }
                }
                for row in 0..TOGETHER {
                    for j in 0..8 {
                        sums[first + row][j] = canonical(sum[row][j]).to_bits();
                    }
                }
            }
            registers(&sums)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::mma::{E4m3, F16};
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
            let decode = |x: u32| if elements == 2 { F16::decode(x) } else { E4m3::decode(x) };
            let got = match elements {
                2 => multiply::<4, 2, 2, F16, F16>(a.each_ref(), b.each_ref(), c.each_ref()),
                _ => multiply::<4, 2, 4, E4m3, E4m3>(a.each_ref(), b.each_ref(), c.each_ref()),
            };
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
