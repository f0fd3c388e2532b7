//! The PTX that ships, against the table of entry points and its manifest.

use evo_sdpa::{KERNELS, Kernel, MANIFEST, PTX_SM80, ptx_text};
use evo_sdpa_kernel_builder::{MAX_BYTES, Manifest, Output, Ptxas, Target, count, expected, inspect};
use std::io::Write;
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

#[test]
fn the_dependent_variant_has_two_instructions_more_and_no_other_difference() {
    let text = ptx_text::dependent(PTX_SM80).unwrap();
    let start = "{\n\tgriddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;\n";
    assert_eq!(text.matches(start).count(), evo_sdpa::ENTRIES.len());
    let back = text.replace(start, "{\n").replace(".version 7.8\n.target sm_90\n", ".version 7.5\n.target sm_80\n");
    assert!(back == PTX_SM80);
}

#[test]
fn ptxas_takes_the_dependent_variant_with_the_resources_of_the_plain_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(ptxas) = Ptxas::find(&root.join("target/cuda-tools")) else {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: no ptxas");
        return;
    };
    // One of each family; each takes ptxas seconds.
    let is_scalar = |kernel: &&Kernel| matches!(kernel, Kernel::FwdScalar(_));
    let (scalar, matrix) = (KERNELS.iter().find(is_scalar), KERNELS.iter().find(|kernel| !is_scalar(kernel)));
    for name in [scalar, matrix].map(|kernel| kernel.unwrap().to_string()) {
        let plain = ptx_text::single_entry(PTX_SM80, &name).unwrap();
        let dependent = ptx_text::dependent(&plain).unwrap();
        let resources = |text: &str| {
            ptxas
                .resources(text, &name, "sm_90", Path::new(env!("CARGO_TARGET_TMPDIR")))
                .unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        assert_eq!(resources(&dependent), resources(&plain), "{name}");
    }
}
