//! What an H200 made of the instructions, against this module: ptx-sim/tests/vectors/README.md.

use super::Rounding::{Down, Nearest, Up, Zero};
use super::arith::*;
use super::fp8::{e4m3_to_f16, e5m2_to_f16, f32_to_e4m3, f32_to_e5m2};
use super::half::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_bf16_in, f32_to_f16, f32_to_f16_in, f32_to_f64, f32_to_tf32,
    f32_to_tf32_away, f32_to_tf32_in, f64_to_bf16, f64_to_f16, f64_to_f32, relu,
};
use super::integer::{self, Integral, to_integer};
use super::mma::{Fp8, Row, mma_m16n8k8, mma_m16n8k16, mma_m16n8k32};
use super::packed::Half;
use super::{approx, canonical, ftz, saturate};
use crate::options::{Arch, Mma};
use std::collections::BTreeMap;

/// The arrays of each recorded instruction.
fn recorded() -> BTreeMap<String, Vec<Vec<u32>>> {
    let bytes = match std::env::var_os("PTX_SIM_VECTORS") {
        Some(path) => std::fs::read(path).expect("the file that PTX_SIM_VECTORS names"),
        None => include_bytes!("../../tests/vectors/h200.bin").to_vec(),
    };
    let mut rest = bytes.strip_prefix(b"PTXV").expect("the mark of a vector file");
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n.min(rest.len()));
        rest = tail;
        head
    };
    let mut entries = BTreeMap::new();
    while let &[name, arrays] = take(2) {
        let name = String::from_utf8(take(name as usize).to_vec()).expect("a name in UTF-8");
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let arrays = (0..arrays).map(|_| {
            let words = word(take(4)) as usize;
            take(4 * words).chunks_exact(4).map(word).collect()
        });
        let arrays = arrays.collect();
        entries.insert(name, arrays);
    }
    entries
}

/// A recorded matrix product.
struct Product<const A: usize, const B: usize> {
    a: [Row; A],
    b: [Row; B],
    c: [Row; 4],
    d: [Row; 4],
}

fn products<const A: usize, const B: usize>(arrays: &[Vec<u32>]) -> impl Iterator<Item = Product<A, B>> {
    fn matrix<const N: usize>(words: &[u32], index: usize) -> [Row; N] {
        core::array::from_fn(|register| {
            let at = (index * N + register) * 32;
            words[at..at + 32].try_into().expect("32 lanes")
        })
    }
    let [a, b, c, d] = arrays else { panic!("four operands") };
    (0..d.len() / 128).map(|i| Product { a: matrix(a, i), b: matrix(b, i), c: matrix(c, i), d: matrix(d, i) })
}

#[test]
fn exact_matrix_products_of_16_bit_formats_are_those_of_the_hardware() {
    let recorded = recorded();
    let mode = Mma::Exact(Arch::Sm90);
    for (format, name) in [(Half::F16, "f16"), (Half::Bf16, "bf16")] {
        for (i, p) in products(&recorded[&format!("mma.m16n8k16.{name}")]).enumerate() {
            assert_eq!(
                mma_m16n8k16(mode, format, p.a.each_ref(), p.b.each_ref(), p.c.each_ref()),
                p.d,
                "k16 {name} {i}"
            );
        }
        for (i, p) in products(&recorded[&format!("mma.m16n8k8.{name}")]).enumerate() {
            assert_eq!(mma_m16n8k8(mode, format, p.a.each_ref(), p.b.each_ref(), p.c.each_ref()), p.d, "k8 {name} {i}");
        }
    }
}

#[test]
fn exact_matrix_products_of_8_bit_formats_are_those_of_the_hardware() {
    let recorded = recorded();
    let (e4m3, e5m2) = (Fp8::E4m3, Fp8::E5m2);
    for (formats, name) in
        [([e4m3, e4m3], "e4m3"), ([e5m2, e5m2], "e5m2"), ([e5m2, e4m3], "e5m2.e4m3"), ([e4m3, e5m2], "e4m3.e5m2")]
    {
        for (i, p) in products(&recorded[&format!("mma.m16n8k32.{name}")]).enumerate() {
            assert_eq!(
                mma_m16n8k32(Mma::Exact(Arch::Sm90), formats, p.a.each_ref(), p.b.each_ref(), p.c.each_ref()),
                p.d,
                "{name} {i}"
            );
        }
    }
}

type Elementwise = fn(u32, u32, u32) -> u64;

/// Applies `f` to numbers.
fn f1(f: impl Fn(f32) -> f32, x: u32) -> u64 {
    f(f32::from_bits(x)).to_bits() as u64
}

fn f2(f: impl Fn(f32, f32) -> f32, x: u32, y: u32) -> u64 {
    f(f32::from_bits(x), f32::from_bits(y)).to_bits() as u64
}

