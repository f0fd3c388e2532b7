//! Vector clocks of the warps of a block (Fidge, Mattern), as race detectors of the FastTrack family use them.

/// Warps of a block at most, with room for agents that are none (asynchronous copy engines).
pub(crate) const AGENTS: usize = 64;

/// No clock of a block reaches this, so that a shadow can pack clocks into few bits.
pub(crate) const LIMIT: u32 = 1 << 26;

/// The clocks of a block.
///
/// A warp's clock is one more than the clock it has seen of itself: what it did before its last tick is ordered before
/// what it does now by the rule that holds for other warps, `event.clock <= seen[event.warp]`.
#[derive(Debug)]
pub(crate) struct Clocks {
    warps: usize,
    /// Row by row: the last clock of each warp that is ordered before the present of the row's warp.
    seen: Vec<u32>,
    /// The least of each row.
    floor: Vec<u32>,
}

/// The present of a warp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    /// Its clock, at least 1.
    pub clock: u32,
    /// Up to this clock everything is ordered before the present, whoever did it.
    pub floor: u32,
    /// Up to which clock everything of each warp is.
    pub seen: &'a [u32],
}

impl Clocks {
    /// The clocks of a block that begins.
    pub fn new(warps: usize) -> Self {
        assert!(warps <= AGENTS);
        Self { warps, seen: vec![0; warps * warps], floor: vec![0; warps] }
    }

    /// Begins the next block.
    pub fn reset(&mut self) {
        self.seen.fill(0);
        self.floor.fill(0);
    }

    /// The present of a warp.
    #[inline]
    pub fn now(&self, warp: usize) -> Now<'_> {
        let seen = self.row(warp);
        Now { clock: seen[warp] + 1, floor: self.floor[warp], seen }
    }

    /// `bar.warp.sync` of all live lanes: orders what the warp did before what it will do.
    pub fn tick(&mut self, warp: usize) {
        let clock = self.now(warp).clock;
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

    fn row(&self, warp: usize) -> &[u32] {
        &self.seen[warp * self.warps..][..self.warps]
    }

    fn learn(&mut self, warp: usize, change: impl FnOnce(&mut [u32])) {
        let row = &mut self.seen[warp * self.warps..][..self.warps];
        change(row);
        assert!(row[warp] + 1 < LIMIT, "too many barriers in one block");
        self.floor[warp] = row.iter().copied().min().unwrap_or(0);
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
    fn a_reset_forgets() {
        let mut clocks = Clocks::new(2);
        clocks.join(0b11);
        clocks.reset();
        assert_eq!((clocks.now(0).clock, clocks.now(0).floor), (1, 0));
    }
}
