//! mbarriers: arrivals, phases and waits.

use crate::common::{Kernel, Run, kernel, refused};
use ptx_sim::{Delivery, Kind, Reconvergence, WarpOrder};

/// 64 threads and an mbarrier in `%r0` that expects `count` arrivals, set up by thread 0; memory behind it from `%r1` on,
/// 4 bytes a thread in `%r2`, those of the thread in the other warp in `%r3`.
fn with(count: u32, body: &str) -> Kernel {
    let text = format!(
        "mov.u32 %r0, dynamic; add.u32 %r1, %r0, 16; mad.lo.u32 %r2, %t, 4, %r1;
         xor.b32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 4, %r1;
         setp.eq.u32 %p1, %t, 0; setp.eq.u32 %p2, %lane, 0; setp.lt.u32 %p3, %t, 32;
         @%p1 mbarrier.init.shared::cta.b64 [%r0], {count}; //! init
         bar.sync 0;
         {body}"
    );
    kernel(&text).threads(64).shared(16 + 64 * 4)
}

const WAIT: &str = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], 0; @!%p4 bra WAIT;";

/// The same in every schedule, with nothing found.
#[track_caller]
fn gives(kernel: &Kernel, expected: impl Fn(u32) -> u32) {
    for warp_order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        for delivery in [Delivery::Late, Delivery::Immediate] {
            for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
                let run = kernel.clone().options(|options| {
                    (options.warp_order, options.delivery, options.reconvergence) =
                        (warp_order, delivery, reconvergence);
                });
                assert_eq!(run.clean().results(), (0..64).map(&expected).collect::<Vec<_>>());
            }
        }
    }
}

/// The only finding, at the line with `//!!`.
#[track_caller]
fn finds(kernel: &Kernel, kind: Kind) -> String {
    let run: Run = kernel.run();
    let finding = run.finding(kind);
    assert_eq!(finding.at.line, run.line("//!!"), "{}", run.report);
    finding.message.clone()
}

const HAND_OUT: &str = "ld.shared.u32 %r4, [%r3]; st.global.u32 [%out], %r4;";

#[test]
fn a_phase_ends_when_all_have_arrived() {
    for (count, arrive) in [
        (64, "mbarrier.arrive.shared::cta.b64 _, [%r0];"),
        (64, "mbarrier.arrive.shared.b64 %d0, [%r0];"),
        (128, "mbarrier.arrive.shared::cta.b64 _, [%r0], 2;"),
        (2, "bar.warp.sync -1; @%p2 mbarrier.arrive.release.cta.shared::cta.b64 _, [%r0];"),
        (64, "mapa.shared::cluster.u32 %r9, %r0, 0; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r9];"),
    ] {
        let body = format!("st.shared.u32 [%r2], %t; {arrive} {WAIT} {HAND_OUT}");
        gives(&with(count, &body), |t| t ^ 32);
    }
}

#[test]
fn a_wait_may_be_for_a_state_or_not_block() {
    for wait in [
        "mbarrier.test_wait.shared.b64 %p4, [%r0], %d0;",
        "mbarrier.try_wait.shared::cta.b64 %p4, [%r0], %d0;",
        "mbarrier.try_wait.acquire.cta.shared::cta.b64 %p4, [%r0], %d0, 1000;",
        "mbarrier.test_wait.parity.shared.b64 %p4, [%r0], 0;",
    ] {
        let body = format!(
            "st.shared.u32 [%r2], %t; mbarrier.arrive.shared.b64 %d0, [%r0]; W: {wait} @!%p4 bra W; {HAND_OUT}"
        );
        gives(&with(64, &body), |t| t ^ 32);
    }
}

/// Before the first phase is over, the one before it is.
#[test]
fn a_wait_for_the_other_parity_passes_at_once() {
    let body = format!("{} st.global.u32 [%out], 7;", WAIT.replace(", 0;", ", 1;"));
    gives(&with(1, &body), |_| 7);
}

