//! What the simulator found wrong with a kernel.

use anyhow::Result;
use evo_sdpa::sim::ptx_sim::{Finding, Place, Report, Source};
use serde_json::{Value, json};
use std::io::Write;

/// Findings that are written as text.
const WRITTEN: usize = 8;

/// The first finding of a report in one line, with the number of others; `None` for a clean one.
pub fn summary(report: &Report) -> Option<String> {
    let (first, others) = report.findings.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
    let Finding { kind, at, message, count, .. } = first;
    Some(format!("{kind}: {message}, at line {} `{}`, {count} times{more}", at.line, at.instruction))
}

/// All findings as an array.
pub fn json(report: &Report) -> Value {
    report.findings.iter().map(finding).collect()
}

/// Writes the verdict behind `label`, and the worst findings.
pub fn write(report: &Report, label: &str, out: &mut impl Write) -> Result<()> {
    let found = report.findings.len();
    if found == 0 {
        return Ok(writeln!(out, "{label}clean")?);
    }
    writeln!(out, "{label}{found} DEFECTS")?;
    for finding in report.findings.iter().take(WRITTEN) {
        writeln!(out, "{finding}")?;
    }
    if found > WRITTEN {
        writeln!(out, "and {} more, all of them with --json", found - WRITTEN)?;
    }
    Ok(())
}

fn finding(finding: &Finding) -> Value {
    let memory = finding
        .memory
        .map(|(space, address, bytes)| json!({ "space": space.name(), "address": address, "bytes": bytes }));
    json!({
        "kind": finding.kind.name(),
        "message": finding.message,
        "count": finding.count,
        "at": place(&finding.at),
        "with": finding.with.as_ref().map(place),
        "memory": memory,
    })
}

fn place(place: &Place) -> Value {
    json!({
        "line": place.line,
        "instruction": place.instruction,
        "source": place.source.as_ref().map(Source::to_string),
        "block": place.block,
        "warp": place.warp,
        "lane": place.lane,
    })
}
