//! Integer arithmetic, against Rust's.

use crate::common::{Operands, Value, check, check_at, refused, table};

#[test]
fn sums_wrap() {
    check("add.u16", |(a, b): (u16, u16)| a.wrapping_add(b));
    check("add.s32", |(a, b): (i32, i32)| a.wrapping_add(b));
    check("add.u64", |(a, b): (u64, u64)| a.wrapping_add(b));
    check("sub.s16", |(a, b): (i16, i16)| a.wrapping_sub(b));
    check("sub.u32", |(a, b): (u32, u32)| a.wrapping_sub(b));
    check("sub.s64", |(a, b): (i64, i64)| a.wrapping_sub(b));
}

#[test]
fn saturated_sums_stop_at_the_ends() {
    check("add.sat.s32", |(a, b): (i32, i32)| a.saturating_add(b));
    check("sub.sat.s32", |(a, b): (i32, i32)| a.saturating_sub(b));
    assert!(refused("add.sat.u32 %r1, %r2, %r3;").contains("add.sat.u32"));
}

#[test]
fn products_have_a_lower_half() {
    check("mul.lo.u16", |(a, b): (u16, u16)| a.wrapping_mul(b));
    check("mul.lo.s32", |(a, b): (i32, i32)| a.wrapping_mul(b));
    check("mul.lo.u64", |(a, b): (u64, u64)| a.wrapping_mul(b));
}

