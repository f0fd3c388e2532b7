//! Barriers. Intrinsics, not `asm!`: only they are convergent, so that LLVM neither clones nor moves them.

use core::arch::nvptx;

unsafe extern "C" {
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(members: u32);
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.count"]
    fn barrier_sync_count(barrier: u32, threads: u32);
    #[link_name = "llvm.nvvm.barrier.cta.arrive.aligned.count"]
    fn barrier_arrive_count(barrier: u32, threads: u32);
}

/// `bar.sync 0`: waits for every thread of the block and makes their shared-memory writes visible.
///
/// # Safety
/// Every thread of the block arrives, converged within its warp.
#[inline(always)]
pub unsafe fn sync_threads() {
    // SAFETY: the caller's promise.
    unsafe { nvptx::_syncthreads() }
}

/// `bar.warp.sync`: waits for every lane of the warp and makes their shared-memory writes visible.
///
/// # Safety
/// Every lane of the warp arrives.
#[inline(always)]
pub unsafe fn sync_warp() {
    // SAFETY: the caller's promise.
    unsafe { bar_warp_sync(u32::MAX) }
}

/// `barrier.cta.sync`: waits at barrier `barrier`, from 1 to 15, until `threads` threads have come to it, and makes their
/// shared-memory writes visible.
///
/// # Safety
/// All lanes of the warp are here, converged; `threads` come to the barrier in each round.
#[inline(always)]
pub unsafe fn sync_some(barrier: u32, threads: u32) {
    // SAFETY: the caller's promise.
    unsafe { barrier_sync_count(barrier, threads) }
}

/// `barrier.cta.arrive`: comes to barrier `barrier`, and does not wait.
///
/// # Safety
/// That of [`sync_some`].
#[inline(always)]
pub unsafe fn arrive_some(barrier: u32, threads: u32) {
    // SAFETY: the caller's promise.
    unsafe { barrier_arrive_count(barrier, threads) }
}
