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
//! | `patch`, one a stage in clusters | the bytes of values that hold rows past a sequence's own length | the producer may clear these rows, and then arrives at `v.full` |
//! | `tickets.full`, in the second block | the four bytes of a number that the first one sends | the number of the next tile is there |
//! | `tickets.empty`, in the first block | an arrival of the second block's producer | the next number may be sent |
//! | named 1 + g | 128 threads of warpgroup g that wait, 128 of the one before that arrive | warpgroup g may start its products |
//! | named 5 + g | the threads of warpgroup g | the output rows of the group may be written, or sums of theirs parked; are written |
//!
//! Blocks of a cluster walk the same keys: each copies a part of every tile of keys and values into the shared memory of all, so
//! that L2 is read once for all of them. That saves power, which limits long launches. They have tiles of heads that share keys,
//! or neighbours of one head, of which under a mask one sees more keys than the other: this one lets the others' tiles pass.
//!
//! The first steps of a tile move the base of the softmax, later ones keep it ([`softmax`]). Where a warpgroup sees no more than
//! half of a tile's first step, as every second one does on the diagonal of a mask, that step is narrow: half the work.

mod copies;
mod epilogue;
mod fp8;
mod keys;
mod recompute;
mod shared;
mod softmax;
mod ticket;
mod tile;

use super::element::pack_probabilities;
use super::registers::Registers;
use crate::config::{FwdSm90, WARP};
use crate::params::{FwdParams, FwdSm90Params, TensorMap, TileOrder};
use crate::ptx::wgmma::{self, Accumulators, Roles, descriptor};
use crate::ptx::{barrier, cluster, opaque, sreg, tma};
use core::marker::PhantomData;
use keys::{end_keys, start_keys};
use shared::{Shared, Turn};
use softmax::{Scores, Softmax, rescale};
use tile::{Lane, Tile, hide_keys};

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

    /// The work of a warpgroup that multiplies: it leaves tiles as [`Producer`] expects.
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
                Producer::<I>::run(fwd, tiles, &maps, &shared);
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
struct Producer<'a, I: Instance> {
    params: &'a FwdParams,
    order: &'a TileOrder,
    maps: &'a Maps,
    shared: &'a Shared,
    lane: u32,
    q_turn: Turn,
    k_turn: Turn,
    v_turn: Turn,
    /// Parities of the barriers for values to be cleared, a bit each.
    patches: u32,
    /// In the first lane, the tile that the next one comes behind.
    ticket: u32,
    ticket_turn: Turn,
    instance: PhantomData<I>,
}

impl<'a, I: Instance> Producer<'a, I> {
    #[inline(always)]
    unsafe fn run(params: &'a FwdParams, order: &'a TileOrder, maps: &'a Maps, shared: &'a Shared) {
        let config = I::CONFIG;
        let mut this = Self {
            params,
            order,
            maps,
            shared,
            lane: sreg::thread_idx_x(),
            q_turn: Turn::EMPTY,
            k_turn: Turn::EMPTY,
            v_turn: Turn::EMPTY,
            patches: 0,
            ticket: 0,
            ticket_turn: Turn::FULL,
            instance: PhantomData::<I>,
        };
        // SAFETY: tiles are empty when they are filled, and maps and barriers those of the launch.
        unsafe {
            for map in [maps.q, maps.k, maps.v] {
                tma::prefetch(map, this.lane == 0);
            }
            let mut index = this.first_tile();
            let mut tile = Tile::get::<I>(params, order, index);
            this.load_queries(index, &tile);
            this.load_keys(&tile, tile.copied_steps() - 1);
            while index < order.count {
                let mut step = tile.copied_steps() - 1;
                // A ticket comes during the copies of a step, and goes on to the other block during those of the next one.
                // Earlier, those with short tiles would not take more of them.
                let steps_ahead = if config.is_alone() { 1 } else { 2 };
                if step < steps_ahead {
                    this.take_ticket(index);
                }
                if step == 0 {
                    this.send_ticket();
                }
                while step > 0 {
                    if step == steps_ahead {
                        this.take_ticket(index);
                    }
                    if step == 1 {
                        this.send_ticket();
                    }
                    this.load_keys(&tile, step - 1);
                    this.load_values(&tile, step);
                    step = opaque(step - 1); // LLVM would unroll the loop.
                }
                let next = this.next_tile();
                let next_tile = Tile::get::<I>(params, order, next.min(order.count - 1));
                if config.q_stages() > 1 {
                    this.load_queries(next, &next_tile);
                } else {
                    // These are free before the queries are.
                    this.load_values(&tile, 0);
                }
                if next < order.count {
                    this.load_keys(&next_tile, next_tile.copied_steps() - 1);
                }
                if config.q_stages() > 1 {
                    this.load_values(&tile, 0);
                } else {
                    this.load_queries(next, &next_tile);
                }
                this.release_ticket();
                (index, tile) = (next, next_tile);
            }
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
            this.skip_keys(&tile);
            this.first_step(&tile, shared.q.tile(q_turn));
            this.skip_values(&tile);
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
                while step > tile.plain_steps {
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
                this.skip_keys(&next);
                let q = shared.q.tile(q_turn);
                let factors = if narrow {
                    this.chain::<I::NarrowFrags>(&tile, &next, q)
                } else {
                    this.chain::<I::ScoreFrags>(&tile, &next, q)
                };
                this.skip_values(&next);
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

    /// Lets the keys pass that the cluster walks before those of `tile`.
    #[inline(always)]
    unsafe fn skip_keys(&mut self, tile: &Tile) {
        if tile.skipped > 0 {
            // SAFETY: all lanes are here.
            unsafe { self.shared.k.skip(&mut self.k_turn, self.at.lane) }
        }
    }

    /// The same for values.
    #[inline(always)]
    unsafe fn skip_values(&mut self, tile: &Tile) {
        if tile.skipped > 0 {
            // SAFETY: all lanes are here.
            unsafe { self.shared.v.skip(&mut self.v_turn, self.at.lane) }
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
