//! The shadow of a block's shared memory: who touched each piece last, and whether that is ordered before what follows.
//!
//! A happens-before detector with epochs, after FastTrack (Flanagan and Freund 2009). Unlike it, the last read of every
//! warp is kept, so that no write after a read is missed, and lanes are told apart within a warp.

use std::fmt;
use std::ops::Range;

use super::Order;
use super::clock::{AGENTS, LIMIT, Now};
use crate::report::Kind;

/// An instruction and the lane that executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub warp: u8,
    pub lane: u8,
    /// Less than 2^24.
    pub pc: u32,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody wrote what is read.
    Uninitialized,
    /// The bytes belong to an asynchronous copy that has not been waited for.
    InFlight { with: Site },
    /// Nothing orders the access after an earlier one, and one of them writes.
    Race { with: Site, same_warp: bool, order: Order },
}

impl Fault {
    /// The kind to report it as.
    pub fn kind(self) -> Kind {
        match self {
            Self::Uninitialized => Kind::UninitializedMemory,
            Self::InFlight { .. } => Kind::AsyncInFlight,
            Self::Race { same_warp: false, .. } => Kind::SharedRace,
            Self::Race { same_warp: true, .. } => Kind::IntraWarpRace,
        }
    }

    /// The earlier access.
    pub fn with(self) -> Option<Site> {
        match self {
            Self::Uninitialized => None,
            Self::InFlight { with } | Self::Race { with, .. } => Some(with),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uninitialized => f.write_str("read of shared memory that nobody wrote"),
            Self::InFlight { .. } => f.write_str("access to the destination of an asynchronous copy before its wait"),
            Self::Race { same_warp: false, order, .. } => write!(f, "{order} of another warp, no barrier between"),
            Self::Race { same_warp: true, order, .. } => {
                write!(f, "{order} of another lane of the warp, no bar.warp.sync between")
            }
        }
    }
}

/// The last access of a cell in one word, from the top: in flight (1 bit), clock (27), pc (24), warp (6), several (1),
/// lane (5). The order of words is the order of clocks, and copies in flight are greater than everything else.
type Event = u64;

const CLOCK_SHIFT: u32 = 36;
const PC_SHIFT: u32 = 12;
const WARP_SHIFT: u32 = 6;
const IN_FLIGHT: Event = 1 << 63;
/// More than one lane of the warp did it; the one that is named was the last.
const SEVERAL: Event = 1 << 5;
/// Warp, several and lane.
const WHO: Event = (1 << PC_SHIFT) - 1;

fn clock_of(event: Event) -> u32 {
    ((event & !IN_FLIGHT) >> CLOCK_SHIFT) as u32
}

fn warp_of(event: Event) -> usize {
    (event >> WARP_SHIFT) as usize % AGENTS
}

fn site_of(event: Event) -> Site {
    Site { warp: warp_of(event) as u8, lane: event as u8 % 32, pc: (event >> PC_SHIFT) as u32 & 0xff_ffff }
}

/// An access that happens, and what is ordered before it.
struct Present<'a> {
    event: Event,
    /// Clocks of earlier blocks are less than this; the clocks of this one are counted from it.
    base: u32,
    /// Up to this event everything is ordered before the access.
    floor: Event,
    seen: &'a [u32],
}

impl Present<'_> {
    fn warp(&self) -> usize {
        warp_of(self.event)
    }

    fn is_stale(&self, event: Event) -> bool {
        clock_of(event) < self.base
    }

    /// Whether the event, which is not in flight, is ordered before this one.
    fn follows(&self, event: Event) -> bool {
        clock_of(event) <= self.base + self.seen[warp_of(event)] || (event ^ self.event) & WHO == 0
    }

    fn race(&self, event: Event, order: Order) -> Fault {
        Fault::Race { with: site_of(event), same_warp: warp_of(event) == self.warp(), order }
    }
}

/// The last access of every warp to every cell.
#[derive(Debug)]
struct Accesses {
    cells: usize,
    /// A row of cells for each warp; 0 where there was none.
    last: Vec<Event>,
    /// For each line of 16 bytes, no access to it is later than this clock.
    newest: Vec<u32>,
    /// Cells of a line, as a power of two.
    line: u32,
}

