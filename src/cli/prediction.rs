//! What the time model says of a launch, as tables and as an object.

use super::table::Table;
use anyhow::Result;
use evo_sdpa::Prediction;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Writes the terms of the launch, and of one step where the kernel has steps.
pub fn write(prediction: &Prediction, out: &mut impl Write) -> Result<()> {
    let total = prediction.total();
    let mut table = Table::new(&["predicted for the launch", "us", "%"]);
    let all = [("total", total)];
    for (name, time) in prediction.terms().chain(all) {
        // Nothing to compute takes no time.
        let share = 100.0 * time / total.max(f64::MIN_POSITIVE);
        table.row([name.into(), microseconds(time), format!("{share:.0}")]);
    }
    table.write(out)?;
    if let Some(step) = prediction.step {
        let blocks = if step.blocks == 1 { "1 block".into() } else { format!("{} blocks", step.blocks) };
        let mut table = Table::new(&[&format!("predicted for a step of {blocks} on an SM"), "us"]);
        for (name, time) in step.parts().chain([("total", step.total())]) {
            table.row([name.into(), microseconds(time)]);
        }
        writeln!(out)?;
        table.write(out)?;
    }
    Ok(())
}

/// The terms as an object.
pub fn json(prediction: &Prediction) -> Value {
    let object = |parts: &mut dyn Iterator<Item = (&'static str, f64)>| -> Map<String, Value> {
        parts.map(|(name, time)| (name.replace(' ', "_"), time.into())).collect()
    };
    let step = prediction.step.map(
        |step| json!({ "blocks": step.blocks, "parts_us": object(&mut step.parts()), "predicted_us": step.total() }),
    );
    json!({
        "predicted_us": prediction.total(),
        "terms_us": object(&mut prediction.terms()),
        "step": step,
        "bound": prediction.bound.map(|bound| bound.to_string()),
    })
}

/// Microseconds for a table.
pub fn microseconds(time: f64) -> String {
    format!("{time:.2}")
}
