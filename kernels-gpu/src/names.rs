//! Names of the entry points: written by `Display`, read back by [`Kernel::parse`] and [`Entry::parse`].
//!
//! ```text
//! fwd_scalar_f32
//! fwd_sm80_bf16_d64_q128_kv64_w4_s2       128 query rows, 64 keys a step, 4 warps, 2 stages
//! fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1    8 warps that split the keys of a step 4 ways, 128 keys each
//! fwd_sm80_bf16_d64_q64_kv64_w4_s2_b      blocks that share the keys of a sequence
//! fwd_sm90_bf16_d128_q128_kv128_s2        128 query rows, 128 keys a step, 2 stages, with TMA and wgmma
//! fwd_sm90_bf16_d128_q128_kv128_s2_c2     the same, and two blocks of a cluster copy keys and values for each other
//! fwd_fp8_sm90_bf16_d128_q128_kv128_s3    e4m3 in, bf16 out
//! fwd_fp8_bf16_d64_q64_kv64_w4_s2         e4m3 in, bf16 out; 64 query rows, 64 keys a step, 4 warps, 2 stages
//! decode_bf16_d128_q16_kv16_w4_s4         16 query rows, 16 keys a step of each of 4 warps, 4 stages
//! merge_states_f32
//! mma_rate_bf16
//! token_sums_f16
//! token_mean
//! amax_f16
//! quantize_f16
//! transpose_e4m3
//! ```
//!
//! Parsing runs at compile time too: an instance of a kernel is declared by its name alone.

use crate::config::{DType, Decode, FwdFp8, FwdScalar, FwdSm80, FwdSm90, Kernel};
use crate::entry::{Entry, MmaRate};
use crate::merge::MergeStates;
use crate::quantize::{Quantize, TokenParts};
use crate::transpose::Transpose;
use core::fmt;

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::FwdScalar(FwdScalar { dtype }) => write!(f, "fwd_scalar_{dtype}"),
            Kernel::FwdSm80(c) => {
                write!(f, "fwd_sm80_{}_d{}_q{}_kv{}_w{}", c.dtype, c.head_dim, c.tile_q, c.tile_kv, c.warps)?;
                if c.kv_splits > 1 {
                    write!(f, "_x{}", c.kv_splits)?;
                }
                write!(f, "_s{}", c.stages)?;
                f.write_str(if c.shares_keys { "_b" } else { "" })
            }
            Kernel::FwdSm90(c) => {
                f.write_str(if c.e4m3 { "fwd_fp8_sm90" } else { "fwd_sm90" })?;
                write!(f, "_{}_d{}_q{}_kv{}_s{}", c.dtype, c.head_dim, c.tile_q, c.tile_kv, c.stages)?;
                if c.cluster > 1 { write!(f, "_c{}", c.cluster) } else { Ok(()) }
            }
            Kernel::FwdFp8(c) => write!(
                f,
                "fwd_fp8_{}_d{}_q{}_kv{}_w{}_s{}",
                c.dtype, c.head_dim, c.tile_q, c.tile_kv, c.warps, c.stages
            ),
            Kernel::Decode(c) => write!(
                f,
                "decode_{}_d{}_q{}_kv{}_w{}_s{}",
                c.dtype,
                c.head_dim,
                Decode::ROWS,
                c.tile_kv,
                c.warps,
                c.stages
            ),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Forward(kernel) => kernel.fmt(f),
            Entry::MergeStates(MergeStates { dtype }) => write!(f, "merge_states_{dtype}"),
            Entry::MmaRate(MmaRate { dtype }) => write!(f, "mma_rate_{dtype}"),
            Entry::TokenSums(Quantize { dtype }) => write!(f, "token_sums_{dtype}"),
            Entry::TokenMean => f.write_str(TokenParts::MEAN_NAME),
            Entry::Transpose => f.write_str(Transpose::NAME),
            Entry::Amax(Quantize { dtype }) => write!(f, "amax_{dtype}"),
            Entry::Quantize(Quantize { dtype }) => write!(f, "quantize_{dtype}"),
        }
    }
}

