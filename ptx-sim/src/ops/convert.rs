//! `cvt`: between formats, widths and signs.

use super::float::take_rounding;
use super::{map, map2};
use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::numeric::integer::{self, Integral};
use crate::numeric::{self, Rounding, fp8, half};
use crate::program::{Action, AnyReg};
use crate::registers::Word;

type Result<T> = std::result::Result<T, ParseError>;

/// What may be asked of a result.
#[derive(Clone, Copy)]
struct Modifiers {
    rounding: Rounding,
    /// A rounding to a whole number.
    integral: Option<Integral>,
    ftz: bool,
    sat: bool,
    satfinite: bool,
    relu: bool,
}

/// Decodes `cvt`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let modifiers = Modifiers {
        integral: match cx.op.take_any(&["rni", "rzi", "rmi", "rpi"]) {
            Some("rni") => Some(Integral::Nearest),
            Some("rzi") => Some(Integral::Zero),
            Some("rmi") => Some(Integral::Down),
            Some(_) => Some(Integral::Up),
            None => None,
        },
        rounding: take_rounding(cx),
        ftz: cx.op.take("ftz"),
        sat: cx.op.take("sat"),
        satfinite: cx.op.take("satfinite"),
        relu: cx.op.take("relu"),
    };
    if cx.len() == 3 {
        return packed(cx, modifiers);
    }
    cx.expect_len(2)?;
    if let Some(action) = from_fp8(cx, modifiers)? {
        return Ok(action);
    }
    if cx.op.take("tf32") {
        return to_tf32(cx, modifiers);
    }
    let from = cx.op.take_type()?;
    let to = cx.op.take_type()?;
    match (to.is_integer(), from.is_integer()) {
        (true, true) => integers(cx, to, from, modifiers),
        _ => general(cx, to, from, modifiers),
    }
}

/// `cvt.rn.f16x2.f32 d, a, b`: a in the upper half.
fn packed(cx: &mut Operands, m: Modifiers) -> Result<Action> {
    let fp8 = cx.op.take_any(&["e4m3x2", "e5m2x2"]);
    let from = cx.op.take_type()?;
    if from != Type::F(32) || m.integral.is_some() || m.sat {
        return cx.op.unknown();
    }
    let (d, a, b): (Word, Word, Word) = (cx.dst(0)?, cx.src(1)?, cx.src(2)?);
    let relu = move |x: u32| if m.relu { half::relu(f32::from_bits(x)) } else { f32::from_bits(x) };
    if let Some(format) = fp8 {
        if !m.satfinite {
            return Err(cx.op.error("needs .satfinite"));
        }
        let encode = if format == "e4m3x2" { fp8::f32_to_e4m3 } else { fp8::f32_to_e5m2 };
        let encode = move |x: u32| u32::from(encode(relu(x)));
        return cx.computes(map2(d, (a, b), move |a: u32, b: u32| encode(a) << 8 | encode(b)));
    }
    let to = cx.op.take_type()?;
    if !matches!(to, Type::F16x2 | Type::Bf16x2) {
        return cx.op.unknown();
    }
    if m.rounding == Rounding::Nearest && !m.relu && !m.satfinite {
        // The hot ones.
        return match to {
            Type::F16x2 => cx.computes(map2(d, (a, b), |a: u32, b: u32| {
                let encode = |x| u32::from(half::f32_to_f16(f32::from_bits(x)));
                encode(a) << 16 | encode(b)
            })),
            _ => cx.computes(map2(d, (a, b), |a: u32, b: u32| {
                let encode = |x| u32::from(half::f32_to_bf16(f32::from_bits(x)));
                encode(a) << 16 | encode(b)
            })),
        };
    }
    let bf16 = to == Type::Bf16x2;
    let encode = move |x: u32| u32::from(to_half(relu(x), bf16, m));
    cx.computes(map2(d, (a, b), move |a: u32, b: u32| encode(a) << 16 | encode(b)))
}

