//! The operands of a `wgmma` product, fetched from shared memory and registers, and what becomes of its accumulators.

use super::Machine;
use super::bytes::get;
use super::descriptor::Descriptor;
use super::matrix::transposed;
use super::products::{Issued, product};
use super::warp::Warp;
use super::warpgroup::{ROWS, WARPS};
use crate::numeric::mma::{Line, WideProduct};
use crate::program::{Left, Product};
use crate::registers::{Registers, Word};
use std::ops::Range;

/// Memory for the product that is made.
#[derive(Debug, Default)]
pub(super) struct Bench {
    product: WideProduct,
    /// Addresses of lines in shared memory, or their offsets.
    pub lines: Vec<u32>,
}

/// Rows of a matrix in shared memory.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub name: &'static str,
    pub descriptor: u64,
    transposed: bool,
    rows: Range<u32>,
}

impl Operand {
    /// The operands of a product that are in shared memory, A with these of its rows.
    pub fn of(product: &Product, issued: Issued, rows: Range<u32>) -> impl Iterator<Item = Self> {
        let a = match product.a {
            Left::Registers(_) => None,
            Left::Shared { transposed, .. } => Some(Self { name: "A", descriptor: issued.a, transposed, rows }),
        };
        a.into_iter().chain([Self::b(product, issued)])
    }

    fn b(product: &Product, issued: Issued) -> Self {
        let rows = 0..product.columns() as u32;
        Self { name: "B", descriptor: issued.b, transposed: product.b_transposed, rows }
    }

    /// The addresses of its lines; fails, in words, where the descriptor is not good.
    pub fn lines(&self, lines: &mut Vec<u32>) -> Result<(), String> {
        Descriptor::new(self.descriptor)?.lines(self.rows.clone(), self.transposed, lines);
        Ok(())
    }
}

impl Machine<'_> {
    /// The offset of a line of shared memory, if it is there.
    #[inline(always)]
    pub(super) fn line(&self, address: u32) -> Option<u32> {
        let offset = address.wrapping_sub(self.program.shared_base);
        (offset < self.shared.len() as u32 && self.shared.len() as u32 - offset >= 16).then_some(offset)
    }

    /// Makes offsets of addresses, without those outside.
    pub(super) fn to_offsets(&self, lines: &mut Vec<u32>) {
        let base = self.program.shared_base;
        lines.retain(|address| self.line(*address).is_some());
        lines.iter_mut().for_each(|address| *address -= base);
    }

    /// The offsets of all lines that a product reads.
    pub(super) fn all_lines(&self, product: &Product, issued: Issued, lines: &mut Vec<u32>) {
        let mut of_one = Vec::new();
        lines.clear();
        for operand in Operand::of(product, issued, 0..(WARPS * ROWS) as u32) {
            if operand.lines(&mut of_one).is_ok() {
                lines.extend_from_slice(&of_one);
            }
        }
        self.to_offsets(lines);
    }

    /// Makes products for these warps of a warpgroup, one after the other.
    pub(super) fn multiply(&mut self, warps: &mut [Warp], all: &[Issued]) {
        let program = self.program;
        let mut bench = std::mem::take(&mut self.bench);
        // Sums stay where they are while products follow each other that have the same.
        let mut held: Option<&Product> = None;
        for &issued in all {
            let product = product(program, issued.pc);
            if held.is_none_or(|held| !same(&held.d, &product.d)) {
                if let Some(held) = held {
                    put_sums(warps, &held.d, &bench.product.sums);
                }
                bench.product.sums.resize(ROWS * warps.len() * product.columns(), 0.0);
                get_sums(warps, &product.d, &mut bench.product.sums);
                held = Some(product);
            }
            if !issued.adds {
                bench.product.sums.fill(0.0);
            }
            self.fetch(warps, product, issued, &mut bench);
            bench.product.accumulate(self.options.mma, product.formats, product.negative);
        }
        if let Some(held) = held {
            put_sums(warps, &held.d, &bench.product.sums);
        }
        self.bench = bench;
    }

    /// Fetches A and B.
    fn fetch(&self, warps: &[Warp], product: &Product, issued: Issued, bench: &mut Bench) {
        let Bench { product: WideProduct { a, b, .. }, lines } = bench;
        self.read_operand(&Operand::b(product, issued), lines, b);
        match product.a {
            Left::Registers(words) => {
                a.clear();
                warps.iter().for_each(|warp| rows_of(&warp.registers, words, a));
            }
            Left::Shared { transposed, .. } => {
                let first = (ROWS * (warps[0].index % WARPS)) as u32;
                let rows = first..first + (ROWS * warps.len()) as u32;
                self.read_operand(&Operand { name: "A", descriptor: issued.a, transposed, rows }, lines, a);
            }
        }
    }

    /// Reads a matrix from shared memory; what is not there is NaN.
    fn read_operand(&self, operand: &Operand, lines: &mut Vec<u32>, rows: &mut Vec<Line>) {
        rows.clear();
        if operand.lines(lines).is_err() {
            rows.resize(operand.rows.len(), [u32::MAX; 8]);
            return;
        }
        let bits = |address: u32| self.line(address).map_or(u128::MAX, |offset| get(&self.shared, offset, 16));
        if operand.transposed {
            for lines in lines.as_chunks::<16>().0 {
                let halves = [0, 8].map(|first| transposed(&std::array::from_fn(|k| bits(lines[first + k]))));
                rows.extend((0..8).map(|row| line(halves[0][row], halves[1][row])));
            }
        } else {
            rows.extend(lines.as_chunks().0.iter().map(|[low, high]| line(bits(*low), bits(*high))));
        }
    }
}

