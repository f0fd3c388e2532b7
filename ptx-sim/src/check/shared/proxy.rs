//! The asynchronous proxy, in which bulk copies (TMA) and `wgmma` access shared memory (PTX ISA, "Proxies"), and
//! mbarriers, which tell when it is done.
//!
//! - A write in the generic proxy is seen by the asynchronous one only if the lane that wrote has fenced it
//!   (`fence.proxy.async`), and that fence is ordered before the instruction that starts the asynchronous operation. PTX
//!   would let any thread between the two fence; no compiler or library relies on that.
//! - A write of a bulk copy is an access of the mbarrier that the copy completes on, in the phase that it completes: it is
//!   ordered before what follows a wait for that phase, and before nothing else.
//! - A write of `st.async` is an access of an mbarrier too, but in the generic proxy: nothing need be fenced before it, and
//!   it takes all that a write by a thread takes to follow what was there. The asynchronous proxy never sees it, as the
//!   lane that wrote has no time at which to fence it.
//! - A read of the asynchronous proxy may happen until it is waited for. From then on it counts as a read by the waiting
//!   lane.
//! - A write of a bulk copy may also follow a bulk copy, or a read of the proxy, that who starts it only knows to be done, and
//!   a write by a thread to the shared memory of its own block that the thread has fenced for the proxy, as the fence has it done.
//!   Arrivals at mbarriers and waits for them tell so whatever their scope, `.relaxed` too: what is done cannot be overtaken
//!   by what is started because of the message. Nothing else may follow: no access by a thread, on either side, and no read.
//!   PTX's memory model, which goes by scopes, does not say so, but CUTLASS's pipelines rest on it: the readers of a tile
//!   free it for the copies of other blocks by `ClusterBarrier::arrive(cta_id)`, whose `mbarrier.arrive.shared::cluster` is
//!   a `.release.cta`. A `.release.cluster` would be a fence of all memory for each tile (`MEMBAR.ALL.GPU`).
//!
//! Accesses of the asynchronous proxy are of whole lines of 16 bytes.

use super::event::{Event, Present};
use super::history::{Accesses, Layout, Piece};
use super::{Fault, Shadow, Site};
use crate::check::Order;
use crate::check::clock::Now;

/// Bytes of a line.
const LINE: u32 = 16;

/// Reads of the asynchronous proxy that nobody has waited for.
#[derive(Debug)]
pub(super) struct Readers {
    /// For each line, how many there are.
    count: Vec<u16>,
    /// For each line, the last one.
    last: Vec<Event>,
    /// Their sum.
    all: u64,
}

impl Readers {
    pub fn new(lines: usize) -> Self {
        Self { count: vec![0; lines], last: vec![Event::default(); lines], all: 0 }
    }

    /// Begins the next cluster.
    pub fn clear(&mut self) {
        if self.all > 0 {
            self.count.fill(0);
            self.all = 0;
        }
    }

    /// One of those that read the line.
    #[inline(always)]
    pub fn of(&self, line: usize) -> Option<Event> {
        (self.all > 0 && self.count[line] > 0).then(|| self.last[line])
    }

    #[inline(always)]
    pub fn begin(&mut self, line: usize, event: Event) {
        (self.count[line], self.last[line]) = (self.count[line].saturating_add(1), event);
        self.all += 1;
    }

    #[inline(always)]
    pub fn end(&mut self, line: usize) {
        if self.count[line] > 0 {
            self.count[line] -= 1;
            self.all -= 1;
        }
    }
}

/// The mbarrier that a bulk copy or `st.async` completes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Its number as an agent, behind those of the warps.
    pub agent: u16,
    /// The phase that waits for it, from 1.
    pub phase: u32,
    /// Whether it is `st.async`, a write in the generic proxy.
    pub is_store: bool,
}

impl Shadow {
    /// The lane `at` starts an asynchronous read of `len` bytes from `offset` on, both multiples of 16: the
    /// source of a bulk store. [`end_async_read`](Self::end_async_read) must follow, with the same bytes.
    /// Gives the first fault.
    pub fn begin_async_read(&mut self, at: Site, now: &Now, offset: u32, len: u32) -> Option<Fault> {
        let mut first = None;
        for offset in (offset..offset + len).step_by(LINE as usize) {
            let (present, piece) = self.begin(at, now, offset, LINE);
            let settled = self.writes.of(piece).iter().all(|&write| {
                !present.is_stale(write) && !write.is_in_flight() && present.follows(write) && present.sees(write)
            });
            self.readers.begin(piece.line(), present.event);
            if first.is_none() && (!settled || self.atomics.is_some()) {
                first = self.check_async_read(&present, piece);
            }
        }
        first
    }

