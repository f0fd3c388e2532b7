//! `evo-sdpa verify`: the correctness grid on a device, with every kernel.

use super::device::{Device, DeviceArgs};
use super::file::File;
use super::findings;
use super::fp8;
use super::table::Table;
use anyhow::{Result, ensure};
use clap::Args;
use evo_sdpa::verify::{Expected, Inputs, cases};
use evo_sdpa::{Causal, Element, Kernel, with_element};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::Write;

/// Real inputs: queries and keys of a small language model.
const REAL: [(&str, &[u8]); 2] = [
    ("minilm-layer0", include_bytes!("../../tests/data/minilm-layer0.safetensors")),
    ("minilm-layer4", include_bytes!("../../tests/data/minilm-layer4.safetensors")),
];
/// The most work of one answer in the simulator, in instructions of warps: on the grid, and on its quick part.
const MAX_WORK: u64 = 2_000_000;
const MAX_QUICK_WORK: u64 = 200_000;
/// Failures that are named one by one.
const NAMED_FAILURES: usize = 10;

/// Check a device against the f64 reference on the correctness grid
///
/// Every case is computed with the device's own choice and, on a GPU, with each kernel that takes it. Exit code 1 when
/// an answer is wrong. The simulator computes every case that is not too large with each kernel that takes it; a defect
/// that it finds counts as a wrong answer. With --dtype e4m3 the error of e4m3 is measured instead, by operands, scales
/// and kinds of tensors: as the CPU predicts it and, with --device gpu or sim, of the device's answers from tensors
/// that it quantised itself; one that rounding does not explain gives exit code 1.
#[derive(Args)]
pub struct Verify {
    /// A part of the grid that takes seconds
    #[arg(long)]
    quick: bool,
    /// Seeds for each case; by default 1 with --quick or in the simulator, else 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// In place of the grid: what it costs to round q, k, v and probabilities to this type, on the CPU in f64, and on
    /// the GPU or in the simulator where --device says so
    #[arg(long, value_enum, value_name = "TYPE", conflicts_with = "filter")]
    dtype: Option<fp8::Format>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Verify {
    /// Runs the grid and reports. `Ok(false)` when an answer is wrong.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        if let Some(fp8::Format::E4m3) = self.dtype {
            let device = self.device.open_or_cpu("the error of e4m3")?;
            writeln!(out, "device  {}", device.about)?;
            let seeds = self.seeds.unwrap_or(if self.quick || device.is_simulated() { 1 } else { 3 });
            return fp8::Sweep::new(&device, self.device.kernel).run(self.quick, seeds, &real_calls(""), out);
        }
        let device = self.device.open()?;
        let seeds = if self.quick || device.is_simulated() { 1 } else { 3 };
        let mut cases = cases(self.quick, self.seeds.unwrap_or(seeds));
        cases.retain(|case| case.to_string().contains(&self.filter));
        let real = real_calls(&self.filter);
        writeln!(out, "device  {}", device.about)?;
        out.flush()?;
        // Drawn on stderr, and only where that is a terminal.
        let bar = ProgressBar::new((cases.len() + real.len()) as u64)
            .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} cases, {eta} left  {msg}")?);
        let mut summary = Summary::default();
        for case in &cases {
            let name = case.to_string();
            with_element!(case.dtype, T => self.check(&name, &Inputs::<T>::generate(case), &device, &mut summary)?);
            summary.show(&bar);
        }
        for (name, bytes, causal) in &real {
            let file = File::parse(bytes)?;
            with_element!(file.dtype(), T => {
                let inputs = file.inputs::<T>(*causal, file.scale())?;
                self.check(name, &inputs, &device, &mut summary)?
            });
            summary.show(&bar);
        }
        bar.finish_and_clear();
        let left_out = match summary.left_out {
            0 => String::new(),
            n => {
                format!(", {n} left out: each would take the simulator over {} instructions of warps", self.max_work())
            }
        };
        ensure!(summary.checked() > 0, "filter, kernel: no case of the grid is left to check{left_out}");
        summary.write(&left_out, out)?;
        Ok(summary.failures.is_empty())
    }
}

impl Verify {
    fn max_work(&self) -> u64 {
        if self.quick { MAX_QUICK_WORK } else { MAX_WORK }
    }

