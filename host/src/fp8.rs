//! Problems whose queries, keys and values are e4m3 with scales: which rows share a scale.

use crate::error::{Error, Result};
#[cfg(any(feature = "gpu", feature = "sim"))]
use crate::{problem::Options, problem::Problem, quantize::Quantized};
#[cfg(any(feature = "gpu", feature = "sim"))]
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::params::Scales;

/// Shift of row numbers where all rows of a head share a scale: no row number has so many bits.
const ALL_ROWS: u32 = Scales::WHOLE_HEAD;

/// Which rows of a tensor \[batch, heads, seq, head_dim\] share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleBlocks {
    /// All rows of all heads of all sequences.
    Tensor,
    /// All rows of a head of one sequence.
    Head,
    /// So many consecutive rows of a head, from its first on; the last block may have fewer. A power of two, at least
    /// [`ScaleBlocks::MIN_ROWS`].
    Rows(u32),
}

impl ScaleBlocks {
    /// Fewest rows of a block: a kernel's warps and steps of keys never straddle two.
    pub const MIN_ROWS: u32 = 64;

    /// Checks the number of rows.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it is no power of two, below [`ScaleBlocks::MIN_ROWS`] or above 2^30.
    pub fn validate(self, field: &'static str) -> Result<()> {
        match self {
            ScaleBlocks::Rows(rows) if !rows.is_power_of_two() || rows < Self::MIN_ROWS || rows.ilog2() >= ALL_ROWS => {
                let allowed = format!("powers of two from {} to 2^{}", Self::MIN_ROWS, ALL_ROWS - 1);
                Err(Error::Unsupported { field, value: format!("a scale for {rows} rows"), allowed })
            }
            _ => Ok(()),
        }
    }

    /// The block of a row is `row >> shift`: 31 where all rows of a head share a scale.
    pub const fn shift(self) -> u32 {
        match self {
            ScaleBlocks::Tensor | ScaleBlocks::Head => ALL_ROWS,
            // A block of no rows, which is refused, counts as one of one.
            ScaleBlocks::Rows(rows) => (rows | 1).ilog2(),
        }
    }

    /// Axes \[batch, heads, blocks\] of the contiguous scales of a tensor of this shape: \[1, 1, 1\] for one scale. A head
    /// without rows has no block.
    pub const fn scales(self, [batch, heads, seq, _]: [usize; 4]) -> [usize; 3] {
        match self {
            ScaleBlocks::Tensor => [1, 1, 1],
            ScaleBlocks::Head => [batch, heads, if seq == 0 { 0 } else { 1 }],
            ScaleBlocks::Rows(rows) => [batch, heads, seq.div_ceil(if rows == 0 { 1 } else { rows as usize })],
        }
    }

    /// Scales from one sequence to the next and from one head to the next: the scale of a row is number
    /// `batch * strides[0] + head * strides[1] + (row >> shift)`.
    pub const fn strides(self, shape: [usize; 4]) -> [usize; 2] {
        match self {
            ScaleBlocks::Tensor => [0, 0],
            ScaleBlocks::Head | ScaleBlocks::Rows(_) => {
                let [_, heads, blocks] = self.scales(shape);
                [heads.saturating_mul(blocks), blocks]
            }
        }
    }
}

/// Queries, keys and values in e4m3: an element is the e4m3 number times the scale of its block of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fp8 {
    /// Blocks of queries that share a scale.
    pub q: ScaleBlocks,
    /// The same of keys.
    pub k: ScaleBlocks,
    /// The same of values.
    pub v: ScaleBlocks,
}

impl Fp8 {
    /// The same blocks for all three tensors.
    pub const fn uniform(blocks: ScaleBlocks) -> Self {
        Self { q: blocks, k: blocks, v: blocks }
    }

    /// Each tensor's blocks, with the name of its scales.
    pub(crate) const fn tensors(&self) -> [(&'static str, ScaleBlocks); 3] {
        [("q_scales", self.q), ("k_scales", self.k), ("v_scales", self.v)]
    }
}

/// The call of queries, keys and values in e4m3 with an output of type `dtype`, and its log-sum-exp.
#[cfg(any(feature = "gpu", feature = "sim"))]
pub(crate) fn problem([q, k, v]: [&Quantized; 3], dtype: DType, options: &Options) -> Result<Problem> {
    let fp8 = Fp8 { q: q.blocks(), k: k.blocks(), v: v.blocks() };
    let problem = options.problem(dtype, *q.layout(), *k.layout(), *v.layout())?;
    Ok(problem.with_fp8(Some(fp8)).with_lse(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_finds_the_scale_of_its_block() {
        let shape = [2, 3, 130, 16];
        for (blocks, scales, last) in [
            (ScaleBlocks::Tensor, [1, 1, 1], 0),
            (ScaleBlocks::Head, [2, 3, 1], 5),
            (ScaleBlocks::Rows(64), [2, 3, 3], 17),
            (ScaleBlocks::Rows(128), [2, 3, 2], 11),
        ] {
            assert_eq!(blocks.scales(shape), scales);
            let [batch, head] = blocks.strides(shape);
            assert_eq!(batch + 2 * head + (129 >> blocks.shift()), last, "{blocks:?}");
        }
    }

    #[test]
    fn blocks_of_few_or_odd_rows_are_refused() {
        for rows in [0, 1, 32, 63, 96, 1 << 31] {
            let error = ScaleBlocks::Rows(rows).validate("k_scales").unwrap_err().to_string();
            assert!(error.starts_with(&format!("k_scales: a scale for {rows} rows is not supported")), "{error}");
        }
        // Asked all the same, a block of no rows has an answer.
        assert_eq!((ScaleBlocks::Rows(0).shift(), ScaleBlocks::Rows(0).strides([1, 2, 3, 16])), (0, [6, 3]));
        for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(64), ScaleBlocks::Rows(1 << 30)] {
            assert_eq!(blocks.validate("k_scales"), Ok(()));
        }
    }
}
