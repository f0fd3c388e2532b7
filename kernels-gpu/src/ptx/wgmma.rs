//! Products of a warpgroup, with operands in shared memory (sm_90a).
//!
//! The products run beside other instructions. A group of them is begun by [`fence`], closed by [`commit_group`] and over
//! with [`wait_group`]; until then its registers belong to the hardware, and [`settle`] and [`keep`] behind the wait tell
//! LLVM so, which knows nothing of it.
//!
//! Accumulators are m64n8 fragments: register `i` of lane `l` in warp `w` of the group is row `16 w + l/4 + 8 (i/2)` and
//! column `2 (l%4) + i%2`, as in [`crate::fragment`]. Operand A from registers is four of the registers that
//! `mma.sync` m16n8k16 takes, or m16n8k32 of e4m3, of the warp's 16 rows.

use crate::config::{DType, Operands};
use core::arch::asm;

/// Upper half of a descriptor of an operand in shared memory: 128-byte swizzle, 1024 bytes from eight rows to the next
/// eight (PTX ISA, "Matrix descriptor").
const DESCRIPTOR_HIGH: u32 = 1 << 30 | 1024 >> 4;

/// Lower half of the descriptor of an operand that begins at `address`. `leading_bytes` leads to the next 64 columns of
/// values; for queries and keys it means nothing.
#[inline(always)]
pub const fn descriptor(address: u32, leading_bytes: u32) -> u32 {
    // In a cluster, an address has the block's rank in bits that a descriptor has no place for.
    address >> 4 & 0x3fff | leading_bytes >> 4 << 16
}

/// Accumulators of a product whose N is eight times their number.
pub trait Accumulators {
    /// `self = a b^T` of f16 or bf16: 32 bytes of each row of queries and of keys, by their [`descriptor`]s.
    ///
    /// # Safety
    /// All warps of the warpgroup are here, converged, with equal descriptors, behind [`fence`].
    unsafe fn begin(&mut self, dtype: DType, a: u32, b: u32);

    /// `self += a b^T`.
    ///
    /// # Safety
    /// That of [`Accumulators::begin`].
    unsafe fn add(&mut self, dtype: DType, a: u32, b: u32);

    /// `self = a b^T` of e4m3: queries in registers, 32 bytes of each row of keys by their [`descriptor`].
    ///
    /// # Safety
    /// That of [`Accumulators::begin`].
    unsafe fn begin_e4m3(&mut self, a: [u32; 4], b: u32);

    /// `self += a b`: probabilities in registers, values by their [`descriptor`]: 16 rows, or 32 keys of transposed ones
    /// where they are e4m3; what these are, keys are to queries in registers.
    ///
    /// # Safety
    /// That of [`Accumulators::begin`].
    unsafe fn add_values(&mut self, operands: Operands, a: [u32; 4], b: u32);
}

/// Four operands of an instruction's text for each fragment.
macro_rules! fragment {
    (0) => {
        "{}, {}, {}, {}"
    };
    ($_:literal) => {
        ", {}, {}, {}, {}"
    };
}

/// An instruction with both operands in shared memory.
macro_rules! shared_product {
    ($types:literal, $n:literal, $add:literal, $d:ident, $kind:ident, $a:ident, $b:ident, $($i:tt)*) => {
        asm!(
            concat!(
                "{{ .reg .pred add; .reg .b64 a, b; setp.ne.u32 add, ", $add, ", 0; ",
                "mov.b64 a, {{{a}, {high}}}; mov.b64 b, {{{b}, {high}}}; ",
                "wgmma.mma_async.sync.aligned.m64n", $n, $types, " {{", $(fragment!($i)),*, "}}, a, b, add, 1, 1, 0, 0; }}",
            ),
            $($kind(reg32) $d[$i][0], $kind(reg32) $d[$i][1], $kind(reg32) $d[$i][2], $kind(reg32) $d[$i][3],)*
            a = in(reg32) $a, b = in(reg32) $b, high = in(reg32) DESCRIPTOR_HIGH,
            options(nostack),
        )
    };
}

/// An instruction with probabilities or queries in registers and values or keys in shared memory, by columns where a flag
/// says so.
macro_rules! value_product {
    ($types:literal, $flags:literal, $n:literal, $add:literal, $d:ident, $kind:ident, $a:ident, $b:ident, $($i:tt)*) => {
        asm!(
            concat!(
                "{{ .reg .pred add; .reg .b64 b; setp.ne.u32 add, ", $add, ", 0; mov.b64 b, {{{b}, {high}}}; ",
                "wgmma.mma_async.sync.aligned.m64n", $n, $types, " {{", $(fragment!($i)),*,
                "}}, {{{a0}, {a1}, {a2}, {a3}}}, b, add, 1, 1", $flags, "; }}",
            ),
            $($kind(reg32) $d[$i][0], $kind(reg32) $d[$i][1], $kind(reg32) $d[$i][2], $kind(reg32) $d[$i][3],)*
            a0 = in(reg32) $a[0], a1 = in(reg32) $a[1], a2 = in(reg32) $a[2], a3 = in(reg32) $a[3],
            b = in(reg32) $b, high = in(reg32) DESCRIPTOR_HIGH,
            options(nostack),
        )
    };
}

