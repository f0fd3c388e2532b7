//! A pipeline as kernels for Hopper have it, and every way to break it.

use crate::common::{Kernel, Map, kernel};
use ptx_sim::{Kind, Swizzle};

/// Tiles of 16 rows of 128 bytes, whose sum is wanted, word by word.
const TILES: u32 = 5;
const ROWS: u64 = 16;

/// Warp 0 loads tiles into two stages; warps 1 and 2 add them up, half of the rows each, write the sums in the same order
/// to a third buffer, and one thread stores that. `full` is at 0 and 8, `empty` at 16 and 24.
const PIPELINE: &str = "
    mov.u32 %r0, bars; mov.u32 %r1, stages; setp.eq.u32 %p1, %t, 0; @!%p1 bra ready;
    mbarrier.init.shared::cta.b64 [%r0], 1; mbarrier.init.shared::cta.b64 [%r0+8], 1;
    mbarrier.init.shared::cta.b64 [%r0+16], 2; mbarrier.init.shared::cta.b64 [%r0+24], 2;
    fence.mbarrier_init.release.cluster;
    ready: bar.sync 0;
    mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u32 %r4, 0;
    setp.eq.u32 %p2, %warp, 0; @!%p2 bra consume;
    elect.sync _|%p3, -1; @!%p3 bra done;
    produce:
    mad.lo.u32 %r5, %r3, 8, %r0; xor.b32 %r6, %r4, 1; mad.lo.u32 %r7, %r3, 2048, %r1; mul.lo.u32 %r8, %r2, 16;
    EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5+16], %r6; @!%p4 bra EMPTY;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 2048;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r7], [%map0, {0, %r8}], [%r5];
    add.u32 %r2, %r2, 1; xor.b32 %r3, %r3, 1; setp.eq.u32 %p4, %r3, 0; @%p4 xor.b32 %r4, %r4, 1;
    setp.lt.u32 %p4, %r2, 5; @%p4 bra produce;
    bra done;
    consume:
    mov.u32 %r16, 0; mov.u32 %r17, 0; mov.u32 %r18, 0; mov.u32 %r19, 0; mov.u32 %r20, 0; mov.u32 %r21, 0; mov.u32 %r22, 0;
    mov.u32 %r23, 0; sub.u32 %r9, %t, 32; mul.lo.u32 %r9, %r9, 16;
    next:
    mad.lo.u32 %r5, %r3, 8, %r0; mad.lo.u32 %r7, %r3, 2048, %r1; add.u32 %r7, %r7, %r9;
    FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5], %r4; @!%p4 bra FULL;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7];
    add.u32 %r16, %r16, %r10; add.u32 %r17, %r17, %r11; add.u32 %r18, %r18, %r12; add.u32 %r19, %r19, %r13;
    setp.eq.u32 %p5, %lane, 0;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7+1024];
    bar.warp.sync -1;
    @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];
    add.u32 %r20, %r20, %r10; add.u32 %r21, %r21, %r11; add.u32 %r22, %r22, %r12; add.u32 %r23, %r23, %r13;
    add.u32 %r2, %r2, 1; xor.b32 %r3, %r3, 1; setp.eq.u32 %p4, %r3, 0; @%p4 xor.b32 %r4, %r4, 1;
    setp.lt.u32 %p4, %r2, 5; @%p4 bra next;
    add.u32 %r14, %r1, 4096; add.u32 %r7, %r14, %r9;
    st.shared.v4.u32 [%r7], {%r16, %r17, %r18, %r19}; st.shared.v4.u32 [%r7+1024], {%r20, %r21, %r22, %r23};
    fence.proxy.async.shared::cta;
    bar.sync 1, 64;
    setp.eq.u32 %p5, %t, 32; @!%p5 bra done;
    cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map1, {0, 0}], [%r14];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    done:";

fn pipeline(body: &str) -> Kernel {
    let module = ".shared .align 8 .b8 bars[32]; .shared .align 1024 .b8 stages[6144];";
    let (strides, tile, swizzle) = (vec![128], vec![32, ROWS as u32], Swizzle::Bytes128);
    let rows = u64::from(TILES) * ROWS;
    let source = Map { of_results: false, element_bytes: 4, dims: vec![32, rows], strides, tile, swizzle };
    // The results of 96 threads are 12 rows of 128 bytes: the others are outside.
    let target = Map { of_results: true, dims: vec![32, 12], ..source.clone() };
    let input: Vec<u32> = (0..32 * rows as u32).map(|i| i * i).collect();
    kernel(body).module(module).threads(96).input(&input).map(source).map(target)
}

#[test]
fn a_pipeline_is_clean_and_right() {
    let expected: Vec<u32> = (0..12 * 32)
        .map(|word| (0..TILES).map(|tile| tile * 512 + word).fold(0u32, |sum, i| sum.wrapping_add(i.wrapping_mul(i))))
        .collect();
    for kernel in pipeline(PIPELINE).schedules_of_lanes() {
        let run = kernel.clean();
        assert_eq!(run.out, expected);
    }
}

