//! Variables.

use super::ast::Variable;
use super::parse::{Parser, Step, mismatch};

/// Dimensions of an array.
const MOST_DIMENSIONS: usize = 8;
/// Bytes of a variable.
const LARGEST: u64 = 1 << 30;
/// Bytes that a variable may be aligned to.
const LARGEST_ALIGN: u32 = 1 << 16;

/// What stands before the names of a declaration.
#[derive(Clone, Copy)]
struct Declared<'a> {
    space: &'a str,
    is_extern: bool,
    align: Option<u32>,
    ty: &'a str,
    lanes: u32,
    /// Bytes of a lane.
    bytes: u32,
}

/// Bytes of a type, by its name without the dot.
pub(super) fn type_bytes(ty: &str) -> Option<u32> {
    Some(match ty {
        "pred" | "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" | "f32x2" | "texref" | "samplerref" | "surfref" => 8,
        "b128" => 16,
        _ => return None,
    })
}

impl<'a> Parser<'a> {
    /// `.space .align A .type a, b[2] = ...;`.
    pub fn variables(&mut self, is_extern: bool) -> Step<Vec<Variable<'a>>> {
        let declared = self.declared(is_extern)?;
        let mut variables = vec![self.variable(declared)?];
        while self.eat(",")? {
            variables.push(self.variable(declared)?);
        }
        self.expect(";")?;
        Ok(variables)
    }

    /// `(.param .type a, .param .type b)`, or nothing at all.
    pub fn params(&mut self) -> Step<Vec<Variable<'a>>> {
        if !self.eat("(")? {
            return Ok(vec![]);
        }
        let params = self.separated(")", Self::param)?;
        self.bump()?;
        Ok(params)
    }

    /// `.param .type a`.
    fn param(&mut self) -> Step<Variable<'a>> {
        if !self.at(".param") && !self.at(".reg") {
            return Err(self.expected("`.param` or `.reg`"));
        }
        let declared = self.declared(false)?;
        self.variable(declared)
    }

    /// Everything before the name.
    fn declared(&mut self, is_extern: bool) -> Step<Declared<'a>> {
        let space = self.space()?;
        let (mut align, mut lanes, mut ty) = (None, 1, None);
        while self.at_directive() {
            let word = self.token.text;
            match word {
                ".attribute" => self.attribute()?,
                ".align" => align = Some(self.align()?),
                ".ptr" => self.pointee()?,
                _ => {
                    match (word, type_bytes(&word[1..])) {
                        (".v2", _) => lanes = 2,
                        (".v4", _) => lanes = 4,
                        (".v8", _) => lanes = 8,
                        (_, Some(bytes)) if ty.is_none() => ty = Some((&word[1..], bytes)),
                        _ => return Err(self.expected("a type or a name")),
                    }
                    self.bump()?;
                }
            }
        }
        let (ty, bytes) = ty.ok_or_else(|| self.expected("a type"))?;
        Ok(Declared { space, is_extern, align, ty, lanes, bytes })
    }

    /// A state space, without its dot.
    fn space(&mut self) -> Step<&'a str> {
        match self.token.text {
            ".shared" | ".global" | ".const" | ".local" | ".param" | ".reg" => Ok(&self.bump()?.text[1..]),
            _ => Err(self.expected("a state space")),
        }
    }

    /// `.align 16`.
    fn align(&mut self) -> Step<u32> {
        self.bump()?;
        let token = self.token;
        let bytes = self.whole("an alignment")?;
        if !bytes.is_power_of_two() || bytes > LARGEST_ALIGN {
            return Err(mismatch(token.line, format!("a power of two up to {LARGEST_ALIGN}"), token.shown()));
        }
        Ok(bytes)
    }

    /// `.ptr .global .align 16`, about the memory that a pointer leads to.
    fn pointee(&mut self) -> Step<()> {
        self.bump()?;
        if self.at_directive() && !self.at(".align") {
            self.space()?;
        }
        if self.at(".align") {
            self.align()?;
        }
        Ok(())
    }

    /// `name[dims] = init`.
    fn variable(&mut self, declared: Declared<'a>) -> Step<Variable<'a>> {
        let Declared { space, is_extern, align, ty, lanes, bytes } = declared;
        let line = self.token.line;
        let name = self.name("a variable's name")?;
        let (is_open, lengths) = self.lengths()?;
        let mut size = u64::from(bytes) * u64::from(lanes);
        let align = align.unwrap_or(size as u32);
        // Bytes of one item of an initial list, from the innermost outwards.
        let mut strides = if lanes > 1 { vec![u64::from(bytes)] } else { vec![] };
        for length in lengths.into_iter().rev() {
            strides.push(size);
            size *= u64::from(length);
            if size > LARGEST {
                return Err(mismatch(line, format!("at most {LARGEST} bytes"), format!("more in `{name}`")));
            }
        }
        if is_open {
            strides.push(size);
            size = 0;
        }
        strides.reverse();
        let (mut init, mut relocations) = (None, vec![]);
        if matches!(space, "global" | "const") && !is_extern && self.eat("=")? {
            let image = self.image(ty, strides, (!is_open).then_some(size))?;
            size = image.bytes.len() as u64;
            (init, relocations) = (Some(image.bytes), image.relocations);
        }
        Ok(Variable { name, line, space, is_extern, align, size: size as u32, init, relocations })
    }

    /// `[2][3]`. The first may be `[]`: the flag tells.
    fn lengths(&mut self) -> Step<(bool, Vec<u32>)> {
        let (mut is_open, mut lengths) = (false, vec![]);
        while self.at("[") {
            let open = self.bump()?;
            if lengths.len() == MOST_DIMENSIONS {
                return Err(mismatch(open.line, format!("at most {MOST_DIMENSIONS} dimensions"), "one more"));
            }
            if self.at("]") && lengths.is_empty() && !is_open {
                is_open = true;
            } else {
                let token = self.token;
                match self.whole("a length")? {
                    0 => return Err(mismatch(token.line, "a length above 0", token.shown())),
                    length => lengths.push(length),
                }
            }
            self.expect("]")?;
        }
        Ok((is_open, lengths))
    }
}
