//! The compiled kernels, which travel inside the crate.

/// The kernels as PTX for sm_80 and later: what a driver loads.
pub const PTX_SM80: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/sm_80.ptx"));

/// What is in the PTX and what it was made of, as JSON: compiler, flags, hashes, and for each entry point its block
/// size, shared memory, instruction counts, and registers where they were measured.
pub const MANIFEST: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/manifest.json"));

/// The tuned table that travels along: see [`Tuned`](crate::Tuned).
pub const TUNED: &str = include_str!("../tuned.json");
