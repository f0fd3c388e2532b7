//! What the lanes of a warp do together: shuffles, votes, reductions.

use crate::common::{Kernel, kernel, refused};
use ptx_sim::{Kind, Reconvergence};

/// A warp that computes `%r0` in each lane, from `%lane` and from `%r1`, which is 100 more.
fn warp(code: &str) -> Kernel {
    kernel(&format!("add.u32 %r1, %lane, 100;\n{code}\nst.global.b32 [%out], %r0;"))
}

#[track_caller]
fn lanes(code: &str, expected: impl Fn(u32) -> u32) {
    let expected: Vec<u32> = (0..32).map(expected).collect();
    assert_eq!(warp(code).clean().results(), expected, "{code}");
}

/// The value, and 1000 more where the source lane is in range.
#[track_caller]
fn shuffles(mode: &str, b: &str, c: u32, source: impl Fn(i32) -> (i32, bool)) {
    let code = format!("shfl.sync.{mode}.b32 %r0|%p1, %r1, {b}, {c:#x}, -1; @%p1 add.u32 %r0, %r0, 1000;");
    lanes(&code, |lane| {
        let (from, valid) = source(lane as i32);
        (if valid { from } else { lane as i32 }) as u32 + 100 + if valid { 1000 } else { 0 }
    });
}

#[test]
fn shfl_up_takes_from_a_lower_lane_and_keeps_at_the_start() {
    shuffles("up", "1", 0, |lane| (lane - 1, lane >= 1));
    shuffles("up", "8", 0, |lane| (lane - 8, lane >= 8));
    shuffles("up", "33", 0, |lane| (lane - 1, lane >= 1));
    // Segments of 8 lanes.
    shuffles("up", "3", 0x1800, |lane| (lane - 3, lane % 8 >= 3));
}

#[test]
fn shfl_down_takes_from_a_higher_lane_and_keeps_at_the_end() {
    shuffles("down", "1", 31, |lane| (lane + 1, lane < 31));
    shuffles("down", "16", 31, |lane| (lane + 16, lane + 16 <= 31));
    shuffles("down", "1", 20, |lane| (lane + 1, lane < 20));
    shuffles("down", "2", 0x1c03, |lane| (lane + 2, lane % 4 + 2 <= 3));
}

#[test]
fn shfl_bfly_swaps() {
    shuffles("bfly", "1", 31, |lane| (lane ^ 1, true));
    shuffles("bfly", "16", 31, |lane| (lane ^ 16, true));
    shuffles("bfly", "5", 0x181f, |lane| (lane ^ 5, true));
    shuffles("bfly", "16", 15, |lane| (lane ^ 16, lane ^ 16 <= 15));
}

#[test]
fn shfl_idx_takes_from_the_lane_that_is_named() {
    shuffles("idx", "7", 31, |_| (7, true));
    shuffles("idx", "39", 31, |_| (7, true));
    shuffles("idx", "%lane", 31, |lane| (lane, true));
    shuffles("idx", "2", 0x1c1f, |lane| (lane & !3 | 2, true));
    shuffles("idx", "9", 5, |_| (9, false));
}

#[test]
fn shfl_may_leave_lanes_out() {
    let code = "mov.u32 %r0, 0; setp.lt.u32 %p1, %lane, 8; @%p1 shfl.sync.bfly.b32 %r0, %r1, 1, 31, 0xff;";
    lanes(code, |lane| if lane < 8 { (lane ^ 1) + 100 } else { 0 });
}

