//! Instructions that lanes or warps do together: barriers, shuffles, votes.

use super::Machine;
use super::barriers::BARRIERS;
use super::step::{Step, Then};
use super::warp::{Fragment, State, Warp};
use super::warpgroup::WARPS;
use crate::ops::collective::{Reduce, Shuffle, Vote, VoteKind};
use crate::program::{Action, Barrier, BarrierOp};
use crate::registers::{ALL, LANES, Registers, Word, lanes};
use crate::report::Kind;

impl Machine<'_> {
    /// An instruction that lanes do together: waits for those who are missing.
    pub(super) fn collective(&mut self, warp: &mut Warp, step: Step) -> Then {
        let Step { inst, pc, mask, active, forced, fragment } = step;
        if active == 0 {
            self.count(pc, inst, active, warp.live);
            return Then::Next;
        }
        let named = |members: Word| warp.registers.get(members)[active.trailing_zeros() as usize];
        let members = match &inst.action {
            Action::WarpBarrier(members) => named(*members),
            Action::Shuffle(shuffle) => named(shuffle.members),
            Action::Vote(vote) => named(vote.members),
            Action::Reduce(reduce) => named(reduce.members),
            Action::Elect(elect) => named(elect.members),
            Action::Barrier(_) | Action::ClusterBarrier { .. } | Action::MaxRegisters(_) => warp.live,
            // Matrices are spread over the whole warp.
            _ => ALL,
        };
        let missing = members & warp.live & !active;
        if missing != 0 && !forced && active == mask {
            let waits = &mut warp.fragments[fragment];
            (waits.pc, waits.parked) = (pc, true);
            return Then::Choose;
        }
        if missing != 0 && !forced && missing & mask == 0 {
            // Those for which the guard holds wait, the others go on.
            warp.fragments[fragment] = Fragment { pc: pc + 1, mask: mask & !active, parked: false, polls: None };
            warp.fragments.push(Fragment { pc, mask: active, parked: true, polls: None });
            return Then::Choose;
        }
        if missing != 0 || members & !warp.live != 0 || active & !members != 0 {
            self.blame(warp, step, members);
        }
        warp.fragments[fragment].parked = false;
        if !matches!(inst.action, Action::ClusterBarrier { .. }) {
            self.count(pc, inst, active, warp.live);
        }
        match &inst.action {
            Action::Barrier(barrier) => return self.barrier(warp, step, barrier),
            Action::ClusterBarrier { waits, orders } => return self.cluster_barrier(warp, step, *waits, *orders),
            Action::MaxRegisters(count) => warp.register_limits.push((pc, *count)),
            Action::Elect(elect) => {
                let first = active & active.wrapping_neg();
                warp.registers.set(elect.d, active, &[first.trailing_zeros(); LANES]);
                warp.registers.set_predicate(elect.p, active, first);
            }
            Action::WarpBarrier(_) => self.clocks.tick(warp.index),
            Action::Shuffle(shuffle) => self.shuffle(warp, step, shuffle),
            Action::Vote(vote) => vote_of(&mut warp.registers, active, vote),
            Action::Reduce(reduce) => reduce_of(&mut warp.registers, active, reduce),
            Action::LoadMatrix(matrix) => self.load_matrix(warp, step, matrix),
            Action::StoreMatrix(matrix) => self.store_matrix(warp, step, matrix),
            Action::Mma(mma) => self.mma(warp, active, mma),
            Action::Warpgroup(what) => return self.warpgroup(warp, step, what),
            _ => {}
        }
        Then::Next
    }

    /// Says what is wrong with who is here.
    fn blame(&mut self, warp: &Warp, step: Step, members: u32) {
        let Step { pc, active, .. } = step;
        let at = self.place(warp.index, active.trailing_zeros() as usize, pc);
        let (live, absent, foreign) = (warp.live, members & warp.live & !active, active & !members);
        if foreign != 0 {
            self.find(Kind::InvalidOperand, at, None, || {
                format!("lanes {foreign:#010x} execute it, the member mask {members:#010x} does not name them")
            });
        } else if absent != 0 {
            self.find(Kind::Diverged, at, None, || {
                format!("lanes {absent:#010x} are missing, {active:#010x} are here")
            });
        } else {
            let ended = members & !live;
            self.find(Kind::Diverged, at, None, || format!("lanes {ended:#010x} have ended or do not exist"));
        }
    }

    fn barrier(&mut self, warp: &mut Warp, step: Step, barrier: &Barrier) -> Then {
        let Step { pc, active, fragment, .. } = step;
        let lane = active.trailing_zeros() as usize;
        let at = self.place(warp.index, lane, pc);
        let id = warp.registers.get(barrier.id)[lane] as usize;
        let threads = barrier.threads.map(|threads| warp.registers.get(threads)[lane]);
        if id >= BARRIERS {
            self.find(Kind::InvalidOperand, at, None, || format!("barrier {id}, allowed: 0 to {}", BARRIERS - 1));
            return Then::Next;
        }
        let most = self.size.block.iter().product::<u32>().next_multiple_of(32);
        if let Some(threads) = threads.filter(|threads| threads % 32 != 0 || *threads == 0 || *threads > most) {
            self.find(Kind::InvalidOperand, at, None, || {
                format!("{threads} threads, allowed: multiples of 32 up to {most}")
            });
            return Then::Next;
        }
        let state = &mut self.blocks[self.rank].barriers[id];
        if state.come() > 0 && state.threads != threads {
            let other = state.threads;
            let name = |threads: Option<u32>| threads.map_or("all".into(), |threads: u32| threads.to_string());
            self.find(Kind::BarrierMismatch, at, None, || {
                format!("barrier {id} for {} threads, another warp waits there for {}", name(threads), name(other))
            });
        }
        let state = &mut self.blocks[self.rank].barriers[id];
        state.threads = threads;
        if let Some(reduce) = barrier.reduce {
            let holds = warp.registers.holds(reduce.predicate, reduce.negate);
            state.votes.yes += (holds & active).count_ones();
            state.votes.all &= holds & active == active;
            state.reductions.push((warp.number, reduce, active));
        }
        if !barrier.waits {
            let known = self.clocks.arrive(warp.index);
            state.arrived.push(known);
            return Then::Next;
        }
        state.waiting.push((warp.number, pc));
        warp.fragments[fragment].pc = pc + 1;
        warp.state = State::Waiting { barrier: id, pc };
        Then::Leave
    }

    /// Opens the barriers of a block for which all have come.
    pub(super) fn open_barriers(&mut self, warps: &mut [Warp]) {
        for id in 0..BARRIERS {
            let barrier = &self.blocks[self.rank].barriers[id];
            let expected = barrier.threads.unwrap_or(warps.len() as u32 * 32);
            if barrier.come() > 0 && barrier.come() >= expected {
                self.open(warps, id);
            }
        }
    }

    fn open(&mut self, warps: &mut [Warp], id: usize) {
        let barrier = std::mem::take(&mut self.blocks[self.rank].barriers[id]);
        for (index, _) in &barrier.waiting {
            for known in &barrier.arrived {
                self.clocks.acquire(warps[*index].index, known);
            }
            warps[*index].state = if warps[*index].live == 0 { State::Done } else { State::Ready };
        }
        self.clocks.join(warps[0].index, barrier.warps());
        for (index, reduce, active) in &barrier.reductions {
            let value = barrier.votes.value(reduce.operation);
            let registers = &mut warps[*index].registers;
            match reduce.operation {
                BarrierOp::And(p) | BarrierOp::Or(p) => {
                    registers.set_predicate(p, *active, if value != 0 { ALL } else { 0 });
                }
                BarrierOp::Popc(d) => registers.set(d, *active, &[value; LANES]),
            }
        }
    }

    /// Nobody can go on. False when it stays that way.
    pub(super) fn resolve(&mut self, warps: &mut [Warp]) -> bool {
        for rank in 0..self.blocks.len() {
            self.enter(rank);
            let block = &mut warps[rank * self.warps..][..self.warps];
            if self.resolve_barriers(block) {
                self.end_block(block);
                return true;
            }
        }
        if self.resolve_cluster_barrier(warps) {
            return true;
        }
        let waits = |warp: &Warp| match warp.state {
            State::Waiting { barrier, pc } => Some((0, format!("at barrier {barrier}"), pc)),
            State::Polling => warp.fragments.iter().find_map(|fragment| {
                let mbarrier = self.describe(fragment.polls?);
                Some((fragment.mask.trailing_zeros() as usize, format!("at {mbarrier}"), fragment.pc))
            }),
            State::Products { pc, .. } => Some((0, absent(warps, warp), pc)),
            State::Ready | State::Done => None,
        };
        let waiting = warps.iter().filter_map(|warp| waits(warp).map(|(lane, place, pc)| (warp, lane, place, pc)));
        let waiting: Vec<_> = waiting.collect();
        let Some(&(warp, lane, _, pc)) = waiting.first() else { return false };
        let line = |pc: u32| self.program.code[pc as usize].line;
        let name = |warp: &Warp| match (self.blocks.len(), self.blocks[warp.rank].at) {
            (1, _) => format!("warp {}", warp.number),
            (_, [x, y, z]) => format!("block ({x},{y},{z}) warp {}", warp.number),
        };
        let list: Vec<String> =
            waiting.iter().map(|(warp, _, place, pc)| format!("{} {place}, line {}", name(warp), line(*pc))).collect();
        let at = self.place(warp.index, lane, pc);
        self.find(Kind::Deadlock, at, None, || format!("every warp waits: {}", list.join("; ")));
        false
    }

    /// Opens a barrier of the block where all other warps have ended.
    fn resolve_barriers(&mut self, warps: &mut [Warp]) -> bool {
        for id in 0..BARRIERS {
            let barrier = &self.blocks[self.rank].barriers[id];
            let waits = |warp: &Warp| barrier.waiting.iter().any(|(number, _)| *number == warp.number);
            let others_ended = warps.iter().all(|warp| warp.state == State::Done || waits(warp));
            if let (Some(&(warp, pc)), None, true) = (barrier.waiting.first(), barrier.threads, others_ended) {
                let (here, all) = (barrier.waiting.len() + barrier.arrived.len(), warps.len());
                let at = self.place(warps[warp].index, 0, pc);
                self.find(Kind::BarrierMismatch, at, None, || {
                    format!("{here} of {all} warps come to barrier {id}, the others have ended")
                });
                self.open(warps, id);
                return true;
            }
        }
        false
    }

    fn shuffle(&mut self, warp: &mut Warp, step: Step, shuffle: &Shuffle) {
        let Step { active, pc, .. } = step;
        let registers = &mut warp.registers;
        let (a, b, c) = (*registers.get(shuffle.a), *registers.get(shuffle.b), *registers.get(shuffle.c));
        let mut row = a;
        let (mut valid, mut absent) = (0, 0);
        for lane in lanes(active) {
            let (source, in_range) = Shuffle::source(shuffle.mode, lane as u32, b[lane], c[lane]);
            row[lane] = a[source as usize];
            valid |= u32::from(in_range) << lane;
            absent |= u32::from(active >> source & 1 == 0) << lane;
        }
        registers.set(shuffle.d, active, &row);
        if let Some(p) = shuffle.valid {
            registers.set_predicate(p, active, valid);
        }
        if absent != 0 {
            let at = self.place(warp.index, absent.trailing_zeros() as usize, pc);
            self.find(Kind::Diverged, at, None, || "reads from a lane that does not take part".into());
        }
    }
}

