//! What compiled text must not hold.

use crate::count::count;
use crate::expected::mismatches;
use crate::finish::launch_bounds;
use crate::target::Target;
use crate::text::{Line, entry_name, lines, opcodes};
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::instances::ENTRIES;
use std::collections::BTreeMap;
use std::fmt;

/// Largest size of all PTX files together: they travel inside the crate. Those for sm_80 take 6.2 MiB, those for sm_89
/// 1.4, those for sm_90a 4.6; compressed, as in a package, they are a seventh.
pub const MAX_BYTES: usize = 13 << 20;

/// How parameters with tensor maps are declared.
pub(crate) const MAPS_ALIGNED: &str = ".param .align 64 ";

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
    #[error(
        "local memory: an array is indexed at run time or too large; unroll its loops, or keep it in shared memory"
    )]
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
    #[error("{bytes} bytes of PTX, and {MAX_BYTES} are allowed: ship fewer rows of the table of entry points")]
    Size {
        /// Bytes of all files together.
        bytes: usize,
    },
    /// A row of the table of entry points has no entry point.
    #[error("no entry point for this row of the table")]
    MissingEntry,
    /// An entry point has no row in the table, or one of another target.
    #[error("an entry point without a row for this target in the table")]
    UnknownEntry,
    /// An entry point is there twice.
    #[error("a second entry point of this name")]
    RepeatedEntry,
    /// Launch bounds are absent, wrong or there twice.
    #[error("launch bounds `{found}` instead of `{expected}`")]
    LaunchBounds {
        /// What is there.
        found: String,
        /// What the table says.
        expected: String,
    },
    /// Tensor maps are not where TMA can read them.
    #[error("parameters with tensor maps as `{found}`, which must begin with `{MAPS_ALIGNED}`")]
    Alignment {
        /// The declaration.
        found: String,
    },
    /// An instruction was cloned or lost.
    #[error(
        "{found} {instruction} instead of {expected}: the compiler cloned, merged or dropped some, or the formula in kernel-builder/src/expected.rs is out of date"
    )]
    Count {
        /// Which instruction.
        instruction: &'static str,
        /// How many there are.
        found: u32,
        /// How many the configuration of the entry point calls for.
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
        /// `Entry::register_budget`.
        budget: u32,
    },
    /// The main loop of a kernel with `wgmma` holds what stops it.
    #[error(
        "{arch}: {count} {instruction} in the main loop: ptxas takes it for divergent, or fences memory; keep branches that \
         depend on the lane inside inline PTX"
    )]
    Stall {
        /// For which GPU.
        arch: &'static str,
        /// The machine instruction.
        instruction: &'static str,
        /// How many there are.
        count: u32,
    },
    /// ptxas moved the wait for the product with values above exponentials, which no longer run beside it.
    #[error("{arch}: {found} of {expected} exponentials of a step between its two waits for products")]
    ExposedExponentials {
        /// For which GPU.
        arch: &'static str,
        /// Those between the waits.
        found: u32,
        /// Those of a step.
        expected: u32,
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
        // The first of its kind in an entry tells enough.
        let mut report = |defect| {
            let entry = line.entry.map(str::to_owned);
            if !findings.iter().any(|known: &Finding| known.entry == entry && known.defect == defect) {
                findings.push(Finding { file, line: Some(line.number), entry, defect });
            }
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
            if !ships(name, target) {
                report(Defect::UnknownEntry);
            }
        }
        if let Some(name) = line.entry {
            let code = line.code.trim();
            let of_entry = bounds.entry(name).or_default();
            if [".maxn", ".reqn", ".minn"].iter().any(|prefix| code.starts_with(prefix)) {
                of_entry.push(code);
            }
            if has_maps(name) && code.starts_with(".param ") && !code.starts_with(MAPS_ALIGNED) {
                report(Defect::Alignment { found: code.to_owned() });
            }
        }
    }
    let counts = count(text);
    for entry in ENTRIES.iter().filter(|entry| Target::of(**entry) == target) {
        let name = entry.to_string();
        let line = first_lines.get(name.as_str()).copied();
        let mut report = |defect| findings.push(Finding { file, line, entry: Some(name.clone()), defect });
        let Some(found) = bounds.get(name.as_str()) else {
            report(Defect::MissingEntry);
            continue;
        };
        let expected = launch_bounds(*entry);
        if *found != expected {
            report(Defect::LaunchBounds { found: found.join(" "), expected: expected.join(" ") });
        }
        mismatches(*entry, &counts[name.as_str()]).for_each(report);
    }
    findings
}

