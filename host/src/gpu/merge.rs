//! Merging two results on a [`Gpu`], and in a context of the caller's.

use super::function::Shape;
use super::kernels::Kernels;
use super::open::Gpu;
use super::tensor::GpuTensor;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::merge::{MergePlan, MergePointers};
use crate::nvtx::Range;
use crate::tensor::Element;
use cust::sys::CUstream;
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::merge::MergeStates;

/// What [`Gpu::merge_states`] returns.
#[derive(Debug)]
pub struct GpuMerged<T> {
    /// Contiguous \[batch, heads, seq, head_dim\].
    pub out: GpuTensor<T>,
    /// Log-sum-exp, natural logarithm: \[batch, heads, seq, 1\].
    pub lse: GpuTensor<f32>,
}

impl Gpu {
    /// [`cpu::merge_states`](crate::cpu::merge_states) of results in device memory; returns when it is done.
    ///
    /// Results are \[batch, heads, seq, head_dim\] with any strides, log-sum-exps contiguous \[batch, heads, seq, 1\], as
    /// [`Gpu::attention`] returns them.
    ///
    /// # Errors
    /// Those of [`MergePlan::new`] and [`Kernels::launch_merge`]; [`Error::Shape`] when a
    /// log-sum-exp has not one element for each row, [`Error::Layout`] when it is not contiguous;
    /// [`Error::Unsupported`] for tensors on another device; [`Error::Driver`] when memory is short or the kernel fails.
    pub fn merge_states<T: Element>(
        &self,
        out_a: &GpuTensor<T>,
        lse_a: &GpuTensor<f32>,
        out_b: &GpuTensor<T>,
        lse_b: &GpuTensor<f32>,
    ) -> Result<GpuMerged<T>> {
        let [batch, heads, seq, _] = out_a.layout().shape();
        let (layout, lse_layout) = (Layout::bhsd(out_a.layout().shape()), Layout::bhsd([batch, heads, seq, 1]));
        for (field, tensor) in [("out_a", out_a), ("out_b", out_b)] {
            self.check_place(field, tensor)?;
        }
        for (field, tensor) in [("lse_a", lse_a), ("lse_b", lse_b)] {
            self.check_place(field, tensor)?;
            check_lse_layout(field, tensor.layout(), &lse_layout)?;
        }
        let plan = MergePlan::new(T::DTYPE, out_a.layout(), out_b.layout(), &layout)?;
        let out = GpuTensor::uninitialized(&self.session, layout)?;
        let lse = GpuTensor::uninitialized(&self.session, lse_layout)?;
        let pointers = MergePointers {
            out_a: out_a.device_ptr(),
            lse_a: lse_a.device_ptr(),
            out_b: out_b.device_ptr(),
            lse_b: lse_b.device_ptr(),
            out: out.device_ptr(),
            lse: lse.device_ptr(),
        };
        // SAFETY: the stream is of the kernels' context; the tensors have the plan's layouts, do not overlap, and live
        // until the stream has been waited for.
        unsafe { self.kernels().launch_merge(&plan, &pointers, self.stream()) }?;
        let _range = Range::new(c"wait");
        self.synchronize()?;
        Ok(GpuMerged { out, lse })
    }
}

impl Kernels {
    /// [`Kernels::prepare`] for the kernel that merges results of a type.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`].
    pub fn prepare_merge(&self, dtype: DType) -> Result<()> {
        self.enter().and_then(|_current| self.load_entry(Entry::MergeStates(MergeStates { dtype }))).map(drop)
    }

    /// Puts the merge of `plan` on `stream` (null for the default stream) and returns.
    ///
    /// It allocates nothing on the device, does not synchronise and can be captured in a CUDA graph, provided that
    /// [`Kernels::prepare_merge`] has loaded the kernel. Nothing is launched where [`MergePlan::is_empty`].
    ///
    /// # Errors
    /// Those of [`Kernels::prepare_merge`] and [`MergePlan::bind`], and [`Error::Driver`] when the driver refuses the
    /// launch. An earlier failure on the device, somebody else's too, can show here.
    ///
    /// # Safety
    /// `stream` belongs to the borrowed context. `pointers` are addresses in device memory that the context can
    /// reach; behind them lie tensors of the plan's layouts and type, and log-sum-exps of one f32 for each row, which
    /// stay there until the launch has run; they overlap as [`MergePointers`] allows and in no other way; nothing else
    /// writes them, or reads `out` and `lse`, in that time.
    pub unsafe fn launch_merge(&self, plan: &MergePlan, pointers: &MergePointers, stream: CUstream) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        let _range = Range::new(c"launch");
        let mut params = plan.bind(pointers)?;
        let _current = self.enter()?;
        let function = self.load_entry(Entry::MergeStates(plan.kernel))?;
        let shape = Shape { grid: plan.grid, block: MergeStates::THREADS, shared_bytes: 0 };
        let mut arguments = [(&raw mut params).cast()];
        // SAFETY: the function takes one MergeParams by value; the caller vouches for the stream and for what the
        // addresses point at.
        unsafe { function.launch(shape, &mut arguments, stream) }
    }
}

fn check_lse_layout(field: &'static str, layout: &Layout, wanted: &Layout) -> Result<()> {
    let (value, allowed) = (layout.to_string(), format!("{wanted}, contiguous"));
    match layout {
        _ if layout == wanted => Ok(()),
        _ if layout.shape() == wanted.shape() => Err(Error::Layout { field, value, allowed }),
        _ => Err(Error::Shape { field, value, allowed }),
    }
}
