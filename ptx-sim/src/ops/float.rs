//! Floating-point arithmetic and approximations.

use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::numeric::approx;
use crate::numeric::arith;
use crate::numeric::packed::Half;
use crate::numeric::{self, Rounding};
use crate::program::Action;
use crate::registers::LANES;

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
struct Around {
    ftz: bool,
    sat: bool,
}

impl Around {
    fn take(cx: &mut Operands) -> Self {
        Self { ftz: cx.op.take("ftz"), sat: cx.op.take("sat") }
    }

    fn none(self) -> bool {
        !self.ftz && !self.sat
    }

    fn input(self, bits: u32) -> f32 {
        let x = f32::from_bits(bits);
        if self.ftz { numeric::ftz(x) } else { x }
    }

    fn output(self, x: f32) -> u32 {
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

fn unary32(cx: &mut Operands, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Result<Action> {
    cx.unary(move |a: u32| f(f32::from_bits(a)).to_bits())
}

/// As [`unary32`], with the host's vectors: for what kernels compute again and again.
fn unary32_vector(cx: &mut Operands, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Result<Action> {
    cx.expect_len(2)?;
    let (d, a) = (cx.dst::<u32>(0)?, cx.src::<u32>(1)?);
    cx.computes(Box::new(move |registers, mask| {
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
    }))
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
        let around = Around { ftz: cx.op.take("ftz"), sat: false };
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
    if name == "div"
        && let Some(how) = cx.op.take_any(&["approx", "full"])
    {
        let bits = |f: fn(f32, f32) -> f32| move |a: u32, b: u32| f(f32::from_bits(a), f32::from_bits(b)).to_bits();
        return match (how, cx.op.take("ftz")) {
            ("approx", false) => cx.binary(bits(approx::div_approx)),
            ("approx", true) => cx.binary(bits(approx::div_approx_ftz)),
            (_, false) => cx.binary(bits(approx::div_full)),
            (_, true) => cx.binary(bits(approx::div_full_ftz)),
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
        "mul" => binary(cx, Half::mul),
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

/// Decodes `ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`.
pub(crate) fn decode_special(cx: &mut Operands) -> Result<Action> {
    let name = cx.op.name;
    match cx.op.take_type()? {
        Type::F(32) => {}
        Type::F(64) => {
            cx.op.expect(&["rn"])?;
            return match name {
                "rcp" => cx.unary(|a: u64| (1.0 / f64::from_bits(a)).to_bits()),
                "sqrt" => cx.unary(|a: u64| f64::from_bits(a).sqrt().to_bits()),
                _ => cx.op.unknown(),
            };
        }
        ty => return special_half(cx, ty),
    }
    if cx.op.take("approx") {
        let ftz = cx.op.take("ftz");
        return match (name, ftz) {
            ("ex2", false) => unary32(cx, approx::ex2),
            ("ex2", true) => unary32_vector(cx, approx::ex2_ftz),
            ("lg2", false) => unary32(cx, approx::lg2),
            ("lg2", true) => unary32(cx, approx::lg2_ftz),
            ("rcp", false) => unary32(cx, approx::rcp),
            ("rcp", true) => unary32(cx, approx::rcp_ftz),
            ("rsqrt", false) => unary32(cx, approx::rsqrt),
            ("rsqrt", true) => unary32(cx, approx::rsqrt_ftz),
            ("sqrt", false) => unary32(cx, approx::sqrt),
            ("sqrt", true) => unary32(cx, approx::sqrt_ftz),
            ("sin", false) => unary32(cx, approx::sin),
            ("sin", true) => unary32(cx, |x| numeric::ftz(approx::sin(numeric::ftz(x)))),
            ("cos", false) => unary32(cx, approx::cos),
            ("cos", true) => unary32(cx, |x| approx::cos(numeric::ftz(x))),
            ("tanh", false) => unary32(cx, approx::tanh),
            _ => cx.op.unknown(),
        };
    }
    let rounding = take_rounding(cx);
    let around = Around { ftz: cx.op.take("ftz"), sat: false };
    match name {
        "rcp" => cx.unary(move |a: u32| around.output(arith::div_f32_in(1.0, around.input(a), rounding))),
        "sqrt" if rounding == Rounding::Nearest && around.none() => unary32(cx, arith::sqrt_f32),
        "sqrt" => cx.unary(move |a: u32| around.output(arith::sqrt_f32_in(around.input(a), rounding))),
        _ => cx.op.unknown(),
    }
}

/// `ex2` and `tanh` of f16 and bf16. A single one is the lower of a pair.
fn special_half(cx: &mut Operands, ty: Type) -> Result<Action> {
    cx.op.expect(&["approx"])?;
    let f: fn(u32) -> u32 = match (cx.op.name, ty, cx.op.take("ftz")) {
        ("ex2", Type::F(16) | Type::F16x2, false) => approx::ex2_f16x2,
        ("ex2", Type::Bf16 | Type::Bf16x2, true) => approx::ex2_ftz_bf16x2,
        ("tanh", Type::F(16) | Type::F16x2, false) => approx::tanh_f16x2,
        ("tanh", Type::Bf16 | Type::Bf16x2, false) => approx::tanh_bf16x2,
        _ => return cx.op.unknown(),
    };
    let keep = if ty.bits() == 16 { 0xffff } else { u32::MAX };
    cx.unary(move |a: u32| f(a) & keep)
}
