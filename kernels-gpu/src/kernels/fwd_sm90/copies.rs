//! Tiles of queries, keys and values: the copies that fill them.

use super::tile::Tile;
use super::{Instance, Producer};
use crate::config::{FwdSm90, WARP};
use crate::ptx::ld_st::{store_shared_4, store_shared_16};
use crate::ptx::{barrier, cluster, mbarrier, tma};

impl<I: Instance> Producer<'_, I> {
    /// The queries of the tile at `index`, or the news that there is none.
    ///
    /// # Safety
    /// The warp is converged; the barriers are initialised.
    #[inline(always)]
    pub unsafe fn load_queries(&mut self, index: u32, tile: &Tile) {
        let (config, ring, turn, is_first_lane) = (I::CONFIG, &self.shared.q, self.q_turn, self.lane == 0);
        // SAFETY: the tile is empty.
        unsafe {
            ring.wait_empty(turn);
            if is_first_lane {
                store_shared_4(self.shared.index(turn), index);
            }
            barrier::sync_warp();
            let full = ring.full(turn);
            if index < self.order.count {
                mbarrier::arrive_expecting(full, config.q_bytes(), is_first_lane);
                let corner = [tile.first_row, tile.head, tile.batch];
                self.load(self.maps.q, ring.tile(turn), (config.tile_q, 1), corner, full);
            } else {
                mbarrier::arrive(full, is_first_lane);
            }
        }
        self.q_turn.advance(ring);
    }

    /// The keys of step `step` of a tile.
    ///
    /// # Safety
    /// The warp is converged; the barriers are initialised.
    #[inline(always)]
    pub unsafe fn load_keys(&mut self, tile: &Tile, step: u32) {
        let (config, ring, turn) = (I::CONFIG, &self.shared.k, self.k_turn);
        // SAFETY: the tile is empty.
        unsafe {
            ring.wait_empty(turn);
            let full = ring.full(turn);
            mbarrier::arrive_expecting(full, config.k_bytes(), self.lane == 0);
            self.load_step(self.maps.k, ring.tile(turn), tile, step, full);
        }
        self.k_turn.advance(ring);
    }

    /// The values of step `step` of a tile. Rows behind the sequence's own length are somebody's memory, where 0 * NaN would be
    /// NaN: they become zeros.
    ///
    /// # Safety
    /// The warp is converged; the barriers are initialised.
    #[inline(always)]
    pub unsafe fn load_values(&mut self, tile: &Tile, step: u32) {
        let (config, ring, turn, is_first_lane) = (I::CONFIG, &self.shared.v, self.v_turn, self.lane == 0);
        let first_key = step * config.tile_kv;
        let own_rows = tile.kv_len - first_key as i32;
        // SAFETY: the tile is empty.
        unsafe {
            ring.wait_empty(turn);
            let (full, values) = (ring.full(turn), ring.tile(turn));
            if config.e4m3 {
                // Who transposed them made these zeros.
                mbarrier::arrive_expecting(full, config.v_bytes(), is_first_lane);
                tma::load(values, self.maps.v, [first_key, 0, tile.head_kv, tile.batch], full, is_first_lane);
            } else if own_rows < config.tile_kv as i32 && tile.kv_len < self.params.kv_len as i32 {
                let index = self.shared.patch_of(turn);
                let patch = self.shared.patch(index);
                mbarrier::arrive_expecting(patch, config.v_bytes(), is_first_lane);
                self.load_step(self.maps.v, values, tile, step, patch);
                mbarrier::wait(patch, self.patches >> index & 1);
                self.patches ^= 1 << index;
                let mut row = own_rows.max(0) as u32 * 8 + self.lane;
                while row < config.tile_kv * 8 {
                    for span in 0..config.spans() {
                        store_shared_16(values + span * config.tile_kv * FwdSm90::SPAN_BYTES + row * 16, [0; 4]);
                    }
                    row += WARP;
                }
                tma::fence_shared();
                barrier::sync_warp();
                mbarrier::arrive(full, is_first_lane);
            } else {
                mbarrier::arrive_expecting(full, config.v_bytes(), is_first_lane);
                self.load_step(self.maps.v, values, tile, step, full);
            }
        }
        self.v_turn.advance(ring);
    }

    /// The block's part of the keys or values of a step, for all blocks of the cluster.
    ///
    /// # Safety
    /// That of [`Producer::load`].
    #[inline(always)]
    unsafe fn load_step(&self, map: u64, shared: u32, tile: &Tile, step: u32, barrier: u32) {
        let config = I::CONFIG;
        let corner = [step * config.tile_kv, tile.head_kv, tile.batch];
        // SAFETY: the caller's promise.
        unsafe { self.load(map, shared, (config.tile_kv, config.cluster), corner, barrier) }
    }

    /// Of a tile of so many rows, for so many blocks of the cluster, this block's part for all of them. `corner` is the tile's
    /// first row, its head and sequence.
    ///
    /// # Safety
    /// There is room at `shared`, and `barrier` expects the bytes, in each of these blocks.
    #[inline(always)]
    unsafe fn load(&self, map: u64, shared: u32, (rows, blocks): (u32, u32), corner: [u32; 3], barrier: u32) {
        let config = I::CONFIG;
        let first = if blocks > 1 { cluster::rank() * (rows / blocks) } else { 0 };
        for span in 0..config.spans() {
            let corner = [config.span_columns() * span, corner[0] + first, corner[1], corner[2]];
            let place = shared + (span * rows + first) * FwdSm90::SPAN_BYTES;
            // SAFETY: the caller's promise.
            unsafe {
                match blocks {
                    1 => tma::load(place, map, corner, barrier, self.lane == 0),
                    _ => tma::load_for_each(place, map, corner, barrier, blocks, self.lane == 0),
                }
            }
        }
    }
}
