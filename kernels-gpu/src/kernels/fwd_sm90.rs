//! `fwd_sm90`: FlashAttention's forward pass with TMA and wgmma, in the roles of FlashAttention-3 (arXiv 2407.08608).
//!
//! Blocks are persistent. In each, a warp copies (the producer), and warpgroups multiply (the consumers), each 64 query rows of
//! the block's tile. Keys are walked in steps of `tile_kv`, the last one first, as it may need a mask. A consumer's step is
//!
//! ```text
//! start S = Q K(j)^T     start O += P V(j+1)     wait S     P = softmax(S)     wait O     pack P
//! ```
//!
//! so that the product with values runs under the softmax, and that of one warpgroup under the products of the next one: named
//! barriers let them start by turns. Tiles are chained: the first product of the next tile starts beside the last of this one.
//!
//! ```text
//! producer    Q(t) K(n-1) | K(j-1) V(j), j = n-1 .. 1 | Q(t+1) K(t+1, n-1) V(0) | ...      with two query tiles
//!             Q(t) K(n-1) | K(j-1) V(j), j = n-1 .. 1 | V(0) K(t+1, n-1) Q(t+1) | ...      with one
//! ```
//!
//! | barrier | a phase ends with | says |
//! |---|---|---|
//! | `q.full`, `k.full`, `v.full`, one a stage | the producer's arrival and all bytes of the boxes | the tile is there; with `q.full`, the number of the tile too |
//! | `q.empty` | an arrival of each consumer warp behind its last product with keys | the producer may copy |
//! | `k.empty`, `v.empty` | an arrival of each consumer warp behind the wait for the product, of all blocks of the cluster | the producer may copy |
//! | `patch` | the bytes of values that hold rows past a sequence's own length | the producer may clear these rows, and then arrives at `v.full` |
//! | named 1 + g | 128 threads of warpgroup g that wait, 128 of the one before that arrive | warpgroup g may start its products |
//! | named 5 + g | the threads of warpgroup g | the output rows of the group may be written, or sums of theirs parked; are written |
//!
//! Blocks of a cluster walk the same keys: each copies a part of every tile of keys and values into the shared memory of all, so
//! that L2 is read once for all of them. That saves power, which limits long launches.
//!
//! The first steps of a tile move the base of the softmax, later ones keep it ([`softmax`]). Where a warpgroup sees no more than
//! half of a tile's first step, as every second one does on the diagonal of a mask, that step is narrow: half the work.

mod epilogue;
mod fp8;
mod keys;
mod recompute;
mod shared;
mod softmax;
mod tile;

use super::element::pack_probabilities;
use super::registers::Registers;
use crate::config::{FwdSm90, WARP};
use crate::params::{FwdParams, FwdSm90Params, TensorMap, TileOrder};
use crate::ptx::ld_st::{store_shared_4, store_shared_16};
use crate::ptx::wgmma::{self, Accumulators, Roles, descriptor};
use crate::ptx::{barrier, cluster, mbarrier, opaque, sreg, tma};
use keys::{end_keys, start_keys};
use shared::{Shared, Turn};
use softmax::{Scores, Softmax, rescale};
use tile::{Lane, Tile, hide_keys, next_tile, take_ticket};

/// A kernel of the table: its configuration and the register arrays that follow from it.
pub trait Instance {
    /// The configuration that the entry name spells.
    const CONFIG: FwdSm90;
    /// Output accumulators, `head_dim / 8` m64n8 fragments.
    type OutFrags: Registers<[f32; 4]> + Accumulators;
    /// Scores, then probabilities, `tile_kv / 8` m64n8 fragments.
    type ScoreFrags: Scores;
    /// Scores of a narrow step, `narrow_kv() / 8` fragments.
    type NarrowFrags: Scores;
    /// Probabilities, one fragment for each step of the product with values.
    type PFrags: Registers<[u32; 4]>;
    /// Queries, where they are in registers, one fragment for each step of the product with keys.
    type QFrags: Registers<[u32; 4]>;
}

impl<I: Instance> Roles for I {
    const COPYING: u32 = I::CONFIG.role_registers().0;
    const MULTIPLYING: u32 = I::CONFIG.role_registers().1;
}

