//! The steps of a warp: from instruction to instruction, until it has to wait.

use super::Machine;
use super::warp::{State, Turn, Warp};
use crate::check::clock::Passes;
use crate::options::Mma;
use crate::program::{Action, AnyReg, Inst, LaneMask, Special};
use crate::registers::{ALL, LANES, lanes};
use crate::report::Kind;

/// What follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next one.
    Next,
    /// Another, for all lanes that are here.
    Goto(u32),
    /// The fragments have changed: choose again.
    Choose,
    /// The warp waits or has ended.
    Leave,
}

impl Machine<'_> {
    /// Runs a warp until it waits, ends, or has had its share.
    pub(super) fn run_warp(&mut self, warp: &mut Warp, slice: u32) {
        let mut left = slice;
        self.turn_over = false;
        while left > 0 && warp.state == State::Ready && !self.stopped && !self.turn_over {
            let mut pick = 0;
            if warp.fragments.len() > 1 {
                pick = self.random_bits();
            }
            let Some(turn) = warp.turn(self.options.reconvergence, |n| (pick % n as u64) as usize) else {
                if !warp.fragments.is_empty() {
                    warp.state = State::Polling;
                }
                return;
            };
            let executed = self.run_fragment(warp, turn, left);
            left -= executed;
            self.executed += u64::from(executed);
            if self.executed > self.options.max_instructions {
                self.give_up(warp);
            }
        }
    }

    /// Ends a launch that would go on for ever.
    fn give_up(&mut self, warp: &Warp) {
        self.stopped = true;
        let pc = warp.fragments.first().map_or(0, |fragment| fragment.pc);
        let at = self.place(warp.index, 0, pc.min(self.program.code.len() as u32 - 1));
        let limit = self.options.max_instructions;
        self.find(Kind::Endless, at, None, || format!("more than {limit} instructions"));
    }

    /// Runs lanes that are together; the number of instructions they executed.
    fn run_fragment(&mut self, warp: &mut Warp, turn: Turn, limit: u32) -> u32 {
        let code = &self.program.code;
        let fragment = warp.fragments[turn.fragment];
        let mask = fragment.mask;
        let mut pc = fragment.pc;
        let mut forced = turn.forced;
        for executed in 0..limit {
            if pc >= turn.stop {
                warp.fragments[turn.fragment].pc = pc;
                return executed;
            }
            let inst = &code[pc as usize];
            let active = match inst.guard {
                None => mask,
                Some((predicate, negated)) => mask & warp.registers.holds(predicate, negated),
            };
            self.check_registers(warp, inst, mask, active, pc);
            if let Action::Compute(compute) = &inst.action {
                compute(&mut warp.registers, active);
                self.count(pc, inst, active, warp.live);
                pc += 1;
                continue;
            }
            let then = self.execute(warp, Step { inst, pc, mask, active, forced, fragment: turn.fragment });
            forced = false;
            match then {
                Then::Next => pc += 1,
                Then::Goto(target) => pc = target,
                Then::Choose | Then::Leave => return executed + 1,
            }
        }
        warp.fragments[turn.fragment].pc = pc;
        limit
    }

    #[inline(always)]
    pub(super) fn count(&mut self, pc: u32, inst: &Inst, active: u32, live: u32) {
        if inst.hidden {
            return;
        }
        let counters = &mut self.counters[pc as usize];
        counters.instructions += 1;
        counters.partial += u64::from(active != live);
    }

    /// Looks for reads of registers that nobody wrote, and notes what is written.
    #[inline]
    fn check_registers(&mut self, warp: &mut Warp, inst: &Inst, mask: u32, active: u32, pc: u32) {
        let mut missing = 0;
        let program = self.program;
        let mut reads = program.reads(inst);
        if inst.guard.is_some() {
            missing |= mask & !warp.written[reads[0] as usize];
            reads = &reads[1..];
        }
        for read in reads {
            missing |= active & !warp.written[*read as usize];
        }
        for written in program.writes(inst) {
            warp.written[*written as usize] |= active;
        }
        if warp.products.watch() && active != 0 {
            self.watch_registers(warp, inst, pc);
        }
        if missing != 0 {
            let at = self.place(warp.index, missing.trailing_zeros() as usize, pc);
            self.find(Kind::UninitializedRegister, at, None, || "a register that nobody wrote".into());
            for read in program.reads(inst) {
                warp.written[*read as usize] |= missing;
            }
        }
    }

    /// Moves the results of an approximation by a few units in the last place.
    fn jitter(&mut self, warp: &mut Warp, inst: &Inst, active: u32) {
        for written in self.program.writes(inst) {
            let Some(row) = warp.registers.words.get_mut(*written as usize) else { continue };
            for lane in lanes(active) {
                let x = f32::from_bits(row[lane]);
                if x.is_normal() {
                    let by = (self.random.wrapping_add(u64::from(row[lane])) >> 7) as u32;
                    let width = 2 * u32::from(self.options.jitter) + 1;
                    row[lane] = row[lane].wrapping_add(by % width).wrapping_sub(self.options.jitter.into());
                }
            }
        }
        self.random_bits();
    }

    fn execute(&mut self, warp: &mut Warp, step: Step) -> Then {
        let Step { inst, pc, active, .. } = step;
        match &inst.action {
            Action::Branch(target) => {
                self.count(pc, inst, active, warp.live);
                self.branch(warp, step, *target)
            }
            Action::Switch(index, targets) => {
                self.count(pc, inst, active, warp.live);
                self.switch(warp, step, *warp.registers.get(*index), targets)
            }
            Action::Exit => {
                self.count(pc, inst, active, warp.live);
                self.exit(warp, step)
            }
            Action::Approximate { fast, exact } => {
                let compute = if self.options.mma == Mma::Fast { fast } else { exact };
                compute(&mut warp.registers, active);
                if self.options.jitter > 0 {
                    self.jitter(warp, inst, active);
                }
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::Trap => {
                if active == 0 {
                    return Then::Next;
                }
                let at = self.place(warp.index, active.trailing_zeros() as usize, pc);
                self.find(Kind::Trap, at, None, || "the kernel panicked or trapped".into());
                self.stopped = true;
                Then::Leave
            }
            Action::Special(register, special) => {
                self.special(warp, active, *register, *special);
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::ExplicitCluster(d) => {
                warp.registers.set_predicate(*d, active, if self.size.cluster.is_some() { ALL } else { 0 });
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::ActiveMask(d) => {
                warp.registers.set(*d, active, &[active; LANES]);
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::Fence => {
                self.fence(warp, active);
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::ProxyFence(passes) => {
                if *passes == Passes::Mbarriers && active != 0 {
                    warp.mbarriers_fenced = self.clocks.now(warp.index).clock;
                }
                self.clocks.fence(warp.index, active, *passes);
                self.count(pc, inst, active, warp.live);
                Then::Next
            }
            Action::Load(_)
            | Action::Store(_)
            | Action::Atomic(_)
            | Action::CpAsync(_)
            | Action::CommitGroup
            | Action::MapAddress { .. }
            | Action::BlockRank { .. }
            | Action::BulkLoad(_)
            | Action::BulkStore(_)
            | Action::BulkCommit
            | Action::BulkWait(_)
            | Action::AsyncStore(_)
            | Action::WaitGroup(_) => {
                self.count(pc, inst, active, warp.live);
                if active != 0 {
                    self.access(warp, step);
                }
                Then::Next
            }
            Action::Mbarrier(operation) => {
                if active == 0 {
                    self.count(pc, inst, active, warp.live);
                    return Then::Next;
                }
                self.mbarrier(warp, step, operation)
            }
            Action::Barrier(_)
            | Action::WarpBarrier(_)
            | Action::Shuffle(_)
            | Action::Vote(_)
            | Action::Reduce(_)
            | Action::Elect(_)
            | Action::ClusterBarrier { .. }
            | Action::MaxRegisters(_)
            | Action::LoadMatrix(_)
            | Action::StoreMatrix(_)
            | Action::Mma(_)
            | Action::Warpgroup(_) => self.collective(warp, step),
            Action::Compute(_) => Then::Next,
        }
    }

    fn branch(&mut self, warp: &mut Warp, step: Step, target: u32) -> Then {
        let Step { mask, active, pc, fragment, .. } = step;
        if active == 0 {
            return Then::Next;
        }
        if active == mask {
            return Then::Goto(target);
        }
        self.counters[pc as usize].divergent_branches += 1;
        warp.fragments[fragment].pc = pc + 1;
        warp.fragments[fragment].mask = mask & !active;
        warp.fragments.push(super::warp::Fragment { pc: target, mask: active, parked: false, polls: None });
        Then::Choose
    }

    fn switch(&mut self, warp: &mut Warp, step: Step, index: [u32; LANES], targets: &[u32]) -> Then {
        let Step { mask, active, pc, fragment, .. } = step;
        let mut left = active;
        let mut groups = Vec::new();
        while left != 0 {
            let first = index[left.trailing_zeros() as usize];
            let same = lanes(left).filter(|lane| index[*lane] == first).fold(0, |mask, lane| mask | 1u32 << lane);
            left &= !same;
            match targets.get(first as usize) {
                Some(target) => groups.push((*target, same)),
                None => {
                    let at = self.place(warp.index, same.trailing_zeros() as usize, pc);
                    let count = targets.len();
                    self.find(Kind::InvalidOperand, at, None, || format!("branch target {first} of {count}"));
                    self.stopped = true;
                    return Then::Leave;
                }
            }
        }
        if let [(target, lanes)] = groups[..]
            && lanes == mask
        {
            return Then::Goto(target);
        }
        self.counters[pc as usize].divergent_branches += 1;
        warp.fragments[fragment].pc = pc + 1;
        warp.fragments[fragment].mask = mask & !active;
        for (pc, mask) in groups {
            warp.fragments.push(super::warp::Fragment { pc, mask, parked: false, polls: None });
        }
        warp.fragments.retain(|fragment| fragment.mask != 0);
        Then::Choose
    }

    fn exit(&mut self, warp: &mut Warp, step: Step) -> Then {
        let Step { active, pc, fragment, .. } = step;
        if active == 0 {
            return Then::Next;
        }
        if let Some((pc, lane)) = warp.copies.unfinished(active) {
            let at = self.place(warp.index, lane, pc);
            self.find(Kind::AsyncUnfinished, at, None, || "the thread ends without a wait for this copy".into());
        }
        if let Some(issued) = warp.products.unfinished() {
            let at = self.place(warp.index, 0, issued.pc);
            self.find(Kind::AsyncUnfinished, at, None, || "the warp ends without a wait for this product".into());
        }
        self.end_stores(warp, active);
        warp.fragments[fragment].pc = pc + 1;
        warp.exit(fragment, active);
        Then::Choose
    }

    fn special(&mut self, warp: &mut Warp, active: u32, register: AnyReg, special: Special) {
        let (block, cluster, at) = (self.size.block, self.size.cluster(), self.blocks[self.rank].at);
        let thread = |lane: usize| 32 * warp.number as u32 + lane as u32;
        let value = |lane: usize| match special {
            Special::Tid(0) => thread(lane) % block[0],
            Special::Tid(1) => thread(lane) / block[0] % block[1],
            Special::Tid(_) => thread(lane) / block[0] / block[1],
            Special::Ntid(axis) => block[axis],
            Special::Ctaid(axis) => at[axis],
            Special::ClusterCtaid(axis) => at[axis] % cluster[axis],
            Special::ClusterId(axis) => self.cluster[axis],
            Special::ClusterNctaid(axis) => cluster[axis],
            Special::NclusterId(axis) => self.size.clusters()[axis],
            Special::ClusterRank => warp.rank as u32,
            Special::ClusterBlocks => self.blocks.len() as u32,
            Special::Nctaid(axis) => self.size.grid[axis],
            Special::LaneId => lane as u32,
            Special::WarpId => warp.number as u32,
            Special::NWarpId => block.iter().product::<u32>().div_ceil(32),
            Special::LaneMask(LaneMask::Eq) => 1 << lane,
            Special::LaneMask(LaneMask::Lt) => (1 << lane) - 1,
            Special::LaneMask(LaneMask::Le) => ALL >> (LANES - 1 - lane),
            Special::LaneMask(LaneMask::Ge) => ALL << lane,
            Special::LaneMask(LaneMask::Gt) => ALL << lane & !(1 << lane),
            Special::Clock => self.executed as u32,
            Special::DynamicShared => self.size.shared_bytes,
            Special::TotalShared => self.windows.bytes,
            // A cluster runs on as many multiprocessors as it has blocks.
            Special::SmId => warp.rank as u32,
            Special::Fixed(value) => value,
        };
        let row: [u32; LANES] = std::array::from_fn(value);
        match register {
            AnyReg::Word(word) => warp.registers.set(word, active, &row),
            AnyReg::Long(long) => warp.registers.set(long, active, &row.map(u64::from)),
        }
    }
}

/// An instruction that lanes are about to execute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'p> {
    pub inst: &'p Inst,
    pub pc: u32,
    /// Lanes that are here.
    pub mask: u32,
    /// Those of them for which the guard holds.
    pub active: u32,
    /// Who is missing will not come.
    pub forced: bool,
    /// Index of the fragment.
    pub fragment: usize,
}
