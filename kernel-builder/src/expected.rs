//! How many instructions each entry point must hold, derived from its configuration alone.
//!
//! These formulas say what the kernels' sources spell out, and nothing about how the compiler got there. They are
//! written independently of the device code on purpose: a barrier that the compiler clones, or a loop that it unrolls
//! or peels, no longer fits them.

use crate::count::Counts;
use crate::gates::Defect;
use evo_sdpa_kernels::config::{Decode, FwdFp8, FwdScalar, FwdSm80, FwdSm90, Kernel, WARP};
use evo_sdpa_kernels::entry::{Entry, MmaRate};

/// What is counted in an entry point. Commits of copies are left out: they are recorded only, as it is harmless, and
/// left to the compiler, whether two branches share one.
pub fn expected(entry: Entry) -> Counts {
    match entry {
        Entry::Forward(Kernel::FwdScalar(config)) => scalar(config),
        Entry::Forward(Kernel::FwdSm80(config)) => sm80(config),
        Entry::Forward(Kernel::FwdSm90(config)) if config.e4m3 => fp8_sm90(config),
        Entry::Forward(Kernel::FwdSm90(config)) => sm90(config),
        Entry::Forward(Kernel::FwdFp8(config)) => fp8(config),
        Entry::Forward(Kernel::Decode(config)) => decode(config),
        // Between the log-sum-exps of a row and the merged one.
        Entry::MergeStates(_) => Counts { bar_warp_sync: 1, ..Counts::default() },
        // No thread waits for another.
        Entry::TokenSums(_) | Entry::TokenMean => Counts::default(),
        // Behind the magnitudes of the warps, which 32 lanes find in five shuffles.
        Entry::Amax(_) | Entry::Quantize(_) => Counts { bar_sync: 1, shfl_sync: 5, ..Counts::default() },
        // One loop, which the compiler may not unroll.
        Entry::MmaRate(_) => Counts { mma_sync: MmaRate::CHAINS, ..Counts::default() },
        // Threads have nothing to do with each other.
        Entry::Transpose => Counts::default(),
    }
}

fn scalar(_: FwdScalar) -> Counts {
    // One barrier behind the query row; maximum and sum over 32 lanes in five shuffles each, and one that hands a
    // probability to all.
    Counts { bar_warp_sync: 1, shfl_sync: 5 + 1 + 5, ..Counts::default() }
}

fn sm80(config: FwdSm80) -> Counts {
    let step = sm80_step(config);
    let row_frags = config.row_frags();
    // Where values lag a step, those of the last one are multiplied behind the loop.
    let (last_products, last_loads) = if config.values_lag() { value_product(config) } else { (0, 0) };
    // The k-steps of the queries that stay in registers are loaded once.
    let q_loads = row_frags * config.q_steps_in_registers();
    // Passes of the block over a tile, times the 16-byte chunks of a row that a thread copies.
    let copies = |rows: u32| rows.div_ceil(config.copy_rows()) * config.copy_spans();
    let split = config.kv_splits > 1;
    Counts {
        // At the start and at the end of a step; with one stage also before each group of keys and before values; two around
        // the merge; where blocks share keys, two around the ticket.
        bar_sync: 2
            + if config.values_lag() { 0 } else { config.key_groups() + 1 }
            + if split { 2 } else { 0 }
            + if config.shares_keys { 2 } else { 0 },
        // Around a warp's own rows of the output tile.
        bar_warp_sync: if split { 0 } else { 2 },
        // A row lies in four lanes: two shuffles for its maximum, two for its sum at the end.
        shfl_sync: 2 * (2 * row_frags) * 2,
        // Whether the base served.
        vote_sync: if config.values_lag() { 1 } else { 0 },
        mma_sync: step.tensor + last_products,
        ldmatrix: step.matrix_loads + last_loads + q_loads,
        // Queries, keys and values of the first stages, then keys and values of a later step.
        cp_async: copies(config.tile_q) + (2 * config.stages + 2) * copies(config.step()),
        // At the start and at the end of a step; with one stage, there and for each group of keys and for values.
        cp_async_wait: if config.values_lag() { 2 } else { 2 + config.key_groups() },
        ..Counts::default()
    }
}

