//! `evo-sdpa tune`: results of benchmarks as a table that goes before the model.

use super::record::{KernelRecord, OURS, Quantiles, Record, Time};
use super::table::Table;
use anyhow::{Context, Result};
use clap::Args;
use evo_sdpa::{Kernel, Problem, TUNED_VARIABLE, Tuned, TunedProblem, TunedRow};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Make a tuned table from results of `evo-sdpa bench --kernel all --json`
///
/// For each device and problem the table has the kernel with the least median time; from then on plans take it. A
/// problem counts when the planner's own choice was timed and at least one other kernel; times with cold caches, of
/// dependent launches and of e4m3 inputs do not.
/// EVO_SDPA_TUNED=FILE puts the table to use.
#[derive(Args)]
pub struct Tune {
    /// Results, one JSON object a line
    #[arg(required = true, value_name = "RESULTS.jsonl")]
    files: Vec<PathBuf>,
    /// Write the table into this file, whose other rows stay; without it, the table is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What was timed on one problem and device.
struct Timed {
    problem: Problem,
    /// Medians by kernel and splits, one for each record.
    medians: BTreeMap<(String, Option<u32>), Vec<f64>>,
    /// Whether the planner's choice is among them.
    has_choice: bool,
}

impl Tune {
    /// Prints or writes the table. Always `Ok(true)`: nothing is checked here.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        let timed = self.read()?;
        let Some(path) = &self.out else {
            let mut tuned = Tuned::default();
            for (device, row) in timed.iter().filter_map(|((device, _), timed)| Some((device, timed.row()?))) {
                tuned.set(device, row);
            }
            write!(out, "{}", tuned.to_json())?;
            return Ok(true);
        };
        let mut tuned = if path.exists() { Tuned::read(path)? } else { Tuned::default() };
        let mut table = Table::new(&["device", "problem", "kernel", "us", "change"]);
        for ((device, _), timed) in timed {
            let (kernel, us, change) = match timed.row() {
                Some(row) => {
                    let (kernel, us) = (row.kernel.clone(), format!("{:.2}", row.us));
                    let change = change(&kernel, tuned.set(&device, row));
                    (kernel, us, change)
                }
                None => ("-".into(), "-".into(), "left out: needs the planner's choice and another kernel".into()),
            };
            table.row([device, timed.problem.to_string(), kernel, us, change]);
        }
        fs::write(path, tuned.to_json()).with_context(|| format!("out: {}", path.display()))?;
        table.write(out)?;
        writeln!(out, "\nwrote {0}; {TUNED_VARIABLE}={0} puts it to use", path.display())?;
        Ok(true)
    }

    fn read(&self) -> Result<BTreeMap<(String, TunedProblem), Timed>> {
        let mut all = BTreeMap::new();
        for path in &self.files {
            for record in read_records(path)? {
                if let Record::Time(time) = record {
                    add(&mut all, &time)?;
                }
            }
        }
        Ok(all)
    }
}

fn read_records(path: &Path) -> Result<Vec<Record>> {
    let name = path.display().to_string();
    Record::read_all(&name, &fs::read_to_string(path).with_context(|| name.clone())?)
}

/// Takes in a time, if it is one of a plain launch of a kernel of ours with warm caches. Tables have no place for e4m3
/// inputs.
fn add(all: &mut BTreeMap<(String, TunedProblem), Timed>, time: &Time) -> Result<()> {
    // The name of a dependent launch is no kernel's.
    let counts = |kernel: &&KernelRecord| {
        let is_plain = !time.method.cold && !time.call.is_quantized();
        time.implementation == OURS && is_plain && Kernel::parse(&kernel.name).is_some()
    };
    let Some(kernel) = time.kernel.as_ref().filter(counts) else {
        return Ok(());
    };
    let problem = time.call.problem()?;
    let timed = all.entry((time.setup.device.clone(), TunedProblem::of(&problem))).or_insert_with(|| Timed {
        problem,
        medians: BTreeMap::new(),
        has_choice: false,
    });
    timed.medians.entry((kernel.name.clone(), kernel.splits)).or_default().push(time.device_us.p50);
    timed.has_choice |= kernel.chosen;
    Ok(())
}

impl Timed {
    /// The fastest kernel, where the times say so: one kernel alone shows nothing, and neither does a choice of kernels
    /// without the one that would run.
    fn row(&self) -> Option<TunedRow> {
        if self.medians.len() < 2 || !self.has_choice {
            return None;
        }
        let median = |times: &Vec<f64>| Quantiles::of(times).map(|times| times.p50);
        let times = self.medians.iter().filter_map(|(launch, times)| Some((launch, median(times)?)));
        let ((kernel, splits), us) = times.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(TunedRow { problem: TunedProblem::of(&self.problem), kernel: kernel.clone(), splits: *splits, us })
    }
}

/// What becomes of the row that was there.
fn change(kernel: &str, before: Option<TunedRow>) -> String {
    match before {
        None => "new".into(),
        Some(before) if before.kernel == kernel => format!("same kernel, was {:.2} us", before.us),
        Some(before) => format!("was {}, {:.2} us", before.kernel, before.us),
    }
}
