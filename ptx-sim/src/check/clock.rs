//! Vector clocks of the warps of a cluster (Fidge, Mattern), as race detectors of the FastTrack family use them. A block
//! that is in none is a cluster of its own.

mod knowledge;
#[cfg(test)]
mod tests;

use crate::registers::{ALL, LANES};
pub(crate) use knowledge::{Actor, Knowledge};
use knowledge::{Lanes, Past, hold, join, join_lanes};

/// Warps of a cluster and its mbarriers, at most. Bulk copies are known by the mbarrier they complete on: the clock of
/// such an agent is the number of its phase, from 1.
pub(crate) const AGENTS: usize = 512;

/// No clock of a cluster reaches this, so that a shadow can pack clocks into few bits.
pub(crate) const LIMIT: u32 = 1 << 25;

/// The clocks of a cluster.
///
/// A warp's clock is greater than the clock it has seen of itself: what it did before its last tick is ordered before
/// what it does now by the rule that holds for other warps, `event.clock <= seen[event.agent]`.
#[derive(Debug)]
pub(crate) struct Clocks {
    warps: usize,
    /// Warps, and the mbarriers that have a clock.
    agents: usize,
    /// Row by row: the last clock of each agent that is ordered before the present of the row's warp.
    seen: Vec<u32>,
    /// The least of each row, of warps alone.
    floor: Vec<u32>,
    /// What each warp knows of some lanes alone, beyond its row.
    lanes: Vec<Vec<Lanes>>,
    /// What each warp knows of asynchronous operations alone, perhaps beyond both: that they are done.
    done: Vec<Past>,
    /// Fences and releases of each warp since its last tick.
    steps: Vec<u32>,
    /// Lanes of each warp that have used shared memory since its last tick.
    acted: Vec<u32>,
    /// Fences between the proxies, by warp and in the order of their clocks.
    fences: Vec<Vec<Fence>>,
}

/// What a fence between the proxies passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    /// `fence.proxy.async`: everything.
    Writes,
    /// `fence.mbarrier_init`: that mbarriers were initialised.
    Mbarriers,
}

/// A fence by some lanes: it passes on what they did up to this clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence {
    clock: u32,
    lanes: u32,
    passes: Passes,
}

/// The present of a warp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    /// Its clock, at least 1.
    pub clock: u32,
    /// Up to this clock everything is ordered before the present, whoever did it.
    pub floor: u32,
    /// Up to which clock everything of each agent is.
    pub seen: &'a [u32],
    // Thin pointers: every access has a present.
    lanes: &'a Vec<Lanes>,
    done: &'a Past,
    fences: &'a Vec<Vec<Fence>>,
}

impl Now<'_> {
    /// Whether what somebody did at a clock is ordered before the present.
    #[inline(always)]
    pub fn knows(&self, clock: u32, who: impl FnOnce() -> Actor, agent: usize) -> bool {
        clock <= self.seen[agent] || !self.lanes.is_empty() && hold(self.lanes, clock, who())
    }

    /// Whether an asynchronous operation, for which somebody waited at a clock, is known to be done by messages that
    /// [order](Self::knows) nothing.
    pub fn knows_done(&self, clock: u32, who: impl FnOnce() -> Actor, agent: usize) -> bool {
        self.done.holds(clock, who, agent)
    }

    /// The same of a lane.
    pub fn knows_lane(&self, warp: usize, lane: usize, clock: u32) -> bool {
        self.knows(clock, || Actor { agent: warp, lane, several: false, whole: false }, warp)
    }

    /// The lanes of a warp of which everything up to a clock is ordered before the present.
    pub fn known_lanes(&self, warp: usize, clock: u32) -> u32 {
        if clock <= self.seen[warp] {
            return ALL;
        }
        (0..LANES).filter(|lane| self.knows_lane(warp, *lane, clock)).fold(0, |mask, lane| mask | 1 << lane)
    }

    /// Whether what a lane of a warp did at a clock has been passed on to the asynchronous proxy: by a fence of that
    /// lane, which is ordered before the present or, with `own`, of the lane that asks.
    pub fn has_passed(&self, passes: Passes, who: (usize, u32, u32), own: bool) -> bool {
        let (warp, lane, _) = who;
        self.fence_behind(passes, who).is_some_and(|clock| own || self.knows_lane(warp, lane as usize, clock))
    }

    /// Whether it has been passed on by a fence of that lane, of which messages that [order](Self::knows) nothing say that it
    /// is done.
    pub fn has_passed_by_then(&self, who: (usize, u32, u32)) -> bool {
        let (warp, lane, _) = who;
        let actor = || Actor { agent: warp, lane: lane as usize, several: false, whole: false };
        self.fence_behind(Passes::Writes, who).is_some_and(|clock| self.knows_done(clock, actor, warp))
    }

    /// The clock of the first fence that passes on what a lane of a warp did at a clock.
    fn fence_behind(&self, passes: Passes, (warp, lane, clock): (usize, u32, u32)) -> Option<u32> {
        let covers =
            |fence: &&Fence| fence.lanes >> lane & 1 == 1 && (fence.passes == passes || fence.passes == Passes::Writes);
        self.fences_from(warp, clock).iter().find(covers).map(|fence| fence.clock)
    }

    /// The fences of a warp from a clock on.
    fn fences_from(&self, warp: usize, clock: u32) -> &[Fence] {
        let fences = &self.fences[warp];
        &fences[fences.partition_point(|fence| fence.clock < clock)..]
    }

    /// The lanes of a warp whose writes at a clock have been passed on to the asynchronous proxy, by fences that are
    /// ordered before the present.
    pub fn lanes_passed(&self, warp: usize, clock: u32) -> u32 {
        let mut lanes = 0;
        for fence in self.fences_from(warp, clock).iter().filter(|fence| fence.passes == Passes::Writes) {
            lanes |= fence.lanes & self.known_lanes(warp, fence.clock);
            if lanes == ALL {
                break;
            }
        }
        lanes
    }
}

