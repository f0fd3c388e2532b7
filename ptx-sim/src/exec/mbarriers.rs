//! The mbarriers of a block: what they expect, and what has come.

use super::copies::Copy;
use crate::check::clock::AGENTS;
use crate::report::RawPlace;
use rustc_hash::FxHashMap;

/// Arrivals that an mbarrier can expect, and bytes either way that it can be short of (PTX ISA, "Size and alignment of
/// mbarrier object").
pub(super) const MOST: u32 = (1 << 20) - 1;

/// The offset of the barrier of the cluster, which is in nobody's memory.
pub(super) const CLUSTER: u32 = u32::MAX;

/// A bulk copy to shared memory whose phase is not complete.
#[derive(Debug)]
pub(super) struct Load {
    /// Who issued it.
    pub at: RawPlace,
    pub offset: u32,
    pub bytes: Vec<u8>,
    /// Whether the bytes are there.
    pub landed: bool,
}

/// `cp.async.mbarrier.arrive`: an arrival behind copies of its lanes.
#[derive(Debug)]
pub(super) struct Deferred {
    pub warp: usize,
    pub arrivals: u32,
    pub copies: Vec<Copy>,
    /// What the warp knew.
    pub known: Vec<u32>,
}

/// An mbarrier.
#[derive(Debug)]
pub(super) struct Mbarrier {
    pub offset: u32,
    pub live: bool,
    /// Who initialised it, and at which clock.
    pub init: (RawPlace, u32),
    /// The warp that issued the last copy.
    pub issuer: u32,
    /// Arrivals of a phase.
    pub expected: u32,
    /// Arrivals that the phase still waits for.
    pub pending: u32,
    /// Bytes that the phase still waits for.
    pub tx: i64,
    /// Phases that were completed since it was initialised.
    pub phase: u32,
    /// Phases that were completed since the block began: its clock.
    pub clock: u32,
    /// What those knew who have arrived, by agent.
    arrived: Vec<u32>,
    /// The same up to the end of the last phase.
    pub published: Vec<u32>,
    pub loads: Vec<Load>,
    pub deferred: Vec<Deferred>,
    /// Somebody waits for the phase.
    pub wanted: bool,
}

impl Mbarrier {
    fn new(offset: u32, at: RawPlace) -> Self {
        Self {
            offset,
            live: false,
            init: (at, 0),
            issuer: at.warp,
            expected: 0,
            pending: 0,
            tx: 0,
            phase: 0,
            clock: 0,
            arrived: Vec::new(),
            published: Vec::new(),
            loads: Vec::new(),
            deferred: Vec::new(),
            wanted: false,
        }
    }

    /// Begins its life.
    pub fn initialize(&mut self, at: RawPlace, clock: u32, expected: u32) {
        let Self { offset, clock: phases, .. } = *self;
        let fresh = Self { clock: phases, live: true, init: (at, clock), ..Self::new(offset, at) };
        *self = Self { expected, pending: expected, ..fresh };
    }

    /// Some arrive who know this. False when the phase waits for fewer.
    pub fn arrive(&mut self, arrivals: u32, known: &[u32]) -> bool {
        self.arrived.resize(known.len().max(self.arrived.len()), 0);
        for (arrived, &known) in self.arrived.iter_mut().zip(known) {
            *arrived = known.max(*arrived);
        }
        let fits = arrivals <= self.pending;
        self.pending = self.pending.saturating_sub(arrivals);
        fits
    }

    /// Arrivals that wait for copies.
    pub fn deferred_arrivals(&self) -> u32 {
        self.deferred.iter().map(|deferred| deferred.arrivals).sum()
    }

    /// Whether nothing is missing in the phase.
    pub fn is_complete(&self) -> bool {
        self.live && self.pending == 0 && self.tx == 0
    }

    /// Begins the next phase, and hands out the copies of this one.
    pub fn advance(&mut self) -> Vec<Load> {
        self.phase += 1;
        self.clock += 1;
        self.pending = self.expected;
        self.wanted = false;
        self.published.clone_from(&self.arrived);
        std::mem::take(&mut self.loads)
    }

    /// Its state, in words.
    pub fn describe(&self, shared_base: u32) -> String {
        let Self { phase, pending, expected, tx, .. } = *self;
        let missing = pending - self.deferred_arrivals().min(pending);
        let bytes = match tx {
            0 => String::new(),
            1.. => format!(", {tx} bytes are missing"),
            _ => format!(", {} bytes more than expected have come", -tx),
        };
        let name = match self.offset {
            CLUSTER => "the barrier of the cluster".into(),
            offset => format!("mbarrier {:#06x}", shared_base + offset),
        };
        format!("{name}, phase {phase}: {missing} of {expected} arrivals are missing{bytes}")
    }
}

/// The mbarriers of a block.
#[derive(Debug, Default)]
pub(super) struct Mbarriers {
    all: Vec<Mbarrier>,
    /// Their places in `all`, by offset in shared memory.
    by_offset: FxHashMap<u32, usize>,
    /// Phases that were completed.
    pub completed: u64,
}

impl Mbarriers {
    /// Begins the next block.
    pub fn clear(&mut self) {
        self.all.clear();
        self.by_offset.clear();
    }

    pub fn all(&self) -> &[Mbarrier] {
        &self.all
    }

    pub fn get(&self, index: usize) -> &Mbarrier {
        &self.all[index]
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Mbarrier {
        &mut self.all[index]
    }

    /// The live mbarrier at this offset.
    pub fn find(&self, offset: u32) -> Option<usize> {
        self.by_offset.get(&offset).copied().filter(|index| self.all[*index].live)
    }

    /// The place of the mbarrier at this offset, live or not; nothing when a block with so many warps has no room for
    /// another one.
    pub fn place(&mut self, offset: u32, at: RawPlace, warps: usize) -> Option<usize> {
        if let Some(index) = self.by_offset.get(&offset) {
            return Some(*index);
        }
        if warps + self.all.len() == AGENTS {
            return None;
        }
        self.all.push(Mbarrier::new(offset, at));
        self.by_offset.insert(offset, self.all.len() - 1);
        Some(self.all.len() - 1)
    }
}
