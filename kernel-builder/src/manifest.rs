//! `ptx/manifest.json`: what the PTX files were made of and what is in them.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::mix::Mix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What the PTX files were made of and what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`source_hash`](crate::source_hash) of the kernels.
    pub source_sha256: String,
    /// The compiler's version: the same compiler makes the same bytes of the same sources.
    pub compiler: String,
    /// The compiler's flags.
    pub flags: Vec<String>,
    /// Version of the ptxas that gave the resources; absent with them when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ptxas: Option<String>,
    /// The PTX files.
    pub files: BTreeMap<String, FileRecord>,
    /// The entry points of all files.
    pub entries: BTreeMap<String, EntryRecord>,
}

impl Manifest {
    /// Name of its file.
    pub const FILE: &str = "manifest.json";

    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Damaged`] for one that is no manifest.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| Error::Damaged { path, what: error.to_string() })
    }

    /// Whether the machine code of main loops was looked at.
    pub fn has_main_loops(&self) -> bool {
        self.entries.values().any(|entry| !entry.main_loop.is_empty())
    }
}

/// A PTX file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its hash.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
}

/// An entry point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRecord {
    /// The file that holds it.
    pub file: String,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Registers of a thread that copies and of one that multiplies, where the roles have numbers of their own: `resources`
    /// then has those with which a block starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_registers: Option<(u32, u32)>,
    /// How often it holds certain instructions.
    pub counts: Counts,
    /// What ptxas makes of it, for each GPU.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Resources>,
    /// The machine code of its main loop, for GPUs for which it was looked at; none for an entry without matrix
    /// instructions in a loop.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub main_loop: BTreeMap<String, Mix>,
}

/// What a thread and a block of an entry need, by ptxas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Stack of a thread, bytes.
    pub stack: u32,
    /// Spilled registers stored, bytes a thread.
    pub spill_stores: u32,
    /// Spilled registers loaded, bytes a thread.
    pub spill_loads: u32,
    /// Shared memory of a block besides the dynamic one, bytes.
    pub static_shared: u32,
}
