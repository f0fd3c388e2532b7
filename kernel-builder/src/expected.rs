//! How many instructions each entry point must hold, derived from its configuration alone.
//!
//! These formulas say what the kernels' sources spell out, and nothing about how the compiler got there. They are
//! written independently of the device code on purpose: a barrier that the compiler clones, or a loop that it unrolls
//! or peels, no longer fits them.

use crate::count::Counts;
use crate::gates::Defect;
use evo_sdpa_kernels::config::{Decode, FwdScalar, FwdSm80, Kernel, WARP};
use evo_sdpa_kernels::entry::{Entry, MmaRate};

/// What is counted in an entry point. Commits of copies are left out: they are recorded only, as it is harmless, and
/// left to the compiler, whether two branches share one.
pub fn expected(entry: Entry) -> Counts {
    match entry {
        Entry::Forward(Kernel::FwdScalar(config)) => scalar(config),
        Entry::Forward(Kernel::FwdSm80(config)) => sm80(config),
        Entry::Forward(Kernel::Decode(config)) => decode(config),
        // One loop, which the compiler may not unroll.
        Entry::MmaRate(_) => Counts { mma_sync: MmaRate::CHAINS, ..Counts::default() },
    }
}

fn scalar(_: FwdScalar) -> Counts {
    // One barrier behind the query row; maximum and sum over 32 lanes in five shuffles each, and one that hands a
    // probability to all.
    Counts { bar_warp_sync: 1, shfl_sync: 5 + 1 + 5, ..Counts::default() }
}

fn sm80(config: FwdSm80) -> Counts {
    // The step of the masked loop and that of the loop without a mask.
    let steps = 2;
    let row_frags = config.row_frags();
    // m16n8k16: each score fragment takes head_dim / 16 of them, each output fragment tile_kv / 16.
    let mma = config.score_frags() * config.head_dim / 16 + config.out_frags() * config.tile_kv / 16;
    // An x4 load covers 16 x 16 elements of keys or of values.
    let kv_loads = 2 * (config.tile_kv / 16) * (config.head_dim / 16);
    // Each k-step of the queries is loaded once where it stays in registers, else in every step.
    let held = config.q_steps_in_registers();
    let q_loads = row_frags * (held + steps * (config.head_dim / 16 - held));
    // Passes of the block over a tile, times the 16-byte chunks of a row that a thread copies.
    let copies = |rows: u32| rows.div_ceil(config.copy_rows()) * config.copy_spans();
    let split = config.kv_splits > 1;
    Counts {
        // At the start, A and B of each step, and two around the merge.
        bar_sync: 1 + 2 * steps + if split { 2 } else { 0 },
        // Around a warp's own rows of the output tile.
        bar_warp_sync: if split { 0 } else { 2 },
        // A row lies in four lanes: two shuffles for its maximum in each step, two for its sum at the end.
        shfl_sync: 2 * (2 * row_frags) * (steps + 1),
        vote_sync: 0,
        mma_sync: steps * mma,
        ldmatrix: steps * kv_loads + q_loads,
        // Queries, keys and values of the first stages, then keys and values of a later step in each step.
        cp_async: copies(config.tile_q) + (2 * config.stages + 2 * steps) * copies(config.step()),
        cp_async_commit: 0,
        cp_async_wait: 1 + 2 * steps,
    }
}

fn decode(config: Decode) -> Counts {
    // A warp has 16 rows: a score fragment for eight keys, an output fragment for eight columns.
    let (key_tiles, column_tiles) = (config.tile_kv / 16, config.head_dim / 16);
    // A lane copies 16 bytes of a warp's tile at a time, a thread 16 bytes of the queries.
    let tile_copies = config.tile_kv * config.head_dim * 2 / 16 / WARP;
    let q_copies = (Decode::ROWS * config.head_dim * 2 / 16).div_ceil(config.threads());
    Counts {
        // Behind the queries, around the parts of the warps, around the ticket.
        bar_sync: 1 + 2 + 2,
        // Around the use of a tile.
        bar_warp_sync: 2,
        // Two rows a lane: two shuffles for the maximum in the step, two for the sum at the end.
        shfl_sync: 2 * 2 * 2,
        vote_sync: 0,
        // Two score fragments for each load of keys, two output fragments for each load of values.
        mma_sync: 2 * 2 * key_tiles * column_tiles,
        ldmatrix: 2 * key_tiles * column_tiles + column_tiles,
        // Keys and values of the first stages, and of a later tile in the step.
        cp_async: q_copies + 2 * (config.stages + 1) * tile_copies,
        cp_async_commit: 0,
        cp_async_wait: 2,
    }
}

/// Where `found` is not what the configuration of `entry` calls for.
pub fn mismatches(entry: Entry, found: &Counts) -> impl Iterator<Item = Defect> + use<> {
    let expected = expected(entry);
    [
        ("bar.sync", found.bar_sync, expected.bar_sync),
        ("bar.warp.sync", found.bar_warp_sync, expected.bar_warp_sync),
        ("shfl.sync", found.shfl_sync, expected.shfl_sync),
        ("vote.sync", found.vote_sync, expected.vote_sync),
        ("mma.sync", found.mma_sync, expected.mma_sync),
        ("ldmatrix", found.ldmatrix, expected.ldmatrix),
        ("cp.async", found.cp_async, expected.cp_async),
        ("cp.async.wait_group", found.cp_async_wait, expected.cp_async_wait),
    ]
    .into_iter()
    .filter(|(_, found, expected)| found != expected)
    .map(|(instruction, found, expected)| Defect::Count { instruction, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_kernel_worked_out_by_hand() {
        // 4 warps of 32 rows, 64 keys a step, 64 columns.
        let entry = Entry::parse("fwd_sm80_bf16_d64_q128_kv64_w4_s2").unwrap();
        let counts = expected(entry);
        assert_eq!(counts.bar_sync, 5);
        assert_eq!(counts.shfl_sync, 24);
        // Q K^T: 2 x 8 fragments x 4 k-steps; P V: the same; in two loops.
        assert_eq!(counts.mma_sync, 2 * (64 + 64));
        // Keys 4 x 4, values 4 x 4, in two loops; queries 2 x 4, once.
        assert_eq!(counts.ldmatrix, 2 * 32 + 8);
        // 16 rows a pass: queries in 8; keys, values in 4, twice at the start and once in each loop.
        assert_eq!(counts.cp_async, 8 + 4 * (4 + 4));
    }

    #[test]
    fn one_barrier_too_many_is_a_mismatch_and_so_is_a_lost_mma() {
        let entry = Entry::parse("fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1").unwrap();
        let right = expected(entry);
        assert_eq!(mismatches(entry, &right).count(), 0);
        let wrong = Counts { bar_sync: right.bar_sync + 1, mma_sync: right.mma_sync - 1, ..right };
        let found: Vec<_> = mismatches(entry, &wrong).map(|defect| defect.to_string()).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("8 bar.sync instead of 7"), "{}", found[0]);
    }
}