    /// Checks every way to compute one call against the same reference.
    fn check<T: Element>(&self, name: &str, inputs: &Inputs<T>, device: &Device, summary: &mut Summary) -> Result<()> {
        let problem = inputs.problem();
        let mut ways = device.ways(&problem);
        if self.device.kernel.is_some() {
            ways.retain(|way| *way == self.device.kernel);
        }
        let all = ways.len();
        let max_work = self.max_work();
        // What cannot be planned shows as an error when the answer is computed.
        ways.retain(|&way| device.work(&problem, way).unwrap_or(0) <= max_work);
        summary.left_out += all - ways.len();
        if ways.is_empty() {
            return Ok(());
        }
        let expected = Expected::compute(inputs)?;
        for kernel in ways {
            let (relative, failure) = match device.attention(inputs, kernel) {
                Ok(answer) => {
                    let verdict = expected.check(&answer.output);
                    let defect = answer.report.as_ref().and_then(findings::summary);
                    let wrong = (!verdict.passes()).then(|| verdict.to_string());
                    (verdict.out.relative, defect.into_iter().chain(wrong).reduce(|a, b| format!("{a}; {b}")))
                }
                Err(error) => (0.0, Some(format!("{error:#}"))),
            };
            summary.add(name, kernel, relative, failure, device.option());
        }
        Ok(())
    }
}

/// A name, the bytes of a file, and a mask.
pub type RealCall = (String, &'static [u8], Option<Causal>);

/// The calls on real data, with and without a mask.
fn real_calls(filter: &str) -> Vec<RealCall> {
    let masks = [("full", None), ("bottom-right", Some(Causal::BottomRight))];
    REAL.iter()
        .flat_map(|&(name, bytes)| masks.map(|(mask, causal)| (format!("{name}_{mask}"), bytes, causal)))
        .filter(|(name, ..)| name.contains(filter))
        .collect()
}

/// What one implementation got right.
#[derive(Default)]
struct Tally {
    cases: usize,
    failures: usize,
    relative: f64,
}

/// All results so far.
#[derive(Default)]
struct Summary {
    tallies: BTreeMap<String, Tally>,
    failures: Vec<String>,
    /// Answers that the simulator would take too long for.
    left_out: usize,
}

impl Summary {
    fn add(&mut self, case: &str, kernel: Option<Kernel>, relative: f64, failure: Option<String>, device: &str) {
        let way = kernel.map_or("own choice".into(), |kernel| kernel.to_string());
        let tally = self.tallies.entry(way.clone()).or_default();
        tally.cases += 1;
        tally.relative = tally.relative.max(relative);
        if let Some(what) = failure {
            tally.failures += 1;
            let kernel = kernel.map_or(String::new(), |kernel| format!(" --kernel {kernel}"));
            self.failures.push(format!("{way}: {what}\n  again with: {device} --filter {case}{kernel}"));
        }
    }

    fn checked(&self) -> usize {
        self.tallies.values().map(|tally| tally.cases).sum()
    }

    fn show(&self, bar: &ProgressBar) {
        bar.inc(1);
        bar.set_message(format!("{} wrong", self.failures.len()));
    }

    fn write(&self, left_out: &str, out: &mut impl Write) -> Result<()> {
        let mut table = Table::new(&["kernel", "cases", "wrong", "largest relative error"]);
        for (way, tally) in &self.tallies {
            let relative = format!("{:.2e}", tally.relative);
            table.row([way.clone(), tally.cases.to_string(), tally.failures.to_string(), relative]);
        }
        writeln!(out)?;
        table.write(out)?;
        if self.failures.is_empty() {
            writeln!(out, "\nall {} answers are right{left_out}", self.checked())?;
            return Ok(());
        }
        writeln!(out, "\n{} of {} answers are WRONG{left_out}", self.failures.len(), self.checked())?;
        for failure in self.failures.iter().take(NAMED_FAILURES) {
            writeln!(out, "{failure}")?;
        }
        if let Some(more) = self.failures.len().checked_sub(NAMED_FAILURES + 1) {
            writeln!(out, "and {} more", more + 1)?;
        }
        Ok(())
    }
}
