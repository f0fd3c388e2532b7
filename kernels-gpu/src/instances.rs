//! The entry points that ship: one row each, declared by its name. See [`crate::names`] for what a name says.
//!
//! The device crate is compiled three times: with `cfg(hopper)` it has the entry points that need Hopper's own instructions,
//! with `cfg(ada)` those that need fp8, with `cfg(ampere)` all others.

#[cfg(target_arch = "nvptx64")]
use crate::{config, kernels};
use crate::{config::Kernel, entry::Entry};
#[cfg(all(target_arch = "nvptx64", ampere))]
use crate::{merge::MergeParams, params::FwdParams};
#[cfg(all(target_arch = "nvptx64", ada))]
use crate::{params::FwdFp8Params, quantize::QuantizeParams, quantize::TokenMeanParams};
#[cfg(all(target_arch = "nvptx64", hopper))]
use crate::{
    params::{FwdFp8Sm90Params, FwdSm90Params},
    ptx::sreg::param_address,
    transpose::TransposeParams,
};

const fn kernel(name: &str) -> Kernel {
    Kernel::parse(name).expect("an instance is declared by a name that parses")
}

/// Declares `Instance`, the kernel of a configuration: a generic function cannot, as lengths of arrays follow from it.
#[cfg(all(target_arch = "nvptx64", ampere))]
macro_rules! instance {
    ($config:ident) => {
        enum Instance {}
        impl kernels::block::Instance for Instance {
            const CONFIG: config::FwdSm80 = $config;
            type OutFrags = [[f32; 4]; $config.out_frags() as usize];
            type ScoreFrags = [[f32; 4]; $config.score_frags() as usize];
            type PFrags = [[u32; 4]; $config.score_frags() as usize / 2];
            type QFrags = [[u32; 4]; $config.q_frags() as usize];
            type Rows = [f32; 2 * $config.row_frags() as usize];
        }
    };
}

/// Declares `Instance`, the kernel of a Hopper configuration.
#[cfg(all(target_arch = "nvptx64", hopper))]
macro_rules! hopper_instance {
    ($name:ident, $e4m3:literal) => {
        const CONFIG: config::FwdSm90 = match kernel(stringify!($name)) {
            Kernel::FwdSm90(config) if config.is_valid() && config.e4m3 == $e4m3 => config,
            _ => panic!("listed under the wrong family, or not valid"),
        };
        enum Instance {}
        impl kernels::fwd_sm90::Instance for Instance {
            const CONFIG: config::FwdSm90 = CONFIG;
            type OutFrags = [[f32; 4]; CONFIG.out_frags() as usize];
            type ScoreFrags = [[f32; 4]; CONFIG.tile_kv as usize / 8];
            type NarrowFrags = [[f32; 4]; CONFIG.narrow_kv() as usize / 8];
            type PFrags = [[u32; 4]; (CONFIG.tile_kv / CONFIG.keys_of_step()) as usize];
            type QFrags = [[u32; 4]; CONFIG.key_steps() as usize];
        }
    };
}

