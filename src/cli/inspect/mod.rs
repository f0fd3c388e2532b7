//! `evo-sdpa inspect`: the kernels that ship, or the plan for one problem.

mod explanation;

use super::fp8::QuantizeArgs;
use super::table::Table;
use super::{Mask, Shape, arch_name, parse_arch, parse_dtype, parse_kernel, parse_mask, parse_shape};
use anyhow::{Context, Result};
use clap::Args;
use evo_sdpa::verify::Case;
use evo_sdpa::{DType, DeviceSpec, KERNELS, Kernel, TunedKernels};
use explanation::Explanation;
use serde_json::{Value, json};
use std::io::Write;

/// List the kernels that ship, or explain the plan for a problem
///
/// A plan comes with why its kernel was chosen and others were not, and with its predicted time, term by term. With
/// --quantize, kernels that take e4m3 are planned for, and what it takes at least to quantise the tensors on the device
/// comes beside.
#[derive(Args)]
#[command(mut_arg("quantize", |arg| arg.requires("shape").help("Plan for q, k and v in this type")))]
pub struct Inspect {
    /// Architecture: sm_80 (as an A100), sm_89 (as an L4) or sm_90 (as an H200)
    #[arg(long, default_value = "sm_89", value_parser = parse_arch)]
    arch: DeviceSpec,
    /// Explain the plan for a problem of these sizes
    #[arg(long, value_name = "B,Hq,Hkv,Sq,Skv,D", value_parser = parse_shape)]
    shape: Option<Shape>,
    /// Type of the problem's tensors: f16, bf16 or f32; with --quantize that of the output and of the tensors before
    /// they are quantised, f16 or bf16
    #[arg(long, default_value = "bf16", requires = "shape", value_parser = parse_dtype)]
    dtype: DType,
    /// Mask of the problem: none, bottom-right, top-left or an offset
    #[arg(long, default_value = "none", requires = "shape", allow_hyphen_values = true, value_parser = parse_mask)]
    causal: Mask,
    #[command(flatten)]
    quantize: QuantizeArgs,
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

    /// What the tuned table has for the device that stands for the architecture.
    fn tuned(&self) -> Result<TunedKernels> {
        let device = DeviceSpec::typical_name(self.arch.compute_capability);
        Ok(evo_sdpa::tuned()?.kernels(device.unwrap_or_default()))
    }

    fn list(&self, out: &mut impl Write) -> Result<()> {
        let resources = Resources::of(&self.arch)?;
        if self.json {
            let kernels: Vec<_> = KERNELS.iter().map(|&kernel| self.describe(kernel, &resources)).collect();
            writeln!(out, "{}", json!({ "arch": arch_name(&self.arch), "kernels": kernels }))?;
            return Ok(());
        }
        let mut table = Table::new(&[
            "kernel",
            "threads",
            "registers",
            "budget",
            "spilled B",
            "shared B",
            "limit B",
            "blocks/SM",
            "loop",
            "tensor",
            "%",
        ]);
        let or_dash = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        for &kernel in KERNELS {
            let shared = kernel.shared_bytes();
            let fits = self.fits(kernel);
            let main_loop = resources.main_loop(kernel);
            table.row([
                kernel.to_string(),
                kernel.threads().to_string(),
                or_dash(resources.registers(kernel)),
                kernel.register_budget().to_string(),
                or_dash(resources.spilled_bytes(kernel)),
                shared.to_string(),
                self.arch.shared_per_block.to_string(),
                or_dash(fits.then(|| self.arch.resident_blocks(kernel).into())),
                or_dash(main_loop.map(|main_loop| main_loop.total)),
                or_dash(main_loop.map(|main_loop| main_loop.tensor)),
                main_loop.map_or("-".into(), |main_loop| format!("{:.1}", main_loop.tensor_percent())),
            ]);
        }
        table.write(out)?;
        writeln!(
            out,
            "\n{} kernels on {}; the register budget holds on sm_89, that of fwd_sm90 on sm_90a.",
            KERNELS.len(),
            arch_name(&self.arch)
        )?;
        writeln!(out, "loop: machine instructions in a step of the main loop; tensor: those for matrix products.")?;
        Ok(())
    }

    /// Whether an SM holds a block.
    fn fits(&self, kernel: Kernel) -> bool {
        self.arch.runs(kernel) && kernel.shared_bytes() <= self.arch.shared_per_block
    }

    fn describe(&self, kernel: Kernel, resources: &Resources) -> Value {
        let fits = self.fits(kernel);
        json!({
            "name": kernel.to_string(),
            "threads": kernel.threads(),
            "registers": resources.registers(kernel),
            "register_budget": kernel.register_budget(),
            "spilled_bytes": resources.spilled_bytes(kernel),
            "shared_bytes": kernel.shared_bytes(),
            "shared_limit": self.arch.shared_per_block,
            "blocks_per_sm": fits.then(|| self.arch.resident_blocks(kernel)),
            "main_loop": resources.entry(kernel, "main_loop"),
        })
    }

    fn explain(&self, shape: Shape, out: &mut impl Write) -> Result<bool> {
        let case = Case { dtype: self.dtype, causal: self.causal, ..Case::new(shape) };
        let explanation = Explanation::new(&case, self.quantize.quantization().as_ref(), self)?;
        if self.json {
            writeln!(out, "{}", explanation.json())?;
        } else {
            explanation.write(out)?;
        }
        Ok(explanation.is_clean())
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
        self.entry(kernel, "resources")?.get("registers")?.as_u64()
    }

    fn spilled_bytes(&self, kernel: Kernel) -> Option<u64> {
        let bytes = |field| self.entry(kernel, "resources")?.get(field)?.as_u64();
        Some(bytes("spill_stores")? + bytes("spill_loads")?)
    }

    fn main_loop(&self, kernel: Kernel) -> Option<MainLoop> {
        let count = |class| self.entry(kernel, "main_loop")?.get(class)?.as_u64();
        Some(MainLoop { total: count("total")?, tensor: count("tensor")? })
    }

    /// What the manifest says about `kernel` on the architecture under `field`.
    fn entry(&self, kernel: Kernel, field: &str) -> Option<&Value> {
        let archs = self.manifest.get("entries")?.get(kernel.to_string())?.get(field)?;
        // Code that runs on this architecture and no later one is under its own name.
        archs.get(&self.arch).or_else(|| archs.get(format!("{}a", self.arch)))
    }
}

/// Machine instructions of a kernel's main loop.
#[derive(Clone, Copy)]
struct MainLoop {
    total: u64,
    tensor: u64,
}

impl MainLoop {
    /// Of the instructions that are issued, those for matrix products.
    fn tensor_percent(self) -> f64 {
        100.0 * self.tensor as f64 / self.total as f64
    }
}
