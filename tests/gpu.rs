//! What the GPU path promises, on the first GPU. Without one every test that needs it is skipped and says so;
//! with EVO_SDPA_REQUIRE_GPU=1 it fails.

use common::{Device, HEAD_DIMS, assert_no_faults, faults, kernels, nasty_cases};
use evo_sdpa::gpu::{Gpu, Kernels, LaunchOptions, sys};
use evo_sdpa::half::bf16;
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{Case, Expected, Inputs, Storage};
use evo_sdpa::{
    Causal, DType, DevicePointers, DeviceSpec, Element, Error, Fp8, GpuTensor, KERNELS, Kernel, Layout, MergePlan,
    MergePointers, Options, Plan, Problem, ScaleBlocks, TensorView, cpu, half, quantize, with_element,
};
use paged::Paged;
use std::io::Write;
use std::sync::OnceLock;

#[path = "../examples/03_borrowed_stream.rs"]
mod borrowed_stream;
mod common;
#[path = "../examples/02_gpu_tensors.rs"]
mod gpu_tensors;
mod paged;
mod quantized;

/// The first GPU, shared by all tests so that each kernel is compiled once.
fn gpu_or_skip() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let open = || match evo_sdpa::gpu(0) {
        Ok(gpu) => Some(gpu),
        Err(error @ Error::NoDevice { .. }) if std::env::var("EVO_SDPA_REQUIRE_GPU").as_deref() != Ok("1") => {
            // Not with eprintln, which the test harness keeps to itself when a test passes.
            let _ = std::io::stderr().write_all(format!("\nGPU tests are SKIPPED: {error}\n").as_bytes());
            None
        }
        Err(error) => panic!("{error}"),
    };
    GPU.get_or_init(open).as_ref()
}

/// The kernels that run on a GPU, those for e4m3 not among them.
fn kernels_of(gpu: &Gpu) -> impl Iterator<Item = Kernel> {
    KERNELS.iter().copied().filter(move |kernel| gpu.spec().runs(*kernel) && !kernel.takes_e4m3())
}

impl Device for Gpu {
    fn attention<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<cpu::Output<T>, String> {
        let [q, k, v] = inputs.views().unwrap();
        let answer = self.attention_host(q, k, v, &inputs.options(), kernel);
        answer.map(|(output, _)| output).map_err(|error| error.to_string())
    }
}

#[test]
fn every_kernel_is_right_on_nasty_cases() {
    let Some(gpu) = gpu_or_skip() else { return };
    for dtype in DType::ALL {
        for head_dim in HEAD_DIMS {
            let cases = nasty_cases(dtype, head_dim).into_iter();
            assert_no_faults(cases.flat_map(|case| faults(gpu, &case, kernels(&case, gpu.spec()).map(Some))));
        }
    }
}

#[test]
fn the_planned_kernel_is_right_on_the_acceptance_shapes() {
    let Some(gpu) = gpu_or_skip() else { return };
    let cases = [DType::F16, DType::Bf16].into_iter().flat_map(|dtype| {
        ACCEPTANCE
            .into_iter()
            .flat_map(move |(shape, causal)| (1..=3).map(move |seed| Case { dtype, causal, seed, ..Case::new(shape) }))
    });
    assert_no_faults(cases.flat_map(|case| faults(gpu, &case, [None])));
}

#[test]
fn blocks_that_share_keys_are_right_and_leave_the_workspace_fit_for_the_next_launch() {
    let Some(gpu) = gpu_or_skip() else { return };
    let shares = |kernel: &&Kernel| matches!(kernel, Kernel::FwdSm80(config) if config.shares_keys);
    for &kernel in KERNELS.iter().filter(shares) {
        for splits in [1, 2, 5, 3, 8] {
            let shape = [5, 4, 2, 200, 1000, kernel.head_dim() as usize];
            for causal in [None, Some(Causal::BottomRight)] {
                let dtype = kernel.dtype();
                let case = Case { dtype, kv_lens: true, causal, splits: Some(splits), ..Case::new(shape) };
                assert_no_faults(faults(gpu, &case, [Some(kernel)]).into_iter());
            }
        }
    }
}

