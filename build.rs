//! Puts the compiled kernels where `src/embedded.rs` includes them from.
//!
//! The PTX in `ptx/` is taken as it is when it was built from today's kernel sources, or when there are none beside
//! this package, as in an installation from a registry. When the sources have changed they are compiled, which needs
//! a device toolchain.

use evo_sdpa_kernel_builder::{Error, Output, Toolchain, build};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=ptx");
    println!("cargo::rerun-if-env-changed=EVO_SDPA_DEVICE_RUSTC");
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).unwrap_or_default();
    match embed(&folder("CARGO_MANIFEST_DIR"), &folder("OUT_DIR")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn embed(package: &Path, out: &Path) -> Result<(), Error> {
    let shipped = Output::read(&package.join("ptx"));
    let kernels = package.join("kernels-gpu/src");
    let output = if kernels.is_dir() {
        println!("cargo::rerun-if-changed=kernels-gpu/src");
        match shipped {
            Ok(shipped) if shipped.is_built_from(&kernels)? => shipped,
            _ => build(&Toolchain::find()?, &kernels, &out.join("device"))?,
        }
    } else {
        shipped?
    };
    output.write(&out.join("ptx"))
}
