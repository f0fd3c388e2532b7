//! Number formats and the arithmetic of the instructions that round in their own way.
//!
//! Everything here is a pure function of bits and gives the same bits on every host: no libm, no fused
//! multiply-add unless it is the operation itself, and one NaN. The functions of one number are inlined and free of
//! branches where they are hot, so that a loop over the 32 lanes of a warp becomes vector code.
//!
//! `Mma::Fast` goes with [`approx`], `Mma::Exact` with [`approx::unit`], which is several times slower. Whatever PTX
//! defines to the bit is the same in both, and so it is on an H200: `recorded` compares some 150 instructions.

// Until every instruction is there.

pub(crate) mod approx;
pub(crate) mod arith;
pub(crate) mod fp8;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod mma;
pub(crate) mod packed;
mod round;

pub(crate) use round::Rounding;

/// The NaN that f32 arithmetic returns (PTX ISA, "Floating-point instructions").
pub(crate) const NAN: f32 = f32::from_bits(0x7fff_ffff);

/// `x`, with any NaN replaced by [`NAN`].
#[inline(always)]
pub(crate) fn canonical(x: f32) -> f32 {
    // By its bits: given `is_nan`, LLVM takes one NaN for as good as another behind a square root.
    if x.to_bits() & 0x7fff_ffff > 0x7f80_0000 { NAN } else { x }
}

/// `.ftz`: a subnormal becomes the zero of its sign.
#[inline(always)]
pub(crate) fn ftz(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// `.sat`: into [0, 1]; NaN becomes 0.
#[inline(always)]
pub(crate) fn saturate(x: f32) -> f32 {
    // -0 and NaN fail the first comparison.
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

/// Runs `f` with vector instructions that the host has. `f` and all it calls should be
/// `#[inline(always)]`; it learns whether fused multiply-adds are instructions there.
///
/// Vector width changes no result: none of the operations here depends on it.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce(Fused) -> R) -> R {
    /// A type of its own, since closures are called through a function that is not always inlined.
    struct Call<F>(F);
    impl<R, F: FnOnce(Fused) -> R> pulp::WithSimd for Call<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            // Every vector level but the lowest of x86-64 has them; there, `mul_add` is a slow call.
            (self.0)(Fused(!S::IS_SCALAR))
        }
    }
    // The widest vectors of x86-64 gain nothing on rows this short, and some compilations of them lose half the speed.
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(v3, Call(f));
    }
    pulp::Arch::new().dispatch(Call(f))
}

/// Whether `f32::mul_add` is one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fused(pub(crate) bool);

#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod testing;
