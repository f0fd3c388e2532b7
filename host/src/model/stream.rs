//! The time of `decode`: keys and values on their way from memory, and little else.
//!
//! A warp takes its tiles one after the other. However fast memory is, a tile takes the latency of its products,
//! shuffles and exponentials, and the warps of an SM share its issue slots. However fast warps are, an SM has no more
//! bytes on their way than its stages hold. The launch as a whole takes at least the time of its bytes.

use super::schedule::{Rounds, Walk};
use super::{Bound, Prediction, Rates, START};
use crate::device::DeviceSpec;
use crate::limits;
use crate::problem::Problem;
use crate::splits::Splits;
use evo_sdpa_kernels::config::{Decode, Kernel, WARP};
use evo_sdpa_kernels::params::Workspace;

/// A tile of keys from its wait to the next one, of a warp that waits for nobody, clocks. An H200 took 0.8 us for each
/// further step of `fwd_sm80` on few keys, whatever its size.
const TILE_LATENCY: f64 = 1400.0;
/// From the first copy to the first tile, microseconds, of a block that starts. Likewise.
const FIRST_TILE: f64 = 0.5;
/// Instructions of a warp for a tile, beside those for each element of it. Counted in the simulator.
const TILE_INSTRUCTIONS: f64 = 100.0;
/// Elements of a tile for each further instruction of the warp. Counted in the simulator.
const ELEMENTS_PER_INSTRUCTION: f64 = 8.0;
/// Instructions that an SM issues in a clock.
const ISSUE: f64 = 4.0;
/// From the issue of a copy to its bytes from memory under load, microseconds. Assumed.
const MEMORY_LATENCY: f64 = 0.8;
/// The merge of the warps of a block, and its stores, microseconds. Likewise.
const MERGE: f64 = 0.6;
/// The merge of the blocks: partial results to L2, the ticket, partial results from L2, microseconds. Assumed: a way to
/// memory and back for each.
const COMBINE: f64 = 2.0;

/// Predicted microseconds of `config`, whose grid is not empty.
pub fn predict(
    config: Decode,
    problem: &Problem,
    device: &DeviceSpec,
    rates: &Rates,
    rounds: &Rounds,
    walk: &Walk,
) -> Prediction {
    let splits = Splits::planned(Kernel::Decode(config), problem, device);
    let size = f64::from(problem.dtype.size());
    let row = 2.0 * problem.head_dim() as f64 * size;
    let keys = walk.keys.min(f64::from(splits.keys) * f64::from(splits.count));
    // Keys and values, once from memory, and from L2 once for each tile of rows.
    let heads = (problem.batch() * problem.heads_kv()) as f64;
    let tensors = heads * keys * row;
    let row_tiles = limits::row_tiles(problem) as f64;
    let row_tile = Workspace { splits: splits.count, rows: Decode::ROWS, head_dim: config.head_dim };
    let partials = if splits.count > 1 { 2.0 * rounds.blocks * f64::from(row_tile.partial_bytes()) } else { 0.0 };
    let other = (problem.q.elements() + problem.out.elements()) as f64 * size + partials;
    let l2 = (row_tiles * tensors + other) / rates.l2;
    let dram = if tensors + other > rates.l2_capacity { (tensors + other) / rates.dram } else { 0.0 };

    // The longest block's: one that sees fewer keys leaves memory to the others.
    let tiles = walk.longest.min(f64::from(splits.keys / config.step()));
    let tile_instructions = TILE_INSTRUCTIONS + f64::from(config.tile_kv * config.head_dim) / ELEMENTS_PER_INSTRUCTION;
    let tile_bytes = f64::from(config.tile_kv) * f64::from(config.head_dim) * 2.0 * size;
    // One tile of every warp of so many blocks on an SM.
    let steps = |blocks: u32| {
        let warps = f64::from(blocks * config.threads() / WARP);
        let arithmetic = TILE_LATENCY.max(warps * tile_instructions / ISSUE) / rates.clock;
        let in_flight = warps * f64::from(config.stages) * tile_bytes;
        let rate = (in_flight / MEMORY_LATENCY).min(rates.copy * rates.clock);
        tiles * arithmetic.max(warps * tile_bytes / rate)
    };
    let mut prediction = Prediction {
        launch: rates.launch,
        start: rounds.time(|_| START + FIRST_TILE),
        steps: rounds.time(steps),
        merge: rounds.time(|_| MERGE) + if splits.count > 1 { COMBINE } else { 0.0 },
        bound: Some(Bound::Latency),
        ..Prediction::default()
    };
    let floor = rates.launch + START + l2.max(dram) + prediction.merge;
    prediction.memory = (floor - prediction.total()).max(0.0);
    if prediction.memory > 0.0 {
        prediction.bound = Some(if dram > l2 { Bound::Dram } else { Bound::L2 });
    }
    prediction
}
