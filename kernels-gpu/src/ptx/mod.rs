//! The only place with inline PTX and device intrinsics: one thin function an instruction, a file an instruction
//! family.
//!
//! Two rules keep LLVM honest (`asm!` call sites are not convergent in rustc 1.96): barriers and shuffles are LLVM
//! intrinsics, and nothing that is `.sync` or `.aligned` is ever `pure`.

pub mod atomic;
pub mod barrier;
pub mod cp_async;
pub mod cvt;
pub mod ld_st;
pub mod ldmatrix;
pub mod math;
pub mod mma;
pub mod shuffle;
pub mod sreg;

/// `trap`: ends the kernel with an error.
pub fn trap() -> ! {
    // SAFETY: no memory is touched.
    unsafe { core::arch::nvptx::trap() }
}
