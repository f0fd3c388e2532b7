//! A plot with two axes, as SVG.

use super::axis::Axis;
use super::look::{Look, Marker};
use anyhow::Result;
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const INK: RGBColor = RGBColor(0x1d, 0x1f, 0x23);
const QUIET: RGBColor = RGBColor(0x5d, 0x62, 0x6b);
const GRID: RGBColor = RGBColor(0xe6, 0xe4, 0xe0);
/// Size of letters as plotters counts; it writes 1 / 1.24 of it.
const LETTERS: f64 = 15.0;
/// Width of a letter, pixels, on the safe side.
const LETTER_WIDTH: usize = 7;

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub enum Side {
    /// Left of it.
    Left,
    /// Right of it.
    Right,
    /// Above it and to the left.
    AboveLeft,
    /// Right of it, and not below it.
    RightAbove,
    /// Right of it, and not above it.
    RightBelow,
}

/// A plot to draw on, in the units of its axes.
pub struct Canvas<'a> {
    root: DrawingArea<SVGBackend<'a>, Shift>,
    chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>,
}

/// The SVG of a plot of this size, pixels, with room for `right` letters on its right.
pub fn draw(
    size: (u32, u32),
    right: usize,
    x: Axis,
    y: Axis,
    content: impl Fn(&Canvas) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let letters = ("sans-serif", LETTERS).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&root)
        .margin_top(10)
        .margin_right((right * LETTER_WIDTH + 12) as u32)
        .x_label_area_size(44)
        .y_label_area_size((y.letters() * LETTER_WIDTH + if y.title.is_empty() { 12 } else { 32 }) as u32)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(QUIET)
        .label_style(letters.clone())
        .axis_desc_style(letters)
        .x_desc(&x.title)
        .y_desc(&y.title)
        .draw()?;
    let canvas = Canvas { root, chart };
    content(&canvas)?;
    canvas.root.present()?;
    drop(canvas);
    // Inside a page, the name space goes without saying.
    Ok(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", " role=\"img\"", 1))
}

impl Canvas<'_> {
    /// A line through points.
    pub fn line(&self, points: &[(f64, f64)], color: RGBColor, width: u32) -> Result<()> {
        let points = points.iter().map(|&point| self.pixel(point)).collect::<Vec<_>>();
        self.root.draw(&PathElement::new(points, color.stroke_width(width)))?;
        Ok(())
    }

    /// A bar between two points on one height, this thick in pixels.
    pub fn bar(&self, from: f64, to: f64, y: f64, thickness: i32, color: RGBColor) -> Result<()> {
        let ((a, y), (b, _)) = (self.pixel((from, y)), self.pixel((to, y)));
        let corners = [(a.min(b), y - thickness / 2), (a.max(b).max(a.min(b) + 1), y + thickness / 2)];
        self.root.draw(&Rectangle::new(corners, color.filled()))?;
        Ok(())
    }

    /// The mark of an implementation.
    pub fn mark(&self, point: (f64, f64), look: &Look) -> Result<()> {
        let (x, y) = self.pixel(point);
        let Look { color, marker, size } = *look;
        let corners =
            |corners: [(i32, i32); 4]| corners.map(|(dx, dy)| (x + dx * size / 8, y + dy * size / 8)).to_vec();
        match marker {
            Marker::Circle => self.root.draw(&Circle::new((x, y), size, color.filled()))?,
            Marker::Ring => self.root.draw(&Circle::new((x, y), size, color.stroke_width(2)))?,
            Marker::Square => {
                self.root.draw(&Polygon::new(corners([(-7, -7), (7, -7), (7, 7), (-7, 7)]), color.filled()))?
            }
            Marker::Diamond => {
                self.root.draw(&Polygon::new(corners([(0, -10), (10, 0), (0, 10), (-10, 0)]), color.filled()))?
            }
            Marker::Triangle => self.root.draw(&TriangleMarker::new((x, y), size + 1, color.filled()))?,
            Marker::Cross => self.root.draw(&Cross::new((x, y), size - 1, color.stroke_width(2)))?,
        }
        Ok(())
    }

    /// A text on the right of the plot, at a value of its vertical axis.
    pub fn note(&self, text: &str, y: f64, side: Side) -> Result<()> {
        self.text(text, (self.chart.x_range().end, y), side)
    }

    /// A text beside a point.
    pub fn text(&self, text: &str, point: (f64, f64), side: Side) -> Result<()> {
        let (dx, dy, h, v) = match side {
            Side::Left => (-6, 0, HPos::Right, VPos::Center),
            Side::Right => (8, 0, HPos::Left, VPos::Center),
            Side::AboveLeft => (-6, -4, HPos::Right, VPos::Bottom),
            Side::RightAbove => (8, 2, HPos::Left, VPos::Bottom),
            Side::RightBelow => (8, 0, HPos::Left, VPos::Top),
        };
        let (x, y) = self.pixel(point);
        let style = ("sans-serif", LETTERS).into_font().color(&INK).pos(Pos::new(h, v));
        self.root.draw(&Text::new(text.to_string(), (x + dx, y + dy), style))?;
        Ok(())
    }

    fn pixel(&self, point: (f64, f64)) -> (i32, i32) {
        self.chart.backend_coord(&point)
    }
}
