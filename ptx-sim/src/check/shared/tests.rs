use super::*;
use crate::check::clock::Clocks;

const WARPS: usize = 4;

/// A block, whose instructions have the pc of their place in the test: 1, 2, 3, ...
struct Block {
    clocks: Clocks,
    shadow: Shadow,
    pc: u32,
}

fn block(granule: u32) -> Block {
    Block { clocks: Clocks::new(WARPS), shadow: Shadow::new(1024, granule, WARPS, 1), pc: 0 }
}

/// A block of which all memory is written and known to all.
fn written(granule: u32) -> Block {
    let mut block = block(granule);
    for offset in (0..1024).step_by(16) {
        assert_eq!(block.write(0, 0, offset, 16), None);
    }
    block.barrier();
    block.pc = 0;
    block
}

impl Block {
    fn at(&mut self, warp: u16, lane: u8) -> Site {
        self.pc += 1;
        Site { warp, lane, whole: false, pc: self.pc }
    }

    fn read(&mut self, warp: u16, lane: u8, offset: u32, len: u32) -> Option<Fault> {
        let at = self.at(warp, lane);
        self.shadow.read(at, &self.clocks.now(warp.into()), offset, len)
    }

    fn write(&mut self, warp: u16, lane: u8, offset: u32, len: u32) -> Option<Fault> {
        let at = self.at(warp, lane);
        self.shadow.write(at, &self.clocks.now(warp.into()), offset, len, true)
    }

    fn atomic(&mut self, warp: u16, lane: u8, offset: u32) -> Option<Fault> {
        let at = self.at(warp, lane);
        self.shadow.atomic(at, &self.clocks.now(warp.into()), offset, 4)
    }

    fn begin(&mut self, warp: u16, lane: u8, offset: u32, len: u32) -> (Site, Option<Fault>) {
        let at = self.at(warp, lane);
        (at, self.shadow.begin_async(at, &self.clocks.now(warp.into()), offset, len))
    }

    fn end(&mut self, at: Site, offset: u32, len: u32) {
        self.shadow.end_async(at, &self.clocks.now(at.warp.into()), offset, len);
    }

    fn barrier(&mut self) {
        self.clocks.join(0, u64::MAX);
    }
}

fn race(warp: u16, lane: u8, pc: u32, order: Order) -> Option<Fault> {
    Some(Fault::Race { with: Site { warp, lane, whole: false, pc }, same_warp: false, order })
}

fn warp_race(warp: u16, lane: u8, pc: u32, order: Order) -> Option<Fault> {
    Some(Fault::Race { with: Site { warp, lane, whole: false, pc }, same_warp: true, order })
}

#[test]
fn a_read_of_what_another_warp_wrote_needs_a_barrier() {
    let mut block = block(4);
    assert_eq!(block.write(0, 3, 0, 16), None);
    assert_eq!(block.read(1, 5, 0, 16), race(0, 3, 1, Order::ReadAfterWrite));
    block.barrier();
    assert_eq!(block.read(1, 5, 0, 16), None);
}

#[test]
fn a_write_of_what_another_warp_wrote_needs_a_barrier() {
    let mut block = block(4);
    assert_eq!(block.write(0, 3, 0, 4), None);
    assert_eq!(block.write(1, 3, 0, 4), race(0, 3, 1, Order::WriteAfterWrite));
    block.barrier();
    assert_eq!(block.write(2, 0, 0, 4), None);
}

#[test]
fn a_write_of_what_another_warp_read_needs_a_barrier() {
    let mut block = written(4);
    assert_eq!(block.read(1, 7, 32, 16), None);
    assert_eq!(block.write(0, 7, 32, 16), race(1, 7, 1, Order::WriteAfterRead));
    block.barrier();
    assert_eq!(block.write(0, 7, 32, 16), None);
}

#[test]
fn every_warp_that_read_is_remembered() {
    for straggler in 1..4 {
        let mut block = written(4);
        for reader in 1..4 {
            assert_eq!(block.read(reader, 0, 0, 16), None);
        }
        // All but one of the readers meet the writer.
        block.clocks.join(0, 0b1111 & !(1 << straggler));
        let pc = u32::from(straggler);
        assert_eq!(block.write(0, 0, 4, 4), race(straggler, 0, pc, Order::WriteAfterRead));
    }
}

