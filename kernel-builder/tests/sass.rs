//! The machine code of the kernels that ship, as the manifest has it.

use evo_sdpa_kernel_builder::{Class, Manifest, Target, expected_step};
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::instances::ENTRIES;
use std::path::Path;

fn manifest() -> Manifest {
    Manifest::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ptx")).unwrap()
}

#[test]
fn every_kernel_with_matrix_instructions_has_a_main_loop_and_no_other_has() {
    let manifest = manifest();
    for entry in ENTRIES {
        let main_loop = &manifest.entries[&entry.to_string()].main_loop;
        let archs: Vec<_> = main_loop.keys().map(String::as_str).collect();
        let expected = if expected_step(*entry).is_some() { Target::of(*entry).sass_archs() } else { &[] };
        assert_eq!(archs, expected, "{entry}");
    }
}

#[test]
fn a_main_loop_holds_what_the_source_spells_out_for_one_step() {
    let manifest = manifest();
    for entry in ENTRIES {
        for (arch, mix) in &manifest.entries[&entry.to_string()].main_loop {
            let step = expected_step(*entry).unwrap();
            // ptxas unrolls what has no memory access.
            let steps = if matches!(entry, Entry::MmaRate(_)) { 4 } else { 1 };
            // Before sm_100, sm_89 alone multiplies e4m3 by mma.sync; sm_90 makes two products of f16 of one.
            let is_fp8 = matches!(entry, Entry::Forward(Kernel::FwdFp8(_)));
            let products = if is_fp8 && arch == "sm_90" { 2 } else { 1 };
            assert_eq!(mix.count(Class::Tensor), products * steps * step.tensor, "{entry}, {arch}");
            assert_eq!(mix.count(Class::MatrixLoad), steps * step.matrix_loads, "{entry}, {arch}");
            assert!(mix.count(Class::Special) >= steps * step.exponentials, "{entry}, {arch}");
        }
    }
}

#[test]
fn the_total_of_a_main_loop_is_the_sum_of_its_classes() {
    for (entry, record) in manifest().entries {
        for (arch, mix) in record.main_loop {
            assert_eq!(mix.total, mix.classes.values().sum::<u32>(), "{entry}, {arch}");
        }
    }
}
