//! Rates by intensity, under what the device gives.

use super::axis::Axis;
use super::canvas::{Side, draw};
use super::look::looks;
use super::{Plot, is_drawable, tflops};
use crate::cli::report::document::rate;
use crate::cli::report::join::Results;
use crate::cli::report::rates::{Roofline, matrix_rates};
use anyhow::Result;
use plotters::style::RGBColor;

const CEILING: RGBColor = RGBColor(0x1d, 0x1f, 0x23);
const LOWER: RGBColor = RGBColor(0x8a, 0x8f, 0x98);

/// All calls of one type; none where no rates of the device were measured.
pub fn plot(results: &Results, of_type: &str) -> Result<Option<Plot>> {
    let rows = results.rows_of(of_type);
    let Some(dtype) = rows.first().map(|row| row.call.dtype.as_str()) else { return Ok(None) };
    let Some(roofline) = Roofline::of(&results.limits, dtype) else { return Ok(None) };
    let looks = looks(results);
    let points = looks.iter().flat_map(|(name, look)| {
        rows.iter().filter_map(move |row| Some(((row.intensity(), tflops(row, name)?), look)))
    });
    let points: Vec<_> = points.filter(|((intensity, _), _)| is_drawable(*intensity)).collect();
    let ridge = roofline.matrix_tflops / roofline.copy_gbs * 1e3;
    if points.is_empty() || !is_drawable(ridge) || !is_drawable(roofline.matrix_tflops) {
        return Ok(None);
    }
    let bounds = points.iter().fold((ridge, ridge, roofline.matrix_tflops), |(least, largest, low), ((x, y), _)| {
        (least.min(*x), largest.max(*x), low.min(*y))
    });
    let (least, largest, low) = (bounds.0 / 1.6, bounds.1 * 1.6, bounds.2 / 1.6);
    let top = points.iter().fold(roofline.matrix_tflops, |top, ((_, y), _)| top.max(*y)) * 1.6;
    let x = Axis::logarithmic("operations a byte of queries, keys, values and output", least, largest);
    let y = Axis::logarithmic("TFLOP/s", low.min(roofline.at(least)), top);
    let lower = matrix_rates(&results.limits, dtype).filter(|(source, _)| *source != roofline.matrix_source);
    let lower = lower.max_by(|a, b| a.1.total_cmp(&b.1));
    let svg = draw((800, 440), 12, x, y, |canvas| {
        if let Some((_, tflops)) = lower {
            canvas.line(&[(tflops / roofline.copy_gbs * 1e3, tflops), (largest, tflops)], LOWER, 1)?;
            canvas.note(&format!("{} TFLOP/s", rate(tflops)), tflops, Side::RightBelow)?;
        }
        let (corner, end) = ((ridge, roofline.matrix_tflops), (largest, roofline.matrix_tflops));
        canvas.line(&[(least, roofline.at(least)), corner, end], CEILING, 2)?;
        canvas.note(&format!("{} TFLOP/s", rate(end.1)), end.1, Side::RightAbove)?;
        // Three quarters up the slope, where its upper side is free.
        let upper = (least * ridge.powi(3)).powf(0.25);
        let copy = format!("{} GB/s", rate(roofline.copy_gbs));
        canvas.text(&copy, (upper, roofline.at(upper)), Side::AboveLeft)?;
        points.iter().try_for_each(|(point, look)| canvas.mark(*point, look))
    })?;
    let lower =
        lower.map_or(String::new(), |(source, tflops)| format!(" In grey {} TFLOP/s ({source}).", rate(tflops)));
    let caption = format!(
        "The line is the least of {} TFLOP/s ({}) and of {} GB/s ({}, copy), measured on this device.{lower} Points above \
         the line are calls whose tensors stay in the cache or are only read. Both axes are logarithmic.",
        rate(roofline.matrix_tflops),
        roofline.matrix_source,
        rate(roofline.copy_gbs),
        roofline.copy_source
    );
    Ok(Some(Plot { title: format!("Roofline, {of_type}"), caption, svg, wide: true }))
}
