//! The correctness grid: cases, their inputs, and what each answer has to be.

mod cases;
mod expected;
mod fp8;
mod inputs;
mod rng;
mod shares;
mod special;

pub use cases::{Case, Kind, Storage, cases};
pub use expected::{Expected, Verdict};
pub use fp8::{Measured, Operand, Predicted, Quantization, Unquantized, within_rounding};
pub use inputs::Inputs;
pub use rng::Rng;
pub use special::Special;
