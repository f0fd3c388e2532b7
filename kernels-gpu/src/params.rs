//! The one parameter block that every forward kernel takes by value.

/// Distances between neighbours of one tensor with axes \[batch, head, row, column\], in units of 16 bytes.
///
/// Columns are contiguous, rows 16-byte aligned. 32 bits reach 64 GiB and keep the parameter block short: it is the
/// first thing a block waits for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// From one batch entry to the next.
    pub batch: u32,
    /// From one head to the next.
    pub head: u32,
    /// From one row (sequence position) to the next, below [`MAX_ROW_STRIDE`].
    pub row: u32,
}

/// Bytes of a unit of [`Strides`].
pub const STRIDE_UNIT: u32 = 16;

/// Bound of [`Strides::row`]: offsets inside a tile of fewer than 256 rows stay below 2^32 bytes.
pub const MAX_ROW_STRIDE: u32 = 1 << 20;

impl Strides {
    /// Byte offset of the first row of head `head` of sequence `batch`.
    #[inline(always)]
    pub const fn slice_offset(&self, batch: u32, head: u32) -> u64 {
        (batch as u64 * self.batch as u64 + head as u64 * self.head as u64) * STRIDE_UNIT as u64
    }

    /// Byte offset of row `row` of a slice.
    #[inline(always)]
    pub const fn row_offset(&self, row: u32) -> u64 {
        row as u64 * self.row as u64 * STRIDE_UNIT as u64
    }
}

/// Parameters of a forward kernel, passed by value (`.param` space), 8-byte aligned.
///
/// Addresses are global device addresses. The host fills this in from a validated problem; a kernel trusts it.
///
/// The block lies at 0x210 of the constant bank. A cold 64-byte line costs a block over a hundred cycles each, so
/// what the first copies need fills the first two lines (48 and 64 bytes), and the next 16 bytes are for the end. What
/// only `decode` and kernels whose blocks share keys need comes last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FwdParams {
    /// Queries, \[batch, heads_q, q_len, head_dim\].
    pub q: u64,
    /// Keys, \[batch, heads_kv, kv_len, head_dim\].
    pub k: u64,
    /// Values, \[batch, heads_kv, kv_len, head_dim\].
    pub v: u64,
    /// Number of valid keys of each sequence, 32-bit \[batch\]; 0 when every key is valid.
    /// A value is clamped to `0..=kv_len`.
    pub kv_lens: u64,
    /// `2^32 / group` rounded up, where `group = heads_q / heads_kv`: [`kv_head`] turns a query head into its
    /// key head with it, without a division.
    pub kv_head_reciprocal: u64,
    /// Number of query rows of a sequence.
    pub q_len: u32,
    /// Number of key rows of a sequence.
    pub kv_len: u32,
    /// Strides of `q`.
    pub q_stride: Strides,
    /// Strides of `k`.
    pub k_stride: Strides,
    /// Strides of `v`.
    pub v_stride: Strides,
    /// Strides of `out`.
    pub out_stride: Strides,
    /// Columns of a row that exist, a multiple of 8, at most the kernel's own head dim.
    pub head_dim: u32,
    /// Query row `i` sees keys `j <= i + causal_offset`. Without a causal mask the host passes `kv_len`,
    /// with which the condition always holds.
    pub causal_offset: i32,
    /// Softmax scale times log2(e), positive and finite.
    pub scale_log2: f32,
    /// 0: the grid is (query tiles, heads, batch). Else it is (heads of a group, batch, query tiles of all groups), and every
    /// second run of `2^(wave_order - 1)` tiles of a group goes backwards: see [`boustrophedon`].
    pub wave_order: u16,
    /// Number of query heads.
    pub heads_q: u16,
    /// Output, \[batch, heads_q, q_len, head_dim\], the type of `q`.
    pub out: u64,
    /// Log-sum-exp, f32 \[batch, heads_q, q_len\] contiguous, natural logarithm; 0 when not wanted.
    pub lse: u64,
    /// `decode`: page numbers, 32-bit \[batch, pages_per_sequence\]; 0 when keys and values are contiguous, which is
    /// one page for each sequence. `k` and `v` are \[pages, heads_kv, page rows, head_dim\] with it.
    pub block_table: u64,
    /// Where keys are split between blocks: memory of a [`Workspace`]; 0 with one split.
    pub workspace: u64,
    /// `decode`: [`kv_head_reciprocal`] of `q_len`, for [`packed_row`].
    pub q_len_reciprocal: u64,
    /// `decode`: entries of a row of `block_table`.
    pub pages_per_sequence: u32,
    /// `decode`: key `j` of a sequence is row `j % 2^page_shift` of page `j / 2^page_shift`; at least 4, and 31 when
    /// keys are contiguous.
    pub page_shift: u32,
    /// Into how many parts the keys of a sequence are split between blocks, at least 1.
    pub splits: u32,
    /// Keys of a part; where keys are split, a multiple of the kernel's step.
    pub keys_per_split: u32,
    /// `decode`: query heads that share a key head.
    pub group: u32,
    /// `decode`: query rows of a key head, `group * q_len`, below [`MAX_PACKED_ROWS`].
    pub packed_rows: u32,
}