#[test]
fn a_barrier_of_other_warps_orders_nothing() {
    let mut block = block(4);
    assert_eq!(block.write(0, 0, 0, 4), None);
    block.clocks.join(0, 0b1100);
    assert!(block.read(2, 0, 0, 4).is_some());
}

#[test]
fn an_arrival_that_was_waited_for_orders() {
    let mut block = block(4);
    assert_eq!(block.write(0, 0, 0, 16), None);
    let full = block.clocks.release(0, u32::MAX);
    assert_eq!(block.write(0, 0, 16, 16), None);
    block.clocks.acquire(2, &full);
    assert_eq!(block.read(2, 9, 0, 16), None);
    assert_eq!(block.read(2, 9, 16, 16), race(0, 0, 2, Order::ReadAfterWrite));
}

#[test]
fn a_lane_is_in_order_with_itself() {
    let mut block = block(4);
    assert_eq!(block.write(0, 3, 0, 4), None);
    assert_eq!(block.read(0, 3, 0, 4), None);
    assert_eq!(block.write(0, 3, 0, 4), None);
}

#[test]
fn lanes_of_a_warp_need_a_warp_barrier() {
    let mut block = block(4);
    assert_eq!(block.write(0, 3, 0, 4), None);
    assert_eq!(block.read(0, 4, 0, 4), warp_race(0, 3, 1, Order::ReadAfterWrite));
    assert_eq!(block.write(0, 5, 0, 4), warp_race(0, 3, 1, Order::WriteAfterWrite));
    block.clocks.tick(0);
    assert_eq!(block.read(0, 4, 0, 4), None);
    assert_eq!(block.write(0, 5, 0, 4), warp_race(0, 4, 4, Order::WriteAfterRead));
    block.clocks.tick(0);
    assert_eq!(block.write(0, 6, 0, 4), None);
}

#[test]
fn a_warp_barrier_does_not_reach_other_warps() {
    let mut block = block(4);
    assert_eq!(block.write(0, 3, 0, 4), None);
    block.clocks.tick(0);
    block.clocks.tick(1);
    assert!(block.read(1, 3, 0, 4).is_some());
}

#[test]
fn a_lane_that_writes_what_several_read_is_found() {
    let mut block = written(4);
    assert_eq!(block.read(0, 3, 0, 4), None);
    assert_eq!(block.read(0, 4, 0, 4), None);
    assert_eq!(block.write(0, 4, 0, 4), warp_race(0, 4, 2, Order::WriteAfterRead));
}

#[test]
fn lanes_may_read_together() {
    let mut block = written(4);
    for lane in 0..32 {
        assert_eq!(block.read(1, lane, 0, 16), None);
        assert_eq!(block.read(2, lane, 4 * u32::from(lane % 4), 4), None);
    }
}

#[test]
fn lanes_of_one_instruction_may_write_the_same_value() {
    let mut block = block(4);
    let now = block.clocks.now(0);
    for lane in 0..32 {
        let at = Site { warp: 0, lane, whole: false, pc: 1 };
        assert_eq!(block.shadow.write(at, &now, 0, 4, lane == 0), None);
    }
    // No lane knows who was the last of them.
    let at = Site { warp: 0, lane: 31, whole: false, pc: 2 };
    assert_eq!(block.shadow.read(at, &now, 0, 4), warp_race(0, 31, 1, Order::ReadAfterWrite));
    block.clocks.tick(0);
    assert_eq!(block.shadow.read(at, &block.clocks.now(0), 0, 4), None);
}

#[test]
fn lanes_of_one_instruction_may_not_write_different_values() {
    let mut block = block(4);
    let now = block.clocks.now(0);
    assert_eq!(block.shadow.write(Site { warp: 0, lane: 0, whole: false, pc: 1 }, &now, 0, 4, true), None);
    let fault = block.shadow.write(Site { warp: 0, lane: 1, whole: false, pc: 1 }, &now, 0, 4, true);
    assert_eq!(fault, warp_race(0, 0, 1, Order::WriteAfterWrite));
}

#[test]
fn the_same_value_from_another_instruction_is_a_race() {
    let mut block = block(4);
    let now = block.clocks.now(0);
    assert_eq!(block.shadow.write(Site { warp: 0, lane: 0, whole: false, pc: 1 }, &now, 0, 4, true), None);
    let fault = block.shadow.write(Site { warp: 0, lane: 1, whole: false, pc: 2 }, &now, 0, 4, false);
    assert_eq!(fault, warp_race(0, 0, 1, Order::WriteAfterWrite));
}

