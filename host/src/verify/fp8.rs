//! What e4m3 costs: the answer to a call with rounded tensors and probabilities against the answer to the call itself.

use super::inputs::Inputs;
use super::shares::Shares;
use crate::cpu::reference;
use crate::error::Result;
use crate::fp8::Fp8;
use crate::layout::Layout;
use crate::quantize::{Call, Deviation, Quantized};
use crate::tensor::Element;

/// What is rounded to e4m3: three tensors before the call, and the probabilities in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The queries.
    Queries,
    /// The keys.
    Keys,
    /// The values.
    Values,
    /// The probabilities, as the second product takes them.
    Probabilities,
}

impl Operand {
    /// Every operand.
    pub const ALL: [Operand; 4] = [Operand::Queries, Operand::Keys, Operand::Values, Operand::Probabilities];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Operand::Queries => "queries",
            Operand::Keys => "keys",
            Operand::Values => "values",
            Operand::Probabilities => "probabilities",
        }
    }
}

/// How a call is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantization {
    /// Which rows share a scale.
    pub fp8: Fp8,
    /// Whether keys are quantised without the mean of their tokens.
    pub subtract_mean: bool,
    /// The one operand that is rounded; all of them where none is given.
    pub only: Option<Operand>,
}

impl Quantization {
    fn rounds(&self, operand: Operand) -> bool {
        self.only.is_none_or(|only| only == operand)
    }
}

/// Largest relative error of a call on numbers without outliers: on normal ones 4.6e-2 to 5.6e-2 were seen, four
/// independent roundings of 2.6e-2 each.
const LARGEST_RELATIVE: f64 = 6e-2;
/// The same of one head, which may be 32 rows of it: 6.9e-2 was seen.
const LARGEST_OF_A_HEAD: f64 = 8e-2;

/// Whether the deviations of a call's heads are what rounding to e4m3 explains, where no number is much larger than its
/// neighbours: a relative error of 6e-2 at most, and of 8e-2 for a head. NaN and infinity are never explained.
pub fn within_rounding(heads: &[Deviation]) -> bool {
    let total: Deviation = heads.iter().copied().sum();
    total.relative() <= LARGEST_RELATIVE && heads.iter().all(|head| head.relative() <= LARGEST_OF_A_HEAD)
}

/// What the CPU says of a quantised call.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// How far it is from the exact answer to the call that is not quantised, for each head of each sequence in the
    /// order \[batch, heads_q\].
    pub heads: Vec<Deviation>,
    /// The checked rows, head after head.
    out: Vec<f64>,
}

/// How far a device's answer to a quantised call is from others, for each head as in [`Predicted`].
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the exact answer to the call that is not quantised.
    pub heads: Vec<Deviation>,
    /// From what the CPU says of the quantised call.
    pub from_prediction: Vec<Deviation>,
}

/// What a device may add to twice the error that is predicted: its 16-bit output is rounded.
const DEVICE_ALLOWANCE: f64 = 1e-2;

impl Measured {
    /// Whether no head's relative error is above twice the one that is predicted and an allowance of 1e-2 for rounding
    /// the output: the rule by which every kernel is judged. NaN and infinity never are.
    pub fn within(&self, predicted: &Predicted) -> bool {
        let near = |(got, predicted): (&Deviation, &Deviation)| {
            got.max_abs.is_finite() && got.relative() <= 2.0 * predicted.relative() + DEVICE_ALLOWANCE
        };
        self.heads.len() == predicted.heads.len() && self.heads.iter().zip(&predicted.heads).all(near)
    }
}

/// The exact answer to a call, for answers in e4m3 to be compared with. Of a large problem, each head answers for its own
/// share of the rows, as in [`super::Expected`].
#[derive(Clone, Debug)]
pub struct Unquantized<'a, T> {
    inputs: &'a Inputs<T>,
    shares: Shares,
    /// The checked rows, head after head.
    out: Vec<f64>,
}

impl<'a, T: Element> Unquantized<'a, T> {
    /// Computes the answer in f64.
    ///
    /// # Errors
    /// Those of [`crate::cpu::attention`].
    pub fn compute(inputs: &'a Inputs<T>) -> Result<Self> {
        let problem = inputs.problem();
        problem.validate()?;
        let shares = Shares::of(&problem);
        let parts = shares.compute(inputs, |[q, k, v], options| Ok(reference::attention(q, k, v, options)?.out))?;
        Ok(Self { inputs, shares, out: parts.concat() })
    }

    /// The answer when the call is quantised, in f64 with the roundings of a kernel.
    ///
    /// # Errors
    /// Those of [`Call::new`].
    pub fn predict(&self, quantization: &Quantization) -> Result<Predicted> {
        let inputs = self.rounded(quantization)?;
        let rounds_probabilities = quantization.rounds(Operand::Probabilities);
        let parts = self.shares.compute(&inputs, |[q, k, v], options| {
            let answer = match rounds_probabilities {
                true => reference::with_e4m3_probabilities(q, k, v, options),
                false => reference::attention(q, k, v, options),
            };
            Ok(answer?.out)
        })?;
        let out = parts.concat();
        Ok(Predicted { heads: self.by_head(&out, &self.out), out })
    }

    /// How far a device's answer to the quantised call, contiguous \[batch, heads_q, q_len, head_dim\], is from this
    /// one and from the prediction.
    pub fn measure(&self, predicted: &Predicted, out: &[f64]) -> Measured {
        let out = self.shares.gather(out, self.inputs.q_layout.shape()[3]);
        Measured { heads: self.by_head(&out, &self.out), from_prediction: self.by_head(&out, &predicted.out) }
    }

    fn by_head(&self, out: &[f64], from: &[f64]) -> Vec<Deviation> {
        let head = (self.shares.rows_of_a_head() * self.inputs.q_layout.shape()[3]).max(1);
        // Heads that an answer is too short for lack all their elements.
        let of_head = |(i, from)| Deviation::new(out.chunks(head).nth(i).unwrap_or_default(), from);
        from.chunks(head).enumerate().map(of_head).collect()
    }

    /// Which part of the query rows is compared, 1 for all of them.
    pub fn checked_part(&self) -> f64 {
        self.shares.part()
    }

    /// The inputs with the rounded ones among them dequantised.
    fn rounded(&self, quantization: &Quantization) -> Result<Inputs<f32>> {
        let inputs = self.inputs;
        let call = Call::new(inputs.views()?, quantization.fp8, quantization.subtract_mean, &inputs.options())?;
        let tensor = |operand, quantized: &Quantized, data: &[T], layout| match quantization.rounds(operand) {
            true => (quantized.dequantize(), Layout::bhsd(quantized.layout().shape())),
            false => (data.iter().map(|x| x.to_f32()).collect(), layout),
        };
        let (q, q_layout) = tensor(Operand::Queries, &call.q, &inputs.q, inputs.q_layout);
        let (k, k_layout) = tensor(Operand::Keys, &call.k, &inputs.k, inputs.k_layout);
        let (v, v_layout) = tensor(Operand::Values, &call.v, &inputs.v, inputs.v_layout);
        let Inputs { causal, scale, ref kv_lens, splits, .. } = *inputs;
        Ok(Inputs { q, k, v, q_layout, k_layout, v_layout, causal, scale, kv_lens: kv_lens.clone(), splits })
    }
}
