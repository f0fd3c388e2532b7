//! What the answer to a call has to be, and whether it is.

use super::inputs::Inputs;
use crate::compare::{Comparison, compare_lse, compare_out};
use crate::cpu::Output;
use crate::cpu::reference::{self, Exact};
use crate::error::Result;
use crate::layout::Layout;
use crate::nvtx;
use crate::problem::{Causal, Options};
use crate::tensor::{Element, TensorView};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;

/// Operations up to which every row is checked: beyond, the reference would take long.
const WHOLE_FLOPS: f64 = 5e8;
/// Operations for rows that are checked of a larger one.
const MAX_FLOPS: f64 = 2e10;

/// The exact answer to a call and the error that a plain implementation makes.
///
/// For a large problem each head answers for its own share of the query rows: the first head for the first rows, the
/// last one for the last, so that every head and every place of a row is checked, and the reference stays affordable.
/// Where even that is too much, from 8192 tokens or so, there are gaps between the shares.
#[derive(Clone, Debug)]
pub struct Expected {
    heads: usize,
    q_len: usize,
    head_dim: usize,
    /// Query rows that a head answers for.
    share: usize,
    out: Vec<f64>,
    plain: Vec<f64>,
    lse: Vec<f64>,
}

impl Expected {
    /// Computes the answer in f64, of all rows or of a share of them.
    pub fn compute<T: Element>(inputs: &Inputs<T>) -> Result<Self> {
        let _range = nvtx::Range::new(c"reference");
        let problem = inputs.problem();
        problem.validate()?;
        let (q_len, head_dim) = (problem.q_len(), problem.head_dim());
        // Without rows there may be any number of heads.
        let heads = if q_len == 0 { 0 } else { problem.batch() * problem.heads_q() };
        let [q, k, v] = inputs.views()?;
        let mut expected = Self { heads, q_len, head_dim, share: q_len, out: vec![], plain: vec![], lse: vec![] };
        if problem.flops() <= WHOLE_FLOPS {
            expected.append(Part::compute(q, k, v, &inputs.options())?);
            return Ok(expected);
        }
        let row_flops = 4.0 * problem.kv_len() as f64 * head_dim as f64;
        let affordable = (MAX_FLOPS / row_flops / heads as f64) as usize;
        expected.share = q_len.div_ceil(heads).min(affordable).max(1);
        let group = problem.heads_q() / problem.heads_kv();
        let of_head = |head| {
            let (b, h) = (head / problem.heads_q(), head % problem.heads_q());
            let rows = expected.rows(head);
            let options = Options {
                causal: problem.causal_offset().map(|offset| Causal::Offset(offset.saturating_add(rows.start as i64))),
                kv_lens: inputs.kv_lens.as_ref().map(|lens| &lens[b..=b]),
                ..inputs.options()
            };
            let keys = 0..problem.kv_len();
            let (k, v) = (part(k, b, h / group, keys.clone())?, part(v, b, h / group, keys)?);
            Part::compute(part(q, b, h, rows)?, k, v, &options)
        };
        // A head has few rows, and many keys to convert.
        let parts = (0..heads).into_par_iter().map(of_head).collect::<Result<Vec<_>>>()?;
        parts.into_iter().for_each(|part| expected.append(part));
        Ok(expected)
    }

    /// Compares an answer, contiguous \[batch, heads, seq, head_dim\], with the exact one.
    pub fn check<T: Element>(&self, got: &Output<T>) -> Verdict {
        let _range = nvtx::Range::new(c"correctness");
        let out = self.gather(&got.out, self.head_dim);
        let lse = self.gather(&got.lse, 1);
        Verdict {
            out: compare_out(&out, &self.out, &self.plain, self.share * self.head_dim),
            lse: compare_lse(&lse, &self.lse),
        }
    }

    /// Which part of the query rows is checked, 1 for all of them.
    pub fn checked_part(&self) -> f64 {
        if self.q_len == 0 { 1.0 } else { self.share as f64 / self.q_len as f64 }
    }

    fn append(&mut self, part: Part) {
        self.out.extend(part.exact.out);
        self.lse.extend(part.exact.lse);
        self.plain.extend(part.plain);
    }

    /// The query rows that a head answers for.
    fn rows(&self, head: usize) -> Range<usize> {
        // Evenly from the first rows to the last: without gaps where the shares of all heads add up to all rows.
        let start = head * (self.q_len - self.share) / (self.heads - 1).max(1);
        start..start + self.share
    }

    /// The checked rows of a tensor of `width` elements a row. Missing rows stay missing, for the comparison to see.
    fn gather<T: Copy>(&self, tensor: &[T], width: usize) -> Vec<T> {
        let heads = (0..self.heads).map(|head| {
            let Range { start, end } = self.rows(head);
            (head * self.q_len + start) * width..(head * self.q_len + end) * width
        });
        heads.flat_map(|range| tensor.get(range).unwrap_or_default()).copied().collect()
    }
}

/// The exact answer for some rows, and the plain one.
struct Part {
    exact: Exact,
    plain: Vec<f64>,
}

impl Part {
    fn compute<T: Element>(q: TensorView<T>, k: TensorView<T>, v: TensorView<T>, options: &Options) -> Result<Self> {
        Ok(Self { exact: reference::attention(q, k, v, options)?, plain: reference::plain(q, k, v, options)? })
    }
}

/// Rows of one head as a view of their own.
fn part<T: Element>(view: TensorView<T>, batch: usize, head: usize, rows: Range<usize>) -> Result<TensorView<T>> {
    let layout = view.layout();
    let [_, _, _, dim] = layout.shape();
    let start = layout.row_offset(batch, head, rows.start).min(view.data().len());
    TensorView::new(&view.data()[start..], Layout::strided(&[1, 1, rows.len(), dim], &layout.strides())?)
}

/// How an answer compares with the exact one.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The attention itself.
    pub out: Comparison,
    /// The log-sum-exp.
    pub lse: Comparison,
}

impl Verdict {
    /// Whether the answer is right.
    pub fn passes(&self) -> bool {
        self.out.passes() && self.lse.passes()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out {}, lse {}", self.out, self.lse)
    }
}
