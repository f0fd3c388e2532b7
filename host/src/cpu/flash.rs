//! The fast path: online softmax over tiles of keys, one task for some query rows of one key head.
//!
//! Vectors run along query rows, so that neither keys nor values need a transposed copy, a key or value element is
//! one broadcast, and the softmax of a row is never a sum across lanes. Queries and output are transposed once a task.
//! The query heads of a GQA group stand one behind the other: row `r` of key head `h` is query head
//! `h * group + r / q_len` at position `r % q_len`. A row's arithmetic does not depend on the rows beside it, so the
//! split into tasks never shows in the result.

use super::call::Call;
use super::shared::Shared;
use super::simd::{Softmax, mix, scores};
use crate::layout::Layout;
use crate::tensor::{Element, TensorView, TensorViewMut};
use pulp::{Arch, NullaryFnOnce, Simd, WithSimd, bytemuck};
use rayon::prelude::*;
use std::ops::Range;

/// Keys of a tile: their scores for one block of rows take a quarter of a first-level cache of 32 KiB, which holds the
/// queries of the block as well.
const TILE_KV: usize = 64;
/// Query rows of a task at most: they share the widening of the keys and values.
const MAX_TASK_ROWS: usize = 512;
/// Tasks for each thread, where there are rows enough.
const TASKS_PER_THREAD: usize = 4;

/// Computes `call` into `out`, which has the shape of q, and `lse`, \[batch, heads_q, q_len\].
pub(super) fn run<T: Element>(call: &Call<T>, out: &mut TensorViewMut<T>, lse: Option<&mut [f32]>) {
    if call.rows() == 0 {
        return;
    }
    let layout = *out.layout();
    let (out, lse) = (Shared::new(out.data_mut()), lse.map(Shared::new));
    Arch::new().dispatch(Flash { call, layout, out, lse });
}

struct Flash<'a, T> {
    call: &'a Call<'a, T>,
    layout: Layout,
    out: Shared<'a, T>,
    lse: Option<Shared<'a, f32>>,
}

impl<T: Element> WithSimd for Flash<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let problem = &self.call.problem;
        let rows = problem.q_len() * self.call.group();
        let fair = self.call.rows().div_ceil(rayon::current_num_threads() * TASKS_PER_THREAD);
        let step = fair.next_multiple_of(2 * S::F32_LANES).min(MAX_TASK_ROWS);
        let steps = rows.div_ceil(step);
        let tasks = problem.batch() * problem.heads_kv() * steps;
        (0..tasks).into_par_iter().with_max_len(1).for_each_init(Scratch::default, |scratch, index| {
            let (head, first) = (index / steps, index % steps * step);
            let task = Task {
                batch: head / problem.heads_kv(),
                head_kv: head % problem.heads_kv(),
                rows: first..rows.min(first + step),
            };
            simd.vectorize(RunTask { simd, flash: &self, task, scratch });
        });
    }
}

/// A task on the way into a function that is compiled for `S`. (A closure would not be inlined there.)
struct RunTask<'a, T, S: Simd> {
    simd: S,
    flash: &'a Flash<'a, T>,
    task: Task,
    scratch: &'a mut Scratch<S::f32s>,
}

impl<T: Element, S: Simd> NullaryFnOnce for RunTask<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, flash, task, scratch } = self;
        // MR * NR vectors of sums, with one broadcast and NR operands beside them, have to fit the registers.
        match (S::REGISTER_COUNT >= 32, task.rows.len() > S::F32_LANES) {
            (true, true) => flash.run_task::<S, 8, 2>(simd, &task, scratch),
            (false, true) => flash.run_task::<S, 4, 2>(simd, &task, scratch),
            (_, false) => flash.run_task::<S, 8, 1>(simd, &task, scratch),
        }
    }
}

/// Some query rows of one key head.
struct Task {
    batch: usize,
    head_kv: usize,
    rows: Range<usize>,
}

