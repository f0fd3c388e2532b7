//! From a problem to a launch: which kernel, which grid, which parameters, and why. Plain data, made without a GPU.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::limits::{self, ROW_ALIGNMENT};
use crate::model::{Prediction, Setting};
use crate::nvtx::Range;
use crate::problem::Problem;
use crate::tuned::TunedKernels;
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{FwdParams, kv_head_reciprocal};
use std::fmt;

/// Why a plan has the kernel that it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// The caller asked for it.
    Forced,
    /// No other kernel takes the problem on this device.
    Only,
    /// The fastest in a table of measured times.
    Tuned {
        /// Its time there, microseconds.
        us: f64,
    },
    /// The least predicted time among several.
    Predicted {
        /// How many kernels could have run.
        candidates: usize,
        /// Blocks of the grid.
        blocks: u64,
        /// Blocks that one SM holds at a time.
        resident: u32,
        /// Predicted time relative to the runner-up, below 1.
        ratio: f64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Forced => f.write_str("asked for by name"),
            Reason::Only => f.write_str("the only kernel that takes this problem on this device"),
            Reason::Tuned { us } => write!(f, "the fastest by the tuned table: {us:.2} us measured"),
            Reason::Predicted { candidates, blocks, resident, ratio } => write!(
                f,
                "least predicted time of {candidates} kernels: {blocks} blocks, {resident} at a time on an SM, \
                 {ratio:.2} x the runner-up's time"
            ),
        }
    }
}

/// A launch, complete but for the addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The kernel; its `Display` is the entry name.
    pub kernel: Kernel,
    /// Blocks along x (query tiles), y (query heads) and z (batch). A zero means that there is nothing to compute
    /// and nothing is launched.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Parameters, with null addresses: see [`Plan::bind`].
    pub params: FwdParams,
    /// Why this kernel.
    pub reason: Reason,
    /// Where the kernel is in [`KERNELS`]: a launch finds it there without a search.
    index: usize,
    kv_lens: bool,
    lse: bool,
}

/// Device addresses of one call. They are the caller's; nothing is freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePointers {
    /// First element of q.
    pub q: u64,
    /// First element of k.
    pub k: u64,
    /// First element of v.
    pub v: u64,
    /// First element of out.
    pub out: u64,
    /// f32 \[batch, heads_q, q_len\]; null exactly when the problem does not ask for it.
    pub lse: u64,
    /// 32-bit \[batch\]; null exactly when the problem has no `kv_lens`.
    pub kv_lens: u64,
}

impl Plan {
    /// The plan with the least predicted time on `device`.
    pub fn new(problem: &Problem, device: &DeviceSpec) -> Result<Self> {
        let _range = Range::new(c"plan");
        limits::validate_for_gpu(problem)?;
        let setting = Setting::new(problem, device);
        // The least and the second least time; of equals the first in the table counts as less.
        let mut best = None;
        let mut runner_up = None;
        let mut candidates = 0;
        for row in setting.takers() {
            candidates += 1;
            let less =
                |time: f64, other: Option<(_, f64)>| other.is_none_or(|(_, other)| time.total_cmp(&other).is_lt());
            let at_full_clock = setting.at_full_clock(row);
            if !less(at_full_clock.least(), runner_up) {
                continue;
            }
            let time = at_full_clock.throttled(&setting).total();
            if less(time, best) {
                (best, runner_up) = (Some((row, time)), best);
            } else if less(time, runner_up) {
                runner_up = Some((row, time));
            }
        }
        let Some((row, least)) = best else {
            return Err(Error::Unsupported {
                field: "device",
                value: format!("compute capability {}", device.compute_capability),
                allowed: "80 or later".into(),
            });
        };
        let grid = limits::grid(row.kernel, problem);
        let reason = match runner_up {
            None => Reason::Only,
            Some((_, second)) => Reason::Predicted {
                candidates,
                blocks: grid.iter().map(|&n| u64::from(n)).product(),
                resident: setting.resident(row),
                // Nothing to compute takes no time.
                ratio: if second > 0.0 { least / second } else { 1.0 },
            },
        };
        Ok(Self::assemble(row.index, problem, grid, reason))
    }

    /// The plan with the kernel that `tuned` has for the problem, if it takes it; else [`Plan::new`].
    pub fn tuned(problem: &Problem, device: &DeviceSpec, tuned: &TunedKernels) -> Result<Self> {
        if let Some(choice) = tuned.get(problem) {
            limits::validate_for_gpu(problem)?;
            let kernel = KERNELS[choice.index];
            if limits::takes_valid(&kernel, problem, device) {
                let grid = limits::grid(kernel, problem);
                return Ok(Self::assemble(choice.index, problem, grid, Reason::Tuned { us: choice.us }));
            }
        }
        Self::new(problem, device)
    }