fn line(low: u128, high: u128) -> Line {
    std::array::from_fn(|word| ((if word < 4 { low } else { high }) >> (32 * (word % 4))) as u32)
}

/// Sixteen rows of A: lane 4r + t has word t of row r, in the registers by turns of rows 0 to 7, 8 to 15, and the same for
/// the second half of a row.
fn rows_of(registers: &Registers, words: [Word; 4], rows: &mut Vec<Line>) {
    let words = words.map(|word| registers.get(word));
    rows.extend(
        (0..ROWS).map(|row| std::array::from_fn(|word| words[row / 8 + 2 * (word / 4)][row % 8 * 4 + word % 4])),
    );
}

/// Whether these are the same registers.
fn same(a: &[Word], b: &[Word]) -> bool {
    a.iter().map(|register| register.0).eq(b.iter().map(|register| register.0))
}

/// For each four lanes, which have eight neighbours of a row: that row among those of all warps, the first of the two
/// registers that hold it, the first column, and the first lane.
fn places(columns: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let of_row = move |row: usize| {
        (0..columns).step_by(8).map(move |column| (row, column / 2 + row / 8 * 2, column, row % 8 * 4))
    };
    (0..ROWS).flat_map(of_row)
}

fn get_sums(warps: &[Warp], d: &[Word], sums: &mut [f32]) {
    let columns = 2 * d.len();
    for (warp, sums) in warps.iter().zip(sums.chunks_exact_mut(ROWS * columns)) {
        for (row, register, column, lane) in places(columns) {
            let sums = &mut sums[row * columns + column..][..8];
            let [even, odd] = [0, 1].map(|i| &warp.registers.get(d[register + i])[lane..lane + 4]);
            for i in 0..4 {
                (sums[2 * i], sums[2 * i + 1]) = (f32::from_bits(even[i]), f32::from_bits(odd[i]));
            }
        }
    }
}

fn put_sums(warps: &mut [Warp], d: &[Word], sums: &[f32]) {
    let columns = 2 * d.len();
    for (warp, sums) in warps.iter_mut().zip(sums.chunks_exact(ROWS * columns)) {
        let words = &mut warp.registers.words;
        for (row, register, column, lane) in places(columns) {
            let sums = &sums[row * columns + column..][..8];
            for i in 0..8 {
                words[d[register + i % 2].0 as usize][lane + i / 2] = sums[i].to_bits();
            }
        }
    }
}
