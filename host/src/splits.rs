//! Into how many parts the keys of a sequence are split between blocks.

use crate::device::DeviceSpec;
use crate::limits;
use crate::problem::Problem;
use evo_sdpa_kernels::config::{Decode, Kernel};
use evo_sdpa_kernels::params::Workspace;
use std::fmt;

/// Most parts that a plan chooses by itself.
const MAX_PLANNED: u32 = 128;
/// Waves of blocks that a plan chooses by itself at most, where one part has fewer.
const MAX_WAVES: u64 = 4;
/// Share of the best wave efficiency that is enough: fewer parts leave less to merge. FlashAttention's rule.
const ENOUGH: f64 = 0.85;

/// How the keys of a sequence are split between blocks, which only [`Kernel::Decode`] can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splits {
    /// Number of parts, at least 1.
    pub count: u32,
    /// Keys of a part; the last one may have fewer.
    pub keys: u32,
    /// Why.
    pub reason: SplitReason,
}

/// Why keys are split as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitReason {
    /// The kernel has all keys of a row in one block.
    Whole,
    /// The caller asked for it.
    Forced,
    /// The least count of which the waves of blocks fill the places on the device to 85 % of what any count does.
    Fills {
        /// Blocks of the grid.
        blocks: u64,
        /// Blocks that the device holds at a time.
        places: u64,
    },
}

impl Splits {
    /// The splits of a kernel that does not split.
    pub(crate) const fn whole(kv_len: u32) -> Self {
        Self { count: 1, keys: kv_len, reason: SplitReason::Whole }
    }

    /// What the planner chooses. It depends on shapes and on the device alone.
    pub(crate) fn planned(kernel: Kernel, problem: &Problem, device: &DeviceSpec) -> Self {
        let kv_len = problem.kv_len() as u32;
        let Kernel::Decode(config) = kernel else { return Self::whole(kv_len) };
        let tiles = limits::row_tiles(problem) as u64 * problem.heads_kv() as u64 * problem.batch() as u64;
        let places = u64::from(device.sm_count) * u64::from(device.resident_blocks(kernel));
        let efficiency = |count: u32| {
            let waves = (tiles * u64::from(count)) as f64 / places.max(1) as f64;
            waves / waves.ceil()
        };
        let can_split = tiles <= Workspace::MAX_ROW_TILES.into();
        let most = if can_split { kv_len.div_ceil(config.step()).clamp(1, MAX_PLANNED) } else { 1 };
        let counts = || (1..=most).take_while(|&count| count == 1 || tiles * u64::from(count) <= MAX_WAVES * places);
        let best = counts().map(efficiency).fold(0.0, f64::max);
        let count = counts().find(|&count| efficiency(count) >= ENOUGH * best).unwrap_or(1);
        let splits = Self::of_count(config, kv_len, count);
        let blocks = tiles * u64::from(splits.count);
        Self { reason: SplitReason::Fills { blocks, places }, ..splits }
    }

    /// `count` parts of whole steps, or fewer where there are not so many steps.
    pub(crate) fn of_count(config: Decode, kv_len: u32, count: u32) -> Self {
        let steps = kv_len.div_ceil(config.step()).max(1);
        let per_split = steps.div_ceil(count.max(1));
        Self { count: steps.div_ceil(per_split), keys: per_split * config.step(), reason: SplitReason::Forced }
    }
}

impl fmt::Display for Splits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys in {} splits of {}", self.count, self.keys)?;
        match self.reason {
            SplitReason::Whole => Ok(()),
            SplitReason::Forced => f.write_str(", as asked for"),
            SplitReason::Fills { blocks, places } => write!(f, ": {blocks} blocks for {places} places on the device"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evo_sdpa_kernels::config::DType;
    use evo_sdpa_kernels::instances::KERNELS;

    fn decode() -> Decode {
        match Kernel::parse("decode_bf16_d128_q16_kv16_w4_s2") {
            Some(Kernel::Decode(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn planned(batch: usize, kv_len: usize) -> Splits {
        let problem = Problem::contiguous(DType::Bf16, [batch, 32, 8, 1, kv_len, 128]);
        Splits::planned(Kernel::Decode(decode()), &problem, &DeviceSpec::H200)
    }

    #[test]
    fn parts_are_whole_steps_that_cover_all_keys_and_none_is_empty() {
        let step = decode().step();
        for kv_len in [0, 1, step - 1, step, step + 1, 10 * step, 1000 * step + 3] {
            for count in [1, 2, 3, 7, 64, 5000] {
                let splits = Splits::of_count(decode(), kv_len, count);
                assert!(splits.keys.is_multiple_of(step) && splits.count >= 1 && splits.count <= count.max(1));
                assert!(splits.count * splits.keys >= kv_len);
                assert!((splits.count - 1) * splits.keys < kv_len.max(1), "{kv_len} keys in {count} parts: {splits}");
            }
        }
    }

    #[test]
    fn the_device_is_filled_with_as_few_splits_as_will_do() {
        // 3 blocks an SM have 396 places; 8 key heads.
        assert_eq!(planned(16, 8192).count, 3);
        assert!((42..=50).contains(&planned(1, 32768).count), "{}", planned(1, 32768));
        // 1.3 waves take the time of two, 2.6 that of three; 3.9 are not much better.
        assert_eq!(planned(64, 8192).count, 2, "{}", planned(64, 8192));
        assert_eq!(planned(4000, 8192).count, 1);
        assert_eq!(planned(1, 64).count, 1);
        assert_eq!(planned(1, 0).count, 1);
    }

    #[test]
    fn a_kernel_that_does_not_split_has_one_part() {
        let problem = Problem::contiguous(DType::F32, [1, 8, 8, 1, 9000, 64]);
        assert_eq!(Splits::planned(KERNELS[0], &problem, &DeviceSpec::L4), Splits::whole(9000));
    }
}
