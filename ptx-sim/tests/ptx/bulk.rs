//! Bulk copies: plain bytes and tiles of tensors.

use crate::common::{Kernel, Map, Run, kernel, refused};
use ptx_sim::{Delivery, Kind, Swizzle};

/// Words of the input: 4 KiB.
fn numbers() -> Vec<u32> {
    (0..1024).map(|word| 0x1_0001 * (2 * word) + 0x1_0000).collect()
}

/// A thread of a block with an mbarrier in `%r0`, and a buffer of 4 KiB in `%r1` that is aligned to `align` bytes and no
/// better. `%p1` holds in thread 0.
fn single(align: u32, body: &str) -> Kernel {
    let module = format!(".shared .align 8 .b8 bar[8]; .shared .align {align} .b8 tile[4096];");
    let text = format!(
        "mov.u32 %r0, bar; mov.u32 %r1, tile; setp.eq.u32 %p1, %t, 0;
         @%p1 mbarrier.init.shared::cta.b64 [%r0], 1;
         @%p1 fence.mbarrier_init.release.cluster;
         bar.sync 0;
         {body}"
    );
    kernel(&text).module(&module).input(&numbers())
}

/// Expects `bytes`, runs `copy` in thread 0, waits, and hands out 16 bytes of the buffer a thread.
fn loads(copy: &str, bytes: u32) -> Kernel {
    let body = format!(
        "@!%p1 bra wait;
         mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], {bytes};
         {copy} //!!
         wait: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0; @!%p2 bra wait; // wait
         mad.lo.u32 %r2, %t, 16, %r1; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2];
         st.global.v4.u32 [%out], {{%r4, %r5, %r6, %r7}};"
    );
    single(1024, &body).threads(bytes / 16)
}

/// The results as elements of 16 bits.
fn halves(words: &[u32]) -> Vec<u16> {
    words.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]).collect()
}

/// The same in both modes of delivery.
#[track_caller]
fn both(kernel: &Kernel, check: impl Fn(&Run)) {
    for delivery in [Delivery::Late, Delivery::Immediate] {
        check(&kernel.clone().options(|options| options.delivery = delivery).clean());
    }
}

/// The only finding, at the line with `//!!`, in both modes.
#[track_caller]
fn finds(kernel: &Kernel, kind: Kind) -> String {
    let messages = [Delivery::Late, Delivery::Immediate].map(|delivery| {
        let run = kernel.clone().options(|options| options.delivery = delivery).run();
        let finding = run.finding(kind);
        assert_eq!(finding.at.line, run.line("//!!"), "{}", run.report);
        finding.message.clone()
    });
    messages[0].clone()
}

#[test]
fn bytes_are_copied_to_shared_memory() {
    for copy in [
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 512, [%r0];",
        "mov.u64 %d1, 0; cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint [%r1], [%in], 512, [%r0], %d1;",
    ] {
        both(&loads(copy, 512), |run| assert_eq!(run.out, numbers()[..128]));
    }
    let two = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in+256], 256, [%r0];
        mov.u32 %r9, 256; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1+256], [%in], %r9, [%r0];";
    both(&loads(two, 512), |run| assert_eq!(run.out, [&numbers()[64..128], &numbers()[..64]].concat()));
}

/// A tensor of elements of 16 bits that fills the input: `width` in the inner dimension, in tiles of `tile`.
fn matrix(width: u64, tile: [u32; 2], swizzle: Swizzle) -> Map {
    let dims = vec![width, 2048 / width];
    let (strides, tile) = (vec![2 * width], tile.to_vec());
    Map { of_results: false, element_bytes: 2, dims, strides, tile, swizzle }
}

const LOAD: &str = "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes";

/// What element (x, y) of the input is, and zero outside.
fn element(width: i64, x: i64, y: i64) -> u16 {
    let inside = (0..width).contains(&x) && (0..2048 / width).contains(&y);
    if inside { (y * width + x) as u16 } else { 0 }
}

