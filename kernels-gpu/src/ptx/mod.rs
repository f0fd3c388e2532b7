//! The only place with inline PTX and device intrinsics: one thin function an instruction, a file an instruction
//! family.
//!
//! Two rules keep LLVM honest (`asm!` call sites are not convergent in rustc 1.96): barriers and shuffles are LLVM
//! intrinsics, and nothing that is `.sync` or `.aligned` is ever `pure`.

pub mod atomic;
pub mod barrier;
pub mod bits;
pub mod cluster;
pub mod cp_async;
pub mod cvt;
pub mod ld_st;
pub mod ldmatrix;
pub mod math;
#[cfg(hopper)]
pub mod mbarrier;
pub mod mma;
pub mod shuffle;
pub mod sreg;
#[cfg(hopper)]
pub mod tma;
#[cfg(hopper)]
pub mod wgmma;

/// `trap`: ends the kernel with an error.
pub fn trap() -> ! {
    // SAFETY: no memory is touched.
    unsafe { core::arch::nvptx::trap() }
}

/// `value`, of which the compiler then knows nothing.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    let same;
    // SAFETY: arithmetic on registers.
    unsafe { core::arch::asm!("mov.b32 {}, {};", out(reg32) same, in(reg32) value, options(pure, nomem, nostack)) }
    same
}

/// A label that nothing jumps to, local to its braces: ptxas begins a basic block there, and assigns registers in another
/// way.
#[inline(always)]
pub fn begin_block() {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("{{ begin: }}", options(nomem, nostack)) }
}

/// `pmevent`: an event for a profiler that asks for it, and for nobody else; ptxas moves no instruction across it.
#[inline(always)]
pub fn fence_schedule() {
    // SAFETY: a counter that no program reads.
    unsafe { core::arch::asm!("pmevent 0;", options(nostack)) }
}
