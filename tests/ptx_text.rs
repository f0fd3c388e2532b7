//! The PTX that ships, against the table of entry points and its manifest.

use evo_sdpa::{KERNELS, Kernel, MANIFEST, PTX, PTX_SM80, PTX_SM89, PTX_SM90A, ptx_text};
use evo_sdpa_kernel_builder::{Counts, MAX_BYTES, Manifest, Output, Ptxas, Target, count, expected, inspect};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The embedded text of every target.
const TEXTS: [(Target, &str); 3] = [(Target::Sm80, PTX_SM80), (Target::Sm89, PTX_SM89), (Target::Sm90a, PTX_SM90A)];

/// The counts of every entry point.
fn counts() -> BTreeMap<String, Counts> {
    PTX.iter().flat_map(|text| count(text)).collect()
}

fn manifest() -> Manifest {
    serde_json::from_str(MANIFEST).expect("the embedded manifest is one")
}

#[test]
fn embedded_text_passes_every_gate() {
    let findings = TEXTS.iter().flat_map(|(target, text)| inspect(text, *target));
    let findings: Vec<_> = findings.map(|finding| finding.to_string()).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(PTX.iter().map(|text| text.len()).sum::<usize>() <= MAX_BYTES);
}

#[test]
fn every_entry_point_of_the_table_ships_and_none_else() {
    let table: std::collections::BTreeSet<_> = evo_sdpa::ENTRIES.iter().map(|entry| entry.to_string()).collect();
    assert_eq!(TEXTS.map(|(target, _)| target), Target::ALL);
    for (target, text) in TEXTS {
        let of_target = evo_sdpa::ENTRIES.iter().filter(|entry| Target::of(**entry) == target);
        assert!(ptx_text::entries(text).eq(of_target.map(|entry| entry.to_string())), "{target:?}");
    }
    assert!(counts().keys().eq(&table));
    assert!(manifest().entries.keys().eq(&table));
}

#[test]
fn manifest_tells_what_the_text_and_the_table_say() {
    let manifest = manifest();
    let counts = counts();
    for entry in evo_sdpa::ENTRIES {
        let name = entry.to_string();
        let record = &manifest.entries[&name];
        assert_eq!(record.counts, counts[&name], "{name}");
        assert_eq!((record.threads, record.shared_bytes), (entry.threads(), entry.shared_bytes()), "{name}");
    }
}

#[test]
fn every_entry_point_has_the_matrix_instructions_that_its_configuration_calls_for() {
    let counts = counts();
    // What a kernel for Hopper holds of them is not spelled out yet by its formulas.
    for entry in evo_sdpa::ENTRIES.iter().filter(|entry| Target::of(**entry) == Target::Sm80) {
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
            if arch == Target::of(*entry).budget_arch() {
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
    for entry in evo_sdpa::ENTRIES {
        let measured = shipped.manifest.entries[&entry.to_string()].resources.keys();
        assert!(measured.eq(Target::of(*entry).archs()), "{entry}");
    }
}

#[test]
fn the_dependent_variant_has_two_instructions_more_and_no_other_difference() {
    let start = "{\n\tgriddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;\n";
    for (target, plain) in TEXTS {
        let text = ptx_text::dependent(plain).unwrap();
        let entries = evo_sdpa::ENTRIES.iter().filter(|entry| Target::of(**entry) == target);
        assert_eq!(text.matches(start).count(), entries.count());
        let back = text.replace(start, "{\n").replace(".version 7.8\n.target sm_90\n", ".version 7.5\n.target sm_80\n");
        let back =
            back.replace(".target sm_90\n", if target == Target::Sm89 { ".target sm_89\n" } else { ".target sm_90\n" });
        assert!(back == plain, "{target:?}");
    }
}

#[test]
fn ptxas_takes_the_dependent_variant_with_the_resources_of_the_plain_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(ptxas) = Ptxas::find(&root.join("target/cuda-tools")) else {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: no ptxas");
        return;
    };
    // One of each family; each takes ptxas seconds.
    let families: [fn(&&Kernel) -> bool; 5] = [
        |kernel| matches!(kernel, Kernel::FwdScalar(_)),
        |kernel| matches!(kernel, Kernel::FwdSm80(_)),
        |kernel| matches!(kernel, Kernel::FwdSm90(_)),
        |kernel| matches!(kernel, Kernel::FwdFp8(_)),
        |kernel| matches!(kernel, Kernel::FwdSm90(config) if config.e4m3),
    ];
    for kernel in families.map(|family| *KERNELS.iter().find(family).unwrap()) {
        let name = kernel.to_string();
        let arch = if matches!(kernel, Kernel::FwdSm90(_)) { "sm_90a" } else { "sm_90" };
        let plain = PTX.iter().find_map(|text| ptx_text::single_entry(text, &name)).unwrap();
        let dependent = ptx_text::dependent(&plain).unwrap();
        let resources = |text: &str| {
            ptxas
                .resources(text, &name, arch, Path::new(env!("CARGO_TARGET_TMPDIR")))
                .unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        assert_eq!(resources(&dependent), resources(&plain), "{name}");
    }
}
