//! `amax` and `quantize`: to e4m3, with the operations of the host's `quantize` in their order, so that bits agree.
//!
//! A thread takes 16 columns of a row at a time, and of a tensor that is left transposed four columns of 16 rows.
//! Numbers that are not finite do not count for a scale: infinity becomes 448 with its sign, and NaN a NaN.

use super::element::unpack;
use super::valid_rows;
use crate::config::{DType, WARP};
use crate::params::{STRIDE_UNIT, quotient};
use crate::ptx::cvt::pack_e4m3;
use crate::ptx::ld_st::{
    load_global_4, load_global_8, load_global_16, load_shared_4, offset_address, store_global_16, store_global_f32,
    store_shared_4,
};
use crate::ptx::math::max;
use crate::ptx::shuffle::butterfly;
use crate::ptx::{barrier, fence_schedule, sreg};
use crate::quantize::{Quantize, QuantizeParams, QuantizedTensor};
use crate::transpose::Transpose;

/// Elements of a chunk.
const ELEMENTS: usize = Quantize::ELEMENTS as usize;

/// The largest number of e4m3.
const LARGEST: f32 = 448.0;

/// The tensor of the block of threads, of which tensor `i` has `blocks(i)`, and the number of the block within it.
#[inline(always)]
fn tensor(params: &QuantizeParams, blocks: impl Fn(&QuantizedTensor) -> u32) -> (QuantizedTensor, u32) {
    let [q, k, v] = &params.tensors;
    let block = sreg::block_idx_x();
    let of_q = blocks(q);
    let of_q_and_k = of_q + blocks(k);
    if block < of_q {
        (*q, block)
    } else if block < of_q_and_k {
        (*k, block - of_q)
    } else {
        (*v, block - of_q_and_k)
    }
}

/// The rows of a unit.
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
    /// # Safety
    /// The caller's parameters are those of a tensor that exists.
    #[inline(always)]
    unsafe fn of_unit(tensor: &QuantizedTensor, unit: u32) -> Self {
        let slice = quotient(unit, tensor.units_of_head);
        let batch = quotient(slice, tensor.heads);
        let first = (unit - slice * tensor.units_of_head) * tensor.unit_rows;
        // SAFETY: a sequence has a length.
        let len = unsafe { valid_rows(tensor.lens, batch, tensor.rows) };
        let count = tensor.rows.saturating_sub(first).min(tensor.unit_rows);
        Self { batch, head: slice - batch * tensor.heads, first, count, valid: len.saturating_sub(first).min(count) }
    }
}

