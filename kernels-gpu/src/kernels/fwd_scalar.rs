//! `fwd_scalar`: the first rung of the ladder. One warp owns one query row; no tensor cores, no block barrier.
//!
//! For 32 keys at a time each lane computes the score of one key (the query row is broadcast from shared memory), the
//! warp agrees on the maximum, and then each lane owns four columns in each 128 of the output and walks the 32 values,
//! taking each probability from the lane that has it.

use super::element::{pack, unpack};
use super::statistics::{inverse, log_sum_exp};
use super::{lse_address, sequence_keys};
use crate::config::{DType, FwdScalar, MAX_HEAD_DIM, WARP};
use crate::mask::visible_keys;
use crate::params::{FwdParams, Strides, kv_head};
use crate::ptx::ld_st::{
    load_global_8, load_global_16, load_shared_16, store_global_8, store_global_16, store_global_f32,
    store_shared_f32x2,
};
use crate::ptx::math::{ex2, fma, max};
use crate::ptx::shuffle::{broadcast, butterfly};
use crate::ptx::{barrier, sreg};

/// Columns that the lanes of a warp own side by side, four each.
const SPAN: u32 = 4 * WARP;
/// Spans of the widest row.
const SPANS: usize = MAX_HEAD_DIM.div_ceil(SPAN) as usize;

/// The kernel.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run(config: FwdScalar, params: FwdParams) {
    let dtype = config.dtype;
    let (warp, lane) = (sreg::thread_idx_x() / WARP, sreg::thread_idx_x() % WARP);
    let (batch, head) = (sreg::block_idx_z(), sreg::block_idx_y());
    let row = (sreg::grid_dim_x() - 1 - sreg::block_idx_x()) * FwdScalar::ROWS + warp;
    if row >= params.q_len {
        return;
    }
    let key_head = kv_head(head, params.kv_head_reciprocal);
    let slice = |address: u64, stride: &Strides, head: u32| address + stride.slice_offset(batch, head);
    let (k, v) = (slice(params.k, &params.k_stride, key_head), slice(params.v, &params.v_stride, key_head));
    let q = slice(params.q, &params.q_stride, head) + params.q_stride.row_offset(row);
    let head_dim = params.head_dim;
    let column = |span: usize| 4 * lane + span as u32 * SPAN;
    let q_shared = sreg::dynamic_shared() + warp * MAX_HEAD_DIM * 4;

    // SAFETY: rows and columns that are read exist; all conditions around shuffles and barriers depend on the row
    // alone, which the warp shares.
    unsafe {
        let visible = visible_keys(row as i32, sequence_keys(&params, batch), params.causal_offset) as u32;
        for span in 0..SPANS {
            if column(span) < head_dim {
                let x = load_4(dtype, q + u64::from(column(span) * dtype.size()));
                store_shared_f32x2(q_shared + column(span) * 4, [x[0], x[1]]);
                store_shared_f32x2(q_shared + column(span) * 4 + 8, [x[2], x[3]]);
            }
        }
        barrier::sync_warp();

        let (mut row_max, mut lane_sum, mut out) = (f32::NEG_INFINITY, 0.0, [[0.0; 4]; SPANS]);
        let mut first_key = 0;
        while first_key < visible {
            let key = first_key + lane;
            let hidden = key >= visible;
            let k_row = k + params.k_stride.row_offset(if hidden { first_key } else { key });
            let score = if hidden { f32::NEG_INFINITY } else { dot(dtype, q_shared, k_row, head_dim) };

            let new_max = max(row_max, warp_max(score));
            let rescale = ex2((row_max - new_max) * params.scale_log2);
            let p = ex2((score - new_max) * params.scale_log2);
            row_max = new_max;
            lane_sum = fma(lane_sum, rescale, p);
            for span in &mut out {
                *span = span.map(|o| o * rescale);
            }

            let keys = (visible - first_key).min(WARP);
            let mut i = 0;
            while i < keys {
                let weight = broadcast(p, i);
                let v_row = v + params.v_stride.row_offset(first_key + i);
                for span in 0..SPANS {
                    if column(span) < head_dim {
                        let x = load_4(dtype, v_row + u64::from(column(span) * dtype.size()));
                        out[span] = core::array::from_fn(|c| fma(weight, x[c], out[span][c]));
                    }
                }
                i += 1;
            }
            first_key += WARP;
        }

        let row_sum = warp_sum(lane_sum);
        let factor = inverse(row_sum);
        let out_row = slice(params.out, &params.out_stride, head) + params.out_stride.row_offset(row);
        for span in 0..SPANS {
            if column(span) < head_dim {
                let address = out_row + u64::from(column(span) * dtype.size());
                store_4(dtype, address, out[span].map(|o| o * factor));
            }
        }
        let lse = lse_address(&params, batch, head, row);
        if lane == 0 && lse != 0 {
            store_global_f32(lse, log_sum_exp(row_max, row_sum, params.scale_log2));
        }
    }
}

/// Product of the query row in shared memory and the key row at `k_row`.
#[inline(always)]
unsafe fn dot(dtype: DType, q_shared: u32, k_row: u64, head_dim: u32) -> f32 {
    let mut sum = [0.0; 4];
    let mut column = 0;
    while column < head_dim {
        // SAFETY: both rows have `head_dim` columns, a multiple of 8.
        let (q, k) =
            unsafe { (load_shared_16(q_shared + column * 4), load_4(dtype, k_row + u64::from(column * dtype.size()))) };
        sum = core::array::from_fn(|i| fma(f32::from_bits(q[i]), k[i], sum[i]));
        column += 4;
    }
    (sum[0] + sum[1]) + (sum[2] + sum[3])
}

/// Four neighbouring elements, widened.
#[inline(always)]
unsafe fn load_4(dtype: DType, address: u64) -> [f32; 4] {
    // SAFETY: the caller's row holds them, aligned to their size.
    unsafe {
        if matches!(dtype, DType::F32) {
            load_global_16(address).map(f32::from_bits)
        } else {
            let [low, high] = load_global_8(address);
            let ([a, b], [c, d]) = (unpack(dtype, low), unpack(dtype, high));
            [a, b, c, d]
        }
    }
}

/// Four neighbouring elements, rounded.
#[inline(always)]
unsafe fn store_4(dtype: DType, address: u64, x: [f32; 4]) {
    // SAFETY: the caller's row holds them, aligned to their size.
    unsafe {
        if matches!(dtype, DType::F32) {
            store_global_16(address, x.map(f32::to_bits));
        } else {
            store_global_8(address, [pack(dtype, x[0], x[1]), pack(dtype, x[2], x[3])]);
        }
    }
}

#[inline(always)]
unsafe fn warp_max(mut value: f32) -> f32 {
    for shift in 0..5 {
        // SAFETY: the caller's warp is converged.
        value = max(value, unsafe { butterfly(value, 1 << shift) });
    }
    value
}

#[inline(always)]
unsafe fn warp_sum(mut value: f32) -> f32 {
    for shift in 0..5 {
        // SAFETY: the caller's warp is converged.
        value += unsafe { butterfly(value, 1 << shift) };
    }
    value
}
