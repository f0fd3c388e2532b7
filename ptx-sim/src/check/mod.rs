//! The sanitizer: what is known about each piece of memory, and what a memory request costs.

pub(crate) mod banks;
pub(crate) mod blocks;
pub(crate) mod clock;
pub(crate) mod global;
pub(crate) mod shared;

use std::fmt;

/// Which of two accesses that nothing orders came second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    ReadAfterWrite,
    WriteAfterRead,
    WriteAfterWrite,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadAfterWrite => "read after a write",
            Self::WriteAfterRead => "write after a read",
            Self::WriteAfterWrite => "write after a write",
        })
    }
}
