//! Building, measuring, writing and checking `ptx/`.

use crate::compile::{FLAGS, compile};
use crate::count::count;
use crate::drift::refuse_drift;
use crate::error::{Error, Result};
use crate::finish::finish;
use crate::gates::{Defect, Finding, MAX_BYTES, inspect};
use crate::manifest::{EntryRecord, FileRecord, Manifest};
use crate::mix::Mix;
use crate::nvdisasm::MainLoop;
use crate::ptxas::{Assembled, Ptxas};
use crate::source::{sha256, source_hash};
use crate::target::Target;
use crate::toolchain::Toolchain;
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::instances::ENTRIES;
use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

/// The PTX files and their manifest: what `ptx/` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The text of each target.
    pub texts: Vec<(Target, String)>,
    /// What they were made of and what is in them.
    pub manifest: Manifest,
}

/// Compiles the kernels whose sources are in the folder `kernels` (`kernels-gpu/src`), and lets them through the
/// gates that need no ptxas. Intermediate files go to `scratch`.
///
/// # Errors
/// [`Error::Compile`] and [`Error::Gates`] tell what is wrong with the kernels, [`Error::Io`] what cannot be used.
pub fn build(toolchain: &Toolchain, kernels: &Path, scratch: &Path) -> Result<Output> {
    let text_for = |target| Ok((target, finish(&compile(toolchain, kernels, scratch, target)?, target)));
    let texts = thread::scope(|scope| {
        let workers = Target::ALL.map(|target| scope.spawn(move || text_for(target)));
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    let manifest = Manifest {
        source_sha256: source_hash(kernels)?,
        compiler: toolchain.version.clone(),
        flags: FLAGS.iter().map(|flag| flag.to_string()).collect(),
        ptxas: None,
        files: texts.iter().map(|(target, text)| (target.file().to_owned(), FileRecord::of(text))).collect(),
        entries: entries(&texts),
    };
    let output = Output { texts, manifest };
    output.pass_gates()?;
    Ok(output)
}

fn entries(texts: &[(Target, String)]) -> BTreeMap<String, EntryRecord> {
    let counts: Vec<_> = texts.iter().map(|(target, text)| (*target, count(text))).collect();
    ENTRIES
        .iter()
        .filter_map(|entry| {
            let target = Target::of(*entry);
            let name = entry.to_string();
            let counts = counts.iter().find(|(of, _)| *of == target)?.1.get(&name)?;
            let record = EntryRecord {
                file: target.file().to_owned(),
                threads: entry.threads(),
                shared_bytes: entry.shared_bytes(),
                role_registers: match entry {
                    Entry::Forward(Kernel::FwdSm90(config)) => Some(config.role_registers()),
                    _ => None,
                },
                counts: *counts,
                resources: BTreeMap::new(),
                main_loop: BTreeMap::new(),
            };
            Some((name, record))
        })
        .collect()
}

/// Adds what ptxas reports and, where there is an nvdisasm, what main loops hold; lets the kernels through the gates on
/// registers, stack and spills, and on what main loops must not hold.
///
/// # Errors
/// [`Error::Gates`] and [`Error::Assemble`] tell what is wrong with the kernels, [`Error::Disassemble`] that nvdisasm
/// failed.
pub fn measure(output: &mut Output, ptxas: &Ptxas, scratch: &Path) -> Result<()> {
    let mut findings = Vec::new();
    for (target, text) in &output.texts {
        let all = ptxas.assemble_all(text, *target, scratch)?;
        for Assembled { entry, arch, report, .. } in &all {
            if let Some(record) = output.manifest.entries.get_mut(entry) {
                record.resources.insert((*arch).to_owned(), report.resources);
            }
        }
        findings.extend(defects(*target, &all));
        let main_loops =
            ptxas.nvdisasm.as_ref().map(|nvdisasm| nvdisasm.main_loops(&all, *target, scratch)).transpose()?;
        for MainLoop { entry, arch, mix, stalls } in main_loops.into_iter().flatten() {
            let stalls = stalls.into_iter().map(|(instruction, count)| Defect::Stall { arch, instruction, count });
            let exposed = exposed_exponentials(entry, arch, &mix);
            findings.extend(stalls.chain(exposed).map(|defect| Finding {
                file: target.file(),
                line: None,
                entry: Some(entry.to_owned()),
                defect,
            }));
            if let Some(record) = output.manifest.entries.get_mut(entry) {
                record.main_loop.insert(arch.to_owned(), mix);
            }
        }
    }
    output.manifest.ptxas = Some(ptxas.version.clone());
    if findings.is_empty() { Ok(()) } else { Err(Error::Gates(findings)) }
}

/// What ptxas says against what it assembled.
fn defects(target: Target, all: &[Assembled]) -> impl Iterator<Item = Finding> {
    all.iter().flat_map(move |Assembled { entry, arch, report, .. }| {
        let budget = Entry::parse(entry).filter(|_| *arch == target.budget_arch()).map(Entry::register_budget);
        let of_entry = move |defect| Finding { file: target.file(), line: None, entry: Some(entry.clone()), defect };
        report.defects(arch, budget).into_iter().map(of_entry)
    })
}

/// Lets the kernels for sm_90a through the gates on registers, stack and spills, and on serialised products, with the
/// `ptxas` of a driver: an older one than that of [`measure`] does not always make the same of them.
///
/// # Errors
/// [`Error::Gates`] and [`Error::Assemble`] tell what is wrong with the kernels.
pub fn measure_as_driver(output: &Output, ptxas: &Ptxas, scratch: &Path) -> Result<()> {
    let mut findings = Vec::new();
    for (target, text) in output.texts.iter().filter(|(target, _)| *target == Target::Sm90a) {
        findings.extend(defects(*target, &ptxas.assemble_all(text, *target, scratch)?));
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::Gates(findings)) }
}

/// Where exponentials of a kernel with products of a warpgroup do not run beside them. A few may stand before the first
/// wait or behind the second.
fn exposed_exponentials(entry: &str, arch: &'static str, mix: &Mix) -> Option<Defect> {
    let Some(Entry::Forward(Kernel::FwdSm90(config))) = Entry::parse(entry) else { return None };
    let expected = config.early_exponentials();
    let found = mix.hidden_exponentials;
    (found < expected / 8 * 7).then_some(Defect::ExposedExponentials { arch, found, expected })
}

/// What a fresh build says about the checked-in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same compiler made the same bytes.
    Identical,
    /// Another compiler was used; its text passes every gate too.
    OtherCompiler,
}