/// Of these only what [`mismatches`] looks at: TMA copies all tiles, and `wgmma` reads them where they lie.
fn sm90(config: FwdSm90) -> Counts {
    let (key_products, value_products) = (config.head_dim / 16, config.tile_kv / 16);
    let narrow_products = config.narrow_kv() / 16;
    let spans = config.spans();
    let when = |holds: bool, count: u32| if holds { count } else { 0 };
    let (takes_turns, stages_output) = (config.groups() > 1, config.stages_output());
    let (is_alone, clears_values) = (config.is_alone(), config.clears_values());
    // A first step alone, three ways of a step beside a product with values (the first of them with a mask), and that
    // product alone. The output is stored behind the third way, and behind the product alone. Narrow
    // steps are a fourth way, of the third kind, and the step behind one is a fifth.
    let has_narrow = config.narrow_kv() < config.tile_kv;
    let (first, ways, last, stores) = (1, 3 + when(has_narrow, 2), 1, 2);
    let plain_ways = 1 + when(has_narrow, 1);
    let finishes = stores + when(has_narrow, 1);
    // How often the producer's text fills a tile: queries and keys before the loop over tiles and in it, keys and values in
    // the loop over steps, values behind it.
    let (q_fills, k_fills, v_fills) = (2, 3, 2);
    let products = first + 2 * ways + last;
    Counts {
        // At the start, where blocks are alone; before products; around the output tile.
        bar_sync: when(is_alone, 1) + when(takes_turns, ways) + when(stages_output, 2 * stores),
        // Before the first turn; behind products.
        bar_arrive: when(takes_turns, 1 + ways),
        // At the start and at the end, an arrival and a wait each.
        cluster_barrier: when(!is_alone, 4),
        // Behind the number of a tile; behind cleared values.
        bar_warp_sync: q_fills + when(clears_values, v_fills),
        // Key rows of a tile: producer and consumers, first tile and later ones; the number of a tile, likewise of consumers;
        // warpgroup and ticket. Four for the maxima of two rows where the base
        // moves: a first step, the ways, and one of them over again. Four for their sums. The words of four fragments of a half.
        shfl_sync: 4
            + 2
            + 1
            + 1
            + 4 * (first + ways)
            + 4 * finishes
            + when(!stages_output, stores * 2 * (config.head_dim / 32) * 4),
        // Whether the base served; whether outputs have to be rescaled, in a step with a mask and in one over again.
        vote_sync: plain_ways + 1 + plain_ways,
        // One k-step of the scores of a warp, in a loop.
        mma_sync: plain_ways * config.tile_kv / 8,
        stmatrix: when(stages_output, stores * config.head_dim / 16),
        // Values go to one of two barriers where some may be cleared.
        bulk_copies: spans * (q_fills + k_fills + v_fills + when(clears_values, v_fills) + when(stages_output, stores)),
        bulk_commit: when(stages_output, stores),
        bulk_wait: when(stages_output, stores + 1),
        mbarrier_init: 2 * config.q_stages() + 4 * config.stages + config.patches() + when(!is_alone, 2),
        // The producer: queries or the end; keys; values, or values to be cleared, twice. Consumers: keys, values, queries. In
        // clusters a ticket's receiver, twice, and consumers who skip keys and values, in a first tile and in a later one.
        mbarrier_arrive: 2 * q_fills
            + k_fills
            + v_fills
            + when(clears_values, 2 * v_fills)
            + (first + ways)
            + (ways + last)
            + 1
            + when(!is_alone, 2 + 2 * 2),
        // The same, and two that wait for the queries of a tile. The ways that store begin with one wait for keys.
        mbarrier_wait: q_fills
            + k_fills
            + v_fills
            + when(clears_values, v_fills)
            + (first + ways)
            + (ways + last)
            + 2
            + when(!is_alone, 3 + 2 * 2)
            - when(has_narrow, 1),
        wgmma: (first + ways) * key_products + (ways + last) * value_products
            - when(has_narrow, value_products - narrow_products),
        wgmma_fence: products,
        wgmma_commit: products,
        wgmma_wait: products,
        setmaxnreg: 2,
        ..Counts::default()
    }
}

