//! Statements and operands.

use super::ast::{Base, Instruction, Item, Operand};
use super::lex::Kind;
use super::number::{Number, signed};
use super::parse::{Parser, Step, mismatch};
use super::variable::type_bytes;

/// Scopes that may stand in each other.
const DEEPEST: u32 = 64;

impl<'a> Parser<'a> {
    /// `{ ... }`.
    pub fn block(&mut self) -> Step<Vec<Item<'a>>> {
        if self.depth == DEEPEST {
            return Err(mismatch(self.token.line, format!("at most {DEEPEST} scopes in each other"), "one more"));
        }
        self.depth += 1;
        self.expect("{")?;
        let mut items = vec![];
        while !self.eat("}")? {
            self.statement(&mut items)?;
        }
        self.depth -= 1;
        Ok(items)
    }

    /// One statement, which may be several items.
    fn statement(&mut self, items: &mut Vec<Item<'a>>) -> Step<()> {
        match self.token.text {
            _ if self.at_name() => self.label_or_instruction(items)?,
            "@" => items.push(Item::Instruction(self.guarded()?)),
            "{" => items.push(Item::Block(self.block()?)),
            ".loc" => self.location()?,
            ".reg" => self.registers(items)?,
            ".extern" | ".shared" | ".global" | ".const" | ".local" | ".param" => {
                let is_extern = self.eat(".extern")?;
                items.extend(self.variables(is_extern)?.into_iter().map(Item::Variable));
            }
            ".pragma" => self.pragma()?,
            ";" => drop(self.bump()?),
            _ => return Err(self.expected("a statement or `}`")),
        }
        Ok(())
    }

    /// `.reg .type a, b<10>;`.
    fn registers(&mut self, items: &mut Vec<Item<'a>>) -> Step<()> {
        self.bump()?;
        let ty = self.token.text.strip_prefix('.').filter(|ty| type_bytes(ty).is_some());
        let ty = ty.ok_or_else(|| self.expected("a register's type"))?;
        self.bump()?;
        loop {
            let line = self.token.line;
            let name = self.name("a register's name")?;
            let mut count = None;
            if self.eat("<")? {
                count = Some(self.whole("a number of registers")?);
                self.expect(">")?;
            }
            self.add_registers(count.unwrap_or(1), line)?;
            items.push(Item::Register { name, line, ty, count });
            if !self.eat(",")? {
                self.expect(";")?;
                return Ok(());
            }
        }
    }

    /// `name:`, `name: .branchtargets ...;` or an instruction without a guard.
    fn label_or_instruction(&mut self, items: &mut Vec<Item<'a>>) -> Step<()> {
        let word = self.bump()?;
        let (name, line) = (word.text, word.line);
        if !self.eat(":")? {
            items.push(Item::Instruction(self.instruction(None, name, line, word.start)?));
            return Ok(());
        }
        match self.token.text {
            ".branchtargets" => {
                self.bump()?;
                items.push(Item::BranchTargets { name, line, labels: self.names("a label")? });
                self.expect(";")?;
            }
            // Calls through registers are not supported, so nobody needs what these say.
            ".calltargets" => {
                self.bump()?;
                self.names("a function's name")?;
                self.expect(";")?;
            }
            ".callprototype" => self.prototype()?,
            _ => items.push(Item::Label { name, line }),
        }
        Ok(())
    }

    /// `.callprototype (returns) _ (params) .noreturn;`.
    fn prototype(&mut self) -> Step<()> {
        self.bump()?;
        self.params()?;
        self.name("`_`")?;
        self.params()?;
        while self.at_directive() {
            self.ignored()?;
        }
        self.expect(";").map(drop)
    }

    /// `@p opcode operands;` or `@!p opcode operands;`.
    fn guarded(&mut self) -> Step<Instruction<'a>> {
        let sign = self.bump()?;
        let negated = self.eat("!")?;
        let guard = self.name("a predicate")?;
        let opcode = self.name("an opcode")?;
        self.instruction(Some((guard, negated)), opcode, sign.line, sign.start)
    }

    /// The operands of an instruction and its `;`.
    fn instruction(
        &mut self,
        guard: Option<(&'a str, bool)>,
        opcode: &'a str,
        line: u32,
        start: usize,
    ) -> Step<Instruction<'a>> {
        let operands = self.separated(";", Self::operand)?;
        let text = self.since(start);
        self.bump()?;
        Ok(Instruction { line, loc: self.loc, guard, opcode, operands, text })
    }

    /// An operand of an instruction.
    fn operand(&mut self) -> Step<Operand<'a>> {
        match self.token.text {
            "[" => self.address(),
            "{" => Ok(Operand::Vector(self.group("}")?)),
            "(" => Ok(Operand::List(self.group(")")?)),
            _ => self.scalar(),
        }
    }

    /// `{a, b}` or `(a, b)`.
    fn group(&mut self, close: &str) -> Step<Vec<Operand<'a>>> {
        self.bump()?;
        let operands = self.separated(close, Self::scalar)?;
        self.bump()?;
        Ok(operands)
    }

    /// An operand without brackets.
    fn scalar(&mut self) -> Step<Operand<'a>> {
        if self.eat("!")? {
            return Ok(Operand::Not(self.name("a predicate")?));
        }
        if !self.at_name() {
            return self.literal();
        }
        let name = self.bump()?.text;
        if self.eat("|")? {
            return Ok(Operand::Pair(name, self.name("a register or `_`")?));
        }
        if self.at("+") || self.at("-") {
            return Ok(Operand::Offset(name, self.offset()?));
        }
        Ok(if name == "_" { Operand::Sink } else { Operand::Name(name) })
    }

    /// A number with or without a minus.
    fn literal(&mut self) -> Step<Operand<'a>> {
        let negative = self.at("-");
        if !negative && self.token.kind != Kind::Number {
            return Err(self.expected("an operand"));
        }
        let line = self.token.line;
        self.eat("-")?;
        Ok(match self.number("a number")? {
            Number::Integer(value) => Operand::Integer(signed(value, negative, line)?),
            Number::F32(bits) => Operand::F32(bits ^ u32::from(negative) << 31),
            Number::F64(bits) => Operand::F64(bits ^ u64::from(negative) << 63),
        })
    }

    /// `[base+offset]`, `[base]`, `[offset]` or `[base, {x, y}]`.
    fn address(&mut self) -> Step<Operand<'a>> {
        self.expect("[")?;
        let operand = if self.at_name() {
            let base = Base::Name(self.bump()?.text);
            if self.eat(",")? {
                if !self.at("{") {
                    return Err(self.expected("`{`"));
                }
                Operand::Tensor(base, self.group("}")?)
            } else {
                Operand::Address(base, self.offset_if_any()?)
            }
        } else {
            Operand::Address(Base::Zero, self.offset()?)
        };
        self.expect("]")?;
        Ok(operand)
    }

    /// What follows the name of an address: an offset, or nothing for 0.
    pub fn offset_if_any(&mut self) -> Step<i64> {
        if self.at("+") || self.at("-") { self.offset() } else { Ok(0) }
    }

    /// `+4`, `-4`, `+-4`, or several of them.
    fn offset(&mut self) -> Step<i64> {
        let mut sum = 0_i64;
        loop {
            let mut negative = false;
            while self.at("+") || self.at("-") {
                negative ^= self.bump()?.text == "-";
            }
            let token = self.token;
            let Number::Integer(value) = self.number("an offset")? else {
                return Err(mismatch(token.line, "an offset", token.shown()));
            };
            let value = signed(value, negative, token.line)?;
            let too_large = || mismatch(token.line, "offsets that add up to 64 bits", token.shown());
            sum = sum.checked_add(value).ok_or_else(too_large)?;
            if !self.at("+") && !self.at("-") {
                return Ok(sum);
            }
        }
    }
}