/// Warp 0 hands numbers to warp 1 through one buffer: one mbarrier says that it is full, one that it is empty.
const HAND_OVER: &str = "
    add.u32 %r10, %r0, 8; @%p1 mbarrier.init.shared::cta.b64 [%r10], 32; bar.sync 0;
    mov.u32 %r4, 0; mov.u32 %r5, 0; mov.u32 %r6, 0; mad.lo.u32 %r7, %lane, 4, %r1;
    @!%p3 bra consume;
    produce: xor.b32 %r8, %r5, 1;
    EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r10], %r8; @!%p4 bra EMPTY; // empty
    add.u32 %r9, %r4, %lane; st.shared.u32 [%r7], %r9;
    mbarrier.arrive.shared::cta.b64 _, [%r0]; // full arrive
    add.u32 %r4, %r4, 1; xor.b32 %r5, %r5, 1; setp.lt.u32 %p5, %r4, 5; @%p5 bra produce;
    bra done;
    consume:
    FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], %r5; @!%p4 bra FULL; // full
    ld.shared.u32 %r9, [%r7]; add.u32 %r6, %r6, %r9;
    mbarrier.arrive.shared::cta.b64 _, [%r10]; // empty arrive
    add.u32 %r4, %r4, 1; xor.b32 %r5, %r5, 1; setp.lt.u32 %p5, %r4, 5; @%p5 bra consume;
    done: st.global.u32 [%out], %r6;";

#[test]
fn phases_alternate() {
    gives(&with(32, HAND_OVER), |t| if t < 32 { 0 } else { 10 + 5 * (t - 32) });
}

#[test]
fn a_wait_for_the_wrong_phase_is_a_race_or_a_deadlock() {
    let kinds = |from: &str, to: &str| {
        assert!(HAND_OVER.contains(from));
        let orders = [WarpOrder::RoundRobin, WarpOrder::Reverse];
        orders.map(|order| {
            let run = with(32, &HAND_OVER.replace(from, to)).options(|options| options.warp_order = order).run();
            run.report.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
        })
    };
    // The consumer does not wait.
    for found in kinds("[%r0], %r5; @", "[%r0], %r8; @") {
        assert!(!found.is_empty());
    }
    for found in kinds("xor.b32 %r8, %r5, 1;", "mov.u32 %r8, %r5;") {
        assert!(found.contains(&Kind::Deadlock), "{found:?}");
    }
    for found in kinds("[%r10]; // empty arrive", "[%r0]; // empty arrive") {
        assert!(!found.is_empty());
    }
}

#[test]
fn a_relaxed_arrival_orders_nothing() {
    let body =
        format!("st.shared.u32 [%r2], %t; mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r0]; {WAIT} {HAND_OUT}");
    with(64, &body).run().finding(Kind::SharedRace);
}

/// Warp 1 reads, and after `arrive` warp 0 writes there.
fn given_back(count: u32, arrive: &str) -> Kernel {
    let body = format!(
        "st.shared.u32 [%r2], %t; bar.sync 0; @%p3 bra write;
         and.b32 %r5, %lane, 7; mad.lo.u32 %r5, %r5, 16, %r1;
         ld.shared.u32 %r4, [%r2]; // read
         {arrive}
         st.global.u32 [%out], %r4; bra end;
         write: {WAIT} st.shared.u32 [%r3], 9; //!!
         end:"
    );
    with(count, &body)
}

#[test]
fn an_arrival_of_one_lane_releases_what_that_lane_did() {
    const ONE: &str = "@%p2 mbarrier.arrive.shared::cta.b64 _, [%r0];";
    let expected = |t| if t < 32 { 0 } else { t };
    finds(&given_back(1, ONE), Kind::SharedRace);
    // A shuffle orders no memory, and two arrivals are not all.
    finds(&given_back(1, &format!("shfl.sync.idx.b32 %r6, %r4, 0, 31, -1; {ONE}")), Kind::SharedRace);
    let two = "setp.lt.u32 %p5, %lane, 2; @%p5 mbarrier.arrive.shared::cta.b64 _, [%r0];";
    finds(&given_back(2, two), Kind::SharedRace);
    gives(&given_back(1, &format!("bar.warp.sync -1; {ONE}")), expected);
    gives(&given_back(32, "mbarrier.arrive.shared::cta.b64 _, [%r0];"), expected);
    let alone =
        given_back(1, ONE).replace("ld.shared.u32 %r4, [%r2];", "mov.u32 %r4, %t; @%p2 ld.shared.u32 %r6, [%r2];");
    gives(&alone, expected);
    let other = given_back(1, ONE)
        .replace("ld.shared.u32 %r4, [%r2];", "setp.eq.u32 %p5, %lane, 1; @%p5 ld.shared.u32 %r4, [%r2];");
    assert!(other.run().report.findings.iter().any(|finding| finding.kind == Kind::SharedRace));
}

