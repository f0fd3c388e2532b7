//! The PTX files that ship.

use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;

/// A PTX file: the entry points that need this architecture and no later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// cp.async, ldmatrix, mma.sync: every GPU since Ampere.
    Sm80,
    /// mma.sync of fp8: every GPU since Ada.
    Sm89,
    /// TMA and wgmma: Hopper and no other GPU.
    Sm90a,
}

impl Target {
    /// Every target, lowest first.
    pub const ALL: [Target; 3] = [Target::Sm80, Target::Sm89, Target::Sm90a];

    /// The lowest target that can run `entry`.
    pub const fn of(entry: Entry) -> Target {
        match entry {
            Entry::Forward(Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::Decode(_))
            | Entry::MergeStates(_)
            | Entry::MmaRate(_) => Target::Sm80,
            Entry::Forward(Kernel::FwdFp8(_)) => Target::Sm89,
            Entry::TokenSums(_) | Entry::TokenMean | Entry::Amax(_) | Entry::Quantize(_) => Target::Sm89,
            Entry::Forward(Kernel::FwdSm90(_)) | Entry::Transpose => Target::Sm90a,
        }
    }

    /// What `.target` says, and rustc's `target-cpu`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm80 => "sm_80",
            Target::Sm89 => "sm_89",
            Target::Sm90a => "sm_90a",
        }
    }

    /// The lowest PTX version that has every instruction in use, as a rustc target feature. Drivers since
    /// CUDA 11.5 load 7.5, those since CUDA 12.1 load 8.1, those since CUDA 12.4 load 8.4.
    pub const fn isa(self) -> &'static str {
        match self {
            // `cp.async` with a predicate that zeroes.
            Target::Sm80 => "ptx75",
            // `mma` of e4m3 on sm_89.
            Target::Sm89 => "ptx84",
            // `st.async`; else 8.0 would do.
            Target::Sm90a => "ptx81",
        }
    }

    /// The `cfg` under which the device crate has the entry points of this target and no others.
    pub const fn cfg(self) -> &'static str {
        match self {
            Target::Sm80 => "ampere",
            Target::Sm89 => "ada",
            Target::Sm90a => "hopper",
        }
    }

    /// The name of the file in `ptx/`.
    pub const fn file(self) -> &'static str {
        match self {
            Target::Sm80 => "sm_80.ptx",
            Target::Sm89 => "sm_89.ptx",
            Target::Sm90a => "sm_90a.ptx",
        }
    }

    /// The GPUs for which resources are reported.
    pub const fn archs(self) -> &'static [&'static str] {
        match self {
            Target::Sm80 => &["sm_80", "sm_89", "sm_90"],
            Target::Sm89 => &["sm_89", "sm_90"],
            Target::Sm90a => &["sm_90a"],
        }
    }

    /// The one of them to which `Entry::register_budget` applies.
    pub const fn budget_arch(self) -> &'static str {
        match self {
            Target::Sm80 | Target::Sm89 => "sm_89",
            Target::Sm90a => "sm_90a",
        }
    }

    /// Those of them whose machine code is looked at.
    pub const fn sass_archs(self) -> &'static [&'static str] {
        match self {
            Target::Sm80 | Target::Sm89 => &["sm_89", "sm_90"],
            Target::Sm90a => &["sm_90a"],
        }
    }
}
