//! Products of a warpgroup: `wgmma` with f32 accumulators.
//!
//! The operands are whole matrices here, gathered from shared memory or from the registers of four warps: 32 bytes of
//! k for every row of A and every column of B.

// Plain loops over indices become vector code in every build profile; iterators only without debug assertions.
#![allow(clippy::needless_range_loop)]

use super::element::{Bf16, E4m3, E5m2, Element, F16};
use super::{Fp8, exact};
use crate::numeric::packed::Half;
use crate::numeric::{canonical, vectorize};
use crate::options::Mma;

/// All elements of a row of A or of a column of B, in the order of k: 16 of 16 bits, or 32 of 8.
pub(crate) type Line = [u32; 8];

/// The formats of A and B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Formats {
    /// 16 bits, the same for both.
    Half(Half),
    /// 8 bits.
    Fp8([Fp8; 2]),
}

/// A product of matrices: its operands and sums, and memory that the next one uses again.
#[derive(Debug, Default)]
pub(crate) struct WideProduct {
    /// Rows of A, a multiple of 16.
    pub a: Vec<Line>,
    /// Columns of B, a multiple of 8.
    pub b: Vec<Line>,
    /// The accumulators, row by row, as many in a row as B has columns.
    pub sums: Vec<f32>,
    /// A, decoded, by row and then by k.
    rows: Vec<f32>,
    /// B, decoded, by k and then by column.
    columns: Vec<f32>,
}

/// Rows and columns whose sums are made side by side: additions of one sum wait for each other.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

impl WideProduct {
    /// Adds `a * b` to the sums, or takes it off them where `negative`.
    ///
    /// `Mma::Fast` adds in the order of k. `Mma::Exact` adds all k at once as Hopper does, which alone has the
    /// instruction, whichever architecture is named.
    pub fn accumulate(&mut self, mode: Mma, formats: Formats, negative: bool) {
        use Fp8::{E4m3 as M3, E5m2 as M2};
        match formats {
            Formats::Half(Half::F16) => self.multiply::<16, 2, F16, F16>(mode, negative),
            Formats::Half(Half::Bf16) => self.multiply::<16, 2, Bf16, Bf16>(mode, negative),
            Formats::Fp8([M3, M3]) => self.multiply::<32, 4, E4m3, E4m3>(mode, negative),
            Formats::Fp8([M3, M2]) => self.multiply::<32, 4, E4m3, E5m2>(mode, negative),
            Formats::Fp8([M2, M3]) => self.multiply::<32, 4, E5m2, E4m3>(mode, negative),
            Formats::Fp8([M2, M2]) => self.multiply::<32, 4, E5m2, E5m2>(mode, negative),
        }
    }

    /// `K` values of k, `E` in a word.
    fn multiply<const K: usize, const E: usize, X: Element, Y: Element>(&mut self, mode: Mma, negative: bool) {
        self.rows.resize(K * self.a.len(), 0.0);
        self.columns.resize(K * self.b.len(), 0.0);
        let Self { a, b, sums, rows, columns } = self;
        vectorize(
            #[inline(always)]
            |fused| {
                decode_rows::<K, E, X>(a, negative, rows);
                decode_columns::<K, E, Y>(b, columns);
                match mode {
                    Mma::Fast => add::<K>(fused.0 & X::EXACT_PRODUCTS & Y::EXACT_PRODUCTS, rows, columns, sums),
                    Mma::Exact(_) => exact::warpgroup::<K, X, Y>(rows, columns, sums),
                }
            },
        );
    }
}

#[inline(always)]
fn decode_rows<const K: usize, const E: usize, X: Element>(lines: &[Line], negative: bool, rows: &mut [f32]) {
    let sign = u32::from(negative) << 31;
    for (line, row) in lines.iter().zip(rows.as_chunks_mut::<K>().0) {
        for word in 0..8 {
            for i in 0..E {
                row[E * word + i] = f32::from_bits(X::decode(line[word] >> (32 / E * i)).to_bits() ^ sign);
            }
        }
    }
}

#[inline(always)]
fn decode_columns<const K: usize, const E: usize, Y: Element>(lines: &[Line], columns: &mut [f32]) {
    let n = lines.len();
    let mut words = [0; 256];
    for word in 0..8 {
        for j in 0..n {
            words[j] = lines[j][word];
        }
        for i in 0..E {
            let row = &mut columns[(E * word + i) * n..][..n];
            for j in 0..n {
                row[j] = Y::decode(words[j] >> (32 / E * i));
            }
        }
    }
}

/// Adds to the sums in the order of k.
#[inline(always)]
fn add<const K: usize>(fused: bool, rows: &[f32], columns: &[f32], sums: &mut [f32]) {
    let n = columns.len() / K;
    for (rows, sums) in rows.chunks_exact(ROWS * K).zip(sums.chunks_exact_mut(ROWS * n)) {
        let mut column = 0;
        while column + COLUMNS <= n {
            add_tile::<K, COLUMNS>(fused, rows, columns, column, sums);
            column += COLUMNS;
        }
        if column < n {
            add_tile::<K, 8>(fused, rows, columns, column, sums);
        }
    }
}