/// The same with operands in e4m3. There is always an output tile.
fn fp8_sm90(config: FwdSm90) -> Counts {
    // Plain steps come with exact sums and without; their weights may be made over again.
    let plain = 2;
    // A first step alone, a careful step, plain ones, the last product of a tile beside the first one of the next, and that
    // product alone; the output is stored behind the last two.
    let (first, ways, last, stores) = (1, 1 + plain + 1, 1, 2);
    let maxima = first + ways;
    let (q_fills, k_fills, v_fills) = (2, 3, 2);
    let products = first + 2 * ways + last;
    Counts {
        // At the start; before sums are parked; around the output tile.
        bar_sync: 2 + 2 * stores,
        // Behind the number of a tile; where a warp has its queries.
        bar_warp_sync: 2 * q_fills,
        // Key rows of a tile: producer and consumers, first tile and later ones; the number of a tile, likewise of consumers;
        // warpgroup and ticket. Four for the maxima of two rows, four for those of weights that are lowered, and for sums.
        shfl_sync: 4 + 2 + 2 + 4 * (maxima + plain) + 4 * stores,
        // Whether a base is far away; whether outputs have to be rescaled; whether the base served, and if weights are lost.
        vote_sync: maxima + 1 + 2 * plain,
        // One k-step of the scores of a warp, in a loop, in two halves.
        mma_sync: plain * 2 * config.tile_kv / 8,
        // Queries, 32 bytes of each row.
        ldmatrix: q_fills * config.head_dim / 32,
        stmatrix: stores * config.head_dim / 16,
        // Transposed values are one box.
        bulk_copies: config.spans() * (q_fills + k_fills) + v_fills + stores * config.out_spans(),
        bulk_commit: stores,
        bulk_wait: stores + 2,
        mbarrier_init: 2 * config.q_stages() + 4 * config.stages,
        // The producer: queries or the end; keys; values. Consumers: keys, values, queries.
        mbarrier_arrive: 2 * q_fills + k_fills + v_fills + (first + ways) + (ways + last) + q_fills,
        // The same; plain steps ask whether there are keys.
        mbarrier_wait: q_fills + k_fills + v_fills + (first + ways) + (ways + last) + q_fills + plain,
        // 32 bytes of keys, 32 keys of values.
        wgmma: (first + ways) * config.head_dim / 32 + (ways + last) * config.tile_kv / 32,
        wgmma_fence: products,
        wgmma_commit: products,
        wgmma_wait: products,
        setmaxnreg: 2,
        ..Counts::default()
    }
}

/// What one pass of the loop in which an entry point spends its time must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Matrix products.
    pub tensor: u32,
    /// `ldmatrix`.
    pub matrix_loads: u32,
    /// Exponentials.
    pub exponentials: u32,
}

/// One step of `entry`; `None` for an entry point without matrix products.
pub fn expected_step(entry: Entry) -> Option<Step> {
    match entry {
        Entry::Forward(Kernel::FwdScalar(_)) | Entry::MergeStates(_) | Entry::Transpose => None,
        Entry::TokenSums(_) | Entry::TokenMean | Entry::Amax(_) | Entry::Quantize(_) => None,
        Entry::Forward(Kernel::FwdSm90(config)) if config.e4m3 => Some(fp8_sm90_step(config)),
        Entry::Forward(Kernel::FwdSm90(config)) => Some(sm90_step(config)),
        Entry::Forward(Kernel::FwdSm80(config)) => Some(sm80_step(config)),
        Entry::Forward(Kernel::FwdFp8(config)) => Some(fp8_step(config)),
        Entry::Forward(Kernel::Decode(config)) => Some(decode_step(config)),
        Entry::MmaRate(_) => Some(Step { tensor: MmaRate::CHAINS, matrix_loads: 0, exponentials: 0 }),
    }
}

fn sm80_step(config: FwdSm80) -> Step {
    // Where values lag, the loop holds both ways of taking a step: with the base that is there, and with another one.
    let ways = if config.values_lag() { 2 } else { 1 };
    let row_frags = config.row_frags();
    // The k-steps of the queries that do not stay in registers.
    let q_steps = config.head_dim / 16 - config.q_steps_in_registers();
    let (value_products, value_loads) = value_product(config);
    // m16n8k16: a score fragment takes head_dim / 16 of them. An x4 load covers 16 x 16 elements.
    let key_products = config.score_frags() * config.head_dim / 16;
    let key_loads = (config.tile_kv / 16) * (config.head_dim / 16) + row_frags * q_steps;
    Step {
        tensor: ways * (key_products + value_products),
        matrix_loads: ways * (key_loads + value_loads),
        // One for each score of a lane; where the base moves, one to rescale each of its rows.
        exponentials: ways * 4 * config.score_frags() + 2 * row_frags,
    }
}

