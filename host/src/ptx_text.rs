//! Cutting a PTX file down to one kernel, so that a driver compiles no more than what will run.

/// The text with everything at module level and, of all entry points, `entry` alone; `None` when it has no such
/// entry point.
///
/// An entry point reaches from its line with `.entry` to the brace that closes its body. What stands between entry
/// points is kept: `.version`, `.target`, `.extern .shared`, `.file`, device functions.
pub(crate) fn single_entry(ptx: &str, entry: &str) -> Option<String> {
    let mut cut = String::new();
    let mut found = false;
    let mut state = State::Module;
    for line in ptx.split_inclusive('\n') {
        let code = code(line);
        if let (State::Module, Some(name)) = (&state, entry_name(code)) {
            found |= name == entry;
            state = State::Entry { keep: name == entry, depth: 0, opened: false };
        }
        let keep = match state {
            State::Module => true,
            State::Entry { keep, ref mut depth, ref mut opened } => {
                *depth += depth_change(code);
                *opened |= code.contains('{');
                // A declaration ends without a body.
                if *depth == 0 && (*opened || code.trim_end().ends_with(';')) {
                    state = State::Module;
                }
                keep
            }
        };
        if keep {
            cut.push_str(line);
        }
    }
    found.then_some(cut)
}

/// The names of the entry points, in the order of the text.
pub(crate) fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| entry_name(code(line)))
}

enum State {
    Module,
    Entry { keep: bool, depth: i32, opened: bool },
}

/// The line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn entry_name(code: &str) -> Option<&str> {
    let (_, rest) = code.split_once(".entry")?;
    let name = rest.strip_prefix([' ', '\t'])?.trim_start();
    name.split(|c: char| c == '(' || c.is_whitespace()).next().filter(|name| !name.is_empty())
}

fn depth_change(code: &str) -> i32 {
    code.chars().map(|c| i32::from(c == '{') - i32::from(c == '}')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "\
// Generated
.version 8.4
.target sm_80
.address_size 64
.extern .shared .align 1024 .b8 dyn_smem[];
.func helper() { ret; }
\t// .globl\tone
.visible .entry one(
\t.param .align 8 .b8 one_param_0[176]
)
.maxntid 128, 1, 1
{ // a } in a comment
\t{.reg .b32 %t; mov.b32 %t, 1;}
\tmov.b64 \t{_, %r30}, %rd34;
\tret;
\t// -- End function
}
.file 1 \"kernel.rs\"
.visible .entry one_more(
\t.param .align 8 .b8 one_more_param_0[176]
)
{
\t{
\t\tret;
\t}
}
";

    #[test]
    fn one_entry_and_the_module_level_are_kept() {
        let one = single_entry(PTX, "one").unwrap();
        assert_eq!(entries(&one).collect::<Vec<_>>(), ["one"]);
        for kept in [".version 8.4", ".address_size 64", "dyn_smem[];", ".func helper", ".file 1", "%rd34;\n\tret;"] {
            assert!(one.contains(kept), "{kept}");
        }
        assert!(!one.contains("one_more"));
        assert_eq!(depth_change(&one.lines().map(code).collect::<String>()), 0);
    }

    #[test]
    fn a_name_that_begins_with_another_is_told_apart() {
        let more = single_entry(PTX, "one_more").unwrap();
        assert_eq!(entries(&more).collect::<Vec<_>>(), ["one_more"]);
        assert!(more.ends_with("\t}\n}\n"));
    }

    #[test]
    fn a_missing_entry_is_none() {
        assert_eq!(single_entry(PTX, "on"), None);
        assert_eq!(single_entry(PTX, "helper"), None);
        assert_eq!(single_entry("", "one"), None);
    }

    #[test]
    fn a_declared_entry_does_not_swallow_the_next() {
        let text = ".entry first(\n.param .b64 x\n);\n.visible .entry\tsecond ()\n{\nret;\n}\n";
        assert_eq!(single_entry(text, "second").unwrap(), ".visible .entry\tsecond ()\n{\nret;\n}\n");
    }
}
