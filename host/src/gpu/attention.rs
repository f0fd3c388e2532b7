//! Whole calls on a [`Gpu`]: plan, allocate, launch, wait.

use super::open::Gpu;
use super::session::{Memory, Session};
use super::tensor::GpuTensor;
use crate::cpu;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::nvtx::Range;
use crate::plan::{DevicePointers, Plan};
use crate::problem::{Options, Problem};
use crate::tensor::{Element, TensorView};
use evo_sdpa_kernels::config::Kernel;
use std::sync::{Arc, PoisonError};

/// What [`Gpu::attention`] returns.
#[derive(Debug)]
pub struct GpuOutput<T> {
    /// Contiguous \[batch, heads_q, q_len, head_dim\].
    pub out: GpuTensor<T>,
    /// Log-sum-exp, natural logarithm: \[batch, heads_q, q_len, 1\].
    pub lse: GpuTensor<f32>,
    /// How it was computed.
    pub plan: Plan,
}

impl<T: Element> GpuOutput<T> {
    /// A copy in host memory, and how it was computed.
    pub(super) fn download(self) -> Result<(cpu::Output<T>, Plan)> {
        let _range = Range::new(c"download");
        let Self { out, lse, plan } = self;
        Ok((cpu::Output { out: out.download()?, lse: lse.download()? }, plan))
    }
}

/// A plan with memory for its results.
pub(super) struct Call<T> {
    output: GpuOutput<T>,
    pointers: DevicePointers,
    /// Behind `pointers.kv_lens` and `pointers.block_table`.
    _metadata: [Option<Memory>; 2],
    /// Behind `pointers.workspace`, and behind those of other calls unless it is the call's own.
    _workspace: Option<Arc<Memory>>,
}

impl<T> Call<T> {
    pub(super) fn plan(&self) -> &Plan {
        &self.output.plan
    }

    pub(super) fn pointers(&self) -> &DevicePointers {
        &self.pointers
    }

    /// With a workspace that no other call has: for launches on another stream than theirs.
    pub(super) fn with_own_workspace(self, session: &Arc<Session>) -> Result<Self> {
        let bytes = self.output.plan.workspace_bytes();
        if bytes == 0 {
            return Ok(self);
        }
        let memory = zeroed(session, bytes)?;
        let pointers = DevicePointers { workspace: memory.address(), ..self.pointers };
        Ok(Self { pointers, _workspace: Some(memory), ..self })
    }
}

/// Memory for a workspace, on the session's stream.
fn zeroed(session: &Arc<Session>, bytes: usize) -> Result<Arc<Memory>> {
    let memory = Memory::new(session, bytes)?;
    memory.fill(0)?;
    Ok(Arc::new(memory))
}

impl<T: Element> Call<T> {
    /// Fills the memory for the results with NaN, so that an element which no launch writes shows.
    pub(super) fn poison(&self) -> Result<()> {
        self.output.out.poison()?;
        self.output.lse.poison()
    }

    /// The same call for the output alone, whose memory is filled with NaN again: log-sum-exps stay what they are.
    pub(super) fn without_lse(self) -> Result<Self> {
        self.output.out.poison()?;
        let output = GpuOutput { plan: self.output.plan.without_lse(), ..self.output };
        Ok(Self { output, pointers: DevicePointers { lse: 0, ..self.pointers }, ..self })
    }

    /// What the memory for the results holds.
    pub(super) fn answer(&self) -> Result<cpu::Output<T>> {
        Ok(cpu::Output { out: self.output.out.download()?, lse: self.output.lse.download()? })
    }
}

impl Gpu {
    /// A copy of `view` on the device, in the same layout.
    ///
    /// # Errors
    /// [`Error::Driver`] when memory is short or the copy fails.
    pub fn upload<T: Element>(&self, view: TensorView<T>) -> Result<GpuTensor<T>> {
        let _range = Range::new(c"upload");
        GpuTensor::upload(&self.session, view)
    }

    /// `softmax(scale * q k^T + mask) v` with the kernel that [`Gpu::plan`] picks; returns when it is done.
    ///
    /// `q` is \[batch, heads_q, q_len, head_dim\], `k` and `v` are \[batch, heads_kv, kv_len, head_dim\].
    ///
    /// # Errors
    /// Those of [`Options::problem`], [`Gpu::plan`] and [`Kernels::launch`](super::Kernels::launch);
    /// [`Error::Driver`] when memory is short or the kernel fails.
    pub fn attention<T: Element>(
        &self,
        q: &GpuTensor<T>,
        k: &GpuTensor<T>,
        v: &GpuTensor<T>,
        options: &Options,
    ) -> Result<GpuOutput<T>> {
        self.run(self.call(q, k, v, options, None)?)
    }

    /// [`Gpu::attention`] with a kernel of the caller's choice.
    ///
    /// # Errors
    /// Those of [`Gpu::attention`], with [`Plan::with_kernel`] for [`Plan::new`].
    pub fn attention_with<T: Element>(
        &self,
        q: &GpuTensor<T>,
        k: &GpuTensor<T>,
        v: &GpuTensor<T>,
        options: &Options,
        kernel: Kernel,
    ) -> Result<GpuOutput<T>> {
        self.run(self.call(q, k, v, options, Some(kernel))?)
    }

