//! A kernel as the executor wants it: decoded once, in an order in which diverged lanes meet again.

use crate::check::clock::Passes;
use crate::numeric::mma::{Formats, Fp8};
use crate::numeric::packed::Half;
use crate::ops::Compute;
use crate::ops::atomic::Atomic;
use crate::ops::collective::{Elect, Reduce, Shuffle, Vote};
use crate::registers::{Long, Pred, Reg, Word};
use crate::report::{Class, Source, Space};
use crate::syntax::ast::Cluster;
use std::sync::Arc;

/// A decoded entry point.
#[derive(Debug)]
pub(crate) struct Program {
    pub name: String,
    pub code: Vec<Inst>,
    /// What the instructions read and write, as numbers in the list of who wrote what: words, then longs, then
    /// predicates.
    pub slots: Vec<u32>,
    /// Numbers of registers of each kind, constants included.
    pub words: usize,
    pub longs: usize,
    pub predicates: usize,
    pub constants: Constants,
    /// Bytes of the parameters.
    pub param_bytes: u32,
    /// Address of the first of them.
    pub param_base: u32,
    /// Address of the first byte of shared memory.
    pub shared_base: u32,
    /// Bytes of shared memory that the text declares.
    pub static_shared: u32,
    /// Address at which dynamic shared memory begins.
    pub dynamic_shared: u32,
    /// Bytes of local memory of a thread.
    pub local_bytes: u32,
    /// Narrowest access to shared memory, at most 4 bytes.
    pub shared_granule: u32,
    /// Narrowest access to global memory, at most 4 bytes.
    pub global_granule: u32,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub cluster: Cluster,
    pub source: Arc<SourceMap>,
}

/// Registers that hold one value from the start.
#[derive(Debug)]
pub(crate) struct Constants {
    pub words: Vec<(Word, Constant)>,
    pub longs: Vec<(Long, Constant)>,
    /// The predicate that holds in every lane, where the code needs one.
    pub yes: Option<Pred>,
}

/// The value of such a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    /// The same in every block.
    Bits(u64),
    /// An address in the block's shared memory, which has the rank of the block in a cluster above these bits.
    Shared(u32),
}

/// A text and the files it was compiled from.
#[derive(Debug)]
pub(crate) struct SourceMap {
    pub text: String,
    /// By the number of the `.file`.
    pub files: Vec<(u32, String)>,
}

impl SourceMap {
    /// The source line behind a `.loc`.
    pub fn resolve(&self, loc: (u32, u32, u32)) -> Option<Source> {
        let (number, line, column) = loc;
        let (_, file) = self.files.iter().find(|(file, _)| *file == number)?;
        Some(Source { file: file.clone(), line, column })
    }
}

/// A decoded instruction.
#[derive(Debug)]
pub(crate) struct Inst {
    pub action: Action,
    pub guard: Option<(Pred, bool)>,
    /// Where in [`Program::slots`] the registers are that it reads, its guard first, and behind them those it writes.
    pub slots: u32,
    pub reads: u8,
    pub writes: u8,
    pub class: Class,
    pub line: u32,
    pub loc: Option<(u32, u32, u32)>,
    /// Where the statement stands in the text.
    pub text: (u32, u32),
    /// Made by the decoder: not counted.
    pub hidden: bool,
}

impl Program {
    /// The registers that an instruction reads, its guard first.
    pub fn reads(&self, inst: &Inst) -> &[u32] {
        &self.slots[inst.slots as usize..][..inst.reads.into()]
    }

    /// The registers that an instruction writes.
    pub fn writes(&self, inst: &Inst) -> &[u32] {
        &self.slots[inst.slots as usize + usize::from(inst.reads)..][..inst.writes.into()]
    }
}

/// `register + offset`, or the offset alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: Option<AnyReg>,
    pub offset: i64,
}

/// A register of either width.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyReg {
    Word(Word),
    Long(Long),
}

/// A load or store of one to four neighbours.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub space: Space,
    pub address: Address,
    /// Bytes of one element.
    pub width: u32,
    /// Whether a narrow element is extended with its sign.
    pub signed: bool,
    /// `.volatile`, `.relaxed` and stronger: no race with its like.
    pub strong: bool,
    /// `.release`: publishes what came before.
    pub releases: bool,
    /// `None` for an element that nobody wants.
    pub registers: Box<[Option<AnyReg>]>,
}

