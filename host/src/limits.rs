//! What the kernels ask of a problem and of a device, and the numbers of a problem that they see.
//!
//! A head dim is a multiple of 8 up to 256. Kernels on tensor cores have tiles of 32, 64, 96, 128, 192 and 256 columns,
//! and each takes the head dims that no narrower tile does: 136 to 192 the one of 192 columns, 200 to 256 that of 256.
//! `fwd_scalar` takes them all, `fwd_fp8` has tiles of 64, 128, 192 and 256 columns.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::fp8::{Fp8, ScaleBlocks};
use crate::layout::{AXES, Layout};
use crate::problem::Problem;
use crate::value_layout::ValueLayout;
use evo_sdpa_kernels::config::{DType, Decode, FwdFp8, FwdSm90, Kernel, MAX_HEAD_DIM, tile_columns};
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{MAX_PACKED_ROWS, MAX_ROW_STRIDE, STRIDE_UNIT, Strides};
use evo_sdpa_kernels::quantize::{Quantize, TokenParts};
use std::fmt::Display;

/// Rows of every tensor start on such a boundary, bytes: the width of one `cp.async`.
pub const ROW_ALIGNMENT: u64 = STRIDE_UNIT as u64;
/// Grid limit of CUDA for the x dimension.
pub const MAX_GRID_X: u32 = i32::MAX as u32;
/// Grid limits of CUDA for the y and z dimension.
pub const MAX_GRID_YZ: usize = 65535;
/// Largest head dim of results that are merged: far beyond any model's, and offsets in a row stay small.
const MAX_MERGED_HEAD_DIM: usize = 1 << 16;
/// Longest sequence: row numbers and causal offsets are added as i32 on the device.
const MAX_LEN: usize = 1 << 29;

/// Most tiles of a launch whose blocks take them one after the other: the numbers of tiles are added as u32.
const MAX_TILES: u64 = 1 << 30;

/// Rows of a page: a power of two, at least this.
const MIN_PAGE_ROWS: usize = 16;

/// Query rows of all heads that share a key head.
pub fn packed_rows(problem: &Problem) -> usize {
    (problem.heads_q() / problem.heads_kv()).saturating_mul(problem.q_len())
}

/// Tiles of these rows, as [`Kernel::Decode`] has them.
pub fn row_tiles(problem: &Problem) -> usize {
    packed_rows(problem).div_ceil(Decode::ROWS as usize)
}

/// The same of all key heads of all sequences.
pub fn row_tiles_of_all_heads(problem: &Problem) -> u64 {
    (row_tiles(problem) as u64).saturating_mul(problem.heads_kv() as u64).saturating_mul(problem.batch() as u64)
}

/// The causal offset as the kernels take it: a larger one hides nothing more, or nothing less.
pub fn causal_offset(problem: &Problem) -> i32 {
    let offset = problem.causal_offset().unwrap_or(problem.kv_len() as i64);
    offset.clamp(-(1 << 30), 1 << 30) as i32
}

/// What every kernel asks for beyond [`Problem::validate`].
pub fn validate_for_gpu(problem: &Problem) -> Result<()> {
    problem.validate()?;
    check_head_dim(problem.head_dim(), MAX_HEAD_DIM as usize)?;
    check_sizes([
        ("batch", problem.batch(), MAX_GRID_YZ),
        ("heads_q", problem.heads_q(), MAX_GRID_YZ),
        ("q_len", problem.q_len(), MAX_LEN),
        ("kv_len", problem.kv_len(), MAX_LEN),
    ])?;
    if problem.pages_per_sequence.is_some() {
        check_pages(problem.k.shape()[0], problem.k.shape()[2])?;
    }
    let scale_log2 = f64::from(problem.scale()) * std::f64::consts::LOG2_E;
    if scale_log2 > f64::from(f32::MAX) {
        return Err(Error::Unsupported {
            field: "scale",
            value: problem.scale().to_string(),
            allowed: format!("at most {:e}", f64::from(f32::MAX) / std::f64::consts::LOG2_E),
        });
    }
    for (field, layout, element_bytes) in problem.tensors() {
        check_strides(field, layout, element_bytes)?;
    }
    problem.fp8.map_or(Ok(()), |fp8| check_scales(&fp8, problem))
}

/// The places of all scales are 32-bit numbers.
fn check_scales(fp8: &Fp8, problem: &Problem) -> Result<()> {
    let shapes = [problem.q.shape(), problem.k.shape(), problem.v.shape()];
    for ((field, blocks), shape) in fp8.tensors().into_iter().zip(shapes) {
        let scales = blocks.scales(shape).into_iter().fold(1, usize::saturating_mul);
        check_sizes([(field, scales, u32::MAX as usize)])?;
    }
    Ok(())
}

