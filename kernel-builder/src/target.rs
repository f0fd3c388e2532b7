//! The PTX files that ship.

use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;

/// A PTX file: the entry points that need this architecture and no later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// cp.async, ldmatrix, mma.sync: every GPU since Ampere.
    Sm80,
}

impl Target {
    /// Every target, lowest first.
    pub const ALL: [Target; 1] = [Target::Sm80];

    /// The lowest target that can run `entry`.
    pub const fn of(entry: Entry) -> Target {
        match entry {
            Entry::Forward(Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::Decode(_))
            | Entry::MergeStates(_)
            | Entry::MmaRate(_) => Target::Sm80,
        }
    }

    /// What `.target` says, and rustc's `target-cpu`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm80 => "sm_80",
        }
    }

    /// The lowest PTX version that has every instruction in use, as a rustc target feature. Drivers since
    /// CUDA 11.5 load 7.5.
    pub const fn isa(self) -> &'static str {
        match self {
            // `cp.async` with a predicate that zeroes.
            Target::Sm80 => "ptx75",
        }
    }

    /// The name of the file in `ptx/`.
    pub const fn file(self) -> &'static str {
        match self {
            Target::Sm80 => "sm_80.ptx",
        }
    }
}
