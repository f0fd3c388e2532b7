//! The launch on a GPU, through the CUDA driver.
//!
//! [`Kernels`] lives in a context of somebody else's and launches on streams and memory of somebody else's: the way in
//! for an inference engine. [`Gpu`] owns a device's primary context and a stream, for everybody who has none.
//!
//! A program built with this feature needs `libcuda.so.1`, which comes with the driver, to start at all.

mod attention;
mod context;
mod dependent;
mod driver;
mod fp8;
mod function;
mod graph;
mod kernels;
mod limits;
mod merge;
mod open;
mod quantize;
mod session;
mod tensor;
mod tensor_map;
mod timing;

pub use attention::GpuOutput;
/// The raw driver interface, for callers that hand over handles.
pub use cust::sys;
pub use cust::sys::{CUcontext, CUstream};
pub use dependent::LaunchOptions;
pub use kernels::{Kernels, Resources};
pub use limits::Limits;
pub use merge::GpuMerged;
pub use open::Gpu;
pub use tensor::GpuTensor;
pub use timing::TimedCall;
