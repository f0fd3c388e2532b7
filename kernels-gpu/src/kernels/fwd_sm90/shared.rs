//! What lies where in a block's shared memory, and whose turn it is there.

use super::Instance;
use crate::config::FwdSm90;
use crate::ptx::ld_st::{load_shared_4_if, store_shared_4};
use crate::ptx::{mbarrier, shuffle, sreg};

/// Four ones.
const ONES_E4M3: u32 = 0x3838_3838;

/// A ring of tiles: for each stage one barrier that ends a phase when the tile is full, and one when it is free again.
#[derive(Clone, Copy)]
pub struct Ring {
    /// The first `full` barrier; the `empty` ones are [`FwdSm90::MAX_STAGES`] further.
    barriers: u32,
    /// The first tile.
    tiles: u32,
    tile_bytes: u32,
    stages: u32,
    /// Blocks that have the same tile in the same stage: each copies a part of it for all.
    blocks: u32,
}

/// Where a thread stands in a ring: the stage that comes next, and the parity of its phase.
#[derive(Clone, Copy)]
pub struct Turn {
    stage: u32,
    parity: u32,
}

impl Turn {
    /// The first turn of whoever waits for full tiles.
    pub const FULL: Self = Self { stage: 0, parity: 0 };
    /// The first turn of whoever waits for empty tiles, which they all are in the beginning: no wait for the phase
    /// before the first one.
    pub const EMPTY: Self = Self { stage: 0, parity: 1 };

    /// Of who waits for an empty tile, where this is that of who waits for it to be full again.
    #[inline(always)]
    pub fn before(self) -> Self {
        Self { parity: self.parity ^ 1, ..self }
    }

    /// Goes on to the next stage of `ring`.
    #[inline(always)]
    pub fn advance(&mut self, ring: &Ring) {
        self.stage += 1;
        if self.stage == ring.stages {
            self.stage = 0;
            self.parity ^= 1;
        }
    }
}

impl Ring {
    /// Address of the tile.
    #[inline(always)]
    pub fn tile(&self, turn: Turn) -> u32 {
        self.tiles + turn.stage * self.tile_bytes
    }

    /// The barrier at which the tile's bytes count.
    #[inline(always)]
    pub fn full(&self, turn: Turn) -> u32 {
        self.barriers + 8 * turn.stage
    }

    /// The barrier at which the tile's readers arrive.
    #[inline(always)]
    fn empty(&self, turn: Turn) -> u32 {
        self.barriers + 8 * (FwdSm90::MAX_STAGES + turn.stage)
    }

    /// Waits until the tile is full.
    ///
    /// # Safety
    /// The barriers are initialised.
    #[inline(always)]
    pub unsafe fn wait_full(&self, turn: Turn) {
        // SAFETY: the caller's promise.
        unsafe { mbarrier::wait(self.full(turn), turn.parity) }
    }

    /// Whether the tile is full by now.
    ///
    /// # Safety
    /// The barriers are initialised.
    #[inline(always)]
    pub unsafe fn is_full(&self, turn: Turn) -> bool {
        // SAFETY: the caller's promise.
        unsafe { mbarrier::has_ended(self.full(turn), turn.parity) }
    }

    /// Waits until the tile is empty.
    ///
    /// # Safety
    /// The barriers are initialised.
    #[inline(always)]
    pub unsafe fn wait_empty(&self, turn: Turn) {
        // SAFETY: the caller's promise.
        unsafe { mbarrier::wait(self.empty(turn), turn.parity) }
    }

    /// The warp has read the tile.
    ///
    /// # Safety
    /// The barriers are initialised; all lanes are here.
    #[inline(always)]
    pub unsafe fn release(&self, turn: Turn, lane: u32) {
        let barrier = self.empty(turn);
        // SAFETY: the caller's promise.
        unsafe {
            if self.blocks > 1 {
                mbarrier::arrive_in_each(barrier, self.blocks, lane);
            } else {
                mbarrier::arrive(barrier, lane == 0);
            }
        }
    }

    /// [`Ring::wait_empty`], where a block of the cluster has read the tile: [`Ring::release_to`].
    ///
    /// # Safety
    /// The barriers are initialised.
    #[inline(always)]
    pub unsafe fn wait_empty_for_cluster(&self, turn: Turn) {
        // SAFETY: the caller's promise.
        unsafe { mbarrier::wait_for_cluster(self.empty(turn), turn.parity) }
    }

    /// The thread, if it `releases`, has read the tile, which block `rank` of the cluster may write again.
    ///
    /// # Safety
    /// The barriers of that block are initialised, and it has not ended.
    #[inline(always)]
    pub unsafe fn release_to(&self, rank: u32, turn: Turn, releases: bool) {
        // SAFETY: the caller's promise.
        unsafe { mbarrier::arrive_at(self.empty(turn), rank, releases) }
    }

    /// Lets a tile pass, which the warp has no use for.
    ///
    /// # Safety
    /// The barriers are initialised; all lanes are here.
    #[inline(always)]
    pub unsafe fn skip(&self, turn: &mut Turn, lane: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.wait_full(*turn);
            self.release(*turn, lane);
        }
        turn.advance(self);
    }

    /// `readers` are the warps of a block that read its tiles.
    ///
    /// # Safety
    /// One thread of the block does it, before all others use the barriers.
    #[inline(always)]
    unsafe fn init(&self, readers: u32) {
        for stage in 0..self.stages {
            let turn = Turn { stage, parity: 0 };
            // SAFETY: the caller's promise.
            unsafe {
                mbarrier::init(self.full(turn), 1);
                mbarrier::init(self.empty(turn), readers * self.blocks);
            }
        }
    }
}

