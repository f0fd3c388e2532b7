//! Calls with e4m3 inputs on a [`Gpu`].

use super::open::Gpu;
use super::session::Memory;
use super::tensor::GpuTensor;
use crate::cpu;
use crate::error::Result;
use crate::fp8::Fp8;
use crate::layout::Layout;
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
        [q, k, v]: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(cpu::Output<T>, Plan)> {
        let fp8 = Fp8 { q: q.blocks(), k: k.blocks(), v: v.blocks() };
        let problem =
            options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_fp8(Some(fp8)).with_lse(true);
        let plan = Plan::for_call(&problem, self.spec(), &self.tuned, kernel, options.splits)?;
        let data = [self.codes(q)?, self.codes(k)?, self.codes(v)?];
        let scales = [self.copy(q.scales())?, self.copy(k.scales())?, self.copy(v.scales())?];
        let kv_lens = options.kv_lens.map(|lens| self.copy(lens)).transpose()?;
        let workspace = self.workspace(plan.workspace_bytes())?;
        let [batch, heads, q_len, _] = problem.q.shape();
        let out = GpuTensor::<T>::uninitialized(&self.session, problem.out)?;
        let lse = GpuTensor::<f32>::uninitialized(&self.session, Layout::bhsd([batch, heads, q_len, 1]))?;
        out.poison()?;
        lse.poison()?;
        let pointers = DevicePointers {
            q: data[0].address(),
            k: data[1].address(),
            v: data[2].address(),
            out: out.device_ptr(),
            lse: lse.device_ptr(),
            kv_lens: kv_lens.as_ref().map_or(0, Memory::address),
            workspace: workspace.as_ref().map_or(0, |memory| memory.address()),
            q_scales: scales[0].address(),
            k_scales: scales[1].address(),
            v_scales: scales[2].address(),
            ..DevicePointers::default()
        };
        // SAFETY: the stream is of the kernels' context; the memory lives until its results have been read.
        unsafe { self.kernels().launch(&plan, &pointers, self.stream()) }?;
        Ok((cpu::Output { out: out.download()?, lse: lse.download()? }, plan))
    }

    /// The codes that the layout reaches.
    fn codes(&self, tensor: &Quantized) -> Result<Memory> {
        self.copy(&tensor.data()[..tensor.layout().extent().unwrap_or(0)])
    }

    fn copy<U: Copy>(&self, data: &[U]) -> Result<Memory> {
        let memory = Memory::new(&self.session, size_of_val(data))?;
        memory.write(data)?;
        Ok(memory)
    }
}
