//! Asynchronous copies from global to shared memory (sm_80).

use core::arch::asm;

/// `cp.async.cg.shared.global` of 16 bytes, past L1, with a 128-byte L2 prefetch, where `row < end`; else nothing is
/// read and the 16 bytes are zeroed.
///
/// # Safety
/// `shared` is a 16-byte aligned shared address that nobody else uses until the copy is waited for; `global` is a
/// 16-byte aligned readable global address where `row < end`.
#[inline(always)]
pub unsafe fn copy_16(shared: u32, global: u64, row: i32, end: i32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred zero; setp.ge.s32 zero, {}, {}; \
             cp.async.cg.shared.global.L2::128B [{}], [{}], 16, zero; }}",
            in(reg32) row, in(reg32) end, in(reg32) shared, in(reg64) global, options(nostack),
        );
    }
}

/// `cp.async.commit_group`: closes the group of this thread's copies since the last one.
#[inline(always)]
pub fn commit() {
    // SAFETY: touches no memory by itself.
    unsafe { asm!("cp.async.commit_group;", options(nostack)) }
}

/// `cp.async.wait_group`: waits until at most the `newest` latest groups of this thread are unfinished, which is a
/// constant at every call. Other threads' copies are seen only after a barrier.
#[inline(always)]
pub fn wait(newest: u32) {
    // SAFETY: waits for copies of this thread. To wait for more than asked is always right.
    unsafe {
        match newest {
            6 => asm!("cp.async.wait_group 6;", options(nostack)),
            5 => asm!("cp.async.wait_group 5;", options(nostack)),
            4 => asm!("cp.async.wait_group 4;", options(nostack)),
            3 => asm!("cp.async.wait_group 3;", options(nostack)),
            2 => asm!("cp.async.wait_group 2;", options(nostack)),
            1 => asm!("cp.async.wait_group 1;", options(nostack)),
            _ => asm!("cp.async.wait_group 0;", options(nostack)),
        }
    }
}
