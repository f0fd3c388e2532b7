//! What an H200 made of the instructions, against this module: ptx-sim/tests/vectors/README.md.

mod approximate;
mod defined;
mod products;

use std::collections::BTreeMap;

/// The arrays of each recorded instruction.
fn recorded() -> BTreeMap<String, Vec<Vec<u32>>> {
    let bytes = match std::env::var_os("PTX_SIM_VECTORS") {
        Some(path) => std::fs::read(path).expect("the file that PTX_SIM_VECTORS names"),
        None => include_bytes!("../../../tests/vectors/h200.bin").to_vec(),
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

#[test]
fn every_recorded_instruction_is_compared() {
    let compared = defined::names().chain(approximate::names()).chain(products::NAMES).chain(["elements"]);
    let compared: std::collections::BTreeSet<_> = compared.collect();
    let missing: Vec<_> = recorded().into_keys().filter(|name| !compared.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
