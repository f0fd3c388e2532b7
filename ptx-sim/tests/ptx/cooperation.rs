//! Whole kernels whose blocks work together, and every way to break them.

use crate::common::{Kernel, Map, kernel};
use ptx_sim::{Kind, Swizzle};

/// Clusters of four blocks add up their numbers: warps by shuffles, blocks in their own memory, the cluster in that of block
/// 0, which hands the sum to all.
const REDUCTION: &str = "
    mov.u32 %r1, dynamic; mov.u32 %r2, %cluster_ctarank;
    mad.wide.u32 %in, %thread, 4, %in; ld.global.u32 %r5, [%in];
    shfl.sync.bfly.b32 %r6, %r5, 16, 31, -1; add.u32 %r5, %r5, %r6;
    shfl.sync.bfly.b32 %r6, %r5, 8, 31, -1; add.u32 %r5, %r5, %r6;
    shfl.sync.bfly.b32 %r6, %r5, 4, 31, -1; add.u32 %r5, %r5, %r6;
    shfl.sync.bfly.b32 %r6, %r5, 2, 31, -1; add.u32 %r5, %r5, %r6;
    shfl.sync.bfly.b32 %r6, %r5, 1, 31, -1; add.u32 %r5, %r5, %r6;
    setp.eq.u32 %p1, %lane, 0; mad.lo.u32 %r6, %warp, 4, %r1; @%p1 st.shared.u32 [%r6], %r5;
    bar.sync 0;
    setp.eq.u32 %p2, %t, 0; ld.shared.v2.u32 {%r5, %r6}, [%r1]; add.u32 %r5, %r5, %r6;
    barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned; // begun
    mad.lo.u32 %r7, %r2, 4, %r1; mapa.shared::cluster.u32 %r7, %r7, 0;
    @%p2 st.shared::cluster.u32 [%r7+16], %r5;
    barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned; // sums
    setp.eq.u32 %p3, %r2, 0; setp.lt.u32 %p4, %t, 4; and.pred %p3, %p3, %p4; @!%p3 bra all;
    ld.shared.v4.u32 {%r8, %r9, %r10, %r11}, [%r1+16];
    add.u32 %r8, %r8, %r9; add.u32 %r8, %r8, %r10; add.u32 %r8, %r8, %r11;
    mapa.shared::cluster.u32 %r9, %r1, %t; st.shared::cluster.u32 [%r9+32], %r8;
    all:
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // total
    ld.shared.u32 %r12, [%r1+32]; st.global.u32 [%out], %r12;";

fn reduction(body: &str) -> Kernel {
    let input: Vec<u32> = (0..512).map(|number: u32| number * number).collect();
    kernel(body).threads(64).blocks(8).cluster([4, 1, 1]).shared(48).input(&input)
}

