//! What a launch did, and what was wrong with it.

mod collector;
mod display;

pub(crate) use collector::{Collector, RawPlace};

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Device memory.
    Global,
    /// Memory of a block.
    Shared,
    /// Memory of any block of the cluster.
    Cluster,
    /// Memory of a thread.
    Local,
    /// Constants of the module.
    Const,
    /// Parameters of the kernel.
    Param,
    /// An address that could be in any of them.
    Generic,
}

impl Space {
    /// Its name in PTX.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Cluster => "shared::cluster",
            Self::Local => "local",
            Self::Const => "const",
            Self::Param => "param",
            Self::Generic => "generic",
        }
    }
}

/// A kind of defect, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// An access to memory that no buffer holds.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// An access to shared memory of another block of the cluster that may not have begun, or may have ended.
    AbsentBlock,
    /// A write to memory that the host said is only read.
    ReadOnlyWrite,
    /// An address outside the space the instruction asks for: a generic one, or one in another block's shared memory.
    WrongSpace,
    /// An address that is not a multiple of the access's width.
    Misaligned,
    /// An operand the instruction does not allow.
    InvalidOperand,
    /// The kernel panicked or trapped.
    Trap,
    /// Every warp waits.
    Deadlock,
    /// Warps disagree about a barrier: its count, or who takes part.
    BarrierMismatch,
    /// An mbarrier is used against its rules: not initialised, more arrivals than it expects, a phase that is over, bytes
    /// that it does not expect.
    Mbarrier,
    /// Not all lanes execute an instruction that all must execute together.
    Diverged,
    /// The launch was given up.
    Endless,
    /// The destination of an asynchronous copy is read, written or copied to before the copy was waited for.
    AsyncInFlight,
    /// A register of an asynchronous matrix product is read or written before the product was waited for.
    RegisterInFlight,
    /// An asynchronous matrix product uses a register that was used otherwise since the last `wgmma.fence`.
    UnfencedRegister,
    /// The asynchronous proxy (bulk copies, `wgmma`) uses shared memory that was written by ordinary instructions, or an
    /// mbarrier, with no proxy fence by the thread that wrote.
    ProxyFence,
    /// Two warps use the same shared memory, one of them writes, and no barrier stands between.
    SharedRace,
    /// Two blocks use the same global memory, one of them writes, and nothing orders them.
    GlobalRace,
    /// Memory is read that nobody wrote.
    UninitializedMemory,
    /// A register is read that nobody wrote.
    UninitializedRegister,
    /// As [`Kind::SharedRace`], for two lanes of one warp without `bar.warp.sync` between them.
    IntraWarpRace,
    /// An asynchronous copy or matrix product that is never waited for, or that a wait leaves out.
    AsyncUnfinished,
}

impl Kind {
    /// A short word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out-of-bounds",
            Self::UseAfterFree => "use-after-free",
            Self::AbsentBlock => "absent-block",
            Self::ReadOnlyWrite => "read-only-write",
            Self::WrongSpace => "wrong-space",
            Self::Misaligned => "misaligned",
            Self::InvalidOperand => "invalid-operand",
            Self::Trap => "trap",
            Self::Deadlock => "deadlock",
            Self::BarrierMismatch => "barrier-mismatch",
            Self::Mbarrier => "mbarrier",
            Self::Diverged => "diverged",
            Self::Endless => "endless",
            Self::AsyncInFlight => "async-in-flight",
            Self::RegisterInFlight => "register-in-flight",
            Self::UnfencedRegister => "unfenced-register",
            Self::ProxyFence => "proxy-fence",
            Self::SharedRace => "shared-race",
            Self::GlobalRace => "global-race",
            Self::UninitializedMemory => "uninitialized-memory",
            Self::UninitializedRegister => "uninitialized-register",
            Self::IntraWarpRace => "intra-warp-race",
            Self::AsyncUnfinished => "async-unfinished",
        }
    }
}

/// A line of the source that a PTX instruction was compiled from, by its `.loc`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Path as the compiler wrote it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1; 0 when unknown.
    pub column: u32,
}

/// An instruction and who executed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block.
    pub block: [u32; 3],
    /// The warp of the block.
    pub warp: u32,
    /// The lane of the warp.
    pub lane: u32,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The instruction as it stands there.
    pub instruction: String,
    /// Where it comes from.
    pub source: Option<Source>,
}

