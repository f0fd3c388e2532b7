//! Variables and their initial values.

use super::ast::{Relocation, Variable};
use super::number::{Number, encoded, signed};
use super::parse::{Parser, Step};
use crate::error::ParseError;

/// Dimensions of an array.
const MOST_DIMENSIONS: usize = 8;
/// Bytes of a variable.
const LARGEST: u64 = 1 << 30;
/// Initial bytes of a module.
const MOST_INITIAL: u64 = 1 << 26;

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

/// Initial bytes on their way.
struct Image<'a> {
    bytes: Vec<u8>,
    relocations: Vec<Relocation<'a>>,
    ty: &'a str,
    /// Bytes of a number.
    element: u64,
    /// Bytes of one item of a list, by the list's depth.
    strides: Vec<u64>,
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
    pub fn variables(&mut self, is_extern: bool, variables: &mut Vec<Variable<'a>>) -> Step<()> {
        let declared = self.declared(is_extern)?;
        loop {
            variables.push(self.variable(declared)?);
            if !self.eat(",")? {
                self.expect(";")?;
                return Ok(());
            }
        }
    }

    /// `(.param .type a, .param .type b)`.
    pub fn params(&mut self) -> Step<Vec<Variable<'a>>> {
        self.expect("(")?;
        let mut params = vec![];
        while !self.eat(")")? {
            if !self.at(".param") && !self.at(".reg") {
                return Err(self.expected("`.param`, `.reg` or `)`"));
            }
            let declared = self.declared(false)?;
            params.push(self.variable(declared)?);
            if !self.eat(",")? && !self.at(")") {
                return Err(self.expected("`,` or `)`"));
            }
        }
        Ok(params)
    }

    /// Everything before the name. What follows `.ptr` is about the memory that a pointer leads to.
    fn declared(&mut self, is_extern: bool) -> Step<Declared<'a>> {
        let space = &self.bump()?.text[1..];
        let (mut align, mut lanes, mut ty, mut of_pointer) = (None, 1, None, false);
        while self.at_directive() {
            let word = self.token.text;
            match word {
                ".attribute" => {
                    self.attribute()?;
                    continue;
                }
                ".align" => {
                    self.bump()?;
                    let token = self.token;
                    let bytes = self.whole("an alignment")?;
                    if !bytes.is_power_of_two() {
                        return Err(ParseError::new(
                            token.line,
                            format!("expected a power of two, found {}", token.shown()),
                        ));
                    }
                    if !of_pointer {
                        align = Some(bytes);
                    }
                    continue;
                }
                ".ptr" => of_pointer = true,
                ".global" | ".shared" | ".const" | ".local" | ".param" if of_pointer => {}
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".v8" => lanes = 8,
                _ => match type_bytes(&word[1..]) {
                    Some(bytes) if ty.is_none() => ty = Some((&word[1..], bytes)),
                    _ => return Err(self.expected("a type or a name")),
                },
            }
            self.bump()?;
        }
        let (ty, bytes) = ty.ok_or_else(|| self.expected("a type"))?;
        Ok(Declared { space, is_extern, align, ty, lanes, bytes })
    }

    /// `name[dims] = init`.
    fn variable(&mut self, declared: Declared<'a>) -> Step<Variable<'a>> {
        let Declared { space, is_extern, align, ty, lanes, bytes } = declared;
        let line = self.token.line;
        let name = self.name("a variable's name")?;
        let (is_open, dims) = self.dimensions()?;
        let value = u64::from(bytes) * u64::from(lanes);
        let too_large = || ParseError::new(line, format!("expected at most {LARGEST} bytes, found more in `{name}`"));
        // From the innermost dimension outwards: bytes of one item of a list.
        let mut strides = if lanes > 1 { vec![u64::from(bytes)] } else { vec![] };
        let mut size = value;
        for &length in dims.iter().rev() {
            strides.push(size);
            size = size.checked_mul(u64::from(length)).filter(|&size| size <= LARGEST).ok_or_else(too_large)?;
        }
        if is_open {
            strides.push(size);
            size = 0;
        }
        strides.reverse();
        let (mut init, mut relocations) = (None, vec![]);
        if self.eat("=")? {
            let mut image = Image { bytes: vec![], relocations, ty, element: u64::from(bytes), strides };
            let limit = if is_open { MOST_INITIAL } else { size };
            let end =
                if self.at("{") { self.list(&mut image, 0, 0, limit)? } else { self.value(&mut image, 0, limit)? };
            if is_open {
                size = end.next_multiple_of(image.strides[0]);
            }
            self.initial += size;
            if self.initial > MOST_INITIAL {
                return Err(ParseError::new(
                    line,
                    format!("expected at most {MOST_INITIAL} initial bytes in a module, found more"),
                ));
            }
            image.bytes.resize(size as usize, 0);
            (init, relocations) = (Some(image.bytes), image.relocations);
        }
        let align = align.unwrap_or(value as u32);
        Ok(Variable { name, line, space, is_extern, align, size: size as u32, init, relocations })
    }

    /// `[2][3]`; the first may be `[]`, which is told apart.
    fn dimensions(&mut self) -> Step<(bool, Vec<u32>)> {
        let (mut is_open, mut dims) = (false, vec![]);
        while self.at("[") {
            if dims.len() == MOST_DIMENSIONS {
                return Err(self.expected(format!("at most {MOST_DIMENSIONS} dimensions")));
            }
            self.bump()?;
            if self.at("]") && dims.is_empty() && !is_open {
                is_open = true;
            } else if self.at("0") {
                return Err(self.expected("a length above 0"));
            } else {
                dims.push(self.whole("a length")?);
            }
            self.expect("]")?;
        }
        Ok((is_open, dims))
    }

    /// `{ ... }` from byte `at` up to at most byte `limit`; returns where it ends.
    fn list(&mut self, image: &mut Image<'a>, depth: usize, mut at: u64, limit: u64) -> Step<u64> {
        let Some(&stride) = image.strides.get(depth) else { return Err(self.expected("a number or a name")) };
        let start = at;
        self.expect("{")?;
        while !self.eat("}")? {
            if self.at("{") {
                at = start + (at - start).next_multiple_of(stride);
                if at + stride > limit {
                    return Err(self.expected("`}`"));
                }
                self.list(image, depth + 1, at, at + stride)?;
                at += stride;
            } else {
                at = self.value(image, at, limit)?;
            }
            if !self.eat(",")? && !self.at("}") {
                return Err(self.expected("`,` or `}`"));
            }
        }
        Ok(at)
    }

    /// A number or an address at byte `at`; returns where it ends.
    fn value(&mut self, image: &mut Image<'a>, at: u64, limit: u64) -> Step<u64> {
        let end = at + image.element;
        if end > limit {
            return Err(self.expected("no further value"));
        }
        let mut bits = [0; 16];
        if self.at_name() {
            self.relocation(image, at, image.element as u32, 0)?;
        } else {
            let (line, negative) = (self.token.line, self.eat("-")?);
            let token = self.token;
            let number = self.number("a number or a name")?;
            if self.at("(") {
                let shift = match number {
                    Number::Integer(mask)
                        if !negative
                            && mask.trailing_zeros().is_multiple_of(8)
                            && mask.count_ones() == 8
                            && mask.leading_zeros().is_multiple_of(8) =>
                    {
                        mask.trailing_zeros()
                    }
                    _ => {
                        return Err(ParseError::new(
                            line,
                            format!("expected one byte of ones, found {}", token.shown()),
                        ));
                    }
                };
                self.bump()?;
                self.relocation(image, at, 1, shift)?;
                self.expect(")")?;
            } else {
                bits = encoded(number, negative, image.ty).ok_or_else(|| {
                    ParseError::new(line, format!("expected a number that fits .{}, found {}", image.ty, token.shown()))
                })?;
            }
        }
        image.bytes.resize(end as usize, 0);
        image.bytes[at as usize..].copy_from_slice(&bits[..image.element as usize]);
        Ok(end)
    }

    /// `name+4` or `generic(name)+4`.
    fn relocation(&mut self, image: &mut Image<'a>, at: u64, bytes: u32, shift: u32) -> Step<()> {
        let mut name = self.name("a name")?;
        let is_generic = name == "generic" && self.eat("(")?;
        if is_generic {
            name = self.name("a name")?;
            self.expect(")")?;
        }
        let offset = if self.at("+") || self.at("-") { self.offset()? } else { 0 };
        image.relocations.push(Relocation { at: at as u32, bytes, shift, name, offset, is_generic });
        Ok(())
    }

    /// `+4`, `-4`, `+-4`, or several of them.
    pub fn offset(&mut self) -> Step<i64> {
        let mut sum = 0_i64;
        loop {
            let line = self.token.line;
            let mut negative = false;
            while self.at("+") || self.at("-") {
                negative ^= self.bump()?.text == "-";
            }
            let token = self.token;
            let Number::Integer(value) = self.number("an offset")? else {
                return Err(ParseError::new(token.line, format!("expected an offset, found {}", token.shown())));
            };
            let value = signed(value, negative, line)?;
            sum = sum
                .checked_add(value)
                .ok_or_else(|| ParseError::new(line, "expected an offset of 64 bits, found a larger one"))?;
            if !self.at("+") && !self.at("-") {
                return Ok(sum);
            }
        }
    }
}
