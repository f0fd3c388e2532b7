//! `fwd_fp8_sm90`: [`super`] with operands in e4m3 and scales of blocks of rows.
//!
//! Tiles, roles, barriers and the producer are the same, but warpgroups take no turns. A consumer's step is
//!
//! ```text
//! start S = Q K(j)^T     start O += W V(j+1)     wait S     W = weights(S)     wait O     pack W
//! ```
//!
//! - Scores become logarithms by a factor of their step: softmax scale times the scales of queries and keys. The scale of the
//!   values joins the probabilities before they are rounded ([`weights`]).
//! - Values come with their keys next to each other, in the order in which a lane has its scores ([`crate::transpose`]), as
//!   operands of 8 bits have no other place in shared memory.
//! - Hopper's matrix units add e4m3 products with 14 bits. So outputs are sums of [`FwdSm90::RUN_KEYS`] keys at most,
//!   which are parked: added up in f32, in the shared memory that the output tile takes afterwards.

mod weights;

use super::shared::{Shared, Turn};
use super::tile::{Lane, Tile, hide_keys};
use super::{Instance, Maps, Parameters, end_keys, epilogue, recompute, start_keys};
use crate::config::FwdSm90;
use crate::kernels::registers::Registers;
use crate::kernels::scales::Factors;
use crate::params::{FwdFp8Sm90Params, FwdParams, FwdSm90Params};
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::ld_st::{load_shared_16, store_shared_16};
use crate::ptx::shuffle::any;
use crate::ptx::wgmma::{self, Accumulators, descriptor};
use crate::ptx::{barrier, tma};
use weights::{Rescale, Weights};

impl<I: Instance> Parameters<I> for FwdFp8Sm90Params {
    #[inline(always)]
    fn common(&self) -> &FwdSm90Params {
        &self.sm90
    }

    #[inline(always)]
    unsafe fn multiply(&self, maps: &Maps, shared: &Shared) {
        // SAFETY: the caller's promise.
        unsafe { Consumer::<I>::run(self, maps, shared) }
    }
}

/// A warpgroup that multiplies.
struct Consumer<'a, I: Instance> {
    params: &'a FwdParams,
    shared: &'a Shared,
    at: Lane,
    k_turn: Turn,
    v_turn: Turn,
    weights: Weights,
    out: I::OutFrags,
    w: I::PFrags,
}

impl<'a, I: Instance> Consumer<'a, I> {
    /// Steps of a run.
    const RUN: u32 = FwdSm90::RUN_KEYS / I::CONFIG.tile_kv;

    #[inline(always)]
    unsafe fn run(params: &'a FwdFp8Sm90Params, maps: &Maps, shared: &'a Shared) {
        let (fwd, order) = (&params.sm90.fwd, &params.sm90.tiles);
        let mut q_turn = Turn::FULL;
        // SAFETY: the warpgroup is converged throughout; conditions depend on the block alone.
        unsafe {
            let at = Lane::current();
            shared.q.wait_full(q_turn);
            let mut tile = Tile::get::<I>(fwd, order, shared.tile_index(q_turn, at.lane));
            let mut factors = tile_factors(params, &tile, &at);
            let mut this = Self {
                params: fwd,
                shared,
                at,
                k_turn: Turn::FULL,
                v_turn: Turn::FULL,
                weights: Weights::new(&factors, (tile.steps - 1) * I::CONFIG.tile_kv),
                out: I::OutFrags::splat([0.0; 4]),
                w: I::PFrags::splat([0; 4]),
            };
            this.first_step(&tile, shared.q.tile(q_turn));
            loop {
                let q = shared.q.tile(q_turn);
                // Else LLVM, which knows that these are zeros, writes them behind the fence of the product.
                (0..I::CONFIG.head_dim / 8).for_each(|i| wgmma::settle(this.out.at(i)));
                let mut step = tile.steps - 1;
                while step > 0 {
                    step -= 1;
                    this.weights.go_on(&factors, step * I::CONFIG.tile_kv);
                    this.careful_step(&tile, step, q);
                    let end = Self::plain_end(&tile, &factors, step);
                    while step > end {
                        step -= 1;
                        this.plain_step(&tile, step, q);
                    }
                }
                shared.q.release(q_turn, this.at.lane);
                q_turn.advance(&shared.q);
                shared.q.wait_full(q_turn);
                let index = shared.tile_index(q_turn, this.at.lane);
                if index >= order.count {
                    break;
                }
                let next = Tile::get::<I>(fwd, order, index);
                let next_factors = tile_factors(params, &next, &this.at);
                let normal = this.chain(&tile, &next, &next_factors, shared.q.tile(q_turn));
                epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
                this.out = I::OutFrags::splat([0.0; 4]);
                (tile, factors) = (next, next_factors);
            }
            let normal = this.last_values(&tile);
            epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
            tma::wait_all();
        }
    }

