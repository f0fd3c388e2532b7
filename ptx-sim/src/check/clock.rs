//! Vector clocks of the warps of a block (Fidge, Mattern), as race detectors of the FastTrack family use them.

/// Warps of a block and its mbarriers, at most. Bulk copies are known by the mbarrier they complete on: the clock of
/// such an agent is the number of its phase, from 1.
pub(crate) const AGENTS: usize = 256;

/// No clock of a block reaches this, so that a shadow can pack clocks into few bits.
pub(crate) const LIMIT: u32 = 1 << 25;

/// The clocks of a block.
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
    /// Fences of each warp since its last tick.
    steps: Vec<u32>,
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
    fences: &'a [Vec<Fence>],
}

impl Now<'_> {
    /// Whether what a lane of a warp did at a clock has been passed on to the asynchronous proxy: by a fence of that
    /// lane, which is ordered before the present or, with `own`, of the lane that asks.
    pub fn has_passed(&self, passes: Passes, (warp, lane, clock): (usize, u32, u32), own: bool) -> bool {
        let fences = &self.fences[warp];
        let after = &fences[fences.partition_point(|fence| fence.clock < clock)..];
        let covers =
            |fence: &&Fence| fence.lanes >> lane & 1 == 1 && (fence.passes == passes || fence.passes == Passes::Writes);
        after.iter().find(covers).is_some_and(|fence| own || fence.clock <= self.seen[warp])
    }

    /// The lanes of a warp whose writes at a clock have been passed on to the asynchronous proxy, by fences that are
    /// ordered before the present.
    pub fn lanes_passed(&self, warp: usize, clock: u32) -> u32 {
        let fences = &self.fences[warp];
        let after = &fences[fences.partition_point(|fence| fence.clock < clock)..];
        let known = after.iter().take_while(|fence| fence.clock <= self.seen[warp]);
        known.filter(|fence| fence.passes == Passes::Writes).fold(0, |lanes, fence| lanes | fence.lanes)
    }
}

impl Clocks {
    /// The clocks of a block that begins.
    pub fn new(warps: usize) -> Self {
        assert!(warps <= AGENTS);
        let (seen, each) = (vec![0; warps * warps], vec![0; warps]);
        Self { warps, agents: warps, seen, floor: each.clone(), steps: each, fences: vec![Vec::new(); warps] }
    }

    /// Warps of the block.
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

    /// Begins the next block.
    pub fn reset(&mut self) {
        self.seen.fill(0);
        self.floor.fill(0);
        self.steps.fill(0);
        self.fences.iter_mut().for_each(Vec::clear);
    }

