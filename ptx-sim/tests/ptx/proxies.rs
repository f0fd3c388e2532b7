//! The generic and the asynchronous proxy: what must be fenced, and who sees what.

use crate::common::{Kernel, kernel};
use ptx_sim::{Finding, Kind, WarpOrder};

/// 64 threads, of which thread 0 may do bulk copies; an mbarrier in `%r0` that expects one arrival, and 256 bytes behind
/// `%r1`, of which each thread has 4 in `%r2`.
fn block(body: &str) -> Kernel {
    let text = format!(
        "mov.u32 %r0, bar; mov.u32 %r1, tile; mad.lo.u32 %r2, %t, 4, %r1; setp.eq.u32 %p1, %t, 0;
         @%p1 mbarrier.init.shared::cta.b64 [%r0], 1; //! init
         @%p1 fence.mbarrier_init.release.cluster;
         bar.sync 0;
         {body}"
    );
    let module = ".shared .align 8 .b8 bar[8]; .shared .align 128 .b8 tile[256];";
    kernel(&text).module(module).threads(64).input(&(1..65).collect::<Vec<_>>())
}

const LOAD: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 256;
    @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 256, [%r0]; //! load\n";
const STORE: &str = "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%in], [%r1], 256; //! store
    @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;\n";
const WAIT: &str = "W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0; @!%p2 bra W;\n";
const WRITE: &str = "st.shared.u32 [%r2], %t; //! write\n";
const FENCE: &str = "fence.proxy.async.shared::cta;\n";
const BARRIER: &str = "bar.sync 0;\n";
const READ: &str = "ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3; //! read\n";

#[track_caller]
fn clean(parts: &[&str]) {
    block(&parts.concat()).schedules().for_each(|kernel| drop(kernel.clean()));
}

/// Finds this and nothing else, in every schedule, at the instruction marked `at`.
#[track_caller]
fn finds(parts: &[&str], kind: Kind, at: &str) {
    for kernel in block(&parts.concat()).schedules() {
        let run = kernel.run();
        assert_eq!(run.finding(kind).at.line, run.line(&format!("//! {at}")), "{}", run.report);
    }
}

#[test]
fn writes_need_a_fence_and_a_barrier_before_a_bulk_store() {
    clean(&[WRITE, FENCE, BARRIER, STORE]);
    clean(&[WRITE, "fence.proxy.async;\n", BARRIER, STORE]);
    finds(&[WRITE, BARRIER, STORE], Kind::ProxyFence, "store");
    finds(&[FENCE, WRITE, BARRIER, STORE], Kind::ProxyFence, "store");
    finds(&[WRITE, BARRIER, "@%p1 fence.proxy.async.shared::cta;\n", STORE], Kind::ProxyFence, "store");
    finds(&[WRITE, "fence.proxy.async.global;\n", BARRIER, STORE], Kind::ProxyFence, "store");
    finds(&[WRITE, "@%p1 fence.proxy.async.shared::cta;\n", BARRIER, STORE], Kind::ProxyFence, "store");
    for kernel in block(&[WRITE, FENCE, STORE].concat()).schedules() {
        assert!(!kernel.run().report.is_clean());
    }
}

#[test]
fn other_orders_than_barriers_carry_a_fence_too() {
    let arrive = "bar.warp.sync -1; setp.lt.u32 %p3, %t, 32; @%p3 bra store; bar.arrive 1, 64; bra end; store: bar.sync 1, 64;\n";
    clean(&[WRITE, FENCE, arrive, STORE, "end:\n"]);
    finds(&[WRITE, arrive, STORE, "end:\n"], Kind::ProxyFence, "store");
}

#[test]
fn a_bulk_load_over_what_was_written_needs_a_fence_too() {
    clean(&[WRITE, FENCE, BARRIER, LOAD, WAIT, READ]);
    finds(&[WRITE, BARRIER, LOAD, WAIT, READ], Kind::ProxyFence, "load");
}

