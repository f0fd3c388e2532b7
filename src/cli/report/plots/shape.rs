//! TFLOP/s of every implementation, call by call.

use super::axis::Axis;
use super::canvas::draw;
use super::look::looks;
use super::{Plot, height, tflops};
use crate::cli::report::calls;
use crate::cli::report::join::Results;
use anyhow::Result;
use plotters::style::RGBColor;

const THREAD: RGBColor = RGBColor(0xc9, 0xc6, 0xc0);

/// Dots on a line a call, of one type; none where no call has a rate.
pub fn plot(results: &Results, of_type: &str) -> Result<Option<Plot>> {
    let looks = looks(results);
    let rates = |row| looks.iter().filter_map(move |(name, look)| Some((tflops(row, name)?, look)));
    let rows: Vec<_> = results.rows_of(of_type).into_iter().filter(|row| rates(row).next().is_some()).collect();
    let Some(largest) = rows.iter().flat_map(|row| rates(row)).map(|(rate, _)| rate).reduce(f64::max) else {
        return Ok(None);
    };
    let both_caches = results.has_both_caches();
    let names: Vec<_> = rows.iter().map(|row| calls::name(row, both_caches)).collect();
    let svg = draw((600, height(rows.len())), 1, Axis::linear("TFLOP/s", largest), Axis::names(&names), |canvas| {
        for (i, row) in rows.iter().enumerate() {
            let (least, largest) = rates(row).fold((f64::MAX, 0.0f64), |(l, u), (rate, _)| (l.min(rate), u.max(rate)));
            canvas.line(&[(least, i as f64), (largest, i as f64)], THREAD, 2)?;
            for (rate, look) in rates(row) {
                canvas.mark((rate, i as f64), look)?;
            }
        }
        Ok(())
    })?;
    let caption = "Operations of the two products that the mask leaves, by the median time on the device.";
    Ok(Some(Plot { title: format!("TFLOP/s by call, {of_type}"), caption: caption.into(), svg, wide: false }))
}