/// Adds to the sums of [`ROWS`] rows and `C` columns, the first of which is `column`.
#[inline(always)]
fn add_tile<const K: usize, const C: usize>(
    fused: bool,
    rows: &[f32],
    columns: &[f32],
    column: usize,
    sums: &mut [f32],
) {
    let n = columns.len() / K;
    let mut sum = [[0.0; C]; ROWS];
    for row in 0..ROWS {
        sum[row] = *chunk(&sums[row * n + column..]);
    }
    for k in 0..K {
        let y: &[f32; C] = chunk(&columns[k * n + column..]);
        for row in 0..ROWS {
            let x = rows[row * K + k];
            for j in 0..C {
                let z = sum[row][j];
                sum[row][j] = if fused { x.mul_add(y[j], z) } else { z + x * y[j] };
            }
        }
    }
    for row in 0..ROWS {
        let sums = &mut sums[row * n + column..][..C];
        for j in 0..C {
            sums[j] = canonical(sum[row][j]);
        }
    }
}

/// The first `C` of a row, as an array: of a length that is known vector code is made.
#[inline(always)]
fn chunk<const C: usize>(row: &[f32]) -> &[f32; C] {
    row.first_chunk().expect("a tile lies in the matrix")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::Random;
    use crate::options::Arch;

    fn product(n: usize, random: &mut Random) -> WideProduct {
        // Exponents near that of 1 in every format.
        let mut line = || std::array::from_fn(|_| random.next() as u32 & 0xb1ff_b1ff | 0x3000_3000);
        let (a, b) = ((0..64).map(|_| line()).collect(), (0..n).map(|_| line()).collect());
        let sums = (0..64 * n).map(|_| random.near_one(3)).collect();
        WideProduct { a, b, sums, ..WideProduct::default() }
    }

    fn halves(line: &Line) -> impl Iterator<Item = f32> {
        line.iter().flat_map(|word| [F16::decode(*word), F16::decode(*word >> 16)])
    }

    #[test]
    fn sums_are_made_in_the_order_of_k() {
        let mut random = Random::new(11);
        for n in [8, 24, 128, 256] {
            let mut product = product(n, &mut random);
            let before = product.sums.clone();
            product.accumulate(Mma::Fast, Formats::Half(Half::F16), n == 24);
            for (i, (sum, start)) in product.sums.iter().zip(before).enumerate() {
                let terms = halves(&product.a[i / n]).zip(halves(&product.b[i % n]));
                let expected = terms.fold(start, |sum, (x, y)| if n == 24 { sum - x * y } else { sum + x * y });
                assert_eq!(sum.to_bits(), expected.to_bits(), "{i} of n = {n}");
            }
        }
    }

    /// What sm_90 gives for `mma`, which is known from hardware: `wgmma` adds the same number of products at once.
    #[test]
    fn exact_sums_of_halves_are_those_of_mma() {
        let mut random = Random::new(5);
        let mut wide = product(8, &mut random);
        let before = wide.sums.clone();
        wide.accumulate(Mma::Exact(Arch::Sm90), Formats::Half(Half::F16), false);
        let a: [[u32; 32]; 4] =
            std::array::from_fn(|i| std::array::from_fn(|l| wide.a[l / 4 + 8 * (i % 2)][l % 4 + 4 * (i / 2)]));
        let b: [[u32; 32]; 2] = std::array::from_fn(|i| std::array::from_fn(|l| wide.b[l / 4][l % 4 + 4 * i]));
        let at = |i: usize, l: usize| (l / 4 + 8 * (i / 2)) * 8 + 2 * (l % 4) + i % 2;
        let c: [[u32; 32]; 4] = std::array::from_fn(|i| std::array::from_fn(|l| before[at(i, l)].to_bits()));
        let mode = Mma::Exact(Arch::Sm90);
        let d = crate::numeric::mma::mma_m16n8k16(mode, Half::F16, a.each_ref(), b.each_ref(), c.each_ref());
        for (i, row) in d.iter().enumerate() {
            for (l, bits) in row.iter().enumerate() {
                assert_eq!(wide.sums[at(i, l)].to_bits(), *bits, "register {i} lane {l}");
            }
        }
    }

    #[test]
    fn exact_sums_of_bytes_keep_thirteen_bits_of_32_products() {
        let mut product = WideProduct { a: vec![[0; 8]; 16], b: vec![[0; 8]; 8], ..WideProduct::default() };
        product.sums = vec![0.0; 128];
        // 1 * 1, and 2^-6 * 2^-8 at the other end of k: below the last of thirteen bits.
        (product.a[0][0], product.b[0][0]) = (0x38, 0x38);
        (product.a[0][7], product.b[0][7]) = (0x0800_0000, 0x0200_0000);
        product.sums[0] = 2f32.powi(-13);
        product.accumulate(Mma::Exact(Arch::Sm90), Formats::Fp8([Fp8::E4m3; 2]), false);
        assert_eq!(product.sums[0], 1.0 + 2f32.powi(-13));
        product.sums[0] = 2f32.powi(-13);
        product.accumulate(Mma::Fast, Formats::Fp8([Fp8::E4m3; 2]), false);
        assert_eq!(product.sums[0], 1.0 + 2f32.powi(-13) + 2f32.powi(-14));
    }

    /// Prints what an m64n128k16 costs: `cargo test -p ptx-sim cost_of -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_product() {
        for format in [Half::Bf16, Half::F16] {
            for mode in [Mma::Fast, Mma::Exact(Arch::Sm90)] {
                let mut product = product(128, &mut Random::new(1));
                let start = std::time::Instant::now();
                (0..2000).for_each(|_| product.accumulate(mode, Formats::Half(format), false));
                println!("{format:?} {mode:?}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / 2000.0);
            }
        }
    }
}