#[test]
fn a_tile_lies_row_by_row() {
    let kernel = loads(&format!("{LOAD} [%r1], [%map0, {{8, 3}}], [%r0];"), 24 * 10 * 2);
    both(&kernel.map(matrix(64, [24, 10], Swizzle::None)), |run| {
        let expected = (0..240).map(|i| element(64, 8 + i % 24, 3 + i / 24));
        assert!(halves(&run.out).into_iter().eq(expected));
    });
}

#[test]
fn coordinates_may_be_anywhere_and_what_is_outside_is_zero() {
    for (x, y) in [(-5, -3), (50, 25), (-30, 0), (64, 0), (0, -9), (0, 32), (-2147483648, 5), (1, 2147483647)] {
        let kernel = loads(&format!("{LOAD} [%r1], [%map0, {{{x}, {y}}}], [%r0];"), 24 * 10 * 2);
        both(&kernel.map(matrix(64, [24, 10], Swizzle::None)), |run| {
            let expected = (0..240).map(|i| element(64, x + i % 24, y + i / 24));
            assert!(halves(&run.out).into_iter().eq(expected), "{x} {y}");
        });
    }
}

/// Chunk c of the row at address a lies where chunk c XOR (a / 128) would, in the bits of the swizzle.
#[test]
fn a_swizzle_moves_chunks_by_the_address() {
    for (swizzle, span) in [(Swizzle::Bytes128, 128), (Swizzle::Bytes64, 64), (Swizzle::Bytes32, 32)] {
        // The pattern follows addresses, not the beginning of the tile.
        for shift in [0, 128, 384] {
            let width = span / 2;
            let kernel = loads(&format!("{LOAD} [%r1+{shift}], [%map0, {{0, 1}}], [%r0];"), span * 20);
            let read = kernel.map(matrix(width.into(), [width, 20], swizzle));
            let run = read.replace(
                "mad.lo.u32 %r2, %t, 16, %r1;",
                &format!("mad.lo.u32 %r2, %t, 16, %r1; add.u32 %r2, %r2, {shift};"),
            );
            both(&run, |run| {
                let found = halves(&run.out);
                for (row, chunk) in (0..20).flat_map(|row| (0..span / 16).map(move |chunk| (row, chunk))) {
                    // `tile` begins at a multiple of 1024.
                    let address = shift + row * span + chunk * 16;
                    let lies = address ^ ((address / 128 % (span / 16)) * 16);
                    let first = i64::from(row + 1) * i64::from(width) + i64::from(chunk) * 8;
                    assert_eq!(
                        i64::from(found[((lies - shift) / 2) as usize]),
                        first,
                        "{swizzle:?} {shift} {row} {chunk}"
                    );
                }
            });
        }
    }
}

#[test]
fn tensors_have_up_to_five_dimensions() {
    // 16 x 4 x 2 x 4 x 4 elements, of which the tile takes 8 x 2 x 2 x 1 x 2.
    let (dims, strides) = (vec![16, 4, 2, 4, 4], vec![32, 128, 256, 1024]);
    let map =
        Map { of_results: false, element_bytes: 2, dims, strides, tile: vec![8, 2, 2, 1, 2], swizzle: Swizzle::None };
    let copy = "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%map0, {8, 1, 0, 3, 2}], [%r0];";
    both(&loads(copy, 128).map(map), |run| {
        let at = |i: u16| 8 + i % 8 + 16 * (1 + i / 8 % 2) + 64 * (i / 16 % 2) + 128 * 3 + 512 * (2 + i / 32);
        assert!(halves(&run.out).into_iter().eq((0..64).map(at)));
    });
}

#[test]
fn elements_have_1_to_8_bytes() {
    for bytes in [1, 2, 4, 8] {
        let (dims, strides) = (vec![u64::from(64 / bytes), 64], vec![64]);
        let tile = vec![32 / bytes, 4];
        let map = Map { of_results: false, element_bytes: bytes, dims, strides, tile, swizzle: Swizzle::None };
        both(&loads(&format!("{LOAD} [%r1], [%map0, {{{}, 63}}], [%r0];", 32 / bytes), 128).map(map), |run| {
            let expected = [&numbers()[63 * 16 + 8..64 * 16], &[0; 24]].concat();
            assert_eq!(run.out, expected);
        });
    }
}

