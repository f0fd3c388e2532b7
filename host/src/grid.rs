//! Which block of a launch computes what, and in which order blocks start.

use crate::device::DeviceSpec;
use crate::limits;
use crate::model::Rates;
use crate::problem::Problem;
use crate::splits::Splits;
use evo_sdpa_kernels::config::{FwdSm80, Kernel};

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
}

impl Grid {
    /// The blocks of a kernel that takes the problem, whose keys are split in this way.
    pub fn new(kernel: Kernel, problem: &Problem, device: &DeviceSpec, splits: &Splits) -> Self {
        let (heads, batch) = (problem.heads_q() as u32, problem.batch() as u32);
        let slices = u64::from(heads) * u64::from(batch);
        let tiles = (problem.q_len() as u32).div_ceil(kernel.tile_q());
        match kernel {
            Kernel::Decode(_) => {
                let row_tiles = limits::row_tiles(problem) as u32;
                Self { blocks: [row_tiles * splits.count, problem.heads_kv() as u32, batch], wave_order: 0 }
            }
            Kernel::FwdSm80(config) if heads_side_by_side(problem, device, tiles, slices) => {
                let run_log2 = run_log2(config, device, tiles, slices);
                Self { blocks: [heads, batch, tiles], wave_order: 1 + run_log2 }
            }
            _ => Self { blocks: [tiles, heads, batch], wave_order: 0 },
        }
    }

    /// What blocks stand for along x, y and z.
    pub fn axes(kernel: Kernel, wave_order: u16) -> [&'static str; 3] {
        match kernel {
            Kernel::Decode(_) => ["row tiles x splits", "key heads", "batch"],
            _ if wave_order > 0 => ["heads", "batch", "query tiles"],
            _ => ["query tiles", "heads", "batch"],
        }
    }
}

/// Whether blocks go through all heads before they come to the next tile of queries. Under a causal mask, tiles take
/// unequal times, and this order shares them out evenly. Where each block has an SM to itself there is nothing to share
/// out, and blocks of one head next to each other are faster (by 5 % at (1,8,512,64) on an H200).
fn heads_side_by_side(problem: &Problem, device: &DeviceSpec, tiles: u32, slices: u64) -> bool {
    problem.causal.is_some()
        && (2..=limits::MAX_GRID_YZ as u32).contains(&tiles)
        && u64::from(tiles) * slices > u64::from(device.sm_count)
        && keys_stay_in_l2(problem, &Rates::of(device))
}

/// Whether L2 has room for the keys of all heads at a time, which blocks need that go through all heads. Where keys and
/// values take more than half of it, a head after the other is faster (by 10 % at 134 MB on an H200).
pub(crate) fn keys_stay_in_l2(problem: &Problem, rates: &Rates) -> bool {
    2.0 * problem.kv_elements() * f64::from(problem.dtype.size()) <= rates.l2_capacity / 2.0
}

/// After how many tiles the order turns around. Where all blocks run at once, those that share an SM are about one for
/// each SM apart, and one with many keys gets one with few. Else the order never turns: an SM that is done takes the
/// heaviest block that is left.
fn run_log2(config: FwdSm80, device: &DeviceSpec, tiles: u32, slices: u64) -> u16 {
    let places = u64::from(device.sm_count) * u64::from(device.resident_blocks(Kernel::FwdSm80(config)));
    if u64::from(tiles) * slices <= places {
        (f64::from(device.sm_count) / slices as f64).log2().round().clamp(0.0, MAX_RUN_LOG2) as u16
    } else {
        tiles.next_power_of_two().trailing_zeros() as u16
    }
}
