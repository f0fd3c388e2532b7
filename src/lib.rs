//! Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.

pub use evo_sdpa_host::*;

/// The kernels as PTX text for compute capability 8.0 and later.
#[cfg(feature = "gpu")]
pub const PTX_SM80: &str = "";

/// The GPU with this ordinal, as the driver counts, and the built-in kernels.
///
/// # Errors
/// Those of [`Gpu::open`].
#[cfg(feature = "gpu")]
pub fn gpu(ordinal: u32) -> Result<Gpu> {
    Gpu::open(ordinal, PTX_SM80)
}
