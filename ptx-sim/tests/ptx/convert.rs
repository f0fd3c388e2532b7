//! `cvt`.

use crate::common::{Value, check, check_at, compute, refused, table};
use half::{bf16, f16};

#[test]
fn integers_are_extended_by_the_sign_of_the_source() {
    check("cvt.u64.u32", |(a,): (u32,)| u64::from(a));
    check("cvt.s64.s32", |(a,): (i32,)| i64::from(a));
    check("cvt.u64.s32", |(a,): (i32,)| i64::from(a) as u64);
    check("cvt.s64.u32", |(a,): (u32,)| i64::from(a));
    check("cvt.u32.u16", |(a,): (u16,)| u32::from(a));
    check("cvt.s32.s16", |(a,): (i16,)| i32::from(a));
    check("cvt.u32.u8", |(a,): (u32,)| u32::from(a as u8));
    check("cvt.s32.s8", |(a,): (u32,)| i32::from(a as i8));
    check("cvt.s64.s8", |(a,): (u32,)| i64::from(a as i8));
}

#[test]
fn integers_are_cut() {
    check("cvt.u32.u64", |(a,): (u64,)| a as u32);
    check("cvt.u16.u32", |(a,): (u32,)| a as u16);
    check("cvt.s16.s64", |(a,): (i64,)| a as i16);
}

#[test]
fn what_is_narrower_than_its_register_is_extended_again() {
    check("cvt.u8.u32", |(a,): (u32,)| u32::from(a as u8));
    check("cvt.s8.s32", |(a,): (i32,)| i32::from(a as i8));
    check("cvt.s16.s32", |(a,): (i32,)| i32::from(a as i16));
    check("cvt.rzi.s8.f32", |(a,): (f32,)| i32::from(a as i8));
    check("cvt.rzi.s16.f32", |(a,): (f32,)| i32::from(a as i16));
    check("cvt.rzi.u8.f32", |(a,): (f32,)| u32::from(a as u8));
}