fn to_half(x: f32, bf16: bool, m: Modifiers) -> u16 {
    let code = if bf16 { half::f32_to_bf16_in(x, m.rounding) } else { half::f32_to_f16_in(x, m.rounding) };
    match (m.satfinite, bf16) {
        (false, _) => code,
        (true, true) => half::satfinite_bf16(code),
        (true, false) => half::satfinite_f16(code),
    }
}

/// `cvt.rn.f16x2.e4m3x2 d, a`.
fn from_fp8(cx: &mut Operands, m: Modifiers) -> Result<Option<Action>> {
    let Some(format) = cx.op.take_any(&["e4m3x2", "e5m2x2"]) else { return Ok(None) };
    if cx.op.take_type()? != Type::F16x2 || m.relu {
        return cx.op.unknown();
    }
    let decode = if format == "e4m3x2" { fp8::e4m3_to_f16 } else { fp8::e5m2_to_f16 };
    let (d, a): (Word, Word) = (cx.dst(0)?, cx.src(1)?);
    let pair = move |a: u32| u32::from(decode((a >> 8) as u8)) << 16 | u32::from(decode(a as u8));
    cx.computes(map(d, a, pair)).map(Some)
}

/// `cvt.rna.tf32.f32`, `cvt.rn.tf32.f32`.
fn to_tf32(cx: &mut Operands, m: Modifiers) -> Result<Action> {
    let away = cx.op.take("rna");
    if cx.op.take_type()? != Type::F(32) || m.ftz || m.sat || m.integral.is_some() {
        return cx.op.unknown();
    }
    cx.unary(move |a: u32| {
        let x = f32::from_bits(a);
        let x = if m.relu { half::relu(x) } else { x };
        if away { half::f32_to_tf32_away(x) } else { half::f32_to_tf32_in(x, m.rounding) }.to_bits()
    })
}

/// A value of any integer type as a sign and 64 bits: wide enough for all of them.
fn extend(bits: u64, ty: Type) -> i128 {
    match ty {
        Type::S(8) => i128::from(bits as i8),
        Type::S(16) => i128::from(bits as i16),
        Type::S(32) => i128::from(bits as i32),
        Type::S(_) => i128::from(bits as i64),
        other => i128::from(bits & (u64::MAX >> (64 - other.bits()))),
    }
}

/// Between integers: extended by the source's sign, cut to the target's width, extended again to the register's.
fn integers(cx: &mut Operands, to: Type, from: Type, m: Modifiers) -> Result<Action> {
    if m.ftz || m.integral.is_some() || m.relu || m.satfinite {
        return cx.op.unknown();
    }
    let (d, a) = registers(cx)?;
    // The hot ones: addresses and indices.
    if !m.sat {
        match (to.bits(), from, d, a) {
            (64, Type::U(32) | Type::B(32), AnyReg::Long(d), AnyReg::Word(a)) => {
                return cx.computes(map(d, a, |a: u32| u64::from(a)));
            }
            (64, Type::S(32), AnyReg::Long(d), AnyReg::Word(a)) => {
                return cx.computes(map(d, a, |a: u32| a as i32 as i64 as u64));
            }
            (32, _, AnyReg::Word(d), AnyReg::Long(a)) if from.bits() == 64 => {
                return cx.computes(map(d, a, |a: u64| a as u32));
            }
            _ => {}
        }
    }
    let convert = move |bits: u64| {
        let value = extend(bits, from);
        let (low, high) = match to {
            Type::S(bits) => (-1i128 << (bits - 1), (1i128 << (bits - 1)) - 1),
            other => (0, (1i128 << other.bits()) - 1),
        };
        let value = if m.sat { value.clamp(low, high) } else { value };
        extend(value as u64, to) as u64
    };
    any(cx, d, a, convert)
}

