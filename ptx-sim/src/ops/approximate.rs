//! `ex2`, `lg2`, `rcp`, `sqrt` and their like, and division: rounded correctly, or approximated as the options say.

use super::float::{Around, take_rounding};
use super::{Compute, map};
use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::numeric::approx::{self, bf16x2, f16x2, unit};
use crate::numeric::{self, Rounding, arith};
use crate::program::Action;
use crate::registers::{LANES, Reg};

type Result<T> = std::result::Result<T, ParseError>;

/// An approximation: ours, and the hardware's.
struct Both<F> {
    fast: F,
    exact: F,
}

type Function = fn(f32) -> f32;

/// Decodes `ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let ty = cx.op.take_type()?;
    match (ty, cx.op.take("approx")) {
        (Type::F(32), true) => single(cx),
        (Type::F(32), false) => rounded(cx),
        (Type::F(64), false) if cx.op.take("rn") => match cx.op.name {
            "rcp" => cx.unary(|a: u64| (1.0 / f64::from_bits(a)).to_bits()),
            "sqrt" => cx.unary(|a: u64| f64::from_bits(a).sqrt().to_bits()),
            _ => cx.op.unknown(),
        },
        (Type::F(16) | Type::F16x2 | Type::Bf16 | Type::Bf16x2, true) => half(cx, ty),
        _ => cx.op.unknown(),
    }
}

/// The approximation of this name.
fn function(name: &str, ftz: bool) -> Option<Both<Function>> {
    let both = |fast: Function, exact: Function| Some(Both { fast, exact });
    match (name, ftz) {
        ("ex2", false) => both(approx::ex2, unit::ex2),
        ("ex2", true) => both(approx::ex2_ftz, unit::ex2_ftz),
        ("lg2", false) => both(approx::lg2, unit::lg2),
        ("lg2", true) => both(approx::lg2_ftz, unit::lg2_ftz),
        ("rcp", false) => both(approx::rcp, unit::rcp),
        ("rcp", true) => both(approx::rcp_ftz, unit::rcp_ftz),
        ("rsqrt", false) => both(approx::rsqrt, unit::rsqrt),
        ("rsqrt", true) => both(approx::rsqrt_ftz, unit::rsqrt_ftz),
        ("sqrt", false) => both(approx::sqrt, unit::sqrt),
        ("sqrt", true) => both(approx::sqrt_ftz, unit::sqrt_ftz),
        ("sin", false) => both(approx::sin, unit::sin),
        ("sin", true) => both(|x| flushed(x, approx::sin), |x| flushed(x, unit::sin)),
        ("cos", false) => both(approx::cos, unit::cos),
        ("cos", true) => both(|x| flushed(x, approx::cos), |x| flushed(x, unit::cos)),
        ("tanh", false) => both(approx::tanh, unit::tanh),
        _ => None,
    }
}

fn flushed(x: f32, f: Function) -> f32 {
    numeric::ftz(f(numeric::ftz(x)))
}

fn single(cx: &mut Operands) -> Result<Action> {
    let ftz = cx.op.take("ftz");
    let Some(both) = function(cx.op.name, ftz) else { return cx.op.unknown() };
    cx.op.finish()?;
    cx.expect_len(2)?;
    let (d, a) = (cx.dst::<u32>(0)?, cx.src::<u32>(1)?);
    let fast = match (cx.op.name, ftz) {
        // The one that kernels compute again and again.
        ("ex2", true) => vector(d, a, approx::ex2_ftz),
        _ => bits(d, a, both.fast),
    };
    Ok(Action::Approximate { fast, exact: bits(d, a, both.exact) })
}

fn bits(d: Reg<u32>, a: Reg<u32>, f: Function) -> Compute {
    map(d, a, move |a: u32| f(f32::from_bits(a)).to_bits())
}

/// As [`bits`], with the host's vectors.
fn vector(d: Reg<u32>, a: Reg<u32>, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Compute {
    Box::new(move |registers, mask| {
        let a = *registers.get(a);
        let row = numeric::vectorize(
            #[inline(always)]
            |_| {
                let mut row = [0; LANES];
                for lane in 0..LANES {
                    row[lane] = f(f32::from_bits(a[lane])).to_bits();
                }
                row
            },
        );
        registers.set(d, mask, &row);
    })
}

/// `ex2` and `tanh` of f16 and bf16. A single one is the lower of a pair.
fn half(cx: &mut Operands, ty: Type) -> Result<Action> {
    let ftz = cx.op.take("ftz");
    let bf16 = matches!(ty, Type::Bf16 | Type::Bf16x2);
    let name = match (cx.op.name, ftz == bf16, ftz) {
        (name @ "ex2", true, _) | (name @ "tanh", _, false) => name,
        _ => return cx.op.unknown(),
    };
    let Some(both) = function(name, ftz) else { return cx.op.unknown() };
    cx.op.finish()?;
    cx.expect_len(2)?;
    let (d, a) = (cx.dst::<u32>(0)?, cx.src::<u32>(1)?);
    let keep = if ty.bits() == 16 { 0xffff } else { u32::MAX };
    let compute = |f: Function| map(d, a, move |a: u32| if bf16 { bf16x2(a, f) } else { f16x2(a, f) } & keep);
    Ok(Action::Approximate { fast: compute(both.fast), exact: compute(both.exact) })
}

/// `rcp` and `sqrt`, rounded as IEEE says.
fn rounded(cx: &mut Operands) -> Result<Action> {
    let rounding = take_rounding(cx);
    let around = Around::take_ftz(cx);
    match cx.op.name {
        "rcp" => cx.unary(move |a: u32| around.output(arith::div_f32_in(1.0, around.input(a), rounding))),
        "sqrt" if rounding == Rounding::Nearest && around.none() => {
            cx.unary(|a: u32| arith::sqrt_f32(f32::from_bits(a)).to_bits())
        }
        "sqrt" => cx.unary(move |a: u32| around.output(arith::sqrt_f32_in(around.input(a), rounding))),
        _ => cx.op.unknown(),
    }
}

/// `div.approx.f32` and `div.full.f32`.
pub(crate) fn divide(cx: &mut Operands) -> Result<Action> {
    cx.op.expect(&["f32"])?;
    let full = cx.op.expect(&["approx", "full"])? == "full";
    type Quotient = fn(f32, f32) -> f32;
    let both: Both<Quotient> = match (full, cx.op.take("ftz")) {
        (false, false) => Both { fast: approx::div_approx, exact: unit::div_approx },
        (false, true) => Both { fast: approx::div_approx_ftz, exact: unit::div_approx_ftz },
        (true, false) => Both { fast: approx::div_full, exact: unit::div_full },
        (true, true) => Both { fast: approx::div_full_ftz, exact: unit::div_full_ftz },
    };
    cx.op.finish()?;
    cx.expect_len(3)?;
    let (d, a, b) = (cx.dst::<u32>(0)?, cx.src::<u32>(1)?, cx.src::<u32>(2)?);
    let compute =
        |f: Quotient| super::map2(d, (a, b), move |a: u32, b: u32| f(f32::from_bits(a), f32::from_bits(b)).to_bits());
    Ok(Action::Approximate { fast: compute(both.fast), exact: compute(both.exact) })
}
