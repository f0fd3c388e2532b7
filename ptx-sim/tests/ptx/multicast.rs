//! mbarriers and bulk copies of a cluster: arrivals from other blocks, copies to them.

use crate::common::{Kernel, gives, kernel, refused};
use ptx_sim::{Delivery, Kind};

/// Two blocks, each with an mbarrier in `%r0` that expects one arrival and 512 bytes in `%r1`, of which each thread has 4 in
/// `%r2`; the other block's are `%r5`, `%r6`, `%r7`, and its rank is `%r4`. `%p1` holds in thread 0 of each block, `%p2` in
/// block 0, `%p3` in thread 0 of block 0.
fn pair(body: &str) -> Kernel {
    let text = format!(
        "mov.u32 %r0, bar; mov.u32 %r1, tile; mad.lo.u32 %r2, %t, 4, %r1; mov.u32 %r4, %cluster_ctarank;
         setp.eq.u32 %p1, %t, 0; setp.eq.u32 %p2, %r4, 0; and.pred %p3, %p1, %p2; xor.b32 %r4, %r4, 1;
         mapa.shared::cluster.u32 %r5, %r0, %r4; mapa.shared::cluster.u32 %r6, %r1, %r4;
         mapa.shared::cluster.u32 %r7, %r2, %r4;
         @%p1 mbarrier.init.shared::cta.b64 [%r0], 1; //! init
         @%p1 fence.mbarrier_init.release.cluster;
         barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned; // all have begun
         {body}
         barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // none ends before"
    );
    let module = ".shared .align 8 .b8 bar[8]; .shared .align 128 .b8 tile[512];";
    kernel(&text).module(module).blocks(2).cluster([2, 1, 1]).input(&(1000..1128).collect::<Vec<_>>())
}

const WAIT: &str = "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p4, [%r0], 0; @!%p4 bra W;\n";
const HAND_OUT: &str = "ld.shared.u32 %r8, [%r2]; st.global.u32 [%out], %r8; //! read\n";

/// A finding of one of these kinds in every schedule; the messages of those.
#[track_caller]
fn finds(kernel: &Kernel, kinds: &[Kind]) -> Vec<String> {
    let message = |kernel: Kernel| {
        let report = kernel.run().report;
        let found = report.findings.iter().find(|finding| kinds.contains(&finding.kind));
        found.map(|finding| finding.message.clone()).unwrap_or_else(|| panic!("none of {kinds:?}\n{report}"))
    };
    kernel.schedules().map(message).collect()
}

/// Every thread writes to the other block and one of each block says so.
fn handed(arrive: &str, wait: &str) -> Kernel {
    pair(&format!("st.shared::cluster.u32 [%r7], %thread; bar.sync 0; {arrive} {wait} {HAND_OUT}"))
}

const ARRIVE: &str = "@%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r5];";

#[test]
fn an_arrival_from_another_block_ends_a_phase() {
    gives(&handed(ARRIVE, WAIT).threads(64), |thread| thread ^ 64);
    gives(&handed(ARRIVE, &WAIT.replace("try_wait", "test_wait")), |thread| thread ^ 32);
    let fenced = ARRIVE.replace("release", "relaxed");
    gives(&handed(&format!("fence.acq_rel.cluster; {fenced}"), WAIT), |thread| thread ^ 32);
    // Bytes are expected from afar.
    let expects = "@%p1 mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r5], 0;";
    gives(&handed(expects, WAIT), |thread| thread ^ 32);
}

#[test]
fn an_arrival_or_a_wait_for_the_block_alone_orders_no_other_block() {
    for arrive in ["relaxed.cluster", "release.cta"] {
        finds(&handed(&ARRIVE.replace("release.cluster", arrive), WAIT), &[Kind::SharedRace]);
    }
    for wait in ["relaxed.cluster", "acquire.cta"] {
        finds(&handed(ARRIVE, &WAIT.replace("acquire.cluster", wait)), &[Kind::SharedRace]);
    }
    // In the block itself they do.
    let own = "st.shared.u32 [%r2], %t; bar.warp.sync -1; @%p1 mbarrier.arrive.shared::cta.b64 _, [%r0];";
    gives(&pair(&format!("{own} {} {HAND_OUT}", WAIT.replace(".acquire.cluster", ""))), |thread| thread % 32);
}

