//! The PTX that ships, against the table of entry points and its manifest.

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
fn every_entry_point_of_the_table_ships_and_none_else() {
    let table: std::collections::BTreeSet<_> = evo_sdpa::ENTRIES.iter().map(|entry| entry.to_string()).collect();
    let text = count(PTX_SM80);
    assert!(text.keys().eq(&table));
    assert!(manifest().entries.keys().eq(&table));
}

#[test]
fn manifest_tells_what_the_text_and_the_table_say() {
    let manifest = manifest();
    let counts = count(PTX_SM80);
    for entry in evo_sdpa::ENTRIES {
        let name = entry.to_string();
        let record = &manifest.entries[&name];
        assert_eq!(record.counts, counts[&name], "{name}");
        assert_eq!((record.threads, record.shared_bytes), (entry.threads(), entry.shared_bytes()), "{name}");
    }
}

#[test]
fn every_entry_point_has_the_matrix_instructions_that_its_configuration_calls_for() {
    let counts = count(PTX_SM80);
    for entry in evo_sdpa::ENTRIES {
        let (found, expected) = (counts[&entry.to_string()], expected(*entry));
        assert_eq!((found.mma_sync, found.ldmatrix), (expected.mma_sync, expected.ldmatrix), "{entry}");
        assert_eq!((found.bar_sync, found.shfl_sync), (expected.bar_sync, expected.shfl_sync), "{entry}");
    }
}

#[test]
fn no_entry_point_spills_and_none_is_over_its_register_budget() {
    let manifest = manifest();
    for entry in evo_sdpa::ENTRIES {
        // Absent where the kernels were compiled without a ptxas at hand.
        for (arch, resources) in &manifest.entries[&entry.to_string()].resources {
            assert_eq!((resources.stack, resources.spill_stores, resources.spill_loads), (0, 0, 0), "{entry} {arch}");
            if arch == "sm_89" {
                assert!(resources.registers <= entry.register_budget(), "{entry}: {}", resources.registers);
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
