//! `cp.async`: copies that arrive later.

use crate::common::{Kernel, kernel, refused};
use ptx_sim::{Delivery, Kind};

/// Lane l copies 16 bytes from word 4l of the input to its place in shared memory, in `%r1`; then `code`; then the lane
/// hands out what is there.
fn copies(code: &str) -> Kernel {
    let body = format!(
        "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %lane, 16, %r0; mad.wide.u32 %in, %lane, 16, %in;
         {code}
         ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r1]; st.global.v4.u32 [%out], {{%r4, %r5, %r6, %r7}};"
    );
    kernel(&body).input(&(1..=128).collect::<Vec<_>>()).shared(1024)
}

/// The same however the bytes are delivered.
#[track_caller]
fn gives(code: &str, expected: impl Fn(u32) -> [u32; 4]) {
    for delivery in [Delivery::Late, Delivery::Immediate] {
        let run = copies(code).options(|options| options.delivery = delivery).clean();
        for lane in 0..32 {
            assert_eq!(run.of(lane as usize), expected(4 * lane), "{delivery:?} lane {lane} {code}");
        }
    }
}

const WAIT: &str = "cp.async.commit_group; cp.async.wait_group 0;";

#[test]
fn copies_have_16_8_or_4_bytes() {
    let whole = |first: u32| [first + 1, first + 2, first + 3, first + 4];
    gives(&format!("cp.async.cg.shared.global [%r1], [%in], 16; {WAIT}"), whole);
    gives(&format!("cp.async.ca.shared::cta.global.L2::128B [%r1], [%in], 16; {WAIT}"), whole);
    let filled = "st.shared.v4.u32 [%r1], {7, 7, 7, 7};";
    gives(&format!("{filled} cp.async.ca.shared.global [%r1+8], [%in+8], 8; {WAIT}"), |first| {
        [7, 7, first + 3, first + 4]
    });
    gives(&format!("{filled} cp.async.ca.shared.global [%r1+4], [%in], 4; {WAIT}"), |first| [7, first + 1, 7, 7]);
}

#[test]
fn bytes_beyond_the_source_size_become_zero() {
    for bytes in [0, 1, 4, 6, 12, 16] {
        gives(&format!("cp.async.cg.shared.global [%r1], [%in], 16, {bytes}; {WAIT}"), |first| {
            let source: Vec<u8> = (1..=4).flat_map(|i| (first + i).to_le_bytes()).collect();
            let byte = |at: usize| if at < bytes { source[at] } else { 0 };
            std::array::from_fn(|word| u32::from_le_bytes(std::array::from_fn(|i| byte(4 * word + i))))
        });
    }
    gives(
        &format!("and.b32 %r2, %lane, 1; shl.b32 %r2, %r2, 4; cp.async.cg.shared.global [%r1], [%in], 16, %r2; {WAIT}"),
        |first| {
            if first % 8 == 0 { [0; 4] } else { [first + 1, first + 2, first + 3, first + 4] }
        },
    );
}

/// With no bytes to read the address may be anything.
#[test]
fn a_source_of_no_bytes_is_not_looked_at() {
    gives(&format!("mov.u64 %d0, 0; cp.async.cg.shared.global [%r1], [%d0], 16, 0; {WAIT}"), |_| [0; 4]);
    gives(
        &format!("mov.u64 %d0, 1; setp.eq.u32 %p1, 0, 0; cp.async.ca.shared.global [%r1], [%d0], 16, %p1; {WAIT}"),
        |_| [0; 4],
    );
}

#[test]
fn a_copy_whose_predicate_holds_is_all_zero() {
    gives(&format!("setp.ge.u32 %p1, %lane, 9; cp.async.cg.shared.global [%r1], [%in], 16, %p1; {WAIT}"), |first| {
        if first >= 36 { [0; 4] } else { [first + 1, first + 2, first + 3, first + 4] }
    });
}

#[test]
fn a_guarded_copy_leaves_other_lanes_alone() {
    let code = "st.shared.v4.u32 [%r1], {7, 7, 7, 7}; setp.lt.u32 %p1, %lane, 5;
        @%p1 cp.async.cg.shared.global [%r1], [%in], 16; cp.async.wait_all;";
    gives(code, |first| if first < 20 { [first + 1, first + 2, first + 3, first + 4] } else { [7; 4] });
}