    /// Starts `O += W V`.
    #[inline(always)]
    unsafe fn start_values(&mut self) {
        let v = descriptor(self.shared.v.tile(self.v_turn), 16);
        // SAFETY: the tile is full.
        unsafe {
            wgmma::fence();
            for step in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
                // 32 bytes of each row.
                self.out.add_values(I::CONFIG.operands(), self.w.get(step), v + 2 * step);
            }
            wgmma::commit_group();
        }
    }

    /// Waits for the product with values.
    #[inline(always)]
    unsafe fn end_values(&mut self) {
        // SAFETY: the caller's promise; behind the wait, the warp has read the tile.
        unsafe {
            wgmma::wait_group::<0>();
            for i in 0..I::CONFIG.head_dim / 8 {
                wgmma::settle(self.out.at(i));
            }
            for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
                wgmma::keep(self.w.get(i));
            }
            self.shared.v.release(self.v_turn, self.at.lane);
        }
        self.v_turn.advance(&self.shared.v);
    }

    /// The step behind which the first sums of `tile` are parked; 0 where none are.
    #[inline(always)]
    fn first_parked(tile: &Tile) -> u32 {
        (tile.steps - 1) & !(Self::RUN - 1)
    }

    /// Parks the sums of a run that ended with `step`, which is not the last one of the tile.
    #[inline(always)]
    unsafe fn park(&mut self, tile: &Tile, step: u32) {
        // SAFETY: the warpgroup is here.
        unsafe {
            if step < Self::first_parked(tile) {
                self.take_parked();
            } else {
                // The rows of the tile before have left.
                tma::wait_reads(self.at.thread.is_multiple_of(FwdSm90::GROUP_THREADS));
                barrier::sync_some(self.at.own_barrier(), FwdSm90::GROUP_THREADS);
            }
            for i in 0..I::CONFIG.head_dim / 8 {
                store_shared_16(self.parked(i), self.out.get(i).map(f32::to_bits));
            }
        }
        self.out = I::OutFrags::splat([0.0; 4]);
        (0..I::CONFIG.head_dim / 8).for_each(|i| wgmma::settle(self.out.at(i)));
    }

    /// Where the thread parks fragment `i`.
    #[inline(always)]
    fn parked(&self, i: u32) -> u32 {
        let thread = self.at.thread % FwdSm90::GROUP_THREADS;
        self.shared.out::<I>()
            + self.at.group * I::CONFIG.group_out_bytes()
            + (i * FwdSm90::GROUP_THREADS + thread) * 16
    }

    /// Adds what is parked to the output.
    #[inline(always)]
    unsafe fn take_parked(&mut self) {
        for i in 0..I::CONFIG.head_dim / 8 {
            // SAFETY: the thread has parked it.
            let parked = unsafe { load_shared_16(self.parked(i)) }.map(f32::from_bits);
            let o = self.out.at(i);
            for i in 0..4 {
                o[i] += parked[i];
            }
        }
    }

    /// Starts `S = Q K^T` and the product with the values of the step before, and waits for the scores.
    #[inline(always)]
    unsafe fn products(&mut self, q: u32) -> I::ScoreFrags {
        // SAFETY: waits for what the products read.
        unsafe {
            self.shared.k.wait_full(self.k_turn);
            let mut scores = start_keys::<I, I::ScoreFrags>(self.shared, &self.at, self.k_turn, q);
            self.shared.v.wait_full(self.v_turn);
            self.start_values();
            wgmma::wait_group::<1>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            scores
        }
    }

    /// Turns scores into weights where keys may be hidden, and rows without a key so far.
    #[inline(always)]
    unsafe fn careful_softmax(&mut self, tile: &Tile, step: u32, scores: &mut I::ScoreFrags) -> Rescale {
        if step >= tile.plain_steps {
            hide_keys::<I, _>(self.params, tile, &self.at, step, scores);
        }
        // SAFETY: converged.
        unsafe { self.weights.move_base(scores) }
    }

    /// Rescales the output so far, and what is parked of it, in `step`.
    #[inline(always)]
    unsafe fn rescale(&mut self, tile: &Tile, step: u32, factors: Rescale) {
        let rescaled = |o: [f32; 4]| [0, 1, 2, 3].map(|i| o[i] * factors[i / 2]);
        for i in 0..I::CONFIG.head_dim / 8 {
            *self.out.at(i) = rescaled(self.out.get(i));
        }
        // That of the step before comes behind.
        if step + 1 < Self::first_parked(tile) {
            for i in 0..I::CONFIG.head_dim / 8 {
                // SAFETY: the thread has parked it.
                unsafe {
                    let parked = load_shared_16(self.parked(i)).map(f32::from_bits);
                    store_shared_16(self.parked(i), rescaled(parked).map(f32::to_bits));
                }
            }
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
            self.careful_softmax(tile, tile.steps - 1, &mut scores);
            self.w = packed::<I>(&scores);
        }
    }

    /// A step in which keys may be hidden, or another block of scales or another run begins.
    #[inline(always)]
    unsafe fn careful_step(&mut self, tile: &Tile, step: u32, q: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut scores = self.products(q);
            let factors = self.careful_softmax(tile, step, &mut scores);
            self.end_values();
            if any((factors[0] != 1.0) | (factors[1] != 1.0)) {
                self.rescale(tile, step, factors);
            }
            if (step + 1).is_multiple_of(Self::RUN) {
                self.park(tile, step + 1);
            }
            self.w = packed::<I>(&scores);
        }
    }

    /// The step at which plain ones end that come after `step`.
    #[inline(always)]
    fn plain_end(tile: &Tile, factors: &Factors, step: u32) -> u32 {
        let run = (factors.block_keys() / I::CONFIG.tile_kv).min(Self::RUN);
        if step > tile.plain_steps { step } else { step & !(run - 1) }
    }

    /// Any other step.
    #[inline(always)]
    unsafe fn plain_step(&mut self, tile: &Tile, step: u32, q: u32) {
        // SAFETY: the caller's promise; every key of the step exists.
        unsafe {
            let mut scores = self.products(q);
            let sums = self.weights.keep_base(&mut scores);
            self.shared.pin(self.at.thread, sums[0] + sums[1]);
            self.end_values();
            if any(Weights::passes(sums)) {
                let factors = if any(Weights::is_lost(sums)) {
                    scores = recompute::scores::<I>(self.params, tile, &self.at, step * I::CONFIG.tile_kv);
                    self.weights.move_base(&mut scores)
                } else {
                    self.weights.lower(&mut scores, sums)
                };
                self.rescale(tile, step, factors);
            } else {
                self.weights.count(sums);
            }
            self.w = packed::<I>(&scores);
        }
    }

    /// The last product of `tile` and the first one of the next tile, which is `next`. Gives the factors that normalise
    /// the output.
    #[inline(always)]
    unsafe fn chain(&mut self, tile: &Tile, next: &Tile, next_factors: &Factors, q: u32) -> [f32; 2] {
        let step = next.steps - 1;
        // SAFETY: the caller's promise.
        unsafe {
            let mut scores = self.products(q);
            let normal = self.finish(tile);
            self.weights = Weights::new(next_factors, step * I::CONFIG.tile_kv);
            self.careful_softmax(next, step, &mut scores);
            self.end_tile(tile);
            self.w = packed::<I>(&scores);
            normal
        }
    }

    /// The last product of `tile`, behind which none comes. Gives the factors that normalise the output.
    #[inline(always)]
    unsafe fn last_values(&mut self, tile: &Tile) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            self.shared.v.wait_full(self.v_turn);
            self.start_values();
            let normal = self.finish(tile);
            self.end_tile(tile);
            normal
        }
    }

    /// Ends the softmax of a tile. Gives the factors that normalise its output.
    #[inline(always)]
    unsafe fn finish(&self, tile: &Tile) -> [f32; 2] {
        let weights = &self.weights;
        // SAFETY: converged.
        let normal = unsafe { epilogue::finish(self.params, tile, &self.at, &weights.softmax) };
        normal.map(|factor| factor * weights.unit)
    }

    /// Waits for the last product of a tile, and adds what is parked.
    #[inline(always)]
    unsafe fn end_tile(&mut self, tile: &Tile) {
        // SAFETY: the caller's promise.
        unsafe {
            self.end_values();
            if Self::first_parked(tile) > 0 {
                self.take_parked();
            }
        }
    }
}

