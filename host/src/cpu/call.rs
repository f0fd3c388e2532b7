//! One checked call: the tensors with everything that the options say about them.

use crate::error::Result;
use crate::layout::Layout;
use crate::problem::{Options, Problem};
use crate::tensor::{Element, TensorView};

/// Inputs that fit each other.
pub struct Call<'a, T> {
    pub problem: Problem,
    pub q: TensorView<'a, T>,
    pub k: TensorView<'a, T>,
    pub v: TensorView<'a, T>,
    kv_lens: Option<&'a [i32]>,
}

impl<'a, T: Element> Call<'a, T> {
    /// Checks what [`super::attention`] promises to check.
    pub fn new(
        q: TensorView<'a, T>,
        k: TensorView<'a, T>,
        v: TensorView<'a, T>,
        out: Layout,
        options: &Options<'a>,
    ) -> Result<Self> {
        let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_out(out);
        problem.validate()?;
        Ok(Self { problem, q, k, v, kv_lens: options.kv_lens })
    }

    /// Query rows of all sequences and heads.
    pub fn rows(&self) -> usize {
        self.problem.q.elements() / self.problem.head_dim()
    }

    /// (batch, head, seq) of a query row counted over \[batch, heads_q, q_len\].
    pub fn place(&self, row: usize) -> (usize, usize, usize) {
        let (heads, q_len) = (self.problem.heads_q(), self.problem.q_len());
        (row / q_len / heads, row / q_len % heads, row % q_len)
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.problem.heads_q() / self.problem.heads_kv()
    }

    /// Number of keys that query row `seq` of sequence `batch` sees: keys `0..visible`.
    pub fn visible(&self, batch: usize, seq: usize) -> usize {
        let len = self.kv_lens.map_or(self.problem.kv_len(), |lens| lens[batch] as usize);
        match self.problem.causal_offset() {
            None => len,
            Some(offset) => (seq as i64).saturating_add(offset).saturating_add(1).clamp(0, len as i64) as usize,
        }
    }
}
