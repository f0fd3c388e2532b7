//! Modules and functions.

use super::ast::{Cluster, Function, Module};
use super::lex::{Kind, Lexer, Token};
use super::number::{Number, number};
use crate::error::ParseError;
use std::fmt::Display;

/// Result of a step of the parser.
pub(super) type Step<T> = Result<T, ParseError>;

/// Registers that a function may declare.
const MOST_REGISTERS: u32 = 1 << 20;

/// The error of a text that has `found` where it should have `expected`.
pub(super) fn mismatch(line: u32, expected: impl Display, found: impl Display) -> ParseError {
    ParseError::new(line, format!("expected {expected}, found {found}"))
}

/// A text, read up to some token.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next token.
    pub token: Token<'a>,
    /// Where the token before ends.
    end: usize,
    /// The `.loc` that holds.
    pub loc: Option<(u32, u32, u32)>,
    /// Scopes around this place.
    pub depth: u32,
    /// Registers of the function so far.
    registers: u32,
    /// Initial bytes of the module so far.
    pub initial: u64,
}

impl<'a> Parser<'a> {
    /// Before the first token.
    pub fn new(text: &'a str) -> Step<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.token()?;
        Ok(Self { lexer, token, end: 0, loc: None, depth: 0, registers: 0, initial: 0 })
    }

