//! From a problem to a launch: which kernel, which grid, which parameters, and why. Plain data, made without a GPU.

use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::fp8::{Fp8, ScaleBlocks};
use crate::grid::Grid;
use crate::layout::Layout;
use crate::limits::{self, ROW_ALIGNMENT};
use crate::model::{Prediction, Setting};
use crate::nvtx::Range;
use crate::problem::Problem;
use crate::splits::{SplitReason, Splits};
use crate::tensor_map::TiledTensor;
use crate::tuned::TunedKernels;
use crate::value_layout::ValueLayout;
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::instances::KERNELS;
use evo_sdpa_kernels::params::{FwdParams, Scales, TileOrder, Workspace, kv_head_reciprocal};
use evo_sdpa_kernels::transpose::Transpose;
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

/// Page shift of contiguous keys: all of them are in page 0 of their sequence.
const CONTIGUOUS: u32 = 31;

/// A launch, complete but for the addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The kernel; its `Display` is the entry name.
    pub kernel: Kernel,
    /// Blocks along x, y and z: what they stand for says [`Plan::axes`]. A zero means that there is nothing to compute and
    /// nothing is launched.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Parameters, with null addresses: see [`Plan::bind`].
    pub params: FwdParams,
    /// Why this kernel.
    pub reason: Reason,
    /// How the keys of a sequence are split between blocks, and why.
    pub splits: Splits,
    /// In which order persistent blocks take tiles; none where every block has one tile, by its place in the grid.
    pub tiles: Option<TileOrder>,
    /// Where the kernel is in [`KERNELS`]: a launch finds it there without a search.
    index: usize,
    kv_lens: bool,
    lse: bool,
    pages: bool,
    /// Whether values are transposed ahead of the kernel.
    transposes: bool,
    /// Whether persistent blocks take tiles as they come: see [`limits::shares_out`].
    shares_out: bool,
    /// Where scales are, with null addresses; none without e4m3 inputs.
    pub(crate) scales: Option<[Scales; 3]>,
}

