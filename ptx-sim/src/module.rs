//! A loaded text.

use crate::decode;
use crate::error::ParseError;
use crate::program::Program;
use crate::syntax;
use std::sync::atomic::{AtomicU64, Ordering};

/// A PTX text, ready to run.
#[derive(Debug)]
pub struct Module {
    programs: Vec<Program>,
    image: Vec<u8>,
    id: u64,
    version: (u32, u32),
    target: String,
}

/// What an entry point asks of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes of the parameters.
    pub param_bytes: u32,
    /// Bytes of shared memory that the text declares; dynamic shared memory comes on top.
    pub static_shared: u32,
    /// Bytes of local memory of a thread.
    pub local_bytes: u32,
    /// `.maxntid`: threads of a block, at most.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`: threads of a block, exactly.
    pub required_threads: Option<[u32; 3]>,
}

impl Module {
    /// Reads a text and decodes every instruction in it.
    ///
    /// # Errors
    /// The first line that is no PTX, or that uses something that is not supported.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tree = syntax::parse(text)?;
        let decode::Decoded { programs, image } = decode::decode(text, &tree)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { programs, image, id, version: tree.version, target: tree.target.to_owned() })
    }

    /// `.version` of the text: major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target` of the text, such as `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names of the entry points, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }

    /// What an entry point asks of a launch; `None` when there is no such one.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        self.program(name).map(|program| Entry {
            param_bytes: program.param_bytes,
            static_shared: program.static_shared,
            local_bytes: program.local_bytes,
            max_threads: program.max_threads,
            required_threads: program.required_threads,
        })
    }

    pub(crate) fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|program| program.name == name)
    }

    /// The variables of the module before the first launch.
    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    /// Tells modules apart.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}