impl Clocks {
    /// The clocks of a cluster that begins.
    pub fn new(warps: usize) -> Self {
        assert!(warps <= AGENTS);
        let (seen, each) = (vec![0; warps * warps], vec![0; warps]);
        let (lanes, done, fences) = (vec![Vec::new(); warps], vec![Past::default(); warps], vec![Vec::new(); warps]);
        let [floor, steps, acted] = [each.clone(), each.clone(), each];
        Self { warps, agents: warps, seen, floor, lanes, done, steps, acted, fences }
    }

    /// Warps of the cluster.
    pub fn warps(&self) -> usize {
        self.warps
    }

    /// Gives clocks to so many mbarriers, behind the warps; nothing is known of the new ones.
    pub fn with_mbarriers(&mut self, mbarriers: usize) {
        let agents = self.warps + mbarriers;
        assert!(agents <= AGENTS);
        if agents > self.agents {
            let row = |row: &[u32]| [row, &vec![0; agents - self.agents]].concat();
            self.seen = self.seen.chunks(self.agents.max(1)).flat_map(row).collect();
            self.agents = agents;
        }
    }

    /// Begins the next cluster.
    pub fn reset(&mut self) {
        self.seen.fill(0);
        self.floor.fill(0);
        self.steps.fill(0);
        self.acted.fill(0);
        self.lanes.iter_mut().for_each(Vec::clear);
        self.done.fill(Past::default());
        self.fences.iter_mut().for_each(Vec::clear);
    }

