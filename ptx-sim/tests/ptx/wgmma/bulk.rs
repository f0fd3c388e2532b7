//! Operands that bulk copies bring: what the asynchronous proxy writes and reads.

use super::{COMMIT, Case, TILE, WAIT, by_rows, plain};
use crate::common::Run;
use ptx_sim::{Delivery, Kind, WarpOrder};

/// What thread 0 does to have the tiles copied to where they belong.
const LOAD: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], 65536;
@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%in], 65536, [%r10];";

/// The wait for the tiles.
const FULL: &str = "FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r10], 0; @!%p4 bra FULL;";

/// The kernel with a bulk copy in place of the stores that fill the tiles.
pub(super) fn copied(body: &str) -> String {
    let (start, rest) = body.split_once("mov.u32 %r1, %t;").expect("it is filled");
    let (_, rest) = rest.split_once("bar.sync 0;").expect("with a barrier behind");
    format!(
        "{start} add.u32 %r10, %r0, {}; setp.eq.u32 %p1, %t, 0;
@%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
@%p1 fence.mbarrier_init.release.cluster;
bar.sync 0;
{LOAD}
{FULL}
{rest}",
        2 * TILE
    )
}

fn kinds(run: &Run, line: u32) -> Vec<Kind> {
    run.report.findings.iter().filter(|finding| finding.at.line == line).map(|finding| finding.kind).collect()
}

#[test]
fn copied_operands_need_no_fence_between_the_proxies() {
    let case = Case { columns: 128, steps: 2, b: by_rows(64), ..plain() };
    for warp_order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        for delivery in [Delivery::Late, Delivery::Immediate] {
            let kernel = case.kernel(|body| copied(&body));
            let run = kernel.options(|options| (options.warp_order, options.delivery) = (warp_order, delivery)).clean();
            assert!(case.found(&run) == case.expected(), "{warp_order:?} {delivery:?}");
        }
    }
}

#[test]
fn every_warp_must_wait_for_the_copy() {
    let case = plain();
    let run = case.mutant(|body| copied(&body).replace(FULL, ""));
    assert_eq!(kinds(&run, run.line("wgmma.mma_async")), [Kind::AsyncInFlight]);
    let first = format!("setp.ge.u32 %p5, %t, 32; @%p5 bra past; {FULL} past:");
    for warp_order in [WarpOrder::RoundRobin, WarpOrder::Reverse] {
        let kernel = case.kernel(|body| copied(&body).replace(FULL, &first));
        let run = kernel.options(|options| options.warp_order = warp_order).run();
        let kinds = kinds(&run, run.line("wgmma.mma_async"));
        let all = [Kind::AsyncInFlight, Kind::SharedRace, Kind::UninitializedMemory];
        assert!(!kinds.is_empty() && kinds.iter().all(|kind| all.contains(kind)), "{warp_order:?} {}", run.report);
    }
}

#[test]
fn the_next_copy_must_come_after_the_wait() {
    let case = plain();
    let next = LOAD.replace("[%r10];", "[%r10]; // next");
    let full = "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r10], 1; @!%p4 bra AGAIN;";
    let with = |text: &str| text.replace("next", &next) + full;
    let run = case.mutant(|body| copied(&body).replace(COMMIT, &format!("{COMMIT} {}", with("next\n"))));
    assert_eq!(kinds(&run, run.line("// next")), [Kind::AsyncInFlight]);
    // Thread 0 knows from the wait of its own warp that the others have read too.
    let kernel = case.kernel(|body| copied(&body).replace(WAIT, &format!("{WAIT} {}", with("next\n"))));
    assert!(case.found(&kernel.clean()) == case.expected());
}