/// A tensor map of the CUDA driver (`CUtensorMap`): what TMA must know of a tensor. Only the driver writes one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(pub [u64; 16]);

/// Parameters of `fwd_sm90`, passed by value and aligned to 64 bytes, as tensor maps must be: Rust's alignment of a
/// parameter cannot say so, so that kernel-builder writes it into the text.
///
/// The maps have the axes \[batch, head, row, column\], column first, and boxes of 64 columns (128 bytes, 128-byte
/// swizzle) by the rows of a tile; for `out` by those of a warpgroup. Elements out of range are copied as zeros, and not
/// stored.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdSm90Params {
    /// Queries, boxes of `tile_q` rows.
    pub q_map: TensorMap,
    /// Keys, boxes of `tile_kv` rows.
    pub k_map: TensorMap,
    /// Values, boxes of `tile_kv` rows.
    pub v_map: TensorMap,
    /// Output, boxes of [`FwdSm90::GROUP_ROWS`](crate::config::FwdSm90::GROUP_ROWS) rows.
    pub out_map: TensorMap,
    /// What other forward kernels take too.
    pub fwd: FwdParams,
    /// The order of the tiles.
    pub tiles: TileOrder,
}

/// Scales of blocks of rows of a tensor, f32 with the axes \[batch, head, block\], blocks contiguous: an element is its e4m3
/// number times its scale.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scales {
    /// Address of the first one.
    pub address: u64,
    /// From one batch entry to the next, scales.
    pub batch: u32,
    /// From one head to the next, scales.
    pub head: u32,
    /// Row `i` of a head is in block `i >> shift`; at least 6, and [`Scales::WHOLE_HEAD`] where a head is one block.
    pub shift: u32,
    /// Fills the struct.
    pub pad: u32,
}

impl Scales {
    /// The shift where a head is one block.
    pub const WHOLE_HEAD: u32 = 31;

    /// Number of the first scale of head `head` of sequence `batch`; that of every scale is below 2^32.
    #[inline(always)]
    pub const fn first(&self, batch: u32, head: u32) -> u32 {
        batch * self.batch + head * self.head
    }
}

/// Parameters of `fwd_fp8`, passed by value, 8-byte aligned.
///
/// Of [`FwdParams`] `q`, `k` and `v` are e4m3, and their strides and `head_dim` count accordingly; `head_dim` is a multiple
/// of 16. `scale_log2` is without the scales of queries and keys.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdFp8Params {
    /// What other forward kernels take too.
    pub fwd: FwdParams,
    /// Scales of the queries.
    pub q_scales: Scales,
    /// Scales of the keys.
    pub k_scales: Scales,
    /// Scales of the values.
    pub v_scales: Scales,
}

/// Parameters of `fwd_fp8_sm90`, passed by value and aligned like [`FwdSm90Params`].
///
/// The maps of queries and keys have boxes of 128 columns (128 bytes). Those of values, which
/// [`transpose`](crate::transpose) has turned, have the axes \[batch, head, column, key\], key first, and boxes of 128 keys by
/// all columns. Of [`FwdParams`] the strides of `q` and `k` count e4m3; `scale_log2` is without the scales of queries and
/// keys.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FwdFp8Sm90Params {
    /// What `fwd_sm90` takes too.
    pub sm90: FwdSm90Params,
    /// Scales of the queries.
    pub q_scales: Scales,
    /// Scales of the keys: of blocks of at least a step.
    pub k_scales: Scales,
    /// The same of the values.
    pub v_scales: Scales,
}

/// `dividend / divisor`, where 0 divides like 1: a panic has no place in a kernel.
#[inline(always)]
pub const fn quotient(dividend: u32, divisor: u32) -> u32 {
    dividend / if divisor == 0 { 1 } else { divisor }
}

/// In which order persistent blocks take the tiles of a launch: in groups of slices (a slice is a head of a sequence, or
/// some that a cluster takes together, in the order \[batch, head\]), whose keys the L2 cache can hold; in a group from the last rows to the first ones, which
/// have the fewest keys under a causal mask; of equal rows slice after slice. The last group may have more slices than the
/// others: what is long in it starts while there is work for all SMs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileOrder {
    /// All tiles, or what clusters take of them at once: `row_tiles * slices`.
    pub count: u32,
    /// Tiles of a slice.
    pub row_tiles: u32,
    /// Slices of a group but the last, at least 1.
    pub group: u32,
    /// First slice of the last group, a multiple of `group`.
    pub last: u32,
    /// Slices of the last group: `slices - last`.
    pub last_group: u32,
    /// Heads of a slice: 1, or as many as a cluster has blocks. A cluster takes tiles of all heads of a slice, which share keys,
    /// or tiles of one head that are next to each other.
    pub heads_together: u32,
}