/// Where a value is on its way from one format to another.
fn general(cx: &mut Operands, to: Type, from: Type, m: Modifiers) -> Result<Action> {
    let (d, a) = registers(cx)?;
    let flush = move |x: f64| if m.ftz { f64::from(numeric::ftz(x as f32)) } else { x };
    if from.is_integer() {
        let rounding = m.rounding;
        return match to {
            Type::F(16) => any(cx, d, a, move |a| integer::to_f16(extend(a, from), rounding).into()),
            Type::Bf16 => any(cx, d, a, move |a| integer::to_bf16(extend(a, from), rounding).into()),
            Type::F(32) => any(cx, d, a, move |a| u64::from(integer::to_f32(extend(a, from), rounding).to_bits())),
            Type::F(64) => any(cx, d, a, move |a| integer::to_f64(extend(a, from), rounding).to_bits()),
            _ => cx.op.unknown(),
        };
    }
    let value = move |a: u64| match from {
        Type::F(64) => f64::from_bits(a),
        Type::F(32) => flush(half::f32_to_f64(f32::from_bits(a as u32))),
        Type::Bf16 => half::bf16_to_f32(a as u16).into(),
        _ => half::f16_to_f32(a as u16).into(),
    };
    if !matches!(from, Type::F(_) | Type::Bf16) {
        return cx.op.unknown();
    }
    if to.is_integer() {
        let Some(integral) = m.integral else { return Err(cx.op.error("needs .rni, .rzi, .rmi or .rpi")) };
        let (signed, bits) = (to.is_signed(), to.bits());
        return any(cx, d, a, move |a| {
            let whole = integer::to_integer(value(a), integral, signed, bits, from == Type::F(64));
            extend(whole, to) as u64
        });
    }
    let whole = move |x: f64| m.integral.map_or(x, |integral| integral.round(x));
    match to {
        Type::F(64) => any(cx, d, a, move |a| {
            let x = whole(value(a));
            // NaN fails the comparison.
            let saturated = if x > 0.0 { x.min(1.0) } else { 0.0 };
            if m.sat { saturated } else { x }.to_bits()
        }),
        Type::F(32) => any(cx, d, a, move |a| {
            let x = match (from, m.integral) {
                (Type::F(64), _) => half::f64_to_f32(whole(value(a)), m.rounding),
                (_, Some(integral)) => integral.round_f32(value(a) as f32),
                _ => numeric::canonical(value(a) as f32),
            };
            let x = if m.ftz { numeric::ftz(x) } else { x };
            u64::from(if m.sat { numeric::saturate(x) } else { x }.to_bits())
        }),
        Type::F(16) | Type::Bf16 => {
            let bf16 = to == Type::Bf16;
            any(cx, d, a, move |a| {
                let x = whole(value(a));
                if from == Type::F(64) {
                    let code = if bf16 { half::f64_to_bf16(x, m.rounding) } else { half::f64_to_f16(x, m.rounding) };
                    return code.into();
                }
                let x = x as f32;
                let x = if m.relu { half::relu(x) } else { x };
                let x = if m.sat { numeric::saturate(x) } else { x };
                to_half(x, bf16, m).into()
            })
        }
        _ => cx.op.unknown(),
    }
}

/// Destination and source, in whatever width they have.
fn registers(cx: &mut Operands) -> Result<(AnyReg, AnyReg)> {
    let d = match cx.write_any(cx.get(0)?)? {
        Some(d) => d,
        None => AnyReg::Word(cx.dst(0)?),
    };
    Ok((d, cx.read_any(cx.get(1)?)?))
}

/// `d = f(a)` on 64 bits, whatever the registers' width.
fn any(cx: &Operands, d: AnyReg, a: AnyReg, f: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Result<Action> {
    cx.computes(match (d, a) {
        (AnyReg::Word(d), AnyReg::Word(a)) => map(d, a, move |a: u32| f(a.into()) as u32),
        (AnyReg::Word(d), AnyReg::Long(a)) => map(d, a, move |a: u64| f(a) as u32),
        (AnyReg::Long(d), AnyReg::Word(a)) => map::<u64, u32>(d, a, move |a: u32| f(a.into())),
        (AnyReg::Long(d), AnyReg::Long(a)) => map::<u64, u64>(d, a, f),
    })
}
