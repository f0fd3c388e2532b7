//! Bulk copies between global and shared memory, and from a block's shared memory to another's.

use super::Machine;
use super::bytes::{get, put};
use super::groups::{Store, Target};
use super::mbarriers::Load;
use super::memory::{Order, addresses};
use super::step::Step;
use super::warp::Warp;
use crate::check::shared::Completion;
use crate::decode::body::RANK_SHIFT;
use crate::options::Delivery;
use crate::program::{BulkLoad, BulkStore, BulkWait, Remote};
use crate::registers::{Registers, lanes};
use crate::report::{Kind, RawPlace, Space};
use crate::tensor::{Swizzle, TensorMap};

/// Bytes that plain bulk copies are multiples of, and their addresses.
const CHUNK: u32 = 16;
/// Bytes that tiles in shared memory begin at multiples of.
const TILE_ALIGN: u32 = 128;
/// Bytes that tensor maps begin at multiples of.
const MAP_ALIGN: u32 = 64;

impl Machine<'_> {
    pub(super) fn bulk_load(&mut self, warp: &mut Warp, step: Step, load: &BulkLoad) {
        let destinations = self.shared_addresses(&warp.registers, &load.destination.address);
        let mbarriers = self.shared_addresses(&warp.registers, &load.mbarrier.address);
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            let Some(target) = self.target(warp, at, &load.remote) else { continue };
            let Some((len, align)) = self.extent(&warp.registers, at, &load.remote, &target) else { continue };
            let source = match target {
                Target::Shared(address) => match self.bulk_offset(at, (Space::Shared, address), len, align) {
                    Some(source) => Some(source),
                    None => continue,
                },
                _ => None,
            };
            let blocks = load.multicast.map(|mask| warp.registers.get(mask)[lane]);
            let pair = (destinations[lane], mbarriers[lane]);
            for (destination, mbarrier) in self.receivers(at, pair, blocks) {
                let place = (load.destination.space, destination);
                let Some(offset) = self.bulk_offset(at, place, len, align) else { continue };
                let Some(index) = self.completing_mbarrier(at, (load.mbarrier.space, mbarrier)) else { continue };
                if !self.completes_there(at, index, offset) {
                    continue;
                }
                let bytes = self.gather(at, &target, destination, len);
                self.begin_load(index, Load { at, offset, bytes, source, is_store: false, landed: false });
            }
        }
    }

    /// The addresses of the destination and of the mbarrier in each block that gets the bytes.
    fn receivers(&mut self, at: RawPlace, (to, mbarrier): (u32, u32), blocks: Option<u32>) -> Vec<(u32, u32)> {
        let Some(mask) = blocks.map(|mask| mask & 0xffff) else { return vec![(to, mbarrier)] };
        let all = self.blocks.len() as u32;
        if mask == 0 || mask >> all != 0 {
            let message = || format!("blocks {mask:#06x} of a cluster of {all} get the bytes");
            self.find(Kind::InvalidOperand, at, None, message);
        }
        let low = (1 << RANK_SHIFT) - 1;
        let named = (0..all).filter(|rank| mask >> rank & 1 == 1);
        named.map(|rank| (to & low | rank << RANK_SHIFT, mbarrier & low | rank << RANK_SHIFT)).collect()
    }

    /// Whether an mbarrier is in the same block as what completes on it.
    pub(super) fn completes_there(&mut self, at: RawPlace, index: usize, offset: u32) -> bool {
        let is_there = self.mbarriers.rank(index, &self.windows) == Some(self.windows.rank(offset));
        if !is_there {
            let message = || "bytes for one block complete on the mbarrier of another".into();
            self.find(Kind::InvalidOperand, at, None, message);
        }
        is_there
    }

    pub(super) fn begin_load(&mut self, index: usize, mut load: Load) {
        let (at, offset, len) = (load.at, load.offset, load.bytes.len() as u32);
        let by = Completion { is_store: load.is_store, ..self.completion(index) };
        self.mbarriers.get_mut(index).issuer = at.warp;
        if let Some(source) = load.source {
            self.begin_async_read(at, source, len);
        }
        self.begin_async_write(at, by, offset, len);
        load.landed = self.options.delivery == Delivery::Immediate;
        let place = &mut self.shared[offset as usize..][..len as usize];
        if load.landed {
            place.copy_from_slice(&load.bytes);
            self.expect(at, index, -i64::from(len));
        } else {
            // Until it lands there is NaN in every format.
            place.fill(0xff);
        }
        self.mbarriers.get_mut(index).loads.push(load);
        self.settle(index);
    }

    pub(super) fn bulk_store(&mut self, warp: &mut Warp, step: Step, store: &BulkStore) {
        let sources = self.shared_addresses(&warp.registers, &store.source);
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            let Some(target) = self.target(warp, at, &store.remote) else { continue };
            let Some((len, align)) = self.extent(&warp.registers, at, &store.remote, &target) else { continue };
            let Some(offset) = self.bulk_offset(at, (Space::Shared, sources[lane]), len, align) else { continue };
            let mut store = Store { at, group: None, offset, len, target, bytes: None, read: false };
            for (offset, len) in self.source(&store) {
                self.begin_async_read(at, offset, len);
            }
            if self.options.delivery == Delivery::Immediate {
                self.read_source(&mut store);
                self.scatter(&store);
            }
            warp.stores.issue(store);
        }
    }

    pub(super) fn bulk_wait(&mut self, warp: &mut Warp, step: Step, wait: BulkWait) {
        for mut store in warp.stores.due(step.active, wait.open) {
            self.finish_read(&mut store);
            if wait.read {
                warp.stores.issue(store);
            } else {
                self.finish_write(&store);
            }
        }
    }

    /// Threads end, and with them their bulk stores.
    pub(super) fn end_stores(&mut self, warp: &mut Warp, mask: u32) {
        for mut store in warp.stores.all(mask) {
            if !store.read {
                let message = || "the thread ends without a wait for the read of this store".into();
                self.find(Kind::AsyncUnfinished, store.at, None, message);
            }
            self.finish_read(&mut store);
            self.finish_write(&store);
        }
    }

    fn finish_read(&mut self, store: &mut Store) {
        if !store.read {
            self.read_source(store);
            for (offset, len) in self.source(store) {
                self.end_async_read(store.at, offset, len);
            }
            store.read = true;
        }
    }

    fn finish_write(&mut self, store: &Store) {
        if self.options.delivery == Delivery::Late {
            self.scatter(store);
        }
    }

    /// The shared memory that matters to a store, in stretches of whole chunks, each its offset and length: of a tile, the
    /// chunks with elements inside of the tensor.
    fn source(&self, store: &Store) -> Vec<(u32, u32)> {
        let Target::Tile { map, at } = &store.target else { return vec![(store.offset, store.len)] };
        let start = self.windows.address(store.offset);
        let inside = map.rows(at).filter(|row| row.bytes > 0).flat_map(|row| {
            let chunks = row.tile / CHUNK..(row.tile + row.bytes).div_ceil(CHUNK);
            chunks.map(|chunk| store.offset + (map.swizzle().apply(start + chunk * CHUNK) - start))
        });
        let mut chunks: Vec<u32> = inside.collect();
        chunks.sort_unstable();
        let neighbours = chunks.chunk_by(|first, second| first + CHUNK == *second);
        neighbours.map(|chunks| (chunks[0], chunks.len() as u32 * CHUNK)).collect()
    }

    fn read_source(&mut self, store: &mut Store) {
        let bytes = &self.shared[store.offset as usize..][..store.len as usize];
        store.bytes.get_or_insert_with(|| bytes.to_vec());
    }

    /// The end of a bulk copy in global memory: for a tile, its map and its coordinates.
    fn target(&mut self, warp: &Warp, at: RawPlace, remote: &Remote) -> Option<Target> {
        let lane = at.lane as usize;
        match remote {
            Remote::Bytes { address, .. } => Some(Target::Bytes(addresses(&warp.registers, address)[lane])),
            Remote::Shared { address, .. } => {
                Some(Target::Shared(self.shared_addresses(&warp.registers, address)[lane]))
            }
            Remote::Tile { map, at: coordinates } => {
                let address = addresses(&warp.registers, map)[lane];
                let map = self.tensor_map(warp, at, address)?;
                if map.rank() != coordinates.len() {
                    let (rank, given) = (map.rank(), coordinates.len());
                    let message = || format!("{given} coordinates for a tensor map of {rank} dimensions");
                    self.find(Kind::InvalidOperand, at, None, message);
                    return None;
                }
                let coordinate = |word: &_| warp.registers.get(*word)[lane] as i32;
                Some(Target::Tile { map, at: coordinates.iter().map(coordinate).collect() })
            }
        }
    }

    /// The tensor map at a generic address.
    fn tensor_map(&mut self, warp: &Warp, at: RawPlace, address: u64) -> Option<TensorMap> {
        if !address.is_multiple_of(MAP_ALIGN.into()) {
            self.memory_fault(Kind::Misaligned, at, (Space::Generic, address, MAP_ALIGN), "tensor map");
            return None;
        }
        let mut bytes = [0; 128];
        for (chunk, address) in bytes.chunks_exact_mut(16).zip((address..).step_by(16)) {
            let value = self.read(warp, at, (Space::Generic, address, 16), Order::Plain)?;
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        let map = TensorMap::decode(&bytes);
        if map.is_none() {
            self.find(Kind::InvalidOperand, at, Some((Space::Generic, address, 128)), || "not a tensor map".into());
        }
        map
    }

    /// Bytes of a bulk copy, and what its address in shared memory must be a multiple of.
    fn extent(&mut self, registers: &Registers, at: RawPlace, remote: &Remote, target: &Target) -> Option<(u32, u32)> {
        match (remote, target) {
            (_, Target::Tile { map, .. }) => Some((u32::try_from(map.tile_bytes()).unwrap_or(u32::MAX), TILE_ALIGN)),
            (Remote::Bytes { bytes, .. } | Remote::Shared { bytes, .. }, target) => {
                let bytes = registers.get(*bytes)[at.lane as usize];
                if bytes == 0 || !bytes.is_multiple_of(CHUNK) {
                    self.find(Kind::InvalidOperand, at, None, || {
                        format!("a bulk copy of {bytes} bytes, allowed: multiples of {CHUNK}")
                    });
                    return None;
                }
                if let Target::Bytes(address) = target
                    && !address.is_multiple_of(CHUNK.into())
                {
                    self.memory_fault(Kind::Misaligned, at, (Space::Global, *address, bytes), "bulk copy");
                    return None;
                }
                Some((bytes, CHUNK))
            }
            (Remote::Tile { .. }, _) => None,
        }
    }

    /// The offset of bytes in shared memory, where all of them are inside and their address is a multiple of `align`.
    fn bulk_offset(&mut self, at: RawPlace, place: (Space, u32), len: u32, align: u32) -> Option<u32> {
        self.aligned_offset(at, place, (len, align), "bulk copy")
    }

    /// What a bulk copy to `address` brings, in the order of shared memory.
    fn gather(&mut self, at: RawPlace, target: &Target, address: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        match target {
            Target::Bytes(from) => self.read_bytes(at, *from, &mut bytes),
            Target::Shared(from) => {
                let from = from - self.windows.own().0 + self.windows.own().1;
                bytes.copy_from_slice(&self.shared[from as usize..][..len as usize]);
            }
            Target::Tile { map, at: coordinates } => {
                for row in map.rows(coordinates) {
                    self.read_bytes(at, row.global, &mut bytes[row.tile as usize..][..row.bytes as usize]);
                }
                bytes = swizzled(&bytes, map.swizzle(), address);
            }
        }
        bytes
    }

    /// Writes what a bulk store has read.
    fn scatter(&mut self, store: &Store) {
        let Some(bytes) = &store.bytes else { return };
        match &store.target {
            Target::Bytes(to) => self.write_bytes(store.at, *to, bytes),
            Target::Shared(_) => {}
            Target::Tile { map, at } => {
                // A swizzle undoes itself.
                let bytes = swizzled(bytes, map.swizzle(), self.windows.address(store.offset));
                for row in map.rows(at) {
                    self.write_bytes(store.at, row.global, &bytes[row.tile as usize..][..row.bytes as usize]);
                }
            }
        }
    }

    fn read_bytes(&mut self, at: RawPlace, address: u64, to: &mut [u8]) {
        if let Some((start, bytes)) = self.memory.inputs(address, to.len() as u64) {
            to.copy_from_slice(&bytes[(address - start) as usize..][..to.len()]);
            return;
        }
        for (offset, len) in pieces(address, to.len()) {
            let value = self.read_global(at, address + u64::from(offset), len, Order::Plain);
            put(to, offset, len, value.unwrap_or(u128::MAX));
        }
    }

    fn write_bytes(&mut self, at: RawPlace, address: u64, from: &[u8]) {
        for (offset, len) in pieces(address, from.len()) {
            self.write_global(at, address + u64::from(offset), len, get(from, offset, len), Order::Plain);
        }
    }
}

