//! `fwd_sm80`: FlashAttention's forward pass with cp.async, ldmatrix and mma.sync (arXiv 2205.14135, 2307.08691).
//!
//! A block owns `tile_q` query rows of one head and walks the keys in steps of `kv_splits * tile_kv`, from the last
//! step down to step 0, so that the steps that need a mask (ragged end, causal diagonal) come first, in a loop of
//! their own. Step `t` lives in stage `t % S`.
//!
//! ```text
//! shared memory   queries | keys, stage 0..S | values, stage 0..S          (merge area or output tile at the end)
//! groups          Q and K(n-1), V(n-1), K(n-2), V(n-2), ... in the order of use
//!
//! start    wait Q, K(n-1)   barrier A
//! step t   scores = Q K(t)^T   softmax   wait V(t)     barrier B   start K(t-S)     out += P V(t)
//!                                        wait K(t-1)   barrier A   start V(t-S)     unless t is 0
//! ```
//!
//! | barrier | makes visible | frees |
//! |---|---|---|
//! | A before step t | K(t) of all threads, and the queries | values of step t+1 |
//! | B in step t | V(t) of all threads | keys of step t |
//!
//! In the loop 2S-2 groups may still be in flight at either wait: K and V are one stage apart.

use super::element::{mma_m16n8k16, pack};
use super::epilogue;
use super::registers::Registers;
use super::sequence_keys;
use super::softmax::Softmax;
use super::tile::{OperandAddress, TileCopy};
use crate::config::{FwdSm80, WARP};
use crate::fragment::{ldmatrix_chunks_first, ldmatrix_rows_first};
use crate::mask::{kv_steps, visible_keys};
use crate::params::{FwdParams, kv_head};
use crate::ptx::ldmatrix::{ldmatrix_x4, ldmatrix_x4_trans};
use crate::ptx::{barrier, cp_async, sreg};

/// Most m16 tiles of a warp.
const MAX_ROW_FRAGS: usize = 2;

/// A kernel of the table: its configuration and the register arrays that follow from it.
pub trait Instance {
    /// The configuration that the entry name spells.
    const CONFIG: FwdSm80;
    /// Output accumulators, `row_frags * head_dim / 8` m16n8 fragments.
    type OutFrags: Registers<[f32; 4]>;
    /// Scores, then probabilities, `row_frags * tile_kv / 8` m16n8 fragments.
    type ScoreFrags: Registers<[f32; 4]>;
    /// The queries that stay in registers, m16k16 fragments.
    type QFrags: Registers<[u32; 4]>;
    /// One value for each row that a lane holds, `2 * row_frags`.
    type Rows: Registers<f32>;
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
    /// Lane of the warp.
    pub lane: u32,
    /// Thread of the block.
    pub thread: u32,
}

impl Position {
    /// Reads the special registers; to call it again costs less than to keep its fields through a loop.
    #[inline(always)]
    fn current(config: FwdSm80) -> Self {
        let thread = sreg::thread_idx_x();
        let warp = thread / WARP;
        Self {
            batch: sreg::block_idx_z(),
            head: sreg::block_idx_y(),
            // Under a causal mask later rows see more keys: they start first.
            block_row: (sreg::grid_dim_x() - 1 - sreg::block_idx_x()) * config.tile_q,
            warp_row: warp % config.row_warps() * config.rows_per_warp(),
            split: warp / config.row_warps(),
            lane: thread % WARP,
            thread,
        }
    }
}

/// The kernel.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run<I: Instance>(params: FwdParams) {
    const { assert!(I::CONFIG.is_valid()) };
    let config = I::CONFIG;
    let at = Position::current(config);
    // SAFETY: the caller's promise; every thread of the block takes the same path through the barriers, as all
    // conditions around them depend on the block alone.
    unsafe {
        let kv_len = sequence_keys(&params, at.batch);
        let end_row = (at.block_row + config.tile_q).min(params.q_len);
        let steps = kv_steps(at.block_row as i32, end_row as i32 - 1, kv_len, params.causal_offset, config.step());

        let pipeline = Pipeline::start::<I>(&params, &at, steps.total, kv_len as u32);
        let shared = sreg::dynamic_shared();
        let q = Queries::<I>::load(shared, &at);
        let mut out = I::OutFrags::splat([0.0; 4]);
        let mut softmax = Softmax::<I>::new(params.scale_log2);

        let mut step = steps.total;
        while step > steps.full {
            step -= 1;
            let mask = Mask { first_key: step * config.step(), kv_len, causal_offset: params.causal_offset };
            process_step::<I>(&pipeline, step, &q, &at, Some(mask), &mut softmax, &mut out);
        }
        while step > 0 {
            step -= 1;
            process_step::<I>(&pipeline, step, &q, &at, None, &mut softmax, &mut out);
        }

        softmax.finish();
        let at = Position::current(config);
        if config.kv_splits == 1 {
            epilogue::store::<I>(&params, &at, shared, &softmax, &out);
        } else {
            epilogue::merge_and_store::<I>(&params, &at, shared, steps.total == 0, &softmax, &out);
        }
    }
}

