//! The operands of one instruction, as registers, constants and addresses.

use super::body::{Body, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Symbol};
use super::opcode::Opcode;
use crate::error::ParseError;
use crate::ops::{self, Compute};
use crate::program::{Action, Address, AnyReg, Constant, Special};
use crate::registers::{Bits, Long, Pred, Reg, Word};
use crate::report::Space;
use crate::syntax::ast::{Base, Operand};

/// An instruction while it is decoded: its opcode, its operands, and what is found out about them.
pub(crate) struct Operands<'b, 'a> {
    pub op: Opcode<'a>,
    pub body: &'b mut Body<'a>,
    operands: &'b [Operand<'a>],
    pub reads: Vec<Slot>,
    pub writes: Vec<Slot>,
}

/// A register of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Word(u32),
    Long(u32),
    Pred(u32),
}

type Result<T> = std::result::Result<T, ParseError>;

impl<'b, 'a> Operands<'b, 'a> {
    pub fn new(op: Opcode<'a>, body: &'b mut Body<'a>, operands: &'b [Operand<'a>]) -> Self {
        Self { op, body, operands, reads: Vec::new(), writes: Vec::new() }
    }

    /// Number of operands.
    pub fn len(&self) -> usize {
        self.operands.len()
    }

    /// Fails unless there are `count` operands.
    pub fn expect_len(&self, count: usize) -> Result<()> {
        if self.len() == count {
            return Ok(());
        }
        Err(self.op.error(format!("{} operands, expected {count}", self.len())))
    }

    /// The operand at `index`.
    pub fn get(&self, index: usize) -> Result<&'b Operand<'a>> {
        self.operands.get(index).ok_or_else(|| self.op.error(format!("operand {} is missing", index + 1)))
    }

    /// The operand at `index`, read as `T`.
    pub fn src<T: Value>(&mut self, index: usize) -> Result<Reg<T>> {
        self.read(self.get(index)?)
    }

    /// The operand at `index`, written as `T`.
    pub fn dst<T: Value>(&mut self, index: usize) -> Result<Reg<T>> {
        self.write(self.get(index)?)
    }

    pub fn read<T: Value>(&mut self, operand: &Operand<'a>) -> Result<Reg<T>> {
        if let Some(bits) = self.constant(operand)? {
            return Ok(T::constant(self.body, bits));
        }
        let Operand::Name(name) = operand else { return Err(self.unexpected(operand, "a register or a number")) };
        if let Some(special) = special(name) {
            let register = T::fresh(self.body);
            self.body.emit_hidden(Action::Special(T::any(register), special), register_slot(T::any(register)));
            return Ok(register);
        }
        match self.body.symbol(name) {
            Some(Symbol::Register(register)) => {
                let register = T::of(register).ok_or_else(|| self.wrong_width(name, T::BITS))?;
                self.reads.push(register_slot(T::any(register)));
                Ok(register)
            }
            Some(Symbol::Predicate(_)) => Err(self.op.error(format!("{name} is a predicate"))),
            _ => Err(self.op.error(format!("{name} is not declared"))),
        }
    }

    pub fn write<T: Value>(&mut self, operand: &Operand<'a>) -> Result<Reg<T>> {
        match operand {
            Operand::Sink => Ok(T::fresh(self.body)),
            Operand::Name(name) => match self.body.symbol(name) {
                Some(Symbol::Register(register)) => {
                    let register = T::of(register).ok_or_else(|| self.wrong_width(name, T::BITS))?;
                    self.writes.push(register_slot(T::any(register)));
                    Ok(register)
                }
                _ => Err(self.op.error(format!("{name} is not a register that can be written"))),
            },
            other => Err(self.unexpected(other, "a register")),
        }
    }

    /// A source register of whatever width it has; constants are 64 bits wide.
    pub fn read_any(&mut self, operand: &Operand<'a>) -> Result<AnyReg> {
        if let Operand::Name(name) = operand
            && let Some(Symbol::Register(AnyReg::Word(_))) = self.body.symbol(name)
        {
            return Ok(AnyReg::Word(self.read(operand)?));
        }
        Ok(AnyReg::Long(self.read(operand)?))
    }

    /// A destination register of whatever width it has.
    pub fn write_any(&mut self, operand: &Operand<'a>) -> Result<Option<AnyReg>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Name(name) => match self.body.symbol(name) {
                Some(Symbol::Register(AnyReg::Word(_))) => Ok(Some(AnyReg::Word(self.write(operand)?))),
                _ => Ok(Some(AnyReg::Long(self.write(operand)?))),
            },
            other => Err(self.unexpected(other, "a register")),
        }
    }

    /// The predicate at `index`, and whether its opposite is meant.
    pub fn src_predicate(&mut self, index: usize) -> Result<(Pred, bool)> {
        let operand = self.get(index)?;
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            Operand::Integer(value) => return Ok((self.body.constant_predicate(), *value == 0)),
            other => return Err(self.unexpected(other, "a predicate")),
        };
        let predicate = self.predicate_named(name)?;
        self.reads.push(Slot::Pred(predicate.0));
        Ok((predicate, negated))
    }

    /// The predicate at `index`, which is written.
    pub fn dst_predicate(&mut self, index: usize) -> Result<Pred> {
        match self.get(index)? {
            Operand::Sink => Ok(self.body.fresh_predicate()),
            Operand::Name(name) => self.write_predicate(name),
            other => Err(self.unexpected(other, "a predicate")),
        }
    }

    pub fn write_predicate(&mut self, name: &str) -> Result<Pred> {
        if name == "_" {
            return Ok(self.body.fresh_predicate());
        }
        let predicate = self.predicate_named(name)?;
        self.writes.push(Slot::Pred(predicate.0));
        Ok(predicate)
    }

    pub fn predicate_named(&mut self, name: &str) -> Result<Pred> {
        match self.body.symbol(name) {
            Some(Symbol::Predicate(predicate)) => Ok(predicate),
            _ => Err(self.op.error(format!("{name} is not a predicate"))),
        }
    }

    /// The address at `index`, in `space`; the space may turn out to be another, as that of a parameter of a
    /// function.
    pub fn address(&mut self, index: usize, space: Space) -> Result<(Address, Space)> {
        let operand = self.get(index)?;
        let Operand::Address(base, offset) = operand else { return Err(self.unexpected(operand, "an address")) };
        self.address_of(*base, *offset, space)
    }

    /// As [`address`](Self::address), of the parts.
    pub fn address_of(&mut self, base: Base<'a>, offset: i64, space: Space) -> Result<(Address, Space)> {
        match base {
            Base::Zero => Ok((Address { base: None, offset }, space)),
            Base::Name(name) => match self.body.symbol(name) {
                Some(Symbol::Memory { space: own, address }) => {
                    let fits = own == space
                        || matches!((space, own), (Space::Param, Space::Local) | (Space::Cluster, Space::Shared));
                    let (address, space) = match space {
                        Space::Generic => (generic(own, address), space),
                        _ if fits => (address, own),
                        _ => return Err(self.op.error(format!("{name} is in {own:?} memory"))),
                    };
                    let offset = address as i64 + offset;
                    if own == Space::Shared {
                        // What the block's rank adds.
                        let base = AnyReg::Long(self.body.constant_long(Constant::Shared(0)));
                        return Ok((Address { base: Some(base), offset }, space));
                    }
                    Ok((Address { base: None, offset }, space))
                }
                Some(Symbol::Register(AnyReg::Word(register))) => {
                    self.reads.push(Slot::Word(register.0));
                    Ok((Address { base: Some(AnyReg::Word(register)), offset }, space))
                }
                Some(Symbol::Register(AnyReg::Long(register))) => {
                    self.reads.push(Slot::Long(register.0));
                    Ok((Address { base: Some(AnyReg::Long(register)), offset }, space))
                }
                _ => Err(self.op.error(format!("{name} is not declared"))),
            },
        }
    }

    /// The elements of a vector, or the operand alone.
    pub fn elements(&self, index: usize) -> Result<&'b [Operand<'a>]> {
        Ok(match self.get(index)? {
            Operand::Vector(elements) => elements,
            other => std::slice::from_ref(other),
        })
    }

    /// Exactly `N` words of a vector that is read.
    pub fn src_words<const N: usize>(&mut self, index: usize) -> Result<[Word; N]> {
        let words = self.elements(index)?.iter().map(|element| self.read(element)).collect::<Result<Vec<_>>>()?;
        self.exactly(index, words)
    }

    /// Exactly `N` words of a vector that is written.
    pub fn dst_words<const N: usize>(&mut self, index: usize) -> Result<[Word; N]> {
        let words = self.elements(index)?.iter().map(|element| self.write(element)).collect::<Result<Vec<_>>>()?;
        self.exactly(index, words)
    }

    fn exactly<const N: usize>(&self, index: usize, words: Vec<Word>) -> Result<[Word; N]> {
        let found = words.len();
        words.try_into().map_err(|_| self.op.error(format!("operand {} has {found} elements, expected {N}", index + 1)))
    }

    /// The whole number at `index`.
    pub fn integer(&self, index: usize) -> Result<i64> {
        match self.get(index)? {
            Operand::Integer(value) => Ok(*value),
            other => Err(self.unexpected(other, "a whole number")),
        }
    }

    /// The bits of an operand that is known when the text is loaded.
    pub fn constant(&self, operand: &Operand<'a>) -> Result<Option<Bits64>> {
        Ok(match operand {
            Operand::Integer(value) => Some(Bits64::Integer(*value)),
            Operand::F32(bits) => Some(Bits64::F32(*bits)),
            Operand::F64(bits) => Some(Bits64::F64(*bits)),
            Operand::Offset(name, offset) => match self.body.symbol(name) {
                Some(symbol @ Symbol::Memory { .. }) => address_bits(symbol, *offset),
                _ => return Err(self.op.error(format!("{name} is not a variable"))),
            },
            Operand::Name(name) => match self.body.symbol(name) {
                Some(symbol @ Symbol::Memory { .. }) => address_bits(symbol, 0),
                _ if *name == "WARP_SZ" => Some(Bits64::Integer(32)),
                _ => None,
            },
            _ => None,
        })
    }

    pub fn unexpected(&self, operand: &Operand<'_>, expected: &str) -> ParseError {
        self.op.error(format!("{operand:?} as an operand, expected {expected}"))
    }

    fn wrong_width(&self, name: &str, bits: u32) -> ParseError {
        self.op.error(format!("{name} is not a register of {bits} bits"))
    }

    /// `d = f(a)`.
    pub fn unary<D: Value, A: Value>(&mut self, f: impl Fn(A) -> D + Send + Sync + 'static) -> Result<Action> {
        self.expect_len(2)?;
        let (d, a) = (self.dst(0)?, self.src(1)?);
        self.computes(ops::map(d, a, f))
    }

    /// `d = f(a, b)`.
    pub fn binary<D: Value, A: Value, B: Value>(
        &mut self,
        f: impl Fn(A, B) -> D + Send + Sync + 'static,
    ) -> Result<Action> {
        self.expect_len(3)?;
        let (d, a, b) = (self.dst(0)?, self.src(1)?, self.src(2)?);
        self.computes(ops::map2(d, (a, b), f))
    }

    /// `d = f(a, b, c)`.
    pub fn ternary<D: Value, A: Value, B: Value, C: Value>(
        &mut self,
        f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
    ) -> Result<Action> {
        self.expect_len(4)?;
        let (d, a, b, c) = (self.dst(0)?, self.src(1)?, self.src(2)?, self.src(3)?);
        self.computes(ops::map3(d, (a, b, c), f))
    }

    /// The end of decoding an instruction that works on registers: nothing of the opcode may be left.
    pub fn computes(&self, compute: Compute) -> Result<Action> {
        self.op.finish()?;
        Ok(Action::Compute(compute))
    }
}