/// Memory of a task, kept from one to the next.
struct Scratch<V> {
    /// Queries, \[block, head_dim\] rows of NR vectors.
    queries: Vec<V>,
    /// Output before the division by the sum of weights, \[block, padded head_dim\] rows of NR vectors.
    out: Vec<V>,
    /// Scores, then weights, of one block and one tile of keys, \[TILE_KV\] rows of NR vectors.
    scores: Vec<V>,
    /// A tile of keys, \[TILE_KV, head_dim\].
    keys: Vec<f32>,
    /// A tile of values, \[padded head_dim / MR, keys, MR\].
    values: Vec<f32>,
    /// One row.
    row: Vec<f32>,
}

impl<V> Default for Scratch<V> {
    fn default() -> Self {
        Self { queries: vec![], out: vec![], scores: vec![], keys: vec![], values: vec![], row: vec![] }
    }
}

/// `NR` vectors of query rows.
struct Block<V, const NR: usize> {
    first_row: usize,
    softmax: Softmax<V, NR>,
    /// Visible keys of each row; the rows beyond the task's last are copies of that.
    visible: Vec<usize>,
    seen_by_all: usize,
    seen_by_some: usize,
}

impl<T: Element> Flash<'_, T> {
    #[inline(always)]
    fn run_task<S: Simd, const MR: usize, const NR: usize>(
        &self,
        simd: S,
        task: &Task,
        scratch: &mut Scratch<S::f32s>,
    ) {
        const { assert!(TILE_KV.is_multiple_of(MR)) };
        let zero = simd.splat_f32s(0.0);
        let head_dim = self.call.problem.head_dim();
        let padded_dim = head_dim.next_multiple_of(MR);
        let mut blocks = self.load_queries::<S, NR>(simd, task, scratch);
        let Scratch { queries, out, scores: tile, keys, values, row } = scratch;
        let (queries, _) = queries.as_chunks::<NR>();
        out.clear();
        out.resize(blocks.len() * padded_dim * NR, zero);
        let (out, _) = out.as_chunks_mut::<NR>();
        tile.resize(TILE_KV * NR, zero);
        let (tile, _) = tile.as_chunks_mut::<NR>();

        // A scale of zero would turn a masked -inf into NaN; the smallest positive one gives the same weights.
        let scale = (self.call.problem.scale() * std::f32::consts::LOG2_E).max(f32::MIN_POSITIVE);
        let last_key = blocks.iter().map(|block| block.seen_by_some).max().unwrap_or(0);
        for first_key in (0..last_key).step_by(TILE_KV) {
            let len = TILE_KV.min(last_key - first_key);
            let head = (task.batch, task.head_kv);
            load_keys(&self.call.k, head, first_key..first_key + len, keys);
            load_values::<T, MR>(&self.call.v, head, first_key..first_key + len, row, values);
            let (values, _) = values.as_chunks::<MR>();
            let per_block = queries.chunks_exact(head_dim).zip(out.chunks_exact_mut(padded_dim));
            for (block, (queries, out)) in blocks.iter_mut().zip(per_block) {
                let some = block.seen_by_some.saturating_sub(first_key).min(len);
                let all = block.seen_by_all.saturating_sub(first_key).min(len);
                if some == 0 {
                    continue;
                }
                scores::<S, MR, NR>(simd, &keys[..some.next_multiple_of(MR) * head_dim], queries, tile);
                let limits = block.limits::<S>(simd, first_key);
                mask(simd, &mut tile[..some], all, &limits);
                let rescale = block.softmax.update(simd, simd.splat_f32s(scale), &mut tile[..some]);
                let one = [simd.splat_f32s(1.0); NR];
                for (values, out) in values.chunks_exact(len).zip(out.as_chunks_mut::<MR>().0) {
                    mix(simd, &values[..all], &tile[..all], None, &rescale, out);
                    if all < some {
                        let limits = block.limits::<S>(simd, first_key + all);
                        mix(simd, &values[all..some], &tile[all..some], Some(&limits), &one, out);
                    }
                }
            }
        }
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(padded_dim)) {
            self.store::<S, NR>(simd, task, block, scale, out, row);
        }
    }

    /// Transposes the task's queries and counts the keys that their rows see.
    #[inline(always)]
    fn load_queries<S: Simd, const NR: usize>(
        &self,
        simd: S,
        task: &Task,
        scratch: &mut Scratch<S::f32s>,
    ) -> Vec<Block<S::f32s, NR>> {
        let lanes = NR * S::F32_LANES;
        let count = task.rows.len().div_ceil(lanes);
        let head_dim = self.call.problem.head_dim();
        scratch.queries.resize(count * head_dim * NR, simd.splat_f32s(0.0));
        scratch.row.resize(head_dim, 0.0);
        let queries: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch.queries);
        let mut blocks = Vec::with_capacity(count);
        let firsts = task.rows.clone().step_by(lanes);
        for (first_row, queries) in firsts.zip(queries.chunks_exact_mut(lanes * head_dim)) {
            let mut visible = vec![0; lanes];
            for (lane, visible) in visible.iter_mut().enumerate() {
                let (head, seq) = self.place(task, (first_row + lane).min(task.rows.end - 1));
                let start = self.call.q.layout().row_offset(task.batch, head, seq);
                T::widen(&self.call.q.data()[start..start + head_dim], &mut scratch.row);
                for (to, &x) in queries[lane..].iter_mut().step_by(lanes).zip(&scratch.row) {
                    *to = x;
                }
                *visible = self.call.visible(task.batch, seq);
            }
            blocks.push(Block {
                first_row,
                softmax: Softmax { max: [simd.splat_f32s(f32::NEG_INFINITY); NR], sum: [simd.splat_f32s(0.0); NR] },
                seen_by_all: visible.iter().copied().min().unwrap_or(0),
                seen_by_some: visible.iter().copied().max().unwrap_or(0),
                visible,
            });
        }
        blocks
    }

    /// Divides by the sum of weights and writes the rows of a block.
    #[inline(always)]
    fn store<S: Simd, const NR: usize>(
        &self,
        simd: S,
        task: &Task,
        block: &Block<S::f32s, NR>,
        scale: f32,
        out: &mut [[S::f32s; NR]],
        row: &mut [f32],
    ) {
        for n in 0..NR {
            let inverse = simd.div_f32s(simd.splat_f32s(1.0), block.softmax.sum[n]);
            for out in out.iter_mut() {
                out[n] = simd.mul_f32s(out[n], inverse);
            }
        }
        let lanes = NR * S::F32_LANES;
        let problem = &self.call.problem;
        let out: &[f32] = bytemuck::cast_slice(out.as_flattened());
        let (max, sum): (&[f32], &[f32]) =
            (bytemuck::cast_slice(&block.softmax.max), bytemuck::cast_slice(&block.softmax.sum));
        for (lane, r) in (block.first_row..task.rows.end.min(block.first_row + lanes)).enumerate() {
            let (head, seq) = self.place(task, r);
            let sees = block.visible[lane] > 0;
            if sees {
                row.iter_mut().zip(out[lane..].iter().step_by(lanes)).for_each(|(to, &x)| *to = x);
            } else {
                row.fill(0.0);
            }
            // SAFETY: every task has its own rows, and the rows of an injective layout do not overlap.
            let to = unsafe { self.out.part(self.layout.row_offset(task.batch, head, seq), row.len()) };
            T::narrow(row, to);
            if let Some(lse) = &self.lse {
                let at = (task.batch * problem.heads_q() + head) * problem.q_len() + seq;
                // SAFETY: one element for each row, and every task has its own rows.
                let to = unsafe { lse.part(at, 1) };
                // The rounded product is what the weights were computed with.
                to[0] = (f64::from(max[lane] * scale) * std::f64::consts::LN_2 + f64::from(sum[lane]).ln()) as f32;
            }
        }
    }

    /// (query head, position) of a row of a task.
    fn place(&self, task: &Task, row: usize) -> (usize, usize) {
        let q_len = self.call.problem.q_len();
        (task.head_kv * self.call.group() + row / q_len, row % q_len)
    }
}

