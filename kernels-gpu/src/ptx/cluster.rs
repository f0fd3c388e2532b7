//! Blocks of a cluster (sm_90). A block that is in none has rank 0.

use core::arch::asm;

/// `%cluster_ctarank`: which block of its cluster this one is.
#[inline(always)]
pub fn rank() -> u32 {
    let value: u32;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %cluster_ctarank;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `barrier.cluster.arrive` and `wait`: all threads of the cluster are here, and see what the others wrote before.
///
/// # Safety
/// All threads of the cluster that have not ended come here; each warp is converged.
#[inline(always)]
pub unsafe fn sync() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;", options(nostack));
    }
}
