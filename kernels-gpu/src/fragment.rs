//! Which lane holds what: the register layouts of `mma.sync` m16n8k16 and the addresses that `ldmatrix` wants.
//!
//! ```text
//! accumulator m16n8, register i of lane l:   row = l/4 + 8*(i/2)     column = 2*(l%4) + i%2
//!
//!            column 0 1 | 2 3 | 4 5 | 6 7                 an m16k16 operand A of the same lane is
//!   row 0     lane  0   |  1  |  2  |  3    registers 0,1     {0,1} of tile n   -> a0    {2,3} of tile n   -> a1
//!   row 1           4   |  5  |  6  |  7                      {0,1} of tile n+1 -> a2    {2,3} of tile n+1 -> a3
//!   ...                                                    so the scores of two key tiles are, once packed to 16 bit,
//!   row 8           0   |  1  |  2  |  3    registers 2,3  the probabilities operand of one k16 step of P V.
//! ```
//!
//! `ldmatrix.x4` reads four 8x8 matrices; lane `l` gives the address of row `l % 8` of matrix `l / 8`, and register
//! `m` of every lane then holds its part of matrix `m`. Source: PTX ISA, "Matrix Fragments for mma.m16n8k16" and
//! "ldmatrix".

/// Row of accumulator register `register` (0..4) of lane `lane` in its m16n8 tile.
#[inline(always)]
pub const fn acc_row(lane: u32, register: u32) -> u32 {
    lane / 4 + 8 * (register / 2)
}

/// Column of accumulator register `register` (0..4) of lane `lane` in its m16n8 tile.
#[inline(always)]
pub const fn acc_column(lane: u32, register: u32) -> u32 {
    2 * (lane % 4) + register % 2
}

/// A row of a tile and a 16-byte chunk of that row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowChunk {
    /// Row inside the 16-row fragment.
    pub row: u32,
    /// Chunk (eight 16-bit elements) inside the 32-byte fragment.
    pub chunk: u32,
}

/// Matrices in the order rows 0..8, rows 8..16, then the second chunk.
///
/// Address of lane `lane` for `ldmatrix.x4` of an m16k16 operand A (queries), and with `.trans` of 16 value rows
/// as operand B of two neighbouring n8 tiles: registers 0 and 1 are the tile of chunk 0, 2 and 3 that of chunk 1.
#[inline(always)]
pub const fn ldmatrix_rows_first(lane: u32) -> RowChunk {
    RowChunk { row: lane % 16, chunk: lane / 16 }
}

/// Matrices in the order chunk 0, chunk 1, then the second eight rows.
///
/// Address of lane `lane` for `ldmatrix.x4` of 16 key rows as operand B of two neighbouring n8 tiles: registers 0
/// and 1 are the tile of rows 0..8, 2 and 3 that of rows 8..16.
#[inline(always)]
pub const fn ldmatrix_chunks_first(lane: u32) -> RowChunk {
    RowChunk { row: lane % 8 + 8 * (lane / 16), chunk: lane / 8 % 2 }
}