/// Every single change, and what finds it whatever the schedule.
const MUTATIONS: [(&str, &str, &[Kind]); 24] = [
    ("fence.mbarrier_init.release.cluster;", "", &[Kind::ProxyFence]),
    ("ready: bar.sync 0;", "ready:", &[Kind::Mbarrier, Kind::SharedRace]),
    ("fence.proxy.async.shared::cta;", "", &[Kind::ProxyFence]),
    (
        "fence.proxy.async.shared::cta;\n    bar.sync 1, 64;",
        "bar.sync 1, 64; fence.proxy.async.shared::cta;",
        &[Kind::ProxyFence],
    ),
    ("bar.sync 1, 64;", "", &[Kind::SharedRace, Kind::IntraWarpRace, Kind::UninitializedMemory]),
    ("cp.async.bulk.wait_group.read 0;", "", &[Kind::AsyncUnfinished]),
    ("cp.async.bulk.commit_group;", "", &[Kind::AsyncUnfinished]),
    ("_, [%r5], 2048;", "_, [%r5], 2032;", &[Kind::Deadlock]),
    ("_, [%r5], 2048;", "_, [%r5], 2064;", &[Kind::Deadlock]),
    ("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 2048;", "", &[Kind::Deadlock]),
    (
        "arrive.expect_tx.shared::cta.b64 _, [%r5], 2048;",
        "arrive.shared::cta.b64 _, [%r5];",
        &[Kind::Mbarrier, Kind::Deadlock, Kind::SharedRace],
    ),
    // Nobody waits for free stages, or for the wrong phase.
    (
        "EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5+16], %r6; @!%p4 bra EMPTY;",
        "",
        &[Kind::Mbarrier, Kind::AsyncInFlight, Kind::SharedRace],
    ),
    ("xor.b32 %r6, %r4, 1;", "mov.u32 %r6, %r4;", &[Kind::Deadlock]),
    // Nobody waits for data, or for the wrong phase, or for that of the other stage.
    (
        "FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5], %r4; @!%p4 bra FULL;",
        "",
        &[Kind::AsyncInFlight, Kind::UninitializedMemory, Kind::SharedRace],
    ),
    (
        "[%r5], %r4; @!%p4 bra FULL;",
        "[%r5], %r3; @!%p4 bra FULL;",
        &[Kind::AsyncInFlight, Kind::UninitializedMemory, Kind::SharedRace, Kind::Deadlock],
    ),
    (
        "b64 %p4, [%r5], %r4; @",
        "b64 %p4, [%r0], %r4; @",
        &[Kind::AsyncInFlight, Kind::UninitializedMemory, Kind::SharedRace, Kind::Deadlock],
    ),
    // One lane gives the stage back while others may still read.
    ("bar.warp.sync -1;", "", &[Kind::SharedRace]),
    // The stage is given back before the last read of it, twice, by one warp alone, or never.
    (
        "ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7+1024];\n    bar.warp.sync -1;\n    @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
        "bar.warp.sync -1; @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16]; ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7+1024];",
        &[Kind::SharedRace],
    ),
    (
        "@%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
        "@%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16]; @%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
        &[Kind::Mbarrier, Kind::SharedRace, Kind::Deadlock],
    ),
    (
        "@%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
        "mbarrier.arrive.shared::cta.b64 _, [%r5+16];",
        &[Kind::Mbarrier, Kind::SharedRace, Kind::Deadlock],
    ),
    ("@%p5 mbarrier.arrive.shared::cta.b64 _, [%r5+16];", "", &[Kind::Deadlock]),
    (
        "mbarrier.init.shared::cta.b64 [%r0+16], 2;",
        "mbarrier.init.shared::cta.b64 [%r0+16], 1;",
        &[Kind::Mbarrier, Kind::SharedRace, Kind::Deadlock],
    ),
    ("mbarrier.init.shared::cta.b64 [%r0], 1;", "mbarrier.init.shared::cta.b64 [%r0], 2;", &[Kind::Deadlock]),
    // The stages overlap.
    (
        "mad.lo.u32 %r7, %r3, 2048, %r1; mul",
        "mad.lo.u32 %r7, %r3, 1024, %r1; mul",
        &[Kind::AsyncInFlight, Kind::SharedRace, Kind::UninitializedMemory],
    ),
];

#[test]
fn every_single_mutation_is_found() {
    let mut missed = Vec::new();
    for (from, to, kinds) in MUTATIONS {
        assert!(PIPELINE.contains(from), "{from}");
        let body = PIPELINE.replacen(from, to, 1);
        for kernel in pipeline(&body).options(|options| options.max_instructions = 1 << 20).schedules_of_lanes() {
            let report = kernel.run().report;
            let found = report.findings.iter().any(|finding| kinds.contains(&finding.kind));
            if !found {
                missed.push(format!("{from} -> {to}, expected one of {kinds:?}\n{report}"));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
