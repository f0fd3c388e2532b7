//! What somebody knows of what others did.

use crate::registers::LANES;

/// What is known of the lanes of a warp beyond what is known of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    pub(super) warp: usize,
    /// Up to which clock of what the warp did as a whole.
    pub(super) whole: u32,
    /// Up to which clock of what each lane did.
    pub(super) each: [u32; LANES],
}

impl Lanes {
    /// What lanes release at a clock.
    pub(super) fn new(warp: usize, lanes: u32, clock: u32) -> Self {
        let each = std::array::from_fn(|lane| if lanes >> lane & 1 == 1 { clock } else { 0 });
        Self { warp, whole: clock, each }
    }
}

/// A part of what happened: up to which clock everything of each agent, and of some lanes more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Agents behind the last one have done nothing.
    pub(super) seen: Vec<u32>,
    pub(super) lanes: Vec<Lanes>,
}

impl Past {
    /// Whether what somebody did at a clock is part of it.
    pub fn holds(&self, clock: u32, who: impl FnOnce() -> Actor, agent: usize) -> bool {
        self.seen.get(agent).is_some_and(|seen| clock <= *seen)
            || !self.lanes.is_empty() && hold(&self.lanes, clock, who())
    }

    /// Takes more to it.
    pub(super) fn add(&mut self, more: &Self) {
        if more.seen.is_empty() {
            return;
        }
        self.reach(more.seen.len());
        join(&mut self.seen, &more.seen);
        join_lanes(&mut self.lanes, &more.lanes, &self.seen);
    }

    /// The same of an agent.
    pub(super) fn add_agent(&mut self, agent: usize, clock: u32) {
        self.reach(agent + 1);
        self.seen[agent] = clock.max(self.seen[agent]);
    }

    fn reach(&mut self, agents: usize) {
        self.seen.resize(agents.max(self.seen.len()), 0);
    }

    /// Becomes the same as another.
    fn set(&mut self, other: &Self) {
        self.seen.clone_from(&other.seen);
        self.lanes.clone_from(&other.lanes);
    }
}

/// What somebody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Knowledge {
    /// What is ordered before all that follows.
    pub(super) past: Past,
    /// What need not be, because a message on the way orders no memory, but for asynchronous operations: they are done.
    pub(super) done: Past,
}

impl Knowledge {
    /// Learns what others know.
    pub fn add(&mut self, more: &Self) {
        self.past.add(&more.past);
        self.done.add(&more.done);
    }

    /// Becomes the same as another.
    pub fn set(&mut self, other: &Self) {
        self.past.set(&other.past);
        self.done.set(&other.done);
    }

    /// What is left of it for those whom it comes to in a message that does not order memory for them: which asynchronous
    /// operations are done.
    pub fn weak(&self) -> Self {
        let mut done = self.done.clone();
        done.add(&self.past);
        Self { past: Past::default(), done }
    }
}

/// Whether what somebody did at a clock is known, by what is known of lanes alone.
#[inline(never)]
pub(super) fn hold(lanes: &[Lanes], clock: u32, who: Actor) -> bool {
    let Some(lanes) = lanes.iter().find(|lanes| lanes.warp == who.agent) else { return false };
    match who {
        Actor { whole: true, .. } => clock <= lanes.whole,
        Actor { several: true, .. } => lanes.each.iter().all(|each| clock <= *each),
        Actor { lane, .. } => clock <= lanes.each[lane],
    }
}

/// Takes the greater one of each two clocks.
pub(super) fn join(clocks: &mut [u32], more: &[u32]) {
    for (clock, &other) in clocks.iter_mut().zip(more) {
        *clock = other.max(*clock);
    }
}

/// The same for lanes; what is known of whole warps need not be kept.
pub(super) fn join_lanes(lanes: &mut Vec<Lanes>, more: &[Lanes], seen: &[u32]) {
    for other in more {
        match lanes.iter_mut().find(|lanes| lanes.warp == other.warp) {
            Some(lanes) => {
                lanes.whole = lanes.whole.max(other.whole);
                join(&mut lanes.each, &other.each);
            }
            None => lanes.push(other.clone()),
        }
    }
    lanes.retain(|lanes| lanes.whole > seen[lanes.warp]);
}

/// Who did something: a lane of a warp, several, or with `whole` the warp as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    pub agent: usize,
    pub lane: usize,
    pub several: bool,
    pub whole: bool,
}
