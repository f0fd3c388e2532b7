//! What a report says about where its times come from.

use super::document::{Block, Cell, Section, Table};
use super::join::{Implementation, Results};
use crate::cli::record::{Clocks, Method, Setup};
use std::fmt::Display;

/// Name of the device.
pub fn device(results: &Results) -> &str {
    setups(results).next().map_or("", |setup| &setup.device)
}

/// Device, versions, dates and methods.
pub fn section(results: &Results) -> Section {
    let about = setups(results).map(|setup| {
        format!(
            "{}: compute capability {}.{}, {} multiprocessors, {} MiB of cache.",
            setup.device,
            setup.compute_capability / 10,
            setup.compute_capability % 10,
            setup.sm_count,
            setup.l2_bytes >> 20
        )
    });
    let mut table = Table::default();
    let mut column = |header, value: &dyn Fn(&Implementation) -> String| {
        table.column(header, results.implementations.iter().map(|of| Cell::Text(value(of))));
    };
    column("implementation", &|of| of.name.clone());
    column("software", &|of| distinct(of.setups.iter().map(|setup| setup.software.clone())));
    column("commit", &|of| distinct(of.setups.iter().filter_map(|setup| setup.commit.clone())));
    column("driver", &|of| distinct(of.setups.iter().filter_map(|setup| setup.driver.clone())));
    column("CUDA", &|of| distinct(of.setups.iter().map(|setup| setup.cuda.clone())));
    // The date alone.
    column("date", &|of| distinct(of.setups.iter().map(|setup| setup.started.chars().take(10).collect())));
    column("processes", &|of| of.setups.len().to_string());
    column("calls x replays", &|of| distinct(of.methods.iter().map(|m| format!("{} x {}", m.calls, m.runs))));
    column("seed", &|of| distinct(of.methods.iter().map(|method: &Method| method.seed.to_string())));
    column("SM MHz", &|of| range(of, |clocks| clocks.sm_mhz));
    column("memory MHz", &|of| range(of, |clocks| clocks.memory_mhz));
    column("W", &|of| range(of, |clocks| clocks.power_w.round()));
    column("degrees C", &|of| range(of, |clocks| clocks.temperature_c));
    let method = "Calls of one CUDA graph, back to back, x replays of the graph. With a warm cache, every call takes the \
                  same tensors; with a cold one, calls take sets of tensors in turn that are together larger than the \
                  cache. Clocks, power and temperature are the ranges read while timing.";
    let mut blocks: Vec<_> = about.take(1).map(Block::Text).collect();
    blocks.extend([Block::Text(method.into()), Block::Table(table)]);
    Section { title: "Set-up".into(), blocks }
}

fn setups(results: &Results) -> impl Iterator<Item = &Setup> {
    results.implementations.iter().flat_map(|implementation| &implementation.setups)
}

/// Each value once, or a dash.
fn distinct(values: impl Iterator<Item = String>) -> String {
    let mut values: Vec<_> = values.collect();
    values.sort();
    values.dedup();
    if values.is_empty() { "-".into() } else { values.join(", ") }
}

/// Least and largest, or a dash.
fn range<T: PartialOrd + Display + Copy>(of: &Implementation, value: fn(&Clocks) -> T) -> String {
    let mut values = of.clocks.iter().map(value);
    let Some(first) = values.next() else { return "-".into() };
    let (least, largest) = values.fold((first, first), |(least, largest), value| {
        (if value < least { value } else { least }, if value > largest { value } else { largest })
    });
    if least == largest { least.to_string() } else { format!("{least} to {largest}") }
}
