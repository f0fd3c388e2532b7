//! The shadow of the shared memory of a cluster: who touched each piece last, and whether that is ordered before what
//! follows.
//!
//! A happens-before detector with epochs, after FastTrack (Flanagan and Freund 2009). Unlike it, the last read of every
//! warp is kept, so that no write after a read is missed, and lanes are told apart within a warp.

mod event;
mod history;
mod operands;
#[cfg(test)]
mod oracle;
mod proxy;
#[cfg(test)]
mod proxy_oracle;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use super::Order;
use super::clock::{LIMIT, Now};
use crate::registers::lanes;
use crate::report::Kind;
use event::{Event, Present};
use history::{Accesses, Layout, Piece, Units, Writes};
use operands::Operands;
pub(crate) use proxy::Completion;
use proxy::Readers;

/// An instruction and the lane that executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    /// The warp; for a bulk copy or `st.async` as the earlier access of a fault the mbarrier it completes on, behind the
    /// warps.
    pub warp: u16,
    pub lane: u8,
    /// The lane only names the place: the warp does it as a whole.
    pub whole: bool,
    /// Less than 2^20.
    pub pc: u32,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody wrote what is read.
    Uninitialized,
    /// The bytes belong to an asynchronous copy or store that has not been waited for.
    InFlight { with: Site },
    /// An asynchronous operation that has not been waited for may still read the bytes.
    StillRead { with: Site },
    /// The bytes are an mbarrier.
    Mbarrier { with: Site },
    /// Nothing orders the access after an earlier one, and one of them writes.
    Race { with: Site, same_warp: bool, order: Order },
    /// The write of a bulk copy or of `st.async` has ended, but who accesses its destination does not know.
    Unwaited { with: Site, order: Order },
    /// The asynchronous proxy need not see the write.
    Unfenced { with: Site },
}

impl Fault {
    /// The kind to report it as.
    pub fn kind(self) -> Kind {
        match self {
            Self::Uninitialized => Kind::UninitializedMemory,
            Self::InFlight { .. } | Self::StillRead { .. } => Kind::AsyncInFlight,
            Self::Mbarrier { .. } => Kind::Mbarrier,
            Self::Unfenced { .. } => Kind::ProxyFence,
            Self::Race { same_warp: false, .. } | Self::Unwaited { .. } => Kind::SharedRace,
            Self::Race { same_warp: true, .. } => Kind::IntraWarpRace,
        }
    }

    /// The earlier access.
    pub fn with(self) -> Option<Site> {
        match self {
            Self::Uninitialized => None,
            Self::InFlight { with }
            | Self::StillRead { with }
            | Self::Mbarrier { with }
            | Self::Race { with, .. }
            | Self::Unwaited { with, .. }
            | Self::Unfenced { with } => Some(with),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uninitialized => f.write_str("read of shared memory that nobody wrote"),
            Self::InFlight { .. } => {
                f.write_str("access to the destination of an asynchronous copy or store before its wait")
            }
            Self::StillRead { .. } => {
                f.write_str("write to what an asynchronous operation may still read, no wait between")
            }
            Self::Mbarrier { .. } => f.write_str("access to a live mbarrier"),
            Self::Unwaited { order, .. } => {
                write!(f, "{order} of an asynchronous copy or store, no wait for its mbarrier between")
            }
            Self::Unfenced { .. } => f.write_str("asynchronous access after a write without fence.proxy.async"),
            Self::Race { same_warp: false, order, .. } => write!(f, "{order} of another warp, no barrier between"),
            Self::Race { same_warp: true, order, .. } => {
                write!(f, "{order} of another lane of the warp, no bar.warp.sync between")
            }
        }
    }
}