/// Compares the checked-in `shipped` with a `fresh` build of the same sources.
///
/// # Errors
/// [`Error::Differs`] when the compiler of the manifest makes other bytes, [`Error::Drifted`] when the main loops hold
/// other instructions than the manifest says.
pub fn check(shipped: &Output, fresh: &Output) -> Result<Verdict> {
    refuse_drift(&shipped.manifest, &fresh.manifest)?;
    if shipped.manifest.compiler != fresh.manifest.compiler {
        return Ok(Verdict::OtherCompiler);
    }
    for ((name, old), (_, new)) in shipped.files()?.into_iter().zip(fresh.with_resources_of(shipped).files()?) {
        if old != new {
            let same = old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count();
            return Err(Error::Differs { name, line: same + 1 });
        }
    }
    Ok(Verdict::Identical)
}

impl Output {
    /// Reads `folder`, and checks that its files are those of its manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] for files that are not, [`Error::Io`] for what cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let mut texts = Vec::new();
        for target in Target::ALL {
            let path = folder.join(target.file());
            let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
            if manifest.files.get(target.file()) != Some(&FileRecord::of(&text)) {
                return Err(Error::Damaged { path, what: "is not the file of the manifest".to_owned() });
            }
            texts.push((target, text));
        }
        Ok(Self { texts, manifest })
    }

    /// Writes the files into `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] for what cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        for (name, text) in self.files()? {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Whether the files were built from the sources in the folder `kernels`.
    ///
    /// # Errors
    /// [`Error::Io`] for sources that cannot be read.
    pub fn is_built_from(&self, kernels: &Path) -> Result<bool> {
        Ok(self.manifest.source_sha256 == source_hash(kernels)?)
    }

    /// Lets the texts through the gates that need no ptxas.
    ///
    /// # Errors
    /// [`Error::Gates`] with all that they find.
    pub fn pass_gates(&self) -> Result<()> {
        let mut findings: Vec<_> = self.texts.iter().flat_map(|(target, text)| inspect(text, *target)).collect();
        let bytes = self.texts.iter().map(|(_, text)| text.len()).sum();
        if bytes > MAX_BYTES {
            findings.push(Finding { file: Manifest::FILE, line: None, entry: None, defect: Defect::Size { bytes } });
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Gates(findings)) }
    }

    /// This output with the resources and main loops that `other` reports, where both have the same text: ptxas would
    /// make the same of it.
    #[must_use]
    pub fn with_resources_of(&self, other: &Output) -> Self {
        let mut output = self.clone();
        if output.manifest.files == other.manifest.files {
            output.manifest.ptxas.clone_from(&other.manifest.ptxas);
            for (name, record) in &mut output.manifest.entries {
                if let Some(known) = other.manifest.entries.get(name) {
                    record.resources.clone_from(&known.resources);
                    record.main_loop.clone_from(&known.main_loop);
                }
            }
        }
        output
    }

    /// Name and text of each file, the manifest last.
    fn files(&self) -> Result<Vec<(String, String)>> {
        let manifest = serde_json::to_string_pretty(&self.manifest)
            .map_err(|error| Error::Damaged { path: Manifest::FILE.into(), what: error.to_string() })?;
        let texts = self.texts.iter().map(|(target, text)| (target.file().to_owned(), text.clone()));
        Ok(texts.chain([(Manifest::FILE.to_owned(), manifest + "\n")]).collect())
    }
}

impl FileRecord {
    fn of(text: &str) -> Self {
        Self { sha256: sha256(text.as_bytes()), bytes: text.len() }
    }
}
