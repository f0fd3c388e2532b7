//! One decoding step over a paged cache: new query rows of two sequences, whose keys and values lie in pages that a block
//! table gives out. On the CPU; `evo_sdpa::gpu(0)?` and `evo_sdpa::simulator()?` take the same options.

use evo_sdpa::half::f16;
use evo_sdpa::{DType, DeviceSpec, Layout, Options, Pages, Plan, Problem, Result, TensorView, cpu};

/// Prints the plan that a GPU would follow and the first row of the answer.
pub fn main() -> Result<()> {
    // A cache of 8 pages of 16 rows, [pages, rows, heads_kv, head_dim] as vLLM has it: a view, no copy.
    let (pages, rows, heads_q, heads_kv, head_dim) = (8, 16, 8, 2, 64);
    let cache = Layout::bshd([pages, heads_kv, rows, head_dim]);
    let wave = |n: usize, step: f32| (0..n).map(|i| f16::from_f32((i as f32 * step).sin())).collect::<Vec<_>>();
    let (k, v) = (wave(cache.elements(), 0.2), wave(cache.elements(), 0.3));
    // Two sequences of 40 and 9 keys, with room for 4 pages each; what stands behind their last page is not looked at.
    let block_table = [5, 0, 7, -1, 2, -1, -1, -1];
    let q = wave(2 * heads_q * head_dim, 0.1);
    let queries = [2, heads_q, 1, head_dim];
    let options = Options {
        kv_lens: Some(&[40, 9]),
        pages: Some(Pages { block_table: &block_table, per_sequence: 4 }),
        ..Options::default()
    };
    let answer = cpu::attention(
        TensorView::bhsd(&q, queries)?,
        TensorView::new(&k, cache)?,
        TensorView::new(&v, cache)?,
        &options,
    )?;
    println!("out {:?}\nlse {:?}", &answer.out[..8], answer.lse);

    // An engine plans once for the capacity of its cache, keeps a zeroed workspace, and launches step after step.
    let cache = Layout::bshd([4096, heads_kv, rows, head_dim]);
    let problem = Problem::new(DType::F16, Layout::bhsd([16, heads_q, 1, head_dim]), cache, cache)
        .with_kv_lens(true)
        .with_pages(Some(512));
    let plan = Plan::new(&problem, &DeviceSpec::L4)?;
    println!("{plan}, workspace {} B", plan.workspace_bytes());
    Ok(())
}
