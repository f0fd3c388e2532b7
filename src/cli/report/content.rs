//! What a report says about times.

use super::calls;
use super::document::{Block, Cell, Document, Headline, Section, Table, fine_percent, percent, rate, ratio};
use super::join::{Measured, Results, Row};
use super::rates::{Roofline, geometric_mean, is_ahead};
use super::{model, setup};
use crate::cli::record::{Call, KernelRecord, OURS};
use anyhow::{Result, ensure};

/// Calls that take less time than this are repeated less well, microseconds.
const SHORT_US: f64 = 20.0;

/// The whole report.
pub fn document(results: &Results) -> Document {
    let names: Vec<_> = results.names().collect();
    let mut sections: Vec<_> = results.types().iter().map(|of_type| times(results, of_type)).collect();
    sections.extend(latency(results));
    sections.push(repeatability(results));
    sections.push(quantiles(results));
    sections.extend(kernels(results));
    sections.extend(model::section(results));
    sections.push(setup::section(results));
    Document {
        title: format!("Attention on {}", setup::device(results)),
        lead: format!(
            "Forward attention, {} calls, timed with {}. A call is written as (batch, heads, length, head dim).",
            results.rows.len(),
            names.join(", ")
        ),
        headlines: headlines(results),
        sections,
    }
}

/// Our times beside the peers', in few columns.
///
/// # Errors
/// Where no time is ours.
pub fn summary(results: &Results) -> Result<Table> {
    let rows: Vec<_> = results.rows.iter().filter(|row| row.ours.is_some()).collect();
    ensure!(!rows.is_empty(), "summary: no time of {OURS}, allowed: results with a kernel that the planner chooses");
    let mut table = calls::table(&rows);
    table.column("kernel", rows.iter().map(|row| calls::kernel(row.ours.as_ref(), row)));
    table.column("us", rows.iter().map(|row| us(row.by(OURS))));
    for peer in results.peers().filter(|peer| rows.iter().any(|row| row.by(peer).is_some())) {
        table.column(peer, rows.iter().map(|row| us(row.by(peer))));
    }
    table.column("ours / best", rows.iter().map(|row| ratio_cell(row.ratio())));
    table.column("TFLOP/s", rows.iter().map(|row| Cell::of(row.by(OURS).map(|time| row.tflops(time.p50)), rate)));
    Ok(table)
}

fn headlines(results: &Results) -> Vec<Headline> {
    let mut headlines = Vec::new();
    let mut say = |figure: String, meaning: String| headlines.push(Headline { figure, meaning });
    let full_name = |row: &Row| format!("{} {}", row.call.type_name(), calls::name(row, results.has_both_caches()));
    let ours = || results.rows.iter().filter_map(|row| Some((row, &row.ours.as_ref()?.time)));
    if let Some((row, time)) = ours().next() {
        let peer =
            row.best_peer().map_or(String::new(), |(name, peer)| format!("; {name} takes {} us", rate(peer.p50)));
        say(format!("{} us", rate(time.p50)), format!("one call, {}{peer}", full_name(row)));
    }
    let ratios: Vec<_> = results.rows.iter().filter_map(Row::ratio).collect();
    if let Some(mean) = geometric_mean(&ratios) {
        let ahead = ratios.iter().filter(|&&ratio| is_ahead(ratio)).count();
        let (least, largest) = ratios.iter().fold((f64::MAX, 0.0f64), |(l, u), &r| (l.min(r), u.max(r)));
        say(format!("{ahead} of {}", ratios.len()), "calls on which we are ahead of every peer".into());
        let range = format!("from {} to {}", ratio(least), ratio(largest));
        say(ratio(mean), format!("of the best peer's time, geometric mean over calls, {range}"));
    }
    if let Some((row, time)) = ours().max_by(|a, b| a.0.tflops(a.1.p50).total_cmp(&b.0.tflops(b.1.p50))) {
        let share = Roofline::of(&results.limits, &row.call.dtype).map(|roofline| roofline.share(row, time.p50));
        let share = share.map_or(String::new(), |share| format!(", {} of the roofline", percent(share)));
        say(format!("{} TFLOP/s", rate(row.tflops(time.p50))), format!("our highest rate, {}{share}", full_name(row)));
    }
    headlines
}

