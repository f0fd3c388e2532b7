//! A dotted opcode, taken apart piece by piece so that nothing in it is overlooked.

use crate::error::ParseError;

/// The opcode of an instruction; the modifiers that nobody has asked for yet.
#[derive(Debug)]
pub(crate) struct Opcode<'a> {
    pub name: &'a str,
    modifiers: Vec<&'a str>,
    whole: &'a str,
    line: u32,
}

/// A type of the PTX language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// `.b`, bits without a meaning.
    B(u32),
    U(u32),
    S(u32),
    /// `.f16`, `.f32`, `.f64`.
    F(u32),
    F16x2,
    Bf16,
    Bf16x2,
    Pred,
}

impl Type {
    fn parse(name: &str) -> Option<Self> {
        let bits = |digits: &str| digits.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits));
        Some(match name {
            "pred" => Self::Pred,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "f16" | "f32" | "f64" => Self::F(name[1..].parse().ok()?),
            _ => match name.split_at_checked(1)? {
                ("b", digits) => Self::B(bits(digits)?),
                ("u", digits) => Self::U(bits(digits)?),
                ("s", digits) => Self::S(bits(digits)?),
                _ => return None,
            },
        })
    }

    /// Bits of a value.
    pub fn bits(self) -> u32 {
        match self {
            Self::B(bits) | Self::U(bits) | Self::S(bits) | Self::F(bits) => bits,
            Self::Bf16 => 16,
            Self::F16x2 | Self::Bf16x2 => 32,
            Self::Pred => 1,
        }
    }

    /// Whether it is an integer with a sign.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S(_))
    }

    /// Whether it is an integer or a bit string.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::B(_) | Self::U(_) | Self::S(_))
    }
}

impl<'a> Opcode<'a> {
    pub fn new(opcode: &'a str, line: u32) -> Self {
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or_default();
        Self { name, modifiers: parts.collect(), whole: opcode, line }
    }

    /// Whether the modifier is there; it counts as understood.
    pub fn take(&mut self, modifier: &str) -> bool {
        match self.position(modifier) {
            Some(index) => {
                self.modifiers.remove(index);
                true
            }
            None => false,
        }
    }

    /// Whether the modifier is there.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.contains(&modifier)
    }

    /// The place of a modifier among those that are left.
    pub fn position(&self, modifier: &str) -> Option<usize> {
        self.modifiers.iter().position(|m| *m == modifier)
    }

    /// The first of these modifiers that is there.
    pub fn take_any<'b>(&mut self, modifiers: &[&'b str]) -> Option<&'b str> {
        modifiers.iter().copied().find(|m| self.take(m))
    }

    /// As [`Opcode::take_any`], but one must be there.
    pub fn expect<'b>(&mut self, modifiers: &[&'b str]) -> Result<&'b str, ParseError> {
        self.take_any(modifiers).ok_or_else(|| self.error(format!("one of .{} is missing", modifiers.join(", ."))))
    }

    /// The last modifier, which must be a type.
    pub fn take_type(&mut self) -> Result<Type, ParseError> {
        match self.modifiers.last().and_then(|name| Type::parse(name)) {
            Some(ty) => {
                self.modifiers.pop();
                Ok(ty)
            }
            None => Err(self.error("ends without a type that is known")),
        }
    }

    /// The last modifier when it is a type.
    pub fn peek_type(&self) -> Option<Type> {
        self.modifiers.last().and_then(|name| Type::parse(name))
    }

    /// The last modifier, whatever it is.
    pub fn take_last(&mut self) -> Option<&'a str> {
        self.modifiers.pop()
    }

    /// Fails when a modifier is left that nobody asked for.
    pub fn finish(&self) -> Result<(), ParseError> {
        match self.modifiers.first() {
            None => Ok(()),
            Some(modifier) => Err(self.error(format!("the modifier .{modifier} is not supported here"))),
        }
    }

    /// An instruction that does not exist or is not supported.
    pub fn unknown<T>(&self) -> Result<T, ParseError> {
        Err(self.error("this instruction is not supported"))
    }

    pub fn error(&self, message: impl std::fmt::Display) -> ParseError {
        ParseError::new(self.line, format!("{}: {message}", self.whole))
    }
}
