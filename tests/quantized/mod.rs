//! Quantising on a GPU: the bits of the host, in one call, and in a CUDA graph on a workspace that holds anything.

use super::gpu_or_skip;
use evo_sdpa::gpu::{Gpu, LaunchOptions, sys};
use evo_sdpa::half::bf16;
use evo_sdpa::quantize::Call;
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{Case, Inputs, Quantization, Special, Storage, Unquantized};
use evo_sdpa::{
    Causal, DType, DevicePointers, Element, Fp8, GpuTensor, Kernel, Layout, Plan, QuantizePlan, QuantizePointers,
    ScaleBlocks, TensorView, cpu, with_element,
};

const BLOCKS: [ScaleBlocks; 5] =
    [ScaleBlocks::Rows(64), ScaleBlocks::Rows(128), ScaleBlocks::Rows(256), ScaleBlocks::Head, ScaleBlocks::Tensor];

/// The first GPU, if it takes e4m3.
fn gpu_for_e4m3() -> Option<&'static Gpu> {
    gpu_or_skip().filter(|gpu| gpu.spec().compute_capability >= 89)
}

fn upload<T: Element>(gpu: &Gpu, views: [TensorView<T>; 3]) -> [GpuTensor<T>; 3] {
    views.map(|view| gpu.upload(view).unwrap())
}

#[test]
fn kernels_that_quantise_give_the_bits_of_the_host() {
    let Some(gpu) = gpu_for_e4m3() else { return };
    for dtype in DType::ALL {
        for (shape, storage, kv_lens) in [
            ([1, 2, 1, 200, 300, 64], Storage::Bhsd, false),
            ([3, 4, 2, 70, 1000, 80], Storage::Bshd, true),
            ([2, 1, 1, 1, 5000, 256], Storage::Padded, true),
            ([8, 16, 16, 1024, 2048, 128], Storage::Bshd, false),
        ] {
            with_element!(dtype, T => {
                let mut inputs = Inputs::<T>::generate(&Case { dtype, storage, kv_lens, ..Case::new(shape) });
                inputs.k[7] = T::from_f32(f32::NAN);
                inputs.q[9] = T::from_f32(f32::INFINITY);
                let views = inputs.views().unwrap();
                let tensors = upload(gpu, views);
                let [q, k, v] = &tensors;
                for (i, &k_blocks) in BLOCKS.iter().enumerate() {
                    let fp8 = Fp8 { q: BLOCKS[(i + 1) % 5], k: k_blocks, v: BLOCKS[(i + 3) % 5] };
                    let options = inputs.options();
                    let expected = Call::new_as_device(views, fp8, i % 2 == 0, &options).unwrap();
                    let found = gpu.quantize([q, k, v], fp8, i % 2 == 0, &options).unwrap();
                    assert!(found == expected, "{dtype} {shape:?} {fp8:?}");
                    if fp8.v != ScaleBlocks::Rows(64) && shape[5] <= 128 {
                        let found = gpu.quantize_transposed([q, k, v], fp8, i % 2 == 0, &options).unwrap();
                        assert!(found == expected, "transposed: {dtype} {shape:?} {fp8:?}");
                    }
                }
            });
        }
    }
}

fn bits<T: Element>(output: &cpu::Output<T>) -> Vec<u32> {
    let out = output.out.iter().map(|x| x.to_f32().to_bits());
    out.chain(output.lse.iter().map(|x| x.to_bits())).collect()
}

/// Values that were quantised on the way wait for no launch; of those that were before, a kernel that takes transposed
/// ones has one ahead of it.
fn assert_values_lie_as_kernels_take_them(on_the_way: &Plan, before: &Plan) {
    let transposed = matches!(on_the_way.kernel, Kernel::FwdSm90(_));
    assert_eq!((on_the_way.ahead(), on_the_way.takes_transposed_values()), (None, transposed), "{on_the_way}");
    assert_eq!((before.ahead().is_some(), before.takes_transposed_values()), (transposed, false), "{before}");
}

