//! What holds for every kernel that splits the keys of a sequence between blocks.

use crate::launch::launch;
use evo_sdpa::half::bf16;
use evo_sdpa::sim::ptx_sim::{Device, Module};
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{DeviceSpec, Kernel, Options, PTX_SM80, Plan, Simulator, with_element};

/// Fails with all of `faults`.
#[track_caller]
pub fn assert_no_faults(faults: impl Iterator<Item = String>) {
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What is wrong with the answers of a kernel to `case`, with the keys in so many parts.
pub fn faults(simulator: &Simulator, kernel: Kernel, case: &Case, parts: &[u32]) -> Vec<String> {
    with_element!(case.dtype, T => {
        let inputs = Inputs::<T>::generate(case);
        let expected = Expected::compute(&inputs).unwrap();
        let [q, k, v] = inputs.views().unwrap();
        let fault = |&splits: &u32| {
            let options = Options { splits: Some(splits), ..inputs.options() };
            let answer = simulator.attention(q, k, v, &options, Some(kernel)).unwrap();
            let verdict = expected.check(&answer.output);
            let what = if answer.report.is_clean() { verdict.to_string() } else { answer.report.to_string() };
            let fine = answer.report.is_clean() && verdict.passes();
            (!fine).then(|| format!("{kernel} {case} in {splits} parts: {what}"))
        };
        parts.iter().filter_map(fault).collect()
    })
}

/// Launches of different plans, each a case and its number of parts, on one device, with one workspace that is zeroed once.
pub fn assert_launches_share_a_workspace(
    spec: &DeviceSpec,
    kernel: Kernel,
    calls: impl IntoIterator<Item = (Case, u32)>,
) {
    let module = Module::parse(PTX_SM80).unwrap();
    let mut device = Device::new();
    let bytes = 1 << 20;
    let workspace = device.upload(&vec![0; bytes]);
    for (case, parts) in calls {
        let inputs = Inputs::<bf16>::generate(&case);
        let expected = Expected::compute(&inputs).unwrap();
        let plan = Plan::with_kernel(&inputs.problem(), spec, kernel).unwrap().with_splits(parts).unwrap();
        assert!(plan.workspace_bytes() <= bytes && plan.splits.count == parts, "{plan}");
        let verdict = expected.check(&launch(&mut device, &module, &plan, &inputs, workspace.address()));
        assert!(verdict.passes(), "{verdict}");
    }
    let counters = &device.download(workspace).unwrap()[..65536];
    assert!(counters.iter().all(|&byte| byte == 0));
}
