//! The correctness grid: cases, their inputs, and what each answer has to be.

mod cases;
mod expected;
mod inputs;
mod rng;

pub use cases::{Case, Kind, Storage, cases};
pub use expected::{Expected, Verdict};
pub use inputs::Inputs;
pub use rng::Rng;
