//! One attention call in e4m3: its tensors, its exact answer, and what a kernel makes of them.

use super::{Quantized, TokenMean, Tokens, quantize_as_device};
use crate::cpu::reference::{self, Exact};
use crate::error::{Error, Result};
use crate::fp8::Fp8;
use crate::problem::Options;
use crate::tensor::{Element, TensorView};
use evo_sdpa_kernels::config::DType;

/// Queries, keys and values of one call in e4m3.
///
/// ```
/// use evo_sdpa_host::quantize::{Call, Deviation};
/// use evo_sdpa_host::{Fp8, Options, ScaleBlocks, TensorView, cpu};
///
/// let data: Vec<f32> = (0..2 * 64 * 16).map(|i| (i as f32 * 0.37).sin()).collect();
/// let view = TensorView::bhsd(&data, [1, 2, 64, 16])?;
/// let options = Options::default();
/// let call = Call::new([view; 3], Fp8::uniform(ScaleBlocks::Rows(64)), true, &options)?;
/// let exact = cpu::reference::attention(view, view, view, &options)?;
/// let error = Deviation::new(&call.attention_as_device(&options)?.out, &exact.out);
/// assert!(error.relative() < 0.06, "{}", error.relative());
/// # Ok::<(), evo_sdpa_host::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Queries.
    pub q: Quantized,
    /// Keys, less `k_mean` where there is one.
    pub k: Quantized,
    /// Values.
    pub v: Quantized,
    /// The mean of the keys' tokens that was subtracted from them.
    pub k_mean: Option<TokenMean>,
}

impl Call {
    /// Quantises q, k and v, the keys without the mean of their tokens where `subtract_mean` is set. Shapes and layouts
    /// are those of [`crate::cpu::attention`]; of the keys and values, only tokens within `options.kv_lens` count.
    ///
    /// # Errors
    /// Those of [`Options::problem`] and [`quantize`](super::quantize); [`Error::Unsupported`] for paged keys.
    pub fn new<T: Element>(
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<Self> {
        check(&tensors, options)?;
        let [q, k, v] = tensors;
        for (field, view, lens) in [("q", q, None), ("k", k, options.kv_lens), ("v", v, options.kv_lens)] {
            Tokens::new(field, view, lens)?.check_finite(field)?;
        }
        Self::quantize(tensors, fp8, subtract_mean, options)
    }

    /// [`Call::new`] with a kernel's policy for numbers that are not finite: the bits that a device makes of the same
    /// tensors.
    ///
    /// # Errors
    /// Those of [`Call::new`], but for [`Error::NotFinite`].
    pub fn new_as_device<T: Element>(
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<Self> {
        check(&tensors, options)?;
        Self::quantize(tensors, fp8, subtract_mean, options)
    }

    fn quantize<T: Element>(
        [q, k, v]: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<Self> {
        let lens = options.kv_lens;
        let (q, v) = (quantize_as_device("q", q, fp8.q, None)?, quantize_as_device("v", v, fp8.v, lens)?);
        if !subtract_mean {
            return Ok(Self { q, k: quantize_as_device("k", k, fp8.k, lens)?, v, k_mean: None });
        }
        let mean = TokenMean::new_as_device("k", k, lens)?;
        let rest = mean.subtract_from(k);
        let rest = TensorView::bhsd(&rest, k.layout().shape())?;
        Ok(Self { q, k: quantize_as_device("k", rest, fp8.k, lens)?, v, k_mean: Some(mean) })
    }

    /// Which rows share a scale.
    pub fn fp8(&self) -> Fp8 {
        Fp8 { q: self.q.blocks(), k: self.k.blocks(), v: self.v.blocks() }
    }

    /// The exact answer in f64 to the call with the dequantised tensors. The log-sum-exp is that of the keys with their
    /// mean.
    ///
    /// # Errors
    /// Those of [`crate::cpu::attention`].
    pub fn attention(&self, options: &Options) -> Result<Exact> {
        self.answer(options, |[q, k, v]| reference::attention(q, k, v, options))
    }

    /// The same with the probabilities rounded as a kernel does: see [`reference::with_e4m3_probabilities`].
    ///
    /// # Errors
    /// Those of [`crate::cpu::attention`].
    pub fn attention_as_device(&self, options: &Options) -> Result<Exact> {
        self.answer(options, |[q, k, v]| reference::with_e4m3_probabilities(q, k, v, options))
    }

    fn answer(&self, options: &Options, compute: impl FnOnce([TensorView<f32>; 3]) -> Result<Exact>) -> Result<Exact> {
        let tensors = [&self.q, &self.k, &self.v];
        let [q_shape, k_shape, v_shape] = tensors.map(|tensor| tensor.layout().shape());
        let [q, k, v] = tensors.map(Quantized::dequantize);
        let q = TensorView::bhsd(&q, q_shape)?;
        let (k, v) = (TensorView::bhsd(&k, k_shape)?, TensorView::bhsd(&v, v_shape)?);
        let mut exact = compute([q, k, v])?;
        if let Some(mean) = &self.k_mean {
            let scale = options.problem(DType::F32, *q.layout(), *k.layout(), *v.layout())?.scale();
            mean.add_to_lse(&mut exact.lse, q, scale);
        }
        Ok(exact)
    }
}

/// The tensors make a problem, and one that can be quantised.
fn check<T: Element>([q, k, v]: &[TensorView<T>; 3], options: &Options) -> Result<()> {
    if options.pages.is_some() {
        let allowed = "none where inputs are e4m3".into();
        return Err(Error::Unsupported { field: "pages", value: "a block table".into(), allowed });
    }
    options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout()).map(drop)
}
