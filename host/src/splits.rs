//! Into how many parts the keys of a sequence are split between blocks.

use crate::device::DeviceSpec;
use crate::limits;
use crate::model::Setting;
use crate::problem::Problem;
use evo_sdpa_kernels::config::{Decode, Kernel};
use evo_sdpa_kernels::params::Workspace;
use std::fmt;

/// How the keys of a sequence are split between blocks, by kernels with a [`Kernel::split_step`].
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
    /// It was the fastest by a tuned table.
    Tuned,
    /// The least predicted time.
    Predicted,
    /// The most with which no SM has two blocks; one where even that gives some SM two.
    Fills {
        /// Blocks of the grid.
        blocks: u64,
        /// SMs of the device.
        sm_count: u32,
    },
}

impl Splits {
    /// The splits of a kernel that does not split.
    pub(crate) const fn whole(kv_len: u32) -> Self {
        Self { count: 1, keys: kv_len, reason: SplitReason::Whole }
    }

    /// What the planner chooses for a kernel. It depends on shapes and on the device alone.
    pub(crate) fn of(kernel: Kernel, problem: &Problem, device: &DeviceSpec) -> Self {
        let kv_len = problem.kv_len() as u32;
        match kernel {
            Kernel::Decode(config) => {
                Self::planned(config, kv_len, limits::row_tiles_of_all_heads(problem), device.sm_count)
            }
            Kernel::FwdSm80(config) if config.shares_keys => {
                let planned = Setting::new(problem, device).splits(kernel);
                planned.unwrap_or(Self::whole(kv_len))
            }
            _ => Self::whole(kv_len),
        }
    }

    /// As many parts as give every SM at most one block, for so many tiles of rows, or one where there are more tiles.
    ///
    /// The stages of one block hold enough bytes on their way from memory to take an SM's share of them. More blocks
    /// take no less time, start later, and leave more to merge: an H200 lost 3 % with two for each SM where blocks had
    /// 8192 keys, and 5 to 11 % where they had 2048.
    pub(crate) fn planned(config: Decode, kv_len: u32, row_tiles: u64, sm_count: u32) -> Self {
        // More row tiles than the workspace has counters are not split.
        let blocks = u64::from(sm_count.min(Workspace::MAX_ROW_TILES));
        let count = (blocks / row_tiles.max(1)).max(1) as u32;
        let splits = Self::of_count(config.step(), kv_len, count, SplitReason::Forced);
        let blocks = row_tiles.saturating_mul(splits.count.into());
        Self { reason: SplitReason::Fills { blocks, sm_count }, ..splits }
    }

    /// `count` parts of whole steps of `step` keys, or fewer where there are not so many steps.
    pub(crate) fn of_count(step: u32, kv_len: u32, count: u32, reason: SplitReason) -> Self {
        let steps = kv_len.div_ceil(step).max(1);
        let per_split = steps.div_ceil(count.max(1));
        Self { count: steps.div_ceil(per_split), keys: per_split * step, reason }
    }
}

impl fmt::Display for Splits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let splits = if self.count == 1 { "split" } else { "splits" };
        write!(f, "keys in {} {splits} of {}", self.count, self.keys)?;
        match self.reason {
            SplitReason::Whole => Ok(()),
            SplitReason::Forced => f.write_str(", as asked for"),
            SplitReason::Predicted => f.write_str(", least predicted time"),
            SplitReason::Tuned => f.write_str(", as in the tuned table"),
            SplitReason::Fills { blocks, sm_count } => write!(f, ": {blocks} blocks for {sm_count} SMs"),
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
        Splits::of(Kernel::Decode(decode()), &problem, &DeviceSpec::H200)
    }

    #[test]
    fn parts_are_whole_steps_that_cover_all_keys_and_none_is_empty() {
        let step = decode().step();
        for kv_len in [0, 1, step - 1, step, step + 1, 10 * step, 1000 * step + 3] {
            for count in [1, 2, 3, 7, 64, 5000] {
                let splits = Splits::of_count(step, kv_len, count, SplitReason::Forced);
                assert!(splits.keys.is_multiple_of(step) && splits.count >= 1 && splits.count <= count.max(1));
                assert!(splits.count * splits.keys >= kv_len);
                assert!((splits.count - 1) * splits.keys < kv_len.max(1), "{kv_len} keys in {count} parts: {splits}");
            }
        }
    }

    #[test]
    fn no_sm_has_two_blocks_where_keys_are_split_and_no_part_is_below_a_step() {
        // 8 key heads on 132 SMs.
        assert_eq!(planned(1, 32768).count, 16);
        assert_eq!(planned(2, 32768).count, 8);
        assert_eq!(planned(8, 32768).count, 2);
        assert_eq!([9, 16, 64, 4000].map(|batch| planned(batch, 8192).count), [1; 4]);
        assert_eq!([0, 1, 64, 65, 640].map(|kv_len| planned(1, kv_len).count), [1, 1, 1, 2, 10]);
        assert_eq!(planned(2, 32768).to_string(), "keys in 8 splits of 4096: 128 blocks for 132 SMs");
        assert_eq!(planned(16, 8192).to_string(), "keys in 1 split of 8192: 128 blocks for 132 SMs");
    }

    #[test]
    fn a_device_of_any_size_is_planned_for() {
        for sm_count in [0, 1, u32::MAX] {
            let device = DeviceSpec { sm_count, ..DeviceSpec::H200 };
            let problem = Problem::contiguous(DType::Bf16, [1, 1, 1, 1, 1 << 29, 128]);
            let splits = Splits::of(Kernel::Decode(decode()), &problem, &device);
            assert_eq!(splits.count, sm_count.clamp(1, Workspace::MAX_ROW_TILES), "{splits}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_split_has_one_part() {
        let problem = Problem::contiguous(DType::F32, [1, 8, 8, 1, 9000, 64]);
        assert_eq!(Splits::of(KERNELS[0], &problem, &DeviceSpec::L4), Splits::whole(9000));
    }
}
