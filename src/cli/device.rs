//! Where a call runs.

use super::gpu::{self, Gpu};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use evo_sdpa::verify::Inputs;
use evo_sdpa::{Element, Kernel, Plan, Problem, cpu};
use std::path::PathBuf;
use std::time::Instant;

/// Launches of a kernel that are timed together, and how often.
const CALLS: u32 = 20;
const REPLAYS: u32 = 21;

/// Options about the device, the same for every subcommand that computes.
#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute; auto takes a GPU where there is one
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Kernel to run in place of the planner's choice; needs a GPU
    #[arg(long, value_parser = super::parse_kernel)]
    pub kernel: Option<Kernel>,
    /// PTX file to load the kernels from in place of the built-in ones; needs a GPU
    #[arg(long, value_name = "FILE")]
    ptx: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Auto,
    Gpu,
    Cpu,
}

/// A device that is ready to compute.
pub struct Device {
    backend: Backend,
    /// Name of the device and why it was taken.
    pub about: String,
}

enum Backend {
    Cpu,
    Gpu(Gpu),
}

/// An answer and how it came about.
pub struct Answer<T> {
    /// The answer.
    pub output: cpu::Output<T>,
    /// The plan of a launch on a GPU.
    pub plan: Option<Plan>,
    /// Wall time of the call, seconds; on a GPU with both copies.
    pub seconds: f64,
}

impl DeviceArgs {
    /// Opens the device that these options ask for.
    pub fn open(&self) -> Result<Device> {
        let reason = match self.device {
            Choice::Cpu => "asked for".into(),
            Choice::Gpu => return self.open_gpu("asked for"),
            Choice::Auto => match self.open_gpu("auto: the first one") {
                Ok(device) => return Ok(device),
                Err(error) => format!("auto: {error:#}"),
            },
        };
        for (field, given) in [("kernel", self.kernel.is_some()), ("ptx", self.ptx.is_some())] {
            if given {
                bail!("{field}: kernels need a GPU, and this runs on the CPU ({reason})");
            }
        }
        Ok(Device { backend: Backend::Cpu, about: format!("CPU ({reason})") })
    }

    fn open_gpu(&self, reason: &str) -> Result<Device> {
        let gpu = match &self.ptx {
            None => gpu::open(None)?,
            Some(path) => {
                let name = || format!("ptx: {}", path.display());
                gpu::open(Some(&std::fs::read_to_string(path).with_context(name)?)).with_context(name)?
            }
        };
        let about = format!("{} ({reason})", gpu.name());
        Ok(Device { backend: Backend::Gpu(gpu), about })
    }
}

impl Device {
    /// Computes with the given kernel, or with the device's own choice.
    pub fn attention<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<Answer<T>> {
        let [q, k, v] = inputs.views()?;
        let start = Instant::now();
        let (output, plan) = match &self.backend {
            Backend::Cpu => (cpu::attention(q, k, v, &inputs.options())?, None),
            Backend::Gpu(gpu) => {
                let (output, plan) = gpu.attention_host(q, k, v, &inputs.options(), kernel)?;
                (output, Some(plan))
            }
        };
        Ok(Answer { output, plan, seconds: start.elapsed().as_secs_f64() })
    }

    /// The ways to compute a problem: the device's own choice and, on a GPU, every kernel that takes the problem.
    pub fn ways(&self, problem: &Problem) -> Vec<Option<Kernel>> {
        match &self.backend {
            Backend::Cpu => vec![None],
            Backend::Gpu(gpu) => {
                let candidates = Plan::candidates(problem, gpu.spec()).unwrap_or_default();
                [None].into_iter().chain(candidates.into_iter().map(|(kernel, _)| Some(kernel))).collect()
            }
        }
    }

    /// Seconds that the kernel alone takes, the median of many launches; none on a CPU.
    pub fn kernel_seconds<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<Option<f64>> {
        let Backend::Gpu(gpu) = &self.backend else { return Ok(None) };
        let [q, k, v] = inputs.views()?;
        let tensors = [&gpu.upload(q)?, &gpu.upload(k)?, &gpu.upload(v)?];
        let (mut times, _) = gpu.time_attention(tensors, &inputs.options(), kernel, CALLS, REPLAYS)?;
        times.sort_by(f32::total_cmp);
        Ok(times.get(times.len() / 2).map(|&microseconds| f64::from(microseconds) * 1e-6))
    }
}