#[test]
fn an_arrival_at_the_wrong_block_is_found() {
    let twice = ARRIVE.replace("@%p1", "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r0]; @%p1");
    finds(&handed(&twice, WAIT), &[Kind::Mbarrier, Kind::SharedRace]);
    finds(&handed(&ARRIVE.replace("shared::cluster", "shared::cta"), WAIT), &[Kind::WrongSpace]);
    let none = ARRIVE.replace("@%p1", "@%p3");
    assert!(finds(&handed(&none, WAIT), &[Kind::Deadlock])[0].contains("1 of 1 arrivals are missing"));
}

#[test]
fn a_block_must_not_end_before_an_arrival_at_it() {
    let end = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // none ends before";
    let last = |arrive: &str| pair(&format!("st.shared.u32 [%r2], 1; {arrive}")).replace(end, "");
    finds(&last(ARRIVE), &[Kind::AbsentBlock]);
    finds(&last("@%p1 mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [%r5], 0;"), &[Kind::AbsentBlock]);
    // It waits for that.
    gives(&last(&format!("{ARRIVE} {WAIT}")), |_| 0);
}

#[test]
fn the_initialisation_must_be_known_before_an_arrival() {
    let met = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned; // all have begun";
    let fence = "@%p1 fence.mbarrier_init.release.cluster;";
    finds(&handed(ARRIVE, WAIT).replace(met, ""), &[Kind::SharedRace, Kind::Mbarrier]);
    finds(&handed(ARRIVE, WAIT).replace(fence, ""), &[Kind::SharedRace]);
    // An arrival that releases needs no such fence, as long as no copy completes there.
    gives(&handed(ARRIVE, WAIT).replace(fence, "").replace("relaxed.aligned", "aligned"), |thread| thread ^ 32);
}

const EXPECT: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128;\n";
const COPY: &str = "@%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster \
                    [%r1], [%in], 128, [%r0], %h1; //! copy\n";

/// Block 0 copies 128 bytes to the blocks in a mask; each expects them.
fn multicast(mask: u32) -> Kernel {
    pair(&format!("mov.u16 %h1, {mask}; {EXPECT} {COPY} {WAIT} {HAND_OUT}"))
}

#[test]
fn a_copy_goes_to_several_blocks() {
    gives(&multicast(3), |thread| 1000 + thread % 32);
    let wait = ".acquire.cluster";
    gives(&multicast(3).replace(wait, ""), |thread| 1000 + thread % 32);
    let hint = "mov.u64 %d1, 0; @%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint";
    let hinted =
        multicast(3).replace(&COPY[..COPY.find(" [").expect("operands")], hint).replace("%h1; //", "%h1, %d1; //");
    gives(&hinted, |thread| 1000 + thread % 32);
    // To the other block alone, and to all four of a cluster.
    let other =
        pair(&format!("mov.u16 %h1, 2; @%p2 bra from; {EXPECT} from: {COPY} @%p2 bra end; {WAIT} {HAND_OUT} end:"));
    gives(&other, |thread| if thread < 32 { 0 } else { 1000 + thread % 32 });
    gives(&multicast(15).blocks(8).cluster([4, 1, 1]), |thread| 1000 + thread % 32);
}

#[test]
fn a_copy_to_one_other_block_names_it_by_its_address() {
    let copy = "@%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r6], [%in], 128, [%r5];\n";
    let body = format!("@%p2 bra from; {EXPECT} from: {copy} @%p2 bra end; {WAIT} {HAND_OUT} end:");
    gives(&pair(&body), |thread| if thread < 32 { 0 } else { 1000 + thread % 32 });
    finds(&pair(&body.replace("[%r5];\n", "[%r0];\n")), &[Kind::InvalidOperand]);
}

#[test]
fn a_wrong_mask_is_found() {
    for mask in [1, 2] {
        assert!(finds(&multicast(mask), &[Kind::Deadlock])[0].contains("128 bytes are missing"));
    }
    for mask in [0, 4, 7] {
        finds(&multicast(mask), &[Kind::InvalidOperand]);
    }
}

#[test]
fn bytes_that_are_not_as_expected_are_found() {
    for bytes in [112, 144] {
        finds(&multicast(3).replace("[%r0], 128;", &format!("[%r0], {bytes};")), &[Kind::Deadlock]);
    }
    let none =
        multicast(3).replace("arrive.expect_tx.shared::cta.b64 _, [%r0], 128;", "arrive.shared::cta.b64 _, [%r0];");
    finds(&none, &[Kind::Mbarrier, Kind::AsyncInFlight, Kind::SharedRace, Kind::Deadlock]);
}