/// Chunk `chunk` of row `row` of the unit as f32, less the mean.
#[inline(always)]
unsafe fn load(dtype: DType, tensor: &QuantizedTensor, rows: &Rows, row: u32, chunk: u32) -> [f32; ELEMENTS] {
    let stride = &tensor.stride;
    let start = tensor.input + stride.slice_offset(rows.batch, rows.head) + stride.row_offset(rows.first + row);
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
    if tensor.mean != 0 {
        let head = u64::from(rows.batch * tensor.heads + rows.head) * u64::from(tensor.head_dim);
        let mean = tensor.mean + (head + u64::from(chunk * Quantize::ELEMENTS)) * 4;
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

/// The largest finite magnitude among the thread's share of the valid rows, and `amax`.
#[inline(always)]
unsafe fn magnitude(dtype: DType, tensor: &QuantizedTensor, rows: &Rows, mut amax: f32) -> f32 {
    let chunks = quotient(tensor.head_dim, Quantize::ELEMENTS);
    let mut item = sreg::thread_idx_x();
    while item < rows.valid * chunks {
        let row = quotient(item, chunks);
        // SAFETY: the row is valid.
        let x = unsafe { load(dtype, tensor, rows, row, item - row * chunks) };
        for i in 0..ELEMENTS {
            let magnitude = x[i].abs();
            amax = max(amax, if magnitude < f32::INFINITY { magnitude } else { 0.0 });
        }
        item += Quantize::THREADS;
    }
    amax
}

/// The largest of the threads' magnitudes, in every thread.
///
/// # Safety
/// The whole block is here, converged.
#[inline(always)]
unsafe fn of_block(mut amax: f32) -> f32 {
    let (thread, shared) = (sreg::thread_idx_x(), sreg::dynamic_shared());
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
/// Launched with a block for each part, and parameters of tensors that exist.
#[inline(always)]
pub unsafe fn find_amax(config: Quantize, params: QuantizeParams) {
    let (tensor, place) = tensor(&params, |tensor| tensor.all_parts);
    let scale = quotient(place, tensor.parts);
    let begin = (place - scale * tensor.parts) * tensor.units_of_part;
    let end = (begin + tensor.units_of_part).min(tensor.units_of_scale);
    // SAFETY: the caller's promise.
    unsafe {
        let mut amax = 0.0;
        let mut unit = begin;
        while unit < end {
            let rows = Rows::of_unit(&tensor, scale * tensor.units_of_scale + unit);
            amax = magnitude(config.dtype, &tensor, &rows, amax);
            unit += 1;
        }
        let amax = of_block(amax);
        if sreg::thread_idx_x() == 0 {
            store_global_f32(tensor.amax + u64::from(place) * 4, amax);
        }
    }
}

/// The kernel `quantize`.
///
/// # Safety
/// Launched with a block for each unit, and parameters of tensors that exist; where `amax` is an address, that kernel
/// has run.
#[inline(always)]
pub unsafe fn run(config: Quantize, params: QuantizeParams) {
    let (tensor, unit) = tensor(&params, |tensor| tensor.units);
    let (thread, chunks) = (sreg::thread_idx_x(), quotient(tensor.head_dim, Quantize::ELEMENTS));
    let scale_index = quotient(unit, tensor.units_of_scale);
    // SAFETY: the caller's promise.
    unsafe {
        let rows = Rows::of_unit(&tensor, unit);
        let mut amax = 0.0;
        if tensor.amax == 0 {
            amax = magnitude(config.dtype, &tensor, &rows, amax);
        } else if thread < tensor.parts {
            let place = u64::from(scale_index * tensor.parts + thread);
            amax = f32::from_bits(load_global_4(tensor.amax + place * 4));
        }
        let amax = of_block(amax);
        // The least normal number keeps the inverse finite.
        let scale = if amax == 0.0 { 1.0 } else { max(amax / LARGEST, f32::MIN_POSITIVE) };
        let inverse = 1.0 / scale;
        if thread == 0 && scale_index * tensor.units_of_scale == unit {
            store_global_f32(tensor.scales + u64::from(scale_index) * 4, scale);
        }
        if tensor.transposed != 0 {
            return store_transposed(config.dtype, &tensor, &rows, inverse);
        }
        let slice = u64::from(rows.batch * tensor.heads + rows.head);
        let out = tensor.output + (slice * u64::from(tensor.rows) + u64::from(rows.first)) * u64::from(tensor.head_dim);
        let mut item = thread;
        while item < rows.count * chunks {
            let row = quotient(item, chunks);
            let mut words = [0; 4];
            if row < rows.valid {
                let x = load(config.dtype, &tensor, &rows, row, item - row * chunks);
                for i in 0..4 {
                    let at = |j: usize| x[4 * i + j] * inverse;
                    words[i] = pack_e4m3([at(0), at(1), at(2), at(3)]);
                }
            }
            store_global_16(out + u64::from(item) * u64::from(Quantize::ELEMENTS), words);
            item += Quantize::THREADS;
        }
    }
}

/// Four columns of a row as f32, from their address on.
///
/// # Safety
/// They exist.
#[inline(always)]
unsafe fn load_four(dtype: DType, address: u64) -> [f32; 4] {
    // SAFETY: the caller's promise; they begin at a multiple of their size, as rows do at multiples of 16 bytes.
    unsafe {
        if dtype.size() == 4 {
            let [a, b, c, d] = load_global_16(address);
            return [f32::from_bits(a), f32::from_bits(b), f32::from_bits(c), f32::from_bits(d)];
        }
        let [low, high] = load_global_8(address);
        let ([a, b], [c, d]) = (unpack(dtype, low), unpack(dtype, high));
        [a, b, c, d]
    }
}

/// The rows of a unit times `inverse`, in columns of the output: zeros for those that are not valid, up to the end of
/// the last unit that the output has room for. As in `transpose_e4m3` a warp has 64 rows of 32 columns, whole sectors
/// both ways.
///
/// # Safety
/// The whole block is here, with the parameters of a tensor that exists.
#[inline(always)]
unsafe fn store_transposed(dtype: DType, tensor: &QuantizedTensor, rows: &Rows, inverse: f32) {
    let (warp, lane) = (sreg::thread_idx_x() / WARP, sreg::thread_idx_x() % WARP);
    let row_bytes = Transpose::row_bytes(tensor.rows);
    // Warps down the rows of the unit, and beside each other.
    const DOWN: u32 = Quantize::TRANSPOSED_UNIT_ROWS / Transpose::PATCH_KEYS;
    let first = rows.first + warp % DOWN * Transpose::PATCH_KEYS + lane / 8 * Transpose::KEYS;
    let column = warp / DOWN * Transpose::PATCH_COLUMNS + lane % 8 * Transpose::COLUMNS;
    if first >= row_bytes || column >= tensor.head_dim {
        return;
    }
    let (stride, end) = (&tensor.stride, rows.first + rows.valid);
    let row_stride = stride.row * STRIDE_UNIT;
    let mut start = tensor.input + stride.slice_offset(rows.batch, rows.head) + stride.row_offset(first);
    start += u64::from(column * dtype.size());
    // Of each column four words.
    let mut columns = [[0; 4]; 4];
    for word in 0..4 {
        let of_row = |byte: u32| {
            let address = offset_address(start, Transpose::key(byte) * row_stride);
            // SAFETY: a valid row exists.
            let load = || unsafe { load_four(dtype, address) };
            if first + Transpose::key(4 * word + byte) < end { load() } else { [0.0; 4] }
        };
        let x = [of_row(0), of_row(1), of_row(2), of_row(3)];
        if dtype.size() == 4 && word == 1 {
            // All rows at once would be more than there are registers.
            fence_schedule();
        }
        // The next word has the rows behind those of this one: places that follow from each other take few registers.
        start = offset_address(start, Transpose::key(4) * row_stride);
        for i in 0..4 {
            let [a, b, c, d] = [x[0][i] * inverse, x[1][i] * inverse, x[2][i] * inverse, x[3][i] * inverse];
            columns[i][word as usize] = pack_e4m3([a, b, c, d]);
        }
    }
    let slice = u64::from(rows.batch * tensor.heads + rows.head) * u64::from(tensor.head_dim);
    let output = tensor.output + (slice + u64::from(column)) * u64::from(row_bytes) + u64::from(first);
    for i in 0..4 {
        // SAFETY: a row of the output has room for all rows of its last unit.
        unsafe { store_global_16(output + i as u64 * u64::from(row_bytes), columns[i]) };
    }
}
