//! `evo-sdpa report`: results of measurements, joined, as tables and as a page with plots.

mod calls;
mod content;
mod document;
mod join;
mod markdown;
mod model;
mod page;
mod plots;
mod rates;
mod setup;

use super::record::Record;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Join the results of benchmarks into one report
///
/// Ours and the peers' on one device, in files of any order. Several records of one call by one implementation are
/// repeated measurements: their median stands in the tables, and their spread beside it.
#[derive(Args)]
pub struct Report {
    /// Results, one JSON object a line
    #[arg(required = true, value_name = "FILE.jsonl")]
    files: Vec<PathBuf>,
    /// Write report.md and report.html, which has plots, into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "summary")]
    out: Option<PathBuf>,
    /// Print only a short table of our times beside the best peer's
    #[arg(long)]
    summary: bool,
}

impl Report {
    /// Prints the report, or writes its files. Always `Ok(true)`: nothing is checked here.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        let results = join::join(self.read()?)?;
        if self.summary {
            write!(out, "{}", markdown::table(&content::summary(&results)?))?;
            return Ok(true);
        }
        let document = content::document(&results);
        let Some(folder) = &self.out else {
            write!(out, "{}", markdown::render(&document))?;
            return Ok(true);
        };
        let page = page::render(&document, &plots::all(&results)?, &plots::legend(&results));
        fs::create_dir_all(folder).with_context(|| format!("out: {}", folder.display()))?;
        for (name, text) in [("report.md", markdown::render(&document)), ("report.html", page)] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("out: {}", path.display()))?;
            writeln!(out, "{}", path.display())?;
        }
        Ok(true)
    }

    /// The files by name, so that the report does not depend on the order in which they are given.
    fn read(&self) -> Result<Vec<(String, Vec<Record>)>> {
        let read = |path: &PathBuf| -> Result<(String, String)> {
            let name = display(path);
            let text = fs::read_to_string(path).with_context(|| name.clone())?;
            Ok((name, text))
        };
        let mut files: Vec<_> = self.files.iter().map(read).collect::<Result<_>>()?;
        files.sort();
        for (i, (name, text)) in files.iter().enumerate() {
            if let Some((earlier, _)) = files[..i].iter().find(|(_, other)| other == text) {
                anyhow::bail!("{name}: holds the same lines as {earlier}, allowed: each file once");
            }
        }
        let parse = |(name, text): (String, String)| Record::read_all(&name, &text).map(|records| (name, records));
        let files: Vec<_> = files.into_iter().map(parse).collect::<Result<_>>()?;
        let timed = files.iter().flat_map(|(_, records)| records).any(|record| matches!(record, Record::Time(_)));
        ensure!(timed, "{}: hold no time, allowed: at least one record of kind `time`", self.names());
        Ok(files)
    }

    fn names(&self) -> String {
        self.files.iter().map(|path| display(path)).collect::<Vec<_>>().join(", ")
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
