//! Quantising on a [`Simulator`], and attention that begins with it.

use super::attention::{Simulated, address, download, reached, upload, upload_lens};
use super::simulator::Simulator;
use crate::error::Result;
use crate::fp8::Fp8;
use crate::problem::{Options, Problem};
use crate::quantize::{Call, QuantizeArgument, QuantizeLaunch, QuantizePlan, QuantizePointers};
use crate::tensor::{Element, TensorView};
use evo_sdpa_kernels::config::{Kernel, WARP};
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::quantize::{Quantize, QuantizeParams, QuantizedTensor, TokenParts};
use ptx_sim::{Buffer, Device, Report};

/// What [`Simulator::quantize`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedCall {
    /// The tensors in e4m3.
    pub call: Call,
    /// How they were quantised.
    pub plan: QuantizePlan,
    /// What each launch did, and what was wrong with it.
    pub reports: Vec<Report>,
    /// What the launches left, [`QuantizePlan::operands`] of address 0 in it.
    pub workspace: Vec<u8>,
}

/// What is on the device behind a quantisation.
struct Prepared {
    device: Device,
    plan: QuantizePlan,
    kv_lens: u64,
    workspace: Buffer,
    reports: Vec<Report>,
}

impl Simulator {
    /// [`Call::new_as_device`] by the kernels that quantise. Defects of the kernels are no errors: they stand in the
    /// reports.
    ///
    /// # Errors
    /// Those of [`Options::problem`] and [`QuantizePlan::new`]; [`Error::Unsupported`](crate::Error::Unsupported) when
    /// the launches take more than [`Simulator::max_work`] or the PTX text does not hold the kernels.
    pub fn quantize<T: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<SimulatedCall> {
        self.prepare(tensors, Self::quantize_plan(&tensors, fp8, subtract_mean, options)?, options)?.read()
    }

    /// [`Simulator::quantize`] with values left transposed, which the call is the same for.
    ///
    /// # Errors
    /// Those of [`Simulator::quantize`] and [`QuantizePlan::with_transposed_values`].
    pub fn quantize_transposed<T: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<SimulatedCall> {
        let plan = Self::quantize_plan(&tensors, fp8, subtract_mean, options)?.with_transposed_values()?;
        self.prepare(tensors, plan, options)?.read()
    }

    /// [`Simulator::quantize`] and, on what it left on the device, [`Simulator::attention`] with an output of type `O`.
    /// Values are left as the attention takes them: see [`QuantizePlan::with_attention`]. Where the keys are less their
    /// mean, the log-sum-exp is that of such keys: see [`QuantizePlan::attention`].
    ///
    /// # Errors
    /// Those of [`Simulator::quantize`] and [`Simulator::attention`].
    pub fn quantized_attention<T: Element, O: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(SimulatedCall, Simulated<O>)> {
        let plan = Self::quantize_plan(&tensors, fp8, subtract_mean, options)?;
        self.attend_quantized(tensors, plan, options, kernel, true)
    }

    /// [`Simulator::quantized_attention`] for the output alone: the log-sum-exps of the answer are empty.
    ///
    /// # Errors
    /// Those of [`Simulator::quantized_attention`].
    pub fn quantized_output<T: Element, O: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
        kernel: Option<Kernel>,
    ) -> Result<(SimulatedCall, Simulated<O>)> {
        let plan = Self::quantize_plan(&tensors, fp8, subtract_mean, options)?;
        self.attend_quantized(tensors, plan, options, kernel, false)
    }

    fn attend_quantized<T: Element, O: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        plan: QuantizePlan,
        options: &Options,
        kernel: Option<Kernel>,
        lse: bool,
    ) -> Result<(SimulatedCall, Simulated<O>)> {
        let attention = |problem: &Problem| self.plan(&problem.with_lse(lse), options, kernel);
        let (plan, attention) = plan.with_attention(O::DTYPE, attention)?;
        let problem = plan.attention(O::DTYPE).with_lse(lse);
        let mut prepared = self.prepare(tensors, plan, options)?;
        let mut operands = plan.operands(address(prepared.workspace));
        operands.kv_lens = prepared.kv_lens;
        let answer = self.attend(&mut prepared.device, &problem, attention, operands, options)?;
        Ok((prepared.read()?, answer))
    }

    fn quantize_plan<T: Element>(
        [q, k, v]: &[TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
    ) -> Result<QuantizePlan> {
        let inputs = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_lse(true);
        QuantizePlan::new(&inputs, fp8, subtract_mean)
    }

    /// Runs the launches of a plan on a fresh device.
    fn prepare<T: Element>(
        &self,
        tensors: [TensorView<T>; 3],
        plan: QuantizePlan,
        options: &Options,
    ) -> Result<Prepared> {
        plan.launches().try_for_each(|launch| self.check_instructions(quantize_work(&launch)))?;
        let mut device = Device::new();
        let [q, k, v] = tensors.map(|view| address(upload(&mut device, reached(view))));
        let kv_lens = upload_lens(&mut device, options);
        let workspace = device.alloc(plan.workspace_bytes());
        let launches = plan.bind(&QuantizePointers { q, k, v, kv_lens, workspace: address(workspace) })?;
        let run =
            |launch: QuantizeLaunch| self.launch_entry(&mut device, launch.entry, launch.grid, launch.argument.bytes());
        let reports = launches.map(run).collect::<Result<_>>()?;
        Ok(Prepared { device, plan, kv_lens, workspace, reports })
    }
}

impl Prepared {
    fn read(self) -> Result<SimulatedCall> {
        let Self { device, plan, workspace, reports, .. } = self;
        let workspace = download(&device, workspace);
        Ok(SimulatedCall { call: plan.read(&workspace)?, plan, reports, workspace })
    }
}

/// Estimated instructions of all warps; fitted to reports, and within a factor of two of large ones.
fn quantize_work(launch: &QuantizeLaunch) -> u64 {
    const { assert!(Quantize::THREADS == TokenParts::THREADS) };
    let warps = u64::from(launch.grid[0]) * u64::from(Quantize::THREADS / WARP);
    match launch.argument {
        QuantizeArgument::Mean(params) => {
            let of_warp = match launch.entry {
                Entry::TokenMean => 60 + 9 * params.parts,
                _ => 100 + 20 * params.part_rows.min(params.rows),
            };
            warps * u64::from(of_warp)
        }
        QuantizeArgument::Tensors(QuantizeParams { tensors }) => {
            let finds_only = matches!(launch.entry, Entry::Amax(_));
            let of_tensor = |tensor: &QuantizedTensor| {
                let heads = u64::from(tensor.units.div_ceil(tensor.units_of_head.max(1)));
                let chunks = heads * u64::from(tensor.rows) * u64::from(tensor.head_dim / Quantize::ELEMENTS);
                let passes = match (finds_only, tensor.all_parts) {
                    (true, 0) => 0,
                    (true, _) => 100,
                    (false, 0) => 180,
                    (false, _) => 80,
                };
                chunks.div_ceil(WARP.into()) * passes
            };
            let units = tensors.iter().map(|tensor| tensor.units_of_part).max().unwrap_or(0);
            let start = if finds_only { 120 + 60 * units } else { 220 };
            warps * u64::from(start) + tensors.iter().map(of_tensor).sum::<u64>()
        }
    }
}
