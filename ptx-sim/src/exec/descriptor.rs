//! Matrices in shared memory as the descriptors of `wgmma` name them.
//!
//! A descriptor names lines of 16 bytes (PTX ISA, "Matrix Descriptor Format" and "Strides"). With `W` lines side by
//! side in the span of its swizzle (1 without one, 2 for 32 bytes, 4 for 64, 8 for 128):
//!
//! - where k lies side by side, line `h` of row `r` is `W` lines behind that of row `r - 1`, except that every eight
//!   rows begin a stride behind the eight before. The two halves `h` are neighbours, without a swizzle a leading offset
//!   apart;
//! - where rows lie side by side, a line holds eight of them for one k. Lines of the same rows follow each other every
//!   `W` lines for eight values of k. With a swizzle the next `W` lines of rows begin a leading offset behind, the next
//!   eight values of k a stride; without one it is the other way round.
//!
//! Then the swizzle adds bits 7 to 9 of the address to its bits 4 to 6 without carry, as many as `W` has bits.

use std::ops::Range;

/// Bits of a descriptor that mean nothing and must be zero.
const RESERVED: u64 = 0x3ff1_c000_c000_c000;

/// A matrix in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Address of its first line.
    start: u32,
    /// Bytes.
    leading: u32,
    /// Bytes.
    stride: u32,
    /// Lines in the span of the swizzle, as a power of two.
    span: u32,
}

impl Descriptor {
    /// Fails, in words, where bits are set that must not be.
    pub fn new(bits: u64) -> Result<Self, String> {
        if bits & RESERVED != 0 {
            return Err(format!("descriptor {bits:#018x}: the reserved bits {:#x} are set", bits & RESERVED));
        }
        let base = bits >> 49 & 7;
        if base != 0 {
            return Err(format!("descriptor {bits:#018x}: a base offset of {base}, only 0 is simulated"));
        }
        let field = |shift: u32| (bits >> shift) as u32 % (1 << 14) * 16;
        let span = [0, 3, 2, 1][(bits >> 62) as usize];
        Ok(Self { start: field(0), leading: field(16), stride: field(32), span })
    }

    /// The addresses of the two lines of every row, where k lies side by side.
    fn rows(self, rows: Range<u32>) -> impl Iterator<Item = u32> {
        let half = if self.span == 0 { self.leading } else { 16 };
        rows.flat_map(move |row| {
            let first = self.start + row / 8 * self.stride + ((row % 8) << (4 + self.span));
            [first, first + half]
        })
    }

    /// The addresses of sixteen lines, one for each k, of every eight rows, where rows lie side by side.
    fn columns(self, rows: Range<u32>) -> impl Iterator<Item = u32> {
        let (rows_apart, k_apart) =
            if self.span == 0 { (self.stride, self.leading) } else { (self.leading, self.stride) };
        (rows.start / 8..rows.end / 8).flat_map(move |eight| {
            let (beside, span) = (eight % (1 << self.span), eight >> self.span);
            let first = self.start + span * rows_apart + beside * 16;
            (0..16).map(move |k| first + k / 8 * k_apart + ((k % 8) << (4 + self.span)))
        })
    }

    /// The addresses of all lines of these rows: two a row, or with `transposed` sixteen for every eight rows.
    pub fn lines(self, rows: Range<u32>, transposed: bool) -> Vec<u32> {
        let swizzled = |address| self.swizzled(address);
        if transposed { self.columns(rows).map(swizzled).collect() } else { self.rows(rows).map(swizzled).collect() }
    }

    fn swizzled(self, address: u32) -> u32 {
        let mask = (1 << self.span) - 1;
        address ^ (address >> 7 & mask) << 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bits: u64, rows: Range<u32>, transposed: bool) -> Vec<u32> {
        Descriptor::new(bits).expect("it is good").lines(rows, transposed)
    }

    #[test]
    fn reserved_bits_and_a_base_offset_are_refused() {
        for bit in [14, 15, 30, 31, 46, 47, 48, 52, 61] {
            assert!(Descriptor::new(1 << bit).is_err_and(|message| message.contains("reserved")), "bit {bit}");
        }
        assert!(Descriptor::new(5 << 49).is_err_and(|message| message.contains("base offset of 5")));
        for bit in [0, 13, 16, 29, 32, 45, 62, 63] {
            assert!(Descriptor::new(1 << bit).is_ok(), "bit {bit}");
        }
    }

    /// TMA puts line c of a row of 128 bytes at place c ^ (row % 8).
    #[test]
    fn a_row_of_128_bytes_is_swizzled_by_its_number() {
        let tile = 1 << 62 | 64 << 32 | 1 << 16 | 0x400 >> 4;
        for step in 0..4 {
            let expected = (0..64).flat_map(|row| {
                [2 * step, 2 * step + 1].map(|line| 0x400 + 128 * row + 16 * ((u64::from(row) % 8) ^ line) as u32)
            });
            assert_eq!(lines(tile + 2 * step, 0..64, false), expected.collect::<Vec<_>>(), "step {step}");
        }
    }

    #[test]
    fn without_a_swizzle_the_offsets_change_places_with_the_major() {
        let tile = 7 << 32 | 9 << 16;
        assert_eq!(lines(tile, 7..9, false), [7 * 16, 7 * 16 + 9 * 16, 7 * 16, 7 * 16 + 9 * 16]);
        let columns = lines(tile, 8..16, true);
        assert_eq!((columns[0], columns[1], columns[8]), (7 * 16, 7 * 16 + 16, 7 * 16 + 9 * 16));
    }
}
