//! `fwd_fp8_sm90`: [`super`] with operands in e4m3 and scales of blocks of rows.
//!
//! Tiles, roles, barriers and the producer are the same. A consumer's step is
//!
//! ```text
//! start S = Q K(j)^T     start T = P V(j+1)     wait S     P = softmax(S)     wait T     O += v T     pack P
//! ```
//!
//! - Hopper's matrix units add e4m3 products with 14 bits, so that the product T of a step with its values begins at zero. It
//!   joins the output by one FFMA a register, which applies the scale v of the values as well.
//! - Values come with their keys next to each other, in the order in which a lane has its scores ([`crate::transpose`]), as
//!   operands of 8 bits have no other place in shared memory.
//! - Scores become logarithms by a factor of their step: softmax scale times the scales of queries and keys. The base of a
//!   row is a logarithm ([`move_base`]).

use super::shared::{Shared, Turn};
use super::softmax::{Scores, Softmax, exponentiate, maxima, rescale};
use super::tile::{Lane, Tile, hide_keys};
use super::{Instance, Maps, Parameters, end_keys, epilogue, start_keys};
use crate::config::FwdSm90;
use crate::kernels::registers::Registers;
use crate::kernels::scales::Factors;
use crate::kernels::statistics::{finite_base, max_of_row};
use crate::params::{FwdFp8Sm90Params, FwdParams, FwdSm90Params};
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::math::{ex2, fma};
use crate::ptx::shuffle::any;
use crate::ptx::tma;
use crate::ptx::wgmma::{self, Accumulators, descriptor};

/// Logarithm of the largest probability where a base moves: 12 binades below it have all bits of e4m3.
const LARGEST: f32 = 6.0;

/// Logarithm of the largest probability before a base moves: below 448, the largest number of e4m3.
const BOUND: f32 = 8.5;

/// Bound of a base below which a score and its factor may be multiplied without rounding: the base, which was rounded, is
/// then off by no more than 2^-4.
const FAR: f32 = (1 << 20) as f32;

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
    softmax: Softmax,
    out: I::OutFrags,
    p: I::PFrags,
}

impl<'a, I: Instance> Consumer<'a, I> {
    #[inline(always)]
    unsafe fn run(params: &'a FwdFp8Sm90Params, maps: &Maps, shared: &'a Shared) {
        let (fwd, order) = (&params.sm90.fwd, &params.sm90.tiles);
        let mut q_turn = Turn::FULL;
        // SAFETY: the warpgroup is converged throughout; conditions depend on the block alone.
        unsafe {
            let mut this = Self {
                params: fwd,
                shared,
                at: Lane::current(),
                k_turn: Turn::FULL,
                v_turn: Turn::FULL,
                softmax: Softmax::new(1.0),
                out: I::OutFrags::splat([0.0; 4]),
                p: I::PFrags::splat([0; 4]),
            };
            this.at.begin_turns(I::CONFIG.groups());
            shared.q.wait_full(q_turn);
            let mut tile = Tile::get::<I>(fwd, order, shared.tile_index(q_turn, this.at.lane));
            let mut factors = this.factors(params, &tile);
            this.first_step(&tile, &factors, shared.q.tile(q_turn));
            loop {
                let q = shared.q.tile(q_turn);
                let mut step = tile.steps - 1;
                while step > 0 {
                    step -= 1;
                    this.step(&tile, &factors, step, q);
                }
                shared.q.release(q_turn, this.at.lane);
                q_turn.advance(&shared.q);
                shared.q.wait_full(q_turn);
                let index = shared.tile_index(q_turn, this.at.lane);
                if index >= order.count {
                    break;
                }
                let next = Tile::get::<I>(fwd, order, index);
                let next_factors = this.factors(params, &next);
                let normal = this.chain(&tile, &factors, &next, &next_factors, shared.q.tile(q_turn));
                epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
                this.out = I::OutFrags::splat([0.0; 4]);
                (tile, factors) = (next, next_factors);
            }
            let normal = this.last_values(&tile, &factors);
            epilogue::store::<I>(fwd, maps.out, shared, &tile, &this.at, normal, &this.out);
            if I::CONFIG.stages_output() {
                tma::wait_all();
            }
        }
    }

