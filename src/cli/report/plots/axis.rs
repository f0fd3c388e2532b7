//! Axes: linear, logarithmic, or of names.

use super::shorten;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// Letters of a name that have room.
const NAME: usize = 36;

/// One axis: what it shows, from where to where.
#[derive(Clone)]
pub struct Axis {
    /// Its title.
    pub title: String,
    logarithmic: bool,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to beyond `largest`.
    pub fn linear(title: &str, largest: f64) -> Self {
        let power = 10f64.powf((largest / 6.0).log10().floor());
        let step = [1.0, 2.0, 5.0].map(|unit| unit * power).into_iter().find(|step| step * 6.0 >= largest);
        let step = step.unwrap_or(10.0 * power);
        let steps = (largest * 1.02 / step).ceil();
        let ticks = (0..=steps as u32).map(|i| f64::from(i) * step);
        Self { title: title.into(), logarithmic: false, from: 0.0, to: steps * step, ticks: labelled(ticks) }
    }

    /// From `from` to `to`, both above 0.
    pub fn logarithmic(title: &str, from: f64, to: f64) -> Self {
        let units: &[f64] = match to / from {
            ..50.0 => &[1.0, 2.0, 5.0],
            50.0..3e3 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
        let ticks = decades.flat_map(|decade| units.iter().map(move |unit| unit * 10f64.powi(decade)));
        let ticks = ticks.filter(|tick| (from..=to).contains(tick));
        Self { title: title.into(), logarithmic: true, from, to, ticks: labelled(ticks) }
    }

    /// Names from top to bottom, the first at 0, the next at 1.
    pub fn names(names: &[String]) -> Self {
        let ticks = names.iter().enumerate().map(|(i, name)| (i as f64, shorten(name, NAME))).collect();
        let (from, to) = (names.len() as f64 - 0.4, -0.6);
        Self { title: String::new(), logarithmic: false, from, to, ticks }
    }

    /// With ticks at these values.
    pub fn with_ticks(self, ticks: impl IntoIterator<Item = f64>) -> Self {
        Self { ticks: labelled(ticks), ..self }
    }

    /// Letters of the longest label.
    pub fn letters(&self) -> usize {
        self.ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0)
    }

    /// Where a value lies on the axis: 0 at its start, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.ln() } else { value };
        (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

fn labelled(ticks: impl IntoIterator<Item = f64>) -> Vec<(f64, String)> {
    let label = |tick: f64| {
        // Multiples of a step are not exact.
        let rounded = (tick * 1e6).round() / 1e6;
        let plain = tick == 0.0 || (1e-4..1e6).contains(&tick);
        if plain { rounded.to_string() } else { format!("{tick:.0e}") }
    };
    ticks.into_iter().map(|tick| (tick, label(tick))).collect()
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (self.place(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(tick, _)| *tick).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| tick == value);
        tick.map_or(String::new(), |(_, label)| label.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_that_span_the_values() {
        assert_eq!(ticks(&Axis::linear("", 662.0)), ["0", "200", "400", "600", "800"]);
        assert_eq!(ticks(&Axis::linear("", 0.3)), ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.35"]);
        assert_eq!(ticks(&Axis::logarithmic("", 0.4, 2.5)), ["0.5", "1", "2"]);
        assert_eq!(ticks(&Axis::logarithmic("", 2.0, 9000.0)), ["10", "100", "1000"]);
    }

    #[test]
    fn values_lie_where_their_logarithm_does() {
        let axis = Axis::logarithmic("", 1.0, 100.0);
        assert_eq!([1.0, 10.0, 100.0].map(|value| axis.map(&value, (300, 100))), [300, 200, 100]);
        // Names are 1 apart, with 0.6 before the first and after the last.
        assert_eq!([0.0, 1.0].map(|name| Axis::names(&["a".into(), "b".into()]).map(&name, (220, 0))), [60, 160]);
    }
}
