//! Clusters of one block, and warpgroups.

use super::Machine;
use super::mbarriers::CLUSTER;
use super::step::{Step, Then};
use super::warp::Warp;
use crate::program::AnyReg;
use crate::registers::{Word, lanes};
use crate::report::Kind;

/// Warps of a warpgroup.
const GROUP: usize = 4;

impl Machine<'_> {
    /// `barrier.cluster`: an mbarrier that expects every warp of the block. Warps that have ended are waited for too.
    pub(super) fn cluster_barrier(&mut self, warp: &mut Warp, step: Step, waits: bool, orders: bool) -> Then {
        let Step { inst, pc, active, .. } = step;
        let at = self.place(warp.index, active.trailing_zeros() as usize, pc);
        let warps = self.clocks.warps();
        let Some(index) = self.mbarriers.place(CLUSTER, at, warps) else { return Then::Next };
        self.clocks.with_mbarriers(self.mbarriers.all().len());
        if !self.mbarriers.get(index).live {
            self.mbarriers.get_mut(index).initialize(at, 0, warps as u32);
        }
        if !waits {
            warp.cluster_phase = self.mbarriers.get(index).phase;
            let known = if orders { self.clocks.release(warp.index) } else { Vec::new() };
            self.arrive_at(at, index, 1, &known);
        } else if self.is_over(index, |phase| phase > warp.cluster_phase) {
            if orders {
                self.acquire(warp.index, index);
            }
        } else {
            return self.poll(warp, step, index);
        }
        self.count(pc, inst, active, warp.live);
        Then::Next
    }

    pub(super) fn map_address(&mut self, warp: &mut Warp, step: Step, (d, a): (AnyReg, AnyReg), rank: Word) {
        let Step { pc, active, .. } = step;
        let ranks = *warp.registers.get(rank);
        if let Some(lane) = lanes(active).find(|lane| ranks[*lane] != 0) {
            let at = self.place(warp.index, lane, pc);
            self.find(Kind::InvalidOperand, at, None, || format!("block {} of a cluster of 1", ranks[lane]));
        }
        match (d, a) {
            (AnyReg::Word(d), AnyReg::Word(a)) => {
                let row = *warp.registers.get(a);
                warp.registers.set(d, active, &row);
            }
            (AnyReg::Long(d), AnyReg::Long(a)) => {
                let row = *warp.registers.get(a);
                warp.registers.set(d, active, &row);
            }
            _ => {}
        }
    }

    /// Compares what the warps of each warpgroup asked for with `setmaxnreg`.
    pub(super) fn check_register_limits(&mut self, warps: &[Warp]) {
        for group in warps.chunks(GROUP) {
            let first = &group[0].register_limits;
            let differs = |warp: &&Warp| warp.register_limits != *first;
            let Some(other) = group.iter().find(differs) else { continue };
            let Some(&(pc, count)) = first.iter().chain(&other.register_limits).next() else { continue };
            let (at, index) = (self.place(group[0].index, 0, pc), other.index);
            let message =
                || format!("warp {index} of the warpgroup does not execute this setmaxnreg to {count} registers");
            self.find(Kind::Diverged, at, None, message);
        }
    }
}
