use super::*;

const DATA: u64 = BASE + 256;
const COUNTER: u64 = BASE + 0x2_0000;

fn shadow() -> GlobalShadow {
    GlobalShadow::new(4)
}

fn race(order: Order, block: u32, pc: u32) -> Option<BlockRace> {
    Some(BlockRace { order, block, pc })
}

/// `atom.add` on the counter, after a fence or without one.
fn count(shadow: &mut GlobalShadow, block: u32, fence: bool) {
    if fence {
        shadow.fence(block);
    }
    shadow.acquire(block, COUNTER);
    assert_eq!(shadow.atomic(block, 90, COUNTER, 4), None);
    shadow.publish(block, COUNTER);
}

/// `atom.acq_rel.add` on the counter.
fn count_and_release(shadow: &mut GlobalShadow, block: u32) {
    shadow.acquire(block, COUNTER);
    assert_eq!(shadow.atomic(block, 91, COUNTER, 4), None);
    shadow.release(block, COUNTER);
}

#[test]
fn a_block_is_in_order_with_itself() {
    let mut shadow = shadow();
    assert_eq!(shadow.write(3, 1, DATA, 16), None);
    assert_eq!(shadow.read(3, 2, DATA, 16), None);
    assert_eq!(shadow.atomic(3, 3, DATA, 4), None);
    assert_eq!(shadow.write(3, 4, DATA, 4), None);
}

#[test]
fn blocks_that_touch_the_same_bytes_race() {
    let mut shadow = shadow();
    assert_eq!(shadow.write(0, 1, DATA, 16), None);
    assert_eq!(shadow.read(1, 2, DATA + 8, 4), race(Order::ReadAfterWrite, 0, 1));
    assert_eq!(shadow.write(2, 3, DATA + 4, 4), race(Order::WriteAfterWrite, 0, 1));
    assert_eq!(shadow.read(0, 4, DATA + 16, 4), None);
    assert_eq!(shadow.write(1, 5, DATA + 16, 4), race(Order::WriteAfterRead, 0, 4));
}

#[test]
fn blocks_may_read_together_and_write_apart() {
    let mut shadow = shadow();
    for block in 0..10 {
        assert_eq!(shadow.read(block, 1, DATA, 16), None);
        assert_eq!(shadow.write(block, 2, DATA + 64 + 4 * u64::from(block), 4), None);
    }
}

#[test]
fn halves_of_a_word_are_apart_if_the_program_has_halves() {
    for granule in [1, 2] {
        let mut shadow = GlobalShadow::new(granule);
        for block in 0..4 {
            assert_eq!(shadow.write(block, 1, DATA + u64::from(block * granule), granule), None);
        }
        assert!(shadow.write(5, 2, DATA, 16).is_some());
    }
}

#[test]
fn the_first_and_the_last_reader_are_found() {
    for met in 0..2 {
        let mut shadow = shadow();
        for block in 0..2 {
            shadow.read(block, 10 + block, DATA, 4);
            if block == met {
                count(&mut shadow, block, true);
            }
        }
        count(&mut shadow, 2, true);
        assert_eq!(shadow.write(2, 1, DATA, 4), race(Order::WriteAfterRead, 1 - met, 11 - met));
    }
}

#[test]
fn the_last_to_arrive_may_read_what_all_wrote_if_they_fenced() {
    for fence in [true, false] {
        let mut shadow = shadow();
        for block in 0..5 {
            assert_eq!(shadow.write(block, 1, DATA + 16 * u64::from(block), 16), None);
            count(&mut shadow, block, fence);
        }
        for block in 0..4 {
            let read = shadow.read(4, 2, DATA + 16 * u64::from(block), 16);
            assert_eq!(read, if fence { None } else { race(Order::ReadAfterWrite, block, 1) });
        }
        // The last one puts the counter back.
        let reset = shadow.write(4, 3, COUNTER, 4);
        assert_eq!(reset, if fence { None } else { race(Order::WriteAfterWrite, 0, 90) });
    }
}

#[test]
fn atomics_that_release_need_no_fence() {
    let mut shadow = shadow();
    for block in 0..5 {
        assert_eq!(shadow.write(block, 1, DATA + 16 * u64::from(block), 16), None);
        count_and_release(&mut shadow, block);
    }
    for block in 0..4 {
        assert_eq!(shadow.read(4, 2, DATA + 16 * block, 16), None);
    }
    assert_eq!(shadow.write(4, 3, COUNTER, 4), None);
}

