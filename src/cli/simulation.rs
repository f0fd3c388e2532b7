//! What a kernel does on one problem, counted by the simulator.

use super::findings;
use anyhow::Result;
use evo_sdpa::sim::ptx_sim::{Class, Counters, LineCounters, Report, Source};
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{DeviceSpec, Options, Plan, with_element};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::time::Instant;

/// One launch in the simulator.
pub struct Simulation {
    report: Report,
    seed: u64,
    seconds: f64,
}

impl Simulation {
    /// Runs the kernel of `plan` on the tensors of `case`.
    pub fn run(case: &Case, arch: &DeviceSpec, plan: &Plan) -> Result<Self> {
        let simulator = evo_sdpa::simulator()?.with_spec(*arch);
        // Before tensors are made that may not fit in memory.
        simulator.check_work(plan)?;
        let (report, seconds) = with_element!(case.dtype, T => {
            let inputs = Inputs::<T>::generate(case);
            let [q, k, v] = inputs.views()?;
            let options = Options { splits: Some(plan.splits.count), ..inputs.options() };
            let start = Instant::now();
            let report = simulator.attention(q, k, v, &options, Some(plan.kernel))?.report;
            (report, start.elapsed().as_secs_f64())
        });
        Ok(Self { report, seed: case.seed, seconds })
    }

    /// Whether the simulator found no defect.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean()
    }

    /// Writes the counters, and what is wrong with the kernel.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let Self { report, seed, seconds } = self;
        writeln!(out, "simulated  normal numbers of seed {seed}, {:.1} ms", seconds * 1e3)?;
        writeln!(out, "{}", report.counters_table())?;
        findings::write(report, "checks     ", out)
    }

    /// The counters and findings as an object.
    pub fn json(&self) -> Value {
        let Counters {
            instructions,
            partial,
            divergent_branches,
            wavefronts_ideal,
            wavefronts,
            sectors_ideal,
            sectors,
        } = self.report.total;
        let classes: Map<_, _> =
            self.classes().map(|(class, executed)| (class.name().into(), executed.into())).collect();
        let conflicts: Vec<_> = self
            .conflicts()
            .map(|line| {
                json!({
                    "line": line.line,
                    "instruction": line.instruction,
                    "source": line.source.as_ref().map(Source::to_string),
                    "wavefronts": line.counters.wavefronts,
                    "wavefronts_ideal": line.counters.wavefronts_ideal,
                })
            })
            .collect();
        json!({
            "seed": self.seed,
            "seconds": self.seconds,
            "instructions": instructions,
            "partial_instructions": partial,
            "instructions_by_class": classes,
            "matrix_instructions": self.report.executed(Class::Matrix),
            "warpgroup_matrix_instructions": self.report.executed(Class::WarpgroupMatrix),
            "divergent_branches": divergent_branches,
            "shared_wavefronts": wavefronts,
            "shared_wavefronts_ideal": wavefronts_ideal,
            "conflicts": conflicts,
            "global_sectors": sectors,
            "global_sectors_ideal": sectors_ideal,
            "peak_shared_bytes": self.report.peak_shared,
            "findings": findings::json(&self.report),
        })
    }

    /// The classes of which instructions were executed, and how many.
    fn classes(&self) -> impl Iterator<Item = (Class, u64)> {
        Class::ALL.into_iter().map(|class| (class, self.report.executed(class))).filter(|&(_, executed)| executed > 0)
    }

    fn conflicts(&self) -> impl Iterator<Item = &LineCounters> {
        self.report.lines.iter().filter(|line| line.counters.wavefronts > line.counters.wavefronts_ideal)
    }
}
