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

/// `st.async` by threads whose `sends` holds: `value` to the shared address `slot` of block `rank`, where its four bytes then count
/// at `barrier`.
///
/// # Safety
/// `slot` is a multiple of 4 that nobody reads or writes; `barrier` is a barrier of the block, which has not ended, and expects
/// the bytes.
#[inline(always)]
pub unsafe fn send(slot: u32, value: u32, barrier: u32, rank: u32, sends: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; .reg .b32 there, full; setp.ne.u32 p, {4}, 0; \
             mapa.shared::cluster.u32 there, {0}, {3}; mapa.shared::cluster.u32 full, {2}, {3}; \
             @p st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], {1}, [full]; }}",
            in(reg32) slot, in(reg32) value, in(reg32) barrier, in(reg32) rank, in(reg32) u32::from(sends),
            options(nostack),
        );
    }
}