#[test]
fn a_wait_for_all_needs_no_group() {
    gives("cp.async.ca.shared.global [%r1], [%in], 16; cp.async.wait_all;", |first| {
        [first + 1, first + 2, first + 3, first + 4]
    });
}

/// Three groups of 4 bytes; the wait leaves the newest open, which may not be read before the last wait.
#[test]
fn a_wait_leaves_the_newest_groups_open() {
    let code = "cp.async.ca.shared.global [%r1], [%in], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r1+4], [%in], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r1+8], [%in], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r1+12], [%in], 4;
        cp.async.wait_group 1;
        ld.shared.v2.u32 {%r8, %r9}, [%r1]; add.u32 %r8, %r8, %r9;
        cp.async.wait_all; st.shared.u32 [%r1+4], %r8;";
    gives(code, |first| [first + 1, 2 * (first + 1), first + 1, first + 1]);
}

#[test]
fn groups_may_be_empty() {
    let code = "cp.async.cg.shared.global [%r1], [%in], 16; cp.async.commit_group; cp.async.commit_group;
        cp.async.wait_group 1;";
    gives(code, |first| [first + 1, first + 2, first + 3, first + 4]);
}

/// Late delivery shows data that is used too early: the bytes are NaN until the wait.
#[test]
fn what_is_read_too_early_is_found_and_not_there_yet() {
    let run = copies(
        "cp.async.cg.shared.global [%r1], [%in], 16; ld.shared.u32 %r8, [%r1]; // early
        cp.async.wait_all; st.shared.u32 [%r1], %r8;",
    )
    .run();
    let finding = run.finding(Kind::AsyncInFlight);
    assert_eq!((finding.at.line, finding.count, finding.at.lane), (run.line("// early"), 32, 0));
    assert_eq!(finding.with.as_ref().map(|with| with.line), Some(run.line("// early")));
    assert_eq!(run.of(3), [u32::MAX, 14, 15, 16]);
}

/// Immediate delivery shows data that is overwritten too early.
#[test]
fn what_is_copied_over_is_found_and_gone() {
    let code = "st.shared.u32 [%r1], 7; cp.async.ca.shared.global [%r1], [%in], 4; ld.shared.u32 %r8, [%r1];
        cp.async.wait_all; st.shared.u32 [%r1], %r8; st.shared.v2.u32 [%r1+8], {0, 0}; st.shared.u32 [%r1+4], 0;";
    let run = copies(code).options(|options| options.delivery = Delivery::Immediate).run();
    run.finding(Kind::AsyncInFlight);
    assert_eq!(run.of(3), [13, 0, 0, 0]);
}

/// Each wait is for the lane's own copies: a barrier makes them visible to others.
#[test]
fn other_warps_see_a_copy_behind_wait_and_barrier() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; mad.wide.u32 %in, %t, 4, %in;
        cp.async.ca.shared.global [%r1], [%in], 4; cp.async.wait_all; bar.sync 0;
        sub.u32 %r2, 63, %t; mad.lo.u32 %r2, %r2, 4, %r0; ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3;";
    let run = kernel(body).threads(64).shared(256).input(&(0..64).collect::<Vec<_>>()).clean();
    assert_eq!(run.results(), (0..64).rev().collect::<Vec<_>>());
}

#[test]
fn the_source_is_read_when_it_is_copied() {
    let run = copies("cp.async.cg.shared.global [%r1], [%in+4096], 16; cp.async.wait_all; // far").run();
    let finding = run.finding(Kind::OutOfBounds);
    assert_eq!((finding.at.line, finding.count), (run.line("// far"), 32));
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "cp.async.cg.shared.global [%r1], [%in], 8;",
        "cp.async.ca.shared.global [%r1], [%in], 12;",
        "cp.async.shared.global [%r1], [%in], 16;",
        "cp.async.ca.shared.global [%r1], [%in], %r2;",
        "cp.async.wait_group %r1;",
        "cp.async.wait_group -1;",
        "cp.async.commit_group 0;",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