    /// The scales of a tile. The rows of a warpgroup lie in one block of scales; where there are none, any scale will do.
    #[inline(always)]
    unsafe fn factors(&self, params: &'a FwdFp8Sm90Params, tile: &Tile) -> Factors<'a> {
        let row = (tile.first_row + self.at.group * FwdSm90::GROUP_ROWS).min(self.params.q_len - 1);
        let scales = [&params.q_scales, &params.k_scales, &params.v_scales];
        // SAFETY: the parameters are those of a plan, the tile is one of it.
        unsafe { Factors::new(self.params, scales, tile.batch, [tile.head, tile.head_kv], row) }
    }

    /// Starts `T = P V`.
    #[inline(always)]
    unsafe fn start_values(&self) -> I::OutFrags {
        let v = descriptor(self.shared.v.tile(self.v_turn), 16);
        let mut sums = I::OutFrags::splat([0.0; 4]);
        // SAFETY: the tile is full.
        unsafe {
            wgmma::fence();
            for step in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
                // 32 bytes of each row.
                if step == 0 {
                    sums.begin_values(self.p.get(step), v);
                } else {
                    sums.add_values(I::CONFIG.operands(), self.p.get(step), v + 2 * step);
                }
            }
            wgmma::commit_group();
        }
        sums
    }

    /// The product with values has ended: adds it to the output.
    #[inline(always)]
    unsafe fn end_values(&mut self, mut sums: I::OutFrags, scale: f32) {
        for i in 0..I::CONFIG.head_dim / 8 {
            wgmma::settle(sums.at(i));
        }
        for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
            wgmma::keep(self.p.get(i));
        }
        // SAFETY: the warp has read the tile.
        unsafe { self.shared.v.release(self.v_turn, self.at.lane) };
        self.v_turn.advance(&self.shared.v);
        for i in 0..I::CONFIG.head_dim / 8 {
            let (o, sum) = (self.out.at(i), sums.get(i));
            for i in 0..4 {
                o[i] = fma(scale, sum[i], o[i]);
            }
        }
    }

    /// Starts `S = Q K^T` and the product with the values of the step before, and waits for the scores.
    #[inline(always)]
    unsafe fn products(&mut self, q: u32) -> (I::ScoreFrags, I::OutFrags) {
        let groups = I::CONFIG.groups();
        // SAFETY: waits for what the products read; the warpgroups take turns.
        unsafe {
            self.shared.k.wait_full(self.k_turn);
            self.at.take_turn(groups);
            let mut scores = start_keys::<I, I::ScoreFrags>(self.shared, &self.at, self.k_turn, q);
            self.shared.v.wait_full(self.v_turn);
            let sums = self.start_values();
            self.at.pass_turn(groups);
            wgmma::wait_group::<1>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            (scores, sums)
        }
    }

    /// Turns scores into probabilities. Gives the factors by which outputs so far have to be rescaled.
    #[inline(always)]
    unsafe fn exponentiate(&mut self, scores: &mut I::ScoreFrags, factor: f32) -> [f32; 2] {
        // SAFETY: converged.
        let Logarithm { factor, shift, rescale } = unsafe { move_base(&mut self.softmax, scores, factor) };
        let sums = exponentiate(scores, factor, shift);
        self.softmax.row_sum[0] += sums[0];
        self.softmax.row_sum[1] += sums[1];
        // SAFETY: the thread's own.
        unsafe { self.shared.pin(self.at.thread, sums[0] + sums[1]) };
        rescale
    }

    /// The first step of the first tile, with no product with values beside it.
    #[inline(always)]
    unsafe fn first_step(&mut self, tile: &Tile, factors: &Factors, q: u32) {
        let step = tile.steps - 1;
        // SAFETY: the queries are there.
        unsafe {
            let factor = factors.scores(step * I::CONFIG.tile_kv);
            self.shared.k.wait_full(self.k_turn);
            let mut scores = start_keys::<I, I::ScoreFrags>(self.shared, &self.at, self.k_turn, q);
            wgmma::wait_group::<0>();
            end_keys(self.shared, &self.at, &mut self.k_turn, &mut scores);
            hide_keys::<I, _>(self.params, tile, &self.at, step, &mut scores);
            self.exponentiate(&mut scores, factor);
            self.p = packed::<I>(&scores);
        }
    }

    /// Step `step`.
    #[inline(always)]
    unsafe fn step(&mut self, tile: &Tile, factors: &Factors, step: u32, q: u32) {
        let first_key = step * I::CONFIG.tile_kv;
        // SAFETY: the caller's promise.
        unsafe {
            // Early, as they come from far away.
            let (factor, scale) = (factors.scores(first_key), factors.values(first_key + I::CONFIG.tile_kv));
            let (mut scores, sums) = self.products(q);
            // A branch in one loop: in two loops, ptxas spills.
            if step >= tile.plain_steps {
                hide_keys::<I, _>(self.params, tile, &self.at, step, &mut scores);
            }
            let moved = self.exponentiate(&mut scores, factor);
            wgmma::wait_group::<0>();
            self.end_values(sums, scale);
            rescale::<I>(&mut self.out, moved);
            self.p = packed::<I>(&scores);
        }
    }

    /// The last product of `tile` and the first one of the next tile, which is `next`. Gives the factors that normalise
    /// the output.
    #[inline(always)]
    unsafe fn chain(
        &mut self,
        tile: &Tile,
        factors: &Factors,
        next: &Tile,
        next_factors: &Factors,
        q: u32,
    ) -> [f32; 2] {
        let step = next.steps - 1;
        // SAFETY: the caller's promise.
        unsafe {
            let (factor, scale) = (next_factors.scores(step * I::CONFIG.tile_kv), factors.values(0));
            let (mut scores, sums) = self.products(q);
            let normal = epilogue::finish(self.params, tile, &self.at, &self.softmax);
            self.softmax = Softmax::new(1.0);
            hide_keys::<I, _>(self.params, next, &self.at, step, &mut scores);
            self.exponentiate(&mut scores, factor);
            wgmma::wait_group::<0>();
            self.end_values(sums, scale);
            self.p = packed::<I>(&scores);
            normal
        }
    }

    /// The last product of `tile`, behind which none comes. Gives the factors that normalise the output.
    #[inline(always)]
    unsafe fn last_values(&mut self, tile: &Tile, factors: &Factors) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            self.shared.v.wait_full(self.v_turn);
            let scale = factors.values(0);
            let sums = self.start_values();
            let normal = epilogue::finish(self.params, tile, &self.at, &self.softmax);
            wgmma::wait_group::<0>();
            self.end_values(sums, scale);
            normal
        }
    }
}