/// The main table of one type.
fn times(results: &Results, of_type: &str) -> Section {
    let rows = results.rows_of(of_type);
    let dtype = rows.first().map_or("", |row| &row.call.dtype);
    let roofline = Roofline::of(&results.limits, dtype);
    let have_ours = rows.iter().any(|row| row.ours.is_some());
    let mut table = calls::table(&rows);
    if have_ours {
        table.column("our kernel", rows.iter().map(|row| calls::kernel(row.ours.as_ref(), row)));
        table.column("ours us", rows.iter().map(|row| us(row.by(OURS))));
    }
    for peer in results.peers().filter(|peer| rows.iter().any(|row| row.by(peer).is_some())) {
        table.column(&format!("{peer} us"), rows.iter().map(|row| us(row.by(peer))));
    }
    if have_ours {
        rank(&mut table, &rows);
        rates(&mut table, &rows, roofline.as_ref());
    }
    let cache = match (results.has_both_caches(), results.rows[0].cold) {
        (true, _) => "",
        (false, true) => " The cache is cold.",
        (false, false) => " The cache is warm.",
    };
    let about = "Time of one call on the device, microseconds: the median of replays of a CUDA graph of calls, and of \
                 repeated measurements the median again.";
    let mut blocks = vec![Block::Text(format!("{about}{cache}"))];
    if have_ours {
        let about = "A ratio below 1 is faster. TFLOP/s, GB/s and the share of the roofline are ours: 4 x head dim \
                     operations for each query and key that it sees; bytes of queries, keys, values and output, each \
                     once. Kernels are named without fwd and the type.";
        blocks.push(Block::Text(about.into()));
    }
    let quantized = rows.first().filter(|row| row.call.is_quantized());
    blocks.extend(quantized.map(|row| Block::Text(describe_quantizing(&row.call))));
    blocks.extend(roofline.map(|roofline| Block::Text(describe(&roofline, dtype))));
    blocks.push(Block::Table(table));
    Section { title: format!("Times, {of_type}"), blocks }
}

/// Which part of the time is that of quantising.
fn describe_quantizing(call: &Call) -> String {
    match &call.from {
        None => {
            let values = call.values.as_ref().map(|values| format!(", values {values}")).unwrap_or_default();
            format!(
                "Queries, keys and values are e4m3 numbers with scales when a call begins{values}: no time is that of \
                 quantising."
            )
        }
        Some(from) => format!(
            "Queries, keys and values are of type {from} when a call begins, which quantises them on the device: its \
             time is that of all of its launches. A kernel is that of attention."
        ),
    }
}

/// What our times amount to.
fn rates(table: &mut Table, rows: &[&Row], roofline: Option<&Roofline>) {
    let mut column = |header, value: &dyn Fn(&Row, f64) -> Option<f64>, format: fn(f64) -> String| {
        let value = |row: &&Row| value(row, row.by(OURS)?.p50);
        table.column(header, rows.iter().map(|row| Cell::of(value(row), format)));
    };
    column("TFLOP/s", &|row, us| Some(row.tflops(us)), rate);
    if rows.iter().any(|row| row.is_decoding()) {
        column("GB/s", &|row, us| row.is_decoding().then(|| row.gbs(us)), rate);
    }
    if let Some(roofline) = roofline {
        column("of roofline", &|row, us| Some(roofline.share(row, us)), percent);
    }
}

fn describe(roofline: &Roofline, dtype: &str) -> String {
    let Roofline { matrix_tflops, matrix_source, copy_gbs, copy_source } = roofline;
    format!(
        "The roofline is the least of {} TFLOP/s, the highest rate of {dtype} products measured on this device \
         ({matrix_source}), and of operations a byte x {} GB/s, the highest rate of a copy within its memory \
         ({copy_source}). Where tensors stay in the cache, or memory is only read, a call may be above it.",
        rate(*matrix_tflops),
        rate(*copy_gbs)
    )
}

/// The best peer and our time over its.
fn rank(table: &mut Table, rows: &[&Row]) {
    if rows.iter().all(|row| row.peers.is_empty()) {
        return;
    }
    let name = |row: &&Row| Cell::Text(row.best_peer().map_or("-", |(name, _)| name).into());
    table.column("best peer", rows.iter().map(name));
    table.column("ours / best peer", rows.iter().map(|row| ratio_cell(row.ratio())));
}

fn ratio_cell(value: Option<f64>) -> Cell {
    match value {
        Some(value) if is_ahead(value) => Cell::Strong(ratio(value)),
        value => Cell::of(value, ratio),
    }
}

fn us(time: Option<&Measured>) -> Cell {
    Cell::of(time.map(|time| time.p50), rate)
}

/// What callers wait for, where it was measured.
fn latency(results: &Results) -> Option<Section> {
    let has_latency = |row: &&Row, name: &str| row.by(name).is_some_and(|time| time.call_us.is_some());
    let names: Vec<_> = results.names().collect();
    let rows: Vec<_> = results.rows.iter().filter(|row| names.iter().any(|name| has_latency(row, name))).collect();
    if rows.is_empty() {
        return None;
    }
    let mut table = calls::table(&rows);
    for name in names.into_iter().filter(|name| rows.iter().any(|row| has_latency(row, name))) {
        let cells = rows.iter().map(|row| Cell::of(row.by(name).and_then(|time| time.call_us), rate));
        table.column(&format!("{name} us"), cells);
    }
    let mut about =
        "Time of one call as its caller sees it, from the call until the answer is there, microseconds: median."
            .to_owned();
    let launches: Vec<_> = rows.iter().map(|row| row.by(OURS).and_then(|time| time.launch_us)).collect();
    if launches.iter().any(Option::is_some) {
        table.column(&format!("{OURS} launch us"), launches.iter().map(|&us| Cell::of(us, rate)));
        about += " Of a launch: what the host takes for one of many in a row, with the plan at hand, without waiting.";
    }
    Some(Section { title: "Latency of a call".into(), blocks: vec![Block::Text(about), Block::Table(table)] })
}

