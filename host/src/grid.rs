//! Which block of a launch computes what, and in which order blocks start, or take tiles where they are persistent.

use crate::device::DeviceSpec;
use crate::limits;
use crate::model::Rates;
use crate::problem::Problem;
use crate::splits::Splits;
use evo_sdpa_kernels::config::{FwdSm90, Kernel};
use evo_sdpa_kernels::params::{FwdParams, TileOrder};

/// Largest distance of [`FwdParams::wave_order`](evo_sdpa_kernels::params::FwdParams::wave_order) between blocks of which
/// the first has the most work and the second the least, as a power of two.
const MAX_RUN_LOG2: f64 = 15.0;

/// The blocks of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Along x, y and z.
    pub blocks: [u32; 3],
    /// See [`FwdParams::wave_order`](evo_sdpa_kernels::params::FwdParams::wave_order).
    pub wave_order: u16,
    /// In which order persistent blocks take tiles; none where every block has one tile, by its place in the grid.
    pub tiles: Option<TileOrder>,
}

impl Grid {
    /// The blocks of a kernel that takes the problem, whose keys are split in this way.
    pub fn new(kernel: Kernel, problem: &Problem, device: &DeviceSpec, splits: &Splits) -> Self {
        let (heads, batch) = (problem.heads_q() as u32, problem.batch() as u32);
        let tiles = (problem.q_len() as u32).div_ceil(kernel.tile_q());
        let plain = |blocks| Self { blocks, wave_order: 0, tiles: None };
        match kernel {
            Kernel::Decode(_) => {
                let row_tiles = limits::row_tiles(problem) as u32;
                plain([row_tiles * splits.count, problem.heads_kv() as u32, batch])
            }
            Kernel::FwdSm80(config) if config.shares_keys => plain([tiles * splits.count, heads, batch]),
            Kernel::FwdSm80(_) | Kernel::FwdFp8(_) => {
                let blocks = u64::from(tiles) * u64::from(heads) * u64::from(batch);
                let groups = groups_of_heads(problem, &Rates::of(device));
                match side_by_side(groups, tiles, blocks, device.sm_count) {
                    Some(groups) => {
                        let run_log2 = run_log2(kernel, device, tiles, blocks, groups);
                        let blocks = [heads / groups, batch, groups * tiles];
                        Self { blocks, wave_order: 1 + run_log2, tiles: None }
                    }
                    None => plain([tiles, heads, batch]),
                }
            }
            Kernel::FwdSm90(config) => {
                let order = tile_order(config, problem, device);
                let takers = order.count.min(takers(config, device));
                Self { blocks: [takers * config.cluster, 1, 1], wave_order: 0, tiles: Some(order) }
            }
            Kernel::FwdScalar(_) => plain([tiles, heads, batch]),
        }
    }

    /// What the blocks of a plan stand for along x, y and z.
    pub fn axes(kernel: Kernel, blocks: [u32; 3], params: &FwdParams) -> [&'static str; 3] {
        match kernel {
            Kernel::FwdSm90(_) => ["persistent blocks", "one", "one"],
            Kernel::Decode(_) => ["row tiles x splits", "key heads", "batch"],
            Kernel::FwdSm80(config) if config.shares_keys => ["query tiles x splits", "heads", "batch"],
            _ if params.wave_order == 0 => ["query tiles", "heads", "batch"],
            _ if blocks[0] == u32::from(params.heads_q) => ["heads", "batch", "query tiles"],
            _ => ["heads of a group", "batch", "groups x query tiles"],
        }
    }
}

