//! The blocks of a cluster: their places, their barrier, and the addresses of their shared memory.

use super::barriers::{BARRIERS, Barrier};
use super::mbarriers::{CLUSTER, Known};
use super::memory::shared_window;
use super::step::{Step, Then};
use super::warp::{State, Warp};
use super::{Machine, Size};
use crate::decode::body::RANK_SHIFT;
use crate::program::{AnyReg, Scope};
use crate::registers::{ALL, LANES, Row, Word, lanes};
use crate::report::{Kind, RawPlace, Space};

/// Warps of a warpgroup.
const GROUP: usize = 4;

/// A block of the cluster that runs.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Its place in the grid, and its number there.
    pub at: [u32; 3],
    pub number: u32,
    pub barriers: [Barrier; BARRIERS],
    /// All its warps have ended, and its shared memory is gone.
    pub ended: bool,
    /// Its warps that have been at the barrier of the cluster, where all blocks were, as a mask.
    pub met: u64,
}

impl Block {
    pub fn begin(&mut self, at: [u32; 3], number: u32) {
        *self = Self { at, number, ..Self::default() };
    }
}

impl Size {
    /// Blocks of a cluster along each axis.
    pub fn cluster(&self) -> [u32; 3] {
        self.cluster.unwrap_or([1; 3])
    }

    /// Clusters along each axis.
    pub fn clusters(&self) -> [u32; 3] {
        let cluster = self.cluster();
        std::array::from_fn(|axis| self.grid[axis] / cluster[axis])
    }

    /// The places of the blocks of a cluster, and their numbers in the grid, by rank.
    pub fn blocks(&self, cluster: [u32; 3]) -> impl Iterator<Item = ([u32; 3], u32)> {
        let ([x, y, z], grid) = (self.cluster(), self.grid);
        (0..x * y * z).map(move |rank| {
            let own = [rank % x, rank / x % y, rank / x / y];
            let at: [u32; 3] = std::array::from_fn(|axis| cluster[axis] * [x, y, z][axis] + own[axis]);
            (at, (at[2] * grid[1] + at[1]) * grid[0] + at[0])
        })
    }
}

