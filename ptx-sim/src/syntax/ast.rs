//! The tree that a PTX text is read into. Names keep their `%` and `$`.

/// A whole text.
#[derive(Debug)]
pub(crate) struct Module<'a> {
    /// `.version major.minor`.
    pub version: (u32, u32),
    /// `.target`, the first word.
    pub target: &'a str,
    /// `.file` numbers and paths.
    pub files: Vec<(u32, &'a str)>,
    /// Variables at module level.
    pub variables: Vec<Variable<'a>>,
    /// Entry points and device functions, declarations without a body included.
    pub functions: Vec<Function<'a>>,
    /// `.alias`: the new name and the function it stands for.
    pub aliases: Vec<(&'a str, &'a str)>,
}

/// `.entry` or `.func`.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub name: &'a str,
    pub line: u32,
    pub is_entry: bool,
    /// `.maxntid`, threads of a block at most.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`, threads of a block exactly.
    pub required_threads: Option<[u32; 3]>,
    pub cluster: Cluster,
    pub returns: Vec<Variable<'a>>,
    pub params: Vec<Variable<'a>>,
    pub body: Option<Vec<Item<'a>>>,
}

/// What an entry point asks of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// `.reqnctapercluster`, blocks of a cluster exactly.
    pub required: Option<[u32; 3]>,
    /// `.maxclusterrank`, blocks of a cluster at most.
    pub max: Option<u32>,
    /// `.explicitcluster`: the launch must give a shape.
    pub explicit: bool,
    /// `.blocksareclusters`: the grid counts clusters.
    pub counts_clusters: bool,
}

/// `.space .align A .type name[dims] = init`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable<'a> {
    pub name: &'a str,
    pub line: u32,
    /// Without the dot: `shared`, `global`, `const`, `local`, `param`, or `reg` for a parameter in a register.
    pub space: &'a str,
    pub is_extern: bool,
    /// Bytes; the type's own where the text does not say.
    pub align: u32,
    /// Bytes; 0 for `x[]`.
    pub size: u32,
    /// The initial bytes where the text gives any, as long as `size`.
    pub init: Option<Vec<u8>>,
    /// Addresses that the initial bytes hold, where `init` is 0.
    pub relocations: Vec<Relocation<'a>>,
}

/// `name+offset`, `generic(name)+offset` or `0xFF00(name)` among the initial bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relocation<'a> {
    /// The first byte that the address goes to.
    pub at: u32,
    /// How many bytes of it go there.
    pub bytes: u32,
    /// By how many bits the address is shifted to the right before.
    pub shift: u32,
    /// A variable or a function.
    pub name: &'a str,
    pub offset: i64,
    /// `generic(name)`: its address in the generic space.
    pub is_generic: bool,
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// `name:`.
    Label {
        name: &'a str,
        line: u32,
    },
    /// `.reg .type name<count>` or `.reg .type a, b`: one item a name. The type is without the dot.
    Register {
        name: &'a str,
        line: u32,
        ty: &'a str,
        count: Option<u32>,
    },
    /// A variable of the body.
    Variable(Variable<'a>),
    /// `label: .branchtargets a, b;`.
    BranchTargets {
        name: &'a str,
        line: u32,
        labels: Vec<&'a str>,
    },
    /// `{ ... }`, a scope of names.
    Block(Vec<Item<'a>>),
    Instruction(Instruction<'a>),
}

/// `@guard opcode.modifiers operands;`.
#[derive(Debug)]
pub(crate) struct Instruction<'a> {
    pub line: u32,
    /// The `.loc` that holds: file number, line, column.
    pub loc: Option<(u32, u32, u32)>,
    /// The predicate, and whether `!` stands before it.
    pub guard: Option<(&'a str, bool)>,
    /// The opcode with its modifiers, as written: `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`.
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
    /// The statement as written, from its guard or opcode to before the `;`.
    pub text: &'a str,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A register, a special register (`%tid.x`), a variable or a label.
    Name(&'a str),
    /// `!name`.
    Not(&'a str),
    /// `a|b`, two destinations.
    Pair(&'a str, &'a str),
    /// `name+4` outside of brackets: the address of a variable.
    Offset(&'a str, i64),
    /// A whole number; unsigned 64-bit ones keep their bits.
    Integer(i64),
    /// `0f...`, the bits.
    F32(u32),
    /// `0d...` or a decimal fraction, the bits.
    F64(u64),
    /// `_`, a destination nobody wants.
    Sink,
    /// `[base+offset]`.
    Address(Base<'a>, i64),
    /// `[map, {x, y}]`, a place in a tensor.
    Tensor(Base<'a>, Vec<Operand<'a>>),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `(a, b)` of a call.
    List(Vec<Operand<'a>>),
}

/// What an address counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base<'a> {
    /// A register or a variable.
    Name(&'a str),
    /// Nothing: `[16]`.
    Zero,
}
