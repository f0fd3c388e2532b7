//! How long a call takes, on the device and for its caller.

use super::attention::Call;
use super::dependent::LaunchOptions;
use super::graph::Graph;
use super::open::Gpu;
use super::quantize::QuantizedCall;
use super::session::Memory;
use super::tensor::GpuTensor;
use crate::cpu;
use crate::error::Result;
use crate::fp8::{self, Fp8};
use crate::nvtx::Range;
use crate::plan::Plan;
use crate::problem::{Options, Problem};
use crate::quantize::{QuantizePlan, QuantizePointers, Quantized};
use crate::tensor::{Element, TensorView};
use crate::value_layout::ValueLayout;
use cust::sys::CUstream;
use evo_sdpa_kernels::config::Kernel;
use std::time::{Duration, Instant};

/// Launches of one graph at most: enough to hide the time that starting a graph takes.
const MAX_CALLS: u32 = 20;
/// Up to which time a graph gets more launches, microseconds: beyond, starting it does not show.
const GRAPH_US: f64 = 4000.0;
/// For how long a graph is replayed before it is timed, so that the clocks have risen and settled.
const WARM_UP: Duration = Duration::from_millis(200);
/// Calls before those of which the latency is taken.
const WARM_UP_CALLS: u32 = 10;
/// For how long [`TimedCall::while_busy`] keeps the device busy.
const BUSY_US: f64 = 60_000.0;
/// Calls in a row whose time for the host is taken: far fewer launches than the driver queues before it makes the host
/// wait.
const LAUNCHES: u32 = 64;
/// For how long the device may work while the host's time is taken, microseconds.
const LAUNCHES_US: f64 = 500_000.0;
/// The least number of times that is taken of it.
const MIN_BATCHES: u32 = 3;
/// How many times the cache the tensors of a cold call take together.
const COLD_FACTOR: u64 = 3;

/// A call with its tensors on the device, captured in a CUDA graph and warmed up.
///
/// The graph holds as many calls back to back as take 4 ms, 20 at most, so that neither the start of a graph nor
/// the resolution of events shows. Its calls are for the output alone, as inference has them: no log-sum-exp.
pub struct TimedCall<'a, T> {
    gpu: &'a Gpu,
    graph: Graph,
    calls: u32,
    problem: Problem,
    kernel: Option<Kernel>,
    splits: Option<u32>,
    launch: LaunchOptions,
    sets: Vec<TensorSet<T>>,
    /// Microseconds of one replay, roughly.
    replay_us: f64,
}

/// The tensors of one call.
struct TensorSet<T> {
    /// What comes before `call`, where the tensors are quantised in each call.
    quantize: Option<(QuantizePlan, QuantizePointers)>,
    call: Call<T>,
    /// Behind the pointers of both.
    _inputs: Vec<Memory>,
}

impl<T> TensorSet<T> {
    /// # Safety
    /// That of [`TensorSet::launch_plans`].
    unsafe fn launch(&self, gpu: &Gpu, stream: CUstream, options: LaunchOptions) -> Result<()> {
        let quantize = self.quantize.as_ref().map(|(plan, _)| plan);
        // SAFETY: the plans are those of the set; the caller vouches for the rest.
        unsafe { self.launch_plans(gpu, quantize, self.call.plan(), stream, options) }
    }

    /// # Safety
    /// That of [`Kernels::launch_with`](super::Kernels::launch_with) for the stream; the plans are equal to those of
    /// the set; the tensors live until the launches have run.
    unsafe fn launch_plans(
        &self,
        gpu: &Gpu,
        quantize: Option<&QuantizePlan>,
        plan: &Plan,
        stream: CUstream,
        options: LaunchOptions,
    ) -> Result<()> {
        if let (Some(plan), Some((_, pointers))) = (quantize, &self.quantize) {
            // SAFETY: the pointers are those of tensors that the plan was made for; the caller vouches for the rest.
            unsafe { gpu.kernels().launch_quantize(plan, pointers, stream) }?;
        }
        // SAFETY: likewise.
        unsafe { gpu.kernels().launch_with(plan, self.call.pointers(), stream, options) }
    }
}

