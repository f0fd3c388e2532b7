//! What goes wrong when products, fences, waits and writes are out of order, or the warps of a warpgroup part.

use super::{COMMIT, Case, FENCE, Layout, TILE, WAIT, by_rows, cell, number, plain};
use crate::common::{Run, kernel};
use ptx_sim::{Delivery, Kind, WarpOrder};

/// The whole text is one kernel for two warpgroups that do not wait for each other.
#[test]
fn warpgroups_are_four_neighbouring_warps() {
    let case = plain();
    for warp_order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        let second = |body: String| body.replace("mad.wide.u32 %d1, %t,", "and.b32 %t, %t, 127; mad.wide.u32 %d1, %t,");
        let only = |body: String| body.replace("st.global.f32 [", "@%p4 st.global.f32 [");
        let first = |body: String| body.replace("mov.u32 %r1, %t;", "mov.u32 %r1, %t; setp.ge.u32 %p4, %t, 128;");
        let kernel = case.kernel(|body| only(second(first(body)))).threads(256);
        let run = kernel.options(|options| options.warp_order = warp_order).clean();
        assert!(case.found(&run) == case.expected(), "{warp_order:?}");
    }
    let few = case.kernel(|body| body).threads(96).run();
    assert!(few.report.findings.iter().all(|finding| finding.message == "the warpgroup has 3 of 4 warps"));
}

#[test]
fn a_product_without_a_fence_is_found() {
    let run = plain().mutant(|body| body.replace(FENCE, ""));
    assert!(run.report.findings.iter().any(|finding| finding.message.contains("before the first product")));
    let late = format!("{FENCE} add.f32 %acc5, %acc5, %acc6;");
    let run = plain().mutant(|body| body.replace(FENCE, &late));
    assert_eq!(run.finding(Kind::UnfencedRegister).count, 4);
    let case = Case { a: Layout::Registers, ..plain() };
    let run = case.mutant(|body| body.replace(FENCE, &format!("{FENCE} add.u32 %a2, %a2, 0;")));
    run.finding(Kind::UnfencedRegister);
    let run = case.mutant(|body| body.replace(FENCE, &format!("{FENCE} add.u32 %r9, %a2, 0;")));
    assert!(run.report.is_clean(), "a register of A that is only read: {}", run.report);
}

#[test]
fn a_fence_must_stand_between_products_of_different_shapes() {
    let other =
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%acc0, %acc1, %acc2, %acc3}, %db, %db, 1, 1, 1, 0, 0;";
    let run = plain().mutant(|body| body.replace(COMMIT, &format!("{other} // narrow\n{COMMIT}")));
    let finding = run.finding(Kind::UnfencedRegister);
    assert_eq!(finding.at.line, run.line("// narrow"));
    plain().kernel(|body| body.replace(COMMIT, &format!("{FENCE} {other} {COMMIT}"))).clean();
}

#[test]
fn accumulators_that_are_read_before_the_wait_are_found_and_not_there_yet() {
    let case = plain();
    for delivery in [Delivery::Late, Delivery::Immediate] {
        let early = case
            .kernel(|body| body.replace(WAIT, &format!("mov.f32 %f0, %acc2; // early\n{WAIT} mov.f32 %acc2, %f0;")));
        let run = early.options(|options| options.delivery = delivery).run();
        let finding = run.finding(Kind::RegisterInFlight);
        assert_eq!((finding.at.line, finding.count), (run.line("// early"), 4));
        assert_eq!(finding.with.as_ref().map(|with| with.line), Some(run.line("wgmma.mma_async")));
        let (row, column) = cell(0, 2);
        let wrong = if delivery == Delivery::Late { number(row, column, 3) } else { case.expected()[row][column] };
        assert_eq!(case.found(&run)[row][column], wrong);
    }
}

#[test]
fn registers_of_a_must_stay_as_they_are_until_the_wait() {
    let case = Case { a: Layout::Registers, ..plain() };
    let run = case.mutant(|body| body.replace(COMMIT, &format!("{COMMIT} mov.b32 %a1, 0;")));
    run.finding(Kind::RegisterInFlight);
    assert!(case.found(&run) != case.expected());
}

