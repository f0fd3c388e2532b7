//! Loads and stores with their memory space in the instruction: parameters hold plain addresses.

use core::arch::asm;

/// `base + offset`. Not `pure`: LLVM would move a loop-invariant offset to the invariant part of `base` and keep the
/// 64-bit sum in registers.
#[inline(always)]
pub fn offset_address(base: u64, offset: u32) -> u64 {
    let address;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{{ .reg .b64 wide; cvt.u64.u32 wide, {}; add.s64 {}, {}, wide; }}",
            in(reg32) offset, out(reg64) address, in(reg64) base, options(nomem, nostack),
        );
    }
    address
}

/// `ld.global.v4.b32`.
///
/// # Safety
/// `address` is a 16-byte aligned readable global address.
#[inline(always)]
pub unsafe fn load_global_16(address: u64) -> [u32; 4] {
    let mut r = [0; 4];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ld.global.v4.b32 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], out(reg32) r[2], out(reg32) r[3], in(reg64) address,
            options(nostack, readonly),
        );
    }
    r
}

/// `ld.global.v2.b32`.
///
/// # Safety
/// `address` is an 8-byte aligned readable global address.
#[inline(always)]
pub unsafe fn load_global_8(address: u64) -> [u32; 2] {
    let mut r = [0; 2];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ld.global.v2.b32 {{{}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], in(reg64) address, options(nostack, readonly),
        );
    }
    r
}

/// `ld.global.b32`.
///
/// # Safety
/// `address` is a 4-byte aligned readable global address.
#[inline(always)]
pub unsafe fn load_global_4(address: u64) -> u32 {
    let r;
    // SAFETY: the caller's promise.
    unsafe { asm!("ld.global.b32 {}, [{}];", out(reg32) r, in(reg64) address, options(nostack, readonly)) }
    r
}

/// `st.global.v4.b32`.
///
/// # Safety
/// `address` is a 16-byte aligned writable global address.
#[inline(always)]
pub unsafe fn store_global_16(address: u64, value: [u32; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "st.global.v4.b32 [{}], {{{}, {}, {}, {}}};",
            in(reg64) address, in(reg32) value[0], in(reg32) value[1], in(reg32) value[2], in(reg32) value[3],
            options(nostack),
        );
    }
}

/// `st.global.v2.b32`.
///
/// # Safety
/// `address` is an 8-byte aligned writable global address.
#[inline(always)]
pub unsafe fn store_global_8(address: u64, value: [u32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "st.global.v2.b32 [{}], {{{}, {}}};",
            in(reg64) address, in(reg32) value[0], in(reg32) value[1], options(nostack),
        );
    }
}

/// `st.global.f32`.
///
/// # Safety
/// `address` is a 4-byte aligned writable global address.
#[inline(always)]
pub unsafe fn store_global_f32(address: u64, value: f32) {
    // SAFETY: the caller's promise.
    unsafe { asm!("st.global.f32 [{}], {};", in(reg64) address, in(reg32) value, options(nostack)) }
}

/// `ld.shared.v4.b32`.
///
/// # Safety
/// `address` is a 16-byte aligned address of initialised shared memory.
#[inline(always)]
pub unsafe fn load_shared_16(address: u32) -> [u32; 4] {
    let mut r = [0; 4];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ld.shared.v4.b32 {{{}, {}, {}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], out(reg32) r[2], out(reg32) r[3], in(reg32) address,
            options(nostack, readonly),
        );
    }
    r
}

/// `ld.shared.v2.f32`.
///
/// # Safety
/// `address` is an 8-byte aligned address of initialised shared memory.
#[inline(always)]
pub unsafe fn load_shared_f32x2(address: u32) -> [f32; 2] {
    let mut r = [0.0; 2];
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ld.shared.v2.f32 {{{}, {}}}, [{}];",
            out(reg32) r[0], out(reg32) r[1], in(reg32) address, options(nostack, readonly),
        );
    }
    r
}

/// `ld.shared.b32`.
///
/// # Safety
/// `address` is a 4-byte aligned address of initialised shared memory.
#[inline(always)]
pub unsafe fn load_shared_4(address: u32) -> u32 {
    let r;
    // SAFETY: the caller's promise.
    unsafe { asm!("ld.shared.b32 {}, [{}];", out(reg32) r, in(reg32) address, options(nostack, readonly)) }
    r
}

/// `st.shared.v2.f32`.
///
/// # Safety
/// `address` is an 8-byte aligned shared address that no other thread uses at the time.
#[inline(always)]
pub unsafe fn store_shared_f32x2(address: u32, value: [f32; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "st.shared.v2.f32 [{}], {{{}, {}}};",
            in(reg32) address, in(reg32) value[0], in(reg32) value[1], options(nostack),
        );
    }
}

/// `st.shared.b32`.
///
/// # Safety
/// `address` is a 4-byte aligned shared address that no other thread uses at the time.
#[inline(always)]
pub unsafe fn store_shared_4(address: u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { asm!("st.shared.b32 [{}], {};", in(reg32) address, in(reg32) value, options(nostack)) }
}

/// `st.shared.v4.b32`.
///
/// # Safety
/// `address` is a 16-byte aligned writable shared address.
#[inline(always)]
pub unsafe fn store_shared_16(address: u32, value: [u32; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "st.shared.v4.b32 [{}], {{{}, {}, {}, {}}};",
            in(reg32) address, in(reg32) value[0], in(reg32) value[1], in(reg32) value[2], in(reg32) value[3],
            options(nostack),
        );
    }
}

/// `ld.shared.b32` where `loads` holds, and 0 elsewhere, with the condition inside the instruction, for the reason that
/// `mbarrier` gives.
///
/// # Safety
/// Where `loads` holds, `address` is a 4-byte aligned readable shared address.
#[inline(always)]
pub unsafe fn load_shared_4_if(address: u32, loads: bool) -> u32 {
    let value;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {2}, 0; mov.b32 {0}, 0; @p ld.shared.b32 {0}, [{1}]; }}",
            out(reg32) value, in(reg32) address, in(reg32) u32::from(loads), options(nostack, readonly),
        );
    }
    value
}

/// `st.global.v4.b32` where `stores` holds, with the condition inside the instruction, for the reason that `mbarrier` gives.
///
/// # Safety
/// Where `stores` holds, `address` is a 16-byte aligned writable global address.
#[inline(always)]
pub unsafe fn store_global_16_if(address: u64, value: [u32; 4], stores: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {5}, 0; @p st.global.v4.b32 [{0}], {{{1}, {2}, {3}, {4}}}; }}",
            in(reg64) address, in(reg32) value[0], in(reg32) value[1], in(reg32) value[2], in(reg32) value[3],
            in(reg32) u32::from(stores), options(nostack),
        );
    }
}