#[test]
fn a_multicast_needs_all_mbarriers_fenced_and_known() {
    let fence = "@%p1 fence.mbarrier_init.release.cluster;";
    let ordered = multicast(3).replace("relaxed.aligned", "aligned");
    gives(&ordered, |thread| 1000 + thread % 32);
    finds(&ordered.clone().replace(fence, ""), &[Kind::ProxyFence]);
    finds(&ordered.replace(fence, &fence.replace("%p1", "%p3")), &[Kind::ProxyFence]);
}

#[test]
fn a_multicast_is_waited_for_in_every_block() {
    let block_1 = format!("@!%p2 bra read; {WAIT} read: ");
    finds(&multicast(3).replace(WAIT.trim(), block_1.trim()), &[Kind::AsyncInFlight, Kind::SharedRace]);
    // Block 1 has written there, or read, and says so to nobody, or without a fence between the proxies.
    let before = |what: &str| multicast(3).replace("mov.u16 %h1, 3;", &format!("mov.u16 %h1, 3; {what}"));
    let met = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    finds(&before("st.shared.u32 [%r2], 1;"), &[Kind::SharedRace, Kind::AsyncInFlight]);
    finds(&before(&format!("st.shared.u32 [%r2], 1; {met}")), &[Kind::ProxyFence]);
    gives(&before(&format!("st.shared.u32 [%r2], 1; fence.proxy.async.shared::cta; {met}")), |t| 1000 + t % 32);
}

#[test]
fn copies_without_an_end_are_found() {
    let kernel = pair(&format!("mov.u16 %h1, 3; {EXPECT} {COPY}")).options(|options| options.delivery = Delivery::Late);
    let run = kernel.run();
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::AsyncUnfinished), "{}", run.report);
}

/// Every thread writes, and one of each block copies that to the other one.
fn between(copy: &str, after: &str) -> Kernel {
    pair(&format!(
        "add.u32 %r9, %r1, 256; mad.lo.u32 %r8, %t, 4, %r9; add.u32 %r10, %thread, 500; st.shared.u32 [%r8], %r10;
         fence.proxy.async.shared::cta; // source
         bar.sync 0; {EXPECT} {copy} {after} {WAIT} {HAND_OUT}"
    ))
}

const SEND: &str =
    "@%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r6], [%r9], 128, [%r5];\n";

#[test]
fn bytes_are_copied_from_block_to_block() {
    gives(&between(SEND, ""), |thread| 500 + (thread ^ 32));
    finds(&between(SEND, "").replace("fence.proxy.async.shared::cta; // source", ""), &[Kind::ProxyFence]);
    finds(&between(&SEND.replace("[%r9], 128", "[%r9], 120"), ""), &[Kind::InvalidOperand]);
    finds(&between(&SEND.replace("[%r9], 128", "[%r9+8], 128"), ""), &[Kind::Misaligned]);
    finds(&between(&SEND.replace("[%r9], 128", "[%r9+192], 128"), ""), &[Kind::OutOfBounds]);
    finds(&between(&SEND.replace("[%r9], 128", "[%r6], 128"), ""), &[Kind::WrongSpace]);
    finds(&between(&SEND.replace("[%r6]", "[%r1]"), ""), &[Kind::InvalidOperand]);
}

#[test]
fn the_source_of_a_copy_is_free_when_its_receiver_says_so() {
    let write = "st.shared.u32 [%r8], 9;";
    finds(&between(SEND, write), &[Kind::AsyncInFlight]);
    let received = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    let late = |met: &str| between(SEND, "").replace("//! read", &format!("\n{met} add.u32 %r8, %r2, 256; {write}"));
    gives(&late(received), |thread| 500 + (thread ^ 32));
    finds(&late("bar.sync 0;"), &[Kind::SharedRace, Kind::AsyncInFlight]);
    // The block must not end before that either.
    let ends = between(SEND, "")
        .replace("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // none ends before", "");
    finds(&ends, &[Kind::AbsentBlock, Kind::AsyncUnfinished]);
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "mbarrier.init.shared::cluster.b64 [%r0], 1;",
        "mbarrier.inval.shared::cluster.b64 [%r0];",
        "mbarrier.try_wait.parity.acquire.cluster.shared::cluster.b64 %p1, [%r0], 0;",
        "mbarrier.test_wait.parity.shared::cluster.b64 %p1, [%r0], 0;",
        "mbarrier.arrive.expect_tx.shared::cluster.b64 %d0, [%r0], 8;",
    ] {
        refused(wrong);
    }
}
