//! From the partial results of warps and blocks to the output tensor.
//!
//! The warps of a block merge through shared memory. Where the keys are split between blocks too, each block leaves its
//! partial result in the workspace and takes a ticket; the block with the last ticket merges them, in the order of the
//! splits and not of the tickets: the same input gives the same bits. The counter of the tickets goes round to zero.

use super::block::{Instance, Position};
use super::element::pack;
use super::epilogue::{chunk_offset, store_part};
use super::lse_address;
use super::registers::Registers;
use super::softmax::Softmax;
use super::statistics::{finite_base, inverse, log_sum_exp};
use super::ticket::is_last;
use crate::config::Decode;
use crate::params::{FwdParams, Workspace, packed_row};
use crate::ptx::ld_st::{
    load_global_8, load_global_16, load_shared_16, load_shared_f32x2, store_global_8, store_global_16, store_global_f32,
};
use crate::ptx::math::{count_down, ex2, fma, max};
use crate::ptx::{barrier, sreg};

/// Partial results that are on their way at once.
const BATCH: u32 = 4;

/// Eight columns of one row.
#[derive(Clone, Copy)]
struct Partial {
    row_max: f32,
    row_sum: f32,
    /// Output before the division by `row_sum`.
    columns: [f32; 8],
}

/// Merges what the warps of the block hold, and what other blocks left, and stores it.
///
/// # Safety
/// The whole block is here, converged, with no copy under way.
#[inline(always)]
pub unsafe fn finish<I: Instance>(
    params: &FwdParams,
    at: &Position,
    shared: u32,
    softmax: &Softmax<I>,
    out: &I::OutFrags,
) {
    let config = I::CONFIG;
    // SAFETY: barriers stand between the uses of shared memory, and the ticket between those of the workspace.
    unsafe {
        // Slower warps still read their tiles.
        barrier::sync_threads();
        store_part::<I>(at, shared, softmax, out);
        barrier::sync_threads();

        if params.splits == 1 {
            for_each_item::<I>(params, at, |row, chunk| {
                store::<I>(params, at, row, chunk, merge_warps::<I>(params, shared, row, chunk));
            });
            return;
        }
        let row_tiles = params.packed_rows.div_ceil(Decode::ROWS);
        let workspace = Workspace { splits: params.splits, rows: Decode::ROWS, head_dim: config.head_dim };
        let heads = sreg::grid_dim_y();
        let tile = (at.batch * heads + at.head) * row_tiles + at.block_row / Decode::ROWS;
        let own = params.workspace + workspace.partial(tile, at.part);
        for_each_item::<I>(params, at, |row, chunk| {
            let partial = merge_warps::<I>(params, shared, row, chunk);
            let columns = partial.columns.map(f32::to_bits);
            let address = own + u64::from(workspace.columns(row, chunk));
            store_global_16(address, [columns[0], columns[1], columns[2], columns[3]]);
            store_global_16(address + 16, [columns[4], columns[5], columns[6], columns[7]]);
            if chunk == 0 {
                let statistic = [partial.row_max.to_bits(), partial.row_sum.to_bits()];
                store_global_8(own + u64::from(workspace.statistic(row)), statistic);
            }
        });

        if !is_last(at.thread, params.workspace + workspace.counter(tile), params.splits, shared) {
            return;
        }
        for_each_item::<I>(params, at, |row, chunk| {
            let part = |split| params.workspace + workspace.partial(tile, split);
            let statistic = |split| {
                // SAFETY: the blocks with earlier tickets wrote it.
                let bits = load_global_8(part(split) + u64::from(workspace.statistic(row)));
                [f32::from_bits(bits[0]), f32::from_bits(bits[1])]
            };
            let columns = |split, half: u32| {
                // SAFETY: as above.
                load_global_16(part(split) + u64::from(workspace.columns(row, chunk) + 16 * half))
            };
            store::<I>(params, at, row, chunk, merge(params.splits, params.scale_log2, statistic, columns));
        });
    }
}

