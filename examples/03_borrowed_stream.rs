//! Attention inside somebody else's CUDA program: their context, their stream, their memory, their graph.
//!
//! Here the somebody is plain driver calls; in an inference engine it is candle or cudarc, which hand out the same
//! handles.

use evo_sdpa::gpu::sys::*;
use evo_sdpa::gpu::{Gpu, Kernels};
use evo_sdpa::{Causal, DType, DevicePointers, Error, Options, PTX, Plan, Problem, Result, TensorView, cpu};
use std::ptr::null_mut;

const SHAPE: [usize; 4] = [2, 4, 60, 64];
const BYTES: usize = SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3] * size_of::<f32>();

/// Panics when the driver refuses a call, or the answer differs from the CPU's.
pub fn main() -> Result<()> {
    if let Err(Error::NoDevice { reason }) = Gpu::open(0, PTX) {
        println!("no GPU: skipped ({reason})");
        return Ok(());
    }
    let wave = |step: f32| (0..BYTES / 4).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let inputs = [wave(0.1), wave(0.2), wave(0.3)];

    // Theirs.
    let (mut context, mut stream, mut addresses) = (null_mut(), null_mut(), [0; 4]);
    // SAFETY: the driver writes handles and addresses to variables of their types; each copy has the size of both sides.
    unsafe {
        done(cuCtxCreate_v2(&mut context, 0, 0));
        done(cuStreamCreate(&mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32));
        for address in &mut addresses {
            done(cuMemAlloc_v2(address, BYTES));
        }
        for (input, address) in inputs.iter().zip(addresses) {
            done(cuMemcpyHtoDAsync_v2(address, input.as_ptr().cast(), BYTES, stream));
        }
        done(cuStreamSynchronize(stream));
    }

    // Ours: the kernels in their context, a plan, and one launch that becomes part of their graph.
    // SAFETY: the context outlives the kernels.
    let kernels = unsafe { Kernels::in_context(context, PTX) }?;
    let [b, h, s, d] = SHAPE;
    let causal = Some(Causal::BottomRight);
    let problem = Problem::contiguous(DType::F32, [b, h, h, s, s, d]).with_causal(causal);
    let plan = Plan::new(&problem, kernels.device())?;
    kernels.prepare(plan.kernel)?; // compiles, so it comes before the capture
    let [q, k, v, out] = addresses;
    let pointers = DevicePointers { q, k, v, out, ..DevicePointers::default() };

    let mut answer = vec![f32::NAN; BYTES / 4];
    let (mut graph, mut executable) = (null_mut(), null_mut());
    // SAFETY: the stream is of the context, the addresses are of the plan's tensors, and `answer` holds the output.
    unsafe {
        done(cuStreamBeginCapture_v2(stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        kernels.launch(&plan, &pointers, stream)?;
        done(cuStreamEndCapture(stream, &mut graph));
        done(cuGraphInstantiateWithFlags(&mut executable, graph, 0));
        for _ in 0..3 {
            done(cuGraphLaunch(executable, stream));
        }
        done(cuMemcpyDtoHAsync_v2(answer.as_mut_ptr().cast(), out, BYTES, stream));
        done(cuStreamSynchronize(stream));
    }
    drop(kernels);
    // SAFETY: nothing uses them any more; the memory goes with the context.
    unsafe {
        done(cuGraphExecDestroy(executable));
        done(cuGraphDestroy(graph));
        done(cuStreamDestroy_v2(stream));
        done(cuCtxDestroy_v2(context));
    }

    let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]].map(|data| TensorView::bhsd(data, SHAPE));
    let expected = cpu::attention(q?, k?, v?, &Options { causal, ..Options::default() })?;
    let error =
        answer.iter().zip(&expected.out).map(|(a, e)| (a - e).abs()).fold(0.0, |m: f32, e| if e <= m { m } else { e });
    println!("{plan}\nlargest difference from the CPU: {error:.1e}");
    assert!(error < 1e-5);
    Ok(())
}

fn done(result: CUresult) {
    assert_eq!(result, CUresult::CUDA_SUCCESS);
}
