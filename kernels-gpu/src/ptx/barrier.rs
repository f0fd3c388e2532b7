//! Barriers. Intrinsics, not `asm!`: only they are convergent, so that LLVM neither clones nor moves them.

use core::arch::nvptx;

unsafe extern "C" {
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(members: u32);
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
