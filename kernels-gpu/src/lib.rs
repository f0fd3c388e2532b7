//! The device crate of evo-sdpa.
//!
//! Compiled for `nvptx64-nvidia-cuda` it holds the kernels; compiled for the host it holds what the planner, the
//! simulator and the tests must know about them: parameters, names, tile sizes, the shared-memory plan and the
//! maps from lanes to elements. Nothing about a kernel is written down twice.
#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, stdarch_nvptx, asm_experimental_arch, link_llvm_intrinsics))]

pub mod config;
pub mod entry;
pub mod fragment;
pub mod instances;
pub mod mask;
pub mod merge;
pub mod names;
pub mod params;
pub mod quantize;
pub mod swizzle;
pub mod transpose;

// What kernels for Ada share with those for Ampere, they do not share whole.
#[cfg(target_arch = "nvptx64")]
#[cfg_attr(ada, allow(dead_code))]
mod kernels;
// The kernels of each target leave instructions to those of the others.
#[cfg(target_arch = "nvptx64")]
#[allow(dead_code)]
mod ptx;

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    ptx::trap()
}
