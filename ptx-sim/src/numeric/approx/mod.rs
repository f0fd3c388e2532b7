//! The approximate instructions, each within the error that the PTX ISA states and mostly rounded correctly.
//!
//! Here are polynomials and IEEE divisions and roots in f64, rounded once: the same bits on every host, fit for a loop
//! over the lanes of a warp. [`unit`] has the same functions bit for bit as hardware computes them, at several times the
//! cost.

mod exp;
mod log;
mod packed;
mod root;
mod sine;
mod tables;
mod tanh;
pub(crate) mod unit;

pub(crate) use exp::{ex2, ex2_ftz};
pub(crate) use log::{lg2, lg2_ftz};
pub(crate) use packed::{bf16x2, f16x2};
pub(crate) use root::{
    div_approx, div_approx_ftz, div_full, div_full_ftz, rcp, rcp_ftz, rsqrt, rsqrt_ftz, sqrt, sqrt_ftz,
};
pub(crate) use sine::{cos, sin};
pub(crate) use tanh::tanh;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::{NASTY, Random};

    /// Whether `got` is the f32 next to `want`, or just as near but for a sliver.
    fn rounded(got: f32, want: f64) -> bool {
        let place = (f32::from_bits((want.abs() as f32).to_bits() + 1) as f64 - (want.abs() as f32) as f64).abs();
        (got as f64 - want).abs() <= 0.501 * place || got == want as f32
    }

    #[test]
    fn powers_logarithms_and_roots_are_rounded_correctly_but_for_slivers() {
        let mut random = Random::new(8);
        for _ in 0..200_000 {
            let (x, wide) = (random.near_one(7), random.near_one(120).abs());
            assert!(rounded(ex2(x), (x as f64).exp2()), "ex2 {x:e}");
            assert!(rounded(lg2(wide), (wide as f64).log2()), "lg2 {wide:e}");
            // Near one by `ln_1p`, which does not cancel.
            let near = 1.0 + x / 1000.0;
            let log = (near as f64 - 1.0).ln_1p() * core::f64::consts::LOG2_E;
            assert!(rounded(lg2(near), log), "lg2 {near:e}");
            assert!(rounded(rcp(wide), 1.0 / wide as f64), "rcp {wide:e}");
            assert!(rounded(rsqrt(wide), 1.0 / (wide as f64).sqrt()), "rsqrt {wide:e}");
            assert!(rounded(tanh(x), (x as f64).tanh()), "tanh {x:e}");
        }
    }

    #[test]
    fn sines_and_cosines_are_off_by_no_more_than_the_reduction() {
        let mut random = Random::new(9);
        for _ in 0..100_000 {
            let x = random.near_one(3);
            let bound = (1.0 + x.abs() as f64) * 2f64.powi(-22);
            assert!((sin(x) as f64 - (x as f64).sin()).abs() < bound, "sin {x:e}");
            assert!((cos(x) as f64 - (x as f64).cos()).abs() < bound, "cos {x:e}");
        }
    }

    #[test]
    fn edges_are_as_the_instruction_set_states() {
        let inf = f32::INFINITY;
        assert_eq!([ex2(-inf), ex2(inf), ex2(-0.0), ex2(128.0), ex2(-127.0)], [0.0, inf, 1.0, inf, 2f32.powi(-127)]);
        assert_eq!([ex2_ftz(-127.0), ex2_ftz(-126.0)], [0.0, f32::MIN_POSITIVE]);
        assert_eq!([lg2(0.0), lg2(-0.0), lg2(inf), lg2(1.0), lg2(2f32.powi(-149))], [-inf, -inf, inf, 0.0, -149.0]);
        assert_eq!([lg2_ftz(2f32.powi(-149)), rcp_ftz(2f32.powi(-149)), rsqrt_ftz(-1e-40)], [-inf, inf, -inf]);
        assert_eq!([rcp(-0.0), rcp(-inf), rsqrt(0.0), rsqrt(inf), sqrt(-0.0)], [-inf, -0.0, inf, 0.0, -0.0]);
        assert_eq!([tanh(-inf), tanh(20.0), sin(-0.0), cos(0.0)], [-1.0, 1.0, -0.0, 1.0]);
        assert_eq!([div_approx(1.0, 1.5e38), div_full(3e38, 1.5e38)], [0.0, 2.0]);
        for x in [lg2(-1.0), rsqrt(-1.0), sqrt(-1.0), sin(inf), cos(-inf), div_approx(inf, 1e38), div_full(0.0, 0.0)] {
            assert_eq!(x.to_bits(), 0x7fff_ffff);
        }
        for f in [ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh] {
            for x in NASTY.map(f32::from_bits).into_iter().filter(|x| x.is_nan()) {
                assert_eq!(f(x).to_bits(), 0x7fff_ffff);
            }
        }
    }
}
