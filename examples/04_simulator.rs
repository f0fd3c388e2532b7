//! A kernel without a GPU: the PTX that a driver would load, run on the CPU, and what the simulator has to say about it.

use evo_sdpa::half::f16;
use evo_sdpa::sim::ptx_sim::Class;
use evo_sdpa::{Causal, DeviceSpec, Options, Result, TensorView};

/// Prints the plan, what it executed and the first row of the answer.
///
/// # Panics
/// When the kernel has a defect.
pub fn main() -> Result<()> {
    let simulator = evo_sdpa::simulator()?.with_spec(DeviceSpec::A100);
    let wave = |n: usize, step: f32| (0..n).map(|i| f16::from_f32((i as f32 * step).sin())).collect::<Vec<_>>();
    let (q, k, v) = (wave(4 * 40 * 64, 0.1), wave(2 * 70 * 64, 0.2), wave(2 * 70 * 64, 0.3));
    let (queries, keys) = ([1, 4, 40, 64], [1, 2, 70, 64]); // [batch, heads, seq, head_dim]
    let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
    let answer = simulator.attention(
        TensorView::bhsd(&q, queries)?,
        TensorView::bhsd(&k, keys)?,
        TensorView::bhsd(&v, keys)?,
        &options,
        None,
    )?;
    let report = &answer.report;
    println!("{}\n{} instructions of warps", answer.plan, report.total.instructions);
    println!("{} matrix instructions, {} B of shared memory", report.executed(Class::Matrix), report.peak_shared);
    println!("out {:?}", &answer.output.out[..8]);
    assert!(report.is_clean(), "{report}");
    Ok(())
}