impl Machine<'_> {
    /// It is the turn of this block.
    pub(super) fn enter(&mut self, rank: usize) {
        self.rank = rank;
        self.windows.enter(rank);
    }

    /// Ends the block whose turn it is when all its warps have ended.
    pub(super) fn end_block(&mut self, warps: &[Warp]) {
        if self.blocks[self.rank].ended || !warps.iter().all(|warp| warp.state == State::Done) {
            return;
        }
        self.blocks[self.rank].ended = true;
        self.check_unfinished();
        self.check_register_limits(warps);
        if self.blocks.len() > 1 && self.options.checks {
            self.check_accesses_after_the_end(warps[0].index);
        }
    }

    /// Looks for what other blocks did to the memory of the block without its knowing: it might have ended before that.
    fn check_accesses_after_the_end(&mut self, first: usize) {
        let joined = self.clocks.joined(first..first + self.warps);
        let known = self.clocks.then(0, &joined);
        let start = self.windows.own().1;
        let own = |machine: &Self, agent: usize| match agent.checked_sub(machine.clocks.warps()) {
            None => agent / machine.warps == machine.rank,
            Some(mbarrier) => machine.mbarriers.rank(mbarrier, &machine.windows) == Some(machine.rank),
        };
        let accesses = self.shadow.unknown(&known, start..start + self.windows.stride, |agent| !own(self, agent));
        let mut places: Vec<RawPlace> = accesses.into_iter().map(|access| self.place_of(access)).collect();
        for (index, mbarrier) in self.mbarriers.all().iter().enumerate() {
            let waited = known.seen[self.clocks.warps() + index];
            let is_unknown = |(at, clock, phase): &&(RawPlace, u32, u32)| {
                !known.knows_lane(at.warp as usize, at.lane as usize, *clock) && *phase > waited
            };
            if self.mbarriers.rank(index, &self.windows) == Some(self.rank) {
                places.extend(mbarrier.visits.iter().filter(is_unknown).map(|(at, ..)| *at));
            }
        }
        let [x, y, z] = self.blocks[self.rank].at;
        for at in places {
            self.find(Kind::AbsentBlock, at, None, || {
                format!(
                    "access to shared memory of block ({x},{y},{z}), which may have ended: it does not wait for this"
                )
            });
        }
    }

    /// Whether a warp knows that a block of the cluster has begun.
    pub(super) fn knows_of(&self, warp: usize, rank: usize) -> bool {
        let own = &self.blocks[warp / self.warps];
        let seen = &self.clocks.now(warp).seen[rank * self.warps..][..self.warps];
        own.met >> (warp % self.warps) & 1 == 1 || seen.iter().any(|clock| *clock > 0)
    }

    /// `barrier.cluster`: an mbarrier that expects every warp of the cluster.
    pub(super) fn cluster_barrier(&mut self, warp: &mut Warp, step: Step, waits: bool, orders: bool) -> Then {
        let Step { inst, pc, active, .. } = step;
        let at = self.place(warp.index, active.trailing_zeros() as usize, pc);
        let warps = self.clocks.warps();
        let Some(index) = self.mbarriers.place(CLUSTER, at, warps) else {
            self.give_up_mbarriers(at);
            return Then::Leave;
        };
        self.clocks.with_mbarriers(self.mbarriers.all().len());
        if !self.mbarriers.get(index).live {
            self.mbarriers.get_mut(index).initialize(at, 0, warps as u32);
        }
        if !waits {
            if warp.arrived.is_some() {
                let message = || "arrives at the cluster's barrier a second time without barrier.cluster.wait".into();
                self.find(Kind::BarrierMismatch, at, None, message);
            }
            warp.arrived = Some(self.mbarriers.get(index).phase);
            let mut known = if orders { self.known(warp.index, ALL, true) } else { warp.fenced.clone() };
            if !orders && warp.mbarriers_fenced > 0 {
                known.mbarriers = vec![(warp.index as u32, warp.mbarriers_fenced)];
            }
            self.arrive_at(at, index, 1, &known, false);
        } else {
            let phase = warp.arrived.unwrap_or(0);
            if !self.is_over(index, |running| running > phase) {
                return self.poll(warp, step, index);
            }
            warp.arrived = None;
            self.blocks[warp.rank].met |= 1 << warp.number;
            self.acquire(warp.index, index, Some(Scope::Cluster));
            self.learn_mbarriers(warp.index, index);
        }
        self.count(pc, inst, active, warp.live);
        Then::Next
    }

    /// A warp learns which mbarriers have been initialised, from those who said only that at the cluster's barrier.
    fn learn_mbarriers(&mut self, warp: usize, barrier: usize) {
        let fenced = self.mbarriers.get(barrier).published[0].mbarriers.clone();
        for (by, clock) in fenced {
            self.mbarriers.announce(by, clock, warp);
        }
    }

    /// Opens the barrier of the cluster where all warps that it waits for have ended.
    pub(super) fn resolve_cluster_barrier(&mut self, warps: &[Warp]) -> bool {
        let Some(index) = self.mbarriers.find(CLUSTER) else { return false };
        let barrier = self.mbarriers.get(index);
        let (phase, pending) = (barrier.phase, barrier.pending);
        let is_absent = |warp: &&Warp| warp.state == State::Done && warp.arrived != Some(phase);
        let waits = |warp: &Warp| {
            let fragment = warp.fragments.iter().find(|fragment| fragment.polls == Some(index))?;
            Some(self.place(warp.index, fragment.mask.trailing_zeros() as usize, fragment.pc))
        };
        let ended = warps.iter().filter(is_absent).count();
        let Some(at) = warps.iter().find_map(waits) else { return false };
        if pending as usize != ended {
            return false;
        }
        let (here, all) = (warps.len() - ended, warps.len());
        self.find(Kind::BarrierMismatch, at, None, || {
            format!("{here} of {all} warps come to the barrier of the cluster, the others have ended")
        });
        self.arrive_at(at, index, pending, &Known::default(), false);
        true
    }

    /// `mapa`.
    pub(super) fn map_address(
        &mut self,
        warp: &mut Warp,
        step: Step,
        (d, a): (AnyReg, AnyReg),
        rank: Word,
        generic: bool,
    ) {
        let ranks = *warp.registers.get(rank);
        let blocks = self.blocks.len() as u32;
        for lane in lanes(step.active).filter(|lane| ranks[*lane] >= blocks).take(1) {
            let at = self.place(warp.index, lane, step.pc);
            self.find(Kind::InvalidOperand, at, None, || format!("block {} of a cluster of {blocks}", ranks[lane]));
        }
        let from = self.shared_places(warp, step, a, generic);
        let low = (1 << RANK_SHIFT) - 1;
        let row: Row<u64> = std::array::from_fn(|lane| {
            let address = u64::from(from[lane] & low | ranks[lane] << RANK_SHIFT);
            if generic { shared_window(address) } else { address }
        });
        match d {
            AnyReg::Word(d) => warp.registers.set(d, step.active, &row.map(|address| address as u32)),
            AnyReg::Long(d) => warp.registers.set(d, step.active, &row),
        }
    }

    /// `getctarank`.
    pub(super) fn block_rank(&mut self, warp: &mut Warp, step: Step, d: Word, a: AnyReg, generic: bool) {
        let from = self.shared_places(warp, step, a, generic);
        warp.registers.set(d, step.active, &std::array::from_fn::<_, LANES, _>(|lane| from[lane] >> RANK_SHIFT));
    }

    /// The addresses in a register, which are in the shared memory of the cluster.
    fn shared_places(&mut self, warp: &Warp, step: Step, a: AnyReg, generic: bool) -> Row<u32> {
        let row = match a {
            AnyReg::Word(a) => warp.registers.get(a).map(u64::from),
            AnyReg::Long(a) => *warp.registers.get(a),
        };
        let base = if generic { shared_window(0) } else { 0 };
        let blocks = self.blocks.len() as u64;
        let is_outside = |lane: &usize| row[*lane].wrapping_sub(base) >> RANK_SHIFT >= blocks;
        if let Some(lane) = lanes(step.active).find(is_outside) {
            let at = self.place(warp.index, lane, step.pc);
            let space = if generic { Space::Generic } else { Space::Cluster };
            self.find(Kind::WrongSpace, at, Some((space, row[lane], 1)), || "no address in shared memory".into());
        }
        row.map(|address| address.wrapping_sub(base) as u32)
    }

    /// Compares what the warps of each warpgroup of a block asked for with `setmaxnreg`.
    fn check_register_limits(&mut self, warps: &[Warp]) {
        for group in warps.chunks(GROUP) {
            let first = &group[0].register_limits;
            let differs = |warp: &&Warp| warp.register_limits != *first;
            let Some(other) = group.iter().find(differs) else { continue };
            let Some(&(pc, count)) = first.iter().chain(&other.register_limits).next() else { continue };
            let (at, number) = (self.place(group[0].index, 0, pc), other.number);
            let message =
                || format!("warp {number} of the warpgroup does not execute this setmaxnreg to {count} registers");
            self.find(Kind::Diverged, at, None, message);
        }
    }

    /// A fence: what came before it is released by a relaxed operation behind it.
    pub(super) fn fence(&mut self, warp: &mut Warp, active: u32) {
        let number = self.blocks[self.rank].number;
        self.global.fence(number);
        if self.options.checks && active != 0 {
            let blocks = if self.blocks.len() > 1 { self.global.fenced(number) } else { Vec::new() };
            warp.fenced = Known { clocks: self.clocks.release(warp.index, active), blocks, ..Known::default() };
        }
    }

    /// What these lanes of a warp know and did, for those who wait for it, perhaps of other blocks.
    pub(super) fn known(&mut self, warp: usize, lanes: u32, remote: bool) -> Known {
        let number = self.blocks[self.rank].number;
        let blocks = if remote && self.blocks.len() > 1 { self.global.released(number) } else { Vec::new() };
        Known { clocks: self.clocks.release(warp, lanes), blocks, ..Known::default() }
    }
}
