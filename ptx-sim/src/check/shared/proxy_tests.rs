use super::*;
use crate::check::clock::{Clocks, Passes};

const WARPS: usize = 3;
/// The mbarriers' numbers as agents.
const FULL: u16 = WARPS as u16;

/// A block, whose instructions have the pc of their place in the test: 1, 2, 3, ...
struct Block {
    clocks: Clocks,
    shadow: Shadow,
    pc: u32,
}

fn block() -> Block {
    let mut clocks = Clocks::new(WARPS);
    clocks.with_mbarriers(2);
    Block { clocks, shadow: Shadow::new(1024, 4, WARPS, 1), pc: 0 }
}

impl Block {
    fn at(&mut self, warp: u16, lane: u8) -> Site {
        self.pc += 1;
        Site { warp, lane, whole: false, pc: self.pc }
    }

    fn write(&mut self, warp: u16, lane: u8, offset: u32) -> Option<Fault> {
        let at = self.at(warp, lane);
        self.shadow.write(at, &self.clocks.now(warp.into()), offset, 4, true)
    }

    fn read(&mut self, warp: u16, offset: u32) -> Option<Fault> {
        let at = self.at(warp, 0);
        self.shadow.read(at, &self.clocks.now(warp.into()), offset, 4)
    }

    /// A bulk copy of 64 bytes by lane 0.
    fn load(&mut self, warp: u16, offset: u32, by: Completion) -> (Site, Option<Fault>) {
        let at = self.at(warp, 0);
        (at, self.shadow.begin_async_write(at, &self.clocks.now(warp.into()), by, (offset, 64)))
    }

    /// A bulk store of 64 bytes by lane 0.
    fn store(&mut self, warp: u16, offset: u32) -> (Site, Option<Fault>) {
        let at = self.at(warp, 0);
        (at, self.shadow.begin_async_read(at, &self.clocks.now(warp.into()), offset, 64))
    }

    fn fence(&mut self, warp: usize, lanes: u32) {
        self.clocks.fence(warp, lanes, Passes::Writes);
    }

    fn barrier(&mut self) {
        self.clocks.join(0, u64::MAX);
    }
}

/// All 64 bytes from 0 on written by warp 0, 4 bytes a lane, with a fence of these lanes.
fn written(fenced: u32) -> Block {
    let mut block = block();
    for lane in 0..16 {
        assert_eq!(block.write(0, lane, 4 * u32::from(lane)), None);
    }
    block.fence(0, fenced);
    block
}

fn race(warp: u16, pc: u32, order: Order) -> Option<Fault> {
    Some(Fault::Race { with: Site { warp, lane: 0, whole: false, pc }, same_warp: false, order })
}

fn by(phase: u32) -> Completion {
    Completion { agent: FULL, phase, is_store: false }
}

#[test]
fn a_store_that_was_waited_for_is_there_for_threads_and_never_for_the_asynchronous_proxy() {
    let mut block = block();
    let (at, by) = (block.at(0, 0), Completion { is_store: true, ..by(1) });
    for offset in [0, 16] {
        let now = block.clocks.now(0);
        assert_eq!(block.shadow.begin_async_write(at, &now, by, (offset, 16)), None);
        block.shadow.end_async_write(at, by, (offset, 16));
    }
    let with = Site { warp: FULL, ..at };
    assert_eq!(block.read(1, 4), Some(Fault::Unwaited { with, order: Order::ReadAfterWrite }));
    block.clocks.acquire_phase(1, 0, 1);
    assert_eq!(block.read(1, 4), None);
    block.fence(1, u32::MAX);
    let (reader, now) = (block.at(1, 0), block.clocks.now(1));
    let unfenced = Fault::Unfenced { with };
    assert_eq!(block.shadow.begin_async_read(reader, &now, 0, 32), Some(unfenced));
    assert_eq!(block.shadow.check_operands(reader, &now, &[0, 16]), Some((unfenced, 0)));
}

#[test]
fn a_store_of_a_few_bytes_leaves_their_neighbours_alone() {
    let mut block = block();
    let (at, by) = (block.at(0, 0), Completion { is_store: true, ..by(1) });
    assert_eq!(block.write(1, 0, 0), None);
    let now = block.clocks.now(0);
    assert_eq!(block.shadow.begin_async_write(at, &now, by, (4, 4)), None);
    assert_eq!(block.read(1, 0), None);
    assert_eq!(block.read(1, 4), Some(Fault::InFlight { with: Site { warp: FULL, ..at } }));
    assert_eq!(block.read(1, 8), Some(Fault::Uninitialized));
}

