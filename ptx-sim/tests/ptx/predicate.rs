//! Comparisons and predicates.

use crate::common::{check, compares, kernel, table};

#[test]
fn integers_are_compared_by_their_sign() {
    compares("eq.b16", |(a, b): (u16, u16)| a == b);
    compares("ne.b32", |(a, b): (u32, u32)| a != b);
    compares("eq.b64", |(a, b): (u64, u64)| a == b);
    compares("lt.s16", |(a, b): (i16, i16)| a < b);
    compares("lt.u16", |(a, b): (u16, u16)| a < b);
    compares("le.s32", |(a, b): (i32, i32)| a <= b);
    compares("gt.u32", |(a, b): (u32, u32)| a > b);
    compares("ge.s64", |(a, b): (i64, i64)| a >= b);
    compares("lo.u32", |(a, b): (u32, u32)| a < b);
    compares("ls.u64", |(a, b): (u64, u64)| a <= b);
    compares("hi.u16", |(a, b): (u16, u16)| a > b);
    compares("hs.u64", |(a, b): (u64, u64)| a >= b);
}

#[test]
fn ordered_comparisons_fail_for_nan() {
    compares("eq.f32", |(a, b): (f32, f32)| a == b);
    compares("ne.f32", |(a, b): (f32, f32)| a != b && !a.is_nan() && !b.is_nan());
    compares("lt.f32", |(a, b): (f32, f32)| a < b);
    compares("le.f64", |(a, b): (f64, f64)| a <= b);
    compares("gt.f64", |(a, b): (f64, f64)| a > b);
    compares("ge.f32", |(a, b): (f32, f32)| a >= b);
    compares("num.f32", |(a, b): (f32, f32)| !a.is_nan() && !b.is_nan());
}

#[test]
fn unordered_comparisons_hold_for_nan() {
    let unordered = |a: f32, b: f32| a.is_nan() || b.is_nan();
    compares("equ.f32", |(a, b): (f32, f32)| unordered(a, b) || a == b);
    compares("neu.f32", |(a, b): (f32, f32)| unordered(a, b) || a != b);
    compares("ltu.f32", |(a, b): (f32, f32)| unordered(a, b) || a < b);
    compares("leu.f32", |(a, b): (f32, f32)| unordered(a, b) || a <= b);
    compares("gtu.f32", |(a, b): (f32, f32)| unordered(a, b) || a > b);
    compares("geu.f32", |(a, b): (f32, f32)| unordered(a, b) || a >= b);
    compares("nan.f32", |(a, b): (f32, f32)| unordered(a, b));
    compares("nan.f64", |(a, b): (f64, f64)| a.is_nan() || b.is_nan());
}

#[test]
fn ftz_compares_subnormals_as_zero() {
    table("setp.eq.ftz.f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[((1e-40f32, -1e-45f32), true)]);
    table("setp.eq.f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[((1e-40f32, -1e-45f32), false)]);
}

#[test]
fn halves_are_compared_as_numbers() {
    let (one, minus, nan) = (0x3c00u16, 0xbc00u16, 0x7e00u16);
    table("setp.gt.f16 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[((one, minus), true), ((minus, one), false)]);
    table("setp.ne.f16 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[((one, nan), false), ((0, 0x8000), false)]);
    table("setp.lt.bf16 %p, %a, %b; selp.b32 %d, 1, 0, %p;", &[((0xbf80u16, 0x3f80u16), true)]);
}

#[test]
fn a_comparison_is_joined_with_a_predicate() {
    let code = |how: &str| format!("setp.ne.b32 %q, %c, 0; setp.lt.{how} %p, %a, %b, %q; selp.b32 %d, 1, 0, %p;");
    check(&code("and.s32"), |(a, b, c): (i32, i32, bool)| a < b && c);
    check(&code("or.s32"), |(a, b, c): (i32, i32, bool)| a < b || c);
    check(&code("xor.f32"), |(a, b, c): (f32, f32, bool)| (a < b) != c);
    let negated = code("and.s32").replace(", %q;", ", !%q;");
    check(&negated, |(a, b, c): (i32, i32, bool)| a < b && !c);
}

/// With a pair the second gets the opposite comparison, joined with the same predicate.
#[test]
fn a_pair_gets_both_outcomes() {
    let code = "setp.ne.b32 %q, %c, 0; setp.lt.and.s32 %p|%q, %a, %b, %q;
        selp.b32 %r0, 1, 0, %p; selp.b32 %r1, 2, 0, %q; add.u32 %d, %r0, %r1;";
    check(code, |(a, b, c): (i32, i32, bool)| u32::from(a < b && c) + 2 * u32::from(a >= b && c));
    let nan = "setp.lt.f32 _|%q, %a, %b; selp.b32 %d, 1, 0, %q;";
    table(nan, &[((1f32, f32::NAN), true), ((1., 2.), false)]);
}

#[test]
fn set_writes_ones_or_a_float() {
    check("set.lt.u32.s32", |(a, b): (i32, i32)| if a < b { u32::MAX } else { 0 });
    check("set.gt.s32.f64", |(a, b): (f64, f64)| if a > b { -1 } else { 0 });
    check("set.leu.f32.f32", |(a, b): (f32, f32)| if a > b { 0f32 } else { 1f32 });
    let code = "setp.ne.b32 %q, %c, 0; set.eq.or.u32.b32 %d, %a, %b, !%q;";
    check(code, |(a, b, c): (u32, u32, bool)| if a == b || !c { u32::MAX } else { 0 });
}

#[test]
fn predicates_have_logic_of_their_own() {
    let code =
        |operation: &str| format!("setp.ne.b32 %p, %a, 0; setp.ne.b32 %q, %b, 0; {operation}; selp.b32 %d, 1, 0, %p;");
    check(&code("and.pred %p, %p, %q"), |(a, b): (bool, bool)| a && b);
    check(&code("or.pred %p, %p, !%q"), |(a, b): (bool, bool)| a || !b);
    check(&code("xor.pred %p, %p, %q"), |(a, b): (bool, bool)| a != b);
    check(&code("not.pred %p, %q"), |(_, b): (bool, bool)| !b);
    check(&code("mov.pred %p, %q"), |(_, b): (bool, bool)| b);
    check(&code("mov.pred %p, 0"), |_: (bool, bool)| false);
    check(&code("mov.pred %p, -1"), |_: (bool, bool)| true);
    check(&code("and.pred %p, %p, 1"), |(a, _): (bool, bool)| a);
}

#[test]
fn a_guard_leaves_other_lanes_alone() {
    let code = "setp.ne.b32 %p, %c, 0; mov.u32 %d, %a; @%p mov.u32 %d, %b;";
    check(code, |(a, b, c): (u32, u32, bool)| if c { b } else { a });
    let code = code.replace("@%p", "@!%p");
    check(&code, |(a, b, c): (u32, u32, bool)| if c { a } else { b });
}

#[test]
fn a_guarded_comparison_leaves_other_lanes_alone() {
    let run = kernel(
        "setp.lt.u32 %p1, %lane, 8; setp.lt.u32 %p2, %lane, 100;
         @%p1 setp.gt.u32 %p2, %lane, 3;
         selp.b32 %r1, 1, 0, %p2; st.global.b32 [%out], %r1;",
    )
    .clean();
    assert_eq!(run.results(), (0..32).map(|lane| u32::from(lane > 3)).collect::<Vec<_>>());
}
