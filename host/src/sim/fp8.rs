//! Calls with e4m3 inputs on a [`Simulator`].

use super::attention::{Simulated, address, upload};
use super::simulator::Simulator;
use crate::error::Result;
use crate::fp8;
use crate::plan::DevicePointers;
use crate::problem::Options;
use crate::quantize::Quantized;
use crate::tensor::Element;
use evo_sdpa_kernels::config::Kernel;
use ptx_sim::Device;

impl Simulator {
    /// [`Simulator::attention`] of queries, keys and values in e4m3, with an output of type `T`.
    ///
    /// # Errors
    /// Those of [`Simulator::attention`].
    pub fn fp8_attention<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<Simulated<T>> {
        self.attend_fp8(tensors, options, kernel, true)
    }

    /// [`Simulator::fp8_attention`] for the output alone: the log-sum-exps of the answer are empty.
    ///
    /// # Errors
    /// Those of [`Simulator::attention`].
    pub fn fp8_output<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<Simulated<T>> {
        self.attend_fp8(tensors, options, kernel, false)
    }

    fn attend_fp8<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
        lse: bool,
    ) -> Result<Simulated<T>> {
        let problem = fp8::problem(tensors, T::DTYPE, options)?.with_lse(lse);
        let plan = self.plan(&problem, options, kernel)?;
        let mut device = Device::new();
        let [q, k, v] = tensors.map(|tensor| address(upload(&mut device, tensor.reached())));
        let [q_scales, k_scales, v_scales] = tensors.map(|tensor| address(upload(&mut device, tensor.scales())));
        let operands = DevicePointers { q, k, v, q_scales, k_scales, v_scales, ..DevicePointers::default() };
        self.attend(&mut device, &problem, plan, operands, options)
    }
}
