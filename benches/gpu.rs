//! The acceptance shapes on the first GPU: time of one launch on the device, from CUDA graphs of many.
//!
//! Prints that it is skipped where there is no GPU.

use criterion::{BenchmarkId, Criterion, Throughput};
use evo_sdpa::half::bf16;
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{DType, Error, Plan};
use std::time::Duration;

/// Launches of one graph: enough to hide the time that starting a graph takes.
const CALLS: u32 = 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    acceptance_shapes(&mut criterion);
    criterion.final_summary();
}

fn acceptance_shapes(criterion: &mut Criterion) {
    let gpu = match evo_sdpa::gpu(0) {
        Err(Error::NoDevice { reason }) => return println!("no GPU: skipped ({reason})"),
        gpu => gpu.expect("the GPU opens"),
    };
    let mut group = criterion.benchmark_group(format!("attention on {}", gpu.name()));
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (shape, causal) in ACCEPTANCE {
        let case = Case { causal, dtype: DType::Bf16, ..Case::new(shape) };
        let plan = Plan::new(&case.problem(), gpu.spec()).expect("an acceptance shape has a plan");
        // One "element" is one floating-point operation.
        group.throughput(Throughput::Elements(case.problem().flops() as u64));
        let inputs = Inputs::<bf16>::generate(&case);
        let tensors = inputs.views().expect("a case has valid views").map(|view| gpu.upload(view).expect("memory"));
        let time = |iterations: u64| {
            let replays = iterations.div_ceil(CALLS.into()).min(1000) as u32;
            let times = gpu.time_attention(tensors.each_ref(), &inputs.options(), None, CALLS, replays);
            let (times, _) = times.expect("the launch");
            let mean = times.iter().map(|&time| f64::from(time)).sum::<f64>() / times.len() as f64;
            Duration::from_secs_f64(mean * 1e-6 * iterations as f64)
        };
        group.bench_function(BenchmarkId::new(plan.kernel.to_string(), case.problem()), |bencher| {
            bencher.iter_custom(time);
        });
    }
    group.finish();
}
