//! What the kernels ask of a problem and of a device, and the numbers of a problem that they see.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::splits::Splits;
use evo_sdpa_kernels::config::{DType, Decode, Kernel, MAX_HEAD_DIM};
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{MAX_PACKED_ROWS, MAX_ROW_STRIDE, STRIDE_UNIT};

/// Rows of every tensor start on such a boundary, bytes: the width of one `cp.async`.
pub const ROW_ALIGNMENT: u64 = STRIDE_UNIT as u64;
/// Grid limits of CUDA for the y and z dimension.
const MAX_GRID_YZ: usize = 65535;
/// Longest sequence: row numbers and causal offsets are added as i32 on the device.
const MAX_LEN: usize = 1 << 29;

/// Rows of a page: a power of two, at least this.
const MIN_PAGE_ROWS: usize = 16;

/// Blocks along x (query tiles, times splits), y (query heads, or key heads for [`Kernel::Decode`]) and z (batch).
pub fn grid(kernel: Kernel, problem: &Problem, splits: &Splits) -> [u32; 3] {
    let batch = problem.batch() as u32;
    match kernel {
        Kernel::Decode(_) if problem.heads_q() > 0 => {
            [row_tiles(problem) as u32 * splits.count, problem.heads_kv() as u32, batch]
        }
        _ => [(problem.q_len() as u32).div_ceil(kernel.tile_q()), problem.heads_q() as u32, batch],
    }
}

/// Query rows of all heads that share a key head.
pub fn packed_rows(problem: &Problem) -> usize {
    (problem.heads_q() / problem.heads_kv()).saturating_mul(problem.q_len())
}

/// Tiles of these rows, as [`Kernel::Decode`] has them.
pub fn row_tiles(problem: &Problem) -> usize {
    packed_rows(problem).div_ceil(Decode::ROWS as usize)
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
    if problem.pages_per_sequence.is_some() {
        let (pages, rows) = (problem.k.shape()[0], problem.k.shape()[2]);
        if !rows.is_power_of_two() || rows < MIN_PAGE_ROWS {
            return unsupported("page rows", rows, format!("powers of two from {MIN_PAGE_ROWS} on"));
        }
        if pages > i32::MAX as usize {
            return unsupported("pages", pages, format!("at most {}", i32::MAX));
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
    Kernel,
    DType,
    HeadDim,
    Device,
    SharedMemory,
    Pages,
    Rows,
}

/// Whether `kernel` can run a problem, validated already, on `device`.
pub fn takes(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Result<()> {
    if !KERNELS.contains(kernel) {
        return Err(Refusal::Kernel.error(kernel, problem, device));
    }
    match refusal(kernel, problem, device) {
        None => Ok(()),
        Some(refusal) => Err(refusal.error(kernel, problem, device)),
    }
}

/// The kernels that [`takes`] lets through.
pub fn takers(problem: &Problem, device: &DeviceSpec) -> impl Iterator<Item = Kernel> {
    KERNELS.iter().copied().filter(|kernel| refusal(kernel, problem, device).is_none())
}

/// Why no kernel takes a problem that is validated already.
pub fn nothing_takes(problem: &Problem, device: &DeviceSpec) -> Error {
    let (field, value, allowed) = if device.compute_capability < 80 {
        ("device", format!("compute capability {}", device.compute_capability), "80 or later".into())
    } else if problem.dtype == DType::F32 {
        ("dtype", "f32".into(), "f16 or bf16 where keys are in pages".into())
    } else {
        let allowed = format!("heads_q / heads_kv * q_len below {MAX_PACKED_ROWS} where keys are in pages");
        ("q_len", problem.q_len().to_string(), allowed)
    };
    Error::Unsupported { field, value, allowed }
}

/// Why a kernel that ships does not take a problem.
fn refusal(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Option<Refusal> {
    if kernel.dtype() != problem.dtype {
        return Some(Refusal::DType);
    }
    let head_dim = problem.head_dim().next_multiple_of(32);
    match kernel {
        Kernel::FwdSm80(_) | Kernel::Decode(_) if head_dim != kernel.head_dim() as usize => {
            return Some(Refusal::HeadDim);
        }
        Kernel::FwdScalar(_) | Kernel::FwdSm80(_) if problem.pages_per_sequence.is_some() => {
            return Some(Refusal::Pages);
        }
        Kernel::Decode(_) if packed_rows(problem) >= MAX_PACKED_ROWS as usize => return Some(Refusal::Rows),
        _ => {}
    }
    if device.compute_capability < 80 {
        return Some(Refusal::Device);
    }
    (kernel.shared_bytes() > device.shared_per_block).then_some(Refusal::SharedMemory)
}

impl Refusal {
    fn error(self, kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Error {
        let (field, value, allowed) = match self {
            Refusal::Kernel => ("kernel", kernel.to_string(), "one of KERNELS".into()),
            Refusal::DType => ("dtype", problem.dtype.to_string(), format!("{} for {kernel}", kernel.dtype())),
            Refusal::HeadDim => {
                let allowed = format!("{} to {} for {kernel}", kernel.head_dim() - 24, kernel.head_dim());
                ("head_dim", problem.head_dim().to_string(), allowed)
            }
            Refusal::Device => {
                ("device", format!("compute capability {}", device.compute_capability), "80 or later".into())
            }
            Refusal::Pages => ("pages", format!("a block table for {kernel}"), "one for a decode kernel".into()),
            Refusal::Rows => {
                let allowed = format!("heads_q / heads_kv * q_len below {MAX_PACKED_ROWS} for {kernel}");
                ("q_len", problem.q_len().to_string(), allowed)
            }
            Refusal::SharedMemory => {
                let (needed, available) = (kernel.shared_bytes(), device.shared_per_block);
                return Error::SharedMemory { kernel: kernel.to_string(), needed, available };
            }
        };
        Error::Unsupported { field, value, allowed }
    }
}