/// Implements the products for each N. The text of an instruction names each of its registers, and only a macro can
/// write such a text.
macro_rules! accumulators {
    ($($n:literal { $($i:tt)* })*) => {
        $(
            impl Accumulators for [[f32; 4]; $n / 8] {
                #[inline(always)]
                unsafe fn begin(&mut self, dtype: DType, a: u32, b: u32) {
                    let d = self;
                    // SAFETY: the caller's promise.
                    unsafe {
                        if let DType::F16 = dtype {
                            shared_product!("k16.f32.f16.f16", $n, "0", d, out, a, b, $($i)*)
                        } else {
                            shared_product!("k16.f32.bf16.bf16", $n, "0", d, out, a, b, $($i)*)
                        }
                    }
                }

                #[inline(always)]
                unsafe fn add(&mut self, dtype: DType, a: u32, b: u32) {
                    let d = self;
                    // SAFETY: the caller's promise.
                    unsafe {
                        if let DType::F16 = dtype {
                            shared_product!("k16.f32.f16.f16", $n, "1", d, inout, a, b, $($i)*)
                        } else {
                            shared_product!("k16.f32.bf16.bf16", $n, "1", d, inout, a, b, $($i)*)
                        }
                    }
                }

                #[inline(always)]
                unsafe fn begin_e4m3(&mut self, a: [u32; 4], b: u32) {
                    let d = self;
                    // SAFETY: the caller's promise.
                    unsafe { value_product!("k32.f32.e4m3.e4m3", "", $n, "0", d, out, a, b, $($i)*) }
                }

                #[inline(always)]
                unsafe fn add_values(&mut self, operands: Operands, a: [u32; 4], b: u32) {
                    let d = self;
                    // SAFETY: the caller's promise.
                    unsafe {
                        match operands {
                            Operands::F16 => value_product!("k16.f32.f16.f16", ", 1", $n, "1", d, inout, a, b, $($i)*),
                            Operands::Bf16 => value_product!("k16.f32.bf16.bf16", ", 1", $n, "1", d, inout, a, b, $($i)*),
                            Operands::E4m3 => value_product!("k32.f32.e4m3.e4m3", "", $n, "1", d, inout, a, b, $($i)*),
                        }
                    }
                }
            }
        )*
    };
}

accumulators! {
    64 { 0 1 2 3 4 5 6 7 }
    72 { 0 1 2 3 4 5 6 7 8 }
    80 { 0 1 2 3 4 5 6 7 8 9 }
    96 { 0 1 2 3 4 5 6 7 8 9 10 11 }
    112 { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 }
    128 { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 }
    136 { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 }
    192 { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 }
    256 { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 }
}

/// `wgmma.fence`: what other instructions wrote into registers is there for the products behind it.
///
/// # Safety
/// All warps of the warpgroup are here, converged.
#[inline(always)]
pub unsafe fn fence() {
    // SAFETY: the caller's promise.
    unsafe { asm!("wgmma.fence.sync.aligned;", options(nostack)) }
}

/// `wgmma.commit_group`: closes the group of the products since the last one.
///
/// # Safety
/// That of [`fence`].
#[inline(always)]
pub unsafe fn commit_group() {
    // SAFETY: the caller's promise.
    unsafe { asm!("wgmma.commit_group.sync.aligned;", options(nostack)) }
}

/// `wgmma.wait_group`: waits until at most `PENDING` groups, the latest ones, are still running.
///
/// # Safety
/// That of [`fence`].
#[inline(always)]
pub unsafe fn wait_group<const PENDING: u32>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("wgmma.wait_group.sync.aligned {};", const PENDING, options(nostack)) }
}

/// Behind a wait: `fragment` has what the products wrote.
#[inline(always)]
pub fn settle(fragment: &mut [f32; 4]) {
    // SAFETY: no instruction.
    unsafe {
        asm!(
            "// {} {} {} {}",
            inout(reg32) fragment[0], inout(reg32) fragment[1], inout(reg32) fragment[2], inout(reg32) fragment[3],
            options(nostack),
        );
    }
}

/// Behind a wait: `fragment`, an operand of the products, had to stay until here.
#[inline(always)]
pub fn keep(fragment: [u32; 4]) {
    // SAFETY: no instruction.
    unsafe {
        asm!(
            "// {} {} {} {}",
            in(reg32) fragment[0], in(reg32) fragment[1], in(reg32) fragment[2], in(reg32) fragment[3],
            options(nostack),
        );
    }
}

/// Registers of a thread in the two roles of a block.
pub trait Roles {
    /// Where threads copy.
    const COPYING: u32;
    /// Where they multiply.
    const MULTIPLYING: u32;
}

/// `setmaxnreg.inc`: threads of the warpgroup have as many registers as multiplying takes from here on.
///
/// # Safety
/// All warps of the warpgroup are here, converged; others give up as many.
#[inline(always)]
pub unsafe fn grow_registers<R: Roles>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("setmaxnreg.inc.sync.aligned.u32 {};", const R::MULTIPLYING, options(nostack)) }
}

/// `setmaxnreg.dec`: threads of the warpgroup have as few registers as copying takes from here on.
///
/// # Safety
/// All warps of the warpgroup are here, converged.
#[inline(always)]
pub unsafe fn shrink_registers<R: Roles>() {
    // SAFETY: the caller's promise.
    unsafe { asm!("setmaxnreg.dec.sync.aligned.u32 {};", const R::COPYING, options(nostack)) }
}
