//! What the kernels ask of a problem and of a device, and the numbers of a problem that they see.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::problem::Problem;
use evo_sdpa_kernels::config::{Kernel, MAX_HEAD_DIM};
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{MAX_ROW_STRIDE, STRIDE_UNIT};

/// Rows of every tensor start on such a boundary, bytes: the width of one `cp.async`.
pub const ROW_ALIGNMENT: u64 = STRIDE_UNIT as u64;
/// Grid limits of CUDA for the y and z dimension.
const MAX_GRID_YZ: usize = 65535;
/// Longest sequence: row numbers and causal offsets are added as i32 on the device.
const MAX_LEN: usize = 1 << 29;

/// Blocks along x (query tiles), y (query heads) and z (batch).
pub fn grid(kernel: Kernel, problem: &Problem) -> [u32; 3] {
    let tiles = (problem.q_len() as u32).div_ceil(kernel.tile_q());
    [tiles, problem.heads_q() as u32, problem.batch() as u32]
}

/// The causal offset as the kernels take it: a larger one hides nothing more, or nothing less.
pub fn causal_offset(problem: &Problem) -> i32 {
    let offset = problem.causal_offset().unwrap_or(problem.kv_len() as i64);
    offset.clamp(-(1 << 30), 1 << 30) as i32
}

/// What every kernel asks for beyond [`Problem::validate`].
pub fn validate_for_gpu(problem: &Problem) -> Result<()> {
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

/// Why a kernel does not take a problem, without words: planners ask for every kernel, and mean the answer seldom.
#[derive(Clone, Copy)]
enum Refusal {
    DType,
    HeadDim,
    Device,
    SharedMemory,
}

/// The row of `kernel` in [`KERNELS`], if it ships.
pub fn index(kernel: Kernel) -> Option<usize> {
    KERNELS.iter().position(|&row| row == kernel)
}

/// What a kernel that does not ship is answered.
pub fn not_among_kernels(kernel: Kernel) -> Error {
    Error::Unsupported { field: "kernel", value: kernel.to_string(), allowed: "one of KERNELS".into() }
}

/// The row of `kernel` in [`KERNELS`] when it can run a problem, validated already, on `device`.
pub fn takes(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Result<usize> {
    let index = index(*kernel).ok_or_else(|| not_among_kernels(*kernel))?;
    match refusal(kernel, problem, device) {
        None => Ok(index),
        Some(refusal) => Err(refusal.error(kernel, problem, device)),
    }
}

/// Whether `kernel`, one that ships, can run a problem, validated already, on `device`.
pub fn takes_valid(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> bool {
    refusal(kernel, problem, device).is_none()
}

/// Whether `kernel` has room for rows of `head_dim` columns, and little more.
pub fn takes_head_dim(kernel: &Kernel, head_dim: usize) -> bool {
    match kernel {
        Kernel::FwdScalar(_) => true,
        Kernel::FwdSm80(config) => head_dim.next_multiple_of(32) == config.head_dim as usize,
    }
}

/// Why a kernel that ships does not take a problem.
fn refusal(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Option<Refusal> {
    if kernel.dtype() != problem.dtype {
        return Some(Refusal::DType);
    }
    if !takes_head_dim(kernel, problem.head_dim()) {
        return Some(Refusal::HeadDim);
    }
    if device.compute_capability < 80 {
        return Some(Refusal::Device);
    }
    (kernel.shared_bytes() > device.shared_per_block).then_some(Refusal::SharedMemory)
}

impl Refusal {
    fn error(self, kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Error {
        let (field, value, allowed) = match self {
            Refusal::DType => ("dtype", problem.dtype.to_string(), format!("{} for {kernel}", kernel.dtype())),
            Refusal::HeadDim => {
                let allowed = format!("{} to {} for {kernel}", kernel.head_dim() - 24, kernel.head_dim());
                ("head_dim", problem.head_dim().to_string(), allowed)
            }
            Refusal::Device => {
                ("device", format!("compute capability {}", device.compute_capability), "80 or later".into())
            }
            Refusal::SharedMemory => {
                let (needed, available) = (kernel.shared_bytes(), device.shared_per_block);
                return Error::SharedMemory { kernel: kernel.to_string(), needed, available };
            }
        };
        Error::Unsupported { field, value, allowed }
    }
}