#[test]
fn a_store_needs_a_fence_of_every_lane_that_wrote_and_a_barrier() {
    let mut fenced = written(u32::MAX);
    fenced.barrier();
    assert_eq!(fenced.store(1, 0).1, None);
    let mut late = written(u32::MAX);
    assert_eq!(late.store(1, 0).1, race(0, 1, Order::ReadAfterWrite));
    let mut partly = written(!(1 << 5));
    partly.barrier();
    assert_eq!(partly.store(1, 0).1, Some(Fault::Unfenced { with: Site { warp: 0, lane: 5, whole: false, pc: 6 } }));
}

#[test]
fn a_fence_before_the_write_is_none() {
    let mut block = written(u32::MAX);
    assert_eq!(block.write(0, 3, 12), None);
    block.barrier();
    assert_eq!(block.store(1, 0).1, Some(Fault::Unfenced { with: Site { warp: 0, lane: 3, whole: false, pc: 17 } }));
}

#[test]
fn a_fence_behind_the_barrier_is_none() {
    let mut block = written(0);
    block.barrier();
    block.fence(0, u32::MAX);
    assert!(matches!(block.store(1, 0).1, Some(Fault::Unfenced { .. })));
}

#[test]
fn a_lane_needs_a_fence_but_no_barrier_for_what_it_wrote_itself() {
    let mut block = block();
    for offset in (0..64).step_by(4) {
        assert_eq!(block.write(0, 0, offset), None);
    }
    assert!(matches!(block.store(0, 0).1, Some(Fault::Unfenced { .. })));
    block.fence(0, 1);
    assert_eq!(block.store(0, 0).1, None);
}

#[test]
fn a_store_reads_until_it_is_waited_for() {
    let mut block = written(u32::MAX);
    block.barrier();
    let (first, fault) = block.store(1, 0);
    assert_eq!(fault, None);
    let (second, _) = block.store(1, 0);
    let now = |block: &mut Block, at| {
        let now = block.clocks.now(1);
        block.shadow.end_async_read(at, &now, 0, 64);
    };
    now(&mut block, first);
    block.barrier();
    assert_eq!(block.write(0, 0, 0), Some(Fault::StillRead { with: second }));
    now(&mut block, second);
    assert_eq!(block.write(0, 0, 4), race(1, second.pc, Order::WriteAfterRead));
    block.barrier();
    assert_eq!(block.write(0, 0, 8), None);
}

#[test]
fn a_load_is_known_to_those_who_waited_for_its_phase() {
    let mut block = block();
    let (at, fault) = block.load(0, 0, by(1));
    assert_eq!(fault, None);
    let with = Site { warp: FULL, ..at };
    assert_eq!(block.read(1, 0), Some(Fault::InFlight { with }));
    block.shadow.end_async_write(at, by(1), (0, 64));
    assert_eq!(block.read(0, 16), Some(Fault::Unwaited { with, order: Order::ReadAfterWrite }));
    block.clocks.acquire_phase(1, 1, 1);
    assert!(block.read(1, 32).is_some(), "another mbarrier");
    block.clocks.acquire_phase(1, 0, 1);
    assert_eq!(block.read(1, 48), None);
    assert_eq!(block.store(1, 0).1, None, "no fence between the proxy and itself");
}

#[test]
fn a_load_waits_for_those_who_read() {
    let mut block = block();
    let (at, _) = block.load(0, 0, by(1));
    block.shadow.end_async_write(at, by(1), (0, 64));
    block.clocks.acquire_phase(1, 0, 1);
    assert_eq!(block.read(1, 0), None);
    // Warp 0 does not even know that the first load has ended.
    let (_, fault) = block.load(0, 0, by(2));
    assert!(matches!(fault, Some(Fault::Unwaited { order: Order::WriteAfterWrite, .. })));
    let released = block.clocks.release(1, u32::MAX);
    block.clocks.acquire(0, &released);
    assert_eq!(block.load(0, 64, by(2)).1, None);
}

#[test]
fn a_load_over_a_release_that_came_too_early_is_a_race() {
    let mut block = block();
    let (at, _) = block.load(0, 0, by(1));
    block.shadow.end_async_write(at, by(1), (0, 64));
    block.clocks.acquire_phase(1, 0, 1);
    let early = block.clocks.release(1, u32::MAX);
    assert_eq!(block.read(1, 0), None);
    block.clocks.acquire(0, &early);
    assert_eq!(block.load(0, 0, by(2)).1, race(1, 2, Order::WriteAfterRead));
}

/// A tile that was loaded, and of which warp 1 has waited for the load and for a store from there.
fn used() -> Block {
    let mut block = block();
    let (at, _) = block.load(0, 0, by(1));
    block.shadow.end_async_write(at, by(1), (0, 64));
    block.clocks.acquire_phase(1, 0, 1);
    let (at, fault) = block.store(1, 0);
    assert_eq!(fault, None);
    block.shadow.end_async_read(at, &block.clocks.now(1), 0, 64);
    block
}

