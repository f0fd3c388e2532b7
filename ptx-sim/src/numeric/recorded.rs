//! What an H200 made of the instructions, against this module: ptx-sim/tests/vectors/README.md.

use super::mma::{Fp8, Row, mma_m16n8k8, mma_m16n8k16, mma_m16n8k32};
use super::packed::Half;
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

/// Registers of each recorded matrix product.
fn products<const A: usize, const B: usize>(arrays: &[Vec<u32>]) -> Vec<([Row; A], [Row; B], [Row; 4], [Row; 4])> {
    fn matrix<const N: usize>(words: &[u32], index: usize) -> [Row; N] {
        core::array::from_fn(|register| {
            let at = (index * N + register) * 32;
            words[at..at + 32].try_into().expect("32 lanes")
        })
    }
    let [a, b, c, d] = arrays else { panic!("four operands") };
    (0..d.len() / 128).map(|i| (matrix(a, i), matrix(b, i), matrix(c, i), matrix(d, i))).collect()
}

#[test]
fn exact_matrix_products_of_16_bit_formats_are_those_of_the_hardware() {
    let recorded = recorded();
    let mode = Mma::Exact(Arch::Sm90);
    for (format, name) in [(Half::F16, "f16"), (Half::Bf16, "bf16")] {
        for (i, (a, b, c, d)) in products(&recorded[&format!("mma.m16n8k16.{name}")]).iter().enumerate() {
            assert_eq!(&mma_m16n8k16(mode, format, a, b, c), d, "k16 {name} {i}");
        }
        for (i, (a, b, c, d)) in products(&recorded[&format!("mma.m16n8k8.{name}")]).iter().enumerate() {
            assert_eq!(&mma_m16n8k8(mode, format, a, b, c), d, "k8 {name} {i}");
        }
    }
}

#[test]
fn exact_matrix_products_of_8_bit_formats_are_those_of_the_hardware() {
    let recorded = recorded();
    let (e4m3, e5m2) = (Fp8::E4m3, Fp8::E5m2);
    for (formats, name) in [([e4m3, e4m3], "e4m3"), ([e5m2, e5m2], "e5m2"), ([e4m3, e5m2], "e4m3.e5m2")] {
        for (i, (a, b, c, d)) in products(&recorded[&format!("mma.m16n8k32.{name}")]).iter().enumerate() {
            assert_eq!(&mma_m16n8k32(Mma::Exact(Arch::Sm90), formats, a, b, c), d, "{name} {i}");
        }
    }
}
