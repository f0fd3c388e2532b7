//! What a launcher does to a PTX text before a driver compiles it: cutting it down to one kernel, so that no more is
//! compiled than what will run, and making its kernels fit for dependent launches.

use crate::error::{Error, Result};

/// The PTX version that brought `griddepcontrol`.
const DEPENDENT_VERSION: (u32, u32) = (7, 8);
/// The least target that has it, `sm_90`.
const DEPENDENT_TARGET: u32 = 90;
/// Lets the launch behind start, and waits until all launches ahead have ended and what they wrote is visible.
const DEPENDENT_START: &str = "\n\tgriddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;";

/// The text with everything at module level and, of all entry points, `entry` alone; `None` when it has no such
/// entry point.
///
/// An entry point reaches from its line with `.entry` to the brace that closes its body. What stands between entry
/// points is kept: `.version`, `.target`, `.extern .shared`, `.file`, device functions.
pub fn single_entry(ptx: &str, entry: &str) -> Option<String> {
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
pub fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| entry_name(code(line)))
}

/// The text with entry points that may be launched before the kernel ahead of them has ended (programmatic dependent
/// launch): each lets the launch behind it start and then waits for the launches ahead, before all else that it does.
///
/// `.version` and `.target` are raised to 7.8 and `sm_90` where they are below, as the two instructions need it.
///
/// # Errors
/// [`Error::Ptx`] when `.version` or `.target` cannot be read.
pub fn dependent(ptx: &str) -> Result<String> {
    let mut text = String::with_capacity(ptx.len() + 256);
    let mut body_is_next = false;
    for (number, line) in (1..).zip(ptx.split_inclusive('\n')) {
        let code = code(line);
        let unreadable =
            |what: &str| Error::Ptx { line: number, message: format!("`{}`, expected {what}", code.trim()) };
        body_is_next |= entry_name(code).is_some();
        if let Some(version) = directive(code, ".version") {
            let numbers = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let numbers: (u32, u32) = numbers.ok_or_else(|| unreadable("`.version` and a version such as `7.5`"))?;
            let (major, minor) = numbers.max(DEPENDENT_VERSION);
            text.push_str(&line.replacen(version, &format!("{major}.{minor}"), 1));
        } else if let Some(target) = directive(code, ".target") {
            let digits = target.strip_prefix("sm_").map(|digits| digits.trim_end_matches(char::is_alphabetic));
            let capability = digits.and_then(|digits| digits.parse().ok());
            let capability: u32 = capability.ok_or_else(|| unreadable("`.target` and a target such as `sm_80`"))?;
            let raised = format!("sm_{DEPENDENT_TARGET}");
            let target_or_raised = if capability < DEPENDENT_TARGET { &raised } else { target };
            text.push_str(&line.replacen(target, target_or_raised, 1));
        } else if body_is_next && let Some(brace) = code.find('{') {
            text.push_str(&line[..=brace]);
            text.push_str(DEPENDENT_START);
            text.push_str(&line[brace + 1..]);
            body_is_next = false;
        } else {
            text.push_str(line);
            // A declaration ends without a body.
            body_is_next &= !code.trim_end().ends_with(';');
        }
    }
    Ok(text)
}

/// The first word behind a directive that begins a line.
fn directive<'a>(code: &'a str, name: &str) -> Option<&'a str> {
    let rest = code.trim_start().strip_prefix(name)?.strip_prefix([' ', '\t'])?;
    Some(rest.trim_start().split(|c: char| c == ',' || c.is_whitespace()).next().unwrap_or_default())
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

    #[test]
    fn dependent_entries_let_the_next_start_and_wait_before_all_else() {
        let text = dependent(PTX).unwrap();
        assert!(text.contains("\n.version 8.4\n.target sm_90\n"));
        let start = "{\n\tgriddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;";
        assert!(text.contains(&format!("{start} // a }} in a comment\n\t{{.reg .b32 %t;")));
        assert!(text.contains(&format!("{start}\n\t{{\n\t\tret;")));
        assert_eq!(text.matches("griddepcontrol.wait;").count(), 2);
        assert!(text.contains(".func helper() { ret; }"));
    }

    #[test]
    fn only_what_is_below_is_raised() {
        let head = |version: &str, target: &str| format!(".version {version}\n.target {target}\n");
        for (version, raised) in [("7.5", "7.8"), ("6.9", "7.8"), ("7.8", "7.8"), ("7.10", "7.10"), ("8.4", "8.4")] {
            assert_eq!(dependent(&head(version, "sm_90a")), Ok(head(raised, "sm_90a")));
        }
        for (target, raised) in [("sm_80, debug", "sm_90, debug"), ("sm_89", "sm_90"), ("sm_100a", "sm_100a")] {
            assert_eq!(dependent(&head("8.4", target)), Ok(head("8.4", raised)));
        }
    }

    #[test]
    fn a_head_that_cannot_be_read_is_named_with_its_line() {
        let error = dependent("// Generated\n.version seven\n").unwrap_err().to_string();
        assert!(error.starts_with("PTX text, line 2: `.version seven`, expected"), "{error}");
        let error = dependent(".version 8.4\n.target gfx90a\n").unwrap_err().to_string();
        assert!(error.starts_with("PTX text, line 2: `.target gfx90a`, expected"), "{error}");
    }

    #[test]
    fn a_declared_entry_gets_no_body() {
        let text = ".entry first(\n.param .b64 x\n);\n.func helper() { ret; }\n";
        assert_eq!(dependent(text).unwrap(), text);
    }
}