#[test]
fn a_read_of_what_nobody_wrote_is_found_once() {
    let mut block = block(4);
    assert_eq!(block.read(0, 0, 64, 4), Some(Fault::Uninitialized));
    assert_eq!(block.read(0, 0, 64, 4), None);
    assert_eq!(block.read(0, 0, 68, 4), Some(Fault::Uninitialized));
    assert_eq!(block.atomic(0, 0, 72), Some(Fault::Uninitialized));
}

#[test]
fn a_read_that_is_written_in_part_is_found() {
    let mut block = block(4);
    assert_eq!(block.write(0, 0, 0, 8), None);
    assert_eq!(block.read(0, 0, 0, 8), None);
    assert_eq!(block.read(0, 0, 0, 16), Some(Fault::Uninitialized));
}

#[test]
fn neighbours_do_not_collide() {
    for granule in [1, 2, 4] {
        let mut block = block(granule);
        for warp in 0..4 {
            assert_eq!(block.write(warp, 0, u32::from(warp) * granule, granule), None);
            assert_eq!(block.read(warp, 0, u32::from(warp) * granule, granule), None);
        }
    }
}

#[test]
fn wide_accesses_meet_narrow_ones() {
    for granule in [1, 2, 4] {
        let mut block = written(granule);
        assert_eq!(block.read(1, 0, 16 - granule, granule), None);
        assert_eq!(block.write(0, 0, 0, 16), race(1, 0, 1, Order::WriteAfterRead));
        assert_eq!(block.read(2, 0, 8, granule), race(0, 0, 2, Order::ReadAfterWrite));
        block.barrier();
        assert_eq!(block.write(3, 0, 8, granule), None);
        assert_eq!(block.read(1, 0, 0, 8), None);
        assert_eq!(block.read(1, 0, 0, 16), race(3, 0, 4, Order::ReadAfterWrite));
        assert_eq!(block.write(0, 0, 0, granule), race(1, 0, 6, Order::WriteAfterRead));
    }
}

#[test]
fn atomics_need_no_order_among_themselves() {
    let mut block = written(4);
    for warp in 0..4 {
        assert_eq!(block.atomic(warp, warp as u8, 0), None);
        assert_eq!(block.atomic(warp, warp as u8 + 1, 0), None);
    }
}

#[test]
fn atomics_race_with_plain_accesses() {
    let mut block = written(4);
    assert_eq!(block.atomic(0, 0, 0), None);
    assert_eq!(block.atomic(1, 0, 0), None);
    block.clocks.join(0, 0b1101);
    // The atomic of warp 1 is not hidden by others.
    assert_eq!(block.read(2, 0, 0, 4), race(1, 0, 2, Order::ReadAfterWrite));
    assert_eq!(block.write(3, 0, 0, 4), race(2, 0, 3, Order::WriteAfterRead));
    assert_eq!(block.atomic(0, 0, 0), race(3, 0, 4, Order::WriteAfterWrite));
    block.barrier();
    assert_eq!(block.read(3, 0, 4, 4), None);
    assert_eq!(block.atomic(0, 0, 4), race(3, 0, 6, Order::WriteAfterRead));
}

#[test]
fn an_atomic_does_not_hide_the_plain_write_before() {
    let mut block = block(4);
    assert_eq!(block.write(0, 0, 0, 4), None);
    block.clocks.join(0, 0b0011);
    assert_eq!(block.atomic(1, 0, 0), None);
    assert_eq!(block.atomic(2, 0, 0), race(0, 0, 1, Order::WriteAfterWrite));
}

#[test]
fn a_flag_is_stored_and_then_read_by_all() {
    let mut block = block(4);
    let at = block.at(0, 0);
    assert_eq!(block.shadow.atomic_write(at, &block.clocks.now(0), 4, 4), None);
    assert_eq!(block.atomic(1, 0, 4), None);
    assert_eq!(block.atomic(1, 0, 0), Some(Fault::Uninitialized));
    assert_eq!(block.read(1, 0, 4, 4), race(0, 0, 1, Order::ReadAfterWrite));
    assert_eq!(block.shadow.atomic_write(at, &block.clocks.now(0), 4, 4), race(1, 0, 4, Order::WriteAfterRead));
    block.barrier();
    assert_eq!(block.read(1, 0, 4, 4), None);
}

