//! The kernels, a file each, and the pieces that they share.

#[cfg(any(ampere, ada))]
pub mod block;
#[cfg(ampere)]
mod combine;
#[cfg(ampere)]
pub mod decode;
mod element;
#[cfg(ampere)]
mod epilogue;
#[cfg(ada)]
pub mod fwd_fp8;
#[cfg(ampere)]
pub mod fwd_scalar;
#[cfg(ampere)]
pub mod fwd_sm80;
#[cfg(hopper)]
pub mod fwd_sm90;
#[cfg(ampere)]
pub mod merge_states;
#[cfg(ampere)]
pub mod mma_rate;
#[cfg(ampere)]
mod pages;
#[cfg(any(ampere, ada))]
mod pipeline;
#[cfg(ada)]
pub mod quantize;
mod registers;
#[cfg(any(ada, hopper))]
mod scales;
#[cfg(ampere)]
mod shared_keys;
#[cfg(ampere)]
mod softmax;
mod statistics;
#[cfg(ampere)]
mod ticket;
#[cfg(any(ampere, ada))]
mod tile;
#[cfg(ada)]
pub mod token_mean;
#[cfg(hopper)]
pub mod transpose;

use crate::params::FwdParams;
use crate::ptx::ld_st::load_global_4;

/// Number of valid rows of sequence `batch`, in `0..=rows` whatever the memory holds: all where `lens` is null.
///
/// # Safety
/// `lens` is null or holds an entry for `batch`.
#[cfg(ada)]
#[inline(always)]
unsafe fn valid_rows(lens: u64, batch: u32, rows: u32) -> u32 {
    if lens == 0 {
        return rows;
    }
    // SAFETY: the caller's promise.
    let given = unsafe { load_global_4(lens + u64::from(batch) * 4) } as i32;
    given.min(rows as i32).max(0) as u32
}

/// Number of keys of sequence `batch`, in `0..=kv_len` whatever the memory holds.
///
/// # Safety
/// `params.kv_lens` is null or holds an entry for `batch`.
#[inline(always)]
unsafe fn sequence_keys(params: &FwdParams, batch: u32) -> i32 {
    let all = params.kv_len as i32;
    if params.kv_lens == 0 {
        return all;
    }
    // SAFETY: the caller's promise.
    let given = unsafe { load_global_4(params.kv_lens + u64::from(batch) * 4) } as i32;
    given.min(all).max(0)
}

/// Address of the log-sum-exp of row `row`, or null when it is not wanted.
#[inline(always)]
fn lse_address(params: &FwdParams, batch: u32, head: u32, row: u32) -> u64 {
    let index = u64::from(batch * u32::from(params.heads_q) + head) * u64::from(params.q_len) + u64::from(row);
    if params.lse == 0 { 0 } else { params.lse + index * 4 }
}