/// Reads a name from left to right.
#[derive(Clone, Copy)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The reader behind `literal`, where the name goes on with it.
    const fn skip(self, literal: &str) -> Option<Self> {
        let literal = literal.as_bytes();
        if self.rest.len() < literal.len() {
            return None;
        }
        let (head, rest) = self.rest.split_at(literal.len());
        let mut i = 0;
        while i < head.len() {
            if head[i] != literal[i] {
                return None;
            }
            i += 1;
        }
        Some(Self { rest })
    }

    /// `label` and a decimal number without leading zeros, at most six digits.
    const fn number(self, label: &str) -> Option<(u32, Self)> {
        let Some(Self { mut rest }) = self.skip(label) else { return None };
        let mut value = 0;
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', tail @ ..] = rest {
            if digits == 6 || (digits == 0 && *digit == b'0') {
                return None;
            }
            value = value * 10 + (*digit - b'0') as u32;
            digits += 1;
            rest = tail;
        }
        if digits == 0 { None } else { Some((value, Self { rest })) }
    }

    const fn dtype(self) -> Option<(DType, Self)> {
        let mut i = 0;
        while i < DType::ALL.len() {
            if let Some(rest) = self.skip(DType::ALL[i].name()) {
                return Some((DType::ALL[i], rest));
            }
            i += 1;
        }
        None
    }
}

/// `?` for `Option` in a const fn.
macro_rules! read {
    ($option:expr) => {
        match $option {
            Some(value) => value,
            None => return None,
        }
    };
}

impl Kernel {
    /// The kernel with this entry name, if the name is one that `Display` writes. Whether the kernel ships is
    /// another question: see [`crate::instances::KERNELS`].
    pub const fn parse(name: &str) -> Option<Kernel> {
        let name = Reader { rest: name.as_bytes() };
        if let Some(rest) = name.skip("fwd_scalar_") {
            let (dtype, rest) = read!(rest.dtype());
            return if rest.rest.is_empty() { Some(Kernel::FwdScalar(FwdScalar { dtype })) } else { None };
        }
        if let Some(rest) = name.skip("fwd_sm90_") {
            return Self::parse_sm90(rest, false);
        }
        // A longer name than that of the family behind it.
        if let Some(rest) = name.skip("fwd_fp8_sm90_") {
            return Self::parse_sm90(rest, true);
        }
        if let Some(rest) = name.skip("fwd_fp8_") {
            let (dtype, rest) = read!(rest.dtype());
            let (head_dim, rest) = read!(rest.number("_d"));
            let (tile_q, rest) = read!(rest.number("_q"));
            let (tile_kv, rest) = read!(rest.number("_kv"));
            let (warps, rest) = read!(rest.number("_w"));
            let (stages, rest) = read!(rest.number("_s"));
            let config = FwdFp8 { dtype, head_dim, tile_q, tile_kv, warps, stages };
            return if rest.rest.is_empty() { Some(Kernel::FwdFp8(config)) } else { None };
        }
        let (decode, rest) = match name.skip("decode_") {
            Some(rest) => (true, rest),
            None => (false, read!(name.skip("fwd_sm80_"))),
        };
        let (dtype, rest) = read!(rest.dtype());
        let (head_dim, rest) = read!(rest.number("_d"));
        let (tile_q, rest) = read!(rest.number("_q"));
        let (tile_kv, rest) = read!(rest.number("_kv"));
        let (warps, rest) = read!(rest.number("_w"));
        let (kv_splits, rest) = match rest.number("_x") {
            Some((splits, _)) if splits == 1 || decode => return None,
            Some(split) => split,
            None => (1, rest),
        };
        let (stages, rest) = read!(rest.number("_s"));
        let (shares_keys, rest) = match rest.skip("_b") {
            Some(rest) if !decode => (true, rest),
            _ => (false, rest),
        };
        if !rest.rest.is_empty() {
            return None;
        }
        if decode {
            let decode = Decode { dtype, head_dim, tile_kv, warps, stages };
            return if tile_q == Decode::ROWS { Some(Kernel::Decode(decode)) } else { None };
        }
        let config = FwdSm80 { dtype, head_dim, tile_q, tile_kv, warps, kv_splits, stages, shares_keys };
        Some(Kernel::FwdSm80(config))
    }

    /// What comes behind the family's name.
    const fn parse_sm90(name: Reader, e4m3: bool) -> Option<Kernel> {
        let (dtype, rest) = read!(name.dtype());
        let (head_dim, rest) = read!(rest.number("_d"));
        let (tile_q, rest) = read!(rest.number("_q"));
        let (tile_kv, rest) = read!(rest.number("_kv"));
        let (stages, rest) = read!(rest.number("_s"));
        let (cluster, rest) = match rest.number("_c") {
            Some((1, _)) => return None,
            Some(cluster) => cluster,
            None => (1, rest),
        };
        let config = FwdSm90 { dtype, head_dim, tile_q, tile_kv, stages, e4m3, cluster };
        if rest.rest.is_empty() { Some(Kernel::FwdSm90(config)) } else { None }
    }
}