/// The probabilities in e4m3, as operands of the product with values: a lane has two keys of each eight, and a word those of
/// sixteen.
///
/// Behind the wait for the product with the ones before: else ptxas of CUDA 13.0, which is the one in drivers, takes these
/// registers for operands that are written too early, and serialises all products.
#[inline(always)]
fn packed<I: Instance>(scores: &I::ScoreFrags) -> I::PFrags {
    let mut p = I::PFrags::splat([0; 4]);
    for i in 0..I::CONFIG.tile_kv / I::CONFIG.keys_of_step() {
        let word = |first: u32, half: usize| {
            let (left, right) = (scores.get(4 * i + first), scores.get(4 * i + first + 1));
            pack_e4m3([left[2 * half], left[2 * half + 1], right[2 * half], right[2 * half + 1]])
        };
        *p.at(i) = [word(0, 0), word(0, 1), word(2, 0), word(2, 1)];
    }
    p
}

/// How scores become logarithms of probabilities.
struct Logarithm {
    factor: f32,
    /// For each of the two rows.
    shift: [f32; 2],
    /// By what sums and outputs so far are rescaled; sums have been.
    rescale: [f32; 2],
}

/// Moves the base of a row of which a probability would pass 2^[`BOUND`], so that its largest one is 2^[`LARGEST`]. `factor`
/// makes logarithms of scores.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
unsafe fn move_base<S: Scores>(softmax: &mut Softmax, scores: &mut S, factor: f32) -> Logarithm {
    let maxima = maxima(scores, [f32::NEG_INFINITY; 2]).map(|score| score * factor);
    let passes = |softmax: &Softmax, row: usize, x: f32| x > softmax.base[row] + BOUND;
    let is_far = |softmax: &Softmax, row: usize| finite_base(softmax.base[row]).abs() > FAR;
    let calls = |row| passes(softmax, row, maxima[row]) | is_far(softmax, row);
    let mut rescale = [1.0; 2];
    // SAFETY: the caller's promise.
    unsafe {
        if any(calls(0) | calls(1)) {
            for row in 0..2 {
                let largest = max_of_row(maxima[row]);
                if passes(softmax, row, largest) {
                    let base = largest - LARGEST;
                    rescale[row] = ex2(softmax.base[row] - base);
                    softmax.base[row] = base;
                    softmax.row_sum[row] *= rescale[row];
                }
            }
            if any(is_far(softmax, 0) | is_far(softmax, 1)) {
                // Rounded like the base before it is subtracted: exact at the maximum.
                for tile in 0..S::LEN {
                    let s = scores.at(tile);
                    for i in 0..4 {
                        s[i] = s[i] * factor - finite_base(softmax.base[i / 2]);
                    }
                }
                return Logarithm { factor: 1.0, shift: [0.0; 2], rescale };
            }
        }
    }
    Logarithm { factor, shift: softmax.base.map(|base| -finite_base(base)), rescale }
}
