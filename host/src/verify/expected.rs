//! What the answer to a call has to be, and whether it is.

use super::inputs::Inputs;
use super::shares::Shares;
use crate::compare::{Comparison, compare_e4m3_lse, compare_e4m3_out, compare_lse, compare_out};
use crate::cpu::Output;
use crate::cpu::reference;
use crate::error::Result;
use crate::nvtx;
use crate::problem::Options;
use crate::quantize::Call;
use crate::tensor::{Element, TensorView};
use std::fmt;

/// The exact answer to a call and the error that a plain implementation makes.
///
/// For a large problem each head answers for its own share of the query rows: the first head for the first rows, the
/// last one for the last, so that every head and every place of a row is checked, and the reference stays affordable.
/// Where even that is too much, from 8192 tokens or so, there are gaps between the shares.
#[derive(Clone, Debug)]
pub struct Expected {
    shares: Shares,
    head_dim: usize,
    /// Whether the answer is one to e4m3 inputs.
    e4m3: bool,
    out: Vec<f64>,
    plain: Vec<f64>,
    lse: Vec<f64>,
}

impl Expected {
    /// Computes the answer in f64, of all rows or of a share of them.
    pub fn compute<T: Element>(inputs: &Inputs<T>) -> Result<Self> {
        let _range = nvtx::Range::new(c"reference");
        let plain = |[q, k, v]: [TensorView<T>; 3], options: &Options| reference::plain(q, k, v, options);
        Self::new(inputs, false, plain)
    }

    /// The same of `call`, which the tensors of `inputs` were quantised to: the exact answer to the numbers that it
    /// stands for, and the error that rounding the probabilities to e4m3 makes.
    ///
    /// # Errors
    /// Those of [`crate::cpu::attention`].
    pub fn compute_e4m3<T: Element>(inputs: &Inputs<T>, call: &Call) -> Result<Self> {
        let _range = nvtx::Range::new(c"reference");
        let rounded = |[q, k, v]: [TensorView<f32>; 3], options: &Options| {
            Ok(reference::with_inexact_e4m3_probabilities(q, k, v, options)?.out)
        };
        Self::new(&inputs.dequantized(call), true, rounded)
    }

    /// `plain` makes the error that is allowed.
    fn new<T: Element>(
        inputs: &Inputs<T>,
        e4m3: bool,
        plain: impl Fn([TensorView<T>; 3], &Options) -> Result<Vec<f64>> + Sync,
    ) -> Result<Self> {
        let problem = inputs.problem();
        problem.validate()?;
        let shares = Shares::of(&problem);
        let parts = shares.compute(inputs, |[q, k, v], options| {
            Ok((reference::attention(q, k, v, options)?, plain([q, k, v], options)?))
        })?;
        let mut expected = Self { shares, head_dim: problem.head_dim(), e4m3, out: vec![], plain: vec![], lse: vec![] };
        for (exact, plain) in parts {
            expected.out.extend(exact.out);
            expected.lse.extend(exact.lse);
            expected.plain.extend(plain);
        }
        Ok(expected)
    }

    /// Compares an answer, contiguous \[batch, heads, seq, head_dim\], with the exact one.
    pub fn check<T: Element>(&self, got: &Output<T>) -> Verdict {
        let _range = nvtx::Range::new(c"correctness");
        let out = self.shares.gather(&got.out, self.head_dim);
        let lse = self.shares.gather(&got.lse, 1);
        let head = self.shares.rows_of_a_head() * self.head_dim;
        match self.e4m3 {
            false => {
                Verdict { out: compare_out(&out, &self.out, &self.plain, head), lse: compare_lse(&lse, &self.lse) }
            }
            true => Verdict {
                out: compare_e4m3_out(&out, &self.out, &self.plain, head),
                lse: compare_e4m3_lse(&lse, &self.lse),
            },
        }
    }

    /// Which part of the query rows is checked, 1 for all of them.
    pub fn checked_part(&self) -> f64 {
        self.shares.part()
    }
}

/// How an answer compares with the exact one.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The attention itself.
    pub out: Comparison,
    /// The log-sum-exp.
    pub lse: Comparison,
}

impl Verdict {
    /// Whether the answer is right.
    pub fn passes(&self) -> bool {
        self.out.passes() && self.lse.passes()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out {}, lse {}", self.out, self.lse)
    }
}