impl<V: bytemuck::Pod, const NR: usize> Block<V, NR> {
    /// Visible keys of each row, counted from `first_key` on, as numbers up to TILE_KV.
    #[inline(always)]
    fn limits<S: Simd<f32s = V>>(&self, simd: S, first_key: usize) -> [V; NR] {
        let mut limits = [simd.splat_f32s(0.0); NR];
        let lanes: &mut [f32] = bytemuck::cast_slice_mut(&mut limits);
        for (to, visible) in lanes.iter_mut().zip(&self.visible) {
            *to = visible.saturating_sub(first_key).min(TILE_KV) as f32;
        }
        limits
    }
}

/// Sets the scores from key `from` on to -inf in the rows that do not see the key.
#[inline(always)]
fn mask<S: Simd, const NR: usize>(simd: S, tile: &mut [[S::f32s; NR]], from: usize, limits: &[S::f32s; NR]) {
    let hidden = simd.splat_f32s(f32::NEG_INFINITY);
    for (k, row) in tile.iter_mut().enumerate().skip(from) {
        let k = simd.splat_f32s(k as f32);
        for (score, &limit) in row.iter_mut().zip(limits) {
            *score = simd.select_f32s(simd.less_than_f32s(k, limit), *score, hidden);
        }
    }
}

