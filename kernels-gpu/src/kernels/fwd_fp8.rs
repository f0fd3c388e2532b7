//! `fwd_fp8`: the forward pass of [`super::fwd_sm80`] with e4m3 operands and scales of blocks of rows, as in
//! SageAttention2 (arXiv 2411.10958): both products by `mma.sync` m16n8k32, everything between them in f32.
//!
//! The tiles are those of a `fwd_sm80` with elements of 16 bits of which each is a pair of e4m3 ([`FwdFp8::block`]), in
//! stages, order and barriers alike: the product with values comes one step after its probabilities. What differs:
//!
//! - Scores are scaled by softmax, queries' and keys' scale before the row maximum, since keys of another step may have
//!   another scale.
//! - The base of a row is what makes its largest probability so far 2^8, the largest power of two that e4m3 holds
//!   ([`softmax`]).
//! - Matrix units add up fewer bits than f32 has (22 on Ada, 14 on Hopper): the product of a step with its values begins
//!   at zero, and joins the output by one FFMA a register, which applies the scale of the values as well.
//! - Values stay row-major: `ldmatrix.trans` of 16-bit pairs leaves two columns in a register, and a byte permutation takes
//!   them apart ([`crate::fragment::value_column`]).

mod softmax;

use super::block::{Instance, Mask, Position, Queries, multiply_keys};
use super::element::pack;
use super::pipeline::Pipeline;
use super::registers::Registers;
use super::scales::Factors;
use super::sequence_keys;
use super::statistics::{inverse, log_sum_exp};
use super::tile::OperandAddress;
use crate::config::FwdFp8;
use crate::fragment::value_column;
use crate::mask::kv_steps;
use crate::params::{FwdFp8Params, FwdParams, kv_head};
use crate::ptx::bits::{even_bytes, odd_bytes};
use crate::ptx::ld_st::store_global_8;
use crate::ptx::ldmatrix::ldmatrix_x4_trans;
use crate::ptx::math::fma;
use crate::ptx::{fence_schedule, opaque, sreg};
use core::ops::Range;
use softmax::Softmax;

/// A kernel of the table, as a block of `fwd_sm80`.
pub trait Fp8: Instance {
    /// The configuration that the entry name spells.
    const FP8: FwdFp8;
}

/// Most m16 tiles of a warp.
const MAX_ROW_FRAGS: usize = 2;

/// The kernel.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run<I: Fp8>(params: FwdFp8Params) {
    const { assert!(I::FP8.is_valid()) };
    let (config, fwd) = (I::CONFIG, &params.fwd);
    let at = Position::current(config, fwd);
    // SAFETY: the caller's promise; every thread of the block takes the same path through the barriers, as all
    // conditions around them depend on the block alone.
    unsafe {
        let kv_len = sequence_keys(fwd, at.batch);
        let end_row = (at.block_row + config.tile_q).min(fwd.q_len);
        let steps = kv_steps(at.block_row as i32, end_row as i32 - 1, kv_len, fwd.causal_offset, config.step());

        let pipeline = Pipeline::start::<I>(fwd, &at, 0, steps.total, kv_len as u32);
        // The rows of a warp lie in one block of scales; where there are none, any scale will do.
        let row = (at.block_row + at.warp_row).min(fwd.q_len - 1);
        let head_kv = kv_head(at.head, fwd.kv_head_reciprocal);
        let scales = [&params.q_scales, &params.k_scales, &params.v_scales];
        let factors = Factors::new(fwd, scales, at.batch, [at.head, head_kv], row);
        let q = Queries::<I>::load(sreg::dynamic_shared(), &at);
        let mut out = I::OutFrags::splat([0.0; 4]);
        let mut softmax = Softmax::<I>::new();
        let mut p = I::PFrags::splat([0; 4]);

        // The first step has no values behind it, and those that need a mask come first.
        let first_plain = steps.full.min(steps.total.saturating_sub(1));
        let chunks = 0..I::FP8.head_dim / 16;
        // LLVM would peel the first step.
        let total = opaque(steps.total);
        let mut step = steps.total;
        while step > 0 {
            step -= 1;
            // What a thread copies costs less to find again than registers for it.
            Pipeline::new::<I>(fwd, &at, sreg::thread_idx_x(), 0).begin_step(step, total);
            let mask = Mask { first_key: step * config.step(), kv_len, causal_offset: fwd.causal_offset };
            let keys = pipeline.keys(step);
            if step < first_plain {
                let values =
                    Values { tile: pipeline.values(step + 1), scale: factors.values((step + 1) * config.step()) };
                let mut scores = I::ScoreFrags::splat([0.0; 4]);
                let factor = factors.scores(factors.keys(mask.first_key));
                multiply_keys(&q, keys, 0..config.tile_kv / 16, &at, &mut scores);
                softmax::scale::<I>(&mut scores, factor);
                let bases = softmax.bases(&scores);
                multiply_values::<I>(&p, &values, chunks.start..chunks.end, &at, &mut out);
                let mut sums = I::Rows::splat(0.0);
                for part in 0..config.tile_kv / 32 {
                    softmax::exponentiate::<I>(&scores, part, &bases, &mut sums, &mut p);
                }
                softmax.move_to(&bases, &sums, &mut out);
            } else if !mask.hides_all::<I>(&at) {
                // No barrier is in here: a warp stays out of a step that its mask hides.
                if step + 1 < total {
                    let values =
                        Values { tile: pipeline.values(step + 1), scale: factors.values((step + 1) * config.step()) };
                    multiply_values::<I>(&p, &values, chunks.start..chunks.end, &at, &mut out);
                }
                let mut scores = I::ScoreFrags::splat([0.0; 4]);
                multiply_keys(&q, keys, 0..config.tile_kv / 16, &at, &mut scores);
                softmax::scale::<I>(&mut scores, factors.scores(factors.keys(mask.first_key)));
                mask.apply::<I>(fwd, &at, &mut scores);
                let bases = softmax.bases(&scores);
                let mut sums = I::Rows::splat(0.0);
                for part in 0..config.tile_kv / 32 {
                    softmax::exponentiate::<I>(&scores, part, &bases, &mut sums, &mut p);
                }
                softmax.move_to(&bases, &sums, &mut out);
            }
            pipeline.end_step(step);
        }
        if steps.total > 0 {
            let values = Values { tile: pipeline.values(0), scale: factors.values(0) };
            multiply_values::<I>(&p, &values, chunks, &at, &mut out);
        }
        softmax.finish();
        store::<I>(fwd, &Position::current(config, fwd), &softmax, &out);
    }
}