fn fp8(config: FwdFp8) -> Counts {
    let (step, block) = (fp8_step(config), config.block());
    let row_frags = block.row_frags();
    let (last_products, last_loads) = fp8_value_product(config);
    let copies = |rows: u32| rows.div_ceil(block.copy_rows()) * block.copy_spans();
    Counts {
        // At the start and at the end of a step.
        bar_sync: 2,
        // A row lies in four lanes: two shuffles for its maximum in either way of taking a step, two for its sum at the end.
        shfl_sync: (2 + 1) * (2 * row_frags) * 2,
        // Whether a base moved.
        vote_sync: 2,
        // Behind the loop, the product with the last values.
        mma_sync: step.tensor + last_products,
        // The k-steps of the queries that stay in registers are loaded once.
        ldmatrix: step.matrix_loads + last_loads + row_frags * config.q_steps_in_registers(),
        // Queries, keys and values of the first stages, then keys and values of a later step.
        cp_async: copies(config.tile_q) + (2 * config.stages + 2) * copies(config.tile_kv),
        cp_async_wait: 2,
        ..Counts::default()
    }
}

/// With a mask and without.
fn fp8_step(config: FwdFp8) -> Step {
    let block = config.block();
    let (value_products, value_loads) = fp8_value_product(config);
    // m16n8k32: a score fragment takes head_dim / 32 of them. An x4 load covers 16 keys and 32 columns.
    let key_products = block.score_frags() * config.head_dim / 32;
    // The k-steps of the queries that do not stay in registers.
    let q_steps = config.head_dim / 32 - config.q_steps_in_registers();
    let key_loads = (config.tile_kv / 16) * (config.head_dim / 32) + block.row_frags() * q_steps;
    Step {
        tensor: 2 * (key_products + value_products),
        matrix_loads: 2 * (key_loads + value_loads),
        // One for each score of a lane, and one to rescale each of its rows.
        exponentials: 2 * (4 * block.score_frags() + 2 * block.row_frags()),
    }
}

/// `mma.sync` and `ldmatrix` of a product with the values of a step: an x4 load covers 32 keys and 16 columns.
fn fp8_value_product(config: FwdFp8) -> (u32, u32) {
    let loads = (config.tile_kv / 32) * (config.head_dim / 16);
    (config.block().row_frags() * 2 * loads, loads)
}

/// A step without a mask, and its scores once more where the warp takes it over again.
fn sm90_step(config: FwdSm90) -> Step {
    let scores = FwdSm90::GROUP_ROWS * config.tile_kv / FwdSm90::GROUP_THREADS;
    Step {
        tensor: config.head_dim / 16 + config.tile_kv / 16 + config.tile_kv / 8,
        matrix_loads: 0,
        // One for each score of a thread, twice; where the base moves, one to rescale each of its rows.
        exponentials: 2 * scores + 2,
    }
}

/// A step in which the base is kept, and its scores once more where the warp has lost its weights, as in [`sm90_step`]; each
/// `mma` of scores takes half of the columns of a product by a warpgroup.
fn fp8_sm90_step(config: FwdSm90) -> Step {
    let scores = FwdSm90::GROUP_ROWS * config.tile_kv / FwdSm90::GROUP_THREADS;
    Step {
        tensor: config.head_dim / 32 + config.tile_kv / 32 + 2 * config.tile_kv / 8,
        matrix_loads: 0,
        // One for each score of a thread, twice; where bases move, by maxima or by sums, one to rescale each row.
        exponentials: 2 * scores + 4,
    }
}

/// `mma.sync` and `ldmatrix` of a product with the values of a step.
fn value_product(config: FwdSm80) -> (u32, u32) {
    (config.out_frags() * config.tile_kv / 16, (config.tile_kv / 16) * (config.head_dim / 16))
}