impl TileOrder {
    /// Heads of all sequences.
    pub const fn heads(&self) -> u32 {
        (self.last + self.last_group) * self.heads_together
    }

    /// Tile of rows and slice of the tile that comes at position `index`, below `count`.
    #[inline(always)]
    pub const fn get(&self, index: u32) -> (u32, u32) {
        let first = quotient(index, self.row_tiles * self.group) * self.group;
        let (first, width) = if first < self.last { (first, self.group) } else { (self.last, self.last_group) };
        let within = index - first * self.row_tiles;
        let rank = quotient(within, width);
        (self.row_tiles - 1 - rank, first + within - rank * width)
    }
}

/// Position `index` of `count` where every second run of `2^run_log2` goes backwards: 0 1 3 2 4 5 6 for `run_log2` 1.
///
/// Blocks that share an SM are one run apart: where the first of them has the most work of its run, the second has the
/// least.
#[inline(always)]
pub const fn boustrophedon(index: u32, count: u32, run_log2: u32) -> u32 {
    if (index >> run_log2).is_multiple_of(2) {
        return index;
    }
    let start = index >> run_log2 << run_log2;
    let end = start + (1 << run_log2);
    (if end < count { end } else { count }) - 1 - (index - start)
}

/// The value of [`FwdParams::kv_head_reciprocal`] for `group` query heads per key head.
pub const fn kv_head_reciprocal(group: u32) -> u64 {
    (1u64 << 32).div_ceil(group as u64)
}

/// The key head of query head `head_q`; exact for heads and groups below 2^16.
#[inline(always)]
pub const fn kv_head(head_q: u32, reciprocal: u64) -> u32 {
    ((head_q as u64 * reciprocal) >> 32) as u32
}

/// Bound of [`FwdParams::packed_rows`].
pub const MAX_PACKED_ROWS: u32 = 1 << 16;

/// Row `row` of the query rows that share a key head, as the query head within the group and the query row; exact for
/// rows below 2^16. `reciprocal` is the [`kv_head_reciprocal`] of `q_len`.
#[inline(always)]
pub const fn packed_row(row: u32, q_len: u32, reciprocal: u64) -> (u32, u32) {
    let head = kv_head(row, reciprocal);
    (head, row - head * q_len)
}

/// Where the blocks that share query rows leave their partial results: first a counter for each of up to
/// [`Workspace::MAX_ROW_TILES`] tiles of rows, which is zero before and after every launch, then \[tile of rows, split\]
/// partial results. All launches have their counters in the same place, so that they can share the memory.
///
/// A partial result is f32: the output before the division by the row sum, \[rows, head_dim\], then \[rows\] pairs of
/// row maximum and row sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Parts of the keys.
    pub splits: u32,
    /// Rows of a tile.
    pub rows: u32,
    /// Columns of a partial result.
    pub head_dim: u32,
}

impl Workspace {
    /// Most tiles of rows, of all key heads and sequences, that can be split.
    pub const MAX_ROW_TILES: u32 = 1 << 14;

    /// Bytes of all counters.
    pub const COUNTER_BYTES: u64 = Self::MAX_ROW_TILES as u64 * 4;

    /// Byte offset of the counter of tile `tile`.
    #[inline(always)]
    pub const fn counter(&self, tile: u32) -> u64 {
        tile as u64 * 4
    }

    /// Byte offset of the partial result of split `split` of tile `tile`.
    #[inline(always)]
    pub const fn partial(&self, tile: u32, split: u32) -> u64 {
        Self::COUNTER_BYTES + (tile as u64 * self.splits as u64 + split as u64) * self.partial_bytes() as u64
    }

    /// Byte offset of eight columns of a row in a partial result.
    #[inline(always)]
    pub const fn columns(&self, row: u32, chunk: u32) -> u32 {
        (row * self.head_dim + chunk * 8) * 4
    }

    /// Byte offset of a row's maximum and sum in a partial result.
    #[inline(always)]
    pub const fn statistic(&self, row: u32) -> u32 {
        (self.rows * self.head_dim + row * 2) * 4
    }

    /// Bytes of a partial result.
    #[inline(always)]
    pub const fn partial_bytes(&self) -> u32 {
        self.statistic(self.rows)
    }