impl Accesses {
    fn new(cells: usize, warps: usize, line: u32) -> Self {
        Self { cells, last: vec![0; cells * warps], newest: vec![0; (cells >> line) + 1], line }
    }

    fn lines(&self, cells: &Range<usize>) -> Range<usize> {
        cells.start >> self.line..((cells.end - 1) >> self.line) + 1
    }

    #[inline]
    fn record(&mut self, present: &Present, cells: Range<usize>) {
        let clock = clock_of(present.event);
        let lines = self.lines(&cells);
        for newest in &mut self.newest[lines] {
            *newest = clock.max(*newest);
        }
        let row = present.warp() * self.cells;
        for last in &mut self.last[row + cells.start..row + cells.end] {
            let change = *last ^ present.event;
            let joins = change >> CLOCK_SHIFT == 0 && change & WHO != 0;
            *last = present.event | if joins { SEVERAL } else { 0 };
        }
    }

    /// An access that is not ordered before the present one.
    #[inline]
    fn conflict(&self, present: &Present, cells: &Range<usize>) -> Option<Event> {
        let floor = clock_of(present.floor);
        if self.newest[self.lines(cells)].iter().all(|&newest| newest <= floor) {
            return None;
        }
        let mut rows = self.last.chunks_exact(self.cells);
        rows.find_map(|row| row[cells.clone()].iter().copied().find(|&last| !present.follows(last)))
    }

    fn clear(&mut self) {
        self.last.fill(0);
        self.newest.fill(0);
    }
}

/// The shadow of the shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shadow {
    warps: usize,
    /// Bytes of a cell, as a power of two.
    granule: u32,
    /// The last plain or asynchronous write of each cell.
    writes: Vec<Event>,
    reads: Accesses,
    /// Made at the first atomic access: few programs have any.
    atomics: Option<Accesses>,
    /// Events of this block have clocks above this one, all others lie below; an event at it is written by nobody in
    /// particular. Makes the next block cheap.
    base: u32,
    newest: u32,
}

impl Shadow {
    /// Shared memory that nobody touched. `granule` is the width of the narrowest access of the program, at most 4.
    pub fn new(bytes: u32, granule: u32, warps: usize) -> Self {
        assert!(matches!(granule, 1 | 2 | 4));
        let cells = bytes.div_ceil(granule) as usize;
        let granule = granule.ilog2();
        let reads = Accesses::new(cells, warps, 4 - granule);
        Self { warps, granule, writes: vec![0; cells], reads, atomics: None, base: 1, newest: 1 }
    }

    /// Begins the next block, with the clocks from the start.
    pub fn clear(&mut self) {
        self.base = self.newest + 1;
        if self.base >= LIMIT {
            self.writes.fill(0);
            self.reads.clear();
            self.atomics = None;
            self.base = 1;
        }
        self.newest = self.base;
    }