    /// The read was waited for, by the lane `at`: now it is a read of that lane.
    pub fn end_async_read(&mut self, at: Site, now: &Now, offset: u32, len: u32) {
        for offset in (offset..offset + len).step_by(LINE as usize) {
            let (present, piece) = self.begin(at, now, offset, LINE);
            self.readers.end(piece.line());
            self.sources().record(&present, piece);
        }
    }

    /// The phase of the mbarrier is complete that a copy from here completes on: now it is a read that those know of who
    /// wait for it.
    pub fn end_async_read_by(&mut self, at: Site, by: Completion, (offset, len): (u32, u32)) {
        let event = self.async_access(at, by);
        for offset in (offset..offset + len).step_by(LINE as usize) {
            let piece = self.layout.piece(offset, LINE);
            self.readers.end(piece.line());
            self.sources().record_async(event, piece);
        }
    }

    fn sources(&mut self) -> &mut Accesses {
        let (layout, warps) = (self.layout, self.warps);
        self.sources.get_or_insert_with(|| Accesses::new(layout, warps))
    }

    /// The lane `at` starts a bulk copy of `len` bytes to `offset`, both multiples of 16, or `st.async` of 16 at most,
    /// aligned to its width. Nobody may touch them until [`end_async_write`](Self::end_async_write). Gives the first fault.
    pub fn begin_async_write(
        &mut self,
        at: Site,
        now: &Now,
        by: Completion,
        (offset, len): (u32, u32),
    ) -> Option<Fault> {
        let (present, _) = self.begin(at, now, offset, 1);
        let present = if by.is_store { present } else { present.of_async_write() };
        let event = self.async_access(at, by);
        let mut first = None;
        for piece in pieces(self.layout, offset, len) {
            if first.is_none() {
                let (_, fault) = self.check_write(&present, piece, true);
                let fault = fault.or_else(|| self.check_atomics(&present, piece, Order::WriteAfterWrite));
                first = fault.or_else(|| if by.is_store { None } else { self.check_fences(&present, piece) });
            }
            self.writes.record(event.in_flight(), piece);
        }
        first
    }

    /// The phase of the mbarrier is complete, and with it the copy or store.
    pub fn end_async_write(&mut self, at: Site, by: Completion, (offset, len): (u32, u32)) {
        let event = self.async_access(at, by);
        for piece in pieces(self.layout, offset, len) {
            let own = |write: &&mut Event| **write == event.in_flight();
            self.writes.of_mut(piece).iter_mut().filter(own).for_each(|write| *write = event);
        }
    }

    fn async_access(&mut self, at: Site, by: Completion) -> Event {
        let clock = self.base + by.phase;
        self.newest = self.newest.max(clock);
        let event = Event::new(Site { warp: by.agent, ..at }, clock);
        if by.is_store { event.of_async_store() } else { event.of_async_proxy() }
    }

    /// An mbarrier is initialised: a write of 8 bytes that nobody may touch until
    /// [`end_mbarrier`](Self::end_mbarrier).
    pub fn begin_mbarrier(&mut self, at: Site, now: &Now, offset: u32) -> Option<Fault> {
        let (present, piece) = self.begin(at, now, offset, 8);
        let (_, fault) = self.check_write(&present, piece, true);
        let fault = fault.or_else(|| self.check_atomics(&present, piece, Order::WriteAfterWrite));
        self.writes.record(present.event.of_mbarrier(), piece);
        fault
    }

    /// `mbarrier.inval`: the memory is like other memory again.
    pub fn end_mbarrier(&mut self, at: Site, now: &Now, offset: u32) {
        let (present, piece) = self.begin(at, now, offset, 8);
        self.writes.record(present.event, piece);
    }

    /// Checks a read of the asynchronous proxy against what was written there.
    pub(super) fn check_async_read(&mut self, present: &Present, piece: Piece) -> Option<Fault> {
        let order = Order::ReadAfterWrite;
        let fault = self.check_written(present, piece, order);
        let fault = fault.or_else(|| self.check_atomics(present, piece, order));
        fault.or_else(|| self.check_fences(present, piece))
    }

    /// Looks for a write in the generic proxy that no fence has passed on.
    fn check_fences(&self, present: &Present, piece: Piece) -> Option<Fault> {
        let is_seen = |write| present.sees(write) || self.follows_fenced(present, write, piece);
        let unseen = |write: &&Event| !present.is_stale(**write) && !write.is_in_flight() && !is_seen(**write);
        self.writes.of(piece).iter().find(unseen).map(|write| Fault::Unfenced { with: write.site() })
    }
}

/// Whole lines, or the part of one.
fn pieces(layout: Layout, offset: u32, len: u32) -> impl Iterator<Item = Piece> {
    (offset..offset + len).step_by(LINE as usize).map(move |offset| layout.piece(offset, LINE.min(len)))
}
