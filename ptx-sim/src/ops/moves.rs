//! Moves, selections, and address conversions.

use super::{map3, predicate};
use crate::decode::body::{LOCAL_WINDOW, PARAM_WINDOW, RANK_SHIFT, SHARED_WINDOW, WINDOW_BYTES};
use crate::decode::opcode::Type;
use crate::decode::operands::{Operands, Value, special};
use crate::error::ParseError;
use crate::program::{Action, AnyReg, Constant};
use crate::registers::{Long, Registers, Word};
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes `mov`, `selp`, `slct`, `cvta`, `isspacep`, `prmt`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    match cx.op.name {
        "mov" => mov(cx),
        "selp" => match cx.op.take_type()?.bits() {
            64 => selp::<u64>(cx),
            _ => selp::<u32>(cx),
        },
        "slct" => slct(cx),
        "cvta" => cvta(cx),
        "isspacep" => isspacep(cx),
        "prmt" => prmt(cx),
        _ => cx.op.unknown(),
    }
}

fn mov(cx: &mut Operands) -> Result<Action> {
    let ty = cx.op.take_type()?;
    cx.expect_len(2)?;
    match (cx.get(0)?, cx.get(1)?) {
        (Operand::Vector(parts), _) => unpack(cx, ty, parts.len()),
        (_, Operand::Vector(parts)) => pack(cx, ty, parts.len()),
        (Operand::Name(_), Operand::Name("%is_explicit_cluster")) if ty == Type::Pred => {
            cx.op.finish()?;
            Ok(Action::ExplicitCluster(cx.dst_predicate(0)?))
        }
        _ if ty == Type::Pred => {
            let d = cx.dst_predicate(0)?;
            let (a, negated) = cx.src_predicate(1)?;
            cx.computes(predicate(d, move |registers| registers.holds(a, negated)))
        }
        (destination, Operand::Name(name)) if special(name).is_some() => {
            let register = cx.write_any(destination)?;
            cx.op.finish()?;
            match (register, special(name)) {
                (Some(register), Some(special)) => Ok(Action::Special(register, special)),
                _ => cx.op.unknown(),
            }
        }
        _ if ty.bits() == 64 => cx.unary(|a: u64| a),
        _ => cx.unary(|a: u32| a),
    }
}

/// `mov.b64 {a, b}, c`.
fn unpack(cx: &mut Operands, ty: Type, parts: usize) -> Result<Action> {
    let bits = part_bits(cx, ty, parts)?;
    let source = if ty.bits() == 64 { AnyReg::Long(cx.src(1)?) } else { AnyReg::Word(cx.src(1)?) };
    let outputs: Vec<Word> = cx.elements(0)?.iter().map(|element| cx.write(element)).collect::<Result<_>>()?;
    let keep = low_bits(bits);
    cx.computes(Box::new(move |registers, mask| {
        let whole = match source {
            AnyReg::Long(a) => *registers.get(a),
            AnyReg::Word(a) => registers.get(a).map(u64::from),
        };
        for (index, d) in outputs.iter().enumerate() {
            let row = whole.map(|whole| (whole >> (bits * index as u32) & keep) as u32);
            registers.set(*d, mask, &row);
        }
    }))
}