    /// A read of bytes that lie in the memory.
    pub fn read(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, cells) = self.present(at, now, offset, len);
        let fault = self.read_check(&present, &cells);
        self.reads.record(&present, cells);
        fault
    }

    /// A write. `changes` says whether the bytes differ from those there: lanes of one instruction that write the same
    /// value to the same place are no race.
    pub fn write(&mut self, at: Site, now: &Now, offset: u32, len: u32, changes: bool) -> Option<Fault> {
        let (present, cells) = self.present(at, now, offset, len);
        let (event, fault) = self.write_check(&present, &cells, changes);
        self.writes[cells].fill(event);
        fault
    }

    /// A read-modify-write: needs no order among its kind, races with other accesses.
    pub fn atomic(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, cells) = self.present(at, now, offset, len);
        let written = self.check_written(&present, &cells, Order::WriteAfterWrite);
        let fault = written
            .or_else(|| self.reads.conflict(&present, &cells).map(|read| present.race(read, Order::WriteAfterRead)));
        let atomics =
            self.atomics.get_or_insert_with(|| Accesses::new(self.writes.len(), self.warps, 4 - self.granule));
        atomics.record(&present, cells);
        fault
    }

    /// An asynchronous copy to here is issued: a write whose bytes nobody may touch until [`end_async`](Self::end_async).
    pub fn begin_async(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, cells) = self.present(at, now, offset, len);
        let (event, fault) = self.write_check(&present, &cells, true);
        self.writes[cells].fill(event | IN_FLIGHT);
        fault
    }

    /// The copy that `at` issued was waited for by its lane: now it is a write like others.
    pub fn end_async(&mut self, at: Site, now: &Now, offset: u32, len: u32) {
        let (present, cells) = self.present(at, now, offset, len);
        let copy = present.event & ((1 << CLOCK_SHIFT) - 1);
        for write in &mut self.writes[cells] {
            // A later copy to the same place has been reported and ends by itself.
            let is_other = *write & IN_FLIGHT != 0 && *write & ((1 << CLOCK_SHIFT) - 1) != copy;
            if !is_other {
                *write = present.event;
            }
        }
    }

    #[inline]
    fn present<'a>(&mut self, at: Site, now: &Now<'a>, offset: u32, len: u32) -> (Present<'a>, Range<usize>) {
        let clock = self.base + now.clock;
        self.newest = clock.max(self.newest);
        let who = u64::from(at.warp) << WARP_SHIFT | u64::from(at.lane);
        let event = u64::from(clock) << CLOCK_SHIFT | u64::from(at.pc & 0xff_ffff) << PC_SHIFT | who;
        let floor = (u64::from(self.base + now.floor + 1) << CLOCK_SHIFT) - 1;
        let cells = (offset >> self.granule) as usize..((offset + len - 1) >> self.granule) as usize + 1;
        (Present { event, base: self.base, floor, seen: now.seen }, cells)
    }

    #[inline]
    fn read_check(&mut self, present: &Present, cells: &Range<usize>) -> Option<Fault> {
        let written = self.check_written(present, cells, Order::ReadAfterWrite);
        let atomic = || self.atomics.as_ref()?.conflict(present, cells);
        written.or_else(|| atomic().map(|event| present.race(event, Order::ReadAfterWrite)))
    }

    /// Checks an access that needs a value against the write that made it.
    #[inline]
    fn check_written(&mut self, present: &Present, cells: &Range<usize>, order: Order) -> Option<Fault> {
        let first = u64::from(present.base) << CLOCK_SHIFT;
        let span = present.floor - first;
        let writes = &mut self.writes[cells.clone()];
        if writes.iter().fold(true, |settled, &write| settled & (write.wrapping_sub(first) <= span)) {
            return None;
        }
        let fault = writes.iter().find_map(|&write| {
            if present.is_stale(write) {
                Some(Fault::Uninitialized)
            } else if write & IN_FLIGHT != 0 {
                Some(Fault::InFlight { with: site_of(write) })
            } else {
                (!present.follows(write)).then(|| present.race(write, order))
            }
        });
        // Whoever reads it again shall not be blamed again.
        if fault == Some(Fault::Uninitialized) {
            writes.iter_mut().filter(|write| present.is_stale(**write)).for_each(|write| *write = first);
        }
        fault
    }

    /// Checks a write, and gives the event it leaves behind.
    #[inline]
    fn write_check(&self, present: &Present, cells: &Range<usize>, changes: bool) -> (Event, Option<Fault>) {
        let mut event = present.event;
        let mut fault = None;
        for &write in self.writes[cells.clone()].iter().filter(|&&write| write > present.floor) {
            if present.is_stale(write) {
                continue;
            }
            if write & IN_FLIGHT != 0 {
                fault = fault.or(Some(Fault::InFlight { with: site_of(write) }));
            } else if !present.follows(write) {
                // Same clock, pc and warp.
                let same_instruction = (write ^ present.event) >> WARP_SHIFT == 0;
                if same_instruction && !changes {
                    event |= SEVERAL;
                } else {
                    fault = fault.or(Some(present.race(write, Order::WriteAfterWrite)));
                }
            }
        }
        let atomic = || self.atomics.as_ref()?.conflict(present, cells);
        let fault = fault
            .or_else(|| self.reads.conflict(present, cells).map(|read| present.race(read, Order::WriteAfterRead)))
            .or_else(|| atomic().map(|event| present.race(event, Order::WriteAfterWrite)));
        (event, fault)
    }
}