#[test]
fn e4m3_is_as_near_to_its_exact_answer_as_its_probabilities_are_rounded() {
    let Some(gpu) = gpu_or_skip() else { return };
    for &kernel in KERNELS.iter().filter(|kernel| kernel.takes_e4m3() && gpu.spec().runs(**kernel)) {
        let head_dim = kernel.head_dim() as usize;
        // A step of Hopper's kernel has one scale.
        let rows = if matches!(kernel, Kernel::FwdSm90(_)) { 128 } else { 64 };
        for (shape, causal, kv_lens) in [
            ([1, 2, 1, 200, 300, head_dim], None, false),
            ([2, 4, 2, 333, 333, head_dim], Some(Causal::BottomRight), false),
            ([3, 2, 2, 70, 500, head_dim - 16], None, true),
            // More tiles than SMs: persistent blocks take several.
            ([2, 24, 8, 520, 520, head_dim], Some(Causal::BottomRight), true),
        ] {
            for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(rows)] {
                let case = Case { dtype: kernel.dtype(), causal, kv_lens, ..Case::new(shape) };
                with_element!(case.dtype, T => {
                    let inputs = Inputs::<T>::generate(&case);
                    let options = inputs.options();
                    let fp8 = Fp8::uniform(blocks);
                    let call = quantize::Call::new(inputs.views().unwrap(), fp8, false, &options).unwrap();
                    let exact = call.attention(&options).unwrap();
                    let tensors = [&call.q, &call.k, &call.v];
                    let (got, _) = gpu.fp8_attention_host::<T>(tensors, &options, Some(kernel)).unwrap();
                    let out: Vec<f64> = got.out.iter().map(|x| x.to_f64()).collect();
                    let relative = quantize::Deviation::new(&out, &exact.out).relative();
                    assert!(relative <= 3e-2, "{kernel} {case} {blocks:?}: {relative}");
                    // Sums are of the probabilities before they are rounded.
                    for (got, exact) in got.lse.iter().zip(&exact.lse) {
                        let near = f64::from(*got) == *exact || (f64::from(*got) - exact).abs() <= 2e-3;
                        assert!(near, "{kernel} {case} {blocks:?}: lse {got} for {exact}");
                    }
                });
            }
        }
    }
}

#[test]
fn persistent_blocks_are_right_with_one_tile_and_with_several_and_leave_the_workspace_fit_for_the_next_launch() {
    let Some(gpu) = gpu_or_skip() else { return };
    for kernel in kernels_of(gpu).filter(|kernel| matches!(kernel, Kernel::FwdSm90(_))) {
        let (dtype, head_dim) = (kernel.dtype(), kernel.head_dim() as usize);
        // A few tiles, then more than SMs, in different orders, and a few again.
        for (shape, causal) in [
            ([1, 2, 1, 200, 300, head_dim], None),
            ([1, 40, 10, 700, 200, head_dim], None),
            ([2, 20, 20, 700, 700, head_dim - 8], Some(Causal::BottomRight)),
            ([5, 8, 2, 900, 77, head_dim], Some(Causal::TopLeft)),
            ([1, 2, 1, 200, 300, head_dim], Some(Causal::BottomRight)),
        ] {
            for (storage, kv_lens) in [(Storage::Bhsd, false), (Storage::Bshd, true)] {
                let case = Case { dtype, causal, storage, kv_lens, ..Case::new(shape) };
                assert_no_faults(faults(gpu, &case, [Some(kernel)]).into_iter());
            }
        }
    }
}

