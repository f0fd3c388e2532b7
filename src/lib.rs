//! Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.

mod embedded;

pub use embedded::{MANIFEST, PTX_SM80};
pub use evo_sdpa_host::*;

/// The GPU with this ordinal, as the driver counts, and the built-in kernels.
///
/// # Errors
/// Those of [`Gpu::open`].
#[cfg(feature = "gpu")]
pub fn gpu(ordinal: u32) -> Result<Gpu> {
    Gpu::open(ordinal, PTX_SM80)
}

/// A simulated L4 with the built-in kernels.
///
/// # Errors
/// Those of [`Simulator::new`]; none for kernels that passed the tests.
#[cfg(feature = "sim")]
pub fn simulator() -> Result<Simulator> {
    Simulator::new(PTX_SM80)
}
