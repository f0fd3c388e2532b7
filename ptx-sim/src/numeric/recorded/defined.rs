//! Instructions whose results are defined to the bit.

use super::{Elementwise, f1, f2, f3, recorded};
use crate::numeric::Rounding::{Down, Nearest, Up, Zero};
use crate::numeric::arith::*;
use crate::numeric::fp8::{e4m3_to_f16, e5m2_to_f16, f32_to_e4m3, f32_to_e5m2};
use crate::numeric::half::*;
use crate::numeric::integer::{self, Integral, to_integer};
use crate::numeric::packed::Half;
use crate::numeric::{canonical, ftz, saturate};

/// The 64-bit operand of a pair of words.
fn wide(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

fn double(low: u32, high: u32) -> f64 {
    f64::from_bits(wide(low, high))
}

/// Two narrow results in a register; `x` is the lower.
fn pack(f: impl Fn(f32) -> u16, x: u32, y: u32, bits: u32) -> u64 {
    f(f32::from_bits(x)) as u64 | (f(f32::from_bits(y)) as u64) << bits
}

/// From an f32 to an integer.
fn int(x: u32, rounding: Integral, signed: bool, bits: u32) -> u64 {
    to_integer(f32::from_bits(x) as f64, rounding, signed, bits, false)
}

/// Instructions whose results are defined to the bit.
#[rustfmt::skip]
const DEFINED: &[(&str, Elementwise)] = &[
    ("rcp.rn.f32", |x, _, _| f1(|x| div_f32(1.0, x), x)),
    ("sqrt.rn.f32", |x, _, _| f1(sqrt_f32, x)),
    ("sqrt.rp.f32", |x, _, _| f1(|x| sqrt_f32_in(x, Up), x)),
    ("add.rn.f32", |x, y, _| f2(add_f32, x, y)),
    ("add.rz.f32", |x, y, _| f2(|x, y| add_f32_in(x, y, Zero), x, y)),
    ("add.rm.f32", |x, y, _| f2(|x, y| add_f32_in(x, y, Down), x, y)),
    ("add.rp.f32", |x, y, _| f2(|x, y| add_f32_in(x, y, Up), x, y)),
    ("add.rn.ftz.sat.f32", |x, y, _| f2(|x, y| saturate(ftz(add_f32(ftz(x), ftz(y)))), x, y)),
    ("mul.rn.f32", |x, y, _| f2(mul_f32, x, y)),
    ("mul.rz.f32", |x, y, _| f2(|x, y| mul_f32_in(x, y, Zero), x, y)),
    ("mul.rp.f32", |x, y, _| f2(|x, y| mul_f32_in(x, y, Up), x, y)),
    ("mul.rn.ftz.f32", |x, y, _| f2(mul_ftz_f32, x, y)),
    ("div.rn.f32", |x, y, _| f2(div_f32, x, y)),
    ("div.rz.f32", |x, y, _| f2(|x, y| div_f32_in(x, y, Zero), x, y)),
    ("fma.rn.f32", |x, y, z| f3(fma_f32, x, y, z)),
    ("fma.rz.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Zero), x, y, z)),
    ("fma.rm.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Down), x, y, z)),
    ("fma.rp.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Up), x, y, z)),
    ("fma.rn.ftz.f32", |x, y, z| f3(fma_ftz_f32, x, y, z)),
    ("fma.rn.sat.f32", |x, y, z| f3(|x, y, z| saturate(fma_f32(x, y, z)), x, y, z)),
    ("min.f32", |x, y, _| f2(min_f32, x, y)),
    ("max.f32", |x, y, _| f2(max_f32, x, y)),
    ("min.NaN.f32", |x, y, _| f2(min_nan_f32, x, y)),
    ("max.NaN.f32", |x, y, _| f2(max_nan_f32, x, y)),
    ("max.ftz.f32", |x, y, _| f2(|x, y| max_f32(ftz(x), ftz(y)), x, y)),
    ("cvt.rni.f32.f32", |x, _, _| f1(|x| Integral::Nearest.round_f32(x), x)),
    ("cvt.rmi.ftz.f32.f32", |x, _, _| f1(|x| Integral::Down.round_f32(ftz(x)), x)),
    ("cvt.rpi.f32.f32", |x, _, _| f1(|x| Integral::Up.round_f32(x), x)),
    ("cvt.sat.f32.f32", |x, _, _| f1(saturate, x)),
    ("cvt.rzi.s32.f32", |x, _, _| int(x, Integral::Zero, true, 32)),
    ("cvt.rni.u32.f32", |x, _, _| int(x, Integral::Nearest, false, 32)),
    ("cvt.rmi.s32.f32", |x, _, _| int(x, Integral::Down, true, 32)),
    ("cvt.rpi.ftz.u32.f32", |x, _, _| int(ftz(f32::from_bits(x)).to_bits(), Integral::Up, false, 32)),
    ("cvt.rzi.s64.f32", |x, _, _| int(x, Integral::Zero, true, 64)),
    ("cvt.rni.u64.f32", |x, _, _| int(x, Integral::Nearest, false, 64)),
    ("cvt.rzi.s16.f32", |x, _, _| int(x, Integral::Zero, true, 16)),
    ("cvt.rni.u8.f32", |x, _, _| int(x, Integral::Nearest, false, 8)),
    ("cvt.rzi.s32.f16", |x, _, _| int(f16_to_f32(x as u16).to_bits(), Integral::Zero, true, 32)),
    ("cvt.rn.f32.s32", |x, _, _| integer::to_f32(x as i32 as i128, Nearest).to_bits() as u64),
    ("cvt.rz.f32.u32", |x, _, _| integer::to_f32(x as i128, Zero).to_bits() as u64),
    ("cvt.rm.f32.s32", |x, _, _| integer::to_f32(x as i32 as i128, Down).to_bits() as u64),
    ("cvt.rp.f32.u32", |x, _, _| integer::to_f32(x as i128, Up).to_bits() as u64),
    ("cvt.rn.f32.s16", |x, _, _| integer::to_f32(x as i16 as i128, Nearest).to_bits() as u64),
    ("cvt.rn.f16.f32", |x, _, _| pack(f32_to_f16, x, 0, 16)),
    ("cvt.rz.f16.f32", |x, _, _| pack(|x| f32_to_f16_in(x, Zero), x, 0, 16)),
    ("cvt.rn.relu.f16.f32", |x, _, _| pack(|x| f32_to_f16(relu(x)), x, 0, 16)),
    ("cvt.rn.bf16.f32", |x, _, _| pack(f32_to_bf16, x, 0, 16)),
    ("cvt.rz.bf16.f32", |x, _, _| pack(|x| f32_to_bf16_in(x, Zero), x, 0, 16)),
    ("cvt.rn.relu.bf16.f32", |x, _, _| pack(|x| f32_to_bf16(relu(x)), x, 0, 16)),
    ("cvt.rn.f16x2.f32", |x, y, _| pack(f32_to_f16, x, y, 16)),
    ("cvt.rz.f16x2.f32", |x, y, _| pack(|x| f32_to_f16_in(x, Zero), x, y, 16)),
    ("cvt.rn.relu.f16x2.f32", |x, y, _| pack(|x| f32_to_f16(relu(x)), x, y, 16)),
    ("cvt.rn.bf16x2.f32", |x, y, _| pack(f32_to_bf16, x, y, 16)),
    ("cvt.rz.bf16x2.f32", |x, y, _| pack(|x| f32_to_bf16_in(x, Zero), x, y, 16)),
    ("cvt.rn.satfinite.e4m3x2.f32", |x, y, _| pack(|x| f32_to_e4m3(x) as u16, x, y, 8)),
    ("cvt.rn.satfinite.e5m2x2.f32", |x, y, _| pack(|x| f32_to_e5m2(x) as u16, x, y, 8)),
    ("cvt.rn.satfinite.relu.e4m3x2.f32", |x, y, _| pack(|x| f32_to_e4m3(relu(x)) as u16, x, y, 8)),
    ("cvt.rn.satfinite.e4m3x2.f16x2", |x, _, _| {
        pack(|x| f32_to_e4m3(x) as u16, f16_to_f32(x as u16).to_bits(), f16_to_f32((x >> 16) as u16).to_bits(), 8)
    }),
    ("cvt.rn.satfinite.e5m2x2.f16x2", |x, _, _| {
        pack(|x| f32_to_e5m2(x) as u16, f16_to_f32(x as u16).to_bits(), f16_to_f32((x >> 16) as u16).to_bits(), 8)
    }),
    ("cvt.rn.f16x2.e4m3x2", |x, _, _| e4m3_to_f16(x as u8) as u64 | (e4m3_to_f16((x >> 8) as u8) as u64) << 16),
    ("cvt.rn.f16x2.e5m2x2", |x, _, _| e5m2_to_f16(x as u8) as u64 | (e5m2_to_f16((x >> 8) as u8) as u64) << 16),
    ("cvt.f32.f16", |x, _, _| f16_to_f32(x as u16).to_bits() as u64),
    ("cvt.f32.bf16", |x, _, _| bf16_to_f32(x as u16).to_bits() as u64),
    ("cvt.rn.tf32.f32", |x, _, _| f1(f32_to_tf32, x)),
    ("cvt.rz.tf32.f32", |x, _, _| f1(|x| f32_to_tf32_in(x, Zero), x)),
    ("neg.f32", |x, _, _| f1(neg_f32, x)),
    ("abs.f32", |x, _, _| f1(abs_f32, x)),
    ("abs.ftz.f32", |x, _, _| f1(|x| abs_f32(ftz(x)), x)),
    ("copysign.f32", |x, y, _| f2(copysign_f32, x, y)),
    ("min.xorsign.abs.f32", |x, y, _| f2(|x, y| xorsign_abs(x, y, min_f32), x, y)),
    ("max.NaN.xorsign.abs.f32", |x, y, _| f2(|x, y| xorsign_abs(x, y, max_nan_f32), x, y)),
    ("neg.f16x2", |x, _, _| Half::F16.neg(x) as u64),
    ("abs.f16x2", |x, _, _| Half::F16.abs(x) as u64),
    ("neg.bf16x2", |x, _, _| Half::Bf16.neg(x) as u64),
    ("abs.bf16x2", |x, _, _| Half::Bf16.abs(x) as u64),
    ("add.rn.sat.f16x2", |x, y, _| Half::F16.saturate(Half::F16.add(x, y)) as u64),
    ("fma.rn.sat.f16x2", |x, y, z| Half::F16.saturate(Half::F16.fma(x, y, z)) as u64),
    ("add.rn.ftz.f16x2", |x, y, _| {
        let [x, y] = [x, y].map(|x| Half::F16.ftz(x));
        Half::F16.ftz(Half::F16.add(x, y)) as u64
    }),
    ("mul.rn.ftz.sat.f16x2", |x, y, _| Half::F16.saturate(Half::F16.mul_ftz(x, y)) as u64),
    ("fma.rn.ftz.f16x2", |x, y, z| Half::F16.fma_ftz(x, y, z) as u64),
    ("max.ftz.f16x2", |x, y, _| Half::F16.max(Half::F16.ftz(x), Half::F16.ftz(y)) as u64),
    ("sub.rn.f16x2", |x, y, _| Half::F16.sub(x, y) as u64),
    ("cvt.f64.f32", |x, _, _| f32_to_f64(f32::from_bits(x)).to_bits()),
    ("cvt.f64.ftz.f32", |x, _, _| f32_to_f64(canonical(ftz(f32::from_bits(x)))).to_bits()),
    ("cvt.rn.f32.f64", |x, y, _| f64_to_f32(double(x, y), Nearest).to_bits() as u64),
    ("cvt.rz.f32.f64", |x, y, _| f64_to_f32(double(x, y), Zero).to_bits() as u64),
    ("cvt.rn.ftz.f32.f64", |x, y, _| ftz(f64_to_f32(double(x, y), Nearest)).to_bits() as u64),
    ("cvt.rn.f16.f64", |x, y, _| f64_to_f16(double(x, y), Nearest) as u64),
    ("cvt.rz.f16.f64", |x, y, _| f64_to_f16(double(x, y), Zero) as u64),
    ("cvt.rn.bf16.f64", |x, y, _| f64_to_bf16(double(x, y), Nearest) as u64),
    ("cvt.rzi.s64.f64", |x, y, _| to_integer(double(x, y), Integral::Zero, true, 64, true)),
    ("cvt.rni.u64.f64", |x, y, _| to_integer(double(x, y), Integral::Nearest, false, 64, true)),
    ("cvt.rzi.s32.f64", |x, y, _| to_integer(double(x, y), Integral::Zero, true, 32, true)),
    ("cvt.rni.u32.f64", |x, y, _| to_integer(double(x, y), Integral::Nearest, false, 32, true)),
    ("cvt.rzi.s16.f64", |x, y, _| to_integer(double(x, y), Integral::Zero, true, 16, true)),
    ("cvt.rn.f64.s64", |x, y, _| integer::to_f64(wide(x, y) as i64 as i128, Nearest).to_bits()),
    ("cvt.rz.f64.u64", |x, y, _| integer::to_f64(wide(x, y) as i128, Zero).to_bits()),
    ("cvt.rn.f32.s64", |x, y, _| integer::to_f32(wide(x, y) as i64 as i128, Nearest).to_bits() as u64),
    ("cvt.rp.f32.u64", |x, y, _| integer::to_f32(wide(x, y) as i128, Up).to_bits() as u64),
    ("cvt.rn.f16.s64", |x, y, _| integer::to_f16(wide(x, y) as i64 as i128, Nearest) as u64),
    ("cvt.rn.bf16.s64", |x, y, _| integer::to_bf16(wide(x, y) as i64 as i128, Nearest) as u64),
    ("cvt.rz.bf16.u64", |x, y, _| integer::to_bf16(wide(x, y) as i128, Zero) as u64),
    ("cvt.rn.bf16.u32", |x, _, _| integer::to_bf16(x as i128, Nearest) as u64),
    ("cvt.rp.f16.u32", |x, _, _| integer::to_f16(x as i128, Up) as u64),
    ("cvt.rna.tf32.f32", |x, _, _| f1(f32_to_tf32_away, x)),
    ("fma.rn.relu.f16x2", |x, y, z| Half::F16.relu(Half::F16.fma(x, y, z)) as u64),
    ("fma.rn.relu.bf16x2", |x, y, z| Half::Bf16.relu(Half::Bf16.fma(x, y, z)) as u64),
    ("add.rn.f16x2", |x, y, _| Half::F16.add(x, y) as u64),
    ("mul.rn.f16x2", |x, y, _| Half::F16.mul(x, y) as u64),
    ("fma.rn.f16x2", |x, y, z| Half::F16.fma(x, y, z) as u64),
    ("min.f16x2", |x, y, _| Half::F16.min(x, y) as u64),
    ("max.NaN.f16x2", |x, y, _| Half::F16.max_nan(x, y) as u64),
    ("add.rn.bf16x2", |x, y, _| Half::Bf16.add(x, y) as u64),
    ("sub.rn.bf16x2", |x, y, _| Half::Bf16.sub(x, y) as u64),
    ("mul.rn.bf16x2", |x, y, _| Half::Bf16.mul(x, y) as u64),
    ("fma.rn.bf16x2", |x, y, z| Half::Bf16.fma(x, y, z) as u64),
    ("min.bf16x2", |x, y, _| Half::Bf16.min(x, y) as u64),
    ("max.NaN.bf16x2", |x, y, _| Half::Bf16.max_nan(x, y) as u64),
];

type Double = fn(f64, f64, f64) -> f64;

/// f64 arithmetic, which is that of the host but for the bits of NaNs.
const DOUBLE: &[(&str, Double)] = &[
    ("add.rn.f64", |x, y, _| x + y),
    ("sub.rn.f64", |x, y, _| x - y),
    ("mul.rn.f64", |x, y, _| x * y),
    ("div.rn.f64", |x, y, _| x / y),
    ("fma.rn.f64", |x, y, z| x.mul_add(y, z)),
    ("sqrt.rn.f64", |x, _, _| x.sqrt()),
    ("min.f64", |x, y, _| x.min(y)),
    ("max.f64", |x, y, _| x.max(y)),
    ("neg.f64", |x, _, _| -x),
    ("abs.f64", |x, _, _| x.abs()),
];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DEFINED.iter().map(|&(name, _)| name).chain(DOUBLE.iter().map(|&(name, _)| name))
}

#[test]
fn f64_arithmetic_is_that_of_the_host_but_for_nans() {
    let recorded = recorded();
    let [x, y, z] = &recorded["elements"][..] else { panic!("three operands") };
    for (name, f) in DOUBLE {
        for (i, want) in recorded[*name][0].chunks_exact(2).enumerate() {
            let want = double(want[0], want[1]);
            let got = f(double(x[i], y[i]), double(y[i], z[i]), double(z[i], x[i]));
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{name} {i}: {got:e}, not {want:e}"
            );
        }
    }
}

#[test]
fn defined_results_are_those_of_the_hardware() {
    let recorded = recorded();
    let [x, y, z] = &recorded["elements"][..] else { panic!("three operands") };
    let mut wrong = Vec::new();
    for &(name, f) in DEFINED {
        let results = &recorded[name][0];
        let words = results.len() / x.len();
        for i in 0..x.len() {
            let want = results[words * i..words * (i + 1)].iter().rev().fold(0, |sum, &word| sum << 32 | word as u64);
            let got = f(x[i], y[i], z[i]);
            if got != want {
                wrong.push(format!("{name} {:08x} {:08x} {:08x}: {got:x}, not {want:x}", x[i], y[i], z[i]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, first {:?}", wrong.len(), &wrong[..8.min(wrong.len())]);
}