#[test]
fn saturated_integers_stop_at_the_ends() {
    check("cvt.sat.u8.s32", |(a,): (i32,)| a.clamp(0, 255) as u32);
    check("cvt.sat.s8.s32", |(a,): (i32,)| a.clamp(-128, 127));
    check("cvt.sat.s32.s64", |(a,): (i64,)| a.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    check("cvt.sat.s32.u32", |(a,): (u32,)| a.min(i32::MAX as u32));
    check("cvt.sat.u32.s32", |(a,): (i32,)| a.max(0) as u32);
    check("cvt.sat.u16.s64", |(a,): (i64,)| a.clamp(0, 0xffff) as u16);
}

#[test]
fn floats_are_clamped_to_the_integer() {
    check("cvt.rzi.s32.f32", |(a,): (f32,)| a as i32);
    check("cvt.rzi.u32.f32", |(a,): (f32,)| a as u32);
    check("cvt.rzi.s16.f32", |(a,): (f32,)| a as i16);
    check("cvt.rzi.u16.f32", |(a,): (f32,)| a as u16);
}

/// NaN: 0, but where a side has 64 bits the top bit alone.
#[test]
fn nan_is_zero_in_32_bits_and_the_top_bit_in_64() {
    check("cvt.rzi.s64.f32", |(a,): (f32,)| if a.is_nan() { i64::MIN } else { a as i64 });
    check("cvt.rzi.u64.f32", |(a,): (f32,)| if a.is_nan() { 1 << 63 } else { a as u64 });
    check("cvt.rzi.s32.f64", |(a,): (f64,)| if a.is_nan() { i32::MIN } else { a as i32 });
    check("cvt.rzi.u32.f64", |(a,): (f64,)| if a.is_nan() { 1 << 31 } else { a as u32 });
    check("cvt.rzi.s64.f64", |(a,): (f64,)| if a.is_nan() { i64::MIN } else { a as i64 });
}

#[test]
fn floats_become_integers_in_four_directions() {
    let cases: Vec<_> = (-12..13).map(|i| (0.25 * i as f32,)).collect();
    check_at("cvt.rni.s32.f32", &cases, |(a,): (f32,)| a.round_ties_even() as i32);
    check_at("cvt.rzi.s32.f32", &cases, |(a,): (f32,)| a.trunc() as i32);
    check_at("cvt.rmi.s32.f32", &cases, |(a,): (f32,)| a.floor() as i32);
    check_at("cvt.rpi.s32.f32", &cases, |(a,): (f32,)| a.ceil() as i32);
    check_at("cvt.rmi.u32.f32", &cases, |(a,): (f32,)| a.floor() as u32);
    check("cvt.rni.s64.f64", |(a,): (f64,)| if a.is_nan() { i64::MIN } else { a.round_ties_even() as i64 });
}

#[test]
fn floats_become_whole_in_four_directions() {
    check("cvt.rni.f32.f32", |(a,): (f32,)| a.round_ties_even());
    check("cvt.rzi.f32.f32", |(a,): (f32,)| a.trunc());
    check("cvt.rmi.f32.f32", |(a,): (f32,)| a.floor());
    check("cvt.rpi.f32.f32", |(a,): (f32,)| a.ceil());
    check("cvt.rni.f64.f64", |(a,): (f64,)| a.round_ties_even());
}

#[test]
fn integers_become_floats() {
    check("cvt.rn.f32.s32", |(a,): (i32,)| a as f32);
    check("cvt.rn.f32.u32", |(a,): (u32,)| a as f32);
    check("cvt.rn.f32.s64", |(a,): (i64,)| a as f32);
    check("cvt.rn.f32.u64", |(a,): (u64,)| a as f32);
    check("cvt.rn.f32.u16", |(a,): (u16,)| f32::from(a));
    check("cvt.rn.f32.s8", |(a,): (u32,)| f32::from(a as i8));
    check("cvt.rn.f64.s32", |(a,): (i32,)| f64::from(a));
    check("cvt.rn.f64.u64", |(a,): (u64,)| a as f64);
    check("cvt.rn.f16.s32", |(a,): (i32,)| f16::from_f64(a.into()));
    check("cvt.rn.bf16.u16", |(a,): (u16,)| bf16::from_f32(a.into()));
}

#[test]
fn integers_round_in_the_direction_asked_for() {
    let x = (1 << 24) + 1;
    let (low, high) = ((1 << 24) as f32, ((1 << 24) + 2) as f32);
    table("cvt.rn.f32.s32", &[((x,), low), ((-x,), -low), ((x + 2,), high + 2.0)]);
    table("cvt.rz.f32.s32", &[((x,), low), ((-x,), -low)]);
    table("cvt.rm.f32.s32", &[((x,), low), ((-x,), -high)]);
    table("cvt.rp.f32.s32", &[((x,), high), ((-x,), -low)]);
    table("cvt.rz.f32.u64", &[((u64::MAX,), (1u64 << 63) as f32 * (2.0 - f32::EPSILON))]);
    table("cvt.rp.f64.s64", &[((i64::MAX,), 2f64.powi(63))]);
}

/// The f32 next to `x` on the side of zero.
fn toward_zero(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest).abs() > x.abs() { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
}

#[test]
fn f64_is_cut_to_f32() {
    check("cvt.f64.f32", |(a,): (f32,)| f64::from(a));
    check("cvt.rn.f32.f64", |(a,): (f64,)| a as f32);
    check("cvt.rz.f32.f64", |(a,): (f64,)| if a.is_infinite() { a as f32 } else { toward_zero(a) });
    let below = |a: f64| if f64::from(a as f32) > a { (a as f32).next_down() } else { a as f32 };
    check("cvt.rm.f32.f64", |(a,): (f64,)| below(a));
    check("cvt.rp.f32.f64", |(a,): (f64,)| -below(-a));
}

#[test]
fn saturated_floats_lie_between_zero_and_one() {
    check("cvt.sat.f32.f32", |(a,): (f32,)| if a > 0.0 { a.min(1.0) } else { 0.0 });
    check("cvt.sat.f64.f64", |(a,): (f64,)| if a > 0.0 { a.min(1.0) } else { 0.0 });
    check("cvt.rn.sat.f32.f64", |(a,): (f64,)| if a > 0.0 { (a as f32).min(1.0) } else { 0.0 });
    check("cvt.rn.sat.f16.f32", |(a,): (f32,)| f16::from_f32(if a > 0.0 { a.min(1.0) } else { 0.0 }));
}

#[test]
fn ftz_flushes_subnormals() {
    table("cvt.ftz.f32.f32", &[((1e-40f32,), 0f32), ((-1e-40f32,), -0f32), ((1f32,), 1f32)]);
    table("cvt.ftz.f64.f32", &[((1e-40f32,), 0f64)]);
    table("cvt.rn.ftz.f32.f64", &[((1e-40f64,), 0f32)]);
    table("cvt.rpi.ftz.s32.f32", &[((1e-40f32,), 0)]);
    table("cvt.rpi.s32.f32", &[((1e-40f32,), 1)]);
}

fn f32s() -> Vec<(f32,)> {
    let ties =
        [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 65519.0, 65520.0, 2f32.powi(-25), 1.5 * 2f32.powi(-24)];
    let more = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 3.3895e38, 3.4e38, 1e-5, 6e-8, 0.1, 1e5];
    f32::edges().into_iter().chain(ties).chain(more).flat_map(|x| [(x,), (-x,)]).collect()
}

