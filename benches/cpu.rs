//! The CPU path over four shapes and every data type.

use criterion::{BenchmarkId, Criterion, Throughput};
use evo_sdpa::half::{bf16, f16};
use evo_sdpa::shapes::ON_A_CPU;
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{Element, TensorViewMut, cpu};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    attention::<f32>(&mut criterion);
    attention::<f16>(&mut criterion);
    attention::<bf16>(&mut criterion);
    criterion.final_summary();
}

fn attention<T: Element>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention on the CPU");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (shape, causal) in ON_A_CPU {
        let case = Case { causal, dtype: T::DTYPE, ..Case::new(shape) };
        let inputs = Inputs::<T>::generate(&case);
        let [q, k, v] = inputs.views().expect("a case has valid views");
        let mut out = vec![T::default(); q.layout().elements()];
        let mut out = TensorViewMut::bhsd(&mut out, q.layout().shape()).expect("as large as q");
        // One "element" is one floating-point operation.
        group.throughput(Throughput::Elements(case.problem().flops() as u64));
        group.bench_function(BenchmarkId::from_parameter(case.problem()), |bencher| {
            bencher.iter(|| cpu::attention_into(q, k, v, &inputs.options(), &mut out, None).expect("a valid call"));
        });
    }
    group.finish();
}
