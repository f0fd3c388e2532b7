//! Special registers and the address of the dynamic shared memory. Functions keep the names of `cuda_std::thread`.
//!
//! A read is not `pure`: to read again behind a loop is cheaper than a register kept through it, and LLVM would merge
//! the two.

use core::arch::{asm, global_asm};

global_asm!(".extern .shared .align 1024 .b8 dyn_smem[];");

/// `%tid.x`.
#[inline(always)]
pub fn thread_idx_x() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %tid.x;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `%ctaid.x`.
#[inline(always)]
pub fn block_idx_x() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %ctaid.x;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `%ctaid.y`.
#[inline(always)]
pub fn block_idx_y() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %ctaid.y;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `%ctaid.z`.
#[inline(always)]
pub fn block_idx_z() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %ctaid.z;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `%nctaid.x`.
#[inline(always)]
pub fn grid_dim_x() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %nctaid.x;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// `%nctaid.y`.
#[inline(always)]
pub fn grid_dim_y() -> u32 {
    let value;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %nctaid.y;", out(reg32) value, options(nomem, nostack)) }
    value
}

/// Address of the dynamic shared memory in the shared window, a multiple of 1024.
#[inline(always)]
pub fn dynamic_shared() -> u32 {
    let address;
    // SAFETY: takes the address of the module's own symbol.
    unsafe { asm!("mov.u32 {}, dyn_smem;", out(reg32) address, options(pure, nomem, nostack)) }
    address
}

/// The generic address of the only parameter of the entry point `$entry`, in its place. A macro, as the instruction names
/// the symbol of the parameter.
#[cfg(hopper)]
macro_rules! param_address {
    ($entry:ident) => {{
        let address: u64;
        // SAFETY: arithmetic on an address.
        unsafe {
            core::arch::asm!(
                concat!("{{ .reg .b64 t; mov.b64 t, ", stringify!($entry), "_param_0; cvta.param.u64 {}, t; }}"),
                out(reg64) address,
                options(pure, nomem, nostack),
            );
        }
        address
    }};
}
#[cfg(hopper)]
pub(crate) use param_address;