#[test]
fn keys_split_between_blocks_are_right_and_pages_give_the_bits_of_contiguous_keys() {
    let Some(gpu) = gpu_or_skip() else { return };
    let is_decode = |kernel: &&Kernel| matches!(kernel, Kernel::Decode(c) if c.dtype == DType::Bf16);
    for &kernel in KERNELS.iter().filter(is_decode) {
        for splits in [1, 2, 7] {
            let shape = [5, 8, 2, 2, 1000, kernel.head_dim() as usize];
            let case = Case { kv_lens: true, splits: Some(splits), ..Case::new(shape) };
            assert_no_faults(faults(gpu, &case, [Some(kernel)]).into_iter());
            for layout in [Layout::bhsd as fn(_) -> _, Layout::bshd] {
                let paged = Paged::<bf16>::new(&case, 16, layout);
                let [q, k, v] = paged.inputs.views().unwrap();
                let (contiguous, _) = gpu.attention_host(q, k, v, &paged.inputs.options(), Some(kernel)).unwrap();
                let [q, k, v] = paged.views();
                let (answer, _) = gpu.attention_host(q, k, v, &paged.options(splits), Some(kernel)).unwrap();
                assert_eq!(answer, contiguous, "{kernel} {splits}");
            }
        }
    }
}

#[test]
fn a_hundred_calls_give_the_same_bits() {
    let Some(gpu) = gpu_or_skip() else { return };
    for kernel in kernels_of(gpu) {
        let head_dim = kernel.head_dim() as usize;
        let causal = Some(Causal::BottomRight);
        let case = Case { dtype: kernel.dtype(), causal, ..Case::new([2, 4, 2, 200, 300, head_dim]) };
        with_element!(kernel.dtype(), T => {
            let inputs = Inputs::<T>::generate(&case);
            let [q, k, v] = inputs.views().unwrap().map(|view| gpu.upload(view).unwrap());
            let bits = || {
                let answer = gpu.attention_with(&q, &k, &v, &inputs.options(), kernel).unwrap();
                let (out, lse) = (answer.out.download().unwrap(), answer.lse.download().unwrap());
                let bits: Vec<u32> = out.into_iter().map(|x| Element::to_f32(x).to_bits()).collect();
                (bits, lse.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let first = bits();
            assert!((1..100).all(|_| bits() == first), "{kernel}");
        });
    }
}

/// Where the simulator rounds as Hopper's units do, whole kernels agree with the GPU in every bit.
#[cfg(feature = "sim")]
#[test]
fn a_hopper_gpu_gives_the_bits_that_the_simulator_predicts() {
    use evo_sdpa::sim::ptx_sim;
    let Some(gpu) = gpu_or_skip() else { return };
    if gpu.spec().compute_capability != DeviceSpec::H200.compute_capability {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {} is not of compute capability 9.0", gpu.name());
        return;
    }
    let options = ptx_sim::Options { mma: ptx_sim::Mma::Exact(ptx_sim::Arch::Sm90), ..ptx_sim::Options::default() };
    let simulator = evo_sdpa::simulator().unwrap().with_spec(DeviceSpec::H200).with_options(options);
    for kernel in kernels_of(gpu) {
        let causal = Some(Causal::BottomRight);
        let shape = [1, 2, 1, 70, 140, kernel.head_dim() as usize];
        let case = Case { dtype: kernel.dtype(), causal, ..Case::new(shape) };
        with_element!(kernel.dtype(), T => {
            let inputs = Inputs::<T>::generate(&case);
            let [q, k, v] = inputs.views().unwrap();
            let simulated = simulator.attention(q, k, v, &inputs.options(), Some(kernel)).unwrap().output;
            let (real, _) = gpu.attention_host(q, k, v, &inputs.options(), Some(kernel)).unwrap();
            let bits = |output: &cpu::Output<T>| {
                let out = output.out.iter().map(|x| Element::to_f32(*x).to_bits());
                out.chain(output.lse.iter().map(|x| x.to_bits())).collect::<Vec<_>>()
            };
            let (simulated, real) = (bits(&simulated), bits(&real));
            let differ = simulated.iter().zip(&real).filter(|(a, b)| a != b).count();
            assert_eq!((differ, simulated.len()), (0, real.len()), "{kernel}");
        });
    }
}

#[test]
fn tensors_without_elements_give_answers_without_elements() {
    let Some(gpu) = gpu_or_skip() else { return };
    for [batch, q_len, kv_len] in [[0, 4, 4], [1, 0, 4], [1, 0, 0]] {
        let empty = [0.0f32; 0];
        let keys = vec![0.0f32; batch * kv_len * 8];
        let q = TensorView::bhsd(&empty, [batch, 1, q_len, 8]).unwrap();
        let k = TensorView::bhsd(&keys, [batch, 1, kv_len, 8]).unwrap();
        let (answer, plan) = gpu.attention_host(q, k, k, &Options::default(), None).unwrap();
        assert!(plan.is_empty() && answer.out.is_empty() && answer.lse.is_empty());
    }
}

/// The keys of a view from `first` on, `count` of them.
fn some_keys<T: Element>(view: TensorView<T>, first: usize, count: usize) -> TensorView<T> {
    let [batch, heads, _, head_dim] = view.layout().shape();
    let layout = Layout::strided(&[batch, heads, count, head_dim], &view.layout().strides()).unwrap();
    TensorView::new(&view.data()[view.layout().row_offset(0, 0, first)..], layout).unwrap()
}

#[test]
fn merged_parts_are_the_attention_over_all_keys_also_in_place() {
    let Some(gpu) = gpu_or_skip() else { return };
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let inputs = Inputs::<T>::generate(&Case { dtype, ..Case::new([2, 4, 2, 100, 300, 72]) });
            let [q, k, v] = inputs.views().unwrap();
            let queries = gpu.upload(q).unwrap();
            let [a, b] = [(0, 130), (130, 170)].map(|(first, count)| {
                let [k, v] = [k, v].map(|view| gpu.upload(some_keys(view, first, count)).unwrap());
                gpu.attention(&queries, &k, &v, &inputs.options()).unwrap()
            });
            let merged = gpu.merge_states(&a.out, &a.lse, &b.out, &b.lse).unwrap();
            let merged = cpu::Output { out: merged.out.download().unwrap(), lse: merged.lse.download().unwrap() };
            let verdict = Expected::compute(&inputs).unwrap().check(&merged);
            assert!(verdict.passes(), "{dtype}: {verdict}");

            let layout = a.out.layout();
            let plan = MergePlan::new(dtype, layout, b.out.layout(), layout).unwrap();
            let [(out_a, lse_a), (out_b, lse_b)] = [&a, &b].map(|part| (part.out.device_ptr(), part.lse.device_ptr()));
            let pointers = MergePointers { out_a, lse_a, out_b, lse_b, out: out_a, lse: lse_a };
            // SAFETY: the tensors have the plan's layouts, overlap as a merge in place may, and live until it is done.
            unsafe { gpu.kernels().launch_merge(&plan, &pointers, gpu.stream()) }.unwrap();
            gpu.synchronize().unwrap();
            let in_place = cpu::Output { out: a.out.download().unwrap(), lse: a.lse.download().unwrap() };
            assert!(in_place == merged, "{dtype}: in place");
        });
    }
}

