//! Where and with what a process measures.

use super::clocks::Clocks;
use crate::cli::record::Setup;
use anyhow::Result;
use evo_sdpa::gpu::Gpu;
use std::process::Command;
use std::time::SystemTime;

/// The set-up of this process.
pub fn setup(gpu: &Gpu, clocks: &Clocks) -> Result<Setup> {
    Ok(Setup {
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        software: format!("evo-sdpa {}", env!("CARGO_PKG_VERSION")),
        commit: commit(),
        device: gpu.name().to_owned(),
        compute_capability: gpu.spec().compute_capability,
        sm_count: gpu.spec().sm_count,
        l2_bytes: gpu.l2_bytes()?,
        driver: clocks.driver(),
        cuda: gpu.driver_version().to_owned(),
    })
}

/// The commit that the program was built from: as the build said, or as the sources say where they still are.
fn commit() -> Option<String> {
    if let Some(commit) = option_env!("EVO_SDPA_COMMIT") {
        return Some(commit.to_owned());
    }
    let arguments = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=40", "--match="];
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let commit = String::from_utf8(output.stdout).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| !commit.is_empty())
}