/// Device addresses of one call. They are the caller's; nothing is freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePointers {
    /// First element of q.
    pub q: u64,
    /// First element of k.
    pub k: u64,
    /// First element of v, in rows or transposed: see [`Plan::takes_transposed_values`].
    pub v: u64,
    /// First element of out.
    pub out: u64,
    /// f32 \[batch, heads_q, q_len\]; null exactly when the problem does not ask for it.
    pub lse: u64,
    /// 32-bit \[batch\]; null exactly when the problem has no `kv_lens`.
    pub kv_lens: u64,
    /// [`Plan::workspace_bytes`] bytes; null exactly when these are 0.
    ///
    /// They are zero before the first launch that uses them. Every launch leaves them fit for the next one, also for one
    /// of another plan that needs no more. Launches that may overlap in time need memory of their own.
    pub workspace: u64,
    /// 32-bit \[batch, pages_per_sequence\] page numbers; null when the problem has no pages, and only then where it has
    /// keys.
    pub block_table: u64,
    /// f32 scales of q, contiguous, of the axes that [`ScaleBlocks::scales`](crate::ScaleBlocks::scales) gives; null
    /// exactly when the problem has no [`fp8`](Problem::fp8).
    pub q_scales: u64,
    /// The same of k; it may be null where there are no keys.
    pub k_scales: u64,
    /// The same of v; likewise.
    pub v_scales: u64,
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
            let time = at_full_clock.throttled().total();
            if less(time, best) {
                (best, runner_up) = (Some((row, time)), best);
            } else if less(time, runner_up) {
                runner_up = Some((row, time));
            }
        }
        let Some((row, least)) = best else { return Err(limits::nothing_takes(problem, device)) };
        let plan = Self::assemble(row.index, problem, device, Reason::Only);
        let reason = match runner_up {
            None => Reason::Only,
            Some((_, second)) => Reason::Predicted {
                candidates,
                blocks: plan.grid.iter().map(|&n| u64::from(n)).product(),
                resident: setting.resident(row),
                // Nothing to compute takes no time.
                ratio: if second > 0.0 { least / second } else { 1.0 },
            },
        };
        Ok(Self { reason, ..plan })
    }

    /// The plan with the kernel that `tuned` has for the problem, in as many splits as it has there, if the kernel takes
    /// the problem; else [`Plan::new`].
    pub fn tuned(problem: &Problem, device: &DeviceSpec, tuned: &TunedKernels) -> Result<Self> {
        let Some(choice) = tuned.get(problem) else { return Self::new(problem, device) };
        limits::validate_for_gpu(problem)?;
        if !limits::takes_valid(&KERNELS[choice.index], problem, device) {
            return Self::new(problem, device);
        }
        let plan = Self::assemble(choice.index, problem, device, Reason::Tuned { us: choice.us });
        match choice.splits.map_or(Ok(plan), |count| plan.split(count, SplitReason::Tuned)) {
            Ok(plan) => Ok(plan),
            Err(_) => Self::new(problem, device),
        }
    }

    /// The kernels that take `problem` on `device`, each with its predicted time, the least first.
    pub fn candidates(problem: &Problem, device: &DeviceSpec) -> Result<Vec<(Kernel, Prediction)>> {
        limits::validate_for_gpu(problem)?;
        let setting = Setting::new(problem, device);
        let mut candidates: Vec<_> = setting.takers().map(|row| (row.kernel, setting.predict(row))).collect();
        candidates.sort_by(|a, b| a.1.total().total_cmp(&b.1.total()));
        Ok(candidates)
    }

    /// The kernels for inputs and head dims as those of `problem` that do not take it on `device`, each with why not,
    /// in the order of [`KERNELS`].
    pub fn refused(problem: &Problem, device: &DeviceSpec) -> Result<Vec<(Kernel, Error)>> {
        limits::validate_for_gpu(problem)?;
        Ok(limits::refused(problem, device).collect())
    }

    /// The plan with a kernel of the caller's choice.
    pub fn with_kernel(problem: &Problem, device: &DeviceSpec, kernel: Kernel) -> Result<Self> {
        limits::validate_for_gpu(problem)?;
        let index = limits::takes(&kernel, problem, device)?;
        Ok(Self::assemble(index, problem, device, Reason::Forced))
    }

    /// [`Plan::with_kernel`] for a kernel of the caller's choice, [`Plan::tuned`] for none.
    pub fn choose(
        problem: &Problem,
        device: &DeviceSpec,
        tuned: &TunedKernels,
        kernel: Option<Kernel>,
    ) -> Result<Self> {
        match kernel {
            None => Self::tuned(problem, device, tuned),
            Some(kernel) => Self::with_kernel(problem, device, kernel),
        }
    }

    /// [`Plan::choose`], in `splits` parts of the keys where a number is given.
    #[cfg(any(feature = "gpu", feature = "sim"))]
    pub(crate) fn for_call(
        problem: &Problem,
        device: &DeviceSpec,
        tuned: &TunedKernels,
        kernel: Option<Kernel>,
        splits: Option<u32>,
    ) -> Result<Self> {
        let plan = Self::choose(problem, device, tuned, kernel)?;
        splits.map_or(Ok(plan), |count| plan.with_splits(count))
    }

    /// The plan with the keys of a sequence in `count` parts of whole steps, or in fewer where there are not so many
    /// steps. The number of keys in a part then follows from the shapes alone, and the bits of the answer with it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when `count` is 0, or more than 1 and the kernel does not split, or has more tiles of rows
    /// or blocks for it than a launch can have.
    pub fn with_splits(self, count: u32) -> Result<Self> {
        self.split(count, SplitReason::Forced)
    }

    fn split(self, count: u32, reason: SplitReason) -> Result<Self> {
        let refused = |allowed| Err(Error::Unsupported { field: "splits", value: count.to_string(), allowed });
        match self.kernel.split_step() {
            _ if count == 0 => refused("1 or more".into()),
            Some(step) => {
                let [x, y, z] = self.grid;
                let x = x / self.splits.count;
                let row_tiles = u64::from(x) * u64::from(y) * u64::from(z);
                if count > 1 && row_tiles > Workspace::MAX_ROW_TILES.into() {
                    return refused(format!("1 for {row_tiles} tiles of rows, above {}", Workspace::MAX_ROW_TILES));
                }
                let splits = Splits::of_count(step, self.params.kv_len, count, reason);
                if u64::from(x) * u64::from(splits.count) > limits::MAX_GRID_X.into() {
                    return refused(format!("at most {} for {x} tiles of rows of a head", limits::MAX_GRID_X / x));
                }
                let params = FwdParams { splits: splits.count, keys_per_split: splits.keys, ..self.params };
                Ok(Self { splits, grid: [x * splits.count, y, z], params, ..self })
            }
            None if count == 1 => Ok(self),
            None => refused(format!("1 for {}", self.kernel)),
        }
    }

    /// Bytes of device memory that the launch needs beside its tensors: see [`DevicePointers::workspace`]. It depends on
    /// shapes, masks and splits alone.
    pub fn workspace_bytes(&self) -> usize {
        if let (Some(tiles), Kernel::FwdSm90(config)) = (self.tiles, self.kernel) {
            // Where tiles are shared out by a counter, it is the first of all.
            let counters = Workspace::COUNTER_BYTES as usize;
            let counts = self.shares_out && tiles.count > self.grid[0] / config.cluster;
            let transposed = if self.transposes { transposed_bytes(&self.params, &tiles) } else { 0 };
            return if counts || transposed > 0 { counters + transposed } else { 0 };
        }
        let [x, y, z] = self.grid.map(u64::from);
        let row_tiles = x / u64::from(self.splits.count) * y * z;
        // More tiles are never split.
        let row_tiles = row_tiles.min(Workspace::MAX_ROW_TILES.into()) as u32;
        let (splits, head_dim) = (self.splits.count, self.kernel.head_dim());
        Workspace { splits, rows: self.kernel.tile_q(), head_dim }.bytes(row_tiles) as usize
    }

    /// What the blocks along x, y and z of [`Plan::grid`] stand for.
    pub fn axes(&self) -> [&'static str; 3] {
        Grid::axes(self.kernel, self.grid, &self.params)
    }

    /// The kernel that is launched ahead of this one in the same call, and leaves transposed values in the workspace;
    /// none where [`Plan::kernel`] reads them as they are.
    pub fn ahead(&self) -> Option<Entry> {
        (self.transposes && !self.is_empty()).then_some(Entry::Transpose)
    }

    /// Whether the values of the call lie as [`ValueLayout::Transposed`] says; else in rows.
    pub fn takes_transposed_values(&self) -> bool {
        limits::takes_transposed_values(&self.kernel) && !self.transposes
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }

    /// Queries, keys, values and output as TMA copies them; none for kernels that do without it.
    pub fn tensors(&self) -> Option<[TiledTensor; 4]> {
        match (self.kernel, &self.tiles) {
            (Kernel::FwdSm90(config), Some(tiles)) => Some(TiledTensor::of_launch(config, &self.params, tiles)),
            _ => None,
        }
    }

    /// The same without log-sum-exps.
    #[cfg(feature = "gpu")]
    pub(crate) fn without_lse(self) -> Self {
        Self { lse: false, ..self }
    }

    /// Where the kernel is in [`KERNELS`]. The kernel of a plan is everybody's to exchange, so that it is looked at.
    #[cfg(feature = "gpu")]
    pub(crate) fn index(&self) -> Option<usize> {
        if KERNELS.get(self.index) == Some(&self.kernel) { Some(self.index) } else { limits::index(self.kernel) }
    }

    /// The parameter block for these addresses, which that of a kernel with [`Plan::tensors`] or e4m3 inputs holds beside
    /// other things. Fails on a null or misaligned address.
    pub fn bind(&self, pointers: &DevicePointers) -> Result<FwdParams> {
        let DevicePointers { q, k, v, out, lse, kv_lens, workspace, block_table, q_scales, k_scales, v_scales } =
            *pointers;
        let (has_keys, fp8) = (self.params.kv_len > 0, self.scales.is_some());
        // Whether it may not be null, and whether it may be an address.
        for (field, address, needed, taken, alignment) in [
            ("q", q, true, true, ROW_ALIGNMENT),
            ("k", k, has_keys, true, ROW_ALIGNMENT),
            ("v", v, has_keys, true, ROW_ALIGNMENT),
            ("out", out, true, true, ROW_ALIGNMENT),
            ("lse", lse, self.lse, self.lse, 4),
            ("kv_lens", kv_lens, self.kv_lens, self.kv_lens, 4),
            ("workspace", workspace, self.workspace_bytes() > 0, self.workspace_bytes() > 0, ROW_ALIGNMENT),
            ("block_table", block_table, self.pages && has_keys, self.pages, 4),
            ("q_scales", q_scales, fp8, fp8, 4),
            ("k_scales", k_scales, fp8 && has_keys, fp8, 4),
            ("v_scales", v_scales, fp8 && has_keys, fp8, 4),
        ] {
            // Where nothing is launched, everything may be null or there.
            let (needed, taken) = (needed && !self.is_empty(), taken || self.is_empty());
            limits::check_address(field, address, needed, taken, alignment)?;
        }
        Ok(FwdParams { q, k, v, out, lse, kv_lens, workspace, block_table, ..self.params })
    }

    fn assemble(index: usize, problem: &Problem, device: &DeviceSpec, reason: Reason) -> Self {
        let kernel = KERNELS[index];
        let splits = Splits::of(kernel, problem, device);
        let Grid { blocks, wave_order, tiles } = Grid::new(kernel, problem, device, &splits);
        let strides = |layout: &Layout| limits::strides(layout, problem.input_bytes());
        let params = FwdParams {
            q_stride: strides(&problem.q),
            k_stride: strides(&problem.k),
            v_stride: strides(&problem.v),
            out_stride: limits::strides(&problem.out, problem.dtype.size()),
            kv_head_reciprocal: kv_head_reciprocal((problem.heads_q() / problem.heads_kv()).max(1) as u32),
            wave_order,
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
            q_len_reciprocal: kv_head_reciprocal(problem.q_len().max(1) as u32),
            pages_per_sequence: problem.pages_per_sequence.unwrap_or(0) as u32,
            page_shift: problem.pages_per_sequence.map_or(CONTIGUOUS, |_| problem.k.shape()[2].ilog2()),
            group: (problem.heads_q() / problem.heads_kv()) as u32,
            packed_rows: limits::packed_rows(problem) as u32,
            splits: splits.count,
            keys_per_split: splits.keys,
            ..FwdParams::default()
        };
        Self {
            kernel,
            grid: blocks,
            block: kernel.threads(),
            shared_bytes: kernel.shared_bytes(),
            params,
            reason,
            splits,
            tiles,
            index,
            kv_lens: problem.kv_lens,
            lse: problem.lse,
            pages: problem.pages_per_sequence.is_some(),
            transposes: limits::takes_transposed_values(&kernel) && problem.value_layout == ValueLayout::Rows,
            shares_out: limits::shares_out(problem),
            scales: problem.fp8.map(|fp8| scales(&fp8, problem)),
        }
    }
}