#[test]
fn a_kernel_beyond_the_shared_memory_is_refused_with_both_sizes() {
    let Some(gpu) = gpu_or_skip() else { return };
    let kernel = Kernel::parse("fwd_sm80_bf16_d128_q256_kv128_w8_s3").unwrap();
    let needed = kernel.shared_bytes();
    let available = gpu.spec().shared_per_block;
    let expected = Error::SharedMemory { kernel: kernel.to_string(), needed, available };
    assert_eq!(gpu.kernels().prepare(kernel), Err(expected));
}

#[test]
fn a_kernel_that_the_ptx_lacks_is_named() {
    let Some(gpu) = gpu_or_skip() else { return };
    let name = "fwd_sm80_bf16_d64_q64_kv16_w4_s1";
    let error = gpu.kernels().prepare(Kernel::parse(name).unwrap()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { field: "kernel", value, .. } if value == name), "{error}");
    let error = Gpu::open(0, &[]).unwrap().limits().unwrap_err();
    assert!(matches!(&error, Error::Unsupported { field: "kernel", value, .. } if value == "mma_rate_f16"), "{error}");
}

#[test]
fn the_compiler_log_comes_with_the_error() {
    let Some(_) = gpu_or_skip() else { return };
    let kernel = KERNELS[0];
    let body = format!(".target sm_80\n.address_size 64\n.visible .entry {kernel}(\n)\n{{\n\tnonsense.b32 %r1;\n}}\n");
    let refused = |version| Gpu::open(0, &[&format!(".version {version}\n{body}")]).unwrap().kernels().prepare(kernel);
    let error = refused("8.4").unwrap_err().to_string();
    assert!(error.starts_with("cuModuleLoadDataEx") && error.contains("nonsense"), "{error}");
    let error = refused("99.0").unwrap_err();
    assert!(matches!(error, Error::DriverTooOld { needed: "11.5", .. }), "{error}");
}

