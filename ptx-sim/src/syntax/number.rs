//! Literals.

use super::variable::type_bytes;
use crate::error::ParseError;

/// The value of a literal without its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Integer(u64),
    /// The bits of `0f...`.
    F32(u32),
    /// The bits of `0d...` or of a decimal fraction.
    F64(u64),
}

/// Reads a literal; `None` where it is none, or does not fit 64 bits.
pub(super) fn number(text: &str) -> Option<Number> {
    let (prefix, rest) = text.split_at_checked(2).unwrap_or((text, ""));
    match prefix {
        "0f" | "0F" if rest.len() == 8 => digits(rest, 16).map(|bits| Number::F32(bits as u32)),
        "0d" | "0D" if rest.len() == 16 => digits(rest, 16).map(Number::F64),
        "0x" | "0X" => digits(unsigned(rest), 16).map(Number::Integer),
        "0b" | "0B" => digits(unsigned(rest), 2).map(Number::Integer),
        _ if text.contains(['.', 'e', 'E']) => {
            text.parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| Number::F64(value.to_bits()))
        }
        _ => {
            let text = unsigned(text);
            let radix = if text.len() > 1 && text.starts_with('0') { 8 } else { 10 };
            digits(text, radix).map(Number::Integer)
        }
    }
}

/// A literal without its `U`.
fn unsigned(text: &str) -> &str {
    text.strip_suffix('U').unwrap_or(text)
}

/// Like `from_str_radix`, without a sign.
fn digits(text: &str, radix: u32) -> Option<u64> {
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

/// A whole number with its sign; without one, all 64 bits are kept.
pub(super) fn signed(value: u64, negative: bool, line: u32) -> Result<i64, ParseError> {
    match negative {
        false => Ok(value as i64),
        true if value <= 1 << 63 => Ok((value as i64).wrapping_neg()),
        true => Err(ParseError::new(line, format!("expected at least {}, found -{value}", i64::MIN))),
    }
}

/// The bytes of a number in a variable of the type `ty`; `None` where it does not fit.
pub(super) fn encoded(number: Number, negative: bool, ty: &str) -> Option<[u8; 16]> {
    let sign = if negative { -1.0 } else { 1.0 };
    let bits = match (number, ty) {
        (Number::Integer(value), "f32") => u128::from((sign as f32 * value as f32).to_bits()),
        (Number::Integer(value), "f64") => u128::from((sign * value as f64).to_bits()),
        (Number::Integer(value), _) => {
            let width = 8 * type_bytes(ty)?;
            let most = if negative { 1_u128 << (width - 1) } else { u128::MAX >> (128 - width) };
            let value = Some(u128::from(value)).filter(|&value| value <= most)?;
            if negative { value.wrapping_neg() } else { value }
        }
        (Number::F32(bits), "f32" | "b32") => u128::from(bits ^ u32::from(negative) << 31),
        (Number::F32(bits), "f64") => u128::from((sign * f64::from(f32::from_bits(bits))).to_bits()),
        (Number::F64(bits), "f64" | "b64") => u128::from(bits ^ u64::from(negative) << 63),
        (Number::F64(bits), "f32") => u128::from(((sign * f64::from_bits(bits)) as f32).to_bits()),
        _ => return None,
    };
    Some(bits.to_le_bytes())
}
