//! From an opcode to what it does: control flow and memory here, the rest by family.

use super::asynchronous;
use super::flow::Exit;
use super::opcode::Type;
use super::operands::Operands;
use super::sync;
use super::warpgroup;
use crate::error::ParseError;
use crate::numeric::mma::Fp8;
use crate::numeric::packed::Half;
use crate::ops::{approximate, arithmetic, atomic, bits, collective, compare, convert, float, moves};
use crate::program::{Access, Action, Address, AnyReg, Factors, Matrix, Mma};
use crate::report::{Class, Space};
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;

/// What an instruction does, where control goes from it, and what it counts as.
pub(crate) struct Decoded {
    pub action: Action,
    pub exit: Exit,
    pub class: Class,
}

impl Decoded {
    pub fn new(class: Class, action: Action) -> Self {
        Self { action, exit: Exit::Next, class }
    }
}

/// Decodes one instruction.
pub(crate) fn decode(cx: &mut Operands) -> Result<Decoded> {
    let plain = |class: Class, action: Result<Action>| Ok(Decoded::new(class, action?));
    match cx.op.name {
        "bra" => branch(cx),
        "brx" => switch(cx),
        "ret" | "exit" | "trap" | "brkpt" => end(cx),
        "ld" | "ldu" => load(cx),
        "st" if cx.op.has("async") => asynchronous::store(cx),
        "st" => store(cx),
        "atom" | "red" => atomic::decode(cx).map(|action| {
            let class = match &action {
                Action::Atomic(atomic) => class_of(atomic.space),
                _ => Class::Global,
            };
            Decoded::new(class, action)
        }),
        "cp" => asynchronous::copy(cx),
        "mbarrier" => asynchronous::mbarrier(cx),
        "bar" | "barrier" => sync::barrier(cx),
        "membar" | "fence" => sync::fence(cx),
        "ldmatrix" | "stmatrix" => plain(Class::MatrixLoad, matrix(cx)),
        "mma" => plain(Class::Matrix, mma(cx)),
        "wgmma" => warpgroup::decode(cx),
        "shfl" | "vote" | "redux" | "match" | "elect" | "activemask" => plain(Class::Warp, collective::decode(cx)),
        "mov" | "selp" | "slct" | "cvta" | "isspacep" | "prmt" => plain(Class::Move, moves::decode(cx)),
        // These change nothing that can be seen here.
        "prefetch" | "nanosleep" | "applypriority" | "pmevent" => {
            Ok(Decoded::new(Class::Control, Action::Compute(Box::new(|_, _| {}))))
        }
        "setmaxnreg" => sync::max_registers(cx),
        "mapa" => plain(Class::Move, sync::map_address(cx)),
        "getctarank" => plain(Class::Move, sync::block_rank(cx)),
        "griddepcontrol" => sync::dependency(cx),
        "setp" | "set" => plain(Class::Predicate, compare::decode(cx)),
        "cvt" => plain(Class::Convert, convert::decode(cx)),
        "and" | "or" | "xor" | "not" if cx.op.peek_type() == Some(Type::Pred) => {
            plain(Class::Predicate, compare::decode_logic(cx))
        }
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bfind" | "brev"
        | "popc" | "clz" | "bmsk" | "fns" | "szext" => plain(Class::Integer, bits::decode(cx)),
        "ex2" | "lg2" | "rcp" | "rsqrt" | "sqrt" | "sin" | "cos" | "tanh" => {
            plain(Class::Special, approximate::decode(cx))
        }
        "div" if cx.op.has("approx") || cx.op.has("full") => plain(Class::Special, approximate::divide(cx)),
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "neg" | "abs" | "sad" | "mul24"
        | "mad24" | "addc" | "subc" | "dp4a" | "copysign" | "testp" => match cx.op.peek_type() {
            Some(ty) if ty.is_integer() => plain(Class::Integer, arithmetic::decode(cx)),
            Some(_) => plain(Class::Float, float::decode(cx)),
            None => cx.op.unknown(),
        },
        _ => cx.op.unknown(),
    }
}

fn branch(cx: &mut Operands) -> Result<Decoded> {
    cx.op.take("uni");
    cx.op.finish()?;
    cx.expect_len(1)?;
    let Operand::Name(name) = cx.get(0)? else { return Err(cx.unexpected(cx.get(0)?, "a label")) };
    let label = cx.body.label(name).ok_or_else(|| cx.op.error(format!("{name} is not a label here")))?;
    Ok(Decoded { action: Action::Branch(0), exit: Exit::To(label), class: Class::Control })
}

