//! What can go wrong before a kernel runs.

use thiserror::Error;

/// A PTX text that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line of the text, from 1.
    pub line: u32,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A use of device memory by the host that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The buffer belongs to another device, or was freed.
    #[error("buffer at {address:#x}: freed, or of another device")]
    Gone {
        /// Where the buffer began.
        address: u64,
    },
    /// A copy that does not fit.
    #[error("{bytes} bytes for a buffer of {len}, allowed: exactly its length")]
    Length {
        /// Bytes of the copy.
        bytes: usize,
        /// Bytes of the buffer.
        len: usize,
    },
}

/// A launch that a driver would refuse too.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {value}, allowed: {allowed}")]
pub struct LaunchError {
    /// The argument.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// A tensor map that a driver would refuse too.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {value}, allowed: {allowed}")]
pub struct TensorMapError {
    /// The argument.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}
