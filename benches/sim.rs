//! The simulator: loading the kernels' text, and one head of 512 queries and keys with all checks on.

use criterion::Criterion;
use evo_sdpa::half::bf16;
use evo_sdpa::sim::ptx_sim::{Module, Options};
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{DType, PTX_SM80};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("simulator");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.bench_function("load every kernel", |bencher| {
        bencher.iter(|| Module::parse(PTX_SM80).expect("the shipped text is good"));
    });
    let inputs = Inputs::<bf16>::generate(&Case { dtype: DType::Bf16, ..Case::new([1, 1, 1, 512, 512, 64]) });
    let [q, k, v] = inputs.views().expect("a case has valid views");
    for (name, checks) in [("B1 H1 S512 D64, checks on", true), ("B1 H1 S512 D64, checks off", false)] {
        let options = Options { checks, ..Options::default() };
        let simulator = evo_sdpa::simulator().expect("the shipped text is good").with_options(options);
        group.bench_function(name, |bencher| {
            bencher.iter(|| simulator.attention(q, k, v, &inputs.options(), None).expect("a valid call"));
        });
    }
    group.finish();
    criterion.final_summary();
}