/// A defect: the first time it was seen, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The instruction that shows it.
    pub at: Place,
    /// The instruction it collides with.
    pub with: Option<Place>,
    /// Where in memory, with the number of bytes.
    pub memory: Option<(Space, u64, u32)>,
    /// What happened, in words.
    pub message: String,
    /// How often these two instructions did this.
    pub count: u64,
}

/// A class of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Integer and bit operations, address conversions.
    Integer,
    /// f32, f64 and packed half arithmetic.
    Float,
    /// `ex2`, `lg2`, `rcp`, `sqrt`, `sin` and their like.
    Special,
    /// Conversions between types.
    Convert,
    /// Moves, selections, special registers.
    Move,
    /// Comparisons and operations on predicates.
    Predicate,
    /// Branches, calls, exits.
    Control,
    /// Global loads, stores, atomics.
    Global,
    /// Shared loads, stores, atomics.
    Shared,
    /// Local, constant and parameter memory.
    OtherMemory,
    /// `cp.async`, and the groups of asynchronous instructions.
    Async,
    /// `ldmatrix`, `stmatrix`.
    MatrixLoad,
    /// `mma`.
    Matrix,
    /// `wgmma.mma_async`, once for each of its four warps.
    WarpgroupMatrix,
    /// Barriers and fences.
    Barrier,
    /// Shuffles, votes, reductions in a warp.
    Warp,
}

impl Class {
    /// A short word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Special => "special",
            Self::Convert => "convert",
            Self::Move => "move",
            Self::Predicate => "predicate",
            Self::Control => "control",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::OtherMemory => "other memory",
            Self::Async => "async",
            Self::MatrixLoad => "matrix load",
            Self::Matrix => "matrix",
            Self::WarpgroupMatrix => "warpgroup matrix",
            Self::Barrier => "barrier",
            Self::Warp => "warp",
        }
    }

    /// Every class, in the order of the discriminants.
    pub const ALL: [Self; 16] = [
        Self::Integer,
        Self::Float,
        Self::Special,
        Self::Convert,
        Self::Move,
        Self::Predicate,
        Self::Control,
        Self::Global,
        Self::Shared,
        Self::OtherMemory,
        Self::Async,
        Self::MatrixLoad,
        Self::Matrix,
        Self::WarpgroupMatrix,
        Self::Barrier,
        Self::Warp,
    ];
}

/// Sums over a launch, or over one instruction. Instructions are counted once a warp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Executed instructions.
    pub instructions: u64,
    /// Of them, those in which not every live lane took part.
    pub partial: u64,
    /// Branches at which a warp split.
    pub divergent_branches: u64,
    /// Passes through shared memory's 32 banks of 4 bytes that the requests would need without conflicts.
    pub wavefronts_ideal: u64,
    /// Passes that they do need.
    pub wavefronts: u64,
    /// Sectors of 32 bytes of global memory that the requests would touch if every byte moved were asked for.
    pub sectors_ideal: u64,
    /// Sectors that they do touch.
    pub sectors: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.partial += other.partial;
        self.divergent_branches += other.divergent_branches;
        self.wavefronts_ideal += other.wavefronts_ideal;
        self.wavefronts += other.wavefronts;
        self.sectors_ideal += other.sectors_ideal;
        self.sectors += other.sectors;
    }
}

/// [`Counters`] of one PTX instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineCounters {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The instruction.
    pub instruction: String,
    /// Its class.
    pub class: Class,
    /// Where it comes from.
    pub source: Option<Source>,
    /// Times the launch executed it, and what that cost.
    pub counters: Counters,
}

/// What a launch did, and what was wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The entry point.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// [`Options::seed`](crate::Options::seed).
    pub seed: u64,
    /// The defects, worst first.
    pub findings: Vec<Finding>,
    /// Sums over all instructions.
    pub total: Counters,
    /// Every instruction that was executed, by line.
    pub lines: Vec<LineCounters>,
    /// Bytes of shared memory of a block up to the last one touched.
    pub peak_shared: u32,
}

impl Report {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Executed instructions of a class.
    pub fn executed(&self, class: Class) -> u64 {
        self.lines.iter().filter(|line| line.class == class).map(|line| line.counters.instructions).sum()
    }
}
