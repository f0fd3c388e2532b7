//! `fwd_sm90` and `fwd_fp8_sm90`: what their tiles decide.

use super::{DType, MAX_HEAD_DIM, WARP, tile_columns};

/// `fwd_sm90`: tiles of `tile_q` query rows against steps of `tile_kv` keys, with Hopper's TMA and `wgmma`.
///
/// A block has one warpgroup that copies and `tile_q / 64` that multiply, each 64 query rows. Blocks are persistent: as
/// many as the GPU has places for, and each takes tile after tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FwdSm90 {
    /// Type of q, k, v and out, [`DType::F16`] or [`DType::Bf16`]; of out alone where inputs are e4m3.
    pub dtype: DType,
    /// Columns of the tiles: 64, 96, 128, 192 or 256; 64 or 128 for e4m3. A smaller head dim is padded with zeros by the
    /// copies.
    pub head_dim: u32,
    /// Query rows of a block, a multiple of [`FwdSm90::GROUP_ROWS`].
    pub tile_q: u32,
    /// Keys of a step, a multiple of 16.
    pub tile_kv: u32,
    /// How many tiles of keys, and of values, have room in shared memory at once.
    pub stages: u32,
    /// Whether queries, keys and values are e4m3 with scales of blocks of rows. Values then lie with their keys next to each
    /// other: [`crate::transpose`] puts them so.
    pub e4m3: bool,
    /// Blocks of a cluster: each copies its part of every tile of keys and of values into the shared memory of all. 1 where
    /// blocks are on their own, at most [`FwdSm90::MAX_CLUSTER`].
    pub cluster: u32,
}

/// Operands of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// e4m3.
    E4m3,
}

impl Operands {
    /// Elements of `dtype`, which has 16 bits.
    pub const fn of(dtype: DType) -> Self {
        if matches!(dtype, DType::F16) { Self::F16 } else { Self::Bf16 }
    }

    /// Bytes of one.
    pub const fn bytes(self) -> u32 {
        if matches!(self, Self::E4m3) { 1 } else { 2 }
    }
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

    /// Most blocks of a cluster.
    pub const MAX_CLUSTER: u32 = 2;

    /// Most keys whose products with values Hopper's matrix units add with the 14 bits that they have for e4m3, a power of two:
    /// sums then lose 2^-8 of their size at most, the last bit of bf16, and a quarter of what rounding to e4m3 does.
    pub const RUN_KEYS: u32 = 4096;

    /// Operands of the matrix products.
    pub const fn operands(self) -> Operands {
        if self.e4m3 { Operands::E4m3 } else { Operands::of(self.dtype) }
    }