/// A constant before it is known how wide it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bits64 {
    Integer(i64),
    F32(u32),
    F64(u64),
    /// An address in the block's shared memory.
    Shared(u32),
}

/// The address of a variable, and so many bytes more.
fn address_bits(variable: Symbol, offset: i64) -> Option<Bits64> {
    match variable {
        Symbol::Memory { space: Space::Shared, address } => Some(Bits64::Shared((address as i64 + offset) as u32)),
        Symbol::Memory { address, .. } => Some(Bits64::Integer(address as i64 + offset)),
        _ => None,
    }
}

/// A register width that operands can have.
pub(crate) trait Value: Bits {
    const BITS: u32;
    fn of(register: AnyReg) -> Option<Reg<Self>>;
    fn any(register: Reg<Self>) -> AnyReg;
    fn fresh(body: &mut Body) -> Reg<Self>;
    fn constant(body: &mut Body, bits: Bits64) -> Reg<Self>;
}

impl Value for u32 {
    const BITS: u32 = 32;

    fn of(register: AnyReg) -> Option<Word> {
        match register {
            AnyReg::Word(word) => Some(word),
            AnyReg::Long(_) => None,
        }
    }

    fn any(register: Word) -> AnyReg {
        AnyReg::Word(register)
    }

    fn fresh(body: &mut Body) -> Word {
        body.fresh_word()
    }

