//! Reading PTX text line by line.

/// A line of a PTX file and the entry point in which it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Line number, from 1.
    pub number: usize,
    /// The entry point, from its `.entry` line to its closing brace.
    pub entry: Option<&'a str>,
    /// The line without its comment.
    pub code: &'a str,
}

/// The name that an `.entry` line declares.
pub fn entry_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(".entry ")?;
    rest.split(|c: char| c == '(' || c.is_whitespace()).next()
}

/// The lines of `text`.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut entry = None;
    text.lines().enumerate().map(move |(index, line)| {
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        entry = entry_name(code).or(entry);
        let here = entry;
        // Braces inside a body are indented or share their line with code.
        if code == "}" {
            entry = None;
        }
        Line { number: index + 1, entry: here, code }
    })
}

/// The opcodes and directives of a line, which may hold several statements: inline PTX often does.
pub fn opcodes(code: &str) -> impl Iterator<Item = &str> {
    code.split(';').filter_map(|statement| {
        let mut words = statement
            .split_whitespace()
            .skip_while(|word| matches!(*word, "{" | "}") || word.starts_with('@') || word.ends_with(':'));
        words.next().map(|word| word.trim_start_matches('{'))
    })
}

/// A PTX text in pieces, without its comments.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    /// What comes before the first entry point.
    pub header: String,
    /// Name and text of each entry point.
    pub entries: Vec<(&'a str, String)>,
    /// What comes between and behind them.
    pub footer: String,
}

impl<'a> Parts<'a> {
    /// The pieces that `lines` make up.
    pub fn of(lines: impl Iterator<Item = Line<'a>>) -> Self {
        let (mut header, mut footer) = (String::new(), String::new());
        let mut entries = Vec::<(&str, String)>::new();
        for Line { entry, code, .. } in lines {
            if let Some(name) = entry
                && entries.last().is_none_or(|(last, _)| *last != name)
            {
                entries.push((name, String::new()));
            }
            let piece = match (entry, entries.last_mut()) {
                (Some(_), Some((_, body))) => body,
                (_, None) => &mut header,
                (None, Some(_)) => &mut footer,
            };
            piece.push_str(code.trim_end());
            piece.push('\n');
        }
        Self { header, entries, footer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_know_their_entry() {
        let text = ".target sm_80\n.visible .entry one(\n)\n{\n\tret; // done\n}\n.visible .entry two(\n}\n.file 1";
        let seen: Vec<_> = lines(text).map(|line| (line.number, line.entry)).collect();
        assert_eq!(seen[0], (1, None));
        assert_eq!(seen[1], (2, Some("one")));
        assert_eq!(seen[5], (6, Some("one")));
        assert_eq!(seen[6], (7, Some("two")));
        assert_eq!(seen[8], (9, None));
        assert_eq!(lines(text).nth(4).map(|line| line.code), Some("\tret; "));
    }

    #[test]
    fn opcodes_are_found_behind_predicates_braces_and_labels() {
        let all = |code| opcodes(code).collect::<Vec<_>>();
        assert_eq!(all("\tbar.sync \t0;"), ["bar.sync"]);
        assert_eq!(all("@!%p1 bra $L__BB0_1;"), ["bra"]);
        assert_eq!(all("{ .reg .pred p; setp.ne.u32 p, 1, 2; @p trap; }"), [".reg", "setp.ne.u32", "trap"]);
        assert_eq!(all("{mov.b32 %r1, 0;}"), ["mov.b32"]);
        assert_eq!(all("$L__BB0_1:"), [] as [&str; 0]);
        assert_eq!(all(""), [] as [&str; 0]);
    }
}
