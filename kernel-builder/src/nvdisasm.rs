//! What machine code is made of, by nvdisasm.

use crate::error::{Error, Result};
use crate::mix::{Class, Mix};
use crate::ptxas::Assembled;
use crate::sass::{Instruction, main_loop, parse};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The GPUs whose machine code is looked at.
pub const SASS_ARCHS: [&str; 2] = ["sm_89", "sm_90"];

/// NVIDIA's disassembler.
#[derive(Clone, Debug)]
pub struct Nvdisasm {
    program: PathBuf,
}

impl Nvdisasm {
    /// The nvdisasm in the folder of `ptxas`, or that of `PATH` for a ptxas from there.
    pub(crate) fn beside(ptxas: &Path) -> Option<Self> {
        let program = ptxas.with_file_name("nvdisasm");
        let output = Command::new(&program).arg("--version").output().ok()?;
        output.status.success().then_some(Self { program })
    }

    /// Entry, GPU and mix of every main loop in the machine code for GPUs of [`SASS_ARCHS`].
    ///
    /// # Errors
    /// [`Error::Disassemble`] when nvdisasm does not understand the code.
    pub(crate) fn main_loops<'a>(
        &self,
        all: &'a [Assembled],
        scratch: &Path,
    ) -> Result<Vec<(&'a str, &'static str, Mix)>> {
        let of_arch = |arch| -> Result<Vec<_>> {
            let entries: Vec<_> = all.iter().filter(|assembled| assembled.arch == arch).collect();
            // To start nvdisasm takes most of a second, so it has one file with the code of all entries.
            let code: Vec<_> = entries.iter().flat_map(|assembled| assembled.code.iter().copied()).collect();
            let text = self.disassemble(arch, &code, scratch)?;
            let mut rest = &parse(&text)[..];
            let mut mixes = Vec::new();
            let mut end = 0;
            for assembled in entries {
                end += assembled.code.len() as u64;
                let (own, others) = rest.split_at(rest.partition_point(|instruction| instruction.address < end));
                rest = others;
                mixes.extend(mix(own).map(|mix| (assembled.entry.as_str(), arch, mix)));
            }
            Ok(mixes)
        };
        std::thread::scope(|scope| {
            let threads = SASS_ARCHS.map(|arch| scope.spawn(move || of_arch(arch)));
            let mixes = threads.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            Ok(mixes.into_iter().collect::<Result<Vec<_>>>()?.concat())
        })
    }

    /// The text of machine code for `arch`, addresses in place of labels.
    fn disassemble(&self, arch: &'static str, code: &[u8], scratch: &Path) -> Result<String> {
        let input = scratch.join(format!("nvdisasm-{}-{arch}.bin", std::process::id()));
        std::fs::write(&input, code).map_err(Error::io(&input))?;
        let output = Command::new(&self.program)
            .args(["--binary", &arch.replace("sm_", "SM")])
            .arg(&input)
            .output()
            .map_err(Error::io(&self.program))?;
        // A leftover would do no harm.
        let _ = std::fs::remove_file(&input);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Error::Disassemble { arch, stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
        }
    }
}

/// The mix of the main loop of an entry, if it has a loop with matrix instructions.
fn mix(code: &[Instruction]) -> Option<Mix> {
    main_loop(code, |instruction| Class::of(instruction) == Class::Tensor).map(|body| Mix::of(&body))
}