#[test]
fn an_arrival_of_one_lane_releases_what_the_warp_did_as_a_whole() {
    const ONE: &str = "@%p2 mbarrier.arrive.shared::cta.b64 _, [%r0];";
    let matrix = "mov.u32 %r4, %t; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r5+128];";
    let whole = |reads: &str| given_back(1, ONE).replace("ld.shared.u32 %r4, [%r2];", reads);
    gives(&whole(matrix), |t| if t < 32 { 0 } else { t });
    // Also next to reads of lanes somewhere else, but not for them.
    gives(&whole(&format!("{matrix} ld.shared.u32 %r6, [%r1];")), |t| if t < 32 { 0 } else { t });
    finds(&whole(&format!("{matrix} ld.shared.u32 %r6, [%r2];")), Kind::SharedRace);
}

#[test]
fn what_comes_after_the_arrival_is_not_released() {
    let body = format!("mbarrier.arrive.shared::cta.b64 _, [%r0]; st.shared.u32 [%r2], %t; {WAIT} {HAND_OUT}");
    with(64, &body).run().finding(Kind::SharedRace);
}

#[test]
fn a_deadlock_names_the_mbarrier_and_its_state() {
    let body = format!("@%p3 mbarrier.arrive.shared::cta.b64 _, [%r0];\n{WAIT} //!!\n");
    let message = finds(&with(33, &body), Kind::Deadlock);
    for part in ["warp 0 at mbarrier 0x", "warp 1 at mbarrier 0x", "phase 0: 1 of 33 arrivals are missing"] {
        assert!(message.contains(part), "{message}");
    }
    let spins = WAIT.replace("try_wait", "test_wait");
    assert!(finds(&with(33, &format!("{spins} //!!\n")), Kind::Deadlock).contains("33 of 33"));
}

#[test]
fn too_many_arrivals_are_found() {
    let message = finds(&with(63, "mbarrier.arrive.shared::cta.b64 _, [%r0], 62; //!!"), Kind::Mbarrier);
    assert!(message.contains("62 arrivals where the phase waits for 1 of 63"), "{message}");
}

#[test]
fn what_was_not_initialised_is_found() {
    finds(&with(64, "mbarrier.arrive.shared::cta.b64 _, [%r0+8]; //!!"), Kind::Mbarrier);
    finds(
        &with(
            64,
            "bar.sync 0; @%p1 mbarrier.inval.shared.b64 [%r0]; bar.sync 0;
        mbarrier.arrive.shared::cta.b64 _, [%r0]; //!!",
        ),
        Kind::Mbarrier,
    );
}

#[test]
fn an_initialisation_needs_a_barrier_before_the_use() {
    let text = "mov.u32 %r0, dynamic; setp.eq.u32 %p1, %t, 0; @%p1 mbarrier.init.shared::cta.b64 [%r0], 64;
        bar.warp.sync -1; mbarrier.arrive.shared::cta.b64 _, [%r0]; //!!";
    finds(&kernel(text).threads(64).shared(16), Kind::SharedRace);
    let lanes = text.replace("bar.warp.sync -1;", "");
    finds(&kernel(&lanes).shared(16), Kind::IntraWarpRace);
}

#[test]
fn a_live_mbarrier_is_no_memory() {
    finds(&with(64, "@%p1 mbarrier.init.shared::cta.b64 [%r0], 1; //!!"), Kind::Mbarrier);
    finds(&with(64, "@%p1 st.shared.u32 [%r0+4], 1; //!!"), Kind::Mbarrier);
    finds(&with(64, "@%p1 ld.shared.u32 %r5, [%r0]; //!!"), Kind::Mbarrier);
    with(
        64,
        "@%p1 mbarrier.inval.shared.b64 [%r0]; @%p1 st.shared.u32 [%r0+4], 1;
        @%p1 mbarrier.init.shared.b64 [%r0], 1; @%p1 mbarrier.arrive.shared.b64 _, [%r0];",
    )
    .clean();
}

