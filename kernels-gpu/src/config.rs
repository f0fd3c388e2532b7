//! What a kernel is: its data type, its tile, and all that follows from them. Pure data, used by the device code at
//! compile time and by the planner, the builder and the tests at run time.

mod fwd_fp8;
mod fwd_sm90;

pub use fwd_fp8::FwdFp8;
pub use fwd_sm90::{FwdSm90, Operands};

use crate::swizzle::Swizzle;

/// Element type of queries, keys, values and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
}

impl DType {
    /// Every type, in the order of the kernel table.
    pub const ALL: [DType; 3] = [DType::F16, DType::Bf16, DType::F32];

    /// Bytes of one element.
    pub const fn size(self) -> u32 {
        match self {
            DType::F16 | DType::Bf16 => 2,
            DType::F32 => 4,
        }
    }

    /// Lower-case name as it stands in entry names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F32 => "f32",
        }
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Threads of a warp.
pub const WARP: u32 = 32;

/// Largest head dim of any kernel.
pub const MAX_HEAD_DIM: u32 = 256;

/// Columns of the tiles that take rows of `head_dim` columns: the next multiple of 32 up to 128, beyond it of 64, so
/// that fewer kernels serve the head dims that few models have.
pub const fn tile_columns(head_dim: u32) -> u32 {
    head_dim.next_multiple_of(if head_dim <= 128 { 32 } else { 64 })
}

/// `fwd_scalar`: one warp owns one query row; f32 arithmetic, online softmax over 32 keys at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FwdScalar {
    /// Type of q, k, v and out.
    pub dtype: DType,
}

impl FwdScalar {
    /// Query rows of a block, one a warp.
    pub const ROWS: u32 = 4;

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        Self::ROWS * WARP
    }

    /// Dynamic shared memory of a block, bytes: its query rows as f32.
    pub const fn shared_bytes(self) -> u32 {
        Self::ROWS * MAX_HEAD_DIM * 4
    }

    /// Registers a thread may use, and with it the blocks that fit an SM.
    pub const fn register_budget(self) -> u32 {
        64
    }
}

/// `fwd_sm80`: tiles of `tile_q` query rows against steps of `kv_splits * tile_kv` keys, `mma.sync` m16n8k16.
///
/// A block has `row_warps() * kv_splits` warps. Warps with the same split number share keys and own different
/// rows; the splits of one row range own different keys of each step and merge through shared memory at the end.
/// With `shares_keys`, several blocks own different keys of one tile of rows, and merge through a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FwdSm80 {
    /// Type of q, k, v and out: [`DType::F16`] or [`DType::Bf16`].
    pub dtype: DType,
    /// Columns of the tiles, one of [`tile_columns`]; a smaller head dim is padded with zeros inside the kernel.
    pub head_dim: u32,
    /// Query rows of a block.
    pub tile_q: u32,
    /// Keys that one split of the block takes in one step.
    pub tile_kv: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Into how many parts the keys of a step are split inside the block.
    pub kv_splits: u32,
    /// How many steps of keys, and of values, have room in shared memory at once.
    pub stages: u32,
    /// Whether the keys of a sequence may be split between blocks.
    pub shares_keys: bool,
}

impl FwdSm80 {
    /// Whether the device code can be instantiated: the tiles divide among warps and copy threads.
    pub const fn is_valid(self) -> bool {
        matches!(self.dtype, DType::F16 | DType::Bf16)
            && self.head_dim >= 32
            && self.head_dim <= MAX_HEAD_DIM
            && self.head_dim == tile_columns(self.head_dim)
            && self.kv_splits > 0
            && self.warps.is_multiple_of(self.kv_splits)
            && self.tile_kv > 0
            && self.tile_kv.is_multiple_of(16)
            && self.row_warps() > 0
            && (self.rows_per_warp() == 16 || self.rows_per_warp() == 32)
            && self.rows_per_warp() * self.row_warps() == self.tile_q
            && (self.tile_q.is_multiple_of(self.copy_rows()) || self.copy_rows().is_multiple_of(self.tile_q))
            && self.step().is_multiple_of(self.copy_rows())
            && self.copy_rows().is_multiple_of(8)
            && self.stages >= 1
            && self.stages <= 3
            && (self.kv_splits == 1 || (!self.shares_keys && self.merge_bytes() <= self.shared_bytes()))
    }

