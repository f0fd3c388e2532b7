//! The least time of the launches that quantise: their bytes, and what no launch is without.
//!
//! Nothing of it was fitted, and a launch may take longer: no pipe of an SM is looked at.

use super::rates::Rates;
use super::step::Bound;
use super::{Prediction, START};
use crate::device::DeviceSpec;
use crate::quantize::{QuantizeLaunch, QuantizePlan};

impl Prediction {
    /// The launches of `plan` on `device`, each with its least time: an empty kernel, the start of a block, and
    /// [`QuantizePlan::bytes`] at the rate of L2, or of a copy within DRAM where the tensors do not fit L2.
    pub fn of_quantize(
        plan: &QuantizePlan,
        device: &DeviceSpec,
    ) -> impl Iterator<Item = (QuantizeLaunch, Self)> + use<> {
        let rates = Rates::of(device);
        // The last launch has all tensors. Launches back to back find in L2 what fits there.
        let tensors = plan.launches().last().map_or(0.0, |launch| plan.bytes(launch.entry));
        let (rate, bound) = if tensors > rates.l2_capacity { (rates.dram, Bound::Dram) } else { (rates.l2, Bound::L2) };
        let plan = *plan;
        plan.launches().map(move |launch| {
            let memory = plan.bytes(launch.entry) / rate;
            (launch, Self { launch: rates.launch, start: START, memory, bound: Some(bound), ..Self::default() })
        })
    }
}