#[test]
fn a_bulk_load_over_what_was_read_needs_order_and_no_fence() {
    let again = LOAD.replace("//! load", "");
    let wait = WAIT.replace("], 0;", "], 1;").replace('W', "V");
    clean(&[&again, WAIT, READ, BARRIER, LOAD, &wait]);
    let early = [&again, WAIT, BARRIER, READ, "bar.warp.sync -1;\n", LOAD, &wait].concat();
    let run = block(&early).options(|options| options.warp_order = WarpOrder::Reverse).run();
    let race = run.finding(Kind::SharedRace);
    assert!([Some(&race.at), race.with.as_ref()].into_iter().flatten().any(|place| place.line == run.line("//! load")));
}

#[test]
fn the_asynchronous_proxy_sees_its_own_writes() {
    clean(&[LOAD, WAIT, STORE]);
}

#[test]
fn only_who_waits_sees_a_bulk_load() {
    clean(&[LOAD, WAIT, READ]);
    // One warp waits, and the other one meets it.
    clean(&[LOAD, "setp.lt.u32 %p3, %t, 32; @!%p3 bra met;\n", WAIT, "met: bar.sync 0;\n", READ]);
    let first = ["setp.lt.u32 %p3, %t, 32; @!%p3 bra met;\n", WAIT, "met:\n"].concat();
    for kernel in block(&[LOAD, &first, READ].concat()).schedules() {
        let run = kernel.run();
        let load = run.line("//! load");
        let of_load = |finding: &&Finding| {
            finding.at.line == load || finding.with.as_ref().is_some_and(|with| (with.line, with.warp) == (load, 0))
        };
        let found = run.report.findings.iter().find(of_load).map(|finding| finding.kind);
        assert!(matches!(found, Some(Kind::AsyncInFlight | Kind::SharedRace)), "{}", run.report);
    }
    for kernel in [[LOAD, READ, WAIT].concat(), [LOAD, &WAIT.replace("parity", "parity.relaxed.cta"), READ].concat()] {
        let run = block(&kernel).threads(32).run();
        let (kind, line) = (run.report.findings[0].kind, run.report.findings[0].at.line);
        assert!(
            matches!(kind, Kind::AsyncInFlight | Kind::SharedRace) && line == run.line("//! read"),
            "{}",
            run.report
        );
    }
}

#[test]
fn a_late_load_is_not_there_before_the_wait() {
    let run = block(&[LOAD, READ, WAIT].concat()).run();
    assert_eq!(run.results()[..32], [u32::MAX; 32]);
}

#[test]
fn the_initialisation_of_an_mbarrier_needs_a_fence_before_a_copy_completes_on_it() {
    let with = |fence: &str| {
        let fenced = "@%p1 fence.mbarrier_init.release.cluster;";
        let parts = [LOAD, WAIT, READ].concat();
        block(&parts).replace(fenced, fence)
    };
    with("@%p1 fence.proxy.async;").clean();
    for fence in ["", "setp.ne.u32 %p4, %t, 0; @%p4 fence.mbarrier_init.release.cluster;"] {
        let run = with(fence).run();
        let finding = run.finding(Kind::ProxyFence);
        assert_eq!(finding.at.line, run.line("//! load"));
        assert_eq!(finding.with.as_ref().map(|with| with.line), Some(run.line("//! init")));
    }
    // Ordinary arrivals need none.
    let plain = ["@%p1 mbarrier.arrive.shared::cta.b64 _, [%r0];\n", WAIT].concat();
    block(&plain).replace("@%p1 fence.mbarrier_init.release.cluster;", "").clean();
}

#[test]
fn a_fence_for_mbarriers_is_none_for_other_writes() {
    finds(&[WRITE, "fence.mbarrier_init.release.cluster;\n", BARRIER, STORE], Kind::ProxyFence, "store");
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "fence.proxy.alias;",
        "fence.proxy.async.local;",
        "fence.mbarrier_init.acquire.cluster;",
        "fence.mbarrier_init.release;",
    ] {
        crate::common::refused(wrong);
    }
}
