//! Floating-point arithmetic and approximations.

use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::numeric::arith;
use crate::numeric::packed::Half;
use crate::numeric::{self, Rounding};
use crate::program::Action;

type Result<T> = std::result::Result<T, ParseError>;

const ROUNDINGS: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// The rounding that the opcode names; to nearest where it names none.
pub(crate) fn take_rounding(cx: &mut Operands) -> Rounding {
    match cx.op.take_any(&ROUNDINGS) {
        Some("rz") => Rounding::Zero,
        Some("rm") => Rounding::Down,
        Some("rp") => Rounding::Up,
        _ => Rounding::Nearest,
    }
}

/// What happens to f32 operands and results besides the operation.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    pub ftz: bool,
    pub sat: bool,
}

impl Around {
    fn take(cx: &mut Operands) -> Self {
        Self { ftz: cx.op.take("ftz"), sat: cx.op.take("sat") }
    }

    /// Without saturation.
    pub fn take_ftz(cx: &mut Operands) -> Self {
        Self { ftz: cx.op.take("ftz"), sat: false }
    }

    pub fn none(self) -> bool {
        !self.ftz && !self.sat
    }

    pub fn input(self, bits: u32) -> f32 {
        let x = f32::from_bits(bits);
        if self.ftz { numeric::ftz(x) } else { x }
    }

    pub fn output(self, x: f32) -> u32 {
        let x = if self.ftz { numeric::ftz(x) } else { x };
        if self.sat { numeric::saturate(x) } else { x }.to_bits()
    }
}

/// Decodes the instructions of this family.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    match cx.op.take_type()? {
        Type::F(64) => double(cx),
        Type::F(32) => single(cx),
        Type::F(_) => packed(cx, Half::F16, false),
        Type::F16x2 => packed(cx, Half::F16, true),
        Type::Bf16 => packed(cx, Half::Bf16, false),
        Type::Bf16x2 => packed(cx, Half::Bf16, true),
        _ => cx.op.unknown(),
    }
}

fn binary32(
    cx: &mut Operands,
    around: Around,
    f: impl Fn(f32, f32) -> f32 + Copy + Send + Sync + 'static,
) -> Result<Action> {
    if around.none() {
        cx.binary(move |a: u32, b: u32| f(f32::from_bits(a), f32::from_bits(b)).to_bits())
    } else {
        cx.binary(move |a: u32, b: u32| around.output(f(around.input(a), around.input(b))))
    }
}

fn single(cx: &mut Operands) -> Result<Action> {
    let name = cx.op.name;
    if matches!(name, "min" | "max") {
        let nan = cx.op.take("NaN");
        let around = Around::take_ftz(cx);
        if cx.op.take("xorsign") {
            cx.op.expect(&["abs"])?;
            let of = match (name, nan) {
                ("min", false) => arith::min_f32,
                ("max", false) => arith::max_f32,
                ("min", true) => arith::min_nan_f32,
                _ => arith::max_nan_f32,
            };
            return binary32(cx, around, move |a, b| arith::xorsign_abs(a, b, of));
        }
        return match (name, nan) {
            ("min", false) => binary32(cx, around, arith::min_f32),
            ("max", false) => binary32(cx, around, arith::max_f32),
            ("min", true) => binary32(cx, around, arith::min_nan_f32),
            _ => binary32(cx, around, arith::max_nan_f32),
        };
    }
    let rounding = take_rounding(cx);
    let around = Around::take(cx);
    let nearest = rounding == Rounding::Nearest;
    match name {
        "add" if nearest => binary32(cx, around, arith::add_f32),
        "add" => binary32(cx, around, move |a, b| arith::add_f32_in(a, b, rounding)),
        "sub" if nearest => binary32(cx, around, arith::sub_f32),
        "sub" => binary32(cx, around, move |a, b| arith::add_f32_in(a, -b, rounding)),
        "mul" if nearest && around.ftz => {
            let sat = Around { ftz: false, ..around };
            binary32(cx, sat, arith::mul_ftz_f32)
        }
        "mul" if nearest => binary32(cx, around, arith::mul_f32),
        "mul" => binary32(cx, around, move |a, b| arith::mul_f32_in(a, b, rounding)),
        "div" if nearest => binary32(cx, around, arith::div_f32),
        "div" => binary32(cx, around, move |a, b| arith::div_f32_in(a, b, rounding)),
        "fma" | "mad" if nearest && around.none() => {
            cx.expect_len(4)?;
            let (d, a, b, c) = (cx.dst::<u32>(0)?, cx.src::<u32>(1)?, cx.src::<u32>(2)?, cx.src::<u32>(3)?);
            cx.computes(Box::new(move |registers, mask| {
                let row = arith::fma_f32_lanes(registers.get(a), registers.get(b), registers.get(c));
                registers.set(d, mask, &row);
            }))
        }
        "fma" | "mad" if nearest && around.ftz => cx.ternary(move |a: u32, b: u32, c: u32| {
            let [a, b, c] = [a, b, c].map(f32::from_bits);
            Around { ftz: false, ..around }.output(arith::fma_ftz_f32(a, b, c))
        }),
        "fma" | "mad" => cx.ternary(move |a: u32, b: u32, c: u32| {
            let (a, b, c) = (around.input(a), around.input(b), around.input(c));
            around.output(arith::fma_f32_in(a, b, c, rounding))
        }),
        "neg" => cx.unary(move |a: u32| around.output(arith::neg_f32(around.input(a)))),
        "abs" => cx.unary(move |a: u32| around.output(arith::abs_f32(around.input(a)))),
        "copysign" => binary32(cx, around, arith::copysign_f32),
        _ => cx.op.unknown(),
    }
}

