//! Atomic operations on global memory (sm_70).

use core::arch::asm;

/// `atom.acq_rel.gpu.global.inc.u32`: the old value, which is replaced by the next one, or by 0 where it is `last`.
///
/// What the thread knows of when it arrives is visible to every thread of the GPU that arrives later, and to those
/// that a barrier orders after it.
///
/// # Safety
/// `address` is a 4-byte aligned global address that is written by this function alone.
#[inline(always)]
pub unsafe fn take_ticket(address: u64, last: u32) -> u32 {
    let ticket;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "atom.acq_rel.gpu.global.inc.u32 {}, [{}], {};",
            out(reg32) ticket, in(reg64) address, in(reg32) last, options(nostack),
        );
    }
    ticket
}
