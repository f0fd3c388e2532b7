//! Keys and values on their way from pages in global memory into the swizzled tiles of one warp.

use crate::config::{FwdSm80, WARP};
use crate::params::{FwdParams, STRIDE_UNIT, Strides};
use crate::ptx::cp_async;
use crate::ptx::ld_st::{load_global_4, offset_address};

/// Keys that lie in one page whatever its size: pages hold 16 or a larger power of two.
pub const PART: u32 = 16;

/// Most parts of a tile.
pub const MAX_PARTS: usize = 2;

/// Where the pages of one sequence are.
#[derive(Clone, Copy)]
pub struct PageTable {
    /// The sequence's row of the block table, or null where its keys are contiguous.
    row: u64,
    /// The page of a contiguous sequence.
    sequence: u32,
    shift: u32,
}

impl PageTable {
    /// The pages of sequence `batch`.
    #[inline(always)]
    pub fn new(params: &FwdParams, batch: u32) -> Self {
        let row = params.block_table + u64::from(batch) * u64::from(params.pages_per_sequence) * 4;
        Self { row: if params.block_table == 0 { 0 } else { row }, sequence: batch, shift: params.page_shift }
    }

    /// The page of key `key`. Only entries of keys below `end` are read.
    ///
    /// # Safety
    /// The table has an entry for every key below `end`.
    #[inline(always)]
    pub unsafe fn page(&self, key: u32, end: u32) -> u32 {
        if self.row == 0 || key >= end {
            return self.sequence;
        }
        // SAFETY: the caller's promise.
        unsafe { load_global_4(self.row + u64::from(key >> self.shift) * 4) }
    }

    /// The row of key `key` within its page.
    #[inline(always)]
    pub fn row(&self, key: u32) -> u32 {
        key & !(u32::MAX << self.shift)
    }
}

/// One lane's share of copying rows of one tensor: the same 16-byte chunk of every swizzle span, in every
/// `32 / copy_threads_per_row()`-th row.
#[derive(Clone, Copy)]
pub struct WarpCopy {
    config: FwdSm80,
    /// Address of the head in the first page.
    slice: u64,
    /// From one page to the next, in units of 16 bytes, and from one row to the next.
    page_stride: u32,
    row_stride: u32,
    /// First row that the lane copies.
    row: u32,
    /// Bytes from a row in global memory to the lane's chunk in the lane's first row.
    global_offset: u32,
    /// Bytes from the tile in shared memory to the lane's chunk.
    shared_offset: u32,
    /// How many spans hold a chunk of the lane's that exists; past the head dim the tile is padded with zeros.
    spans: u32,
}

impl WarpCopy {
    /// The share of lane `lane` in copying head `head` of the pages at `address`.
    #[inline(always)]
    pub fn new(config: FwdSm80, lane: u32, address: u64, stride: &Strides, head: u32, head_dim: u32) -> Self {
        let per_row = config.copy_threads_per_row();
        let (row, chunk) = (lane / per_row, lane % per_row);
        Self {
            config,
            slice: address + stride.slice_offset(0, head),
            page_stride: stride.batch,
            row_stride: stride.row,
            row,
            global_offset: (row * stride.row + chunk) * STRIDE_UNIT,
            shared_offset: config.swizzle().offset(row, chunk),
            spans: (head_dim / 8 + per_row - 1 - chunk) / per_row,
        }
    }

    /// Starts the copy of [`PART`] rows from row `row` of page `page` on into the rows at `shared`; those from `left`
    /// on, which may be negative, are zeros.
    ///
    /// # Safety
    /// The rows at `shared` are free, and the first `left` rows exist.
    #[inline(always)]
    pub unsafe fn start(&self, shared: u32, page: u32, row: u32, left: i32) {
        let config = self.config;
        let rows = WARP / config.copy_threads_per_row();
        let stride = Strides { batch: self.page_stride, head: 0, row: self.row_stride };
        let first = self.slice + stride.slice_offset(page, 0) + stride.row_offset(row);
        let mut source = offset_address(first, self.global_offset);
        let left = left - self.row as i32;
        for pass in 0..PART / rows {
            // The lane's own row number is below `rows`: the rest of the row's XOR is a constant.
            let offset = self.shared_offset ^ config.swizzle().xor(pass * rows);
            for span in 0..config.copy_spans() {
                let at = span * config.swizzle().span();
                let end = if span < self.spans { left } else { 0 };
                // SAFETY: the caller's promise; rows and chunks that do not exist are not read.
                unsafe {
                    let target = shared + offset + pass * rows * config.row_bytes() + at;
                    cp_async::copy_16(target, source + u64::from(at), (pass * rows) as i32, end);
                }
            }
            source += stride.row_offset(rows);
        }
    }
}