#[test]
fn f32_becomes_f16_and_bf16() {
    check_at("cvt.rn.f16.f32", &f32s(), |(a,): (f32,)| f16::from_f32(a));
    check_at("cvt.rn.bf16.f32", &f32s(), |(a,): (f32,)| bf16::from_f32(a));
    check("cvt.f32.f16", |(a,): (f16,)| a.to_f32());
    check("cvt.f32.bf16", |(a,): (bf16,)| a.to_f32());
    check("cvt.f64.f16", |(a,): (f16,)| a.to_f64());
    check("cvt.rn.f16.f64", |(a,): (f64,)| f16::from_f64(a));
    table("cvt.rn.f16.f32", &[((f32::NAN,), 0x7fffu16), ((-f32::NAN,), 0x7fff)]);
    table("cvt.rn.bf16.f32", &[((f32::NAN,), 0x7fffu16)]);
}

#[test]
fn halves_round_in_the_direction_asked_for() {
    let tie = 1.0 + 2f32.powi(-11);
    table("cvt.rz.f16.f32", &[((tie,), 0x3c00u16), ((-tie,), 0xbc00), ((1e6,), 0x7bff), ((1e-9,), 0)]);
    table("cvt.rm.f16.f32", &[((tie,), 0x3c00u16), ((-tie,), 0xbc01)]);
    table("cvt.rp.f16.f32", &[((tie,), 0x3c01u16), ((-tie,), 0xbc00), ((1e-9,), 1)]);
    table("cvt.rz.bf16.f32", &[((1.0 + 2f32.powi(-8),), 0x3f80u16), ((3.4e38,), 0x7f7f)]);
}

#[test]
fn halves_become_integers_and_whole() {
    check("cvt.rzi.s32.f16", |(a,): (f16,)| a.to_f32() as i32);
    check("cvt.rni.u16.f16", |(a,): (f16,)| a.to_f32().round_ties_even() as u16);
    check("cvt.rmi.f16.f16", |(a,): (f16,)| f16::from_f32(a.to_f32().floor()));
}

#[test]
fn a_pair_has_the_first_operand_on_top() {
    let pairs: Vec<(f32, f32)> = f32s().into_iter().zip(f32s().into_iter().rev()).map(|((a,), (b,))| (a, b)).collect();
    let join = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    let f16 = |x: f32| if x.is_nan() { 0x7fff } else { f16::from_f32(x).to_bits() };
    let bf16 = |x: f32| if x.is_nan() { 0x7fff } else { bf16::from_f32(x).to_bits() };
    let relu = |x: f32| if x.is_nan() || x > 0.0 { x } else { 0.0 };
    check_at("cvt.rn.f16x2.f32", &pairs, |(a, b): (f32, f32)| join(f16(a), f16(b)));
    check_at("cvt.rn.bf16x2.f32", &pairs, |(a, b): (f32, f32)| join(bf16(a), bf16(b)));
    check_at("cvt.rn.relu.f16x2.f32", &pairs, |(a, b): (f32, f32)| join(f16(relu(a)), f16(relu(b))));
    check_at("cvt.rn.relu.bf16x2.f32", &pairs, |(a, b): (f32, f32)| join(bf16(relu(a)), bf16(relu(b))));
    table("cvt.rz.f16x2.f32", &[((1e6f32, 1.0 + 2f32.powi(-11)), 0x7bff_3c00u32)]);
    table("cvt.rn.satfinite.f16.f32", &[((1e6f32,), 0x7bffu16), ((f32::NEG_INFINITY,), 0xfbff)]);
}

