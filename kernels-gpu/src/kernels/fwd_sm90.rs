//! A stand-in for `fwd_sm90` that computes nothing.

use super::registers::Registers;
use super::{lse_address, sequence_keys};
use crate::config::FwdSm90;
use crate::params::FwdSm90Params;
use crate::ptx::ld_st::store_global_f32;
use crate::ptx::sreg;

/// A kernel whose configuration is a constant.
pub trait Instance {
    /// The configuration.
    const CONFIG: FwdSm90;
    /// Output of a thread.
    type OutFrags: Registers<[f32; 4]>;
    /// Scores of a thread.
    type ScoreFrags: Registers<[f32; 4]>;
    /// Probabilities of a thread.
    type PFrags: Registers<[u32; 4]>;
}

/// Stores a zero for each row.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are; `address` is theirs.
#[inline(always)]
pub unsafe fn run<I: Instance>(params: FwdSm90Params, address: u64) {
    let tile_q = I::CONFIG.tile_q;
    let mut index = sreg::block_idx_x();
    while index < params.tiles.count {
        let (tile, slice) = params.tiles.get(index);
        let row = tile * tile_q + sreg::thread_idx_x();
        let heads = u32::from(params.fwd.heads_q).max(1);
        let mut out = I::OutFrags::splat([0.0; 4]);
        *out.at(0) = [1.0; 4];
        if sreg::thread_idx_x() < tile_q && row < params.fwd.q_len {
            // SAFETY: an element of the log-sum-exp, if it is wanted.
            unsafe {
                let keys = sequence_keys(&params.fwd, slice / heads);
                let lse = lse_address(&params.fwd, slice / heads, slice % heads, row);
                if lse != 0 && address != 0 {
                    store_global_f32(lse, keys as f32 * out.get(0)[0]);
                }
            }
        }
        index += sreg::grid_dim_x();
    }
}
