//! PTX text as a tree, with no knowledge of single instructions.

pub(crate) mod ast;
mod body;
mod lex;
mod number;
mod parse;
#[cfg(test)]
mod tests;
mod variable;

use crate::error::ParseError;

/// Reads a PTX text.
pub(crate) fn parse(text: &str) -> Result<ast::Module<'_>, ParseError> {
    if u32::try_from(text.len()).is_err() {
        return Err(ParseError::new(1, format!("expected a text below 4 GiB, found {} bytes", text.len())));
    }
    parse::Parser::new(text)?.module()
}