#[test]
fn a_device_that_does_not_exist_is_refused_with_a_reason() {
    let error = Gpu::open(u32::MAX, &[]).unwrap_err();
    assert!(matches!(&error, Error::NoDevice { reason } if !reason.is_empty()), "{error}");
}

#[test]
fn no_kernel_uses_local_memory() {
    let Some(gpu) = gpu_or_skip() else { return };
    for kernel in kernels_of(gpu) {
        let resources = gpu.kernels().resources(kernel).unwrap();
        assert_eq!(resources.local_bytes, 0, "{kernel} {resources:?}");
        assert!(resources.max_threads >= kernel.threads(), "{kernel} {resources:?}");
        assert!(resources.ptx_version >= 80 && resources.binary_version <= gpu.spec().compute_capability);
    }
}

#[test]
fn a_launch_leaves_the_current_context_as_it_was() {
    let Some(gpu) = gpu_or_skip() else { return };
    let current = || {
        let mut context = std::ptr::null_mut();
        // SAFETY: the driver writes one handle.
        assert_eq!(unsafe { sys::cuCtxGetCurrent(&mut context) }, sys::CUresult::CUDA_SUCCESS);
        context
    };
    let before = current();
    assert_no_faults(faults(gpu, &Case::new([1, 2, 2, 64, 64, 64]), [None]).into_iter());
    assert_eq!(current(), before);
}

#[test]
fn threads_may_share_a_gpu() {
    let Some(gpu) = gpu_or_skip() else { return };
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                let case = Case { seed, ..Case::new([1, 4, 2, 100 + seed as usize, 100, 64]) };
                assert_no_faults(faults(gpu, &case, [None]).into_iter());
            });
        }
    });
}

#[test]
fn a_timed_call_gives_a_time_for_each_run() {
    let Some(gpu) = gpu_or_skip() else { return };
    let case = Case::new([1, 8, 8, 512, 512, 64]);
    let inputs = Inputs::<bf16>::generate(&case);
    let plausible = |times: &[f64]| times.iter().all(|&time| time > 0.5 && time < 1e7);
    for cold in [false, true] {
        let timed = gpu.timed(inputs.views().unwrap(), &inputs.options(), None, cold).unwrap();
        for times in [timed.device_us(5).unwrap(), timed.call_us(5).unwrap()] {
            assert!(times.len() == 5 && plausible(&times), "{times:?} {}", timed.plan());
        }
        // Other tests may keep the device so busy that there is no time for five rows of launches.
        let launches = timed.launch_us(5).unwrap();
        assert!((1..=5).contains(&launches.len()) && plausible(&launches), "{launches:?} {}", timed.plan());
        assert_eq!(timed.buffers() > 1, cold);
        assert!(timed.calls() as usize >= timed.buffers());
        assert_eq!(timed.while_busy(|| 7), Ok(7));
    }
}

