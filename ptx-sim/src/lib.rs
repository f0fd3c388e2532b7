#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod check;
mod decode;
mod device;
mod error;
mod exec;
mod module;
mod numeric;
mod ops;
mod options;
mod program;
mod registers;
mod report;
mod syntax;
mod tensor;

pub use device::{Buffer, Device, Launch};
pub use error::{LaunchError, MemoryError, ParseError, TensorMapError};
pub use module::{Entry, Module};
pub use options::{Arch, Delivery, Mma, Options, Reconvergence, WarpOrder};
pub use report::{Class, Counters, Finding, Kind, LineCounters, Place, Report, Source, Space};
pub use tensor::{Swizzle, TensorMap};
