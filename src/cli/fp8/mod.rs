//! What e4m3 costs: the options and words that `run`, `bench` and `inspect --quantize` and `verify --dtype` share.

mod preparation;
mod report;
mod verify;

pub use preparation::Preparation;
pub use report::Report;
pub use verify::Sweep;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use evo_sdpa::quantize::Deviation;
use evo_sdpa::verify::Quantization;
use evo_sdpa::{Fp8, ScaleBlocks};

/// A type that tensors are quantised to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// 8 bits: sign, four bits of exponent, three of mantissa
    E4m3,
}

/// The type of quantised tensors. A command says by `mut_arg` what it does with them.
#[derive(Args)]
pub struct FormatArgs {
    #[arg(id = "quantize", long = "quantize", value_enum, value_name = "TYPE")]
    format: Option<Format>,
    /// Which rows share a scale: tensor, head, or that many rows of a head, a power of two from 64 on
    #[arg(long, value_name = "BLOCKS", default_value = "head", requires = "quantize", value_parser = parse_scales)]
    scales: ScaleBlocks,
}

impl FormatArgs {
    /// Which rows share a scale, where tensors are quantised.
    pub fn fp8(&self) -> Option<Fp8> {
        self.format.map(|Format::E4m3| Fp8::uniform(self.scales))
    }
}

/// How tensors are quantised.
#[derive(Args)]
pub struct QuantizeArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Quantise keys less the mean of their tokens, which attention does not depend on
    #[arg(long, requires = "quantize")]
    subtract_mean: bool,
}

impl QuantizeArgs {
    /// What is asked for, if anything.
    pub fn quantization(&self) -> Option<Quantization> {
        Some(Quantization { fp8: self.format.fp8()?, subtract_mean: self.subtract_mean, only: None })
    }
}

/// `tensor`, `head` or a number of rows.
pub fn parse_scales(text: &str) -> Result<ScaleBlocks> {
    let blocks = match text {
        "tensor" => ScaleBlocks::Tensor,
        "head" => ScaleBlocks::Head,
        rows => ScaleBlocks::Rows(
            rows.parse().with_context(|| format!("`{rows}`, allowed: tensor, head or a power of two from 64 on"))?,
        ),
    };
    blocks.validate("scales")?;
    Ok(blocks)
}

/// What [`parse_scales`] reads.
pub fn scales_option(blocks: ScaleBlocks) -> String {
    match blocks {
        ScaleBlocks::Tensor => "tensor".into(),
        ScaleBlocks::Head => "head".into(),
        ScaleBlocks::Rows(rows) => rows.to_string(),
    }
}

/// The blocks of the queries, which are those of keys and values in all that the program does, and what becomes of the
/// keys' mean.
fn scales_name(quantization: &Quantization) -> String {
    let rows = if let ScaleBlocks::Rows(_) = quantization.fp8.q { " rows" } else { "" };
    let blocks = scales_option(quantization.fp8.q) + rows;
    if quantization.subtract_mean { format!("{blocks}, keys less mean") } else { blocks }
}

/// The deviation of all heads together.
fn total(heads: &[Deviation]) -> Deviation {
    heads.iter().copied().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_of_the_tensor_of_heads_or_of_whole_blocks() {
        assert_eq!(parse_scales("tensor").unwrap(), ScaleBlocks::Tensor);
        assert_eq!(parse_scales("head").unwrap(), ScaleBlocks::Head);
        assert_eq!(parse_scales("128").unwrap(), ScaleBlocks::Rows(128));
        for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(64)] {
            assert_eq!(parse_scales(&scales_option(blocks)).unwrap(), blocks);
        }
        for (text, reason) in [("row", "allowed: tensor, head"), ("-64", "allowed: tensor"), ("96", "powers of two")] {
            assert!(parse_scales(text).unwrap_err().to_string().contains(reason), "{text}");
        }
    }
}