#[test]
fn an_accumulator_in_flight_is_no_part_of_a() {
    let more = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%acc40, %acc41, %acc42, %acc43}, {%acc0, %acc1, %acc2, %acc3}, %db, 0, 1, 1, 0;";
    let run = plain().mutant(|body| body.replace(COMMIT, &format!("{more} {COMMIT}")));
    run.finding(Kind::RegisterInFlight);
}

#[test]
fn a_wait_leaves_the_newest_groups_open() {
    let case = Case { steps: 2, ..plain() };
    let split = |body: String| body.replacen("\nmov.b64 %db", &format!("\n{COMMIT}\nmov.b64 %db"), 2);
    case.kernel(split).clean();
    let run = case.mutant(|body| split(body).replace(WAIT, "wgmma.wait_group.sync.aligned 1; // wait"));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::RegisterInFlight));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::AsyncUnfinished));
    assert!(case.found(&run) != case.expected());
}

#[test]
fn a_product_that_is_never_waited_for_is_found() {
    let run =
        plain().mutant(|body| body.replace(WAIT, "").split("st.global.f32").next().unwrap_or_default().to_owned());
    let finding = run.finding(Kind::AsyncUnfinished);
    assert_eq!(finding.at.line, run.line("wgmma.mma_async"));
    let run = plain().mutant(|body| body.replace(COMMIT, ""));
    assert!(run.report.findings.iter().any(|finding| finding.message.contains("commit_group is missing")));
}

#[test]
fn operands_need_a_fence_between_the_proxies_and_a_barrier() {
    let case = plain();
    let run = case.mutant(|body| body.replace("fence.proxy.async;", ""));
    let finding = run.finding(Kind::ProxyFence);
    assert_eq!((finding.at.line, finding.with.as_ref().map(|with| with.line)), {
        (run.line("wgmma.mma_async"), Some(run.line("// fill")))
    });
    let run = case.mutant(|body| body.replace("bar.sync 0;", ""));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{}", run.report);
}

/// A write that comes before the wait is found however it is ordered, and spoils the numbers where they are made late.
#[test]
fn operands_must_stay_as_they_are_until_the_wait() {
    let case = plain();
    for barrier in ["", "bar.sync 0;"] {
        let over = format!("{COMMIT} {barrier} mad.lo.u32 %r4, %t, 4, %r0; st.shared.u32 [%r4], 0x40004000; // over\n");
        let run = case.mutant(|body| body.replace(COMMIT, &over));
        let line = run.line("// over");
        let found =
            |kind: Kind| run.report.findings.iter().any(|finding| finding.kind == kind && finding.at.line == line);
        assert!(found(Kind::AsyncInFlight) && case.found(&run) != case.expected(), "{}", run.report);
        let run = case.kernel(|body| body.replace(COMMIT, &over)).options(|o| o.delivery = Delivery::Immediate).run();
        assert!(!run.report.is_clean() && case.found(&run) == case.expected());
    }
}

/// Warp 4 writes when warp 2 alone has told it to.
#[test]
fn behind_the_wait_of_any_of_its_warps_the_operands_are_free() {
    let case = plain();
    let told = |signal: &str| {
        let start = format!("setp.ge.u32 %p5, %t, 128; setp.eq.u32 %p6, %warp, 2; @%p5 bra writer; {FENCE}");
        let signal = signal.replace("tell", "@!%p6 bra told; bar.arrive 1, 64; told:");
        let body = case.body().replace(FENCE, &start).replace(WAIT, &signal);
        let body = format!("{body} bra done; writer: bar.sync 1, 64;\nst.shared.u32 [%r0], 5; // over\ndone:");
        kernel(&body).threads(160).shared(2 * TILE as u32 + 1024).input(&[case.input(), vec![0; 32 * 8]].concat())
    };
    let over = |run: &Run| {
        let line = run.line("// over");
        run.report
            .findings
            .iter()
            .filter(|finding| finding.at.line == line)
            .map(|finding| finding.kind)
            .collect::<Vec<_>>()
    };
    let run = told(&format!("{WAIT} tell")).clean();
    assert!(case.found(&run) == case.expected());
    let run = told(&format!("tell {WAIT}")).run();
    assert!(over(&run).contains(&Kind::SharedRace), "{}", run.report);
}

