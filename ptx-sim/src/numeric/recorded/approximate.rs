//! Approximate instructions.

use super::{Elementwise, f1, f2, recorded};
use crate::numeric::approx::{self, bf16x2, f16x2, unit};
use crate::numeric::ftz;

/// Instructions of the special function unit.
#[rustfmt::skip]
const UNIT: &[(&str, Elementwise)] = &[
    ("ex2.approx.f32", |x, _, _| f1(unit::ex2, x)),
    ("ex2.approx.ftz.f32", |x, _, _| f1(unit::ex2_ftz, x)),
    ("lg2.approx.f32", |x, _, _| f1(unit::lg2, x)),
    ("lg2.approx.ftz.f32", |x, _, _| f1(unit::lg2_ftz, x)),
    ("rcp.approx.f32", |x, _, _| f1(unit::rcp, x)),
    ("rcp.approx.ftz.f32", |x, _, _| f1(unit::rcp_ftz, x)),
    ("rsqrt.approx.f32", |x, _, _| f1(unit::rsqrt, x)),
    ("rsqrt.approx.ftz.f32", |x, _, _| f1(unit::rsqrt_ftz, x)),
    ("sqrt.approx.f32", |x, _, _| f1(unit::sqrt, x)),
    ("sqrt.approx.ftz.f32", |x, _, _| f1(unit::sqrt_ftz, x)),
    ("sin.approx.f32", |x, _, _| f1(unit::sin, x)),
    ("cos.approx.f32", |x, _, _| f1(unit::cos, x)),
    ("sin.approx.ftz.f32", |x, _, _| f1(|x| unit::sin(ftz(x)), x)),
    ("cos.approx.ftz.f32", |x, _, _| f1(|x| unit::cos(ftz(x)), x)),
    ("div.full.f32", |x, y, _| f2(unit::div_full, x, y)),
    ("div.full.ftz.f32", |x, y, _| f2(unit::div_full_ftz, x, y)),
    ("div.approx.f32", |x, y, _| f2(unit::div_approx, x, y)),
    ("div.approx.ftz.f32", |x, y, _| f2(unit::div_approx_ftz, x, y)),
    ("tanh.approx.f32", |x, _, _| f1(unit::tanh, x)),
    ("ex2.approx.f16x2", |x, _, _| f16x2(x, unit::ex2) as u64),
    ("tanh.approx.f16x2", |x, _, _| f16x2(x, unit::tanh) as u64),
    ("ex2.approx.ftz.bf16x2", |x, _, _| bf16x2(x, unit::ex2_ftz) as u64),
    ("tanh.approx.bf16x2", |x, _, _| bf16x2(x, unit::tanh) as u64),
];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    UNIT.iter().map(|&(name, _)| name)
}

#[test]
fn the_special_function_unit_gives_the_bits_of_the_hardware() {
    let recorded = recorded();
    let [x, y, z] = &recorded["elements"][..] else { panic!("three operands") };
    for (name, f) in UNIT {
        for (i, &want) in recorded[*name][0].iter().enumerate() {
            let got = f(x[i], y[i], z[i]) as u32;
            assert_eq!(got, want, "{name} {:08x} {:08x}: {got:08x}, not {want:08x}", x[i], y[i]);
        }
    }
}

/// How far a result may lie from that of the hardware: so many units in the last place, or so far at all.
struct Within(i64, f64);

/// The least share of equal results, and the largest distance of the others.
#[rustfmt::skip]
const APPROXIMATE: &[(&str, f64, Within, Elementwise)] = &[
    ("ex2.approx.f32", 0.75, Within(2, 0.0), |x, _, _| f1(approx::ex2, x)),
    ("ex2.approx.ftz.f32", 0.75, Within(2, 0.0), |x, _, _| f1(approx::ex2_ftz, x)),
    ("lg2.approx.f32", 0.65, Within(2, 2.4e-7), |x, _, _| f1(approx::lg2, x)),
    ("lg2.approx.ftz.f32", 0.65, Within(2, 2.4e-7), |x, _, _| f1(approx::lg2_ftz, x)),
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
    ("tanh.approx.f32", 0.6, Within(128, 0.0), |x, _, _| f1(approx::tanh, x)),
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
