//! Device memory: buffers with red zones between them, and which of their bytes were written.

#[cfg(test)]
mod tests;

use crate::report::Kind;

/// Address of the first buffer: far from 0, in bits that a 32-bit address does not have, below 2^47.
pub(super) const BASE: u64 = 0x7f00_0000_0000;
/// Alignment of buffers, that of `cuMemAlloc`.
const ALIGN: u64 = 256;
/// Bytes between buffers at least.
const RED_ZONE: u64 = 4096;
/// Farther than this from a buffer an address has nothing to do with it.
const NEAR: u64 = 1 << 20;

#[derive(Debug)]
struct Allocation {
    address: u64,
    len: u64,
    /// Empty once freed.
    bytes: Vec<u8>,
    read_only: bool,
    freed: bool,
    /// Bytes that nobody wrote.
    missing: u64,
    /// A bit for each byte that was written; empty when all were.
    written: Vec<u64>,
}

/// What a kernel finds at an address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Look<'a> {
    pub bytes: &'a [u8],
    /// Whether all of it was written.
    pub written: bool,
    pub read_only: bool,
}

/// Device memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By address. Freed ones stay: their addresses are not given out again.
    allocations: Vec<Allocation>,
    /// For each page as large as a red zone, the allocation that has bytes in it; there cannot be two.
    owners: Vec<u32>,
}

impl Memory {
    /// Memory that nobody has written: every bit is set, which is NaN in every format.
    pub fn alloc(&mut self, len: usize) -> u64 {
        self.push(vec![0xff; len], false, vec![0; len.div_ceil(64)], len as u64)
    }

    /// Memory with these bytes.
    pub fn upload(&mut self, bytes: &[u8], read_only: bool) -> u64 {
        self.push(bytes.to_vec(), read_only, Vec::new(), 0)
    }

    fn push(&mut self, bytes: Vec<u8>, read_only: bool, written: Vec<u64>, missing: u64) -> u64 {
        let end = self.allocations.last().map_or(BASE, |last| last.address + last.len + RED_ZONE);
        let address = end.next_multiple_of(ALIGN);
        let len = bytes.len() as u64;
        let owner = self.allocations.len() as u32;
        self.owners.resize(((address - BASE) / RED_ZONE) as usize, owner);
        self.owners.resize(((address + len - BASE).div_ceil(RED_ZONE)) as usize, owner);
        self.allocations.push(Allocation { address, len, bytes, read_only, freed: false, missing, written });
        address
    }

    /// The bytes of the buffer at `address`, if there is one.
    pub fn download(&self, address: u64) -> Option<&[u8]> {
        let index = self.live(address)?;
        Some(&self.allocations[index].bytes)
    }

