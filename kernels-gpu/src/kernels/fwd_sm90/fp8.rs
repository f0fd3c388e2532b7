//! `fwd_fp8_sm90`: [`super`] with operands in e4m3 and scales of blocks of rows.
//!
//! Tiles, roles, barriers and the producer are the same, but warpgroups take no turns. A consumer's step is
//!
//! ```text
//! start S = Q K(j)^T     start O += W V(j+1)     wait S     W = weights(S)     wait O     pack W
//! ```
//!
//! - Queries stay in registers, and `q.empty` ends a phase once all warps have them: products read less of shared memory.
//! - Scores become logarithms by a factor of their step: softmax scale times the scales of queries and keys. The scale of the
//!   values joins the probabilities before they are rounded ([`weights`]).
//! - Values come with their keys next to each other, in the order in which a lane has its scores ([`crate::transpose`]), as
//!   operands of 8 bits have no other place in shared memory.
//! - Sums of weights are products too, with a row of ones behind values ([`FwdSm90::sum_rows`]), unless exact ([`weights`]).
//! - Hopper's matrix units add e4m3 products with 14 bits. So outputs are sums of [`FwdSm90::RUN_KEYS`] keys at most,
//!   which are parked ([`parking`]).

mod parking;
mod weights;

use super::shared::{Shared, Turn};
use super::softmax::maxima;
use super::tile::{Lane, Tile, hide_keys};
use super::{Instance, Maps, Parameters, end_keys, epilogue, recompute};
use crate::config::FwdSm90;
use crate::kernels::registers::Registers;
use crate::kernels::scales::Factors;
use crate::params::{FwdFp8Sm90Params, FwdParams, FwdSm90Params, Scales};
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::ldmatrix::ldmatrix_x4;
use crate::ptx::shuffle::any;
use crate::ptx::wgmma::{self, Accumulators, descriptor};
use crate::ptx::{barrier, opaque, tma};
use core::mem::replace;
use parking::rescaled;
use weights::{Rescale, StepScales, Weights};

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
    q_turn: Turn,
    k_turn: Turn,
    v_turn: Turn,
    /// Whether the keys of the next product are known to be there. A plain step asks, as an answer takes its time; others wait.
    k_is_full: bool,
    /// Whether sums of weights are exact ones.
    exact: bool,
    weights: Weights,
    q: I::QFrags,
    out: I::OutFrags,
    w: I::PFrags,
}

impl<'a, I: Instance> Consumer<'a, I> {
    #[inline(always)]
    unsafe fn run(params: &'a FwdFp8Sm90Params, maps: &Maps, shared: &'a Shared) {
        let (fwd, order) = (&params.sm90.fwd, &params.sm90.tiles);
        // SAFETY: the warpgroup is converged throughout; conditions depend on the block alone.
        unsafe {
            let at = Lane::current();
            shared.q.wait_full(Turn::FULL);
            let mut tile = Tile::get::<I>(fwd, order, shared.tile_index(Turn::FULL, at.lane));
            let mut factors = tile_factors(params, &tile, &at);
            let mut this = Self {
                params: fwd,
                shared,
                at,
                q_turn: Turn::FULL,
                k_turn: Turn::FULL,
                v_turn: Turn::FULL,
                k_is_full: false,
                exact: fwd.lse != 0 || params.v_scales.shift < Scales::WHOLE_HEAD,
                weights: Weights::new(&factors, StepScales::load(&factors, (tile.steps - 1) * I::CONFIG.tile_kv)),
                q: I::QFrags::splat([0; 4]),
                out: I::OutFrags::splat([0.0; 4]),
                w: I::PFrags::splat([0; 4]),
            };
            this.take_queries();
            this.first_step(&tile);
            loop {
                // Else LLVM, which knows that these are zeros, writes them behind the fence of the product.
                (0..I::CONFIG.out_frags()).for_each(|i| wgmma::settle(this.out.at(i)));
                let mut step = tile.steps - 1;
                loop {
                    let end = Self::plain_end(&tile, &factors, step);
                    if this.exact {
                        this.plain_steps::<true>(&tile, step, end);
                    } else {
                        this.plain_steps::<false>(&tile, step, end);
                    }
                    step = end;
                    if step == 0 {
                        break;
                    }
                    if step.is_multiple_of(Self::RUN) && step < tile.steps - 1 {
                        this.park(&tile, step);
                    }
                    if Self::is_careful(&tile, &factors, step) {
                        step -= 1;
                        this.careful_step(&tile, &factors, step);
                    }
                }
                shared.q.wait_full(this.q_turn);
                let index = shared.tile_index(this.q_turn, this.at.lane);
                if index >= order.count {
                    break;
                }
                let next = Tile::get::<I>(fwd, order, index);
                let next_factors = tile_factors(params, &next, &this.at);
                this.take_queries();
                let normal = this.chain(&tile, &next, &next_factors);
                epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
                this.out = I::OutFrags::splat([0.0; 4]);
                (tile, factors) = (next, next_factors);
            }
            let normal = this.last_values(&tile);
            epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
            tma::wait_all();
        }
    }

