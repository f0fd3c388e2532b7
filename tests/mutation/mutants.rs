//! Kernels with one defect each, made by changing one line of the compiled text.

use Operator::*;
use evo_sdpa::{FwdSm90, Kernel};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// A way to break a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// A `bar.sync` is missing, or an arrival or a wait at the barrier of a cluster.
    NoBarrier,
    /// A `bar.warp.sync` is missing.
    NoWarpBarrier,
    /// A wait for groups of copies or products lets one group more be under way.
    RelaxedWait,
    /// A wait for groups of copies or products is missing.
    NoWait,
    /// A copy by `cp.async`, of a box by TMA, or of a value by `st.async`, is missing.
    NoCopy,
    /// The end of a group of copies or products is missing.
    NoCommit,
    /// An XOR, which the kernels need for swizzles and parities alone, gives its first operand.
    NoSwizzle,
    /// A fence is missing: of the proxy, of mbarriers that were made, of the registers of products.
    NoFence,
    /// An arrival is missing, at an mbarrier or at the barrier by which warpgroups take turns.
    NoArrival,
    /// An mbarrier is not made.
    NoInit,
    /// A wait for an mbarrier is for the other parity.
    OtherParity,
    /// An mbarrier expects fewer bytes than are copied.
    FewerBytes,
    /// An mbarrier expects more bytes than are copied.
    MoreBytes,
    /// A product of a warpgroup is missing.
    NoProduct,
    /// A product of a warpgroup adds to what it should overwrite, or the other way round.
    OtherSum,
    /// Rows of an operand of a warpgroup's product are taken to be twice as far apart.
    WrongStride,
    /// An operand of a warpgroup's product begins 32 bytes, a k16 step of queries or keys, further on.
    MovedOperand,
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
    pub const ALL: [Self; 21] = [
        NoBarrier,
        NoWarpBarrier,
        RelaxedWait,
        NoWait,
        NoCopy,
        NoCommit,
        NoSwizzle,
        NoFence,
        NoArrival,
        NoInit,
        OtherParity,
        FewerBytes,
        MoreBytes,
        NoProduct,
        OtherSum,
        WrongStride,
        MovedOperand,
        MovedLoad,
        NoStore,
        WrongLane,
        SwappedSelect,
    ];

    /// Whether it breaks what orders copies, and loads and stores of shared memory: that on which races depend.
    pub fn breaks_order(self) -> bool {
        self <= OtherParity
    }

    /// Whether it breaks what tells blocks of a cluster that tiles are there, or free.
    pub fn is_of_copies(self) -> bool {
        matches!(self, NoBarrier | NoCopy | NoArrival | NoInit | OtherParity)
    }

    /// What the instructions that it breaks begin with.
    pub fn instructions(self) -> &'static [&'static str] {
        match self {
            NoBarrier => &["bar.sync", "barrier.cluster."],
            NoWarpBarrier => &["bar.warp.sync"],
            RelaxedWait | NoWait => &["cp.async.wait_group", "cp.async.bulk.wait_group", "wgmma.wait_group"],
            NoCopy => &["cp.async.cg.", "cp.async.bulk.tensor.", "st.async."],
            NoCommit => &["cp.async.commit_group", "cp.async.bulk.commit_group", "wgmma.commit_group"],
            NoSwizzle => &["xor.b32"],
            NoFence => &["fence.", "wgmma.fence"],
            NoArrival => &["mbarrier.arrive.", "bar.arrive"],
            NoInit => &["mbarrier.init."],
            OtherParity => &["mbarrier.try_wait.parity."],
            FewerBytes | MoreBytes => &["mbarrier.arrive.expect_tx."],
            NoProduct | OtherSum => &["wgmma.mma_async."],
            WrongStride | MovedOperand => &["mov.b64 a,", "mov.b64 b,"],
            MovedLoad => &["ldmatrix."],
            NoStore => &["st.", "stmatrix."],
            WrongLane => &["shfl.sync.bfly."],
            SwappedSelect => &["selp."],
        }
    }

    /// What becomes of one of its instructions, given without the semicolon, and what comes before it; `None` where its
    /// operands are unlike those of the kernels.
    fn change(self, instruction: &str) -> Option<(String, String)> {
        let (operation, operands) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
        let operands: Vec<_> = operands.split(',').map(str::trim).collect();
        let number = |text: &str| text.parse::<u32>().ok();
        let bytes = |by: &str, count: &str| format!(".reg .b32 bytes; {by}.s32 bytes, {count}, 128; ");
        let before = match (self, operands.as_slice()) {
            (OtherParity, [.., parity]) => format!(".reg .b32 other; xor.b32 other, {parity}, 1; "),
            (FewerBytes, [.., count]) => bytes("sub", count),
            (MoreBytes, [.., count]) => bytes("add", count),
            (OtherSum, _) => "not.pred add, add; ".into(),
            _ => String::new(),
        };
        let changed = match (self, operands.as_slice()) {
            (RelaxedWait, [groups]) => format!("{operation} {}", number(groups)? + 1),
            (NoSwizzle, [to, first, _]) => format!("mov.b32 {to}, {first}"),
            (OtherParity, [done, barrier, _]) => format!("{operation} {done}, {barrier}, other"),
            (FewerBytes | MoreBytes, [state, barrier, _]) => format!("{operation} {state}, {barrier}, bytes"),
            (OtherSum, _) => instruction.into(),
            // Eight rows are 1024 bytes, given in units of 16, below the bit of the 128-byte swizzle.
            (WrongStride, [to, low, _]) => format!("{operation} {to}, {low}, {}}}", 1 << 30 | 2048 >> 4),
            (MovedOperand, [to, ..]) => format!("{instruction}; add.s64 {to}, {to}, {}", 32 >> 4),
            (MovedLoad, _) => instruction.replace(']', "+128]"),
            (WrongLane, [to, from, distance, rest @ ..]) => {
                let distance = if *distance == "16" { 1 } else { 2 * number(distance)? };
                format!("{operation} {to}, {from}, {distance}, {}", rest.join(", "))
            }
            (SwappedSelect, [to, yes, no, test]) => format!("{operation} {to}, {no}, {yes}, {test}"),
            (NoBarrier | NoWarpBarrier | NoWait | NoCopy | NoCommit | NoFence | NoArrival | NoInit, _) => String::new(),
            (NoProduct | NoStore, _) => String::new(),
            _ => return None,
        };
        Some((before, changed))
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
    /// Every mutant of a text by one operator, in the order of the text, but for those in lines that are [`spared`].
    pub fn all(ptx: &str, operator: Operator) -> Vec<Self> {
        let spared = spared(ptx, operator);
        let mutants = (1..).zip(ptx.lines()).flat_map(|(line, code)| {
            statements(code).filter_map(move |Statement { start, instruction, end }| {
                let old = &code[instruction.clone()];
                operator.instructions().iter().find(|word| old.starts_with(**word))?;
                let (before, new) = operator.change(old)?;
                let guard = &code[start..instruction.start];
                let new = if new.is_empty() { new } else { format!("{before}{guard}{new};") };
                Some(Self { operator, line, code: format!("{}{new}{}", &code[..start], &code[end..]) })
            })
        });
        mutants.filter(|mutant| !spared.contains(&mutant.line)).collect()
    }

    /// The mutant of `ptx`, line by line.
    pub fn of(&self, ptx: &str) -> String {
        let lines = (1..).zip(ptx.lines()).map(|(line, code)| if line == self.line { &self.code } else { code });
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// The lines, from 1, in which a kernel can do without what the operator takes from it, or the simulator cannot tell. All
/// are of `fwd_sm90`.
pub fn spared(ptx: &str, operator: Operator) -> HashSet<u32> {
    let mut lines = HashSet::new();
    let (mut name, mut config) = ("", None);
    // What was last added to what became a register.
    let mut sums = HashMap::new();
    // Fences of first products, and what was last done with groups of products.
    let (mut fences, mut group) = (0, "");
    // The instruction before is a fence between the proxies.
    let mut proxies_fenced = false;
    // The last release of values in each kernel.
    let mut releases = HashMap::new();
    for (line, code) in (1..).zip(ptx.lines()) {
        if let Some(entry) = code.strip_prefix(".visible .entry ") {
            name = entry.trim_end_matches('(');
            config = match Kernel::parse(name) {
                Some(Kernel::FwdSm90(config)) => Some(config),
                _ => None,
            };
            (fences, group) = (0, "");
            sums.clear();
        }
        let Some(config) = config else { continue };
        let code = code.trim();
        let (operation, operands) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
        let operands: Vec<_> = operands.trim_end_matches(';').split(',').map(str::trim).collect();
        // Of two products that run at once, the first is that with keys, and the second of these is that of the step with
        // a mask. Its tile has one such step, the one behind its first, where the mask cuts through two at most.
        let is_fence = operation.starts_with("wgmma.fence.");
        fences += u32::from(is_fence && group != "commit");
        // The step behind a narrow one stands before it, and a tile has one at most of either.
        let has_narrow = config.narrow_kv() < config.tile_kv;
        let is_masked = fences == if has_narrow { 3 } else { 2 };
        let masks_once = is_masked && config.tile_kv >= config.tile_q;
        let follows_narrow = has_narrow && fences == 2;
        let is_narrow = has_narrow && fences == 5;
        let spares = match (operator, operands.as_slice()) {
            // Two warpgroups take turns by it, which is a matter of time and not of data.
            (NoBarrier, [_, threads]) => operation == "bar.sync" && threads.parse() == Ok(2 * FwdSm90::GROUP_THREADS),
            // It brings a warp together behind what its first lane does alone. Behind a fence between the proxies it has
            // the stores of all lanes done before the first one arrives; with one stage of queries, the arrival with the
            // next of them comes behind another one, and is waited for before the values are used.
            (NoWarpBarrier, _) => operation == "bar.warp.sync" && !(proxies_fenced && config.q_stages() > 1),
            // The fence between the proxies that comes behind it, for the rows of sums, is one for barriers too.
            (NoFence, _) if operation.starts_with("fence.mbarrier_init") => config.e4m3,
            // Who is told that keys are not there waits for them; that they are is always so where they come early.
            (SwappedSelect, _) if code.contains("mbarrier.test_wait") => true,
            // A store to the words behind the barriers, which nobody reads: it keeps a wait in its place.
            (NoStore, [address, _]) if operation == "st.shared.b32" => {
                let register = address.trim_matches(['[', ']']);
                sums.get(register).is_some_and(|sum: &String| sum.parse() == Ok(FwdSm90::BARRIER_BYTES))
            }
            // The registers of the second of two products that run at once are fenced with those of the first. A masked
            // step has used its scores before the fences of other steps, if there is one in a tile; so has a narrow one, and
            // the step behind it.
            (NoFence, _) if is_fence => group == "commit" || masks_once || is_narrow || follows_narrow,
            // Before such a step, the outputs are zero.
            (OtherSum, _) if group == "commit" => (masks_once || follows_narrow) && code.contains("wgmma.mma_async."),
            _ => false,
        };
        if spares {
            lines.insert(line);
        }
        if !operation.is_empty() && !operation.starts_with(['.', '/']) {
            proxies_fenced = operation.starts_with("fence.proxy.async");
        }
        match (operation, operands.as_slice()) {
            ("add.s32", [to, _, addend]) => drop(sums.insert((*to).to_string(), (*addend).to_string())),
            (text, _) if text.starts_with("wgmma.commit_group.") => group = "commit",
            (text, _) if text.starts_with("wgmma.wait_group.") => group = "wait",
            _ if code.contains("wgmma.mma_async.") => group = "product",
            _ if code.contains("mbarrier.arrive.shared") && group == "wait" => {
                releases.insert(name, line);
                group = "";
            }
            _ => {}
        }
    }
    if operator == NoArrival {
        // Behind the last product of a block, nobody waits for it.
        lines.extend(releases.into_values());
    }
    lines
}

/// Where a statement is in its line.
struct Statement {
    /// Where its predicate begins, or the instruction if it has none.
    start: usize,
    /// The instruction, without the semicolon.
    instruction: Range<usize>,
    /// Behind the semicolon.
    end: usize,
}

/// The statements of a line, of which one of a kernel's own assembly has several, in braces of their own.
fn statements(code: &str) -> impl Iterator<Item = Statement> {
    code.match_indices(';').scan(0, |next, (semicolon, _)| {
        let text = &code[*next..semicolon];
        *next = semicolon + 1;
        let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || "{}".contains(c));
        if let Some((label, behind)) = rest.split_once(": ")
            && label.chars().all(char::is_alphanumeric)
        {
            rest = behind;
        }
        let start = semicolon - rest.len();
        if rest.starts_with('@')
            && let Some((_, behind)) = rest.split_once(' ')
        {
            rest = behind;
        }
        Some(Statement { start, instruction: semicolon - rest.len()..semicolon, end: semicolon + 1 })
    })
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
