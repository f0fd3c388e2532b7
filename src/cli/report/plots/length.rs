//! Time and TFLOP/s by sequence length.

use super::axis::Axis;
use super::canvas::draw;
use super::look::looks;
use super::{Plot, is_drawable, tflops};
use crate::cli::report::calls;
use crate::cli::report::join::{Results, Row};
use anyhow::Result;
use std::collections::BTreeMap;

/// What the calls of one plot have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Family {
    head_dim: usize,
    is_causal: bool,
    mask: String,
    cold: bool,
}

/// What a plot shows of a call.
#[derive(Clone, Copy)]
enum Quantity {
    /// Microseconds for each head of each sequence, so that calls of different batches are on one line.
    Time,
    /// Operations a second, 10^12.
    Rate,
}

impl Quantity {
    fn title(self) -> &'static str {
        match self {
            Quantity::Time => "Time of a head",
            Quantity::Rate => "TFLOP/s",
        }
    }

    /// Where it is a number that an axis can show.
    fn of(self, row: &Row, implementation: &str) -> Option<f64> {
        match self {
            Quantity::Time => {
                let heads = row.problem.batch() * row.problem.heads_q();
                Some(row.by(implementation)?.p50 / heads as f64).filter(|&us| is_drawable(us))
            }
            Quantity::Rate => tflops(row, implementation),
        }
    }

    fn axis(self, least: f64, largest: f64) -> Axis {
        match self {
            Quantity::Time => Axis::logarithmic("us / (batch x heads)", least / 1.3, largest * 1.3),
            Quantity::Rate => Axis::linear("TFLOP/s", largest),
        }
    }
}

/// Two plots for each family of queries on as many keys, of one type, that has two lengths.
pub fn plots(results: &Results, of_type: &str) -> Result<Vec<Plot>> {
    let mut families = BTreeMap::<_, BTreeMap<usize, &Row>>::new();
    for row in results.rows_of(of_type) {
        let problem = &row.problem;
        if problem.q_len() != problem.kv_len() || !looks(results).iter().any(|(name, _)| tflops(row, name).is_some()) {
            continue;
        }
        let (head_dim, is_causal) = (problem.head_dim(), problem.causal.is_some());
        let family = Family { head_dim, is_causal, mask: calls::mask(row), cold: row.cold };
        // Of one length, the call with the most work.
        let kept = families.entry(family).or_default().entry(problem.q_len()).or_insert(row);
        if problem.flops() > kept.problem.flops() {
            *kept = row;
        }
    }
    families.retain(|_, rows| rows.len() > 1);
    let quantities = [Quantity::Time, Quantity::Rate];
    let plots = families
        .iter()
        .flat_map(|(family, rows)| quantities.map(|quantity| plot(results, of_type, family, rows, quantity)));
    plots.collect()
}

fn plot(
    results: &Results,
    of_type: &str,
    family: &Family,
    rows: &BTreeMap<usize, &Row>,
    quantity: Quantity,
) -> Result<Plot> {
    let looks = looks(results);
    let line = |name: &str| {
        let points = rows.iter().filter_map(|(&len, row)| Some((len as f64, quantity.of(row, name)?)));
        points.collect::<Vec<_>>()
    };
    let lines: Vec<_> = looks.iter().map(|(name, look)| (line(name), look)).collect();
    let (first, last) =
        lines.iter().flat_map(|(line, _)| line).fold((f64::MAX, 0.0f64), |(l, u), p| (l.min(p.0), u.max(p.0)));
    let (least, largest) =
        lines.iter().flat_map(|(line, _)| line).fold((f64::MAX, 0.0f64), |(l, u), p| (l.min(p.1), u.max(p.1)));
    let margin = (last / first).powf(0.06);
    // Labels stand apart by at least a tenth of the axis.
    let apart = (last / first).powf(0.1);
    let mut ticks: Vec<f64> = Vec::new();
    for len in rows.keys().map(|&len| len as f64) {
        if ticks.last().is_none_or(|last| len >= last * apart) {
            ticks.push(len);
        }
    }
    let x = Axis::logarithmic("sequence length", first / margin, last * margin).with_ticks(ticks);
    let svg = draw((600, 330), 1, x, quantity.axis(least, largest), |canvas| {
        for (line, look) in &lines {
            canvas.line(line, look.color, 2)?;
        }
        for (line, look) in &lines {
            line.iter().try_for_each(|&point| canvas.mark(point, look))?;
        }
        Ok(())
    })?;
    let batches = rows.iter().map(|(len, row)| format!("{} x {} at {len}", row.problem.batch(), row.problem.heads_q()));
    let caption = format!("Batch x heads: {}.", batches.collect::<Vec<_>>().join(", "));
    let mask = if family.is_causal { &family.mask } else { "no mask" };
    let cache = match (results.has_both_caches(), family.cold) {
        (false, _) => "",
        (true, true) => ", cold cache",
        (true, false) => ", warm cache",
    };
    let title =
        format!("{} by sequence length: {of_type}, head dim {}, {mask}{cache}", quantity.title(), family.head_dim);
    Ok(Plot { title, caption, svg, wide: false })
}
