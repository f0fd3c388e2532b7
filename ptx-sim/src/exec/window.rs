//! The shared memory of the blocks of a cluster: addresses, and offsets in the memory of all of them.

use crate::decode::body::RANK_SHIFT;
use crate::report::{Kind, Space};

/// Where the shared memory of each block lies. An address has the block's rank in its upper bits; in the memory of the
/// cluster the blocks lie one behind the other, in lines of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    /// Address of the first byte of block 0.
    first: u32,
    /// Bytes of a block.
    pub bytes: u32,
    /// Bytes from one block to the next.
    pub stride: u32,
    pub blocks: u32,
    /// Address and offset of the first byte of the block whose turn it is.
    own: (u32, u32),
}

impl Windows {
    pub fn new(first: u32, bytes: u32, blocks: u32) -> Self {
        Self { first, bytes, stride: bytes.next_multiple_of(16), blocks, own: (first, 0) }
    }

    /// It is the turn of this block.
    pub fn enter(&mut self, rank: usize) {
        self.own = (self.base(rank as u32), rank as u32 * self.stride);
    }

    /// Address of the first byte of a block.
    fn base(&self, rank: u32) -> u32 {
        self.first + (rank << RANK_SHIFT)
    }

    /// Address and offset of the first byte of the block whose turn it is.
    #[inline(always)]
    pub fn own(&self) -> (u32, u32) {
        self.own
    }

    /// The offset of `len` bytes at an address that is a multiple of `align`, in the own block's memory or with
    /// [`Space::Cluster`] in any block's. With it where they end in that block.
    #[inline(always)]
    pub fn locate(&self, (space, address): (Space, u32), len: u32, align: u32) -> Result<(u32, u32), Kind> {
        let (mut base, mut start) = self.own;
        let rank = address >> RANK_SHIFT;
        if rank != base >> RANK_SHIFT && rank < self.blocks {
            if space != Space::Cluster {
                return Err(Kind::WrongSpace);
            }
            (base, start) = (self.base(rank), rank * self.stride);
        }
        let offset = address.wrapping_sub(base);
        let end = u64::from(offset) + u64::from(len);
        if end > self.bytes.into() {
            return Err(Kind::OutOfBounds);
        }
        if address & (align - 1) != 0 {
            return Err(Kind::Misaligned);
        }
        Ok((start + offset, end as u32))
    }

    /// The address of an offset.
    pub fn address(&self, offset: u32) -> u32 {
        self.base(self.rank(offset) as u32) + offset % self.stride.max(1)
    }

    /// The rank of the block that has an offset.
    pub fn rank(&self, offset: u32) -> usize {
        (offset / self.stride.max(1)) as usize
    }

    /// Where an address lies, in words.
    pub fn describe(&self, address: u32) -> String {
        let rank = address >> RANK_SHIFT;
        let (own, bytes) = (self.own.0 >> RANK_SHIFT, self.bytes);
        let (base, of) = match rank {
            _ if rank == own || rank >= self.blocks => (self.own.0, String::new()),
            _ => (self.base(rank), format!(" of block {rank} of the cluster")),
        };
        let offset = i64::from(address) - i64::from(base);
        format!("offset {offset} of {bytes} bytes of shared memory{of}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_own_addresses_and_offsets() {
        let mut windows = Windows::new(1024, 24, 3);
        windows.enter(1);
        let own = (1 << RANK_SHIFT) + 1024;
        assert_eq!(windows.locate((Space::Shared, own + 8), 16, 8), Ok((40, 24)));
        assert_eq!(windows.locate((Space::Shared, own + 12), 16, 4), Err(Kind::OutOfBounds));
        assert_eq!(windows.locate((Space::Shared, own + 4), 8, 8), Err(Kind::Misaligned));
        let other = (2 << RANK_SHIFT) + 1024;
        assert_eq!(windows.locate((Space::Shared, other), 8, 8), Err(Kind::WrongSpace));
        assert_eq!(windows.locate((Space::Cluster, other), 8, 8), Ok((64, 8)));
        assert_eq!(windows.locate((Space::Cluster, own), 8, 8), Ok((32, 8)));
        assert_eq!(windows.locate((Space::Cluster, (3 << RANK_SHIFT) + 1024), 8, 8), Err(Kind::OutOfBounds));
        assert_eq!((windows.address(64), windows.rank(64), windows.address(40)), (other, 2, own + 8));
    }
}