/// The generic addresses of the tensor maps.
#[derive(Clone, Copy)]
pub struct Maps {
    q: u64,
    k: u64,
    v: u64,
    out: u64,
}

impl Maps {
    /// Those at the start of the parameters, which are at `address`.
    #[inline(always)]
    fn at(address: u64) -> Self {
        let map = |index: u64| address + index * size_of::<TensorMap>() as u64;
        Self { q: map(0), k: map(1), v: map(2), out: map(3) }
    }
}

/// Parameters of a kernel with these roles.
pub trait Parameters<I: Instance> {
    /// What all such kernels take.
    fn common(&self) -> &FwdSm90Params;

    /// The work of a warpgroup that multiplies: it leaves tiles as [`produce`] expects.
    ///
    /// # Safety
    /// The warpgroup is here, converged; these are the parameters of a launch, and maps and barriers are those of the block.
    unsafe fn multiply(&self, maps: &Maps, shared: &Shared);
}

impl<I: Instance> Parameters<I> for FwdSm90Params {
    #[inline(always)]
    fn common(&self) -> &FwdSm90Params {
        self
    }

    #[inline(always)]
    unsafe fn multiply(&self, maps: &Maps, shared: &Shared) {
        // SAFETY: the caller's promise.
        unsafe { Consumer::<I>::run(&self.fwd, &self.tiles, maps, shared) }
    }
}

/// The kernel. `address` is the generic address of the parameters in their place.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run<I: Instance>(params: impl Parameters<I>, address: u64) {
    const { assert!(I::CONFIG.is_valid()) };
    let FwdSm90Params { fwd, tiles, .. } = params.common();
    let shared = Shared::new::<I>();
    let maps = Maps::at(address);
    let thread = sreg::thread_idx_x();
    // SAFETY: barriers are made before anybody uses them; each warpgroup is converged in its role.
    unsafe {
        if thread == 0 {
            shared.init::<I>();
        }
        if I::CONFIG.sum_rows() > 0 {
            shared.write_sum_rows::<I>(thread);
            tma::fence_shared();
        }
        if I::CONFIG.is_alone() {
            barrier::sync_threads();
        } else {
            // Other blocks arrive at these barriers, and copy here.
            cluster::sync();
        }
        if thread < FwdSm90::GROUP_THREADS {
            wgmma::shrink_registers::<I>();
            if thread < WARP {
                produce::<I>(fwd, tiles, &maps, &shared);
            }
        } else {
            wgmma::grow_registers::<I>();
            params.multiply(&maps, &shared);
        }
        if !I::CONFIG.is_alone() {
            // They still do.
            cluster::sync();
        }
    }
}