fn vote_of(registers: &mut Registers, active: u32, vote: &Vote) {
    let holds = |registers: &Registers, p, negated: bool| registers.holds(p, negated) & active;
    let spread = |yes: bool| if yes { ALL } else { 0 };
    match vote.what {
        VoteKind::All { d, p, negated } => {
            let all = holds(registers, p, negated) == active;
            registers.set_predicate(d, active, spread(all));
        }
        VoteKind::Any { d, p, negated } => {
            let any = holds(registers, p, negated) != 0;
            registers.set_predicate(d, active, spread(any));
        }
        VoteKind::Uniform { d, p, negated } => {
            let holds = holds(registers, p, negated);
            registers.set_predicate(d, active, spread(holds == 0 || holds == active));
        }
        VoteKind::Ballot { d, p, negated } => {
            let ballot = holds(registers, p, negated);
            registers.set(d, active, &[ballot; LANES]);
        }
        VoteKind::MatchAny { d, a } => {
            let a = *registers.get(a);
            let same = |lane: usize| lanes(active).filter(|other| a[*other] == a[lane]).fold(0, |m, l| m | 1u32 << l);
            registers.set(d, active, &std::array::from_fn(same));
        }
    }
}

fn reduce_of(registers: &mut Registers, active: u32, reduce: &Reduce) {
    let a = *registers.get(reduce.a);
    let value = lanes(active).map(|lane| a[lane]).reduce(reduce.combine).unwrap_or(0);
    registers.set(reduce.d, active, &[value; LANES]);
}

/// The warps of a warpgroup that do not wait for their products as this one does.
fn absent(warps: &[Warp], warp: &Warp) -> String {
    let same = |other: &&Warp| (other.rank, other.number / WARPS) == (warp.rank, warp.number / WARPS);
    let group = warps.iter().filter(same);
    let absent = group.filter(|other| !matches!(other.state, State::Products { .. }));
    let names: Vec<String> = absent.map(|other| format!("warp {}", other.number)).collect();
    format!("for {} of its warpgroup", names.join(", "))
}
