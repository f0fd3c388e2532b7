//! Distributed shared memory: what threads of one block do in the memory of another.

use crate::common::{Kernel, Run, kernel};
use ptx_sim::{Delivery, Kind};

/// Two blocks of a cluster: the address of dynamic shared memory in `%r1`, 4 bytes there of each thread in `%r2`, those of
/// the same thread of the other block in `%r3`, and the other block's rank in `%r4`. `%p1` holds in block 0.
fn pair(body: &str) -> Kernel {
    let text = format!(
        "mov.u32 %r1, dynamic; mad.lo.u32 %r2, %t, 4, %r1;
         mov.u32 %r4, %cluster_ctarank; setp.eq.u32 %p1, %r4, 0; xor.b32 %r4, %r4, 1;
         mapa.shared::cluster.u32 %r3, %r2, %r4;
         {body}"
    );
    kernel(&text).blocks(2).cluster([2, 1, 1]).shared(256)
}

const MEET: &str = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;\n";
const HAND_OUT: &str = "st.global.u32 [%out], %r5;\n";

/// The same in every schedule, with nothing found.
#[track_caller]
fn gives(body: &str, threads: u32, expected: impl Fn(u32) -> u32) {
    for kernel in pair(body).threads(threads).schedules() {
        assert_eq!(kernel.clean().results(), (0..2 * threads).map(&expected).collect::<Vec<_>>());
    }
}

/// A finding of this kind in every schedule, at the line with `//!!` if there is one.
#[track_caller]
fn finds(body: &str, kind: Kind) -> Vec<Run> {
    let kernel = pair(body);
    let runs = kernel.schedules().map(|kernel| {
        let run = kernel.run();
        let at = |line: u32| !body.contains("//!!") || line == run.line("//!!");
        let found = |finding: &&ptx_sim::Finding| finding.kind == kind && at(finding.at.line);
        assert!(run.report.findings.iter().any(|finding| found(&finding)), "no {kind}\n{}", run.report);
        run
    });
    runs.collect()
}

#[test]
fn a_block_reads_what_another_wrote() {
    for load in [
        "ld.shared::cluster.u32 %r5, [%r3];",
        "cvt.u64.u32 %d0, %r3; cvta.shared::cluster.u64 %d0, %d0; ld.u32 %r5, [%d0];",
        "cvta.shared.u64 %d0, dynamic; mapa.u64 %d0, %d0, %r4; mad.wide.u32 %d0, %t, 4, %d0; ld.u32 %r5, [%d0];",
        "ld.volatile.shared::cluster.u32 %r5, [%r3];",
    ] {
        for threads in [32, 64] {
            let body = format!("st.shared.u32 [%r2], %thread; {MEET} {load} {MEET} {HAND_OUT}");
            gives(&body, threads, |thread| thread ^ threads);
        }
    }
}

#[test]
fn a_block_writes_to_another() {
    for store in [
        "st.shared::cluster.u32 [%r3], %thread;",
        "atom.shared::cluster.exch.b32 %r6, [%r3], %thread;",
        "cvt.u64.u32 %d0, %r3; cvta.shared::cluster.u64 %d0, %d0; st.u32 [%d0], %thread;",
    ] {
        // An atomic operation needs a value.
        let body = format!("st.shared.u32 [%r2], 9; {MEET} {store} {MEET} ld.shared.u32 %r5, [%r2]; {HAND_OUT}");
        gives(&body, 32, |thread| thread ^ 32);
    }
    let plain = format!("{MEET} st.shared::cluster.u32 [%r3], %thread; {MEET} ld.shared.u32 %r5, [%r2]; {HAND_OUT}");
    gives(&plain, 32, |thread| thread ^ 32);
}

#[test]
fn blocks_add_in_one_place() {
    let body = format!(
        "setp.eq.u32 %p2, %thread, 0; @%p2 st.shared.u32 [%r1], 100; {MEET}
         mapa.shared::cluster.u32 %r6, %r1, 0; red.relaxed.cluster.shared::cluster.add.u32 [%r6], 1; {MEET}
         ld.shared::cluster.u32 %r5, [%r6]; {MEET} {HAND_OUT}"
    );
    gives(&body, 64, |_| 228);
}