/// How much repeated measurements differ.
fn repeatability(results: &Results) -> Section {
    let names: Vec<_> = results.names().collect();
    let mut table = Table::default();
    table.column("implementation", names.iter().map(|name| Cell::Text((*name).into())));
    type Range = (&'static str, fn(f64) -> bool);
    let ranges: [Range; 2] = [("above", |us| us > SHORT_US), ("up to", |us| us <= SHORT_US)];
    for (range, within) in ranges {
        let worst: Vec<_> = names.iter().map(|name| largest_spread(results, name, within)).collect();
        let spread = worst.iter().map(|worst| Cell::of(worst.as_ref().map(|(spread, _)| *spread), fine_percent));
        table.column(&format!("{range} {SHORT_US:.0} us"), spread);
        let call = worst.iter().map(|worst| Cell::Text(worst.as_ref().map_or("-", |(_, call)| call).into()));
        table.column("at", call);
    }
    let about = "The largest spread of repeated measurements of one call: the largest median over the least, less 1.";
    let blocks = if results.rows.iter().any(|row| names.iter().any(|name| repeated(row, name).is_some())) {
        vec![Block::Text(about.into()), Block::Table(table)]
    } else {
        vec![Block::Text("No call was measured more than once.".into())]
    };
    Section { title: "Repeatability".into(), blocks }
}

fn repeated<'a>(row: &'a Row, implementation: &str) -> Option<&'a Measured> {
    row.by(implementation).filter(|time| time.times > 1)
}

/// Among calls whose time is within a range; with the call.
fn largest_spread(results: &Results, implementation: &str, within: fn(f64) -> bool) -> Option<(f64, String)> {
    let spreads = results.rows.iter().filter_map(|row| Some((row, repeated(row, implementation)?)));
    let (row, time) = spreads.filter(|(_, time)| within(time.p50)).max_by(|a, b| a.1.spread.total_cmp(&b.1.spread))?;
    let name = calls::name(row, results.has_both_caches());
    Some((time.spread, format!("{} {name}, {} times", row.call.type_name(), time.times)))
}

/// Every time with its quantiles.
fn quantiles(results: &Results) -> Section {
    let names = results.names();
    let times = |row| names.clone().filter_map(move |name| Row::by(row, name).map(|time| (row, name, time)));
    let entries: Vec<_> = results.rows.iter().flat_map(times).collect();
    let rows: Vec<_> = entries.iter().map(|(row, ..)| *row).collect();
    let mut table = calls::table(&rows);
    table.column("implementation", entries.iter().map(|(_, name, _)| Cell::Text((*name).into())));
    let mut column = |header, value: &dyn Fn(&Row, &Measured) -> Cell| {
        table.column(header, entries.iter().map(|(row, _, time)| value(row, time)));
    };
    column("p50 us", &|_, time| us(Some(time)));
    column("p90 us", &|_, time| Cell::Number(rate(time.p90)));
    column("p99 us", &|_, time| Cell::Number(rate(time.p99)));
    column("TFLOP/s", &|row, time| Cell::Number(rate(row.tflops(time.p50))));
    column("measurements", &|_, time| Cell::Number(time.times.to_string()));
    column("spread", &|_, time| Cell::of((time.times > 1).then_some(time.spread), fine_percent));
    Section { title: "Every time".into(), blocks: vec![Block::Details(table)] }
}

/// All of our kernels that were timed, the planner's choice first.
fn kernels(results: &Results) -> Option<Section> {
    let entries: Vec<_> =
        results.rows.iter().flat_map(|row| row.ours.iter().chain(&row.others).map(move |ours| (row, ours))).collect();
    if entries.is_empty() {
        return None;
    }
    let rows: Vec<_> = entries.iter().map(|(row, _)| *row).collect();
    let mut table = calls::table(&rows);
    table.column("kernel", entries.iter().map(|(row, ours)| calls::kernel(Some(ours), row)));
    table.column("us", entries.iter().map(|(_, ours)| us(Some(&ours.time))));
    let relative = entries.iter().map(|(row, ours)| ratio_cell(row.by(OURS).map(|time| ours.time.p50 / time.p50)));
    table.column("/ chosen", relative);
    table.column("predicted us", entries.iter().map(|(_, ours)| Cell::Number(rate(ours.kernel.predicted_us))));
    let mut column = |header, value: &dyn Fn(&KernelRecord) -> String| {
        table.column(header, entries.iter().map(|(_, ours)| Cell::Number(value(&ours.kernel))));
    };
    column("registers", &|kernel| kernel.registers.to_string());
    column("local B", &|kernel| kernel.local_bytes.to_string());
    column("shared B", &|kernel| kernel.shared_bytes.to_string());
    column("blocks/SM", &|kernel| kernel.blocks_per_sm.to_string());
    column("relative error", &|kernel| format!("{:.1e}", kernel.relative_error));
    let about = "The planner's choice first, at 1.00; a kernel below 1 would have been the better choice.";
    Some(Section { title: "Every kernel".into(), blocks: vec![Block::Text(about.into()), Block::Details(table)] })
}
