//! The command line: one module a subcommand, and what they share.

mod bench;
mod device;
mod file;
mod findings;
mod fp8;
mod gpu;
mod heading;
mod inspect;
mod prediction;
mod profile;
mod record;
mod report;
mod run;
mod sim;
mod simulation;
mod table;
mod tune;
mod verify;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use evo_sdpa::{Causal, DType, DeviceSpec, KERNELS, Kernel};
use std::io::Write;

/// Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Bench),
    Run(run::Run),
    Verify(verify::Verify),
    Inspect(inspect::Inspect),
    Profile(profile::ProfileArgs),
    Report(report::Report),
    Tune(tune::Tune),
}

impl Cli {
    /// Carries the command out. `Ok(false)` means that it ran and that an answer was wrong or a gate failed.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        match self.command {
            Command::Bench(command) => command.run(out),
            Command::Run(command) => command.run(out),
            Command::Verify(command) => command.run(out),
            Command::Inspect(command) => command.run(out),
            Command::Profile(command) => command.run(out),
            Command::Report(command) => command.run(out),
            Command::Tune(command) => command.run(out),
        }
    }
}

/// Sizes of a problem, as [`evo_sdpa::Problem::contiguous`] takes them.
type Shape = [usize; 6];

/// Six sizes with commas between them.
fn parse_shape(text: &str) -> Result<Shape> {
    let sizes: Option<Vec<usize>> = text.split(',').map(|size| size.trim().parse().ok()).collect();
    sizes
        .and_then(|sizes| sizes.try_into().ok())
        .with_context(|| format!("`{text}`, allowed: six whole numbers B,Hq,Hkv,Sq,Skv,D"))
}

/// The type of elements, by name.
fn parse_dtype(name: &str) -> Result<DType> {
    DType::ALL
        .into_iter()
        .find(|dtype| dtype.name() == name)
        .with_context(|| format!("`{name}`, allowed: f16, bf16, f32"))
}

/// A mask as an argument. The alias keeps clap from taking the `Option` for an argument that may be absent.
type Mask = Option<Causal>;

/// `none`, `bottom-right`, `top-left` or an offset.
fn parse_mask(text: &str) -> Result<Mask> {
    Ok(match text {
        "none" => None,
        "bottom-right" => Some(Causal::BottomRight),
        "top-left" => Some(Causal::TopLeft),
        offset => {
            let allowed = || format!("`{offset}`, allowed: none, bottom-right, top-left or a whole number");
            Some(Causal::Offset(offset.parse().with_context(allowed)?))
        }
    })
}

/// The name that [`parse_mask`] reads.
fn mask_name(mask: Mask) -> String {
    match mask {
        None => "none".into(),
        Some(Causal::Offset(offset)) => offset.to_string(),
        Some(anchor) => anchor.to_string(),
    }
}

/// A typical device of an architecture.
fn parse_arch(name: &str) -> Result<DeviceSpec> {
    name.strip_prefix("sm_")
        .and_then(|cc| DeviceSpec::typical(cc.parse().ok()?))
        .with_context(|| format!("`{name}`, allowed: sm_80, sm_89, sm_90"))
}

/// The name that [`parse_arch`] reads.
fn arch_name(device: &DeviceSpec) -> String {
    format!("sm_{}", device.compute_capability)
}

/// A kernel that ships, by its entry name.
fn parse_kernel(name: &str) -> Result<Kernel> {
    Kernel::parse(name)
        .filter(|kernel| KERNELS.contains(kernel))
        .with_context(|| format!("no kernel `{name}` ships, allowed: a name that `evo-sdpa inspect` lists"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn masks_are_read_by_name_or_offset() {
        assert_eq!(parse_mask("none").unwrap(), None);
        assert_eq!(parse_mask("bottom-right").unwrap(), Some(Causal::BottomRight));
        assert_eq!(parse_mask("-7").unwrap(), Some(Causal::Offset(-7)));
        assert!(parse_mask("lower").unwrap_err().to_string().contains("bottom-right"));
    }

    #[test]
    fn a_shape_is_six_whole_numbers() {
        assert_eq!(parse_shape("1,8,2,64, 128,32").unwrap(), [1, 8, 2, 64, 128, 32]);
        for text in ["", "1,8,2,64,128", "1,8,2,64,128,32,1", "1,8,2,-64,128,32", "1,8,2,64,128,x"] {
            assert!(parse_shape(text).unwrap_err().to_string().contains("B,Hq,Hkv,Sq,Skv,D"), "{text}");
        }
    }

    #[test]
    fn kernels_that_ship_are_read_by_name_and_no_others() {
        for kernel in KERNELS {
            assert_eq!(parse_kernel(&kernel.to_string()).unwrap(), *kernel);
        }
        assert!(parse_kernel("fwd_sm80_bf16_d64_q8192_kv64_w4_s2").is_err());
    }
}
