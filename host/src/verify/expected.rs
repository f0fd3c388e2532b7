//! What the answer to a call has to be, and whether it is.

use super::inputs::Inputs;
use super::shares::Shares;
use crate::compare::{Comparison, compare_lse, compare_out};
use crate::cpu::Output;
use crate::cpu::reference;
use crate::error::Result;
use crate::nvtx;
use crate::tensor::Element;
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
    out: Vec<f64>,
    plain: Vec<f64>,
    lse: Vec<f64>,
}

impl Expected {
    /// Computes the answer in f64, of all rows or of a share of them.
    pub fn compute<T: Element>(inputs: &Inputs<T>) -> Result<Self> {
        let _range = nvtx::Range::new(c"reference");
        let problem = inputs.problem();
        problem.validate()?;
        let shares = Shares::of(&problem);
        let parts = shares.compute(inputs, |[q, k, v], options| {
            Ok((reference::attention(q, k, v, options)?, reference::plain(q, k, v, options)?))
        })?;
        let mut expected = Self { shares, head_dim: problem.head_dim(), out: vec![], plain: vec![], lse: vec![] };
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
        Verdict {
            out: compare_out(&out, &self.out, &self.plain, self.shares.rows_of_a_head() * self.head_dim),
            lse: compare_lse(&lse, &self.lse),
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
