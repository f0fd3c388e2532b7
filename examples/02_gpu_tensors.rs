//! Attention on a GPU that is all ours: bf16 tensors in [batch, seq, heads, head_dim] memory, a causal mask.

use evo_sdpa::half::bf16;
use evo_sdpa::{Causal, Error, Layout, Options, Result, TensorView};

/// Prints the kernel that ran and the first row of its answer.
pub fn main() -> Result<()> {
    let gpu = match evo_sdpa::gpu(0) {
        Err(Error::NoDevice { reason }) => {
            println!("no GPU: skipped ({reason})");
            return Ok(());
        }
        gpu => gpu?,
    };
    let upload = |shape: [usize; 4], step: f32| {
        let wave: Vec<_> =
            (0..shape.iter().product()).map(|i: usize| bf16::from_f32((i as f32 * step).sin())).collect();
        gpu.upload(TensorView::new(&wave, Layout::bshd(shape))?)
    };
    let q = upload([1, 8, 100, 64], 0.1)?; // [batch, heads, seq, head_dim], whatever the order in memory
    let k = upload([1, 2, 300, 64], 0.2)?;
    let v = upload([1, 2, 300, 64], 0.3)?;
    let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
    let answer = gpu.attention(&q, &k, &v, &options)?;
    println!("{} on {}\nout {:?}", answer.plan, gpu.name(), &answer.out.download()?[..8]);
    Ok(())
}
