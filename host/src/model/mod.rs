//! The time model: how long a launch takes, predicted from the kernel, the problem and the device.
//!
//! One model serves the planner, which compares kernels, and the reader, who wants to know where the time goes. Its
//! rates are a device's own ([`Rates`]). What follows is the machine that it imagines. Its constants (`START`,
//! `EXPOSED` and the others of this module) were fitted to the launches on an H200 that `docs/PERF.md` lists.
//!
//! - The busiest SM runs its blocks in *rounds*, as many at a time as fit. A round is steps of keys, and a merge where
//!   keys are split. The start of a block and its end are no time of others.
//! - In a *step* a block keeps three pipes busy: tensor cores, exponentials, shared memory. They overlap in part:
//!   the step takes the longest pipe's time and `EXPOSED` of the others', or `EXPOSED_LAGGING` of theirs and of
//!   the copies' where the product with values lags. Blocks that share an SM share its pipes. However many they are, no step is shorter than that of a block
//!   that is alone, with its latencies.
//! - A causal mask makes blocks uneven. Where they go through all heads side by side (`grid`), those with many keys start
//!   first and meet those with few: SMs get equal shares, yet no launch is faster than its longest block, alone. Where a
//!   head comes after the other, the longest block of the last one is left when an average one is done.
//! - No launch is faster than its bytes come through L2, and from DRAM where the tensors do not fit L2.
//! - `decode` streams keys and is bound by memory, or by what a warp takes for a tile: `stream` says how.
//! - Where blocks of `fwd_sm80` share keys, the number of parts is the one with the least time: `shared` says how.
//! - Blocks of `fwd_sm90` are persistent and take tile after tile: `persistent` says how.
//! - Launches that quantise are bound by memory, and nothing is known of them but their bytes: `quantize` says how.
//! - Where the power limit is known it lowers the clock. Power goes with the activity of the tensor cores and with
//!   the cube of the clock, since voltage follows the clock: `clock = sustained / activity^(1/3)`.

mod divisor;
mod persistent;
mod quantize;
mod rates;
mod schedule;
mod setting;
mod shared;
mod step;
mod stream;
mod table;

pub use rates::Rates;
pub(crate) use setting::Setting;
pub use step::{Bound, Step};

use crate::device::DeviceSpec;
use crate::error::Result;
use crate::limits;
use crate::problem::Problem;
use evo_sdpa_kernels::config::Kernel;
use schedule::{Rounds, Walk};
use std::fmt;
use step::Work;
use table::Row;

/// From the start of a block to its first instruction on data, and from its last store to the end, without the copies
/// themselves: scheduling, parameters, addresses, the way to L2. Blocks that share an SM pay it one after the other: those
/// that start together take their first steps in phase, and wait for the same pipes. Microseconds, fitted.
const START: f64 = 0.65;

/// Predicted microseconds of one launch among launches back to back. The terms add up to [`Prediction::total`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// What an empty kernel takes.
    pub launch: f64,
    /// The kernel ahead that transposes e4m3 values: its own launch, and its bytes. 0 for kernels that do without it.
    pub transpose: f64,
    /// Starts and ends of blocks: the copies that their first step waits for, and the product that comes after the last.
    pub start: f64,
    /// Steps of keys of the average block, in all rounds.
    pub steps: f64,
    /// What the longest blocks still take when the average one is done: causal masks make blocks uneven.
    pub tail: f64,
    /// Merges of the parts of the keys, in all rounds.
    pub merge: f64,
    /// What the power limit adds to the terms above but for the first two.
    pub power: f64,
    /// What all of the above is too fast for L2 or DRAM.
    pub memory: f64,
    /// One step of the blocks that share an SM; none for `fwd_scalar`.
    pub step: Option<Step>,
    /// What binds the steps, or the whole launch where that is memory; none where neither takes time.
    pub bound: Option<Bound>,
}

impl Prediction {
    /// The prediction for `kernel` on `device`.
    ///
    /// The keys of `kv_lens` are not known before the launch: all `kv_len` of them count.
    ///
    /// # Errors
    /// Those of [`crate::Plan::with_kernel`].
    pub fn of(kernel: Kernel, problem: &Problem, device: &DeviceSpec) -> Result<Self> {
        limits::validate_for_gpu(problem)?;
        let index = limits::takes(&kernel, problem, device)?;
        let setting = Setting::new(problem, device);
        Ok(setting.predict(&Row::new(index, &setting.rates)))
    }

