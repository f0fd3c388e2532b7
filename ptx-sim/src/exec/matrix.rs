//! Matrix instructions: loads and stores of 8x8 matrices, and products.

use super::Machine;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::ldmatrix_wavefronts;
use crate::numeric::mma::{Fp8, mma_m16n8k16, mma_m16n8k32};
use crate::numeric::packed::Half;
use crate::program::{Matrix, Mma, MmaShape};
use crate::registers::{LANES, Row};

/// Rows of a matrix, and bytes of a row.
const ROWS: usize = 8;
const ROW_BYTES: u32 = 16;

type Bytes = [[u8; ROW_BYTES as usize]; ROWS];

impl Machine<'_> {
    pub(super) fn load_matrix(&mut self, warp: &mut Warp, step: Step, matrix: &Matrix) {
        let addresses = self.shared_addresses(&warp.registers, &matrix.address);
        for (index, register) in matrix.registers.iter().enumerate() {
            self.count_matrix(&addresses, index, step.pc);
            let rows: Bytes = std::array::from_fn(|row| {
                let lane = ROWS * index + row;
                let at = self.place(warp.index, lane, step.pc);
                self.read_shared(at, addresses[lane], ROW_BYTES).unwrap_or(u128::MAX).to_le_bytes()
            });
            let row = if matrix.transposed { columns(&rows) } else { whole_rows(&rows) };
            warp.registers.set(*register, step.active, &row);
        }
    }

    pub(super) fn store_matrix(&mut self, warp: &mut Warp, step: Step, matrix: &Matrix) {
        let addresses = self.shared_addresses(&warp.registers, &matrix.address);
        for (index, register) in matrix.registers.iter().enumerate() {
            let row = warp.registers.get(*register);
            let rows = if matrix.transposed { from_columns(row) } else { from_rows(row) };
            self.count_matrix(&addresses, index, step.pc);
            for (row, bytes) in rows.iter().enumerate() {
                let lane = ROWS * index + row;
                let at = self.place(warp.index, lane, step.pc);
                self.write_shared(at, addresses[lane], ROW_BYTES, u128::from_le_bytes(*bytes));
            }
        }
    }

    fn count_matrix(&mut self, addresses: &Row<u32>, index: usize, pc: u32) {
        let rows = std::array::from_fn(|row| addresses[ROWS * index + row]);
        let (ideal, real) = ldmatrix_wavefronts(&rows);
        let counters = &mut self.counters[pc as usize];
        counters.wavefronts_ideal += u64::from(ideal);
        counters.wavefronts += u64::from(real);
    }

    pub(super) fn mma(&mut self, warp: &mut Warp, active: u32, mma: &Mma) {
        let registers = &mut warp.registers;
        let (a, b, c) =
            (mma.a.map(|a| *registers.get(a)), mma.b.map(|b| *registers.get(b)), mma.c.map(|c| *registers.get(c)));
        let mode = self.options.mma;
        let format = |e5m2| if e5m2 { Fp8::E5m2 } else { Fp8::E4m3 };
        let rows = match mma.shape {
            MmaShape::F16K16 => mma_m16n8k16(mode, Half::F16, &a, &b, &c),
            MmaShape::Bf16K16 => mma_m16n8k16(mode, Half::Bf16, &a, &b, &c),
            MmaShape::Fp8K32(formats) => mma_m16n8k32(mode, formats.map(format), &a, &b, &c),
        };
        for (register, row) in mma.d.iter().zip(&rows) {
            registers.set(*register, active, row);
        }
    }
}

/// Lane l holds elements 2(l % 4) and 2(l % 4) + 1 of row l / 4.
fn whole_rows(rows: &Bytes) -> Row<u32> {
    std::array::from_fn(|lane| {
        let at = lane % 4 * 4;
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| rows[lane / 4][at + i]);
        u32::from_le_bytes([a, b, c, d])
    })
}

/// Lane l holds elements 2(l % 4) and 2(l % 4) + 1 of column l / 4.
fn columns(rows: &Bytes) -> Row<u32> {
    std::array::from_fn(|lane| {
        let at = lane / 4 * 2;
        let (first, second) = (&rows[lane % 4 * 2], &rows[lane % 4 * 2 + 1]);
        u32::from_le_bytes([first[at], first[at + 1], second[at], second[at + 1]])
    })
}

fn from_rows(row: &Row<u32>) -> Bytes {
    let mut rows = Bytes::default();
    for lane in 0..LANES {
        rows[lane / 4][lane % 4 * 4..][..4].copy_from_slice(&row[lane].to_le_bytes());
    }
    rows
}

fn from_columns(row: &Row<u32>) -> Bytes {
    let mut rows = Bytes::default();
    for lane in 0..LANES {
        let [a, b, c, d] = row[lane].to_le_bytes();
        let at = lane / 4 * 2;
        rows[lane % 4 * 2][at..at + 2].copy_from_slice(&[a, b]);
        rows[lane % 4 * 2 + 1][at..at + 2].copy_from_slice(&[c, d]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Row<u32> {
        std::array::from_fn(|lane| (2 * lane as u32) | (2 * lane as u32 + 1) << 16)
    }

    #[test]
    fn stores_undo_loads() {
        assert_eq!(whole_rows(&from_rows(&numbered())), numbered());
        assert_eq!(columns(&from_columns(&numbered())), numbered());
    }

    #[test]
    fn a_transposed_load_is_the_transposed_matrix() {
        let rows = from_rows(&numbered());
        let transposed = from_columns(&numbered());
        for r in 0..8 {
            for c in 0..8 {
                assert_eq!(rows[r][2 * c..2 * c + 2], transposed[c][2 * r..2 * r + 2]);
            }
        }
    }
}
