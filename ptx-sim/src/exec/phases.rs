//! What warps do with mbarriers: arrivals and waits.

use super::Machine;
use super::mbarriers::{Deferred, Known, MOST};
use super::step::{Step, Then};
use super::warp::Warp;
use crate::check::clock::Passes;
use crate::options::Delivery;
use crate::program::{Address, Awaited, MbarrierOp, Place, Releases, Scope};
use crate::registers::{LANES, Word, lanes};
use crate::report::{Kind, RawPlace, Space};

/// Bytes of an mbarrier.
const BYTES: u32 = 8;
/// Tests of mbarriers in a row that find nothing, before a block is given up as one that only waits.
const IDLE_TESTS: u32 = 100_000;

impl Machine<'_> {
    pub(super) fn mbarrier(&mut self, warp: &mut Warp, step: Step, operation: &MbarrierOp) -> Then {
        let Step { active, pc, .. } = step;
        match *operation {
            MbarrierOp::Init { address, count } => {
                self.for_lanes(warp, step, &address, |machine, warp, at, address| {
                    let count = warp.registers.get(count)[at.lane as usize];
                    machine.initialize(at, address, count);
                })
            }
            MbarrierOp::Invalidate { address } => self.for_lanes(warp, step, &address, |machine, _, at, address| {
                machine.invalidate(at, address);
            }),
            MbarrierOp::Expect { at: Place { address, space }, bytes } => {
                self.for_lanes(warp, step, &address, |machine, warp, at, address| {
                    let bytes = warp.registers.get(bytes)[at.lane as usize];
                    if let Some(index) = machine.live_mbarrier(at, (space, address)) {
                        machine.visit(at, index, machine.clocks.now(warp.index).clock);
                        machine.expect(at, index, bytes.into());
                    }
                })
            }
            MbarrierOp::Arrive { at: place, count, expect, state, releases } => {
                let mut states = [0; LANES];
                let mbarriers = self.live_mbarriers(warp, step, &place);
                let clock = self.clocks.now(warp.index).clock;
                let (known, scope) = match releases {
                    Releases::All(scope) => (self.known(warp.index, active, place.space == Space::Cluster), scope),
                    Releases::Fenced => {
                        let mut known = warp.fenced.clone();
                        known.clocks.add(&self.clocks.release(warp.index, active).weak());
                        (known, Scope::Cluster)
                    }
                };
                let mut weak = None;
                for (lane, index) in mbarriers {
                    let at = self.place(warp.index, lane, pc);
                    let remote = self.visit(at, index, clock);
                    let unheard = remote && scope == Scope::Block;
                    let known = if unheard { &*weak.get_or_insert_with(|| known.weak()) } else { &known };
                    let operand = |word: Option<Word>| word.map(|word| warp.registers.get(word)[lane]);
                    states[lane] = u64::from(self.mbarriers.get(index).phase);
                    if let Some(bytes) = operand(expect) {
                        self.expect(at, index, bytes.into());
                    }
                    self.arrive_at(at, index, operand(count).unwrap_or(1), known, remote);
                }
                if let Some(state) = state {
                    warp.registers.set(state, active, &states);
                }
            }
            MbarrierOp::Copies { address, counted } => self.arrive_behind_copies(warp, step, &address, counted),
            MbarrierOp::Wait { .. } => return self.wait(warp, step, operation),
        }
        self.count(pc, step.inst, active, warp.live);
        Then::Next
    }

    /// Does something for each lane, with the address it gives.
    fn for_lanes(
        &mut self,
        warp: &mut Warp,
        step: Step,
        address: &Address,
        mut each: impl FnMut(&mut Self, &Warp, RawPlace, u32),
    ) {
        let addresses = self.shared_addresses(&warp.registers, address);
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            each(self, warp, at, addresses[lane]);
        }
    }

    /// Whether an mbarrier is another block's; then it remembers the use.
    pub(super) fn visit(&mut self, at: RawPlace, index: usize, clock: u32) -> bool {
        let remote = self.mbarriers.rank(index, &self.windows) != Some(self.rank);
        if remote {
            self.mbarriers.get_mut(index).visit(at, clock);
        }
        remote
    }

    fn initialize(&mut self, at: RawPlace, address: u32, count: u32) {
        self.clocks.act(at.warp as usize, 1 << at.lane);
        let Some(offset) = self.shared_offset(at, (Space::Shared, address), BYTES, "mbarrier") else { return };
        if count == 0 || count > MOST {
            self.find(Kind::InvalidOperand, at, None, || format!("{count} arrivals, allowed: 1 to {MOST}"));
            return;
        }
        let Some(index) = self.mbarriers.place(offset, at, self.clocks.warps()) else {
            return self.give_up_mbarriers(at);
        };
        self.clocks.with_mbarriers(self.mbarriers.all().len());
        let clock = self.clocks.now(at.warp as usize).clock;
        if self.mbarriers.get(index).live {
            let with = Some(self.mbarriers.get(index).init.0);
            let memory = Some((Space::Shared, address.into(), BYTES));
            let message = || "an mbarrier is initialised that lives, mbarrier.inval belongs between".into();
            self.findings.add(Kind::Mbarrier, at, with, memory, message);
        } else {
            self.begin_mbarrier(at, offset);
        }
        self.mbarriers.get_mut(index).initialize(at, clock, count);
    }

    /// Ends a launch whose mbarriers, and the barrier of the cluster, are too many next to its warps.
    pub(super) fn give_up_mbarriers(&mut self, at: RawPlace) {
        self.stopped = true;
        self.find(Kind::InvalidOperand, at, None, || "more mbarriers than the simulator can follow".into());
    }

    fn invalidate(&mut self, at: RawPlace, address: u32) {
        self.clocks.act(at.warp as usize, 1 << at.lane);
        let Some(index) = self.live_mbarrier(at, (Space::Shared, address)) else { return };
        let mbarrier = self.mbarriers.get_mut(index);
        mbarrier.live = false;
        let (offset, open) = (mbarrier.offset, mbarrier.loads.len() + mbarrier.deferred.len());
        if open > 0 {
            self.find(Kind::Mbarrier, at, None, || "the mbarrier ends while copies are under way to it".into());
        }
        self.end_mbarrier(at, offset);
    }

    /// The mbarrier at an address, which must have been initialised before this access.
    pub(super) fn live_mbarrier(&mut self, at: RawPlace, (space, address): (Space, u32)) -> Option<usize> {
        let offset = self.shared_offset(at, (space, address), BYTES, "mbarrier")?;
        let memory = Some((space, u64::from(address), BYTES));
        let Some(index) = self.mbarriers.find(offset) else {
            self.find(Kind::Mbarrier, at, memory, || "not an mbarrier, or not initialised".into());
            return None;
        };
        let (init, clock) = self.mbarriers.get(index).init;
        let same_lane = (init.warp, init.lane) == (at.warp, at.lane);
        let known = same_lane || self.mbarriers.get(index).known_by.contains(&at.warp);
        let now = self.clocks.now(at.warp as usize);
        if self.options.checks && !known && !now.knows_lane(init.warp as usize, init.lane as usize, clock) {
            let same_warp = init.warp == at.warp;
            let kind = if same_warp { Kind::IntraWarpRace } else { Kind::SharedRace };
            let message = || "use of an mbarrier after its initialisation by another thread, no barrier between".into();
            self.findings.add(kind, at, Some(init), memory, message);
        }
        Some(index)
    }

    /// The mbarriers that the lanes name, looked at before the instruction does anything.
    fn live_mbarriers(&mut self, warp: &Warp, step: Step, place: &Place) -> Vec<(usize, usize)> {
        let addresses = self.shared_addresses(&warp.registers, &place.address);
        let live = |lane| {
            let at = self.place(warp.index, lane, step.pc);
            Some((lane, self.live_mbarrier(at, (place.space, addresses[lane]))?))
        };
        lanes(step.active).filter_map(live).collect()
    }

    /// The mbarrier that a bulk copy completes on: the asynchronous proxy must know it.
    pub(super) fn completing_mbarrier(&mut self, at: RawPlace, place: (Space, u32)) -> Option<usize> {
        let index = self.live_mbarrier(at, place)?;
        let (init, clock) = self.mbarriers.get(index).init;
        let same_lane = (init.warp, init.lane) == (at.warp, at.lane);
        let now = self.clocks.now(at.warp as usize);
        let own = same_lane || self.mbarriers.get(index).known_by.contains(&at.warp);
        if self.options.checks && !now.has_passed(Passes::Mbarriers, (init.warp as usize, init.lane, clock), own) {
            let message =
                || "a bulk copy completes on an mbarrier that was initialised without fence.mbarrier_init".into();
            self.findings.add(Kind::ProxyFence, at, Some(init), Some((place.0, place.1.into(), BYTES)), message);
        }
        Some(index)
    }

    /// The phase waits for so many bytes more; less than none have come.
    pub(super) fn expect(&mut self, at: RawPlace, index: usize, bytes: i64) {
        let mbarrier = self.mbarriers.get_mut(index);
        mbarrier.tx += bytes;
        if mbarrier.tx.unsigned_abs() > MOST.into() {
            let tx = mbarrier.tx;
            self.find(Kind::Mbarrier, at, None, || format!("a tx-count of {tx}, allowed: {MOST} bytes either way"));
        }
    }

    pub(super) fn arrive_at(&mut self, at: RawPlace, index: usize, count: u32, known: &Known, remote: bool) {
        let mbarrier = self.mbarriers.get_mut(index);
        let (pending, expected) = (mbarrier.pending, mbarrier.expected);
        if count == 0 || count > MOST {
            self.find(Kind::InvalidOperand, at, None, || format!("{count} arrivals, allowed: 1 to {MOST}"));
        } else if !mbarrier.arrive(count, known, remote) {
            self.find(Kind::Mbarrier, at, None, || {
                format!("{count} arrivals where the phase waits for {pending} of {expected}")
            });
        }
        self.settle(index);
    }

    /// `cp.async.mbarrier.arrive`: arrives when the copies of the lane have.
    fn arrive_behind_copies(&mut self, warp: &mut Warp, step: Step, address: &Address, counted: bool) {
        let mbarriers = self.live_mbarriers(warp, step, &Place { address: *address, space: Space::Shared });
        let clock = self.clocks.now(warp.index).clock;
        let known = self.known(warp.index, step.active, false);
        for (lane, index) in mbarriers {
            let at = self.place(warp.index, lane, step.pc);
            let copies = warp.copies.wait_all(1 << lane);
            let mbarrier = self.mbarriers.get_mut(index);
            // Unless the mbarrier counts it already.
            mbarrier.pending += u32::from(!counted);
            if mbarrier.pending <= mbarrier.deferred_arrivals() {
                self.find(Kind::Mbarrier, at, None, || "an arrival that the phase does not wait for".into());
                continue;
            }
            mbarrier.deferred.push(Deferred { warp: warp.index, arrivals: 1, copies, known: known.clone(), clock });
            if self.options.delivery == Delivery::Immediate {
                mbarrier.wanted = true;
            }
            self.settle(index);
        }
    }

    fn wait(&mut self, warp: &mut Warp, step: Step, operation: &MbarrierOp) -> Then {
        let MbarrierOp::Wait { done, address, awaited, blocks, acquires } = *operation else { return Then::Next };
        let Step { inst, pc, active, fragment, .. } = step;
        let addresses = self.shared_addresses(&warp.registers, &address);
        let (mut complete, mut waits_for, mut acquired) = (0, None, None);
        for lane in lanes(active) {
            let at = self.place(warp.index, lane, pc);
            let index = self.live_mbarrier(at, (Space::Shared, addresses[lane]));
            let is_complete = match (index, awaited) {
                (None, _) => true,
                (Some(index), Awaited::Parity(parity)) => {
                    let parity = warp.registers.get(parity)[lane];
                    if parity > 1 {
                        self.find(Kind::InvalidOperand, at, None, || {
                            format!("phase parity {parity}, allowed: 0 and 1")
                        });
                    }
                    self.is_over(index, |phase| phase & 1 != parity & 1)
                }
                (Some(index), Awaited::State(state)) => {
                    let state = warp.registers.get(state)[lane];
                    let phase = u64::from(self.mbarriers.get(index).phase);
                    if state != phase && state.wrapping_add(1) != phase {
                        self.find(Kind::Mbarrier, at, None, || {
                            format!("a wait for phase {state}, the running one is {phase}")
                        });
                    }
                    self.is_over(index, |phase| u64::from(phase) != state)
                }
            };
            complete |= u32::from(is_complete) << lane;
            match index {
                Some(index) if is_complete && acquired != Some(index) => {
                    self.acquire(warp.index, index, acquires);
                    acquired = Some(index);
                }
                Some(index) if !is_complete => waits_for = Some(index),
                _ => {}
            }
        }
        if let (Some(index), 0, true) = (waits_for, complete, blocks) {
            return self.poll(warp, step, index);
        }
        self.count(pc, inst, active, warp.live);
        warp.registers.set_predicate(done, active, complete);
        let Some(index) = waits_for else { return Then::Next };
        // Others have to do something first.
        self.idle_tests += 1;
        if self.idle_tests > IDLE_TESTS {
            let at = self.place(warp.index, active.trailing_zeros() as usize, pc);
            let state = self.describe(index);
            self.find(Kind::Deadlock, at, None, || {
                format!("{IDLE_TESTS} tests in a row find no phase complete: {state}")
            });
            self.stopped = true;
        }
        warp.fragments[fragment].pc = pc + 1;
        self.turn_over = true;
        Then::Leave
    }

    /// Whether the phase that is waited for is over, perhaps because of the wait.
    pub(super) fn is_over(&mut self, index: usize, test: impl Fn(u32) -> bool) -> bool {
        if test(self.mbarriers.get(index).phase) {
            return true;
        }
        self.mbarriers.get_mut(index).wanted = true;
        self.settle(index);
        test(self.mbarriers.get(index).phase)
    }

    /// A warp learns what those knew who arrived at the last phase, and what was copied for it: all of that where its wait
    /// orders memory for them, which those of other blocks need it to do for the whole cluster, and which asynchronous
    /// operations are done where not.
    pub(super) fn acquire(&mut self, warp: usize, index: usize, scope: Option<Scope>) {
        let mbarrier = self.mbarriers.get(index);
        let [own, others] = &mbarrier.published;
        if scope.is_some() {
            self.clocks.acquire_phase(warp, index, mbarrier.clock);
            self.clocks.acquire(warp, &own.clocks);
        } else {
            self.clocks.acquire_phase_weakly(warp, index, mbarrier.clock);
            self.clocks.acquire_weakly(warp, &own.clocks);
        }
        if self.blocks.len() == 1 {
            return;
        }
        if scope == Some(Scope::Cluster) {
            self.clocks.acquire(warp, &others.clocks);
            let number = self.blocks[self.rank].number;
            mbarrier.published.iter().for_each(|known| self.global.learn(number, &known.blocks));
        } else {
            self.clocks.acquire_weakly(warp, &others.clocks);
        }
    }

    /// An mbarrier and its state, in words.
    pub(super) fn describe(&self, index: usize) -> String {
        let mbarrier = self.mbarriers.get(index);
        let address = self.mbarriers.rank(index, &self.windows).map_or(0, |_| self.windows.address(mbarrier.offset));
        mbarrier.describe(address)
    }

    /// The lanes wait here until a phase of any mbarrier is complete.
    pub(super) fn poll(&mut self, warp: &mut Warp, step: Step, index: usize) -> Then {
        if warp.fragments.iter().all(|fragment| fragment.polls.is_none()) {
            warp.polled = self.mbarriers.completed;
        }
        let fragment = &mut warp.fragments[step.fragment];
        (fragment.pc, fragment.polls) = (step.pc, Some(index));
        Then::Choose
    }
}