/// What merging asks of layouts of one shape, \[batch, heads, seq, head_dim\], that are known to be addressable.
pub fn validate_merge(dtype: DType, layouts: [(&'static str, &Layout); 3]) -> Result<()> {
    let [batch, heads, seq, head_dim] = layouts[0].1.shape();
    check_head_dim(head_dim, MAX_MERGED_HEAD_DIM)?;
    check_sizes([("batch", batch, MAX_GRID_YZ), ("heads", heads, MAX_GRID_YZ), ("seq", seq, MAX_LEN)])?;
    layouts.into_iter().try_for_each(|(field, layout)| check_strides(field, layout, dtype.size()))
}

/// What quantising asks of the tensors of a problem, which are not e4m3 yet.
pub fn validate_quantize(inputs: &Problem, fp8: &Fp8) -> Result<()> {
    let refused = |field, value: &str, allowed: &str| {
        Err(Error::Unsupported { field, value: value.into(), allowed: allowed.into() })
    };
    inputs.validate()?;
    if inputs.fp8.is_some() {
        return refused("fp8", "e4m3 inputs", "inputs of type f16, bf16 or f32");
    }
    if inputs.pages_per_sequence.is_some() {
        return refused("pages", "a block table", "none where inputs are quantised");
    }
    let head_dim = inputs.head_dim();
    if !head_dim.is_multiple_of(Quantize::ELEMENTS as usize) || head_dim > MAX_HEAD_DIM as usize {
        let allowed = format!("multiples of {} up to {MAX_HEAD_DIM}", Quantize::ELEMENTS);
        return refused("head_dim", &head_dim.to_string(), &allowed);
    }
    fp8.tensors().into_iter().try_for_each(|(field, blocks)| blocks.validate(field))?;
    check_sizes([
        ("batch", inputs.batch(), MAX_GRID_YZ),
        ("heads_q", inputs.heads_q(), MAX_GRID_YZ),
        ("q_len", inputs.q_len(), MAX_LEN),
        ("kv_len", inputs.kv_len(), MAX_LEN),
    ])?;
    let tensors = [("q", &inputs.q), ("k", &inputs.k), ("v", &inputs.v)];
    tensors.into_iter().try_for_each(|(field, layout)| check_strides(field, layout, inputs.dtype.size()))
}

/// What quantising asks for beyond that where it leaves values transposed.
pub fn validate_quantize_transposed(inputs: &Problem, fp8: &Fp8) -> Result<()> {
    let refused = |field, value: String, allowed: String| {
        Err(Error::Unsupported { field, value, allowed: format!("{allowed} where values are transposed") })
    };
    let (head_dim, least) = (inputs.head_dim(), Quantize::TRANSPOSED_UNIT_ROWS);
    match fp8.v {
        _ if head_dim > Quantize::TRANSPOSED_HEAD_DIM as usize => {
            refused("head_dim", head_dim.to_string(), format!("at most {}", Quantize::TRANSPOSED_HEAD_DIM))
        }
        ScaleBlocks::Rows(rows) if rows < least => {
            refused("v_scales", format!("a scale for {rows} rows"), format!("for {least} or more"))
        }
        ScaleBlocks::Rows(_) | ScaleBlocks::Head | ScaleBlocks::Tensor => Ok(()),
    }
}

/// The most blocks of a launch that quantises, and the most threads of one that finds the mean, which are 32-bit
/// numbers.
pub fn check_quantize_grid(blocks: u64, threads: u64) -> Result<()> {
    let refused = |field, value: String, allowed| Err(Error::Unsupported { field, value, allowed });
    if blocks > MAX_GRID_X.into() {
        return refused("q, k and v", format!("{blocks} blocks of rows"), format!("at most {MAX_GRID_X}"));
    }
    // A block beyond the last whole one has numbers too.
    let limit = u64::from(u32::MAX - TokenParts::THREADS);
    if threads > limit {
        return refused("k", format!("{threads} sums of columns"), format!("at most {limit}"));
    }
    Ok(())
}

/// An address that may not be null where it is `needed`, and not be there where it is not `taken`.
pub fn check_address(field: &'static str, address: u64, needed: bool, taken: bool, alignment: u64) -> Result<()> {
    let refused = |allowed: String| Err(Error::Layout { field, value: format!("address {address:#x}"), allowed });
    match address {
        0 if needed => refused("an address on the device, as the plan asks for it".into()),
        1.. if !taken => refused("null, as the plan does not ask for it".into()),
        _ if !address.is_multiple_of(alignment) => refused(format!("a multiple of {alignment} bytes")),
        _ => Ok(()),
    }
}

fn check_pages(pages: usize, rows: usize) -> Result<()> {
    if !rows.is_power_of_two() || rows < MIN_PAGE_ROWS {
        let allowed = format!("powers of two from {MIN_PAGE_ROWS} on");
        return Err(Error::Unsupported { field: "page rows", value: rows.to_string(), allowed });
    }
    check_sizes([("pages", pages, i32::MAX as usize)])
}

fn check_head_dim(head_dim: usize, limit: usize) -> Result<()> {
    if head_dim.is_multiple_of(8) && head_dim <= limit {
        return Ok(());
    }
    let allowed = format!("multiples of 8 up to {limit}");
    Err(Error::Unsupported { field: "head_dim", value: head_dim.to_string(), allowed })
}

/// Each value with its limit.
fn check_sizes<const N: usize>(sizes: [(&'static str, usize, usize); N]) -> Result<()> {
    match sizes.into_iter().find(|(_, value, limit)| value > limit) {
        None => Ok(()),
        Some((field, value, limit)) => {
            Err(Error::Unsupported { field, value: value.to_string(), allowed: format!("at most {limit}") })
        }
    }
}

fn check_strides(field: &'static str, layout: &Layout, element_bytes: u32) -> Result<()> {
    for (axis, name) in AXES.iter().enumerate().take(3) {
        let bytes = layout.strides()[axis] as u64 * u64::from(element_bytes);
        let limit = if axis == 2 { u64::from(MAX_ROW_STRIDE) } else { 1 << 32 } * ROW_ALIGNMENT;
        let allowed = match bytes {
            _ if layout.shape()[axis] <= 1 => continue,
            bytes if !bytes.is_multiple_of(ROW_ALIGNMENT) => format!("multiples of {ROW_ALIGNMENT} bytes"),
            bytes if bytes >= limit => format!("below {limit} bytes"),
            _ => continue,
        };
        let value = format!("a stride of {bytes} bytes along {name}");
        return Err(Error::Layout { field, value, allowed });
    }
    Ok(())
}

/// The strides of a checked layout as the kernels take them.
pub fn strides(layout: &Layout, element_bytes: u32) -> Strides {
    // A stride that is never taken may be anything.
    let unit = |axis: usize| match layout.shape()[axis] {
        ..=1 => 0,
        _ => (layout.strides()[axis] as u64 * u64::from(element_bytes) / ROW_ALIGNMENT) as u32,
    };
    Strides { batch: unit(0), head: unit(1), row: unit(2) }
}

/// Why a kernel does not take a problem, without words: planners ask for every kernel, and mean the answer seldom.
#[derive(Clone, Copy)]
enum Refusal {
    DType,
    Fp8,
    HeadDim,
    Device,
    SharedMemory,
    Pages,
    Rows,
    Keys,
    Repeated,
    Tiles,
    Scales { field: &'static str, rows: u32, least: u32 },
    Transposed,
}

/// The row of `kernel` in [`KERNELS`], if it ships.
pub fn index(kernel: Kernel) -> Option<usize> {
    KERNELS.iter().position(|&row| row == kernel)
}

/// What a kernel that does not ship is answered.
pub fn not_among_kernels(kernel: impl Display) -> Error {
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

/// Whether `kernel` reads values in the layout [`ValueLayout::Transposed`].
pub fn takes_transposed_values(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::FwdSm90(FwdSm90 { e4m3: true, .. }))
}

/// Whether `kernel` has room for rows of `head_dim` columns, and little more.
pub fn takes_head_dim(kernel: &Kernel, head_dim: usize) -> bool {
    match kernel {
        Kernel::FwdScalar(_) => true,
        Kernel::FwdFp8(_) | Kernel::FwdSm90(FwdSm90 { e4m3: true, .. }) => {
            (head_dim as u32).next_multiple_of(FwdFp8::COLUMNS) == kernel.head_dim()
        }
        Kernel::FwdSm80(_) | Kernel::FwdSm90(_) | Kernel::Decode(_) => {
            tile_columns(head_dim as u32) == kernel.head_dim()
        }
    }
}

/// What a kernel is answered on a device where it does not run.
pub fn other_device(kernel: &Kernel, device: &DeviceSpec) -> Error {
    let allowed = match kernel {
        Kernel::FwdSm90(_) => format!("90 for {kernel}"),
        Kernel::FwdFp8(_) => format!("89 or later for {kernel}"),
        Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::Decode(_) => "80 or later".into(),
    };
    Error::Unsupported { field: "device", value: format!("compute capability {}", device.compute_capability), allowed }
}

/// Query heads of which a cluster of so many blocks takes tiles together: as many where they share keys, else one, whose tiles
/// next to each other it takes.
pub fn heads_together(cluster: u32, problem: &Problem) -> u32 {
    let group = problem.heads_q() / problem.heads_kv().max(1);
    if group.is_multiple_of(cluster as usize) { cluster } else { 1 }
}

/// What blocks, or clusters, take at once: so many tiles of the query rows of so many slices.
pub fn tiles(config: FwdSm90, problem: &Problem) -> [u64; 2] {
    let together = heads_together(config.cluster, problem);
    let rows_together = config.tile_q * config.cluster / together;
    let slices = problem.heads_q() as u64 / u64::from(together) * problem.batch() as u64;
    [(problem.q_len() as u64).div_ceil(rows_together.into()), slices]
}

/// Whether persistent blocks take tiles as they come, where there is more than one for each. Where tiles take equal times, each
/// block takes every so many-th one instead: on an H200, full, bf16, (16,16,512,128) takes 69.4 us in place of 72.0 so, and
/// (4,16,4096,128) by clusters 797 in place of 810; but with e4m3 565 in place of 555.
pub fn shares_out(problem: &Problem) -> bool {
    problem.causal.is_some() || problem.kv_lens || problem.fp8.is_some()
}

/// Tiles of all blocks.
fn all_tiles(config: FwdSm90, problem: &Problem) -> u64 {
    let [row_tiles, slices] = tiles(config, problem);
    row_tiles.saturating_mul(slices).saturating_mul(config.cluster.into())
}

/// A tensor, and an axis along which it repeats one slice: no tensor map has a stride of zero.
fn repeated_axis(problem: &Problem) -> Option<(&'static str, usize)> {
    let tensors = [("q", &problem.q), ("k", &problem.k), ("v", &problem.v), ("out", &problem.out)];
    tensors.into_iter().find_map(|(field, layout)| {
        let repeats = |axis: &usize| layout.shape()[*axis] > 1 && layout.strides()[*axis] == 0;
        Some((field, (0..3).find(repeats)?))
    })
}

/// Keys or values of which a step of `config` would have several scales.
fn small_block(config: FwdSm90, problem: &Problem) -> Option<Refusal> {
    let (least, [_, k, v]) = (config.tile_kv, problem.fp8?.tensors());
    [k, v].into_iter().find_map(|(field, blocks)| match blocks {
        ScaleBlocks::Rows(rows) if rows < least => Some(Refusal::Scales { field, rows, least }),
        ScaleBlocks::Rows(_) | ScaleBlocks::Head | ScaleBlocks::Tensor => None,
    })
}

/// The kernels of the types and the head dim of a problem, validated already, that do not take it, each with why not.
pub fn refused(problem: &Problem, device: &DeviceSpec) -> impl Iterator<Item = (Kernel, Error)> {
    KERNELS.iter().filter_map(|kernel| match refusal(kernel, problem, device)? {
        Refusal::DType | Refusal::Fp8 | Refusal::HeadDim => None,
        refusal => Some((*kernel, refusal.error(kernel, problem, device))),
    })
}

/// Why no kernel takes a problem that is validated already.
pub fn nothing_takes(problem: &Problem, device: &DeviceSpec) -> Error {
    // All head dims of a type and all types have a kernel, but where keys are in pages or values transposed; and e4m3
    // inputs not on every device.
    let transposed = problem.value_layout == ValueLayout::Transposed;
    let meant = |kernel: &Kernel| match kernel {
        _ if transposed => takes_transposed_values(kernel),
        Kernel::FwdFp8(_) => problem.fp8.is_some(),
        Kernel::Decode(_) => problem.fp8.is_none(),
        _ => false,
    };
    let candidates = |kernel: &&Kernel| meant(kernel) && kernel.dtype() == problem.dtype;
    let narrow = |kernel: &&Kernel| takes_head_dim(kernel, problem.head_dim());
    let refused = KERNELS.iter().filter(candidates).filter(narrow).find_map(|kernel| {
        let refusal = refusal(kernel, problem, device)?;
        Some(refusal.error(kernel, problem, device))
    });
    let widest = KERNELS.iter().filter(candidates).map(|kernel| kernel.head_dim()).max();
    let (field, value, allowed) = match (refused, widest) {
        _ if device.compute_capability < 80 => return Refusal::Device.error(&KERNELS[0], problem, device),
        (Some(error), _) => return error,
        (None, None) => ("dtype", problem.dtype.to_string(), "f16 or bf16 where keys are in pages".into()),
        (None, Some(widest)) => {
            let why = if transposed { "values are transposed" } else { "keys are in pages" };
            ("head_dim", problem.head_dim().to_string(), format!("at most {widest} where {why}"))
        }
    };
    Error::Unsupported { field, value, allowed }
}

/// Why a kernel that ships does not take a problem.
fn refusal(kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Option<Refusal> {
    if kernel.dtype() != problem.dtype {
        return Some(Refusal::DType);
    }
    if problem.fp8.is_some() != kernel.takes_e4m3() {
        return Some(Refusal::Fp8);
    }
    if !takes_head_dim(kernel, problem.head_dim()) {
        return Some(Refusal::HeadDim);
    }
    if problem.value_layout == ValueLayout::Transposed && !takes_transposed_values(kernel) {
        return Some(Refusal::Transposed);
    }
    match kernel {
        Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::FwdSm90(_) if problem.pages_per_sequence.is_some() => {
            return Some(Refusal::Pages);
        }
        Kernel::Decode(_) if packed_rows(problem) >= MAX_PACKED_ROWS as usize => return Some(Refusal::Rows),
        Kernel::FwdSm90(_) if problem.kv_len() == 0 => return Some(Refusal::Keys),
        Kernel::FwdSm90(_) if repeated_axis(problem).is_some() => return Some(Refusal::Repeated),
        Kernel::FwdSm90(config) if all_tiles(*config, problem) > MAX_TILES => return Some(Refusal::Tiles),
        Kernel::FwdSm90(config) if config.e4m3 => {
            if let Some(refusal) = small_block(*config, problem) {
                return Some(refusal);
            }
        }
        _ => {}
    }
    if !device.runs(*kernel) {
        return Some(Refusal::Device);
    }
    (kernel.shared_bytes() > device.shared_per_block).then_some(Refusal::SharedMemory)
}

impl Refusal {
    fn error(self, kernel: &Kernel, problem: &Problem, device: &DeviceSpec) -> Error {
        let (field, value, allowed) = match self {
            Refusal::DType => ("dtype", problem.dtype.to_string(), format!("{} for {kernel}", kernel.dtype())),
            Refusal::Fp8 if problem.fp8.is_none() => {
                ("fp8", format!("{} inputs", problem.dtype), format!("e4m3 inputs for {kernel}"))
            }
            Refusal::Fp8 => ("fp8", "e4m3 inputs".into(), format!("inputs of type {} for {kernel}", kernel.dtype())),
            Refusal::HeadDim => {
                let allowed = format!("{} to {} for {kernel}", kernel.least_head_dim(), kernel.head_dim());
                ("head_dim", problem.head_dim().to_string(), allowed)
            }
            Refusal::Device => return other_device(kernel, device),
            Refusal::Pages => ("pages", format!("a block table for {kernel}"), "one for a decode kernel".into()),
            Refusal::Rows => {
                let allowed = format!("heads_q / heads_kv * q_len below {MAX_PACKED_ROWS} for {kernel}");
                ("q_len", problem.q_len().to_string(), allowed)
            }
            Refusal::Keys => ("kv_len", problem.kv_len().to_string(), format!("1 or more for {kernel}")),
            Refusal::Repeated => {
                let (field, axis) = repeated_axis(problem).unwrap_or(("k", 0));
                let value = format!("a stride of 0 bytes along {}", AXES[axis]);
                return Error::Layout {
                    field,
                    value,
                    allowed: format!("multiples of {ROW_ALIGNMENT} bytes for {kernel}"),
                };
            }
            Refusal::Tiles => {
                let allowed = format!("at most {MAX_TILES} tiles of {} rows for {kernel}", kernel.tile_q());
                ("q_len", problem.q_len().to_string(), allowed)
            }
            Refusal::Scales { field, rows, least } => {
                (field, format!("a scale for {rows} rows"), format!("for {least} or more for {kernel}"))
            }
            Refusal::Transposed => ("value_layout", problem.value_layout.to_string(), format!("rows for {kernel}")),
            Refusal::SharedMemory => {
                let (needed, available) = (kernel.shared_bytes(), device.shared_per_block);
                return Error::SharedMemory { kernel: kernel.to_string(), needed, available };
            }
        };
        Error::Unsupported { field, value, allowed }
    }
}