/// Whether an entry point of this name ships in the file of `target`.
fn ships(name: &str, target: Target) -> bool {
    Entry::parse(name).is_some_and(|entry| ENTRIES.contains(&entry) && Target::of(entry) == target)
}

/// Whether the parameters of an entry point hold tensor maps.
fn has_maps(name: &str) -> bool {
    matches!(Entry::parse(name), Some(Entry::Forward(Kernel::FwdSm90(_))))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected::expected;

    /// A text of every entry point of sm_80 that passes the gates.
    fn clean() -> String {
        clean_of(Target::Sm80)
    }

    fn clean_of(target: Target) -> String {
        let mut text = format!(".version 8.1\n.target {}\n", target.name());
        for entry in ENTRIES.iter().filter(|entry| Target::of(**entry) == target) {
            let counts = expected(*entry);
            let params = format!("{MAPS_ALIGNED}.b8 {entry}_param_0[704]");
            text += &format!(".visible .entry {entry}(\n\t{params}\n)\n{}\n{{\n", launch_bounds(*entry).join("\n"));
            for (statement, times) in [
                ("bar.sync 0;", counts.bar_sync),
                ("bar.warp.sync -1;", counts.bar_warp_sync),
                ("shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;", counts.shfl_sync),
                ("vote.sync.all.pred %p1, %p2, -1;", counts.vote_sync),
                ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 ...;", counts.mma_sync),
                ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 ...;", counts.ldmatrix),
                ("cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16;", counts.cp_async),
                ("cp.async.wait_group 0;", counts.cp_async_wait),
                ("barrier.cta.arrive.aligned 1, 256;", counts.bar_arrive),
                ("barrier.cluster.wait.aligned;", counts.cluster_barrier),
                ("cp.async.bulk.tensor.4d.shared::cluster.global.tile ...;", counts.bulk_copies),
                ("cp.async.bulk.commit_group;", counts.bulk_commit),
                ("cp.async.bulk.wait_group 0;", counts.bulk_wait),
                ("mbarrier.init.shared::cta.b64 [%r1], 1;", counts.mbarrier_init),
                ("mbarrier.arrive.shared::cta.b64 _, [%r1];", counts.mbarrier_arrive),
                ("mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], 0;", counts.mbarrier_wait),
                ("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 ...;", counts.wgmma),
                ("wgmma.fence.sync.aligned;", counts.wgmma_fence),
                ("wgmma.commit_group.sync.aligned;", counts.wgmma_commit),
                ("wgmma.wait_group.sync.aligned 0;", counts.wgmma_wait),
                ("setmaxnreg.inc.sync.aligned.u32 240;", counts.setmaxnreg),
                ("stmatrix.sync.aligned.m8n8.x4.shared.b16 ...;", counts.stmatrix),
            ] {
                text += &format!("\t{statement}\n").repeat(times as usize);
            }
            text += "\tret;\n}\n";
        }
        text + "\t.file 1 \"kernels-gpu/src/lib.rs\"\n\t.file 2 \"library/core/src/array/mod.rs\"\n"
    }

    /// The one defect that the gates find in `text`.
    fn only_defect(text: &str) -> Finding {
        let mut findings = inspect(text, Target::Sm80);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    /// The one defect after `statement` was added at the end of the first entry.
    fn planted(statement: &str) -> Finding {
        only_defect(&clean().replacen("\tret;", &format!("\t{statement}\n\tret;"), 1))
    }

    #[test]
    fn clean_text_passes() {
        for target in Target::ALL {
            assert_eq!(inspect(&clean_of(target), target), []);
        }
    }

    #[test]
    fn tensor_maps_where_tma_cannot_read_them_are_found() {
        let text = clean_of(Target::Sm90a).replacen(".param .align 64 ", ".param .align 8 ", 1);
        let findings = inspect(&text, Target::Sm90a);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].to_string().contains("`.param .align 8 .b8 fwd_sm90_"), "{}", findings[0]);
    }

    #[test]
    fn local_memory_is_found_and_its_entry_and_line_are_named() {
        for statement in
            [".local .align 8 .b8 __local_depot0[32];", "@%p1 st.local.b32 [%rd1], %r1;", "cvta.local.u64 %rd1, %rd2;"]
        {
            let finding = planted(statement);
            assert_eq!(finding.defect, Defect::LocalMemory);
            let line = clean().lines().position(|line| line == "\tret;").unwrap() + 1;
            assert!(finding.to_string().starts_with(&format!("sm_80.ptx:{line}: {}: local memory", ENTRIES[0])));
        }
    }

    #[test]
    fn calls_functions_and_traps_are_found() {
        assert_eq!(planted("call.uni (retval0), memcpy, (param0);").defect, Defect::Call);
        assert_eq!(planted("{ setp.ne.u32 p, 1, 2; @p trap; }").defect, Defect::Trap);
        assert_eq!(only_defect(&(clean() + ".func stray()\n{\n\tret;\n}\n")).defect, Defect::Function);
        assert_eq!(only_defect(&(clean() + ".extern .func memcpy;\n")).defect, Defect::Function);
    }

    #[test]
    fn one_barrier_too_many_is_found() {
        let found = expected(ENTRIES[0]).bar_sync + 1;
        let defect = Defect::Count { instruction: "bar.sync", found, expected: found - 1 };
        assert_eq!(planted("bar.sync 0;").defect, defect);
    }

    #[test]
    fn missing_unknown_and_repeated_entries_are_found() {
        let text = clean();
        let start = text.find(".visible .entry").unwrap();
        let end = start + text[start..].find("\n}\n").unwrap() + 3;
        let entry = &text[start..end];
        let name = ENTRIES[0].to_string();

        let finding = only_defect(&text.replace(entry, ""));
        assert_eq!((finding.entry, finding.defect), (Some(name.clone()), Defect::MissingEntry));
        let finding = only_defect(&(text.clone() + &entry.replace(&name, "stranger")));
        assert_eq!((finding.entry, finding.defect), (Some("stranger".to_owned()), Defect::UnknownEntry));
        let found: Vec<_> = inspect(&(text.clone() + entry), Target::Sm80).into_iter().map(|f| f.defect).collect();
        assert!(found.contains(&Defect::RepeatedEntry), "{found:?}");
    }

    #[test]
    fn wrong_and_absent_launch_bounds_are_found() {
        let [threads, blocks] = &launch_bounds(ENTRIES[0])[..] else { panic!("no cluster") };
        for text in
            [clean().replacen(threads, ".maxntid 1024, 1, 1", 1), clean().replacen(&format!("{blocks}\n"), "", 1)]
        {
            assert!(matches!(only_defect(&text).defect, Defect::LaunchBounds { .. }));
        }
    }

    #[test]
    fn another_target_foreign_characters_and_paths_of_the_machine_are_found() {
        let other = clean().replace(".target sm_80", ".target sm_90");
        assert!(matches!(only_defect(&other).defect, Defect::Target { .. }));
        assert_eq!(planted("// \u{b5}").defect, Defect::NotAscii);
        let path = clean().replace("\"library/core", "\"/home/me/core");
        assert_eq!(only_defect(&path).defect, Defect::Path);
    }
}