fn low_bits(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

fn part_bits(cx: &Operands, ty: Type, parts: usize) -> Result<u32> {
    match (ty.bits(), parts) {
        (64, 2) => Ok(32),
        (64, 4) | (32, 2) => Ok(16),
        (32, 4) => Ok(8),
        _ => Err(cx.op.error(format!("{parts} parts"))),
    }
}

/// `mov.b64 d, {a, b}`.
fn pack(cx: &mut Operands, ty: Type, parts: usize) -> Result<Action> {
    let bits = part_bits(cx, ty, parts)?;
    let inputs: Vec<Word> = cx.elements(1)?.iter().map(|element| cx.read(element)).collect::<Result<_>>()?;
    let keep = low_bits(bits);
    let gather = move |registers: &Registers, lane: usize| {
        inputs
            .iter()
            .rev()
            .fold(0u64, |whole, part| whole << (bits % 64) | u64::from(registers.get(*part)[lane]) & keep)
    };
    if ty.bits() == 64 {
        let d: Long = cx.dst(0)?;
        cx.computes(Box::new(move |registers, mask| {
            let row = std::array::from_fn(|lane| gather(registers, lane));
            registers.set(d, mask, &row);
        }))
    } else {
        let d: Word = cx.dst(0)?;
        cx.computes(Box::new(move |registers, mask| {
            let row = std::array::from_fn(|lane| gather(registers, lane) as u32);
            registers.set(d, mask, &row);
        }))
    }
}

fn selp<T: Value>(cx: &mut Operands) -> Result<Action> {
    cx.expect_len(4)?;
    let (d, a, b) = (cx.dst::<T>(0)?, cx.src::<T>(1)?, cx.src::<T>(2)?);
    let (predicate, negated) = cx.src_predicate(3)?;
    cx.computes(Box::new(move |registers, mask| {
        let holds = registers.holds(predicate, negated);
        let (a, b) = (registers.get(a), registers.get(b));
        let row = std::array::from_fn(|lane| if holds >> lane & 1 == 1 { a[lane] } else { b[lane] });
        registers.set(d, mask, &row);
    }))
}

/// `slct.dtype.{s32, f32} d, a, b, c`: a where c is not negative.
fn slct(cx: &mut Operands) -> Result<Action> {
    let by = cx.op.take_type()?;
    let ty = cx.op.take_type()?;
    cx.op.take("ftz");
    cx.op.finish()?;
    let first = move |c: u32| match by {
        Type::S(_) => c as i32 >= 0,
        // NaN chooses the second.
        _ => f32::from_bits(c) >= 0.0,
    };
    if ty.bits() == 64 {
        cx.expect_len(4)?;
        let (d, a, b, c) = (cx.dst::<u64>(0)?, cx.src(1)?, cx.src(2)?, cx.src::<u32>(3)?);
        cx.computes(map3(d, (a, b, c), move |a: u64, b: u64, c: u32| if first(c) { a } else { b }))
    } else {
        cx.ternary(move |a: u32, b: u32, c: u32| if first(c) { a } else { b })
    }
}

/// The window of generic addresses of a state space; global memory and constants are where they are.
fn window(cx: &mut Operands) -> Result<u64> {
    let space = cx.op.expect(&["global", "shared", "shared::cta", "shared::cluster", "local", "const", "param"])?;
    Ok(match space {
        "shared" | "shared::cta" | "shared::cluster" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" => PARAM_WINDOW,
        _ => 0,
    })
}

fn cvta(cx: &mut Operands) -> Result<Action> {
    let bits = cx.op.take_type()?.bits();
    let to = cx.op.take("to");
    if bits != 64 {
        return cx.op.unknown();
    }
    cx.expect_len(2)?;
    if let Operand::Name(name) = cx.get(1)?
        && cx.constant(&Operand::Name(name))?.is_some()
    {
        let window = window(cx)?;
        return cx.unary(move |a: u64| a + window);
    }
    let window = window(cx)?;
    cx.unary(move |a: u64| if to { a.wrapping_sub(window) } else { a.wrapping_add(window) })
}

fn isspacep(cx: &mut Operands) -> Result<Action> {
    let global = cx.op.take("global");
    let own = cx.op.has("shared") || cx.op.has("shared::cta");
    let window = if global { 0 } else { window(cx)? };
    cx.op.finish()?;
    cx.expect_len(2)?;
    let p = cx.dst_predicate(0)?;
    let a = cx.src::<u64>(1)?;
    if own {
        let zero = cx.body.constant_long(Constant::Shared(0));
        let rank = |address: u64| address.wrapping_sub(SHARED_WINDOW) >> RANK_SHIFT;
        return cx.computes(predicate(p, move |registers| {
            let pairs = registers.get(a).iter().zip(registers.get(zero));
            let inside = pairs.map(|(a, zero)| rank(*a) == *zero >> RANK_SHIFT);
            inside.enumerate().fold(0, |bits, (lane, inside)| bits | u32::from(inside) << lane)
        }));
    }
    let inside = move |address: u64| {
        let in_window = |window: u64| address.wrapping_sub(window) < WINDOW_BYTES;
        let elsewhere = || [SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW].into_iter().any(in_window);
        if global { !elsewhere() } else { in_window(window) }
    };
    cx.computes(predicate(p, move |registers| {
        registers.get(a).iter().enumerate().fold(0, |bits, (lane, a)| bits | u32::from(inside(*a)) << lane)
    }))
}

/// `prmt.b32{.mode} d, a, b, c`: each nibble of c picks a byte of b:a, its top bit spreads the byte's sign.
fn prmt(cx: &mut Operands) -> Result<Action> {
    let mode = cx.op.take_any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    cx.op.expect(&["b32"])?;
    let selector = move |c: u32| -> u32 {
        let n = c & 3;
        let nibbles = |f: &dyn Fn(u32) -> u32| (0..4).fold(0, |s, i| s | (f(i) & 7) << (4 * i));
        match mode {
            None => c,
            Some("f4e") => nibbles(&|i| n + i),
            Some("b4e") => nibbles(&|i| n.wrapping_sub(i)),
            Some("rc8") => nibbles(&|_| n),
            Some("ecl") => nibbles(&|i| i.max(n)),
            Some("ecr") => nibbles(&|i| i.min(n)),
            Some(_) => nibbles(&|i| (n & 1) * 2 + (i & 1)),
        }
    };
    cx.ternary(move |a: u32, b: u32, c: u32| {
        let bytes = u64::from(b) << 32 | u64::from(a);
        let selector = selector(c);
        (0..4).fold(0, |d, i| {
            let nibble = selector >> (4 * i);
            let byte = (bytes >> (8 * (nibble & 7))) as u32 & 0xff;
            let byte = if nibble & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
            d | byte << (8 * i)
        })
    })
}
