//! Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.

pub mod embedded;

pub use evo_sdpa_host::*;