/// What an instruction does.
pub(crate) enum Action {
    /// Works on registers alone.
    Compute(Compute),
    /// As [`Action::Compute`], in our own way and in the hardware's.
    Approximate {
        fast: Compute,
        exact: Compute,
    },
    /// Reads a special register.
    Special(AnyReg, Special),
    /// Goes on elsewhere.
    Branch(u32),
    /// Goes on at one of these, by the value of a register.
    Switch(Word, Box<[u32]>),
    Exit,
    Trap,
    Load(Access),
    Store(Access),
    Atomic(Atomic),
    Fence,
    /// Passes on to the asynchronous proxy what the lane did.
    ProxyFence(Passes),
    CpAsync(CpAsync),
    CommitGroup,
    BulkLoad(Box<BulkLoad>),
    BulkStore(Box<BulkStore>),
    BulkCommit,
    BulkWait(BulkWait),
    AsyncStore(Box<AsyncStore>),
    Mbarrier(MbarrierOp),
    /// Waits until at most this many groups are open; `None` also for copies of no group.
    WaitGroup(Option<u32>),
    Barrier(Barrier),
    /// `bar.warp.sync` with its member mask.
    WarpBarrier(Word),
    Shuffle(Shuffle),
    Vote(Vote),
    Reduce(Reduce),
    Elect(Elect),
    /// `barrier.cluster`: arrives, or waits for all to have arrived.
    ClusterBarrier {
        waits: bool,
        /// Not `.relaxed`.
        orders: bool,
    },
    /// `%is_explicit_cluster`.
    ExplicitCluster(Pred),
    /// `setmaxnreg`: every warp of a warpgroup must do it alike.
    MaxRegisters(u32),
    /// `mapa`: an address in the shared memory of any block of the cluster, in that of the block with this rank.
    MapAddress {
        d: AnyReg,
        a: AnyReg,
        rank: Word,
        generic: bool,
    },
    /// `getctarank`: the rank of the block whose shared memory an address is in.
    BlockRank {
        d: Word,
        a: AnyReg,
        generic: bool,
    },
    /// The lanes of the warp that are here.
    ActiveMask(Word),
    LoadMatrix(Matrix),
    StoreMatrix(Matrix),
    Mma(Box<Mma>),
    Warpgroup(Warpgroup),
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compute(_) => f.write_str("Compute"),
            Self::Branch(target) => write!(f, "Branch({target})"),
            _ => f.write_str("Action"),
        }
    }
}

/// A bulk copy to shared memory.
#[derive(Clone, Debug)]
pub(crate) struct BulkLoad {
    pub destination: Place,
    pub remote: Remote,
    pub mbarrier: Place,
    /// The blocks of the cluster that get the bytes, each at the same place, as a mask.
    pub multicast: Option<Word>,
}

/// `st.async`: a store to shared memory of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct AsyncStore {
    pub store: Access,
    pub mbarrier: Place,
}

/// An address in shared memory, and whose: [`Space::Shared`] for the own block's, [`Space::Cluster`] for that of any
/// block of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub address: Address,
    pub space: Space,
}

/// A bulk copy from shared memory.
#[derive(Clone, Debug)]
pub(crate) struct BulkStore {
    pub source: Address,
    pub remote: Remote,
}

/// The end of a bulk copy in global memory, or the source of one in the own block's shared memory.
#[derive(Clone, Debug)]
pub(crate) enum Remote {
    /// A tile of a tensor; the address of the map is generic.
    Tile {
        map: Address,
        at: Box<[Word]>,
    },
    Bytes {
        address: Address,
        bytes: Word,
    },
    Shared {
        address: Address,
        bytes: Word,
    },
}

/// `cp.async.bulk.wait_group`: until at most so many groups of stores are open, or with `read` have not read all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkWait {
    pub open: u32,
    pub read: bool,
}

