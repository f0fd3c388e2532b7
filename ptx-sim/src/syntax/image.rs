//! Initial values of variables.

use super::ast::Relocation;
use super::number::{Number, encoded};
use super::parse::{Parser, Step, mismatch};
use super::variable::type_bytes;

/// Initial bytes of a module.
const MOST_INITIAL: u64 = 1 << 26;

/// Initial bytes of a variable.
pub(super) struct Image<'a> {
    pub bytes: Vec<u8>,
    pub relocations: Vec<Relocation<'a>>,
    ty: &'a str,
    /// Bytes of a number.
    element: u64,
    /// Bytes of one item of a list, by the list's depth.
    strides: Vec<u64>,
}

impl<'a> Parser<'a> {
    /// What follows the `=` of a variable of `size` bytes, or of as many as there are values.
    pub fn image(&mut self, ty: &'a str, strides: Vec<u64>, size: Option<u64>) -> Step<Image<'a>> {
        let line = self.token.line;
        let too_many = || mismatch(line, format!("at most {MOST_INITIAL} initial bytes in a module"), "more");
        let left = MOST_INITIAL - self.initial;
        let limit = size.unwrap_or(left);
        if limit > left {
            return Err(too_many());
        }
        let element = type_bytes(ty).unwrap_or(1).into();
        let mut image = Image { bytes: vec![], relocations: vec![], ty, element, strides };
        let end = match image.strides.first() {
            None => self.value(&mut image, 0, limit)?,
            Some(&stride) => self.list(&mut image, 0, 0, limit)?.next_multiple_of(stride),
        };
        let size = size.unwrap_or(end);
        if size > left {
            return Err(too_many());
        }
        self.initial += size;
        image.bytes.resize(size as usize, 0);
        Ok(image)
    }

    /// `{ ... }` from byte `start` up to at most byte `limit`; returns where it ends.
    fn list(&mut self, image: &mut Image<'a>, depth: usize, start: u64, limit: u64) -> Step<u64> {
        let Some(&stride) = image.strides.get(depth) else { return Err(self.expected("a value")) };
        let mut at = start;
        self.expect("{")?;
        self.separated("}", |parser| {
            if parser.at("{") {
                at = start + (at - start).next_multiple_of(stride);
                if at + stride > limit {
                    return Err(parser.expected("`}`"));
                }
                parser.list(image, depth + 1, at, at + stride)?;
                at += stride;
            } else {
                at = parser.value(image, at, limit)?;
            }
            Ok(())
        })?;
        self.bump()?;
        Ok(at)
    }

    /// A number or an address at byte `at`; returns where it ends.
    fn value(&mut self, image: &mut Image<'a>, at: u64, limit: u64) -> Step<u64> {
        let end = at + image.element;
        if end > limit {
            return Err(self.expected("`}`"));
        }
        let bits = if self.at_name() && image.element >= 4 {
            self.relocation(image, at, image.element.min(8) as u32, 0)?;
            [0; 16]
        } else {
            self.number_or_mask(image, at)?
        };
        image.bytes.resize(at as usize, 0);
        image.bytes.extend_from_slice(&bits[..image.element as usize]);
        Ok(end)
    }

    /// A number, or one byte of an address: `0xFF00(name)`.
    fn number_or_mask(&mut self, image: &mut Image<'a>, at: u64) -> Step<[u8; 16]> {
        let negative = self.eat("-")?;
        let token = self.token;
        let number = self.number("a value")?;
        if !self.at("(") {
            let misfit = || mismatch(token.line, format!("a value that fits .{}", image.ty), token.shown());
            return encoded(number, negative, image.ty).ok_or_else(misfit);
        }
        let shift = (0..64).step_by(8).find(|shift| !negative && number == Number::Integer(0xFF << shift));
        let shift = shift.ok_or_else(|| mismatch(token.line, "a mask of one byte", token.shown()))?;
        self.bump()?;
        self.relocation(image, at, 1, shift)?;
        self.expect(")")?;
        Ok([0; 16])
    }

    /// `name+4` or `generic(name)+4`.
    fn relocation(&mut self, image: &mut Image<'a>, at: u64, bytes: u32, shift: u32) -> Step<()> {
        let mut name = self.name("a variable or function")?;
        let is_generic = name == "generic" && self.eat("(")?;
        if is_generic {
            name = self.name("a variable or function")?;
            self.expect(")")?;
        }
        let offset = self.offset_if_any()?;
        image.relocations.push(Relocation { at: at as u32, bytes, shift, name, offset, is_generic });
        Ok(())
    }
}
