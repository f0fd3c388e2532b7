//! The PTX that ships, against the kernel table and its manifest.

use evo_sdpa::{MANIFEST, PTX_SM80};
use evo_sdpa_kernel_builder::{MAX_BYTES, Manifest, Output, Target, count, expected, inspect};
use std::path::Path;

fn manifest() -> Manifest {
    serde_json::from_str(MANIFEST).expect("the embedded manifest is one")
}

#[test]
fn embedded_text_passes_every_gate() {
    let findings: Vec<_> = inspect(PTX_SM80, Target::Sm80).iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(PTX_SM80.len() <= MAX_BYTES);
}

#[test]
fn every_kernel_of_the_table_ships_and_none_else() {
    let table: std::collections::BTreeSet<_> = evo_sdpa::KERNELS.iter().map(|kernel| kernel.to_string()).collect();
    let text = count(PTX_SM80);
    assert!(text.keys().eq(&table));
    assert!(manifest().entries.keys().eq(&table));
}

#[test]
fn manifest_tells_what_the_text_and_the_table_say() {
    let manifest = manifest();
    let counts = count(PTX_SM80);
    for kernel in evo_sdpa::KERNELS {
        let name = kernel.to_string();
        let record = &manifest.entries[&name];
        assert_eq!(record.counts, counts[&name], "{name}");
        assert_eq!((record.threads, record.shared_bytes), (kernel.threads(), kernel.shared_bytes()), "{name}");
    }
}

#[test]
fn every_kernel_has_the_matrix_instructions_that_its_tile_calls_for() {
    let counts = count(PTX_SM80);
    for kernel in evo_sdpa::KERNELS {
        let (found, expected) = (counts[&kernel.to_string()], expected(*kernel));
        assert_eq!((found.mma_sync, found.ldmatrix), (expected.mma_sync, expected.ldmatrix), "{kernel}");
        assert_eq!((found.bar_sync, found.shfl_sync), (expected.bar_sync, expected.shfl_sync), "{kernel}");
    }
}

#[test]
fn no_kernel_spills_and_none_is_over_its_register_budget() {
    let manifest = manifest();
    for kernel in evo_sdpa::KERNELS {
        // Absent where the kernels were compiled without a ptxas at hand.
        for (arch, resources) in &manifest.entries[&kernel.to_string()].resources {
            assert_eq!((resources.stack, resources.spill_stores, resources.spill_loads), (0, 0, 0), "{kernel} {arch}");
            if arch == "sm_89" {
                assert!(resources.registers <= kernel.register_budget(), "{kernel}: {}", resources.registers);
            }
        }
    }
}

#[test]
fn checked_in_files_belong_to_the_kernel_sources_and_were_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = Output::read(&root.join("ptx")).unwrap();
    assert!(
        shipped.is_built_from(&root.join("kernels-gpu/src")).unwrap(),
        "ptx/ is out of date: run `cargo run -p evo-sdpa-kernel-builder -- build`"
    );
    assert!(shipped.manifest.entries.values().all(|entry| entry.resources.len() == 3));
}
