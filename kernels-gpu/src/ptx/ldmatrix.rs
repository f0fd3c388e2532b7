//! Loads of matrix operands from shared memory (sm_75). Which lane gives which address: [`crate::fragment`].

use core::arch::asm;

/// `ldmatrix.sync.aligned.m8n8.x4.shared.b16`: four 8x8 matrices of 16-bit elements.
///
/// # Safety
/// All lanes of the warp are converged; `address` is a 16-byte aligned shared address of a row of 16 bytes.
#[inline(always)]
pub unsafe fn ldmatrix_x4(address: u32) -> [u32; 4] {
    let mut r = [0; 4];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], out(reg32) r[2], out(reg32) r[3], in(reg32) address,
            options(nostack, readonly),
        );
    }
    r
}

/// `ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16`: the same, each matrix transposed.
///
/// # Safety
/// As [`ldmatrix_x4`].
#[inline(always)]
pub unsafe fn ldmatrix_x4_trans(address: u32) -> [u32; 4] {
    let mut r = [0; 4];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], out(reg32) r[2], out(reg32) r[3], in(reg32) address,
            options(nostack, readonly),
        );
    }
    r
}

/// `stmatrix.sync.aligned.m8n8.x4.shared.b16` (sm_90): four 8x8 matrices of 16-bit elements, the other way round.
///
/// # Safety
/// As [`ldmatrix_x4`].
#[inline(always)]
pub unsafe fn stmatrix_x4(address: u32, r: [u32; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "stmatrix.sync.aligned.m8n8.x4.shared.b16 [{}], {{{}, {}, {}, {}}};",
            in(reg32) address, in(reg32) r[0], in(reg32) r[1], in(reg32) r[2], in(reg32) r[3], options(nostack),
        );
    }
}
