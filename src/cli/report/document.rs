//! What a report says, apart from how it looks.

/// A report.
pub struct Document {
    /// Its title.
    pub title: String,
    /// What it is about.
    pub lead: String,
    /// The figures to see first.
    pub headlines: Vec<Headline>,
    /// The rest.
    pub sections: Vec<Section>,
}

/// A figure and what it is.
pub struct Headline {
    /// The figure, with its unit.
    pub figure: String,
    /// What it is.
    pub meaning: String,
}

/// A part of a report.
pub struct Section {
    /// Its title.
    pub title: String,
    /// Its content.
    pub blocks: Vec<Block>,
}

/// A part of a section.
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// A table to look things up in: a page shows it on demand.
    Details(Table),
}

/// A table, by columns of one length.
#[derive(Default)]
pub struct Table {
    /// Header and cells.
    pub columns: Vec<(String, Vec<Cell>)>,
}

/// A cell of a table.
pub enum Cell {
    /// Words.
    Text(String),
    /// A name in a program.
    Code(String),
    /// A number.
    Number(String),
    /// A number that stands out.
    Strong(String),
}

impl Table {
    /// Adds a column.
    pub fn column(&mut self, header: &str, cells: impl IntoIterator<Item = Cell>) {
        self.columns.push((header.into(), cells.into_iter().collect()));
    }

    /// The cells by rows.
    pub fn rows(&self) -> impl Iterator<Item = Vec<&Cell>> {
        let rows = self.columns.iter().map(|(_, cells)| cells.len()).min().unwrap_or(0);
        (0..rows).map(|row| self.columns.iter().map(|(_, cells)| &cells[row]).collect())
    }
}

impl Cell {
    /// A number, or a dash where there is none.
    pub fn of(value: Option<f64>, format: impl Fn(f64) -> String) -> Self {
        Cell::Number(value.filter(|value| value.is_finite()).map_or("-".into(), format))
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Cell::Number(_) | Cell::Strong(_))
    }
}

/// Three digits, or all those before the point.
pub fn rate(value: f64) -> String {
    match value.abs() {
        0.00995..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        99.95..1e9 => format!("{value:.0}"),
        _ => format!("{value:.2e}"),
    }
}

/// A quotient.
pub fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// A part of a whole.
pub fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// A small part of a whole.
pub fn fine_percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [4.774, 9.9951, 54.06, 99.96, 1666.2, 0.001].map(rate);
        assert_eq!(shown, ["4.77", "10.0", "54.1", "100", "1666", "1.00e-3"]);
        assert_eq!(
            (ratio(0.526), percent(0.531), fine_percent(0.0123)),
            ("0.53".into(), "53 %".into(), "1.2 %".into())
        );
    }
}