    /// Smallest head dim that the kernel takes; a smaller one is a narrower kernel's.
    pub const fn least_head_dim(self) -> u32 {
        self.head_dim + 8 - if self.head_dim <= 128 { 32 } else { 64 }
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        self.warps * WARP
    }

    /// Warps that own different query rows.
    pub const fn row_warps(self) -> u32 {
        self.warps / self.kv_splits
    }

    /// Query rows of a warp.
    pub const fn rows_per_warp(self) -> u32 {
        self.tile_q / self.row_warps()
    }

    /// m16 tiles of a warp.
    pub const fn row_frags(self) -> u32 {
        self.rows_per_warp() / 16
    }

    /// Keys that a block takes in one step.
    pub const fn step(self) -> u32 {
        self.tile_kv * self.kv_splits
    }

    /// Bytes of a tile row.
    pub const fn row_bytes(self) -> u32 {
        self.head_dim * self.dtype.size()
    }

    /// The swizzle of every tile.
    pub const fn swizzle(self) -> Swizzle {
        Swizzle::new(self.row_bytes())
    }

    /// m16n8 output fragments of a warp.
    pub const fn out_frags(self) -> u32 {
        self.row_frags() * self.head_dim / 8
    }

    /// m16n8 score fragments of a warp.
    pub const fn score_frags(self) -> u32 {
        self.row_frags() * self.tile_kv / 8
    }

    /// How many k16 steps of its queries a warp keeps in registers: as many as leave room in the budget for
    /// operands and addresses beside outputs and scores. It reads the others from shared memory in every step.
    pub const fn q_steps_in_registers(self) -> u32 {
        // By trial, until ptxas spilled nothing: where values lag, the probabilities of two steps are alive.
        let spare = match (self.values_lag(), self.rows_per_warp(), self.head_dim) {
            (true, 32, ..=96) => 100 + 8 * (self.stages - 2),
            (true, 16, ..=32) => 76,
            (true, 16, 128..) if self.shares_keys => 72,
            (true, 16, 128..) => 64,
            (false, 16, 256) => 68,
            _ => 56,
        };
        let taken = self.rows_per_warp() * (self.head_dim + self.tile_kv) / WARP + spare;
        let steps = self.register_budget().saturating_sub(taken) / (4 * self.row_frags());
        if steps < self.head_dim / 16 { steps } else { self.head_dim / 16 }
    }

    /// m16k16 query fragments that a warp keeps in registers.
    pub const fn q_frags(self) -> u32 {
        self.row_frags() * self.q_steps_in_registers()
    }

    /// Threads that copy one row, each a 16-byte chunk of every swizzle span.
    pub const fn copy_threads_per_row(self) -> u32 {
        self.swizzle().span() / 16
    }

    /// 16-byte chunks of a row that one thread copies.
    pub const fn copy_spans(self) -> u32 {
        self.row_bytes() / self.swizzle().span()
    }

    /// Rows that the block copies at a time.
    pub const fn copy_rows(self) -> u32 {
        self.threads() / self.copy_threads_per_row()
    }

    /// Bytes of the query tile, which starts the dynamic shared memory.
    pub const fn q_bytes(self) -> u32 {
        self.tile_q * self.row_bytes()
    }

    /// Bytes of one step of keys, or of values.
    pub const fn step_bytes(self) -> u32 {
        self.step() * self.row_bytes()
    }

    /// Whether exponentials stand between the products of the step before, 16 keys at a time, in the source as well.
    /// Measured on an H200: 8 % faster at head dim 64; 4 % slower at 128, which has half the exponentials.
    pub const fn interleaves(self) -> bool {
        self.head_dim <= 64
    }

    /// Whether the product with values comes one step after its probabilities, so that it runs beside the exponentials of
    /// the next step. With one stage, a step waits for its own copies and ends what it began.
    pub const fn values_lag(self) -> bool {
        self.stages > 1
    }

