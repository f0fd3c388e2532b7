//! The product of queries and keys, both in shared memory.

use super::Instance;
use super::shared::{Shared, Turn};
use super::softmax::Scores;
use super::tile::Lane;
use crate::config::FwdSm90;
use crate::ptx::wgmma::{self, descriptor};

/// Starts `Q K^T` of the warpgroup's rows and the first keys of the tile of `turn`, as many as `S` has scores for. The
/// query tile is at `q`.
///
/// # Safety
/// The warpgroup is here, converged; the tiles are full.
#[inline(always)]
pub unsafe fn start_keys<I: Instance, S: Scores>(shared: &Shared, at: &Lane, turn: Turn, q: u32) -> S {
    let config = I::CONFIG;
    let mut scores = S::splat([0.0; 4]);
    let group = at.group * FwdSm90::GROUP_ROWS * FwdSm90::SPAN_BYTES;
    let (q, k) = (descriptor(q + group, 16), descriptor(shared.k.tile(turn), 16));
    // SAFETY: the caller's promise.
    unsafe {
        wgmma::fence();
        for step in 0..config.key_steps() {
            let (span, column) = (step / 4, step % 4 * 2);
            let rows = |rows: u32| span * rows * FwdSm90::SPAN_BYTES / 16 + column;
            let (a, b) = (q + rows(config.tile_q), k + rows(config.tile_kv));
            if step == 0 {
                scores.begin(config.dtype, a, b);
            } else {
                scores.add(config.dtype, a, b);
            }
        }
        wgmma::commit_group();
    }
    scores
}

/// The product has ended: its scores are there, and the tile of `turn` is free.
///
/// # Safety
/// All lanes of the warp are here, behind the wait for the product.
#[inline(always)]
pub unsafe fn end_keys<S: Scores>(shared: &Shared, at: &Lane, turn: &mut Turn, scores: &mut S) {
    for i in 0..S::LEN {
        wgmma::settle(scores.at(i));
    }
    // SAFETY: the warp has read the tile.
    unsafe { shared.k.release(*turn, at.lane) };
    turn.advance(&shared.k);
}