#[test]
fn an_address_tells_its_block() {
    let body = "getctarank.shared::cluster.u32 %r5, %r3; getctarank.shared::cluster.u32 %r6, %r2;
         cvta.shared.u64 %d0, dynamic; getctarank.u64 %r7, %d0;
         cvt.u64.u32 %d1, %r3; cvta.shared::cluster.u64 %d1, %d1;
         isspacep.shared::cta %p2, %d0; isspacep.shared::cta %p3, %d1; isspacep.shared::cluster %p4, %d1;
         selp.u32 %r8, 1, 0, %p2; selp.u32 %r9, 2, 0, %p3; selp.u32 %r10, 4, 0, %p4;
         add.u32 %r8, %r8, %r9; add.u32 %r8, %r8, %r10;
         st.global.v4.u32 [%out], {%r5, %r6, %r7, %r8};";
    let run = pair(body).clean();
    assert_eq!((run.of(0), run.of(63)), ([1, 0, 0, 5], [0, 1, 1, 5]));
}

#[test]
fn a_remote_access_needs_a_barrier_before_it() {
    let write = "st.shared.u32 [%r2], %thread;\n";
    let read = format!("ld.shared::cluster.u32 %r5, [%r3]; //!!\n{MEET} {HAND_OUT}");
    // Whether the other block has begun is not known either.
    finds(&format!("{write} {read}"), Kind::AbsentBlock);
    finds(&format!("{MEET} {write} {read}"), Kind::SharedRace);
    let relaxed = MEET.replace("release", "relaxed");
    finds(&format!("{write} {relaxed} {read}"), Kind::SharedRace);
    // It has arrived, and does not wait.
    let arrive = "barrier.cluster.arrive.release.aligned;\n";
    let run = pair(&format!("{write} {arrive} {read}")).run();
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{}", run.report);
    let store = |before: &str| format!("{before} st.shared::cluster.u32 [%r3], 1; //!!\n {MEET}");
    finds(&store(""), Kind::AbsentBlock);
    assert!(pair(&store(MEET)).run().report.is_clean());
    finds(&store("st.shared.u32 [%r2], 1;\n"), Kind::SharedRace);
}

#[test]
fn a_fence_before_a_relaxed_arrival_orders() {
    let relaxed = MEET.replace("release", "relaxed");
    let body = |fence: &str| {
        format!("st.shared.u32 [%r2], %thread; {fence} {relaxed} ld.shared::cluster.u32 %r5, [%r3]; {MEET} {HAND_OUT}")
    };
    gives(&body("fence.acq_rel.cluster;"), 32, |thread| thread ^ 32);
    let early = body("").replace("st.shared.u32 [%r2]", "fence.acq_rel.cluster; st.shared.u32 [%r2]");
    assert!(pair(&early).run().report.findings.iter().any(|finding| finding.kind == Kind::SharedRace));
}

#[test]
fn who_may_have_ended_is_not_accessed() {
    let read = "ld.shared::cluster.u32 %r5, [%r3]; //!!\n";
    for run in finds(&format!("st.shared.u32 [%r2], 1; {MEET} {read} {HAND_OUT}"), Kind::AbsentBlock) {
        assert!(run.report.findings[0].message.contains("ended"), "{}", run.report);
    }
    let write = "st.shared::cluster.u32 [%r3], 1; //!!\n";
    finds(&format!("{MEET} {write}"), Kind::AbsentBlock);
    // An arrival that nobody waits for lets the other end; one that all wait for is enough, also without an order back.
    finds(&format!("{MEET} {write} barrier.cluster.arrive.aligned;"), Kind::AbsentBlock);
    // Block 1 runs on behind the end of block 0.
    let late = format!(
        "st.shared.u32 [%r2], 1; {MEET} @%p1 bra end; mov.u32 %r6, 0;
         spin: add.u32 %r6, %r6, 1; setp.lt.u32 %p2, %r6, 100000; @%p2 bra spin;
         {read} end:"
    );
    let runs = finds(&late, Kind::AbsentBlock);
    assert!(runs[0].report.findings[0].message.contains("which has ended"), "{}", runs[0].report);
}

#[test]
fn uninitialised_and_foreign_memory_is_found() {
    finds(&format!("{MEET} ld.shared::cluster.u32 %r5, [%r3]; //!!\n{MEET}"), Kind::UninitializedMemory);
    finds(&format!("{MEET} ld.shared::cluster.u32 %r5, [%r3+256]; //!!\n{MEET}"), Kind::OutOfBounds);
    finds(&format!("{MEET} ld.shared::cluster.u32 %r5, [%r3+2]; //!!\n{MEET}"), Kind::Misaligned);
    for (access, what) in [("ld.shared.u32 %r5, [%r3]", "block 1"), ("st.shared::cta.u32 [%r3], 1", "block 0")] {
        let runs = finds(&format!("st.shared.u32 [%r2], 1; {MEET} {access}; //!!\n{MEET}"), Kind::WrongSpace);
        let found = |run: &Run| run.report.findings.iter().any(|finding| finding.message.contains(what));
        assert!(runs.iter().any(found), "{}", runs[0].report);
    }
    let third =
        format!("mapa.shared::cluster.u32 %r3, %r2, 2; //!!\n {MEET} ld.shared::cluster.u32 %r5, [%r3]; {MEET}");
    finds(&third, Kind::InvalidOperand);
}

