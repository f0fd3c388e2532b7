//! Quantising on a [`Gpu`] and in a context of the caller's, and attention that begins with it.

use super::attention::{Call, GpuOutput};
use super::function::{Function, Shape};
use super::kernels::Kernels;
use super::open::Gpu;
use super::session::Memory;
use super::tensor::GpuTensor;
use crate::cpu;
use crate::error::{Error, Result};
use crate::fp8::Fp8;
use crate::nvtx::Range;
use crate::plan::Plan;
use crate::problem::Options;
use crate::quantize::{self, QuantizeLaunch, QuantizePlan, QuantizePointers};
use crate::tensor::{Element, TensorView};
use cust::sys::CUstream;
use evo_sdpa_kernels::config::{DType, Kernel};
use evo_sdpa_kernels::entry::Entry;

impl Gpu {
    /// Quantises q, k and v, the keys less the mean of their tokens where `subtract_mean` is set, and computes
    /// `softmax(scale * q k^T + mask) v` of what they become, with an output of type `O`, f16 or bf16; returns when it
    /// is done.
    ///
    /// Shapes are those of [`Gpu::attention`]. With scales of 64 or 128 rows and keys that keep their mean that is two
    /// launches: values are left as the attention takes them, see [`QuantizePlan::with_attention`]. Where the keys are
    /// less their mean, the log-sum-exp is that of such keys: see [`QuantizePlan::attention`].
    ///
    /// # Errors
    /// Those of [`Options::problem`], [`QuantizePlan::new`], [`Gpu::plan`], [`Kernels::launch_quantize`] and
    /// [`Kernels::launch`]; [`Error::Driver`] when memory is short or a kernel fails.
    pub fn quantized_attention<T: Element, O: Element>(
        &self,
        tensors: [&GpuTensor<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<GpuOutput<O>> {
        let (plan, pointers) = self.quantize_plan(tensors, fp8, subtract_mean, options)?;
        let (plan, attention) = self.with_attention(plan, O::DTYPE, options, None)?;
        self.run_quantized(self.quantized_call(plan, attention, pointers, options)?)
    }

    /// [`Gpu::quantized_attention`] from and to host memory, with a kernel of the caller's choice or the planner's.
    /// `out` and `lse` are filled with NaN before the launch.
    ///
    /// # Errors
    /// Those of [`Gpu::quantized_attention`] and [`Plan::with_kernel`].
    pub fn quantized_attention_host<T: Element, O: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(cpu::Output<O>, Plan)> {
        let [q, k, v] = tensors.map(|view| self.upload(view));
        let (q, k, v) = (q?, k?, v?);
        let (plan, pointers) = self.quantize_plan([&q, &k, &v], fp8, subtract_mean, options)?;
        let (plan, attention) = self.with_attention(plan, O::DTYPE, options, kernel)?;
        let call = self.quantized_call::<O>(plan, attention, pointers, options)?;
        call.attention.poison()?;
        self.run_quantized(call)?.download()
    }

    /// [`quantize::Call::new_as_device`] by the kernels that quantise, copied to the host.
    ///
    /// # Errors
    /// Those of [`Options::problem`], [`QuantizePlan::new`] and [`Kernels::launch_quantize`];
    /// [`Error::Driver`] when memory is short or a kernel fails.
    pub fn quantize<T: Element>(
        &self,
        tensors: [&GpuTensor<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<quantize::Call> {
        let (plan, pointers) = self.quantize_plan(tensors, fp8, subtract_mean, options)?;
        self.quantize_by(plan, pointers, options)
    }

    /// [`Gpu::quantize`] with values left transposed on the device, which the call is the same for.
    ///
    /// # Errors
    /// Those of [`Gpu::quantize`] and [`QuantizePlan::with_transposed_values`].
    pub fn quantize_transposed<T: Element>(
        &self,
        tensors: [&GpuTensor<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<quantize::Call> {
        let (plan, pointers) = self.quantize_plan(tensors, fp8, subtract_mean, options)?;
        self.quantize_by(plan.with_transposed_values()?, pointers, options)
    }

    /// Launches, waits and reads.
    fn quantize_by(&self, plan: QuantizePlan, pointers: QuantizePointers, options: &Options) -> Result<quantize::Call> {
        let kv_lens = options.kv_lens.map(|lens| self.copy(lens)).transpose()?;
        let workspace = Memory::new(&self.session, plan.workspace_bytes())?;
        let kv_lens = kv_lens.as_ref().map_or(0, Memory::address);
        let pointers = QuantizePointers { kv_lens, workspace: workspace.address(), ..pointers };
        // SAFETY: the stream is of the kernels' context; the tensors have the plan's layouts, and all memory lives
        // until the stream has been waited for.
        unsafe { self.kernels().launch_quantize(&plan, &pointers, self.stream()) }?;
        let mut bytes = vec![0u8; plan.workspace_bytes()];
        workspace.read(&mut bytes)?;
        plan.read(&bytes)
    }

    /// The plan, and where the tensors are.
    pub(super) fn quantize_plan<T: Element>(
        &self,
        tensors: [&GpuTensor<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<(QuantizePlan, QuantizePointers)> {
        for (field, tensor) in ["q", "k", "v"].into_iter().zip(tensors) {
            self.check_place(field, tensor)?;
        }
        let [q, k, v] = tensors.map(|tensor| *tensor.layout());
        let inputs = options.problem(T::DTYPE, q, k, v)?.with_lse(true);
        let plan = QuantizePlan::new(&inputs, fp8, subtract_mean)?;
        let [q, k, v] = tensors.map(GpuTensor::device_ptr);
        Ok((plan, QuantizePointers { q, k, v, ..QuantizePointers::default() }))
    }

    /// Plans the attention, and the values as it takes them.
    pub(super) fn with_attention(
        &self,
        plan: QuantizePlan,
        dtype: DType,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(QuantizePlan, Plan)> {
        plan.with_attention(dtype, |problem| self.plan_call(problem, options, kernel))
    }

    /// Allocates all that the launches of two plans that go together write.
    pub(super) fn quantized_call<O: Element>(
        &self,
        plan: QuantizePlan,
        attention: Plan,
        pointers: QuantizePointers,
        options: &Options,
    ) -> Result<QuantizedCall<O>> {
        let problem = plan.attention(O::DTYPE);
        let workspace = Memory::new(&self.session, plan.workspace_bytes())?;
        let attention = self.call_by(attention, &problem, plan.operands(workspace.address()), options)?;
        let kv_lens = attention.pointers().kv_lens;
        let pointers = QuantizePointers { kv_lens, workspace: workspace.address(), ..pointers };
        Ok(QuantizedCall { plan, pointers, attention, workspace })
    }

    /// Launches and waits.
    fn run_quantized<O: Element>(&self, call: QuantizedCall<O>) -> Result<GpuOutput<O>> {
        // SAFETY: the stream is of the kernels' context; the tensors have the plan's layouts, and all memory lives
        // until `run` has waited for the stream.
        unsafe { self.kernels().launch_quantize(&call.plan, &call.pointers, self.stream()) }?;
        self.run(call.attention)
    }
}

/// Two plans with memory for their results.
pub(super) struct QuantizedCall<O> {
    pub plan: QuantizePlan,
    pub pointers: QuantizePointers,
    pub attention: Call<O>,
    /// Behind `pointers.workspace`.
    pub workspace: Memory,
}

impl Kernels {
    /// [`Kernels::prepare`] for the kernels that a plan launches.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`], and [`Error::Unsupported`] on devices of a compute capability below 8.9.
    pub fn prepare_quantize(&self, plan: &QuantizePlan) -> Result<()> {
        let _current = self.enter()?;
        plan.launches().try_for_each(|launch| self.load_quantize(launch.entry).map(drop))
    }

    /// Puts the launches of `plan` on `stream` (null for the default stream), one behind the other, and returns.
    ///
    /// They allocate nothing on the device, set nothing to zero, do not synchronise and can be captured in a CUDA
    /// graph, provided that [`Kernels::prepare_quantize`] has loaded the kernels. Nothing is launched where
    /// [`QuantizePlan::is_empty`]. [`Kernels::launch`] of the [`Plan`] of [`QuantizePlan::with_attention`], with the
    /// addresses of [`QuantizePlan::operands`], may come next on the stream.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare_quantize`] and [`QuantizePlan::bind`], and [`Error::Driver`] when the driver refuses
    /// a launch. An earlier failure on the device, somebody else's too, can show here.
    ///
    /// # Safety
    /// `stream` belongs to the borrowed context. `pointers` are addresses in device memory that the context can reach;
    /// behind them lie tensors of the plan's layouts and type, lengths and a workspace of the plan's size, which stay
    /// there until the launches have run; nothing else writes them, or reads the workspace, in that time.
    pub unsafe fn launch_quantize(
        &self,
        plan: &QuantizePlan,
        pointers: &QuantizePointers,
        stream: CUstream,
    ) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        let _range = Range::new(c"launch");
        let launches = plan.bind(pointers)?;
        let _current = self.enter()?;
        for QuantizeLaunch { entry, grid, argument } in launches {
            let function = self.load_quantize(entry)?;
            let shape = Shape { grid, block: entry.threads(), shared_bytes: entry.shared_bytes() };
            // The driver copies the block, and writes nothing.
            let mut arguments = [argument.bytes().as_ptr().cast_mut().cast()];
            // SAFETY: the function takes one parameter by value, that of the launch; the caller vouches for the stream
            // and for what the addresses point at.
            unsafe { function.launch(shape, &mut arguments, stream) }?;
        }
        Ok(())
    }

    /// The loaded kernel. The context is current.
    fn load_quantize(&self, entry: Entry) -> Result<Function> {
        match self.device().compute_capability {
            ..89 => Err(Error::Unsupported {
                field: "device",
                value: format!("compute capability {}", self.device().compute_capability),
                allowed: format!("89 or later for {entry}"),
            }),
            _ => self.load_entry(entry),
        }
    }
}