fn switch(cx: &mut Operands) -> Result<Decoded> {
    cx.op.take("idx");
    cx.op.take("uni");
    cx.op.finish()?;
    cx.expect_len(2)?;
    let index = cx.src(0)?;
    let Operand::Name(name) = cx.get(1)? else { return Err(cx.unexpected(cx.get(1)?, "a list of labels")) };
    let Some(super::body::Symbol::Targets(number)) = cx.body.symbol(name) else {
        return Err(cx.op.error(format!("{name} is not a list of labels")));
    };
    let label = |name: &&str| cx.body.label(name).ok_or_else(|| cx.op.error(format!("{name} is not a label here")));
    let labels = cx.body.targets(number).iter().map(label).collect::<Result<_>>()?;
    Ok(Decoded { action: Action::Switch(index, Box::default()), exit: Exit::Switch(labels), class: Class::Control })
}

fn end(cx: &mut Operands) -> Result<Decoded> {
    cx.op.take("uni");
    cx.op.finish()?;
    cx.expect_len(0)?;
    let (action, exit) = match (cx.op.name, cx.body.return_label()) {
        ("ret", Some(label)) => (Action::Branch(0), Exit::To(label)),
        ("ret" | "exit", _) => (Action::Exit, Exit::End),
        _ => (Action::Trap, Exit::End),
    };
    Ok(Decoded { action, exit, class: Class::Control })
}

/// Words that say how memory is ordered or cached, which changes nothing here.
const MEMORY_HINTS: [&str; 33] = [
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "weak",
    "mmio",
    "sys",
    "gpu",
    "cta",
    "cluster",
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L1",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::evict_first",
    "unified",
    "aligned",
];

pub(crate) fn take_hints(cx: &mut Operands) {
    while cx.op.take_any(&MEMORY_HINTS).is_some() {}
}

/// The state space that the opcode names, generic where it names none.
pub(crate) fn take_space(cx: &mut Operands) -> Space {
    let names = [
        ("shared::cluster", Space::Cluster),
        ("global", Space::Global),
        ("shared", Space::Shared),
        ("local", Space::Local),
        ("const", Space::Const),
        ("param", Space::Param),
    ];
    for (name, space) in names {
        if cx.op.take(name) || cx.op.take(&format!("{name}::cta")) || cx.op.take(&format!("{name}::entry")) {
            return space;
        }
    }
    Space::Generic
}

fn class_of(space: Space) -> Class {
    match space {
        Space::Global | Space::Generic => Class::Global,
        Space::Shared | Space::Cluster => Class::Shared,
        _ => Class::OtherMemory,
    }
}

fn load(cx: &mut Operands) -> Result<Decoded> {
    let kind = access(cx)?;
    cx.expect_len(2)?;
    let registers = cx.elements(0)?.iter().map(|element| cx.write_any(element)).collect::<Result<Vec<_>>>()?;
    let (address, space) = cx.address(1, kind.space)?;
    let access = finish_access(cx, Kind { space, ..kind }, address, registers)?;
    Ok(Decoded::new(class_of(access.space), Action::Load(access)))
}

fn store(cx: &mut Operands) -> Result<Decoded> {
    let kind = access(cx)?;
    cx.expect_len(2)?;
    let access = stored(cx, kind)?;
    Ok(Decoded::new(class_of(access.space), Action::Store(access)))
}

/// The address and the value of a store, its first operands.
fn stored(cx: &mut Operands, kind: Kind) -> Result<Access> {
    let (address, space) = cx.address(0, kind.space)?;
    let mut registers = Vec::new();
    for element in cx.elements(1)? {
        // A constant takes the width of the store.
        let narrow = kind.ty.bits() <= 32 && cx.constant(element)?.is_some();
        registers.push(Some(if narrow { AnyReg::Word(cx.read(element)?) } else { cx.read_any(element)? }));
    }
    finish_access(cx, Kind { space, ..kind }, address, registers)
}

/// The address and the value of `st.async`, which come first.
pub(super) fn stored_async(cx: &mut Operands) -> Result<Access> {
    let ty = match cx.op.take_type()? {
        ty @ (Type::B(32 | 64) | Type::U(32 | 64) | Type::S(32 | 64) | Type::F(32 | 64)) => ty,
        _ => return Err(cx.op.error("allowed types: .b32, .b64, .u32, .u64, .s32, .s64, .f32, .f64")),
    };
    stored(cx, Kind { space: Space::Cluster, ty, strong: false, releases: false })
}

