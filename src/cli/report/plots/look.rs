//! Colours and marks, the same for an implementation in every plot.

use crate::cli::record::OURS;
use crate::cli::report::join::Results;
use plotters::style::RGBColor;

/// Ours: vermilion of the palette of Okabe and Ito, which the colour-blind can tell apart.
pub const OUR_COLOR: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// The rest of that palette without its yellow, and a grey.
const COLORS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0xe6, 0x9f, 0x00),
];
const MARKERS: [Marker; 5] = [Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross, Marker::Ring];

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A disc, ours alone.
    Circle,
    /// A circle.
    Ring,
    /// A square.
    Square,
    /// A square on its corner.
    Diamond,
    /// A triangle.
    Triangle,
    /// A cross.
    Cross,
}

impl Marker {
    fn glyph(self) -> char {
        match self {
            Marker::Circle => '\u{25cf}',
            Marker::Ring => '\u{25cb}',
            Marker::Square => '\u{25a0}',
            Marker::Diamond => '\u{25c6}',
            Marker::Triangle => '\u{25b2}',
            Marker::Cross => '\u{2715}',
        }
    }
}

/// How an implementation is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Its colour.
    pub color: RGBColor,
    /// Its mark.
    pub marker: Marker,
    /// Half the mark's width, pixels.
    pub size: i32,
}

/// A line of the legend.
pub struct Key {
    /// The implementation.
    pub name: String,
    /// Its colour, as CSS has it.
    pub color: String,
    /// Its mark as a letter.
    pub glyph: char,
}

/// All implementations with their looks; ours comes last, to be drawn over the others.
pub fn looks(results: &Results) -> Vec<(&str, Look)> {
    // Six colours and five marks: thirty pairs before one comes again.
    let peer = |(i, name)| (name, Look { color: COLORS[i % 6], marker: MARKERS[i % 5], size: 5 });
    let peers = results.peers().enumerate().map(peer);
    let ours = results.names().filter(|name| *name == OURS);
    peers.chain(ours.map(|name| (name, Look { color: OUR_COLOR, marker: Marker::Circle, size: 6 }))).collect()
}

/// What the marks mean, ours first.
pub fn legend(results: &Results) -> Vec<Key> {
    let key = |(name, Look { color: RGBColor(r, g, b), marker, .. }): (&str, Look)| Key {
        name: name.into(),
        color: format!("#{r:02x}{g:02x}{b:02x}"),
        glyph: marker.glyph(),
    };
    let mut keys: Vec<_> = looks(results).into_iter().map(key).collect();
    keys.sort_by_key(|key| key.name != OURS);
    keys
}