/// The only way of a step, with queries from registers or from shared memory.
fn decode_step(config: Decode) -> Step {
    let block = config.block();
    let (key_tiles, column_tiles) = (config.tile_kv / 16, config.head_dim / 16);
    Step {
        tensor: 2 * 2 * key_tiles * column_tiles,
        matrix_loads: 2 * key_tiles * column_tiles + column_tiles - block.q_steps_in_registers(),
        exponentials: 4 * block.score_frags() + 2,
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
        // Two score fragments for each load of keys, two output fragments for each load of values.
        mma_sync: 2 * 2 * key_tiles * column_tiles,
        ldmatrix: 2 * key_tiles * column_tiles + column_tiles,
        // Keys and values of the first stages, and of a later tile in the step.
        cp_async: q_copies + 2 * (config.stages + 1) * tile_copies,
        cp_async_wait: 2,
        ..Counts::default()
    }
}

/// Where `found` is not what the configuration of `entry` calls for.
pub fn mismatches(entry: Entry, found: &Counts) -> impl Iterator<Item = Defect> + use<> {
    let expected = expected(entry);
    [
        ("bar.sync", found.bar_sync, expected.bar_sync),
        ("bar.arrive", found.bar_arrive, expected.bar_arrive),
        ("bar.warp.sync", found.bar_warp_sync, expected.bar_warp_sync),
        ("shfl.sync", found.shfl_sync, expected.shfl_sync),
        ("vote.sync", found.vote_sync, expected.vote_sync),
        ("mma.sync", found.mma_sync, expected.mma_sync),
        ("ldmatrix", found.ldmatrix, expected.ldmatrix),
        ("cp.async", found.cp_async, expected.cp_async),
        ("cp.async.wait_group", found.cp_async_wait, expected.cp_async_wait),
        ("cp.async.bulk", found.bulk_copies, expected.bulk_copies),
        ("cp.async.bulk.commit_group", found.bulk_commit, expected.bulk_commit),
        ("cp.async.bulk.wait_group", found.bulk_wait, expected.bulk_wait),
        ("mbarrier.init", found.mbarrier_init, expected.mbarrier_init),
        ("mbarrier.arrive", found.mbarrier_arrive, expected.mbarrier_arrive),
        ("mbarrier.try_wait", found.mbarrier_wait, expected.mbarrier_wait),
        ("wgmma.mma_async", found.wgmma, expected.wgmma),
        ("wgmma.fence", found.wgmma_fence, expected.wgmma_fence),
        ("wgmma.commit_group", found.wgmma_commit, expected.wgmma_commit),
        ("wgmma.wait_group", found.wgmma_wait, expected.wgmma_wait),
        ("setmaxnreg", found.setmaxnreg, expected.setmaxnreg),
        ("stmatrix", found.stmatrix, expected.stmatrix),
    ]
    .into_iter()
    .filter(|(_, found, expected)| found != expected)
    .map(|(instruction, found, expected)| Defect::Count { instruction, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_kernel_for_e4m3_worked_out_by_hand() {
        // 4 warps of 16 rows, 64 keys a step, 64 columns: two k32 steps of either product, both with queries in registers.
        let entry = Entry::parse("fwd_fp8_bf16_d64_q64_kv64_w4_s2").unwrap();
        let counts = expected(entry);
        assert_eq!((counts.bar_sync, counts.vote_sync, counts.cp_async_wait), (2, 2, 2));
        // Two rows a lane; maximum, in either way of taking a step, and sum.
        assert_eq!(counts.shfl_sync, 3 * 2 * 2);
        // Q K^T: 8 fragments x 2 k-steps, twice; P V: the same, three times.
        assert_eq!(counts.mma_sync, 5 * 16);
        // Keys: 4 x 2 loads, twice; values: 2 x 4, three times; queries 2.
        assert_eq!(counts.ldmatrix, 5 * 8 + 2);
        // A row is 64 bytes: 32 rows a pass. Queries in 2; keys, values in 2, twice at the start and once in the loop.
        assert_eq!(counts.cp_async, 2 + 3 * (2 + 2));
        let step = expected_step(entry).unwrap();
        assert_eq!((step.tensor, step.matrix_loads, step.exponentials), (64, 32, 2 * (32 + 2)));
        // 128 columns: queries are read again in every step.
        let wide = expected(Entry::parse("fwd_fp8_f16_d128_q64_kv64_w4_s2").unwrap());
        assert_eq!(wide.mma_sync, 5 * 32);
        assert_eq!(wide.ldmatrix, 5 * 16 + 2 * 4);
    }

    #[test]
    fn counts_of_a_kernel_worked_out_by_hand() {
        // 4 warps of 32 rows, 64 keys a step, 64 columns.
        let entry = Entry::parse("fwd_sm80_bf16_d64_q128_kv64_w4_s2").unwrap();
        let counts = expected(entry);
        assert_eq!(counts.bar_sync, 2);
        assert_eq!(counts.shfl_sync, 16);
        assert_eq!(counts.vote_sync, 1);
        // Q K^T: 2 x 8 fragments x 4 k-steps, twice; P V: the same, three times.
        assert_eq!(counts.mma_sync, 5 * 64);
        // Keys 4 x 4, values 4 x 4; queries 2 x 4: three k-steps once, and one for each product with keys.
        assert_eq!(counts.ldmatrix, 5 * 16 + 2 * (3 + 2));
        // 16 rows a pass: queries in 8; keys, values in 4, twice at the start and once in the loop.
        assert_eq!(counts.cp_async, 8 + 3 * (4 + 4));
    }

    #[test]
    fn counts_of_a_wide_kernel_that_splits_keys_worked_out_by_hand() {
        // 4 warps that share 16 rows, 16 keys a step each, 192 columns in three spans.
        let counts = expected(Entry::parse("fwd_sm80_bf16_d192_q16_kv16_w4_x4_s1").unwrap());
        assert_eq!((counts.bar_sync, counts.bar_warp_sync, counts.shfl_sync), (6, 0, 8));
        // Q K^T: 2 fragments x 12 k-steps; P V: 24 x 1.
        assert_eq!(counts.mma_sync, 24 + 24);
        // Keys 12, values 12; queries 12.
        assert_eq!(counts.ldmatrix, 24 + 12);
        // 16 rows a pass: queries in 1; keys, values of 64 in 4, once at the start and once in the loop; three spans.
        assert_eq!(counts.cp_async, 3 * (1 + 2 * (4 + 4)));
    }

    #[test]
    fn blocks_that_share_keys_have_two_barriers_more_and_nothing_else() {
        let counts = |name| expected(Entry::parse(name).unwrap());
        let alone = counts("fwd_sm80_bf16_d64_q64_kv64_w4_s2");
        assert_eq!(counts("fwd_sm80_bf16_d64_q64_kv64_w4_s2_b"), Counts { bar_sync: 4, ..alone });
    }

    #[test]
    fn counts_of_a_kernel_with_roles_worked_out_by_hand() {
        // Two warpgroups that multiply, 128 keys a step, two spans of columns, an output tile.
        let counts = expected(Entry::parse("fwd_sm90_bf16_d128_q128_kv128_s2").unwrap());
        // Keys: a first step, and five ways of a step; values: the five ways, and the last. Eight k-steps each, but four
        // behind a narrow step.
        assert_eq!((counts.wgmma, counts.wgmma_commit, counts.wgmma_wait), (6 * 8 + 6 * 8 - 4, 12, 12));
        // One for all threads, five before products, two around each of two stores.
        assert_eq!((counts.bar_sync, counts.bar_arrive), (1 + 5 + 4, 6));
        // Two query tiles, two stages of keys and of values, full and empty each; values to be cleared.
        assert_eq!(counts.mbarrier_init, 2 * (2 + 2 + 2) + 1);
        // Queries twice, keys three times, values four times; two stores.
        assert_eq!((counts.bulk_copies, counts.stmatrix), (2 * (2 + 3 + 4 + 2), 16));
        // Six times four maxima, three times four sums, eight that tell all lanes a number.
        assert_eq!((counts.shfl_sync, counts.vote_sync), (24 + 12 + 8, 5));
        // One that has no room for an output tile exchanges words instead: two stores of two halves of eight fours of columns.
        // It has no narrow steps: four times four maxima, twice four sums.
        let counts = expected(Entry::parse("fwd_sm90_bf16_d256_q128_kv80_s2").unwrap());
        assert_eq!((counts.stmatrix, counts.bulk_commit, counts.shfl_sync), (0, 0, 32 + 2 * 2 * 8 * 4));
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