/// The copies of keys and values, and which stage is whose.
struct Pipeline {
    config: FwdSm80,
    k: TileCopy,
    v: TileCopy,
    k_shared: u32,
    v_shared: u32,
}

impl Pipeline {
    /// Starts the copies of the queries and of the first stages, and waits for the queries and the first keys.
    #[inline(always)]
    unsafe fn start<I: Instance>(params: &FwdParams, at: &Position, total: u32, kv_len: u32) -> Self {
        let config = I::CONFIG;
        let copy =
            |address, stride, head| TileCopy::new(config, at.thread, address, stride, at.batch, head, params.head_dim);
        let kv_head = kv_head(at.head, params.kv_head_reciprocal);
        let shared = sreg::dynamic_shared();
        let k_shared = shared + config.q_bytes();
        let pipeline = Self {
            config,
            k: copy(params.k, &params.k_stride, kv_head),
            v: copy(params.v, &params.v_stride, kv_head),
            k_shared,
            v_shared: k_shared + config.stages * config.step_bytes(),
        };
        // SAFETY: shared memory is free at the start; rows that do not exist are not read.
        unsafe {
            let q = copy(params.q, &params.q_stride, at.head);
            q.start::<true>(shared, at.block_row, config.tile_q, params.q_len);
            for ahead in 0..config.stages {
                let step = total - 1 - ahead;
                let first_row = step * config.step();
                if ahead < total {
                    pipeline.k.start::<true>(pipeline.keys(step), first_row, config.step(), kv_len);
                }
                cp_async::commit();
                if ahead < total {
                    pipeline.v.start::<true>(pipeline.values(step), first_row, config.step(), kv_len);
                }
                cp_async::commit();
            }
            cp_async::wait(2 * config.stages - 1);
            barrier::sync_threads();
        }
        pipeline
    }

    /// Address of the keys of step `step`.
    #[inline(always)]
    fn keys(&self, step: u32) -> u32 {
        self.k_shared + step % self.config.stages * self.config.step_bytes()
    }

    /// Address of the values of step `step`.
    #[inline(always)]
    fn values(&self, step: u32) -> u32 {
        self.v_shared + step % self.config.stages * self.config.step_bytes()
    }

    /// Waits for the values of step `step`, and starts later keys in place of its own.
    #[inline(always)]
    unsafe fn wait_values(&self, step: u32) {
        cp_async::wait(2 * self.config.stages - 2);
        // SAFETY: barrier B, see the table above.
        unsafe {
            barrier::sync_threads();
            self.start_later(&self.k, self.keys(step), step);
        }
    }

    /// Waits for the keys of the step after `step`, if there is one, and starts later values in place of its own.
    #[inline(always)]
    unsafe fn wait_next_keys(&self, step: u32) {
        if step == 0 {
            return;
        }
        cp_async::wait(2 * self.config.stages - 2);
        // SAFETY: barrier A, see the table above.
        unsafe {
            barrier::sync_threads();
            self.start_later(&self.v, self.values(step), step);
        }
    }

    /// Starts the copy that takes the place of step `step` in the tile at `shared`, and closes the group.
    #[inline(always)]
    unsafe fn start_later(&self, copy: &TileCopy, shared: u32, step: u32) {
        let config = self.config;
        if step >= config.stages {
            let first_row = (step - config.stages) * config.step();
            // SAFETY: the caller freed the tile; only rows of the last step can lie past the end.
            unsafe { copy.start::<false>(shared, first_row, config.step(), 0) }
        }
        cp_async::commit();
    }
}

/// The warp's queries: the first k-steps in registers, as many as fit, the others in shared memory.
pub(super) struct Queries<I: Instance> {
    frags: I::QFrags,
    address: OperandAddress,
}

