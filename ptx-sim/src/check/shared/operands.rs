//! Operands of `wgmma` in shared memory: reads of the asynchronous proxy for the four warps of a warpgroup.
//!
//! Each warp must know what was written to the operands when it issues the product. From then on they are read until the
//! warpgroup waits, which no warp does alone: a write is ordered behind the reads if it is ordered behind the wait of
//! any of the four.

use super::event::{Event, Present};
use super::{Fault, Shadow, Site};
use crate::check::clock::Now;

/// Warps of a warpgroup.
const WARPS: usize = 4;

/// Operands that were read, by warpgroup: its first warp, and what it has read.
#[derive(Debug, Default)]
pub(super) struct Operands {
    groups: Vec<(usize, Reads)>,
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
    pub fn new(lines: usize) -> Self {
        Self { groups: Vec::new(), lines }
    }

    /// Begins the next cluster.
    pub fn clear(&mut self) {
        for (_, reads) in &mut self.groups {
            reads.waits.fill(0);
            reads.events.clear();
        }
    }

    /// What the warpgroup has read that begins with a warp.
    fn of(&mut self, first: usize) -> &mut Reads {
        let index = self.groups.iter().position(|(warp, _)| *warp == first).unwrap_or(self.groups.len());
        if index == self.groups.len() {
            self.groups.push((first, Reads::default()));
        }
        &mut self.groups[index].1
    }

    /// A read that is not ordered before the present access.
    #[inline(always)]
    pub fn conflict(&self, present: &Present, line: usize) -> Option<Event> {
        self.groups.iter().find_map(|(first, reads)| {
            let wait = *reads.waits.get(line)? as usize;
            let events = reads.events.get(wait.checked_sub(1)?)?;
            let same_group = (*first..first + WARPS).contains(&present.event.agent());
            let ordered = same_group || events.iter().any(|event| present.follows_async_read(*event));
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
                first = self.check_async_read(&present, piece).map(|fault| (fault, offset));
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
        let warp = |warp: usize| Site { warp: at.warp + warp as u16, whole: true, ..at };
        let events = std::array::from_fn(|index| self.begin(warp(index), &nows[index], 0, 1).0.event);
        let lines = self.operands.lines;
        offsets.iter().for_each(|offset| self.readers.end((offset / 16) as usize));
        let reads = self.operands.of(at.warp.into());
        reads.waits.resize(lines, 0);
        reads.events.push(events);
        for offset in offsets {
            let line = (offset / 16) as usize;
            reads.waits[line] = reads.events.len() as u32;
        }
    }
}