    /// The present of a warp.
    #[inline]
    pub fn now(&self, warp: usize) -> Now<'_> {
        let seen = self.row(warp);
        let (lanes, done) = (&self.lanes[warp], &self.done[warp]);
        Now {
            clock: seen[warp] + 1 + self.steps[warp],
            floor: self.floor[warp],
            seen,
            lanes,
            done,
            fences: &self.fences,
        }
    }

    /// What was the present of somebody who knew this, at a clock.
    pub fn then<'a>(&'a self, clock: u32, known: &'a Knowledge) -> Now<'a> {
        let Knowledge { past: Past { seen, lanes }, done } = known;
        Now { clock, floor: 0, seen, lanes, done, fences: &self.fences }
    }

    /// Lanes of a warp use shared memory, each for itself.
    #[inline(always)]
    pub fn act(&mut self, warp: usize, lanes: u32) {
        self.acted[warp] |= lanes;
    }

    /// A fence by some lanes of a warp: tells apart what they did before and after it, and orders no lanes.
    pub fn fence(&mut self, warp: usize, lanes: u32, passes: Passes) {
        let clock = self.now(warp).clock;
        assert!(clock + 1 < LIMIT, "too many fences in one cluster");
        self.fences[warp].push(Fence { clock, lanes, passes });
        self.steps[warp] += 1;
    }

    /// `bar.warp.sync` of all live lanes: orders what the warp did before what it will do.
    pub fn tick(&mut self, warp: usize) {
        let clock = self.now(warp).clock;
        (self.steps[warp], self.acted[warp]) = (0, 0);
        self.learn(warp, |seen| seen[warp] = clock);
    }

    /// A barrier that these warps meet at, a mask of those from `first` on: each learns what all of them knew, and ticks.
    ///
    /// They go on with the same clock, the greatest of them plus 1 (as Lamport's clocks do), which keeps
    /// [`Now::floor`] useful where the barrier is of the whole block.
    pub fn join(&mut self, first: usize, warps: u64) {
        let end = self.warps;
        let members = move || (first..end).take(64).filter(move |warp| warps >> (warp - first) & 1 == 1);
        let Some(clock) = members().map(|warp| self.now(warp).clock).max() else { return };
        let mut joined = self.joined(members());
        members().for_each(|warp| joined.past.seen[warp] = clock);
        for warp in members() {
            (self.steps[warp], self.acted[warp]) = (0, 0);
            self.learn(warp, |seen| seen.copy_from_slice(&joined.past.seen));
            self.learn_lanes(warp, &joined.past.lanes);
            self.done[warp].add(&joined.done);
        }
    }

    /// What whoever waits for an arrival of these lanes will know by [`acquire`](Self::acquire): what the warp knows, what
    /// these lanes did, and what the warp did as a whole. Where no other lane has done anything, that is all.
    pub fn release(&mut self, warp: usize, lanes: u32) -> Knowledge {
        let clock = self.now(warp).clock;
        assert!(clock + 1 < LIMIT, "too many arrivals in one cluster");
        self.steps[warp] += 1;
        let mut known = self.knowledge(warp);
        let Past { seen, lanes: others } = &mut known.past;
        if self.acted[warp] & !lanes == 0 {
            seen[warp] = clock;
        } else {
            join_lanes(others, &[Lanes::new(warp, lanes, clock)], seen);
        }
        known
    }

    /// `bar.arrive`, which is of all lanes: orders them too.
    pub fn arrive(&mut self, warp: usize) -> Knowledge {
        self.tick(warp);
        self.knowledge(warp)
    }

    fn knowledge(&self, warp: usize) -> Knowledge {
        let past = Past { seen: self.row(warp).to_vec(), lanes: self.lanes[warp].clone() };
        Knowledge { past, done: self.done[warp].clone() }
    }

    /// What these warps know together.
    pub fn joined(&self, warps: impl Iterator<Item = usize>) -> Knowledge {
        let (mut seen, mut all, mut done) = (vec![0; self.agents], Vec::new(), Past::default());
        for warp in warps {
            join(&mut seen, self.row(warp));
            all.extend_from_slice(&self.lanes[warp]);
            done.add(&self.done[warp]);
        }
        let mut lanes = Vec::new();
        join_lanes(&mut lanes, &all, &seen);
        Knowledge { past: Past { seen, lanes }, done }
    }

    /// Learns what a warp knew at its [`release`](Self::release).
    pub fn acquire(&mut self, warp: usize, released: &Knowledge) {
        let clock = self.now(warp).clock;
        self.learn(warp, |seen| join(seen, &released.past.seen));
        // It may be of the warp itself, whose clock goes on from where it is.
        self.steps[warp] = clock - 1 - self.row(warp)[warp];
        self.learn_lanes(warp, &released.past.lanes);
        self.done[warp].add(&released.done);
    }

    /// As [`acquire`](Self::acquire), by a wait that does not order memory after what was released: learns which
    /// asynchronous operations are done.
    pub fn acquire_weakly(&mut self, warp: usize, released: &Knowledge) {
        self.done[warp].add(&released.past);
        self.done[warp].add(&released.done);
    }

    fn learn_lanes(&mut self, warp: usize, more: &[Lanes]) {
        if !more.is_empty() || !self.lanes[warp].is_empty() {
            let seen = &self.seen[warp * self.agents..][..self.agents];
            join_lanes(&mut self.lanes[warp], more, seen);
        }
    }

    /// Learns that a phase of an mbarrier is complete, and with it the copies that it was waiting for.
    pub fn acquire_phase(&mut self, warp: usize, mbarrier: usize, phase: u32) {
        let agent = self.warps + mbarrier;
        self.learn(warp, |seen| seen[agent] = phase.max(seen[agent]));
    }

    /// As [`acquire_phase`](Self::acquire_phase), by a wait that orders no memory.
    pub fn acquire_phase_weakly(&mut self, warp: usize, mbarrier: usize, phase: u32) {
        self.done[warp].add_agent(self.warps + mbarrier, phase);
    }

    fn row(&self, warp: usize) -> &[u32] {
        &self.seen[warp * self.agents..][..self.agents]
    }

    fn learn(&mut self, warp: usize, change: impl FnOnce(&mut [u32])) {
        let row = &mut self.seen[warp * self.agents..][..self.agents];
        change(row);
        assert!(row[warp] + 1 < LIMIT, "too many barriers in one cluster");
        self.floor[warp] = row[..self.warps].iter().copied().min().unwrap_or(0);
    }
}
