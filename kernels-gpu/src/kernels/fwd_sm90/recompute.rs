//! The scores of a step once more, by one warp for itself.
//!
//! A warp whose base did not serve has lost its scores, and the other warps of its group go on: it cannot ask for a product
//! of the warpgroup, and its keys may be gone from shared memory. It reads what it needs from global memory, and multiplies
//! with `mma.sync`, whose accumulators have the same layout. This is slow, and rare.

use super::Instance;
use super::tile::{Lane, Tile};
use crate::config::DType;
use crate::kernels::element::mma_m16n8k16;
use crate::kernels::registers::Registers;
use crate::params::{FwdParams, Strides};
use crate::ptx::cvt::unpack_e4m3;
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
    let steps = opaque(config.key_steps());
    let mut step = 0;
    while step < steps {
        // Words of a row: a lane has one in each half of the 32 bytes of a step.
        let word = 8 * step + at.lane % 4;
        // SAFETY: rows exist; columns beyond the head dim are not read.
        unsafe {
            let load = |base: u64, stride: &Strides, row: u32, word: u32| {
                if word * 4 < params.head_dim * config.operand_bytes() {
                    load_global_4(base + stride.row_offset(row) + u64::from(word * 4))
                } else {
                    0
                }
            };
            let a = [
                load(q, &params.q_stride, row(0), word),
                load(q, &params.q_stride, row(1), word),
                load(q, &params.q_stride, row(0), word + 4),
                load(q, &params.q_stride, row(1), word + 4),
            ];
            for tile in 0..config.tile_kv / 8 {
                let key = first_key + 8 * tile + at.lane / 4;
                let b = [load(k, &params.k_stride, key, word), load(k, &params.k_stride, key, word + 4)];
                if config.e4m3 {
                    // As f16, which has all numbers of e4m3: two columns of each four, then the other two.
                    for pair in 0..2 {
                        let halves = |word: u32| unpack_e4m3(word >> (16 * pair));
                        mma_m16n8k16(DType::F16, scores.at(tile), a.map(halves), b.map(halves));
                    }
                } else {
                    mma_m16n8k16(config.dtype, scores.at(tile), a, b);
                }
                // Else ptxas loads all keys before it multiplies, and spills.
                fence_schedule();
            }
        }
        step += 1;
    }
    scores
}