impl<I: Instance> Queries<I> {
    #[inline(always)]
    pub(super) unsafe fn load(shared: u32, at: &Position) -> Self {
        let config = I::CONFIG;
        let lane = ldmatrix_rows_first(at.lane);
        let offset = config.swizzle().offset(at.warp_row + lane.row, lane.chunk);
        let mut q = Self { frags: I::QFrags::splat([0; 4]), address: OperandAddress::new(config, shared + offset) };
        for k in 0..config.q_steps_in_registers() {
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
        if k < I::CONFIG.q_steps_in_registers() {
            self.frags.get(k * I::CONFIG.row_frags() + frag)
        } else {
            // SAFETY: the query tile stays in place until the epilogue.
            unsafe { ldmatrix_x4(self.address.fragment(frag, k)) }
        }
    }
}

/// What hides keys from rows in a step.
struct Mask {
    /// First key of the step.
    first_key: u32,
    kv_len: i32,
    causal_offset: i32,
}

impl Mask {
    /// Sets scores of hidden keys to -inf.
    #[inline(always)]
    fn apply<I: Instance>(&self, scores: &mut I::ScoreFrags) {
        let tiles = I::CONFIG.tile_kv / 8;
        let at = Position::current(I::CONFIG);
        let first_column = (self.first_key + at.split * I::CONFIG.tile_kv + at.lane % 4 * 2) as i32;
        for frag in 0..I::CONFIG.row_frags() {
            for half in 0..2 {
                let row = at.block_row + at.warp_row + 16 * frag + 8 * half + at.lane / 4;
                let visible = visible_keys(row as i32, self.kv_len, self.causal_offset) - first_column;
                for tile in 0..tiles {
                    let s = scores.at(frag * tiles + tile);
                    for i in 0..2 {
                        let register = (2 * half + i) as usize;
                        if (8 * tile + i) as i32 >= visible {
                            s[register] = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

/// One step of keys, with a mask or without.
#[inline(always)]
unsafe fn process_step<I: Instance>(
    pipeline: &Pipeline,
    step: u32,
    q: &Queries<I>,
    at: &Position,
    mask: Option<Mask>,
    softmax: &mut Softmax<I>,
    out: &mut I::OutFrags,
) {
    // SAFETY: the whole block is here, converged; the pipeline waited for the tiles.
    unsafe {
        let mut scores = I::ScoreFrags::splat([0.0; 4]);
        multiply_keys(q, pipeline.keys(step), at, &mut scores);
        if let Some(mask) = mask {
            mask.apply::<I>(&mut scores);
            softmax.update::<true>(&mut scores, out);
        } else {
            softmax.update::<false>(&mut scores, out);
        }
        pipeline.wait_values(step);
        multiply_values::<I>(&scores, pipeline.values(step), at, out);
        pipeline.wait_next_keys(step);
    }
}

/// `scores += Q K^T` for the warp's rows and keys.
#[inline(always)]
pub(super) unsafe fn multiply_keys<I: Instance>(q: &Queries<I>, keys: u32, at: &Position, scores: &mut I::ScoreFrags) {
    let config = I::CONFIG;
    let lane = ldmatrix_chunks_first(at.lane);
    let offset = config.swizzle().offset(at.split * config.tile_kv + lane.row, lane.chunk);
    let address = OperandAddress::new(config, keys + offset);
    let tiles = config.tile_kv / 8;
    for k in 0..config.head_dim / 16 {
        let mut a = [[0; 4]; MAX_ROW_FRAGS];
        for frag in 0..config.row_frags() {
            // SAFETY: the query tile is there until the epilogue.
            *a.at(frag) = unsafe { q.frag(frag, k) };
        }
        for pair in 0..tiles / 2 {
            // SAFETY: the caller holds the tile.
            let b = unsafe { ldmatrix_x4(address.fragment(pair, k)) };
            for frag in 0..config.row_frags() {
                let s = frag * tiles + 2 * pair;
                // SAFETY: converged.
                unsafe {
                    mma_m16n8k16(config.dtype, scores.at(s), a.get(frag), [b[0], b[1]]);
                    mma_m16n8k16(config.dtype, scores.at(s + 1), a.get(frag), [b[2], b[3]]);
                }
            }
        }
    }
}

/// `out += P V` for the warp's rows and keys.
#[inline(always)]
pub(super) unsafe fn multiply_values<I: Instance>(
    p: &I::ScoreFrags,
    values: u32,
    at: &Position,
    out: &mut I::OutFrags,
) {
    let config = I::CONFIG;
    let lane = ldmatrix_rows_first(at.lane);
    let offset = config.swizzle().offset(at.split * config.tile_kv + lane.row, lane.chunk);
    let address = OperandAddress::new(config, values + offset);
    let (p_tiles, out_tiles) = (config.tile_kv / 8, config.head_dim / 8);
    for k in 0..config.tile_kv / 16 {
        for pair in 0..out_tiles / 2 {
            // SAFETY: the caller holds the tile.
            let b = unsafe { ldmatrix_x4_trans(address.fragment(k, pair)) };
            for frag in 0..config.row_frags() {
                let (left, right) = (p.get(frag * p_tiles + 2 * k), p.get(frag * p_tiles + 2 * k + 1));
                let pair_of = |x, y| pack(config.dtype, x, y);
                let a = [
                    pair_of(left[0], left[1]),
                    pair_of(left[2], left[3]),
                    pair_of(right[0], right[1]),
                    pair_of(right[2], right[3]),
                ];
                let o = frag * out_tiles + 2 * pair;
                // SAFETY: converged.
                unsafe {
                    mma_m16n8k16(config.dtype, out.at(o), a, [b[0], b[1]]);
                    mma_m16n8k16(config.dtype, out.at(o + 1), a, [b[2], b[3]]);
                }
            }
        }
    }
}
