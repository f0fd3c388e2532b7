//! Floating-point arithmetic: f32 and f64 against Rust's, f16 and bf16 against the crate `half`.

use crate::common::{Value, check, check_at, compute, compute_with, kernel, refused, table};
use half::{bf16, f16};
use ptx_sim::Options;

/// NaN as arithmetic on f32 gives it.
const NAN: u32 = 0x7fff_ffff;

#[test]
fn f32_arithmetic_rounds_to_nearest() {
    check("add.f32", |(a, b): (f32, f32)| a + b);
    check("sub.rn.f32", |(a, b): (f32, f32)| a - b);
    check("mul.rn.f32", |(a, b): (f32, f32)| a * b);
    check("div.rn.f32", |(a, b): (f32, f32)| a / b);
    check("fma.rn.f32", |(a, b, c): (f32, f32, f32)| a.mul_add(b, c));
    check("sqrt.rn.f32", |(a,): (f32,)| a.sqrt());
    check("rcp.rn.f32", |(a,): (f32,)| 1.0 / a);
}

#[test]
fn f64_arithmetic_rounds_to_nearest() {
    check("add.f64", |(a, b): (f64, f64)| a + b);
    check("sub.rn.f64", |(a, b): (f64, f64)| a - b);
    check("mul.rn.f64", |(a, b): (f64, f64)| a * b);
    check("div.rn.f64", |(a, b): (f64, f64)| a / b);
    check("fma.rn.f64", |(a, b, c): (f64, f64, f64)| a.mul_add(b, c));
    check("sqrt.rn.f64", |(a,): (f64,)| a.sqrt());
    check("rcp.rn.f64", |(a,): (f64,)| 1.0 / a);
    check("neg.f64", |(a,): (f64,)| -a);
    check("abs.f64", |(a,): (f64,)| a.abs());
}

#[test]
fn nan_is_the_canonical_one() {
    let (nan, one, inf) = (0xffc0_1234u32, 1f32.to_bits(), f32::INFINITY.to_bits());
    table("add.f32", &[((nan, one), NAN), ((inf, inf ^ 1 << 31), NAN)]);
    table("mul.f32", &[((0u32, inf), NAN)]);
    table("div.rn.f32", &[((0u32, 0u32), NAN)]);
    table("fma.rn.f32", &[((one, one, nan), NAN)]);
    table("sqrt.rn.f32", &[((one ^ 1 << 31,), NAN)]);
    table("min.f32", &[((nan, nan), NAN)]);
    table("max.NaN.f32", &[((nan, one), NAN)]);
}

