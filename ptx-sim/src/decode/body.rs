//! One entry point while it is decoded: names, registers, and the instructions so far.

use super::flow::{Exit, Raw};
use super::instruction::{self, Decoded};
use super::layout::{Space32, place};
use super::opcode::Opcode;
use super::operands::{Operands, Slot};
use crate::error::ParseError;
use crate::program::{Action, AnyReg, Constant, Constants};
use crate::registers::{Long, Pred, Reg, Word};
use crate::report::{Class, Space};
use crate::syntax::ast::{Function, Instruction, Item, Operand, Variable};
use rustc_hash::FxHashMap;

type Result<T> = std::result::Result<T, ParseError>;

/// Generic addresses of shared memory begin here.
pub(crate) const SHARED_WINDOW: u64 = 0x7e00_0000_0000;
/// Bits of an address in shared memory below the rank of the block in its cluster, as the hardware has it: the PTX ISA
/// leaves that open.
pub(crate) const RANK_SHIFT: u32 = 24;
/// Generic addresses of local memory begin here.
pub(crate) const LOCAL_WINDOW: u64 = 0x7d00_0000_0000;
/// Generic addresses of parameters begin here.
pub(crate) const PARAM_WINDOW: u64 = 0x7b00_0000_0000;
/// Bytes of a window.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;
/// Calls inside calls, at most: there is no stack, callees are copied in.
const MAX_CALL_DEPTH: usize = 32;
/// Instructions of an entry point with its callees, at most: fewer than races are remembered with.
const MAX_INSTRUCTIONS: usize = 1 << 19;
/// Registers of an entry point, at most.
const MAX_REGISTERS: u32 = 1 << 20;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Symbol {
    Register(AnyReg),
    Predicate(Pred),
    Memory {
        space: Space,
        address: u64,
    },
    Label(u32),
    /// The `.branchtargets` with this number.
    Targets(u32),
}

/// Registers with a common name and a number: `%r<10>`.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: Symbol,
    count: u32,
}

impl Range {
    fn nth(self, number: u32) -> Option<Symbol> {
        (number < self.count).then_some(match self.first {
            Symbol::Register(AnyReg::Word(first)) => Symbol::Register(AnyReg::Word(Reg::new(first.0 + number))),
            Symbol::Register(AnyReg::Long(first)) => Symbol::Register(AnyReg::Long(Reg::new(first.0 + number))),
            Symbol::Predicate(first) => Symbol::Predicate(Pred(first.0 + number)),
            other => other,
        })
    }
}

/// Names that are known between two braces.
#[derive(Clone, Debug, Default)]
struct Scope<'a> {
    names: FxHashMap<&'a str, Symbol>,
    ranges: FxHashMap<&'a str, Range>,
}

/// Where in the text the decoder is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub line: u32,
    pub loc: Option<(u32, u32, u32)>,
    pub text: (u32, u32),
}

/// Address of the first parameter of an entry point: a multiple of the largest alignment that is declared, and of no
/// higher power of two, so that a kernel that counts on more is found. The hardware's own is 16.
pub(crate) fn param_base(function: &Function) -> u32 {
    function.params.iter().map(|param| param.align).fold(16, u32::max)
}

/// One entry point while it is decoded.
pub(crate) struct Body<'a> {
    functions: &'a [Function<'a>],
    text: &'a str,
    module: &'a FxHashMap<&'a str, Symbol>,
    shared: FxHashMap<(u32, &'a str), u32>,
    scopes: Vec<Scope<'a>>,
    targets: Vec<&'a [&'a str]>,
    /// Functions that are being copied in, with the label behind the call.
    calls: Vec<(&'a str, u32)>,
    word_constants: FxHashMap<Constant, Word>,
    long_constants: FxHashMap<Constant, Long>,
    true_predicate: Option<Pred>,
    place: Place,
    pub code: Vec<Raw>,
    /// Where each label stands in `code`, once that is known.
    pub labels: Vec<Option<usize>>,
    pub words: u32,
    pub longs: u32,
    pub predicates: u32,
    pub local: Space32,
    pub shared_granule: u32,
    pub global_granule: u32,
}

