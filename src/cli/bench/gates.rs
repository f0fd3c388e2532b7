//! What a kernel has to pass before its time counts.

use crate::cli::record::Quantiles;
use evo_sdpa::gpu::Resources;
use evo_sdpa::verify::Verdict;
use evo_sdpa::{DeviceSpec, Kernel};
use std::fmt;

/// The gates, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The driver compiles the kernel.
    Compile,
    /// No local memory, and as many blocks on a multiprocessor as planned.
    Resources,
    /// The answer agrees with the reference.
    Correctness,
    /// It runs, and no slower than the baseline.
    Speed,
}

/// A gate that a kernel did not pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Which one.
    pub gate: Gate,
    /// Why.
    pub what: String,
}

impl Gate {
    /// This gate's failure, from what went wrong.
    pub fn failed(self, what: impl fmt::Display) -> Failure {
        Failure { gate: self, what: what.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gate = match self.gate {
            Gate::Compile => "compile",
            Gate::Resources => "resources",
            Gate::Correctness => "correctness",
            Gate::Speed => "speed",
        };
        write!(f, "FAILED {gate}: {}", self.what)
    }
}

/// Whether the driver made of a kernel what the planner counts on.
pub fn resources(kernel: Kernel, found: &Resources, device: &DeviceSpec) -> Result<(), Failure> {
    let planned = device.resident_blocks(kernel);
    if found.local_bytes > 0 {
        let what = format!("{} bytes of local memory a thread, allowed: 0", found.local_bytes);
        return Err(Gate::Resources.failed(what));
    }
    if found.blocks_per_sm < planned {
        let what = format!("{} blocks on a multiprocessor, allowed: {planned} or more", found.blocks_per_sm);
        return Err(Gate::Resources.failed(what));
    }
    Ok(())
}

/// Whether an answer is right.
pub fn correctness(verdict: &Verdict) -> Result<(), Failure> {
    if verdict.passes() { Ok(()) } else { Err(Gate::Correctness.failed(verdict)) }
}

/// Whether a median is within `tolerance` per cent of the baseline's, where there is one.
pub fn speed(times: &Quantiles, baseline: Option<f64>, tolerance: f64) -> Result<(), Failure> {
    match baseline {
        Some(before) if times.p50 > before * (1.0 + tolerance / 100.0) => {
            let change = 100.0 * (times.p50 / before - 1.0);
            let what =
                format!("{:.2} us, {change:.1} % over the baseline's {before:.2}, allowed: {tolerance} %", times.p50);
            Err(Gate::Speed.failed(what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evo_sdpa::KERNELS;

    const FOUND: Resources = Resources {
        registers: 128,
        local_bytes: 0,
        static_shared_bytes: 0,
        dynamic_shared_bytes: 0,
        max_threads: 128,
        ptx_version: 80,
        binary_version: 90,
        blocks_per_sm: 32,
    };

    #[test]
    fn local_memory_and_too_few_blocks_fail_the_resources() {
        let gate = |found| resources(KERNELS[0], &found, &DeviceSpec::H200).map_err(|failure| failure.to_string());
        assert_eq!(gate(FOUND), Ok(()));
        let spilled = gate(Resources { local_bytes: 16, ..FOUND }).unwrap_err();
        assert_eq!(spilled, "FAILED resources: 16 bytes of local memory a thread, allowed: 0");
        assert!(gate(Resources { blocks_per_sm: 0, ..FOUND }).unwrap_err().contains("0 blocks on a multiprocessor"));
    }

    #[test]
    fn only_a_median_beyond_the_tolerance_fails_the_speed() {
        let times = Quantiles { min: 1.0, p50: 10.3, p90: 50.0, p99: 90.0 };
        assert_eq!(speed(&times, None, 0.0), Ok(()));
        assert_eq!(speed(&times, Some(10.0), 3.1), Ok(()));
        let failure = speed(&times, Some(10.0), 2.9).unwrap_err();
        assert_eq!(failure.gate, Gate::Speed);
        assert!(failure.what.starts_with("10.30 us, 3.0 % over the baseline's 10.00"), "{}", failure.what);
    }
}
