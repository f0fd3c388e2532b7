//! Which rows of an answer are computed again in f64, and how.

use super::inputs::Inputs;
use crate::Layout;
use crate::error::Result;
use crate::problem::{Causal, Options, Problem};
use crate::tensor::{Element, TensorView};
use rayon::prelude::*;
use std::ops::Range;

/// Operations up to which every row is checked: beyond, the reference would take long.
const WHOLE_FLOPS: f64 = 5e8;
/// Operations for rows that are checked of a larger one.
const MAX_FLOPS: f64 = 2e10;

/// The query rows that each head answers for.
///
/// For a large problem that is a share of them: the first head answers for the first rows, the last one for the last, so
/// that every head and every place of a row is checked, and the reference stays affordable. Where even that is too much,
/// from 8192 tokens or so, there are gaps between the shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Heads of all sequences.
    heads: usize,
    q_len: usize,
    /// Query rows that a head answers for.
    share: usize,
}

impl Shares {
    /// Of a problem, validated.
    pub fn of(problem: &Problem) -> Self {
        let q_len = problem.q_len();
        // Without rows there may be any number of heads.
        let heads = if q_len == 0 { 0 } else { problem.batch() * problem.heads_q() };
        if problem.flops() <= WHOLE_FLOPS {
            return Self { heads, q_len, share: q_len };
        }
        let row_flops = 4.0 * problem.kv_len() as f64 * problem.head_dim() as f64;
        let affordable = (MAX_FLOPS / row_flops / heads as f64) as usize;
        Self { heads, q_len, share: q_len.div_ceil(heads).min(affordable).max(1) }
    }

    /// Query rows that a head answers for.
    pub fn rows_of_a_head(&self) -> usize {
        self.share
    }

    /// Which part of the query rows is checked, 1 for all of them.
    pub fn part(&self) -> f64 {
        if self.q_len == 0 { 1.0 } else { self.share as f64 / self.q_len as f64 }
    }

    /// The checked rows of a tensor of `width` elements a row. Missing rows stay missing, for the comparison to see.
    pub fn gather<T: Copy>(&self, tensor: &[T], width: usize) -> Vec<T> {
        let heads = (0..self.heads).map(|head| {
            let Range { start, end } = self.rows(head);
            (head * self.q_len + start) * width..(head * self.q_len + end) * width
        });
        heads.flat_map(|range| tensor.get(range).unwrap_or_default()).copied().collect()
    }

    /// What `compute` answers to the call with the checked rows alone: at once, or for each head in turn.
    pub fn compute<T: Element, R: Send>(
        &self,
        inputs: &Inputs<T>,
        compute: impl Fn([TensorView<T>; 3], &Options) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let [q, k, v] = inputs.views()?;
        if self.share == self.q_len {
            return Ok(vec![compute([q, k, v], &inputs.options())?]);
        }
        let problem = inputs.problem();
        let group = problem.heads_q() / problem.heads_kv();
        let of_head = |head| {
            let (b, h) = (head / problem.heads_q(), head % problem.heads_q());
            let rows = self.rows(head);
            let options = Options {
                causal: problem.causal_offset().map(|offset| Causal::Offset(offset.saturating_add(rows.start as i64))),
                kv_lens: inputs.kv_lens.as_ref().map(|lens| &lens[b..=b]),
                ..inputs.options()
            };
            let keys = 0..problem.kv_len();
            let (k, v) = (part(k, b, h / group, keys.clone())?, part(v, b, h / group, keys)?);
            compute([part(q, b, h, rows)?, k, v], &options)
        };
        // A head has few rows, and many keys to convert.
        (0..self.heads).into_par_iter().map(of_head).collect()
    }

    /// The query rows that a head answers for.
    fn rows(&self, head: usize) -> Range<usize> {
        // Evenly from the first rows to the last: without gaps where the shares of all heads add up to all rows.
        let start = head * (self.q_len - self.share) / (self.heads - 1).max(1);
        start..start + self.share
    }
}

/// Rows of one head as a view of their own.
fn part<T: Element>(view: TensorView<T>, batch: usize, head: usize, rows: Range<usize>) -> Result<TensorView<T>> {
    let layout = view.layout();
    let [_, _, _, dim] = layout.shape();
    let start = layout.row_offset(batch, head, rows.start).min(view.data().len());
    TensorView::new(&view.data()[start..], Layout::strided(&[1, 1, rows.len(), dim], &layout.strides())?)
}
