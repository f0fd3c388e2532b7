//! Where variables lie.

use crate::error::ParseError;
use crate::syntax::ast::{Function, Item, Variable};
use rustc_hash::FxHashMap;

/// Bytes that a space can have.
const MAX_BYTES: u64 = 1 << 30;

/// Where `part`, which is a piece of `text`, begins, and its length.
pub(crate) fn place(text: &str, part: &str) -> (u32, u32) {
    let offset = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    match text.get(offset..offset.saturating_add(part.len())) {
        Some(_) => (offset as u32, part.len() as u32),
        None => (0, 0),
    }
}

/// A space that variables are placed in, one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space32 {
    end: u64,
}

impl Space32 {
    /// A space whose first bytes are taken.
    pub fn from(end: u32) -> Self {
        Self { end: u64::from(end) }
    }

    /// The address of a variable.
    pub fn place(&mut self, variable: &Variable) -> Result<u32, ParseError> {
        let address = self.end.next_multiple_of(u64::from(variable.align.max(1)));
        self.end = address + u64::from(variable.size);
        if self.end > MAX_BYTES {
            let message = format!("{}: more than {MAX_BYTES} bytes of .{}", variable.name, variable.space);
            return Err(ParseError::new(variable.line, message));
        }
        Ok(address as u32)
    }

    /// Bytes up to the last variable.
    pub fn len(self) -> u32 {
        self.end as u32
    }
}

/// The shared memory of an entry point.
pub(crate) struct Shared<'a> {
    /// Address of the first byte.
    pub base: u32,
    /// Address behind the last declared byte, and of dynamic shared memory.
    pub dynamic: u32,
    /// Bytes that are declared.
    pub bytes: u32,
    /// Addresses by line and name.
    pub addresses: FxHashMap<(u32, &'a str), u32>,
}

/// The system keeps the first KiB of shared memory for itself (sm_80 and later).
const RESERVED: u32 = 1024;

impl<'a> Shared<'a> {
    /// Places what the module, its device functions and the entry point `entry` declare.
    ///
    /// Dynamic shared memory is aligned as declared and no better, so that a kernel that counts on more is found.
    pub fn of(
        variables: &'a [Variable<'a>],
        functions: &'a [Function<'a>],
        entry: &'a Function<'a>,
    ) -> Result<Self, ParseError> {
        let mut declared: Vec<&Variable> = variables.iter().filter(|variable| variable.space == "shared").collect();
        for function in functions.iter().filter(|f| !f.is_entry || std::ptr::eq(*f, entry)) {
            collect(function.body.as_deref().unwrap_or_default(), &mut declared);
        }
        let (dynamic, fixed): (Vec<_>, Vec<_>) =
            declared.into_iter().partition(|variable| variable.is_extern && variable.size == 0);
        let align = dynamic.iter().map(|variable| variable.align.max(1)).max().unwrap_or(16);
        let mut addresses = FxHashMap::default();
        let mut space = Space32::from(RESERVED);
        for variable in fixed {
            addresses.insert((variable.line, variable.name), space.place(variable)?);
        }
        let bytes = space.len() - RESERVED;
        let end = space.len().next_multiple_of(align);
        // An odd multiple of the alignment.
        let start = if (end / align).is_multiple_of(2) { end + align } else { end };
        for variable in dynamic {
            addresses.insert((variable.line, variable.name), start);
        }
        Ok(Self { base: RESERVED, dynamic: start, bytes, addresses })
    }
}

fn collect<'a>(items: &'a [Item<'a>], found: &mut Vec<&'a Variable<'a>>) {
    for item in items {
        match item {
            Item::Variable(variable) if variable.space == "shared" => found.push(variable),
            Item::Block(items) => collect(items, found),
            _ => {}
        }
    }
}
