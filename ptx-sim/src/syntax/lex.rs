//! PTX text as tokens.

use crate::error::ParseError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, an opcode with its modifiers, or one dotted word: `%tid.x`, `add.s32`, `.reg`.
    Word,
    /// A literal, from its first digit.
    Number,
    /// A string with its quotes.
    Text,
    /// One character of punctuation.
    Mark,
    /// Nothing is left.
    End,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub line: u32,
    /// Where it begins, in bytes of the whole text.
    pub start: usize,
}

impl Token<'_> {
    /// The token as an error message shows it.
    pub fn shown(&self) -> String {
        const LONGEST: usize = 40;
        match (self.kind, self.text.char_indices().nth(LONGEST)) {
            (Kind::End, _) => "the end of the text".into(),
            (_, None) => format!("`{}`", self.text),
            (_, Some((cut, _))) => format!("`{}...`", &self.text[..cut]),
        }
    }
}

/// Hands out the tokens of a text in order.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    /// Starts at line 1.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// A slice of the text.
    pub fn slice(&self, start: usize, end: usize) -> &'a str {
        &self.text[start..end]
    }

    /// The next token; at the end, `End` again and again.
    pub fn token(&mut self) -> Result<Token<'a>, ParseError> {
        self.space()?;
        let (start, line) = (self.at, self.line);
        let kind = match self.byte(0) {
            None => Kind::End,
            Some(b'.') => {
                self.at += 1;
                self.run(is_name);
                Kind::Word
            }
            Some(b'0'..=b'9') => {
                self.number();
                Kind::Number
            }
            Some(b'"') => {
                self.string()?;
                Kind::Text
            }
            Some(byte) if is_name(byte) || byte == b'%' => {
                self.at += 1;
                self.word();
                Kind::Word
            }
            Some(byte) if byte.is_ascii_punctuation() => {
                self.at += 1;
                Kind::Mark
            }
            Some(_) => {
                let found = self.text[start..].chars().next().unwrap_or_default();
                return Err(ParseError::new(line, format!("expected PTX, found the character {found:?}")));
            }
        };
        Ok(Token { kind, text: &self.text[start..self.at], line, start })
    }

    /// Passes over everything up to the `}` that closes a `{` already taken.
    pub fn skip_braces(&mut self) -> Result<(), ParseError> {
        let (mut depth, line) = (1_u32, self.line);
        loop {
            self.space()?;
            match self.byte(0) {
                None => return Err(ParseError::new(line, "expected a `}` for this `{`, found the end of the text")),
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Passes over the bytes that `wanted` names.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.byte(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Passes over white space and comments.
    fn space(&mut self) -> Result<(), ParseError> {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'\n'), _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (Some(b' ' | b'\t' | b'\r' | 0x0b | 0x0c), _) => self.at += 1,
                (Some(b'/'), Some(b'/')) => self.run(|byte| byte != b'\n'),
                (Some(b'/'), Some(b'*')) => self.comment()?,
                _ => return Ok(()),
            }
        }
    }

    /// `/* ... */`.
    fn comment(&mut self) -> Result<(), ParseError> {
        let rest = &self.text[self.at + 2..];
        let Some(length) = rest.find("*/") else {
            return Err(ParseError::new(self.line, "expected a `*/` for this `/*`, found the end of the text"));
        };
        self.line += rest.as_bytes()[..length].iter().filter(|&&byte| byte == b'\n').count() as u32;
        self.at += length + 4;
        Ok(())
    }

    /// `"..."` in one line; a backslash takes the next character with it.
    fn string(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'"'), _) => {
                    self.at += 1;
                    return Ok(());
                }
                (None | Some(b'\n'), _) => {
                    return Err(ParseError::new(self.line, "expected a `\"` before the end of the line, found none"));
                }
                (Some(b'\\'), Some(next)) if next != b'\n' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// The rest of a name or of an opcode, `::` of its modifiers included.
    fn word(&mut self) {
        loop {
            self.run(|byte| is_name(byte) || byte == b'.');
            match (self.byte(0), self.byte(1), self.byte(2)) {
                (Some(b':'), Some(b':'), Some(next)) if is_name(next) => self.at += 2,
                _ => return,
            }
        }
    }

    /// Digits, letters and dots, and the sign of a decimal exponent.
    fn number(&mut self) {
        self.run(|byte| byte.is_ascii_digit() || byte == b'.');
        if matches!(self.byte(0), Some(b'e' | b'E')) && matches!(self.byte(1), Some(b'+' | b'-')) {
            self.at += 2;
        }
        self.run(|byte| is_name(byte) || byte == b'.');
    }
}

/// What may stand in a name, after its first character at least.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}
