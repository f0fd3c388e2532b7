//! Races between blocks on global memory.
//!
//! Blocks are simulated one after the other, so an access is ordered after one of an earlier block only if the present
//! block acquired what that block released: vector clocks again, sparse, and kept for the present block and for each
//! address that was released to. Lanes of one block are not told apart.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use super::Order;

/// Cells of a page.
const PAGE: u64 = 4096;

/// The last access of a cell in one word: epoch (32 bits), pc (32). Epochs count releases and blocks, over all
/// launches; 0 is before all.
type Event = u64;

fn epoch_of(event: Event) -> u32 {
    (event >> 32) as u32
}

/// Two accesses that nothing orders: the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRace {
    pub order: Order,
    pub block: u32,
    pub pc: u32,
}

/// Accesses of one kind to a cell. Of the blocks that nothing orders, the first and the last are kept: both are missed
/// only if whoever comes next is ordered after these two and not after one between.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: Event,
    last: Event,
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
type Known = Vec<(u32, u32)>;

/// The present block.
#[derive(Debug, Default)]
struct Present {
    block: u32,
    /// Its first epoch.
    since: u32,
    /// The running epoch.
    epoch: u32,
    /// The last epoch of the launches before; they are ordered before everything.
    floor: u32,
    known: Known,
    /// The first epoch of each block of the launch and the block, in the order they ran in.
    begun: Vec<(u32, u32)>,
}

impl Present {
    /// The block that made an event of this launch.
    fn block_of(&self, event: Event) -> u32 {
        let after = self.begun.partition_point(|&(since, _)| since <= epoch_of(event));
        self.begun[after - 1].1
    }

    #[inline]
    fn follows(&self, event: Event) -> bool {
        let epoch = epoch_of(event);
        epoch <= self.floor || epoch >= self.since || self.acquired(event)
    }

    fn acquired(&self, event: Event) -> bool {
        let found = self.known.binary_search_by_key(&self.block_of(event), |&(block, _)| block);
        found.is_ok_and(|at| epoch_of(event) <= self.known[at].1)
    }

    fn race(&self, order: Order, event: Event) -> BlockRace {
        BlockRace { order, block: self.block_of(event), pc: event as u32 }
    }

    fn event(&self, pc: u32) -> Event {
        u64::from(self.epoch) << 32 | u64::from(pc)
    }
}

impl Ends {
    #[inline]
    fn record(&mut self, present: &Present, event: Event) {
        if !present.follows(self.last) && present.follows(self.first) {
            self.first = self.last;
        }
        self.last = event;
    }

    #[inline]
    fn conflict(&self, present: &Present) -> Option<Event> {
        [self.last, self.first].into_iter().find(|&event| !present.follows(event))
    }
}

/// What each block did to global memory that is not read-only, and which blocks are ordered.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    /// Bytes of a cell, as a power of two.
    granule: u32,
    pages: HashMap<u64, usize>,
    store: Vec<Page>,
    /// The page that was used last, and its index.
    last: (u64, usize),
    present: Present,
    released: HashMap<u64, Known>,
}

impl GlobalShadow {
    /// `granule` is the width of the narrowest global access of the program, at most 4.
    pub fn new(granule: u32) -> Self {
        assert!(matches!(granule, 1 | 2 | 4));
        Self {
            granule: granule.ilog2(),
            pages: HashMap::new(),
            store: Vec::new(),
            last: (u64::MAX, 0),
            present: Present::default(),
            released: HashMap::new(),
        }
    }

    /// All that was done is ordered before the launch that begins.
    pub fn begin_launch(&mut self) {
        if self.present.epoch > u32::MAX / 2 {
            *self = Self::new(1 << self.granule);
        }
        self.released.clear();
        let epoch = self.present.epoch;
        self.present = Present { floor: epoch, epoch, ..Present::default() };
    }

    /// A plain read.
    pub fn read(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        self.each(block, pc, address, len, |present, event, cell, atomic| {
            let unordered = |event: Event| (!present.follows(event)).then_some(event);
            let conflict = unordered(cell.write).or_else(|| atomic?.conflict(present));
            cell.reads.record(present, event);
            conflict.map(|event| (Order::ReadAfterWrite, event))
        })
    }

