//! `evo-sdpa inspect`: the kernels that ship, or the plan for one problem.

use super::simulation::Simulation;
use super::table::Table;
use super::{Mask, Shape, arch_name, parse_arch, parse_dtype, parse_kernel, parse_mask, parse_shape};
use anyhow::{Context, Result};
use clap::Args;
use evo_sdpa::verify::Case;
use evo_sdpa::{DType, DeviceSpec, KERNELS, Kernel, Plan, Problem};
use serde_json::{Value, json};
use std::io::Write;

/// List the kernels that ship, or explain the plan for a problem
#[derive(Args)]
pub struct Inspect {
    /// Architecture: sm_80 (as an A100), sm_89 (as an L4) or sm_90 (as an H200)
    #[arg(long, default_value = "sm_89", value_parser = parse_arch)]
    arch: DeviceSpec,
    /// Explain the plan for a problem of these sizes
    #[arg(long, value_name = "B,Hq,Hkv,Sq,Skv,D", value_parser = parse_shape)]
    shape: Option<Shape>,
    /// Type of the problem's tensors: f16, bf16 or f32
    #[arg(long, default_value = "bf16", requires = "shape", value_parser = parse_dtype)]
    dtype: DType,
    /// Mask of the problem: none, bottom-right, top-left or an offset
    #[arg(long, default_value = "none", requires = "shape", allow_hyphen_values = true, value_parser = parse_mask)]
    causal: Mask,
    /// Plan with this kernel in place of the planner's choice
    #[arg(long, requires = "shape", value_parser = parse_kernel)]
    kernel: Option<Kernel>,
    /// Run the kernel on seeded tensors in the simulator and count what it does
    #[arg(long, requires = "shape")]
    simulate: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints the table or the plan. `Ok(false)` when the simulator found a defect.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        match self.shape {
            None => self.list(out).map(|()| true),
            Some(shape) => self.explain(shape, out),
        }
    }

    fn list(&self, out: &mut impl Write) -> Result<()> {
        let resources = Resources::of(&self.arch)?;
        if self.json {
            let kernels: Vec<_> = KERNELS.iter().map(|&kernel| self.describe(kernel, &resources)).collect();
            writeln!(out, "{}", json!({ "arch": arch_name(&self.arch), "kernels": kernels }))?;
            return Ok(());
        }
        let header = ["kernel", "threads", "registers", "budget", "spilled B", "shared B", "limit B", "blocks/SM"];
        let mut table = Table::new(&header);
        let or_dash = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        for &kernel in KERNELS {
            let shared = kernel.shared_bytes();
            let fits = shared <= self.arch.shared_per_block;
            table.row([
                kernel.to_string(),
                kernel.threads().to_string(),
                or_dash(resources.registers(kernel)),
                kernel.register_budget().to_string(),
                or_dash(resources.spilled_bytes(kernel)),
                shared.to_string(),
                self.arch.shared_per_block.to_string(),
                or_dash(fits.then(|| self.arch.resident_blocks(kernel).into())),
            ]);
        }
        table.write(out)?;
        writeln!(out, "\n{} kernels on {}; the register budget holds on sm_89.", KERNELS.len(), arch_name(&self.arch))?;
        Ok(())
    }

    fn describe(&self, kernel: Kernel, resources: &Resources) -> Value {
        let fits = kernel.shared_bytes() <= self.arch.shared_per_block;
        json!({
            "name": kernel.to_string(),
            "threads": kernel.threads(),
            "registers": resources.registers(kernel),
            "register_budget": kernel.register_budget(),
            "spilled_bytes": resources.spilled_bytes(kernel),
            "shared_bytes": kernel.shared_bytes(),
            "shared_limit": self.arch.shared_per_block,
            "blocks_per_sm": fits.then(|| self.arch.resident_blocks(kernel)),
        })
    }

    fn explain(&self, shape: Shape, out: &mut impl Write) -> Result<bool> {
        let problem = Problem::contiguous(self.dtype, shape).with_causal(self.causal).with_lse(true);
        let candidates = Plan::candidates(&problem, &self.arch)?;
        let plan = Plan::choose(&problem, &self.arch, self.kernel)?;
        let case = Case { dtype: self.dtype, causal: self.causal, ..Case::new(shape) };
        let simulation = self.simulate.then(|| Simulation::run(&case, &self.arch, &plan)).transpose()?;
        let clean = simulation.as_ref().is_none_or(Simulation::is_clean);
        if self.json {
            let candidates: Vec<_> = candidates
                .iter()
                .map(|(kernel, time)| json!({ "kernel": kernel.to_string(), "predicted_time": time }))
                .collect();
            let object = json!({
                "problem": problem.to_string(),
                "arch": arch_name(&self.arch),
                "kernel": plan.kernel.to_string(),
                "grid": plan.grid,
                "block": plan.block,
                "shared_bytes": plan.shared_bytes,
                "workspace_bytes": plan.workspace_bytes(),
                "reason": plan.reason.to_string(),
                "candidates": candidates,
                "simulation": simulation.as_ref().map(Simulation::json),
            });
            writeln!(out, "{object}")?;
            return Ok(clean);
        }
        let [x, y, z] = plan.grid;
        writeln!(out, "problem    {problem}, {:.3} GFLOP", problem.flops() / 1e9)?;
        writeln!(out, "device     {}, {} SMs", arch_name(&self.arch), self.arch.sm_count)?;
        writeln!(out, "kernel     {}", plan.kernel)?;
        writeln!(out, "why        {}", plan.reason)?;
        writeln!(out, "grid       {x} x {y} x {z} blocks of {} threads", plan.block)?;
        writeln!(out, "shared     {} B of {} B", plan.shared_bytes, self.arch.shared_per_block)?;
        writeln!(out, "workspace  {} B\n", plan.workspace_bytes())?;
        let mut table = Table::new(&["candidate", "predicted time", "blocks/SM"]);
        let least = candidates.first().map_or(1.0, |&(_, time)| time).max(f64::MIN_POSITIVE);
        for (kernel, time) in candidates {
            let resident = self.arch.resident_blocks(kernel).to_string();
            table.row([kernel.to_string(), format!("{:.2}", time / least), resident]);
        }
        table.write(out)?;
        if let Some(simulation) = simulation {
            writeln!(out)?;
            simulation.write(out)?;
        }
        Ok(clean)
    }
}

/// What ptxas makes of the kernels, as far as the manifest has it.
struct Resources {
    arch: String,
    manifest: Value,
}

impl Resources {
    fn of(device: &DeviceSpec) -> Result<Self> {
        let manifest = serde_json::from_str(evo_sdpa::MANIFEST).context("manifest of the kernels")?;
        Ok(Self { arch: arch_name(device), manifest })
    }

    fn registers(&self, kernel: Kernel) -> Option<u64> {
        self.get(kernel)?.get("registers")?.as_u64()
    }

    fn spilled_bytes(&self, kernel: Kernel) -> Option<u64> {
        let bytes = |field| self.get(kernel)?.get(field)?.as_u64();
        Some(bytes("spill_stores")? + bytes("spill_loads")?)
    }

    fn get(&self, kernel: Kernel) -> Option<&Value> {
        self.manifest.get("entries")?.get(kernel.to_string())?.get("resources")?.get(&self.arch)
    }
}