    /// The present of a warp.
    #[inline]
    pub fn now(&self, warp: usize) -> Now<'_> {
        let seen = self.row(warp);
        Now { clock: seen[warp] + 1 + self.steps[warp], floor: self.floor[warp], seen, fences: &self.fences }
    }

    /// What was the present of a warp at a [`release`](Self::release), in its clock before.
    pub fn released<'a>(&'a self, warp: usize, released: &'a [u32]) -> Now<'a> {
        Now { clock: released[warp], floor: 0, seen: released, fences: &self.fences }
    }

    /// A fence by some lanes of a warp: tells apart what they did before and after it, and orders no lanes.
    pub fn fence(&mut self, warp: usize, lanes: u32, passes: Passes) {
        let clock = self.now(warp).clock;
        assert!(clock + 1 < LIMIT, "too many fences in one block");
        self.fences[warp].push(Fence { clock, lanes, passes });
        self.steps[warp] += 1;
    }

    /// `bar.warp.sync` of all live lanes: orders what the warp did before what it will do.
    pub fn tick(&mut self, warp: usize) {
        let clock = self.now(warp).clock;
        self.steps[warp] = 0;
        self.learn(warp, |seen| seen[warp] = clock);
    }

    /// A barrier that these warps meet at: each learns what all of them knew, and ticks.
    ///
    /// They go on with the same clock, the greatest of them plus 1 (as Lamport's clocks do), which keeps
    /// [`Now::floor`] useful where the barrier is of the whole block.
    pub fn join(&mut self, warps: u64) {
        let members = || (0..self.warps).filter(|warp| warps >> warp & 1 == 1);
        let Some(clock) = members().map(|warp| self.now(warp).clock).max() else { return };
        let mut joined = [0; AGENTS];
        for warp in members() {
            for (joined, &seen) in joined.iter_mut().zip(self.row(warp)) {
                *joined = seen.max(*joined);
            }
        }
        members().for_each(|warp| joined[warp] = clock);
        for warp in (0..self.warps).filter(|warp| warps >> warp & 1 == 1) {
            self.steps[warp] = 0;
            self.learn(warp, |seen| seen.copy_from_slice(&joined[..seen.len()]));
        }
    }

    /// What whoever waits for this arrival (`bar.arrive`, an mbarrier) will know by [`acquire`](Self::acquire).
    pub fn release(&mut self, warp: usize) -> Vec<u32> {
        self.tick(warp);
        self.row(warp).to_vec()
    }

    /// Learns what a warp knew at its [`release`](Self::release).
    pub fn acquire(&mut self, warp: usize, released: &[u32]) {
        self.learn(warp, |seen| {
            for (seen, &released) in seen.iter_mut().zip(released) {
                *seen = released.max(*seen);
            }
        });
    }

    /// Learns that a phase of an mbarrier is complete, and with it the copies that it was waiting for.
    pub fn acquire_phase(&mut self, warp: usize, mbarrier: usize, phase: u32) {
        let agent = self.warps + mbarrier;
        self.learn(warp, |seen| seen[agent] = phase.max(seen[agent]));
    }

    fn row(&self, warp: usize) -> &[u32] {
        &self.seen[warp * self.agents..][..self.agents]
    }

    fn learn(&mut self, warp: usize, change: impl FnOnce(&mut [u32])) {
        let row = &mut self.seen[warp * self.agents..][..self.agents];
        change(row);
        assert!(row[warp] + 1 < LIMIT, "too many barriers in one block");
        self.floor[warp] = row[..self.warps].iter().copied().min().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(clocks: &Clocks, warp: usize, of: usize, clock: u32) -> bool {
        clock <= clocks.now(warp).seen[of]
    }

    #[test]
    fn nobody_knows_anything_at_the_start() {
        let clocks = Clocks::new(2);
        assert_eq!((clocks.now(1).clock, clocks.now(1).floor), (1, 0));
        assert!(!knows(&clocks, 0, 1, 1));
        assert!(!knows(&clocks, 0, 0, 1));
    }

    #[test]
    fn a_tick_orders_only_the_own_warp() {
        let mut clocks = Clocks::new(2);
        clocks.tick(0);
        assert!(knows(&clocks, 0, 0, 1));
        assert!(!knows(&clocks, 1, 0, 1));
    }

    #[test]
    fn a_barrier_orders_its_members_and_nobody_else() {
        let mut clocks = Clocks::new(3);
        clocks.join(0b011);
        assert!(knows(&clocks, 0, 1, 1) && knows(&clocks, 1, 0, 1));
        assert!(!knows(&clocks, 2, 0, 1) && !knows(&clocks, 0, 2, 1));
    }

    #[test]
    fn what_comes_after_a_barrier_is_unknown_again() {
        let mut clocks = Clocks::new(2);
        clocks.tick(0);
        clocks.tick(0);
        clocks.join(0b11);
        assert_eq!(clocks.now(0).clock, clocks.now(1).clock);
        assert!(!knows(&clocks, 0, 1, clocks.now(1).clock));
        assert_eq!(clocks.now(0).floor, 3);
    }

    #[test]
    fn knowledge_passes_through_a_third_warp() {
        let mut clocks = Clocks::new(3);
        clocks.join(0b011);
        clocks.join(0b110);
        assert!(knows(&clocks, 2, 0, 1));
    }

    #[test]
    fn an_acquire_learns_what_was_released_and_nothing_later() {
        let mut clocks = Clocks::new(2);
        let released = clocks.release(0);
        clocks.acquire(1, &released);
        assert!(knows(&clocks, 1, 0, 1));
        assert!(!knows(&clocks, 1, 0, clocks.now(0).clock));
        assert!(!knows(&clocks, 0, 1, 1));
    }

    #[test]
    fn a_fence_passes_on_what_its_lanes_did_before() {
        let mut clocks = Clocks::new(2);
        clocks.fence(0, 0b10, Passes::Writes);
        let after = clocks.now(0).clock;
        let passed =
            |clocks: &Clocks, by, lane, clock, own| clocks.now(by).has_passed(Passes::Writes, (0, lane, clock), own);
        // Only the lane itself knows of it until a barrier.
        assert!(passed(&clocks, 0, 1, 1, true) && !passed(&clocks, 1, 1, 1, false) && !passed(&clocks, 0, 1, 1, false));
        clocks.join(0b11);
        assert!(passed(&clocks, 1, 1, 1, false));
        assert!(!passed(&clocks, 1, 0, 1, false), "another lane");
        assert!(!passed(&clocks, 1, 1, after, false), "after the fence");
    }

    #[test]
    fn a_fence_for_mbarriers_passes_on_nothing_else() {
        let mut clocks = Clocks::new(1);
        clocks.fence(0, 1, Passes::Mbarriers);
        assert!(clocks.now(0).has_passed(Passes::Mbarriers, (0, 0, 1), true));
        assert!(!clocks.now(0).has_passed(Passes::Writes, (0, 0, 1), true));
        clocks.fence(0, 1, Passes::Writes);
        assert!(clocks.now(0).has_passed(Passes::Mbarriers, (0, 0, 2), true));
    }

    #[test]
    fn a_fence_orders_no_lanes() {
        let mut clocks = Clocks::new(2);
        clocks.fence(0, u32::MAX, Passes::Writes);
        assert!(!knows(&clocks, 0, 0, 1));
        clocks.join(0b11);
        assert!(knows(&clocks, 0, 0, 2) && knows(&clocks, 1, 0, 2));
    }

    #[test]
    fn phases_of_an_mbarrier_travel_with_other_knowledge() {
        let mut clocks = Clocks::new(2);
        clocks.join(0b11);
        clocks.with_mbarriers(3);
        assert_eq!(clocks.now(1).floor, 1, "mbarriers do not lower it");
        clocks.acquire_phase(0, 2, 7);
        assert!(knows(&clocks, 0, 4, 7) && !knows(&clocks, 0, 4, 8) && !knows(&clocks, 1, 4, 1));
        let released = clocks.release(0);
        clocks.acquire(1, &released);
        assert!(knows(&clocks, 1, 4, 7));
    }

    #[test]
    fn a_reset_forgets() {
        let mut clocks = Clocks::new(2);
        clocks.join(0b11);
        clocks.reset();
        assert_eq!((clocks.now(0).clock, clocks.now(0).floor), (1, 0));
    }
}
