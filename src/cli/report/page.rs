//! A report as one HTML page that needs nothing else.

use super::document::{Block, Cell, Document, Table};
use super::plots::{Key, Plot};
use std::fmt::Write;

/// The page, with plots between the headlines and the tables.
pub fn render(document: &Document, plots: &[Plot], legend: &[Key]) -> String {
    let title = escape(&document.title);
    let mut body = format!("<h1>{title}</h1>\n<p>{}</p>\n<ul class=\"headlines\">\n", escape(&document.lead));
    for headline in &document.headlines {
        let (figure, meaning) = (escape(&headline.figure), escape(&headline.meaning));
        let _ = writeln!(body, "<li><strong>{figure}</strong><span>{meaning}</span></li>");
    }
    body.push_str("</ul>\n");
    if !plots.is_empty() {
        body += &gallery(plots, legend);
    }
    for section in &document.sections {
        let _ = writeln!(body, "<h2>{}</h2>", escape(&section.title));
        for block in &section.blocks {
            let _ = match block {
                Block::Text(text) => writeln!(body, "<p>{}</p>", escape(text)),
                Block::Table(content) => writeln!(body, "{}", table(content)),
                Block::Details(content) => {
                    let rows = content.rows().count();
                    writeln!(body, "<details><summary>{rows} rows</summary>\n{}</details>", table(content))
                }
            };
        }
    }
    let style = include_str!("page.css");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn gallery(plots: &[Plot], legend: &[Key]) -> String {
    let mut text = String::from("<h2>Plots</h2>\n<ul class=\"legend\">\n");
    for Key { name, color, glyph } in legend {
        let _ = writeln!(text, "<li><span style=\"color: {color}\">{glyph}</span> {}</li>", escape(name));
    }
    text.push_str("</ul>\n<div class=\"plots\">\n");
    for Plot { title, caption, svg, wide } in plots {
        let class = if *wide { " class=\"wide\"" } else { "" };
        let (title, caption) = (escape(title), escape(caption));
        let _ = writeln!(text, "<figure{class}>\n<h3>{title}</h3>\n{svg}<figcaption>{caption}</figcaption>\n</figure>");
    }
    text.push_str("</div>\n");
    text
}

fn table(table: &Table) -> String {
    let number: Vec<_> = table.columns.iter().map(|(_, cells)| cells.iter().all(Cell::is_number)).collect();
    let class = |column: usize| if number[column] { " class=\"number\"" } else { "" };
    let mut text = String::from("<div class=\"table\"><table>\n<thead><tr>");
    for (column, (header, _)) in table.columns.iter().enumerate() {
        let _ = write!(text, "<th{}>{}</th>", class(column), escape(header));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in table.rows() {
        text.push_str("<tr>");
        for (column, cell) in row.into_iter().enumerate() {
            let cell = match cell {
                Cell::Text(text) | Cell::Number(text) => escape(text),
                Cell::Code(text) => format!("<code>{}</code>", escape(text)),
                Cell::Strong(text) => format!("<strong>{}</strong>", escape(text)),
            };
            let _ = write!(text, "<td{}>{cell}</td>", class(column));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table></div>\n");
    text
}

/// Text that HTML shows as it is, in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say_is_shown_and_never_read_as_html() {
        assert_eq!(escape("<a href='x'>\u{1}\"&"), "&lt;a href=&#39;x&#39;&gt; &quot;&amp;");
    }
}
