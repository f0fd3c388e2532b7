//! The one error type: every variant that speaks of an argument names the field, its value and what is allowed.

/// What can go wrong between a caller's tensors and an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes have the wrong rank or do not fit each other.
    #[error("{field}: {value} does not fit, allowed: {allowed}")]
    Shape {
        /// The tensor or dimension.
        field: &'static str,
        /// What was given.
        value: String,
        /// What would fit.
        allowed: String,
    },
    /// Strides, alignment or extent of a tensor's memory cannot be used.
    #[error("{field}: {value} cannot be addressed, allowed: {allowed}")]
    Layout {
        /// The tensor.
        field: &'static str,
        /// What was given.
        value: String,
        /// What could be used.
        allowed: String,
    },
    /// A value that is legal in itself and that no kernel (or not the chosen one) takes.
    #[error("{field}: {value} is not supported, allowed: {allowed}")]
    Unsupported {
        /// The option or dimension.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is supported.
        allowed: String,
    },
    /// An element that cannot be quantised.
    #[error("{field}: {value} at {at:?} [batch, head, row, column] cannot be quantised, allowed: finite numbers")]
    NotFinite {
        /// The tensor.
        field: &'static str,
        /// Where the element is: batch, head, row and column.
        at: [usize; 4],
        /// The element.
        value: String,
    },
    /// A kernel needs more shared memory than a block of the device may have.
    #[error("{kernel}: {needed} bytes of shared memory a block, allowed by the device: {available}")]
    SharedMemory {
        /// Entry name of the kernel.
        kernel: String,
        /// Bytes that a block needs.
        needed: u32,
        /// Bytes that a block may have.
        available: u32,
    },
    /// No usable NVIDIA GPU or driver.
    #[error("no NVIDIA GPU can be used: {reason}")]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// The driver does not know the PTX version of the kernels.
    #[error("driver: CUDA {found} is too old for the kernels, allowed: CUDA {needed} or later")]
    DriverTooOld {
        /// CUDA version of the driver.
        found: String,
        /// First CUDA version that loads the kernels.
        needed: &'static str,
    },
    /// A tuned table that cannot be used.
    #[error("tuned: {table}: {reason}")]
    Tuned {
        /// The file, or what else it is called.
        table: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A PTX text that cannot be read.
    #[error("PTX text, line {line}: {message}")]
    Ptx {
        /// Line of the text, from 1.
        line: u32,
        /// What is wrong with it.
        message: String,
    },
    /// The driver refused a call for a reason that is none of the above.
    #[error("{call}: the driver answered {message}")]
    Driver {
        /// The driver call.
        call: &'static str,
        /// The driver's own words, or the name of its error code.
        message: String,
    },
}

#[cfg(any(feature = "gpu", feature = "sim"))]
impl Error {
    /// A kernel that is not among the `entries` entry points of a PTX text.
    pub(crate) fn missing_kernel(name: &str, entries: usize) -> Self {
        Self::Unsupported {
            field: "kernel",
            value: name.to_owned(),
            allowed: format!("the {entries} kernels of the PTX text"),
        }
    }
}

/// `std::result::Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
