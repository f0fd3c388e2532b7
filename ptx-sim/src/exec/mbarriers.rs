//! The mbarriers of a cluster: what they expect, and what has come.

use super::copies::Copy;
use super::window::Windows;
use crate::check::blocks::{self, merge};
use crate::check::clock::{AGENTS, Knowledge};
use crate::report::RawPlace;
use rustc_hash::FxHashMap;

/// Arrivals that an mbarrier can expect, and bytes either way that it can be short of (PTX ISA, "Size and alignment of
/// mbarrier object").
pub(super) const MOST: u32 = (1 << 20) - 1;

/// The offset of the barrier of the cluster, which is in nobody's memory.
pub(super) const CLUSTER: u32 = u32::MAX;

/// What those knew who arrived somewhere, and what they had done.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// By agent.
    pub clocks: Knowledge,
    /// Of global memory, where there are other blocks in the cluster.
    pub blocks: blocks::Known,
    /// Warps that let the others know of their mbarriers, up to these clocks, and of nothing else.
    pub mbarriers: Vec<(u32, u32)>,
}

impl Known {
    /// Adds what others know.
    fn add(&mut self, more: &Self) {
        self.clocks.add(&more.clocks);
        if !more.blocks.is_empty() {
            merge(&mut self.blocks, &more.blocks);
        }
        for &(warp, clock) in &more.mbarriers {
            match self.mbarriers.iter_mut().find(|(other, _)| *other == warp) {
                Some((_, last)) => *last = clock.max(*last),
                None => self.mbarriers.push((warp, clock)),
            }
        }
    }

    /// What is left of it where the arrival or the wait orders no memory: which asynchronous operations are done.
    pub fn weak(&self) -> Self {
        Self { clocks: self.clocks.weak(), ..Self::default() }
    }

    /// Becomes the same as another.
    fn set(&mut self, other: &Self) {
        self.clocks.set(&other.clocks);
        self.blocks.clone_from(&other.blocks);
        self.mbarriers.clone_from(&other.mbarriers);
    }
}

/// A bulk copy to shared memory, or a store by `st.async`, whose phase is not complete.
#[derive(Debug)]
pub(super) struct Load {
    /// Who issued it.
    pub at: RawPlace,
    pub offset: u32,
    pub bytes: Vec<u8>,
    /// Where it reads them, if that is shared memory too.
    pub source: Option<u32>,
    /// Whether it is `st.async`.
    pub is_store: bool,
    /// Whether the bytes are there.
    pub landed: bool,
}

/// `cp.async.mbarrier.arrive`: an arrival behind copies of its lanes.
#[derive(Debug)]
pub(super) struct Deferred {
    pub warp: usize,
    pub arrivals: u32,
    pub copies: Vec<Copy>,
    /// What the warp knew, and its clock.
    pub known: Known,
    pub clock: u32,
}

/// An mbarrier.
#[derive(Debug)]
pub(super) struct Mbarrier {
    pub offset: u32,
    pub live: bool,
    /// Who initialised it, and at which clock.
    pub init: (RawPlace, u32),
    /// The warp that issued the last copy or store.
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
    /// The last use of each warp of another block: who, at which clock, and the phase that it was for, from 1.
    pub visits: Vec<(RawPlace, u32, u32)>,
    /// Warps that know of the initialisation by the barrier of the cluster, which was relaxed.
    pub known_by: Vec<u32>,
    /// What those of the block have released who have arrived, and those of other blocks.
    arrived: [Known; 2],
    /// The same up to the end of the last phase.
    pub published: [Known; 2],
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
            visits: Vec::new(),
            known_by: Vec::new(),
            arrived: Default::default(),
            published: Default::default(),
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

    /// Some arrive, perhaps of another block, who release this. False when the phase waits for fewer.
    pub fn arrive(&mut self, arrivals: u32, known: &Known, remote: bool) -> bool {
        self.arrived[usize::from(remote)].add(known);
        let fits = arrivals <= self.pending;
        self.pending = self.pending.saturating_sub(arrivals);
        fits
    }

    /// A warp of another block uses it at this clock.
    pub fn visit(&mut self, at: RawPlace, clock: u32) {
        self.visits.retain(|(other, ..)| other.warp != at.warp);
        self.visits.push((at, clock, self.clock + 1));
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
        self.published.iter_mut().zip(&self.arrived).for_each(|(published, arrived)| published.set(arrived));
        std::mem::take(&mut self.loads)
    }

    /// Its state, in words; it is at this address.
    pub fn describe(&self, address: u32) -> String {
        let Self { phase, pending, expected, tx, .. } = *self;
        let missing = pending - self.deferred_arrivals().min(pending);
        let bytes = match tx {
            0 => String::new(),
            1.. => format!(", {tx} bytes are missing"),
            _ => format!(", {} bytes more than expected have come", -tx),
        };
        let name = match self.offset {
            CLUSTER => "the barrier of the cluster".into(),
            _ => format!("mbarrier {address:#06x}"),
        };
        format!("{name}, phase {phase}: {missing} of {expected} arrivals are missing{bytes}")
    }
}

/// The mbarriers of a cluster.
#[derive(Debug, Default)]
pub(super) struct Mbarriers {
    all: Vec<Mbarrier>,
    /// Their places in `all`, by offset in the memory of the cluster.
    by_offset: FxHashMap<u32, usize>,
    /// Phases that were completed.
    pub completed: u64,
}

impl Mbarriers {
    /// Begins the next cluster.
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

    /// The rank of the block that has an mbarrier; nothing for the barrier of the cluster.
    pub fn rank(&self, index: usize, windows: &Windows) -> Option<usize> {
        Some(self.all[index].offset).filter(|offset| *offset != CLUSTER).map(|offset| windows.rank(offset))
    }

    /// Lets a warp know of the mbarriers that another one initialised up to a clock.
    pub fn announce(&mut self, by: u32, clock: u32, to: usize) {
        let to = to as u32;
        for mbarrier in self.all.iter_mut().filter(|mbarrier| mbarrier.init.0.warp == by && mbarrier.init.1 <= clock) {
            if !mbarrier.known_by.contains(&to) {
                mbarrier.known_by.push(to);
            }
        }
    }

    /// The live mbarrier at this offset.
    pub fn find(&self, offset: u32) -> Option<usize> {
        self.by_offset.get(&offset).copied().filter(|index| self.all[*index].live)
    }

    /// The place of the mbarrier at this offset, live or not; nothing when a cluster with so many warps has no room for
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
