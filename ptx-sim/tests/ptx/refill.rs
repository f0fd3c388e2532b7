//! A tile that the blocks of a cluster copy for each other, use and copy again, as CUTLASS's pipelines do
//! (`PipelineTmaAsync`, whose `ClusterBarrier::arrive(cta_id)` names no scope): messages for the block alone must do between
//! asynchronous operations, and for nothing else.

use crate::common::{Kernel, kernel};
use ptx_sim::Kind;

/// Waits for the first tile, and for the second.
const FULL: &str = "FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], 0; @!%p4 bra FULL;\n";
const FULL_AGAIN: &str = "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], 1; @!%p4 bra AGAIN;\n";

/// A product of ones with the tile: every sum is that of a column.
const PRODUCT: &str = "wgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 \
    {%f0, %f1, %f2, %f3}, {%r8, %r8, %r8, %r8}, %d0, 0, 1, 1, 0; wgmma.commit_group.sync.aligned;\n";
const PRODUCT_WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";
/// Thread 0 copies the tile to global memory.
const STORE: &str = "@%p0 cp.async.bulk.global.shared::cta.bulk_group [%d2], [%r2], 256; cp.async.bulk.commit_group;\n";
const STORE_WAIT: &str = "cp.async.bulk.wait_group.read 0;\n";
/// Every thread reads a word of it, and so does its warp.
const LOAD: &str = "ld.shared.u32 %r15, [%r13]; bar.warp.sync -1;\n";

/// Two lanes of every warp arrive, one at each block.
const ARRIVE: &str =
    "@%p3 mapa.shared::cluster.u32 %r12, %r1, %lane; @%p3 mbarrier.arrive.shared::cluster.b64 _, [%r12];\n";
const EMPTY: &str = "EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r1], 0; @!%p4 bra EMPTY;\n";
const EXPECT: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 256;\n";
const REFILL: &str = "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster \
    [%r6], [%d1+256], 128, [%r0], %h1; //! refill\n";

/// What the four warps that use the tile do with the first one, and what the warp that copies does until it copies the
/// second one. The first is all ones of bf16, and the words of the second are 1000 and what follows.
///
/// `%r0` is the mbarrier of the tile, which is in `%r2`, and `%r1` that of its users, of both blocks; `%r14` is the other
/// block's tile. `%p0` holds in the first thread, `%p1` in one of the warp that copies.
fn users(uses: &[&str], copies: &[&str]) -> Kernel {
    let (uses, copies) = (uses.concat(), copies.concat());
    let text = format!(
        "mov.u32 %r0, full; mov.u32 %r1, empty; mov.u32 %r2, tile; mov.u32 %r3, %cluster_ctarank;
         setp.eq.u32 %p0, %t, 0; setp.eq.u32 %p1, %t, 128; setp.ge.u32 %p2, %t, 128; setp.lt.u32 %p3, %lane, 2;
         @%p0 mbarrier.init.shared::cta.b64 [%r0], 1; @%p0 mbarrier.init.shared::cta.b64 [%r1], 8;
         @%p0 fence.mbarrier_init.release.cluster;
         barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;
         mov.u32 %r8, 0x3f803f80; and.b32 %r4, %r2, 0x3ffff; shr.u32 %r4, %r4, 4;
         cvt.u64.u32 %d0, %r4; or.b64 %d0, %d0, 0x800080000; // descriptor
         shl.b32 %r5, %r3, 7; add.u32 %r6, %r2, %r5; cvt.u64.u32 %d1, %r5; add.u64 %d1, %in, %d1; // half of the tile
         mad.wide.u32 %d2, %r3, 256, %in; add.u64 %d2, %d2, 512; mov.u16 %h1, 3; mov.f32 %f0, 0f41800000;
         xor.b32 %r14, %r3, 1; mapa.shared::cluster.u32 %r14, %r2, %r14;
         and.b32 %r13, %t, 63; mad.lo.u32 %r13, %r13, 4, %r2;
         @%p2 bra copies;
         {uses}
         {FULL_AGAIN}
         ld.shared.u32 %r15, [%r13]; st.global.u32 [%out], %r15; st.global.f32 [%out+4], %f0;
         bra end;
         copies:
         {EXPECT} {first}
         {copies}
         end: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;",
        first = REFILL.replace("+256", "").replace("//! refill", "")
    );
    let module = ".shared .align 8 .b8 full[8]; .shared .align 8 .b8 empty[8]; .shared .align 128 .b8 tile[256];";
    let input: Vec<u32> = [0x3f80_3f80; 64].into_iter().chain(1000..1064).chain([0; 128]).collect();
    kernel(&text).module(module).threads(160).blocks(2).cluster([2, 1, 1]).input(&input)
}