    /// Predicted microseconds: the sum of the terms.
    pub fn total(&self) -> f64 {
        self.terms().map(|(_, time)| time).sum()
    }

    /// The terms by name, microseconds.
    pub fn terms(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let Self { launch, transpose, start, steps, tail, merge, power, memory, .. } = *self;
        [
            ("launch", launch),
            ("transpose", transpose),
            ("start", start),
            ("steps", steps),
            ("tail", tail),
            ("merge", merge),
            ("power", power),
            ("memory", memory),
        ]
        .into_iter()
    }

    /// The arithmetic at full clock, and nothing else, where four rows and 32 keys take `step`.
    #[inline]
    fn scalar(launch: f64, step: f64, rounds: &Rounds, walk: &Walk) -> Self {
        Self {
            launch,
            start: START,
            steps: rounds.per_sm * walk.average * step,
            bound: (walk.longest > 0.0).then_some(Bound::Arithmetic),
            ..Self::default()
        }
    }

    /// The blocks at full clock.
    #[inline]
    fn sm80(launch: f64, work: &Work, rounds: &Rounds, walk: &Walk, side_by_side: bool) -> Self {
        let step = work.step(rounds.at_a_time());
        let steps = walk.average * rounds.time(|blocks| work.step(blocks).total());
        Self {
            launch,
            start: rounds.per_sm * (START + work.ends),
            steps,
            tail: if side_by_side {
                (walk.longest * step.alone - steps).max(0.0)
            } else {
                (walk.longest - walk.average) * step.total()
            },
            merge: rounds.time(|blocks| work.merge(blocks)),
            step: Some(step),
            bound: (walk.longest > 0.0).then(|| step.bound()),
            ..Self::default()
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} us", self.total())?;
        let mut sign = " = ";
        for (name, time) in self.terms().filter(|&(_, time)| time > 0.0) {
            write!(f, "{sign}{name} {time:.2}")?;
            sign = " + ";
        }
        match self.bound {
            Some(bound) => write!(f, ", bound by {bound}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evo_sdpa_kernels::config::DType;

    /// The prediction for an H200 with other rates.
    fn predict(kernel: Kernel, problem: &Problem, rates: Rates) -> Prediction {
        let index = limits::index(kernel).expect("a kernel that ships");
        Setting::with_rates(problem, &DeviceSpec::H200, rates).predict(&Row::new(index, &rates))
    }

    /// The bound of a long problem on an H200 with other rates.
    fn bound(rates: impl FnOnce(&mut Rates)) -> Option<Bound> {
        let kernel = Kernel::parse("fwd_sm80_bf16_d128_q128_kv32_w4_s2").expect("a name that parses");
        let problem = Problem::contiguous(DType::Bf16, [4, 16, 16, 4096, 4096, 128]);
        let mut changed = Rates::of(&DeviceSpec::H200);
        rates(&mut changed);
        predict(kernel, &problem, changed).bound
    }

    #[test]
    fn the_bound_is_the_resource_that_is_slow() {
        assert_eq!(bound(|rates| rates.tensor /= 4.0), Some(Bound::TensorCores));
        assert_eq!(bound(|rates| rates.exponentials /= 4.0), Some(Bound::Exponentials));
        assert_eq!(bound(|rates| rates.shared /= 4.0), Some(Bound::SharedMemory));
        assert_eq!(bound(|rates| rates.l2 /= 10.0), Some(Bound::L2));
        assert_eq!(bound(|rates| rates.dram /= 100.0), Some(Bound::Dram));
    }

    #[test]
    fn a_power_limit_slows_the_clock_by_the_cube_root_of_the_activity() {
        let kernel = Kernel::parse("fwd_sm80_bf16_d64_q128_kv64_w4_s2").expect("a name that parses");
        let problem = Problem::contiguous(DType::Bf16, [4, 32, 32, 4096, 4096, 64]);
        let total = |sustained| {
            let rates = Rates { sustained, ..Rates::of(&DeviceSpec::H200) };
            predict(kernel, &problem, rates).total() - rates.launch
        };
        // Half the power budget in both: the clock halves, whatever the activity.
        assert!((total(0.25) / total(0.5) - 2.0).abs() < 1e-9);
        assert!(total(0.5) > total(1.0) && total(1.0) == total(2.0));
    }
}
