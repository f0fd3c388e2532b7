//! Main loops that hold other instructions than they used to.

use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::mix::{Class, Mix};
use crate::target::Target;
use std::collections::BTreeSet;
use std::fmt;

/// Growth that is let through, as a part of what was there.
const TOLERANCE: u32 = 20;
/// Growth that is let through wherever there was little, instructions.
const SLACK: u32 = 2;

/// A count in the main loop of an entry that is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The entry.
    pub entry: String,
    /// For which GPU.
    pub arch: &'static str,
    /// What was counted; all instructions for none.
    pub class: Option<Class>,
    /// How many there were.
    pub before: u32,
    /// How many there are.
    pub after: u32,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, arch, class, before, after } = self;
        write!(f, "{entry}, {arch}: ")?;
        match class {
            Some(class) => write!(f, "{class}")?,
            None => f.write_str("total")?,
        }
        write!(f, " {before} -> {after}")?;
        if *before > 0 {
            write!(f, " ({:+.1} %)", (f64::from(*after) / f64::from(*before) - 1.0) * 100.0)?;
        }
        Ok(())
    }
}

/// Which ptxas the compared manifests are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the manifest in `ptx/`.
    pub before: Option<String>,
    /// Of the fresh one.
    pub after: Option<String>,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        match self.before == self.after {
            true => write!(f, "ptxas {}", name(&self.after)),
            false => write!(f, "ptxas {}, in the manifest {}", name(&self.after), name(&self.before)),
        }
    }
}

/// Refuses main loops of `new` with more instructions than those of `old`: more than 5 % and more than two, in all or
/// in one of [`Class::GUARDED`]. Entries that `old` does not know, or whose main loops it does not have, pass.
///
/// # Errors
/// [`Error::Grown`] with all that grew; [`Error::Uncompared`] where `old` has main loops and `new` none at all, as
/// there was no nvdisasm.
pub fn refuse_growth(old: &Manifest, new: &Manifest) -> Result<()> {
    if old.has_main_loops() && !new.has_main_loops() {
        let why = "there is no ptxas with an nvdisasm beside it (PyPI: nvidia-cuda-nvcc, nvidia-cuda-nvdisasm)".into();
        return Err(Error::Uncompared { why });
    }
    let grew = |drift: &Drift| grew(drift.before, drift.after);
    let known = compare(old, new, |before, after| before.is_some() && after.is_some());
    let drifts: Vec<_> = known.into_iter().filter(grew).collect();
    if drifts.is_empty() { Ok(()) } else { Err(Error::Grown { drifts, versions: versions(old, new) }) }
}

/// Refuses a `shipped` manifest whose main loops are not those of a `fresh` one, by the same bounds in both directions.
/// A fresh one without machine code, as there was no nvdisasm, refuses nothing.
///
/// # Errors
/// [`Error::Drifted`] with all that differs.
pub fn refuse_drift(shipped: &Manifest, fresh: &Manifest) -> Result<()> {
    if !fresh.has_main_loops() {
        return Ok(());
    }
    let differs = |drift: &Drift| grew(drift.before, drift.after) || grew(drift.after, drift.before);
    let drifts: Vec<_> = compare(shipped, fresh, |_, _| true).into_iter().filter(differs).collect();
    if drifts.is_empty() { Ok(()) } else { Err(Error::Drifted { drifts, versions: versions(shipped, fresh) }) }
}

/// The counts of every main loop of entries that `old` and `new` both have, where `wanted` says so of its mixes.
fn compare(old: &Manifest, new: &Manifest, wanted: impl Fn(Option<&Mix>, Option<&Mix>) -> bool) -> Vec<Drift> {
    let mut drifts = Vec::new();
    // Files of several targets run on the same GPUs.
    let archs: BTreeSet<_> = Target::ALL.iter().flat_map(|target| target.sass_archs()).collect();
    for (entry, new) in &new.entries {
        let Some(old) = old.entries.get(entry) else { continue };
        for &&arch in &archs {
            let (before, after) = (old.main_loop.get(arch), new.main_loop.get(arch));
            if !wanted(before, after) {
                continue;
            }
            let drift = |class, count: &dyn Fn(&Mix) -> u32| Drift {
                entry: entry.clone(),
                arch,
                class,
                before: before.map_or(0, count),
                after: after.map_or(0, count),
            };
            drifts.push(drift(None, &|mix| mix.total));
            drifts.extend(Class::GUARDED.map(|class| drift(Some(class), &|mix| mix.count(class))));
        }
    }
    drifts
}

