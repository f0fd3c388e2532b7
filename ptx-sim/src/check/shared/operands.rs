//! Operands of `wgmma` in shared memory: reads of the asynchronous proxy for the four warps of a warpgroup.
//!
//! Each warp must know what was written to the operands when it issues the product. From then on they are read until the
//! warpgroup waits, which no warp does alone: a write is ordered behind the reads if it is ordered behind the wait of
//! any of the four.

use super::event::{Event, Present};
use super::{Fault, Shadow, Site};
use crate::check::Order;
use crate::check::clock::Now;

/// Warps of a warpgroup.
const WARPS: usize = 4;

/// Operands that were read, by warpgroup.
#[derive(Debug, Default)]
pub(super) struct Operands {
    groups: Vec<Reads>,
    lines: usize,
}

/// What a warpgroup has read.
#[derive(Clone, Debug, Default)]
struct Reads {
    /// For each line the number of the wait behind its last read, from 1; empty where nothing was read.
    waits: Vec<u32>,
    /// The waits, as reads of each warp.
    events: Vec<[Event; WARPS]>,
}

impl Operands {
    pub fn new(lines: usize, warps: usize) -> Self {
        Self { groups: vec![Reads::default(); warps / WARPS], lines }
    }

    /// Begins the next block.
    pub fn clear(&mut self) {
        for reads in self.groups.iter_mut().filter(|reads| !reads.events.is_empty()) {
            reads.waits.fill(0);
            reads.events.clear();
        }
    }

    /// A read that is not ordered before the present access.
    #[inline(always)]
    pub fn conflict(&self, present: &Present, line: usize) -> Option<Event> {
        self.groups.iter().enumerate().find_map(|(group, reads)| {
            let wait = *reads.waits.get(line)? as usize;
            let events = reads.events.get(wait.checked_sub(1)?)?;
            let ordered = present.event.agent() / WARPS == group || events.iter().any(|event| present.follows(*event));
            (!ordered).then_some(events[0])
        })
    }
}

impl Shadow {
    /// A warp issues a product with operands in the lines at these offsets: gives the first fault of what was written
    /// there, and its offset.
    pub fn check_operands(&mut self, at: Site, now: &Now, offsets: &[u32]) -> Option<(Fault, u32)> {
        let (present, _) = self.begin(at, now, 0, 1);
        // Neighbouring lines were often written at the same time.
        let (mut time, mut seen) = (Event::NONE, 0);
        let mut first = None;
        for &offset in offsets {
            let piece = self.layout.piece(offset, 16);
            let settled = self.writes.of(piece).iter().all(|&write| {
                if !write.is_same_time(time) {
                    (time, seen) = (write, present.seen_lanes(write));
                }
                seen >> write.lane() & 1 == 1
            });
            if first.is_none() && !(settled && self.atomics.is_none()) {
                let fault = self.check_written(&present, piece, Order::ReadAfterWrite);
                let fault = fault.or_else(|| self.check_atomics(&present, piece, Order::ReadAfterWrite));
                first = fault.or_else(|| self.check_fences(&present, piece)).map(|fault| (fault, offset));
            }
        }
        first
    }

    /// From now on the lines may be read, until as many are [ended](Self::end_operands).
    pub fn begin_operands(&mut self, at: Site, now: &Now, offsets: &[u32]) {
        let (present, _) = self.begin(at, now, 0, 1);
        offsets.iter().for_each(|offset| self.readers.begin((offset / 16) as usize, present.event));
    }

    /// The warpgroup has waited for the product that `at`, a lane of its first warp, has issued. `nows` are the presents
    /// of its warps.
    pub fn end_operands(&mut self, at: Site, nows: [Now; WARPS], offsets: &[u32]) {
        let warp = |warp: usize| Site { warp: at.warp + warp as u8, ..at };
        let events = std::array::from_fn(|index| self.begin(warp(index), &nows[index], 0, 1).0.event);
        let lines = self.operands.lines;
        let reads = &mut self.operands.groups[usize::from(at.warp) / WARPS];
        reads.waits.resize(lines, 0);
        reads.events.push(events);
        for offset in offsets {
            let line = (offset / 16) as usize;
            self.readers.end(line);
            reads.waits[line] = reads.events.len() as u32;
        }
    }
}
