//! Calls with e4m3 inputs on a [`Gpu`].

use super::attention::Call;
use super::open::Gpu;
use super::session::Memory;
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
        // The operands live until `run` has waited.
        let (call, _operands) = self.fp8_call::<T>(tensors, options, kernel)?;
        call.poison()?;
        self.run(call)?.download()
    }

    /// [`Gpu::call`] of tensors in e4m3, and the memory of their codes and scales, which has to outlive its launches.
    pub(super) fn fp8_call<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(Call<T>, Vec<Memory>)> {
        let problem = fp8::problem(tensors, T::DTYPE, options)?;
        let copies = tensors.iter().flat_map(|tensor| [self.copy(tensor.reached()), self.copy(tensor.scales())]);
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let [q, q_scales, k, k_scales, v, v_scales] = [0, 1, 2, 3, 4, 5].map(|i| copies[i].address());
        let operands = DevicePointers { q, k, v, q_scales, k_scales, v_scales, ..DevicePointers::default() };
        Ok((self.call_on(&problem, operands, options, kernel)?, copies))
    }
}
