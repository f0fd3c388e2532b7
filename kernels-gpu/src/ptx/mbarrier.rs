//! Barriers in shared memory (sm_90), 8 bytes each. A phase of one is over when all arrivals and all bytes that it expects
//! are there; the parity of phases alternates and begins with 0.
//!
//! What one thread of a warp does has its condition inside the instruction: a branch makes ptxas take the loop around it
//! for divergent, and it then moves descriptors of products from lane to lane.

use core::arch::asm;

/// `mbarrier.init`: `arrivals` end a phase.
///
/// # Safety
/// `barrier` is an address in shared memory that holds no barrier in use.
#[inline(always)]
pub unsafe fn init(barrier: u32, arrivals: u32) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mbarrier.init.shared::cta.b64 [{}], {};", in(reg32) barrier, in(reg32) arrivals, options(nostack)) }
}

/// `fence.mbarrier_init`: copies may use the barriers that the thread has made.
#[inline(always)]
pub fn fence_init() {
    // SAFETY: orders memory accesses.
    unsafe { asm!("fence.mbarrier_init.release.cluster;", options(nostack)) }
}

/// `mbarrier.arrive` by threads whose `arrives` holds.
///
/// # Safety
/// `barrier` is a barrier.
#[inline(always)]
pub unsafe fn arrive(barrier: u32, arrives: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {1}, 0; @p mbarrier.arrive.shared::cta.b64 _, [{0}]; }}",
            in(reg32) barrier, in(reg32) u32::from(arrives), options(nostack),
        );
    }
}

/// `mbarrier.arrive` by the first lanes of a warp, one at the barrier in each of `blocks` blocks of the cluster.
///
/// Who has waited for the phase may copy to where products of the warp have read that it has waited for, and knows of nothing
/// else that it did: other blocks' memory is not ordered by it, as in CUTLASS (`ClusterBarrier::arrive`). An arrival that orders
/// it (`.release.cluster`) is a `MEMBAR.ALL.GPU`, with which `fwd_fp8_sm90` took 1.8 times as long on an H200.
///
/// # Safety
/// `barrier` is an address in shared memory at which each of these blocks has a barrier, whose block has not ended.
#[inline(always)]
pub unsafe fn arrive_in_each(barrier: u32, blocks: u32, lane: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; .reg .b32 there; setp.lt.u32 p, {1}, {2}; \
             @p mapa.shared::cluster.u32 there, {0}, {1}; @p mbarrier.arrive.shared::cluster.b64 _, [there]; }}",
            in(reg32) barrier, in(reg32) lane, in(reg32) blocks, options(nostack),
        );
    }
}

/// `mbarrier.arrive.release.cluster` by threads whose `arrives` holds, at the barrier of block `rank` of the cluster: who waits
/// there by [`wait_for_cluster`] knows that what the thread did is done. It is a `MEMBAR`, not for every step.
///
/// # Safety
/// `barrier` is an address in shared memory at which that block has a barrier, and it has not ended.
#[inline(always)]
pub unsafe fn arrive_at(barrier: u32, rank: u32, arrives: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; .reg .b32 there; setp.ne.u32 p, {2}, 0; mapa.shared::cluster.u32 there, {0}, {1}; \
             @p mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }}",
            in(reg32) barrier, in(reg32) rank, in(reg32) u32::from(arrives), options(nostack),
        );
    }
}

/// `mbarrier.arrive.expect_tx` by threads whose `arrives` holds: the phase also waits for `bytes` of copies.
///
/// # Safety
/// `barrier` is a barrier.
#[inline(always)]
pub unsafe fn arrive_expecting(barrier: u32, bytes: u32, arrives: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {2}, 0; \
             @p mbarrier.arrive.expect_tx.shared::cta.b64 _, [{0}], {1}; }}",
            in(reg32) barrier, in(reg32) bytes, in(reg32) u32::from(arrives), options(nostack),
        );
    }
}

/// Whether the phase with this `parity` has ended. Does not wait: `try_wait` would, for as long as the hardware likes.
///
/// # Safety
/// `barrier` is a barrier.
#[inline(always)]
pub unsafe fn has_ended(barrier: u32, parity: u32) -> bool {
    let done: u32;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred done; mbarrier.test_wait.parity.shared::cta.b64 done, [{1}], {2}; selp.u32 {0}, 1, 0, done; }}",
            out(reg32) done, in(reg32) barrier, in(reg32) parity, options(nostack),
        );
    }
    done != 0
}

/// Waits for the end of the phase with this `parity`; does not wait where that is the phase before the one that runs.
///
/// # Safety
/// `barrier` is a barrier.
#[inline(always)]
#[allow(named_asm_labels)] // The label is local to its braces.
pub unsafe fn wait(barrier: u32, parity: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [{0}], {1}; \
             @!done bra again; }}",
            in(reg32) barrier, in(reg32) parity, options(nostack),
        );
    }
}

/// [`wait`] for what threads of other blocks of the cluster did before they arrived, too.
///
/// # Safety
/// `barrier` is a barrier.
#[inline(always)]
#[allow(named_asm_labels)] // The label is local to its braces.
pub unsafe fn wait_for_cluster(barrier: u32, parity: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred done; again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [{0}], {1}; \
             @!done bra again; }}",
            in(reg32) barrier, in(reg32) parity, options(nostack),
        );
    }
}
