//! Whole calls on a [`Simulator`]: plan, allocate, launch, read back.

use super::simulator::Simulator;
use crate::cpu;
use crate::error::Result;
use crate::plan::{DevicePointers, Plan};
use crate::problem::{Options, Problem};
use crate::tensor::{Element, TensorView};
use crate::tuned::TunedKernels;
use bytemuck::{NoUninit, Pod};
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::params::Workspace;
use ptx_sim::{Buffer, Device, Report};

/// What [`Simulator::attention`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated<T> {
    /// What the kernel computed. Elements that it did not write are NaN.
    pub output: cpu::Output<T>,
    /// How it was computed.
    pub plan: Plan,
    /// What the launch did, and what was wrong with it: an answer can be right by luck.
    pub report: Report,
}

impl Simulator {
    /// `softmax(scale * q k^T + mask) v` with a kernel of the caller's choice or the planner's.
    ///
    /// `q` is \[batch, heads_q, q_len, head_dim\], `k` and `v` are \[batch, heads_kv, kv_len, head_dim\]. The device holds
    /// them in the layouts of the views, and the kernel may not write them. Defects of the kernel are no errors: they
    /// stand in the report.
    ///
    /// # Errors
    /// Those of [`Options::problem`] and [`Plan::choose`]; [`Error::Unsupported`](crate::Error::Unsupported) when the
    /// problem is above [`Simulator::max_work`] or the PTX text does not hold the kernel as the plan launches it.
    pub fn attention<T: Element>(
        &self,
        q: TensorView<T>,
        k: TensorView<T>,
        v: TensorView<T>,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<Simulated<T>> {
        let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_lse(true);
        let plan = self.plan(&problem, options, kernel)?;
        let mut device = Device::new();
        let [q, k, v] = [q, k, v].map(|view| address(upload(&mut device, reached(view))));
        self.attend(&mut device, &problem, plan, DevicePointers { q, k, v, ..DevicePointers::default() }, options)
    }

    /// The plan of a call, unless it would be simulated for too long.
    pub(super) fn plan(&self, problem: &Problem, options: &Options, kernel: Option<Kernel>) -> Result<Plan> {
        let plan = Plan::for_call(problem, self.spec(), &TunedKernels::default(), kernel, options.splits)?;
        self.check_work(&plan).map(|()| plan)
    }

    /// Launches a plan on operands that the device has, and reads the answer. What a null `kv_lens` and `block_table`
    /// stand for comes from the options.
    pub(super) fn attend<T: Element>(
        &self,
        device: &mut Device,
        problem: &Problem,
        plan: Plan,
        operands: DevicePointers,
        options: &Options,
    ) -> Result<Simulated<T>> {
        let kv_lens = match operands.kv_lens {
            0 => upload_lens(device, options),
            there => there,
        };
        let block_table = options.pages.map(|pages| upload(device, pages.block_table));
        let workspace = workspace(device, &plan);
        let rows = problem.batch() * problem.heads_q() * problem.q_len();
        let out = device.alloc(problem.out.elements() * size_of::<T>());
        let lse = device.alloc(if problem.lse { rows * size_of::<f32>() } else { 0 });
        let pointers = DevicePointers {
            out: address(out),
            lse: address(lse),
            kv_lens,
            workspace: workspace.map_or(0, address),
            block_table: block_table.map_or(0, address),
            ..operands
        };
        let report = self.launch(device, &plan, &pointers)?;
        let output = cpu::Output { out: download(device, out), lse: download(device, lse) };
        Ok(Simulated { output, plan, report })
    }
}

/// The address of the options' `kv_lens` on the device, null for none.
pub(super) fn upload_lens(device: &mut Device, options: &Options) -> u64 {
    options.kv_lens.map_or(0, |lens| address(upload(device, lens)))
}

/// Memory for the partial results of a plan that has some. Of what a caller zeroes only the counters are written, so
/// that a partial result which is read and was never stored shows.
fn workspace(device: &mut Device, plan: &Plan) -> Option<Buffer> {
    let bytes = plan.workspace_bytes();
    (bytes > 0).then(|| {
        let buffer = device.alloc(bytes);
        device
            .write_start(buffer, &[0; Workspace::COUNTER_BYTES as usize])
            .expect("the counters are the beginning of the workspace");
        buffer
    })
}

/// The elements that a view reaches, with what stands between its rows.
pub(super) fn reached<'a, T: Element>(view: TensorView<'a, T>) -> &'a [T] {
    // A view fits its buffer.
    &view.data()[..view.layout().extent().unwrap_or(0)]
}

pub(super) fn upload<T: NoUninit>(device: &mut Device, data: &[T]) -> Buffer {
    device.upload_read_only(bytemuck::cast_slice(data))
}

/// Null for no bytes, as from a driver.
pub(super) fn address(buffer: Buffer) -> u64 {
    if buffer.is_empty() { 0 } else { buffer.address() }
}

pub(super) fn download<T: Pod>(device: &Device, buffer: Buffer) -> Vec<T> {
    let bytes = device.download(buffer).expect("the device holds the buffer until it is dropped");
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}