fn access(cx: &mut Operands) -> Result<Kind> {
    let ty = match cx.op.take_type()? {
        Type::Pred => return cx.op.unknown(),
        ty => ty,
    };
    let releases = cx.op.take("release");
    let strong = cx.op.take_any(&["volatile", "relaxed", "acquire", "mmio"]).is_some() || releases;
    take_hints(cx);
    Ok(Kind { space: take_space(cx), ty, strong, releases })
}

/// What the opcode of a load or store says.
#[derive(Clone, Copy)]
struct Kind {
    space: Space,
    ty: Type,
    strong: bool,
    releases: bool,
}

fn finish_access(cx: &mut Operands, kind: Kind, address: Address, registers: Vec<Option<AnyReg>>) -> Result<Access> {
    let Kind { space, ty, strong, releases } = kind;
    let elements = match cx.op.take_any(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    cx.op.finish()?;
    let width = ty.bits() / 8;
    if registers.len() != elements || width * elements as u32 > 16 {
        return Err(cx.op.error(format!("{} elements of {width} bytes", registers.len())));
    }
    let narrow = |register: &Option<AnyReg>| matches!(register, Some(AnyReg::Word(_)));
    if width == 8 && registers.iter().any(narrow) {
        return Err(cx.op.error("a register of 32 bits for an element of 64"));
    }
    cx.body.note_access(space, width);
    Ok(Access { space, address, width, signed: ty.is_signed(), strong, releases, registers: registers.into() })
}

fn matrix(cx: &mut Operands) -> Result<Action> {
    if !(cx.op.take("sync") && cx.op.take("aligned") && cx.op.take("m8n8")) {
        return cx.op.unknown();
    }
    let count = match cx.op.expect(&["x1", "x2", "x4"])? {
        "x1" => 1,
        "x2" => 2,
        _ => 4,
    };
    let transposed = cx.op.take("trans");
    if !(cx.op.take("shared") || cx.op.take("shared::cta")) || !cx.op.take("b16") {
        return cx.op.unknown();
    }
    cx.op.finish()?;
    cx.expect_len(2)?;
    let loads = cx.op.name == "ldmatrix";
    let (vector, address) = if loads { (0, 1) } else { (1, 0) };
    let elements = cx.elements(vector)?;
    if elements.len() != count {
        return Err(cx.op.error(format!("{} registers, expected {count}", elements.len())));
    }
    let register = |element| if loads { cx.write(element) } else { cx.read(element) };
    let registers = elements.iter().map(register).collect::<Result<_>>()?;
    let (address, _) = cx.address(address, Space::Shared)?;
    let matrix = Matrix { registers, address, transposed };
    Ok(if loads { Action::LoadMatrix(matrix) } else { Action::StoreMatrix(matrix) })
}

fn mma(cx: &mut Operands) -> Result<Action> {
    let fixed = ["sync", "aligned", "row", "col"];
    if !fixed.iter().all(|modifier| cx.op.take(modifier)) {
        return cx.op.unknown();
    }
    let shape = cx.op.expect(&["m16n8k8", "m16n8k16", "m16n8k32"])?;
    // Result and accumulator; the inputs stand between them.
    if !(cx.op.take("f32") && cx.op.take("f32")) {
        return cx.op.unknown();
    }
    let factors = if shape == "m16n8k32" {
        let (Some(b), Some(a)) = (cx.op.take_last().and_then(fp8), cx.op.take_last().and_then(fp8)) else {
            return cx.op.unknown();
        };
        Factors::Fp8K32 { formats: [a, b], a: cx.src_words(1)?, b: cx.src_words(2)? }
    } else {
        let (name, format) = if cx.op.take("f16") { ("f16", Half::F16) } else { ("bf16", Half::Bf16) };
        if format == Half::Bf16 && !cx.op.take("bf16") || !cx.op.take(name) {
            return cx.op.unknown();
        }
        if shape == "m16n8k8" {
            Factors::HalfK8 { format, a: cx.src_words(1)?, b: cx.src_words(2)? }
        } else {
            Factors::HalfK16 { format, a: cx.src_words(1)?, b: cx.src_words(2)? }
        }
    };
    cx.op.finish()?;
    cx.expect_len(4)?;
    let (c, d) = (cx.src_words(3)?, cx.dst_words(0)?);
    Ok(Action::Mma(Box::new(Mma { factors, c, d })))
}

/// The format of 8 bits of this name.
pub(super) fn fp8(name: &str) -> Option<Fp8> {
    match name {
        "e4m3" => Some(Fp8::E4m3),
        "e5m2" => Some(Fp8::E5m2),
        _ => None,
    }
}
