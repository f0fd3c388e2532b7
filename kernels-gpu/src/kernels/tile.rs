//! Tiles of rows on their way from global memory into swizzled shared memory.

use crate::config::FwdSm80;
use crate::params::Strides;
use crate::ptx::cp_async;

/// One thread's share of copying rows of one tensor: the same 16-byte chunk of every swizzle span, in every
/// `copy_rows()`-th row. Its swizzled shared offset is computed once.
#[derive(Clone, Copy)]
pub struct TileCopy {
    config: FwdSm80,
    /// Address of the thread's chunk in the row `row` of the tensor.
    source: u64,
    /// Bytes from a row to the next.
    row_stride: u64,
    /// First row of a tile that the thread copies.
    row: u32,
    /// Shared offset of the thread's chunk in that row.
    offset: u32,
    /// Bytes to read of the chunk in each span: 0 past the head dim, where the tile is padded with zeros.
    bytes: [u32; 3],
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
        let slice = address + u64::from(batch) * stride.batch + u64::from(head) * stride.head;
        let mut bytes = [0; 3];
        let mut span = 0;
        while span < config.copy_spans() {
            let column = (chunk + span * config.copy_threads_per_row()) * 8;
            bytes[span as usize] = if column < head_dim { 16 } else { 0 };
            span += 1;
        }
        Self {
            config,
            source: slice + u64::from(row) * stride.row + u64::from(chunk * 16),
            row_stride: stride.row,
            row,
            offset: config.swizzle().offset(row, chunk),
            bytes,
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
        let pass_stride = self.row_stride * u64::from(config.copy_rows());
        let mut source = self.source + u64::from(first_row) * self.row_stride;
        let mut pass = 0;
        while pass < rows.div_ceil(config.copy_rows()) {
            let row = pass * config.copy_rows();
            let exists = !BOUNDED || first_row + self.row + row < end_row;
            let mut span = 0;
            while span < config.copy_spans() {
                let bytes = if exists { self.bytes[span as usize] } else { 0 };
                let at = span * config.swizzle().span();
                // SAFETY: the caller's promise; rows and chunks that do not exist are not read.
                unsafe {
                    cp_async::copy_16(
                        shared + self.offset + row * config.row_bytes() + at,
                        source + u64::from(at),
                        bytes,
                    );
                }
                span += 1;
            }
            source += pass_stride;
            pass += 1;
        }
    }
}

/// A lane's addresses for `ldmatrix` on a swizzled tile: its own row and chunk, moved along the columns in steps of
/// 32 bytes (one k16 fragment). Inside a span a step is an XOR, so a few addresses serve the whole tile with
/// constants added.
#[derive(Clone, Copy)]
pub struct OperandAddress {
    config: FwdSm80,
    steps: [u32; 4],
}

impl OperandAddress {
    /// `address` is that of the lane's row and chunk in the first 32 bytes.
    #[inline(always)]
    pub fn new(config: FwdSm80, address: u32) -> Self {
        Self { config, steps: [address, address ^ 32, address ^ 64, address ^ 96] }
    }

    /// Address of the fragment `row_tile * 16` rows down and `column_tile * 32` bytes along.
    #[inline(always)]
    pub fn fragment(&self, row_tile: u32, column_tile: u32) -> u32 {
        let per_span = self.config.swizzle().span() / 32;
        let span = column_tile / per_span;
        self.steps[(column_tile % per_span) as usize]
            + row_tile * 16 * self.config.row_bytes()
            + span * self.config.swizzle().span()
    }
}
