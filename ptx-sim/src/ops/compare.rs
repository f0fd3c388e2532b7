//! Comparisons and logic of predicates.

use super::{lanes_where, predicate};
use crate::decode::opcode::Type;
use crate::decode::operands::{Operands, Value};
use crate::error::ParseError;
use crate::numeric::{ftz, half};
use crate::program::Action;
use crate::registers::{Pred, Reg, Registers};
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;
/// The lanes in which a comparison holds.
type Test = Box<dyn Fn(&Registers) -> u32 + Send + Sync>;

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

/// A predicate operand of a combination.
#[derive(Clone, Copy)]
struct With {
    operation: Logic,
    predicate: Pred,
    negated: bool,
}

/// An operation on two masks.
#[derive(Clone, Copy)]
enum Logic {
    And,
    Or,
    Xor,
}

impl Logic {
    fn named(name: &str) -> Self {
        match name {
            "and" => Self::And,
            "or" => Self::Or,
            _ => Self::Xor,
        }
    }

    fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

fn join(registers: &Registers, bits: u32, with: Option<With>) -> u32 {
    with.map_or(bits, |with| {
        let other = registers.holds(with.predicate, with.negated);
        with.operation.apply(bits, other)
    })
}

/// Decodes `setp` and `set`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let ty = cx.op.take_type()?;
    let result = if cx.op.name == "set" { Some(cx.op.take_type()?) } else { None };
    let how = cx.op.expect(&COMPARISONS)?;
    let ftz = cx.op.take("ftz");
    let operation = cx.op.take_any(&["and", "or", "xor"]);
    cx.expect_len(3 + usize::from(operation.is_some()))?;
    let test = if ty.bits() == 64 { test64(cx, ty, how)? } else { test32(cx, ty, how, ftz)? };
    let with = match operation {
        Some(name) => {
            let (predicate, negated) = cx.src_predicate(3)?;
            Some(With { operation: Logic::named(name), predicate, negated })
        }
        None => None,
    };
    if let Some(result) = result {
        let one = match result {
            Type::F(32) => 1f32.to_bits(),
            Type::U(32) | Type::S(32) => u32::MAX,
            _ => return cx.op.unknown(),
        };
        let d = cx.dst::<u32>(0)?;
        return cx.computes(Box::new(move |registers, mask| {
            let bits = join(registers, test(registers), with);
            registers.set(d, mask, &std::array::from_fn(|lane| if bits >> lane & 1 == 1 { one } else { 0 }));
        }));
    }
    if let Operand::Pair(first, second) = cx.get(0)? {
        let (p, q) = (cx.write_predicate(first)?, cx.write_predicate(second)?);
        return cx.computes(Box::new(move |registers, mask| {
            let bits = test(registers);
            let (yes, no) = (join(registers, bits, with), join(registers, !bits, with));
            registers.set_predicate(p, mask, yes);
            registers.set_predicate(q, mask, no);
        }));
    }
    let p = cx.dst_predicate(0)?;
    cx.computes(predicate(p, move |registers| join(registers, test(registers), with)))
}

/// `and.pred` and its kin.
pub(crate) fn decode_logic(cx: &mut Operands) -> Result<Action> {
    cx.op.take("pred");
    let p = cx.dst_predicate(0)?;
    let (a, not_a) = cx.src_predicate(1)?;
    if cx.op.name == "not" {
        cx.expect_len(2)?;
        return cx.computes(predicate(p, move |registers| !registers.holds(a, not_a)));
    }
    cx.expect_len(3)?;
    let (b, not_b) = cx.src_predicate(2)?;
    let logic = Logic::named(cx.op.name);
    cx.computes(predicate(p, move |r| logic.apply(r.holds(a, not_a), r.holds(b, not_b))))
}

fn test32(cx: &mut Operands, ty: Type, how: &str, flush: bool) -> Result<Test> {
    match ty {
        Type::F(32) if flush => test(cx, how, |a: u32| ftz(f32::from_bits(a))),
        Type::F(32) => test(cx, how, f32::from_bits),
        Type::F(_) => test(cx, how, |a: u32| half::f16_to_f32(a as u16)),
        Type::Bf16 => test(cx, how, |a: u32| half::bf16_to_f32(a as u16)),
        Type::S(16) => test(cx, how, |a: u32| a as i16),
        Type::S(_) => test(cx, how, |a: u32| a as i32),
        Type::U(16) | Type::B(16) => test(cx, how, |a: u32| a as u16),
        Type::U(_) | Type::B(_) => test(cx, how, |a: u32| a),
        _ => cx.op.unknown(),
    }
}

fn test64(cx: &mut Operands, ty: Type, how: &str) -> Result<Test> {
    match ty {
        Type::F(_) => test(cx, how, f64::from_bits),
        Type::S(_) => test(cx, how, |a: u64| a as i64),
        _ => test(cx, how, |a: u64| a),
    }
}

/// The comparison `how` of what `value` makes of the bits: one function a comparison, so that each becomes vector code.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "the comparisons that hold for NaN")]
fn test<T: Value, K: PartialOrd>(
    cx: &mut Operands,
    how: &str,
    value: impl Fn(T) -> K + Copy + Send + Sync + 'static,
) -> Result<Test> {
    let (a, b) = (cx.src::<T>(1)?, cx.src::<T>(2)?);
    Ok(match how {
        "eq" => lanes(a, b, move |a, b| value(a) == value(b)),
        "ne" => lanes(a, b, move |a, b| value(a) < value(b) || value(a) > value(b)),
        "lt" | "lo" => lanes(a, b, move |a, b| value(a) < value(b)),
        "le" | "ls" => lanes(a, b, move |a, b| value(a) <= value(b)),
        "gt" | "hi" => lanes(a, b, move |a, b| value(a) > value(b)),
        "ge" | "hs" => lanes(a, b, move |a, b| value(a) >= value(b)),
        "equ" => lanes(a, b, move |a, b| !(value(a) < value(b) || value(a) > value(b))),
        "neu" => lanes(a, b, move |a, b| value(a) != value(b)),
        "ltu" => lanes(a, b, move |a, b| !(value(a) >= value(b))),
        "leu" => lanes(a, b, move |a, b| !(value(a) > value(b))),
        "gtu" => lanes(a, b, move |a, b| !(value(a) <= value(b))),
        "geu" => lanes(a, b, move |a, b| !(value(a) < value(b))),
        "num" => lanes(a, b, move |a, b| value(a).partial_cmp(&value(b)).is_some()),
        _ => lanes(a, b, move |a, b| value(a).partial_cmp(&value(b)).is_none()),
    })
}

fn lanes<T: Value>(a: Reg<T>, b: Reg<T>, holds: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |registers| lanes_where(registers, a, b, &holds))
}
