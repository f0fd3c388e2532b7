//! The sixteen barriers of a block.

use crate::check::clock::Knowledge;
use crate::program::{BarrierOp, BarrierReduce};

/// Barriers of a block.
pub(crate) const BARRIERS: usize = 16;

/// One barrier between two openings.
#[derive(Debug, Default)]
pub(crate) struct Barrier {
    /// Warps that wait, with the instruction they wait at.
    pub waiting: Vec<(usize, u32)>,
    /// What warps knew that arrived without waiting.
    pub arrived: Vec<Knowledge>,
    /// Threads that it opens for, where an instruction said so.
    pub threads: Option<u32>,
    /// Sum, conjunction and disjunction of what `bar.red` was given.
    pub votes: Votes,
    /// Where the waiting warps want that.
    pub reductions: Vec<(usize, BarrierReduce, u32)>,
}

/// What `bar.red` has gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Votes {
    pub yes: u32,
    pub all: bool,
}

impl Default for Votes {
    fn default() -> Self {
        Self { yes: 0, all: true }
    }
}

impl Votes {
    /// What the destination of a reduction gets, in each lane.
    pub fn value(self, operation: BarrierOp) -> u32 {
        match operation {
            BarrierOp::And(_) => u32::from(self.all),
            BarrierOp::Or(_) => u32::from(self.yes > 0),
            BarrierOp::Popc(_) => self.yes,
        }
    }
}

impl Barrier {
    /// Threads that have come, counted as hardware does: whole warps.
    pub fn come(&self) -> u32 {
        (self.waiting.len() + self.arrived.len()) as u32 * 32
    }

    /// The warps that wait, as a mask.
    pub fn warps(&self) -> u64 {
        self.waiting.iter().fold(0, |mask, (warp, _)| mask | 1 << warp)
    }
}
