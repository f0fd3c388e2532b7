//! The oracle: attention row by row in f64, and the plain implementation whose error sets the tolerance.

use super::call::Call;
use super::pages;
use crate::error::Result;
use crate::problem::Options;
use crate::quantize::E4m3;
use crate::tensor::{Element, TensorView};
use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;
use std::ops::{Add, Mul};

/// The largest probability of a row, before it is rounded, in [`with_e4m3_probabilities`].
const E4M3_PEAK: f64 = 256.0;
/// The same in [`with_inexact_e4m3_probabilities`]: half-way from 256 to the next number of e4m3.
const INEXACT_E4M3_PEAK: f64 = 272.0;

/// What [`attention`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// Contiguous \[batch, heads_q, q_len, head_dim\].
    pub out: Vec<f64>,
    /// \[batch, heads_q, q_len\], natural logarithm.
    pub lse: Vec<f64>,
}

/// `softmax(scale * q k^T + mask) v` in f64 from the rounded inputs; shapes as in [`super::attention`].
///
/// # Errors
/// Those of [`super::attention`].
pub fn attention<T: Element>(q: TensorView<T>, k: TensorView<T>, v: TensorView<T>, options: &Options) -> Result<Exact> {
    pages::contiguous(q, k, v, options, |k, v, options| {
        Ok(T::exact(&Call::new(q, k, v, crate::Layout::bhsd(q.layout().shape()), options)?))
    })
}

/// [`attention`] with the probabilities that a kernel for e4m3 multiplies values by: `exp(score - max) * 2^8` rounded to
/// e4m3, where 2^8 is the largest power of two that e4m3 holds, over the sum of the probabilities before they were
/// rounded. Everything else is exact; a kernel's own f32 arithmetic is finer by orders of magnitude.
///
/// # Errors
/// Those of [`super::attention`].
pub fn with_e4m3_probabilities<T: Element>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
) -> Result<Exact> {
    with_e4m3_peak(q, k, v, options, E4M3_PEAK)
}

/// [`with_e4m3_probabilities`] where the largest probability of a row is as far from any number of e4m3 as it may be in a
/// kernel, whose bases are its own: in a row with one large probability most of the error is that of this one.
pub(crate) fn with_inexact_e4m3_probabilities<T: Element>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
) -> Result<Exact> {
    with_e4m3_peak(q, k, v, options, INEXACT_E4M3_PEAK)
}

fn with_e4m3_peak<T: Element>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
    peak: f64,
) -> Result<Exact> {
    pages::contiguous(q, k, v, options, |k, v, options| {
        let call = Call::new(q, k, v, crate::Layout::bhsd(q.layout().shape()), options)?;
        Ok(answer(&call, peak, |p| E4m3::from_f32(p as f32).to_f32().into()))
    })
}

/// [`attention`] with the arithmetic that a textbook implementation in `T` has: products and sums in f32, scores,
/// probabilities and output rounded to `T`. Contiguous \[batch, heads_q, q_len, head_dim\].
///
/// # Errors
/// Those of [`super::attention`].
pub fn plain<T: Element>(q: TensorView<T>, k: TensorView<T>, v: TensorView<T>, options: &Options) -> Result<Vec<f64>> {
    pages::contiguous(q, k, v, options, |k, v, options| {
        Ok(T::textbook(&Call::new(q, k, v, crate::Layout::bhsd(q.layout().shape()), options)?))
    })
}

pub(super) fn textbook<T: Element>(call: &Call<T>) -> Vec<f64> {
    let scale = call.problem.scale();
    let arch = Arch::new();
    let round = |x: f32| T::from_f32(x).to_f32();
    let mut out = vec![0.0; call.rows() * call.problem.head_dim()];
    let (q, k, v) = (Rows::new(&call.q, T::to_f32), Rows::new(&call.k, T::to_f32), Rows::new(&call.v, T::to_f32));
    for_each_row(call, &mut out, |row, out, head_kv, visible| {
        let query = q.row(row);
        let dots = arch.dispatch(Dots { query, keys: k.head(head_kv, visible) });
        let mut weights: Vec<f32> = dots.into_iter().map(|dot| round(dot * scale)).collect();
        let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|w| *w = (*w - max).exp());
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w = round(*w / sum));
        let mix = arch.dispatch(Mix { weights: &weights, values: v.head(head_kv, visible), head_dim: out.len() });
        out.iter_mut().zip(mix).for_each(|(o, x)| *o = round(x).into());
    });
    out
}

/// [`super::merge_states`] in f64 from the rounded inputs.
///
/// # Errors
/// Those of [`super::merge_states`].
pub fn merge_states<T: Element>(
    out_a: TensorView<T>,
    lse_a: &[f32],
    out_b: TensorView<T>,
    lse_b: &[f32],
) -> Result<Exact> {
    super::merge::exact(out_a, lse_a, out_b, lse_b)
}

pub(super) fn exact<T: Element>(call: &Call<T>) -> Exact {
    answer(call, 1.0, |p| p)
}

