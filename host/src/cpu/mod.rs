//! Attention on the CPU: the oracle in f64 ([`reference`](mod@reference)) and a fast path of the same conventions.
//!
//! Shapes are \[batch, heads, seq, head_dim\] with any strides, a stride of zero included; rows are contiguous. Every
//! head dim from 1 up works. Query head `h` reads key head `h / (heads_q / heads_kv)`. A query row sees the keys
//! below its sequence's `kv_lens` entry and up to the causal diagonal; a row that sees none gives zeros and an lse
//! of -inf. A NaN reaches the rows that see it and no others. Paged keys and values are copied together first.

mod call;
mod compiled;
mod flash;
mod merge;
mod pages;
pub mod reference;
mod shared;
mod simd;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::problem::Options;
use crate::tensor::{Element, TensorView, TensorViewMut};
use call::Call;

pub(crate) use compiled::Compiled;
pub use merge::merge_states;

/// What [`attention`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T> {
    /// Contiguous \[batch, heads_q, q_len, head_dim\].
    pub out: Vec<T>,
    /// Log-sum-exp of the scaled, masked scores, \[batch, heads_q, q_len\], natural logarithm.
    pub lse: Vec<f32>,
}

/// `softmax(scale * q k^T + mask) v` into fresh memory.
///
/// `q` is \[batch, heads_q, q_len, head_dim\], `k` and `v` are \[batch, heads_kv, kv_len, head_dim\]. Arithmetic is in
/// f32, the output is rounded once. The same input gives the same bits on any number of rayon threads.
///
/// # Errors
/// Those of [`Options::problem`].
pub fn attention<T: Element>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
) -> Result<Output<T>> {
    let layout = Layout::bhsd(q.layout().shape());
    pages::contiguous(q, k, v, options, |k, v, options| {
        let call = Call::new(q, k, v, layout, options)?;
        let mut out = vec![T::default(); layout.elements()];
        let mut lse = vec![0.0; call.rows()];
        T::flash(&call, &mut TensorViewMut::new(&mut out, layout)?, Some(&mut lse));
        Ok(Output { out, lse })
    })
}

/// [`attention`] into memory of the caller: `out` has the shape of `q` and any layout without overlap, `lse` holds
/// batch * heads_q * q_len elements, \[batch, heads_q, q_len\].
///
/// # Errors
/// Those of [`attention`], and [`Error::Shape`] when `out` or `lse` does not fit `q`. Nothing is written then.
pub fn attention_into<T: Element>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
    out: &mut TensorViewMut<T>,
    lse: Option<&mut [f32]>,
) -> Result<()> {
    pages::contiguous(q, k, v, options, |k, v, options| {
        let call = Call::new(q, k, v, *out.layout(), options)?;
        if let Some(lse) = &lse
            && lse.len() != call.rows()
        {
            return Err(Error::Shape {
                field: "lse",
                value: format!("{} elements", lse.len()),
                allowed: format!("{}, batch * heads_q * q_len", call.rows()),
            });
        }
        T::flash(&call, out, lse);
        Ok(())
    })
}
