//! What products are, in every form of their operands.

use super::bulk::copied;
use super::{BF16, Case, E4M3, E5M2, F16, FENCE, Layout, WAIT, by_k, by_rows, plain};
use crate::common::refused;
use ptx_sim::{Arch, Class, Kind, Mma};

#[test]
fn columns_may_be_8_to_256() {
    for columns in [8, 16, 24, 64, 104, 128, 256] {
        Case { columns, ..plain() }.multiplies();
    }
}

#[test]
fn every_layout_of_b_with_k_side_by_side() {
    for span in [16, 32, 64, 128] {
        for format in [F16, BF16, E4M3, E5M2] {
            Case { formats: [format; 2], columns: 24, b: by_k(span), ..plain() }.multiplies();
        }
    }
}

#[test]
fn every_layout_of_b_with_columns_side_by_side() {
    for span in [16, 32, 64, 128] {
        for format in [F16, BF16] {
            Case { formats: [format; 2], columns: 136, b: by_rows(span), ..plain() }.multiplies();
        }
    }
}

#[test]
fn every_layout_of_a() {
    for span in [16, 32, 64, 128] {
        Case { formats: [F16; 2], a: by_k(span), ..plain() }.multiplies();
        Case { a: by_rows(span), ..plain() }.multiplies();
        Case { formats: [E4M3; 2], a: by_k(span), ..plain() }.multiplies();
    }
    for format in [F16, BF16, E4M3, E5M2] {
        Case { formats: [format; 2], columns: 32, a: Layout::Registers, ..plain() }.multiplies();
    }
    Case { formats: [E4M3, E5M2], a: Layout::Registers, ..plain() }.multiplies();
    Case { formats: [E5M2, E4M3], ..plain() }.multiplies();
}

/// As attention uses them: keys by 32 bytes inside of the swizzled span, values by 16 rows.
#[test]
fn steps_of_k_move_the_start_of_the_descriptors() {
    Case { columns: 128, steps: 4, ..plain() }.multiplies();
    Case { columns: 128, steps: 2, a: by_rows(128), b: by_rows(128), ..plain() }.multiplies();
    Case { columns: 64, steps: 2, a: by_k(64), b: by_rows(32), ..plain() }.multiplies();
    Case { formats: [E4M3; 2], columns: 64, steps: 4, ..plain() }.multiplies();
}

#[test]
fn accumulators_may_be_left_out_and_products_taken_off() {
    for adds in ["%p3", "!%p2", "0"] {
        Case { adds, ..plain() }.multiplies();
    }
    Case { adds: "1", ..plain() }.multiplies();
    for factors in [[-1, 1], [1, -1], [-1, -1]] {
        Case { factors, ..plain() }.multiplies();
        Case { factors, formats: [E4M3; 2], adds: "%p3", ..plain() }.multiplies();
    }
}

#[test]
fn what_the_accumulators_held_need_not_be_written_where_it_is_left_out() {
    let case = Case { adds: "%p3", ..plain() };
    let run = case.kernel(|body| body.replace("ld.global.f32 %acc3, [%d2+12];", "")).clean();
    assert!(case.found(&run) == case.expected());
    let run = plain().mutant(|body| body.replace("ld.global.f32 %acc3, [%d2+12];", ""));
    assert_eq!(run.finding(Kind::UninitializedRegister).count, 4);
}

#[test]
fn a_product_is_counted_once_a_warp() {
    let run = Case { steps: 3, ..plain() }.kernel(|body| body).clean();
    assert_eq!((run.report.executed(Class::WarpgroupMatrix), run.report.executed(Class::Matrix)), (12, 0));
}

#[test]
fn what_does_not_exist_is_refused() {
    let d = "{%f0, %f1, %f2, %f3}";
    for wrong in [
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.f16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 2, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 2;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, {{%r0, %r1, %r2, %r3}}, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, {{%r0, %r1}}, %d1, 1, 1, 1, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        "wgmma.fence.sync.aligned 0;".into(),
        "wgmma.wait_group.sync.aligned %r0;".into(),
        "wgmma.wait_group.sync.aligned -1;".into(),
        "wgmma.commit_group;".into(),
    ] {
        refused(&wrong);
    }
}

/// Prints what an m64n128k16 costs: `cargo test -p ptx-sim --test ptx cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_product() {
    const TIMES: u32 = 500;
    let case = Case { columns: 128, steps: 4, ..plain() };
    let start = format!("mov.u32 %r20, 0;\nagain: {FENCE}");
    let end = format!("{WAIT} add.u32 %r20, %r20, 1; setp.lt.u32 %p7, %r20, {TIMES}; @%p7 bra again;");
    for (mma, checks) in [(Mma::Fast, true), (Mma::Fast, false), (Mma::Exact(Arch::Sm90), true)] {
        let kernel = case.kernel(|body| copied(&body).replace(FENCE, &start).replace(WAIT, &end));
        let kernel = kernel.options(|options| (options.mma, options.checks) = (mma, checks));
        let begun = std::time::Instant::now();
        kernel.clean();
        let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(4 * TIMES);
        println!("{mma:?}, checks {checks}: {each:.1} us");
    }
}
