//! A warp: its registers, and the groups of lanes that are at the same place.

use super::copies::Copies;
use super::groups::BulkGroups;
use super::mbarriers::Known;
use super::products::Products;
use crate::decode::body::RANK_SHIFT;
use crate::options::Reconvergence;
use crate::program::{Constant, Program};
use crate::registers::{ALL, LANES, Registers};

/// Lanes that execute together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub pc: u32,
    pub mask: u32,
    /// Waits at an instruction that other lanes must reach too.
    pub parked: bool,
    /// Waits for a phase of the mbarrier with this number.
    pub polls: Option<usize>,
}

/// Whether a warp can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At the barrier with this number; the instruction is at this place.
    Waiting {
        barrier: usize,
        pc: u32,
    },
    /// For the rest of its warpgroup, until at most `open` groups of products are left.
    Products {
        open: u32,
        pc: u32,
    },
    /// Some lanes wait for an mbarrier, and the others for them.
    Polling,
    Done,
}

/// The lanes to run next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Index of the fragment.
    pub fragment: usize,
    /// Where to look again for lanes to meet.
    pub stop: u32,
    /// Nobody else can come: go on without those who are missing.
    pub forced: bool,
}

/// A warp of a block.
#[derive(Debug)]
pub(crate) struct Warp {
    /// Its number in the cluster.
    pub index: usize,
    /// The rank of its block in the cluster, and its number there.
    pub rank: usize,
    pub number: usize,
    pub registers: Registers,
    /// For each register, the lanes that have written it: words, longs, predicates.
    pub written: Vec<u32>,
    pub fragments: Vec<Fragment>,
    /// Lanes that have not ended.
    pub live: u32,
    pub state: State,
    /// The number of phases that were complete when the first of its lanes began to wait for one.
    pub polled: u64,
    /// Phases of the cluster's barrier that were over when the warp arrived there; nothing once it has waited.
    pub arrived: Option<u32>,
    /// What it did and knew before its last fence.
    pub fenced: Known,
    /// Its clock at its last `fence.mbarrier_init`.
    pub mbarriers_fenced: u32,
    /// What `setmaxnreg` asked for, and where.
    pub register_limits: Vec<(u32, u32)>,
    pub copies: Copies,
    pub products: Products,
    pub stores: BulkGroups,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
}

impl Warp {
    /// The warp with this number in a cluster whose blocks have so many warps.
    pub fn new(program: &Program, index: usize, per_block: usize) -> Self {
        let mut registers = Registers {
            words: vec![[0; LANES]; program.words],
            longs: vec![[0; LANES]; program.longs],
            predicates: vec![0; program.predicates],
        };
        let rank = index / per_block;
        let value = |constant: Constant| match constant {
            Constant::Bits(bits) => bits,
            Constant::Shared(address) => u64::from(address) + ((rank as u64) << RANK_SHIFT),
        };
        for (register, constant) in &program.constants.words {
            registers.words[register.0 as usize] = [value(*constant) as u32; LANES];
        }
        for (register, constant) in &program.constants.longs {
            registers.longs[register.0 as usize] = [value(*constant); LANES];
        }
        if let Some(predicate) = program.constants.yes {
            registers.predicates[predicate.0 as usize] = ALL;
        }
        Self {
            index,
            rank,
            number: index % per_block,
            written: vec![0; program.words + program.longs + program.predicates],
            registers,
            fragments: Vec::new(),
            live: 0,
            state: State::Done,
            polled: 0,
            arrived: None,
            fenced: Known::default(),
            mbarriers_fenced: 0,
            register_limits: Vec::new(),
            copies: Copies::default(),
            products: Products::new(program),
            stores: BulkGroups::default(),
            local: vec![0xff; program.local_bytes as usize * LANES],
        }
    }

    /// Begins a block with `threads` lanes. Registers keep their bits, but nobody has written them.
    pub fn start(&mut self, threads: u32) {
        self.written.fill(0);
        self.live = if threads >= LANES as u32 { ALL } else { (1 << threads) - 1 };
        self.fragments.clear();
        self.fragments.push(Fragment { pc: 0, mask: self.live, parked: false, polls: None });
        self.state = State::Ready;
        self.arrived = None;
        self.fenced = Known::default();
        self.mbarriers_fenced = 0;
        self.register_limits.clear();
        self.copies.clear();
        self.products.clear();
        self.stores.clear();
        self.local.fill(0xff);
    }

    /// Whether lanes wait for an mbarrier, and phases were completed since they looked.
    pub fn is_to_wake(&self, completed: u64) -> bool {
        self.state == State::Polling && self.polled != completed
    }

    /// Lets lanes look again that wait for an mbarrier, if phases were completed since.
    pub fn wake(&mut self, completed: u64) {
        if self.is_to_wake(completed) {
            self.state = State::Ready;
            self.fragments.iter_mut().for_each(|fragment| fragment.polls = None);
        }
    }

