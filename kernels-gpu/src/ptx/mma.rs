//! Warp-level matrix products (sm_80, of e4m3 sm_89). Register layouts: [`crate::fragment`].

use core::arch::asm;

/// `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`: `c += a b`.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn mma_m16n8k16_f16(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 \
             {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};",
            inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg32) b[0], in(reg32) b[1],
            options(nomem, nostack),
        );
    }
}

/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`: `c += a b`.
///
/// # Safety
/// All lanes of the warp are converged.
#[inline(always)]
pub unsafe fn mma_m16n8k16_bf16(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 \
             {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};",
            inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg32) b[0], in(reg32) b[1],
            options(nomem, nostack),
        );
    }
}

/// `mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32`: `c += a b`.
///
/// # Safety
/// All lanes of the warp are converged.
#[cfg(ada)]
#[inline(always)]
pub unsafe fn mma_m16n8k32_e4m3(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 \
             {{{0}, {1}, {2}, {3}}}, {{{4}, {5}, {6}, {7}}}, {{{8}, {9}}}, {{{0}, {1}, {2}, {3}}};",
            inout(reg32) c[0], inout(reg32) c[1], inout(reg32) c[2], inout(reg32) c[3],
            in(reg32) a[0], in(reg32) a[1], in(reg32) a[2], in(reg32) a[3], in(reg32) b[0], in(reg32) b[1],
            options(nomem, nostack),
        );
    }
}