/// Uses of the tile before an arrival, and the second copy behind the wait for all of these.
fn refill(uses: &[&str], arrive: &str, empty: &str) -> Kernel {
    users(&[&[FULL], uses, &[arrive]].concat(), &[empty, EXPECT, REFILL])
}

/// Nothing is wrong in any schedule, the first tile was whole when it was used, and so is the second.
#[track_caller]
fn clean(kernel: &Kernel, stores: bool) {
    for kernel in kernel.schedules() {
        let run = kernel.clean();
        for thread in (0..320).filter(|thread| thread % 160 < 128) {
            assert_eq!(run.of(thread)[..2], [1000 + thread as u32 % 160 % 64, 16f32.to_bits()]);
        }
        let stored = if stores { 0x3f80_3f80 } else { 0 };
        assert_eq!(run.input[128..], [stored; 128]);
    }
}

/// In every schedule a finding of one of these kinds at the line with a mark.
#[track_caller]
fn finds(kernel: &Kernel, kinds: &[Kind], mark: &str) {
    for kernel in kernel.schedules() {
        let run = kernel.run();
        let line = run.line(mark);
        let is_one = |finding: &ptx_sim::Finding| finding.at.line == line && kinds.contains(&finding.kind);
        assert!(run.report.findings.iter().any(is_one), "none of {kinds:?}\n{}", run.report);
    }
}

#[track_caller]
fn finds_the_refill(kernel: &Kernel) {
    finds(kernel, &[Kind::SharedRace, Kind::AsyncInFlight], "//! refill");
}

const RELAXED: &str = "mbarrier.arrive.relaxed.cluster.";
const ASYNC: [[&str; 2]; 2] = [[PRODUCT, PRODUCT_WAIT], [STORE, STORE_WAIT]];

#[test]
fn an_arrival_and_a_wait_of_any_scope_let_a_copy_follow_what_is_done() {
    for uses in ASYNC {
        for arrive in ["mbarrier.arrive.", "mbarrier.arrive.release.cluster.", RELAXED] {
            for wait in ["parity.", "parity.acquire.cluster.", "parity.relaxed.cluster."] {
                let (arrive, empty) = (ARRIVE.replace("mbarrier.arrive.", arrive), EMPTY.replace("parity.", wait));
                clean(&refill(&uses, &arrive, &empty), uses[0] == STORE);
            }
        }
    }
}

#[test]
fn a_relaxed_wait_tells_that_a_copy_is_done() {
    let full = FULL.replace("parity.", "parity.relaxed.cluster.");
    clean(&users(&[&full, ARRIVE], &[EMPTY, EXPECT, REFILL]), false);
    ASYNC.iter().for_each(|uses| {
        let kernel = users(&[&[&full[..]], &uses[..], &[ARRIVE]].concat(), &[EMPTY, EXPECT, REFILL]);
        finds(&kernel, &[Kind::SharedRace], if uses[0] == STORE { "%r2], 256;" } else { "wgmma.mma_async" });
    });
}

#[test]
fn what_is_done_is_passed_on() {
    // Warp 0 waits for all of its block, and arrives alone for them.
    let arrive = format!("bar.sync 1, 128; setp.ge.u32 %p5, %t, 32; @%p5 bra past; {ARRIVE} past:\n");
    let one = |uses| refill(uses, &arrive, EMPTY).replace("[%r1], 8;", "[%r1], 2;");
    ASYNC.iter().for_each(|uses| clean(&one(uses), uses[0] == STORE));
    // A warp that hears of it tells the one that copies.
    let between = "@%p5 bra tell; bar.sync 2, 64; bra copy; tell:";
    let told = [EMPTY, "bar.sync 2, 64; bra end; copy:\n", EXPECT, REFILL].concat();
    let kernel = refill(&[STORE, STORE_WAIT], ARRIVE, "").threads(192);
    let kernel = kernel.replace(&[EXPECT, REFILL].concat(), &format!("{between} {told}"));
    let kernel = kernel.replace("@%p2 bra copies;", "setp.ge.u32 %p5, %t, 160; @%p2 bra copies;");
    kernel.schedules().for_each(|kernel| drop(kernel.clean()));
}

