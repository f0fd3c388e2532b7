use super::*;

fn knows(clocks: &Clocks, warp: usize, of: usize, clock: u32) -> bool {
    clock <= clocks.now(warp).seen[of]
}

#[test]
fn nobody_knows_anything_at_the_start() {
    let clocks = Clocks::new(2);
    assert_eq!((clocks.now(1).clock, clocks.now(1).floor), (1, 0));
    assert!(!knows(&clocks, 0, 1, 1));
    assert!(!knows(&clocks, 0, 0, 1));
}

#[test]
fn a_tick_orders_only_the_own_warp() {
    let mut clocks = Clocks::new(2);
    clocks.tick(0);
    assert!(knows(&clocks, 0, 0, 1));
    assert!(!knows(&clocks, 1, 0, 1));
}

#[test]
fn a_barrier_orders_its_members_and_nobody_else() {
    let mut clocks = Clocks::new(3);
    clocks.join(0, 0b011);
    assert!(knows(&clocks, 0, 1, 1) && knows(&clocks, 1, 0, 1));
    assert!(!knows(&clocks, 2, 0, 1) && !knows(&clocks, 0, 2, 1));
}

#[test]
fn what_comes_after_a_barrier_is_unknown_again() {
    let mut clocks = Clocks::new(2);
    clocks.tick(0);
    clocks.tick(0);
    clocks.join(0, 0b11);
    assert_eq!(clocks.now(0).clock, clocks.now(1).clock);
    assert!(!knows(&clocks, 0, 1, clocks.now(1).clock));
    assert_eq!(clocks.now(0).floor, 3);
}

#[test]
fn knowledge_passes_through_a_third_warp() {
    let mut clocks = Clocks::new(3);
    clocks.join(0, 0b011);
    clocks.join(0, 0b110);
    assert!(knows(&clocks, 2, 0, 1));
}

#[test]
fn an_acquire_learns_what_was_released_and_nothing_later() {
    let mut clocks = Clocks::new(2);
    let released = clocks.release(0, ALL);
    clocks.acquire(1, &released);
    assert!(knows(&clocks, 1, 0, 1));
    assert!(!knows(&clocks, 1, 0, clocks.now(0).clock));
    assert!(!knows(&clocks, 0, 1, 1));
}

#[test]
fn a_warp_that_hears_of_its_own_arrivals_does_not_run_ahead() {
    let mut clocks = Clocks::new(2);
    for arrivals in 1..100 {
        let released = clocks.release(0, ALL);
        clocks.acquire(0, &released);
        assert_eq!(clocks.now(0).clock, arrivals + 1);
        assert!(knows(&clocks, 0, 0, arrivals) && !knows(&clocks, 0, 0, arrivals + 1));
    }
}

#[test]
fn an_arrival_of_a_lane_releases_what_it_did_and_what_the_warp_did_as_a_whole() {
    let mut clocks = Clocks::new(2);
    let knows =
        |clocks: &Clocks, lane, several, whole| clocks.now(1).knows(1, || Actor { agent: 0, lane, several, whole }, 0);
    clocks.act(0, 0b110);
    let released = clocks.release(0, 0b010);
    clocks.acquire(1, &released);
    assert!(knows(&clocks, 1, false, false) && knows(&clocks, 9, false, true));
    assert!(!knows(&clocks, 2, false, false) && !knows(&clocks, 1, true, false));
    assert_eq!(clocks.now(1).known_lanes(0, 1), 0b010);
    assert!(!clocks.now(1).knows_lane(0, 1, 2), "what came later");
    // Other lanes release theirs, and the warp all of it.
    let released = clocks.release(0, 0b100);
    clocks.acquire(1, &released);
    assert_eq!(clocks.now(1).known_lanes(0, 1), 0b110);
    clocks.tick(0);
    let released = clocks.release(0, 0b001);
    clocks.acquire(1, &released);
    assert!(knows(&clocks, 2, false, false) && knows(&clocks, 1, true, false));
}

#[test]
fn an_arrival_of_the_only_lane_that_did_anything_releases_all() {
    let mut clocks = Clocks::new(2);
    clocks.act(0, 0b10);
    let released = clocks.release(0, 0b10);
    clocks.acquire(1, &released);
    assert!(knows(&clocks, 1, 0, 1) && !knows(&clocks, 0, 0, 1), "and orders no lanes");
}

#[test]
fn knowledge_of_lanes_travels_and_ends_in_knowledge_of_all() {
    let mut clocks = Clocks::new(3);
    clocks.act(0, ALL);
    let released = clocks.release(0, 1);
    clocks.acquire(1, &released);
    clocks.join(0, 0b110);
    assert_eq!((clocks.now(2).known_lanes(0, 1), clocks.lanes[2].len()), (1, 1));
    clocks.join(0, 0b111);
    assert_eq!((clocks.now(2).known_lanes(0, 1), clocks.lanes[2].len()), (ALL, 0));
}

