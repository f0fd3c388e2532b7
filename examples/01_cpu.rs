//! Attention on the CPU: two heads, three queries, four keys, with a causal mask.

use evo_sdpa::{Causal, Options, Result, TensorView, cpu};

/// Prints the first row of the answer and the log-sum-exp of every row.
pub fn main() -> Result<()> {
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let (q, k, v) = (wave(2 * 3 * 8, 0.1), wave(2 * 4 * 8, 0.2), wave(2 * 4 * 8, 0.3));
    let (queries, keys) = ([1, 2, 3, 8], [1, 2, 4, 8]); // [batch, heads, seq, head_dim]
    let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
    let answer = cpu::attention(
        TensorView::bhsd(&q, queries)?,
        TensorView::bhsd(&k, keys)?,
        TensorView::bhsd(&v, keys)?,
        &options,
    )?;
    println!("out {:?}\nlse {:?}", &answer.out[..8], answer.lse);
    Ok(())
}