/// Cuts bytes from an address on into aligned accesses: offset and width of each.
fn pieces(address: u64, len: usize) -> impl Iterator<Item = (u32, u32)> {
    let len = len as u32;
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = len - offset;
        let largest = 1 << rest.checked_ilog2()?.min(4);
        let align = (address + u64::from(offset)).trailing_zeros().min(4);
        let piece = (offset, largest.min(1 << align));
        offset += piece.1;
        Some(piece)
    })
}

/// The chunks of a tile at an address in shared memory, permuted.
fn swizzled(bytes: &[u8], swizzle: Swizzle, address: u32) -> Vec<u8> {
    let mut permuted = vec![0; bytes.len()];
    for (chunk, from) in bytes.chunks_exact(CHUNK as usize).zip((address..).step_by(CHUNK as usize)) {
        let to = (swizzle.apply(from) - address) as usize;
        permuted[to..to + CHUNK as usize].copy_from_slice(chunk);
    }
    permuted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_into_aligned_pieces() {
        let cut = |address, len| pieces(address, len).collect::<Vec<_>>();
        assert_eq!(cut(0x1000, 32), [(0, 16), (16, 16)]);
        assert_eq!(cut(0x1002, 16), [(0, 2), (2, 4), (6, 8), (14, 2)]);
        assert_eq!(cut(0x1000, 0), []);
        assert_eq!(cut(0x1001, 2), [(0, 1), (1, 1)]);
    }

    #[test]
    fn a_swizzle_undoes_itself_wherever_the_tile_lies() {
        let bytes: Vec<u8> = (0..2048u32).map(|byte| (byte / 16) as u8).collect();
        for address in [1024, 1152, 1920] {
            for swizzle in [Swizzle::None, Swizzle::Bytes32, Swizzle::Bytes64, Swizzle::Bytes128] {
                assert_eq!(swizzled(&swizzled(&bytes, swizzle, address), swizzle, address), bytes);
            }
            // Row 3 of the tile, chunk 5.
            let row = (address / 128 + 3) % 8;
            let to = 3 * 128 + (5 ^ row) * 16;
            assert_eq!(swizzled(&bytes, Swizzle::Bytes128, address)[to as usize], bytes[3 * 128 + 5 * 16]);
        }
    }
}