    /// The kernels that take `problem` on `device`, each with its predicted time, the least first.
    pub fn candidates(problem: &Problem, device: &DeviceSpec) -> Result<Vec<(Kernel, Prediction)>> {
        limits::validate_for_gpu(problem)?;
        let setting = Setting::new(problem, device);
        let mut candidates: Vec<_> = setting.takers().map(|row| (row.kernel, setting.predict(row))).collect();
        candidates.sort_by(|a, b| a.1.total().total_cmp(&b.1.total()));
        Ok(candidates)
    }

    /// The plan with a kernel of the caller's choice.
    pub fn with_kernel(problem: &Problem, device: &DeviceSpec, kernel: Kernel) -> Result<Self> {
        limits::validate_for_gpu(problem)?;
        let index = limits::takes(&kernel, problem, device)?;
        Ok(Self::assemble(index, problem, limits::grid(kernel, problem), Reason::Forced))
    }

    /// [`Plan::with_kernel`] for a kernel of the caller's choice, [`Plan::new`] for none.
    pub fn choose(problem: &Problem, device: &DeviceSpec, kernel: Option<Kernel>) -> Result<Self> {
        match kernel {
            None => Self::new(problem, device),
            Some(kernel) => Self::with_kernel(problem, device, kernel),
        }
    }

    /// Bytes of device memory that the launch needs beside its tensors. It depends on shapes alone.
    pub fn workspace_bytes(&self) -> usize {
        0
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }

    /// Where the kernel is in [`KERNELS`]. The kernel of a plan is everybody's to exchange, so that it is looked at.
    #[cfg(feature = "gpu")]
    pub(crate) fn index(&self) -> Option<usize> {
        if KERNELS.get(self.index) == Some(&self.kernel) { Some(self.index) } else { limits::index(self.kernel) }
    }

    /// The parameter block for these addresses. Fails on a null or misaligned one.
    pub fn bind(&self, pointers: &DevicePointers) -> Result<FwdParams> {
        let DevicePointers { q, k, v, out, lse, kv_lens } = *pointers;
        let has_keys = self.params.kv_len > 0;
        let optional = |wanted| {
            if wanted { "an address, as the problem asks for it" } else { "null, as the problem does not ask for it" }
        };
        for (field, address, wanted, alignment) in [
            ("q", q, true, ROW_ALIGNMENT),
            ("k", k, has_keys, ROW_ALIGNMENT),
            ("v", v, has_keys, ROW_ALIGNMENT),
            ("out", out, true, ROW_ALIGNMENT),
            ("lse", lse, self.lse, 4),
            ("kv_lens", kv_lens, self.kv_lens, 4),
        ] {
            let tensor = alignment == ROW_ALIGNMENT;
            let present_as_wanted = if tensor { address != 0 || !wanted } else { (address != 0) == wanted };
            if !present_as_wanted && !self.is_empty() {
                let allowed = if tensor { "an address on the device" } else { optional(wanted) };
                return Err(Error::Layout { field, value: format!("address {address:#x}"), allowed: allowed.into() });
            }
            if !address.is_multiple_of(alignment) {
                return Err(Error::Layout {
                    field,
                    value: format!("address {address:#x}"),
                    allowed: format!("a multiple of {alignment} bytes"),
                });
            }
        }
        Ok(FwdParams { q, k, v, out, lse, kv_lens, ..self.params })
    }

    fn assemble(index: usize, problem: &Problem, grid: [u32; 3], reason: Reason) -> Self {
        let kernel = KERNELS[index];
        let strides = |layout: &Layout| limits::strides(layout, problem.dtype);
        let params = FwdParams {
            q_stride: strides(&problem.q),
            k_stride: strides(&problem.k),
            v_stride: strides(&problem.v),
            out_stride: strides(&problem.out),
            kv_head_reciprocal: kv_head_reciprocal((problem.heads_q() / problem.heads_kv()).max(1) as u32),
            // Heads are an axis of the grid: below 2^16.
            heads_q: problem.heads_q() as u16,
            q_len: problem.q_len() as u32,
            kv_len: problem.kv_len() as u32,
            head_dim: problem.head_dim() as u32,
            causal_offset: limits::causal_offset(problem),
            // A scale of zero would turn masked scores into 0 * -inf = NaN; the smallest normal number gives
            // the same uniform weights.
            scale_log2: (f64::from(problem.scale()) * std::f64::consts::LOG2_E).max(f64::from(f32::MIN_POSITIVE))
                as f32,
            ..FwdParams::default()
        };
        Self {
            kernel,
            grid,
            block: kernel.threads(),
            shared_bytes: kernel.shared_bytes(),
            params,
            reason,
            index,
            kv_lens: problem.kv_lens,
            lse: problem.lse,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(
            f,
            "{} grid {x}x{y}x{z} block {} shared {} B ({})",
            self.kernel, self.block, self.shared_bytes, self.reason
        )
    }
}