/// `mbarrier`, and `cp.async.mbarrier.arrive`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MbarrierOp {
    Init {
        address: Address,
        count: Word,
    },
    Invalidate {
        address: Address,
    },
    Expect {
        at: Place,
        bytes: Word,
    },
    Arrive {
        at: Place,
        count: Option<Word>,
        expect: Option<Word>,
        state: Option<Long>,
        releases: Releases,
    },
    /// Arrives behind the `cp.async` of the lane; with `counted`, `.noinc`, the phase waits for that anyway.
    Copies {
        address: Address,
        counted: bool,
    },
    Wait {
        done: Pred,
        address: Address,
        awaited: Awaited,
        /// `try_wait`.
        blocks: bool,
        /// What it orders; nothing where it is `.relaxed`.
        acquires: Option<Scope>,
    },
}

/// What an arrival releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Releases {
    /// `.release`: all that came before, to threads in the scope.
    All(Scope),
    /// `.relaxed`: what came before the last fence.
    Fenced,
}

/// The threads for which an operation orders memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the block.
    Block,
    /// Those of the cluster, and wider ones.
    Cluster,
}

/// How a wait names the phase.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Awaited {
    Parity(Word),
    State(Long),
}

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    /// The place of the block in its cluster, and of the cluster among the clusters.
    ClusterCtaid(usize),
    ClusterId(usize),
    /// Blocks of a cluster along an axis, and clusters.
    ClusterNctaid(usize),
    NclusterId(usize),
    ClusterRank,
    ClusterBlocks,
    LaneId,
    WarpId,
    NWarpId,
    LaneMask(LaneMask),
    SmId,
    Clock,
    DynamicShared,
    TotalShared,
    /// A register that is always the same here.
    Fixed(u32),
}

/// A `%lanemask_` register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneMask {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// `cp.async`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpAsync {
    pub destination: Address,
    pub source: Address,
    /// Bytes written.
    pub bytes: u32,
    /// Bytes read, the others become zero.
    pub source_bytes: Option<Word>,
    /// Nothing is read where it holds.
    pub ignore: Option<Pred>,
}

/// `bar.sync`, `bar.arrive`, `bar.red`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier {
    pub id: Word,
    /// Threads that take part; all of the block when not given.
    pub threads: Option<Word>,
    pub waits: bool,
    pub reduce: Option<BarrierReduce>,
}

/// The value that `bar.red` spreads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierReduce {
    pub operation: BarrierOp,
    pub predicate: Pred,
    pub negate: bool,
}

/// Where `bar.red` puts what.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BarrierOp {
    And(Pred),
    Or(Pred),
    Popc(Word),
}

/// `ldmatrix`, `stmatrix`: 8x8 matrices of 16-bit elements.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub registers: Box<[Reg<u32>]>,
    pub address: Address,
    pub transposed: bool,
}

/// `mma.sync` with f32 accumulators.
#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub factors: Factors,
    pub c: [Word; 4],
    pub d: [Word; 4],
}

/// Shape, format and registers of the inputs.
#[derive(Clone, Debug)]
pub(crate) enum Factors {
    HalfK8 { format: Half, a: [Word; 2], b: [Word; 1] },
    HalfK16 { format: Half, a: [Word; 4], b: [Word; 2] },
    Fp8K32 { formats: [Fp8; 2], a: [Word; 4], b: [Word; 2] },
}

/// `wgmma`: what the four warps of a warpgroup do together.
#[derive(Clone, Debug)]
pub(crate) enum Warpgroup {
    /// `wgmma.mma_async`
    Product(Box<Product>),
    Fence,
    Commit,
    /// Waits until at most this many groups are open.
    Wait(u32),
}

/// `wgmma.mma_async` with f32 accumulators.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub formats: Formats,
    pub a: Left,
    /// The descriptor of B.
    pub b: Long,
    /// Whether the columns of B, not its k, lie side by side in shared memory.
    pub b_transposed: bool,
    /// Half as many as B has columns.
    pub d: Box<[Word]>,
    /// Whether what the accumulators hold counts.
    pub adds: (Pred, bool),
    /// Whether the product is taken off the accumulators.
    pub negative: bool,
}

impl Product {
    /// Columns of B.
    pub fn columns(&self) -> usize {
        2 * self.d.len()
    }
}

/// The matrix A of a [`Product`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    Registers([Word; 4]),
    /// Its descriptor, and whether its rows, not its k, lie side by side in shared memory.
    Shared {
        descriptor: Long,
        transposed: bool,
    },
}