fn f3(f: impl Fn(f32, f32, f32) -> f32, x: u32, y: u32, z: u32) -> u64 {
    f(f32::from_bits(x), f32::from_bits(y), f32::from_bits(z)).to_bits() as u64
}

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
    ("mul.rn.ftz.f32", |x, y, _| f2(|x, y| ftz(mul_f32(ftz(x), ftz(y))), x, y)),
    ("div.rn.f32", |x, y, _| f2(div_f32, x, y)),
    ("div.rz.f32", |x, y, _| f2(|x, y| div_f32_in(x, y, Zero), x, y)),
    ("fma.rn.f32", |x, y, z| f3(fma_f32, x, y, z)),
    ("fma.rz.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Zero), x, y, z)),
    ("fma.rm.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Down), x, y, z)),
    ("fma.rp.f32", |x, y, z| f3(|x, y, z| fma_f32_in(x, y, z, Up), x, y, z)),
    ("fma.rn.ftz.f32", |x, y, z| f3(|x, y, z| ftz(fma_f32(ftz(x), ftz(y), ftz(z))), x, y, z)),
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
    ("mul.rn.ftz.sat.f16x2", |x, y, _| {
        let [x, y] = [x, y].map(|x| Half::F16.ftz(x));
        Half::F16.saturate(Half::F16.ftz(Half::F16.mul(x, y))) as u64
    }),
    ("fma.rn.ftz.f16x2", |x, y, z| {
        let [x, y, z] = [x, y, z].map(|x| Half::F16.ftz(x));
        Half::F16.ftz(Half::F16.fma(x, y, z)) as u64
    }),
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

/// How far a result may lie from that of the hardware: so many units in the last place, or so far at all.
struct Within(i64, f64);

/// The least share of equal results, and the largest distance of the others.
#[rustfmt::skip]
const APPROXIMATE: &[(&str, f64, Within, Elementwise)] = &[
    ("ex2.approx.f32", 0.75, Within(2, 0.0), |x, _, _| f1(approx::ex2, x)),
    ("ex2.approx.ftz.f32", 0.75, Within(2, 0.0), |x, _, _| f1(approx::ex2_ftz, x)),
    ("lg2.approx.f32", 0.7, Within(2, 2.4e-7), |x, _, _| f1(approx::lg2, x)),
    ("lg2.approx.ftz.f32", 0.7, Within(2, 2.4e-7), |x, _, _| f1(approx::lg2_ftz, x)),
    ("rcp.approx.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::rcp, x)),
    ("rcp.approx.ftz.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::rcp_ftz, x)),
    ("rsqrt.approx.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::rsqrt, x)),
    ("rsqrt.approx.ftz.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::rsqrt_ftz, x)),
    ("sqrt.approx.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::sqrt, x)),
    ("sqrt.approx.ftz.f32", 0.8, Within(1, 0.0), |x, _, _| f1(approx::sqrt_ftz, x)),
    ("sin.approx.f32", 0.4, Within(2, 2.4e-7), |x, _, _| f1(approx::sin, x)),
    ("cos.approx.f32", 0.5, Within(2, 2.4e-7), |x, _, _| f1(approx::cos, x)),
    ("sin.approx.ftz.f32", 0.4, Within(2, 2.4e-7), |x, _, _| f1(|x| approx::sin(ftz(x)), x)),
    ("cos.approx.ftz.f32", 0.5, Within(2, 2.4e-7), |x, _, _| f1(|x| approx::cos(ftz(x)), x)),
    ("tanh.approx.f32", 0.7, Within(128, 0.0), |x, _, _| f1(approx::tanh, x)),
    ("div.full.f32", 0.7, Within(2, 0.0), |x, y, _| f2(approx::div_full, x, y)),
    ("div.full.ftz.f32", 0.7, Within(2, 0.0), |x, y, _| f2(approx::div_full_ftz, x, y)),
    ("div.approx.f32", 0.7, Within(2, 0.0), |x, y, _| f2(approx::div_approx, x, y)),
    ("div.approx.ftz.f32", 0.7, Within(2, 0.0), |x, y, _| f2(approx::div_approx_ftz, x, y)),
];

#[test]
fn approximations_are_as_close_to_the_hardware_as_stated_and_agree_in_zeros_infinities_and_nans() {
    let recorded = recorded();
    let [x, y, z] = &recorded["elements"][..] else { panic!("three operands") };
    for (name, share, Within(ulp, absolute), f) in APPROXIMATE {
        let mut equal = 0;
        for (i, &want) in recorded[*name][0].iter().enumerate() {
            let got = f(x[i], y[i], z[i]) as u32;
            equal += (got == want) as usize;
            let (a, b) = (f32::from_bits(got), f32::from_bits(want));
            let finite = a.is_finite() && b.is_finite() && (a == 0.0) == (b == 0.0) && (got ^ want) >> 31 == 0;
            let close = (got as i64 - want as i64).abs() <= *ulp || (a as f64 - b as f64).abs() <= *absolute;
            assert!(got == want || finite && close, "{name} {:08x} {:08x}: {got:08x}, not {want:08x}", x[i], y[i]);
        }
        let got = equal as f64 / x.len() as f64;
        assert!(got >= *share, "{name}: {got} equal");
    }
}

#[test]
fn approximations_in_16_bits_are_within_a_unit_of_the_hardware() {
    type Packed = fn(u32) -> u32;
    let recorded = recorded();
    for (name, f) in [
        ("ex2.approx.f16x2", approx::ex2_f16x2 as Packed),
        ("tanh.approx.f16x2", approx::tanh_f16x2),
        ("ex2.approx.ftz.bf16x2", approx::ex2_ftz_bf16x2),
        ("tanh.approx.bf16x2", approx::tanh_bf16x2),
    ] {
        let mut equal = 0;
        for (&x, &want) in recorded["elements"][0].iter().zip(&recorded[name][0]) {
            let got = f(x);
            for shift in [0, 16] {
                let (got, want) = (got >> shift & 0xffff, want >> shift & 0xffff);
                equal += (got == want) as usize;
                assert!(got.abs_diff(want) <= 1, "{name} {x:08x}: {got:04x}, not {want:04x}");
            }
        }
        let share = equal as f64 / (2 * recorded["elements"][0].len()) as f64;
        assert!(share > 0.9, "{name}: {share} equal");
    }
}
