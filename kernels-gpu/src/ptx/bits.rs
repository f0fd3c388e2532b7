//! Bytes of registers.

use core::arch::asm;

/// `prmt.b32` with 0x6420: bytes 0 and 2 of `low`, then those of `high`.
#[inline(always)]
pub fn even_bytes(low: u32, high: u32) -> u32 {
    let bytes;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("prmt.b32 {}, {}, {}, 0x6420;", out(reg32) bytes, in(reg32) low, in(reg32) high, options(pure, nomem, nostack));
    }
    bytes
}

/// `prmt.b32` with 0x7531: bytes 1 and 3 of `low`, then those of `high`.
#[inline(always)]
pub fn odd_bytes(low: u32, high: u32) -> u32 {
    let bytes;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("prmt.b32 {}, {}, {}, 0x7531;", out(reg32) bytes, in(reg32) low, in(reg32) high, options(pure, nomem, nostack));
    }
    bytes
}