/// The shadow of the shared memory of the blocks of a cluster, one behind the other in whole lines. Accesses lie in the
/// memory, are of 16 bytes at most and aligned to their width.
#[derive(Debug)]
pub(crate) struct Shadow {
    warps: usize,
    blocks: usize,
    layout: Layout,
    /// Plain and asynchronous ones.
    writes: Writes,
    reads: Accesses,
    readers: Readers,
    operands: Operands,
    /// What bulk copies have read and was waited for. Made at the first: few programs have any.
    sources: Option<Accesses>,
    /// Made at the first atomic access: few programs have any.
    atomics: Option<Accesses>,
    /// What clocks are counted from. It is above those of the clusters before, which makes the next one cheap.
    base: u32,
    newest: u32,
}

impl Shadow {
    /// Shared memory of all `blocks` that nobody touched, and all their warps. `granule` is the width of the narrowest access of
    /// the program, at most 4.
    pub fn new(bytes: u32, granule: u32, warps: usize, blocks: usize) -> Self {
        let layout = Layout::new(bytes, granule);
        let (writes, reads) = (Writes::new(layout), Accesses::new(layout, warps));
        let (readers, operands) = (Readers::new(layout.lines()), Operands::new(layout.lines()));
        let (sources, atomics) = (None, None);
        Self { warps, blocks, layout, writes, reads, readers, operands, sources, atomics, base: 1, newest: 1 }
    }

    /// Begins the next cluster, whose clocks start again.
    pub fn clear(&mut self) {
        self.readers.clear();
        self.operands.clear();
        self.base = self.newest + 1;
        if self.base >= LIMIT {
            self.writes.clear();
            self.reads.clear();
            self.sources = None;
            self.atomics = None;
            self.base = 1;
        }
        self.newest = self.base;
    }

