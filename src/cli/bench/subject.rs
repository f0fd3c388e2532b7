//! What kernels are timed on, and what their answers have to be.

use anyhow::Result;
use evo_sdpa::gpu::{Gpu, LaunchOptions, TimedCall};
use evo_sdpa::quantize;
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{Element, Fp8, Kernel, Plan, Problem, QuantizePlan, cpu};

/// The tensors of a case, as calls begin with them.
pub struct Subject<T> {
    inputs: Inputs<T>,
    e4m3: E4m3,
    /// The answer.
    pub expected: Expected,
}

/// Whether kernels read e4m3, and who makes it.
enum E4m3 {
    /// They read the tensors as they are.
    No,
    /// They read what the host made of the tensors beforehand.
    Beforehand(Box<quantize::Call>),
    /// They read what each call makes of the tensors.
    InCall(Fp8),
}

impl<T: Element> Subject<T> {
    /// Makes the tensors, quantises them where `fp8` says how, and computes the answer. Calls quantise them anew where
    /// `in_call` is set, to the bits of the host.
    pub fn new(case: &Case, fp8: Option<Fp8>, in_call: bool) -> Result<Self> {
        let inputs = Inputs::generate(case);
        let quantize = |fp8| quantize::Call::new(inputs.views()?, fp8, false, &inputs.options());
        let quantized = fp8.map(quantize).transpose()?;
        let expected = match &quantized {
            Some(call) => Expected::compute_e4m3(&inputs, call)?,
            None => Expected::compute(&inputs)?,
        };
        let e4m3 = match quantized {
            None => E4m3::No,
            Some(call) if in_call => E4m3::InCall(call.fp8()),
            Some(call) => E4m3::Beforehand(Box::new(call)),
        };
        Ok(Self { inputs, e4m3, expected })
    }

    /// The attention that is computed, with the log-sum-exp.
    pub fn problem(&self) -> Problem {
        let fp8 = match &self.e4m3 {
            E4m3::No => None,
            E4m3::Beforehand(call) => Some(call.fp8()),
            E4m3::InCall(fp8) => Some(*fp8),
        };
        self.inputs.problem().with_fp8(fp8)
    }

    /// How each call quantises, if it does.
    pub fn quantize_plan(&self) -> evo_sdpa::Result<Option<QuantizePlan>> {
        match self.e4m3 {
            E4m3::InCall(fp8) => QuantizePlan::new(&self.inputs.problem(), fp8, false).map(Some),
            E4m3::No | E4m3::Beforehand(_) => Ok(None),
        }
    }

    /// The answer of a kernel.
    pub fn answer(&self, gpu: &Gpu, kernel: Kernel) -> evo_sdpa::Result<(cpu::Output<T>, Plan)> {
        let (options, views, kernel) = (self.inputs.options(), self.inputs.views()?, Some(kernel));
        match &self.e4m3 {
            E4m3::No => {
                let [q, k, v] = views;
                gpu.attention_host(q, k, v, &options, kernel)
            }
            E4m3::Beforehand(call) => gpu.fp8_attention_host([&call.q, &call.k, &call.v], &options, kernel),
            E4m3::InCall(fp8) => gpu.quantized_attention_host(views, *fp8, false, &options, kernel),
        }
    }

    /// The kernel ready to be timed. Calls that quantise have plain launches alone.
    pub fn timed<'a>(
        &self,
        gpu: &'a Gpu,
        kernel: Kernel,
        cold: bool,
        launch: LaunchOptions,
    ) -> evo_sdpa::Result<TimedCall<'a, T>> {
        let (options, views, kernel) = (self.inputs.options(), self.inputs.views()?, Some(kernel));
        match &self.e4m3 {
            E4m3::No => gpu.timed_with(views, &options, kernel, cold, launch),
            E4m3::Beforehand(call) => gpu.timed_fp8([&call.q, &call.k, &call.v], &options, kernel, cold, launch),
            E4m3::InCall(fp8) => gpu.timed_quantized(views, *fp8, false, &options, kernel, cold),
        }
    }
}
