//! `fwd_sm90`: what its tile decides.

use super::{DType, MAX_HEAD_DIM, WARP, tile_columns};

/// `fwd_sm90`: tiles of `tile_q` query rows against steps of `tile_kv` keys, with Hopper's TMA and `wgmma`.
///
/// A block has one warpgroup that copies and `tile_q / 64` that multiply, each 64 query rows. Blocks are persistent: as
/// many as the GPU has places for, and each takes tile after tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FwdSm90 {
    /// Type of q, k, v and out: [`DType::F16`] or [`DType::Bf16`].
    pub dtype: DType,
    /// Columns of the tiles: 64, 96, 128, 192 or 256; a smaller head dim is padded with zeros by the copies.
    pub head_dim: u32,
    /// Query rows of a block, a multiple of [`FwdSm90::GROUP_ROWS`].
    pub tile_q: u32,
    /// Keys of a step, a multiple of 16.
    pub tile_kv: u32,
    /// How many tiles of keys, and of values, have room in shared memory at once.
    pub stages: u32,
}

impl FwdSm90 {
    /// Query rows of a warpgroup: the M of `wgmma`.
    pub const GROUP_ROWS: u32 = 64;

    /// Threads of a warpgroup.
    pub const GROUP_THREADS: u32 = 4 * WARP;

    /// Bytes of a row of a copied box, and of the 128-byte swizzle.
    pub const SPAN_BYTES: u32 = 128;

    /// Bytes at the start of shared memory that hold the barriers.
    pub const BARRIER_BYTES: u32 = 512;

    /// Most tiles of keys, and of values, in shared memory.
    pub const MAX_STAGES: u32 = 4;

    /// Whether the device code can be instantiated.
    pub const fn is_valid(self) -> bool {
        matches!(self.dtype, DType::F16 | DType::Bf16)
            && self.head_dim >= 64
            && self.head_dim <= MAX_HEAD_DIM
            && self.head_dim == tile_columns(self.head_dim)
            && self.tile_q.is_multiple_of(Self::GROUP_ROWS)
            && self.groups() >= 1
            && self.groups() <= 4
            && self.tile_kv.is_multiple_of(16)
            && self.tile_kv >= 16
            && self.tile_kv <= 256
            && self.stages >= 1
            && self.stages <= Self::MAX_STAGES
    }

    /// Smallest head dim that the kernel takes; a smaller one is a narrower kernel's.
    pub const fn least_head_dim(self) -> u32 {
        self.head_dim + 8 - if self.head_dim <= 128 { 32 } else { 64 }
    }

    /// Warpgroups that multiply.
    pub const fn groups(self) -> u32 {
        self.tile_q / Self::GROUP_ROWS
    }

    /// Threads of a block: one warpgroup copies.
    pub const fn threads(self) -> u32 {
        (self.groups() + 1) * Self::GROUP_THREADS
    }

    /// Spans of 64 columns into which a row is cut: the boxes of a tile, one behind the other in shared memory.
    pub const fn spans(self) -> u32 {
        self.head_dim.div_ceil(64)
    }

    /// Bytes of the query tile, or of the output tile.
    pub const fn q_bytes(self) -> u32 {
        self.spans() * self.tile_q * Self::SPAN_BYTES
    }

    /// Bytes of a tile of keys, or of values.
    pub const fn kv_bytes(self) -> u32 {
        self.spans() * self.tile_kv * Self::SPAN_BYTES
    }

    /// Bytes before the tiles, which begin at multiples of 1024: barriers, and four bytes for each thread that multiplies.
    pub const fn head_bytes(self) -> u32 {
        (Self::BARRIER_BYTES + self.groups() * Self::GROUP_THREADS * 4).next_multiple_of(1024)
    }

    /// Whether there is room for a second query tile and for an output tile. Else the queries of the next tile are copied
    /// once this tile has no more use for its own, and the output goes from registers to global memory.
    const fn is_roomy(self) -> bool {
        self.tiles_bytes(3) <= Self::MAX_SHARED
    }

    /// Keys of a narrow step, which is the first one of a warpgroup that sees no more of it; those of any step in kernels
    /// without: where half a step is no product, or exponentials take longer than products.
    pub const fn narrow_kv(self) -> u32 {
        if self.tile_kv.is_multiple_of(64) && self.head_dim > 64 { self.tile_kv / 2 } else { self.tile_kv }
    }

    /// Query tiles in shared memory.
    pub const fn q_stages(self) -> u32 {
        if self.is_roomy() { 2 } else { 1 }
    }

    /// Whether the output goes through a tile in shared memory.
    pub const fn stages_output(self) -> bool {
        self.is_roomy()
    }

    /// Dynamic shared memory of a block, bytes: head, query tiles, key stages, value stages, output tile if there is one.
    pub const fn shared_bytes(self) -> u32 {
        self.tiles_bytes(if self.is_roomy() { 3 } else { 1 })
    }

    const MAX_SHARED: u32 = 227 * 1024;

    const fn tiles_bytes(self, q_tiles: u32) -> u32 {
        self.head_bytes() + q_tiles * self.q_bytes() + 2 * self.stages * self.kv_bytes()
    }

    /// Registers of a thread of the warpgroup that copies, and of one that multiplies: together at most the 64 Ki of an
    /// SM, multiples of 8 (`setmaxnreg`).
    pub const fn role_registers(self) -> (u32, u32) {
        match self.groups() {
            1 | 2 => (24, 240),
            3 => (32, 160),
            _ => (32, 112),
        }
    }

    /// Registers that a thread has when the block starts.
    pub const fn register_budget(self) -> u32 {
        65536 / self.threads() / 8 * 8
    }
}