    /// A read.
    pub fn read(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, len);
        let settled = self.writes.are_settled(&present, piece);
        self.reads.record(&present, piece);
        if settled && self.atomics.is_none() {
            return None;
        }
        let fault = self.check_written(&present, piece, Order::ReadAfterWrite);
        fault.or_else(|| self.check_atomics(&present, piece, Order::ReadAfterWrite))
    }

    /// Reads of a whole line of 16 bytes each, by a warp as a whole, named by the lanes from that of `at` on. False when
    /// there is more to say: then nothing has been remembered, and each must be [`read`](Self::read).
    pub fn read_lines(&mut self, at: Site, now: &Now, offsets: &[u32]) -> bool {
        let (present, _) = self.begin(Site { whole: true, ..at }, now, 0, 1);
        if self.atomics.is_some() || !offsets.iter().all(|&offset| self.writes.is_line_settled(&present, offset)) {
            return false;
        }
        self.reads.record_lines(&present, offsets);
        true
    }

    /// As [`read_lines`](Self::read_lines), for accesses of `len` bytes by the lanes in `mask`; `at` names lane 0.
    pub fn read_lanes(&mut self, at: Site, now: &Now, mask: u32, offsets: &[u32; 32], len: u32) -> bool {
        let (present, _) = self.begin(at, now, 0, 1);
        let settled = |lane: usize| self.writes.are_settled(&present, self.layout.piece(offsets[lane], len));
        if self.atomics.is_some() || !lanes(mask).all(settled) {
            return false;
        }
        for lane in lanes(mask) {
            self.reads.record_lane(&present, lane, self.layout.piece(offsets[lane], len));
        }
        true
    }

    /// As [`read_lanes`](Self::read_lanes), for writes or, with `copies`, for [`begin_async`](Self::begin_async).
    pub fn write_lanes(
        &mut self,
        at: Site,
        now: &Now,
        mask: u32,
        (offsets, len): (&[u32; 32], u32),
        copies: bool,
    ) -> bool {
        if self.atomics.is_some() {
            return false;
        }
        let (present, _) = self.begin(at, now, 0, 1);
        let (reads, clock) = (self.reads.newest(), present.floor.clock());
        let is_free = |piece: Piece| reads[piece.line()] <= clock && self.check_readers(&present, piece).is_none();
        if !lanes(mask).all(|lane| is_free(self.layout.piece(offsets[lane], len))) {
            return false;
        }
        let Units { events, shift, count } = self.writes.units(lanes(mask).map(|lane| offsets[lane]), len);
        let unit = |lane: usize| {
            let first = (offsets[lane] >> shift) as usize;
            first..first + count
        };
        if !lanes(mask).all(|lane| events[unit(lane)].iter().all(|write| *write <= present.floor)) {
            return false;
        }
        let event = if copies { present.event.in_flight() } else { present.event };
        lanes(mask).for_each(|lane| events[unit(lane)].fill(event.by_lane(lane)));
        // Two lanes may have the same destination.
        let alone = lanes(mask).all(|lane| events[unit(lane)].iter().all(|write| *write == event.by_lane(lane)));
        if !alone {
            lanes(mask).for_each(|lane| events[unit(lane)].fill(Event::default()));
        }
        alone
    }

    /// A write. `changes` says whether the bytes differ from those there: lanes of one instruction that write the same
    /// value to the same place are no race.
    pub fn write(&mut self, at: Site, now: &Now, offset: u32, len: u32, changes: bool) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, len);
        let (event, fault) = self.check_write(&present, piece, changes);
        let fault = fault.or_else(|| self.check_atomics(&present, piece, Order::WriteAfterWrite));
        self.writes.record(event, piece);
        fault
    }

    /// A read-modify-write, or a load that is not weak: needs no order among its kind, races with other accesses.
    pub fn atomic(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, len);
        self.record_atomic(&present, piece);
        let written = self.check_written(&present, piece, Order::WriteAfterWrite);
        written.or_else(|| self.check_readers(&present, piece)).or_else(|| {
            let read = self.reads.conflict(&present, piece)?;
            Some(present.race(read, Order::WriteAfterRead))
        })
    }

    /// A store that is not weak (`.volatile`, `.relaxed`, `.release`): as [`atomic`](Self::atomic), and needs no value.
    pub fn atomic_write(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, len);
        self.record_atomic(&present, piece);
        let (_, fault) = self.check_write(&present, piece, true);
        self.writes.initialize(&present, piece);
        fault
    }

    /// Accesses to these bytes by agents that `foreign` names and that one does not know of who knows this much, one of
    /// each instruction.
    pub fn unknown(&self, known: &Now, bytes: Range<u32>, foreign: impl Fn(usize) -> bool) -> Vec<Site> {
        let mut found: Vec<Site> = Vec::new();
        let mut look = |event: Event| {
            let is_of_cluster = event != Event::NONE && event.clock() > self.base;
            if is_of_cluster
                && foreign(event.agent())
                && !known.knows(event.clock() - self.base, || event.actor(), event.agent())
            {
                let site = event.site();
                if found.iter().all(|other| other.pc != site.pc) {
                    found.push(site);
                }
            }
        };
        self.writes.visit(bytes.clone(), &mut look);
        self.reads.visit(bytes.clone(), &mut look);
        let more = self.sources.iter().chain(&self.atomics);
        more.for_each(|accesses| accesses.visit(bytes.clone(), &mut look));
        found
    }

    fn record_atomic(&mut self, present: &Present, piece: Piece) {
        let (layout, warps) = (self.layout, self.warps);
        self.atomics.get_or_insert_with(|| Accesses::new(layout, warps)).record(present, piece);
    }

    /// An asynchronous copy to here is issued: a write of bytes that nobody may touch until
    /// [`end_async`](Self::end_async).
    pub fn begin_async(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, len);
        let (event, fault) = self.check_write(&present, piece, true);
        let fault = fault.or_else(|| self.check_atomics(&present, piece, Order::WriteAfterWrite));
        self.writes.record(event.in_flight(), piece);
        fault
    }

    /// The copy that `at` issued was waited for by its lane: now it is a write like others.
    #[inline]
    pub fn end_async(&mut self, at: Site, now: &Now, offset: u32, len: u32) {
        let (Present { event, .. }, piece) = self.begin(at, now, offset, len);
        for write in self.writes.of_mut(piece) {
            // Another copy to the same place has been reported, and ends by itself.
            if !write.is_in_flight() || write.is_same_site(event) {
                *write = event;
            }
        }
    }

    /// [`end_async`](Self::end_async) of the lanes in `mask`, each of a whole line; `at` names lane 0.
    pub fn end_async_lines(&mut self, at: Site, now: &Now, mask: u32, offsets: &[u32; 32]) {
        let (Present { event, .. }, _) = self.begin(at, now, 0, 1);
        for lane in lanes(mask) {
            let event = event.by_lane(lane);
            match &mut self.writes.lines_mut()[(offsets[lane] / 16) as usize] {
                line if line.is_in_flight() && line.is_same_site(event) => *line = event,
                _ => self.end_async(Site { lane: lane as u8, ..at }, now, offsets[lane], 16),
            }
        }
    }

    #[inline(always)]
    fn begin<'a>(&mut self, at: Site, now: &Now<'a>, offset: u32, len: u32) -> (Present<'a>, Piece) {
        self.newest = self.newest.max(self.base + now.clock);
        (Present::new(at, now, self.base), self.layout.piece(offset, len))
    }

    /// Looks for the first fault of an access that needs what was written.
    #[inline(never)]
    fn check_written(&mut self, present: &Present, piece: Piece, order: Order) -> Option<Fault> {
        let fault = self.writes.of(piece).iter().find_map(|&write| {
            if present.is_stale(write) {
                Some(Fault::Uninitialized)
            } else if write.is_in_flight() {
                Some(in_flight(write))
            } else {
                (!present.follows(write)).then(|| present.race(write, order))
            }
        });
        // Whoever reads it again shall not be blamed again.
        if fault == Some(Fault::Uninitialized) {
            self.writes.initialize(present, piece);
        }
        fault
    }

    /// Checks a write against what is not atomic, and gives the event it leaves behind.
    #[inline(always)]
    fn check_write(&self, present: &Present, piece: Piece, changes: bool) -> (Event, Option<Fault>) {
        let mut event = present.event;
        let mut fault = None;
        for &write in self.writes.of(piece) {
            if write <= present.floor || present.is_stale(write) {
                continue;
            }
            if write.is_in_flight() {
                fault = fault.or(Some(in_flight(write)));
            } else if !present.follows(write) && !self.follows_fenced(present, write, piece) {
                if write.is_same_instruction(event) && !changes {
                    event = event.of_several();
                } else {
                    fault = fault.or(Some(present.race(write, Order::WriteAfterWrite)));
                }
            }
        }
        let still_read = || self.check_readers(present, piece);
        let read = || Some(present.race(self.reads.conflict(present, piece)?, Order::WriteAfterRead));
        (event, fault.or_else(still_read).or_else(read))
    }

    /// Whether an asynchronous write comes after one by a thread in its own block's memory, which was fenced.
    #[inline(never)]
    fn follows_fenced(&self, present: &Present, write: Event, piece: Piece) -> bool {
        let block = piece.line() * self.blocks / self.layout.lines();
        write.agent() * self.blocks / self.warps == block && present.follows_fenced(write)
    }

    /// Checks a write against reads of the asynchronous proxy.
    #[inline(always)]
    fn check_readers(&self, present: &Present, piece: Piece) -> Option<Fault> {
        if let Some(reader) = self.readers.of(piece.line()) {
            return Some(Fault::StillRead { with: reader.site() });
        }
        let follows = |read| present.follows_async_read(read);
        let source = || self.sources.as_ref()?.conflict_by(present, piece, follows);
        let read = self.operands.conflict(present, piece.line()).or_else(source)?;
        Some(present.race(read, Order::WriteAfterRead))
    }

    /// Checks a plain access against atomic ones.
    #[inline(always)]
    fn check_atomics(&self, present: &Present, piece: Piece, order: Order) -> Option<Fault> {
        Some(present.race(self.atomics.as_ref()?.conflict(present, piece)?, order))
    }
}

/// What is wrong with an access to bytes that belong to something else.
fn in_flight(write: Event) -> Fault {
    let with = write.site();
    if write.is_of_mbarrier() { Fault::Mbarrier { with } } else { Fault::InFlight { with } }
}
