//! `evo-sdpa verify`.

use super::{assert_refused, evo};

#[test]
fn verify_checks_what_the_filter_names_and_refuses_to_check_nothing() {
    let ran = evo(&["verify", "--device", "cpu", "--quick", "--filter", "minilm"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 4 answers are right"), "{}", ran.stdout);
    assert_refused(&evo(&["verify", "--device", "cpu", "--quick", "--filter", "no such case"]), &["filter"]);
}

/// Without a GPU it says that it is skipped; with EVO_SDPA_REQUIRE_GPU=1 it fails.
#[cfg(feature = "gpu")]
#[test]
fn every_kernel_on_a_gpu_is_right_on_the_real_data() {
    use std::io::Write;
    let ran = evo(&["verify", "--device", "gpu", "--quick", "--filter", "minilm"]);
    let required = std::env::var("EVO_SDPA_REQUIRE_GPU").as_deref() == Ok("1");
    if ran.code == 2 && ran.stderr.contains("no NVIDIA GPU can be used") && !required {
        // Not with eprintln, which the test harness keeps to itself when a test passes.
        let _ = std::io::stderr().write_all(format!("\nGPU test is SKIPPED: {}", ran.stderr).as_bytes());
        return;
    }
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("answers are right"), "{}", ran.stdout);
}
