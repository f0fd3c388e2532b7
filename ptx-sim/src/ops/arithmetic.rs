//! Integer arithmetic. Values of 16 bits live in words whose upper bits mean nothing.

use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::program::Action;

type Result<T> = std::result::Result<T, ParseError>;

fn s16(a: u32) -> i32 {
    i32::from(a as i16)
}

fn u16(a: u32) -> u32 {
    a & 0xffff
}

/// Decodes the instructions of this family.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let ty = cx.op.take_type()?;
    match cx.op.name {
        "add" => add(cx, ty),
        "sub" => sub(cx, ty),
        "mul" => mul(cx, ty),
        "mad" => mad(cx, ty),
        "mul24" => mul24(cx, ty),
        "div" | "rem" => divide(cx, ty),
        "min" | "max" => extreme(cx, ty),
        "neg" => match ty.bits() {
            16 => cx.unary(|a: u32| u16(a.wrapping_neg())),
            32 => cx.unary(u32::wrapping_neg),
            _ => cx.unary(u64::wrapping_neg),
        },
        "abs" => match ty.bits() {
            16 => cx.unary(|a: u32| u16(s16(a).unsigned_abs())),
            32 => cx.unary(|a: u32| (a as i32).wrapping_abs() as u32),
            _ => cx.unary(|a: u64| (a as i64).wrapping_abs() as u64),
        },
        "sad" => match ty {
            Type::U(32) => cx.ternary(|a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b))),
            Type::S(32) => cx.ternary(|a: u32, b: u32, c: u32| c.wrapping_add((a as i32).abs_diff(b as i32))),
            _ => cx.op.unknown(),
        },
        _ => cx.op.unknown(),
    }
}

fn add(cx: &mut Operands, ty: Type) -> Result<Action> {
    if cx.op.take("sat") {
        return match ty {
            Type::S(32) => cx.binary(|a: u32, b: u32| (a as i32).saturating_add(b as i32) as u32),
            _ => cx.op.unknown(),
        };
    }
    match ty.bits() {
        16 => cx.binary(|a: u32, b: u32| u16(a.wrapping_add(b))),
        32 => cx.binary(u32::wrapping_add),
        64 => cx.binary(u64::wrapping_add),
        _ => cx.op.unknown(),
    }
}

fn sub(cx: &mut Operands, ty: Type) -> Result<Action> {
    if cx.op.take("sat") {
        return match ty {
            Type::S(32) => cx.binary(|a: u32, b: u32| (a as i32).saturating_sub(b as i32) as u32),
            _ => cx.op.unknown(),
        };
    }
    match ty.bits() {
        16 => cx.binary(|a: u32, b: u32| u16(a.wrapping_sub(b))),
        32 => cx.binary(u32::wrapping_sub),
        64 => cx.binary(u64::wrapping_sub),
        _ => cx.op.unknown(),
    }
}

/// The product of two words, twice as wide.
fn wide32(signed: bool) -> impl Fn(u32, u32) -> u64 + Copy {
    move |a, b| {
        if signed { (i64::from(a as i32) * i64::from(b as i32)) as u64 } else { u64::from(a) * u64::from(b) }
    }
}

/// The product of two halves, twice as wide.
fn wide16(signed: bool) -> impl Fn(u32, u32) -> u32 + Copy {
    move |a, b| if signed { (s16(a) * s16(b)) as u32 } else { u16(a) * u16(b) }
}

/// The upper half of the product of two longs.
fn high64(signed: bool) -> impl Fn(u64, u64) -> u64 + Copy {
    move |a, b| {
        if signed {
            ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
        } else {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        }
    }
}

fn mul(cx: &mut Operands, ty: Type) -> Result<Action> {
    let signed = ty.is_signed();
    match (cx.op.expect(&["lo", "hi", "wide"])?, ty.bits()) {
        ("lo", 16) => cx.binary(|a: u32, b: u32| u16(a.wrapping_mul(b))),
        ("lo", 32) => cx.binary(u32::wrapping_mul),
        ("lo", 64) => cx.binary(u64::wrapping_mul),
        ("hi", 16) => cx.binary(move |a: u32, b: u32| wide16(signed)(a, b) >> 16),
        ("hi", 32) => cx.binary(move |a: u32, b: u32| (wide32(signed)(a, b) >> 32) as u32),
        ("hi", 64) => cx.binary(high64(signed)),
        ("wide", 16) => cx.binary(wide16(signed)),
        ("wide", 32) => cx.binary(wide32(signed)),
        _ => cx.op.unknown(),
    }
}

