//! Races between blocks on global memory.
//!
//! Blocks are simulated one after the other, or those of a cluster by turns, so an access is ordered after an earlier one
//! of another block only if the present block acquired what that block released: vector clocks again, sparse, and kept for
//! the blocks that run and for each address that was released to. Lanes of one block are not told apart.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use super::Order;
use super::global::BASE;

/// Cells of a page, as a power of two.
const PAGE: u32 = 10;

/// Two accesses that nothing orders: the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRace {
    pub order: Order,
    pub block: u32,
    pub pc: u32,
}

/// An access in one word: epoch (32 bits), pc (32). A turn of a block, a fence and a release begin an epoch; they are
/// counted over all launches, and 0 is before all.
#[derive(Clone, Copy, Debug, Default)]
struct Event(u64);

impl Event {
    fn new(epoch: u32, pc: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(pc))
    }

    fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Accesses of one kind to a cell. Of the blocks that nothing orders, the first and the last are kept: a conflict is
/// missed only if whoever comes next is ordered after these two and not after one between.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: Event,
    last: Event,
}

impl Ends {
    #[inline(always)]
    fn record(&mut self, present: &Present, event: Event) {
        if present.is_unordered(self.last) && !present.is_unordered(self.first) {
            self.first = self.last;
        }
        self.last = event;
    }

    #[inline(always)]
    fn conflict(&self, present: &Present) -> Option<Event> {
        [self.last, self.first].into_iter().find(|&event| present.is_unordered(event))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Event,
    reads: Ends,
}

#[derive(Debug)]
struct Page {
    cells: Vec<Cell>,
    /// Made at the first atomic access.
    atomics: Vec<Ends>,
}

/// Epochs that are ordered before something, by block and sorted: the last one of each.
pub(crate) type Known = Vec<(u32, u32)>;

/// The present block.
#[derive(Debug, Default)]
struct Present {
    block: u32,
    /// The first epoch of its turn.
    since: u32,
    /// The running epoch.
    epoch: u32,
    /// The epoch that its last fence ended.
    fenced: Option<u32>,
    /// The last epoch of the launches before; they are ordered before everything.
    floor: u32,
    known: Known,
    /// Its cluster has ended.
    is_over: bool,
    /// The first epoch of each turn of the launch and the block, in their order.
    begun: Vec<(u32, u32)>,
}

impl Present {
    /// The block that made an event of this launch.
    fn block_of(&self, event: Event) -> u32 {
        let after = self.begun.partition_point(|&(since, _)| since <= event.epoch());
        self.begun[after - 1].1
    }

    /// Whether an event is of another block, and the present one is not ordered after it.
    #[inline(always)]
    fn is_unordered(&self, event: Event) -> bool {
        let is_other = event.epoch() > self.floor && event.epoch() < self.since;
        is_other && !self.acquired(event)
    }

    #[inline(never)]
    fn acquired(&self, event: Event) -> bool {
        let found = self.known.binary_search_by_key(&self.block_of(event), |&(block, _)| block);
        found.is_ok_and(|at| event.epoch() <= self.known[at].1)
    }

    fn race(&self, order: Order, event: Event) -> BlockRace {
        BlockRace { order, block: self.block_of(event), pc: event.0 as u32 }
    }
}

/// What each block did to global memory that is not read-only, and which blocks are ordered. Accesses lie in buffers,
/// are of 16 bytes at most and aligned to their width.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    /// Bytes of a cell, as a power of two.
    granule: u32,
    /// From the beginning of device memory.
    pages: Vec<Option<Box<Page>>>,
    present: Present,
    /// The other blocks of the cluster that have had a turn: the epoch that their last fence ended, and what they know.
    waiting: HashMap<u32, (Option<u32>, Known)>,
    /// What was published at an address.
    released: HashMap<u64, Known>,
}

impl GlobalShadow {
    /// A launch that begins. `granule` is the width of the narrowest global access of the program, at most 4.
    pub fn new(granule: u32) -> Self {
        assert!(matches!(granule, 1 | 2 | 4));
        let (granule, present) = (granule.ilog2(), Present::default());
        Self { granule, pages: Vec::new(), present, waiting: HashMap::new(), released: HashMap::new() }
    }

    /// A plain read.
    pub fn read(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        let (event, cells) = self.begin(block, pc, address, len);
        let (present, page) = self.page(address);
        let mut race = None;
        for cell in &mut page.cells[cells.clone()] {
            if present.is_unordered(cell.write) {
                race = Some(present.race(Order::ReadAfterWrite, cell.write));
            }
            cell.reads.record(present, event);
        }
        for atomics in page.atomics.get(cells).unwrap_or_default() {
            if let Some(event) = atomics.conflict(present) {
                race = Some(present.race(Order::ReadAfterWrite, event));
            }
        }
        race
    }

    /// A plain write.
    pub fn write(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        let (event, cells) = self.begin(block, pc, address, len);
        let (present, page) = self.page(address);
        let mut race = None;
        for cell in &mut page.cells[cells.clone()] {
            if let Some(event) = cell.reads.conflict(present) {
                race = Some(present.race(Order::WriteAfterRead, event));
            }
            if present.is_unordered(cell.write) {
                race = Some(present.race(Order::WriteAfterWrite, cell.write));
            }
            *cell = Cell { write: event, reads: Ends::default() };
        }
        for atomics in page.atomics.get(cells).unwrap_or_default() {
            if let Some(event) = atomics.conflict(present) {
                race = Some(present.race(Order::WriteAfterWrite, event));
            }
        }
        race
    }

