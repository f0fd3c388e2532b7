//! The measured shapes on the first GPU: the time of one launch on the device, from CUDA graphs of many, the time
//! that a caller waits for one answer, and what the host takes for a launch without waiting.
//!
//! Prints that it is skipped where there is no GPU.

use criterion::{BenchmarkId, Criterion, Throughput};
use evo_sdpa::gpu::Gpu;
use evo_sdpa::half::bf16;
use evo_sdpa::shapes::measured;
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{DType, Error, Result};
use std::cell::OnceCell;
use std::time::Duration;

/// Replays of a graph, or calls, for one sample at most.
const MAX_RUNS: u64 = 1000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let gpu = match evo_sdpa::gpu(0) {
        Err(Error::NoDevice { reason }) => return println!("no GPU: skipped ({reason})"),
        gpu => gpu.expect("the GPU opens"),
    };
    for (shape, causal) in measured() {
        shape_on(&gpu, &Case { causal, dtype: DType::Bf16, ..Case::new(shape) }, &mut criterion);
    }
    criterion.final_summary();
}

fn shape_on(gpu: &Gpu, case: &Case, criterion: &mut Criterion) {
    let plan = gpu.plan(&case.problem(), None).expect("a measured shape has a plan");
    // Made when the first benchmark of the shape runs, unless a filter leaves out all of them.
    let timed = OnceCell::new();
    let timed = || {
        timed.get_or_init(|| {
            let inputs = Inputs::<bf16>::generate(case);
            let timed = gpu.timed(inputs.views().expect("a case has valid views"), &inputs.options(), None, false);
            timed.expect("a measured shape fits in memory")
        })
    };
    let mut group = criterion.benchmark_group(format!("{} on {}", case.problem(), gpu.name()));
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    // One "element" is one floating-point operation.
    group.throughput(Throughput::Elements(case.problem().flops() as u64));
    group.bench_function(BenchmarkId::new("device", plan.kernel), |bencher| {
        let calls = u64::from(timed().calls());
        bencher.iter_custom(|n| total(n, timed().device_us(n.div_ceil(calls).min(MAX_RUNS) as u32)));
    });
    group.bench_function(BenchmarkId::new("call", plan.kernel), |bencher| {
        bencher.iter_custom(|n| total(n, timed().call_us(n.min(MAX_RUNS) as u32)));
    });
    group.bench_function(BenchmarkId::new("launch", plan.kernel), |bencher| {
        bencher.iter_custom(|n| total(n, timed().launch_us(n.min(MAX_RUNS) as u32)));
    });
    group.finish();
}

/// The time of `iterations` calls, from the microseconds that some took.
fn total(iterations: u64, times: Result<Vec<f64>>) -> Duration {
    let times = times.expect("the launch");
    Duration::from_secs_f64(times.iter().sum::<f64>() / times.len() as f64 * 1e-6 * iterations as f64)
}
