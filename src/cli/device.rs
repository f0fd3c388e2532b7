//! Where a call runs.

use super::arch_name;
use super::gpu::{self, Gpu};
use super::record::Quantiles;
use super::sim::SimArgs;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use evo_sdpa::half::{bf16, f16};
use evo_sdpa::sim::{self, Report, Simulated};
use evo_sdpa::verify::{Inputs, Quantization};
use evo_sdpa::{DType, DeviceSpec, Element, Kernel, Plan, Problem, Simulator, TunedKernels, cpu};
use std::path::PathBuf;
use std::time::Instant;

/// How often a kernel is timed.
const RUNS: u32 = 21;

/// Options about the device, the same for every subcommand that computes.
#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute: auto takes a GPU where there is one, sim runs the kernels on the CPU and checks all they do
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Kernel to run in place of the planner's choice; needs a GPU or the simulator
    #[arg(long, value_parser = super::parse_kernel)]
    pub kernel: Option<Kernel>,
    /// PTX file to load the kernels from in place of the built-in ones; needs a GPU or the simulator
    #[arg(long, value_name = "FILE")]
    ptx: Option<PathBuf>,
    #[command(flatten)]
    sim: SimArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Auto,
    Gpu,
    Cpu,
    Sim,
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
    Sim(Simulator),
}

/// An answer and how it came about.
pub struct Answer<T> {
    /// The answer.
    pub output: cpu::Output<T>,
    /// The plan of a launch.
    pub plan: Option<Plan>,
    /// What the simulator has to say about the launch.
    pub report: Option<Report>,
    /// Wall time of the call, seconds; on a GPU with both copies.
    pub seconds: f64,
}

/// An answer to a call that was quantised on the device.
pub struct QuantizedAnswer {
    /// The answer, contiguous \[batch, heads_q, q_len, head_dim\].
    pub out: Vec<f64>,
    /// The attention kernel.
    pub kernel: Kernel,
    /// What the simulator has to say about each launch.
    pub reports: Vec<Report>,
}

impl DeviceArgs {
    /// Opens the device that these options ask for.
    pub fn open(&self) -> Result<Device> {
        self.check_simulator_options()?;
        match self.device {
            Choice::Auto => match self.open_gpu("auto: the first one") {
                Ok(device) => Ok(device),
                Err(error) => self.open_cpu(&format!("auto: {error:#}")),
            },
            Choice::Gpu => self.open_gpu("asked for"),
            Choice::Cpu => self.open_cpu("asked for"),
            Choice::Sim => self.open_sim(),
        }
    }

    /// The device that is asked for by name, or the CPU, which `what` can be had on without a device.
    pub fn open_or_cpu(&self, what: &str) -> Result<Device> {
        match self.device {
            Choice::Auto => self.check_simulator_options().and_then(|()| self.open_cpu(what)),
            _ => self.open(),
        }
    }

    /// The simulator has its options to itself.
    fn check_simulator_options(&self) -> Result<()> {
        match self.sim.given() {
            Some(field) if self.device != Choice::Sim => {
                bail!("{field}: an option of the simulator, allowed: with --device sim")
            }
            _ => Ok(()),
        }
    }

    fn open_cpu(&self, reason: &str) -> Result<Device> {
        for (field, given) in [("kernel", self.kernel.is_some()), ("ptx", self.ptx.is_some())] {
            if given {
                bail!("{field}: kernels need a GPU or the simulator, and this runs on the CPU ({reason})");
            }
        }
        Ok(Device { backend: Backend::Cpu, about: format!("CPU ({reason})") })
    }

    fn open_gpu(&self, reason: &str) -> Result<Device> {
        let gpu = self.with_ptx(gpu::open)?;
        let about = format!("{} ({reason})", gpu.name());
        Ok(Device { backend: Backend::Gpu(gpu), about })
    }

    fn open_sim(&self) -> Result<Device> {
        let simulator = self.with_ptx(|ptx| self.sim.open(ptx))?;
        let about = format!("simulated {}", arch_name(simulator.spec()));
        Ok(Device { backend: Backend::Sim(simulator), about })
    }

    /// Opens something with the text of the PTX file, or with none for the built-in kernels.
    fn with_ptx<D>(&self, open: impl FnOnce(Option<&str>) -> Result<D>) -> Result<D> {
        let Some(path) = &self.ptx else { return open(None) };
        let name = || format!("ptx: {}", path.display());
        open(Some(&std::fs::read_to_string(path).with_context(name)?)).with_context(name)
    }
}