#[test]
fn a_timed_call_of_e4m3_inputs_is_right_warm_and_cold() {
    let Some(gpu) = gpu_or_skip() else { return };
    let case = Case { causal: Some(Causal::BottomRight), ..Case::new([1, 8, 2, 300, 500, 64]) };
    let inputs = Inputs::<bf16>::generate(&case);
    for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(64)] {
        let options = inputs.options();
        let call = quantize::Call::new(inputs.views().unwrap(), Fp8::uniform(blocks), false, &options).unwrap();
        let expected = Expected::compute_e4m3(&inputs, &call).unwrap();
        let problem = inputs.problem().with_fp8(Some(call.fp8()));
        for (kernel, _) in Plan::candidates(&problem, gpu.spec()).unwrap() {
            for cold in [false, true] {
                let (tensors, plain) = ([&call.q, &call.k, &call.v], LaunchOptions::default());
                let timed = gpu.timed_fp8::<bf16>(tensors, &options, Some(kernel), cold, plain).unwrap();
                assert_eq!(timed.plan().kernel, kernel);
                assert_eq!(timed.buffers() > 1, cold);
                for times in [timed.device_us(5).unwrap(), timed.call_us(5).unwrap(), timed.launch_us(5).unwrap()] {
                    assert!(times.iter().all(|&time| time > 0.5 && time < 1e7), "{times:?} {}", timed.plan());
                }
                let verdict = expected.check(&timed.answer().unwrap());
                assert!(verdict.passes(), "{kernel} {blocks:?} cold {cold}: {verdict}");
            }
        }
    }
}

#[test]
fn a_timed_call_keeps_to_its_splits_while_another_call_splits_its_keys_too() {
    let Some(gpu) = gpu_or_skip() else { return };
    let kernel = Kernel::parse("decode_bf16_d128_q16_kv16_w4_s2").unwrap();
    let inputs =
        |splits| Inputs::<bf16>::generate(&Case { splits: Some(splits), ..Case::new([2, 8, 2, 1, 4096, 128]) });
    let (few, many) = (inputs(2), inputs(16));
    let answer = |inputs: &Inputs<bf16>| {
        let [q, k, v] = inputs.views().unwrap();
        gpu.attention_host(q, k, v, &inputs.options(), Some(kernel)).unwrap().0
    };
    let expected = [&few, &many].map(answer);
    let timed = gpu.timed(few.views().unwrap(), &few.options(), Some(kernel), false).unwrap();
    assert_eq!(timed.plan().splits.count, 2);
    assert_eq!(timed.call_us(5).unwrap().len(), 5);
    assert_eq!(timed.while_busy(|| answer(&many)).unwrap(), expected[1]);
    assert_eq!(timed.answer().unwrap(), expected[0]);
}

const DEPENDENT: LaunchOptions = LaunchOptions { dependent: true };

