//! What ptxas makes of the kernels: registers, stack, spills, machine code.

use crate::error::{Error, Result};
use crate::manifest::Resources;
use crate::nvdisasm::Nvdisasm;
use crate::report::{Report, parse_report, parse_version};
use crate::target::Target;
use crate::text::{Parts, lines};
use elf::ElfBytes;
use elf::endian::AnyEndian;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// NVIDIA's assembler.
#[derive(Clone, Debug)]
pub struct Ptxas {
    program: PathBuf,
    /// For example 13.5.37.
    pub version: String,
    /// The disassembler of its machine code, where there is one.
    pub nvdisasm: Option<Nvdisasm>,
}

/// An entry that was assembled for a GPU.
#[derive(Clone, Debug)]
pub(crate) struct Assembled {
    pub(crate) entry: String,
    pub(crate) arch: &'static str,
    pub(crate) report: Report,
    /// The machine code of the entry.
    pub(crate) code: Vec<u8>,
}

impl Ptxas {
    /// The ptxas that `PTXAS` names, else one in `tools` (where `pip install --target` puts nvidia-cuda-nvcc), else
    /// that of `PATH`.
    pub fn find(tools: &Path) -> Option<Self> {
        let named = std::env::var_os("PTXAS").map(PathBuf::from);
        named.and_then(Self::at).or_else(|| Self::packaged(tools)).or_else(|| Self::at(PathBuf::from("ptxas")))
    }

    /// The ptxas in `tools` alone.
    pub fn packaged(tools: &Path) -> Option<Self> {
        let packages = std::fs::read_dir(tools.join("nvidia")).into_iter().flatten().flatten();
        let programs = packages.map(|package| package.path().join("bin/ptxas")).filter(|program| program.is_file());
        programs.into_iter().find_map(Self::at)
    }

    fn at(program: PathBuf) -> Option<Self> {
        let output = Command::new(&program).arg("--version").output().ok()?;
        let version = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        let nvdisasm = Nvdisasm::beside(&program);
        Some(Self { program, version, nvdisasm })
    }

    /// What becomes of every entry of `text`, the file of `target`, on every GPU of [`Target::archs`].
    ///
    /// # Errors
    /// [`Error::Assemble`] when ptxas refuses an entry.
    pub(crate) fn assemble_all(&self, text: &str, target: Target, scratch: &Path) -> Result<Vec<Assembled>> {
        // One entry at a time keeps every core busy to the end.
        let Parts { header, entries, footer } = Parts::of(lines(text));
        let jobs: Vec<_> =
            entries.iter().flat_map(|entry| target.archs().iter().map(move |arch| (entry, *arch))).collect();
        let next = AtomicUsize::new(0);
        let work = |worker: usize| -> Result<Vec<_>> {
            let input = scratch.join(format!("ptxas-{}-{worker}.ptx", std::process::id()));
            let mut done = Vec::new();
            while let Some(((entry, body), arch)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                std::fs::write(&input, [header.as_str(), body, &footer].concat()).map_err(Error::io(&input))?;
                done.push(self.assemble(&input, entry, arch)?);
            }
            // A leftover would do no harm.
            let _ = (std::fs::remove_file(&input), std::fs::remove_file(input.with_extension("cubin")));
            Ok(done)
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut all = std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
            let done = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            done.collect::<Result<Vec<_>>>()
        })?
        .concat();
        all.sort_by(|a, b| (&a.entry, a.arch).cmp(&(&b.entry, b.arch)));
        Ok(all)
    }

    /// What `entry`, the only one of `text`, needs on the GPU `arch`, such as sm_90. `scratch` is a folder for files.
    ///
    /// # Errors
    /// [`Error::Assemble`] when ptxas refuses it, [`Error::Io`] when a file cannot be written.
    pub fn resources(&self, text: &str, entry: &str, arch: &'static str, scratch: &Path) -> Result<Resources> {
        let input = scratch.join(format!("ptxas-{}-{entry}.ptx", std::process::id()));
        std::fs::write(&input, text).map_err(Error::io(&input))?;
        let assembled = self.assemble(&input, entry, arch);
        // A leftover would do no harm.
        let _ = (std::fs::remove_file(&input), std::fs::remove_file(input.with_extension("cubin")));
        Ok(assembled?.report.resources)
    }

    fn assemble(&self, input: &Path, entry: &str, arch: &'static str) -> Result<Assembled> {
        let cubin = input.with_extension("cubin");
        let output = Command::new(&self.program)
            .args(["-v", "-arch", arch, "-o"])
            .args([&cubin, input])
            .output()
            .map_err(Error::io(&self.program))?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        match parse_report(&said) {
            Some(report) if output.status.success() => {
                let bytes = std::fs::read(&cubin).map_err(Error::io(&cubin))?;
                let code = code_of(&bytes, entry)
                    .ok_or_else(|| Error::Damaged { path: cubin, what: format!("holds no machine code of {entry}") })?;
                Ok(Assembled { entry: entry.to_owned(), arch, report, code })
            }
            _ => Err(Error::Assemble { entry: entry.to_owned(), arch, stderr: said.into_owned() }),
        }
    }
}

/// The machine code of `entry` in a cubin, which is an ELF file with a section for each entry.
fn code_of(cubin: &[u8], entry: &str) -> Option<Vec<u8>> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(cubin).ok()?;
    let section = file.section_header_by_name(&format!(".text.{entry}")).ok()??;
    let (code, _) = file.section_data(&section).ok()?;
    Some(code.to_vec())
}