impl Gpu {
    /// Prepares to time `softmax(scale * q k^T + mask) v` with a kernel of the caller's choice or the planner's.
    ///
    /// A `cold` call finds nothing of its tensors in the cache: launches take copies of them in turn that are together
    /// three times as large as the second-level cache. Other calls repeat on the same tensors.
    ///
    /// # Errors
    /// Those of [`Gpu::attention`] and [`Plan::with_kernel`].
    pub fn timed<T: Element>(
        &self,
        views: [TensorView<T>; 3],
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
    ) -> Result<TimedCall<'_, T>> {
        self.timed_with(views, options, kernel, cold, LaunchOptions::default())
    }

    /// [`Gpu::timed`] with launches of the caller's choice. Dependent launches overlap with those of the same graph
    /// that they follow.
    ///
    /// # Errors
    /// Those of [`Gpu::timed`] and [`Kernels::prepare_with`](super::Kernels::prepare_with).
    pub fn timed_with<T: Element>(
        &self,
        [q, k, v]: [TensorView<T>; 3],
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
        launch: LaunchOptions,
    ) -> Result<TimedCall<'_, T>> {
        let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?;
        self.timed_on(problem, options.splits, kernel, cold, launch, || {
            let (q, k, v) = (self.upload(q)?, self.upload(k)?, self.upload(v)?);
            let call = self.call(&q, &k, &v, options, kernel)?;
            Ok(TensorSet { quantize: None, call, _inputs: [q, k, v].map(GpuTensor::into_memory).into() })
        })
    }

    /// [`Gpu::timed_with`] of queries, keys and values in e4m3, with an output of type `T`. They are on the device in
    /// e4m3 beforehand: no time is that of quantising.
    ///
    /// # Errors
    /// Those of [`Gpu::timed_with`].
    pub fn timed_fp8<T: Element>(
        &self,
        tensors: [&Quantized; 3],
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
        launch: LaunchOptions,
    ) -> Result<TimedCall<'_, T>> {
        let problem = fp8::problem(tensors, T::DTYPE, options)?;
        self.timed_on(problem, options.splits, kernel, cold, launch, || {
            let (call, inputs) = self.fp8_call(tensors, options, kernel)?;
            Ok(TensorSet { quantize: None, call, _inputs: inputs })
        })
    }

    /// [`Gpu::timed_fp8`] of tensors that are quantised on the device beforehand, with values left transposed: the
    /// attention of [`Gpu::quantized_attention`] alone, where its kernel takes such. Keys keep their mean.
    ///
    /// # Errors
    /// Those of [`Gpu::timed_with`] and [`Gpu::quantize_transposed`]; [`Error::Unsupported`](crate::Error::Unsupported)
    /// where no kernel takes transposed values.
    pub fn timed_transposed<T: Element, O: Element>(
        &self,
        views: [TensorView<T>; 3],
        fp8: Fp8,
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
        launch: LaunchOptions,
    ) -> Result<TimedCall<'_, O>> {
        let [q, k, v] = views.map(|view| *view.layout());
        let inputs = options.problem(T::DTYPE, q, k, v)?;
        let problem = QuantizePlan::new(&inputs, fp8, false)?.with_transposed_values()?.attention(O::DTYPE);
        self.timed_on(problem, options.splits, kernel, cold, launch, || {
            let [q, k, v] = views.map(|view| self.upload(view));
            let (q, k, v) = (q?, k?, v?);
            let (plan, pointers) = self.quantize_plan([&q, &k, &v], fp8, false, options)?;
            let plan = plan.with_transposed_values()?;
            let attention = self.plan_call(&plan.attention(O::DTYPE), options, kernel)?;
            let call = self.quantized_call(plan, attention, pointers, options)?;
            // SAFETY: the stream is of the kernels' context; the tensors have the plan's layouts, and all memory lives
            // until it has been waited for.
            unsafe { self.kernels().launch_quantize(&call.plan, &call.pointers, self.stream()) }?;
            self.synchronize()?;
            Ok(TensorSet { quantize: None, call: call.attention, _inputs: vec![call.workspace] })
        })
    }

    /// [`Gpu::timed_with`] of [`Gpu::quantized_attention`]: each call quantises q, k and v, and its time is that of all
    /// of its launches, which are plain ones. A cold call finds nothing of its tensors in the cache, but what it made
    /// of them, as far as it fits.
    ///
    /// # Errors
    /// Those of [`Gpu::quantized_attention`] and [`Plan::with_kernel`].
    pub fn timed_quantized<T: Element, O: Element>(
        &self,
        views: [TensorView<T>; 3],
        fp8: Fp8,
        subtract_mean: bool,
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
    ) -> Result<TimedCall<'_, O>> {
        let [q, k, v] = views.map(|view| *view.layout());
        let inputs = options.problem(T::DTYPE, q, k, v)?.with_lse(true);
        let plan = QuantizePlan::new(&inputs, fp8, subtract_mean)?;
        self.kernels().prepare_quantize(&plan)?;
        let launch = LaunchOptions::default();
        let problem = plan.attention(O::DTYPE).with_value_layout(ValueLayout::Planned);
        self.timed_on(problem, options.splits, kernel, cold, launch, || {
            let [q, k, v] = views.map(|view| self.upload(view));
            let (q, k, v) = (q?, k?, v?);
            let (plan, pointers) = self.quantize_plan([&q, &k, &v], fp8, subtract_mean, options)?;
            let (plan, attention) = self.with_attention(plan, O::DTYPE, options, kernel)?;
            let call = self.quantized_call(plan, attention, pointers, options)?;
            let QuantizedCall { plan, pointers, attention, workspace } = call;
            let inputs = [q, k, v].map(GpuTensor::into_memory).into_iter().chain([workspace]).collect();
            Ok(TensorSet { quantize: Some((plan, pointers)), call: attention, _inputs: inputs })
        })
    }

    /// [`Gpu::timed_with`] of a problem. Each time that `make` is called it gives a call on tensors of its own.
    fn timed_on<T: Element>(
        &self,
        problem: Problem,
        splits: Option<u32>,
        kernel: Option<Kernel>,
        cold: bool,
        launch: LaunchOptions,
        make: impl Fn() -> Result<TensorSet<T>>,
    ) -> Result<TimedCall<'_, T>> {
        let problem = problem.with_lse(false);
        let set = || {
            let set = make()?;
            // The graph runs on a stream of its own.
            let call = set.call.with_own_workspace(&self.session)?;
            call.poison()?;
            Ok(TensorSet { call, ..set })
        };
        // Of queries, keys, values and output.
        let bytes = (problem.bytes() as u64).max(1);
        let wanted = if cold { (COLD_FACTOR * self.l2_bytes()?).div_ceil(bytes).max(2) } else { 1 };
        let sets = (0..wanted).map(|_| set()).collect::<Result<Vec<_>>>()?;
        self.kernels().prepare_with(sets[0].call.plan().kernel, launch)?;
        // The log-sum-exps of the answer are those of this launch.
        // SAFETY: the stream is of the kernels' context, and waited for; the tensors live on.
        unsafe { sets[0].launch(self, self.stream(), launch) }?;
        self.synchronize()?;
        let without_lse = |set: TensorSet<T>| Ok(TensorSet { call: set.call.without_lse()?, ..set });
        let sets = sets.into_iter().map(without_lse).collect::<Result<Vec<_>>>()?;
        self.synchronize()?;
        let capture = |calls: u32| {
            Graph::capture(&self.session, |stream| {
                let mut turns = sets.iter().cycle().take(calls as usize);
                // SAFETY: the stream is of the kernels' context, and nobody else's; the tensors live as long as the graph.
                turns.try_for_each(|set| unsafe { set.launch(self, stream, launch) })
            })
        };
        let turns = sets.len() as u32;
        let probe = capture(turns)?;
        probe.warm_up(WARM_UP / 4)?;
        let call_us = probe.time()? / f64::from(turns);
        let calls = ((GRAPH_US / call_us.max(0.1)).ceil() as u32).clamp(1, MAX_CALLS).max(turns);
        let graph = capture(calls)?;
        graph.warm_up(WARM_UP)?;
        let replay_us = call_us * f64::from(calls);
        Ok(TimedCall { gpu: self, graph, calls, problem, kernel, splits, launch, sets, replay_us })
    }
}