    /// [`Gpu::attention`] from and to host memory, with a kernel of the caller's choice or the planner's.
    ///
    /// `out` and `lse` are filled with NaN before the launch, so that an element which the kernel fails to write
    /// shows.
    ///
    /// # Errors
    /// Those of [`Gpu::attention`] and [`Plan::with_kernel`].
    pub fn attention_host<T: Element>(
        &self,
        q: TensorView<T>,
        k: TensorView<T>,
        v: TensorView<T>,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(cpu::Output<T>, Plan)> {
        let (q, k, v) = (self.upload(q)?, self.upload(k)?, self.upload(v)?);
        let call = self.call(&q, &k, &v, options, kernel)?;
        call.poison()?;
        self.run(call)?.download()
    }

    /// Refuses a tensor on another device.
    pub(super) fn check_place<T: Element>(&self, field: &'static str, tensor: &GpuTensor<T>) -> Result<()> {
        if tensor.is_on(&self.session) {
            return Ok(());
        }
        Err(Error::Unsupported {
            field,
            value: "a tensor on another device".into(),
            allowed: format!("tensors on this {}", self.name()),
        })
    }

    /// Plans, and allocates what the plan writes.
    pub(super) fn call<T: Element>(
        &self,
        q: &GpuTensor<T>,
        k: &GpuTensor<T>,
        v: &GpuTensor<T>,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<Call<T>> {
        for (field, tensor) in [("q", q), ("k", k), ("v", v)] {
            self.check_place(field, tensor)?;
        }
        let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_lse(true);
        let [q, k, v] = [q, k, v].map(GpuTensor::device_ptr);
        self.call_on(&problem, DevicePointers { q, k, v, ..DevicePointers::default() }, options, kernel)
    }

    /// [`Gpu::call`] of a problem on operands that are on the device.
    pub(super) fn call_on<T: Element>(
        &self,
        problem: &Problem,
        operands: DevicePointers,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<Call<T>> {
        self.call_by(self.plan_call(problem, options, kernel)?, problem, operands, options)
    }

    /// The plan of a call.
    pub(super) fn plan_call(&self, problem: &Problem, options: &Options, kernel: Option<Kernel>) -> Result<Plan> {
        Plan::for_call(problem, self.spec(), &self.tuned, kernel, options.splits)
    }

    /// [`Gpu::call_on`] by a plan for the problem.
    pub(super) fn call_by<T: Element>(
        &self,
        plan: Plan,
        problem: &Problem,
        operands: DevicePointers,
        options: &Options,
    ) -> Result<Call<T>> {
        let [batch, heads, q_len, _] = problem.q.shape();
        let out = GpuTensor::uninitialized(&self.session, problem.out)?;
        let lse = GpuTensor::uninitialized(&self.session, Layout::bhsd([batch, heads, q_len, 1]))?;
        let kv_lens = options.kv_lens.map(|lens| self.copy(lens)).transpose()?;
        let block_table = options.pages.map(|pages| self.copy(pages.block_table)).transpose()?;
        let workspace = self.workspace(plan.workspace_bytes())?;
        let pointers = DevicePointers {
            out: out.device_ptr(),
            lse: lse.device_ptr(),
            kv_lens: kv_lens.as_ref().map_or(0, Memory::address),
            workspace: workspace.as_ref().map_or(0, |memory| memory.address()),
            block_table: block_table.as_ref().map_or(0, Memory::address),
            ..operands
        };
        let output = GpuOutput { out, lse, plan };
        Ok(Call { output, pointers, _metadata: [kv_lens, block_table], _workspace: workspace })
    }

    /// A copy of some data on the device.
    pub(super) fn copy<U: Copy>(&self, data: &[U]) -> Result<Memory> {
        let memory = Memory::new(&self.session, size_of_val(data))?;
        memory.write(data).map(|()| memory)
    }

    /// At least so many bytes of workspace, `None` for none: zeroed when they are new, and kept for later calls, whose
    /// launches on the one stream use it one after the other.
    fn workspace(&self, bytes: usize) -> Result<Option<Arc<Memory>>> {
        if bytes == 0 {
            return Ok(None);
        }
        let mut kept = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|memory| memory.bytes() < bytes) {
            *kept = Some(zeroed(&self.session, bytes)?);
        }
        Ok(kept.clone())
    }

    /// Launches and waits.
    pub(super) fn run<T: Element>(&self, call: Call<T>) -> Result<GpuOutput<T>> {
        // SAFETY: the stream is of the kernels' context; `call` made the pointers from tensors that live until the
        // stream has been waited for.
        unsafe { self.kernels().launch(&call.output.plan, &call.pointers, self.stream()) }?;
        let _range = Range::new(c"wait");
        self.synchronize()?;
        Ok(call.output)
    }
}
