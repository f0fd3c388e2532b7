//! The arithmetic for each element type, compiled with this crate.
//!
//! A generic function is compiled again in every crate that calls it, and as slow as that crate's profile says.

use super::call::Call;
use super::reference::Exact;
use super::{flash, reference};
use crate::tensor::TensorViewMut;
use half::{bf16, f16};

/// What the CPU paths spend their time in.
pub trait Compiled: Sized {
    /// The fast path.
    fn flash(call: &Call<Self>, out: &mut TensorViewMut<Self>, lse: Option<&mut [f32]>);
    /// The oracle.
    fn exact(call: &Call<Self>) -> Exact;
    /// The plain implementation.
    fn textbook(call: &Call<Self>) -> Vec<f64>;
}

// A blanket implementation would be generic.
macro_rules! compiled {
    ($($element:ty),*) => {$(
        impl Compiled for $element {
            fn flash(call: &Call<Self>, out: &mut TensorViewMut<Self>, lse: Option<&mut [f32]>) {
                flash::run(call, out, lse);
            }

            fn exact(call: &Call<Self>) -> Exact {
                reference::exact(call)
            }

            fn textbook(call: &Call<Self>) -> Vec<f64> {
                reference::textbook(call)
            }
        }
    )*};
}

compiled!(f16, bf16, f32);