    /// With one stage: into how many groups the copies of a step's keys are put, so that products begin with the first.
    /// Two where keys are split, which is done where one block has an SM to itself, and where all threads have something
    /// to copy in each. Measured on an H200: (1,8,512,64) takes 5 to 7 % less than with one; four gain nothing more.
    pub const fn key_groups(self) -> u32 {
        let halves = self.tile_kv >= 32 && (self.tile_kv / 2).is_multiple_of(self.copy_rows());
        if self.kv_splits > 1 && !self.values_lag() && halves { 2 } else { 1 }
    }

    /// Groups of copies that may be in flight when a step begins with one stage, or when the first one does; with more
    /// stages, one fewer when a later one does.
    pub const fn groups_in_flight(self) -> u32 {
        if self.values_lag() { self.stages - 1 } else { self.key_groups() }
    }

    /// Bytes of all steps of keys and values. The layout is query tile, key stages, value stages.
    pub const fn kv_bytes(self) -> u32 {
        2 * self.stages * self.step_bytes()
    }

    /// f32 elements from one row of a partial output to the next: the padding moves each row by eight banks, so
    /// that the fragments of four rows are stored without a conflict.
    pub const fn merge_pitch(self) -> u32 {
        self.head_dim + 8
    }

    /// Bytes of the merge area, which takes the place of the tiles after the last step: `kv_splits` partial
    /// outputs, then (row_max, row_sum) of each row and split.
    pub const fn merge_bytes(self) -> u32 {
        self.kv_splits * self.tile_q * (self.merge_pitch() * 4 + 8)
    }

    /// Dynamic shared memory of a block, bytes.
    pub const fn shared_bytes(self) -> u32 {
        self.q_bytes() + self.kv_bytes()
    }

    /// Registers that a thread may use on sm_89. Outputs and scores alone take
    /// `rows_per_warp * (head_dim + tile_kv) / 32`; the budget leaves room for queries, one operand and addresses,
    /// at the next count that lets a further block onto the SM.
    pub const fn register_budget(self) -> u32 {
        if self.kv_splits > 1 {
            // Every warp of `decode` has all rows: four blocks, where outputs and scores leave room for the rest.
            let four = self.row_warps() == 1 && self.head_dim + self.tile_kv <= 144;
            return if four { 128 } else { 255 };
        }
        match (self.rows_per_warp(), self.head_dim) {
            (16, ..=64) => 128,
            (16, 128) => 168,
            _ => 255,
        }
    }
}

/// `decode`: few query rows against many keys, which each warp streams through stages of its own.
///
/// A block owns [`Decode::ROWS`] query rows of the heads that share a key head, and one part of the keys: the parts of
/// different blocks merge through a workspace. `kernels/decode.rs` says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    /// Type of q, k, v and out: [`DType::F16`] or [`DType::Bf16`].
    pub dtype: DType,
    /// Columns of the tiles, a multiple of 32; a smaller head dim is padded with zeros inside the kernel.
    pub head_dim: u32,
    /// Keys that one warp takes in one step: 16 or 32.
    pub tile_kv: u32,
    /// Warps of a block, 4 or 8.
    pub warps: u32,
    /// How many tiles of keys, and of values, each warp has room for.
    pub stages: u32,
}

impl Decode {
    /// Query rows of a block, over all heads that share a key head.
    pub const ROWS: u32 = 16;

    /// Whether the device code can be instantiated.
    pub const fn is_valid(self) -> bool {
        matches!(self.dtype, DType::F16 | DType::Bf16)
            && self.head_dim >= 32
            && self.head_dim <= MAX_HEAD_DIM
            && self.head_dim.is_multiple_of(32)
            && matches!(self.tile_kv, 16 | 32)
            && matches!(self.warps, 4 | 8)
            && self.stages >= 1
            && self.stages <= 6
            && self.block().merge_bytes() <= self.shared_bytes()
    }

    /// The block as one of `fwd_sm80`, whose fragments it has: every warp has the same rows and keys of its own.
    pub const fn block(self) -> FwdSm80 {
        FwdSm80 {
            dtype: self.dtype,
            head_dim: self.head_dim,
            tile_q: Self::ROWS,
            tile_kv: self.tile_kv,
            warps: self.warps,
            kv_splits: self.warps,
            stages: self.stages,
            shares_keys: false,
        }
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        self.block().threads()
    }