/// Fills the buffer, one word a thread, runs `store` in thread 0, and then `after`.
fn stores(store: &str, after: &str) -> Kernel {
    let body = format!(
        "mad.lo.u32 %r2, %t, 4, %r1; add.u32 %r3, %t, 1; st.shared.u32 [%r2], %r3;
         fence.proxy.async.shared::cta; // fence
         bar.sync 0; @!%p1 bra done;
         {store} //!!
         cp.async.bulk.commit_group;
         {after}
         done:"
    );
    single(1024, &body).threads(64)
}

const STORED: &str = "cp.async.bulk.wait_group 0;";

#[test]
fn bytes_are_copied_to_global_memory() {
    for (after, how) in [(STORED, ""), ("cp.async.bulk.wait_group.read 0;", ".L2::cache_hint")] {
        let hint = if how.is_empty() { "" } else { ", %d1" };
        let store =
            format!("mov.u64 %d1, 0; cp.async.bulk.global.shared::cta.bulk_group{how} [%in+64], [%r1], 256{hint};");
        both(&stores(&store, after), |run| {
            assert_eq!(run.input[16..80], (1..65).collect::<Vec<u32>>());
            assert_eq!(run.input[80..], numbers()[80..]);
        });
    }
}

#[test]
fn a_tile_is_stored_without_what_lies_outside() {
    let store = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map0, {52, -1}], [%r1];";
    for swizzle in [Swizzle::None, Swizzle::Bytes32] {
        // 8 rows of 16 elements.
        both(&stores(store, STORED).map(matrix(64, [16, 8], swizzle)), |run| {
            let (words, mut expected) = ((1..65).collect::<Vec<u32>>(), halves(&numbers()));
            for (row, column) in (1..8).flat_map(|row| (0..12).map(move |column| (row, column))) {
                let address: usize = row * 32 + column * 2;
                let lies = if swizzle == Swizzle::None { address } else { address ^ ((address / 128 % 2) * 16) };
                expected[(row - 1) * 64 + 52 + column] = halves(&words)[lies / 2];
            }
            assert!(halves(&run.input) == expected, "{swizzle:?}");
        });
    }
}

#[test]
fn what_lies_outside_need_not_be_written_before_a_tile_is_stored() {
    // Of each row of 16 elements, the first 8 are the tensor's; the threads write these alone, or others.
    let store = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map0, {56, 0}], [%r1];";
    let kernel = |first: u32| {
        let body = format!(
            "shr.u32 %r2, %t, 2; and.b32 %r3, %t, 3; mad.lo.u32 %r2, %r2, 32, %r1; mad.lo.u32 %r2, %r3, 4, %r2;
             st.shared.u32 [%r2+{first}], %t;
             fence.proxy.async.shared::cta; bar.sync 0; @!%p1 bra done;
             {store} //!!
             cp.async.bulk.commit_group; {STORED}
             done:"
        );
        single(1024, &body).threads(32).map(matrix(64, [16, 8], Swizzle::None))
    };
    both(&kernel(0), |_| {});
    finds(&kernel(16), Kind::UninitializedMemory);
}

/// Global memory changes when the group has been waited for, not before; with `.read` only shared memory is free.
#[test]
fn a_late_store_shows_in_global_memory_after_its_wait() {
    let store = "cp.async.bulk.global.shared::cta.bulk_group [%in], [%r1], 256;";
    let reads = |wait: &str| format!("{wait} ld.global.u32 %r4, [%in]; st.global.u32 [%out], %r4; {STORED}");
    let first = |after: &str, delivery| {
        let kernel = stores(store, &reads(after)).options(|options| options.delivery = delivery);
        kernel.clean().of(0)[0]
    };
    assert_eq!(first(STORED, Delivery::Late), 1);
    assert_eq!(first("cp.async.bulk.wait_group.read 0;", Delivery::Late), numbers()[0]);
    assert_eq!(first("cp.async.bulk.wait_group 1;", Delivery::Late), numbers()[0]);
    assert_eq!(first("", Delivery::Immediate), 1);
}

