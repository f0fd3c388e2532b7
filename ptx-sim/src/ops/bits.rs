//! Logic, shifts, and bit fields.

use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::program::Action;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes the instructions of this family.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    if cx.op.name == "shf" {
        return funnel(cx);
    }
    let ty = cx.op.take_type()?;
    let long = ty.bits() == 64;
    match cx.op.name {
        "and" if long => cx.binary(|a: u64, b: u64| a & b),
        "and" => cx.binary(|a: u32, b: u32| a & b),
        "or" if long => cx.binary(|a: u64, b: u64| a | b),
        "or" => cx.binary(|a: u32, b: u32| a | b),
        "xor" if long => cx.binary(|a: u64, b: u64| a ^ b),
        "xor" => cx.binary(|a: u32, b: u32| a ^ b),
        "not" if long => cx.unary(|a: u64| !a),
        "not" => cx.unary(|a: u32| !a),
        "cnot" if long => cx.unary(|a: u64| u64::from(a == 0)),
        "cnot" => {
            let keep = low(ty.bits());
            cx.unary(move |a: u32| u32::from(a & keep == 0))
        }
        "lop3" => lop3(cx),
        "shl" => shl(cx, ty),
        "shr" => shr(cx, ty),
        "bfe" => extract(cx, ty),
        "bfi" if long => cx.insert64(),
        "bfi" => cx.insert32(),
        "bfind" => find(cx, ty),
        "brev" if long => cx.unary(u64::reverse_bits),
        "brev" => cx.unary(u32::reverse_bits),
        "popc" if long => cx.unary(u64::count_ones),
        "popc" => cx.unary(u32::count_ones),
        "clz" if long => cx.unary(u64::leading_zeros),
        "clz" => cx.unary(u32::leading_zeros),
        _ => cx.op.unknown(),
    }
}

fn low(bits: u32) -> u32 {
    u32::MAX >> (32 - bits.min(32))
}

/// `lop3.b32 d, a, b, c, lut`: for each bit, the entry of the table at a:b:c.
fn lop3(cx: &mut Operands) -> Result<Action> {
    cx.expect_len(5)?;
    let lut = cx.integer(4)? as u32;
    let (d, a, b, c) = (cx.dst(0)?, cx.src(1)?, cx.src(2)?, cx.src(3)?);
    cx.computes(crate::ops::map3(d, (a, b, c), move |a: u32, b: u32, c: u32| {
        (0..8).filter(|entry| lut >> entry & 1 == 1).fold(0, |d, entry| {
            let pick = |bits: u32, bit: u32| if entry >> bit & 1 == 1 { bits } else { !bits };
            d | pick(a, 2) & pick(b, 1) & pick(c, 0)
        })
    }))
}

/// Shifts by the width or more give zero.
fn shl(cx: &mut Operands, ty: Type) -> Result<Action> {
    match ty.bits() {
        16 => cx.binary(|a: u32, b: u32| a.checked_shl(b).unwrap_or(0) & 0xffff),
        32 => cx.binary(|a: u32, b: u32| a.checked_shl(b).unwrap_or(0)),
        64 => cx.binary(|a: u64, b: u32| a.checked_shl(b).unwrap_or(0)),
        _ => cx.op.unknown(),
    }
}

/// Shifts by the width or more leave zero, or the sign.
fn shr(cx: &mut Operands, ty: Type) -> Result<Action> {
    match (ty.bits(), ty.is_signed()) {
        (16, false) => cx.binary(|a: u32, b: u32| (a & 0xffff).checked_shr(b).unwrap_or(0)),
        (16, true) => cx.binary(|a: u32, b: u32| (i32::from(a as i16) >> b.min(15)) as u32 & 0xffff),
        (32, false) => cx.binary(|a: u32, b: u32| a.checked_shr(b).unwrap_or(0)),
        (32, true) => cx.binary(|a: u32, b: u32| (a as i32 >> b.min(31)) as u32),
        (64, false) => cx.binary(|a: u64, b: u32| a.checked_shr(b).unwrap_or(0)),
        (64, true) => cx.binary(|a: u64, b: u32| (a as i64 >> b.min(63)) as u64),
        _ => cx.op.unknown(),
    }
}

