//! From accumulators to the output tensor, through shared memory, so that every global store is 16 bytes wide.

use super::block::{Instance, Position};
use super::element::pack;
use super::registers::Registers;
use super::softmax::Softmax;
use super::statistics::{finite_base, inverse, log_sum_exp};
use crate::config::WARP;
use crate::fragment::acc_column;
use crate::params::FwdParams;
use crate::ptx::barrier;
use crate::ptx::ld_st::{load_shared_16, store_global_16, store_shared_4, store_shared_f32x2};
use crate::ptx::math::{ex2, fma, max};

/// Most parts into which the keys of a step are split.
const MAX_SPLITS: usize = 8;

/// Normalises and stores the rows of a warp that saw all keys.
///
/// # Safety
/// All lanes are converged; the query tile at `shared` is no longer read by other warps in the warp's own rows.
#[inline(always)]
pub unsafe fn store<I: Instance>(
    params: &FwdParams,
    at: &Position,
    shared: u32,
    softmax: &Softmax<I>,
    out: &I::OutFrags,
) {
    let config = I::CONFIG;
    let swizzle = config.swizzle();
    let tiles = config.head_dim / 8;
    // SAFETY: a warp writes and reads only its own rows of the tile; rows past the end are not stored.
    unsafe {
        barrier::sync_warp();
        for frag in 0..config.row_frags() {
            for half in 0..2 {
                let row = at.warp_row + 16 * frag + 8 * half + at.lane / 4;
                let (base, row_sum) = (softmax.base.get(2 * frag + half), softmax.row_sum.get(2 * frag + half));
                let factor = inverse(row_sum);
                for tile in 0..tiles {
                    let o = out.get(frag * tiles + tile);
                    let (low, high) = (o[2 * half as usize] * factor, o[2 * half as usize + 1] * factor);
                    let address = shared + swizzle.offset(row, tile) + 2 * acc_column(at.lane, 0);
                    store_shared_4(address, pack(config.dtype, low, high));
                }
                if at.lane.is_multiple_of(4) {
                    at.store_lse(params, row, log_sum_exp(base, row_sum, params.scale_log2));
                }
            }
        }
        barrier::sync_warp();
        let chunks = config.row_bytes() / 16;
        let per_row = config.copy_threads_per_row();
        for pass in 0..config.rows_per_warp() * per_row / WARP {
            let row = at.warp_row + pass * (WARP / per_row) + at.lane / per_row;
            let address = at.out_row(params, row);
            for span in 0..chunks / per_row {
                let chunk = span * per_row + at.lane % per_row;
                let value = load_shared_16(shared + swizzle.offset(row, chunk));
                if at.block_row + row < params.q_len && chunk * 8 < params.head_dim {
                    store_global_16(address + u64::from(chunk * 16), value);
                }
            }
        }
    }
}

/// Bytes from the start of a row to its 16-byte chunk `chunk`. A thread reads eight columns as two chunks; XOR of the
/// chunk number with bit 3 keeps the eight threads of a phase on different banks.
#[inline(always)]
pub fn chunk_offset(chunk: u32) -> u32 {
    16 * (chunk ^ (chunk >> 3 & 1))
}

/// Stores what the warp holds in shared memory: \[split\]\[row\]\[column\] in f32 with `merge_pitch()` columns, behind them
/// the statistics as \[row\]\[split\].
///
/// # Safety
/// Shared memory is free; the parts are read behind a barrier.
#[inline(always)]
pub unsafe fn store_part<I: Instance>(at: &Position, shared: u32, softmax: &Softmax<I>, out: &I::OutFrags) {
    let config = I::CONFIG;
    let (tiles, splits) = (config.head_dim / 8, config.kv_splits);
    let row_bytes = config.merge_pitch() * 4;
    let part_bytes = config.tile_q * row_bytes;
    let statistics = shared + splits * part_bytes;
    // SAFETY: a lane has cells of its own.
    unsafe {
        for frag in 0..config.row_frags() {
            for half in 0..2 {
                let row = at.warp_row + 16 * frag + 8 * half + at.lane / 4;
                let part = shared + at.split * part_bytes + row * row_bytes;
                for tile in 0..tiles {
                    let o = out.get(frag * tiles + tile);
                    let column = 8 * tile + acc_column(at.lane, 0);
                    let address = part + chunk_offset(column / 4) + column % 4 * 4;
                    store_shared_f32x2(address, [o[2 * half as usize], o[2 * half as usize + 1]]);
                }
                if at.lane.is_multiple_of(4) {
                    let statistic = [softmax.base.get(2 * frag + half), softmax.row_sum.get(2 * frag + half)];
                    store_shared_f32x2(statistics + (row * splits + at.split) * 8, statistic);
                }
            }
        }
    }
}