/// The warp that copies.
#[inline(always)]
unsafe fn produce<I: Instance>(params: &FwdParams, order: &TileOrder, maps: &Maps, shared: &Shared) {
    let config = I::CONFIG;
    let lane = sreg::thread_idx_x();
    let rank = if config.is_alone() { 0 } else { cluster::rank() };
    let (mut q_turn, mut k_turn, mut v_turn) = (Turn::EMPTY, Turn::EMPTY, Turn::EMPTY);
    let mut patch_parity = 0;
    // SAFETY: tiles are empty when they are filled, and maps and barriers those of the launch.
    unsafe {
        for map in [maps.q, maps.k, maps.v] {
            tma::prefetch(map, lane == 0);
        }
        // Of a tile of so many rows, for so many blocks of the cluster, this block's part for all of them.
        let load = |map: u64, shared: u32, (rows, blocks): (u32, u32), corner: [u32; 3], barrier: u32| {
            let first = if blocks > 1 { rank * (rows / blocks) } else { 0 };
            for span in 0..config.spans() {
                let corner = [config.span_columns() * span, corner[0] + first, corner[1], corner[2]];
                let place = shared + (span * rows + first) * FwdSm90::SPAN_BYTES;
                match blocks {
                    1 => tma::load(place, map, corner, barrier, lane == 0),
                    _ => tma::load_for_each(place, map, corner, barrier, blocks, lane == 0),
                }
            }
        };
        let keys = (config.tile_kv, config.cluster);
        let mut load_queries = |index: u32, tile: &Tile| {
            shared.q.wait_empty(q_turn);
            if lane == 0 {
                store_shared_4(shared.index(q_turn), index);
            }
            barrier::sync_warp();
            let full = shared.q.full(q_turn);
            if index < order.count {
                mbarrier::arrive_expecting(full, config.q_bytes(), lane == 0);
                load(maps.q, shared.q.tile(q_turn), (config.tile_q, 1), [tile.first_row, tile.head, tile.batch], full);
            } else {
                mbarrier::arrive(full, lane == 0);
            }
            q_turn.advance(&shared.q);
        };
        let mut load_keys = |tile: &Tile, step: u32| {
            shared.k.wait_empty(k_turn);
            let full = shared.k.full(k_turn);
            mbarrier::arrive_expecting(full, config.k_bytes(), lane == 0);
            let corner = [step * config.tile_kv, tile.head_kv, tile.batch];
            load(maps.k, shared.k.tile(k_turn), keys, corner, full);
            k_turn.advance(&shared.k);
        };
        let mut load_values = |tile: &Tile, step: u32| {
            shared.v.wait_empty(v_turn);
            let (full, values) = (shared.v.full(v_turn), shared.v.tile(v_turn));
            let corner = [step * config.tile_kv, tile.head_kv, tile.batch];
            let own_rows = tile.kv_len - (step * config.tile_kv) as i32;
            // Rows behind the sequence's own length are somebody's memory, where 0 * NaN would be NaN.
            if config.e4m3 {
                // Who transposed them made these zeros.
                mbarrier::arrive_expecting(full, config.v_bytes(), lane == 0);
                tma::load(values, maps.v, [corner[0], 0, corner[1], corner[2]], full, lane == 0);
            } else if config.clears_values() && own_rows < config.tile_kv as i32 && tile.kv_len < params.kv_len as i32 {
                mbarrier::arrive_expecting(shared.patch(), config.v_bytes(), lane == 0);
                load(maps.v, values, keys, corner, shared.patch());
                mbarrier::wait(shared.patch(), patch_parity);
                patch_parity ^= 1;
                let mut row = own_rows.max(0) as u32 * 8 + lane;
                while row < config.tile_kv * 8 {
                    for span in 0..config.spans() {
                        store_shared_16(values + span * config.tile_kv * FwdSm90::SPAN_BYTES + row * 16, [0; 4]);
                    }
                    row += WARP;
                }
                tma::fence_shared();
                barrier::sync_warp();
                mbarrier::arrive(full, lane == 0);
            } else {
                mbarrier::arrive_expecting(full, config.v_bytes(), lane == 0);
                load(maps.v, values, keys, corner, full);
            }
            v_turn.advance(&shared.v);
        };

        let mut index = sreg::block_idx_x();
        let mut tile = Tile::get::<I>(params, order, index);
        load_queries(index, &tile);
        load_keys(&tile, tile.steps - 1);
        while index < order.count {
            let mut step = tile.steps - 1;
            let mut ticket = if step == 0 { take_ticket::<I>(params, order, lane) } else { 0 };
            while step > 0 {
                if step == 1 {
                    // It comes during the copies of a step. Earlier, blocks with short tiles would not take more of them.
                    ticket = take_ticket::<I>(params, order, lane);
                }
                load_keys(&tile, step - 1);
                load_values(&tile, step);
                step = opaque(step - 1); // LLVM would unroll the loop.
            }
            let next = next_tile::<I>(order, index, ticket);
            let next_tile = Tile::get::<I>(params, order, next.min(order.count - 1));
            if config.q_stages() > 1 {
                load_queries(next, &next_tile);
            } else {
                // These are free before the queries are.
                load_values(&tile, 0);
            }
            if next < order.count {
                load_keys(&next_tile, next_tile.steps - 1);
            }
            if config.q_stages() > 1 {
                load_values(&tile, 0);
            } else {
                load_queries(next, &next_tile);
            }
            (index, tile) = (next, next_tile);
        }
    }
}

/// A warpgroup that multiplies.
struct Consumer<'a, I: Instance> {
    params: &'a FwdParams,
    shared: &'a Shared,
    at: Lane,
    k_turn: Turn,
    v_turn: Turn,
    softmax: Softmax,
    out: I::OutFrags,
    p: I::PFrags,
}

