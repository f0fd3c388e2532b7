//! Matrix products.

use super::recorded;
use crate::numeric::mma::{Fp8, Row, mma_m16n8k8, mma_m16n8k16, mma_m16n8k32};
use crate::numeric::packed::Half;
use crate::options::{Arch, Mma};

pub(super) const NAMES: [&str; 8] = [
    "mma.m16n8k16.f16",
    "mma.m16n8k16.bf16",
    "mma.m16n8k8.f16",
    "mma.m16n8k8.bf16",
    "mma.m16n8k32.e4m3",
    "mma.m16n8k32.e5m2",
    "mma.m16n8k32.e5m2.e4m3",
    "mma.m16n8k32.e4m3.e5m2",
];

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
