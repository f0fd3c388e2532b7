//! How long a call takes, on the device and for its caller.

use super::attention::Call;
use super::graph::Graph;
use super::open::Gpu;
use super::tensor::GpuTensor;
use crate::error::Result;
use crate::nvtx::Range;
use crate::plan::Plan;
use crate::problem::{Options, Problem};
use crate::tensor::{Element, TensorView};
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
/// How many times the cache the tensors of a cold call take together.
const COLD_FACTOR: u64 = 3;

/// A call with its tensors on the device, captured in a CUDA graph and warmed up.
///
/// The graph holds as many launches back to back as take 4 ms, 20 at most, so that neither the start of a graph nor
/// the resolution of events shows.
pub struct TimedCall<'a, T> {
    gpu: &'a Gpu,
    graph: Graph,
    calls: u32,
    problem: Problem,
    kernel: Option<Kernel>,
    sets: Vec<TensorSet<T>>,
    /// Microseconds of one replay, roughly.
    replay_us: f64,
}

/// The tensors of one call.
struct TensorSet<T> {
    call: Call<T>,
    _inputs: [GpuTensor<T>; 3],
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
        [q, k, v]: [TensorView<T>; 3],
        options: &Options,
        kernel: Option<Kernel>,
        cold: bool,
    ) -> Result<TimedCall<'_, T>> {
        let set = || {
            let inputs = [self.upload(q)?, self.upload(k)?, self.upload(v)?];
            let [q, k, v] = &inputs;
            Ok(TensorSet { call: self.call(q, k, v, options, kernel)?, _inputs: inputs })
        };
        let bytes = 2 * (q.layout().elements() + k.layout().elements()) * size_of::<T>();
        let wanted = if cold { (COLD_FACTOR * self.l2_bytes()?).div_ceil(bytes.max(1) as u64).max(2) } else { 1 };
        let sets = (0..wanted).map(|_| set()).collect::<Result<Vec<_>>>()?;
        let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?.with_lse(true);
        let plan = sets[0].call.plan();
        self.kernels().prepare(plan.kernel)?;
        let capture = |calls: u32| {
            Graph::capture(&self.session, |stream| {
                let mut turns = sets.iter().cycle().take(calls as usize);
                // SAFETY: the stream is of the kernels' context; the tensors live as long as the graph.
                turns.try_for_each(|set| unsafe { self.kernels().launch(set.call.plan(), set.call.pointers(), stream) })
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
        Ok(TimedCall { gpu: self, graph, calls, problem, kernel, sets, replay_us })
    }
}

impl<T: Element> TimedCall<'_, T> {
    /// What is launched.
    pub fn plan(&self) -> &Plan {
        self.sets[0].call.plan()
    }

    /// Launches of the graph.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Sets of tensors that the launches take in turn.
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
            let plan = self.gpu.plan(&self.problem, self.kernel)?;
            // SAFETY: the stream is of the kernels' context; the tensors live until it has been waited for.
            unsafe { self.gpu.kernels().launch(&plan, set.call.pointers(), self.gpu.stream()) }?;
            self.gpu.synchronize()?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        Ok(times[WARM_UP_CALLS as usize..].to_vec())
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