#[test]
fn the_source_of_a_store_may_be_written_after_its_wait() {
    let store = "cp.async.bulk.global.shared::cta.bulk_group [%in], [%r1], 256;";
    let write = "st.shared.u32 [%r1], 77;";
    for wait in ["cp.async.bulk.wait_group 0;", "cp.async.bulk.wait_group.read 0;"] {
        both(&stores(store, &format!("{wait} {write}")), |run| assert_eq!(run.input[0], 1));
    }
    for (wait, open) in [("", STORED), ("cp.async.bulk.wait_group.read 1;", STORED)] {
        let run = stores(store, &format!("{wait} {write} {open}")).run();
        assert!(run.finding(Kind::AsyncInFlight).message.contains("may still read"), "{}", run.report);
        // The late copy even takes what was written.
        assert_eq!(run.input[0], 77);
    }
}

#[test]
fn copies_that_nobody_waits_for_are_found() {
    finds(&stores("cp.async.bulk.global.shared::cta.bulk_group [%in], [%r1], 256;", ""), Kind::AsyncUnfinished);
    let load = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 256;
        @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 256, [%r0]; //!!";
    let late = single(128, load).run();
    assert_eq!(late.finding(Kind::AsyncUnfinished).at.line, late.line("//!!"));
}

#[test]
fn too_many_expected_bytes_are_a_deadlock_that_says_so() {
    let copy = format!("{LOAD} [%r1], [%map0, {{0, 0}}], [%r0];");
    let text = |expected: u32| loads(&copy, expected).map(matrix(64, [16, 8], Swizzle::None)).threads(16);
    both(&text(256), |run| assert_eq!(run.out[..8], numbers()[..8]));
    for (expected, says) in [(272, "16 bytes are missing"), (240, "16 bytes more than expected have come")] {
        for delivery in [Delivery::Late, Delivery::Immediate] {
            let run = text(expected).options(|options| options.delivery = delivery).run();
            let found = run.report.findings.iter().find(|finding| finding.kind == Kind::Deadlock);
            assert!(found.is_some_and(|finding| finding.message.contains(says)), "{}", run.report);
        }
    }
    // No bytes expected at all: the phase ends without them.
    let none = text(256).replace("arrive.expect_tx.shared::cta.b64 _, [%r0], 256", "arrive.shared::cta.b64 _, [%r0]");
    let kinds: Vec<Kind> = none.run().report.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&Kind::Mbarrier) || kinds.contains(&Kind::AsyncInFlight), "{kinds:?}");
    let immediate = none.options(|options| options.delivery = Delivery::Immediate).run();
    assert!(!immediate.report.is_clean());
}

#[test]
fn tiles_and_maps_must_be_aligned() {
    let map = || matrix(64, [16, 8], Swizzle::None);
    let copy = |offset: u32| format!("{LOAD} [%r1+{offset}], [%map0, {{0, 0}}], [%r0];");
    finds_first(&loads(&copy(64), 256).map(map()), Kind::Misaligned);
    finds_first(&loads(&copy(4096 - 128), 256).map(map()), Kind::OutOfBounds);
    let huge = Map { dims: vec![64; 5], strides: vec![16; 4], tile: vec![256; 5], ..map() };
    let load = copy(0).replace("tensor.2d", "tensor.5d").replace("{0, 0}", "{0, 0, 0, 0, 0}");
    finds_first(&loads(&load, 256).map(huge), Kind::OutOfBounds);
    let plain = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in+4], 256, [%r0];";
    finds_first(&loads(plain, 256), Kind::Misaligned);
    finds_first(&loads(&plain.replace("+4], 256", "], 250"), 256), Kind::InvalidOperand);
    // A map that the text does not align.
    let unaligned = ".param .align 8 .b8 pad[48], .param .align 16 .b8";
    let unaligned = loads(&copy(0), 256).map(map()).replace(".param .align 64 .b8", unaligned);
    let message = finds_first(&unaligned, Kind::Misaligned);
    assert!(message.contains("tensor map"), "{message}");
    let address = loads(&copy(0).replace("%map0", "%in"), 256);
    assert!(finds_first(&address, Kind::InvalidOperand).contains("not a tensor map"));
    let rank = copy(0).replace("tensor.2d", "tensor.3d").replace("{0, 0}", "{0, 0, 0}");
    assert!(finds_first(&loads(&rank, 256).map(map()), Kind::InvalidOperand).contains("3 coordinates"));
}