#[test]
fn a_wrong_stride_gives_wrong_numbers_or_leaves_the_memory() {
    let case = plain();
    let shift =
        |stride: usize| Case { b: Layout::Shared { transposed: false, span: 128, leading: 16, stride }, ..plain() };
    let right = case.body();
    let wrong = |stride| {
        let products = shift(stride).products();
        case.mutant(|_| right.replace(&case.products(), &products))
    };
    let near = wrong(512);
    assert!(near.report.is_clean() && case.found(&near) != case.expected());
    let far = wrong(TILE + 1024);
    let finding = far.finding(Kind::OutOfBounds);
    assert!(finding.message.starts_with("B, descriptor"), "{finding:?}");
    assert!(case.found(&far).iter().any(|row| row[15].is_nan()));
}

/// In a cluster the address of shared memory has the rank of the block above its 18 bits.
#[test]
fn bits_that_do_not_belong_to_a_field_are_found() {
    let (case, more) = (plain(), |bit: u32| format!("xor.b64 %db, %db, {}; wgmma.mma_async", 1u64 << bit));
    for bit in [14, 15, 31, 47, 48, 52, 61] {
        let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(bit)));
        assert!(run.finding(Kind::InvalidOperand).message.starts_with("B: descriptor"), "bit {bit}");
    }
    let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(50)));
    assert!(run.finding(Kind::InvalidOperand).message.contains("a base offset of 2"));
    // A bit of the rank, shifted into the leading offset: with columns side by side that is a wrong place.
    let case = Case { columns: 128, b: by_rows(128), ..plain() };
    let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(20)));
    assert!(case.found(&run) != case.expected());
}

#[test]
fn all_warps_of_the_warpgroup_must_come() {
    let body = plain().body();
    let run = plain().mutant(|_| body.replace(FENCE, &format!("setp.eq.u32 %p4, %warp, 3; @%p4 ret; {FENCE}")));
    assert!(run.finding(Kind::Deadlock).message.contains("warp 0 for warp 3 of its warpgroup"), "{}", run.report);
    let around = format!("setp.eq.u32 %p4, %warp, 1; @%p4 bra around; {FENCE}");
    let behind = format!("{WAIT} around:");
    let run = plain().mutant(|_| body.replace(FENCE, &around).replace(WAIT, &behind));
    let waits = run.finding(Kind::Deadlock);
    assert!(waits.message.contains("warp 3 for warp 1 of its warpgroup"), "{}", waits.message);
}

#[test]
fn all_warps_must_issue_the_same() {
    let own = "setp.eq.u32 %p4, %warp, 2; @%p4 add.u64 %db, %db, 2; wgmma.mma_async";
    let run = plain().mutant(|body| body.replace("wgmma.mma_async", own));
    let finding = run.finding(Kind::InvalidOperand);
    assert!(finding.at.warp == 2 && finding.message.contains("warp 0 has A"), "{finding:?}");
    let run = plain().mutant(|body| body.replace("setp.ne.u32", "setp.ne.u32 %p2, %warp, 1; setp.ne.u32"));
    assert!(run.finding(Kind::InvalidOperand).message.contains("scale-d false"));
}

#[test]
fn all_lanes_must_agree() {
    let run = plain().mutant(|body| {
        body.replace("wgmma.mma_async", "cvt.u64.u32 %d5, %lane; add.u64 %db, %db, %d5; wgmma.mma_async")
    });
    assert!(run.finding(Kind::InvalidOperand).message.starts_with("descriptors differ"));
    let run = plain().mutant(|body| body.replace("setp.ne.u32", "setp.lt.u32 %p2, %lane, 7; setp.ne.u32"));
    assert_eq!(run.finding(Kind::InvalidOperand).message, "scale-d holds in lanes 0x0000007f only");
    let run = plain()
        .mutant(|body| body.replace(FENCE, &format!("setp.eq.u32 %p4, %lane, 9; @%p4 bra past; {FENCE}")) + "past:");
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::Diverged));
}
