//! What a GPU does at most, measured: what the times of kernels are held against.

use super::driver::driver;
use super::function::{Function, Shape};
use super::graph::{Graph, time_on_stream};
use super::open::Gpu;
use super::session::{Memory, Session};
use crate::error::Result;
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::entry::{Entry, MmaRate};
use std::sync::Arc;

/// Runs, the best of which counts.
const RUNS: u32 = 20;
/// Iterations of a launch of `mma_rate`, some milliseconds of a GPU.
const ITERATIONS: u32 = 1 << 14;
/// Launches of a graph that times launches.
const LAUNCHES: u32 = 100;
/// Bytes of a copy: as many as make its start and end disappear, where there is room.
const COPY_BYTES: usize = 1 << 30;
/// A shorter copy would stay in the L2 cache, which has up to 126 MB (B200).
const LEAST_COPY_BYTES: usize = 256 << 20;

/// The ceilings of a GPU: the best of twenty runs each, at the clocks at which the device ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// `mma.sync` m16n8k16 on f16 with f32 accumulation, from registers: 10^12 operations a second, where a
    /// multiplication and an addition are two. It is the instruction of the `fwd_sm80` kernels; Hopper's own
    /// instructions reach more.
    pub f16_tflops: f64,
    /// The same on bf16.
    pub bf16_tflops: f64,
    /// A copy inside device memory, 1 GiB or a quarter of what is free: 10^9 bytes a second, read plus written.
    pub copy_gbs: f64,
    /// A launch that fills the device with blocks and stores one number a thread, among others like it in a CUDA
    /// graph: microseconds from one to the next.
    pub launch_us: f64,
}

impl Limits {
    /// The rate of matrix products of a type; `None` for f32, which no kernel computes on tensor cores.
    pub fn matrix_tflops(&self, dtype: DType) -> Option<f64> {
        match dtype {
            DType::F16 => Some(self.f16_tflops),
            DType::Bf16 => Some(self.bf16_tflops),
            DType::F32 => None,
        }
    }
}

impl Gpu {
    /// Measures the ceilings of the device, in a second or less. Other work on it makes them lower.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when the PTX text does not hold `mma_rate`;
    /// [`Error::Driver`](crate::Error::Driver) when 512 MiB of memory are not free or a launch fails.
    pub fn limits(&self) -> Result<Limits> {
        let _current = self.session.enter()?;
        let [f16, bf16] = [DType::F16, DType::Bf16].map(|dtype| Probe::new(self, MmaRate { dtype }));
        let (f16, bf16) = (f16?, bf16?);
        Ok(Limits {
            f16_tflops: f16.tflops()?,
            bf16_tflops: bf16.tflops()?,
            copy_gbs: self.copy_gbs()?,
            launch_us: f16.time(0, LAUNCHES)?,
        })
    }

    fn copy_gbs(&self) -> Result<f64> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two numbers.
        unsafe { driver!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        let bytes = (free / 4).clamp(LEAST_COPY_BYTES, COPY_BYTES);
        let (source, target) = (Memory::new(&self.session, bytes)?, Memory::new(&self.session, bytes)?);
        source.fill(1)?;
        self.synchronize()?;
        // Not in a graph, where a copy goes to the copy engine, which takes half as long again on an H200.
        let copy = || {
            time_on_stream(&self.session, |stream| {
                // SAFETY: both sides have that many bytes, and stay until the copy has been waited for.
                unsafe { driver!(cuMemcpyDtoDAsync_v2(target.address(), source.address(), bytes, stream)) }
            })
        };
        Ok(2.0 * bytes as f64 / best(copy)? / 1e3)
    }
}

/// `mma_rate` with a grid that fills the device, and memory for what it stores. One context is current throughout its
/// life.
struct Probe<'a> {
    session: &'a Arc<Session>,
    function: Function,
    blocks: u32,
    out: Memory,
}

impl<'a> Probe<'a> {
    fn new(gpu: &'a Gpu, rate: MmaRate) -> Result<Self> {
        let entry = Entry::MmaRate(rate);
        let blocks = gpu.spec().sm_count * entry.min_blocks_per_sm();
        let out = Memory::new(&gpu.session, (blocks * MmaRate::THREADS) as usize * size_of::<f32>())?;
        let function = gpu.kernels().compile(&entry.to_string())?;
        Ok(Self { session: &gpu.session, function, blocks, out })
    }

    fn tflops(&self) -> Result<f64> {
        Ok(MmaRate::flops(self.blocks, ITERATIONS) as f64 / self.time(ITERATIONS, 1)? / 1e6)
    }

    /// Microseconds of one of `launches` in a row.
    fn time(&self, mut iterations: u32, launches: u32) -> Result<f64> {
        let mut out = self.out.address();
        let mut arguments = [(&raw mut out).cast(), (&raw mut iterations).cast()];
        let shape = Shape { grid: [self.blocks, 1, 1], block: MmaRate::THREADS, shared_bytes: 0 };
        let graph = Graph::capture(self.session, |stream| {
            (0..launches).try_for_each(|_| {
                // SAFETY: the parameters are an address (u64) and a count (u32), the memory has room for the grid and
                // stays until the graph has run, and the stream is of the same context.
                unsafe { self.function.launch(shape, &mut arguments, stream) }
            })
        })?;
        Ok(best(|| graph.time())? / f64::from(launches))
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.function.unload();
    }
}

/// The least of several times, after one that is not counted.
fn best(time: impl Fn() -> Result<f64>) -> Result<f64> {
    time()?;
    (0..RUNS).try_fold(f64::INFINITY, |best, _| Ok(best.min(time()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_on_tensor_cores_has_a_rate() {
        let limits = Limits { f16_tflops: 1.0, bf16_tflops: 2.0, copy_gbs: 3.0, launch_us: 4.0 };
        assert_eq!(DType::ALL.map(|dtype| limits.matrix_tflops(dtype)), [Some(1.0), Some(2.0), None]);
    }
}
