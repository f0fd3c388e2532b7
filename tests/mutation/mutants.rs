//! Kernels with one defect each, made by changing one line of the compiled text.

use Operator::*;

/// A way to break a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// A `bar.sync` is missing.
    NoBarrier,
    /// A `bar.warp.sync` is missing.
    NoWarpBarrier,
    /// A `cp.async.wait_group` lets one group more be under way.
    RelaxedWait,
    /// A `cp.async.wait_group` is missing.
    NoWait,
    /// A copy by `cp.async` is missing.
    NoCopy,
    /// A `cp.async.commit_group` is missing.
    NoCommit,
    /// An XOR, which the kernels need for swizzles alone, gives its first operand.
    NoSwizzle,
    /// An `ldmatrix` reads 128 bytes further on.
    MovedLoad,
    /// A store is missing.
    NoStore,
    /// A butterfly shuffle exchanges with a lane twice as far away, or with the neighbour instead of the farthest.
    WrongLane,
    /// A `selp` takes the other value.
    SwappedSelect,
}

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
        NoStore,
        WrongLane,
        SwappedSelect,
    ];

    /// Whether it breaks what orders copies, and loads and stores of shared memory: that on which races depend.
    pub fn breaks_order(self) -> bool {
        self <= NoSwizzle
    }

    /// What the instructions that it breaks begin with.
    pub fn instruction(self) -> &'static str {
        match self {
            NoBarrier => "bar.sync",
            NoWarpBarrier => "bar.warp.sync",
            RelaxedWait | NoWait => "cp.async.wait_group",
            NoCopy => "cp.async.cg.",
            NoCommit => "cp.async.commit_group",
            NoSwizzle => "xor.b32",
            MovedLoad => "ldmatrix.",
            NoStore => "st.",
            WrongLane => "shfl.sync.bfly.",
            SwappedSelect => "selp.",
        }
    }

    /// What becomes of one of its instructions, given without the semicolon; `None` where its operands are unlike those
    /// of the kernels.
    fn change(self, instruction: &str) -> Option<String> {
        let (operation, operands) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
        let operands: Vec<_> = operands.split(',').map(str::trim).collect();
        let number = |text: &str| text.parse::<u32>().ok();
        Some(match (self, operands.as_slice()) {
            (RelaxedWait, [groups]) => format!("{operation} {};", number(groups)? + 1),
            (NoSwizzle, [to, first, _]) => format!("mov.b32 {to}, {first};"),
            (MovedLoad, _) => format!("{};", instruction.replace(']', "+128]")),
            (WrongLane, [to, from, distance, rest @ ..]) => {
                let distance = if *distance == "16" { 1 } else { 2 * number(distance)? };
                format!("{operation} {to}, {from}, {distance}, {};", rest.join(", "))
            }
            (SwappedSelect, [to, yes, no, test]) => format!("{operation} {to}, {no}, {yes}, {test};"),
            (NoBarrier | NoWarpBarrier | NoWait | NoCopy | NoCommit | NoStore, _) => String::new(),
            _ => return None,
        })
    }
}

/// A kernel with one defect.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The kind of defect.
    pub operator: Operator,
    /// The changed line, from 1.
    pub line: u32,
    /// What it becomes.
    pub code: String,
}

impl Mutant {
    /// Every mutant of a text by one operator, in the order of the text.
    pub fn all(ptx: &str, operator: Operator) -> Vec<Self> {
        let mutants = (1..).zip(ptx.lines()).filter_map(|(line, code)| {
            // An instruction in braces of its own stands behind others on its line.
            let mut starts = code.match_indices(operator.instruction()).map(|(at, _)| at);
            let start = starts.find(|&at| matches!(code[..at].trim_end().bytes().last(), None | Some(b';' | b'{')))?;
            let end = start + code[start..].find(';')?;
            let changed = operator.change(&code[start..end])?;
            Some(Self { operator, line, code: format!("{}{changed}{}", &code[..start], &code[end + 1..]) })
        });
        mutants.collect()
    }

    /// The mutant of `ptx`, line by line.
    pub fn of(&self, ptx: &str) -> String {
        let lines = (1..).zip(ptx.lines()).map(|(line, code)| if line == self.line { &self.code } else { code });
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// The text with everything at module level and, of all entry points, `entry` alone.
pub fn single_entry(ptx: &str, entry: &str) -> String {
    let start = format!(".visible .entry {entry}(");
    let mut kept = true;
    let lines = ptx.split_inclusive('\n').filter(|line| {
        if line.starts_with(".visible .entry ") {
            kept = line.starts_with(&start);
        }
        let keep = kept;
        // Of the braces that close, only an entry point's stands at the start of a line.
        kept |= *line == "}\n";
        keep
    });
    lines.collect()
}
