//! What the kernels of one call do, counted by the simulator.

use super::findings;
use anyhow::Result;
use evo_sdpa::sim::ptx_sim::{Class, Counters, LineCounters, Report, Source};
use evo_sdpa::verify::{Case, Inputs, Quantization};
use evo_sdpa::{DeviceSpec, Element, Options, Plan, Simulator, with_element};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::time::Instant;

/// One call in the simulator.
pub struct Simulation {
    /// Of attention.
    report: Report,
    /// Of the launches before it that quantise.
    quantising: Vec<Report>,
    seed: u64,
    seconds: f64,
}

impl Simulation {
    /// Runs the kernel of `plan` on the tensors of `case`, which are quantised first where `quantization` says how.
    pub fn run(case: &Case, arch: &DeviceSpec, plan: &Plan, quantization: Option<&Quantization>) -> Result<Self> {
        let simulator = evo_sdpa::simulator()?.with_spec(*arch);
        // Before tensors are made that may not fit in memory.
        simulator.check_work(plan)?;
        with_element!(case.dtype, T => Self::run_on::<T>(case, &simulator, plan, quantization))
    }

    fn run_on<T: Element>(
        case: &Case,
        simulator: &Simulator,
        plan: &Plan,
        quantization: Option<&Quantization>,
    ) -> Result<Self> {
        let inputs = Inputs::<T>::generate(case);
        let (views, kernel) = (inputs.views()?, Some(plan.kernel));
        let options = Options { splits: Some(plan.splits.count), ..inputs.options() };
        let start = Instant::now();
        let (report, quantising) = match quantization {
            None => {
                let [q, k, v] = views;
                (simulator.attention(q, k, v, &options, kernel)?.report, vec![])
            }
            Some(&Quantization { fp8, subtract_mean, .. }) => {
                let (quantized, answer) =
                    simulator.quantized_attention::<T, T>(views, fp8, subtract_mean, &options, kernel)?;
                (answer.report, quantized.reports)
            }
        };
        Ok(Self { report, quantising, seed: case.seed, seconds: start.elapsed().as_secs_f64() })
    }

    /// The launches in their order.
    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.quantising.iter().chain([&self.report])
    }

    /// Whether the simulator found no defect.
    pub fn is_clean(&self) -> bool {
        self.reports().all(Report::is_clean)
    }

    /// Writes the counters of each launch, and what is wrong with its kernel.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let Self { seed, seconds, .. } = self;
        writeln!(out, "simulated  normal numbers of seed {seed}, {:.1} ms", seconds * 1e3)?;
        self.reports().try_for_each(|report| {
            writeln!(out, "{}", report.counters_table())?;
            findings::write(report, "checks     ", out)
        })
    }

    /// The counters and findings as an object: those of attention, and those of each launch before it.
    pub fn json(&self) -> Value {
        let mut object = counters(&self.report);
        object["seed"] = self.seed.into();
        object["seconds"] = self.seconds.into();
        object["quantising"] = self.quantising.iter().map(counters).collect();
        object
    }
}

/// The counters and findings of a launch as an object.
fn counters(report: &Report) -> Value {
    let Counters { instructions, partial, divergent_branches, wavefronts_ideal, wavefronts, sectors_ideal, sectors } =
        report.total;
    let executed = Class::ALL.into_iter().map(|class| (class, report.executed(class)));
    let classes: Map<_, _> = executed
        .filter(|&(_, executed)| executed > 0)
        .map(|(class, executed)| (class.name().into(), executed.into()))
        .collect();
    let conflict = |line: &LineCounters| {
        json!({
            "line": line.line,
            "instruction": line.instruction,
            "source": line.source.as_ref().map(Source::to_string),
            "wavefronts": line.counters.wavefronts,
            "wavefronts_ideal": line.counters.wavefronts_ideal,
        })
    };
    let conflicts = report.lines.iter().filter(|line| line.counters.wavefronts > line.counters.wavefronts_ideal);
    json!({
        "kernel": report.kernel,
        "instructions": instructions,
        "partial_instructions": partial,
        "instructions_by_class": classes,
        "matrix_instructions": report.executed(Class::Matrix),
        "warpgroup_matrix_instructions": report.executed(Class::WarpgroupMatrix),
        "divergent_branches": divergent_branches,
        "shared_wavefronts": wavefronts,
        "shared_wavefronts_ideal": wavefronts_ideal,
        "conflicts": conflicts.map(conflict).collect::<Vec<_>>(),
        "global_sectors": sectors,
        "global_sectors_ideal": sectors_ideal,
        "peak_shared_bytes": report.peak_shared,
        "findings": findings::json(report),
    })
}