#[test]
fn directed_roundings_enclose_the_result() {
    let (one, above, below) = (1f32, 1f32.next_up(), 1f32.next_down());
    let tiny = 2f32.powi(-60);
    table("add.rz.f32", &[((one, tiny), one), ((one, -tiny), below), ((-one, tiny), -below)]);
    table("add.rm.f32", &[((one, tiny), one), ((one, -tiny), below), ((-one, -tiny), -above), ((one, -one), -0.0)]);
    table("add.rp.f32", &[((one, tiny), above), ((one, -tiny), one), ((-one, -tiny), -one), ((one, -one), 0.0)]);
    table("sub.rp.f32", &[((one, -tiny), above)]);
    table("mul.rz.f32", &[((above, above), 1f32 + 2.0 * f32::EPSILON), ((f32::MAX, 2f32), f32::MAX)]);
    table("mul.rp.f32", &[((above, above), (1f32 + 2.0 * f32::EPSILON).next_up()), ((f32::MAX, -2f32), f32::MIN)]);
    table("div.rm.f32", &[((1f32, 3f32), (1f32 / 3.0).next_down()), ((-1f32, 3f32), -(1f32 / 3.0))]);
    table("div.rp.f32", &[((1f32, 3f32), 1f32 / 3.0)]);
    table("fma.rp.f32", &[((one, one, tiny), above)]);
    table("fma.rz.f32", &[((one, one, -tiny), below)]);
    let root = 2f32.sqrt();
    let exact_is_above = f64::from(root) * f64::from(root) < 2.0;
    table("sqrt.rm.f32", &[((2f32,), if exact_is_above { root } else { root.next_down() })]);
    table("sqrt.rp.f32", &[((2f32,), if exact_is_above { root.next_up() } else { root })]);
    table("rcp.rz.f32", &[((3f32,), (1f32 / 3.0).next_down())]);
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[test]
fn ftz_flushes_operands_and_results() {
    check("add.ftz.f32", |(a, b): (f32, f32)| flushed(flushed(a) + flushed(b)));
    check("mul.ftz.f32", |(a, b): (f32, f32)| flushed(flushed(a) * flushed(b)));
    check("fma.rn.ftz.f32", |(a, b, c): (f32, f32, f32)| flushed(flushed(a).mul_add(flushed(b), flushed(c))));
    check("div.rn.ftz.f32", |(a, b): (f32, f32)| flushed(flushed(a) / flushed(b)));
    check("neg.ftz.f32", |(a,): (f32,)| -flushed(a));
    check("abs.ftz.f32", |(a,): (f32,)| flushed(a).abs());
}

#[test]
fn sat_clamps_to_zero_and_one_and_makes_nan_zero() {
    let saturated = |x: f32| if x > 0.0 { x.min(1.0) } else { 0.0 };
    check("add.sat.f32", |(a, b): (f32, f32)| saturated(a + b));
    check("mul.sat.f32", |(a, b): (f32, f32)| saturated(a * b));
    check("fma.rn.sat.f32", |(a, b, c): (f32, f32, f32)| saturated(a.mul_add(b, c)));
}

/// The lesser one, -0 less than +0, and the other one where one is NaN.
fn least(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

fn greatest(a: f64, b: f64) -> f64 {
    if a.is_nan() && b.is_nan() { a } else { -least(-a, -b) }
}

#[test]
fn min_and_max_drop_nan_and_order_zeros() {
    check("min.f32", |(a, b): (f32, f32)| least(a.into(), b.into()) as f32);
    check("max.f32", |(a, b): (f32, f32)| greatest(a.into(), b.into()) as f32);
    check("min.f64", |(a, b): (f64, f64)| least(a, b));
    check("max.f64", |(a, b): (f64, f64)| greatest(a, b));
    check("min.ftz.f32", |(a, b): (f32, f32)| least(flushed(a).into(), flushed(b).into()) as f32);
}

#[test]
fn min_and_max_keep_nan_when_asked_to() {
    let nan = |a: f32, b: f32| a.is_nan() || b.is_nan();
    check("min.NaN.f32", |(a, b): (f32, f32)| if nan(a, b) { f32::NAN } else { least(a.into(), b.into()) as f32 });
    check("max.NaN.f32", |(a, b): (f32, f32)| if nan(a, b) { f32::NAN } else { greatest(a.into(), b.into()) as f32 });
}

#[test]
fn signs_are_changed_and_copied() {
    check("neg.f32", |(a,): (f32,)| -a);
    check("abs.f32", |(a,): (f32,)| a.abs());
    check("copysign.f32", |(a, b): (f32, f32)| b.copysign(a));
}

/// Whether `found` is within so many units in the last place, or equal where there is no number.
fn near(found: f32, exact: f64, ulps: f64) -> bool {
    let rounded = exact as f32;
    if !rounded.is_normal() {
        return found.same(rounded) || rounded.is_subnormal() && (f64::from(found) - exact).abs() < 1e-44;
    }
    let ulp = f64::from(rounded.abs().next_up()) - f64::from(rounded.abs());
    (f64::from(found) - exact).abs() <= ulps * ulp
}

#[track_caller]
fn approximates(code: &str, ulps: f64, exact: impl Fn(f64) -> f64) {
    let ordinary = (-60..60).map(|i| (0.37 * f64::from(i)) as f32);
    let operands: Vec<(f32,)> = f32::edges().into_iter().chain(ordinary).map(|a| (a,)).collect();
    for (&(a,), found) in operands.iter().zip(compute::<_, f32>(code, &operands)) {
        assert!(near(found, exact(a.into()), ulps), "{code} {a:e}: {found:e}");
    }
}

/// The bounds are those of the PTX ISA.
#[test]
fn approximations_are_close() {
    approximates("ex2.approx.f32", 2.0, f64::exp2);
    approximates("rcp.approx.f32", 1.0, |x| 1.0 / x);
    approximates("rsqrt.approx.f32", 4.0, |x| 1.0 / x.sqrt());
    approximates("sqrt.approx.f32", 4.0, f64::sqrt);
    let operands: Vec<(f32, f32)> = (1..200).map(|i| (0.3 * i as f32, 7.7 - 0.09 * i as f32)).collect();
    for code in ["div.full.f32", "div.approx.f32"] {
        for (&(a, b), found) in operands.iter().zip(compute::<_, f32>(code, &operands)) {
            assert!(near(found, f64::from(a) / f64::from(b), 2.0), "{code} {a:e} {b:e}: {found:e}");
        }
    }
}

#[test]
fn the_logarithm_is_close_absolutely_near_one_and_relatively_elsewhere() {
    let operands: Vec<(f32,)> = (1..400).map(|i| (0.01 * i as f32,)).collect();
    for (&(a,), found) in operands.iter().zip(compute::<_, f32>("lg2.approx.f32", &operands)) {
        let exact = f64::from(a).log2();
        let bound = if (0.5..2.0).contains(&a) { 2f64.powi(-22) } else { exact.abs() * 2f64.powi(-22) };
        assert!((f64::from(found) - exact).abs() <= bound, "{a}: {found}");
    }
}

/// The tables of special values in the PTX ISA.
#[test]
fn approximations_of_special_values_are_exact() {
    let inf = f32::INFINITY;
    table(
        "ex2.approx.f32",
        &[((-inf,), 0f32), ((inf,), inf), ((0f32,), 1.0), ((-0f32,), 1.0), ((f32::NAN,), f32::NAN)],
    );
    table("lg2.approx.f32", &[((0f32,), -inf), ((-0f32,), -inf), ((inf,), inf), ((1f32,), 0.0), ((-1f32,), f32::NAN)]);
    table("rcp.approx.f32", &[((0f32,), inf), ((-0f32,), -inf), ((inf,), 0.0), ((-inf,), -0.0)]);
    table("rsqrt.approx.f32", &[((0f32,), inf), ((-0f32,), -inf), ((inf,), 0.0), ((-1f32,), f32::NAN)]);
    table("sqrt.approx.f32", &[((0f32,), 0.0), ((-0f32,), -0.0), ((inf,), inf), ((-1f32,), f32::NAN)]);
    table("ex2.approx.ftz.f32", &[((1e-40f32,), 1f32), ((-130f32,), 0.0)]);
    table("lg2.approx.ftz.f32", &[((1e-40f32,), -inf)]);
    table("rcp.approx.ftz.f32", &[((1e-40f32,), inf), ((-1e-40f32,), -inf)]);
    table("rsqrt.approx.ftz.f32", &[((1e-40f32,), inf)]);
}

#[test]
fn jitter_moves_approximations_by_its_number_of_places_and_nothing_else() {
    let operands: Vec<(f32,)> = (1..1000).map(|i| (0.013 * i as f32,)).collect();
    let with = |code: &str, jitter, seed| {
        let options = Options { jitter, seed, ..Options::default() };
        compute_with::<_, f32>(code, &operands, options)
    };
    let plain = with("ex2.approx.f32", 0, 1);
    let moved = with("ex2.approx.f32", 2, 1);
    let distances: Vec<i32> = plain.iter().zip(&moved).map(|(a, b)| b.to_bits() as i32 - a.to_bits() as i32).collect();
    assert!((-2..=2).all(|distance| distances.contains(&distance)), "{distances:?}");
    assert!(distances.iter().all(|distance| distance.abs() <= 2), "{distances:?}");
    assert_eq!(with("ex2.approx.f32", 2, 1), moved);
    assert_ne!(with("ex2.approx.f32", 2, 2), moved);
    assert_eq!(with("mul.f32 %d, %a, %a;", 2, 1), with("mul.f32 %d, %a, %a;", 0, 1));
}

impl Value for f16 {
    const BITS: u32 = 16;

    fn edges() -> Vec<Self> {
        let positive = [0, 1, 0x3ff, 0x400, 0x3555, 0x3bff, 0x3c00, 0x3c01, 0x4248, 0x7bff, 0x7c00, 0x7e00, 0x6400];
        positive.into_iter().flat_map(|code| [code, code | 0x8000]).map(Self::from_bits).collect()
    }

    fn bits(self) -> u64 {
        self.to_bits().into()
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits as u16)
    }

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

impl Value for bf16 {
    const BITS: u32 = 16;

    fn edges() -> Vec<Self> {
        let positive = [0, 1, 0x7f, 0x80, 0x3eab, 0x3f7f, 0x3f80, 0x3f81, 0x4049, 0x7f7f, 0x7f80, 0x7fc0, 0x4380];
        positive.into_iter().flat_map(|code| [code, code | 0x8000]).map(Self::from_bits).collect()
    }

    fn bits(self) -> u64 {
        self.to_bits().into()
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits as u16)
    }

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

/// Sums and products of two codes are exact in f64, or lose so little that rounding again does no harm.
#[test]
fn half_arithmetic_rounds_once() {
    check("add.f16", |(a, b): (f16, f16)| f16::from_f64(a.to_f64() + b.to_f64()));
    check("sub.f16", |(a, b): (f16, f16)| f16::from_f64(a.to_f64() - b.to_f64()));
    check("mul.rn.f16", |(a, b): (f16, f16)| f16::from_f64(a.to_f64() * b.to_f64()));
    check("add.rn.bf16", |(a, b): (bf16, bf16)| bf16::from_f32(a.to_f32() + b.to_f32()));
    check("sub.bf16", |(a, b): (bf16, bf16)| bf16::from_f32(a.to_f32() - b.to_f32()));
    check("mul.bf16", |(a, b): (bf16, bf16)| bf16::from_f32(a.to_f32() * b.to_f32()));
    check("neg.f16", |(a,): (f16,)| -a);
    check("abs.bf16", |(a,): (bf16,)| bf16::from_bits(a.to_bits() & 0x7fff));
}

#[test]
fn half_fma_rounds_once() {
    let few: Vec<f16> = [0x0000, 0x8000, 0x3c01, 0xbc01, 0x4248, 0x1001, 0x7c00, 0x7e00].map(f16::from_bits).to_vec();
    let triples: Vec<_> = few.iter().flat_map(|&a| few.iter().flat_map(move |&b| [a, b].map(|c| (a, b, c)))).collect();
    let exact = |a: f16, b: f16, c: f16| f16::from_f64(a.to_f64() * b.to_f64() + c.to_f64());
    check_at("fma.rn.f16", &triples, |(a, b, c): (f16, f16, f16)| exact(a, b, c));
    let relu = |x: f16| if x.is_nan() || x > f16::ZERO { x } else { f16::ZERO };
    check_at("fma.rn.relu.f16", &triples, |(a, b, c): (f16, f16, f16)| relu(exact(a, b, c)));
}

#[test]
fn half_min_and_max_drop_or_keep_nan() {
    let from = |x: f64| f16::from_f64(x);
    check("min.f16", |(a, b): (f16, f16)| from(least(a.into(), b.into())));
    check("max.f16", |(a, b): (f16, f16)| from(greatest(a.into(), b.into())));
    check("max.bf16", |(a, b): (bf16, bf16)| bf16::from_f64(greatest(a.into(), b.into())));
    let either = |a: f16, b: f16| a.is_nan() || b.is_nan();
    check("min.NaN.f16", |(a, b): (f16, f16)| if either(a, b) { f16::NAN } else { from(least(a.into(), b.into())) });
    check("max.NaN.f16", |(a, b): (f16, f16)| if either(a, b) { f16::NAN } else { from(greatest(a.into(), b.into())) });
}

#[test]
fn pairs_are_two_of_the_same() {
    for operation in ["add", "sub", "mul", "min", "max", "max.NaN"] {
        for format in ["f16", "bf16"] {
            let codes = [0x3c01u16, 0x4248, 0xc0aa, 0x7c00, 0x7fc1, 0x0001, 0x8000];
            let pairs: Vec<(u16, u16)> = codes.iter().flat_map(|&a| codes.map(|b| (a, b))).collect();
            let single: Vec<u16> = compute(&format!("{operation}.{format}"), &pairs);
            let both: Vec<(u32, u32)> = pairs
                .iter()
                .zip(pairs.iter().rev())
                .map(|(low, high)| {
                    let join = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
                    (join(low.0, high.0), join(low.1, high.1))
                })
                .collect();
            let found: Vec<u32> = compute(&format!("{operation}.{format}x2"), &both);
            for ((found, low), high) in found.iter().zip(&single).zip(single.iter().rev()) {
                assert_eq!(*found, u32::from(*high) << 16 | u32::from(*low), "{operation}.{format}x2");
            }
        }
    }
}

#[test]
fn float_constants_are_hexadecimal_or_decimal() {
    table("add.f32 %d, %a, 0f3FC00000;", &[((1f32,), 2.5f32)]);
    table("add.f64 %d, %a, 0d3FF8000000000000;", &[((1f64,), 2.5f64)]);
    table("mul.f32 %d, %a, 0.25;", &[((1f32,), 0.25f32)]);
    table("mul.f32 %d, %a, -2e1;", &[((1f32,), -20f32)]);
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "add.sat.f64 %d1, %d2, %d3;",
        "ex2.f64 %d1, %d2;",
        "min.rn.f32 %f1, %f2, %f3;",
        "add.NaN.f32 %f1, %f2, %f3;",
        "sin.rn.f32 %f1, %f2;",
        "fma.rn.f32 %f1, %f2, %f3;",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}

#[test]
fn special_instructions_are_counted_as_special() {
    let run = kernel("mov.f32 %f1, 1.0; ex2.approx.f32 %f1, %f1; add.f32 %f1, %f1, %f1;").clean();
    assert_eq!(run.report.executed(ptx_sim::Class::Special), 1);
    assert_eq!(run.report.executed(ptx_sim::Class::Float), 1);
}
