//! Matrix instructions: `mma.sync` with f32 accumulators, and in [`warpgroup`] `wgmma`.
//!
//! A register of the warp, seen as its bytes in the order of the lanes, is an 8x8 matrix of 16-bit or an 8x16 matrix
//! of 8-bit elements in row-major order: rows of A, columns of B, rows of the accumulator in pairs (PTX ISA, "Matrix
//! Fragments for mma"). So a row never has to be gathered.
//!
//! ```text
//!          a0: rows 0..8   a2: the same rows           b0: all columns     c0, c1: rows 0..8, columns
//!              first k's       second k's                  first k's               0 2 4 6 and 1 3 5 7
//!          a1: rows 8..16  a3                          b1: second k's      c2, c3: rows 8..16
//! ```

mod element;
mod exact;
mod fast;
mod layout;
mod warpgroup;

use super::packed::Half;
use crate::options::Mma;
use element::{Bf16, E4m3, E5m2, Element, F16};
pub(crate) use warpgroup::{Formats, Line, WideProduct};

/// A register of all lanes.
pub(crate) type Row = [u32; 32];

/// An 8-bit format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fp8 {
    /// Four exponent and three mantissa bits.
    E4m3,
    /// Five exponent and two mantissa bits.
    E5m2,
}

/// `mma.sync.aligned.m16n8k16.row.col.f32.{f16,bf16}.{f16,bf16}.f32`.
pub(crate) fn mma_m16n8k16(mode: Mma, format: Half, a: [&Row; 4], b: [&Row; 2], c: [&Row; 4]) -> [Row; 4] {
    match format {
        Half::F16 => halves::<4, 2, F16>(mode, a, b, c),
        Half::Bf16 => halves::<4, 2, Bf16>(mode, a, b, c),
    }
}

/// `mma.sync.aligned.m16n8k8.row.col.f32.{f16,bf16}.{f16,bf16}.f32`.
pub(crate) fn mma_m16n8k8(mode: Mma, format: Half, a: [&Row; 2], b: [&Row; 1], c: [&Row; 4]) -> [Row; 4] {
    match format {
        Half::F16 => halves::<2, 1, F16>(mode, a, b, c),
        Half::Bf16 => halves::<2, 1, Bf16>(mode, a, b, c),
    }
}

/// `mma.sync.aligned.m16n8k32.row.col.f32.{e4m3,e5m2}.{e4m3,e5m2}.f32`; `formats` are those of A and B.
pub(crate) fn mma_m16n8k32(mode: Mma, formats: [Fp8; 2], a: [&Row; 4], b: [&Row; 2], c: [&Row; 4]) -> [Row; 4] {
    match formats {
        [Fp8::E4m3, Fp8::E4m3] => bytes::<E4m3, E4m3>(mode, a, b, c),
        [Fp8::E4m3, Fp8::E5m2] => bytes::<E4m3, E5m2>(mode, a, b, c),
        [Fp8::E5m2, Fp8::E4m3] => bytes::<E5m2, E4m3>(mode, a, b, c),
        [Fp8::E5m2, Fp8::E5m2] => bytes::<E5m2, E5m2>(mode, a, b, c),
    }
}

fn halves<const A: usize, const B: usize, X: Element>(mode: Mma, a: [&Row; A], b: [&Row; B], c: [&Row; 4]) -> [Row; 4] {
    match mode {
        Mma::Fast => fast::multiply::<A, B, 2, X, X>(a, b, c),
        Mma::Exact(arch) => exact::halves::<A, B, X>(arch, a, b, c),
    }
}

fn bytes<X: Element, Y: Element>(mode: Mma, a: [&Row; 4], b: [&Row; 2], c: [&Row; 4]) -> [Row; 4] {
    match mode {
        Mma::Fast => fast::multiply::<4, 2, 4, X, Y>(a, b, c),
        Mma::Exact(arch) => exact::bytes::<X, Y>(arch, a, b, c),
    }
}
