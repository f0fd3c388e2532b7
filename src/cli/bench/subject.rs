//! What kernels are timed on, and what their answers have to be.

use anyhow::Result;
use evo_sdpa::gpu::{Gpu, LaunchOptions, TimedCall};
use evo_sdpa::quantize;
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{Element, Fp8, Kernel, Plan, Problem, cpu};

/// The tensors of a case, as kernels read them.
pub struct Subject<T> {
    inputs: Inputs<T>,
    /// The same in e4m3, where kernels read that.
    quantized: Option<quantize::Call>,
    /// The answer.
    pub expected: Expected,
}

impl<T: Element> Subject<T> {
    /// Makes the tensors, quantises them where `fp8` says how, and computes the answer.
    pub fn new(case: &Case, fp8: Option<Fp8>) -> Result<Self> {
        let inputs = Inputs::generate(case);
        let quantize = |fp8| quantize::Call::new(inputs.views()?, fp8, false, &inputs.options());
        let quantized = fp8.map(quantize).transpose()?;
        let expected = match &quantized {
            Some(call) => Expected::compute_e4m3(&inputs, call)?,
            None => Expected::compute(&inputs)?,
        };
        Ok(Self { inputs, quantized, expected })
    }

    /// What is computed, with the log-sum-exp.
    pub fn problem(&self) -> Problem {
        self.inputs.problem().with_fp8(self.quantized.as_ref().map(quantize::Call::fp8))
    }

    /// The answer of a kernel.
    pub fn answer(&self, gpu: &Gpu, kernel: Kernel) -> evo_sdpa::Result<(cpu::Output<T>, Plan)> {
        let options = self.inputs.options();
        match &self.quantized {
            Some(quantize::Call { q, k, v, .. }) => gpu.fp8_attention_host([q, k, v], &options, Some(kernel)),
            None => {
                let [q, k, v] = self.inputs.views()?;
                gpu.attention_host(q, k, v, &options, Some(kernel))
            }
        }
    }

    /// The kernel ready to be timed.
    pub fn timed<'a>(
        &self,
        gpu: &'a Gpu,
        kernel: Kernel,
        cold: bool,
        launch: LaunchOptions,
    ) -> evo_sdpa::Result<TimedCall<'a, T>> {
        let options = self.inputs.options();
        match &self.quantized {
            Some(quantize::Call { q, k, v, .. }) => gpu.timed_fp8([q, k, v], &options, Some(kernel), cold, launch),
            None => gpu.timed_with(self.inputs.views()?, &options, Some(kernel), cold, launch),
        }
    }
}
