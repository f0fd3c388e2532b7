//! The compiled kernels, which travel inside the crate.

/// The kernels as PTX for sm_80 and later: what a driver loads.
pub const PTX_SM80: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/sm_80.ptx"));

/// The kernels for fp8 (compute capability 8.9 and later) as PTX for sm_89.
pub const PTX_SM89: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/sm_89.ptx"));

/// The kernels for Hopper (compute capability 9.0) as PTX for sm_90a.
pub const PTX_SM90A: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/sm_90a.ptx"));

/// All kernels: what [`Gpu::open`](crate::Gpu::open), [`Kernels::in_context`](crate::Kernels::in_context) and
/// [`Simulator::new`](crate::Simulator::new) take.
pub const PTX: &[&str] = &[PTX_SM80, PTX_SM89, PTX_SM90A];

/// What is in the PTX and what it was made of, as JSON: compiler, flags, hashes, and for each entry point its block
/// size, shared memory, instruction counts, and registers where they were measured.
pub const MANIFEST: &str = include_str!(concat!(env!("OUT_DIR"), "/ptx/manifest.json"));

/// The tuned table that travels along: see [`Tuned`](crate::Tuned).
pub const TUNED: &str = include_str!("../tuned.json");