    /// Keys that a block takes in one step.
    pub const fn step(self) -> u32 {
        self.block().step()
    }

    /// Dynamic shared memory of a block, bytes.
    pub const fn shared_bytes(self) -> u32 {
        self.block().shared_bytes()
    }

    /// Registers that a thread may use on sm_89.
    pub const fn register_budget(self) -> u32 {
        self.block().register_budget()
    }
}

/// A kernel that ships, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// One warp a row, no tensor cores.
    FwdScalar(FwdScalar),
    /// cp.async, ldmatrix and mma.sync.
    FwdSm80(FwdSm80),
    /// TMA and wgmma, of 16-bit elements or of e4m3.
    FwdSm90(FwdSm90),
    /// cp.async, ldmatrix and mma.sync of e4m3.
    FwdFp8(FwdFp8),
    /// mma.sync for few query rows and many keys, which blocks share.
    Decode(Decode),
}

impl Kernel {
    /// Type of q, k, v and out; of out alone for a kernel that [takes e4m3](Kernel::takes_e4m3).
    pub const fn dtype(self) -> DType {
        match self {
            Kernel::FwdScalar(k) => k.dtype,
            Kernel::FwdSm80(k) => k.dtype,
            Kernel::FwdSm90(k) => k.dtype,
            Kernel::FwdFp8(k) => k.dtype,
            Kernel::Decode(k) => k.dtype,
        }
    }

    /// Whether queries, keys and values are e4m3 with scales.
    pub const fn takes_e4m3(self) -> bool {
        matches!(self, Kernel::FwdFp8(_) | Kernel::FwdSm90(FwdSm90 { e4m3: true, .. }))
    }

    /// Largest head dim that the kernel takes.
    pub const fn head_dim(self) -> u32 {
        match self {
            Kernel::FwdScalar(_) => MAX_HEAD_DIM,
            Kernel::FwdSm80(k) => k.head_dim,
            Kernel::FwdSm90(k) => k.head_dim,
            Kernel::FwdFp8(k) => k.head_dim,
            Kernel::Decode(k) => k.head_dim,
        }
    }

    /// Smallest head dim that the kernel takes.
    pub const fn least_head_dim(self) -> u32 {
        match self {
            Kernel::FwdScalar(_) => 8,
            Kernel::FwdSm80(k) => k.least_head_dim(),
            Kernel::FwdSm90(k) => k.least_head_dim(),
            Kernel::FwdFp8(k) => k.least_head_dim(),
            Kernel::Decode(k) => k.block().least_head_dim(),
        }
    }

    /// Query rows of a block, those of one head; for [`Kernel::Decode`] of all heads that share a key head.
    pub const fn tile_q(self) -> u32 {
        match self {
            Kernel::FwdScalar(_) => FwdScalar::ROWS,
            Kernel::FwdSm80(k) => k.tile_q,
            Kernel::FwdSm90(k) => k.tile_q,
            Kernel::FwdFp8(k) => k.tile_q,
            Kernel::Decode(_) => Decode::ROWS,
        }
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        match self {
            Kernel::FwdScalar(k) => k.threads(),
            Kernel::FwdSm80(k) => k.threads(),
            Kernel::FwdSm90(k) => k.threads(),
            Kernel::FwdFp8(k) => k.threads(),
            Kernel::Decode(k) => k.threads(),
        }
    }

    /// Dynamic shared memory of a block, bytes.
    pub const fn shared_bytes(self) -> u32 {
        match self {
            Kernel::FwdScalar(k) => k.shared_bytes(),
            Kernel::FwdSm80(k) => k.shared_bytes(),
            Kernel::FwdSm90(k) => k.shared_bytes(),
            Kernel::FwdFp8(k) => k.shared_bytes(),
            Kernel::Decode(k) => k.shared_bytes(),
        }
    }