/// Widens keys, one behind the other; what follows in the tile is stale or zero and its scores go unread.
#[inline(always)]
fn load_keys<T: Element>(k: &TensorView<T>, head: (usize, usize), range: Range<usize>, keys: &mut Vec<f32>) {
    let head_dim = k.layout().shape()[3];
    keys.resize(TILE_KV * head_dim, 0.0);
    for (to, key) in keys.chunks_exact_mut(head_dim).zip(range) {
        let start = k.layout().row_offset(head.0, head.1, key);
        T::widen(&k.data()[start..start + head_dim], to);
    }
}

/// Widens values into panels of `MR` columns, zero beyond the last column.
#[inline(always)]
fn load_values<T: Element, const MR: usize>(
    v: &TensorView<T>,
    head: (usize, usize),
    range: Range<usize>,
    row: &mut Vec<f32>,
    values: &mut Vec<f32>,
) {
    let head_dim = v.layout().shape()[3];
    let padded_dim = head_dim.next_multiple_of(MR);
    let len = range.len();
    row.resize(padded_dim, 0.0);
    values.resize(padded_dim * len, 0.0);
    let (values, _) = values.as_chunks_mut::<MR>();
    for (index, key) in range.enumerate() {
        let start = v.layout().row_offset(head.0, head.1, key);
        T::widen(&v.data()[start..start + head_dim], &mut row[..head_dim]);
        for (to, from) in values[index..].iter_mut().step_by(len).zip(row.as_chunks::<MR>().0) {
            *to = *from;
        }
    }
    row.truncate(head_dim);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::{compare_lse, compare_out};
    use crate::cpu::reference;
    use crate::problem::{Causal, Options};
    use crate::verify::Rng;

    /// Every instruction set that this machine has.
    pub(in crate::cpu) fn arches() -> Vec<Arch> {
        let mut arches = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        arches.extend(pulp::x86::V3::try_new().map(Arch::V3));
        arches
    }

    #[test]
    fn every_instruction_set_matches_the_oracle() {
        let (q_shape, kv_shape) = ([1, 4, 37, 20], [1, 2, 150, 20]);
        let mut rng = Rng::new(3);
        let mut normal = |shape: [usize; 4]| (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        let (q, k, v): (Vec<f32>, Vec<f32>, Vec<f32>) = (normal(q_shape), normal(kv_shape), normal(kv_shape));
        let q = TensorView::bhsd(&q, q_shape).unwrap();
        let (k, v) = (TensorView::bhsd(&k, kv_shape).unwrap(), TensorView::bhsd(&v, kv_shape).unwrap());
        let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
        let layout = Layout::bhsd(q_shape);
        let call = Call::new(q, k, v, layout, &options).unwrap();
        let exact = reference::attention(q, k, v, &options).unwrap();
        let plain = reference::plain(q, k, v, &options).unwrap();
        for arch in arches() {
            let (mut out, mut lse) = (vec![f32::NAN; layout.elements()], vec![f32::NAN; call.rows()]);
            let (to, to_lse) = (Shared::new(&mut out), Some(Shared::new(&mut lse)));
            arch.dispatch(Flash { call: &call, layout, out: to, lse: to_lse });
            let (out, lse) = (compare_out(&out, &exact.out, &plain, 37 * 20), compare_lse(&lse, &exact.lse));
            assert!(out.passes() && lse.passes(), "{arch:?}: {out}; {lse}");
        }
    }
}