#[test]
fn what_is_written_after_the_fence_is_not_published() {
    let mut shadow = shadow();
    shadow.fence(0);
    assert_eq!(shadow.write(0, 1, DATA, 4), None);
    count(&mut shadow, 0, false);
    count(&mut shadow, 1, true);
    assert_eq!(shadow.read(1, 2, DATA, 4), race(Order::ReadAfterWrite, 0, 1));
    // The counter itself is in order.
    assert_eq!(shadow.write(1, 3, COUNTER, 4), None);
}

#[test]
fn what_is_written_after_the_release_is_not_published() {
    let mut shadow = shadow();
    count_and_release(&mut shadow, 0);
    assert_eq!(shadow.write(0, 1, DATA, 4), None);
    count_and_release(&mut shadow, 1);
    assert_eq!(shadow.read(1, 2, DATA, 4), race(Order::ReadAfterWrite, 0, 1));
}

#[test]
fn a_fence_belongs_to_its_block() {
    let mut shadow = shadow();
    shadow.fence(0);
    assert_eq!(shadow.write(1, 1, DATA, 4), None);
    count(&mut shadow, 1, false);
    count(&mut shadow, 2, true);
    assert_eq!(shadow.read(2, 2, DATA, 4), race(Order::ReadAfterWrite, 1, 1));
}

#[test]
fn a_release_elsewhere_orders_nothing() {
    let mut shadow = shadow();
    assert_eq!(shadow.write(0, 1, DATA, 4), None);
    shadow.release(0, COUNTER + 4);
    count(&mut shadow, 1, true);
    assert_eq!(shadow.read(1, 2, DATA, 4), race(Order::ReadAfterWrite, 0, 1));
}

#[test]
fn knowledge_passes_through_a_third_block() {
    let mut shadow = shadow();
    assert_eq!(shadow.write(7, 1, DATA, 4), None);
    shadow.release(7, COUNTER);
    shadow.acquire(3, COUNTER);
    shadow.release(3, COUNTER + 4);
    shadow.acquire(5, COUNTER + 4);
    assert_eq!(shadow.read(5, 2, DATA, 4), None);
}

#[test]
fn atomics_need_no_order_among_themselves() {
    let mut shadow = shadow();
    for block in 0..3 {
        assert_eq!(shadow.atomic(block, 1, DATA, 4), None);
    }
    assert_eq!(shadow.read(3, 2, DATA, 4), race(Order::ReadAfterWrite, 2, 1));
    assert_eq!(shadow.atomic(4, 3, DATA, 4), race(Order::WriteAfterRead, 3, 2));
    assert_eq!(shadow.write(5, 4, DATA, 4), race(Order::WriteAfterWrite, 4, 3));
    assert_eq!(shadow.atomic(6, 5, DATA, 4), race(Order::WriteAfterWrite, 5, 4));
}

#[test]
fn blocks_of_a_cluster_take_turns() {
    let mut shadow = shadow();
    shadow.begin_cluster();
    assert_eq!(shadow.write(0, 1, DATA, 16), None);
    assert_eq!(shadow.write(1, 2, DATA + 64, 16), None);
    assert_eq!(shadow.read(0, 3, DATA, 16), None);
    assert_eq!(shadow.read(1, 4, DATA, 16), race(Order::ReadAfterWrite, 0, 1));
    assert_eq!(shadow.read(0, 5, DATA + 64, 16), race(Order::ReadAfterWrite, 1, 2));
    shadow.begin_cluster();
    assert_eq!(shadow.write(2, 6, DATA, 16), race(Order::WriteAfterWrite, 0, 1));
}

#[test]
fn a_block_remembers_its_fence_and_what_it_knows_in_the_next_turn() {
    let mut shadow = shadow();
    shadow.begin_cluster();
    assert_eq!(shadow.write(0, 1, DATA, 16), None);
    shadow.fence(0);
    assert_eq!(shadow.write(1, 2, DATA + 64, 16), None);
    count(&mut shadow, 0, false);
    count(&mut shadow, 1, true);
    assert_eq!(shadow.read(2, 3, DATA + 128, 16), None);
    assert_eq!(shadow.read(1, 4, DATA, 16), None);
    assert_eq!(shadow.read(0, 5, DATA + 64, 16), race(Order::ReadAfterWrite, 1, 2));
}

#[test]
fn a_block_learns_in_shared_memory_what_another_released_there() {
    let mut shadow = shadow();
    shadow.begin_cluster();
    assert_eq!(shadow.write(0, 1, DATA, 16), None);
    let released = shadow.released(0);
    assert_eq!(shadow.write(0, 2, DATA + 64, 16), None);
    assert_eq!(shadow.fenced(0), []);
    shadow.learn(1, &released);
    assert_eq!(shadow.read(1, 3, DATA, 16), None);
    assert_eq!(shadow.read(1, 4, DATA + 64, 16), race(Order::ReadAfterWrite, 0, 2));
}
