//! The scores of a step once more, by one warp for itself.
//!
//! A warp whose base did not serve has lost its scores, and the other warps of its group go on: it cannot ask for a product
//! of the warpgroup, and its keys may be gone from shared memory. It reads what it needs from global memory, and multiplies
//! with `mma.sync`, whose accumulators have the same layout. This is slow, and rare.

use super::Instance;
use super::tile::{Lane, Tile};
use crate::kernels::element::mma_m16n8k16;
use crate::kernels::registers::Registers;
use crate::params::{FwdParams, Strides};
use crate::ptx::ld_st::load_global_4;
use crate::ptx::{fence_schedule, opaque};

/// Unscaled scores of the warp's rows against all keys of a step that starts at `first_key`, every one of which exists.
///
/// # Safety
/// All lanes of the warp are converged; the tile and the keys are those of the problem.
#[inline(always)]
pub unsafe fn scores<I: Instance>(params: &FwdParams, tile: &Tile, at: &Lane, first_key: u32) -> I::ScoreFrags {
    let config = I::CONFIG;
    let mut scores = I::ScoreFrags::splat([0.0; 4]);
    let q = params.q + params.q_stride.slice_offset(tile.batch, tile.head);
    let k = params.k + params.k_stride.slice_offset(tile.batch, tile.head_kv);
    // Rows past the end are copies of the last one, and not stored.
    let row = |half: u32| {
        let row = tile.first_row + at.first_row() + 8 * half + at.lane / 4;
        if row < params.q_len { row } else { params.q_len - 1 }
    };
    // LLVM would unroll the loop.
    let steps = opaque(config.head_dim / 16);
    let mut step = 0;
    while step < steps {
        let column = 16 * step + at.lane % 4 * 2;
        // SAFETY: rows exist; columns beyond the head dim are not read.
        unsafe {
            let pair = |base: u64, stride: &Strides, row: u32, column: u32| {
                if column < params.head_dim {
                    load_global_4(base + stride.row_offset(row) + u64::from(column * 2))
                } else {
                    0
                }
            };
            let a = [
                pair(q, &params.q_stride, row(0), column),
                pair(q, &params.q_stride, row(1), column),
                pair(q, &params.q_stride, row(0), column + 8),
                pair(q, &params.q_stride, row(1), column + 8),
            ];
            for tile in 0..config.tile_kv / 8 {
                let key = first_key + 8 * tile + at.lane / 4;
                let b = [pair(k, &params.k_stride, key, column), pair(k, &params.k_stride, key, column + 8)];
                mma_m16n8k16(config.dtype, scores.at(tile), a, b);
                // Else ptxas loads all keys before it multiplies, and spills.
                fence_schedule();
            }
        }
        step += 1;
    }
    scores
}