/// The bits of an answer.
fn bits<T: Element>(answer: &cpu::Output<T>) -> Vec<u32> {
    let out = answer.out.iter().map(|x| Element::to_f32(*x).to_bits());
    out.chain(answer.lse.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn dependent_launches_in_a_graph_and_on_a_stream_give_the_same_bits() {
    let Some(gpu) = gpu_or_skip() else { return };
    if gpu.spec().compute_capability < 90 {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {} knows no dependent launches", gpu.name());
        return;
    }
    for kernel in kernels_of(gpu) {
        let causal = Some(Causal::BottomRight);
        let shape = [2, 4, 2, 200, 300, kernel.head_dim() as usize];
        let case = Case { dtype: kernel.dtype(), causal, ..Case::new(shape) };
        with_element!(kernel.dtype(), T => {
            let inputs = Inputs::<T>::generate(&case);
            let views = inputs.views().unwrap();
            let [q, k, v] = views;
            let (plain, _) = gpu.attention_host(q, k, v, &inputs.options(), Some(kernel)).unwrap();
            let timed = gpu.timed_with(views, &inputs.options(), Some(kernel), false, DEPENDENT).unwrap();
            timed.device_us(3).unwrap();
            assert_eq!(bits(&timed.answer().unwrap()), bits(&plain), "{kernel} in a graph");
            timed.launch_us(2).unwrap();
            assert_eq!(bits(&timed.answer().unwrap()), bits(&plain), "{kernel} on a stream");
        });
    }
}

/// The queries of each launch are the output of the one ahead of it.
#[test]
fn a_dependent_launch_sees_what_the_launch_ahead_of_it_wrote() {
    let Some(gpu) = gpu_or_skip() else { return };
    if gpu.spec().compute_capability < 90 {
        return;
    }
    let case = Case::new([1, 8, 8, 512, 512, 64]);
    let inputs = Inputs::<half::f16>::generate(&Case { dtype: DType::F16, ..case });
    let [q, k, v] = inputs.views().unwrap();
    let chain = |options: LaunchOptions| {
        let [mut from, k, v] = [q, k, v].map(|view| gpu.upload(view).unwrap());
        let mut to = gpu.upload(q).unwrap();
        let problem = Problem::contiguous(DType::F16, [1, 8, 8, 512, 512, 64]);
        let plan = Plan::new(&problem, gpu.spec()).unwrap();
        for _ in 0..20 {
            let [q, k, v, out] = [&from, &k, &v, &to].map(GpuTensor::device_ptr);
            let pointers = DevicePointers { q, k, v, out, ..DevicePointers::default() };
            // SAFETY: the stream is of the kernels' context; the tensors live until they are downloaded.
            unsafe { gpu.kernels().launch_with(&plan, &pointers, gpu.stream(), options) }.unwrap();
            std::mem::swap(&mut from, &mut to);
        }
        from.download().unwrap().into_iter().map(half::f16::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(chain(DEPENDENT), chain(LaunchOptions::default()));
}

#[test]
fn a_device_before_hopper_refuses_dependent_launches_by_name() {
    let Some(gpu) = gpu_or_skip() else { return };
    if gpu.spec().compute_capability < 90 {
        let error = gpu.kernels().prepare_with(KERNELS[0], DEPENDENT).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { field: "dependent", .. }), "{error}");
    }
}

#[test]
fn the_limits_of_the_device_are_plausible() {
    let Some(gpu) = gpu_or_skip() else { return };
    let limits = gpu.limits().unwrap();
    assert!((100.0..20e3).contains(&limits.copy_gbs), "{limits:?}");
    assert!((0.2..50.0).contains(&limits.launch_us), "{limits:?}");
    for dtype in [DType::F16, DType::Bf16] {
        assert!((20.0..3000.0).contains(&limits.matrix_tflops(dtype).unwrap()), "{limits:?}");
    }
    // A kernel made of the instruction whose rate was measured does not exceed it, nor ends before an empty one.
    let kernel = Kernel::parse("fwd_sm80_bf16_d64_q128_kv64_w4_s2").unwrap();
    for [heads, length] in [[8, 512], [16, 2048]] {
        let case = Case::new([1, heads, heads, length, length, 64]);
        let inputs = Inputs::<bf16>::generate(&case);
        let timed = gpu.timed(inputs.views().unwrap(), &inputs.options(), Some(kernel), false).unwrap();
        let best = timed.device_us(20).unwrap().into_iter().fold(f64::INFINITY, f64::min);
        let tflops = case.problem().flops() / best / 1e6;
        assert!(tflops < limits.bf16_tflops, "{tflops} of {limits:?}");
        assert!(best > limits.launch_us, "{best} us of {limits:?}");
    }
}

#[test]
fn a_null_context_is_refused() {
    // SAFETY: null is told apart before anything is done with it.
    let error = unsafe { Kernels::in_context(std::ptr::null_mut(), &[]) }.unwrap_err().to_string();
    assert!(error.contains("null"), "{error}");
}

#[test]
fn attention_on_gpu_tensors_runs() {
    gpu_tensors::main().unwrap();
}

#[test]
fn attention_in_a_borrowed_context_and_graph_agrees_with_the_cpu() {
    borrowed_stream::main().unwrap();
}
