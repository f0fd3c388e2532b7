//! Clusters of one block, warpgroups, and what only one lane does.

use crate::common::{HEADER, kernel, refused};
use ptx_sim::{Kind, Module, WarpOrder};

#[test]
fn a_cluster_has_one_block() {
    let body = "mov.u32 %r0, %cluster_ctarank; mov.u32 %r1, %cluster_nctarank; mov.u32 %r2, %clusterid.x;
        mov.u32 %r3, %cluster_nctaid.y; st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};";
    assert_eq!(kernel(body).blocks(3).clean().of(64), [0, 1, 2, 1]);
    let entry = |blocks: &str| format!("{HEADER}.entry a() .reqnctapercluster {blocks} {{ ret; }}");
    assert!(Module::parse(&entry("1, 1, 1")).is_ok());
    let error = Module::parse(&entry("2, 1, 1")).expect_err("it is refused");
    assert!(error.message.contains("clusters of more than one block"), "{error}");
}

/// Every thread reads what the one in the other warp wrote.
const EXCHANGE: &str =
    "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; xor.b32 %r2, %t, 32; mad.lo.u32 %r2, %r2, 4, %r0;
    st.shared.u32 [%r1], %t;
    barrier.cluster.arrive.release.aligned; mov.u32 %r5, 1; barrier.cluster.wait.acquire.aligned;
    ld.shared.u32 %r3, [%r2];
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // second
    st.shared.u32 [%r1], %r3; st.global.u32 [%out], %r3;";

#[test]
fn the_barrier_of_a_cluster_joins_its_threads() {
    for order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        let run = kernel(EXCHANGE).threads(64).shared(256).options(|options| options.warp_order = order).clean();
        assert_eq!(run.results(), (0..64).map(|t| t ^ 32).collect::<Vec<_>>());
    }
    for (from, to) in [
        ("arrive.release.aligned", "arrive.relaxed.aligned"),
        ("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // second", ""),
        ("barrier.cluster.wait.acquire.aligned;", ""),
    ] {
        let run = kernel(&EXCHANGE.replace(from, to)).threads(64).shared(256).run();
        assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{to}\n{}", run.report);
    }
}

#[test]
fn a_missing_arrival_at_the_cluster_is_a_deadlock() {
    let body = "setp.eq.u32 %p1, %warp, 0; @%p1 bra wait; barrier.cluster.arrive; wait: barrier.cluster.wait; //!";
    let run = kernel(body).threads(96).run();
    let message = &run.finding(Kind::Deadlock).message;
    assert!(message.contains("the barrier of the cluster, phase 0: 1 of 3 arrivals"), "{message}");
}

#[test]
fn addresses_map_to_the_own_block() {
    let body = "mov.u32 %r0, 77; mapa.shared::cluster.u32 %r1, %r0, 0; mov.u64 %d0, 5; mapa.u64 %d1, %d0, %r2;
        cvt.u32.u64 %r3, %d1; st.global.v2.u32 [%out], {%r1, %r3};";
    let zero = format!("mov.u32 %r2, 0; {body}");
    assert_eq!(kernel(&zero).clean().of(9)[..2], [77, 5]);
    kernel(&format!("mov.u32 %r2, 1; {body}")).run().finding(Kind::InvalidOperand);
}

#[test]
fn one_lane_is_elected() {
    let body = "mov.u32 %r0, 0; elect.sync %r1|%p1, -1; @%p1 mov.u32 %r0, 1;
        elect.sync _|%p2, 0xffffffff; selp.u32 %r2, 1, 0, %p2; st.global.v4.u32 [%out], {%r0, %r1, %r2, 0};";
    let run = kernel(body).threads(64).clean();
    assert!((0..64).all(|t| run.of(t) == [u32::from(t % 32 == 0), 0, u32::from(t % 32 == 0), 0]));
    let some = "setp.ge.u32 %p1, %lane, 12; @!%p1 bra done; elect.sync %r1|%p2, 0xfffff000; done: mov.u32 %r2, 3;
        @%p1 st.global.u32 [%out], %r1;";
    assert_eq!(kernel(some).clean().of(20)[0], 12);
    kernel("setp.ge.u32 %p1, %lane, 12; @!%p1 bra done; elect.sync %r1|%p2, -1; done:").run().finding(Kind::Diverged);
}

#[test]
fn warps_of_a_group_change_their_registers_together() {
    let body = "setp.lt.u32 %p1, %t, 128; @%p1 bra first; setmaxnreg.inc.sync.aligned.u32 240; bra done;
        first: setmaxnreg.dec.sync.aligned.u32 24; //!\n done:";
    kernel(body).threads(256).clean();
    let run = kernel(&body.replace("128", "96")).threads(256).run();
    assert_eq!(run.finding(Kind::Diverged).at.line, run.line("//!"));
    let alone = kernel("setp.eq.u32 %p1, %warp, 2; @%p1 setmaxnreg.dec.sync.aligned.u32 40;").threads(128).run();
    assert!(alone.finding(Kind::Diverged).message.contains("40"), "{}", alone.report);
    let lanes = "setp.lt.u32 %p1, %lane, 9; @%p1 bra done; setmaxnreg.dec.sync.aligned.u32 40; done: bar.sync 0;";
    assert!(kernel(lanes).threads(128).run().report.findings.iter().any(|finding| finding.kind == Kind::Diverged));
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "setmaxnreg.inc.sync.aligned.u32 20;",
        "setmaxnreg.inc.sync.aligned.u32 100;",
        "setmaxnreg.dec.sync.aligned.u32 264;",
        "setmaxnreg.dec.sync.aligned.u32 %r1;",
        "setmaxnreg.dec.aligned.u32 24;",
        "elect.sync %r1, -1;",
        "elect %r1|%p1, -1;",
        "barrier.cluster.sync.aligned;",
        "barrier.cluster.arrive 0;",
        "mapa.shared::cluster.u32 %r1, %d0, 0;",
    ] {
        refused(wrong);
    }
}

#[test]
fn hints_change_nothing() {
    kernel("prefetch.tensormap [%in]; griddepcontrol.wait; griddepcontrol.launch_dependents;").clean();
}