#[test]
fn votes_count_those_who_are_named() {
    let code = |vote: &str| format!("setp.lt.u32 %p1, %lane, 5; {vote}");
    let flag = " selp.b32 %r0, 1, 0, %p2;";
    lanes(&code("vote.sync.ballot.b32 %r0, %p1, -1;"), |_| 0x1f);
    lanes(&code("vote.sync.ballot.b32 %r0, !%p1, -1;"), |_| !0x1f);
    lanes(&code(&format!("vote.sync.any.pred %p2, %p1, -1;{flag}")), |_| 1);
    lanes(&code(&format!("vote.sync.all.pred %p2, %p1, -1;{flag}")), |_| 0);
    lanes(&code(&format!("vote.sync.uni.pred %p2, %p1, -1;{flag}")), |_| 0);
    let few = "setp.lt.u32 %p3, %lane, 4; mov.u32 %r0, 9;";
    lanes(&code(&format!("{few} @%p3 vote.sync.all.pred %p2, %p1, 0xf; @%p3 selp.b32 %r0, 1, 0, %p2;")), |lane| {
        if lane < 4 { 1 } else { 9 }
    });
    lanes(&code(&format!("{few} @%p3 vote.sync.uni.pred %p2, !%p1, 0xf; @%p3 selp.b32 %r0, 1, 0, %p2;")), |lane| {
        if lane < 4 { 1 } else { 9 }
    });
}

#[test]
fn match_finds_the_lanes_with_the_same_value() {
    lanes("rem.u32 %r2, %lane, 3; match.any.sync.b32 %r0, %r2, -1;", |lane| {
        (0..32).filter(|other| other % 3 == lane % 3).fold(0, |mask, other| mask | 1 << other)
    });
}

#[test]
fn redux_reduces_over_the_lanes() {
    let values = |lane: u32| lane + 100;
    lanes("redux.sync.add.s32 %r0, %r1, -1;", |_| (0..32).map(values).sum());
    lanes("redux.sync.min.u32 %r0, %r1, -1;", |_| 100);
    lanes("redux.sync.max.u32 %r0, %r1, -1;", |_| 131);
    lanes("redux.sync.and.b32 %r0, %r1, -1;", |_| (0..32).map(values).fold(!0, |a, b| a & b));
    lanes("redux.sync.or.b32 %r0, %r1, -1;", |_| (0..32).map(values).fold(0, |a, b| a | b));
    lanes("redux.sync.xor.b32 %r0, %r1, -1;", |_| (0..32).map(values).fold(0, |a, b| a ^ b));
    lanes("sub.s32 %r2, %lane, 9; redux.sync.min.s32 %r0, %r2, -1;", |_| -9i32 as u32);
    lanes("sub.s32 %r2, %lane, 9; redux.sync.max.s32 %r0, %r2, -1;", |_| 22);
    let few = "mov.u32 %r0, 7; setp.ge.u32 %p1, %lane, 30; @%p1 redux.sync.add.u32 %r0, %r1, 0xc0000000;";
    lanes(few, |lane| if lane >= 30 { 130 + 131 } else { 7 });
}

#[test]
fn activemask_names_those_who_execute_it() {
    lanes("activemask.b32 %r0;", |_| u32::MAX);
    let guarded = "mov.u32 %r0, 0; setp.lt.u32 %p1, %lane, 5; @%p1 activemask.b32 %r0;";
    lanes(guarded, |lane| if lane < 5 { 0x1f } else { 0 });
    let branch = "mov.u32 %r0, 0; setp.ge.u32 %p1, %lane, 5; @%p1 bra after; activemask.b32 %r0; after:";
    lanes(branch, |lane| if lane < 5 { 0x1f } else { 0 });
}

#[test]
fn lanes_know_who_comes_before_and_behind() {
    lanes("mov.u32 %r0, %lanemask_eq;", |lane| 1 << lane);
    lanes("mov.u32 %r0, %lanemask_lt;", |lane| (1 << lane) - 1);
    lanes("mov.u32 %r0, %lanemask_le;", |lane| u32::MAX >> (31 - lane));
    lanes("mov.u32 %r0, %lanemask_gt;", |lane| !(u32::MAX >> (31 - lane)));
    lanes("mov.u32 %r0, %lanemask_ge;", |lane| u32::MAX << lane);
}

