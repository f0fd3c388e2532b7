//! `decode`: few query rows against many keys, which is all about memory.
//!
//! The query rows of all heads that share a key head are packed into tiles of 16 rows. A block owns one such tile and
//! one part of the keys (a split). Inside the block each warp owns every `warps`-th tile of keys and streams them
//! through stages of its own, so that nothing in the loop waits for another warp. What binds the kernel is how many
//! bytes are on their way: all stages of all warps.
//!
//! ```text
//! shared memory   queries | keys, stage 0..S, warp 0..W | values, stage 0..S, warp 0..W     (merge area at the end)
//! groups          K and V of tile 0 with the queries, K and V of tile 1, ...
//!
//! start    start tiles 0..S    wait, barrier: the queries are there
//! tile t   wait for t   scores = Q K^T   softmax   out += P V   start t+S in its place
//! end      barrier   warps merge through shared memory (`combine`)
//! ```
//!
//! Masks cost too little beside memory to have a loop without them.

use super::block::{Instance, Position, Queries, multiply_keys};
use super::combine;
use super::fwd_sm80::{multiply_values, pack_probabilities};
use super::pages::{MAX_PARTS, PART, PageTable, WarpCopy};
use super::registers::Registers;
use super::sequence_keys;
use super::softmax::Softmax;
use crate::config::{Decode, FwdSm80, WARP};
use crate::mask::visible_keys;
use crate::params::{FwdParams, packed_row};
use crate::ptx::{barrier, cp_async, sreg};

/// The kernel.
///
/// # Safety
/// Launched with the grid, block and shared memory of a plan, whose parameters these are.
#[inline(always)]
pub unsafe fn run<I: Instance>(params: FwdParams) {
    let config = I::CONFIG;
    let row_tiles = params.packed_rows.div_ceil(Decode::ROWS);
    let (thread, block) = (sreg::thread_idx_x(), sreg::block_idx_x());
    // There is a row, or there would be no block.
    let split = block / row_tiles.max(1);
    let at = Position {
        batch: sreg::block_idx_z(),
        head: sreg::block_idx_y(),
        block_row: (block - split * row_tiles) * Decode::ROWS,
        warp_row: 0,
        split: thread / WARP,
        part: split,
        lane: thread % WARP,
        thread,
    };
    // SAFETY: the caller's promise; every thread of the block takes the same path through the barriers, and every lane
    // of a warp through its loop, as their conditions depend on the block or the warp alone.
    unsafe {
        let kv_len = sequence_keys(&params, at.batch);
        let shared = sreg::dynamic_shared();
        let stream = Stream::new(config, &params, &at, shared, kv_len);
        let mut ahead = [[0; MAX_PARTS]; MAX_STAGES];
        for stage in 0..config.stages {
            *ahead.at(stage) = stream.pages(stage);
        }
        for stage in 0..config.stages {
            stream.start(stage, stage * config.step_bytes(), ahead.get(stage));
            if stage == 0 {
                start_queries(config, &params, &at, shared);
            }
            cp_async::commit();
        }
        let mut pages = stream.pages(config.stages);
        let visible = [0, 1].map(|half| {
            let row = at.block_row + 8 * half + at.lane / 4;
            let (_, row) = packed_row(row, params.q_len, params.q_len_reciprocal);
            visible_keys(row as i32, kv_len, params.causal_offset)
        });
        let mut out = I::OutFrags::splat([0.0; 4]);
        let mut softmax = Softmax::<I>::new(params.scale_log2);
        let (parts, mut p) = (config.tile_kv / 16, I::PFrags::splat([0; 4]));
        cp_async::wait(config.stages - 1);
        barrier::sync_threads();
        let q = Queries::<I>::load(shared, &at);

        let (mut tile, mut stage) = (0, 0);
        while tile < stream.tiles {
            cp_async::wait(config.stages - 1);
            barrier::sync_warp();
            let mut scores = I::ScoreFrags::splat([0.0; 4]);
            multiply_keys(&q, stream.keys + stage, 0..parts, &at, &mut scores);
            hide::<I>(&mut scores, visible, stream.first_key(tile) + at.lane % 4 * 2);
            softmax.move_base(&mut scores, &mut out);
            for part in 0..parts {
                pack_probabilities::<I>(&scores, part, &mut p);
            }
            multiply_values::<I>(&p, stream.values + stage, 0..parts, &at, &mut out);
            // All lanes are done with the tile.
            barrier::sync_warp();
            stream.start(tile + config.stages, stage, pages);
            cp_async::commit();
            tile += 1;
            pages = stream.pages(tile + config.stages);
            stage += config.step_bytes();
            if stage == config.stages * config.step_bytes() {
                stage = 0;
            }
        }

        softmax.finish();
        combine::finish::<I>(&params, &at, shared, &softmax, &out);
    }
}

/// Most stages of a warp.
const MAX_STAGES: usize = 6;