/// The whole of it: barriers, numbers of tiles, query tiles, keys, values, output tile.
#[derive(Clone, Copy)]
pub struct Shared {
    /// Query tiles.
    pub q: Ring,
    /// Tiles of keys.
    pub k: Ring,
    /// Tiles of values.
    pub v: Ring,
    /// A number from the first block of the cluster: full in the other, empty in the first.
    pub tickets: Ring,
    base: u32,
}

impl Shared {
    // Behind the barriers of four rings.
    const PATCHES: u32 = 4 * 2 * FwdSm90::MAX_STAGES * 8;
    const INDICES: u32 = Self::PATCHES + FwdSm90::MAX_STAGES * 8;
    const TICKET: u32 = Self::INDICES + FwdSm90::MAX_STAGES * 4;

    /// The layout that the configuration of `I` calls for.
    #[inline(always)]
    pub fn new<I: Instance>() -> Self {
        let config = I::CONFIG;
        let base = sreg::dynamic_shared();
        let ring = |index: u32, tiles: u32, tile_bytes, stages, blocks| Ring {
            barriers: base + index * 2 * FwdSm90::MAX_STAGES * 8,
            tiles: base + tiles,
            tile_bytes,
            stages,
            blocks,
        };
        let (q_bytes, k_bytes, v_bytes) = (config.q_bytes(), config.k_bytes(), config.v_stage_bytes());
        let q = config.head_bytes();
        let k = q + config.q_stages() * q_bytes;
        let v = k + config.stages * k_bytes;
        Self {
            q: ring(0, q, q_bytes, config.q_stages(), 1),
            k: ring(1, k, k_bytes, config.stages, config.cluster),
            v: ring(2, v, v_bytes, config.stages, config.cluster),
            tickets: ring(3, Self::TICKET, 4, 1, 1),
            base,
        }
    }

    /// Initialises all barriers.
    ///
    /// # Safety
    /// One thread of the block does it, before all others use them.
    #[inline(always)]
    pub unsafe fn init<I: Instance>(&self) {
        let readers = I::CONFIG.groups() * 4;
        // SAFETY: the caller's promise.
        unsafe {
            self.q.init(readers);
            self.k.init(readers);
            self.v.init(readers);
            for index in 0..I::CONFIG.patches() {
                mbarrier::init(self.patch(index), 1);
            }
            if !I::CONFIG.is_alone() {
                self.tickets.init(1);
            }
            mbarrier::fence_init();
        }
    }

    /// Writes the rows behind each tile of values whose product with weights is their sum ([`FwdSm90::sum_rows`]). Products
    /// see them behind [`tma::fence_shared`] and a barrier.
    ///
    /// # Safety
    /// All threads of the block do it, before products read them.
    #[inline(always)]
    pub unsafe fn write_sum_rows<I: Instance>(&self, thread: u32) {
        let config = I::CONFIG;
        let bytes = config.sum_rows() * FwdSm90::SPAN_BYTES;
        for stage in 0..config.stages {
            let rows = self.v.tiles + stage * config.v_stage_bytes() + config.v_bytes();
            let mut byte = thread * 4;
            while byte < bytes {
                let word = if byte < FwdSm90::SPAN_BYTES { ONES_E4M3 } else { 0 };
                // SAFETY: the caller's promise.
                unsafe { store_shared_4(rows + byte, word) }
                byte += config.threads() * 4;
            }
        }
    }

    /// Which of [`Shared::patch`] the values of `turn` take: blocks of a cluster copy for each other, and may be a stage ahead.
    #[inline(always)]
    pub fn patch_of(&self, turn: Turn) -> u32 {
        if self.v.blocks > 1 { turn.stage } else { 0 }
    }

    /// Barrier `index` of those at which bytes of values count that are not for the readers yet.
    #[inline(always)]
    pub fn patch(&self, index: u32) -> u32 {
        self.base + Self::PATCHES + 8 * index
    }

    /// Where the number of the tile is whose queries are in the stage of `turn`.
    #[inline(always)]
    pub fn index(&self, turn: Turn) -> u32 {
        self.base + Self::INDICES + 4 * turn.stage
    }

    /// The number of the tile whose queries are in the stage of `turn`. The lane that releases the stage reads it for all,
    /// so that the read comes before the release.
    ///
    /// # Safety
    /// All lanes of the warp are converged, and the queries are there.
    #[inline(always)]
    pub unsafe fn tile_index(&self, turn: Turn, lane: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { shuffle::broadcast_u32(load_shared_4_if(self.index(turn), lane == 0), 0) }
    }

    /// Uses `value`, which the exponentials of a step lead to: else ptxas moves the wait for the product with values above
    /// them.
    ///
    /// # Safety
    /// `thread` is that of the caller, not counting the producer's.
    #[inline(always)]
    pub unsafe fn pin(&self, thread: u32, value: u32) {
        // SAFETY: four bytes of the thread's own, which nobody reads.
        unsafe { store_shared_4(self.base + FwdSm90::BARRIER_BYTES + 4 * thread, value) }
    }

    /// The output tile, where there is one.
    #[inline(always)]
    pub fn out<I: Instance>(&self) -> u32 {
        self.v.tiles + I::CONFIG.stages * I::CONFIG.v_stage_bytes()
    }
}
