//! `fwd_sm80`: FlashAttention's forward pass with cp.async, ldmatrix and mma.sync (arXiv 2205.14135, 2307.08691).
//!
//! A block owns `tile_q` query rows of one head and walks the keys in steps of `kv_splits * tile_kv`, from the last
//! step down to step 0, so that the steps that need a mask (ragged end, causal diagonal) come first.
//!
//! With several stages, tensor cores and exponentials overlap in two ways. The product with values lags: it comes one step
//! after its probabilities, beside the exponentials of the next step. And a step is tried with the base of the softmax
//! that is there, so that exponentials wait for no maximum; where that fails ([`super::softmax`]), and where there is a
//! mask, it is taken with the row maximum.
//!
//! ```text
//! shared memory   queries | keys, stage 0..S | values, stage 0..S          (merge area or output tile at the end)
//! stage           keys and values of step t: t % S
//!
//! S > 1    start    start K, V of the first S steps, wait Q, K(n-1)                                    barrier A
//!          step t   start K(t+1-S), V(t+2-S)   S = Q K(t)^T   out += P V(t+1)   P = softmax   wait     barrier A
//!          end      out += P V(0)
//!
//! S = 1    start    start K, V, wait Q, first half of K                                                barrier A
//!          step t   S = Q K^T of that   wait K   barrier B   S = Q K^T of the rest   P = softmax
//!                   wait V   barrier C   out += P V                                                    barrier A
//!                   and before it, but for the first: start K, V, wait first half of K                 barrier D
//! ```
//!
//! | barrier | makes visible | frees |
//! |---|---|---|
//! | A before step t, S > 1 | K(t) and V(t+1) of all threads, and the queries | K(t+1), V(t+2) |
//! | A, S = 1 | the first half of the first keys, and the queries | keys and values |
//! | B, C, D | keys, values, the first half of later keys | |
//!
//! The first half of K is that of every part into which keys are split, so that all warps have something to begin with.
//!
//! With `shares_keys` several blocks have the same rows, and each a part of the keys: keys count from the block's first
//! one, in masks as in copies. A block whose part is hidden from all its rows takes no step. At the end each leaves a
//! partial result, and the last one to do so merges them ([`super::shared_keys`]).

use super::block::{Instance, Mask, Position, Queries, multiply_keys};
use super::element::{self, mma_m16n8k16};
use super::epilogue;
use super::pipeline::Pipeline;
use super::registers::Registers;
use super::sequence_keys;
use super::shared_keys;
use super::softmax::Softmax;
use super::tile::OperandAddress;
use crate::fragment::ldmatrix_rows_first;
use crate::mask::kv_steps;
use crate::params::FwdParams;
use crate::ptx::ldmatrix::ldmatrix_x4_trans;
use crate::ptx::{begin_block, fence_schedule, opaque, sreg};
use core::ops::Range;

/// The kernel.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run<I: Instance>(params: FwdParams) {
    const { assert!(I::CONFIG.is_valid()) };
    let config = I::CONFIG;
    let at = Position::current(config, &params);
    // SAFETY: the caller's promise; every thread of the block takes the same path through the barriers, as all
    // conditions around them depend on the block alone.
    unsafe {
        let (mut kv_len, mut causal_offset) = (sequence_keys(&params, at.batch), params.causal_offset);
        let mut first_key = 0;
        if config.shares_keys {
            // Keys count from the block's first one.
            first_key = at.part * params.keys_per_split;
            kv_len = (kv_len - first_key as i32).min(params.keys_per_split as i32).max(0);
            causal_offset -= first_key as i32;
        }
        let end_row = (at.block_row + config.tile_q).min(params.q_len);
        let steps = kv_steps(at.block_row as i32, end_row as i32 - 1, kv_len, causal_offset, config.step());

        let pipeline = Pipeline::start::<I>(&params, &at, first_key, steps.total, kv_len as u32);
        let shared = sreg::dynamic_shared();
        let q = Queries::<I>::load(shared, &at);
        let mut out = I::OutFrags::splat([0.0; 4]);
        let mut softmax = Softmax::<I>::new(params.scale_log2);
        let mut p = I::PFrags::splat([0; 4]);

        // The first step finds a base, and those that need a mask come first.
        let first_optimistic = steps.full.min(steps.total.saturating_sub(1));
        let parts = config.tile_kv / 16;
        // LLVM would peel the first step.
        let total = opaque(steps.total);
        let mut step = steps.total;
        while step > 0 {
            step -= 1;
            // Without it, (2,8,2048,64) takes 5 % longer on an H200, (4,32,4096,64) 3 %.
            if config.interleaves() && config.row_frags() == 2 && config.kv_splits == 1 {
                begin_block();
            }
            pipeline.begin_step(step, total);
            let keys = pipeline.keys(step);
            let mut scores = I::ScoreFrags::splat([0.0; 4]);
            let mask = Mask { first_key: step * config.step(), kv_len, causal_offset };
            let mut done = false;
            if config.values_lag() && step < first_optimistic {
                done = try_step(&pipeline, step, &q, &at, &mut softmax, &mut scores, &mut p, &mut out);
            }
            // Where values lag, no barrier is in here: a warp stays out of a step that its mask hides.
            if !done && (!config.values_lag() || !mask.hides_all::<I>(&at)) {
                if config.values_lag() && step >= first_optimistic && step + 1 < total {
                    multiply_values::<I>(&p, pipeline.values(step + 1), 0..parts, &at, &mut out);
                }
                scores = I::ScoreFrags::splat([0.0; 4]);
                let first_parts = parts / config.key_groups();
                multiply_keys(&q, keys, 0..first_parts, &at, &mut scores);
                if first_parts < parts {
                    pipeline.wait_keys();
                    multiply_keys(&q, keys, first_parts..parts, &at, &mut scores);
                }
                // Where steps are tried first, few come here that need none.
                let hides = if config.values_lag() { step >= steps.full } else { mask.hides_some::<I>(&at) };
                if hides {
                    mask.apply::<I>(&params, &at, &mut scores);
                }
                softmax.move_base(&mut scores, &mut out);
                for part in 0..parts {
                    pack_probabilities::<I>(&scores, part, &mut p);
                }
            }
            if !config.values_lag() {
                pipeline.wait_values();
                multiply_values::<I>(&p, pipeline.values(step), 0..parts, &at, &mut out);
            }
            pipeline.end_step(step);
        }
        if config.values_lag() && steps.total > 0 {
            multiply_values::<I>(&p, pipeline.values(0), 0..parts, &at, &mut out);
        }

        softmax.finish();
        let at = Position::current(config, &params);
        if config.shares_keys && !shared_keys::merge::<I>(&params, &at, shared, &mut softmax, &mut out) {
            return;
        }
        if config.kv_splits == 1 {
            epilogue::store::<I>(&params, &at, shared, &softmax, &out);
        } else {
            epilogue::merge_and_store::<I>(&params, &at, shared, steps.total == 0, &softmax, &out);
        }
    }
}