/// Calls `body(row, chunk)` for the thread's share of the rows that exist, each in chunks of eight columns.
#[inline(always)]
fn for_each_item<I: Instance>(params: &FwdParams, at: &Position, body: impl Fn(u32, u32)) {
    let (chunks, threads) = (I::CONFIG.head_dim / 8, I::CONFIG.threads());
    let rows = (params.packed_rows - at.block_row).min(Decode::ROWS);
    for pass in 0..(Decode::ROWS * chunks).div_ceil(threads) {
        let item = pass * threads + at.thread;
        if item / chunks < rows {
            body(item / chunks, item % chunks);
        }
    }
}

/// The partial result of the block.
#[inline(always)]
unsafe fn merge_warps<I: Instance>(params: &FwdParams, shared: u32, row: u32, chunk: u32) -> Partial {
    let config = I::CONFIG;
    let row_bytes = config.merge_pitch() * 4;
    let part_bytes = config.tile_q * row_bytes;
    let statistics = shared + config.warps * part_bytes + row * config.warps * 8;
    // SAFETY: `store_part` wrote them before the barrier.
    let statistic = |warp| unsafe { load_shared_f32x2(statistics + warp * 8) };
    // SAFETY: as above.
    let columns = |warp, half| unsafe {
        load_shared_16(shared + warp * part_bytes + row * row_bytes + chunk_offset(2 * chunk + half))
    };
    merge(config.warps, params.scale_log2, statistic, columns)
}

/// Merges `count` partial results in their order: (row maximum, row sum) of each, and its columns in two halves.
#[inline(always)]
fn merge(
    count: u32,
    scale_log2: f32,
    statistic: impl Fn(u32) -> [f32; 2],
    columns: impl Fn(u32, u32) -> [u32; 4],
) -> Partial {
    // Behind the last one the last one is read again, and not used.
    let part = |first: u32, i: u32| (first + i).min(count - 1);
    let mut row_max = f32::NEG_INFINITY;
    let (mut first, mut left) = (0, count.div_ceil(BATCH));
    while left > 0 {
        let mut statistics = [[0.0; 2]; BATCH as usize];
        for i in 0..BATCH {
            *statistics.at(i) = statistic(part(first, i));
        }
        for i in 0..BATCH {
            row_max = max(row_max, statistics.get(i)[0]);
        }
        first += BATCH;
        left = count_down(left);
    }
    let base = finite_base(row_max);
    let mut merged = Partial { row_max, row_sum: 0.0, columns: [0.0; 8] };
    let (mut first, mut left) = (0, count.div_ceil(BATCH));
    while left > 0 {
        let mut statistics = [[0.0; 2]; BATCH as usize];
        let mut parts = [[[0; 4]; 2]; BATCH as usize];
        for i in 0..BATCH {
            let part = part(first, i);
            *statistics.at(i) = statistic(part);
            *parts.at(i) = [columns(part, 0), columns(part, 1)];
        }
        for i in 0..BATCH {
            if first + i < count {
                let [part_max, part_sum] = statistics.get(i);
                let weight = ex2((part_max - base) * scale_log2);
                merged.row_sum = fma(weight, part_sum, merged.row_sum);
                for column in 0..8 {
                    let value = f32::from_bits(parts.get(i)[column / 4][column % 4]);
                    merged.columns[column] = fma(weight, value, merged.columns[column]);
                }
            }
        }
        first += BATCH;
        left = count_down(left);
    }
    merged
}

/// Normalises and stores eight columns of a row of the block, and with the first of them its log-sum-exp.
#[inline(always)]
unsafe fn store<I: Instance>(params: &FwdParams, at: &Position, row: u32, chunk: u32, result: Partial) {
    let (head, q_row) = packed_row(at.block_row + row, params.q_len, params.q_len_reciprocal);
    let head = at.head * params.group + head;
    let lse = lse_address(params, at.batch, head, q_row);
    let factor = inverse(result.row_sum);
    let stride = &params.out_stride;
    let address = params.out + stride.slice_offset(at.batch, head) + stride.row_offset(q_row);
    // SAFETY: the row exists, and columns below the head dim.
    unsafe {
        if chunk == 0 && lse != 0 {
            store_global_f32(lse, log_sum_exp(result.row_max, result.row_sum, params.scale_log2));
        }
        if chunk * 8 < params.head_dim {
            let columns = result.columns.map(|column| column * factor);
            let value = core::array::from_fn(|i| pack(I::CONFIG.dtype, columns[2 * i], columns[2 * i + 1]));
            store_global_16(address + u64::from(chunk * 16), value);
        }
    }
}
