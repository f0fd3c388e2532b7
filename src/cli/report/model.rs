//! What a report says about the planner's model.

use super::calls;
use super::document::{Block, Cell, Section, rate, ratio};
use super::join::{Results, Row, median};
use evo_sdpa::{DeviceSpec, Kernel, Plan};

/// Predicted times beside the measured ones, and the predictions for an L4; none where no time is ours. Calls that
/// quantise are left out: of that the model has a least time alone.
pub fn section(results: &Results) -> Option<Section> {
    let rows = results.rows.iter().filter(|row| row.call.from.is_none());
    let entries: Vec<_> = rows.filter_map(|row| Some((row, row.ours.as_ref()?))).collect();
    let errors: Vec<_> = entries.iter().map(|(_, ours)| ours.kernel.predicted_us / ours.time.p50).collect();
    let median = median(errors.clone())?;
    let (least, largest) = errors.iter().fold((f64::MAX, 0.0f64), |(l, u), &error| (l.min(error), u.max(error)));
    let rows: Vec<_> = entries.iter().map(|(row, _)| *row).collect();
    let l4: Vec<_> = rows.iter().map(|row| predicted_on_l4(row)).collect();
    let mut table = calls::table(&rows);
    table.column("kernel", entries.iter().map(|(row, ours)| calls::kernel(Some(ours), row)));
    table.column("measured us", entries.iter().map(|(_, ours)| Cell::Number(rate(ours.time.p50))));
    table.column("predicted us", entries.iter().map(|(_, ours)| Cell::Number(rate(ours.kernel.predicted_us))));
    table.column("predicted / measured", errors.iter().map(|&error| Cell::Number(ratio(error))));
    let kernel = |(row, l4): (&&Row, &Option<(Kernel, f64)>)| match l4 {
        Some((kernel, _)) => Cell::Code(calls::kernel_name(&kernel.to_string(), row)),
        None => Cell::Text("-".into()),
    };
    table.column("L4: kernel", rows.iter().zip(&l4).map(kernel));
    table.column("L4: us, prediction", l4.iter().map(|l4| Cell::of(l4.map(|(_, us)| us), rate)));
    let about = format!(
        "The planner chooses kernels by predicted times. Over the measured ones they are {} in the median, from {} to {}. \
         The last two columns are a prediction for an NVIDIA L4, on which nothing here was measured.",
        ratio(median),
        ratio(least),
        ratio(largest)
    );
    Some(Section { title: "Model".into(), blocks: vec![Block::Text(about), Block::Table(table)] })
}

/// The kernel that the planner would choose on an L4, and its predicted microseconds.
fn predicted_on_l4(row: &Row) -> Option<(Kernel, f64)> {
    let candidates = Plan::candidates(&row.problem, &DeviceSpec::L4).ok()?;
    let &(kernel, us) = candidates.first()?;
    Some((kernel, us.total()))
}
