//! `mma_rate`: no attention, but `mma.sync` as often as the matrix units take it.
//!
//! Every warp walks over independent accumulator fragments, so that no instruction waits for the one before it. Nothing
//! is read; one sum a thread is stored, so that nothing can be left out.

use super::element::{mma_m16n8k16, pack};
use crate::config::WARP;
use crate::entry::MmaRate;
use crate::ptx::ld_st::store_global_f32;
use crate::ptx::math::count_down;
use crate::ptx::sreg;

/// The kernel.
///
/// # Safety
/// Launched with blocks of [`MmaRate::THREADS`] in one dimension; `out` has room for an f32 of every thread.
#[inline(always)]
pub unsafe fn run(config: MmaRate, out: u64, iterations: u32) {
    let thread = sreg::thread_idx_x();
    // Registers with the same value would share one, which the compiler copies before each use.
    let operand = |factor: u32| {
        let value = (factor * (thread % WARP / 4 + 1)) as f32;
        pack(config.dtype, value, value)
    };
    let (a, b) = ([operand(1), operand(2), operand(3), operand(4)], [operand(5), operand(6)]);
    // Accumulators that begin alike would stay alike, and one chain do for all.
    let mut chains: [[f32; 4]; MmaRate::CHAINS as usize] = core::array::from_fn(|chain| [chain as f32; 4]);
    let mut left = iterations;
    while left > 0 {
        for c in &mut chains {
            // SAFETY: `iterations` is the same for all threads.
            unsafe { mma_m16n8k16(config.dtype, c, a, b) };
        }
        left = count_down(left);
    }
    let mut sum = 0.0;
    for c in chains {
        sum += (c[0] + c[1]) + (c[2] + c[3]);
    }
    let index = u64::from(sreg::block_idx_x()) * u64::from(MmaRate::THREADS) + u64::from(thread);
    // SAFETY: the caller's promise.
    unsafe { store_global_f32(out + index * 4, sum) };
}