/// Two blocks add up tiles of 16 rows of 128 bytes, word by word. Each copies half of every tile to both: warp 0 into two
/// stages, for warps 1 and 2. `full` is at 0 and 8, `empty` at 16 and 24, which the consumers of both blocks arrive at.
const SHARING: &str = "
    mov.u32 %r0, bars; mov.u32 %r1, stages; mov.u32 %r24, %cluster_ctarank; xor.b32 %r25, %r24, 1;
    setp.eq.u32 %p1, %t, 0; @!%p1 bra ready;
    mbarrier.init.shared::cta.b64 [%r0], 1; mbarrier.init.shared::cta.b64 [%r0+8], 1;
    mbarrier.init.shared::cta.b64 [%r0+16], 4; mbarrier.init.shared::cta.b64 [%r0+24], 4;
    fence.mbarrier_init.release.cluster;
    ready: barrier.cluster.arrive.relaxed; barrier.cluster.wait.acquire; // begun
    mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u32 %r4, 0;
    setp.eq.u32 %p2, %warp, 0; @!%p2 bra consume;
    elect.sync _|%p3, -1; @!%p3 bra done;
    mov.u16 %h1, 3; // mask
    produce:
    mad.lo.u32 %r5, %r3, 8, %r0; xor.b32 %r6, %r4, 1; mad.lo.u32 %r7, %r3, 2048, %r1; mad.lo.u32 %r7, %r24, 1024, %r7;
    mul.lo.u32 %r8, %r2, 16; mad.lo.u32 %r8, %r24, 8, %r8;
    EMPTY: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p4, [%r5+16], %r6; @!%p4 bra EMPTY;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 2048;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%r7], [%map0, {0, %r8}], [%r5], %h1;
    add.u32 %r2, %r2, 1; xor.b32 %r3, %r3, 1; setp.eq.u32 %p4, %r3, 0; @%p4 xor.b32 %r4, %r4, 1;
    setp.lt.u32 %p4, %r2, 5; @%p4 bra produce;
    bra done;
    consume:
    mov.u32 %r16, %cta; mov.u32 %r17, 0; mov.u32 %r18, 0; mov.u32 %r19, 0; sub.u32 %r9, %t, 32; mul.lo.u32 %r9, %r9, 16;
    next:
    mad.lo.u32 %r5, %r3, 8, %r0; mad.lo.u32 %r7, %r3, 2048, %r1; add.u32 %r7, %r7, %r9;
    FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5], %r4; @!%p4 bra FULL;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7]; // first half
    add.u32 %r16, %r16, %r10; add.u32 %r17, %r17, %r11; add.u32 %r18, %r18, %r12; add.u32 %r19, %r19, %r13;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r7+1024];
    add.u32 %r16, %r16, %r10; add.u32 %r17, %r17, %r11; add.u32 %r18, %r18, %r12; add.u32 %r19, %r19, %r13;
    bar.warp.sync -1;
    setp.eq.u32 %p5, %lane, 0; add.u32 %r26, %r5, 16; mapa.shared::cluster.u32 %r27, %r26, %r25;
    @%p5 mbarrier.arrive.release.cluster.shared::cta.b64 _, [%r26]; // own
    @%p5 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r27]; // other
    add.u32 %r2, %r2, 1; xor.b32 %r3, %r3, 1; setp.eq.u32 %p4, %r3, 0; @%p4 xor.b32 %r4, %r4, 1;
    setp.lt.u32 %p4, %r2, 5; @%p4 bra next;
    st.global.v4.u32 [%out], {%r16, %r17, %r18, %r19};
    done:
    barrier.cluster.arrive; barrier.cluster.wait; // end";

fn sharing(body: &str) -> Kernel {
    let module = ".shared .align 8 .b8 bars[32]; .shared .align 1024 .b8 stages[4096];";
    let (strides, tile, dims) = (vec![128], vec![32, 8], vec![32, 80]);
    let map = Map { of_results: false, element_bytes: 4, dims, strides, tile, swizzle: Swizzle::None };
    let input: Vec<u32> = (0..32 * 80).map(|word: u32| word * word).collect();
    kernel(body).module(module).threads(96).blocks(2).cluster([2, 1, 1]).input(&input).map(map)
}

#[test]
fn four_blocks_add_up_their_numbers() {
    let square = |number: u32| number * number;
    let sums = [(0..256).map(square).sum::<u32>(), (256..512).map(square).sum()];
    let expected: Vec<u32> = (0..512).map(|thread| sums[thread / 256]).collect();
    for kernel in reduction(REDUCTION).schedules_of_lanes() {
        assert_eq!(kernel.clean().results(), expected);
    }
}

#[test]
fn two_blocks_share_their_copies() {
    let word = |tile: u32, word: u32| (tile * 512 + word).wrapping_mul(tile * 512 + word);
    let sum =
        |at: u32| (0..5).fold(0u32, |sum, tile| sum.wrapping_add(word(tile, at)).wrapping_add(word(tile, at + 256)));
    let of = |block: u32, at: u32| sum(at).wrapping_add(if at.is_multiple_of(4) { block } else { 0 });
    let block = |block: u32| [0; 128].into_iter().chain((0..256).map(move |at| of(block, at)));
    let expected: Vec<u32> = block(0).chain(block(1)).collect();
    for kernel in sharing(SHARING).schedules_of_lanes() {
        assert_eq!(kernel.clean().out, expected);
    }
}