/// Declares the tables [`KERNELS`] and [`ENTRIES`] and, on the device, an entry point for each row.
macro_rules! instances {
    (
        fwd_scalar: $($scalar:ident)*;
        fwd_sm80: $($sm80:ident)*;
        fwd_sm90: $($sm90:ident)*;
        fwd_fp8_sm90: $($fp8_sm90:ident)*;
        fwd_fp8: $($fp8:ident)*;
        decode: $($decode:ident)*;
        merge_states: $($merge:ident)*;
        mma_rate: $($mma_rate:ident)*;
        token_sums: $($token_sums:ident)*;
        token_mean: $($token_mean:ident)*;
        amax: $($amax:ident)*;
        quantize: $($quantize:ident)*;
        transpose: $transpose:ident
    ) => {
        /// Every attention kernel that ships, in the order of the PTX files.
        pub const KERNELS: &[Kernel] = &[
            $(kernel(stringify!($scalar)),)* $(kernel(stringify!($sm80)),)* $(kernel(stringify!($sm90)),)*
            $(kernel(stringify!($fp8_sm90)),)* $(kernel(stringify!($fp8)),)* $(kernel(stringify!($decode)),)*
        ];

        $(
            #[cfg(all(target_arch = "nvptx64", ampere))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $scalar(params: FwdParams) {
                const CONFIG: config::FwdScalar = match kernel(stringify!($scalar)) {
                    Kernel::FwdScalar(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: the host launches an entry with the parameters that a plan validated.
                unsafe { kernels::fwd_scalar::run(CONFIG, params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ampere))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $sm80(params: FwdParams) {
                const CONFIG: config::FwdSm80 = match kernel(stringify!($sm80)) {
                    Kernel::FwdSm80(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                instance!(CONFIG);
                // SAFETY: as above.
                unsafe { kernels::fwd_sm80::run::<Instance>(params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", hopper))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $sm90(params: FwdSm90Params) {
                hopper_instance!($sm90, false);
                // TMA reads tensor maps where they are: a reference to `params` would be one to a copy.
                let address = param_address!($sm90);
                // SAFETY: as above; the address is that of `params`.
                unsafe { kernels::fwd_sm90::run::<Instance>(params, address) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", hopper))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $fp8_sm90(params: FwdFp8Sm90Params) {
                hopper_instance!($fp8_sm90, true);
                let address = param_address!($fp8_sm90);
                // SAFETY: as above; the address is that of `params`.
                unsafe { kernels::fwd_sm90::run::<Instance>(params, address) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ada))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $fp8(params: FwdFp8Params) {
                const FP8: config::FwdFp8 = match kernel(stringify!($fp8)) {
                    Kernel::FwdFp8(config) if config.is_valid() => config,
                    _ => panic!("listed under the wrong family, or not valid"),
                };
                enum Instance {}
                impl kernels::block::Instance for Instance {
                    const CONFIG: config::FwdSm80 = FP8.block();
                    const PACKED: u32 = 2;
                    const Q_STEPS: u32 = FP8.q_steps_in_registers();
                    type OutFrags = [[f32; 4]; FP8.out_frags() as usize];
                    type ScoreFrags = [[f32; 4]; FP8.block().score_frags() as usize];
                    type PFrags = [[u32; 4]; FP8.p_frags() as usize];
                    type QFrags = [[u32; 4]; (FP8.block().row_frags() * Self::Q_STEPS) as usize];
                    type Rows = [f32; 2 * FP8.block().row_frags() as usize];

                    #[inline(always)]
                    unsafe fn multiply(c: &mut [f32; 4], a: [u32; 4], b: [u32; 2]) {
                        // SAFETY: the caller's promise.
                        unsafe { crate::ptx::mma::mma_m16n8k32_e4m3(c, a, b) }
                    }
                }
                impl kernels::fwd_fp8::Fp8 for Instance {
                    const FP8: config::FwdFp8 = FP8;
                }
                // SAFETY: as above.
                unsafe { kernels::fwd_fp8::run::<Instance>(params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ampere))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $decode(params: FwdParams) {
                const CONFIG: config::FwdSm80 = match kernel(stringify!($decode)) {
                    Kernel::Decode(config) if config.is_valid() => config.block(),
                    _ => panic!("listed under the wrong family, or not valid"),
                };
                instance!(CONFIG);
                // SAFETY: as above.
                unsafe { kernels::decode::run::<Instance>(params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ampere))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $merge(params: MergeParams) {
                const CONFIG: crate::merge::MergeStates = match entry(stringify!($merge)) {
                    Entry::MergeStates(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: the host launches the entry with the parameters that a plan validated.
                unsafe { kernels::merge_states::run(CONFIG, params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ampere))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $mma_rate(out: u64, iterations: u32) {
                const CONFIG: crate::entry::MmaRate = match entry(stringify!($mma_rate)) {
                    Entry::MmaRate(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: the host launches the entry with memory for the whole grid.
                unsafe { kernels::mma_rate::run(CONFIG, out, iterations) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ada))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $token_sums(params: TokenMeanParams) {
                const CONFIG: crate::quantize::Quantize = match entry(stringify!($token_sums)) {
                    Entry::TokenSums(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: the host launches the entry with parameters of tensors that exist.
                unsafe { kernels::token_mean::add_tokens(CONFIG, params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ada))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $token_mean(params: TokenMeanParams) {
                // SAFETY: as above.
                unsafe { kernels::token_mean::divide(params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ada))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $amax(params: QuantizeParams) {
                const CONFIG: crate::quantize::Quantize = match entry(stringify!($amax)) {
                    Entry::Amax(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: the host launches the entry with parameters of tensors that exist.
                unsafe { kernels::quantize::find_amax(CONFIG, params) }
            }
        )*

        $(
            #[cfg(all(target_arch = "nvptx64", ada))]
            #[unsafe(no_mangle)]
            unsafe extern "ptx-kernel" fn $quantize(params: QuantizeParams) {
                const CONFIG: crate::quantize::Quantize = match entry(stringify!($quantize)) {
                    Entry::Quantize(config) => config,
                    _ => panic!("listed under the wrong family"),
                };
                // SAFETY: as above.
                unsafe { kernels::quantize::run(CONFIG, params) }
            }
        )*

        #[cfg(all(target_arch = "nvptx64", hopper))]
        #[unsafe(no_mangle)]
        unsafe extern "ptx-kernel" fn $transpose(params: TransposeParams) {
            // SAFETY: the host launches the entry with parameters of tensors that exist.
            unsafe { kernels::transpose::run(params) }
        }

        /// Every entry point that ships, in the order of the PTX files: first the kernels of [`KERNELS`].
        pub const ENTRIES: &[Entry] = &[
            $(entry(stringify!($scalar)),)* $(entry(stringify!($sm80)),)* $(entry(stringify!($sm90)),)*
            $(entry(stringify!($fp8_sm90)),)* $(entry(stringify!($fp8)),)* $(entry(stringify!($decode)),)*
            $(entry(stringify!($merge)),)*
            $(entry(stringify!($mma_rate)),)*
            $(entry(stringify!($token_sums)),)*
            $(entry(stringify!($token_mean)),)*
            $(entry(stringify!($amax)),)*
            $(entry(stringify!($quantize)),)*
            entry(stringify!($transpose)),
        ];
    };
}

instances! {
    fwd_scalar:
        fwd_scalar_f16
        fwd_scalar_bf16
        fwd_scalar_f32;
    fwd_sm80:
        fwd_sm80_f16_d32_q128_kv64_w4_s2
        fwd_sm80_f16_d32_q64_kv64_w4_s2
        fwd_sm80_f16_d32_q32_kv128_w8_x4_s1
        fwd_sm80_f16_d64_q128_kv64_w4_s2
        fwd_sm80_f16_d64_q64_kv64_w4_s2
        fwd_sm80_f16_d64_q64_kv64_w4_s2_b
        fwd_sm80_f16_d64_q64_kv64_w4_x2_s2
        fwd_sm80_f16_d64_q32_kv128_w8_x4_s1
        fwd_sm80_f16_d64_q32_kv64_w8_x4_s1
        fwd_sm80_f16_d96_q128_kv32_w4_s2
        fwd_sm80_f16_d96_q64_kv64_w4_s2
        fwd_sm80_f16_d96_q32_kv32_w8_x4_s1
        fwd_sm80_f16_d128_q128_kv32_w4_s2
        fwd_sm80_f16_d128_q64_kv64_w4_s2
        fwd_sm80_f16_d128_q64_kv32_w4_s2
        fwd_sm80_f16_d128_q64_kv32_w4_s2_b
        fwd_sm80_f16_d128_q64_kv32_w4_x2_s2
        fwd_sm80_f16_d128_q32_kv64_w8_x4_s1
        fwd_sm80_f16_d128_q32_kv32_w8_x4_s1
        fwd_sm80_f16_d192_q64_kv32_w4_s2
        fwd_sm80_f16_d192_q16_kv16_w4_x4_s1
        fwd_sm80_f16_d256_q64_kv32_w4_s1
        fwd_sm80_f16_d256_q16_kv16_w4_x4_s1
        fwd_sm80_bf16_d32_q128_kv64_w4_s2
        fwd_sm80_bf16_d32_q64_kv64_w4_s2
        fwd_sm80_bf16_d32_q32_kv128_w8_x4_s1
        fwd_sm80_bf16_d64_q128_kv64_w4_s1
        fwd_sm80_bf16_d64_q128_kv64_w4_s2
        fwd_sm80_bf16_d64_q128_kv64_w4_s3
        fwd_sm80_bf16_d64_q64_kv64_w4_s2
        fwd_sm80_bf16_d64_q64_kv64_w4_s2_b
        fwd_sm80_bf16_d64_q64_kv64_w4_x2_s2
        fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1
        fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1
        fwd_sm80_bf16_d96_q128_kv32_w4_s2
        fwd_sm80_bf16_d96_q64_kv64_w4_s2
        fwd_sm80_bf16_d96_q32_kv32_w8_x4_s1
        fwd_sm80_bf16_d128_q128_kv32_w4_s2
        fwd_sm80_bf16_d128_q64_kv64_w4_s2
        fwd_sm80_bf16_d128_q64_kv32_w4_s2
        fwd_sm80_bf16_d128_q64_kv32_w4_s2_b
        fwd_sm80_bf16_d128_q64_kv32_w4_x2_s2
        fwd_sm80_bf16_d128_q32_kv64_w8_x4_s1
        fwd_sm80_bf16_d128_q32_kv32_w8_x4_s1
        fwd_sm80_bf16_d192_q64_kv32_w4_s2
        fwd_sm80_bf16_d192_q16_kv16_w4_x4_s1
        fwd_sm80_bf16_d256_q64_kv32_w4_s1
        fwd_sm80_bf16_d256_q16_kv16_w4_x4_s1;
    fwd_sm90:
        fwd_sm90_f16_d64_q192_kv112_s2
        fwd_sm90_f16_d64_q128_kv128_s3
        fwd_sm90_f16_d96_q128_kv128_s2
        fwd_sm90_f16_d128_q128_kv128_s2
        fwd_sm90_f16_d128_q128_kv128_s2_c2
        fwd_sm90_f16_d192_q128_kv96_s2
        fwd_sm90_f16_d256_q128_kv80_s2
        fwd_sm90_bf16_d64_q192_kv112_s2
        fwd_sm90_bf16_d64_q128_kv128_s3
        fwd_sm90_bf16_d96_q128_kv128_s2
        fwd_sm90_bf16_d128_q128_kv128_s2
        fwd_sm90_bf16_d128_q128_kv128_s2_c2
        fwd_sm90_bf16_d192_q128_kv96_s2
        fwd_sm90_bf16_d256_q128_kv80_s2;
    fwd_fp8_sm90:
        fwd_fp8_sm90_f16_d64_q128_kv128_s3
        fwd_fp8_sm90_f16_d128_q128_kv128_s3
        fwd_fp8_sm90_bf16_d64_q128_kv128_s3
        fwd_fp8_sm90_bf16_d128_q128_kv128_s3;
    fwd_fp8:
        fwd_fp8_f16_d64_q128_kv32_w4_s2
        fwd_fp8_f16_d64_q64_kv64_w4_s2
        fwd_fp8_f16_d128_q64_kv64_w4_s2
        fwd_fp8_f16_d192_q64_kv32_w4_s2
        fwd_fp8_f16_d256_q128_kv32_w8_s2
        fwd_fp8_bf16_d64_q128_kv32_w4_s2
        fwd_fp8_bf16_d64_q64_kv64_w4_s2
        fwd_fp8_bf16_d128_q64_kv64_w4_s2
        fwd_fp8_bf16_d192_q64_kv32_w4_s2
        fwd_fp8_bf16_d256_q128_kv32_w8_s2;
    decode:
        decode_f16_d32_q16_kv32_w4_s4
        decode_f16_d64_q16_kv16_w4_s4
        decode_f16_d64_q16_kv32_w4_s3
        decode_f16_d96_q16_kv16_w4_s3
        decode_f16_d128_q16_kv16_w4_s2
        decode_f16_d128_q16_kv16_w4_s4
        decode_f16_d128_q16_kv32_w4_s3
        decode_bf16_d32_q16_kv32_w4_s4
        decode_bf16_d64_q16_kv16_w4_s4
        decode_bf16_d64_q16_kv32_w4_s3
        decode_bf16_d96_q16_kv16_w4_s3
        decode_bf16_d128_q16_kv16_w4_s2
        decode_bf16_d128_q16_kv16_w4_s4
        decode_bf16_d128_q16_kv32_w4_s3;
    merge_states:
        merge_states_f16
        merge_states_bf16
        merge_states_f32;
    mma_rate:
        mma_rate_f16
        mma_rate_bf16;
    token_sums:
        token_sums_f16
        token_sums_bf16
        token_sums_f32;
    token_mean:
        token_mean;
    amax:
        amax_f16
        amax_bf16
        amax_f32;
    quantize:
        quantize_f16
        quantize_bf16
        quantize_f32;
    transpose:
        transpose_e4m3
}

const fn entry(name: &str) -> Entry {
    Entry::parse(name).expect("an instance is declared by a name that parses")
}
