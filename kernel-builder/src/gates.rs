//! What compiled text must not hold.

use crate::count::count;
use crate::expected::mismatches;
use crate::finish::launch_bounds;
use crate::target::Target;
use crate::text::{Line, entry_name, lines, opcodes};
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::instances::KERNELS;
use std::collections::BTreeMap;
use std::fmt;

/// Largest size of all PTX files together: they travel inside the crate.
pub const MAX_BYTES: usize = 6 << 20;

/// Something that a gate found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File in `ptx/`.
    pub file: &'static str,
    /// Line of the file, from 1, where the finding has one.
    pub line: Option<usize>,
    /// Entry point, where the finding is about one.
    pub entry: Option<String>,
    /// What is wrong.
    pub defect: Defect,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(entry) = &self.entry {
            write!(f, ": {entry}")?;
        }
        write!(f, ": {}", self.defect)
    }
}

/// What a gate fires on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// An array did not stay in registers.
    #[error("local memory: an array is indexed at run time or too large; unroll its loops, or keep it in shared memory")]
    LocalMemory,
    /// A function was not inlined.
    #[error("a call: mark the callee #[inline(always)]")]
    Call,
    /// A function stands beside the entry points.
    #[error("a function that is no entry point: mark it #[inline(always)]")]
    Function,
    /// A panic was not optimised away.
    #[error("a trap: some indexing, slicing, division or arithmetic check can panic; make it provably impossible")]
    Trap,
    /// A character outside ASCII.
    #[error("a character outside ASCII")]
    NotAscii,
    /// A path of the machine where it was built.
    #[error("a path that is not below kernels-gpu/src or library: the text must not depend on where it was built")]
    Path,
    /// The file is for another GPU than its name says.
    #[error("`{found}` instead of `.target {expected}`")]
    Target {
        /// The directive.
        found: String,
        /// The target of the file.
        expected: &'static str,
    },
    /// The files are too large.
    #[error("{bytes} bytes of PTX, and {MAX_BYTES} are allowed: ship fewer rows of the kernel table")]
    Size {
        /// Bytes of all files together.
        bytes: usize,
    },
    /// A row of the kernel table has no entry point.
    #[error("no entry point for this row of the kernel table")]
    MissingEntry,
    /// An entry point has no row in the kernel table, or one of another target.
    #[error("an entry point without a row for this target in the kernel table")]
    UnknownEntry,
    /// An entry point is there twice.
    #[error("a second entry point of this name")]
    RepeatedEntry,
    /// Launch bounds are absent, wrong or there twice.
    #[error("launch bounds `{found}` instead of `{expected}`")]
    LaunchBounds {
        /// What is there.
        found: String,
        /// What the kernel table says.
        expected: String,
    },
    /// An instruction was cloned or lost.
    #[error("{found} {instruction} instead of {expected}: the compiler cloned, merged or dropped some, or the formula in kernel-builder/src/expected.rs is out of date")]
    Count {
        /// Which instruction.
        instruction: &'static str,
        /// How many there are.
        found: u32,
        /// How many the configuration of the kernel calls for.
        expected: u32,
    },
    /// ptxas needs a stack.
    #[error("{arch}: {bytes} bytes of stack")]
    Stack {
        /// For which GPU.
        arch: &'static str,
        /// Bytes a thread.
        bytes: u32,
    },
    /// ptxas spills registers.
    #[error("{arch}: {bytes} bytes of spills: use fewer registers, or raise the kernel's budget")]
    Spills {
        /// For which GPU.
        arch: &'static str,
        /// Bytes stored and loaded.
        bytes: u32,
    },
    /// ptxas needs more registers than the kernel may use.
    #[error("{arch}: {used} registers, over the budget of {budget}")]
    Registers {
        /// For which GPU.
        arch: &'static str,
        /// Registers of a thread.
        used: u32,
        /// `Kernel::register_budget`.
        budget: u32,
    },
    /// ptxas warns, for example (C75xx) that it serialises wgmma.
    #[error("{arch}: {message}")]
    Warning {
        /// For which GPU.
        arch: &'static str,
        /// The line that ptxas wrote.
        message: String,
    },
}

/// All that is wrong with the text of `target`, by reading it alone.
pub fn inspect(text: &str, target: Target) -> Vec<Finding> {
    let file = target.file();
    let mut findings = Vec::new();
    let mut bounds = BTreeMap::<&str, Vec<&str>>::new();
    let mut first_lines = BTreeMap::new();
    for (line, raw) in lines(text).zip(text.lines()) {
        let mut report = |defect| {
            findings.push(Finding { file, line: Some(line.number), entry: line.entry.map(str::to_owned), defect });
        };
        if !raw.is_ascii() {
            report(Defect::NotAscii);
        }
        for defect in opcodes(line.code).filter_map(|opcode| forbidden(opcode, line, target)) {
            report(defect);
        }
        if let Some(name) = entry_name(line.code) {
            if first_lines.insert(name, line.number).is_some() {
                report(Defect::RepeatedEntry);
            }
            if kernel_of(name, target).is_none() {
                report(Defect::UnknownEntry);
            }
        }
        if let Some(name) = line.entry {
            let code = line.code.trim();
            let of_entry = bounds.entry(name).or_default();
            if [".maxn", ".reqn", ".minn"].iter().any(|prefix| code.starts_with(prefix)) {
                of_entry.push(code);
            }
        }
    }
    let counts = count(text);
    for kernel in KERNELS.iter().filter(|kernel| Target::of(**kernel) == target) {
        let name = kernel.to_string();
        let line = first_lines.get(name.as_str()).copied();
        let mut report = |defect| findings.push(Finding { file, line, entry: Some(name.clone()), defect });
        let Some(found) = bounds.get(name.as_str()) else {
            report(Defect::MissingEntry);
            continue;
        };
        let expected = launch_bounds(*kernel);
        if *found != expected {
            report(Defect::LaunchBounds { found: found.join(" "), expected: expected.join(" ") });
        }
        mismatches(*kernel, &counts[name.as_str()]).for_each(report);
    }
    findings
}

/// The kernel with this name, when it ships in the file of `target`.
fn kernel_of(name: &str, target: Target) -> Option<Kernel> {
    Kernel::parse(name).filter(|kernel| KERNELS.contains(kernel) && Target::of(*kernel) == target)
}

/// What is wrong with a statement that starts with `opcode`.
fn forbidden(opcode: &str, line: Line, target: Target) -> Option<Defect> {
    let code = line.code.trim();
    match opcode {
        // `.local`, `ld.local.f32`, `cvta.to.local.u64`.
        _ if opcode.split('.').any(|part| part == "local") => Some(Defect::LocalMemory),
        "trap" | "brkpt" => Some(Defect::Trap),
        ".func" => Some(Defect::Function),
        ".visible" | ".weak" | ".extern" if code.contains(".func") => Some(Defect::Function),
        _ if opcode == "call" || opcode.starts_with("call.") => Some(Defect::Call),
        ".target" if code != format!(".target {}", target.name()) => {
            Some(Defect::Target { found: code.to_owned(), expected: target.name() })
        }
        ".file" if !["\"kernels-gpu/src/", "\"library/"].iter().any(|root| code.contains(root)) => Some(Defect::Path),
        _ => None,
    }
}
