//! Tables of plain text.

use std::io::{self, Write};

/// Rows under a header, in columns as wide as their widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|cell| cell.to_string()).collect()] }
    }

    /// Adds a row with as many cells as the header has.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Columns of numbers are flush right, all others flush left.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
        let is_number = |cell: &str| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
        let shape: Vec<_> =
            (0..columns).map(|c| (width(c), self.rows[1..].iter().all(|row| is_number(&row[c])))).collect();
        for row in &self.rows {
            let cells =
                row.iter().zip(&shape).map(
                    |(cell, &(width, right))| {
                        if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                    },
                );
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_flush_right_and_words_flush_left() {
        let mut table = Table::new(&["name", "n"]);
        table.row(["a".into(), "7".into()]);
        table.row(["long name".into(), "1234".into()]);
        let mut text = Vec::new();
        table.write(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "name          n\na             7\nlong name  1234\n");
    }
}
