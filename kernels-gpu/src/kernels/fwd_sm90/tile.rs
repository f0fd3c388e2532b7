//! What a block works on, and where a thread stands in it.

use super::Instance;
use super::softmax::Scores;
use crate::config::{FwdSm90, WARP};
use crate::kernels::registers::hide;
use crate::kernels::sequence_keys;
use crate::mask::visible_keys;
use crate::params::{FwdParams, TileOrder, kv_head, quotient};
use crate::ptx::{barrier, cluster, shuffle, sreg};

/// A tile of query rows, and the steps of keys that it walks.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Sequence.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// The key head of `head`.
    pub head_kv: u32,
    /// Its first query row.
    pub first_row: u32,
    /// Number of keys of its sequence.
    pub kv_len: i32,
    /// Steps, at least one: a tile that sees no key masks all of one.
    pub steps: u32,
    /// Steps, counted from the first key, in which all rows see all keys, and before which every row saw one.
    pub plain_steps: u32,
    /// Steps before these that the other block of the cluster walks, whose keys and values are copied here too: one at most.
    pub skipped: u32,
}

impl Tile {
    /// The block's tile at position `index` of the order, below its count.
    ///
    /// # Safety
    /// All lanes of the warp are converged; the parameters are those of the launch.
    #[inline(always)]
    pub unsafe fn get<I: Instance>(params: &FwdParams, order: &TileOrder, index: u32) -> Self {
        let config = I::CONFIG;
        let (mut tile, mut slice) = order.get(index);
        // The one of the cluster's tiles of the head that sees the most keys.
        let mut last_tile = tile;
        if !config.is_alone() {
            let rank = cluster::rank();
            if order.heads_together > 1 {
                slice = slice * config.cluster + rank;
            } else {
                last_tile = tile * config.cluster + config.cluster - 1;
                tile = tile * config.cluster + rank;
            }
        }
        let heads = u32::from(params.heads_q);
        let batch = quotient(slice, heads);
        // SAFETY: the sequence exists.
        let kv_len = (unsafe { shuffle::broadcast_u32(sequence_keys(params, batch) as u32, 0) }) as i32;
        // Steps before that of the last key that a row sees; of the first one, where it sees none.
        let steps_before = |row: u32| {
            let visible = visible_keys(row as i32, kv_len, params.causal_offset) as u32;
            (visible.max(1) - 1) / config.tile_kv
        };
        let first_row = tile * config.tile_q;
        let steps_of = |first_row: u32| steps_before((first_row + config.tile_q).min(params.q_len) - 1) + 1;
        let steps = steps_of(first_row);
        let plain_steps = steps_before(first_row).min(steps - 1);
        let skipped = if config.is_alone() { 0 } else { steps_of(last_tile * config.tile_q) - steps };
        let head = slice - batch * heads;
        let head_kv = kv_head(head, params.kv_head_reciprocal);
        Self { batch, head, head_kv, first_row, kv_len, steps, plain_steps, skipped }
    }

    /// Steps whose keys and values are copied.
    #[inline(always)]
    pub fn copied_steps(&self) -> u32 {
        self.steps + self.skipped
    }

    /// Whether a narrow step will do for the first one of warpgroup `group`. The next step is then a plain one.
    #[inline(always)]
    pub fn is_narrow<I: Instance>(&self, params: &FwdParams, group: u32) -> bool {
        let config = I::CONFIG;
        let last_row = self.first_row + (group + 1) * FwdSm90::GROUP_ROWS - 1;
        let visible = visible_keys(last_row as i32, self.kv_len, params.causal_offset) as u32;
        config.narrow_kv() < config.tile_kv
            && self.plain_steps > 0
            && self.plain_steps == self.steps - 1
            && visible <= self.plain_steps * config.tile_kv + config.narrow_kv()
    }
}

/// Where a consumer thread stands in its block.
#[derive(Clone, Copy)]
pub struct Lane {
    /// Warpgroup, not counting the producer's.
    pub group: u32,
    /// Thread, not counting the producer's.
    pub thread: u32,
    /// Lane of the warp.
    pub lane: u32,
}

impl Lane {
    /// Reads the special registers.
    ///
    /// # Safety
    /// All lanes of the warp are converged.
    #[inline(always)]
    pub unsafe fn current() -> Self {
        let thread = sreg::thread_idx_x() - FwdSm90::GROUP_THREADS;
        // SAFETY: converged. The same in all lanes, which ptxas then knows.
        let group = unsafe { shuffle::broadcast_u32(thread / FwdSm90::GROUP_THREADS, 0) };
        Self { group, thread, lane: thread % WARP }
    }

    /// Warp of the warpgroup.
    #[inline(always)]
    pub fn warp_of_group(&self) -> u32 {
        self.thread / WARP % 4
    }

    /// First row of the warp in the block's tile.
    #[inline(always)]
    pub fn first_row(&self) -> u32 {
        self.group * FwdSm90::GROUP_ROWS + self.warp_of_group() * 16
    }

    /// Gives the first turn to multiply to the first of `groups` warpgroups.
    ///
    /// # Safety
    /// The warpgroup is here, converged; all do so before the first turn.
    #[inline(always)]
    pub unsafe fn begin_turns(&self, groups: u32) {
        if groups > 1 && self.group == groups - 1 {
            // SAFETY: the caller's promise.
            unsafe { barrier::arrive_some(Self::turn_barrier(0), 2 * FwdSm90::GROUP_THREADS) }
        }
    }

    /// Waits for the warpgroup's turn.
    ///
    /// # Safety
    /// The warpgroup is here, converged; a turn is passed on before the next one.
    #[inline(always)]
    pub unsafe fn take_turn(&self, groups: u32) {
        if groups > 1 {
            // SAFETY: the caller's promise.
            unsafe { barrier::sync_some(Self::turn_barrier(self.group), 2 * FwdSm90::GROUP_THREADS) }
        }
    }

    /// Gives the turn to the next warpgroup.
    ///
    /// # Safety
    /// The warpgroup is here, converged, and has the turn.
    #[inline(always)]
    pub unsafe fn pass_turn(&self, groups: u32) {
        if groups > 1 {
            let next = if self.group == groups - 1 { 0 } else { self.group + 1 };
            // SAFETY: the caller's promise.
            unsafe { barrier::arrive_some(Self::turn_barrier(next), 2 * FwdSm90::GROUP_THREADS) }
        }
    }

    /// The named barrier of a warpgroup's turn.
    #[inline(always)]
    fn turn_barrier(group: u32) -> u32 {
        1 + group
    }

    /// The named barrier that the warpgroup has for itself.
    #[inline(always)]
    pub fn own_barrier(&self) -> u32 {
        5 + self.group
    }
}

/// Sets scores of step `step` that the lane's rows do not see to -inf.
#[inline(always)]
pub fn hide_keys<I: Instance, S: Scores>(params: &FwdParams, tile: &Tile, at: &Lane, step: u32, scores: &mut S) {
    let first_column = (step * I::CONFIG.tile_kv + at.lane % 4 * 2) as i32;
    for half in 0..2 {
        let row = tile.first_row + at.first_row() + 8 * half + at.lane / 4;
        let visible = visible_keys(row as i32, tile.kv_len, params.causal_offset) - first_column;
        hide(scores, 0, S::LEN, half, visible);
    }
}