impl<'a, I: Instance> Consumer<'a, I> {
    #[inline(always)]
    unsafe fn run(params: &'a FwdParams, order: &'a TileOrder, maps: &Maps, shared: &'a Shared) {
        let config = I::CONFIG;
        let mut q_turn = Turn::FULL;
        // SAFETY: the warpgroup is converged throughout; conditions depend on the block alone.
        unsafe {
            let mut this = Self {
                params,
                shared,
                at: Lane::current(),
                k_turn: Turn::FULL,
                v_turn: Turn::FULL,
                softmax: Softmax::new(params.scale_log2),
                out: I::OutFrags::splat([0.0; 4]),
                p: I::PFrags::splat([0; 4]),
            };
            this.at.begin_turns(config.groups());
            shared.q.wait_full(q_turn);
            let index = shared.tile_index(q_turn, this.at.lane);
            let mut tile = Tile::get::<I>(params, order, index);
            this.first_step(&tile, shared.q.tile(q_turn));
            let mut narrow = false;
            loop {
                let q = shared.q.tile(q_turn);
                let mut step = tile.steps - 1;
                if narrow {
                    step -= 1;
                    // Else LLVM, which knows that these are zeros, writes them behind the fence of the product.
                    (0..config.head_dim / 8).for_each(|i| wgmma::settle(this.out.at(i)));
                    this.plain_step::<I::NarrowFrags>(&tile, step, q);
                }
                // Without a mask, no step behind the first one needs one.
                while config.is_alone() && step > tile.plain_steps {
                    step -= 1;
                    this.careful_step(&tile, step, q);
                }
                while step > 0 {
                    step -= 1;
                    this.plain_step::<I::ScoreFrags>(&tile, step, q);
                }
                shared.q.release(q_turn, this.at.lane);
                q_turn.advance(&shared.q);
                shared.q.wait_full(q_turn);
                let index = shared.tile_index(q_turn, this.at.lane);
                if index >= order.count {
                    break;
                }
                let next = Tile::get::<I>(params, order, index);
                narrow = next.is_narrow::<I>(params, this.at.group);
                let q = shared.q.tile(q_turn);
                let factors = if narrow {
                    this.chain::<I::NarrowFrags>(&tile, &next, q)
                } else {
                    this.chain::<I::ScoreFrags>(&tile, &next, q)
                };
                epilogue::store::<I>(params, maps.out, shared, &tile, &this.at, factors, &this.out);
                this.out = I::OutFrags::splat([0.0; 4]);
                tile = next;
            }
            let factors = this.last_values(&tile);
            epilogue::store::<I>(params, maps.out, shared, &tile, &this.at, factors, &this.out);
            if config.stages_output() {
                tma::wait_all();
            }
        }
    }

    /// Starts `out += P V` of a step of `S`.
    #[inline(always)]
    unsafe fn start_values<S: Scores>(&mut self) {
        let config = I::CONFIG;
        let v = descriptor(self.shared.v.tile(self.v_turn), config.tile_kv * FwdSm90::SPAN_BYTES);
        // SAFETY: the tile is full.
        unsafe {
            wgmma::fence();
            for step in 0..S::LEN / 2 {
                let rows = step * 16 * FwdSm90::SPAN_BYTES / 16;
                self.out.add_values(config.operands(), self.p.get(step), v + rows);
            }
            wgmma::commit_group();
        }
    }

    /// The product with values of a step of `S` has ended.
    #[inline(always)]
    unsafe fn end_values<S: Scores>(&mut self) {
        for i in 0..I::CONFIG.head_dim / 8 {
            wgmma::settle(self.out.at(i));
        }
        for i in 0..S::LEN / 2 {
            wgmma::keep(self.p.get(i));
        }
        // SAFETY: the warp has read the tile.
        unsafe { self.shared.v.release(self.v_turn, self.at.lane) };
        self.v_turn.advance(&self.shared.v);
    }

