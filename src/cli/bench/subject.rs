//! What kernels are timed on, and what their answers have to be.

use anyhow::Result;
use evo_sdpa::gpu::{Gpu, LaunchOptions, TimedCall};
use evo_sdpa::quantize;
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{Element, Fp8, Kernel, Plan, Problem, QuantizePlan, ValueLayout, cpu};

/// The tensors of a case, as calls begin with them.
pub struct Subject<T> {
    inputs: Inputs<T>,
    problem: Problem,
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
    /// They read what the device made of the tensors beforehand, values transposed.
    Transposed(Fp8),
    /// They read what each call makes of the tensors.
    InCall(Fp8),
}

impl<T: Element> Subject<T> {
    /// Makes the tensors, quantises them where the problem says how, and computes the answer. Where it has values in
    /// another layout than rows, the device quantises them anew, to the bits of the host: in each call where they lie
    /// as planned.
    pub fn new(case: &Case, problem: Problem) -> Result<Self> {
        let inputs = Inputs::generate(case);
        let quantize = |fp8| quantize::Call::new(inputs.views()?, fp8, false, &inputs.options());
        let quantized = problem.fp8.map(quantize).transpose()?;
        let expected = match &quantized {
            Some(call) => Expected::compute_e4m3(&inputs, call)?,
            None => Expected::compute(&inputs)?,
        };
        let e4m3 = match (quantized, problem.value_layout) {
            (None, _) => E4m3::No,
            (Some(call), ValueLayout::Rows) => E4m3::Beforehand(Box::new(call)),
            (Some(call), ValueLayout::Transposed) => E4m3::Transposed(call.fp8()),
            (Some(call), ValueLayout::Planned) => E4m3::InCall(call.fp8()),
        };
        Ok(Self { inputs, problem, e4m3, expected })
    }

    /// The attention that is computed, with the log-sum-exp.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// How each call of a kernel quantises, if it does.
    pub fn quantize_plan(&self, gpu: &Gpu, kernel: Kernel) -> evo_sdpa::Result<Option<QuantizePlan>> {
        let E4m3::InCall(fp8) = self.e4m3 else { return Ok(None) };
        let plan = QuantizePlan::new(&self.inputs.problem(), fp8, false)?;
        let (plan, _) = plan.with_attention(T::DTYPE, |problem| gpu.plan(problem, Some(kernel)))?;
        Ok(Some(plan))
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
            // The kernels that are timed on transposed values get them here too.
            E4m3::Transposed(fp8) | E4m3::InCall(fp8) => {
                gpu.quantized_attention_host(views, *fp8, false, &options, kernel)
            }
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
            E4m3::Transposed(fp8) => gpu.timed_transposed(views, *fp8, &options, kernel, cold, launch),
            E4m3::InCall(fp8) => gpu.timed_quantized(views, *fp8, false, &options, kernel, cold),
        }
    }
}
