//! Merging two attention results over disjoint sets of keys.

use super::Output;
use super::reference::Exact;
use crate::error::Result;
use crate::merge::{check_lse, validate};
use crate::tensor::{Element, TensorView};
use rayon::prelude::*;

/// The attention over all keys from `out_a` and `out_b`, the attention of the same queries over two disjoint sets of
/// them, and their log-sum-exps: what ring attention, chunked prefill and shared prefixes need.
///
/// `lse = ln(e^lse_a + e^lse_b)` and `out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b`. Results are
/// \[batch, heads, seq, head_dim\] with any strides, rows contiguous; log-sum-exps \[batch, heads, seq\], natural
/// logarithm. Arithmetic is in f32, the output is rounded once. A result that saw no key, its log-sum-exp -inf, counts
/// for nothing, whatever stands in it: the other one's bits are the answer, and zeros with -inf where both saw none. NaN
/// reaches the rows that have it and no others.
///
/// ```
/// use evo_sdpa_host::{Options, TensorView, cpu};
/// # fn main() -> evo_sdpa_host::Result<()> {
/// let (q, k, v) = (vec![0.5f32; 3 * 8], vec![0.1; 4 * 8], vec![0.2; 4 * 8]);
/// let queries = TensorView::bhsd(&q, [1, 1, 3, 8])?;
/// let part = |data, keys| TensorView::bhsd(data, [1, 1, keys, 8]);
/// let first = cpu::attention(queries, part(&k[..8], 1)?, part(&v[..8], 1)?, &Options::default())?;
/// let others = cpu::attention(queries, part(&k[8..], 3)?, part(&v[8..], 3)?, &Options::default())?;
/// let [a, b] = [&first.out, &others.out].map(|out| TensorView::bhsd(out, [1, 1, 3, 8]));
/// let all = cpu::merge_states(a?, &first.lse, b?, &others.lse)?;
/// let expected = cpu::attention(queries, part(&k, 4)?, part(&v, 4)?, &Options::default())?;
/// assert!(all.lse.iter().zip(&expected.lse).all(|(a, b)| (a - b).abs() < 1e-6));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when shapes differ or a log-sum-exp has not one element for each row,
/// [`Error::Layout`](crate::Error::Layout) for rows that are not contiguous.
pub fn merge_states<T: Element>(
    out_a: TensorView<T>,
    lse_a: &[f32],
    out_b: TensorView<T>,
    lse_b: &[f32],
) -> Result<Output<T>> {
    let pairs = Pairs::new(out_a, lse_a, out_b, lse_b)?;
    let mut out = vec![T::default(); out_a.layout().elements()];
    let mut lse = vec![0.0; lse_a.len()];
    let rows = out.par_chunks_exact_mut(pairs.head_dim()).zip(&mut lse).enumerate();
    rows.for_each(|(row, (out, merged_lse))| {
        let [(a, lse_a), (b, lse_b)] = pairs.row(row);
        if lse_b == f32::NEG_INFINITY {
            *merged_lse = lse_a;
            // Where neither saw a key, the output keeps its zeros.
            if lse_a != f32::NEG_INFINITY {
                out.copy_from_slice(a);
            }
        } else if lse_a == f32::NEG_INFINITY {
            *merged_lse = lse_b;
            out.copy_from_slice(b);
        } else {
            let first_is_larger = lse_a >= lse_b;
            let (larger, smaller) = if first_is_larger { (lse_a, lse_b) } else { (lse_b, lse_a) };
            // NaN where one of them is NaN.
            let ratio = (smaller - larger).exp();
            let weight = 1.0 / (1.0 + ratio);
            let (w_a, w_b) = if first_is_larger { (weight, weight * ratio) } else { (weight * ratio, weight) };
            *merged_lse = larger + ratio.ln_1p();
            for ((to, a), b) in out.iter_mut().zip(a).zip(b) {
                *to = T::from_f32(w_a * a.to_f32() + w_b * b.to_f32());
            }
        }
    });
    Ok(Output { out, lse })
}

/// [`merge_states`] in f64 from the rounded inputs.
pub(super) fn exact<T: Element>(
    out_a: TensorView<T>,
    lse_a: &[f32],
    out_b: TensorView<T>,
    lse_b: &[f32],
) -> Result<Exact> {
    let pairs = Pairs::new(out_a, lse_a, out_b, lse_b)?;
    let (mut out, mut lse) = (Vec::with_capacity(out_a.layout().elements()), Vec::with_capacity(lse_a.len()));
    for row in 0..lse_a.len() {
        // The others count for nothing, whatever stands in them.
        let seen = || pairs.row(row).into_iter().filter(|&(_, lse)| lse != f32::NEG_INFINITY);
        let shift = seen().map(|(_, lse)| f64::from(lse)).fold(f64::NEG_INFINITY, f64::max);
        let merged = shift + seen().map(|(_, lse)| (f64::from(lse) - shift).exp()).sum::<f64>().ln();
        lse.push(merged);
        out.extend((0..pairs.head_dim()).map(|column| {
            seen().map(|(out, lse)| (f64::from(lse) - merged).exp() * out[column].to_f64()).sum::<f64>()
        }));
    }
    Ok(Exact { out, lse })
}

/// Two results that fit each other.
struct Pairs<'a, T> {
    outs: [TensorView<'a, T>; 2],
    lses: [&'a [f32]; 2],
}

impl<'a, T: Element> Pairs<'a, T> {
    fn new(out_a: TensorView<'a, T>, lse_a: &'a [f32], out_b: TensorView<'a, T>, lse_b: &'a [f32]) -> Result<Self> {
        validate(T::DTYPE, out_a.layout(), out_b.layout())?;
        check_lse("lse_a", lse_a.len(), out_a.layout())?;
        check_lse("lse_b", lse_b.len(), out_b.layout())?;
        Ok(Self { outs: [out_a, out_b], lses: [lse_a, lse_b] })
    }

    fn head_dim(&self) -> usize {
        self.outs[0].layout().shape()[3]
    }

    /// Elements and log-sum-exp of a row of both, counted over \[batch, heads, seq\].
    fn row(&self, row: usize) -> [(&'a [T], f32); 2] {
        let [_, heads, seq, head_dim] = self.outs[0].layout().shape();
        [0, 1].map(|side| {
            let (out, lse) = (&self.outs[side], self.lses[side]);
            let start = out.layout().row_offset(row / seq / heads, row / seq % heads, row % seq);
            (&out.data()[start..start + head_dim], lse[row])
        })
    }
}