    /// A plain write.
    pub fn write(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        self.each(block, pc, address, len, |present, event, cell, atomic| {
            let unordered = |event: Event| (!present.follows(event)).then_some(event);
            let write = unordered(cell.write).or_else(|| atomic?.conflict(present));
            let read = || cell.reads.conflict(present).map(|event| (Order::WriteAfterRead, event));
            let conflict = write.map(|event| (Order::WriteAfterWrite, event)).or_else(read);
            *cell = Cell { write: event, reads: Ends::default() };
            conflict
        })
    }

    /// An atomic access, or a load or store that is not weak (`.relaxed`, `.acquire`, `.release`, `.volatile`): needs no
    /// order among its kind. Call [`acquire`](Self::acquire) before and [`release`](Self::release) after it.
    pub fn atomic(&mut self, block: u32, pc: u32, address: u64, len: u32) -> Option<BlockRace> {
        self.switch(block);
        for page in self.page_numbers(address, len) {
            let page = self.page(page);
            self.store[page].atomics.resize(PAGE as usize, Ends::default());
        }
        self.each(block, pc, address, len, |present, event, cell, atomic| {
            let unordered = |event: Event| (!present.follows(event)).then_some(event);
            let write = unordered(cell.write).map(|event| (Order::WriteAfterWrite, event));
            let read = || cell.reads.conflict(present).map(|event| (Order::WriteAfterRead, event));
            if let Some(atomic) = atomic {
                atomic.record(present, event);
            }
            write.or_else(read)
        })
    }

    /// Publishes at `address` what the block did and acquired: for an atomic access after a fence (`membar.gl`,
    /// `fence.*`), or one with `.release` or `.acq_rel`.
    pub fn release(&mut self, block: u32, address: u64) {
        self.switch(block);
        let epoch = self.present.epoch;
        let released = self.released.entry(address).or_default();
        merge(released, &self.present.known);
        merge(released, &[(block, epoch)]);
        self.present.epoch += 1;
    }

    /// Learns what was published at `address`: for every atomic access.
    pub fn acquire(&mut self, block: u32, address: u64) {
        self.switch(block);
        if let Some(released) = self.released.get(&address) {
            merge(&mut self.present.known, released);
        }
    }

    /// Begins a block if it is another than the one before.
    #[inline]
    fn switch(&mut self, block: u32) {
        let present = &mut self.present;
        if present.block != block || present.begun.is_empty() {
            present.epoch += 1;
            present.since = present.epoch;
            present.block = block;
            present.known.clear();
            present.begun.push((present.epoch, block));
        }
    }

    fn page_numbers(&self, address: u64, len: u32) -> Range<u64> {
        let cell = |address: u64| address >> self.granule;
        cell(address) / PAGE..cell(address + u64::from(len) - 1) / PAGE + 1
    }

    /// The index of a page, which is made if it is new.
    #[inline]
    fn page(&mut self, number: u64) -> usize {
        if self.last.0 != number {
            let index = *self.pages.entry(number).or_insert(self.store.len());
            if index == self.store.len() {
                self.store.push(Page { cells: vec![Cell::default(); PAGE as usize], atomics: Vec::new() });
            }
            self.last = (number, index);
        }
        self.last.1
    }

    /// Calls `check` for each cell with the event to leave there; the first conflict counts.
    #[inline]
    fn each(
        &mut self,
        block: u32,
        pc: u32,
        address: u64,
        len: u32,
        check: impl Fn(&Present, Event, &mut Cell, Option<&mut Ends>) -> Option<(Order, Event)>,
    ) -> Option<BlockRace> {
        self.switch(block);
        let event = self.present.event(pc);
        let mut found = None;
        for number in self.page_numbers(address, len) {
            let first = (address >> self.granule).max(number * PAGE) - number * PAGE;
            let last = ((address + u64::from(len) - 1) >> self.granule).min(number * PAGE + PAGE - 1) - number * PAGE;
            let page = self.page(number);
            let page = &mut self.store[page];
            let range = first as usize..last as usize + 1;
            let mut atomics = page.atomics.get_mut(range.clone()).unwrap_or_default().iter_mut();
            for cell in &mut page.cells[range] {
                let conflict = check(&self.present, event, cell, atomics.next());
                found = found.or(conflict);
            }
        }
        found.map(|(order, event)| self.present.race(order, event))
    }
}

/// Learns `more`.
fn merge(known: &mut Known, more: &[(u32, u32)]) {
    known.extend_from_slice(more);
    // Two sorted runs, which a stable sort merges.
    known.sort_by_key(|&(block, epoch)| (block, Reverse(epoch)));
    known.dedup_by_key(|&mut (block, _)| block);
}