#[test]
fn operands_that_are_not_allowed_are_found() {
    let one = |body: &str| with(64, &format!("@%p1 {body} //!!"));
    assert!(finds(&one("mbarrier.init.shared.b64 [%r1], 0;"), Kind::InvalidOperand).contains("1 to 1048575"));
    finds(&one("mbarrier.arrive.shared.b64 _, [%r0], 0;"), Kind::InvalidOperand);
    finds(&one("mbarrier.test_wait.parity.shared.b64 %p4, [%r0], 3;"), Kind::InvalidOperand);
    finds(&one("mbarrier.expect_tx.relaxed.cta.shared.b64 [%r0], 1048576;"), Kind::Mbarrier);
    finds(&one("mbarrier.init.shared.b64 [%r1+4], 1;"), Kind::Misaligned);
    finds(&one("mbarrier.init.shared.b64 [%r1+4096], 1;"), Kind::OutOfBounds);
    let state = "mov.u64 %d0, 3; @%p1 mbarrier.test_wait.shared.b64 %p4, [%r0], %d0; //!!";
    assert!(finds(&with(64, state), Kind::Mbarrier).contains("phase 3, the running one is 0"));
}

/// Lane l of warp 0 copies 4 bytes for lane l of warp 1.
fn copies(noinc: &str, count: u32, wait: &str) -> Kernel {
    let body = format!(
        "mad.wide.u32 %in, %t, 4, %in;
         @!%p3 bra other;
         cp.async.ca.shared.global [%r2], [%in], 4; //! copy
         cp.async.mbarrier.arrive{noinc}.shared.b64 [%r0];
         bra done;
         other: {wait}
         ld.shared.u32 %r4, [%r3]; st.global.u32 [%out], %r4; //!!
         done:"
    );
    with(count, &body).input(&(100..164).collect::<Vec<_>>())
}

#[test]
fn copies_of_lanes_arrive_at_an_mbarrier() {
    gives(&copies(".noinc", 32, WAIT), |t| if t < 32 { 0 } else { 68 + t });
    // The arrival is counted first: somebody else has to end the phase.
    let plain = copies("", 1, WAIT);
    let message = plain.run().finding(Kind::Deadlock).message.clone();
    assert!(message.contains("1 of 1 arrivals"), "{message}");
}

#[test]
fn copies_that_nobody_waited_for_are_found() {
    let mut found = copies(".noinc", 32, "").run().report.findings.into_iter();
    assert!(found.any(|finding| finding.kind == Kind::AsyncInFlight));
    assert!(found.any(|finding| finding.kind == Kind::AsyncUnfinished));
}

#[test]
fn lanes_that_wait_do_not_hold_up_others_of_the_warp() {
    let body = "setp.lt.u32 %p5, %lane, 7; @%p5 bra wait; mbarrier.arrive.shared.b64 _, [%r0]; bra done;
        wait: W: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], 0; @!%p4 bra W; done: st.global.u32 [%out], 1;";
    gives(&with(50, body), |_| 1);
}

#[test]
fn waits_cost_no_instructions() {
    let body = format!(
        "@!%p3 bra wait; mov.u32 %r4, 0; loop: add.u32 %r4, %r4, 1; setp.lt.u32 %p5, %r4, 200000;
        @%p5 bra loop; mbarrier.arrive.shared.b64 _, [%r0]; bra done; wait: {WAIT} done:"
    );
    let run = with(32, &body).clean();
    let line = run.report.lines.iter().find(|line| line.instruction.contains("try_wait")).expect("it is executed");
    assert_eq!(line.counters.instructions, 1);
}

/// The loop as compilers write it: local names, and a trap in place of a hang.
#[test]
fn a_bounded_loop_in_a_scope_of_its_own_waits() {
    let wait = "{ .reg .pred p, q; .reg .u32 c; mov.u32 c, 0;
        W: mbarrier.try_wait.parity.shared::cta.b64 p, [%r0], 0; @p bra D;
        add.u32 c, c, 1; setp.gt.u32 q, c, 4000000; @q trap; bra W; D: }";
    gives(
        &with(64, &format!("st.shared.u32 [%r2], %t; mbarrier.arrive.shared.b64 _, [%r0]; {wait} {HAND_OUT}")),
        |t| t ^ 32,
    );
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "mbarrier.init.b64 [%r0], 1;",
        "mbarrier.init.shared.b32 [%r0], 1;",
        "mbarrier.arrive.shared::cluster.b64 %d0, [%r0];",
        "mbarrier.arrive.expect_tx.shared.b64 _, [%r0];",
        "mbarrier.arrive_drop.shared.b64 _, [%r0];",
        "mbarrier.try_wait.parity.shared.b64 %p1, [%r0];",
        "mbarrier.test_wait.parity.shared.b64 %p1, [%r0], 0, 100;",
        "cp.async.mbarrier.arrive.noinc.b64 [%r0];",
    ] {
        refused(wrong);
    }
}
