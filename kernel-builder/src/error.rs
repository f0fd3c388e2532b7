//! What can go wrong.

use crate::drift::{Drift, Versions};
use crate::gates::Finding;
use crate::toolchain::Refusal;
use std::fmt;
use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No compiler can build the kernels.
    #[error(
        "the kernels must be compiled, and no device toolchain (rustc 1.96 or later with its library sources) was \
         found:\n{}\
         install one:\n  \
         Debian: apt-get install rustc-web cargo-web rust-web-src\n  \
         rustup: rustup toolchain install 1.96.0 --component rust-src\n\
         or name one in EVO_SDPA_DEVICE_RUSTC",
        Lines(.0)
    )]
    NoToolchain(
        /// Where it was looked for, and why each place will not do.
        Vec<Refusal>,
    ),
    /// The environment names a device compiler that will not do.
    #[error("EVO_SDPA_DEVICE_RUSTC: {0}")]
    Toolchain(Refusal),
    /// rustc refuses the kernels.
    #[error("rustc cannot compile {what} for {target}:\n{stderr}")]
    Compile {
        /// What was compiled.
        what: &'static str,
        /// For which GPU.
        target: &'static str,
        /// What rustc said.
        stderr: String,
    },
    /// ptxas refuses an entry.
    #[error("ptxas cannot assemble {entry} for {arch}:\n{stderr}")]
    Assemble {
        /// The entry.
        entry: String,
        /// For which GPU.
        arch: &'static str,
        /// What ptxas said.
        stderr: String,
    },
    /// nvdisasm refuses machine code.
    #[error("nvdisasm cannot read the machine code for {arch}:\n{stderr}")]
    Disassemble {
        /// For which GPU.
        arch: &'static str,
        /// What nvdisasm said.
        stderr: String,
    },
    /// Main loops hold more instructions than before.
    #[error(
        "main loops grew by more than 5 % ({versions}):\n{}\
         nothing was written; if the growth is worth it, run `cargo run -p evo-sdpa-kernel-builder -- build --accept`",
        Lines(.drifts)
    )]
    Grown {
        /// What grew.
        drifts: Vec<Drift>,
        /// By which ptxas.
        versions: Versions,
    },
    /// Main loops hold other instructions than the manifest says.
    #[error(
        "main loops differ by more than 5 % from those in ptx/manifest.json ({versions}):\n{}\
         if they are right, run `cargo run -p evo-sdpa-kernel-builder -- build`",
        Lines(.drifts)
    )]
    Drifted {
        /// What differs.
        drifts: Vec<Drift>,
        /// By which ptxas.
        versions: Versions,
    },
    /// Main loops cannot be compared with those of the manifest.
    #[error(
        "it cannot be seen whether main loops grew: {why}; nothing was written; to do without, run \
         `cargo run -p evo-sdpa-kernel-builder -- build --accept`"
    )]
    Uncompared {
        /// What is missing.
        why: String,
    },
    /// A gate found something in the compiled text.
    #[error("the compiled kernels do not pass the gates:\n{}", Lines(.0))]
    Gates(
        /// Everything that was found.
        Vec<Finding>,
    ),
    /// The checked-in PTX belongs to other sources.
    #[error("{path} was built from other kernel sources; run `cargo run -p evo-sdpa-kernel-builder -- build`", path = .0.display())]
    Stale(
        /// The manifest.
        PathBuf,
    ),
    /// A rebuild with the same compiler gives something else.
    #[error(
        "{name} differs from what the same compiler makes of the same sources, first in line {line}; run \
         `cargo run -p evo-sdpa-kernel-builder -- build` and look at the difference"
    )]
    Differs {
        /// File in `ptx/`.
        name: String,
        /// First line that differs, from 1.
        line: usize,
    },
    /// A file of `ptx/` is not what the manifest says.
    #[error("{path}: {what}; run `cargo run -p evo-sdpa-kernel-builder -- build`", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file or a program cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or program.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps the error of an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}

/// A line for each item.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| writeln!(f, "  {item}"))
    }
}
