//! The operands of a `wgmma` product, fetched from shared memory and registers, and what becomes of its accumulators.

use super::Machine;
use super::bytes::get;
use super::descriptor::Descriptor;
use super::matrix::transposed;
use super::products::{Issued, factors, product};
use super::warp::Warp;
use super::warpgroup::{ROWS, WARPS};
use crate::numeric::mma::{Line, WideProduct};
use crate::program::{Left, Product};
use crate::registers::{Registers, Word};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::rc::Rc;

/// Operands whose places are remembered, at most.
const KNOWN: usize = 1 << 10;

/// What products are made with.
#[derive(Debug, Default)]
pub(super) struct Bench {
    product: WideProduct,
    /// Kernels use few descriptors, each many times.
    known: FxHashMap<Operand, Rc<Lines>>,
}

/// Rows of a matrix in shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Operand {
    pub descriptor: u64,
    /// The rank of the block in whose memory it is.
    rank: usize,
    transposed: bool,
    rows: Range<u32>,
}

/// The offsets of the lines of an operand in the memory of the cluster, in the order of [`Descriptor::lines`].
pub(super) type Lines = Result<Box<[u32]>, Unusable>;

/// Why an operand cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Its descriptor is not good, in words.
    Descriptor(String),
    /// A line at this address is not inside of shared memory.
    Outside(u32),
}

impl Operand {
    /// A, where it is in shared memory.
    pub fn a(product: &Product, issued: Issued, rank: usize, rows: Range<u32>) -> Option<Self> {
        match product.a {
            Left::Registers(_) => None,
            Left::Shared { transposed, .. } => Some(Self { descriptor: issued.a, rank, transposed, rows }),
        }
    }

    pub fn b(product: &Product, issued: Issued, rank: usize) -> Self {
        let rows = 0..product.columns() as u32;
        Self { descriptor: issued.b, rank, transposed: product.b_transposed, rows }
    }
}

impl Machine<'_> {
    /// Where an operand is.
    pub(super) fn lines(&mut self, operand: &Operand) -> Rc<Lines> {
        if let Some(lines) = self.bench.known.get(operand) {
            return lines.clone();
        }
        // A descriptor has no place for the rank: it names the own block's memory.
        let (base, bytes) = (self.program.shared_base, self.windows.bytes);
        let start = self.windows.own().1;
        let offset = |address: u32| {
            let offset = address.wrapping_sub(base);
            if offset < bytes && bytes - offset >= 16 { Ok(start + offset) } else { Err(Unusable::Outside(address)) }
        };
        let lines = Descriptor::new(operand.descriptor).map_err(Unusable::Descriptor);
        let lines = lines.and_then(|descriptor| {
            let addresses = descriptor.lines(operand.rows.clone(), operand.transposed);
            addresses.into_iter().map(offset).collect()
        });
        if self.bench.known.len() >= KNOWN {
            self.bench.known.clear();
        }
        let lines = Rc::new(lines);
        self.bench.known.insert(operand.clone(), lines.clone());
        lines
    }

    /// Makes products for these warps of a warpgroup, one after the other.
    pub(super) fn multiply(&mut self, warps: &mut [Warp], all: &[Issued]) {
        let program = self.program;
        let mut made = std::mem::take(&mut self.bench.product);
        // Sums stay where they are while products follow each other that have the same.
        let mut held: Option<&Product> = None;
        for &issued in all {
            let product = product(program, issued.pc);
            if held.is_none_or(|held| !same(&held.d, &product.d)) {
                if let Some(held) = held {
                    put_sums(warps, &held.d, &made.sums);
                }
                made.sums.resize(ROWS * warps.len() * product.columns(), 0.0);
                get_sums(warps, &product.d, &mut made.sums);
                held = Some(product);
            }
            if !issued.adds {
                made.sums.fill(0.0);
            }
            let first = (ROWS * (warps[0].number % WARPS)) as u32;
            let rows = first..first + (ROWS * warps.len()) as u32;
            if let Some(a) = Operand::a(product, issued, self.rank, rows) {
                self.fetch(&a, &mut made.a);
            } else {
                made.a.clear();
                warps.iter().for_each(|warp| rows_of(&warp.registers, factors(product), &mut made.a));
            }
            self.fetch(&Operand::b(product, issued, self.rank), &mut made.b);
            made.accumulate(self.options.mma, product.formats, product.negative);
        }
        if let Some(held) = held {
            put_sums(warps, &held.d, &made.sums);
        }
        self.bench.product = made;
    }

    /// Reads an operand from shared memory; one that cannot be read is NaN.
    fn fetch(&mut self, operand: &Operand, rows: &mut Vec<Line>) {
        let lines = self.lines(operand);
        let memory = &self.shared;
        rows.clear();
        match lines.as_ref() {
            Err(_) => rows.resize(operand.rows.len(), [u32::MAX; 8]),
            Ok(lines) if operand.transposed => {
                for lines in lines.as_chunks::<16>().0 {
                    let eight = |first| transposed(&std::array::from_fn(|k| get(memory, lines[first + k], 16)));
                    let (low, high) = (eight(0), eight(8));
                    rows.extend((0..8).map(|row| line(low[row], high[row])));
                }
            }
            Ok(lines) => {
                let pairs = lines.as_chunks::<2>().0.iter();
                rows.extend(pairs.map(|[low, high]| line(get(memory, *low, 16), get(memory, *high, 16))));
            }
        }
    }
}

#[inline(always)]
fn line(low: u128, high: u128) -> Line {
    std::array::from_fn(|word| ((if word < 4 { low } else { high }) >> (32 * (word % 4))) as u32)
}

/// Sixteen rows of A: lane 4r + t has word t of row r, in the registers by turns of rows 0 to 7, 8 to 15, and the same for
/// the second half of a row.
fn rows_of(registers: &Registers, words: &[Word], rows: &mut Vec<Line>) {
    let word = |row: usize, word: usize| registers.get(words[row / 8 + 2 * (word / 4)])[row % 8 * 4 + word % 4];
    rows.extend((0..ROWS).map(|row| std::array::from_fn(|at| word(row, at))));
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
