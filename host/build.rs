//! Feature `gpu`: finds a libcuda.so to link with, or makes one that only says that there is no driver.
//!
//! A binary linked with the stand-in names libcuda.so.1 and no folder, so that it loads the driver's library on a
//! machine that has one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Every function that cust_raw declares.
const SYMBOLS: &str = include_str!("cuda/symbols.txt");
/// The list of libraries that the loader knows; it changes when a driver is installed.
const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// A driver's library is larger, a stand-in (ours, or the one of the CUDA toolkit) is smaller.
const SMALLEST_DRIVER_BYTES: u64 = 1 << 20;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cuda/symbols.txt");
    let on_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if env::var_os("CARGO_FEATURE_GPU").is_none() || !on_linux {
        return;
    }
    if Path::new(LOADER_CACHE).exists() {
        println!("cargo:rerun-if-changed={LOADER_CACHE}");
    }
    println!("cargo:rerun-if-env-changed=LD_LIBRARY_PATH");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (link_name, load_name) = (folder.join("libcuda.so"), folder.join("libcuda.so.1"));
    for old in [&link_name, &load_name] {
        // Not there in a first build.
        let _ = fs::remove_file(old);
    }
    match driver_library() {
        Some(driver) => symlink(&driver, &link_name),
        None => {
            make_stub(&folder, &load_name);
            symlink(Path::new("libcuda.so.1"), &link_name);
        }
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) {
    std::os::unix::fs::symlink(target, link).unwrap_or_else(|e| panic!("cannot create {}: {e}", link.display()));
}

#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path) {
    fs::copy(link.with_file_name(target), link).unwrap_or_else(|e| panic!("cannot create {}: {e}", link.display()));
}

/// The libcuda.so.1 that the loader would take, if there is one.
fn driver_library() -> Option<PathBuf> {
    let loader_path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let system = ["/usr/lib64", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    env::split_paths(&loader_path)
        .map(|folder| folder.join("libcuda.so.1"))
        .chain(loader_cache())
        .chain(system.map(|folder| Path::new(folder).join("libcuda.so.1")))
        .find(|library| fs::metadata(library).is_ok_and(|file| file.len() >= SMALLEST_DRIVER_BYTES))
}

/// Every libcuda.so.1 in the loader's cache.
fn loader_cache() -> Vec<PathBuf> {
    let listing = ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok().filter(|output| output.status.success()));
    let text = listing.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let path = |line: &str| line.trim().strip_prefix("libcuda.so.1 ")?.split_once("=> ").map(|(_, path)| path.into());
    text.lines().filter_map(path).collect()
}

/// A library with every driver function; each answers CUDA_ERROR_STUB_LIBRARY.
fn make_stub(folder: &Path, library: &Path) {
    let functions: String = SYMBOLS
        .lines()
        .map(|name| format!("#[unsafe(no_mangle)] pub extern \"C\" fn {name}() -> u32 {{ 34 }}\n"))
        .collect();
    let source = folder.join("cuda_stub.rs");
    let text = format!(
        "#![no_std]\n#![allow(non_snake_case)]\n{functions}\n\
         #[panic_handler]\nfn panic(_: &core::panic::PanicInfo) -> ! {{ loop {{}} }}\n"
    );
    fs::write(&source, text).expect("OUT_DIR can be written");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc.args(["--edition=2024", "--crate-type=cdylib", "--crate-name=cuda_stub", "-Cpanic=abort", "-Copt-level=1"]);
    rustc.arg("--target").arg(env::var_os("TARGET").expect("cargo sets TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    rustc.arg("-Clink-arg=-Wl,-soname,libcuda.so.1").arg("-o").arg(library).arg(&source);
    let status = rustc.status().expect("rustc can be started");
    assert!(status.success(), "the stand-in for libcuda.so could not be built: {status}");
}
