//! From Rust sources to the text that LLVM writes.
//!
//! rustc is called by itself, three times: for `core`, for an empty `compiler_builtins` and for the kernels. Without
//! Cargo there is no registry to ask, no lock file, and nothing in the output that depends on where it was built.

use crate::error::{Error, Result};
use crate::source::sha256;
use crate::target::Target;
use crate::toolchain::Toolchain;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// Flags of every crate that ends up in the PTX.
pub const FLAGS: &[&str] = &[
    "--target=nvptx64-nvidia-cuda",
    "--edition=2024",
    "-Copt-level=3",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
    // `.loc` lines, for the simulator's reports and for profilers. They change no instruction.
    "-Cdebuginfo=line-directives-only",
    // Loops over fragments must unroll: an array indexed at run time lives in local memory.
    "-Cllvm-args=-unroll-threshold=20000",
    // Loop strength reduction turns each address of the main loop into a running sum of its own, and ptxas spills.
    "-Cllvm-args=-disable-lsr",
    // Jump threading clones barriers into both arms of a branch.
    "-Zmir-enable-passes=-JumpThreading",
];

/// `no_std` crates are linked to `compiler_builtins`. A kernel calls nothing, and a gate sees to that, so an empty
/// one will do.
const BUILTINS: &str = "\
#![no_std]
#![allow(internal_features)]
#![feature(compiler_builtins)]
#![compiler_builtins]
";

/// The text that the compiler makes of the crate whose `lib.rs` is in `kernels`. What takes long and never changes
/// is kept in `scratch`.
///
/// # Errors
/// [`Error::Compile`] with what the compiler said; a warning is an error too.
pub fn compile(toolchain: &Toolchain, kernels: &Path, scratch: &Path, target: Target) -> Result<String> {
    let library = library(toolchain, scratch, target)?;
    // rustc assembles what it prints in a file whose name depends on the crate alone.
    let temporary = temporary_in(scratch)?;
    rustc(toolchain, target, "the kernels", |command| {
        command
            .args(["--crate-name=evo_sdpa_kernels", "--crate-type=cdylib", "-Clto=fat"])
            .args(["-Dwarnings", "-Ainternal_features"])
            .arg(format!("--cfg={}", target.cfg()))
            .arg("--emit=asm=-")
            .arg(joined("--out-dir=", temporary.path()))
            .arg(remap(kernels, "kernels-gpu/src"))
            .arg(joined("--extern=core=", &library.join("libcore.rlib")))
            .arg(joined("--extern=compiler_builtins=", &library.join("libcompiler_builtins.rlib")))
            .arg(kernels.join("lib.rs"))
    })
}

/// The folder with `core` and `compiler_builtins`, compiled for `target`.
fn library(toolchain: &Toolchain, scratch: &Path, target: Target) -> Result<PathBuf> {
    // It takes half a minute: the threads of a process wait for the first one.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let key = sha256(format!("{} {FLAGS:?} {} {BUILTINS}", toolchain.version, target.isa()).as_bytes());
    let done = scratch.join(format!("core-{}-{}", target.name(), &key[..16]));
    if done.is_dir() {
        return Ok(done);
    }
    // Only a complete library gets the name that is looked for.
    let partial = temporary_in(scratch)?;
    let builtins = partial.path().join("compiler_builtins.rs");
    fs::write(&builtins, BUILTINS).map_err(Error::io(&builtins))?;

    let crates = [("core", toolchain.library.join("core/src/lib.rs")), ("compiler_builtins", builtins)];
    for (name, source) in &crates {
        rustc(toolchain, target, name, |command| {
            command
                .args(["--crate-type=rlib", "-Clinker-plugin-lto", "--cap-lints=allow"])
                .arg(format!("--crate-name={name}"))
                .arg(joined("--out-dir=", partial.path()))
                .arg(joined("-L", partial.path()))
                .arg(source)
        })?;
    }
    match fs::rename(partial.path(), &done) {
        // Another process was faster.
        Err(_) if done.is_dir() => {}
        renamed => renamed.map_err(Error::io(&done))?,
    }
    Ok(done)
}

/// A new folder in `scratch`, removed when it is dropped.
fn temporary_in(scratch: &Path) -> Result<TempDir> {
    fs::create_dir_all(scratch).map_err(Error::io(scratch))?;
    TempDir::new_in(scratch).map_err(Error::io(scratch))
}

/// Runs rustc with the flags of every crate and the arguments that `add` adds; gives what it prints.
fn rustc(
    toolchain: &Toolchain,
    target: Target,
    what: &'static str,
    add: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<String> {
    let mut command = Command::new(&toolchain.rustc);
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .args(FLAGS)
        .arg(format!("-Ctarget-cpu={}", target.name()))
        .arg(format!("-Ctarget-feature=+{}", target.isa()))
        .arg(remap(&toolchain.library, "library"));
    let output = add(&mut command).output().map_err(Error::io(&toolchain.rustc))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Compile { what, target: target.name(), stderr })
}

/// The flag under which paths below `from` are written as paths below `to`.
fn remap(from: &Path, to: &str) -> OsString {
    let mut flag = joined("--remap-path-prefix=", from);
    flag.push("=");
    flag.push(to);
    flag
}

fn joined(flag: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(flag);
    argument.push(path);
    argument
}
