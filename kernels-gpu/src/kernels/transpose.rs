//! `transpose_e4m3`: a thread loads four columns of sixteen keys, a word a key, and stores sixteen keys of four columns.
//!
//! A warp has eight words of a row and 64 keys: whole sectors of 32 bytes on both ways.

use crate::config::WARP;
use crate::params::quotient;
use crate::ptx::bits::{even_bytes, odd_bytes};
use crate::ptx::ld_st::{load_global_4, store_global_16};
use crate::ptx::sreg;
use crate::transpose::{Transpose, TransposeParams};

/// The kernel.
///
/// # Safety
/// Launched with the grid of [`TransposeParams`], which are those of tensors that exist.
#[inline(always)]
pub unsafe fn run(params: TransposeParams) {
    let (batch, head) = (sreg::block_idx_z(), sreg::block_idx_y());
    let (thread, row_bytes) = (sreg::thread_idx_x(), Transpose::row_bytes(params.keys));
    let (warp, lane) = (sreg::block_idx_x() * (Transpose::THREADS / WARP) + thread / WARP, thread % WARP);
    let patches = Transpose::patches(params.head_dim);
    let first = quotient(warp, patches);
    let column = (warp - first * patches) * Transpose::PATCH_COLUMNS + lane % 8 * Transpose::COLUMNS;
    let first_key = first * Transpose::PATCH_KEYS + lane / 8 * Transpose::KEYS;
    if first_key >= row_bytes || column >= params.head_dim {
        return;
    }
    // SAFETY: the caller's promise: keys below the length exist, a sequence has a length, and a row of the output has room
    // for all its keys.
    unsafe {
        let len = if params.lens == 0 { params.keys } else { load_global_4(params.lens + u64::from(batch) * 4) };
        let len = (len as i32).max(0) as u32;
        let len = if len < params.keys { len } else { params.keys };
        let stride = &params.input_stride;
        let input = params.input + stride.slice_offset(batch, head) + u64::from(column);
        // Of each column four words.
        let mut columns = [[0; 4]; 4];
        for word in 0..4 {
            let value = |byte: u32| {
                let key = first_key + Transpose::key(4 * word + byte);
                if key < len { load_global_4(input + stride.row_offset(key)) } else { 0 }
            };
            let (a, b, c, d) = (value(0), value(1), value(2), value(3));
            // Columns 0 and 2, then 1 and 3, of two keys each.
            let (even, odd) = ([even_bytes(a, b), even_bytes(c, d)], [odd_bytes(a, b), odd_bytes(c, d)]);
            columns[0][word as usize] = even_bytes(even[0], even[1]);
            columns[1][word as usize] = even_bytes(odd[0], odd[1]);
            columns[2][word as usize] = odd_bytes(even[0], even[1]);
            columns[3][word as usize] = odd_bytes(odd[0], odd[1]);
        }
        let slice = u64::from(batch * params.heads + head) * u64::from(params.head_dim);
        let output = params.output + (slice + u64::from(column)) * u64::from(row_bytes) + u64::from(first_key);
        for i in 0..4 {
            store_global_16(output + i as u64 * u64::from(row_bytes), columns[i]);
        }
    }
}
