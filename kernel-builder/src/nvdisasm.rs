//! What machine code is made of, by nvdisasm.

use crate::error::{Error, Result};
use crate::mix::{Class, Mix};
use crate::ptxas::Assembled;
use crate::sass::{Instruction, main_loop, parse};
use crate::target::Target;
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Machine instructions that the main loop of a kernel with `wgmma` must not hold. Where ptxas takes a loop for divergent,
/// it puts WARPSYNC before each product and brings the descriptors to uniform registers with R2UR; a MEMBAR comes with a
/// release beyond the block. Each counts beyond [`factors`].
const STALLS: [&str; 3] = ["R2UR", "WARPSYNC", "MEMBAR"];

/// How many R2UR bring factors, and no descriptors, to uniform registers: those of scores and of values for e4m3.
fn factors(entry: Entry) -> u32 {
    if matches!(entry, Entry::Forward(kernel) if kernel.takes_e4m3()) { 2 } else { 0 }
}

/// The main loop of an entry on a GPU.
pub(crate) struct MainLoop<'a> {
    pub(crate) entry: &'a str,
    pub(crate) arch: &'static str,
    pub(crate) mix: Mix,
    /// Those of [`STALLS`] that are there where they must not be, and how many.
    pub(crate) stalls: Vec<(&'static str, u32)>,
}

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

    /// Every main loop in the machine code of `target` for [`Target::sass_archs`].
    ///
    /// # Errors
    /// [`Error::Disassemble`] when nvdisasm does not understand the code.
    pub(crate) fn main_loops<'a>(
        &self,
        all: &'a [Assembled],
        target: Target,
        scratch: &Path,
    ) -> Result<Vec<MainLoop<'a>>> {
        let of_arch = |arch| -> Result<Vec<_>> {
            let entries: Vec<_> = all.iter().filter(|assembled| assembled.arch == arch).collect();
            // To start nvdisasm takes most of a second, so it has one file with the code of all entries.
            let code: Vec<_> = entries.iter().flat_map(|assembled| assembled.code.iter().copied()).collect();
            let text = self.disassemble(arch, &code, scratch)?;
            let mut rest = &parse(&text)[..];
            let mut main_loops = Vec::new();
            let mut end = 0;
            for assembled in entries {
                end += assembled.code.len() as u64;
                let (own, others) = rest.split_at(rest.partition_point(|instruction| instruction.address < end));
                rest = others;
                main_loops.extend(MainLoop::of(&assembled.entry, arch, own));
            }
            Ok(main_loops)
        };
        std::thread::scope(|scope| {
            let of_arch = &of_arch;
            let threads: Vec<_> = target.sass_archs().iter().map(|arch| scope.spawn(move || of_arch(*arch))).collect();
            let done = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            Ok(done.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
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

impl<'a> MainLoop<'a> {
    /// That of `entry`, whose machine code this is, if it has a loop with matrix instructions.
    fn of(entry: &'a str, arch: &'static str, code: &[Instruction]) -> Option<Self> {
        let parsed = Entry::parse(entry)?;
        let wgmma = matches!(parsed, Entry::Forward(Kernel::FwdSm90(_)));
        let is_hot = |instruction: &Instruction| Class::of(instruction) == Class::Tensor;
        // Beside the products of a warpgroup, the loop without a mask holds those of a warp that takes a step over again, in
        // a loop of their own.
        let is_core = |instruction: &Instruction| {
            is_hot(instruction) && (!wgmma || matches!(instruction.name(), "HGMMA" | "QGMMA"))
        };
        let body = main_loop(code, is_core, is_hot)?;
        let count = |name: &str| body.iter().filter(|instruction| instruction.name() == name).count() as u32;
        let stalls = if wgmma { &STALLS[..] } else { &[] };
        let beyond = |name| count(name).saturating_sub(if name == "R2UR" { factors(parsed) } else { 0 });
        let stalls = stalls.iter().map(|name| (*name, beyond(name))).filter(|(_, count)| *count > 0).collect();
        Some(Self { entry, arch, mix: Mix::of(&body), stalls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "\
        /*0000*/                   WARPSYNC.ALL ;
        /*0010*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24, gsb0 ;
        /*0020*/                   R2UR UR4, R3 ;
        /*0030*/                   R2UR UR5, R4 ;
        /*0040*/                   MUFU.EX2 R70, R52 ;
        /*0050*/               @P0 BRA 0x10 ;
        /*0060*/                   EXIT ;
";

    #[test]
    fn what_stops_wgmma_in_a_main_loop_is_found_and_nowhere_else() {
        let code = parse(LOOP);
        let main_loop = |entry| MainLoop::of(entry, "sm_90a", &code).unwrap();
        let hopper = main_loop("fwd_sm90_bf16_d128_q128_kv128_s2");
        assert_eq!(hopper.stalls, [("R2UR", 2)]);
        assert_eq!((hopper.mix.count(Class::Tensor), hopper.mix.count(Class::Special)), (1, 1));
        assert_eq!(main_loop("fwd_sm80_bf16_d64_q128_kv64_w4_s2").stalls, []);
    }

    #[test]
    fn factors_of_e4m3_may_be_uniform_and_no_descriptor() {
        let main_loop = |text: &str| {
            let code = parse(text);
            MainLoop::of("fwd_fp8_sm90_bf16_d128_q128_kv128_s3", "sm_90a", &code).unwrap().stalls
        };
        let of_e4m3 = LOOP.replace("HGMMA.64x128x16.F32.BF16", "QGMMA.64x128x32.F32.E4M3.E4M3");
        assert_eq!(main_loop(&of_e4m3), []);
        let descriptor = "/*0020*/                   R2UR UR6, R2 ;\n        /*0020*/";
        assert_eq!(main_loop(&of_e4m3.replacen("/*0020*/", descriptor, 1)), [("R2UR", 1)]);
    }

    const PLAIN_AND_MASKED: &str = "\
        /*0000*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24, gsb0 ;
        /*0010*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0020*/                   FMNMX R5, R5, R6, !PT ;
        /*0030*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0040*/               @P0 BRA 0x0 ;
        /*0050*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24, gsb0 ;
        /*0060*/                   MUFU.EX2 R69, R51 ;
        /*0070*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0080*/                   MUFU.EX2 R70, R52 ;
        /*0090*/                   MUFU.EX2 R71, R53 ;
        /*00a0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*00b0*/                   MUFU.EX2 R72, R54 ;
        /*00c0*/               @P1 BRA 0xf0 ;
        /*00d0*/                   HMMA.16816.F32.BF16 R92, R12, R4, R92 ;
        /*00e0*/               @P2 BRA 0xd0 ;
        /*00f0*/               @P3 BRA 0x50 ;
        /*0100*/                   EXIT ;
";

    #[test]
    fn the_main_loop_with_wgmma_is_the_one_that_may_take_a_step_over_again() {
        let code = parse(PLAIN_AND_MASKED);
        let MainLoop { mix, .. } = MainLoop::of("fwd_sm90_bf16_d128_q128_kv128_s2", "sm_90a", &code).unwrap();
        assert_eq!((mix.total, mix.count(Class::Tensor)), (11, 2));
        assert_eq!(mix.hidden_exponentials, 2, "of four, one comes before the waits and one behind them");
    }
}
