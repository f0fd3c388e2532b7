//! `token_sums` and `token_mean`: the mean of the valid tokens of each head, in f32 and in an order of additions that
//! [`TokenMeanParams`] spells out, so that the host finds the same bits.
//!
//! Loads are on their way for several rows at a time, and added one after the other.

use super::element::unpack;
use super::registers::Registers;
use super::valid_rows;
use crate::config::DType;
use crate::params::quotient;
use crate::ptx::ld_st::{load_global_4, store_global_8, store_global_f32};
use crate::ptx::sreg;
use crate::quantize::{Quantize, TokenMeanParams, TokenParts};

/// Loads that are on their way at once.
const BATCH: u32 = 8;

/// Adds the words at `address(i)` for `i` in `first..end` to `sum`, in their order.
///
/// # Safety
/// The words can be read.
#[inline(always)]
unsafe fn add_all<S>(mut first: u32, end: u32, mut sum: S, address: impl Fn(u32) -> u64, add: impl Fn(S, u32) -> S) -> S
where
    S: Copy,
{
    while first < end {
        let mut words = [0; BATCH as usize];
        for i in 0..BATCH {
            // Behind the last one the last one is read again, and not used.
            // SAFETY: the caller's promise.
            *words.at(i) = unsafe { load_global_4(address((first + i).min(end - 1))) };
        }
        for i in 0..BATCH {
            if first + i < end {
                sum = add(sum, words.get(i));
            }
        }
        first += BATCH;
    }
    sum
}

/// The kernel `token_sums`.
///
/// # Safety
/// Launched with [`TokenMeanParams::sum_threads`] threads or more, and parameters of tensors that exist.
#[inline(always)]
pub unsafe fn add_tokens(config: Quantize, params: TokenMeanParams) {
    let words = params.words(config.dtype);
    let item = sreg::block_idx_x() * TokenParts::THREADS + sreg::thread_idx_x();
    let place = quotient(item, words);
    let word = item - place * words;
    let slice = quotient(place, params.parts);
    if slice >= params.all_heads {
        return;
    }
    let batch = quotient(slice, params.heads);
    let first = (place - slice * params.parts) * params.part_rows;
    let stride = &params.stride;
    let start = params.input + stride.slice_offset(batch, slice - batch * params.heads) + u64::from(word * 4);
    let finite = |x: f32| if x.abs() < f32::INFINITY { x } else { 0.0 };
    let add = |[low, high]: [f32; 2], word| {
        if matches!(config.dtype, DType::F32) {
            return [low + finite(f32::from_bits(word)), high];
        }
        let [a, b] = unpack(config.dtype, word);
        [low + finite(a), high + finite(b)]
    };
    // SAFETY: rows below the length exist; every column has a place for its sum.
    unsafe {
        let end = (first + params.part_rows).min(valid_rows(params.lens, batch, params.rows));
        let sum = add_all(first, end, [0.0; 2], |row| start + stride.row_offset(row), add);
        let columns = params.sums + u64::from(place) * u64::from(params.head_dim * 4);
        if matches!(config.dtype, DType::F32) {
            store_global_f32(columns + u64::from(word * 4), sum[0]);
        } else {
            store_global_8(columns + u64::from(word * 8), sum.map(f32::to_bits));
        }
    }
}

/// The kernel `token_mean`.
///
/// # Safety
/// Launched with [`TokenMeanParams::mean_threads`] threads or more, behind `token_sums` with the same parameters.
#[inline(always)]
pub unsafe fn divide(params: TokenMeanParams) {
    let item = sreg::block_idx_x() * TokenParts::THREADS + sreg::thread_idx_x();
    let slice = quotient(item, params.head_dim);
    if slice >= params.all_heads {
        return;
    }
    let column = item - slice * params.head_dim;
    let row_bytes = u64::from(params.head_dim * 4);
    let start = params.sums + u64::from(slice * params.parts) * row_bytes + u64::from(column * 4);
    // SAFETY: every part has a sum, and every column a place for its mean.
    unsafe {
        let len = valid_rows(params.lens, quotient(slice, params.heads), params.rows);
        let address = |part| start + u64::from(part) * row_bytes;
        let sum = add_all(0, params.parts, 0.0, address, |sum, word| sum + f32::from_bits(word));
        let mean = sum / len.max(1) as f32;
        let mean = if mean.abs() < f32::INFINITY { mean } else { 0.0 };
        store_global_f32(params.mean + u64::from(item) * 4, mean);
    }
}