    /// An atomic access, or a load or store that is not weak (`.relaxed`, `.acquire`, `.release`, `.volatile`): needs no
    /// order among its kind. [`acquire`](Self::acquire) belongs before it, [`release`](Self::release) or
    /// [`publish`](Self::publish) behind it.
    pub fn atomic(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        let (mut event, cells) = self.begin(block, pc, address, len);
        if let Some(fenced) = self.present.fenced {
            // Whoever learns of the fence by this access learns of the access too.
            event = Event::new(fenced, pc);
        }
        let (present, page) = self.page(address);
        page.atomics.resize(1 << PAGE, Ends::default());
        page.atomics[cells.clone()].iter_mut().for_each(|atomics| atomics.record(present, event));
        page.cells[cells].iter().find_map(|cell| {
            if present.is_unordered(cell.write) {
                return Some(present.race(Order::WriteAfterWrite, cell.write));
            }
            Some(present.race(Order::WriteAfterRead, cell.reads.conflict(present)?))
        })
    }

    /// `membar.gl`, `membar.sys` or `fence`.
    pub fn fence(&mut self, block: u32) {
        self.switch(block);
        self.present.fenced = Some(self.present.epoch);
        self.present.epoch += 1;
    }

    /// Publishes at `address` what the block did before its last fence, and acquired: for an atomic access, or a store
    /// that is not weak.
    pub fn publish(&mut self, block: u32, address: u64) {
        self.switch(block);
        if let Some(fenced) = self.present.fenced {
            self.publish_epoch(address, fenced);
        }
    }

    /// As [`publish`](Self::publish), of all that the block did: for an access with `.release` or `.acq_rel`.
    pub fn release(&mut self, block: u32, address: u64) {
        self.switch(block);
        self.publish_epoch(address, self.present.epoch);
        self.present.epoch += 1;
    }

    /// What those learn who wait for the block in shared memory: all that it did and acquired.
    pub fn released(&mut self, block: u32) -> Known {
        self.switch(block);
        self.present.epoch += 1;
        self.known_up_to(self.present.epoch - 1)
    }

    /// The same, up to its last fence.
    pub fn fenced(&mut self, block: u32) -> Known {
        self.switch(block);
        self.present.fenced.map(|fenced| self.known_up_to(fenced)).unwrap_or_default()
    }

    /// Learns what another block let it know in shared memory.
    pub fn learn(&mut self, block: u32, known: &Known) {
        if !known.is_empty() {
            self.switch(block);
            merge(&mut self.present.known, known);
        }
    }

    fn known_up_to(&self, epoch: u32) -> Known {
        let mut known = self.present.known.clone();
        merge(&mut known, &[(self.present.block, epoch)]);
        known
    }

    fn publish_epoch(&mut self, address: u64, epoch: u32) {
        let released = self.released.entry(address).or_default();
        merge(released, &self.present.known);
        merge(released, &[(self.present.block, epoch)]);
    }

    /// Learns what was published at `address`: for every atomic access.
    pub fn acquire(&mut self, block: u32, address: u64) {
        self.switch(block);
        if let Some(released) = self.released.get(&address) {
            merge(&mut self.present.known, released);
        }
    }

    /// Forgets the blocks that have had their turns.
    pub fn begin_cluster(&mut self) {
        self.waiting.clear();
        self.present.is_over = true;
    }

    /// Begins the turn of a block if it was another's.
    #[inline(always)]
    fn switch(&mut self, block: u32) {
        if self.present.block != block || self.present.begun.is_empty() {
            self.begin_turn(block);
        }
    }

    #[inline(never)]
    fn begin_turn(&mut self, block: u32) {
        let present = &mut self.present;
        let known = std::mem::take(&mut present.known);
        if !std::mem::take(&mut present.is_over) && !present.begun.is_empty() {
            self.waiting.insert(present.block, (present.fenced, known));
        }
        present.fenced = None;
        if let Some((fenced, known)) = self.waiting.remove(&block) {
            (present.fenced, present.known) = (fenced, known);
            // What it did in its turns before.
            merge(&mut present.known, &[(block, present.epoch)]);
        }
        present.epoch += 1;
        present.since = present.epoch;
        present.block = block;
        present.begun.push((present.epoch, block));
    }

    /// The event of an access, and its cells within their page.
    #[inline(always)]
    fn begin(&mut self, block: u32, pc: u32, address: u64, len: u32) -> (Event, Range<usize>) {
        self.switch(block);
        let first = (address >> self.granule) as usize & ((1 << PAGE) - 1);
        let count = len.div_ceil(1 << self.granule) as usize;
        (Event::new(self.present.epoch, pc), first..first + count)
    }

    /// The page of an address, made if it is new.
    #[inline(always)]
    fn page(&mut self, address: u64) -> (&Present, &mut Page) {
        let number = ((address - BASE) >> (PAGE + self.granule)) as usize;
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, || None);
        }
        let new = || Box::new(Page { cells: vec![Cell::default(); 1 << PAGE], atomics: Vec::new() });
        (&self.present, self.pages[number].get_or_insert_with(new))
    }
}

/// Learns `more`.
pub(crate) fn merge(known: &mut Known, more: &[(u32, u32)]) {
    known.extend_from_slice(more);
    // Two sorted runs, which a stable sort merges.
    known.sort_by_key(|&(block, epoch)| (block, Reverse(epoch)));
    known.dedup_by_key(|&mut (block, _)| block);
}