/// Early, lanes meet behind the branch; late, they meet at the instruction that names them.
#[test]
fn lanes_that_parted_meet_at_a_shuffle() {
    let code = "setp.lt.u32 %p1, %lane, 16; @%p1 bra low; add.u32 %r1, %r1, 1000; low:
        shfl.sync.bfly.b32 %r0, %r1, 16, 31, -1;";
    for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
        let run = warp(code).options(|options| options.reconvergence = reconvergence).clean();
        let expected: Vec<_> = (0..32).map(|lane| (lane ^ 16) + 100 + if lane < 16 { 1000 } else { 0 }).collect();
        assert_eq!(run.results(), expected, "{reconvergence:?}");
    }
}

/// The lanes for which a guard holds wait for their like in another part of the warp.
#[test]
fn lanes_that_parted_meet_at_a_guarded_shuffle() {
    let code = "mov.u32 %r0, 0; and.b32 %r2, %lane, 8; setp.eq.u32 %p2, %r2, 0;
        setp.lt.u32 %p1, %lane, 16; @%p1 bra low; add.u32 %r1, %r1, 1000; low:
        @%p2 shfl.sync.bfly.b32 %r0, %r1, 16, 31, 0x00ff00ff;";
    for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
        let run = warp(code).options(|options| options.reconvergence = reconvergence).clean();
        let value = |lane: u32| lane + 100 + if lane < 16 { 0 } else { 1000 };
        let expected = (0..32).map(|lane| if lane & 8 == 0 { value(lane ^ 16) } else { 0 });
        assert_eq!(run.results(), expected.collect::<Vec<_>>(), "{reconvergence:?}");
    }
}

/// The two halves of a warp may shuffle at different places, each for itself.
#[test]
fn halves_may_shuffle_apart() {
    let code = "setp.lt.u32 %p1, %lane, 16; @%p1 bra low;
        shfl.sync.idx.b32 %r0, %r1, 16, 31, 0xffff0000; bra done; low:
        shfl.sync.idx.b32 %r0, %r1, 0, 31, 0x0000ffff; done:";
    for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
        let run = warp(code).options(|options| options.reconvergence = reconvergence).clean();
        assert_eq!(run.results(), (0..32).map(|lane| 100 + (lane & 16)).collect::<Vec<_>>());
    }
}

/// Data passes through shared memory from lane to lane, with nothing but `bar.warp.sync` in between.
#[test]
fn a_warp_barrier_lets_lanes_see_each_other() {
    let code = "mov.u32 %r2, dynamic; mad.lo.u32 %r3, %lane, 4, %r2; st.shared.u32 [%r3], %r1;
        bar.warp.sync -1;
        xor.b32 %r3, %lane, 31; mad.lo.u32 %r3, %r3, 4, %r2; ld.shared.u32 %r0, [%r3];";
    let run = warp(code).shared(128).clean();
    assert_eq!(run.results(), (0..32).map(|lane| (lane ^ 31) + 100).collect::<Vec<_>>());
}

#[test]
fn a_lane_that_is_not_named_may_not_take_part() {
    let run = warp("shfl.sync.bfly.b32 %r0, %r1, 1, 31, 0xff;").run();
    let finding = run.finding(Kind::InvalidOperand);
    assert_eq!((finding.at.lane, finding.at.line), (0, run.line("shfl.sync")));
    assert!(finding.message.contains("0x000000ff"), "{}", finding.message);
}

#[test]
fn a_shuffle_from_a_lane_that_does_not_take_part_is_found() {
    let run = warp("mov.u32 %r0, 0; setp.lt.u32 %p1, %lane, 8; @%p1 shfl.sync.bfly.b32 %r0, %r1, 8, 31, 0xff;").run();
    let finding = run.finding(Kind::Diverged);
    assert_eq!((finding.at.lane, finding.at.line, finding.count), (0, run.line("shfl.sync"), 1));
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "shfl.bfly.b32 %r0, %r1, 1, 31;",
        "shfl.sync.left.b32 %r0, %r1, 1, 31, -1;",
        "shfl.sync.bfly.b64 %d0, %d1, 1, 31, -1;",
        "redux.sync.mul.u32 %r0, %r1, -1;",
        "vote.ballot.b32 %r0, %p1;",
        "match.any.sync.b16 %r0, %h1, -1;",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
