//! The mean of a head's tokens: keys without it need fewer bits, and softmax does not see that it is gone.

use super::{Tokens, row_of};
use crate::error::Result;
use crate::tensor::{Element, TensorView};
use evo_sdpa_kernels::quantize::TokenParts;
use rayon::prelude::*;

/// The mean of the valid tokens of each head, f32 \[batch, heads, head_dim\].
///
/// Without it, every score of a query is less by the same number, so that attention is the same and the log-sum-exp
/// less by `scale * (q . mean)`; [`TokenMean::add_to_lse`] puts it back. Any other vector would do as well: how the mean
/// was rounded has no influence.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenMean {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl TokenMean {
    /// The mean of the tokens of `view`, \[batch, heads, seq, head_dim\], of which `kv_lens` says how many are valid.
    ///
    /// It is a device's to the bit. All operations are in f32: a column is added up in parts of 32 tokens, or of the
    /// least power of two of them with which a head of `seq` tokens has at most 64 parts; the tokens of a part are
    /// added to 0 in their order, the sums of the parts to 0 in theirs, and that is divided by the number of valid
    /// tokens. Zero where there are none, and where the mean would not be finite.
    ///
    /// # Errors
    /// Those of [`super::quantize`].
    pub fn new<T: Element>(field: &'static str, view: TensorView<T>, kv_lens: Option<&[i32]>) -> Result<Self> {
        let tokens = Tokens::new(field, view, kv_lens)?;
        tokens.check_finite(field)?;
        Ok(Self::of(&tokens))
    }

    /// [`TokenMean::new`] with a kernel's policy for numbers that are not finite: they count as zero.
    ///
    /// # Errors
    /// Those of [`super::quantize_as_device`].
    pub fn new_as_device<T: Element>(
        field: &'static str,
        view: TensorView<T>,
        kv_lens: Option<&[i32]>,
    ) -> Result<Self> {
        Ok(Self::of(&Tokens::new(field, view, kv_lens)?))
    }

    fn of<T: Element>(tokens: &Tokens<T>) -> Self {
        let view = tokens.view;
        let shape = view.layout().shape();
        let [batch, heads, seq, head_dim] = shape;
        // A longer head than any kernel takes is one part.
        let part_rows =
            u32::try_from(seq).ok().filter(|&seq| seq < 1 << 31).map_or(seq, |seq| TokenParts::rows(seq) as usize);
        // Without rows there may be any number of heads.
        let heads_of_all = if view.layout().elements() == 0 { 0 } else { batch * heads };
        let mut values = vec![0.0; heads_of_all * head_dim];
        values.par_chunks_mut(head_dim.max(1)).enumerate().for_each(|(head, mean)| {
            let len = tokens.len(head / heads);
            let mut sums = vec![0.0f32; head_dim];
            for first in (0..len).step_by(part_rows) {
                sums.fill(0.0);
                for row in first..(first + part_rows).min(len) {
                    let finite = tokens.row(head * seq + row).iter().map(|x| finite_or_zero(x.to_f32()));
                    sums.iter_mut().zip(finite).for_each(|(sum, x)| *sum += x);
                }
                mean.iter_mut().zip(&sums).for_each(|(mean, sum)| *mean += sum);
            }
            mean.iter_mut().for_each(|mean| *mean = finite_or_zero(*mean / len.max(1) as f32));
        });
        Self { shape, values }
    }

    /// The mean that a device found of a tensor of this shape.
    #[cfg(any(feature = "gpu", feature = "sim"))]
    pub(crate) fn from_values(shape: [usize; 4], values: Vec<f32>) -> Self {
        Self { shape, values }
    }

    /// The mean itself, contiguous \[batch, heads, head_dim\].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The tensor of `view`, which has the shape of the one that the mean is of, less the mean: contiguous, each element
    /// rounded once to f32.
    ///
    /// # Panics
    /// When the shape is another one.
    pub fn subtract_from<T: Element>(&self, view: TensorView<T>) -> Vec<f32> {
        assert_eq!(view.layout().shape(), self.shape);
        let [_, heads, _, head_dim] = self.shape;
        let mut rest = vec![0.0; view.layout().elements()];
        rest.par_chunks_mut(head_dim.max(1)).enumerate().for_each(|(index, rest)| {
            let [b, h, row] = row_of(self.shape, index);
            let mean = &self.values[(b * heads + h) * head_dim..];
            let x = &view.data()[view.layout().row_offset(b, h, row)..];
            rest.iter_mut().zip(x).zip(mean).for_each(|((rest, x), mean)| *rest = x.to_f32() - mean);
        });
        rest
    }

    /// Makes the log-sum-exp of a call with keys without their mean that of the call with the keys: adds
    /// `scale * (q . mean)` to each. `lse` is \[batch, heads_q, q_len\], `q` are the queries of the call,
    /// \[batch, heads_q, q_len, head_dim\], with a multiple of the mean's heads. Rows without keys stay at -inf.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn add_to_lse(&self, lse: &mut [f64], q: TensorView<f32>, scale: f32) {
        let [_, heads, _, head_dim] = self.shape;
        let [batch, heads_q, q_len, columns] = q.layout().shape();
        assert!(batch == self.shape[0] && heads > 0 && heads_q % heads == 0 && columns == head_dim);
        if self.values.is_empty() {
            return;
        }
        assert_eq!(lse.len(), batch * heads_q * q_len);
        for (index, lse) in lse.iter_mut().enumerate() {
            let [b, h, row] = row_of(q.layout().shape(), index);
            let mean = &self.values[(b * heads + h / (heads_q / heads)) * head_dim..][..head_dim];
            let query = &q.data()[q.layout().row_offset(b, h, row)..];
            let dot: f64 = mean.iter().zip(query).map(|(&m, &q)| f64::from(m) * f64::from(q)).sum();
            *lse += f64::from(scale) * dot;
        }
    }
}

fn finite_or_zero(x: f32) -> f32 {
    if x.is_finite() { x } else { 0.0 }
}