#[test]
fn a_fence_passes_on_what_its_lanes_did_before() {
    let mut clocks = Clocks::new(2);
    clocks.fence(0, 0b10, Passes::Writes);
    let after = clocks.now(0).clock;
    let passed =
        |clocks: &Clocks, by, lane, clock, own| clocks.now(by).has_passed(Passes::Writes, (0, lane, clock), own);
    // Only the lane itself knows of it until a barrier.
    assert!(passed(&clocks, 0, 1, 1, true) && !passed(&clocks, 1, 1, 1, false) && !passed(&clocks, 0, 1, 1, false));
    clocks.join(0, 0b11);
    assert!(passed(&clocks, 1, 1, 1, false));
    assert!(!passed(&clocks, 1, 0, 1, false), "another lane");
    assert!(!passed(&clocks, 1, 1, after, false), "after the fence");
}

#[test]
fn a_fence_for_mbarriers_passes_on_nothing_else() {
    let mut clocks = Clocks::new(1);
    clocks.fence(0, 1, Passes::Mbarriers);
    assert!(clocks.now(0).has_passed(Passes::Mbarriers, (0, 0, 1), true));
    assert!(!clocks.now(0).has_passed(Passes::Writes, (0, 0, 1), true));
    clocks.fence(0, 1, Passes::Writes);
    assert!(clocks.now(0).has_passed(Passes::Mbarriers, (0, 0, 2), true));
}

#[test]
fn a_fence_orders_no_lanes() {
    let mut clocks = Clocks::new(2);
    clocks.fence(0, u32::MAX, Passes::Writes);
    assert!(!knows(&clocks, 0, 0, 1));
    clocks.join(0, 0b11);
    assert!(knows(&clocks, 0, 0, 2) && knows(&clocks, 1, 0, 2));
}

#[test]
fn phases_of_an_mbarrier_travel_with_other_knowledge() {
    let mut clocks = Clocks::new(2);
    clocks.join(0, 0b11);
    clocks.with_mbarriers(3);
    assert_eq!(clocks.now(1).floor, 1, "mbarriers do not lower it");
    clocks.acquire_phase(0, 2, 7);
    assert!(knows(&clocks, 0, 4, 7) && !knows(&clocks, 0, 4, 8) && !knows(&clocks, 1, 4, 1));
    let released = clocks.release(0, ALL);
    clocks.acquire(1, &released);
    assert!(knows(&clocks, 1, 4, 7));
}

fn knows_done(clocks: &Clocks, warp: usize, of: usize, clock: u32) -> bool {
    let who = || Actor { agent: of, lane: 3, several: false, whole: false };
    clocks.now(warp).knows_done(clock, who, of)
}

#[test]
fn a_weak_message_or_wait_tells_what_is_done_and_orders_nothing() {
    for weak_wait in [false, true] {
        let mut clocks = Clocks::new(2);
        clocks.with_mbarriers(1);
        clocks.acquire_phase(0, 0, 4);
        let released = clocks.release(0, ALL);
        let before = (clocks.now(1).clock, clocks.now(1).floor, clocks.now(1).seen.to_vec());
        match weak_wait {
            true => clocks.acquire_weakly(1, &released),
            false => clocks.acquire(1, &released.weak()),
        }
        assert_eq!(before, (clocks.now(1).clock, clocks.now(1).floor, clocks.now(1).seen.to_vec()));
        assert!(knows_done(&clocks, 1, 0, 1) && !knows_done(&clocks, 1, 0, 2), "what came later");
        assert!(knows_done(&clocks, 1, 2, 4) && !knows_done(&clocks, 1, 2, 5));
    }
}

#[test]
fn a_weak_wait_tells_that_the_copies_of_a_phase_are_done() {
    let mut clocks = Clocks::new(2);
    clocks.with_mbarriers(2);
    clocks.acquire_phase_weakly(1, 1, 7);
    assert!(knows_done(&clocks, 1, 3, 7) && !knows_done(&clocks, 1, 3, 8) && !knows_done(&clocks, 1, 2, 1));
    assert!(!knows(&clocks, 1, 3, 1) && !knows_done(&clocks, 0, 3, 1));
}

#[test]
fn what_is_done_travels_with_every_message_and_becomes_nothing_more() {
    let mut clocks = Clocks::new(4);
    let released = clocks.release(0, ALL).weak();
    clocks.acquire(1, &released);
    clocks.join(0, 0b110);
    assert!(knows_done(&clocks, 2, 0, 1) && !knows(&clocks, 2, 0, 1));
    let mut message = clocks.arrive(3);
    message.add(&clocks.release(2, ALL));
    clocks.acquire(3, &message);
    assert!(knows_done(&clocks, 3, 0, 1) && !knows(&clocks, 3, 0, 1) && knows(&clocks, 3, 2, 1));
}

#[test]
fn a_weak_message_of_a_lane_tells_of_that_lane() {
    let mut clocks = Clocks::new(2);
    clocks.act(0, 0b1001);
    let released = clocks.release(0, 1);
    clocks.acquire_weakly(1, &released);
    assert!(!knows_done(&clocks, 1, 0, 1), "lane 3");
    let released = clocks.release(0, 0b1000);
    clocks.acquire_weakly(1, &released);
    assert!(knows_done(&clocks, 1, 0, 1) && clocks.now(1).known_lanes(0, 1) == 0);
}

#[test]
fn a_reset_forgets() {
    let mut clocks = Clocks::new(2);
    clocks.join(0, 0b11);
    let released = clocks.release(0, ALL);
    clocks.acquire_weakly(1, &released);
    clocks.reset();
    assert_eq!((clocks.now(0).clock, clocks.now(0).floor), (1, 0));
    assert!(!knows_done(&clocks, 1, 0, 1));
}
