//! Calls with e4m3 inputs on a [`Gpu`].

use super::open::Gpu;
use crate::cpu;
use crate::error::Result;
use crate::fp8;
use crate::plan::{DevicePointers, Plan};
use crate::problem::Options;
use crate::quantize::Quantized;
use crate::tensor::Element;
use evo_sdpa_kernels::config::Kernel;

impl Gpu {
    /// [`Gpu::attention_host`] of queries, keys and values in e4m3, with an output of type `T`.
    ///
    /// # Errors
    /// Those of [`Gpu::attention_host`].
    pub fn fp8_attention_host<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(cpu::Output<T>, Plan)> {
        let problem = fp8::problem(tensors, T::DTYPE, options)?;
        let [q, k, v] = tensors.map(|tensor| self.copy(tensor.reached()));
        let [q_scales, k_scales, v_scales] = tensors.map(|tensor| self.copy(tensor.scales()));
        let (q, k, v, q_scales, k_scales, v_scales) = (q?, k?, v?, q_scales?, k_scales?, v_scales?);
        let operands = DevicePointers {
            q: q.address(),
            k: k.address(),
            v: v.address(),
            q_scales: q_scales.address(),
            k_scales: k_scales.address(),
            v_scales: v_scales.address(),
            ..DevicePointers::default()
        };
        // The memory lives until `run` has waited.
        let call = self.call_on::<T>(&problem, operands, options, kernel)?;
        call.poison()?;
        self.run(call)?.download()
    }
}
