//! The launch in a simulator: the same plans, parameters and PTX as on a GPU, on a CPU, with the checks of a sanitizer.
//!
//! [`Simulator`] reads a PTX text once. A call on it answers with what the kernel computed and with a [`Report`]: races,
//! reads of memory that nobody wrote, accesses out of bounds, barriers that do not match, and counters of instructions
//! and memory traffic. It predicts no time.

mod attention;
mod fp8;
mod merge;
mod quantize;
mod simulator;
mod tensor_map;
mod work;

pub use attention::Simulated;
pub use merge::SimulatedMerge;
/// The simulator itself: its options, and the parts of a report.
pub use ptx_sim;
pub use ptx_sim::Report;
pub use quantize::SimulatedCall;
pub use simulator::Simulator;
pub use work::work;
