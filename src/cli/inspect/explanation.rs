//! The plan for one problem, why it is that one, and what is predicted of it.

use super::Inspect;
use crate::cli::arch_name;
use crate::cli::fp8::Preparation;
use crate::cli::prediction::{self, microseconds};
use crate::cli::simulation::Simulation;
use crate::cli::table::Table;
use anyhow::Result;
use evo_sdpa::verify::{Case, Quantization};
use evo_sdpa::{DeviceSpec, Error, Kernel, Plan, Prediction, Problem, QuantizePlan, ValueLayout};
use serde_json::{Value, json};
use std::io::Write;

/// All that is said about a problem.
pub struct Explanation {
    device: DeviceSpec,
    problem: Problem,
    plan: Plan,
    predicted: Prediction,
    /// What quantising takes, where the problem's inputs are e4m3.
    preparation: Option<Preparation>,
    candidates: Vec<(Kernel, Prediction)>,
    refused: Vec<(Kernel, Error)>,
    simulation: Option<Simulation>,
}

impl Explanation {
    /// Plans the problem of a case, quantised on the way or as it is, by the other options.
    pub fn new(case: &Case, quantization: Option<&Quantization>, options: &Inspect) -> Result<Self> {
        let (inputs, device) = (case.problem().with_lse(true), options.arch);
        let problem = match quantization {
            None => inputs,
            // Quantising leaves values as the kernel takes them.
            Some(Quantization { fp8, .. }) => inputs.with_fp8(Some(*fp8)).with_value_layout(ValueLayout::Planned),
        };
        let candidates = Plan::candidates(&problem, &device)?;
        let plan = Plan::choose(&problem, &device, &options.tuned()?, options.kernel)?;
        let prepare = |quantization: &Quantization| {
            let quantize = QuantizePlan::new(&inputs, quantization.fp8, quantization.subtract_mean)?;
            let (quantize, _) = quantize.with_attention(inputs.dtype, |_| Ok(plan))?;
            Ok::<_, Error>(Preparation::new(quantize, quantization, &device))
        };
        let simulate = || Simulation::run(case, &device, &plan, quantization);
        Ok(Self {
            device,
            problem,
            plan,
            predicted: Prediction::of(plan.kernel, &problem, &device)?,
            preparation: quantization.map(prepare).transpose()?,
            candidates,
            refused: Plan::refused(&problem, &device)?,
            simulation: options.simulate.then(simulate).transpose()?,
        })
    }

    /// Whether the simulator, if it was asked, found no defect.
    pub fn is_clean(&self) -> bool {
        self.simulation.as_ref().is_none_or(Simulation::is_clean)
    }

    /// Writes it in words and tables.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let Self { device, problem, plan, predicted, preparation, .. } = self;
        writeln!(out, "problem    {problem}, {:.3} GFLOP", problem.flops() / 1e9)?;
        if let Some(preparation) = preparation {
            writeln!(out, "e4m3       {}", preparation.about())?;
        }
        writeln!(out, "device     {}, {} SMs", arch_name(device), device.sm_count)?;
        writeln!(out, "kernel     {}", plan.kernel)?;
        writeln!(out, "why        {}", plan.reason)?;
        if let Some(values) = self.values() {
            writeln!(out, "values     {values}, as quantising leaves them")?;
        }
        let ([x, y, z], axes) = (plan.grid, plan.axes().join(", "));
        writeln!(out, "grid       {x} x {y} x {z} blocks ({axes}) of {} threads", plan.block)?;
        if plan.kernel.split_step().is_some() {
            writeln!(out, "splits     {}", plan.splits)?;
        }
        if let Some(tiles) = plan.tiles {
            writeln!(out, "tiles      {}, of {} slices side by side", tiles.count, tiles.group)?;
        }
        writeln!(out, "shared     {} B of {} B", plan.shared_bytes, device.shared_per_block)?;
        writeln!(out, "workspace  {} B", plan.workspace_bytes())?;
        let bound = predicted.bound.map(|bound| format!(", bound by {bound}")).unwrap_or_default();
        writeln!(out, "predicted  {} us{bound}", microseconds(predicted.total()))?;
        if let Some(preparation) = preparation {
            writeln!(out, "quantising {} us before that, at least", microseconds(preparation.total()))?;
        }
        writeln!(out)?;
        prediction::write(predicted, out)?;
        if let Some(preparation) = preparation {
            writeln!(out)?;
            preparation.write(out)?;
        }
        writeln!(out)?;
        self.candidates().write(out)?;
        if !self.refused.is_empty() {
            writeln!(out)?;
            self.refused().write(out)?;
        }
        if let Some(simulation) = &self.simulation {
            writeln!(out)?;
            simulation.write(out)?;
        }
        Ok(())
    }

    /// How the values of e4m3 inputs lie.
    fn values(&self) -> Option<ValueLayout> {
        let layout = if self.plan.takes_transposed_values() { ValueLayout::Transposed } else { ValueLayout::Rows };
        self.problem.fp8.map(|_| layout)
    }

    fn candidates(&self) -> Table {
        let mut table = Table::new(&["candidate", "predicted us", "blocks/SM"]);
        for (kernel, predicted) in &self.candidates {
            let resident = self.device.resident_blocks(*kernel).to_string();
            table.row([kernel.to_string(), microseconds(predicted.total()), resident]);
        }
        table
    }

    fn refused(&self) -> Table {
        let mut table = Table::new(&["refused", "why"]);
        for (kernel, error) in &self.refused {
            table.row([kernel.to_string(), error.to_string()]);
        }
        table
    }

    /// The same as an object.
    pub fn json(&self) -> Value {
        let Self { device, problem, plan, predicted, .. } = self;
        let candidates =
            self.candidates.iter().map(|(kernel, predicted)| of_kernel(kernel, "predicted_us", predicted.total()));
        let refused = self.refused.iter().map(|(kernel, error)| of_kernel(kernel, "why", error.to_string()));
        json!({
            "problem": problem.to_string(),
            "arch": arch_name(device),
            "kernel": plan.kernel.to_string(),
            "values": self.values().map(|layout| layout.to_string()),
            "grid": plan.grid,
            "axes": plan.axes(),
            "block": plan.block,
            "shared_bytes": plan.shared_bytes,
            "splits": plan.splits.count,
            "tiles": plan.tiles.map(|tiles| json!({ "count": tiles.count, "slices_side_by_side": tiles.group })),
            "workspace_bytes": plan.workspace_bytes(),
            "reason": plan.reason.to_string(),
            "prediction": prediction::json(predicted),
            "quantising": self.preparation.as_ref().map(Preparation::json),
            "candidates": candidates.collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "simulation": self.simulation.as_ref().map(Simulation::json),
        })
    }
}

/// One thing about a kernel.
fn of_kernel(kernel: &Kernel, field: &str, value: impl Into<Value>) -> Value {
    json!({ "kernel": kernel.to_string(), field: value.into() })
}
