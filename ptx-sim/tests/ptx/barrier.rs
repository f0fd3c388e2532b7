//! The barriers of a block.

use crate::common::{kernel, refused};
use ptx_sim::{Reconvergence, WarpOrder};

/// Every thread reads what its mirror image in the block wrote.
const MIRROR: &str = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; mov.u32 %r2, %ntid.x; sub.u32 %r2, %r2, %t;
    sub.u32 %r2, %r2, 1; mad.lo.u32 %r2, %r2, 4, %r0; st.shared.u32 [%r1], %t;
    BARRIER
    ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3;";

#[track_caller]
fn mirrors(barrier: &str, threads: u32) {
    for order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
            let kernel = kernel(&MIRROR.replace("BARRIER", barrier)).threads(threads).shared(4 * threads);
            let run = kernel.options(|options| (options.warp_order, options.reconvergence) = (order, reconvergence));
            assert_eq!(run.clean().results(), (0..threads).rev().collect::<Vec<_>>(), "{barrier}");
        }
    }
}

#[test]
fn a_barrier_joins_all_warps() {
    mirrors("bar.sync 0;", 128);
    mirrors("barrier.sync.aligned 0;", 96);
    mirrors("barrier.cta.sync.aligned 15;", 64);
    mirrors("bar.sync 3, 128;", 128);
    mirrors("mov.u32 %r4, 5; mov.u32 %r5, 128; bar.sync %r4, %r5;", 128);
    mirrors("bar.sync 0;", 1024);
}

#[test]
fn a_warp_that_is_not_full_counts_as_one() {
    mirrors("bar.sync 0;", 40);
    mirrors("bar.sync 1, 64;", 40);
}

#[test]
fn a_barrier_can_be_used_again() {
    mirrors("bar.sync 0; bar.sync 0; bar.sync 1; bar.sync 0;", 128);
}

#[test]
fn lanes_that_parted_meet_at_a_barrier() {
    let parted = "setp.lt.u32 %p1, %lane, 7; @%p1 bra low; add.u32 %r5, %t, 1; low: bar.sync 0;";
    mirrors(parted, 64);
}

#[test]
fn lanes_that_have_ended_are_not_waited_for() {
    let run = kernel(
        "setp.ge.u32 %p1, %lane, 16; @%p1 exit;
         mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; st.shared.u32 [%r1], %t;
         bar.sync 0;
         xor.b32 %r2, %t, 32; mad.lo.u32 %r2, %r2, 4, %r0; ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3;",
    )
    .threads(64)
    .shared(256)
    .clean();
    let expected = (0..64).map(|t| if t % 32 < 16 { t ^ 32 } else { 0 });
    assert_eq!(run.results(), expected.collect::<Vec<u32>>());
}

/// Warps 0 and 1 exchange at one barrier, warps 2 and 3 at another, at the same time.
#[test]
fn barriers_of_pairs_do_not_disturb_each_other() {
    let run = kernel(
        "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; st.shared.u32 [%r1], %t;
         shr.u32 %r2, %warp, 1; add.u32 %r2, %r2, 1;
         bar.sync %r2, 64;
         xor.b32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 4, %r0; ld.shared.u32 %r4, [%r3]; st.global.u32 [%out], %r4;",
    );
    let run = run.threads(128).shared(512).clean();
    assert_eq!(run.results(), (0..128).map(|t| t ^ 32).collect::<Vec<_>>());
}

/// The form in which LLVM writes it.
#[test]
fn an_arrival_may_be_spelt_out() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %lane, 4, %r0; setp.eq.u32 %p1, %warp, 1; @%p1 bra wait;
        st.shared.u32 [%r1], %t; barrier.cta.arrive.aligned 1, 64; bra done;
        wait: barrier.cta.sync.aligned 1, 64; ld.shared.u32 %r2, [%r1]; st.global.u32 [%out], %r2; done:";
    let run = kernel(body).threads(64).shared(128).clean();
    assert_eq!(run.results()[32..], (0..32).collect::<Vec<_>>());
}

/// The producer arrives and goes on; each side waits for the other where it must.
#[test]
fn a_producer_arrives_and_a_consumer_waits() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %lane, 4, %r0; mov.u32 %r2, 0; mov.u32 %r5, 0;
        setp.eq.u32 %p1, %warp, 1; @%p1 bra consume;
        produce:
        mad.lo.u32 %r3, %r2, 100, %lane; st.shared.u32 [%r1], %r3;
        bar.arrive 1, 64;
        bar.sync 2, 64;
        add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 3; @%p2 bra produce;
        bra done;
        consume:
        bar.sync 1, 64;
        ld.shared.u32 %r3, [%r1]; add.u32 %r5, %r5, %r3;
        bar.arrive 2, 64;
        add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 3; @%p2 bra consume;
        done: st.global.u32 [%out], %r5;";
    for order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        let run = kernel(body).threads(64).shared(128).options(|options| options.warp_order = order).clean();
        let sum = |t: u32| if t < 32 { 0 } else { 3 * (t - 32) + 300 };
        assert_eq!(run.results(), (0..64).map(sum).collect::<Vec<_>>(), "{order:?}");
    }
}

#[test]
fn bar_red_joins_a_predicate_of_all_threads() {
    let reduce = |operation: &str, below: u32| {
        let body = format!("setp.lt.u32 %p1, %t, {below};\n{operation}\nst.global.u32 [%out], %r0;");
        let results = kernel(&body).threads(96).clean().results();
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        results[0]
    };
    assert_eq!(reduce("bar.red.popc.u32 %r0, 0, %p1;", 70), 70);
    assert_eq!(reduce("bar.red.popc.u32 %r0, 0, !%p1;", 70), 26);
    assert_eq!(reduce("barrier.red.popc.aligned.u32 %r0, 2, 96, %p1;", 33), 33);
    for (below, all, any) in [(0, 0, 0), (50, 0, 1), (96, 1, 1)] {
        let code = |operation: &str| format!("bar.red.{operation}.pred %p2, 1, %p1; selp.b32 %r0, 1, 0, %p2;");
        assert_eq!(reduce(&code("and"), below), all);
        assert_eq!(reduce(&code("or"), below), any);
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in ["bar.arrive 1;", "bar.wait 0;", "bar.sync;", "bar.red.xor.pred %p1, 0, %p2;", "bar.warp.arrive -1;"] {
        refused(wrong);
    }
}