#[test]
fn a_read_that_is_not_waited_for_before_the_arrival_is_found() {
    for [starts, wait] in ASYNC {
        for arrive in [ARRIVE, &ARRIVE.replace("mbarrier.arrive.", RELAXED)] {
            finds_the_refill(&refill(&[starts], &[arrive, wait].concat(), EMPTY));
        }
    }
    finds_the_refill(&refill(&[STORE], ARRIVE, EMPTY));
}

#[test]
fn an_arrival_before_the_wait_for_the_copy_is_found() {
    finds_the_refill(&users(&[ARRIVE, FULL], &[EMPTY, EXPECT, REFILL]));
    ASYNC
        .iter()
        .for_each(|uses| finds_the_refill(&users(&[&[ARRIVE, FULL][..], uses].concat(), &[EMPTY, EXPECT, REFILL])));
}

#[test]
fn reads_by_threads_need_the_scope_of_the_cluster() {
    let arrive = ARRIVE.replace("arrive.", "arrive.release.cluster.");
    let empty = EMPTY.replace("parity.", "parity.acquire.cluster.");
    clean(&refill(&[LOAD], &arrive, &empty), false);
    for (arrive, empty) in [(ARRIVE, EMPTY), (&arrive, EMPTY), (ARRIVE, &empty)] {
        finds(&refill(&[LOAD], arrive, empty), &[Kind::SharedRace], "//! refill");
        // Also where an asynchronous read of the same comes behind it.
        finds(&refill(&[LOAD, STORE, STORE_WAIT], arrive, empty), &[Kind::SharedRace], "//! refill");
        finds(&refill(&[LOAD, PRODUCT, PRODUCT_WAIT], arrive, empty), &[Kind::SharedRace], "//! refill");
    }
}

#[test]
fn writes_by_threads_need_the_scope_of_the_cluster() {
    for uses in [&ASYNC[0][..], &ASYNC[1], &[]] {
        for write in ["st.shared::cluster.u32 [%r14], 7;", "atom.shared::cluster.add.u32 %r15, [%r14], 7;"] {
            let write = format!("@%p1 {write} //! write\n");
            let kernel = users(&[&[FULL], uses, &[ARRIVE]].concat(), &[EMPTY, &write, EXPECT, REFILL]);
            finds(&kernel, &[Kind::SharedRace], "//! write");
        }
    }
}

#[test]
fn readers_of_a_copy_need_more_than_to_know_that_it_is_done() {
    let read = |read: &str| format!("@%p1 {read} //! read\n");
    let other = read("ld.shared::cluster.u32 %r15, [%r14];");
    finds(&users(&[FULL, ARRIVE], &[EMPTY, &other, EXPECT, REFILL]), &[Kind::SharedRace], "//! read");
    // In the own block messages without a scope will do, and relaxed ones will not.
    let store = read("cp.async.bulk.global.shared::cta.bulk_group [%d2], [%r2], 256;");
    let end = ["@%p1 cp.async.bulk.commit_group;\n", STORE_WAIT].concat();
    for own in [read("ld.shared.u32 %r15, [%r2];"), store] {
        let reads = |arrive: &str, empty| users(&[FULL, arrive], &[empty, &own, &end]).replace(FULL_AGAIN, "");
        reads(ARRIVE, EMPTY).schedules().for_each(|kernel| drop(kernel.clean()));
        let empty = EMPTY.replace("parity.", "parity.relaxed.cluster.");
        finds(&reads(ARRIVE, &empty), &[Kind::SharedRace], "//! read");
        let arrive = ARRIVE.replace("mbarrier.arrive.", RELAXED);
        finds(&reads(&arrive, EMPTY), &[Kind::SharedRace], "//! read");
    }
}

#[test]
fn a_missing_arrival_or_wait_is_found() {
    for uses in ASYNC {
        let own = ARRIVE.replace("%r1, %lane;", "%r1, %r3;");
        finds_the_refill(&refill(&uses, &own, EMPTY));
        finds_the_refill(&refill(&uses, ARRIVE, ""));
    }
    // The warp that has read says nothing.
    let others = format!("setp.lt.u32 %p5, %t, 32; @%p5 bra past; {ARRIVE} past:\n");
    finds_the_refill(&refill(&ASYNC[1], &others, EMPTY).replace("[%r1], 8;", "[%r1], 6;"));
}