    fn constant(body: &mut Body, bits: Bits64) -> Word {
        let bits = match bits {
            Bits64::Integer(value) => value as u32,
            Bits64::F32(bits) => bits,
            Bits64::F64(bits) => (f64::from_bits(bits) as f32).to_bits(),
            Bits64::Shared(address) => return body.constant_word(Constant::Shared(address)),
        };
        body.constant_word(Constant::Bits(bits.into()))
    }
}

impl Value for u64 {
    const BITS: u32 = 64;

    fn of(register: AnyReg) -> Option<Long> {
        match register {
            AnyReg::Long(long) => Some(long),
            AnyReg::Word(_) => None,
        }
    }

    fn any(register: Long) -> AnyReg {
        AnyReg::Long(register)
    }

    fn fresh(body: &mut Body) -> Long {
        body.fresh_long()
    }

    fn constant(body: &mut Body, bits: Bits64) -> Long {
        body.constant_long(match bits {
            Bits64::Integer(value) => Constant::Bits(value as u64),
            Bits64::F32(bits) => Constant::Bits(f64::from(f32::from_bits(bits)).to_bits()),
            Bits64::F64(bits) => Constant::Bits(bits),
            Bits64::Shared(address) => Constant::Shared(address),
        })
    }
}

/// The generic address of a variable.
fn generic(space: Space, address: u64) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW + address,
        Space::Local => LOCAL_WINDOW + address,
        Space::Param => PARAM_WINDOW + address,
        _ => address,
    }
}