/// The number behind a code of `e` exponent and `m` mantissa bits, by the definition of the format.
fn fp8(code: u8, e: u32, m: u32) -> f64 {
    let code = u32::from(code);
    let (sign, exponent, mantissa) = (code >> 7, code >> m & ((1 << e) - 1), code & ((1 << m) - 1));
    let bias = (1 << (e - 1)) - 1;
    let all = (1 << e) - 1;
    let magnitude = match (exponent, e) {
        // e4m3 has no infinity, and one NaN.
        (15, 4) if mantissa == 7 => f64::NAN,
        (exponent, 5) if exponent == all => {
            if mantissa == 0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        (0, _) => f64::from(mantissa) * 2f64.powi(1 - bias - m as i32),
        _ => f64::from(mantissa + (1 << m)) * 2f64.powi(exponent as i32 - bias - m as i32),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// The code nearest to `x`, even where two are, the largest number instead of an infinity.
fn to_fp8(x: f32, e: u32, m: u32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let finite = (0..0x80u8).filter(|code| fp8(*code, e, m).is_finite());
    let magnitude = f64::from(x.abs().min(1e6));
    let distance = |code: &u8| (fp8(*code, e, m) - magnitude).abs();
    let nearest =
        finite.min_by(|a, b| distance(a).partial_cmp(&distance(b)).expect("numbers").then((a & 1).cmp(&(b & 1))));
    nearest.expect("there are codes") | if x.is_sign_negative() { 0x80 } else { 0 }
}

#[test]
fn fp8_rounds_to_nearest_and_saturates() {
    let ties = (0..40).flat_map(|i| [2f32.powi(i - 20), 2f32.powi(i - 20) * 1.0625, 2f32.powi(i - 20) * 1.3125]);
    let few = [448.0, 464.0, 465.0, 57344.0, 61440.0, f32::INFINITY, f32::NAN, 0.0, 1e9, 1e-9];
    let values: Vec<f32> = ties.chain(few).flat_map(|x| [x, -x]).collect();
    let pairs: Vec<(f32, f32)> = values.iter().zip(values.iter().rev()).map(|(a, b)| (*a, *b)).collect();
    let join = |a: u8, b: u8| u16::from(a) << 8 | u16::from(b);
    let e4m3 = |x: f32| to_fp8(x, 4, 3);
    let e5m2 = |x: f32| to_fp8(x, 5, 2);
    check_at("cvt.rn.satfinite.e4m3x2.f32", &pairs, |(a, b): (f32, f32)| join(e4m3(a), e4m3(b)));
    check_at("cvt.rn.satfinite.e5m2x2.f32", &pairs, |(a, b): (f32, f32)| join(e5m2(a), e5m2(b)));
    let relu = |x: f32| if x.is_nan() { x } else { x.max(0.0) + 0.0 };
    check_at("cvt.rn.satfinite.relu.e4m3x2.f32", &pairs, |(a, b): (f32, f32)| join(e4m3(relu(a)), e4m3(relu(b))));
}

#[test]
fn fp8_codes_become_f16() {
    for (format, e, m) in [("e4m3x2", 4, 3), ("e5m2x2", 5, 2)] {
        let codes: Vec<(u16,)> = (0..=255u16).map(|code| (code << 8 | (255 - code),)).collect();
        for (&(pair,), found) in codes.iter().zip(compute::<_, u32>(&format!("cvt.rn.f16x2.{format}"), &codes)) {
            for (code, found) in [(pair as u8, found as u16), ((pair >> 8) as u8, (found >> 16) as u16)] {
                assert!(f16::from_bits(found).same(f16::from_f64(fp8(code, e, m))), "{format} {code:#x}: {found:#x}");
            }
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "cvt.s32.f32 %r1, %f1;",
        "cvt.rn.e4m3x2.f32 %h1, %f1, %f2;",
        "cvt.rn.f16x2.f64 %r1, %d1, %d2;",
        "cvt.rni.s32.s32 %r1, %r2;",
        "cvt.rn.tf16.f32 %r1, %f1;",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