    /// Bytes of the whole for so many tiles of rows; 0 with one split, which stores its result where it belongs.
    pub const fn bytes(&self, row_tiles: u32) -> u64 {
        if self.splits > 1 { self.partial(row_tiles, 0) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn parameter_block_has_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<FwdParams>(), align_of::<FwdParams>()), (176, 8));
        assert_eq!(offset_of!(FwdParams, q_stride), 48);
        assert_eq!((offset_of!(FwdParams, wave_order), offset_of!(FwdParams, heads_q)), (108, 110));
        assert_eq!(offset_of!(FwdParams, kv_head_reciprocal), 32);
        assert_eq!(offset_of!(FwdParams, out), 112);
        assert_eq!(offset_of!(FwdParams, block_table), 128);
    }

    #[test]
    fn every_second_run_of_the_boustrophedon_goes_backwards_and_no_position_is_lost() {
        let order =
            |count, run_log2| (0..count).map(|i| boustrophedon(i, count, run_log2)).collect::<std::vec::Vec<_>>();
        assert_eq!(order(7, 1), [0, 1, 3, 2, 4, 5, 6]);
        assert_eq!(order(7, 2), [0, 1, 2, 3, 6, 5, 4]);
        assert_eq!(order(3, 4), [0, 1, 2]);
        for count in 0..70 {
            for run_log2 in 0..8 {
                let mut positions = order(count, run_log2);
                positions.sort_unstable();
                assert!(positions.into_iter().eq(0..count), "{count} {run_log2}");
            }
        }
    }

    #[test]
    fn tiles_come_in_groups_of_slices_each_from_the_last_rows_to_the_first() {
        let order = TileOrder { count: 15, row_tiles: 3, group: 2, last: 4, last_group: 1, heads_together: 1 };
        let tiles: std::vec::Vec<_> = (0..order.count).map(|index| order.get(index)).collect();
        let first_group = [(2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1)];
        assert_eq!(tiles[..6], first_group);
        assert_eq!(tiles[6..12], first_group.map(|(tile, slice)| (tile, slice + 2)));
        assert_eq!(tiles[12..], [(2, 4), (1, 4), (0, 4)], "the last group has one slice");
        let order = TileOrder { last: 2, last_group: 3, ..order };
        let last_group = [(2, 2), (2, 3), (2, 4), (1, 2), (1, 3), (1, 4), (0, 2), (0, 3), (0, 4)];
        assert!((0..order.count).map(|index| order.get(index)).eq(first_group.into_iter().chain(last_group)));
    }

    #[test]
    fn every_tile_comes_once_whatever_the_groups() {
        for row_tiles in 1..6 {
            for slices in 1..12 {
                let lasts = |group: u32| (0..slices).step_by(group as usize).map(move |last| (group, last));
                for (group, last) in (1..=slices).flat_map(lasts) {
                    let count = row_tiles * slices;
                    let order =
                        TileOrder { count, row_tiles, group, last, last_group: slices - last, heads_together: 1 };
                    let mut tiles: std::vec::Vec<_> = (0..order.count).map(|index| order.get(index)).collect();
                    tiles.sort_unstable();
                    let all = (0..row_tiles).flat_map(|tile| (0..slices).map(move |slice| (tile, slice)));
                    assert!(tiles.into_iter().eq(all), "{order:?}");
                    assert_eq!(order.heads(), slices);
                }
            }
        }
    }

    #[test]
    fn kv_head_equals_the_division_for_every_head_and_group() {
        for group in (1..=130).chain([255, 256, 1000, 65535]) {
            let reciprocal = kv_head_reciprocal(group);
            for head in 0..=65535 {
                assert_eq!(kv_head(head, reciprocal), head / group);
            }
        }
    }

    #[test]
    fn packed_rows_are_heads_of_rows() {
        for q_len in [1, 2, 5, 16, 100] {
            for row in 0..300 {
                assert_eq!(packed_row(row, q_len, kv_head_reciprocal(q_len)), (row / q_len, row % q_len));
            }
        }
    }

    #[test]
    fn parts_of_a_workspace_are_aligned_and_do_not_overlap() {
        let workspace = Workspace { splits: 2, rows: 16, head_dim: 96 };
        assert!(workspace.counter(Workspace::MAX_ROW_TILES) <= workspace.partial(0, 0));
        assert_eq!(workspace.partial(1, 0) - workspace.partial(0, 1), u64::from(workspace.partial_bytes()));
        assert_eq!(workspace.columns(16, 0), workspace.statistic(0));
        assert_eq!(workspace.partial_bytes(), 16 * (96 + 2) * 4);
        assert_eq!(workspace.bytes(3), 65536 + 6 * 16 * 98 * 4);
        assert_eq!(Workspace { splits: 1, ..workspace }.bytes(3), 0);
        assert!(workspace.partial_bytes().is_multiple_of(16));
    }
}
