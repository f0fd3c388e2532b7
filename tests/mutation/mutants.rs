//! Kernels with one defect each, made by changing one line of the compiled text.

use std::fmt;

/// A way to break a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// A `bar.sync` is missing.
    NoBarrier,
    /// A `bar.warp.sync` is missing.
    NoWarpBarrier,
    /// A `cp.async.wait_group` lets one group more be under way.
    RelaxedWait,
    /// A `cp.async.wait_group` is missing.
    NoWait,
    /// A `cp.async` is missing.
    NoCopy,
    /// A `cp.async.commit_group` is missing.
    NoCommit,
    /// An XOR, which kernels use for swizzles alone, gives its first operand.
    NoSwizzle,
    /// An `ldmatrix` reads 128 bytes further on.
    MovedLoad,
    /// A butterfly shuffle takes the value of a lane twice as far, or of the neighbour instead of the farthest.
    WrongLane,
    /// A comparison of integers takes equal ones for the opposite.
    OffByOne,
    /// A `selp` takes the other value.
    SwappedSelect,
}

use Operator::*;

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 11] = [
        NoBarrier,
        NoWarpBarrier,
        RelaxedWait,
        NoWait,
        NoCopy,
        NoCommit,
        NoSwizzle,
        MovedLoad,
        WrongLane,
        OffByOne,
        SwappedSelect,
    ];

    /// The line with the defect; `None` where there is nothing to break.
    fn change(self, line: &str) -> Option<String> {
        let code = line.split("//").next()?.trim();
        match self {
            NoBarrier => code.starts_with("bar.sync").then(String::new),
            NoWarpBarrier => code.starts_with("bar.warp.sync").then(String::new),
            RelaxedWait => {
                let groups: u32 = waited(code)?.parse().ok()?;
                Some(format!("cp.async.wait_group {};", groups + 1))
            }
            NoWait => waited(code).map(|_| String::new()),
            NoCopy => {
                let (before, copy) = code.split_once("cp.async.c")?;
                copy.contains(".shared.global").then_some(())?;
                Some(format!("{before}{}", copy.split_once(';')?.1))
            }
            NoCommit => code.starts_with("cp.async.commit_group").then(String::new),
            NoSwizzle => {
                let [to, first, _] = operands(code, "xor.b32")?;
                Some(format!("mov.b32 {to}, {first};"))
            }
            MovedLoad => code.starts_with("ldmatrix").then(|| code.replace(']', "+128]")),
            WrongLane => {
                let [to, from, distance, rest @ ..] = operands::<5>(code, "shfl.sync.bfly.b32")?;
                let distance: u32 = distance.parse().ok()?;
                let distance = if distance == 16 { 1 } else { 2 * distance };
                Some(format!("shfl.sync.bfly.b32 {to}, {from}, {distance}, {};", rest.join(", ")))
            }
            OffByOne => {
                let (before, test) = code.split_once("setp.")?;
                let (relation, operands) = test.split_once('.')?;
                (!operands.starts_with('f')).then_some(())?;
                let other = match relation {
                    "lt" => "le",
                    "le" => "lt",
                    "gt" => "ge",
                    "ge" => "gt",
                    _ => return None,
                };
                Some(format!("{before}setp.{other}.{operands}"))
            }
            SwappedSelect => {
                let (operation, _) = code.split_once(char::is_whitespace)?;
                operation.starts_with("selp.").then_some(())?;
                let [to, yes, no, test] = operands(code, operation)?;
                Some(format!("{operation} {to}, {no}, {yes}, {test};"))
            }
        }
    }
}

/// N of `cp.async.wait_group N`.
fn waited(code: &str) -> Option<&str> {
    code.strip_prefix("cp.async.wait_group")?.strip_suffix(';').map(str::trim)
}

/// The operands of an `operation` without braces.
fn operands<'a, const N: usize>(code: &'a str, operation: &str) -> Option<[&'a str; N]> {
    let list = code.strip_prefix(operation)?.strip_suffix(';')?;
    list.split(',').map(str::trim).collect::<Vec<_>>().try_into().ok()
}

/// A kernel with one defect.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The defect.
    pub operator: Operator,
    /// Which of the places for this defect, in the order of the text.
    pub place: usize,
    /// The changed line, from 0.
    line: usize,
    /// What it becomes.
    code: String,
}

impl Mutant {
    /// The number of the changed line, from 1.
    pub fn line(&self) -> u32 {
        self.line as u32 + 1
    }

    /// The text of the mutant of `ptx`, with as many lines.
    pub fn of(&self, ptx: &str) -> String {
        let mut lines: Vec<_> = ptx.lines().collect();
        lines[self.line] = &self.code;
        lines.join("\n") + "\n"
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} (line {}: {})", self.operator, self.place, self.line(), self.code)
    }
}

/// Every mutant of a text by these operators.
pub fn mutants(ptx: &str, operators: &[Operator]) -> Vec<Mutant> {
    let of_operator = |&operator: &Operator| {
        let changes = ptx.lines().enumerate().filter_map(move |(line, old)| Some((line, operator.change(old)?)));
        changes.enumerate().map(move |(place, (line, code))| Mutant { operator, place, line, code })
    };
    operators.iter().flat_map(of_operator).collect()
}

/// The text with everything at module level and, of all entry points, `entry` alone.
pub fn single_entry(ptx: &str, entry: &str) -> String {
    let start = format!(".visible .entry {entry}(");
    let (mut cut, mut keep) = (String::new(), true);
    for line in ptx.lines() {
        if line.starts_with(".visible .entry ") {
            keep = line.starts_with(&start);
        }
        if keep {
            cut.push_str(line);
            cut.push('\n');
        }
        // The only brace at the start of a line that closes is that of an entry point.
        keep |= line == "}";
    }
    cut
}