impl<T: Element> TimedCall<'_, T> {
    /// The attention that is launched.
    pub fn plan(&self) -> &Plan {
        self.sets[0].call.plan()
    }

    /// Calls of the graph.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Sets of tensors that the calls take in turn.
    pub fn buffers(&self) -> usize {
        self.sets.len()
    }

    /// Microseconds of one call on the device, the mean of one replay of the graph: for each of `runs` replays.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when the kernel fails.
    pub fn device_us(&self, runs: u32) -> Result<Vec<f64>> {
        let _range = Range::new(c"timing");
        (0..runs).map(|_| Ok(self.graph.time()? / f64::from(self.calls))).collect()
    }

    /// Microseconds from a call's beginning until its answer is there, planning included, for each of `runs` calls. The
    /// memory for the answer is there beforehand.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when the kernel fails.
    pub fn call_us(&self, runs: u32) -> Result<Vec<f64>> {
        let turns = self.sets.iter().cycle();
        let times = turns.take((WARM_UP_CALLS + runs) as usize).map(|set| {
            let start = Instant::now();
            let plan = |problem: &Problem| {
                let problem = problem.with_lse(false);
                Plan::for_call(&problem, self.gpu.spec(), &self.gpu.tuned, self.kernel, self.splits)
            };
            let (quantize, plan) = match &set.quantize {
                None => (None, plan(&self.problem)?),
                Some((quantize, _)) => {
                    let (quantize, plan) = quantize.again()?.with_attention(T::DTYPE, plan)?;
                    (Some(quantize), plan)
                }
            };
            // SAFETY: the stream is of the kernels' context; the plans are made as those of the set were; the tensors
            // live until the stream has been waited for.
            unsafe { set.launch_plans(self.gpu, quantize.as_ref(), &plan, self.gpu.stream(), self.launch) }?;
            self.gpu.synchronize()?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        Ok(times[WARM_UP_CALLS as usize..].to_vec())
    }

    /// Microseconds that the host takes for the launches of one call with the plans at hand, without waiting for them:
    /// the mean over 64 calls in a row, for each of `runs` rows at most. Where the device takes long, there are fewer
    /// rows.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when the kernel fails.
    pub fn launch_us(&self, runs: u32) -> Result<Vec<f64>> {
        let call_us = self.replay_us / f64::from(self.calls);
        let affordable = (LAUNCHES_US / (f64::from(LAUNCHES) * call_us)) as u32;
        let mut turns = self.sets.iter().cycle();
        let mut row = || {
            let start = Instant::now();
            for set in turns.by_ref().take(LAUNCHES as usize) {
                // SAFETY: the stream is of the kernels' context; the tensors live until it has been waited for.
                unsafe { set.launch(self.gpu, self.gpu.stream(), self.launch) }?;
            }
            let elapsed = start.elapsed();
            self.gpu.synchronize()?;
            Ok(elapsed.as_secs_f64() * 1e6 / f64::from(LAUNCHES))
        };
        // The first row is the warm-up.
        let times = (0..=runs.min(affordable.max(MIN_BATCHES))).map(|_| row()).collect::<Result<Vec<_>>>()?;
        Ok(times[1..].to_vec())
    }

    /// What the launches wrote, and the log-sum-exps of one before them. Elements that none of them wrote are NaN.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when a launch or the copy fails.
    pub fn answer(&self) -> Result<cpu::Output<T>> {
        self.graph.synchronize()?;
        self.sets[0].call.answer()
    }

    /// Calls `read` while the device has work for some 60 ms.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when the kernel fails.
    pub fn while_busy<R>(&self, read: impl FnOnce() -> R) -> Result<R> {
        for _ in 0..(BUSY_US / self.replay_us).ceil().max(1.0) as u32 {
            self.graph.launch()?;
        }
        let result = read();
        self.graph.synchronize()?;
        Ok(result)
    }
}