    /// Starts `S = Q K^T` and the product with the values of the step before, a step of `B`, and waits for the scores.
    #[inline(always)]
    unsafe fn products<S: Scores, B: Scores>(&mut self, q: u32) -> S {
        let groups = I::CONFIG.groups();
        // SAFETY: waits for what the products read; the warpgroups take turns.
        unsafe {
            self.shared.k.wait_full(self.k_turn);
            self.at.take_turn(groups);
            let mut scores = start_keys::<I, S>(self.shared, &self.at, self.k_turn, q);
            self.shared.v.wait_full(self.v_turn);
            self.start_values::<B>();
            self.at.pass_turn(groups);
            wgmma::wait_group::<1>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            scores
        }
    }

    /// The first step of the first tile, with no product with values beside it.
    #[inline(always)]
    unsafe fn first_step(&mut self, tile: &Tile, q: u32) {
        // SAFETY: the queries are there.
        unsafe {
            self.shared.k.wait_full(self.k_turn);
            let mut scores = start_keys::<I, I::ScoreFrags>(self.shared, &self.at, self.k_turn, q);
            wgmma::wait_group::<0>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            hide_keys::<I, _>(self.params, tile, &self.at, tile.steps - 1, &mut scores);
            self.softmax.move_base(&mut scores);
            self.pack(&scores);
        }
    }

    /// A step that needs a mask.
    #[inline(always)]
    unsafe fn careful_step(&mut self, tile: &Tile, step: u32, q: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scores = self.products::<I::ScoreFrags, I::ScoreFrags>(q);
            hide_keys::<I, _>(self.params, tile, &self.at, step, &mut scores);
            let factors = self.softmax.move_base(&mut scores);
            self.shared.pin(self.at.thread, (self.softmax.row_sum[0] + self.softmax.row_sum[1]).to_bits());
            wgmma::wait_group::<0>();
            self.end_values::<I::ScoreFrags>();
            rescale::<I>(&mut self.out, factors);
            self.pack(&scores);
        }
    }

    /// A step in which every row sees every key, behind a step of `B`.
    #[inline(always)]
    unsafe fn plain_step<B: Scores>(&mut self, tile: &Tile, step: u32, q: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scores = self.products::<I::ScoreFrags, B>(q);
            let sums = self.softmax.exponentiate(&mut scores, self.softmax.base);
            self.shared.pin(self.at.thread, (sums[0] + sums[1]).to_bits());
            wgmma::wait_group::<0>();
            self.end_values::<B>();
            if !self.softmax.keep_base(sums) {
                scores = recompute::scores::<I>(self.params, tile, &self.at, step * I::CONFIG.tile_kv);
                let factors = self.softmax.move_base(&mut scores);
                rescale::<I>(&mut self.out, factors);
            }
            self.pack(&scores);
        }
    }

    /// The last product of `tile` and the first one of the next tile, which is `next`. Gives the factors that normalise
    /// the output.
    #[inline(always)]
    unsafe fn chain<S: Scores>(&mut self, tile: &Tile, next: &Tile, q: u32) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scores = self.products::<S, I::ScoreFrags>(q);
            let factors = epilogue::finish(self.params, tile, &self.at, &self.softmax);
            self.softmax = Softmax::new(self.params.scale_log2);
            hide_keys::<I, _>(self.params, next, &self.at, next.steps - 1, &mut scores);
            self.softmax.move_base(&mut scores);
            self.shared.pin(self.at.thread, (self.softmax.row_sum[0] + self.softmax.row_sum[1]).to_bits());
            wgmma::wait_group::<0>();
            self.end_values::<I::ScoreFrags>();
            self.pack(&scores);
            factors
        }
    }

    /// The last product of `tile`, behind which none comes. Gives the factors that normalise the output.
    #[inline(always)]
    unsafe fn last_values(&mut self, tile: &Tile) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            self.shared.v.wait_full(self.v_turn);
            self.start_values::<I::ScoreFrags>();
            let factors = epilogue::finish(self.params, tile, &self.at, &self.softmax);
            wgmma::wait_group::<0>();
            self.end_values::<I::ScoreFrags>();
            factors
        }
    }

    /// The probabilities, rounded to the element type, as operands of the product with values.
    #[inline(always)]
    fn pack<S: Scores>(&mut self, scores: &S) {
        for i in 0..S::LEN / 2 {
            *self.p.at(i) = pack_probabilities(I::CONFIG.dtype, scores.get(2 * i), scores.get(2 * i + 1));
        }
    }
}
