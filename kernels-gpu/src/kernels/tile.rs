//! Tiles of rows on their way from global memory into swizzled shared memory.

use crate::config::FwdSm80;
use crate::params::{STRIDE_UNIT, Strides};
use crate::ptx::cp_async;
use crate::ptx::ld_st::offset_address;

/// One thread's share of copying rows of one tensor: the same 16-byte chunk of every swizzle span, in every
/// `copy_rows()`-th row. Its swizzled shared offset is computed once.
///
/// What all threads share (`slice`, `stride`) fits uniform registers; a thread's own part is 32 bits wide.
#[derive(Clone, Copy)]
pub struct TileCopy {
    config: FwdSm80,
    /// Address of the first row.
    slice: u64,
    stride: Strides,
    /// First row of a tile that the thread copies.
    row: u32,
    /// Bytes from the tile's first row in global memory to the thread's chunk.
    global_offset: u32,
    /// Bytes from the tile in shared memory to the thread's chunk.
    shared_offset: u32,
    /// How many spans hold a chunk of the thread's that exists; past the head dim the tile is padded with zeros.
    spans: u32,
}

impl TileCopy {
    /// The share of thread `thread` in copying head `head` of sequence `batch` of the tensor at `address`.
    #[inline(always)]
    pub fn new(
        config: FwdSm80,
        thread: u32,
        address: u64,
        stride: &Strides,
        batch: u32,
        head: u32,
        head_dim: u32,
    ) -> Self {
        let row = thread / config.copy_threads_per_row();
        let chunk = thread % config.copy_threads_per_row();
        Self {
            config,
            slice: address + stride.slice_offset(batch, head),
            stride: *stride,
            row,
            global_offset: (row * stride.row + chunk) * STRIDE_UNIT,
            shared_offset: config.swizzle().offset(row, chunk),
            // Chunks of the thread that start below the head dim.
            spans: (head_dim / 8 + config.copy_threads_per_row() - 1 - chunk) / config.copy_threads_per_row(),
        }
    }

    /// Starts the copy of `rows` rows from row `first_row` on into the tile at `shared`. With `BOUNDED` rows from
    /// `end_row` on are zeros.
    ///
    /// # Safety
    /// The tile is free, and the rows exist (below `end_row` with `BOUNDED`).
    #[inline(always)]
    pub unsafe fn start<const BOUNDED: bool>(&self, shared: u32, first_row: u32, rows: u32, end_row: u32) {
        let config = self.config;
        if rows < config.copy_rows() && self.row >= rows {
            return;
        }
        let pass_stride = self.stride.row_offset(config.copy_rows());
        let tile = self.slice + self.stride.row_offset(first_row);
        let mut source = offset_address(tile, self.global_offset);
        let rows_left = if BOUNDED { end_row as i32 - (first_row + self.row) as i32 } else { i32::MAX };
        for pass in 0..rows.div_ceil(config.copy_rows()) {
            let row = pass * config.copy_rows();
            for span in 0..config.copy_spans() {
                let at = span * config.swizzle().span();
                let end = if span < self.spans { rows_left } else { 0 };
                // SAFETY: the caller's promise; rows and chunks that do not exist are not read.
                unsafe {
                    let target = shared + self.shared_offset + row * config.row_bytes() + at;
                    cp_async::copy_16(target, source + u64::from(at), row as i32, end);
                }
            }
            source += pass_stride;
        }
    }
}

/// A lane's addresses for `ldmatrix` on a swizzled tile: its own row and chunk, moved along the columns in steps of
/// 32 bytes (one k16 fragment). Inside a span a step is an XOR, so two or four addresses serve the whole tile with
/// constants added.
#[derive(Clone, Copy)]
pub struct OperandAddress {
    config: FwdSm80,
    address: u32,
}

impl OperandAddress {
    /// `address` is that of the lane's row and chunk in the first 32 bytes.
    #[inline(always)]
    pub fn new(config: FwdSm80, address: u32) -> Self {
        Self { config, address }
    }

    /// Address of the fragment `row_tile * 16` rows down and `column_tile * 32` bytes along.
    #[inline(always)]
    pub fn fragment(&self, row_tile: u32, column_tile: u32) -> u32 {
        self.chunk(row_tile, 2 * column_tile)
    }

    /// Address of the 16-byte chunk `chunk` of a row, `row_tile * 16` rows down. `address` is that of the row's first chunk.
    #[inline(always)]
    pub fn chunk(&self, row_tile: u32, chunk: u32) -> u32 {
        let span = self.config.swizzle().span();
        let along = chunk * 16;
        (self.address ^ (along % span)) + row_tile * 16 * self.config.row_bytes() + along / span * span
    }
}