#[test]
fn quantised_on_the_way_or_before_the_answer_has_the_same_bits_a_hundred_times() {
    let Some(gpu) = gpu_for_e4m3() else { return };
    let causal = Some(Causal::BottomRight);
    let inputs = Inputs::<bf16>::generate(&Case { causal, ..Case::new([2, 8, 2, 500, 700, 128]) });
    let (views, options) = (inputs.views().unwrap(), inputs.options());
    let tensors = upload(gpu, views);
    let [q, k, v] = &tensors;
    for (blocks, mean) in [(ScaleBlocks::Rows(64), false), (ScaleBlocks::Rows(128), true), (ScaleBlocks::Head, true)] {
        let fp8 = Fp8::uniform(blocks);
        let call = Call::new(views, fp8, mean, &options).unwrap();
        let planned = gpu.quantized_attention::<_, bf16>([q, k, v], fp8, mean, &options).unwrap().plan;
        let codes = [&call.q, &call.k, &call.v];
        let (before, plan) = gpu.fp8_attention_host::<bf16>(codes, &options, Some(planned.kernel)).unwrap();
        assert_values_lie_as_kernels_take_them(&planned, &plan);
        for _ in 0..100 {
            let answer = gpu.quantized_attention::<_, bf16>([q, k, v], fp8, mean, &options).unwrap();
            assert_eq!(answer.plan, planned);
            let on_the_way = cpu::Output { out: answer.out.download().unwrap(), lse: answer.lse.download().unwrap() };
            assert!(bits(&on_the_way) == bits(&before), "{blocks:?} {mean}");
        }
    }
}

#[test]
fn a_timed_call_that_quantises_has_the_bits_of_one_that_was_quantised_before_warm_and_cold() {
    let Some(gpu) = gpu_for_e4m3() else { return };
    let inputs = Inputs::<bf16>::generate(&Case::new([1, 8, 2, 300, 500, 64]));
    let (views, options) = (inputs.views().unwrap(), inputs.options());
    for (blocks, mean) in [(ScaleBlocks::Rows(64), false), (ScaleBlocks::Head, false), (ScaleBlocks::Tensor, true)] {
        let fp8 = Fp8::uniform(blocks);
        let call = Call::new(views, fp8, mean, &options).unwrap();
        let tensors = [&call.q, &call.k, &call.v];
        let problem = inputs.problem().with_fp8(Some(fp8));
        for (kernel, _) in Plan::candidates(&problem, gpu.spec()).unwrap() {
            let (mut before, plan) = gpu.fp8_attention_host::<bf16>(tensors, &options, Some(kernel)).unwrap();
            let hopper = matches!(kernel, Kernel::FwdSm90(_));
            if hopper {
                // Timed calls are for the output alone, over other sums.
                let launch = LaunchOptions::default();
                let timed = gpu.timed_fp8::<bf16>(tensors, &options, Some(kernel), false, launch).unwrap();
                before.out = timed.answer().unwrap().out;
            }
            for cold in [false, true] {
                let timed = gpu.timed_quantized::<_, bf16>(views, fp8, mean, &options, Some(kernel), cold).unwrap();
                assert_values_lie_as_kernels_take_them(timed.plan(), &plan);
                // Keys that are less their mean are others.
                let beforehand = (hopper && !mean).then(|| {
                    let launch = LaunchOptions::default();
                    gpu.timed_transposed::<_, bf16>(views, fp8, &options, Some(kernel), cold, launch).unwrap()
                });
                for timed in [Some(timed), beforehand].into_iter().flatten() {
                    assert_eq!((timed.plan().kernel, timed.buffers() > 1), (kernel, cold));
                    assert_eq!(timed.plan().takes_transposed_values(), hopper);
                    let check = |times: Vec<f64>| {
                        assert!(times.iter().all(|&time| time > 0.5 && time < 1e7), "{times:?} {kernel}");
                        let same = bits(&timed.answer().unwrap()) == bits(&before);
                        assert!(same, "{kernel} {blocks:?} {mean} cold {cold}");
                    };
                    check(timed.device_us(5).unwrap());
                    check(timed.call_us(5).unwrap());
                    check(timed.launch_us(5).unwrap());
                }
            }
        }
    }
}

#[test]
fn answers_to_quantised_calls_are_as_near_as_the_cpu_predicts() {
    let Some(gpu) = gpu_for_e4m3() else { return };
    let acceptance =
        ACCEPTANCE.into_iter().map(|(shape, causal)| Inputs::<bf16>::generate(&Case { causal, ..Case::new(shape) }));
    let specials = Special::ALL.into_iter().map(|special| special.inputs(1));
    for inputs in acceptance.chain(specials) {
        let exact = Unquantized::compute(&inputs).unwrap();
        for (blocks, subtract_mean) in [(ScaleBlocks::Head, false), (ScaleBlocks::Rows(64), true)] {
            let fp8 = Fp8::uniform(blocks);
            let predicted = exact.predict(&Quantization { fp8, subtract_mean, only: None }).unwrap();
            let (views, options) = (inputs.views().unwrap(), inputs.options());
            let (answer, plan) =
                gpu.quantized_attention_host::<_, bf16>(views, fp8, subtract_mean, &options, None).unwrap();
            let out: Vec<f64> = answer.out.iter().map(|x| x.to_f64()).collect();
            let measured = exact.measure(&predicted, &out);
            assert!(measured.within(&predicted), "{} {blocks:?} {plan}: {measured:?}", inputs.problem());
        }
    }
}