impl Entry {
    /// The entry point with this name, if the name is one that `Display` writes. Whether it ships is another question:
    /// see [`crate::instances::ENTRIES`].
    pub const fn parse(name: &str) -> Option<Entry> {
        let reader = Reader { rest: name.as_bytes() };
        if let Some(Reader { rest: [] }) = reader.skip(TokenParts::MEAN_NAME) {
            return Some(Entry::TokenMean);
        }
        if let Some(Reader { rest: [] }) = reader.skip(Transpose::NAME) {
            return Some(Entry::Transpose);
        }
        let families = ["merge_states_", "mma_rate_", "token_sums_", "amax_", "quantize_"];
        let mut family = 0;
        while family < families.len() {
            if let Some(rest) = reader.skip(families[family]) {
                let (dtype, rest) = read!(rest.dtype());
                if !rest.rest.is_empty() {
                    return None;
                }
                return Some(match family {
                    0 => Entry::MergeStates(MergeStates { dtype }),
                    1 => Entry::MmaRate(MmaRate { dtype }),
                    2 => Entry::TokenSums(Quantize { dtype }),
                    3 => Entry::Amax(Quantize { dtype }),
                    _ => Entry::Quantize(Quantize { dtype }),
                });
            }
            family += 1;
        }
        Some(Entry::Forward(read!(Kernel::parse(name))))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::instances::{ENTRIES, KERNELS};
    use std::string::ToString;

    #[test]
    fn every_shipped_name_is_parsed_back() {
        for kernel in KERNELS {
            assert_eq!(Kernel::parse(&kernel.to_string()), Some(*kernel));
        }
        for entry in ENTRIES {
            assert_eq!(Entry::parse(&entry.to_string()), Some(*entry));
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ENTRIES.iter().map(|entry| entry.to_string()).collect();
        assert_eq!(names.len(), ENTRIES.len());
    }

    #[test]
    fn names_that_display_would_not_write_are_refused() {
        for name in [
            "",
            "fwd",
            "fwd_scalar_",
            "fwd_scalar_f64",
            "fwd_scalar_f32_",
            "fwd_sm80_bf16_d64_q128_kv64_w4",
            "fwd_sm80_bf16_d64_q128_kv64_w4_s2_",
            "fwd_sm80_bf16_d064_q128_kv64_w4_s2",
            "fwd_sm80_bf16_d64_q128_kv64_w4_x1_s2",
            "fwd_sm80_bf16_d64_q128_kv64_w4_b_s2",
            "fwd_sm80_bf16_d64_q128_kv64_w4_s2_b_b",
            "fwd_sm80_bf16_d_q128_kv64_w4_s2",
            "fwd_sm80_bf16_d64_q1234567_kv64_w4_s2",
            "fwd_sm90_bf16_d64_q128_kv64_w4_s2",
            "fwd_sm90_bf16_d128_q128_kv128_s2_c1",
            "fwd_sm90_bf16_d128_q128_kv128_c2_s2",
            "fwd_fp8_e4m3_d64_q128_kv64_w4_s2",
            "fwd_fp8_bf16_d64_q128_kv64_s2",
            "fwd_fp8_bf16_d64_q128_kv64_w4_s2_b",
            "decode_bf16_d128_q32_kv16_w4_s4",
            "decode_bf16_d128_q16_kv16_w4_x2_s4",
            "decode_bf16_d128_q16_kv16_w4",
            "decode_bf16_d128_q16_kv16_w4_s4_b",
            "mma_rate_",
            "mma_rate_f64",
            "mma_rate_f16_",
            "merge_states_",
            "merge_states_f64",
            "merge_states_f32_",
            "amax_",
            "quantize_e4m3",
            "transpose_e4m3_",
            "fwd_fp8_sm90_bf16_d128_q128_kv128_w4_s3",
        ] {
            assert_eq!(Kernel::parse(name), None, "{name}");
            assert_eq!(Entry::parse(name), None, "{name}");
        }
        assert_eq!(Kernel::parse("mma_rate_f16"), None, "no attention kernel");
    }
}