#[test]
fn a_load_may_follow_what_is_known_to_be_done_and_nothing_else_may() {
    let known = || {
        let mut block = used();
        let released = block.clocks.release(1, u32::MAX).weak();
        block.clocks.acquire(0, &released);
        block
    };
    assert_eq!(known().load(0, 0, by(2)).1, None);
    assert!(known().write(0, 0, 0).is_some() && known().read(0, 0).is_some() && known().store(0, 0).1.is_some());
    // Without the message, and for a warp that heard nothing.
    assert!(used().load(0, 0, by(2)).1.is_some() && known().load(2, 0, by(2)).1.is_some());
}

#[test]
fn a_load_may_not_follow_a_read_by_a_lane_that_is_known_to_be_done() {
    let known = |before: fn(&mut Block), after: fn(&mut Block)| {
        let mut block = used();
        before(&mut block);
        let released = block.clocks.release(1, u32::MAX);
        after(&mut block);
        block.clocks.acquire_weakly(0, &released);
        block.load(0, 0, by(2)).1
    };
    let read = |block: &mut Block| assert_eq!(block.read(1, 0), None);
    assert_eq!(known(read, |_| {}), race(1, 3, Order::WriteAfterRead));
    // Nor a store that was waited for behind the message, or was not.
    let store = |block: &mut Block| assert_eq!(block.store(1, 0).1, None);
    assert!(matches!(known(store, |_| {}), Some(Fault::StillRead { .. })));
    let wait = |block: &mut Block| {
        let at = Site { warp: 1, lane: 0, whole: false, pc: block.pc };
        block.shadow.end_async_read(at, &block.clocks.now(1), 0, 64);
    };
    assert_eq!(known(store, wait), race(1, 3, Order::WriteAfterRead));
    assert_eq!(known(|_| {}, |_| {}), None);
}

#[test]
fn a_load_may_follow_a_fenced_write_of_its_own_block_that_is_known_to_be_done() {
    let loaded = |fenced, offset: u32, hears: bool| {
        // Warps 0 to 2 are of the first block.
        let mut block = Block { shadow: Shadow::new(1024, 4, 2 * WARPS, 2), ..block() };
        block.clocks = Clocks::new(2 * WARPS);
        block.clocks.with_mbarriers(2);
        for lane in 0..16 {
            assert_eq!(block.write(0, lane, offset + 4 * u32::from(lane)), None);
        }
        block.fence(0, fenced);
        if hears {
            let released = block.clocks.release(0, u32::MAX).weak();
            block.clocks.acquire(3, &released);
        }
        let by = Completion { agent: 2 * FULL, phase: 1, is_store: false };
        block.load(3, offset, by).1
    };
    assert_eq!(loaded(0xffff, 0, true), None);
    // Without the message, without the fence of a lane, and where the bytes are another block's.
    let race = race(0, 1, Order::WriteAfterWrite);
    assert_eq!((loaded(0xffff, 0, false), loaded(0xfffe, 0, true), loaded(0xffff, 512, true)), (race, race, race));
}

#[test]
fn a_load_over_what_lanes_wrote_needs_their_fence() {
    let mut bare = written(0);
    bare.barrier();
    assert!(matches!(bare.load(1, 0, by(1)).1, Some(Fault::Unfenced { .. })));
    let mut fenced = written(u32::MAX);
    fenced.barrier();
    assert_eq!(fenced.load(1, 0, by(1)).1, None);
}

#[test]
fn an_mbarrier_is_no_memory_while_it_lives() {
    let mut block = block();
    let at = block.at(0, 0);
    let now = block.clocks.now(0);
    assert_eq!(block.shadow.begin_mbarrier(at, &now, 8), None);
    assert_eq!(block.shadow.begin_mbarrier(at, &now, 8), Some(Fault::Mbarrier { with: at }));
    block.barrier();
    assert_eq!(block.write(1, 0, 12), Some(Fault::Mbarrier { with: at }));
    block.shadow.begin_mbarrier(at, &block.clocks.now(0), 8);
    block.shadow.end_mbarrier(at, &block.clocks.now(0), 8);
    block.barrier();
    assert_eq!(block.write(1, 0, 8), None);
    assert_eq!(block.write(1, 0, 16), None);
}

#[test]
fn the_next_block_knows_nothing_of_readers() {
    let mut block = written(u32::MAX);
    block.barrier();
    assert_eq!(block.store(1, 0).1, None);
    block.shadow.clear();
    block.clocks.reset();
    assert_eq!(block.write(2, 0, 0), None);
}
