//! What planning costs: a caller pays it for every call whose plan it does not keep.

use criterion::{BenchmarkId, Criterion};
use evo_sdpa::shapes::measured;
use evo_sdpa::{DType, DevicePointers, DeviceSpec, Plan, Problem};
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
    let plan = Plan::new(&problem, &DeviceSpec::H200).expect("a measured shape has a plan");
    let pointers = DevicePointers { q: 256, k: 256, v: 256, out: 256, ..DevicePointers::default() };
    group.bench_function("bind addresses", |bencher| bencher.iter(|| plan.bind(black_box(&pointers))));
    group.finish();
    criterion.final_summary();
}