/// The values of a step.
struct Values {
    /// Address of the tile.
    tile: u32,
    scale: f32,
}

/// `out += P V` for the warp's rows and the 16-column chunks `chunks`.
#[inline(always)]
unsafe fn multiply_values<I: Fp8>(
    p: &I::PFrags,
    values: &Values,
    chunks: Range<u32>,
    at: &Position,
    out: &mut I::OutFrags,
) {
    let config = I::CONFIG;
    let (parts, out_tiles) = (config.tile_kv / 32, I::FP8.head_dim / 8);
    let address = OperandAddress::new(config, values.tile + config.swizzle().offset(at.lane, 0));
    for chunk in chunks {
        // ptxas would begin all chunks before it ends one, and spill.
        fence_schedule();
        // Of each row fragment, sums of even columns and of odd ones.
        let mut sums = [[[0.0; 4]; 2]; MAX_ROW_FRAGS];
        for part in 0..parts {
            // SAFETY: the caller holds the tile; converged.
            unsafe {
                let v = ldmatrix_x4_trans(address.chunk(2 * part, chunk));
                let even = [even_bytes(v[0], v[1]), even_bytes(v[2], v[3])];
                let odd = [odd_bytes(v[0], v[1]), odd_bytes(v[2], v[3])];
                for frag in 0..config.row_frags() {
                    let a = p.get(frag * parts + part);
                    let [of_even, of_odd] = sums.at(frag);
                    I::multiply(of_even, a, even);
                    I::multiply(of_odd, a, odd);
                }
            }
        }
        for frag in 0..config.row_frags() {
            for parity in 0..2 {
                let sum = sums.get(frag)[parity as usize];
                let o = out.at(frag * out_tiles + 2 * chunk + parity);
                for i in 0..4 {
                    o[i] = fma(values.scale, sum[i], o[i]);
                }
            }
        }
    }
}

/// Normalises and stores the rows of a warp. The four lanes of a row have 32 bytes next to each other.
#[inline(always)]
unsafe fn store<I: Fp8>(params: &FwdParams, at: &Position, softmax: &Softmax<I>, out: &I::OutFrags) {
    let (dtype, chunks) = (I::FP8.dtype, I::FP8.head_dim / 16);
    for frag in 0..I::CONFIG.row_frags() {
        for half in 0..2 {
            let row = at.warp_row + 16 * frag + 8 * half + at.lane / 4;
            let (base, row_sum) = (softmax.base.get(2 * frag + half), softmax.row_sum.get(2 * frag + half));
            let factor = inverse(row_sum);
            let address = at.out_row(params, row) + u64::from(value_column(at.lane, 0, 0) * dtype.size());
            for chunk in 0..chunks {
                let of = |parity| out.get(2 * (frag * chunks + chunk) + parity);
                let (even, odd, i) = (of(0), of(1), 2 * half as usize);
                let pair = |i: usize| pack(dtype, even[i] * factor, odd[i] * factor);
                if at.block_row + row < params.q_len && 16 * chunk < params.head_dim {
                    // SAFETY: the row and the columns exist.
                    unsafe { store_global_8(address + u64::from(16 * chunk * dtype.size()), [pair(i), pair(i + 1)]) }
                }
            }
            if at.lane.is_multiple_of(4) {
                // SAFETY: the parameters are those of a plan.
                unsafe { at.store_lse(params, row, log_sum_exp(base, row_sum, 1.0)) }
            }
        }
    }
}
