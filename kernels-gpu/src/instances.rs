//! The entry points that ship: one row each, declared by its name. See [`crate::names`] for what a name says.

#[cfg(target_arch = "nvptx64")]
use crate::{config, kernels, merge::MergeParams, params::FwdParams};
use crate::{config::Kernel, entry::Entry};

const fn kernel(name: &str) -> Kernel {
    Kernel::parse(name).expect("an instance is declared by a name that parses")
}

/// Declares `Instance`, the kernel of a configuration: a generic function cannot, as lengths of arrays follow from it.
#[cfg(target_arch = "nvptx64")]
macro_rules! instance {
    ($config:ident) => {
        enum Instance {}
        impl kernels::fwd_sm80::Instance for Instance {
            const CONFIG: config::FwdSm80 = $config;
            type OutFrags = [[f32; 4]; $config.out_frags() as usize];
            type ScoreFrags = [[f32; 4]; $config.score_frags() as usize];
            type PFrags = [[u32; 4]; $config.score_frags() as usize / 2];
            type QFrags = [[u32; 4]; $config.q_frags() as usize];
            type Rows = [f32; 2 * $config.row_frags() as usize];
        }
    };
}

/// Declares the tables [`KERNELS`] and [`ENTRIES`] and, on the device, an entry point for each row.
macro_rules! instances {
    (
        fwd_scalar: $($scalar:ident)*;
        fwd_sm80: $($sm80:ident)*;
        decode: $($decode:ident)*;
        merge_states: $($merge:ident)*;
        mma_rate: $($mma_rate:ident)*
    ) => {
        /// Every attention kernel that ships, in the order of the PTX file.
        pub const KERNELS: &[Kernel] = &[
            $(kernel(stringify!($scalar)),)* $(kernel(stringify!($sm80)),)* $(kernel(stringify!($decode)),)*
        ];

        $(
            #[cfg(target_arch = "nvptx64")]
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
            #[cfg(target_arch = "nvptx64")]
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
            #[cfg(target_arch = "nvptx64")]
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
            #[cfg(target_arch = "nvptx64")]
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
            #[cfg(target_arch = "nvptx64")]
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

        /// Every entry point that ships, in the order of the PTX file: first the kernels of [`KERNELS`].
        pub const ENTRIES: &[Entry] = &[
            $(entry(stringify!($scalar)),)* $(entry(stringify!($sm80)),)* $(entry(stringify!($decode)),)*
            $(entry(stringify!($merge)),)*
            $(entry(stringify!($mma_rate)),)*
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
        mma_rate_bf16
}

const fn entry(name: &str) -> Entry {
    Entry::parse(name).expect("an instance is declared by a name that parses")
}