/// `shf.{l,r}.{wrap,clamp}.b32 d, a, b, c`: b:a shifted, its upper or lower word.
fn funnel(cx: &mut Operands) -> Result<Action> {
    cx.op.expect(&["b32"])?;
    let left = cx.op.expect(&["l", "r"])? == "l";
    let wrap = cx.op.expect(&["wrap", "clamp"])? == "wrap";
    cx.ternary(move |a: u32, b: u32, c: u32| {
        let both = u64::from(b) << 32 | u64::from(a);
        let by = if wrap { c & 31 } else { c.min(32) };
        if left { (both << by >> 32) as u32 } else { (both >> by) as u32 }
    })
}

/// `bfe d, a, start, length`: a field of a, extended with its top bit where the type has a sign.
fn extract(cx: &mut Operands, ty: Type) -> Result<Action> {
    let signed = ty.is_signed();
    let width = ty.bits();
    let field = move |a: u64, start: u32, len: u32| -> u64 {
        let (start, len) = (start & 0xff, len & 0xff);
        let bit = |at: u32| a >> at.min(width - 1) & 1;
        let fill = if !signed || len == 0 { 0 } else { bit((start + len - 1).min(width - 1)) };
        let kept = if start < width { a >> start } else { 0 };
        let present = len.min(width.saturating_sub(start)).min(64);
        let keep = if present == 0 { 0 } else { u64::MAX >> (64 - present) };
        if fill == 1 { kept & keep | !keep } else { kept & keep }
    };
    match width {
        32 => cx.ternary(move |a: u32, start: u32, len: u32| field(u64::from(a), start, len) as u32),
        64 => cx.ternary(field),
        _ => cx.op.unknown(),
    }
}

/// b with `len` bits from `start` on taken from a.
fn insert(a: u64, b: u64, start: u32, len: u32, width: u32) -> u64 {
    let (start, len) = (start & 0xff, len & 0xff);
    if start >= width || len == 0 {
        return b;
    }
    let keep = (u64::MAX >> (64 - len.min(64))) << start;
    b & !keep | a << start & keep
}

impl Operands<'_, '_> {
    fn insert32(&mut self) -> Result<Action> {
        self.expect_len(5)?;
        let (d, a, b) = (self.dst::<u32>(0)?, self.src::<u32>(1)?, self.src::<u32>(2)?);
        let (start, len) = (self.src::<u32>(3)?, self.src::<u32>(4)?);
        self.computes(Box::new(move |r, mask| {
            let (a, b, start, len) = (r.get(a), r.get(b), r.get(start), r.get(len));
            let row = std::array::from_fn(|l| insert(a[l].into(), b[l].into(), start[l], len[l], 32) as u32);
            r.set(d, mask, &row);
        }))
    }

    fn insert64(&mut self) -> Result<Action> {
        self.expect_len(5)?;
        let (d, a, b) = (self.dst::<u64>(0)?, self.src::<u64>(1)?, self.src::<u64>(2)?);
        let (start, len) = (self.src::<u32>(3)?, self.src::<u32>(4)?);
        self.computes(Box::new(move |r, mask| {
            let (a, b, start, len) = (r.get(a), r.get(b), r.get(start), r.get(len));
            let row = std::array::from_fn(|l| insert(a[l], b[l], start[l], len[l], 64));
            r.set(d, mask, &row);
        }))
    }
}

/// The highest bit that differs from the sign, or is one; all ones where there is none.
fn find(cx: &mut Operands, ty: Type) -> Result<Action> {
    let amount = cx.op.take("shiftamt");
    let position = move |zeros: u32, width: u32| match (zeros == width, amount) {
        (true, _) => u32::MAX,
        (false, true) => zeros,
        (false, false) => width - 1 - zeros,
    };
    match ty {
        Type::U(32) => cx.unary(move |a: u32| position(a.leading_zeros(), 32)),
        Type::S(32) => cx.unary(move |a: u32| position((a ^ (a as i32 >> 31) as u32).leading_zeros(), 32)),
        Type::U(64) => cx.unary(move |a: u64| position(a.leading_zeros(), 64)),
        Type::S(64) => cx.unary(move |a: u64| position((a ^ (a as i64 >> 63) as u64).leading_zeros(), 64)),
        _ => cx.op.unknown(),
    }
}