    /// Bytes of an element of queries, keys and values.
    pub const fn operand_bytes(self) -> u32 {
        self.operands().bytes()
    }

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
            && (!self.e4m3 || self.head_dim <= 128 && self.tile_kv == Self::SPAN_BYTES && self.is_roomy())
            && self.stages >= 1
            && self.stages <= Self::MAX_STAGES
            && self.cluster >= 1
            && self.cluster <= Self::MAX_CLUSTER
            // The swizzle goes by eight rows.
            && self.part_kv().is_multiple_of(8)
            // Tiles next to each other are a step apart at most.
            && (self.is_alone() || !self.e4m3 && self.tile_q <= self.tile_kv)
    }

    /// Smallest head dim that the kernel takes; a smaller one is a narrower kernel's.
    pub const fn least_head_dim(self) -> u32 {
        match self.head_dim {
            _ if self.e4m3 => self.head_dim + 16 - 64,
            64..=128 => self.head_dim + 8 - 32,
            _ => self.head_dim + 8 - 64,
        }
    }

    /// Warpgroups that multiply.
    pub const fn groups(self) -> u32 {
        self.tile_q / Self::GROUP_ROWS
    }

    /// Threads of a block: one warpgroup copies.
    pub const fn threads(self) -> u32 {
        (self.groups() + 1) * Self::GROUP_THREADS
    }

    /// Columns of a span of queries and keys, and of values that are not transposed.
    pub const fn span_columns(self) -> u32 {
        Self::SPAN_BYTES / self.operand_bytes()
    }

    /// Spans into which a row is cut: the boxes of a tile, one behind the other in shared memory.
    pub const fn spans(self) -> u32 {
        self.head_dim.div_ceil(self.span_columns())
    }

    /// Columns of a span of the output.
    pub const OUT_SPAN_COLUMNS: u32 = Self::SPAN_BYTES / 2;

    /// Spans of a row of the output.
    pub const fn out_spans(self) -> u32 {
        self.head_dim.div_ceil(Self::OUT_SPAN_COLUMNS)
    }

    /// Bytes of the query tile.
    pub const fn q_bytes(self) -> u32 {
        self.spans() * self.tile_q * Self::SPAN_BYTES
    }

    /// Bytes of a tile of keys.
    pub const fn k_bytes(self) -> u32 {
        self.spans() * self.tile_kv * Self::SPAN_BYTES
    }

    /// Bytes of a tile of values: transposed ones are `head_dim` rows of a span of keys.
    pub const fn v_bytes(self) -> u32 {
        if self.e4m3 { self.head_dim * Self::SPAN_BYTES } else { self.k_bytes() }
    }

    /// Keys of a tile of keys or values that a block copies, for all blocks of its cluster.
    pub const fn part_kv(self) -> u32 {
        self.tile_kv / self.cluster
    }

    /// Whether a block walks keys of its own.
    pub const fn is_alone(self) -> bool {
        self.cluster == 1
    }

    /// Whether the producer clears values behind a sequence's own length; who transposed them did so.
    pub const fn clears_values(self) -> bool {
        !self.e4m3
    }

    /// Barriers for values of which the producer clears some: one, or one a stage where blocks copy for each other.
    pub const fn patches(self) -> u32 {
        match (self.clears_values(), self.is_alone()) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => self.stages,
        }
    }

    /// Rows behind those of transposed values: one of ones, whose product with weights is their sum, and zeros up to the eight
    /// that a product takes at least.
    pub const fn sum_rows(self) -> u32 {
        if self.e4m3 { 8 } else { 0 }
    }

    /// Bytes of a stage of values.
    pub const fn v_stage_bytes(self) -> u32 {
        self.v_bytes() + self.sum_rows() * Self::SPAN_BYTES
    }

    /// Fragments of the product with values: eight columns of the output each; the last one, of e4m3, has the sums of weights.
    pub const fn out_frags(self) -> u32 {
        (self.head_dim + self.sum_rows()) / 8
    }

    /// Bytes that a warpgroup has for its rows of the output tile; with e4m3, for sums of them in f32 as well, one after the
    /// other.
    pub const fn group_out_bytes(self) -> u32 {
        let columns_bytes = if self.e4m3 { self.head_dim * 4 } else { self.out_spans() * Self::SPAN_BYTES };
        columns_bytes * Self::GROUP_ROWS
    }

    /// Bytes of the output tile.
    pub const fn out_bytes(self) -> u32 {
        self.groups() * self.group_out_bytes()
    }

    /// Steps of the product of queries and keys: 32 bytes of a row each.
    pub const fn key_steps(self) -> u32 {
        self.head_dim * self.operand_bytes() / 32
    }

    /// Keys of a step of the product with values.
    pub const fn keys_of_step(self) -> u32 {
        32 / self.operand_bytes()
    }

    /// Bytes before the tiles, which begin at multiples of 1024: barriers, and four bytes for each thread that multiplies.
    pub const fn head_bytes(self) -> u32 {
        (Self::BARRIER_BYTES + self.groups() * Self::GROUP_THREADS * 4).next_multiple_of(1024)
    }

    /// Whether there is room for a second query tile and for an output tile. Else the queries of the next tile are copied
    /// once this tile has no more use for its own, and the output goes from registers to global memory.
    const fn is_roomy(self) -> bool {
        self.head_bytes() + 2 * self.q_bytes() + self.kv_stages_bytes() + self.out_bytes() <= Self::MAX_SHARED
    }

    /// Keys of a narrow step, which is the first one of a warpgroup that sees no more of it; those of any step in kernels
    /// without: where half a step is no product, or exponentials take longer than products.
    pub const fn narrow_kv(self) -> u32 {
        let halves = self.tile_kv.is_multiple_of(64) && self.head_dim > 64 && !self.e4m3;
        if halves { self.tile_kv / 2 } else { self.tile_kv }
    }

    /// Exponentials of a thread's step before its wait for the product with values. With e4m3, where they take longer than
    /// products, a quarter of them: measured. The others run beside the packing of weights.
    pub const fn early_exponentials(self) -> u32 {
        let all = Self::GROUP_ROWS * self.tile_kv / Self::GROUP_THREADS;
        if self.e4m3 { all / 4 } else { all }
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
        let out = if self.stages_output() { self.out_bytes() } else { 0 };
        self.head_bytes() + self.q_stages() * self.q_bytes() + self.kv_stages_bytes() + out
    }

    const MAX_SHARED: u32 = 227 * 1024;

    const fn kv_stages_bytes(self) -> u32 {
        self.stages * (self.k_bytes() + self.v_stage_bytes())
    }

    /// Registers of a thread of the warpgroup that copies, and of one that multiplies: together at most the 64 Ki of an
    /// SM, multiples of 8 (`setmaxnreg`). Products of 16-bit operands leave more for copies, which they use.
    pub const fn role_registers(self) -> (u32, u32) {
        match self.groups() {
            1 | 2 if !self.e4m3 && self.head_dim <= 128 => (40, 232),
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
