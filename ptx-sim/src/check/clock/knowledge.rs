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

/// What somebody knows: up to which clock everything of each agent, and of some lanes more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Knowledge {
    pub(super) seen: Vec<u32>,
    pub(super) lanes: Vec<Lanes>,
}

impl Knowledge {
    /// Learns what others know.
    pub fn add(&mut self, more: &Self) {
        self.seen.resize(more.seen.len().max(self.seen.len()), 0);
        join(&mut self.seen, &more.seen);
        join_lanes(&mut self.lanes, &more.lanes, &self.seen);
    }

    /// Becomes the same as another.
    pub fn set(&mut self, other: &Self) {
        self.seen.clone_from(&other.seen);
        self.lanes.clone_from(&other.lanes);
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