/// The first finding, at the line with `//!!`.
#[track_caller]
fn finds_first(kernel: &Kernel, kind: Kind) -> String {
    let run = kernel.run();
    let found = run.report.findings.iter().find(|finding| finding.kind == kind);
    let found = found.unwrap_or_else(|| panic!("no {kind}:\n{}", run.report));
    assert_eq!(found.at.line, run.line("//!!"));
    found.message.clone()
}

/// The map says more than the buffer holds.
#[test]
fn global_memory_is_checked_as_for_other_accesses() {
    let map = Map { dims: vec![64, 100], ..matrix(64, [64, 8], Swizzle::Bytes128) };
    let copy = format!("{LOAD} [%r1], [%map0, {{0, 28}}], [%r0];");
    finds(&loads(&copy, 1024).map(map.clone()), Kind::OutOfBounds);
    let store = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%map0, {0, 31}], [%r1];";
    let tile = Map { tile: vec![64, 2], ..map };
    finds(&stores(store, STORED).map(tile), Kind::OutOfBounds);
}

#[test]
fn blocks_that_store_to_one_place_are_a_race() {
    let store = "cp.async.bulk.global.shared::cta.bulk_group [%in], [%r1], 256;";
    both(&stores(store, STORED), |_| {});
    finds(&stores(store, STORED).blocks(2), Kind::GlobalRace);
    let apart = format!("mad.wide.u32 %in, %cta, 256, %in; {store}");
    both(&stores(&apart, STORED).blocks(2), |run| assert_eq!(run.input[64..128], (1..65).collect::<Vec<u32>>()));
    let reads = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 256;
        @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 256, [%r0]; //!!
        W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0; @!%p2 bra W;";
    both(&single(128, reads).blocks(2), |_| {});
    let writes = format!("setp.eq.u32 %p3, %cta, 0; @%p3 st.global.u32 [%in+4], 1;\n{reads}");
    finds(&single(128, &writes).threads(1).blocks(2), Kind::GlobalRace);
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%d0, {%r1}], [%r0];",
        "cp.async.bulk.tensor.6d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%d0, {%r1, %r1, %r1, %r1, %r1, %r1}], [%r0];",
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.mbarrier::complete_tx::bytes [%r1], [%d0, {%r1, %r1}], [%r0];",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.bulk_group [%r1], [%d0, {%r1, %r1}];",
        "cp.async.bulk.tensor.2d.global.shared::cta.im2col.bulk_group [%d0, {%r1, %r1}], [%r1];",
        "cp.async.bulk.global.shared::cta [%d0], [%r1], 16;",
        "cp.async.bulk.wait_group %r1;",
        "cp.async.bulk.wait_group.write 0;",
        "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%in], 16, [%r0], %h1;",
        "cp.async.bulk.global.shared::cta.bulk_group.multicast::cluster [%in], [%r1], 16, %h1;",
        "cp.async.bulk.shared::cluster.shared::cta.bulk_group [%r1], [%r1], 16;",
        "cp.async.bulk.shared::cta.shared::cluster.mbarrier::complete_tx::bytes [%r1], [%r1], 16, [%r0];",
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%r1], 16, [%r0], %h1;",
    ] {
        refused(wrong);
    }
}
