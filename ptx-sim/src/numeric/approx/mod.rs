//! The approximate instructions, each within the error that the PTX ISA states and mostly rounded correctly.
//!
//! Polynomials and IEEE divisions and roots in f64, rounded once: the same bits on every host.

mod exp;
mod log;
mod root;

pub(crate) use exp::{ex2, ex2_ftz};
pub(crate) use log::{lg2, lg2_ftz};
pub(crate) use root::{div_approx, div_full, rcp, rcp_ftz, rsqrt, rsqrt_ftz, sqrt, sqrt_ftz};
