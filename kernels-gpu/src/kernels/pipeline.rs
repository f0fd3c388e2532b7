//! The copies of keys and values into stages of shared memory: which tile is whose, and when it is there. The steps and
//! the barriers are those of the table in [`super::fwd_sm80`].

use super::block::{Instance, Position};
use super::tile::TileCopy;
use crate::config::FwdSm80;
use crate::params::{FwdParams, Strides, kv_head};
use crate::ptx::{barrier, cp_async, sreg};

/// The copies of keys and values, and which stage is whose.
pub struct Pipeline {
    config: FwdSm80,
    k: TileCopy,
    v: TileCopy,
    k_shared: u32,
    v_shared: u32,
}

impl Pipeline {
    /// The share of thread `thread` in the copies. Keys count from `first_key` on.
    #[inline(always)]
    pub fn new<I: Instance>(params: &FwdParams, at: &Position, thread: u32, first_key: u32) -> Self {
        let config = I::CONFIG;
        let head = kv_head(at.head, params.kv_head_reciprocal);
        let copy = |address: u64, stride: &Strides| {
            let first = address + stride.row_offset(first_key);
            TileCopy::new(config, thread, first, stride, at.batch, head, params.head_dim / I::PACKED)
        };
        let k_shared = sreg::dynamic_shared() + config.q_bytes();
        Self {
            config,
            k: copy(params.k, &params.k_stride),
            v: copy(params.v, &params.v_stride),
            k_shared,
            v_shared: k_shared + config.stages * config.step_bytes(),
        }
    }

    /// Starts the copies of the queries and of the first stages, and waits for the queries and the first keys. Keys count
    /// from `first_key` on.
    #[inline(always)]
    pub unsafe fn start<I: Instance>(
        params: &FwdParams,
        at: &Position,
        first_key: u32,
        total: u32,
        kv_len: u32,
    ) -> Self {
        let config = I::CONFIG;
        let shared = sreg::dynamic_shared();
        let pipeline = Self::new::<I>(params, at, at.thread, first_key);
        // SAFETY: shared memory is free at the start; rows that do not exist are not read.
        unsafe {
            let columns = params.head_dim / I::PACKED;
            let q = TileCopy::new(config, at.thread, params.q, &params.q_stride, at.batch, at.head, columns);
            q.start::<true>(shared, at.block_row, config.tile_q, params.q_len);
            let step = |ahead: u32| total - 1 - ahead;
            if config.values_lag() {
                for ahead in 0..config.stages {
                    if ahead < total {
                        let first_row = step(ahead) * config.step();
                        pipeline.k.start::<true>(pipeline.keys(step(ahead)), first_row, config.step(), kv_len);
                        pipeline.start_values::<true>(step(ahead), kv_len);
                    }
                    cp_async::commit();
                }
            } else if total > 0 {
                pipeline.start_step::<true>(step(0), kv_len);
            } else {
                // As many groups as a step has: the first is waited for, and holds the queries.
                (0..=config.key_groups()).for_each(|_| cp_async::commit());
            }
            cp_async::wait(config.groups_in_flight());
            barrier::sync_threads();
        }
        pipeline
    }

    /// Address of the keys of step `step`.
    #[inline(always)]
    pub fn keys(&self, step: u32) -> u32 {
        self.k_shared + step % self.config.stages * self.config.step_bytes()
    }

    /// Address of the values of step `step`.
    #[inline(always)]
    pub fn values(&self, step: u32) -> u32 {
        self.v_shared + step % self.config.stages * self.config.step_bytes()
    }

    /// Starts the copy of the values of step `step`.
    #[inline(always)]
    unsafe fn start_values<const BOUNDED: bool>(&self, step: u32, kv_len: u32) {
        let rows = self.config.step();
        // SAFETY: the caller freed the tile; with BOUNDED, rows that do not exist are not read.
        unsafe { self.v.start::<BOUNDED>(self.values(step), step * rows, rows, kv_len) }
    }

    /// With one stage: starts the copies of step `step`, the keys in [`FwdSm80::key_groups`] groups, the values in one.
    #[inline(always)]
    unsafe fn start_step<const BOUNDED: bool>(&self, step: u32, kv_len: u32) {
        let config = self.config;
        let groups = config.key_groups();
        // A group holds its share of every split's keys.
        let (pieces, rows) = if groups == 1 { (1, config.step()) } else { (config.kv_splits, config.tile_kv / groups) };
        for group in 0..groups {
            for piece in 0..pieces {
                let row = piece * config.tile_kv + group * rows;
                let target = self.keys(step) + row * config.row_bytes();
                // SAFETY: the caller freed the tiles; with BOUNDED, rows that do not exist are not read.
                unsafe { self.k.start::<BOUNDED>(target, step * config.step() + row, rows, kv_len) }
            }
            cp_async::commit();
        }
        // SAFETY: as above.
        unsafe { self.start_values::<BOUNDED>(step, kv_len) }
        cp_async::commit();
    }

    /// Starts the copies into the tiles that the step before `step` freed, unless `step` is the first.
    #[inline(always)]
    pub unsafe fn begin_step(&self, step: u32, total: u32) {
        if step + 1 == total {
            return;
        }
        let config = self.config;
        // SAFETY: the tiles are free; only rows of the first step can lie past the end.
        unsafe {
            if !config.values_lag() {
                self.start_step::<false>(step, 0);
                cp_async::wait(config.groups_in_flight());
                barrier::sync_threads();
                return;
            }
            if step + 1 >= config.stages {
                let later = step + 1 - config.stages;
                self.k.start::<false>(self.keys(later), later * config.step(), config.step(), 0);
            }
            if step + 2 < total && step + 2 >= config.stages {
                self.start_values::<false>(step + 2 - config.stages, 0);
            }
            cp_async::commit();
        }
    }

    /// Waits for what the step after `step` begins with, or for the last values.
    #[inline(always)]
    pub unsafe fn end_step(&self, step: u32) {
        let config = self.config;
        if !config.values_lag() && step == 0 {
            return;
        }
        if config.values_lag() {
            cp_async::wait(config.groups_in_flight() - 1);
        }
        // SAFETY: barrier A, see the table in `fwd_sm80`.
        unsafe { barrier::sync_threads() }
    }

    /// With one stage: waits for the second half of the keys.
    #[inline(always)]
    pub unsafe fn wait_keys(&self) {
        cp_async::wait(1);
        // SAFETY: barrier B, see the table in `fwd_sm80`.
        unsafe { barrier::sync_threads() }
    }

    /// With one stage: waits for the values.
    #[inline(always)]
    pub unsafe fn wait_values(&self) {
        cp_async::wait(0);
        // SAFETY: barrier C, see the table in `fwd_sm80`.
        unsafe { barrier::sync_threads() }
    }
}