/// The place of a register in the list of registers.
pub(crate) fn register_slot(register: AnyReg) -> Slot {
    match register {
        AnyReg::Word(word) => Slot::Word(word.0),
        AnyReg::Long(long) => Slot::Long(long.0),
    }
}

/// The special register of this name.
pub(crate) fn special(name: &str) -> Option<Special> {
    use crate::program::LaneMask;
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = name.strip_prefix('%')?;
    if let Some((vector, component)) = name.split_once('.') {
        let axis = axis(component)?;
        return Some(match vector {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            "clusterid" => Special::ClusterId(axis),
            "nclusterid" => Special::NclusterId(axis),
            "cluster_ctaid" => Special::ClusterCtaid(axis),
            "cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NWarpId,
        "lanemask_eq" => Special::LaneMask(LaneMask::Eq),
        "lanemask_le" => Special::LaneMask(LaneMask::Le),
        "lanemask_lt" => Special::LaneMask(LaneMask::Lt),
        "lanemask_ge" => Special::LaneMask(LaneMask::Ge),
        "lanemask_gt" => Special::LaneMask(LaneMask::Gt),
        "smid" => Special::SmId,
        "clock" | "clock64" | "globaltimer" | "clock_hi" | "globaltimer_lo" | "globaltimer_hi" => Special::Clock,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" => Special::TotalShared,
        "gridid" => Special::Fixed(0),
        "cluster_ctarank" => Special::ClusterRank,
        "cluster_nctarank" => Special::ClusterBlocks,
        _ => return None,
    })
}
