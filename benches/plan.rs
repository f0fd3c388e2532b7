//! What planning costs: a caller pays it for every call whose plan it does not keep.

use criterion::{BenchmarkId, Criterion};
use evo_sdpa::shapes::measured;
use evo_sdpa::{DType, DevicePointers, DeviceSpec, Plan, Problem, Tuned, TunedProblem, TunedRow};
use std::hint::black_box;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("plan");
    let problems = measured().map(|(shape, causal)| Problem::contiguous(DType::Bf16, shape).with_causal(causal));
    let [problem, causal] = problems.take(2).collect::<Vec<_>>()[..] else { unreachable!("there are more shapes") };
    for (name, device) in [("L4", DeviceSpec::L4), ("H200", DeviceSpec::H200)] {
        for problem in [problem, causal] {
            group.bench_function(BenchmarkId::new(name, problem), |bencher| {
                bencher.iter(|| Plan::new(black_box(&problem), black_box(&device)));
            });
        }
    }
    let mut tuned = Tuned::default();
    for (shape, causal) in measured() {
        let problem = Problem::contiguous(DType::Bf16, shape).with_causal(causal);
        let kernel = Plan::new(&problem, &DeviceSpec::H200).expect("a measured shape has a plan").kernel.to_string();
        tuned.set("NVIDIA H200", TunedRow { problem: TunedProblem::of(&problem), kernel, splits: None, us: 1.0 });
    }
    let tuned = tuned.kernels("NVIDIA H200");
    group.bench_function(BenchmarkId::new("H200, tuned table", problem), |bencher| {
        bencher.iter(|| Plan::tuned(black_box(&problem), black_box(&DeviceSpec::H200), black_box(&tuned)));
    });
    let plan = Plan::new(&problem, &DeviceSpec::H200).expect("a measured shape has a plan");
    let pointers = DevicePointers { q: 256, k: 256, v: 256, out: 256, ..DevicePointers::default() };
    group.bench_function("bind addresses", |bencher| bencher.iter(|| plan.bind(black_box(&pointers))));
    group.finish();
    criterion.final_summary();
}
