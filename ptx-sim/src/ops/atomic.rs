//! Atomic operations on memory.

use crate::decode::instruction::{take_hints, take_space};
use crate::decode::opcode::Type;
use crate::decode::operands::{Operands, Value};
use crate::error::ParseError;
use crate::numeric::{arith, packed::Half};
use crate::program::{Action, Address, AnyReg};
use crate::report::Space;

type Result<T> = std::result::Result<T, ParseError>;

/// `atom` or `red`.
#[derive(Debug)]
pub(crate) struct Atomic {
    pub space: Space,
    pub address: Address,
    /// Bytes.
    pub width: u32,
    /// Gets the old value.
    pub old: Option<AnyReg>,
    pub operand: AnyReg,
    /// The new value of `cas`.
    pub second: Option<AnyReg>,
    /// Old value, operand, second operand: the new value.
    pub update: fn(u64, u64, u64) -> u64,
    /// Whether what the block did before is published with it.
    pub releases: bool,
}

/// Decodes `atom` and `red`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let returns = cx.op.name == "atom";
    let ty = cx.op.take_type()?;
    cx.op.take("noftz");
    let releases = cx.op.take("release") || cx.op.take("acq_rel");
    let name = cx.op.expect(&["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"])?;
    take_hints(cx);
    let space = take_space(cx);
    cx.op.finish()?;
    let update = match update(name, ty) {
        Some(update) => update,
        None => return cx.op.unknown(),
    };
    let first = usize::from(returns);
    cx.expect_len(first + 2 + usize::from(name == "cas"))?;
    let long = ty.bits() == 64;
    let operand = |cx: &mut Operands, index| -> Result<AnyReg> {
        Ok(if long { AnyReg::Long(cx.src(index)?) } else { AnyReg::Word(cx.src(index)?) })
    };
    let old = match returns {
        true if long => Some(u64::any(cx.dst(0)?)),
        true => Some(u32::any(cx.dst(0)?)),
        false => None,
    };
    let (address, space) = cx.address(first, space)?;
    let value = operand(cx, first + 1)?;
    let second = if name == "cas" { Some(operand(cx, first + 2)?) } else { None };
    let width = ty.bits() / 8;
    cx.body.note_access(space, width);
    Ok(Action::Atomic(Atomic { space, address, width, old, operand: value, second, update, releases }))
}

fn update(name: &str, ty: Type) -> Option<fn(u64, u64, u64) -> u64> {
    let float = |f: fn(u64, u64, u64) -> u64| Some(f);
    match (name, ty) {
        ("add", Type::F(32)) => float(|old, a, _| {
            u64::from(arith::add_f32(f32::from_bits(old as u32), f32::from_bits(a as u32)).to_bits())
        }),
        ("add", Type::F(64)) => float(|old, a, _| (f64::from_bits(old) + f64::from_bits(a)).to_bits()),
        ("add", Type::F16x2) => float(|old, a, _| Half::F16.add(old as u32, a as u32).into()),
        ("add", Type::Bf16x2) => float(|old, a, _| Half::Bf16.add(old as u32, a as u32).into()),
        (_, Type::F(_) | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Pred) => None,
        // Narrow values are cut when they are stored.
        ("add", _) => Some(|old, a, _| old.wrapping_add(a)),
        ("and", _) => Some(|old, a, _| old & a),
        ("or", _) => Some(|old, a, _| old | a),
        ("xor", _) => Some(|old, a, _| old ^ a),
        ("exch", _) => Some(|_, a, _| a),
        ("cas", _) => Some(|old, compare, new| if old == compare { new } else { old }),
        ("inc", Type::U(32)) => Some(|old, a, _| if old >= a { 0 } else { old + 1 }),
        ("dec", Type::U(32)) => Some(|old, a, _| if old == 0 || old > a { a } else { old - 1 }),
        ("min", Type::S(32)) => Some(|old, a, _| u64::from((old as i32).min(a as i32) as u32)),
        ("max", Type::S(32)) => Some(|old, a, _| u64::from((old as i32).max(a as i32) as u32)),
        ("min", Type::S(64)) => Some(|old, a, _| (old as i64).min(a as i64) as u64),
        ("max", Type::S(64)) => Some(|old, a, _| (old as i64).max(a as i64) as u64),
        ("min", Type::U(_)) => Some(|old, a, _| old.min(a)),
        ("max", Type::U(_)) => Some(|old, a, _| old.max(a)),
        _ => None,
    }
}