/// A change, and what finds it in every schedule.
type Mutation = (&'static str, &'static str, &'static [Kind]);

#[track_caller]
fn all_are_found(text: &str, mutations: &[Mutation], kernel: fn(&str) -> Kernel) {
    let mut missed = Vec::new();
    for (from, to, kinds) in mutations {
        assert!(text.contains(from), "{from}");
        let body = text.replacen(from, to, 1);
        for kernel in kernel(&body).options(|options| options.max_instructions = 1 << 20).schedules_of_lanes() {
            let report = kernel.run().report;
            if !report.findings.iter().any(|finding| kinds.contains(&finding.kind)) {
                missed.push(format!("{from} -> {to}, expected one of {kinds:?}\n{report}"));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_mutation_of_the_reduction_is_found() {
    const MUTATIONS: [Mutation; 9] = [
        ("bar.sync 0;", "", &[Kind::SharedRace, Kind::UninitializedMemory]),
        ("barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned; // begun", "", &[Kind::AbsentBlock]),
        (
            "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned; // sums",
            "",
            &[Kind::SharedRace],
        ),
        ("arrive.release.aligned", "arrive.relaxed.aligned", &[Kind::SharedRace]),
        ("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // total", "", &[Kind::SharedRace]),
        ("barrier.cluster.wait.acquire.aligned; // sums", "// sums", &[Kind::SharedRace]),
        ("mapa.shared::cluster.u32 %r7, %r7, 0;", "", &[Kind::UninitializedMemory]),
        ("mapa.shared::cluster.u32 %r7, %r7, 0;", "mapa.shared::cluster.u32 %r7, %r7, 4;", &[Kind::InvalidOperand]),
        ("st.shared::cluster.u32 [%r9+32]", "st.shared.u32 [%r9+32]", &[Kind::WrongSpace]),
    ];
    all_are_found(REDUCTION, &MUTATIONS, reduction);
}

#[test]
fn every_mutation_of_the_shared_copies_is_found() {
    const MUTATIONS: [Mutation; 21] = [
        ("fence.mbarrier_init.release.cluster;", "", &[Kind::ProxyFence]),
        (
            "barrier.cluster.arrive.relaxed; barrier.cluster.wait.acquire; // begun",
            "bar.sync 0;",
            &[Kind::SharedRace, Kind::Mbarrier],
        ),
        ("barrier.cluster.wait.acquire; // begun", "// begun", &[Kind::SharedRace, Kind::Mbarrier]),
        ("barrier.cluster.arrive; barrier.cluster.wait; // end", "", &[Kind::AbsentBlock]),
        ("mov.u16 %h1, 3;", "mov.u16 %h1, 1;", &[Kind::Deadlock]),
        ("mov.u16 %h1, 3;", "mov.u16 %h1, 7;", &[Kind::InvalidOperand]),
        (
            ".multicast::cluster [%r7], [%map0, {0, %r8}], [%r5], %h1;",
            " [%r7], [%map0, {0, %r8}], [%r5];",
            &[Kind::Deadlock],
        ),
        ("_, [%r5], 2048;", "_, [%r5], 1024;", &[Kind::Deadlock, Kind::SharedRace, Kind::AsyncInFlight]),
        ("_, [%r5], 2048;", "_, [%r5], 4096;", &[Kind::Deadlock]),
        // Nobody waits for free stages, or hears of the other block's.
        (
            "EMPTY: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p4, [%r5+16], %r6; @!%p4 bra EMPTY;",
            "",
            &[Kind::Mbarrier, Kind::AsyncInFlight, Kind::SharedRace],
        ),
        ("parity.acquire.cluster", "parity.acquire.cta", &[Kind::SharedRace]),
        ("arrive.release.cluster.shared::cluster", "arrive.release.cta.shared::cluster", &[Kind::SharedRace]),
        ("arrive.release.cluster.shared::cluster", "arrive.relaxed.cluster.shared::cluster", &[Kind::SharedRace]),
        ("@%p5 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r27];", "", &[Kind::Deadlock]),
        ("_, [%r27];", "_, [%r26];", &[Kind::SharedRace, Kind::Deadlock]),
        ("@%p5 mbarrier.arrive.release.cluster.shared::cta.b64 _, [%r26];", "", &[Kind::Deadlock]),
        // One lane gives the stage back while others may still read.
        ("bar.warp.sync -1;", "", &[Kind::SharedRace]),
        // An mbarrier expects the consumers of one block.
        (
            "mbarrier.init.shared::cta.b64 [%r0+16], 4;",
            "mbarrier.init.shared::cta.b64 [%r0+16], 2;",
            &[Kind::Mbarrier, Kind::SharedRace, Kind::Deadlock],
        ),
        // Nobody waits for data.
        (
            "FULL: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r5], %r4; @!%p4 bra FULL;",
            "",
            &[Kind::AsyncInFlight, Kind::UninitializedMemory, Kind::SharedRace],
        ),
        // Both blocks copy the same half.
        ("mad.lo.u32 %r7, %r24, 1024, %r7;", "", &[Kind::AsyncInFlight, Kind::SharedRace, Kind::UninitializedMemory]),
        (
            "mapa.shared::cluster.u32 %r27, %r26, %r25;",
            "mapa.shared::cluster.u32 %r27, %r26, %r24;",
            &[Kind::SharedRace, Kind::Deadlock],
        ),
    ];
    all_are_found(SHARING, &MUTATIONS, sharing);
}