/// The answer with the largest probability of a row at `peak` before all are divided by their sum, and each passed through
/// `round` where it is multiplied by its value.
fn answer<T: Element>(call: &Call<T>, peak: f64, round: impl Fn(f64) -> f64 + Sync) -> Exact {
    let scale = f64::from(call.problem.scale());
    let arch = Arch::new();
    let width = call.problem.head_dim() + 1;
    let mut rows = vec![0.0; call.rows() * width];
    let (q, k, v) = (Rows::new(&call.q, T::to_f64), Rows::new(&call.k, T::to_f64), Rows::new(&call.v, T::to_f64));
    for_each_row(call, &mut rows, |row, out_and_lse, head_kv, visible| {
        let (lse, out) = out_and_lse.split_last_mut().expect("a row holds its lse");
        let query = q.row(row);
        let mut weights = arch.dispatch(Dots { query, keys: k.head(head_kv, visible) });
        weights.iter_mut().for_each(|w| *w *= scale);
        let max = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Scores that are all -inf keep their weight of zero, and the row its 0/0.
        let shift = if max == f64::NEG_INFINITY { 0.0 } else { max };
        weights.iter_mut().for_each(|w| *w = (*w - shift).exp() * peak);
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w = round(*w));
        if visible > 0 {
            let mix = arch.dispatch(Mix { weights: &weights, values: v.head(head_kv, visible), head_dim: out.len() });
            out.iter_mut().zip(mix).for_each(|(o, x)| *o = x / sum);
        }
        *lse = shift + (sum / peak).ln();
    });
    let out = rows.chunks_exact(width).flat_map(|row| &row[..width - 1]).copied().collect();
    let lse = rows.chunks_exact(width).map(|row| row[width - 1]).collect();
    Exact { out, lse }
}

/// Calls `body(row, chunk of out, head of all key heads, visible keys)` for every query row, in parallel.
fn for_each_row<T: Element>(call: &Call<T>, out: &mut [f64], body: impl Fn(usize, &mut [f64], usize, usize) + Sync) {
    if out.is_empty() {
        return;
    }
    let width = out.len() / call.rows();
    out.par_chunks_exact_mut(width).enumerate().for_each(|(row, out)| {
        let (batch, head, seq) = call.place(row);
        let head_kv = batch * call.problem.heads_kv() + head / call.group();
        body(row, out, head_kv, call.visible(batch, seq));
    });
}

/// A tensor widened to contiguous \[batch, heads, seq, head_dim\].
struct Rows<W> {
    data: Vec<W>,
    head_dim: usize,
    head_len: usize,
}

impl<W: Copy> Rows<W> {
    fn new<T: Element>(view: &TensorView<T>, widen: impl Fn(T) -> W) -> Self {
        let [batch, heads, seq, head_dim] = view.layout().shape();
        let mut data = Vec::with_capacity(view.layout().elements());
        // Without rows there may be any number of heads.
        let batch = if seq == 0 { 0 } else { batch };
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for s in 0..seq {
                let start = view.layout().row_offset(b, h, s);
                data.extend(view.data()[start..start + head_dim].iter().map(|&x| widen(x)));
            }
        }
        Self { data, head_dim, head_len: seq * head_dim }
    }

    fn row(&self, row: usize) -> &[W] {
        &self.data[row * self.head_dim..][..self.head_dim]
    }

    /// The first `rows` rows of one head, counted over \[batch, heads\].
    fn head(&self, head: usize, rows: usize) -> &[W] {
        &self.data[head * self.head_len..][..rows * self.head_dim]
    }
}

/// A number that the compiler can put into vectors.
trait Number: Copy + Default + Mul<Output = Self> + Add<Output = Self> {}
impl Number for f32 {}
impl Number for f64 {}

/// The product of one query with each of some keys, with the widest vectors of this CPU.
struct Dots<'a, W> {
    query: &'a [W],
    keys: &'a [W],
}

impl<W: Number> NullaryFnOnce for Dots<'_, W> {
    type Output = Vec<W>;

    #[inline(always)]
    fn call(self) -> Vec<W> {
        let mut dots = Vec::with_capacity(self.keys.len() / self.query.len());
        for key in self.keys.chunks_exact(self.query.len()) {
            // Sums in lanes, as vectors need them.
            let mut lanes = [W::default(); 16];
            for (a, b) in self.query.chunks(lanes.len()).zip(key.chunks(lanes.len())) {
                for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane = *lane + a * b;
                }
            }
            let mut dot = W::default();
            for lane in lanes {
                dot = dot + lane;
            }
            dots.push(dot);
        }
        dots
    }
}

/// The sum of values, each with its weight, likewise.
struct Mix<'a, W> {
    weights: &'a [W],
    values: &'a [W],
    head_dim: usize,
}

impl<W: Number> NullaryFnOnce for Mix<'_, W> {
    type Output = Vec<W>;

    #[inline(always)]
    fn call(self) -> Vec<W> {
        let mut sum = vec![W::default(); self.head_dim];
        for (&weight, value) in self.weights.iter().zip(self.values.chunks_exact(self.head_dim)) {
            for (sum, &x) in sum.iter_mut().zip(value) {
                *sum = *sum + weight * x;
            }
        }
        sum
    }
}
