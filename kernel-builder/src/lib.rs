//! Compiles the kernels of evo-sdpa to PTX and checks the result.
//!
//! ```text
//! kernels-gpu/src -> rustc -> finish (order, launch bounds) -> gates -> [ptxas: registers, spills; nvdisasm: main loops] -> ptx/
//! ```
//!
//! [`build`] does all but the ptxas part, which is [`measure`]; [`Output`] is what `ptx/` holds. The root package's
//! build script uses both when the kernels have changed, and the binary `kernel-builder` to write and check `ptx/`.

mod build;
mod compile;
mod count;
mod drift;
mod error;
mod expected;
mod finish;
mod gates;
mod manifest;
mod mix;
mod nvdisasm;
mod ptxas;
mod report;
mod sass;
mod source;
mod target;
mod text;
mod toolchain;

pub use build::{Output, Verdict, build, check, measure, measure_as_driver};
pub use compile::{FLAGS, compile};
pub use count::{Counts, count};
pub use drift::{Drift, Versions, refuse_drift, refuse_growth};
pub use error::{Error, Result};
pub use expected::{Step, expected, expected_step};
pub use finish::finish;
pub use gates::{Defect, Finding, MAX_BYTES, inspect};
pub use manifest::{EntryRecord, FileRecord, Manifest, Resources};
pub use mix::{Class, Mix};
pub use nvdisasm::Nvdisasm;
pub use ptxas::Ptxas;
pub use sass::{Instruction, main_loop, parse};
pub use source::source_hash;
pub use target::Target;
pub use toolchain::{MIN_VERSION, Refusal, Toolchain};
