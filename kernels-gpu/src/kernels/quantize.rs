//! `amax` and `quantize`: to e4m3, with the operations of the host's `quantize` in their order, so that bits agree.
//!
//! A thread takes 16 columns of a row at a time. Numbers that are not finite do not count for a scale: infinity becomes
//! 448 with its sign, and NaN a NaN.

use super::element::unpack;
use crate::config::{DType, WARP};
use crate::params::{Scales, quotient};
use crate::ptx::atomic::raise;
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::ld_st::{
    load_global_4, load_global_16, load_shared_4, store_global_16, store_global_f32, store_shared_4,
};
use crate::ptx::math::max;
use crate::ptx::shuffle::butterfly;
use crate::ptx::{barrier, sreg};
use crate::quantize::{Quantize, QuantizeParams};

/// Elements of a chunk.
const ELEMENTS: usize = Quantize::ELEMENTS as usize;

/// The largest number of e4m3.
const LARGEST: f32 = 448.0;

/// The rows of a block of threads.
struct Rows {
    batch: u32,
    head: u32,
    first: u32,
    /// How many there are.
    count: u32,
    /// How many are valid.
    valid: u32,
}

impl Rows {
    #[inline(always)]
    unsafe fn current(params: &QuantizeParams) -> Self {
        let (batch, head, first) = (sreg::block_idx_z(), sreg::block_idx_y(), sreg::block_idx_x() * Quantize::ROWS);
        // SAFETY: the caller's parameters; a sequence has a length.
        let len =
            if params.lens == 0 { params.rows } else { unsafe { load_global_4(params.lens + u64::from(batch) * 4) } };
        let count = (params.rows - first).min(Quantize::ROWS);
        Self { batch, head, first, count, valid: len.saturating_sub(first).min(count) }
    }

    /// Whether they are the first ones with their scale.
    #[inline(always)]
    fn begin_scale(&self, params: &QuantizeParams) -> bool {
        let Scales { batch, head, shift, .. } = params.scales;
        self.first & ((1 << shift) - 1) == 0 && (head > 0 || self.head == 0) && (batch > 0 || self.batch == 0)
    }

    /// Number of the scale.
    #[inline(always)]
    fn scale(&self, params: &QuantizeParams) -> u32 {
        params.scales.first(self.batch, self.head) + (self.first >> params.scales.shift)
    }
}

/// Chunk `chunk` of row `row` of the block as f32, less the mean.
#[inline(always)]
unsafe fn load(dtype: DType, params: &QuantizeParams, rows: &Rows, row: u32, chunk: u32) -> [f32; ELEMENTS] {
    let stride = &params.input_stride;
    let start = params.input + stride.slice_offset(rows.batch, rows.head) + stride.row_offset(rows.first + row);
    let start = start + u64::from(chunk * Quantize::ELEMENTS * dtype.size());
    let mut x = [0.0; ELEMENTS];
    let per_word = (4 / dtype.size()) as usize;
    for quad in 0..ELEMENTS / per_word / 4 {
        // SAFETY: the caller's promise that the chunk exists.
        let words = unsafe { load_global_16(start + 16 * quad as u64) };
        for i in 0..4 {
            let at = (4 * quad + i) * per_word;
            if per_word == 1 {
                x[at] = f32::from_bits(words[i]);
            } else {
                [x[at], x[at + 1]] = unpack(dtype, words[i]);
            }
        }
    }
    if params.mean != 0 {
        let head = u64::from(rows.batch * params.heads + rows.head) * u64::from(params.head_dim);
        let mean = params.mean + (head + u64::from(chunk * Quantize::ELEMENTS)) * 4;
        for quad in 0..ELEMENTS / 4 {
            // SAFETY: the mean has an element for every column.
            let words = unsafe { load_global_16(mean + 16 * quad as u64) };
            for i in 0..4 {
                x[4 * quad + i] -= f32::from_bits(words[i]);
            }
        }
    }
    x
}

/// The largest finite magnitude of the block's valid rows, in every thread.
///
/// # Safety
/// The whole block is here, converged.
#[inline(always)]
unsafe fn amax(dtype: DType, params: &QuantizeParams, rows: &Rows) -> f32 {
    let (thread, chunks) = (sreg::thread_idx_x(), params.head_dim / Quantize::ELEMENTS);
    let mut amax = 0.0;
    let mut item = thread;
    while item < rows.valid * chunks {
        let row = quotient(item, chunks);
        // SAFETY: the row is valid.
        let x = unsafe { load(dtype, params, rows, row, item - row * chunks) };
        for i in 0..ELEMENTS {
            let magnitude = x[i].abs();
            amax = max(amax, if magnitude < f32::INFINITY { magnitude } else { 0.0 });
        }
        item += Quantize::THREADS;
    }
    let shared = sreg::dynamic_shared();
    // SAFETY: the caller's promise; a warp has a word of its own.
    unsafe {
        for distance in [16, 8, 4, 2, 1] {
            amax = max(amax, butterfly(amax, distance));
        }
        if thread.is_multiple_of(WARP) {
            store_shared_4(shared + thread / WARP * 4, amax.to_bits());
        }
        barrier::sync_threads();
        for warp in 0..Quantize::THREADS / WARP {
            amax = max(amax, f32::from_bits(load_shared_4(shared + warp * 4)));
        }
    }
    amax
}

/// The kernel `amax`.
///
/// # Safety
/// Launched with a grid of the tensor's rows, and parameters of tensors that exist.
#[inline(always)]
pub unsafe fn find_amax(config: Quantize, params: QuantizeParams) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows = Rows::current(&params);
        let amax = amax(config.dtype, &params, &rows);
        if sreg::thread_idx_x() == 0 {
            // Magnitudes are ordered as their bits are.
            raise(params.amax + u64::from(rows.scale(&params)) * 4, amax.to_bits());
        }
    }
}

/// The kernel `quantize`.
///
/// # Safety
/// That of [`find_amax`]; where `amax` is an address, that kernel has run.
#[inline(always)]
pub unsafe fn run(config: Quantize, params: QuantizeParams) {
    let (thread, chunks) = (sreg::thread_idx_x(), params.head_dim / Quantize::ELEMENTS);
    // SAFETY: the caller's promise.
    unsafe {
        let rows = Rows::current(&params);
        let place = u64::from(rows.scale(&params)) * 4;
        let amax = if params.amax == 0 {
            amax(config.dtype, &params, &rows)
        } else {
            f32::from_bits(load_global_4(params.amax + place))
        };
        // The least normal number keeps the inverse finite.
        let scale = if amax == 0.0 { 1.0 } else { max(amax / LARGEST, f32::MIN_POSITIVE) };
        let inverse = 1.0 / scale;
        if thread == 0 && rows.begin_scale(&params) {
            store_global_f32(params.scales.address + place, scale);
        }
        let stride = &params.output_stride;
        let out = params.output + stride.slice_offset(rows.batch, rows.head) + stride.row_offset(rows.first);
        let mut item = thread;
        while item < rows.count * chunks {
            let row = quotient(item, chunks);
            let chunk = item - row * chunks;
            let mut words = [0; 4];
            if row < rows.valid {
                let x = load(config.dtype, &params, &rows, row, chunk);
                for i in 0..4 {
                    let at = |j: usize| x[4 * i + j] * inverse;
                    words[i] = pack_e4m3([at(0), at(1), at(2), at(3)]);
                }
            }
            store_global_16(out + stride.row_offset(row) + u64::from(chunk * Quantize::ELEMENTS), words);
            item += Quantize::THREADS;
        }
    }
}
