//! Merging two results on a [`Simulator`].

use super::attention::{address, download, reached, upload};
use super::simulator::Simulator;
use crate::cpu;
use crate::error::Result;
use crate::layout::Layout;
use crate::merge::{MergePlan, MergePointers, check_lse};
use crate::tensor::{Element, TensorView};
use evo_sdpa_kernels::config::WARP;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::merge::{MergeParams, MergeStates};
use ptx_sim::{Device, Report};

/// What [`Simulator::merge_states`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedMerge<T> {
    /// What the kernel computed. Elements that it did not write are NaN.
    pub output: cpu::Output<T>,
    /// What the launch did, and what was wrong with it.
    pub report: Report,
}

impl Simulator {
    /// [`cpu::merge_states`] by the kernel `merge_states`. The device holds the inputs in the layouts of the views, and the
    /// kernel may not write them. Defects of the kernel are no errors: they stand in the report.
    ///
    /// # Errors
    /// Those of [`MergePlan::new`]; [`Error::Shape`](crate::Error::Shape) when a log-sum-exp has not one element for
    /// each row; [`Error::Unsupported`](crate::Error::Unsupported) when the launch takes more than
    /// [`Simulator::max_work`] or the PTX text does not hold the kernel.
    pub fn merge_states<T: Element>(
        &self,
        out_a: TensorView<T>,
        lse_a: &[f32],
        out_b: TensorView<T>,
        lse_b: &[f32],
    ) -> Result<SimulatedMerge<T>> {
        let layout = Layout::bhsd(out_a.layout().shape());
        let plan = MergePlan::new(T::DTYPE, out_a.layout(), out_b.layout(), &layout)?;
        check_lse("lse_a", lse_a.len(), &layout)?;
        check_lse("lse_b", lse_b.len(), &layout)?;
        self.check_instructions(merge_work(&plan))?;
        let mut device = Device::new();
        let [a, b] = [out_a, out_b].map(|view| address(upload(&mut device, reached(view))));
        let [of_a, of_b] = [lse_a, lse_b].map(|lse| address(upload(&mut device, lse)));
        let out = device.alloc(layout.elements() * size_of::<T>());
        let lse = device.alloc(size_of_val(lse_a));
        let pointers =
            MergePointers { out_a: a, lse_a: of_a, out_b: b, lse_b: of_b, out: address(out), lse: address(lse) };
        let params = bytes(plan.bind(&pointers)?);
        let report = self.launch_entry(&mut device, Entry::MergeStates(plan.kernel), plan.grid, &params)?;
        let output = cpu::Output { out: download(&device, out), lse: download(&device, lse) };
        Ok(SimulatedMerge { output, report })
    }
}

/// Estimated instructions of all warps; fitted to reports.
fn merge_work(plan: &MergePlan) -> u64 {
    let (start, pass) = (80, 60);
    let passes = u64::from(plan.params.row_bytes.div_ceil(16 * MergeStates::LANES));
    let warps =
        plan.grid.iter().fold(u64::from(MergeStates::THREADS / WARP), |warps, &n| warps.saturating_mul(n.into()));
    warps.saturating_mul(start + pass * passes)
}

/// The parameter block as it lies in memory.
fn bytes(params: MergeParams) -> [u8; size_of::<MergeParams>()] {
    // Six addresses, three strides of three numbers, and three more.
    const { assert!(size_of::<MergeParams>() == 6 * 8 + (3 * 3 + 3) * 4) };
    // SAFETY: the struct has no padding, as its numbers fill it.
    unsafe { std::mem::transmute(params) }
}
