//! How long a plan takes to simulate.

use crate::plan::Plan;
use evo_sdpa_kernels::config::{Kernel, WARP};

/// Estimated instructions of all warps in the launch of a plan, as if no key were masked; right to a fifth or so where
/// there are many keys. The simulator executes some millions in a second.
pub fn work(plan: &Plan) -> u64 {
    // Instructions of a warp beside its keys, for a step of keys, and the keys of a step. The numbers were fitted to
    // reports.
    let (start, step, keys) = match plan.kernel {
        Kernel::FwdScalar(_) => (125, 900 + 6 * plan.params.head_dim, WARP),
        Kernel::FwdSm80(config) => {
            let scores = config.rows_per_warp() * config.tile_kv;
            let matrix = 2 * scores * config.head_dim / (16 * 8 * 16);
            (700, 100 + 2 * matrix + 6 * scores / WARP, config.step())
        }
        Kernel::FwdSm90(config) => {
            // Warps of the group that copies have next to nothing to do.
            let average = |consumer: u32| consumer * config.groups() / (config.groups() + 1);
            let (start, step) = (450 + 5 * config.head_dim / 2, 60 + 2 * config.tile_kv + config.head_dim / 3);
            (average(start), average(step), config.tile_kv)
        }
        Kernel::FwdFp8(config) => {
            let scores = config.block().rows_per_warp() * config.tile_kv;
            let matrix = 2 * scores * config.head_dim / (32 * 8 * 16);
            (700, 100 + 3 * matrix + 8 * scores / WARP, config.tile_kv)
        }
        Kernel::Decode(config) => (550, 80 + config.tile_kv * (28 + config.head_dim) / 10, config.step()),
    };
    let tiles = plan.tiles.map_or(plan.grid, |tiles| [tiles.count, 1, 1]);
    let warps = tiles.iter().fold(u64::from(plan.block / WARP), |warps, &n| warps.saturating_mul(n.into()));
    let steps = plan.splits.keys.min(plan.params.kv_len).div_ceil(keys);
    warps.saturating_mul(u64::from(start) + u64::from(steps) * u64::from(step))
}
