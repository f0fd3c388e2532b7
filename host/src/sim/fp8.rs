//! Calls with e4m3 inputs on a [`Simulator`].

use super::attention::{Simulated, address, download, upload, workspace};
use super::simulator::Simulator;
use crate::cpu;
use crate::error::Result;
use crate::fp8::Fp8;
use crate::plan::{DevicePointers, Plan};
use crate::problem::Options;
use crate::quantize::Quantized;
use crate::tensor::Element;
use crate::tuned::TunedKernels;
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
        let [q, k, v] = tensors;
        let fp8 = Fp8 { q: q.blocks(), k: k.blocks(), v: v.blocks() };
        let problem =
            options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_fp8(Some(fp8)).with_lse(true);
        let plan = Plan::for_call(&problem, self.spec(), &TunedKernels::default(), kernel, options.splits)?;
        self.check_work(&plan)?;
        let mut device = Device::new();
        // What the layout reaches; it fits the data.
        let reached = |tensor: &Quantized| tensor.layout().extent().unwrap_or(0);
        let data = tensors.map(|tensor| address(upload(&mut device, &tensor.data()[..reached(tensor)])));
        let scales = tensors.map(|tensor| address(upload(&mut device, tensor.scales())));
        let kv_lens = options.kv_lens.map(|lens| upload(&mut device, lens));
        let workspace = workspace(&mut device, &plan);
        let rows = problem.batch() * problem.heads_q() * problem.q_len();
        let out = device.alloc(problem.out.elements() * size_of::<T>());
        let lse = device.alloc(rows * size_of::<f32>());
        let pointers = DevicePointers {
            q: data[0],
            k: data[1],
            v: data[2],
            out: address(out),
            lse: address(lse),
            kv_lens: kv_lens.map_or(0, address),
            workspace: workspace.map_or(0, address),
            q_scales: scales[0],
            k_scales: scales[1],
            v_scales: scales[2],
            ..DevicePointers::default()
        };
        let report = self.launch(&mut device, &plan, &pointers)?;
        let output = cpu::Output { out: download(&device, out), lse: download(&device, lse) };
        Ok(Simulated { output, plan, report })
    }
}
