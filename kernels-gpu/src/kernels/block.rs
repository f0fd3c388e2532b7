//! What kernels with `mma.sync` share: where a block and its warps stand, their queries, masks, and the product with keys.

use super::element::mma_m16n8k16;
use super::lse_address;
use super::registers::{Registers, hide};
use super::tile::OperandAddress;
use crate::config::{FwdSm80, WARP};
use crate::fragment::{ldmatrix_chunks_first, ldmatrix_rows_first};
use crate::mask::visible_keys;
use crate::params::{FwdParams, boustrophedon};
use crate::ptx::ld_st::store_global_f32;
use crate::ptx::ldmatrix::ldmatrix_x4;
use crate::ptx::sreg;
use core::ops::Range;

/// Most m16 tiles of a warp.
const MAX_ROW_FRAGS: usize = 2;

/// A kernel of the table: its configuration and the register arrays that follow from it.
pub trait Instance {
    /// The configuration that the entry name spells.
    const CONFIG: FwdSm80;
    /// How many elements of queries, keys and values lie in the place of one of the configuration's.
    const PACKED: u32 = 1;
    /// How many k-steps, 32 bytes of a row, of its queries a warp keeps in registers.
    const Q_STEPS: u32 = Self::CONFIG.q_steps_in_registers();
    /// Output accumulators, `row_frags * head_dim / 8` m16n8 fragments.
    type OutFrags: Registers<[f32; 4]>;
    /// Scores, then probabilities, `row_frags * tile_kv / 8` m16n8 fragments.
    type ScoreFrags: Registers<[f32; 4]>;
    /// Probabilities, `row_frags * tile_kv / 16` m16k16 fragments.
    type PFrags: Registers<[u32; 4]>;
    /// The queries that stay in registers, m16k16 fragments.
    type QFrags: Registers<[u32; 4]>;
    /// One value for each row that a lane holds, `2 * row_frags`.
    type Rows: Registers<f32>;

    /// `c += a b` for 16 rows, 8 columns and 32 bytes of each.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    unsafe fn multiply(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
        // SAFETY: the caller's promise.
        unsafe { mma_m16n8k16(Self::CONFIG.dtype, c, a, b) }
    }
}

/// Where a block and a warp stand in the problem.
#[derive(Clone, Copy)]
pub struct Position {
    /// Sequence.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// First query row of the block.
    pub block_row: u32,
    /// First query row of the warp, relative to the block.
    pub warp_row: u32,
    /// Which part of a step's keys the warp owns.
    pub split: u32,
    /// Which part of the sequence's keys the block owns.
    pub part: u32,
    /// Lane of the warp.
    pub lane: u32,
    /// Thread of the block.
    pub thread: u32,
}

impl Position {
    /// Reads the special registers; to call it again costs less than to keep its fields through a loop.
    #[inline(always)]
    pub fn current(config: FwdSm80, params: &FwdParams) -> Self {
        let thread = sreg::thread_idx_x();
        let warp = thread / WARP;
        let [x, y, z] = [sreg::block_idx_x(), sreg::block_idx_y(), sreg::block_idx_z()];
        // Under a causal mask later rows see more keys: they start first.
        let (mut tile, mut part) = (sreg::grid_dim_x() - 1 - x, 0);
        let (mut head, mut batch) = (y, z);
        if config.shares_keys {
            // Blocks that share a tile start together.
            (tile, part) = (tile / params.splits.max(1), tile % params.splits.max(1));
        } else if params.wave_order > 0 {
            (head, batch) = (x, y);
            let tiles = params.q_len.div_ceil(config.tile_q);
            let group = z / tiles.max(1);
            head += group * sreg::grid_dim_x();
            tile = tiles - 1 - boustrophedon(z - group * tiles, tiles, u32::from(params.wave_order) - 1);
        }
        Self {
            batch,
            head,
            part,
            block_row: tile * config.tile_q,
            warp_row: warp % config.row_warps() * config.rows_per_warp(),
            split: warp / config.row_warps(),
            lane: thread % WARP,
            thread,
        }
    }

    /// Address of row `row` of the block's output.
    #[inline(always)]
    pub fn out_row(&self, params: &FwdParams, row: u32) -> u64 {
        let stride = &params.out_stride;
        params.out + stride.slice_offset(self.batch, self.head) + stride.row_offset(self.block_row + row)
    }

    /// Stores the log-sum-exp of row `row` of the block, where it is wanted and the row exists.
    ///
    /// # Safety
    /// The parameters are those of a plan.
    #[inline(always)]
    pub unsafe fn store_lse(&self, params: &FwdParams, row: u32, lse: f32) {
        let address = lse_address(params, self.batch, self.head, self.block_row + row);
        if address != 0 && self.block_row + row < params.q_len {
            // SAFETY: the row exists.
            unsafe { store_global_f32(address, lse) }
        }
    }
}

