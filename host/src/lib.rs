//! The library behind evo-sdpa: what is asked for ([`Problem`]), which kernel answers it and how ([`Plan`]), tensor
//! views, the CPU paths, and the launch on a GPU (feature `gpu`).

pub mod compare;
pub mod cpu;
mod device;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod layout;
mod plan;
mod problem;
#[cfg(feature = "gpu")]
mod ptx_text;
mod tensor;
pub mod verify;

pub use device::DeviceSpec;
pub use error::{Error, Result};
pub use evo_sdpa_kernels::config::{DType, Kernel};
pub use evo_sdpa_kernels::instances::KERNELS;
#[cfg(feature = "gpu")]
pub use gpu::{Gpu, GpuOutput, GpuTensor, Kernels};
pub use half;
pub use layout::Layout;
pub use plan::{DevicePointers, Plan, Reason};
pub use problem::{Causal, Options, Problem};
pub use tensor::{Element, TensorView, TensorViewMut};