impl Device {
    /// Computes with the given kernel, or with the device's own choice.
    pub fn attention<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<Answer<T>> {
        let [q, k, v] = inputs.views()?;
        let start = Instant::now();
        let (output, plan, report) = match &self.backend {
            Backend::Cpu => (cpu::attention(q, k, v, &inputs.options())?, None, None),
            Backend::Gpu(gpu) => {
                let (output, plan) = gpu.attention_host(q, k, v, &inputs.options(), kernel)?;
                (output, Some(plan), None)
            }
            Backend::Sim(simulator) => {
                let Simulated { output, plan, report } = simulator.attention(q, k, v, &inputs.options(), kernel)?;
                (output, Some(plan), Some(report))
            }
        };
        Ok(Answer { output, plan, report, seconds: start.elapsed().as_secs_f64() })
    }

    /// Computes a call that is quantised on the device, with an output in the inputs' type, bf16 where they are f32;
    /// none on the CPU, which has a prediction only.
    pub fn quantized_attention<T: Element>(
        &self,
        inputs: &Inputs<T>,
        quantization: &Quantization,
        kernel: Option<Kernel>,
    ) -> Result<Option<QuantizedAnswer>> {
        match T::DTYPE {
            DType::F16 => self.quantized_as::<T, f16>(inputs, quantization, kernel),
            DType::Bf16 | DType::F32 => self.quantized_as::<T, bf16>(inputs, quantization, kernel),
        }
    }

    fn quantized_as<T: Element, O: Element>(
        &self,
        inputs: &Inputs<T>,
        &Quantization { fp8, subtract_mean, .. }: &Quantization,
        kernel: Option<Kernel>,
    ) -> Result<Option<QuantizedAnswer>> {
        let (views, options) = (inputs.views()?, inputs.options());
        let (output, plan, reports): (cpu::Output<O>, _, _) = match &self.backend {
            Backend::Cpu => return Ok(None),
            Backend::Gpu(gpu) => {
                let (output, plan) = gpu.quantized_attention_host(views, fp8, subtract_mean, &options, kernel)?;
                (output, plan, vec![])
            }
            Backend::Sim(simulator) => {
                let (quantized, answer) = simulator.quantized_attention(views, fp8, subtract_mean, &options, kernel)?;
                let Simulated { output, plan, report } = answer;
                (output, plan, [quantized.reports, vec![report]].concat())
            }
        };
        let out = output.out.into_iter().map(O::to_f64).collect();
        Ok(Some(QuantizedAnswer { out, kernel: plan.kernel, reports }))
    }

    /// The ways to compute a problem: the device's own choice and, where there are kernels, each that takes the problem.
    pub fn ways(&self, problem: &Problem) -> Vec<Option<Kernel>> {
        let candidates = |spec: &DeviceSpec| {
            let candidates = Plan::candidates(problem, spec).unwrap_or_default();
            candidates.into_iter().map(|(kernel, _)| Some(kernel))
        };
        match &self.backend {
            Backend::Cpu => vec![None],
            Backend::Gpu(gpu) => [None].into_iter().chain(candidates(gpu.spec())).collect(),
            // Its own choice is one of them, and gives the same answer again.
            Backend::Sim(simulator) => candidates(simulator.spec()).collect(),
        }
    }

    /// The option that asks for this device, whatever the machine has.
    pub fn option(&self) -> &'static str {
        match &self.backend {
            Backend::Cpu => "--device cpu",
            Backend::Gpu(_) => "--device gpu",
            Backend::Sim(_) => "--device sim",
        }
    }

    /// Whether this is the simulator.
    pub fn is_simulated(&self) -> bool {
        matches!(self.backend, Backend::Sim(_))
    }

    /// Estimated instructions of warps that the simulator executes for a problem; 0 on any other device.
    pub fn work(&self, problem: &Problem, kernel: Option<Kernel>) -> Result<u64> {
        let Backend::Sim(simulator) = &self.backend else { return Ok(0) };
        Ok(sim::work(&Plan::choose(problem, simulator.spec(), &TunedKernels::default(), kernel)?))
    }

    /// The most work that the device takes.
    pub fn max_work(&self) -> u64 {
        match &self.backend {
            Backend::Sim(simulator) => simulator.max_work(),
            _ => u64::MAX,
        }
    }

    /// Seconds that the kernel alone takes, the median of many launches; none but on a GPU.
    pub fn kernel_seconds<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<Option<f64>> {
        let Backend::Gpu(gpu) = &self.backend else { return Ok(None) };
        let times = gpu.timed(inputs.views()?, &inputs.options(), kernel, false)?.device_us(RUNS)?;
        Ok(Quantiles::of(&times).map(|times| times.p50 * 1e-6))
    }
}
