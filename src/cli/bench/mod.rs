//! `evo-sdpa bench`: the time of kernels, after they have shown that they are right.

#[cfg(feature = "gpu")]
mod clocks;
#[cfg(feature = "gpu")]
mod gates;
#[cfg(feature = "gpu")]
mod ladder;
#[cfg(feature = "gpu")]
mod session;
#[cfg(feature = "gpu")]
mod setup;
#[cfg(feature = "gpu")]
mod subject;

use super::fp8::FormatArgs;
use super::record::Call;
use super::{Mask, Shape, parse_dtype, parse_kernel, parse_mask, parse_shape};
use anyhow::{Result, ensure};
use clap::Args;
use evo_sdpa::shapes::{ACCEPTANCE, measured};
use evo_sdpa::verify::Case;
use evo_sdpa::{DType, Kernel, Problem, QuantizePlan, ValueLayout};
use std::io::Write;
use std::path::PathBuf;

/// Time kernels on the GPU, after four gates: compile, resources, correctness, speed
///
/// Each kernel is compiled by the driver, its registers and local memory are looked at, its answer is compared with a
/// reference in f64, and then it is timed; the first gate that fails ends its run and gives exit code 1. A device time
/// is the mean over the launches of one CUDA graph, back to back; a call time is what a caller waits for one answer,
/// planning included; a launch time is what the host takes for one launch with the plan at hand, without waiting.
/// Without --shape, every shape that the project is measured by is timed. With --quantize, kernels that take e4m3 are
/// timed on tensors that were quantised beforehand; the reference is of the numbers that these stand for. Add
/// --with-quantizing to time calls that quantise: all of their launches in the place of one; add --transposed-values to
/// time the attention of such calls alone.
#[derive(Args)]
#[command(mut_arg("quantize", |arg| {
    arg.help("Quantise q, k and v to this type on the host, and time kernels that take it")
}))]
pub struct Bench {
    /// Sizes of a problem; may be given several times
    #[arg(long = "shape", value_name = "B,Hq,Hkv,Sq,Skv,D", value_parser = parse_shape)]
    shapes: Vec<Shape>,
    /// Mask of these problems: none, bottom-right, top-left or an offset
    #[arg(long, default_value = "none", requires = "shapes", allow_hyphen_values = true, value_parser = parse_mask)]
    causal: Mask,
    /// Type of the tensors: f16, bf16 or f32; with --quantize of the output, and of tensors that calls quantise, f16 or
    /// bf16
    #[arg(long, default_value = "bf16", value_parser = parse_dtype)]
    dtype: DType,
    #[command(flatten)]
    quantize: FormatArgs,
    /// Begin each call with tensors of --dtype, and time the launches that quantise them on the device with it
    #[arg(long, requires = "quantize", conflicts_with = "dependent")]
    with_quantizing: bool,
    /// Quantise on the device beforehand, with values left transposed as kernels of compute capability 9.0 take them
    #[arg(long, requires = "quantize", conflicts_with = "with_quantizing")]
    transposed_values: bool,
    /// Kernel to time in place of the planner's choice, or `all` for each that takes the problem
    #[arg(long, value_name = "NAME|all", value_parser = parse_kernels)]
    kernel: Option<Kernels>,
    /// Times taken of each kernel
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Take copies of the tensors in turn that are larger than the cache together
    #[arg(long)]
    cold: bool,
    /// Launch kernels before those ahead of them have ended (programmatic dependent launch, compute capability 9.0)
    #[arg(long)]
    dependent: bool,
    /// Seed of the numbers in the tensors
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Append each result to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Results that no kernel may be slower than, as --json wrote them on the same kind of device
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower than the baseline a median may be, per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, requires = "baseline")]
    tolerance: f64,
    /// Time every rung of the ladder, from plain cores to today's kernel, on the first acceptance shape
    #[arg(long, conflicts_with_all = ["shapes", "kernel", "baseline", "list", "quantize"])]
    ladder: bool,
    /// Print what would be timed, one JSON object a line, and time nothing
    #[arg(long)]
    list: bool,
}

/// Which kernels to time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernels {
    All,
    One(Kernel),
}

fn parse_kernels(name: &str) -> Result<Kernels> {
    match name {
        "all" => Ok(Kernels::All),
        name => Ok(Kernels::One(parse_kernel(name)?)),
    }
}

impl Bench {
    /// Times and reports. `Ok(false)` when a gate fails.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        ensure!(
            self.tolerance.is_finite() && self.tolerance >= 0.0,
            "tolerance: {}, allowed: numbers from 0",
            self.tolerance
        );
        let cases = self.cases();
        for case in &cases {
            let problem = self.problem(case);
            problem.validate()?;
            ensure!(problem.flops() > 0.0, "shape: {problem} has nothing to compute, allowed: visible keys");
            if let (true, Some(fp8)) = (self.transposed_values, problem.fp8) {
                QuantizePlan::new(&case.problem(), fp8, false)?.with_transposed_values()?;
            }
        }
        if self.list {
            for case in &cases {
                writeln!(out, "{}", serde_json::to_string(&Call::of(&self.problem(case)))?)?;
            }
            return Ok(true);
        }
        self.measure(&cases, out)
    }

    /// What is computed of a case.
    fn problem(&self, case: &Case) -> Problem {
        let value_layout = match (self.with_quantizing, self.transposed_values) {
            (true, _) => ValueLayout::Planned,
            (false, true) => ValueLayout::Transposed,
            (false, false) => ValueLayout::Rows,
        };
        case.problem().with_fp8(self.quantize.fp8()).with_value_layout(value_layout).with_lse(true)
    }

    fn cases(&self) -> Vec<Case> {
        let case = |shape, causal| Case { dtype: self.dtype, causal, seed: self.seed, ..Case::new(shape) };
        if self.ladder {
            let (shape, causal) = ACCEPTANCE[0];
            vec![case(shape, causal)]
        } else if self.shapes.is_empty() {
            measured().map(|(shape, causal)| case(shape, causal)).collect()
        } else {
            self.shapes.iter().map(|&shape| case(shape, self.causal)).collect()
        }
    }

    #[cfg(feature = "gpu")]
    fn measure(&self, cases: &[Case], out: &mut impl Write) -> Result<bool> {
        let mut session = session::Session::open(self)?;
        if self.ladder { session.climb(&cases[0], out) } else { session.time_all(cases, out) }
    }

    #[cfg(not(feature = "gpu"))]
    fn measure(&self, _: &[Case], _: &mut impl Write) -> Result<bool> {
        super::gpu::open(None).map(|gpu| match gpu {})
    }
}
