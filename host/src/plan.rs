//! From a problem to a launch: which kernel, which grid, which parameters, and why. Plain data, made without a GPU.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::nvtx::Range;
use crate::problem::Problem;
use evo_sdpa_kernels::config::{FwdSm80, Kernel, MAX_HEAD_DIM};
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{FwdParams, MAX_ROW_STRIDE, STRIDE_UNIT, Strides, kv_head_reciprocal};
use std::fmt;

/// Rows of every tensor start on such a boundary, bytes: the width of one `cp.async`.
const ROW_ALIGNMENT: u64 = STRIDE_UNIT as u64;
/// Grid limits of CUDA for the y and z dimension.
const MAX_GRID_YZ: usize = 65535;
/// Longest sequence: row numbers and causal offsets are added as i32 on the device.
const MAX_LEN: usize = 1 << 29;

/// Why a plan has the kernel that it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// The caller asked for it.
    Forced,
    /// No other kernel takes the problem on this device.
    Only,
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
        let candidates = Self::candidates(problem, device)?;
        let reason = match candidates[..] {
            [] => {
                return Err(Error::Unsupported {
                    field: "device",
                    value: format!("compute capability {}", device.compute_capability),
                    allowed: "80 or later".into(),
                });
            }
            [_] => Reason::Only,
            [(kernel, time), (_, second), ..] => Reason::Predicted {
                candidates: candidates.len(),
                blocks: grid(kernel, problem).iter().map(|&n| u64::from(n)).product(),
                resident: device.resident_blocks(kernel),
                // Nothing to compute takes no time.
                ratio: if second > 0.0 { time / second } else { 1.0 },
            },
        };
        let (kernel, _) = candidates[0];
        Ok(Self::assemble(kernel, problem, reason))
    }

    /// The kernels that take `problem` on `device`, each with its predicted microseconds, the least first.
    pub fn candidates(problem: &Problem, device: &DeviceSpec) -> Result<Vec<(Kernel, f64)>> {
        validate_for_gpu(problem)?;
        let taken = KERNELS.iter().filter(|kernel| takes(kernel, problem, device).is_ok());
        let mut candidates: Vec<_> = taken.map(|&kernel| (kernel, predicted_time(kernel, problem, device))).collect();
        candidates.sort_by(|a, b| a.1.total_cmp(&b.1));
        Ok(candidates)
    }

    /// The plan with a kernel of the caller's choice.
    pub fn with_kernel(problem: &Problem, device: &DeviceSpec, kernel: Kernel) -> Result<Self> {
        validate_for_gpu(problem)?;
        takes(&kernel, problem, device)?;
        Ok(Self::assemble(kernel, problem, Reason::Forced))
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

    fn assemble(kernel: Kernel, problem: &Problem, reason: Reason) -> Self {
        let strides = |layout: &Layout| {
            // A stride that is never taken may be anything.
            let unit = |axis: usize| match layout.shape()[axis] {
                ..=1 => 0,
                _ => (layout.strides()[axis] as u64 * u64::from(problem.dtype.size()) / ROW_ALIGNMENT) as u32,
            };
            Strides { batch: unit(0), head: unit(1), row: unit(2) }
        };
        // A larger offset hides nothing more, or nothing less.
        let clamp = |offset: i64| offset.clamp(-(1 << 30), 1 << 30) as i32;
        let params = FwdParams {
            q_stride: strides(&problem.q),
            k_stride: strides(&problem.k),
            v_stride: strides(&problem.v),
            out_stride: strides(&problem.out),
            kv_head_reciprocal: kv_head_reciprocal((problem.heads_q() / problem.heads_kv()).max(1) as u32),
            heads_q: problem.heads_q() as u32,
            q_len: problem.q_len() as u32,
            kv_len: problem.kv_len() as u32,
            head_dim: problem.head_dim() as u32,
            causal_offset: clamp(problem.causal_offset().unwrap_or(problem.kv_len() as i64)),
            // A scale of zero would turn masked scores into 0 * -inf = NaN; the smallest normal number gives
            // the same uniform weights.
            scale_log2: (f64::from(problem.scale()) * std::f64::consts::LOG2_E).max(f64::from(f32::MIN_POSITIVE))
                as f32,
            ..FwdParams::default()
        };
        Self {
            kernel,
            grid: grid(kernel, problem),
            block: kernel.threads(),
            shared_bytes: kernel.shared_bytes(),
            params,
            reason,
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

fn grid(kernel: Kernel, problem: &Problem) -> [u32; 3] {
    let tiles = (problem.q_len() as u32).div_ceil(kernel.tile_q());
    [tiles, problem.heads_q() as u32, problem.batch() as u32]
}

/// What every kernel asks for beyond [`Problem::validate`].
fn validate_for_gpu(problem: &Problem) -> Result<()> {
    problem.validate()?;
    let unsupported =
        |field, value: usize, allowed: String| Err(Error::Unsupported { field, value: value.to_string(), allowed });
    let head_dim = problem.head_dim();
    if !head_dim.is_multiple_of(8) || head_dim > MAX_HEAD_DIM as usize {
        return unsupported("head_dim", head_dim, format!("multiples of 8 up to {MAX_HEAD_DIM}"));
    }
    for (field, value, limit) in [
        ("batch", problem.batch(), MAX_GRID_YZ),
        ("heads_q", problem.heads_q(), MAX_GRID_YZ),
        ("q_len", problem.q_len(), MAX_LEN),
        ("kv_len", problem.kv_len(), MAX_LEN),
    ] {
        if value > limit {
            return unsupported(field, value, format!("at most {limit}"));
        }
    }
    let scale_log2 = f64::from(problem.scale()) * std::f64::consts::LOG2_E;
    if scale_log2 > f64::from(f32::MAX) {
        return Err(Error::Unsupported {
            field: "scale",
            value: problem.scale().to_string(),
            allowed: format!("at most {:e}", f64::from(f32::MAX) / std::f64::consts::LOG2_E),
        });
    }
    for (field, layout) in [("q", &problem.q), ("k", &problem.k), ("v", &problem.v), ("out", &problem.out)] {
        let size = u64::from(problem.dtype.size());
        for axis in 0..3 {
            let bytes = layout.strides()[axis] as u64 * size;
            if layout.shape()[axis] > 1 && !bytes.is_multiple_of(ROW_ALIGNMENT) {
                return Err(Error::Layout {
                    field,
                    value: format!("a stride of {bytes} bytes along {}", crate::layout::AXES[axis]),
                    allowed: format!("multiples of {ROW_ALIGNMENT} bytes"),
                });
            }
            let limit = if axis == 2 { u64::from(MAX_ROW_STRIDE) } else { 1 << 32 } * ROW_ALIGNMENT;
            if layout.shape()[axis] > 1 && bytes >= limit {
                return Err(Error::Layout {
                    field,
                    value: format!("a stride of {bytes} bytes along {}", crate::layout::AXES[axis]),
                    allowed: format!("below {limit} bytes"),
                });
            }
        }
    }
    Ok(())
}

/// Whether `kernel` can run a problem, validated already, on `device`.
fn takes(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Result<()> {
    let refused = |field, value: String, allowed: String| Err(Error::Unsupported { field, value, allowed });
    if !KERNELS.contains(kernel) {
        return refused("kernel", kernel.to_string(), "one of KERNELS".into());
    }
    if kernel.dtype() != problem.dtype {
        return refused("dtype", problem.dtype.to_string(), format!("{} for {kernel}", kernel.dtype()));
    }
    if let Kernel::FwdSm80(config) = kernel
        && problem.head_dim().next_multiple_of(32) != config.head_dim as usize
    {
        let allowed = format!("{} to {} for {kernel}", config.head_dim - 24, config.head_dim);
        return refused("head_dim", problem.head_dim().to_string(), allowed);
    }
    if device.compute_capability < 80 {
        let value = format!("compute capability {}", device.compute_capability);
        return refused("device", value, "80 or later".into());
    }
    if kernel.shared_bytes() > device.shared_per_block {
        return Err(Error::SharedMemory {
            kernel: kernel.to_string(),
            needed: kernel.shared_bytes(),
            available: device.shared_per_block,
        });
    }
    Ok(())
}

/// Predicted microseconds on `device`, good for comparing kernels on one problem. The constants below were fitted to
/// launches of the kernels on an H200; another device shifts them together.
fn predicted_time(kernel: Kernel, problem: &Problem, device: &DeviceSpec) -> f64 {
    let blocks: f64 = grid(kernel, problem).iter().map(|&n| f64::from(n)).product();
    let per_sm = (blocks / f64::from(device.sm_count)).ceil();
    match kernel {
        // f32 arithmetic on plain cores: 1.6 us for four rows and 32 keys.
        Kernel::FwdScalar(_) => per_sm * problem.kv_len() as f64 / 32.0 * 1.6,
        Kernel::FwdSm80(config) => sm80_time(config, problem, per_sm, device.resident_blocks(kernel)),
    }
}

/// The SM runs `resident` blocks at a time, round after round. A round is a start, its steps, and a merge where keys
/// are split. A step costs the tensor cores' time for all resident blocks, or a warp's own latency where it is alone.
fn sm80_time(config: FwdSm80, problem: &Problem, per_sm: f64, resident: u32) -> f64 {
    /// `mma.sync` at its measured rate, FLOP per SM and microsecond.
    const RATE: f64 = 4.5e6;
    const LAUNCH: f64 = 0.9;
    const START: f64 = 1.2;
    const MERGE: f64 = 0.85;

    let together = per_sm.min(f64::from(resident));
    let rounds = (per_sm / f64::from(resident)).ceil();
    // What is left of the rate: a warp of 16 rows loads each key for half the arithmetic, a split block is one step
    // long, and a single stage exposes part of each copy.
    let share = match (config.kv_splits, config.rows_per_warp()) {
        (2.., _) => 0.45,
        (_, 16) => 0.49,
        _ => 0.58,
    } * if config.stages == 1 { 0.97 } else { 1.0 };
    let flops = 4.0 * f64::from(config.tile_q * config.step() * config.head_dim);
    let latency = 0.28 + 5.5e-6 * f64::from(config.rows_per_warp() * config.tile_kv * config.head_dim);
    let step = (flops * together / (RATE * share)).max(latency);

    let longest = (problem.kv_len() as f64 / f64::from(config.step())).ceil().max(1.0);
    let dense = 4.0 * problem.q.elements() as f64 * problem.kv_len() as f64;
    let visible = if dense > 0.0 { problem.flops() / dense } else { 1.0 };
    // A step that is seen in part costs a whole one, half a step a block on average.
    let average = (longest * visible + 0.5).clamp(1.0, longest);
    let merge = if config.kv_splits > 1 { MERGE } else { 0.0 };
    // Under a causal mask the blocks with the most keys start first; further rounds fill the gaps they leave.
    LAUNCH + rounds * (START + average * step + merge) + (longest - average) * step / rounds
}
