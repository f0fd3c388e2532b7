//! Scaled dot-product attention for NVIDIA GPUs, every kernel written in Rust.

mod embedded;

pub use embedded::{MANIFEST, PTX, PTX_SM80, PTX_SM89, PTX_SM90A, TUNED};
pub use evo_sdpa_host::*;
use std::path::Path;

/// The environment variable that names a tuned table in place of the built-in one.
pub const TUNED_VARIABLE: &str = "EVO_SDPA_TUNED";

/// The tuned table in force: that of the file which [`TUNED_VARIABLE`] names, else the built-in one.
///
/// # Errors
/// Those of [`Tuned::read`].
pub fn tuned() -> Result<Tuned> {
    match std::env::var_os(TUNED_VARIABLE) {
        Some(path) => Tuned::read(Path::new(&path)),
        None => Tuned::parse("tuned.json", TUNED),
    }
}

/// The GPU with this ordinal, as the driver counts, the built-in kernels, and the table of [`tuned`].
///
/// # Errors
/// Those of [`Gpu::open`] and of [`tuned`].
#[cfg(feature = "gpu")]
pub fn gpu(ordinal: u32) -> Result<Gpu> {
    Ok(Gpu::open(ordinal, PTX)?.with_tuned(&tuned()?))
}

/// A simulated L4 with the built-in kernels.
///
/// # Errors
/// Those of [`Simulator::new`]; none for kernels that passed the tests.
#[cfg(feature = "sim")]
pub fn simulator() -> Result<Simulator> {
    Simulator::new(PTX)
}