impl<'a> Body<'a> {
    /// `module` holds the names of the module level, `shared` the addresses of shared variables inside of bodies.
    pub fn new(
        functions: &'a [Function<'a>],
        text: &'a str,
        module: &'a FxHashMap<&'a str, Symbol>,
        shared: FxHashMap<(u32, &'a str), u32>,
    ) -> Self {
        Self {
            functions,
            text,
            module,
            shared,
            scopes: Vec::new(),
            targets: Vec::new(),
            calls: Vec::new(),
            word_constants: FxHashMap::default(),
            long_constants: FxHashMap::default(),
            true_predicate: None,
            place: Place::default(),
            code: Vec::new(),
            labels: Vec::new(),
            words: 0,
            longs: 0,
            predicates: 0,
            local: Space32::default(),
            shared_granule: 4,
            global_granule: 4,
        }
    }

    /// Decodes an entry point whose parameters are in parameter memory.
    pub fn entry(&mut self, function: &'a Function<'a>, items: &'a [Item<'a>]) -> Result<u32> {
        let mut scope = Scope::default();
        let mut bytes = Space32::from(param_base(function));
        for param in &function.params {
            let address = u64::from(bytes.place(param)?);
            scope.names.insert(param.name, Symbol::Memory { space: Space::Param, address });
        }
        self.scopes.push(scope);
        self.block(items)?;
        // A body may end without `ret`.
        self.place.line = function.line;
        self.push_hidden(Action::Exit, Exit::End, Vec::new());
        Ok(bytes.len() - param_base(function))
    }

    /// What a name stands for, innermost scope first.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: Option<u32> = name[prefix.len()..].parse().ok();
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| {
                let numbered = || scope.ranges.get(prefix)?.nth(number?);
                scope.names.get(name).copied().or_else(numbered)
            })
            .or_else(|| self.module.get(name).copied())
    }

    /// Registers that hold one value from the start.
    pub fn constants(&self) -> Constants {
        let mut words: Vec<_> = self.word_constants.iter().map(|(value, register)| (*register, *value)).collect();
        let mut longs: Vec<_> = self.long_constants.iter().map(|(value, register)| (*register, *value)).collect();
        words.sort_by_key(|(register, _)| register.0);
        longs.sort_by_key(|(register, _)| register.0);
        Constants { words, longs, yes: self.true_predicate }
    }

    pub fn fresh_word(&mut self) -> Word {
        self.words += 1;
        Reg::new(self.words - 1)
    }

    pub fn fresh_long(&mut self) -> Long {
        self.longs += 1;
        Reg::new(self.longs - 1)
    }

    pub fn fresh_predicate(&mut self) -> Pred {
        self.predicates += 1;
        Pred(self.predicates - 1)
    }

    pub fn constant_word(&mut self, value: Constant) -> Word {
        if let Some(register) = self.word_constants.get(&value) {
            return *register;
        }
        let register = self.fresh_word();
        self.word_constants.insert(value, register);
        register
    }

    pub fn constant_long(&mut self, value: Constant) -> Long {
        if let Some(register) = self.long_constants.get(&value) {
            return *register;
        }
        let register = self.fresh_long();
        self.long_constants.insert(value, register);
        register
    }

    /// A predicate that holds in every lane.
    pub fn constant_predicate(&mut self) -> Pred {
        if let Some(predicate) = self.true_predicate {
            return predicate;
        }
        let predicate = self.fresh_predicate();
        self.true_predicate = Some(predicate);
        predicate
    }

    /// The labels of a `.branchtargets`.
    pub fn targets(&self, number: u32) -> &'a [&'a str] {
        self.targets[number as usize]
    }

    /// Adds an instruction that the text does not have.
    pub fn emit_hidden(&mut self, action: Action, writes: Slot) {
        self.push_hidden(action, Exit::Next, vec![writes]);
    }

    fn push_hidden(&mut self, action: Action, exit: Exit, writes: Vec<Slot>) {
        let place = self.place;
        let (reads, class) = (Vec::new(), Class::Control);
        self.code.push(Raw { action, guard: None, reads, writes, class, place, hidden: true, exit });
    }

    fn block(&mut self, items: &'a [Item<'a>]) -> Result<()> {
        let mut scope = Scope::default();
        // A branch may lead forward.
        for item in items {
            match item {
                Item::Label { name, line } => {
                    self.labels.push(None);
                    let label = Symbol::Label(self.labels.len() as u32 - 1);
                    if scope.names.insert(name, label).is_some() {
                        return Err(ParseError::new(*line, format!("the label {name} is there twice")));
                    }
                }
                Item::BranchTargets { name, line, labels } => {
                    self.targets.push(labels);
                    let targets = Symbol::Targets(self.targets.len() as u32 - 1);
                    if scope.names.insert(name, targets).is_some() {
                        return Err(ParseError::new(*line, format!("the label {name} is there twice")));
                    }
                }
                _ => {}
            }
        }
        self.scopes.push(scope);
        for item in items {
            self.item(item)?;
        }
        self.scopes.pop();
        Ok(())
    }

    fn item(&mut self, item: &'a Item<'a>) -> Result<()> {
        match item {
            Item::Label { name, .. } => {
                if let Some(Symbol::Label(label)) = self.symbol(name) {
                    self.labels[label as usize] = Some(self.code.len());
                }
                Ok(())
            }
            Item::Register { name, line, ty, count } => self.registers(name, *line, ty, *count),
            Item::Variable(variable) => self.variable(variable),
            Item::BranchTargets { .. } => Ok(()),
            Item::Block(items) => self.block(items),
            Item::Instruction(instruction) => self.instruction(instruction),
        }
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("a body has a scope")
    }

    fn registers(&mut self, name: &'a str, line: u32, ty: &str, count: Option<u32>) -> Result<()> {
        let n = count.unwrap_or(1);
        let taken = self.words + self.longs + self.predicates;
        if n > MAX_REGISTERS - taken.min(MAX_REGISTERS) {
            return Err(ParseError::new(line, format!("{n} more registers, allowed: {MAX_REGISTERS} in all")));
        }
        let first = match ty {
            "pred" => {
                self.predicates += n;
                Symbol::Predicate(Pred(self.predicates - n))
            }
            "b64" | "u64" | "s64" | "f64" => {
                self.longs += n;
                Symbol::Register(AnyReg::Long(Reg::new(self.longs - n)))
            }
            "b8" | "u8" | "s8" | "b16" | "u16" | "s16" | "f16" | "bf16" | "b32" | "u32" | "s32" | "f32" | "f16x2"
            | "bf16x2" => {
                self.words += n;
                Symbol::Register(AnyReg::Word(Reg::new(self.words - n)))
            }
            _ => return Err(ParseError::new(line, format!("registers of type .{ty} are not supported"))),
        };
        match count {
            Some(count) => {
                self.scope().ranges.insert(name, Range { first, count });
            }
            None => {
                self.scope().names.insert(name, first);
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &'a Variable<'a>) -> Result<()> {
        let symbol = match variable.space {
            "local" | "param" => {
                let address = u64::from(self.local.place(variable)?);
                Symbol::Memory { space: Space::Local, address }
            }
            "shared" => match self.shared.get(&(variable.line, variable.name)) {
                Some(address) => Symbol::Memory { space: Space::Shared, address: u64::from(*address) },
                None => return Err(ParseError::new(variable.line, format!("{} has no place", variable.name))),
            },
            space => {
                let message = format!("{}: variables in .{space} stand at module level", variable.name);
                return Err(ParseError::new(variable.line, message));
            }
        };
        self.scope().names.insert(variable.name, symbol);
        Ok(())
    }

    fn instruction(&mut self, instruction: &'a Instruction<'a>) -> Result<()> {
        let line = instruction.line;
        if self.code.len() > MAX_INSTRUCTIONS {
            return Err(ParseError::new(line, format!("more than {MAX_INSTRUCTIONS} instructions")));
        }
        self.place = Place { line, loc: instruction.loc, text: place(self.text, instruction.text) };
        let op = Opcode::new(instruction.opcode, line);
        if op.name == "call" {
            return self.call(op, instruction);
        }
        let mut operands = Operands::new(op, self, &instruction.operands);
        let guard = match instruction.guard {
            Some((name, negated)) => {
                let predicate = operands.predicate_named(name)?;
                operands.reads.push(Slot::Pred(predicate.0));
                Some((predicate, negated))
            }
            None => None,
        };
        let Decoded { action, exit, class } = instruction::decode(&mut operands)?;
        let (reads, writes) = (operands.reads, operands.writes);
        let place = self.place;
        self.code.push(Raw { action, guard, reads, writes, class, place, hidden: false, exit });
        Ok(())
    }

    /// The label of this name.
    pub fn label(&self, name: &str) -> Option<u32> {
        match self.symbol(name) {
            Some(Symbol::Label(label)) => Some(label),
            _ => None,
        }
    }

    /// Where `ret` leads; nothing in the entry point itself.
    pub fn return_label(&self) -> Option<u32> {
        self.calls.last().map(|(_, label)| *label)
    }

    /// Copies the callee in: parameters are local memory of the caller, under the callee's names.
    fn call(&mut self, mut op: Opcode<'a>, instruction: &'a Instruction<'a>) -> Result<()> {
        let error = |message: String| ParseError::new(instruction.line, message);
        op.take("uni");
        op.finish()?;
        if instruction.guard.is_some() {
            return Err(error("a call with a guard is not supported".into()));
        }
        let (returns, rest) = match instruction.operands.as_slice() {
            [Operand::List(returns), rest @ ..] => (returns.as_slice(), rest),
            rest => (&[][..], rest),
        };
        let (name, args) = match rest {
            [Operand::Name(name)] => (*name, &[][..]),
            [Operand::Name(name), Operand::List(args), ..] => (*name, args.as_slice()),
            _ => return Err(error("expected call (returns), function, (arguments)".into())),
        };
        let with_body = |f: &&Function<'a>| f.name == name && !f.is_entry && f.body.is_some();
        let Some(callee) = self.functions.iter().find(with_body) else {
            if name.contains("panic") {
                self.push_hidden(Action::Trap, Exit::End, Vec::new());
                return Ok(());
            }
            return Err(error(format!(
                "{name} is not a function with a body; calls through registers are not supported"
            )));
        };
        if self.calls.iter().any(|(caller, _)| *caller == name) || self.calls.len() == MAX_CALL_DEPTH {
            return Err(error(format!("{name} calls itself, or {MAX_CALL_DEPTH} calls are inside each other")));
        }
        if returns.len() != callee.returns.len() || args.len() != callee.params.len() {
            let (r, p) = (callee.returns.len(), callee.params.len());
            return Err(error(format!("{name} returns {r} values and takes {p} parameters")));
        }
        let mut scope = Scope::default();
        let formal = callee.returns.iter().chain(&callee.params);
        for (formal, actual) in formal.zip(returns.iter().chain(args)) {
            let symbol = match actual {
                Operand::Name(actual) => self.symbol(actual),
                _ => None,
            };
            let Some(symbol @ Symbol::Memory { space: Space::Local, .. }) = symbol else {
                return Err(error(format!("{actual:?} as an argument, expected a variable in .param")));
            };
            scope.names.insert(formal.name, symbol);
        }
        self.labels.push(None);
        let behind = self.labels.len() as u32 - 1;
        let caller = std::mem::replace(&mut self.scopes, vec![scope]);
        self.calls.push((callee.name, behind));
        self.block(callee.body.as_deref().unwrap_or_default())?;
        self.calls.pop();
        self.scopes = caller;
        self.labels[behind as usize] = Some(self.code.len());
        Ok(())
    }
}

impl Body<'_> {
    /// Notes how narrow an access is, so that races are looked for in pieces of that size.
    pub fn note_access(&mut self, space: Space, width: u32) {
        let width = width.min(4);
        if matches!(space, Space::Shared | Space::Cluster | Space::Generic) {
            self.shared_granule = self.shared_granule.min(width);
        }
        if matches!(space, Space::Global | Space::Generic) {
            self.global_granule = self.global_granule.min(width);
        }
    }
}
