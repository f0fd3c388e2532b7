//! A report as Markdown.

use super::document::{Block, Cell, Document, Table};
use std::fmt::Write;

/// The whole report.
pub fn render(document: &Document) -> String {
    let mut text = format!("# {}\n\n{}\n", escape(&document.title), escape(&document.lead));
    if !document.headlines.is_empty() {
        text.push('\n');
    }
    for headline in &document.headlines {
        let _ = writeln!(text, "- **{}**: {}", escape(&headline.figure), escape(&headline.meaning));
    }
    for section in &document.sections {
        let _ = writeln!(text, "\n## {}", escape(&section.title));
        for block in &section.blocks {
            text.push('\n');
            match block {
                Block::Text(paragraph) => text.extend([&escape(paragraph), "\n"]),
                Block::Table(content) | Block::Details(content) => text.push_str(&table(content)),
            }
        }
    }
    text
}

/// A table alone.
pub fn table(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let header = table.columns.iter().map(|(header, _)| escape(header));
    let mut text = line(header.collect());
    let rules = table.columns.iter().map(|(_, cells)| if cells.iter().all(Cell::is_number) { "---:" } else { "---" });
    text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
    for row in table.rows() {
        text += &line(row.into_iter().map(cell).collect());
    }
    text
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Code(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => format!("`{name}`"),
        Cell::Text(text) | Cell::Code(text) | Cell::Number(text) => escape(text),
        Cell::Strong(text) => format!("**{}**", escape(text)),
    }
}

/// Text that Markdown shows as it is, on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\`*_[]<>|&~#".contains(c) {
            escaped.push('\\');
        }
        escaped.push(if c.is_control() { ' ' } else { c });
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_are_flush_right() {
        let mut content = Table::default();
        content.column("kernel", [Cell::Code("sm80_d64".into()), Cell::Text("-".into())]);
        content.column("us", [Cell::Strong("4.77".into()), Cell::of(None, |_| unreachable!())]);
        assert_eq!(table(&content), "| kernel | us |\n|---|---:|\n| `sm80_d64` | **4.77** |\n| - | - |\n");
    }

    #[test]
    fn what_files_say_is_shown_and_never_read_as_markdown() {
        let mut content = Table::default();
        content.column("a|b\nc", [Cell::Text("<script>*x*".into()), Cell::Code("`|`".into())]);
        assert_eq!(table(&content), "| a\\|b c |\n|---|\n| \\<script\\>\\*x\\* |\n| \\`\\|\\` |\n");
    }
}