fn double(cx: &mut Operands) -> Result<Action> {
    if take_rounding(cx) != Rounding::Nearest {
        return cx.op.unknown();
    }
    let binary = |cx: &mut Operands, f: fn(f64, f64) -> f64| {
        cx.binary(move |a: u64, b: u64| f(f64::from_bits(a), f64::from_bits(b)).to_bits())
    };
    match cx.op.name {
        "add" => binary(cx, |a, b| a + b),
        "sub" => binary(cx, |a, b| a - b),
        "mul" => binary(cx, |a, b| a * b),
        "div" => binary(cx, |a, b| a / b),
        // -0 is less than +0; the bits of other equals are the same.
        "min" => binary(cx, |a, b| if a == b { f64::from_bits(a.to_bits() | b.to_bits()) } else { a.min(b) }),
        "max" => binary(cx, |a, b| if a == b { f64::from_bits(a.to_bits() & b.to_bits()) } else { a.max(b) }),
        "fma" => cx.ternary(|a: u64, b: u64, c: u64| {
            f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()
        }),
        "neg" => cx.unary(|a: u64| a ^ 1 << 63),
        "abs" => cx.unary(|a: u64| a & !(1 << 63)),
        _ => cx.op.unknown(),
    }
}

/// f16 and bf16, alone or in pairs. A single one is the lower of a pair.
fn packed(cx: &mut Operands, half: Half, pair: bool) -> Result<Action> {
    let name = cx.op.name;
    let nan = matches!(name, "min" | "max") && cx.op.take("NaN");
    cx.op.take("rn");
    let (ftz, sat, relu) = (cx.op.take("ftz"), cx.op.take("sat"), name == "fma" && cx.op.take("relu"));
    let keep = if pair { u32::MAX } else { 0xffff };
    let input = move |x: u32| if ftz { half.ftz(x) } else { x };
    let output = move |x: u32| {
        let x = input(x);
        let x = if relu { half.relu(x) } else { x };
        (if sat { half.saturate(x) } else { x }) & keep
    };
    let unary = |cx: &mut Operands, f: fn(Half, u32) -> u32| cx.unary(move |a: u32| output(f(half, input(a))));
    let binary = |cx: &mut Operands, f: fn(Half, u32, u32) -> u32| {
        cx.binary(move |a: u32, b: u32| output(f(half, input(a), input(b))))
    };
    match name {
        "add" => binary(cx, Half::add),
        "sub" => binary(cx, Half::sub),
        "mul" if ftz => cx.binary(move |a: u32, b: u32| output(half.mul_ftz(a, b))),
        "mul" => binary(cx, Half::mul),
        "fma" if ftz => cx.ternary(move |a: u32, b: u32, c: u32| output(half.fma_ftz(a, b, c))),
        "fma" => cx.ternary(move |a: u32, b: u32, c: u32| output(half.fma(input(a), input(b), input(c)))),
        "min" if nan => binary(cx, Half::min_nan),
        "min" => binary(cx, Half::min),
        "max" if nan => binary(cx, Half::max_nan),
        "max" => binary(cx, Half::max),
        "neg" => unary(cx, Half::neg),
        "abs" => unary(cx, Half::abs),
        _ => cx.op.unknown(),
    }
}