fn mad(cx: &mut Operands, ty: Type) -> Result<Action> {
    let signed = ty.is_signed();
    match (cx.op.expect(&["lo", "hi", "wide"])?, ty.bits()) {
        ("lo", 16) => cx.ternary(|a: u32, b: u32, c: u32| u16(a.wrapping_mul(b).wrapping_add(c))),
        ("lo", 32) => cx.ternary(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c)),
        ("lo", 64) => cx.ternary(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c)),
        ("hi", 32) => cx.ternary(move |a: u32, b: u32, c: u32| ((wide32(signed)(a, b) >> 32) as u32).wrapping_add(c)),
        ("hi", 64) => cx.ternary(move |a: u64, b: u64, c: u64| high64(signed)(a, b).wrapping_add(c)),
        ("wide", 16) => cx.ternary(move |a: u32, b: u32, c: u32| wide16(signed)(a, b).wrapping_add(c)),
        ("wide", 32) => cx.ternary(move |a: u32, b: u32, c: u64| wide32(signed)(a, b).wrapping_add(c)),
        _ => cx.op.unknown(),
    }
}

fn mul24(cx: &mut Operands, ty: Type) -> Result<Action> {
    cx.op.expect(&["lo"])?;
    let signed = ty.is_signed();
    let extend = move |a: u32| if signed { (a as i32) << 8 >> 8 } else { (a & 0xff_ffff) as i32 };
    cx.binary(move |a: u32, b: u32| extend(a).wrapping_mul(extend(b)) as u32)
}

/// Division by zero gives all ones, and the dividend as its remainder: PTX leaves it open, this is what is seen.
fn divide(cx: &mut Operands, ty: Type) -> Result<Action> {
    let quotient = cx.op.name == "div";
    match (ty, quotient) {
        (Type::U(16), true) => cx.binary(|a: u32, b: u32| u16(a).checked_div(u16(b)).unwrap_or(0xffff)),
        (Type::U(16), false) => cx.binary(|a: u32, b: u32| u16(a).checked_rem(u16(b)).unwrap_or(u16(a))),
        (Type::S(16), true) => cx.binary(|a: u32, b: u32| u16(s16(a).checked_div(s16(b)).unwrap_or(-1) as u32)),
        (Type::S(16), false) => cx.binary(|a: u32, b: u32| u16(s16(a).checked_rem(s16(b)).unwrap_or(s16(a)) as u32)),
        (Type::U(32), true) => cx.binary(|a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX)),
        (Type::U(32), false) => cx.binary(|a: u32, b: u32| a.checked_rem(b).unwrap_or(a)),
        (Type::S(32), true) => {
            cx.binary(|a: u32, b: u32| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 })
        }
        (Type::S(32), false) => {
            cx.binary(|a: u32, b: u32| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 })
        }
        (Type::U(64), true) => cx.binary(|a: u64, b: u64| a.checked_div(b).unwrap_or(u64::MAX)),
        (Type::U(64), false) => cx.binary(|a: u64, b: u64| a.checked_rem(b).unwrap_or(a)),
        (Type::S(64), true) => {
            cx.binary(|a: u64, b: u64| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 })
        }
        (Type::S(64), false) => {
            cx.binary(|a: u64, b: u64| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 })
        }
        _ => cx.op.unknown(),
    }
}

fn extreme(cx: &mut Operands, ty: Type) -> Result<Action> {
    let least = cx.op.name == "min";
    // Nothing below zero.
    if cx.op.take("relu") {
        return match ty {
            Type::S(32) if least => cx.binary(|a: u32, b: u32| (a as i32).min(b as i32).max(0) as u32),
            Type::S(32) => cx.binary(|a: u32, b: u32| (a as i32).max(b as i32).max(0) as u32),
            _ => cx.op.unknown(),
        };
    }
    match ty {
        Type::U(16) => cx.binary(move |a: u32, b: u32| if (u16(a) < u16(b)) == least { u16(a) } else { u16(b) }),
        Type::S(16) => cx.binary(move |a: u32, b: u32| u16(if (s16(a) < s16(b)) == least { a } else { b })),
        Type::U(32) if least => cx.binary(|a: u32, b: u32| a.min(b)),
        Type::U(32) => cx.binary(|a: u32, b: u32| a.max(b)),
        Type::S(32) if least => cx.binary(|a: u32, b: u32| (a as i32).min(b as i32) as u32),
        Type::S(32) => cx.binary(|a: u32, b: u32| (a as i32).max(b as i32) as u32),
        Type::U(64) if least => cx.binary(|a: u64, b: u64| a.min(b)),
        Type::U(64) => cx.binary(|a: u64, b: u64| a.max(b)),
        Type::S(64) if least => cx.binary(|a: u64, b: u64| (a as i64).min(b as i64) as u64),
        Type::S(64) => cx.binary(|a: u64, b: u64| (a as i64).max(b as i64) as u64),
        _ => cx.op.unknown(),
    }
}
