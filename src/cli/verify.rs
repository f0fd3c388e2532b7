//! `evo-sdpa verify`: the correctness grid on a device, with every kernel.

use super::device::{Device, DeviceArgs};
use super::file::File;
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
/// Failures that are named one by one.
const NAMED_FAILURES: usize = 10;

/// Check a device against the f64 reference on the correctness grid
///
/// Every case is computed with the device's own choice and, on a GPU, with each kernel that takes it. Exit code 1 when
/// an answer is wrong.
#[derive(Args)]
pub struct Verify {
    /// A part of the grid that takes seconds
    #[arg(long)]
    quick: bool,
    /// Seeds for each case; 1 with --quick and 3 without it by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Verify {
    /// Runs the grid and reports. `Ok(false)` when an answer is wrong.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        let device = self.device.open()?;
        let mut cases = cases(self.quick, self.seeds.unwrap_or(if self.quick { 1 } else { 3 }));
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
        ensure!(summary.checked() > 0, "filter, kernel: no case of the grid is left to check");
        summary.write(out)?;
        Ok(summary.failures.is_empty())
    }
}

impl Verify {
    /// Checks every way to compute one call against the same reference.
    fn check<T: Element>(&self, name: &str, inputs: &Inputs<T>, device: &Device, summary: &mut Summary) -> Result<()> {
        let mut ways = device.ways(&inputs.problem());
        if self.device.kernel.is_some() {
            ways.retain(|way| *way == self.device.kernel);
        }
        if ways.is_empty() {
            return Ok(());
        }
        let expected = Expected::compute(inputs)?;
        for kernel in ways {
            let verdict = device.attention(inputs, kernel).map(|answer| expected.check(&answer.output));
            let (relative, failure) = match verdict {
                Ok(verdict) if verdict.passes() => (verdict.out.relative, None),
                Ok(verdict) => (verdict.out.relative, Some(verdict.to_string())),
                Err(error) => (0.0, Some(format!("{error:#}"))),
            };
            summary.add(name, kernel, relative, failure);
        }
        Ok(())
    }
}

/// The calls on real data, with and without a mask.
fn real_calls(filter: &str) -> Vec<(String, &'static [u8], Option<Causal>)> {
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
}

impl Summary {
    fn add(&mut self, case: &str, kernel: Option<Kernel>, relative: f64, failure: Option<String>) {
        let way = kernel.map_or("own choice".into(), |kernel| kernel.to_string());
        let tally = self.tallies.entry(way.clone()).or_default();
        tally.cases += 1;
        tally.relative = tally.relative.max(relative);
        if let Some(what) = failure {
            tally.failures += 1;
            let kernel = kernel.map_or(String::new(), |kernel| format!(" --kernel {kernel}"));
            self.failures.push(format!("{way}: {what}\n  again with: --filter {case}{kernel}"));
        }
    }

    fn checked(&self) -> usize {
        self.tallies.values().map(|tally| tally.cases).sum()
    }

    fn show(&self, bar: &ProgressBar) {
        bar.inc(1);
        bar.set_message(format!("{} wrong", self.failures.len()));
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        let mut table = Table::new(&["kernel", "cases", "wrong", "largest relative error"]);
        for (way, tally) in &self.tallies {
            let relative = format!("{:.2e}", tally.relative);
            table.row([way.clone(), tally.cases.to_string(), tally.failures.to_string(), relative]);
        }
        writeln!(out)?;
        table.write(out)?;
        if self.failures.is_empty() {
            writeln!(out, "\nall {} answers are right", self.checked())?;
            return Ok(());
        }
        writeln!(out, "\n{} of {} answers are WRONG", self.failures.len(), self.checked())?;
        for failure in self.failures.iter().take(NAMED_FAILURES) {
            writeln!(out, "{failure}")?;
        }
        if let Some(more) = self.failures.len().checked_sub(NAMED_FAILURES + 1) {
            writeln!(out, "and {} more", more + 1)?;
        }
        Ok(())
    }
}