    /// Takes the warpgroup's queries from shared memory, where others may come then.
    #[inline(always)]
    unsafe fn take_queries(&mut self) {
        // A lane gives the address of a row of one of four matrices of 8 rows and 16 bytes: rows first, then chunks.
        let row = self.at.first_row() + self.at.lane % 16;
        let address = self.shared.q.tile(self.q_turn) + row * FwdSm90::SPAN_BYTES;
        // SAFETY: the queries are there; behind the barrier, the warp has read them.
        unsafe {
            for step in 0..I::CONFIG.key_steps() {
                let chunk = 2 * step + self.at.lane / 16;
                *self.q.at(step) = ldmatrix_x4(address + 16 * (chunk ^ row % 8));
            }
            barrier::sync_warp();
            self.shared.q.release(self.q_turn, self.at.lane);
        }
        self.q_turn.advance(&self.shared.q);
    }

    /// Starts `S = Q K^T`.
    #[inline(always)]
    unsafe fn start_keys(&self) -> I::ScoreFrags {
        let mut scores = I::ScoreFrags::splat([0.0; 4]);
        let k = descriptor(self.shared.k.tile(self.k_turn), 16);
        // SAFETY: the tile is full.
        unsafe {
            wgmma::fence();
            scores.begin_e4m3(self.q.get(0), k);
            for step in 1..I::CONFIG.key_steps() {
                // 32 bytes of each row.
                scores.add_values(I::CONFIG.operands(), self.q.get(step), k + 2 * step);
            }
            wgmma::commit_group();
        }
        scores
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
            for i in 0..I::CONFIG.out_frags() {
                wgmma::settle(self.out.at(i));
            }
            for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
                wgmma::keep(self.w.get(i));
            }
            self.shared.v.release(self.v_turn, self.at.lane);
        }
        self.v_turn.advance(&self.shared.v);
    }

    /// Starts `S = Q K^T` and the product with the values of the step before, and waits for the scores.
    #[inline(always)]
    unsafe fn products(&mut self) -> I::ScoreFrags {
        // SAFETY: waits for what the products read.
        unsafe {
            if !self.k_is_full {
                self.shared.k.wait_full(self.k_turn);
            }
            let mut scores = self.start_keys();
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
            // Else rows have registers of their own throughout a tile, and others are spilled.
            let at = Lane { thread: opaque(self.at.thread), lane: opaque(self.at.lane), ..self.at };
            hide_keys::<I, _>(self.params, tile, &at, step, scores);
        }
        // SAFETY: converged.
        unsafe { self.weights.move_base(scores, self.exact) }
    }

    /// Counts the sums of packed weights since the last time, unless sums are exact.
    #[inline(always)]
    fn count_packed(&mut self) {
        if !self.exact {
            self.weights.count_packed(self.out.at(I::CONFIG.head_dim / 8));
        }
    }

    /// Rescales the output so far, and what is parked of it, in `step`.
    #[inline(always)]
    unsafe fn rescale(&mut self, tile: &Tile, step: u32, factors: Rescale) {
        for i in 0..I::CONFIG.out_frags() {
            *self.out.at(i) = rescaled(self.out.get(i), factors);
        }
        if step < Self::first_parked(tile) {
            // SAFETY: there is some of the tile.
            unsafe { self.rescale_parked(factors) }
        }
    }

    /// The first step of the first tile, with no product with values beside it.
    #[inline(always)]
    unsafe fn first_step(&mut self, tile: &Tile) {
        // SAFETY: the queries are there.
        unsafe {
            self.shared.k.wait_full(self.k_turn);
            let mut scores = self.start_keys();
            wgmma::wait_group::<0>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            self.careful_softmax(tile, tile.steps - 1, &mut scores);
            self.w = packed::<I>(&scores);
        }
    }

    /// A step in which keys may be hidden, or another block of scales begins.
    #[inline(always)]
    unsafe fn careful_step(&mut self, tile: &Tile, factors: &Factors, step: u32) {
        // SAFETY: the caller's promise; the step has keys.
        unsafe {
            self.k_is_full = false;
            let scales = StepScales::load(factors, step * I::CONFIG.tile_kv);
            let mut scores = self.products();
            self.weights.go_on(factors, scales);
            let factors = self.careful_softmax(tile, step, &mut scores);
            self.end_values();
            if any((factors[0] != 1.0) | (factors[1] != 1.0)) {
                self.rescale(tile, step, factors);
            }
            self.count_packed();
            self.w = packed::<I>(&scores);
        }
    }

    /// Whether the step after `step` is a careful one.
    #[inline(always)]
    fn is_careful(tile: &Tile, factors: &Factors, step: u32) -> bool {
        step > tile.plain_steps || step.is_multiple_of(factors.block_keys() / I::CONFIG.tile_kv)
    }

    /// The step at which plain ones end that come after `step`, or pause for sums to be parked.
    #[inline(always)]
    fn plain_end(tile: &Tile, factors: &Factors, step: u32) -> u32 {
        let run = (factors.block_keys() / I::CONFIG.tile_kv).min(Self::RUN);
        if Self::is_careful(tile, factors, step) { step } else { (step - 1) & !(run - 1) }
    }

    /// The steps after `step` down to `end`, all plain; `EXACT` is what `exact` says.
    #[inline(always)]
    unsafe fn plain_steps<const EXACT: bool>(&mut self, tile: &Tile, mut step: u32, end: u32) {
        while step > end {
            step -= 1;
            // SAFETY: the caller's promise.
            unsafe { self.plain_step::<EXACT>(tile, step) }
        }
    }

    /// Any other step.
    #[inline(always)]
    unsafe fn plain_step<const EXACT: bool>(&mut self, tile: &Tile, step: u32) {
        // SAFETY: the caller's promise; every key of the step exists.
        unsafe {
            let mut scores = self.products();
            let mut sums = self.weights.keep_base(&mut scores);
            self.shared.pin(self.at.thread, Self::early_bits(&scores));
            self.end_values();
            self.k_is_full = self.shared.k.is_full(self.k_turn);
            if !EXACT {
                self.weights.count_packed(self.out.at(I::CONFIG.head_dim / 8));
            }
            self.w = packed::<I>(&scores);
            if any(self.is_full()) {
                let maxima = maxima(&scores, [0.0; 2]);
                let factors = if any(Weights::is_lost(maxima)) {
                    scores = recompute::scores::<I>(self.params, tile, &self.at, step * I::CONFIG.tile_kv);
                    sums = [0.0; 2];
                    self.weights.move_base(&mut scores, EXACT)
                } else {
                    self.weights.lower(&mut scores, maxima)
                };
                self.rescale(tile, step, factors);
                self.w = packed::<I>(&scores);
                sums = [sums[0] * factors[0], sums[1] * factors[1]];
            }
            if EXACT {
                self.weights.count(sums);
            }
        }
    }

    /// Bits that the first weights lead to: those before the wait for the product with values.
    #[inline(always)]
    fn early_bits(weights: &I::ScoreFrags) -> u32 {
        let mut bits = 0;
        for i in 0..I::CONFIG.early_exponentials() / 4 {
            let [a, b, c, d] = weights.get(i).map(f32::to_bits);
            bits |= a | b | c | d;
        }
        bits
    }

    /// Whether one of the lane's packed weights is the largest number of e4m3, and may have been more.
    #[inline(always)]
    fn is_full(&self) -> bool {
        let mut bits = 0;
        for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
            // 0x7e in a byte, or NaN, goes over into its sign.
            self.w.get(i).into_iter().for_each(|word| bits |= word + 0x0202_0202);
        }
        bits & 0x8080_8080 != 0
    }

    /// The last product of `tile` and the first one of the next tile, which is `next`. Gives the factors that normalise
    /// the output.
    #[inline(always)]
    unsafe fn chain(&mut self, tile: &Tile, next: &Tile, next_factors: &Factors) -> [f32; 2] {
        let step = next.steps - 1;
        // SAFETY: the caller's promise.
        unsafe {
            self.k_is_full = false;
            let scales = StepScales::load(next_factors, step * I::CONFIG.tile_kv);
            let mut scores = self.products();
            let weights = replace(&mut self.weights, Weights::new(next_factors, scales));
            self.careful_softmax(next, step, &mut scores);
            let normal = self.end_tile(tile, weights);
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
            self.end_tile(tile, self.weights)
        }
    }

    /// Waits for the last product of a tile, and adds what is parked. Gives the factors that normalise the output.
    #[inline(always)]
    unsafe fn end_tile(&mut self, tile: &Tile, mut weights: Weights) -> [f32; 2] {
        // SAFETY: the caller's promise; converged.
        unsafe {
            self.end_values();
            if Self::first_parked(tile) > 0 {
                self.take_parked();
            }
            if !self.exact {
                weights.count_packed(self.out.at(I::CONFIG.head_dim / 8));
            }
            epilogue::finish(self.params, tile, &self.at, &weights.softmax).map(|factor| factor * weights.unit)
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
