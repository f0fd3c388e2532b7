//! The figures that Nsight Compute is asked for.
//!
//! The names are those of NVIDIA's metric library (the `nvperf_host` of CUDA 13.0), where every one of them exists for
//! GA100 (sm_80), AD104 (sm_89) and GH100 (sm_90) unless it says otherwise here. Those that begin with `launch__` are
//! Nsight Compute's own.

/// Time of the launch.
pub const TIME: &str = "gpu__time_duration.sum";
/// Cycles from start to end.
pub const CYCLES: &str = "sm__cycles_elapsed.max";
/// Cycles in which an SM had a warp, average over SMs.
pub const CYCLES_ACTIVE: &str = "sm__cycles_active.avg";
/// Part of an SM's warp slots in use while it is active, percent.
pub const WARPS_ACTIVE: &str = "sm__warps_active.avg.pct_of_peak_sustained_active";
/// Passes through shared memory.
pub const WAVEFRONTS: &str = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum";
/// Passes through shared memory that bank conflicts add.
pub const BANK_CONFLICTS: &str = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum";
/// Registers of a thread.
pub const REGISTERS: &str = "launch__registers_per_thread";
/// Blocks of the grid.
pub const GRID_SIZE: &str = "launch__grid_size";
/// How often the grid fills all SMs.
pub const WAVES: &str = "launch__waves_per_multiprocessor";

/// A part of the GPU that can be busy all the time, and then limits the launch.
pub struct Unit {
    /// What it is called.
    pub name: &'static str,
    /// How busy it was, percent: the first of these that an architecture has.
    metrics: &'static [&'static str],
}

/// On AD10x the second name counts something else and is out of use.
pub const TENSOR: Unit = Unit {
    name: "tensor cores",
    metrics: &[
        "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_active",
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    ],
};
/// The GPU's memory.
pub const DRAM: Unit = Unit { name: "DRAM", metrics: &["dram__throughput.avg.pct_of_peak_sustained_elapsed"] };
/// The schedulers, each of which can issue one instruction a cycle.
pub const ISSUE: Unit =
    Unit { name: "instruction issue", metrics: &["smsp__issue_active.avg.pct_of_peak_sustained_active"] };
/// Shared memory, which takes one wavefront a cycle.
pub const SHARED: Unit = Unit {
    name: "shared memory",
    metrics: &["l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_active"],
};
/// Every unit. Those of an SM are measured while the SM is active, L2 and DRAM over the whole launch.
pub const UNITS: [Unit; 8] = [
    TENSOR,
    Unit { name: "special functions", metrics: &["sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active"] },
    Unit { name: "FMA pipe", metrics: &["sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active"] },
    Unit { name: "ALU pipe", metrics: &["sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active"] },
    ISSUE,
    SHARED,
    Unit { name: "L2", metrics: &["lts__throughput.avg.pct_of_peak_sustained_elapsed"] },
    DRAM,
];

impl Unit {
    /// How busy it was, percent, among figures that are looked up by name.
    pub fn busy(&self, get: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        self.metrics.iter().find_map(|metric| get(metric))
    }

    fn metric(&self, compute_capability: u32) -> &'static str {
        match *self.metrics {
            [newer, _] if compute_capability == 89 => newer,
            [.., metric] => metric,
            [] => "",
        }
    }
}

/// What keeps a warp from issuing its next instruction.
pub struct Stall {
    /// Nsight Compute's word for it.
    pub reason: &'static str,
    /// What the warp waits for.
    pub what: &'static str,
}

/// The issuing itself: in each cycle of an issue, one warp.
pub const SELECTED: &str = "selected";
/// Only Hopper has it.
const GMMA: &str = "gmma";
/// Every reason to wait.
pub const STALLS: [Stall; 18] = [
    Stall { reason: "long_scoreboard", what: "data from global or local memory" },
    Stall { reason: "short_scoreboard", what: "data from shared memory or special functions" },
    Stall { reason: "math_pipe_throttle", what: "a pipe that is busy with other warps" },
    Stall { reason: "mio_throttle", what: "room in the queue to shared memory and special functions" },
    Stall { reason: "lg_throttle", what: "room in the queue to global and local memory" },
    Stall { reason: "tex_throttle", what: "room in the queue to textures" },
    Stall { reason: "wait", what: "the fixed latency of its instructions" },
    Stall { reason: "barrier", what: "other warps at a barrier" },
    Stall { reason: "membar", what: "a memory fence" },
    Stall { reason: "imc_miss", what: "the constant cache" },
    Stall { reason: "no_instruction", what: "instructions to be fetched" },
    Stall { reason: "branch_resolving", what: "a branch to be resolved" },
    Stall { reason: "dispatch_stall", what: "the dispatcher" },
    Stall { reason: "drain", what: "its last stores" },
    Stall { reason: "sleeping", what: "the end of a sleep" },
    Stall { reason: "misc", what: "something else" },
    Stall { reason: "not_selected", what: "its turn, ready" },
    Stall { reason: GMMA, what: "matrix products of its warp group" },
];

/// Warps in this state for each instruction issued, which is also the cycles that a warp spends in it for each of its
/// instructions.
pub fn stall(reason: &str) -> String {
    format!("smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio")
}

/// What can bound the blocks of an SM.
pub struct Limit {
    /// The resource.
    pub name: &'static str,
    /// Blocks that it lets an SM hold.
    pub metric: &'static str,
}

/// Every such resource.
pub const LIMITS: [Limit; 4] = [
    Limit { name: "registers", metric: "launch__occupancy_limit_registers" },
    Limit { name: "shared memory", metric: "launch__occupancy_limit_shared_mem" },
    Limit { name: "warp slots", metric: "launch__occupancy_limit_warps" },
    Limit { name: "block slots", metric: "launch__occupancy_limit_blocks" },
];

/// Every figure for an architecture, major * 10 + minor of its compute capability.
pub fn all(compute_capability: u32) -> Vec<String> {
    let single = [TIME, CYCLES, CYCLES_ACTIVE, WARPS_ACTIVE, WAVEFRONTS, BANK_CONFLICTS, REGISTERS, GRID_SIZE, WAVES]
        .into_iter();
    let units = UNITS.iter().map(|unit| unit.metric(compute_capability));
    let limits = LIMITS.iter().map(|limit| limit.metric);
    let reasons = STALLS.iter().map(|stall| stall.reason).chain([SELECTED]);
    let stalls = reasons.filter(|&reason| reason != GMMA || compute_capability / 10 == 9).map(stall);
    single.chain(units).chain(limits).map(String::from).chain(stalls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_figure_is_asked_for_once() {
        for compute_capability in [80, 86, 89, 90, 100] {
            let all = all(compute_capability);
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        }
    }

    #[test]
    fn an_architecture_is_asked_for_what_it_has() {
        let has = |compute_capability, part: &str| all(compute_capability).iter().any(|name| name.contains(part));
        assert!(has(89, "tensor_cycles_active_v2.") && !has(89, "tensor_cycles_active."));
        assert!(has(90, "tensor_cycles_active.") && !has(90, "tensor_cycles_active_v2."));
        assert!(has(90, "gmma") && !has(80, "gmma") && !has(89, "gmma"));
    }
}