/// Takes a step with the base of the steps before it, and the product with the values of the step before. Gives whether
/// the base served; else `scores` and `p` are lost, and the step has to be taken again.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn try_step<I: Instance>(
    pipeline: &Pipeline,
    step: u32,
    q: &Queries<I>,
    at: &Position,
    softmax: &mut Softmax<I>,
    scores: &mut I::ScoreFrags,
    p: &mut I::PFrags,
    out: &mut I::OutFrags,
) -> bool {
    let config = I::CONFIG;
    let parts = config.tile_kv / 16;
    let mut sums = I::Rows::splat(0.0);
    // SAFETY: the whole block is here, converged; the pipeline waited for the tiles.
    unsafe {
        multiply_keys(q, pipeline.keys(step), 0..parts, at, scores);
        let values = pipeline.values(step + 1);
        if config.interleaves() {
            for part in 0..parts {
                softmax.exponentiate(scores, part, &softmax.base, &mut sums);
                multiply_values::<I>(p, values, part..part + 1, at, out);
            }
        } else {
            for part in 0..parts {
                softmax.exponentiate(scores, part, &softmax.base, &mut sums);
            }
            // Where ptxas mixes the two, (2,8,2048,128) takes 6 % longer on an H200, (4,16,4096,128) 3 %. Of warps with 16
            // rows it then asks more registers than they have.
            if config.row_frags() == 2 {
                fence_schedule();
            }
            multiply_values::<I>(p, values, 0..parts, at, out);
        }
        for part in 0..parts {
            pack_probabilities::<I>(scores, part, p);
        }
        softmax.keep_base(&sums)
    }
}

/// The probabilities of the 16-key part `part`, rounded to the element type, as operands of the product with values.
#[inline(always)]
pub(super) fn pack_probabilities<I: Instance>(scores: &I::ScoreFrags, part: u32, p: &mut I::PFrags) {
    let config = I::CONFIG;
    let parts = config.tile_kv / 16;
    for frag in 0..config.row_frags() {
        let i = frag * parts + part;
        *p.at(i) = element::pack_probabilities(config.dtype, scores.get(2 * i), scores.get(2 * i + 1));
    }
}

/// `out += P V` for the warp's rows and the 16-key parts `parts` of its keys.
#[inline(always)]
pub(super) unsafe fn multiply_values<I: Instance>(
    p: &I::PFrags,
    values: u32,
    parts: Range<u32>,
    at: &Position,
    out: &mut I::OutFrags,
) {
    let config = I::CONFIG;
    let lane = ldmatrix_rows_first(at.lane);
    let offset = config.swizzle().offset(at.split * config.tile_kv + lane.row, lane.chunk);
    let address = OperandAddress::new(config, values + offset);
    let out_tiles = config.head_dim / 8;
    for part in parts {
        for pair in 0..out_tiles / 2 {
            // SAFETY: the caller holds the tile.
            let b = unsafe { ldmatrix_x4_trans(address.fragment(part, pair)) };
            for frag in 0..config.row_frags() {
                let o = frag * out_tiles + 2 * pair;
                let a = p.get(frag * config.tile_kv / 16 + part);
                // SAFETY: converged.
                unsafe {
                    mma_m16n8k16(config.dtype, out.at(o), a, [b[0], b[1]]);
                    mma_m16n8k16(config.dtype, out.at(o + 1), a, [b[2], b[3]]);
                }
            }
        }
    }
}