/// The warp's queries: the first k-steps in registers, as many as fit, the others in shared memory.
pub struct Queries<I: Instance> {
    frags: I::QFrags,
    address: OperandAddress,
}

impl<I: Instance> Queries<I> {
    #[inline(always)]
    pub unsafe fn load(shared: u32, at: &Position) -> Self {
        let config = I::CONFIG;
        let lane = ldmatrix_rows_first(at.lane);
        let offset = config.swizzle().offset(at.warp_row + lane.row, lane.chunk);
        let mut q = Self { frags: I::QFrags::splat([0; 4]), address: OperandAddress::new(config, shared + offset) };
        for k in 0..I::Q_STEPS {
            for frag in 0..config.row_frags() {
                // SAFETY: the queries are there since the pipeline's start.
                *q.frags.at(k * config.row_frags() + frag) = unsafe { ldmatrix_x4(q.address.fragment(frag, k)) };
            }
        }
        q
    }

    /// Operand of row fragment `frag` and k-step `k`.
    #[inline(always)]
    unsafe fn frag(&self, frag: u32, k: u32) -> [u32; 4] {
        if k < I::Q_STEPS {
            self.frags.get(k * I::CONFIG.row_frags() + frag)
        } else {
            // SAFETY: the query tile stays in place until the epilogue.
            unsafe { ldmatrix_x4(self.address.fragment(frag, k)) }
        }
    }
}

/// What hides keys from rows in a step.
pub struct Mask {
    /// First key of the step.
    pub first_key: u32,
    /// Keys of the sequence.
    pub kv_len: i32,
    /// See [`FwdParams::causal_offset`].
    pub causal_offset: i32,
}

impl Mask {
    /// Whether some row of the warp does not see some key of the warp's part of the step.
    #[inline(always)]
    pub fn hides_some<I: Instance>(&self, at: &Position) -> bool {
        let end_key = self.first_key + (at.split + 1) * I::CONFIG.tile_kv;
        end_key as i32 > visible_keys((at.block_row + at.warp_row) as i32, self.kv_len, self.causal_offset)
    }

    /// Whether no row of the warp sees a key of its part of the step.
    #[inline(always)]
    pub fn hides_all<I: Instance>(&self, at: &Position) -> bool {
        let first_key = self.first_key + at.split * I::CONFIG.tile_kv;
        let last_row = at.block_row + at.warp_row + I::CONFIG.rows_per_warp() - 1;
        first_key as i32 >= visible_keys(last_row as i32, self.kv_len, self.causal_offset)
    }

    /// Sets scores of hidden keys to -inf.
    #[inline(always)]
    pub fn apply<I: Instance>(&self, params: &FwdParams, at: &Position, scores: &mut I::ScoreFrags) {
        let tiles = I::CONFIG.tile_kv / 8;
        // Where keys are split, ptxas has registers to keep where the warp stands; elsewhere it spills them.
        let at = if I::CONFIG.kv_splits > 1 { *at } else { Position::current(I::CONFIG, params) };
        let first_column = (self.first_key + at.split * I::CONFIG.tile_kv + at.lane % 4 * 2) as i32;
        for frag in 0..I::CONFIG.row_frags() {
            for half in 0..2 {
                let row = at.block_row + at.warp_row + 16 * frag + 8 * half + at.lane / 4;
                let visible = visible_keys(row as i32, self.kv_len, self.causal_offset) - first_column;
                hide(scores, frag * tiles, tiles, half, visible);
            }
        }
    }
}

/// `scores += Q K^T` for the warp's rows and the 16-key parts `parts` of its keys.
#[inline(always)]
pub unsafe fn multiply_keys<I: Instance>(
    q: &Queries<I>,
    keys: u32,
    parts: Range<u32>,
    at: &Position,
    scores: &mut I::ScoreFrags,
) {
    let config = I::CONFIG;
    let lane = ldmatrix_chunks_first(at.lane);
    let offset = config.swizzle().offset(at.split * config.tile_kv + lane.row, lane.chunk);
    let address = OperandAddress::new(config, keys + offset);
    for k in 0..config.head_dim / 16 {
        let mut a = [[0; 4]; MAX_ROW_FRAGS];
        for frag in 0..config.row_frags() {
            // SAFETY: the query tile is there until the epilogue.
            *a.at(frag) = unsafe { q.frag(frag, k) };
        }
        for part in parts.start..parts.end {
            // SAFETY: the caller holds the tile.
            let b = unsafe { ldmatrix_x4(address.fragment(part, k)) };
            for frag in 0..config.row_frags() {
                let s = frag * config.tile_kv / 8 + 2 * part;
                // SAFETY: converged.
                unsafe {
                    I::multiply(scores.at(s), a.get(frag), [b[0], b[1]]);
                    I::multiply(scores.at(s + 1), a.get(frag), [b[2], b[3]]);
                }
            }
        }
    }
}