/// Bytes of the transposed values of a launch.
fn transposed_bytes(params: &FwdParams, tiles: &TileOrder) -> usize {
    let heads_kv = tiles.heads() as usize / params.group.max(1) as usize;
    heads_kv * params.head_dim as usize * Transpose::row_bytes(params.kv_len) as usize
}

/// Where the scales of e4m3 inputs are, but for their addresses.
fn scales(fp8: &Fp8, problem: &Problem) -> [Scales; 3] {
    let of = |blocks: ScaleBlocks, layout: &Layout| {
        let [batch, head] = blocks.strides(layout.shape()).map(|stride| stride as u32);
        Scales { address: 0, batch, head, shift: blocks.shift(), pad: 0 }
    };
    [of(fp8.q, &problem.q), of(fp8.k, &problem.k), of(fp8.v, &problem.v)]
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], axes) = (self.grid, self.axes().join(", "));
        write!(
            f,
            "{} grid {x}x{y}x{z} of {axes}; block {} shared {} B ({})",
            self.kernel, self.block, self.shared_bytes, self.reason
        )?;
        if let Some(TileOrder { count, group, .. }) = self.tiles {
            write!(f, ", {count} tiles, {group} slices side by side")?;
        }
        match self.kernel.split_step() {
            Some(_) => write!(f, ", {}", self.splits),
            None => Ok(()),
        }
    }
}