    /// Chooses the lanes to run next; none when all have ended, or wait for an mbarrier or for those that do.
    /// `choose(n)` picks one of n.
    pub fn turn(&mut self, reconvergence: Reconvergence, choose: impl FnOnce(usize) -> usize) -> Option<Turn> {
        if let [fragment] = self.fragments.as_slice()
            && fragment.polls.is_none()
        {
            return Some(Turn { fragment: 0, stop: u32::MAX, forced: fragment.parked });
        }
        self.merge(reconvergence);
        let ready =
            |(index, fragment): (usize, &Fragment)| (!fragment.parked && fragment.polls.is_none()).then_some(index);
        let ready: Vec<usize> = self.fragments.iter().enumerate().filter_map(ready).collect();
        let lowest = |indices: &[usize]| indices.iter().copied().min_by_key(|index| self.fragments[*index].pc);
        let (fragment, forced) = match (ready.as_slice(), reconvergence) {
            ([], _) if self.fragments.iter().any(|fragment| fragment.polls.is_some()) => return None,
            ([], _) => (lowest(&(0..self.fragments.len()).collect::<Vec<_>>())?, true),
            (ready, Reconvergence::Early) => (lowest(ready)?, false),
            (ready, Reconvergence::Late) => (ready[choose(ready.len())], false),
        };
        let pc = self.fragments[fragment].pc;
        let others = self.fragments.iter().map(|other| other.pc).filter(|other| *other > pc);
        let stop = match reconvergence {
            Reconvergence::Early => others.min().unwrap_or(u32::MAX),
            Reconvergence::Late => u32::MAX,
        };
        Some(Turn { fragment, stop, forced })
    }

    /// Joins fragments that are at the same place.
    fn merge(&mut self, reconvergence: Reconvergence) {
        let mut index = 0;
        while index < self.fragments.len() {
            let first = self.fragments[index];
            let meets = |other: &Fragment| {
                other.pc == first.pc && (reconvergence == Reconvergence::Early || other.parked && first.parked)
            };
            let found = self.fragments[index + 1..].iter().position(meets);
            match found {
                Some(offset) => {
                    let other = self.fragments.remove(index + 1 + offset);
                    self.fragments[index].mask |= other.mask;
                    self.fragments[index].parked = false;
                    self.fragments[index].polls = None;
                }
                None => index += 1,
            }
        }
    }

    /// Lanes of a fragment end.
    pub fn exit(&mut self, fragment: usize, lanes: u32) {
        self.live &= !lanes;
        self.fragments[fragment].mask &= !lanes;
        self.fragments.retain(|fragment| fragment.mask != 0);
        // Who waited for them need not any more.
        self.fragments.iter_mut().for_each(|fragment| fragment.parked = false);
        if self.live == 0 {
            self.state = State::Done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warp(fragments: &[(u32, u32, bool)]) -> Warp {
        let fragment = |&(pc, mask, parked)| Fragment { pc, mask, parked, polls: None };
        Warp {
            index: 0,
            rank: 0,
            number: 0,
            registers: Registers::default(),
            written: Vec::new(),
            fragments: fragments.iter().map(fragment).collect(),
            live: ALL,
            state: State::Ready,
            polled: 0,
            arrived: None,
            fenced: Known::default(),
            mbarriers_fenced: 0,
            register_limits: Vec::new(),
            copies: Copies::default(),
            products: Products::default(),
            stores: BulkGroups::default(),
            local: Vec::new(),
        }
    }

    #[test]
    fn the_lowest_place_goes_first_and_stops_where_others_are() {
        let mut warp = warp(&[(9, 0xff, false), (4, 0xff00, false)]);
        assert_eq!(warp.turn(Reconvergence::Early, |_| 0), Some(Turn { fragment: 1, stop: 9, forced: false }));
    }

    #[test]
    fn lanes_at_one_place_meet() {
        let mut warp = warp(&[(4, 0xff, true), (4, 0xff00, false)]);
        assert_eq!(warp.turn(Reconvergence::Early, |_| 0), Some(Turn { fragment: 0, stop: u32::MAX, forced: false }));
        assert_eq!(warp.fragments, [Fragment { pc: 4, mask: 0xffff, parked: false, polls: None }]);
    }

    #[test]
    fn late_lanes_meet_only_where_both_wait() {
        let mut apart = warp(&[(4, 0xff, false), (4, 0xff00, false)]);
        apart.turn(Reconvergence::Late, |n| n - 1);
        assert_eq!(apart.fragments.len(), 2);
        let mut parked = warp(&[(4, 0xff, true), (4, 0xff00, true)]);
        parked.turn(Reconvergence::Late, |_| 0);
        assert_eq!(parked.fragments.len(), 1);
    }

    #[test]
    fn a_turn_is_forced_when_all_wait_apart() {
        let mut warp = warp(&[(9, 0xff, true), (4, 0xff00, true)]);
        assert_eq!(warp.turn(Reconvergence::Early, |_| 0).map(|turn| (turn.fragment, turn.forced)), Some((1, true)));
    }

    #[test]
    fn who_waits_for_an_mbarrier_is_not_forced_on() {
        let mut warp = warp(&[(9, 0xff, true), (4, 0xff00, false)]);
        (warp.fragments[1].polls, warp.polled) = (Some(0), 5);
        assert_eq!(warp.turn(Reconvergence::Early, |_| 0), None);
        warp.state = State::Polling;
        warp.wake(5);
        assert_eq!(warp.state, State::Polling);
        warp.wake(6);
        assert_eq!(warp.state, State::Ready);
        assert_eq!(warp.turn(Reconvergence::Early, |_| 0).map(|turn| turn.fragment), Some(1));
    }

    #[test]
    fn the_end_of_some_lanes_wakes_the_others() {
        let mut warp = warp(&[(9, 0xff, true), (4, !0xff, false)]);
        warp.exit(1, !0xff);
        assert_eq!(warp.fragments, [Fragment { pc: 9, mask: 0xff, parked: false, polls: None }]);
        warp.exit(0, 0xff);
        assert_eq!(warp.state, State::Done);
    }
}