/// The scales of a tile. The rows of a warpgroup lie in one block of scales; where there are none, any scale will do.
///
/// # Safety
/// The parameters are those of a plan, the tile is one of it.
#[inline(always)]
unsafe fn tile_factors<'a>(params: &'a FwdFp8Sm90Params, tile: &Tile, at: &Lane) -> Factors<'a> {
    let fwd = &params.sm90.fwd;
    let row = (tile.first_row + at.group * FwdSm90::GROUP_ROWS).min(fwd.q_len - 1);
    let scales = [&params.q_scales, &params.k_scales, &params.v_scales];
    // SAFETY: the caller's promise.
    unsafe { Factors::new(fwd, scales, tile.batch, [tile.head, tile.head_kv], row) }
}

/// Weights in e4m3, as operands of the product with values: a lane has two keys of each eight, and a word those of sixteen.
///
/// Behind the wait for the product with the ones before: else ptxas of CUDA 13.0, which is the one in drivers, takes these
/// registers for operands that are written too early, and serialises all products.
#[inline(always)]
fn packed<I: Instance>(weights: &I::ScoreFrags) -> I::PFrags {
    let mut w = I::PFrags::splat([0; 4]);
    for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
        let word = |first: u32, half: usize| {
            let (left, right) = (weights.get(4 * i + first), weights.get(4 * i + first + 1));
            pack_e4m3([left[2 * half], left[2 * half + 1], right[2 * half], right[2 * half + 1]])
        };
        *w.at(i) = [word(0, 0), word(0, 1), word(2, 0), word(2, 1)];
    }
    w
}