/// Column, within 16, of accumulator register `register` of lane `lane` in a product with e4m3 values, for `odd` columns or
/// for even ones.
///
/// `ldmatrix.x4.trans` of 32 value rows and 16 bytes, to which lane `l` gives the address of row `l`, leaves in lane `l` of
/// matrix `m` the columns `2 * (l / 4)` and the next one of the rows `8 * m + 2 * (l % 4)` and the next one. Bytes 0 and 2 of
/// two such registers are four rows of the even column, bytes 1 and 3 of the odd one: operands B of m16n8k32 whose column
/// `n` is `2 * n` or `2 * n + 1`. Their rows come in the order 0 1 8 9, 2 3 10 11, ..., as the keys of probabilities do that
/// are packed from accumulators of eight keys and of the next eight.
#[inline(always)]
pub const fn value_column(lane: u32, register: u32, odd: u32) -> u32 {
    2 * acc_column(lane, register) + odd
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    type Matrix = [[f32; 16]; 16];

    fn sample(seed: u32) -> Matrix {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            ((state >> 24) as f32) - 128.0
        };
        core::array::from_fn(|_| core::array::from_fn(|_| next()))
    }

    /// What `ldmatrix.x4` leaves in lane `lane`: per register two elements.
    fn ldmatrix(tile: &Matrix, address: fn(u32) -> RowChunk, trans: bool, lane: u32) -> [[f32; 2]; 4] {
        core::array::from_fn(|matrix| {
            core::array::from_fn(|i| {
                let (mut row, mut column) = (lane / 4, 2 * (lane % 4) + i as u32);
                if trans {
                    core::mem::swap(&mut row, &mut column);
                }
                let at = address(8 * matrix as u32 + row);
                tile[at.row as usize][(at.chunk * 8 + column) as usize]
            })
        })
    }

    /// `mma.sync.m16n8k16` by the register layouts of the PTX ISA.
    fn mma(a: impl Fn(u32) -> [[f32; 2]; 4], b: impl Fn(u32) -> [[f32; 2]; 2]) -> [[f32; 8]; 16] {
        let mut c = [[0.0; 8]; 16];
        for (row, c_row) in c.iter_mut().enumerate() {
            for (column, c) in c_row.iter_mut().enumerate() {
                for k in 0..16 {
                    let lane_a = (row as u32 % 8) * 4 + k % 8 / 2;
                    let lane_b = column as u32 * 4 + k % 8 / 2;
                    let a = a(lane_a)[row / 8 + 2 * (k as usize / 8)][k as usize % 2];
                    let b = b(lane_b)[k as usize / 8][k as usize % 2];
                    *c += a * b;
                }
            }
        }
        c
    }

    fn halves(b: [[f32; 2]; 4], tile: usize) -> [[f32; 2]; 2] {
        [b[2 * tile], b[2 * tile + 1]]
    }

    #[test]
    fn accumulator_lane_map_covers_the_tile_once() {
        let cells: BTreeSet<_> =
            (0..32).flat_map(|lane| (0..4).map(move |i| (acc_row(lane, i), acc_column(lane, i)))).collect();
        assert_eq!(cells.len(), 16 * 8);
        assert!(cells.iter().all(|&(row, column)| row < 16 && column < 8));
    }

    #[test]
    fn loaded_queries_times_loaded_keys_are_the_scores() {
        let (q, k) = (sample(1), sample(2));
        for tile in 0..2 {
            let scores = mma(
                |lane| ldmatrix(&q, ldmatrix_rows_first, false, lane),
                |lane| halves(ldmatrix(&k, ldmatrix_chunks_first, false, lane), tile),
            );
            for row in 0..16 {
                for key in 0..8 {
                    let dot: f32 = (0..16).map(|d| q[row][d] * k[8 * tile + key][d]).sum();
                    assert_eq!(scores[row][key], dot);
                }
            }
        }
    }

    #[test]
    fn packed_score_registers_times_transposed_values_are_the_output() {
        let (p, v) = (sample(3), sample(4));
        let p_frag = |lane: u32| -> [[f32; 2]; 4] {
            core::array::from_fn(|register| {
                core::array::from_fn(|i| {
                    let acc = 2 * (register as u32 % 2) + i as u32;
                    let key = 8 * (register as u32 / 2) + acc_column(lane, acc);
                    p[acc_row(lane, acc) as usize][key as usize]
                })
            })
        };
        for tile in 0..2 {
            let out = mma(p_frag, |lane| halves(ldmatrix(&v, ldmatrix_rows_first, true, lane), tile));
            for row in 0..16 {
                for column in 0..8 {
                    let sum: f32 = (0..16).map(|key| p[row][key] * v[key][8 * tile + column]).sum();
                    assert_eq!(out[row][column], sum);
                }
            }
        }
    }
}