/// Into how many groups of the same size heads are put, each of which blocks take side by side: they go through all heads
/// of the group before they come to the next tile of queries. Under a causal mask, tiles take unequal times. A head after
/// the other leaves the longest tiles of the last one when all else is done; side by side the shortest tiles of a group
/// come last.
///
/// L2 must have room for the keys of a group, or blocks wait for memory: (4,32,4096,64) takes 11 % longer on an H200 with
/// 134 MB of keys and values side by side, and 3 % less with half of L2 full. None where no mask makes tiles unequal,
/// or one head of every sequence is too much.
pub(crate) fn groups_of_heads(problem: &Problem, rates: &Rates) -> Option<u32> {
    problem.causal?;
    let bytes = 2.0 * problem.kv_elements() * f64::from(problem.input_bytes());
    let least = (bytes / (rates.l2_capacity / 2.0)).ceil().max(1.0) as usize;
    // Query heads that share a key head stay together.
    let heads = problem.heads_kv();
    (least..=heads).find(|groups| heads.is_multiple_of(*groups)).map(|groups| groups as u32)
}

/// Tiles for each block from which on slices are in groups.
const GROUPED: u32 = 4;

/// Tiles for each block in the last group, at least.
const LAST: u32 = 2;

/// Persistent blocks, or clusters of them, that a device has places for: a block on each SM.
fn takers(config: FwdSm90, device: &DeviceSpec) -> u32 {
    (device.sm_count / config.cluster).max(1)
}

/// In which order persistent blocks take the tiles of a problem that the kernel takes.
///
/// Where a mask makes tiles unequal and each block has several, slices are in groups of the same size, at least two of them,
/// with a tile for every other block at least: more have more keys than L2 holds. With groups of 4 and of 32 slices,
/// (4,16,4096,128) takes 438 and 494 us on an H200; with 4 and all 16, (2,8,2048,128) takes 37.4 and 29.5. The last group
/// has [`LAST`] tiles for each block, so that short ones are left for the end. Without a mask one slice comes after the other.
/// Clusters take tiles as blocks do.
pub(crate) fn tile_order(config: FwdSm90, problem: &Problem, device: &DeviceSpec) -> TileOrder {
    let [row_tiles, slices] = limits::tiles(config, problem).map(|count| count as u32);
    let takers = takers(config, device);
    // The slices of a group, and those of the last one at least.
    let slices_of = |tiles: u32| tiles.div_ceil(row_tiles.max(1));
    let (group, last) = match problem.causal {
        None => (1, 1),
        Some(_) if row_tiles * slices < GROUPED * takers => (slices.max(1), 1),
        Some(_) => {
            let least = slices_of(takers / 2).max(2);
            (slices.div_ceil((slices / least).max(1)).max(1), slices_of(LAST * takers))
        }
    };
    let last = slices.saturating_sub(last) / group * group;
    let heads_together = limits::heads_together(config.cluster, problem);
    TileOrder { count: row_tiles * slices, row_tiles, group, last, last_group: slices - last, heads_together }
}

/// The groups of heads where blocks go through them side by side. Where each block has an SM to itself there is nothing to
/// share out, and blocks of one head next to each other are faster (by 5 % at (1,8,512,64) on an H200).
pub(crate) fn side_by_side(groups: Option<u32>, tiles: u32, blocks: u64, sm_count: u32) -> Option<u32> {
    let most = limits::MAX_GRID_YZ as u32;
    groups.filter(|&groups| tiles > 1 && tiles <= most / groups && blocks > u64::from(sm_count))
}

/// After how many tiles the order turns around. Where all blocks run at once, those that share an SM are about one for
/// each SM apart, and one with many keys gets one with few. Else the order never turns: an SM that is done takes the
/// heaviest block that is left.
fn run_log2(kernel: Kernel, device: &DeviceSpec, tiles: u32, blocks: u64, groups: u32) -> u16 {
    let places = u64::from(device.sm_count) * u64::from(device.resident_blocks(kernel));
    if blocks <= places {
        // Blocks between a tile and the next of the same head.
        let side_by_side = blocks as f64 / f64::from(tiles * groups);
        (f64::from(device.sm_count) / side_by_side).log2().round().clamp(0.0, MAX_RUN_LOG2) as u16
    } else {
        tiles.next_power_of_two().trailing_zeros() as u16
    }
}
