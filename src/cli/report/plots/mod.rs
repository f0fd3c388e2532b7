//! Plots of a report.

mod axis;
mod canvas;
mod length;
mod look;
mod ratio;
mod roofline;
mod shape;

use super::join::{Results, Row};
use anyhow::Result;
pub use look::{Key, legend};

/// A picture and what it shows.
pub struct Plot {
    /// Its title.
    pub title: String,
    /// What is to be known for reading it.
    pub caption: String,
    /// The picture.
    pub svg: String,
    /// Whether it wants the whole width of a page.
    pub wide: bool,
}

/// Every plot that the results are enough for, type by type.
///
/// # Errors
/// None but those of the drawing itself.
pub fn all(results: &Results) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for of_type in &results.types() {
        plots.extend(ratio::plot(results, of_type)?);
        plots.extend(shape::plot(results, of_type)?);
        plots.extend(length::plots(results, of_type)?);
        plots.extend(roofline::plot(results, of_type)?);
    }
    Ok(plots)
}

/// TFLOP/s of an implementation, where it is a number that an axis can show.
fn tflops(row: &Row, implementation: &str) -> Option<f64> {
    let tflops = row.tflops(row.by(implementation)?.p50);
    is_drawable(tflops).then_some(tflops)
}

/// Far beyond what any device does, and well within what a logarithmic axis takes.
fn is_drawable(value: f64) -> bool {
    (1e-9..1e9).contains(&value)
}

/// Height of a plot with a line for each of some names, pixels.
fn height(lines: usize) -> u32 {
    60 + 25 * lines as u32
}

/// A name in so many letters at most.
fn shorten(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.into();
    }
    name.chars().take(letters - 1).chain(['\u{2026}']).collect()
}
