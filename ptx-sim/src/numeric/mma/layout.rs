//! From registers to rows and columns, and back.

// Plain loops over indices become vector code in every build profile; iterators only without debug assertions.
#![allow(clippy::needless_range_loop)]

use super::{Element, Row};

/// A register of B with its lanes in the order of k, then of the columns as in [`matrix`].
#[inline(always)]
pub(super) fn by_k(b: &Row) -> Row {
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
pub(super) fn unpack<X: Element, const E: usize>(row: &Row, elements: &mut [[f32; 32]; E]) {
    for i in 0..E {
        for lane in 0..32 {
            elements[i][lane] = X::decode(row[lane] >> (32 / E * i));
        }
    }
}

/// The accumulator by rows, its columns in the order 0 2 4 6, 1 3 5 7 in which the registers hold them.
#[inline(always)]
pub(super) fn matrix(c: [&Row; 4]) -> [[u32; 8]; 16] {
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
pub(super) fn registers(rows: &[[u32; 8]; 16]) -> [Row; 4] {
    let mut d = [[0; 32]; 4];
    for row in 0..16 {
        let (register, at, from) = (row / 8 * 2, row % 8 * 4, &rows[row]);
        d[register][at..at + 4].copy_from_slice(&from[..4]);
        d[register + 1][at..at + 4].copy_from_slice(&from[4..]);
    }
    d
}
