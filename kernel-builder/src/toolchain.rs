//! Finding a rustc that can compile the kernels.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest compiler that takes the kernels.
pub const MIN_VERSION: (u32, u32) = (1, 96);

/// A rustc and the sources of its library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Its version and that of its LLVM: with the same version the same sources give the same bytes.
    pub version: String,
    /// The folder with the sources of `core`.
    pub library: PathBuf,
}

/// Why a compiler will not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("{}: not there, or does not run", .0.display())]
    Missing(PathBuf),
    /// It is too old, or does not tell its version.
    #[error("{}: is {found}, and 1.96 or later is needed", rustc.display())]
    TooOld {
        /// The compiler.
        rustc: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// It comes without the sources of `core`.
    #[error("{}: has no library sources at {}", rustc.display(), library.display())]
    NoSources {
        /// The compiler.
        rustc: PathBuf,
        /// Where they belong.
        library: PathBuf,
    },
}

impl Toolchain {
    /// The compiler that `EVO_SDPA_DEVICE_RUSTC` names, else Debian's, else one of rustup's.
    ///
    /// # Errors
    /// [`Error::NoToolchain`] with the commands that install one.
    pub fn find() -> Result<Self> {
        if let Some(rustc) = std::env::var_os("EVO_SDPA_DEVICE_RUSTC") {
            return Self::at(Path::new(&rustc)).map_err(Error::Toolchain);
        }
        let mut refusals = Vec::new();
        for rustc in std::iter::once(PathBuf::from("/usr/bin/rustc")).chain(rustup_compilers()) {
            match Self::at(&rustc) {
                Ok(toolchain) => return Ok(toolchain),
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(Error::NoToolchain(refusals))
    }

    /// The toolchain of the compiler at `rustc`.
    ///
    /// # Errors
    /// Why it will not do.
    pub fn at(rustc: &Path) -> std::result::Result<Self, Refusal> {
        let ask = |argument: &[&str]| {
            let output = Command::new(rustc).args(argument).output().ok().filter(|output| output.status.success());
            let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
            text.ok_or_else(|| Refusal::Missing(rustc.to_owned()))
        };
        let verbose = ask(&["--version", "--verbose"])?;
        let version = describe(&verbose);
        if minor_version(&verbose).is_none_or(|found| found < MIN_VERSION) {
            return Err(Refusal::TooOld { rustc: rustc.to_owned(), found: version });
        }
        let library = Path::new(ask(&["--print", "sysroot"])?.trim()).join("lib/rustlib/src/rust/library");
        if !library.join("core/src/lib.rs").is_file() {
            return Err(Refusal::NoSources { rustc: rustc.to_owned(), library });
        }
        Ok(Self { rustc: rustc.to_owned(), version, library })
    }
}

/// The compilers of rustup's 1.96 toolchains: others are not asked, since their names do not tell what they are.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".rustup")))
        .unwrap_or_default();
    let Ok(toolchains) = std::fs::read_dir(home.join("toolchains")) else { return Vec::new() };
    let mut compilers: Vec<_> = toolchains
        .flatten()
        .filter(|toolchain| toolchain.file_name().to_string_lossy().starts_with("1.96"))
        .map(|toolchain| toolchain.path().join("bin/rustc"))
        .collect();
    compilers.sort();
    compilers
}

/// The value behind `key: ` in the output of `rustc --version --verbose`.
fn field<'a>(verbose: &'a str, key: &str) -> Option<&'a str> {
    verbose.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

/// Major and minor version.
fn minor_version(verbose: &str) -> Option<(u32, u32)> {
    let mut parts = field(verbose, "release")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// One line that tells a compiler from others.
fn describe(verbose: &str) -> String {
    let llvm = field(verbose, "LLVM version").unwrap_or("unknown");
    format!("{}, LLVM {llvm}", verbose.lines().next().unwrap_or("not a rustc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n\
        LLVM version: 22.1.8\n";

    #[test]
    fn versions_are_read_from_what_rustc_prints() {
        assert_eq!(minor_version(DEBIAN), Some((1, 96)));
        assert_eq!(minor_version("release: 1.98.0-nightly"), Some((1, 98)));
        assert_eq!(minor_version("gcc (Debian) 12"), None);
        assert_eq!(describe(DEBIAN), "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball), LLVM 22.1.8");
    }

    #[test]
    fn a_missing_toolchain_says_where_it_was_looked_for_and_which_commands_install_one() {
        let missing = Toolchain::at(Path::new("/nowhere/rustc"));
        assert_eq!(missing, Err(Refusal::Missing("/nowhere/rustc".into())));
        let old = Refusal::TooOld { rustc: "/old/rustc".into(), found: "rustc 1.63.0, LLVM 14.0".into() };
        let text = Error::NoToolchain(vec![missing.unwrap_err(), old]).to_string();
        for part in [
            "/nowhere/rustc: not there",
            "/old/rustc: is rustc 1.63.0, LLVM 14.0, and 1.96 or later is needed",
            "apt-get install rustc-web cargo-web rust-web-src",
            "rustup toolchain install 1.96.0 --component rust-src",
            "EVO_SDPA_DEVICE_RUSTC",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
}
