//! How long a plan takes to simulate.

use crate::plan::Plan;
use evo_sdpa_kernels::config::Kernel;

/// Estimated instructions of all warps in the launch of a plan, as if no key were masked. The simulator executes some
/// ten million in a second.
pub fn work(plan: &Plan) -> u64 {
    // Instructions of a warp: apart from the keys, for each step of keys, and keys of a step.
    let (start, step, keys) = match plan.kernel {
        Kernel::FwdScalar(_) => (500, 600, 32),
        Kernel::FwdSm80(c) => (1000, c.rows_per_warp() * c.tile_kv * c.head_dim / 128, c.step()),
    };
    let steps = plan.params.kv_len.div_ceil(keys);
    let warps = plan.grid.iter().fold(u64::from(plan.block / 32), |warps, &n| warps.saturating_mul(n.into()));
    warps.saturating_mul(start + u64::from(steps) * u64::from(step))
}