#[test]
fn a_copy_in_flight_may_not_be_touched() {
    let mut block = written(4);
    let (copy, fault) = block.begin(0, 1, 0, 16);
    assert_eq!(fault, None);
    let in_flight = Some(Fault::InFlight { with: copy });
    assert_eq!(block.read(0, 1, 0, 4), in_flight);
    assert_eq!(block.read(1, 0, 12, 4), in_flight);
    block.barrier();
    assert_eq!(block.read(1, 0, 0, 16), in_flight);
    assert_eq!(block.atomic(1, 0, 8), in_flight);
    assert_eq!(block.begin(1, 0, 0, 8).1, in_flight);
    assert_eq!(block.write(2, 0, 12, 4), in_flight);
}

#[test]
fn a_copy_belongs_to_its_lane_after_the_wait_and_to_all_after_a_barrier() {
    let mut block = block(4);
    let (copy, _) = block.begin(0, 1, 0, 16);
    block.end(copy, 0, 16);
    assert_eq!(block.read(0, 1, 0, 16), None);
    assert_eq!(block.read(0, 2, 0, 16), warp_race(0, 1, copy.pc, Order::ReadAfterWrite));
    assert_eq!(block.read(1, 1, 0, 16), race(0, 1, copy.pc, Order::ReadAfterWrite));
    block.barrier();
    assert_eq!(block.read(0, 2, 0, 16), None);
    assert_eq!(block.read(1, 1, 0, 16), None);
}

#[test]
fn a_barrier_before_the_wait_does_not_help() {
    let mut block = block(4);
    let (copy, _) = block.begin(0, 1, 0, 16);
    block.barrier();
    block.end(copy, 0, 16);
    assert_eq!(block.read(1, 1, 0, 16), race(0, 1, copy.pc, Order::ReadAfterWrite));
}

#[test]
fn a_copy_over_what_is_still_read_is_found() {
    let mut block = written(4);
    assert_eq!(block.read(1, 0, 0, 16), None);
    assert_eq!(block.begin(0, 0, 0, 16).1, race(1, 0, 1, Order::WriteAfterRead));
}

#[test]
fn of_two_copies_to_one_place_each_ends_by_itself() {
    let mut block = block(4);
    let (first, _) = block.begin(0, 0, 0, 16);
    let (second, fault) = block.begin(0, 1, 0, 16);
    assert_eq!(fault, Some(Fault::InFlight { with: first }));
    block.end(first, 0, 16);
    assert_eq!(block.read(0, 1, 0, 16), Some(Fault::InFlight { with: second }));
    block.end(second, 0, 16);
    assert_eq!(block.read(0, 1, 0, 16), None);
}

#[test]
fn narrow_copies_share_a_line() {
    let mut block = block(4);
    let (first, _) = block.begin(0, 0, 0, 4);
    let (second, fault) = block.begin(0, 1, 4, 4);
    assert_eq!(fault, None);
    block.end(first, 0, 4);
    assert_eq!(block.read(0, 0, 0, 4), None);
    assert_eq!(block.read(0, 0, 4, 4), Some(Fault::InFlight { with: second }));
}

#[test]
fn the_next_block_knows_nothing_of_this_one() {
    let mut block = written(4);
    block.begin(0, 0, 0, 16);
    assert_eq!(block.write(1, 0, 16, 4), None);
    assert_eq!(block.read(1, 0, 32, 16), None);
    assert_eq!(block.atomic(1, 0, 48), None);
    block.shadow.clear();
    block.clocks.reset();
    assert_eq!(block.write(2, 0, 48, 4), None);
    assert_eq!(block.write(2, 0, 32, 16), None);
    assert_eq!(block.write(2, 0, 16, 8), None);
    assert_eq!(block.read(2, 0, 24, 8), Some(Fault::Uninitialized));
    assert_eq!(block.read(2, 0, 0, 16), Some(Fault::Uninitialized));
}

#[test]
fn many_blocks_wear_nothing_out() {
    let mut block = block(4);
    for _ in 0..3 {
        block.shadow.newest = LIMIT - 2;
        for _ in 0..3 {
            block.shadow.clear();
            block.clocks.reset();
            assert_eq!(block.read(0, 0, 0, 16), Some(Fault::Uninitialized));
            assert_eq!(block.write(1, 0, 0, 16), race(0, 0, block.pc - 1, Order::WriteAfterRead));
            block.barrier();
            assert_eq!(block.write(0, 0, 4, 4), None);
            assert_eq!(block.read(1, 0, 0, 4), None);
        }
    }
}