#[test]
fn products_have_an_upper_half() {
    check("mul.hi.u16", |(a, b): (u16, u16)| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    check("mul.hi.s16", |(a, b): (i16, i16)| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    check("mul.hi.u32", |(a, b): (u32, u32)| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check("mul.hi.s32", |(a, b): (i32, i32)| ((i64::from(a) * i64::from(b)) >> 32) as i32);
    check("mul.hi.u64", |(a, b): (u64, u64)| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check("mul.hi.s64", |(a, b): (i64, i64)| ((i128::from(a) * i128::from(b)) >> 64) as i64);
}

#[test]
fn wide_products_are_whole() {
    check("mul.wide.u16", |(a, b): (u16, u16)| u32::from(a) * u32::from(b));
    check("mul.wide.s16", |(a, b): (i16, i16)| i32::from(a) * i32::from(b));
    check("mul.wide.u32", |(a, b): (u32, u32)| u64::from(a) * u64::from(b));
    check("mul.wide.s32", |(a, b): (i32, i32)| i64::from(a) * i64::from(b));
}

#[test]
fn products_take_an_addend() {
    check("mad.lo.u16", |(a, b, c): (u16, u16, u16)| a.wrapping_mul(b).wrapping_add(c));
    check("mad.lo.s32", |(a, b, c): (i32, i32, i32)| a.wrapping_mul(b).wrapping_add(c));
    check("mad.lo.u64", |(a, b, c): (u64, u64, u64)| a.wrapping_mul(b).wrapping_add(c));
    let high = |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32;
    check("mad.hi.s32", |(a, b, c): (i32, i32, i32)| high(a, b).wrapping_add(c));
    check("mad.wide.u16", |(a, b, c): (u16, u16, u32)| (u32::from(a) * u32::from(b)).wrapping_add(c));
    check("mad.wide.s16", |(a, b, c): (i16, i16, i32)| (i32::from(a) * i32::from(b)).wrapping_add(c));
    check("mad.wide.u32", |(a, b, c): (u32, u32, u64)| (u64::from(a) * u64::from(b)).wrapping_add(c));
    check("mad.wide.s32", |(a, b, c): (i32, i32, i64)| (i64::from(a) * i64::from(b)).wrapping_add(c));
}

#[test]
fn products_of_24_bits_ignore_the_upper_8() {
    check("mul24.lo.u32", |(a, b): (u32, u32)| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff));
    check("mul24.lo.s32", |(a, b): (i32, i32)| (a << 8 >> 8).wrapping_mul(b << 8 >> 8));
}

#[test]
fn quotients_are_cut_toward_zero_and_the_least_by_minus_one_wraps() {
    check_at("div.u16", &divisible(), |(a, b): (u16, u16)| a / b);
    check_at("div.s16", &divisible(), |(a, b): (i16, i16)| a.wrapping_div(b));
    check_at("div.u32", &divisible(), |(a, b): (u32, u32)| a / b);
    check_at("div.s32", &divisible(), |(a, b): (i32, i32)| a.wrapping_div(b));
    check_at("div.u64", &divisible(), |(a, b): (u64, u64)| a / b);
    check_at("div.s64", &divisible(), |(a, b): (i64, i64)| a.wrapping_div(b));
    table("div.s32", &[((i32::MIN, -1), i32::MIN), ((-7, 2), -3), ((7, -2), -3)]);
}

#[test]
fn remainders_have_the_sign_of_the_dividend() {
    check_at("rem.u16", &divisible(), |(a, b): (u16, u16)| a % b);
    check_at("rem.s16", &divisible(), |(a, b): (i16, i16)| a.wrapping_rem(b));
    check_at("rem.u32", &divisible(), |(a, b): (u32, u32)| a % b);
    check_at("rem.s32", &divisible(), |(a, b): (i32, i32)| a.wrapping_rem(b));
    check_at("rem.u64", &divisible(), |(a, b): (u64, u64)| a % b);
    check_at("rem.s64", &divisible(), |(a, b): (i64, i64)| a.wrapping_rem(b));
    table("rem.s32", &[((i32::MIN, -1), 0), ((-7, 2), -1), ((7, -2), 1)]);
}

/// PTX leaves the result open; that it is this one is for whoever compares with hardware.
#[test]
fn division_by_zero_gives_ones_and_the_dividend() {
    table("div.u32", &[((7u32, 0u32), u32::MAX)]);
    table("div.s64", &[((-7i64, 0i64), -1i64)]);
    table("rem.u32", &[((7u32, 0u32), 7u32)]);
    table("rem.s64", &[((-7i64, 0i64), -7i64)]);
}

#[test]
fn the_least_and_the_greatest_depend_on_the_sign() {
    check("min.u16", |(a, b): (u16, u16)| a.min(b));
    check("max.s16", |(a, b): (i16, i16)| a.max(b));
    check("min.s16", |(a, b): (i16, i16)| a.min(b));
    check("max.u16", |(a, b): (u16, u16)| a.max(b));
    check("min.u32", |(a, b): (u32, u32)| a.min(b));
    check("max.u32", |(a, b): (u32, u32)| a.max(b));
    check("min.s32", |(a, b): (i32, i32)| a.min(b));
    check("max.s32", |(a, b): (i32, i32)| a.max(b));
    check("min.relu.s32", |(a, b): (i32, i32)| a.min(b).max(0));
    check("max.relu.s32", |(a, b): (i32, i32)| a.max(b).max(0));
    check("min.u64", |(a, b): (u64, u64)| a.min(b));
    check("max.u64", |(a, b): (u64, u64)| a.max(b));
    check("min.s64", |(a, b): (i64, i64)| a.min(b));
    check("max.s64", |(a, b): (i64, i64)| a.max(b));
}

#[test]
fn the_least_number_is_its_own_opposite() {
    check("neg.s16", |(a,): (i16,)| a.wrapping_neg());
    check("neg.s32", |(a,): (i32,)| a.wrapping_neg());
    check("neg.s64", |(a,): (i64,)| a.wrapping_neg());
    check("abs.s16", |(a,): (i16,)| a.wrapping_abs());
    check("abs.s32", |(a,): (i32,)| a.wrapping_abs());
    check("abs.s64", |(a,): (i64,)| a.wrapping_abs());
}

#[test]
fn distances_are_added() {
    check("sad.u32", |(a, b, c): (u32, u32, u32)| c.wrapping_add(a.abs_diff(b)));
    check("sad.s32", |(a, b, c): (i32, i32, u32)| c.wrapping_add(a.abs_diff(b)));
}

#[test]
fn constants_take_the_width_of_the_operation() {
    table("add.s32 %d, %a, -1;", &[((0u32,), u32::MAX)]);
    table("add.s64 %d, %a, -1;", &[((0u64,), u64::MAX)]);
    table("add.u64 %d, %a, 0xffffffff;", &[((1u64,), 1u64 << 32)]);
    table("add.u16 %d, %a, 0xffff;", &[((1u16,), 0u16)]);
    table("add.u32 %d, %a, 010;", &[((0u32,), 8u32)]);
    table("add.u32 %d, %a, 0b101U;", &[((0u32,), 5u32)]);
}

/// The pairs of edges that can be divided.
fn divisible<T: Value>() -> Vec<(T, T)> {
    <(T, T)>::edges().into_iter().filter(|(_, b)| b.bits() != 0).collect()
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in ["mul.u32 %r1, %r2, %r3;", "div.b32 %r1, %r2, %r3;", "add.u8 %r1, %r2, %r3;", "sad.u32 %r1, %r2, %r3;"]
    {
        refused(wrong);
    }
}
