//! The simulated device: memory and launches.

use crate::error::{LaunchError, MemoryError};
use crate::options::Options;
use crate::report::Report;

/// A piece of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    address: u64,
    len: usize,
}

impl Buffer {
    /// The address that a kernel uses.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A PTX text, ready to run.
#[derive(Debug)]
pub struct Module {}

/// What to run, how wide, and with which parameters.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Name of the entry point.
    pub entry: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// The parameters as the entry point declares them, each at its own alignment.
    pub params: &'a [u8],
    /// How to simulate.
    pub options: Options,
}

impl Module {
    /// Reads a text and decodes every instruction in it.
    pub fn parse(_text: &str) -> Result<Self, crate::ParseError> {
        todo!()
    }

    /// Names of the entry points, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        [].into_iter()
    }
}

/// Device memory, and launches on it.
#[derive(Debug, Default)]
pub struct Device {}

impl Device {
    /// A device with no memory in use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory of `len` bytes that nobody has written.
    pub fn alloc(&mut self, _len: usize) -> Buffer {
        todo!()
    }

    /// Memory with these bytes.
    pub fn upload(&mut self, _bytes: &[u8]) -> Buffer {
        todo!()
    }

    /// Memory with these bytes, which kernels may not write.
    pub fn upload_read_only(&mut self, _bytes: &[u8]) -> Buffer {
        todo!()
    }

    /// The bytes of a buffer.
    pub fn download(&self, _buffer: Buffer) -> Result<Vec<u8>, MemoryError> {
        todo!()
    }

    /// Gives a buffer back; later accesses are findings.
    pub fn free(&mut self, _buffer: Buffer) -> Result<(), MemoryError> {
        todo!()
    }

    /// Runs a kernel to its end.
    pub fn launch(&mut self, _module: &Module, _launch: &Launch) -> Result<Report, LaunchError> {
        todo!()
    }
}