/// Merges the parts of the keys through shared memory, normalises and stores.
///
/// # Safety
/// The whole block is here, converged. `never_started` when no step was processed.
#[inline(always)]
pub unsafe fn merge_and_store<I: Instance>(
    params: &FwdParams,
    at: &Position,
    shared: u32,
    never_started: bool,
    softmax: &Softmax<I>,
    out: &I::OutFrags,
) {
    let config = I::CONFIG;
    let (tiles, splits) = (config.head_dim / 8, config.kv_splits);
    let row_bytes = config.merge_pitch() * 4;
    let part_bytes = config.tile_q * row_bytes;
    let statistics = shared + splits * part_bytes;
    // SAFETY: tiles are free behind the first barrier or the last one of the steps; partial results are read behind the
    // second one.
    unsafe {
        // Values may still be read by slower warps, keys and queries not: the last barrier of the steps saw to that.
        let reaches_values = config.merge_bytes() > config.q_bytes() + config.stages * config.step_bytes();
        if reaches_values || never_started {
            barrier::sync_threads();
        }
        store_part::<I>(at, shared, softmax, out);
        barrier::sync_threads();

        let mut item = at.thread;
        while item < config.tile_q * tiles {
            let (row, chunk) = (item / tiles, item % tiles);
            let merged = merge_statistics(statistics + row * splits * 8, splits, params.scale_log2);
            let mut columns = [0.0f32; 8];
            for split in 0..splits {
                let part = shared + split * part_bytes + row * row_bytes;
                for quad in 0..2 {
                    let values = load_shared_16(part + chunk_offset(2 * chunk + quad));
                    for i in 0..4 {
                        let column = &mut columns[(4 * quad + i) as usize];
                        *column = fma(merged.weights[split as usize], f32::from_bits(values[i as usize]), *column);
                    }
                }
            }
            if chunk == 0 {
                at.store_lse(params, row, merged.lse);
            }
            if at.block_row + row < params.q_len && chunk * 8 < params.head_dim {
                let value = core::array::from_fn(|i| pack(config.dtype, columns[2 * i], columns[2 * i + 1]));
                store_global_16(at.out_row(params, row) + u64::from(chunk * 16), value);
            }
            item += config.threads();
        }
    }
}

/// Factors of the parts of one row, and the row's log-sum-exp.
struct Merged {
    weights: [f32; MAX_SPLITS],
    lse: f32,
}

/// Reads (base, row_sum) of every split of a row.
#[inline(always)]
unsafe fn merge_statistics(address: u32, splits: u32, scale_log2: f32) -> Merged {
    let mut parts = [[0.0f32; 2]; MAX_SPLITS];
    let mut row_max = f32::NEG_INFINITY;
    for pair in 0..splits / 2 {
        // SAFETY: written before the barrier by the warps of the row.
        let bits = unsafe { load_shared_16(address + pair * 16) };
        for i in 0..2 {
            let part = [f32::from_bits(bits[2 * i]), f32::from_bits(bits[2 * i + 1])];
            row_max = max(row_max, part[0]);
            parts[2 * pair as usize + i] = part;
        }
    }
    let base = finite_base(row_max);
    let mut weights = [0.0f32; MAX_SPLITS];
    let mut row_sum = 0.0;
    for split in 0..splits as usize {
        weights[split] = ex2((parts[split][0] - base) * scale_log2);
        row_sum = fma(weights[split], parts[split][1], row_sum);
    }
    let factor = inverse(row_sum);
    for weight in &mut weights[..splits as usize] {
        *weight *= factor;
    }
    Merged { weights, lse: log_sum_exp(row_max, row_sum, scale_log2) }
}
