//! The library behind evo-sdpa: what is asked for ([`Problem`]), which kernel answers it and how ([`Plan`]), tensor
//! views, the CPU paths, the launch on a GPU (feature `gpu`) and in a simulator (feature `sim`).

pub mod compare;
pub mod cpu;
mod device;
mod error;
mod fp8;
#[cfg(feature = "gpu")]
pub mod gpu;
mod grid;
mod layout;
mod limits;
mod merge;
mod model;
pub mod nvtx;
mod pages;
#[cfg(any(feature = "gpu", feature = "sim"))]
mod parameters;
mod plan;
mod problem;
pub mod ptx_text;
pub mod quantize;
pub mod shapes;
#[cfg(feature = "sim")]
pub mod sim;
mod splits;
mod tensor;
mod tensor_map;
mod tuned;
mod value_layout;
pub mod verify;

pub use device::DeviceSpec;
pub use error::{Error, Result};
pub use evo_sdpa_kernels::config::{DType, Decode, FwdFp8, FwdSm90, Kernel, Operands};
pub use evo_sdpa_kernels::entry::{Entry, MmaRate};
pub use evo_sdpa_kernels::instances::{ENTRIES, KERNELS};
pub use evo_sdpa_kernels::merge::{MergeParams, MergeStates};
pub use evo_sdpa_kernels::params::{Scales, TileOrder};
pub use evo_sdpa_kernels::quantize::{Quantize, QuantizeParams, QuantizedTensor, TokenMeanParams};
pub use evo_sdpa_kernels::transpose::{Transpose, TransposeParams};
pub use fp8::{Fp8, ScaleBlocks};
#[cfg(feature = "gpu")]
pub use gpu::{Gpu, GpuMerged, GpuOutput, GpuTensor, Kernels, LaunchOptions};
pub use half;
pub use layout::Layout;
pub use merge::{MergePlan, MergePointers};
pub use model::{Bound, Prediction, Rates, Step};
pub use pages::Pages;
pub use plan::{DevicePointers, Plan, Reason};
pub use problem::{Causal, Options, Problem};
pub use quantize::{QuantizePlan, QuantizePointers};
#[cfg(feature = "sim")]
pub use sim::Simulator;
pub use splits::{SplitReason, Splits};
pub use tensor::{Element, TensorView, TensorViewMut};
pub use tensor_map::TiledTensor;
pub use tuned::{Tuned, TunedKernels, TunedProblem, TunedRow};
pub use value_layout::ValueLayout;