#[test]
fn races_between_blocks_name_both() {
    let body = format!("{MEET} st.shared.u32 [%r2], 1; //!!\n st.shared::cluster.u32 [%r3], 2; //! other\n {MEET}");
    let run = pair(&body).run();
    let race = run.report.findings.iter().find(|finding| finding.kind == Kind::SharedRace).expect("a race");
    let with = race.with.as_ref().expect("two accesses");
    assert_ne!(race.at.block, with.block);
    assert_eq!((race.at.warp, with.warp), (0, 0));
}

#[test]
fn the_barrier_of_the_cluster_orders_global_memory_too() {
    let body = |meet: &str| {
        format!(
            "mad.wide.u32 %in, %t, 4, %in; @%p1 st.global.u32 [%in], %t; {meet} ld.global.u32 %r5, [%in]; {HAND_OUT}"
        )
    };
    let with = |meet: &str, delivery| {
        let kernel = pair(&body(meet)).input(&[7; 32]);
        kernel.options(|options| options.delivery = delivery).run()
    };
    let run = with(MEET, Delivery::Late);
    assert!(run.report.is_clean(), "{}", run.report);
    assert_eq!(run.results(), (0..64).map(|thread| thread % 32).collect::<Vec<_>>());
    for meet in ["", &MEET.replace("release", "relaxed")] {
        with(meet, Delivery::Late).finding(Kind::GlobalRace);
    }
    assert!(
        with(&format!("fence.acq_rel.gpu; {}", MEET.replace("release", "relaxed")), Delivery::Late).report.is_clean()
    );
}

#[test]
fn clusters_are_apart() {
    // Block 2 writes where block 0 has, and waits for block 3 alone.
    let body = format!(
        "setp.eq.u32 %p2, %thread, 0; setp.eq.u32 %p3, %thread, 64; or.pred %p2, %p2, %p3;
        {MEET} @%p2 st.global.u32 [%in], 1; {MEET}"
    );
    pair(&body).input(&[0]).blocks(4).run().finding(Kind::GlobalRace);
    let reads = format!("@%p1 st.shared.u32 [%r2], 1; {MEET} @!%p1 ld.shared::cluster.u32 %r5, [%r3]; {MEET}");
    pair(&reads).blocks(8).clean();
}

#[test]
fn a_warp_that_ends_without_the_barrier_is_found() {
    let one = format!("setp.eq.u32 %p2, %thread, 40; @%p2 exit; {MEET}");
    // Threads that have ended are not waited for, warps that have are found.
    pair(&one).clean();
    let body = "@%p1 exit;\n barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; //!!\n";
    for run in finds(body, Kind::BarrierMismatch) {
        assert!(run.finding(Kind::BarrierMismatch).message.contains("1 of 2 warps"), "{}", run.report);
    }
    let twice = "barrier.cluster.arrive.aligned;\nbarrier.cluster.arrive.aligned; //!!\nbarrier.cluster.wait.aligned;";
    finds(twice, Kind::BarrierMismatch);
}

#[test]
fn a_cluster_with_more_warps_than_can_be_followed_is_given_up() {
    let many = kernel("barrier.cluster.arrive; barrier.cluster.wait; //!!").threads(1024).blocks(16);
    let run = many.clone().cluster([16, 1, 1]).run();
    assert_eq!(run.finding(Kind::InvalidOperand).at.line, run.line("//!!"));
    many.cluster([8, 1, 1]).clean();
}

#[test]
fn a_deadlock_names_warps_of_all_blocks() {
    let waits = "@!%p1 bra other; setp.eq.u32 %p2, %warp, 0; @!%p2 bra end; bar.sync 1, 64; other:
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; end: bar.sync 2;";
    let run = pair(waits).threads(64).run();
    let deadlock = run.report.findings.iter().find(|finding| finding.kind == Kind::Deadlock).expect("a deadlock");
    for part in ["block (0,0,0) warp 0 at barrier 1", "block (1,0,0) warp 1 at the barrier of the cluster"] {
        assert!(deadlock.message.contains(part), "{}", run.report);
    }
}
