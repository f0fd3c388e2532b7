//! Keys that blocks of `fwd_sm80` share: each block has a part of a sequence's keys, and the last one merges the parts.
//!
//! A block leaves its partial result in the workspace and takes a ticket. The block with the last ticket reads those of
//! all, its own as well, in the order of the keys and not of the tickets: the same input gives the same bits. The counter
//! of the tickets goes round to zero.
//!
//! The output lies in the order of the fragments, so that every access is 16 bytes wide and a warp's are next to each
//! other. Statistics lie where [`Workspace`] has them.

use super::block::{Instance, Position};
use super::registers::Registers;
use super::softmax::Softmax;
use super::statistics::finite_base;
use super::ticket::is_last;
use crate::params::{FwdParams, Workspace};
use crate::ptx::ld_st::{load_global_8, load_global_16, store_global_8, store_global_16};
use crate::ptx::math::{count_down, ex2, fma, max};

/// Where a lane has its share of a part's results.
struct Lane {
    /// Bytes from the start of a part to the lane's first fragment.
    fragments: u64,
    /// Bytes from the start of a part to the statistics of the lane's first row.
    statistics: u64,
}

impl Lane {
    /// Address of fragment `frag` in the part at `part`.
    #[inline(always)]
    fn fragment<I: Instance>(&self, part: u64, frag: u32) -> u64 {
        part + self.fragments + u64::from(frag * I::CONFIG.threads() * 16)
    }

    /// Address of the statistics of the lane's row `row`, which is row `8 * row` behind its first, in the part at `part`.
    #[inline(always)]
    fn statistic(&self, part: u64, row: u32) -> u64 {
        part + self.statistics + u64::from(8 * row * 8)
    }
}

/// Leaves what the block holds, unless it has all keys. Gives whether the block is the one that ends the tile: then
/// `softmax` and `out` are those of all keys.
///
/// # Safety
/// The whole block is here, converged; the stages of shared memory are free once all of it is.
#[inline(always)]
pub unsafe fn merge<I: Instance>(
    params: &FwdParams,
    at: &Position,
    shared: u32,
    softmax: &mut Softmax<I>,
    out: &mut I::OutFrags,
) -> bool {
    let config = I::CONFIG;
    if params.splits <= 1 {
        return true;
    }
    let rows = 2 * config.row_frags();
    let tiles = params.q_len.div_ceil(config.tile_q);
    let tile = (at.batch * u32::from(params.heads_q) + at.head) * tiles + at.block_row / config.tile_q;
    let workspace = Workspace { splits: params.splits, rows: config.tile_q, head_dim: config.head_dim };
    let first = params.workspace + workspace.partial(tile, 0);
    let part_bytes = u64::from(workspace.partial_bytes());
    let statistics = u64::from(workspace.statistic(at.warp_row + at.lane / 4));
    let lane = Lane { fragments: u64::from(at.thread * 16), statistics };
    // SAFETY: a lane has places of its own; the ticket stands between the uses of the workspace.
    unsafe {
        let own = first + u64::from(at.part) * part_bytes;
        for frag in 0..config.out_frags() {
            store_global_16(lane.fragment::<I>(own, frag), out.get(frag).map(f32::to_bits));
        }
        // The four lanes of a row have the same.
        if at.lane.is_multiple_of(4) {
            for row in 0..rows {
                let bits = [softmax.base.get(row).to_bits(), softmax.row_sum.get(row).to_bits()];
                store_global_8(lane.statistic(own, row), bits);
            }
        }

        // The query tile is the epilogue's.
        let slot = shared + config.q_bytes();
        if !is_last(at.thread, params.workspace + workspace.counter(tile), params.splits, slot) {
            return false;
        }

        let mut base = I::Rows::splat(f32::NEG_INFINITY);
        let (mut part, mut left) = (first, params.splits);
        while left > 0 {
            for row in 0..rows {
                let [bits, _] = load_global_8(lane.statistic(part, row));
                *base.at(row) = max(base.get(row), f32::from_bits(bits));
            }
            part += part_bytes;
            left = count_down(left);
        }
        softmax.base = base;
        softmax.row_sum = I::Rows::splat(0.0);
        *out = I::OutFrags::splat([0.0; 4]);
        let (mut part, mut left) = (first, params.splits);
        while left > 0 {
            let mut weights = I::Rows::splat(0.0);
            for row in 0..rows {
                let [part_base, part_sum] = load_global_8(lane.statistic(part, row)).map(f32::from_bits);
                let weight = ex2((part_base - finite_base(base.get(row))) * params.scale_log2);
                *weights.at(row) = weight;
                *softmax.row_sum.at(row) = fma(weight, part_sum, softmax.row_sum.get(row));
            }
            for frag in 0..config.out_frags() {
                let values = load_global_16(lane.fragment::<I>(part, frag)).map(f32::from_bits);
                let row = frag / (config.head_dim / 8) * 2;
                let o = out.at(frag);
                for i in 0..4 {
                    o[i] = fma(weights.get(row + i as u32 / 2), values[i], o[i]);
                }
            }
            part += part_bytes;
            left = count_down(left);
        }
    }
    true
}
