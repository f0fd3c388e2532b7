//! `evo-sdpa profile`: one launch under Nsight Compute, and what limits it.

mod findings;
mod metrics;
mod ncu;
mod parse;

use super::gpu;
use super::table::Table;
use super::{Mask, Shape, parse_dtype, parse_kernel, parse_mask, parse_shape};
use anyhow::{Context, Result, ensure};
use clap::Args;
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{DType, Kernel, with_element};
use findings::{Finding, Gate, busy, findings, gates};
use metrics::{CYCLES, TIME, UNITS};
use parse::Profile;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Launches before the one that is profiled.
const WARM_UPS: u32 = 2;

/// Profile a kernel with NVIDIA Nsight Compute and say what limits it
///
/// The kernel runs on seeded tensors with flushed caches. Exit code 1 when neither gate passes: tensor cores busy for at
/// least half of the time, or DRAM for less than half.
#[derive(Args)]
pub struct ProfileArgs {
    /// Profile a problem of these sizes
    #[arg(long, value_name = "B,Hq,Hkv,Sq,Skv,D", value_parser = parse_shape, required_unless_present = "csv")]
    shape: Option<Shape>,
    /// Type of the problem's tensors: f16, bf16 or f32
    #[arg(long, default_value = "bf16", value_parser = parse_dtype)]
    dtype: DType,
    /// Mask of the problem: none, bottom-right, top-left or an offset
    #[arg(long, default_value = "none", allow_hyphen_values = true, value_parser = parse_mask)]
    causal: Mask,
    /// Kernel to run in place of the planner's choice
    #[arg(long, value_parser = parse_kernel)]
    kernel: Option<Kernel>,
    /// The program of Nsight Compute
    #[arg(long, value_name = "PATH", default_value = "ncu")]
    ncu: PathBuf,
    /// Read what `ncu --page raw --csv` printed about one launch, in place of running it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shape", "dtype", "causal", "kernel", "ncu"])]
    csv: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Launch the kernel and print nothing: what Nsight Compute starts
    #[arg(long, hide = true, requires = "shape")]
    launch: bool,
}

impl ProfileArgs {
    /// Profiles and reports. `Ok(false)` when neither gate passes.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        let profile = match (self.shape, &self.csv) {
            (Some(shape), _) if self.launch => return self.launch(shape).map(|()| true),
            (Some(shape), _) => self.measure(shape)?,
            (None, Some(path)) => read(path)?,
            (None, None) => anyhow::bail!("shape: none, allowed: six whole numbers, or --csv"),
        };
        let gates = gates(&profile);
        let passes = gates.iter().any(|gate| gate.passes);
        if self.json {
            writeln!(out, "{}", object(&profile, &gates, passes))?;
        } else {
            write(&profile, &gates, passes, out)?;
        }
        Ok(passes)
    }

    fn case(&self, shape: Shape) -> Case {
        Case { dtype: self.dtype, causal: self.causal, ..Case::new(shape) }
    }

    /// Starts Nsight Compute on this program.
    fn measure(&self, shape: Shape) -> Result<Profile> {
        ncu::check(&self.ncu)?;
        // Closed again at once: its memory and its context are the launching process's from here on.
        let needs = "shape: a launch needs a GPU, allowed without one: --csv FILE";
        let (plan, device) = {
            let gpu = gpu::open(None).context(needs)?;
            (gpu.plan(&self.case(shape).problem(), self.kernel)?, *gpu.spec())
        };
        ensure!(!plan.is_empty(), "shape: nothing to compute, allowed: sizes above 0");
        // The same command again, which plans the same.
        let launch = std::env::args_os().skip(1).chain(["--launch".into()]).collect();
        let kernel = plan.kernel.to_string();
        let arguments = ncu::arguments(&kernel, device.compute_capability, WARM_UPS, launch)?;
        Profile::parse(&ncu::run(&self.ncu, &arguments)?).context("ncu")
    }

    /// Launches the kernel on seeded tensors, for a profiler to see.
    fn launch(&self, shape: Shape) -> Result<()> {
        let gpu = gpu::open(None)?;
        with_element!(self.dtype, T => {
            let inputs = Inputs::<T>::generate(&self.case(shape));
            let [q, k, v] = inputs.views()?;
            for _ in 0..=WARM_UPS {
                gpu.attention_host(q, k, v, &inputs.options(), self.kernel)?;
            }
        });
        Ok(())
    }
}

/// Reads a table that Nsight Compute printed.
fn read(path: &Path) -> Result<Profile> {
    let name = || format!("csv: {}", path.display());
    Profile::parse(&std::fs::read_to_string(path).with_context(name)?).with_context(name)
}

/// Figures that the architecture has and that are not in the table.
fn missing(profile: &Profile) -> Vec<String> {
    metrics::all(profile.compute_capability).into_iter().filter(|metric| profile.get(metric).is_none()).collect()
}

fn write(profile: &Profile, gates: &[Gate], passes: bool, out: &mut impl Write) -> Result<()> {
    let Profile { kernel, grid, block, compute_capability, .. } = profile;
    writeln!(out, "kernel   {kernel}")?;
    writeln!(out, "launch   grid {grid}, block {block}, on sm_{compute_capability}")?;
    if let Some(time) = profile.get(TIME) {
        let cycles = profile.get(CYCLES).map_or(String::new(), |cycles| format!(", {cycles} cycles"));
        writeln!(out, "time     {:.2} us{cycles}", time / 1e3)?;
    }
    writeln!(out)?;
    let mut table = Table::new(&["unit", "busy %"]);
    for unit in &UNITS {
        table.row([unit.name.into(), busy(unit, profile).map_or("-".into(), |busy| format!("{busy:.1}"))]);
    }
    table.write(out)?;
    writeln!(out)?;
    for Finding { kind, text, .. } in findings(profile) {
        writeln!(out, "{kind:<10} {text}")?;
    }
    writeln!(out)?;
    for Gate { name, allowed, measured, passes } in gates {
        let measured = measured.map_or("not measured".into(), |busy| format!("{busy:.1} %"));
        writeln!(out, "gate       {name} {allowed}: {measured}, {}", word(*passes))?;
    }
    writeln!(out, "gates      {}: one of the two has to pass", word(passes))?;
    let missing = missing(profile);
    if !missing.is_empty() {
        writeln!(out, "\nnot measured: {}", missing.join(", "))?;
    }
    Ok(())
}

fn object(profile: &Profile, gates: &[Gate], passes: bool) -> Value {
    let measured = metrics::all(profile.compute_capability).into_iter();
    let measured: serde_json::Map<_, _> =
        measured.filter_map(|metric| Some((metric.clone(), profile.get(&metric)?.into()))).collect();
    let findings: Vec<_> = findings(profile)
        .into_iter()
        .map(|Finding { kind, share, text }| json!({ "kind": kind, "share": share, "text": text }))
        .collect();
    let gates: Vec<_> = gates
        .iter()
        .map(|Gate { name, allowed, measured, passes }| {
            json!({ "name": name, "allowed": allowed, "measured": measured, "passes": passes })
        })
        .collect();
    json!({
        "kernel": profile.kernel,
        "grid": profile.grid,
        "block": profile.block,
        "arch": format!("sm_{}", profile.compute_capability),
        "seconds": profile.get(TIME).map(|nanoseconds| nanoseconds * 1e-9),
        "findings": findings,
        "gates": gates,
        "passes": passes,
        "metrics": measured,
        "missing": missing(profile),
    })
}

fn word(passes: bool) -> &'static str {
    if passes { "passes" } else { "FAILS" }
}
