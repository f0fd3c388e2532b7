//! Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.

pub use evo_sdpa_host::*;