    /// Writes the beginning of the buffer at `address` as the host. False if there is none, or it is too short.
    pub fn host_write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(index) = self.live(address) else { return false };
        let allocation = &mut self.allocations[index];
        let Some(to) = allocation.bytes.get_mut(..bytes.len()) else { return false };
        to.copy_from_slice(bytes);
        allocation.mark_written(0, bytes.len());
        true
    }

    /// Frees the buffer at `address`. False if there is none.
    pub fn free(&mut self, address: u64) -> bool {
        let Some(index) = self.live(address) else { return false };
        let allocation = &mut self.allocations[index];
        allocation.freed = true;
        allocation.bytes = Vec::new();
        allocation.written = Vec::new();
        true
    }

    /// A kernel's read of `len` bytes.
    #[inline]
    pub fn look(&mut self, address: u64, len: u32) -> Result<Look<'_>, Kind> {
        let (index, offset) = self.locate(address, len as usize)?;
        let allocation = &self.allocations[index];
        let written = allocation.missing == 0 || allocation.is_written(offset, len as usize);
        let bytes = &allocation.bytes[offset..offset + len as usize];
        Ok(Look { bytes, written, read_only: allocation.read_only })
    }

    /// The bytes of a buffer of inputs, if it holds all of `len` bytes from `address` on, with the buffer's address.
    pub fn inputs(&self, address: u64, len: u64) -> Option<(u64, &[u8])> {
        let allocation = self.allocations[..self.after(address)].last()?;
        let size = allocation.bytes.len() as u64;
        let fits = (address - allocation.address).checked_add(len).is_some_and(|end| end <= size);
        // Offsets in it have 32 bits.
        (fits && size <= u64::from(u32::MAX) && allocation.read_only && allocation.missing == 0)
            .then_some((allocation.address, &allocation.bytes[..]))
    }

    /// A kernel's write. An error leaves the memory alone.
    #[inline]
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Kind> {
        let (index, offset) = self.locate(address, bytes.len())?;
        let allocation = &mut self.allocations[index];
        if allocation.read_only {
            return Err(Kind::ReadOnlyWrite);
        }
        copy(&mut allocation.bytes[offset..offset + bytes.len()], bytes);
        if allocation.missing > 0 {
            allocation.mark_written(offset, bytes.len());
        }
        Ok(())
    }

    /// Where `address` lies, in words.
    pub fn describe(&self, address: u64) -> String {
        let after = self.after(address);
        let before = self.allocations[..after].last();
        if let Some(allocation) = before.filter(|it| address - it.address < it.len) {
            return format!("byte {} of {}", address - allocation.address, allocation.name());
        }
        let behind = before.map(|it| (address - it.address - it.len, "behind", it));
        let ahead = self.allocations.get(after).map(|it| (it.address - address, "before", it));
        let nearest = [behind, ahead].into_iter().flatten().min_by_key(|&(distance, ..)| distance);
        match nearest {
            Some((0, side, allocation)) => format!("directly {side} {}", allocation.name()),
            Some((1, side, allocation)) => format!("1 byte {side} {}", allocation.name()),
            Some((distance, side, allocation)) if distance <= NEAR => {
                format!("{distance} bytes {side} {}", allocation.name())
            }
            _ if address < NEAR => format!("{address:#x}, a null pointer or near one"),
            _ => format!("{address:#x}, far from every buffer"),
        }
    }

    /// The live allocation that begins at `address`.
    fn live(&self, address: u64) -> Option<usize> {
        let index = self.allocations.binary_search_by_key(&address, |it| it.address).ok()?;
        (!self.allocations[index].freed).then_some(index)
    }

    /// How many allocations begin at or before `address`.
    fn after(&self, address: u64) -> usize {
        self.allocations.partition_point(|it| it.address <= address)
    }

    /// The allocation and the offset of an access.
    #[inline(always)]
    fn locate(&self, address: u64, len: usize) -> Result<(usize, usize), Kind> {
        let index = self.owner(address);
        let allocation = self.allocations.get(index).ok_or(Kind::OutOfBounds)?;
        let offset = address.wrapping_sub(allocation.address);
        if offset >= allocation.len || allocation.len - offset < len as u64 {
            return Err(Kind::OutOfBounds);
        }
        if allocation.freed {
            return Err(Kind::UseAfterFree);
        }
        if address & (len as u64).wrapping_sub(1) != 0 {
            return Err(Kind::Misaligned);
        }
        Ok((index, offset as usize))
    }

    /// The only allocation that can hold an address, or an index that none has.
    #[inline(always)]
    fn owner(&self, address: u64) -> usize {
        let page = address.wrapping_sub(BASE) / RED_ZONE;
        self.owners.get(page as usize).map_or(usize::MAX, |&index| index as usize)
    }
}

impl Allocation {
    fn name(&self) -> String {
        let freed = if self.freed { "freed " } else { "" };
        format!("the {freed}{}-byte buffer at {:#x}", self.len, self.address)
    }

    fn is_written(&self, offset: usize, len: usize) -> bool {
        masks(offset, len).all(|(word, mask)| self.written[word] & mask == mask)
    }

    fn mark_written(&mut self, offset: usize, len: usize) {
        if self.missing == 0 {
            return;
        }
        for (word, mask) in masks(offset, len) {
            let written = &mut self.written[word];
            self.missing -= u64::from((mask & !*written).count_ones());
            *written |= mask;
        }
        if self.missing == 0 {
            self.written = Vec::new();
        }
    }
}

/// The bits of a range, word by word.
fn masks(offset: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = offset + len;
    (offset / 64..end.div_ceil(64)).map(move |word| {
        let first = offset.max(word * 64) - word * 64;
        let last = end.min(word * 64 + 64) - word * 64;
        (word, (u64::MAX >> (64 - (last - first))) << first)
    })
}

/// As `copy_from_slice`, without a call for the widths that kernels use.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    fn fixed<const N: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
            *to = *from;
        }
    }
    match from.len() {
        2 => fixed::<2>(to, from),
        4 => fixed::<4>(to, from),
        8 => fixed::<8>(to, from),
        16 => fixed::<16>(to, from),
        _ => to.copy_from_slice(from),
    }
}
