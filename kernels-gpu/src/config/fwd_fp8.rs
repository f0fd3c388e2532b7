//! `fwd_fp8`: what its tile decides.

use super::{DType, FwdSm80, MAX_HEAD_DIM};

/// `fwd_fp8`: queries, keys and values in e4m3 with scales of blocks of rows, `mma.sync` m16n8k32.
///
/// A block has `warps` warps, each with 16 or 32 query rows of its own, and walks the keys in steps of `tile_kv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FwdFp8 {
    /// Type of out: [`DType::F16`] or [`DType::Bf16`].
    pub dtype: DType,
    /// Columns of the tiles, a multiple of 64; a smaller head dim is padded with zeros inside the kernel.
    pub head_dim: u32,
    /// Query rows of a block.
    pub tile_q: u32,
    /// Keys of a step, 32 or 64: those of a step have one scale.
    pub tile_kv: u32,
    /// Warps of a block.
    pub warps: u32,
    /// How many steps of keys, and of values, have room in shared memory at once.
    pub stages: u32,
}

impl FwdFp8 {
    /// Columns of the tiles are a multiple of it: 64 bytes of a row are what a swizzle needs.
    pub const COLUMNS: u32 = 64;

    /// Fewest rows of a block with one scale, and a divisor of all.
    pub const SCALE_ROWS: u32 = 64;

    /// Whether the device code can be instantiated.
    pub const fn is_valid(self) -> bool {
        self.head_dim.is_multiple_of(Self::COLUMNS)
            && self.head_dim <= MAX_HEAD_DIM
            && self.tile_kv.is_multiple_of(32)
            && Self::SCALE_ROWS.is_multiple_of(self.tile_kv)
            && self.stages >= 2
            && self.block().is_valid()
    }

    /// The block as one of `fwd_sm80`, as `ldmatrix` sees it too: two elements are one of 16 bits. Its copies, swizzles,
    /// fragments of scores and masks are the same.
    pub const fn block(self) -> FwdSm80 {
        FwdSm80 {
            dtype: self.dtype,
            head_dim: self.head_dim / 2,
            tile_q: self.tile_q,
            tile_kv: self.tile_kv,
            warps: self.warps,
            kv_splits: 1,
            stages: self.stages,
            shares_keys: false,
        }
    }

    /// Smallest head dim that the kernel takes; a smaller one is a narrower kernel's.
    pub const fn least_head_dim(self) -> u32 {
        self.head_dim + 16 - Self::COLUMNS
    }

    /// k32 steps of the product of queries and keys.
    pub const fn key_steps(self) -> u32 {
        self.head_dim / 32
    }

    /// How many of them have their queries in registers; those of the others are read from shared memory in every step.
    pub const fn q_steps_in_registers(self) -> u32 {
        // By trial, until ptxas spilled nothing.
        if self.head_dim == 128 { 0 } else { 2 }
    }

    /// m16n8 output fragments of a warp.
    pub const fn out_frags(self) -> u32 {
        self.block().row_frags() * self.head_dim / 8
    }

    /// m16k32 fragments of the probabilities of a step.
    pub const fn p_frags(self) -> u32 {
        self.block().row_frags() * self.tile_kv / 32
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        self.block().threads()
    }

    /// Dynamic shared memory of a block, bytes.
    pub const fn shared_bytes(self) -> u32 {
        self.block().shared_bytes()
    }

    /// Registers that a thread may use on sm_89: outputs, scores and probabilities take half of them.
    pub const fn register_budget(self) -> u32 {
        if self.block().rows_per_warp() == 16 && self.head_dim <= 128 { 168 } else { 255 }
    }
}