fn done(result: sys::CUresult) {
    assert_eq!(result, sys::CUresult::CUDA_SUCCESS);
}

#[test]
fn a_graph_quantises_and_attends_on_a_workspace_that_holds_anything() {
    let Some(_) = gpu_for_e4m3() else { return };
    // With a stream of its own, so that no other test launches into the graph.
    let gpu = &evo_sdpa::gpu(0).unwrap();
    let case = Case { kv_lens: true, ..Case::new([3, 4, 2, 300, 700, 64]) };
    let inputs = Inputs::<bf16>::generate(&case);
    let (options, problem) = (inputs.options(), inputs.problem());
    let tensors = upload(gpu, inputs.views().unwrap());
    let fp8 = Fp8::uniform(ScaleBlocks::Head);
    let expected = {
        let [q, k, v] = &tensors;
        let answer = gpu.quantized_attention::<_, bf16>([q, k, v], fp8, true, &options).unwrap();
        cpu::Output { out: answer.out.download().unwrap(), lse: answer.lse.download().unwrap() }
    };
    let floats = |count: usize, value: f32| {
        let data = vec![value; count];
        gpu.upload(TensorView::bhsd(&data, [1, 1, 1, count]).unwrap()).unwrap()
    };
    let plan = QuantizePlan::new(&problem, fp8, true).unwrap();
    let (plan, attention) = plan.with_attention(DType::Bf16, |problem| Plan::new(problem, gpu.spec())).unwrap();
    assert_eq!(attention.ahead(), None);
    // Codes, scales, magnitudes and sums from another life; the counters of an attention kernel begin as zeros.
    let workspace = floats(plan.workspace_bytes() / 4, f32::NAN);
    let own = floats(attention.workspace_bytes().div_ceil(4), 0.0);
    let lens: Vec<f32> = inputs.kv_lens.iter().flatten().map(|&len| f32::from_bits(len as u32)).collect();
    let kv_lens = gpu.upload(TensorView::bhsd(&lens, [1, 1, 1, lens.len()]).unwrap()).unwrap();
    let out = gpu.upload(inputs.views().unwrap()[0]).unwrap();
    let lse = floats(3 * 4 * 300, f32::NAN);
    let [q, k, v] = tensors.each_ref().map(GpuTensor::device_ptr);
    let [kv_lens, workspace] = [&kv_lens, &workspace].map(GpuTensor::device_ptr);
    let pointers = QuantizePointers { q, k, v, kv_lens, workspace };
    let operands = DevicePointers {
        out: out.device_ptr(),
        lse: lse.device_ptr(),
        kv_lens,
        workspace: own.device_ptr(),
        ..plan.operands(workspace)
    };
    gpu.kernels().prepare_quantize(&plan).unwrap();
    gpu.kernels().prepare(attention.kernel).unwrap();
    let (mut graph, mut executable) = (std::ptr::null_mut(), std::ptr::null_mut());
    let stream = gpu.stream();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is of the kernels' context, which the graph belongs to; the tensors have the plans' layouts
    // and live until the stream has been waited for.
    unsafe {
        let mut context = std::ptr::null_mut();
        done(sys::cuStreamGetCtx(stream, &mut context));
        done(sys::cuCtxPushCurrent_v2(context));
        done(sys::cuStreamBeginCapture_v2(stream, mode));
        gpu.kernels().launch_quantize(&plan, &pointers, stream).unwrap();
        gpu.kernels().launch(&attention, &operands, stream).unwrap();
        done(sys::cuStreamEndCapture(stream, &mut graph));
        done(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
        for _ in 0..3 {
            done(sys::cuGraphLaunch(executable, stream));
        }
        gpu.synchronize().unwrap();
        done(sys::cuGraphExecDestroy(executable));
        done(sys::cuGraphDestroy(graph));
        done(sys::cuCtxPopCurrent_v2(&mut context));
    }
    let answer = cpu::Output { out: out.download().unwrap(), lse: lse.download().unwrap() };
    assert!(bits(&answer) == bits(&expected));
}

#[test]
fn tensors_that_cannot_be_quantised_are_refused_by_name() {
    let Some(gpu) = gpu_for_e4m3() else { return };
    let data = vec![bf16::from_f32(1.0); 2 * 8 * 24];
    let tensor = gpu.upload(TensorView::new(&data, Layout::bhsd([1, 2, 8, 24])).unwrap()).unwrap();
    let fp8 = Fp8::uniform(ScaleBlocks::Head);
    let refused =
        gpu.quantized_attention::<_, bf16>([&tensor, &tensor, &tensor], fp8, false, &Default::default()).unwrap_err();
    assert!(refused.to_string().starts_with("head_dim: 24 is not supported"), "{refused}");
}
