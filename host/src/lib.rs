//! The library behind evo-sdpa: what is asked for ([`Problem`]), which kernel answers it and how ([`Plan`]), tensor
//! views, the CPU paths, the launch on a GPU (feature `gpu`) and in a simulator (feature `sim`).

pub mod compare;
pub mod cpu;
mod device;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod layout;
mod limits;
mod model;
pub mod nvtx;
mod pages;
mod plan;
mod problem;
#[cfg(feature = "gpu")]
mod ptx_text;
pub mod shapes;
#[cfg(feature = "sim")]
pub mod sim;
mod splits;
mod tensor;
pub mod verify;

pub use device::DeviceSpec;
pub use error::{Error, Result};
pub use evo_sdpa_kernels::config::{DType, Decode, Kernel};
pub use evo_sdpa_kernels::entry::{Entry, MmaRate};
pub use evo_sdpa_kernels::instances::{ENTRIES, KERNELS};
#[cfg(feature = "gpu")]
pub use gpu::{Gpu, GpuOutput, GpuTensor, Kernels};
pub use half;
pub use layout::Layout;
pub use model::{Bound, Prediction, Rates, Step};
pub use pages::Pages;
pub use plan::{DevicePointers, Plan, Reason};
pub use problem::{Causal, Options, Problem};
#[cfg(feature = "sim")]
pub use sim::Simulator;
pub use splits::{SplitReason, Splits};
pub use tensor::{Element, TensorView, TensorViewMut};
