//! Matrix instructions: loads and stores of 8x8 matrices, and products.

use super::Machine;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::ldmatrix_wavefronts;
use crate::numeric::mma::{mma_m16n8k8, mma_m16n8k16, mma_m16n8k32};
use crate::program::{Factors, Matrix, Mma};
use crate::registers::{LANES, Registers, Row, Word};

/// Rows of a matrix.
const ROWS: usize = 8;

/// Rows of eight elements of 16 bits.
pub(super) type Rows = [u128; ROWS];

impl Machine<'_> {
    pub(super) fn load_matrix(&mut self, warp: &mut Warp, step: Step, matrix: &Matrix) {
        let addresses = self.shared_addresses(&warp.registers, &matrix.address);
        for (index, register) in matrix.registers.iter().enumerate() {
            self.count_matrix(&addresses, index, step.pc);
            let first = self.place(warp.index, ROWS * index, step.pc);
            let rows = self.read_lines(first, &std::array::from_fn(|row| addresses[ROWS * index + row]));
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
            for (row, value) in rows.iter().enumerate() {
                let lane = ROWS * index + row;
                let at = self.place(warp.index, lane, step.pc);
                self.write_line(at, addresses[lane], *value);
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
        let mode = self.options.mma;
        let c = rows(registers, mma.c);
        let sums = match &mma.factors {
            Factors::HalfK8 { format, a, b } => mma_m16n8k8(mode, *format, rows(registers, *a), rows(registers, *b), c),
            Factors::HalfK16 { format, a, b } => {
                mma_m16n8k16(mode, *format, rows(registers, *a), rows(registers, *b), c)
            }
            Factors::Fp8K32 { formats, a, b } => {
                mma_m16n8k32(mode, *formats, rows(registers, *a), rows(registers, *b), c)
            }
        };
        for (register, row) in mma.d.iter().zip(&sums) {
            registers.set(*register, active, row);
        }
    }
}

/// The lanes of registers.
#[inline(always)]
fn rows<const N: usize>(registers: &Registers, names: [Word; N]) -> [&Row<u32>; N] {
    std::array::from_fn(|index| registers.get(names[index]))
}

/// Lane l holds elements 2(l % 4) and 2(l % 4) + 1 of row l / 4: the rows one behind the other.
fn whole_rows(rows: &Rows) -> Row<u32> {
    let mut row = [0; LANES];
    for (lanes, bits) in row.chunks_exact_mut(4).zip(rows) {
        for (quarter, lane) in lanes.iter_mut().enumerate() {
            *lane = (bits >> (32 * quarter)) as u32;
        }
    }
    row
}

/// Lane l holds elements 2(l % 4) and 2(l % 4) + 1 of column l / 4.
fn columns(rows: &Rows) -> Row<u32> {
    whole_rows(&transposed(rows))
}

fn from_rows(row: &Row<u32>) -> Rows {
    let mut rows = Rows::default();
    for (bits, lanes) in rows.iter_mut().zip(row.chunks_exact(4)) {
        *bits = lanes.iter().rev().fold(0, |bits, lane| bits << 32 | u128::from(*lane));
    }
    rows
}

fn from_columns(row: &Row<u32>) -> Rows {
    transposed(&from_rows(row))
}

/// Exchanges rows and columns: of elements, then of pairs, then of halves.
pub(super) fn transposed(rows: &Rows) -> Rows {
    let mut rows = *rows;
    for (step, keep) in STEPS {
        for first in (0..ROWS).filter(|row| row & step == 0) {
            let (a, b) = (rows[first], rows[first + step]);
            let bits = 16 * step as u32;
            rows[first] = a & keep | (b & keep) << bits;
            rows[first + step] = a >> bits & keep | b & !keep;
        }
    }
    rows
}

/// Distance of rows that exchange elements, and the elements that stay in the first of them.
const STEPS: [(usize, u128); 3] = [
    (1, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
    (2, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
    (4, 0x0000_0000_0000_0000_ffff_ffff_ffff_ffff),
];

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
        for (r, row) in rows.iter().enumerate() {
            for (c, column) in transposed.iter().enumerate() {
                assert_eq!((row >> (16 * c)) as u16, (column >> (16 * r)) as u16);
            }
        }
    }
}