/// The keys and values of one warp.
struct Stream {
    config: FwdSm80,
    table: PageTable,
    k: WarpCopy,
    v: WarpCopy,
    /// Keys of stage 0 of all warps.
    keys: u32,
    /// Values of stage 0 of all warps.
    values: u32,
    /// Bytes from the tile of warp 0 to the warp's own.
    own: u32,
    /// First key of the warp's first tile.
    first: u32,
    /// Keys below it exist, and some row of the block sees them.
    end: u32,
    /// Tiles of the warp.
    tiles: u32,
}

impl Stream {
    #[inline(always)]
    fn new(config: FwdSm80, params: &FwdParams, at: &Position, shared: u32, kv_len: i32) -> Self {
        let packed = |row| packed_row(row, params.q_len, params.q_len_reciprocal);
        let last = (at.block_row + Decode::ROWS).min(params.packed_rows) - 1;
        // Rows of one head end with its last row in the block, rows of several with the last of all.
        let (head, row) = packed(last);
        let last_row = if packed(at.block_row).0 == head { row } else { params.q_len - 1 };
        let visible = visible_keys(last_row as i32, kv_len, params.causal_offset) as u32;
        let begin = at.part * params.keys_per_split;
        let end = visible.min(begin + params.keys_per_split);
        let tiles = end.saturating_sub(begin).div_ceil(config.tile_kv);
        let copy = |address, stride| WarpCopy::new(config, at.lane, address, stride, at.head, params.head_dim);
        let keys = shared + config.q_bytes();
        Self {
            config,
            table: PageTable::new(params, at.batch),
            k: copy(params.k, &params.k_stride),
            v: copy(params.v, &params.v_stride),
            keys,
            values: keys + config.stages * config.step_bytes(),
            own: at.split * config.tile_kv * config.row_bytes(),
            first: begin + at.split * config.tile_kv,
            end,
            tiles: tiles.saturating_sub(at.split).div_ceil(config.warps),
        }
    }

    /// First key of tile `tile` of the warp.
    #[inline(always)]
    fn first_key(&self, tile: u32) -> u32 {
        self.first + tile * self.config.step()
    }

    /// The pages of tile `tile`, some of them meaningless where it does not exist or ends early.
    #[inline(always)]
    unsafe fn pages(&self, tile: u32) -> [u32; MAX_PARTS] {
        let mut pages = [0; MAX_PARTS];
        for part in 0..self.config.tile_kv / PART {
            // SAFETY: the keys exist below `end`.
            *pages.at(part) = unsafe { self.table.page(self.first_key(tile) + part * PART, self.end) };
        }
        pages
    }

    /// Starts the copies of tile `tile`, if it exists, into the stage at offset `stage`.
    #[inline(always)]
    unsafe fn start(&self, tile: u32, stage: u32, pages: [u32; MAX_PARTS]) {
        if tile >= self.tiles {
            return;
        }
        for part in 0..self.config.tile_kv / PART {
            let key = self.first_key(tile) + part * PART;
            let (page, row, left) = (pages.get(part), self.table.row(key), self.end as i32 - key as i32);
            let offset = stage + self.own + part * PART * self.config.row_bytes();
            // SAFETY: the caller freed the stage; rows exist below `end`.
            unsafe {
                self.k.start(self.keys + offset, page, row, left);
                self.v.start(self.values + offset, page, row, left);
            }
        }
    }
}

/// Starts the copies of the block's query rows; those that do not exist are zeros.
#[inline(always)]
unsafe fn start_queries(config: FwdSm80, params: &FwdParams, at: &Position, shared: u32) {
    let chunks = config.row_bytes() / 16;
    for pass in 0..(Decode::ROWS * chunks).div_ceil(config.threads()) {
        let item = pass * config.threads() + at.thread;
        let (row, chunk) = (item / chunks, item % chunks);
        if row < Decode::ROWS {
            let (head, q_row) = packed_row(at.block_row + row, params.q_len, params.q_len_reciprocal);
            let stride = &params.q_stride;
            let slice = stride.slice_offset(at.batch, at.head * params.group + head);
            let source = params.q + slice + stride.row_offset(q_row) + u64::from(chunk * 16);
            let exists = at.block_row + row < params.packed_rows && chunk * 8 < params.head_dim;
            // SAFETY: the tile is free at the start; what does not exist is not read.
            unsafe { cp_async::copy_16(shared + config.swizzle().offset(row, chunk), source, 0, exists as i32) }
        }
    }
}

/// Sets scores of hidden keys to -inf. Row `half` of the lane sees the first `visible[half]` keys, and the lane's first
/// score is that of key `first_key`.
#[inline(always)]
fn hide<I: Instance>(scores: &mut I::ScoreFrags, visible: [i32; 2], first_key: u32) {
    for half in 0..2 {
        let left = visible[half] - first_key as i32;
        for tile in 0..I::CONFIG.tile_kv / 8 {
            let s = scores.at(tile);
            for i in 0..2 {
                if (8 * tile + i) as i32 >= left {
                    s[2 * half + i as usize] = f32::NEG_INFINITY;
                }
            }
        }
    }
}
