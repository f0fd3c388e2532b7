//! What every device that runs kernels is asked: a GPU and the simulator alike.

use evo_sdpa::verify::{Case, Expected, Inputs, Kind, Storage};
use evo_sdpa::{Causal, DType, DeviceSpec, Element, KERNELS, Kernel, Plan, cpu, with_element};

/// Head dims that between them bring every kernel its own and the one with the most padding.
pub const HEAD_DIMS: [usize; 12] = [8, 32, 40, 64, 72, 96, 104, 128, 136, 192, 200, 256];

/// A device under test.
pub trait Device {
    /// The kernel's answer, or the planner's kernel's, into poisoned memory; or what went wrong on the way to it.
    fn attention<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<cpu::Output<T>, String>;
}

/// What is wrong with the answers to `case`: at most one line for each way to compute it.
pub fn faults(device: &impl Device, case: &Case, ways: impl IntoIterator<Item = Option<Kernel>>) -> Vec<String> {
    with_element!(case.dtype, T => {
        let inputs = Inputs::<T>::generate(case);
        let expected = Expected::compute(&inputs).unwrap();
        let fault = |kernel: Option<Kernel>| {
            let what = match device.attention(&inputs, kernel).map(|answer| expected.check(&answer)) {
                Ok(verdict) if verdict.passes() => return None,
                Ok(verdict) => verdict.to_string(),
                Err(error) => error,
            };
            let way = kernel.map_or("the planned kernel".into(), |kernel| kernel.to_string());
            Some(format!("{way} {case}: {what}"))
        };
        ways.into_iter().filter_map(fault).collect()
    })
}

/// Fails with all of `faults`.
#[track_caller]
pub fn assert_no_faults(faults: impl Iterator<Item = String>) {
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The kernels that take a case on a device.
pub fn kernels(case: &Case, device: &DeviceSpec) -> impl Iterator<Item = Kernel> {
    let takes = |kernel: &Kernel| Plan::with_kernel(&case.problem(), device, *kernel).is_ok();
    KERNELS.iter().copied().filter(takes)
}

/// Few cases, each with more than one difficulty.
pub fn nasty_cases(dtype: DType, head_dim: usize) -> Vec<Case> {
    let case = |[batch, heads_q, heads_kv, q_len, kv_len]: [usize; 5], causal| Case {
        dtype,
        causal,
        ..Case::new([batch, heads_q, heads_kv, q_len, kv_len, head_dim])
    };
    vec![
        case([1, 2, 1, 1, 1], None),
        case([1, 2, 2, 5, 0], None),
        case([1, 2, 1, 65, 64], Some(Causal::Offset(-1000))),
        Case { storage: Storage::Bshd, ..case([2, 4, 2, 77, 95], Some(Causal::BottomRight)) },
        Case { storage: Storage::Bshd, seed: 2, ..case([2, 6, 2, 195, 77], Some(Causal::TopLeft)) },
        Case { storage: Storage::Padded, seed: 3, ..case([1, 3, 1, 33, 557], Some(Causal::Offset(3))) },
        Case { kv_lens: true, ..case([3, 4, 1, 140, 350], Some(Causal::Offset(-5))) },
        Case { kv_lens: true, ..case([4, 2, 2, 1, 700], None) },
        Case { kind: Kind::Large, ..case([1, 2, 2, 130, 130], None) },
        Case { kind: Kind::Hot, ..case([1, 1, 1, 257, 513], None) },
        Case { kind: Kind::Denormal, ..case([1, 1, 1, 40, 40], None) },
        Case { scale: Some(0.0), ..case([1, 2, 2, 64, 64], Some(Causal::BottomRight)) },
    ]
}
