//! One run of benchmarks: a GPU, its limits, and where results go.

use super::clocks::Clocks;
use super::gates::{self, Failure, Gate};
use super::ladder::RUNGS;
use super::setup::setup;
use super::subject::Subject;
use super::{Bench, Kernels};
use crate::cli::fp8::scales_option;
use crate::cli::record::{Call, KernelRecord, Limits, Method, OURS, Quantiles, Record, Setup, Time};
use crate::cli::table::Table;
use crate::cli::{gpu, parse_kernel};
use anyhow::{Context, Result, ensure};
use evo_sdpa::gpu::{Gpu, LaunchOptions};
use evo_sdpa::verify::Case;
use evo_sdpa::{DType, Element, Kernel, Plan, Prediction, Problem, with_element};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;

/// A GPU ready to be measured.
pub struct Session<'a> {
    options: &'a Bench,
    gpu: Gpu,
    clocks: Clocks,
    setup: Setup,
    baseline: Vec<Record>,
    json: Option<File>,
}

/// A kernel's time, or the gate that it did not pass.
type Outcome = Result<Time, Failure>;

impl<'a> Session<'a> {
    /// Opens the GPU and the files.
    pub fn open(options: &'a Bench) -> Result<Self> {
        let read = |path: &std::path::PathBuf| {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| format!("baseline: cannot read {name}"))?;
            Record::read_all(&name, &text)
        };
        let baseline = options.baseline.as_ref().map(read).transpose()?.unwrap_or_default();
        let append = |path| File::options().create(true).append(true).open(path);
        let json = options
            .json
            .as_ref()
            .map(|path| append(path).with_context(|| format!("json: cannot write {}", path.display())));
        let json = json.transpose()?;
        let gpu = gpu::open(None)?;
        let clocks = Clocks::of(&gpu);
        let setup = setup(&gpu, &clocks)?;
        if let Some(other) = baseline.iter().map(Record::setup).find(|other| other.device != setup.device) {
            anyhow::bail!("baseline: times of {}, allowed: of this {}", other.device, setup.device);
        }
        Ok(Self { options, gpu, clocks, setup, baseline, json })
    }

    /// Times every case with the kernels that were asked for.
    pub fn time_all(&mut self, cases: &[Case], out: &mut impl Write) -> Result<bool> {
        let mut times = Vec::new();
        let mut failures = Vec::new();
        let bar = ProgressBar::new(cases.len() as u64)
            .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} problems, {eta} left  {msg}")?);
        self.write_setup(out)?;
        for case in cases {
            let problem = self.options.problem(case);
            bar.set_message(problem.to_string());
            let kernels = self.kernels(&problem)?;
            for (kernel, outcome) in self.time_case(case, &kernels)? {
                match outcome {
                    Ok(time) => times.push((problem, time)),
                    Err(failure) => failures.push(format!("{problem}  {kernel}  {failure}")),
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        // A kernel that broke the device must not take what was measured before with it.
        let limits = self.limits().map_err(|error| failures.push(format!("limits: {error:#}"))).ok();
        let mut table = Table::new(&HEADER);
        times.iter().for_each(|(problem, time)| table.row(row(problem, time, limits.as_ref())));
        table.write(out)?;
        if let Some(limits) = &limits {
            write_limits(limits, out)?;
        }
        for failure in &failures {
            writeln!(out, "{failure}")?;
        }
        Ok(failures.is_empty())
    }

    /// Times the rungs of the ladder on one case.
    pub fn climb(&mut self, case: &Case, out: &mut impl Write) -> Result<bool> {
        ensure!(case.dtype == DType::Bf16, "dtype: {} with --ladder, allowed: bf16", case.dtype);
        let kernels = RUNGS.iter().map(|rung| parse_kernel(rung.kernel)).collect::<Result<Vec<_>>>()?;
        self.write_setup(out)?;
        writeln!(out, "{}\n", case.problem())?;
        let mut table = Table::new(&["us", "x the rung before", "x the first", "TFLOP/s", "kernel", "what is new"]);
        let mut times: Vec<f64> = Vec::new();
        let mut failures = Vec::new();
        for (rung, (kernel, outcome)) in RUNGS.iter().zip(self.time_case(case, &kernels)?) {
            let time = match outcome {
                Ok(time) => time.device_us.p50,
                Err(failure) => {
                    failures.push(format!("{kernel}  {failure}"));
                    continue;
                }
            };
            let gain = |before: Option<&f64>| before.map_or("-".into(), |before| format!("{:.2}", before / time));
            table.row([
                format!("{time:.2}"),
                gain(times.last()),
                gain(times.first()),
                format!("{:.1}", case.problem().flops() / time / 1e6),
                kernel.to_string(),
                rung.idea.into(),
            ]);
            times.push(time);
        }
        table.write(out)?;
        for failure in &failures {
            writeln!(out, "{failure}")?;
        }
        Ok(failures.is_empty())
    }

    fn kernels(&self, problem: &Problem) -> Result<Vec<Kernel>> {
        Ok(match self.options.kernel {
            None => vec![self.gpu.plan(problem, None)?.kernel],
            Some(Kernels::One(kernel)) => vec![self.gpu.plan(problem, Some(kernel))?.kernel],
            Some(Kernels::All) => {
                let candidates = Plan::candidates(problem, self.gpu.spec())?;
                candidates.into_iter().map(|(kernel, _)| kernel).collect()
            }
        })
    }

    /// Takes each kernel through the gates, on the same tensors.
    fn time_case(&mut self, case: &Case, kernels: &[Kernel]) -> Result<Vec<(Kernel, Outcome)>> {
        with_element!(case.dtype, T => {
            let subject = Subject::<T>::new(case, self.options.problem(case))?;
            let mut outcomes = Vec::new();
            for &kernel in kernels {
                let outcome = self.time_kernel(case, &subject, kernel)?;
                if let Ok(time) = &outcome {
                    self.keep(&Record::Time(Box::new(time.clone())))?;
                }
                outcomes.push((kernel, outcome));
            }
            Ok(outcomes)
        })
    }

    /// The gates. What is wrong with the kernel is an [`Outcome`], what is wrong with the call an error.
    fn time_kernel<T: Element>(&self, case: &Case, subject: &Subject<T>, kernel: Kernel) -> Result<Outcome> {
        let problem = subject.problem();
        let candidates = Plan::candidates(&problem, self.gpu.spec())?;
        let predicted = candidates.iter().find(|(candidate, _)| *candidate == kernel);
        let predicted_us =
            predicted.map(|(_, prediction)| prediction.total()).context("kernel: does not take the problem")?;
        let quantize = subject.quantize_plan(&self.gpu, kernel)?;
        let quantizing = quantize.iter().flat_map(|plan| Prediction::of_quantize(plan, self.gpu.spec()));
        let predicted_us = predicted_us + quantizing.map(|(_, least)| least.total()).sum::<f64>();
        let launch = LaunchOptions { dependent: self.options.dependent };
        let chosen = !launch.dependent && self.gpu.plan(&problem, None)?.kernel == kernel;
        let name = label(kernel, launch);
        let call = Call::of(&problem);
        let baseline = self.baseline_us(&call, &name);
        let pass = || -> Outcome {
            let kernels = self.gpu.kernels();
            let prepare = |plan| kernels.prepare_quantize(plan);
            let prepared =
                quantize.as_ref().map_or(Ok(()), prepare).and_then(|()| kernels.prepare_with(kernel, launch));
            prepared.map_err(|error| Gate::Compile.failed(error))?;
            let found = kernels.resources_with(kernel, launch).map_err(|error| Gate::Resources.failed(error))?;
            gates::resources(kernel, &found, self.gpu.spec())?;
            let answer = subject.answer(&self.gpu, kernel);
            let (answer, plan) = answer.map_err(|error| Gate::Correctness.failed(error))?;
            let verdict = subject.expected.check(&answer);
            gates::correctness(&verdict)?;
            let failed = |error| Gate::Speed.failed(error);
            let timed = subject.timed(&self.gpu, kernel, self.options.cold, launch).map_err(failed)?;
            // What the graph's launches wrote, one after the other or overlapping.
            let verdict = subject.expected.check(&timed.answer().map_err(|error| Gate::Correctness.failed(error))?);
            gates::correctness(&verdict)?;
            let none = || Gate::Speed.failed("no time was taken");
            let runs = self.options.runs;
            let device_us = Quantiles::of(&timed.device_us(runs).map_err(failed)?).ok_or_else(none)?;
            let clocks = timed.while_busy(|| self.clocks.read()).map_err(failed)?;
            let call_us = Quantiles::of(&timed.call_us(runs).map_err(failed)?);
            let launch_us = Quantiles::of(&timed.launch_us(runs).map_err(failed)?);
            gates::speed(&device_us, baseline, self.options.tolerance)?;
            let source = kernels.source_with(kernel, launch).map_err(|error| Gate::Compile.failed(error))?;
            Ok(Time {
                setup: self.setup.clone(),
                implementation: OURS.into(),
                call,
                method: Method {
                    calls: timed.calls(),
                    runs,
                    buffers: timed.buffers() as u32,
                    cold: self.options.cold,
                    seed: case.seed,
                },
                device_us,
                call_us,
                launch_us,
                clocks,
                kernel: Some(KernelRecord {
                    name,
                    chosen,
                    splits: kernel.split_step().map(|_| plan.splits.count),
                    sha256: Sha256::digest(&source).iter().map(|byte| format!("{byte:02x}")).collect(),
                    registers: found.registers,
                    local_bytes: found.local_bytes,
                    shared_bytes: found.static_shared_bytes + found.dynamic_shared_bytes,
                    blocks_per_sm: found.blocks_per_sm,
                    relative_error: verdict.out.relative,
                    predicted_us,
                }),
            })
        };
        Ok(pass())
    }

    /// The median of the baseline for a kernel on a call, timed in the same way.
    fn baseline_us(&self, call: &Call, name: &str) -> Option<f64> {
        self.baseline.iter().find_map(|record| match record {
            Record::Time(time) => {
                let same = time.call == *call
                    && time.method.cold == self.options.cold
                    && time.kernel.as_ref().is_some_and(|kernel| kernel.name == name);
                same.then_some(time.device_us.p50)
            }
            Record::Limits(_) => None,
        })
    }

    fn write_setup(&self, out: &mut impl Write) -> Result<()> {
        let Setup { device, sm_count, cuda, .. } = &self.setup;
        writeln!(out, "device    {device}, {sm_count} multiprocessors, driver of CUDA {cuda}")?;
        let launches = if self.options.dependent { ", dependent launches" } else { "" };
        let caches = if self.options.cold { "cold caches" } else { "the same tensors again and again" };
        writeln!(
            out,
            "method    {} replays of a CUDA graph{launches}, {caches}, seed {}",
            self.options.runs, self.options.seed
        )?;
        if let Some(fp8) = self.options.quantize.fp8() {
            let when = match (self.options.with_quantizing, self.options.transposed_values) {
                (true, _) => "quantised in each call",
                (false, true) => "on the device beforehand, values transposed",
                (false, false) => "on the device beforehand",
            };
            writeln!(out, "e4m3      q, k and v, {when}; scales: {}", scales_option(fp8.q))?;
        }
        writeln!(out)?;
        out.flush()?;
        Ok(())
    }

    /// Measures the limits of the device.
    ///
    /// It comes last: afterwards every launch of the process takes 0.17 us longer on an H200 (docs/PERF.md).
    fn limits(&mut self) -> Result<Limits> {
        let measured = self.gpu.limits()?;
        let rate = |dtype: DType| Some((dtype.to_string(), measured.matrix_tflops(dtype)?));
        let matrix_tflops = DType::ALL.into_iter().filter_map(rate).collect();
        let (setup, source) = (self.setup.clone(), "mma.sync".into());
        let limits = Limits { setup, source, matrix_tflops, copy_gbs: measured.copy_gbs };
        self.keep(&Record::Limits(Box::new(limits.clone())))?;
        Ok(limits)
    }

    /// Writes a result where results are kept.
    fn keep(&mut self, record: &Record) -> Result<()> {
        if let Some(file) = &mut self.json {
            writeln!(file, "{}", serde_json::to_string(record)?).context("json: cannot write")?;
        }
        Ok(())
    }
}

const HEADER: [&str; 13] = [
    "problem",
    "kernel",
    "registers",
    "blocks/SM",
    "error",
    "p50 us",
    "p90 us",
    "p99 us",
    "call us",
    "launch us",
    "TFLOP/s",
    "% of roofline",
    "predicted us",
];

/// What a kernel is called in results: dependent launches are never mixed with plain ones.
fn label(kernel: Kernel, launch: LaunchOptions) -> String {
    if launch.dependent { format!("{kernel} dependent") } else { kernel.to_string() }
}

/// The least time of a problem, microseconds: its operations at the rate of matrix products, or its bytes at the rate of
/// a copy, whichever takes longer. `None` for a type whose rate was not measured.
fn floor_us(limits: &Limits, problem: &Problem) -> Option<f64> {
    let tflops = limits.matrix_tflops.get(&Call::of(problem).dtype)?;
    Some((problem.flops() / tflops / 1e6).max(problem.bytes() / limits.copy_gbs / 1e3))
}

fn row(problem: &Problem, time: &Time, limits: Option<&Limits>) -> [String; 13] {
    let Quantiles { p50, p90, p99, .. } = time.device_us;
    let of_kernel = |figure: fn(&KernelRecord) -> String| time.kernel.as_ref().map_or("-".into(), figure);
    let or_dash = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    [
        problem.to_string(),
        of_kernel(|kernel| kernel.name.clone()),
        of_kernel(|kernel| kernel.registers.to_string()),
        of_kernel(|kernel| kernel.blocks_per_sm.to_string()),
        of_kernel(|kernel| format!("{:.1e}", kernel.relative_error)),
        format!("{p50:.2}"),
        format!("{p90:.2}"),
        format!("{p99:.2}"),
        or_dash(time.call_us.map(|call| call.p50)),
        or_dash(time.launch_us.map(|launch| launch.p50)),
        format!("{:.1}", problem.flops() / p50 / 1e6),
        or_dash(limits.and_then(|limits| floor_us(limits, problem)).map(|floor| 100.0 * floor / p50)),
        of_kernel(|kernel| format!("{:.1}", kernel.predicted_us)),
    ]
}

fn write_limits(limits: &Limits, out: &mut impl Write) -> Result<()> {
    let Limits { source, matrix_tflops, copy_gbs, .. } = limits;
    let rates: Vec<_> = matrix_tflops.iter().map(|(dtype, rate)| format!("{dtype} {rate:.0} TFLOP/s")).collect();
    writeln!(out, "\nroofline: {source} {}, copy {copy_gbs:.0} GB/s (read and written), measured", rates.join(", "))?;
    Ok(())
}
