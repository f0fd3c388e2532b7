//! `ptx/manifest.json`: what the PTX files were made of and what is in them.

use crate::count::Counts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// How often it holds certain instructions.
    pub counts: Counts,
    /// What ptxas makes of it, for each GPU.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Resources>,
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
