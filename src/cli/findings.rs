//! What the simulator found wrong with a kernel.

use evo_sdpa::sim::ptx_sim::{Finding, Place, Report, Source};
use serde_json::{Value, json};

/// The first finding of a report in one line, with the number of others; `None` for a clean one.
pub fn summary(report: &Report) -> Option<String> {
    let (first, others) = report.findings.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
    let Finding { kind, at, message, count, .. } = first;
    Some(format!("{kind:?}: {message}, at line {} `{}`, {count} times{more}", at.line, at.instruction))
}

/// All findings as an array.
pub fn json(report: &Report) -> Value {
    report.findings.iter().map(finding).collect()
}

/// Where an instruction comes from, `file:line:column`.
pub fn source(source: &Source) -> String {
    let Source { file, line, column } = source;
    format!("{file}:{line}:{column}")
}

fn finding(finding: &Finding) -> Value {
    let memory = finding.memory.map(|(space, address, bytes)| {
        json!({ "space": format!("{space:?}").to_lowercase(), "address": address, "bytes": bytes })
    });
    json!({
        "kind": format!("{:?}", finding.kind),
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
        "source": place.source.as_ref().map(source),
        "block": place.block,
        "warp": place.warp,
        "lane": place.lane,
    })
}