    /// Takes the next token.
    pub fn bump(&mut self) -> Step<Token<'a>> {
        let taken = std::mem::replace(&mut self.token, self.lexer.token()?);
        self.end = taken.start + taken.text.len();
        Ok(taken)
    }

    /// Whether `text` comes next.
    pub fn at(&self, text: &str) -> bool {
        self.token.text == text
    }

    /// Whether a dotted word comes next.
    pub fn at_directive(&self) -> bool {
        self.token.kind == Kind::Word && self.token.text.starts_with('.')
    }

    /// Whether a name comes next.
    pub fn at_name(&self) -> bool {
        self.token.kind == Kind::Word && !self.token.text.starts_with('.')
    }

    /// Takes `text` if it comes next.
    pub fn eat(&mut self, text: &str) -> Step<bool> {
        let found = self.at(text);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    /// Takes `text`, which must come next.
    pub fn expect(&mut self, text: &str) -> Step<Token<'a>> {
        if self.at(text) { self.bump() } else { Err(self.expected(format!("`{text}`"))) }
    }

    /// The error of a text that does not go on with `what`.
    pub fn expected(&self, what: impl Display) -> ParseError {
        mismatch(self.token.line, what, self.token.shown())
    }

    /// Takes a name or an opcode.
    pub fn name(&mut self, what: &str) -> Step<&'a str> {
        if self.at_name() { Ok(self.bump()?.text) } else { Err(self.expected(what)) }
    }

    /// Takes a literal.
    pub fn number(&mut self, what: &str) -> Step<Number> {
        if self.token.kind != Kind::Number {
            return Err(self.expected(what));
        }
        let value = number(self.token.text).ok_or_else(|| self.expected(format!("{what} of at most 64 bits")))?;
        self.bump()?;
        Ok(value)
    }

    /// Takes a whole number of 32 bits.
    pub fn whole(&mut self, what: &str) -> Step<u32> {
        let token = self.token;
        match self.number(what)? {
            Number::Integer(value) if value <= u64::from(u32::MAX) => Ok(value as u32),
            Number::Integer(_) => Err(mismatch(token.line, format!("{what} of at most 32 bits"), token.shown())),
            _ => Err(mismatch(token.line, what, token.shown())),
        }
    }

    /// Takes `a, b, ...`.
    pub fn names(&mut self, what: &str) -> Step<Vec<&'a str>> {
        let mut names = vec![self.name(what)?];
        while self.eat(",")? {
            names.push(self.name(what)?);
        }
        Ok(names)
    }

    /// Takes items with a `,` between them, up to and without `close`.
    pub fn separated<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Step<T>) -> Step<Vec<T>> {
        let mut items = vec![];
        while !self.at(close) {
            if !items.is_empty() && !self.eat(",")? {
                return Err(self.expected(format!("`,` or `{close}`")));
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// The text from `start` to the last token taken.
    pub fn since(&self, start: usize) -> &'a str {
        self.lexer.slice(start, self.end)
    }

    /// Counts `more` registers of a function.
    pub fn add_registers(&mut self, more: u32, line: u32) -> Step<()> {
        self.registers = self.registers.saturating_add(more);
        if self.registers > MOST_REGISTERS {
            let expected = format!("at most {MOST_REGISTERS} registers in a function");
            return Err(mismatch(line, expected, format!("{more} more")));
        }
        Ok(())
    }

    /// The whole text.
    pub fn module(mut self) -> Step<Module<'a>> {
        self.expect(".version")?;
        let version = self.version()?;
        self.expect(".target")?;
        let target = self.names("a target")?[0];
        let mut module =
            Module { version, target, files: vec![], variables: vec![], functions: vec![], aliases: vec![] };
        while self.token.kind != Kind::End {
            self.declaration(&mut module)?;
        }
        Ok(module)
    }

    /// `major.minor`.
    fn version(&mut self) -> Step<(u32, u32)> {
        let parts = self.token.text.split_once('.');
        let version = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version = version.ok_or_else(|| self.expected("a version such as `7.5`"))?;
        self.bump()?;
        Ok(version)
    }

    /// A directive, variable or function at module level.
    fn declaration(&mut self, module: &mut Module<'a>) -> Step<()> {
        let mut linkage = "";
        while matches!(self.token.text, ".extern" | ".visible" | ".weak" | ".common") {
            linkage = self.bump()?.text;
        }
        match self.token.text {
            ".entry" | ".func" => module.functions.push(self.function()?),
            ".shared" | ".global" | ".const" | ".local" => {
                module.variables.extend(self.variables(linkage == ".extern")?);
            }
            _ if !linkage.is_empty() => return Err(self.expected("a variable or function")),
            ".file" => module.files.push(self.file()?),
            ".loc" => self.location()?,
            ".pragma" => self.pragma()?,
            ".section" => self.section()?,
            ".address_size" => {
                self.bump()?;
                self.expect("64")?;
            }
            ".alias" => {
                self.bump()?;
                let alias = self.name("a function's name")?;
                self.expect(",")?;
                module.aliases.push((alias, self.name("a function's name")?));
                self.expect(";")?;
            }
            _ => return Err(self.expected("a directive, variable or function")),
        }
        Ok(())
    }

    /// `.entry name (params) directives` or `.func (returns) name (params) directives`, then a body or `;`.
    fn function(&mut self) -> Step<Function<'a>> {
        let keyword = self.bump()?;
        (self.loc, self.registers) = (None, 0);
        self.attribute()?;
        let is_entry = keyword.text == ".entry";
        let returns = if is_entry { vec![] } else { self.params()? };
        let name = self.name("a function's name")?;
        let params = self.params()?;
        let (mut max_threads, mut required_threads, mut cluster) = (None, None, Cluster::default());
        while self.at_directive() {
            match self.token.text {
                ".maxntid" => max_threads = Some(self.sizes("a number of threads")?),
                ".reqntid" => required_threads = Some(self.sizes("a number of threads")?),
                ".pragma" => self.pragma()?,
                ".reqnctapercluster" => cluster.required = Some(self.sizes("a number of blocks")?),
                ".maxclusterrank" => {
                    self.bump()?;
                    cluster.max = Some(self.whole("a number of blocks")?);
                }
                ".explicitcluster" => {
                    self.bump()?;
                    cluster.explicit = true;
                }
                ".blocksareclusters" => {
                    self.bump()?;
                    cluster.counts_clusters = true;
                }
                ".minnctapersm"
                | ".maxnctapersm"
                | ".maxnreg"
                | ".noreturn"
                | ".unique"
                | ".abi_preserve"
                | ".abi_preserve_control" => self.ignored()?,
                _ => return Err(self.expected("a directive of a function")),
            }
        }
        let body = if self.at("{") { Some(self.block()?) } else { None };
        if body.is_none() && !self.eat(";")? {
            return Err(self.expected("a body or `;`"));
        }
        let line = keyword.line;
        Ok(Function { name, line, is_entry, max_threads, required_threads, cluster, returns, params, body })
    }

    /// `.maxntid x, y, z`, or another directive with a number of something along each axis.
    fn sizes(&mut self, what: &str) -> Step<[u32; 3]> {
        self.bump()?;
        let mut sizes = [1; 3];
        for (axis, size) in sizes.iter_mut().enumerate() {
            if axis > 0 && !self.eat(",")? {
                break;
            }
            *size = self.whole(what)?;
        }
        Ok(sizes)
    }

    /// A directive that says nothing to a simulator, and its numbers.
    pub fn ignored(&mut self) -> Step<()> {
        self.bump()?;
        while self.token.kind == Kind::Number || self.at(",") {
            self.bump()?;
        }
        Ok(())
    }

    /// `.attribute(...)`, if it comes next.
    pub fn attribute(&mut self) -> Step<()> {
        if !self.eat(".attribute")? {
            return Ok(());
        }
        self.expect("(")?;
        let mut open = 1_u32;
        while open > 0 {
            match self.token.text {
                "(" => open += 1,
                ")" => open -= 1,
                _ if self.token.kind == Kind::End => return Err(self.expected("`)`")),
                _ => {}
            }
            self.bump()?;
        }
        Ok(())
    }

    /// `.pragma "a", "b";`.
    pub fn pragma(&mut self) -> Step<()> {
        self.bump()?;
        self.string()?;
        while self.eat(",")? {
            self.string()?;
        }
        self.expect(";")?;
        Ok(())
    }

    /// `.section name { ... }`, passed over.
    pub fn section(&mut self) -> Step<()> {
        self.bump()?;
        while !self.at("{") {
            if !matches!(self.token.kind, Kind::Word | Kind::Text) {
                return Err(self.expected("a section's name or `{`"));
            }
            self.bump()?;
        }
        self.lexer.skip_braces()?;
        self.bump()?;
        Ok(())
    }

    /// `.file number "path"`, with or without a time and a size.
    pub fn file(&mut self) -> Step<(u32, &'a str)> {
        self.bump()?;
        let number = self.whole("a file's number")?;
        let path = self.string()?;
        while self.eat(",")? {
            self.number("a time or a size")?;
        }
        Ok((number, path))
    }

    /// `.loc file line column`, with or without `, function_name label+4, inlined_at file line column`.
    pub fn location(&mut self) -> Step<()> {
        self.bump()?;
        self.loc = Some(self.position()?);
        while self.eat(",")? {
            if self.eat("function_name")? {
                self.name("a label")?;
                if self.eat("+")? {
                    self.whole("an offset")?;
                }
            } else if self.eat("inlined_at")? {
                self.position()?;
            } else {
                return Err(self.expected("`function_name` or `inlined_at`"));
            }
        }
        Ok(())
    }

    /// `file line column`.
    fn position(&mut self) -> Step<(u32, u32, u32)> {
        Ok((self.whole("a file's number")?, self.whole("a line")?, self.whole("a column")?))
    }

    /// What stands between two quotes.
    fn string(&mut self) -> Step<&'a str> {
        if self.token.kind != Kind::Text {
            return Err(self.expected("a string"));
        }
        let quoted = self.bump()?.text;
        Ok(&quoted[1..quoted.len() - 1])
    }
}
