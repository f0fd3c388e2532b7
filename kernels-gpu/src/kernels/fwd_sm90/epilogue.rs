//! From accumulators to the output tensor: through shared memory, and from there in boxes.

use super::Instance;
use super::shared::Shared;
use super::softmax::Softmax;
use super::tile::{Lane, Tile};
use crate::config::FwdSm90;
use crate::kernels::element::pack;
use crate::kernels::lse_address;
use crate::kernels::registers::Registers;
use crate::kernels::statistics::{inverse, log_sum_exp};
use crate::params::FwdParams;
use crate::ptx::ld_st::{store_global_16_if, store_global_f32};
use crate::ptx::ldmatrix::stmatrix_x4;
use crate::ptx::{barrier, shuffle, tma};

/// Ends the softmax of the warpgroup's rows: stores their log-sum-exp where it is wanted, and gives the factors that
/// normalise the output.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn finish(params: &FwdParams, tile: &Tile, at: &Lane, softmax: &Softmax) -> [f32; 2] {
    // SAFETY: the caller's promise; the rows exist.
    unsafe {
        let sums = softmax.row_sums();
        for half in 0..2 {
            let row = tile.first_row + at.first_row() + 8 * half as u32 + at.lane / 4;
            let address = lse_address(params, tile.batch, tile.head, row);
            if at.lane.is_multiple_of(4) && address != 0 && row < params.q_len {
                store_global_f32(address, log_sum_exp(softmax.base[half], sums[half], softmax.scale_log2));
            }
        }
        [inverse(sums[0]), inverse(sums[1])]
    }
}

/// Normalises and stores the rows of a warpgroup.
///
/// # Safety
/// The warpgroup is here, converged; nobody else uses its rows of the output tile.
#[inline(always)]
pub unsafe fn store<I: Instance>(
    params: &FwdParams,
    out_map: u64,
    shared: &Shared,
    tile: &Tile,
    at: &Lane,
    factors: [f32; 2],
    out: &I::OutFrags,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if I::CONFIG.stages_output() {
            store_boxes::<I>(out_map, shared.out::<I>(), tile, at, factors, out);
        } else {
            store_rows::<I>(params, tile, at, factors, out);
        }
    }
}

/// Two neighbouring columns of a fragment, those of row `half`, normalised.
#[inline(always)]
fn word<I: Instance>(fragment: [f32; 4], half: usize, factors: [f32; 2]) -> u32 {
    pack(I::CONFIG.dtype, fragment[2 * half] * factors[half], fragment[2 * half + 1] * factors[half])
}

/// Through the output tile at `staged`.
///
/// # Safety
/// That of [`store`].
#[inline(always)]
unsafe fn store_boxes<I: Instance>(
    out_map: u64,
    staged: u32,
    tile: &Tile,
    at: &Lane,
    factors: [f32; 2],
    out: &I::OutFrags,
) {
    let config = I::CONFIG;
    let group_rows = staged + at.group * config.group_out_bytes();
    let span_bytes = FwdSm90::GROUP_ROWS * FwdSm90::SPAN_BYTES;
    let speaks = at.thread.is_multiple_of(FwdSm90::GROUP_THREADS);
    // SAFETY: the caller's promise; the barriers order the warpgroup's accesses to its rows.
    unsafe {
        // The boxes of the tile before have left.
        tma::wait_reads(speaks);
        barrier::sync_some(at.own_barrier(), FwdSm90::GROUP_THREADS);
        // A lane gives the address of a row of one of four 8x8 matrices: rows first, then 16-byte chunks.
        let row = at.warp_of_group() * 16 + at.lane % 16;
        let row_address = group_rows + row * FwdSm90::SPAN_BYTES;
        for pair in 0..config.head_dim / 16 {
            let chunk = pair % 4 * 2 + at.lane / 16;
            let address = row_address + pair / 4 * span_bytes + 16 * (chunk ^ row % 8);
            let (left, right) = (out.get(2 * pair), out.get(2 * pair + 1));
            let matrix = |fragment, half| word::<I>(fragment, half, factors);
            stmatrix_x4(address, [matrix(left, 0), matrix(left, 1), matrix(right, 0), matrix(right, 1)]);
        }
        tma::fence_shared();
        barrier::sync_some(at.own_barrier(), FwdSm90::GROUP_THREADS);
        for span in 0..config.out_spans() {
            let row = tile.first_row + at.group * FwdSm90::GROUP_ROWS;
            tma::store(
                out_map,
                [FwdSm90::OUT_SPAN_COLUMNS * span, row, tile.head, tile.batch],
                group_rows + span * span_bytes,
                speaks,
            );
        }
        tma::commit_group(speaks);
    }
}

/// From registers. The four lanes of a row exchange what they have of four fragments, so that each stores the 16 bytes
/// of one.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
unsafe fn store_rows<I: Instance>(params: &FwdParams, tile: &Tile, at: &Lane, factors: [f32; 2], out: &I::OutFrags) {
    let quad_lane = at.lane % 4;
    let slice = params.out + params.out_stride.slice_offset(tile.batch, tile.head);
    for half in 0..2 {
        let row = tile.first_row + at.first_row() + 8 * half as u32 + at.lane / 4;
        let address = slice + params.out_stride.row_offset(row);
        for four in 0..I::CONFIG.head_dim / 32 {
            let part = |i| word::<I>(out.get(4 * four + i), half, factors);
            let words = [part(0), part(1), part(2), part(3)];
            // SAFETY: converged; the row and the columns exist.
            unsafe {
                let words = shuffle::transpose_quad(words, quad_lane);
                let column = 32 * four + 8 * quad_lane;
                let exists = row < params.q_len && column < params.head_dim;
                store_global_16_if(address + u64::from(column * 2), words, exists);
            }
        }
    }
}
