//! Our time over the best peer's, call by call.

use super::axis::Axis;
use super::canvas::{Side, draw};
use super::look::OUR_COLOR;
use super::{Plot, height, is_drawable, shorten};
use crate::cli::report::join::{Results, Row};
use crate::cli::report::rates::is_ahead;
use crate::cli::report::{calls, document};
use anyhow::Result;
use plotters::style::RGBColor;

const BEHIND: RGBColor = RGBColor(0x8a, 0x8f, 0x98);
const AXIS: RGBColor = RGBColor(0x1d, 0x1f, 0x23);
/// Letters of the best peer's name that have room.
const PEER: usize = 18;

/// Bars around 1, of one type; none without a call that has both times.
pub fn plot(results: &Results, of_type: &str) -> Result<Option<Plot>> {
    let both_caches = results.has_both_caches();
    let bar = |row: &Row| {
        let ratio = row.ratio().filter(|&ratio| is_drawable(ratio))?;
        let (peer, _) = row.best_peer()?;
        Some((calls::name(row, both_caches), ratio, shorten(peer, PEER)))
    };
    let bars: Vec<_> = results.rows_of(of_type).into_iter().filter_map(bar).collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = bars.iter().map(|(name, ..)| name.clone()).collect();
    let (least, largest) = bars.iter().fold((0.8f64, 1.25f64), |(l, u), (_, ratio, _)| (l.min(*ratio), u.max(*ratio)));
    // Room for a number at the end of the longest bars.
    let room = (largest / least).powf(0.2);
    let x = Axis::logarithmic("our time / best peer's, logarithmic", least / room, largest * room);
    let svg = draw((600, height(bars.len())), PEER + 1, x, Axis::names(&names), |canvas| {
        for (i, (_, ratio, peer)) in bars.iter().enumerate() {
            let (color, side) = if is_ahead(*ratio) { (OUR_COLOR, Side::Left) } else { (BEHIND, Side::Right) };
            canvas.bar(1.0, *ratio, i as f64, 14, color)?;
            canvas.text(&document::ratio(*ratio), (*ratio, i as f64), side)?;
            canvas.note(peer, i as f64, Side::Right)?;
        }
        canvas.line(&[(1.0, -0.6), (1.0, bars.len() as f64 - 0.4)], AXIS, 1)
    })?;
    let caption = "Bars to the left are calls on which we are faster. On the right the fastest peer.";
    Ok(Some(Plot { title: format!("Our time / best peer's, {of_type}"), caption: caption.into(), svg, wide: false }))
}
