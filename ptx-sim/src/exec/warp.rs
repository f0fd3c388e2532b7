//! A warp: its registers, and the groups of lanes that are at the same place.

use super::copies::Copies;
use super::products::Products;
use crate::options::Reconvergence;
use crate::program::Program;
use crate::registers::{ALL, LANES, Registers};

/// Lanes that execute together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub pc: u32,
    pub mask: u32,
    /// Waits at an instruction that other lanes must reach too.
    pub parked: bool,
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
    pub index: usize,
    pub registers: Registers,
    /// For each register, the lanes that have written it: words, longs, predicates.
    pub written: Vec<u32>,
    pub fragments: Vec<Fragment>,
    /// Lanes that have not ended.
    pub live: u32,
    pub state: State,
    pub copies: Copies,
    pub products: Products,
    /// Local memory, lane by lane.
    pub local: Vec<u8>,
}

impl Warp {
    pub fn new(program: &Program, index: usize) -> Self {
        let mut registers = Registers {
            words: vec![[0; LANES]; program.words],
            longs: vec![[0; LANES]; program.longs],
            predicates: vec![0; program.predicates],
        };
        for (register, value) in &program.constants.words {
            registers.words[register.0 as usize] = [*value; LANES];
        }
        for (register, value) in &program.constants.longs {
            registers.longs[register.0 as usize] = [*value; LANES];
        }
        if let Some(predicate) = program.constants.yes {
            registers.predicates[predicate.0 as usize] = ALL;
        }
        Self {
            index,
            written: vec![0; program.words + program.longs + program.predicates],
            registers,
            fragments: Vec::new(),
            live: 0,
            state: State::Done,
            copies: Copies::default(),
            products: Products::new(program),
            local: vec![0xff; program.local_bytes as usize * LANES],
        }
    }

    /// Begins a block with `threads` lanes. Registers keep their bits, but nobody has written them.
    pub fn start(&mut self, threads: u32) {
        self.written.fill(0);
        self.live = if threads >= LANES as u32 { ALL } else { (1 << threads) - 1 };
        self.fragments.clear();
        self.fragments.push(Fragment { pc: 0, mask: self.live, parked: false });
        self.state = State::Ready;
        self.copies.clear();
        self.products.clear();
        self.local.fill(0xff);
    }

    /// Chooses the lanes to run next; none when all have ended. `choose(n)` picks one of n.
    pub fn turn(&mut self, reconvergence: Reconvergence, choose: impl FnOnce(usize) -> usize) -> Option<Turn> {
        if let [fragment] = self.fragments.as_slice() {
            return Some(Turn { fragment: 0, stop: u32::MAX, forced: fragment.parked });
        }
        self.merge(reconvergence);
        let ready = |(index, fragment): (usize, &Fragment)| (!fragment.parked).then_some(index);
        let ready: Vec<usize> = self.fragments.iter().enumerate().filter_map(ready).collect();
        let lowest = |indices: &[usize]| indices.iter().copied().min_by_key(|index| self.fragments[*index].pc);
        let (fragment, forced) = match (ready.as_slice(), reconvergence) {
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
        let fragment = |&(pc, mask, parked)| Fragment { pc, mask, parked };
        Warp {
            index: 0,
            registers: Registers::default(),
            written: Vec::new(),
            fragments: fragments.iter().map(fragment).collect(),
            live: ALL,
            state: State::Ready,
            copies: Copies::default(),
            products: Products::default(),
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
        assert_eq!(warp.fragments, [Fragment { pc: 4, mask: 0xffff, parked: false }]);
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
    fn the_end_of_some_lanes_wakes_the_others() {
        let mut warp = warp(&[(9, 0xff, true), (4, !0xff, false)]);
        warp.exit(1, !0xff);
        assert_eq!(warp.fragments, [Fragment { pc: 9, mask: 0xff, parked: false }]);
        warp.exit(0, 0xff);
        assert_eq!(warp.state, State::Done);
    }
}