fn versions(old: &Manifest, new: &Manifest) -> Versions {
    Versions { before: old.ptxas.clone(), after: new.ptxas.clone() }
}

fn grew(before: u32, after: u32) -> bool {
    after > before + SLACK.max(before / TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::EntryRecord;
    use std::collections::BTreeMap;

    const ENTRY: &str = "fwd_sm80_bf16_d64_q64_kv64_w4_s1";

    /// A manifest of one entry whose main loop on sm_90 holds 64 matrix instructions, and so many of others.
    fn manifest(integer: u32, moves: u32, control: u32) -> Manifest {
        let classes = [(Class::Tensor, 64), (Class::Integer, integer), (Class::Move, moves), (Class::Control, control)];
        let mix =
            Mix { total: 64 + integer + moves + control, hidden_exponentials: 0, classes: BTreeMap::from(classes) };
        let record = EntryRecord {
            file: "sm_80.ptx".to_owned(),
            threads: 128,
            shared_bytes: 24 << 10,
            role_registers: None,
            counts: Default::default(),
            resources: BTreeMap::new(),
            main_loop: BTreeMap::from([("sm_90".to_owned(), mix)]),
        };
        Manifest {
            source_sha256: String::new(),
            compiler: String::new(),
            flags: Vec::new(),
            ptxas: Some("13.5.37".to_owned()),
            files: BTreeMap::new(),
            entries: BTreeMap::from([(ENTRY.to_owned(), record)]),
        }
    }

    fn without_main_loops(mut manifest: Manifest) -> Manifest {
        manifest.entries.values_mut().for_each(|entry| entry.main_loop.clear());
        manifest
    }

    #[test]
    fn growth_of_a_main_loop_is_refused_and_named() {
        let error = refuse_growth(&manifest(100, 4, 10), &manifest(106, 4, 10)).unwrap_err().to_string();
        assert!(error.contains(&format!("{ENTRY}, sm_90: integer 100 -> 106 (+6.0 %)\n")), "{error}");
        assert!(error.contains("build --accept"), "{error}");
        assert_eq!(error.matches(ENTRY).count(), 1, "the total grew by less than 5 %: {error}");
        // Classes that are not guarded count in the total.
        let error = refuse_growth(&manifest(100, 4, 10), &manifest(100, 4, 20)).unwrap_err().to_string();
        assert!(error.contains("total 178 -> 188 (+5.6 %)") && !error.contains("control"), "{error}");
    }

    #[test]
    fn up_to_five_percent_or_two_instructions_may_come_on_top() {
        refuse_growth(&manifest(100, 4, 10), &manifest(105, 6, 10)).unwrap();
        refuse_growth(&manifest(100, 4, 10), &manifest(100, 7, 10)).unwrap_err();
    }

    #[test]
    fn a_shorter_main_loop_is_no_growth_but_not_what_the_manifest_says() {
        let (old, new) = (manifest(100, 4, 10), manifest(60, 4, 10));
        refuse_growth(&old, &new).unwrap();
        let error = refuse_drift(&old, &new).unwrap_err().to_string();
        assert!(error.contains("integer 100 -> 60 (-40.0 %)"), "{error}");
        refuse_drift(&new, &old).unwrap_err();
        refuse_drift(&old, &old).unwrap();
    }

    #[test]
    fn a_manifest_without_main_loops_is_not_what_a_fresh_build_gives() {
        let (full, bare) = (manifest(100, 4, 10), without_main_loops(manifest(100, 4, 10)));
        let error = refuse_drift(&bare, &full).unwrap_err().to_string();
        assert!(error.contains("tensor 0 -> 64"), "{error}");
        refuse_growth(&bare, &full).unwrap();
    }

    #[test]
    fn without_nvdisasm_nothing_is_compared_and_no_manifest_is_written_in_silence() {
        let (full, bare) = (manifest(100, 4, 10), without_main_loops(manifest(100, 4, 10)));
        refuse_drift(&full, &bare).unwrap();
        let error = refuse_growth(&full, &bare).unwrap_err().to_string();
        assert!(error.contains("nvidia-cuda-nvdisasm") && error.contains("--accept"), "{error}");
    }

    #[test]
    fn another_ptxas_is_compared_all_the_same_and_named() {
        let newer = Manifest { ptxas: Some("13.6.1".to_owned()), ..manifest(120, 4, 10) };
        let error = refuse_drift(&manifest(100, 4, 10), &newer).unwrap_err().to_string();
        assert!(error.contains("(ptxas 13.6.1, in the manifest 13.5.37)"), "{error}");
    }
}