    /// Registers that a thread may use on sm_89.
    pub const fn register_budget(self) -> u32 {
        match self {
            Kernel::FwdScalar(k) => k.register_budget(),
            Kernel::FwdSm80(k) => k.register_budget(),
            Kernel::FwdSm90(k) => k.register_budget(),
            Kernel::FwdFp8(k) => k.register_budget(),
            Kernel::Decode(k) => k.register_budget(),
        }
    }

    /// Blocks that fit an SM by the register budget.
    pub const fn min_blocks_per_sm(self) -> u32 {
        blocks_by_registers(self.register_budget(), self.threads())
    }

    /// Where the keys of a sequence may be split between blocks: of how many keys a part is a multiple.
    pub const fn split_step(self) -> Option<u32> {
        match self {
            Kernel::FwdSm80(k) if k.shares_keys => Some(k.step()),
            Kernel::Decode(k) => Some(k.step()),
            Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::FwdSm90(_) | Kernel::FwdFp8(_) => None,
        }
    }
}

/// Blocks of `threads` with `registers` each that fit an SM: it has 64 Ki registers, allocated to a warp in units of 256.
pub(crate) const fn blocks_by_registers(registers: u32, threads: u32) -> u32 {
    let per_warp = (registers * WARP).next_multiple_of(256);
    65536 / (per_warp * threads / WARP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::KERNELS;

    #[test]
    fn every_shipped_kernel_can_be_instantiated_and_fits_an_sm() {
        for kernel in KERNELS {
            match kernel {
                Kernel::FwdScalar(_) => {}
                Kernel::FwdSm80(config) => assert!(config.is_valid(), "{kernel}"),
                Kernel::FwdSm90(config) => assert!(config.is_valid(), "{kernel}"),
                Kernel::FwdFp8(config) => assert!(config.is_valid(), "{kernel}"),
                Kernel::Decode(config) => assert!(config.is_valid(), "{kernel}"),
            }
            assert!(kernel.min_blocks_per_sm() >= 1, "{kernel}");
            assert!(kernel.shared_bytes() <= 227 * 1024, "{kernel}");
        }
    }

    #[test]
    fn every_head_dim_belongs_to_the_tile_that_reaches_down_to_it() {
        let tiles = KERNELS.iter().filter_map(|kernel| match kernel {
            Kernel::FwdSm80(config) => Some(config),
            Kernel::FwdScalar(_) | Kernel::FwdSm90(_) | Kernel::FwdFp8(_) | Kernel::Decode(_) => None,
        });
        for config in tiles {
            for head_dim in (8..=MAX_HEAD_DIM).step_by(8) {
                let within = (config.least_head_dim()..=config.head_dim).contains(&head_dim);
                assert_eq!(tile_columns(head_dim) == config.head_dim, within, "{head_dim} and {}", config.head_dim);
            }
        }
    }

    #[test]
    fn every_half_precision_head_dim_has_a_kernel_within_99_kib_of_shared_memory() {
        for dtype in [DType::F16, DType::Bf16] {
            for head_dim in [32, 64, 96, 128, 192, 256] {
                for splits in [false, true] {
                    let fits = |kernel: &&Kernel| match kernel {
                        Kernel::FwdSm80(c) => {
                            c.dtype == dtype
                                && c.head_dim == head_dim
                                && (c.kv_splits > 1) == splits
                                && c.shared_bytes() <= 99 * 1024
                        }
                        Kernel::FwdScalar(_) | Kernel::FwdSm90(_) | Kernel::FwdFp8(_) | Kernel::Decode(_) => false,
                    };
                    assert!(KERNELS.iter().any(|k| fits(&k)), "{dtype} {head_dim} splits {splits}");
                }
            }
        }
    }

    #[test]
    fn every_half_precision_head_dim_has_a_decode_kernel_within_99_kib_of_shared_memory() {
        for dtype in [DType::F16, DType::Bf16] {
            for head_dim in [32, 64, 96, 128] {
                let fits = |c: &Decode| c.dtype == dtype && c.head_dim == head_dim && c.shared_bytes() <= 99 * 1024;
                assert!(KERNELS.iter().any(|k| matches!(k, Kernel::Decode(c) if fits(c))), "{dtype} {head_dim}");
            }
        }
    }
}
