//! The XOR swizzle of shared-memory tiles.
//!
//! A tile row is `row_bytes` long (a multiple of 64) and cut into 16-byte chunks. Without a swizzle the eight rows
//! that one `ldmatrix` phase reads at the same chunk column fall into the same banks. XOR of the chunk number with
//! some bits of the row number spreads them over all 32 banks:
//!
//! | row bytes | chunk XOR | why |
//! |---|---|---|
//! | odd multiple of 64 | `(row >> 1) & 3` | neighbouring rows already differ by 16 banks |
//! | multiple of 128 | `row & 7` | every row starts at bank 0 |
//!
//! Bits are only moved inside an aligned span of 64 or 128 bytes, so adding a multiple of the span or of eight rows
//! to a swizzled address gives a swizzled address again: the kernels compute a lane's address once.

/// The swizzle of a tile whose rows are `row_bytes` long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swizzle {
    row_bytes: u32,
}

impl Swizzle {
    /// The swizzle for rows of `row_bytes`, a multiple of 64.
    pub const fn new(row_bytes: u32) -> Self {
        assert!(row_bytes.is_multiple_of(64), "rows are cut into spans of 64 or 128 bytes");
        Self { row_bytes }
    }

    /// Bytes inside which chunks are exchanged: 64 or 128.
    #[inline(always)]
    pub const fn span(self) -> u32 {
        if self.row_bytes.is_multiple_of(128) { 128 } else { 64 }
    }

    /// What is XORed onto a byte offset inside row `row`.
    #[inline(always)]
    pub const fn xor(self, row: u32) -> u32 {
        if self.span() == 128 { (row & 7) << 4 } else { ((row >> 1) & 3) << 4 }
    }

    /// Byte offset of 16-byte chunk `chunk` of row `row`.
    #[inline(always)]
    pub const fn offset(self, row: u32, chunk: u32) -> u32 {
        row * self.row_bytes + ((chunk * 16) ^ self.xor(row))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    const ROW_BYTES: [u32; 6] = [64, 128, 192, 256, 384, 512];

    #[test]
    fn swizzle_permutes_the_chunks_of_every_row() {
        for row_bytes in ROW_BYTES {
            for row in 0..32 {
                let chunks: BTreeSet<_> = (0..row_bytes / 16).map(|c| Swizzle::new(row_bytes).offset(row, c)).collect();
                let plain: BTreeSet<_> = (0..row_bytes / 16).map(|c| row * row_bytes + c * 16).collect();
                assert_eq!(chunks, plain);
            }
        }
    }

    #[test]
    fn eight_rows_of_one_chunk_column_touch_every_bank_once() {
        for row_bytes in ROW_BYTES {
            for first_row in (0..64).step_by(8) {
                for chunk in 0..row_bytes / 16 {
                    let banks: BTreeSet<_> = (first_row..first_row + 8)
                        .map(|row| Swizzle::new(row_bytes).offset(row, chunk) / 16 % 8)
                        .collect();
                    assert_eq!(banks.len(), 8, "{row_bytes}-byte rows, chunk {chunk}");
                }
            }
        }
    }

    #[test]
    fn moving_by_eight_rows_or_one_span_keeps_the_pattern() {
        for row_bytes in ROW_BYTES {
            let swizzle = Swizzle::new(row_bytes);
            let per_span = swizzle.span() / 16;
            for row in 0..8 {
                for chunk in 0..per_span {
                    let here = swizzle.offset(row, chunk);
                    assert_eq!(swizzle.offset(row + 8, chunk), here + 8 * row_bytes);
                    for span in 0..row_bytes / swizzle.span() {
                        assert_eq!(swizzle.offset(row, chunk + span * per_span), here + span * swizzle.span());
                    }
                }
            }
        }
    }
}
