//! The kernels that quantise, in the simulator: bit for bit what the host makes of the same numbers.

use evo_sdpa::half::bf16;
use evo_sdpa::quantize::Call;
use evo_sdpa::sim::{Simulated, SimulatedCall};
use evo_sdpa::verify::{Inputs, Quantization, Rng, Special, Unquantized};
use evo_sdpa::{
    Causal, DType, DeviceSpec, Element, Fp8, KERNELS, Kernel, Layout, Options, QuantizePlan, ScaleBlocks, Simulator,
    TensorView, Transpose, cpu, half, with_element,
};
use std::sync::OnceLock;

const BLOCKS: [ScaleBlocks; 5] =
    [ScaleBlocks::Rows(64), ScaleBlocks::Rows(128), ScaleBlocks::Rows(256), ScaleBlocks::Head, ScaleBlocks::Tensor];

fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap())
}

/// Numbers of many sizes; heads of zeros, of the least numbers, and some that are not finite.
fn numbers<T: Element>(seed: u64, layout: &Layout) -> Vec<T> {
    let mut rng = Rng::new(seed);
    let [_, heads, _, _] = layout.shape();
    let mut data = vec![T::from_f32(0.0); layout.extent().unwrap()];
    for (index, x) in data.iter_mut().enumerate() {
        let normal = rng.normal() as f32;
        *x = T::from_f32(match (index / 997) % (heads + 4) {
            0 => 0.0,
            1 => normal * 1e-39,
            2 => normal * 1000.0,
            _ => normal,
        });
    }
    data
}

/// What the kernels make of tensors; none of them has a defect.
fn by_kernels<T: Element>(
    tensors: [TensorView<T>; 3],
    fp8: Fp8,
    subtract_mean: bool,
    options: &Options,
) -> SimulatedCall {
    let simulated = simulator().quantize(tensors, fp8, subtract_mean, options).unwrap();
    simulated.reports.iter().for_each(|report| assert!(report.is_clean(), "{report}"));
    simulated
}

#[track_caller]
fn assert_the_bits_of_the_host<T: Element>(tensors: [TensorView<T>; 3], fp8: Fp8, mean: bool, options: &Options) {
    let expected = Call::new_as_device(tensors, fp8, mean, options).unwrap();
    let found = by_kernels(tensors, fp8, mean, options).call;
    let bits =
        |call: &Call| call.k_mean.as_ref().map(|mean| mean.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    assert_eq!(bits(&found), bits(&expected), "{} {fp8:?}", T::DTYPE);
    let tensors = [(&found.q, &expected.q), (&found.k, &expected.k), (&found.v, &expected.v)];
    for (name, (found, expected)) in ["q", "k", "v"].into_iter().zip(tensors) {
        assert!(found == expected, "{name}: {} {fp8:?} {mean}", T::DTYPE);
    }
}

/// Tensors of several shapes with options: grouped heads, any strides, lengths from none to all.
fn for_each_call<T: Element>(mut body: impl FnMut([TensorView<T>; 3], &Options)) {
    for (q, kv, lens) in [
        (Layout::bhsd([1, 2, 200, 64]), Layout::bhsd([1, 1, 300, 64]), None),
        (Layout::bshd([2, 4, 70, 80]), Layout::bshd([2, 2, 130, 80]), Some(&[130, 67][..])),
        (Layout::bhsd([2, 1, 1, 256]), Layout::bhsd([2, 1, 65, 256]), Some(&[0, 64][..])),
        (Layout::bhsd([1, 1, 64, 16]), Layout::strided(&[1, 1, 128, 16], &[0, 0, 48, 1]).unwrap(), None),
    ] {
        let data = [q, kv, kv].map(|layout| numbers::<T>(q.shape()[2] as u64, &layout));
        let view = |i: usize, layout| TensorView::new(&data[i], layout).unwrap();
        body([view(0, q), view(1, kv), view(2, kv)], &Options { kv_lens: lens, ..Options::default() });
    }
}

#[test]
fn kernels_give_the_bits_of_the_host() {
    for dtype in DType::ALL {
        with_element!(dtype, T => for_each_call::<T>(|tensors, options| {
            for (i, &k) in BLOCKS.iter().enumerate() {
                // Each tensor with blocks of its own.
                let fp8 = Fp8 { q: BLOCKS[(i + 1) % BLOCKS.len()], k, v: BLOCKS[(i + 3) % BLOCKS.len()] };
                assert_the_bits_of_the_host(tensors, fp8, i % 2 == 0, options);
            }
            assert_the_bits_of_the_host(tensors, Fp8::uniform(ScaleBlocks::Head), true, options);
        }));
    }
}

#[test]
fn numbers_that_are_not_finite_decide_no_scale_and_no_mean() {
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let layout = Layout::bhsd([1, 1, 150, 64]);
            let mut data = numbers::<T>(6, &layout);
            for (place, x) in [(3, f32::NAN), (64 * 66, f32::INFINITY), (1000, f32::NEG_INFINITY)] {
                data[place] = T::from_f32(x);
            }
            let view = TensorView::new(&data, layout).unwrap();
            for blocks in BLOCKS {
                for mean in [false, true] {
                    assert_the_bits_of_the_host([view; 3], Fp8::uniform(blocks), mean, &Options::default());
                    let call = by_kernels([view; 3], Fp8::uniform(blocks), mean, &Options::default()).call;
                    let codes = [3, 64 * 66, 1000].map(|place| call.k.data()[place].to_bits());
                    assert_eq!(codes, [0x7f, 0x7e, 0xfe], "{dtype} {blocks:?} {mean}");
                }
            }
        });
    }
}

/// The codes of the values of a call as a launch leaves them transposed, by the definition.
fn transposed(call: &Call) -> Vec<u8> {
    let [batch, heads, keys, head_dim] = call.v.layout().shape();
    let row_bytes = Transpose::row_bytes(keys as u32) as usize;
    let mut codes = vec![0; batch * heads * head_dim * row_bytes];
    for (index, code) in call.v.data().iter().enumerate() {
        let (slice, key, column) = (index / head_dim / keys, index / head_dim % keys, index % head_dim);
        let byte = (0..16).find(|&byte| Transpose::key(byte) as usize == key % 16).unwrap() as usize;
        codes[(slice * head_dim + column) * row_bytes + key / 16 * 16 + byte] = code.to_bits();
    }
    codes
}

/// Scales of values that may be transposed.
const WIDE_BLOCKS: [ScaleBlocks; 5] =
    [ScaleBlocks::Rows(128), ScaleBlocks::Rows(256), ScaleBlocks::Rows(1024), ScaleBlocks::Head, ScaleBlocks::Tensor];

#[track_caller]
fn assert_transposed_bits_of_the_host<T: Element>(
    tensors: [TensorView<T>; 3],
    fp8: Fp8,
    mean: bool,
    options: &Options,
) {
    let expected = Call::new_as_device(tensors, fp8, mean, options).unwrap();
    let simulated = simulator().quantize_transposed(tensors, fp8, mean, options).unwrap();
    simulated.reports.iter().for_each(|report| assert!(report.is_clean(), "{report}"));
    assert!(simulated.call == expected, "{} {fp8:?} {mean}", T::DTYPE);
    let (codes, start) = (transposed(&expected), simulated.plan.operands(0).v as usize);
    assert!(simulated.workspace[start..][..codes.len()] == codes, "{} {fp8:?} {mean}", T::DTYPE);
}

#[test]
fn transposed_values_have_the_bits_of_the_host_in_another_order_and_zeros_behind_them() {
    for dtype in DType::ALL {
        with_element!(dtype, T => for (i, (keys, head_dim)) in
            [(1, 16), (70, 128), (128, 64), (130, 48), (300, 80), (700, 112)].into_iter().enumerate()
        {
            let [q, kv] = [[2, 4, 5, head_dim], [2, 2, keys, head_dim]].map(Layout::bhsd);
            // Rows with somebody else's numbers between them.
            let [batch, head, row] = [2 * keys + 3, keys + 1, 1].map(|rows| rows * (head_dim + 16));
            let strided = Layout::strided(&kv.shape(), &[batch, head, row, 1]).unwrap();
            let lens = [keys as i32 * 2 / 3, 0];
            for (v, lens) in [(kv, None), (Layout::bshd(kv.shape()), Some(&lens[..])), (strided, Some(&lens))] {
                let data = [q, kv, v].map(|layout| numbers::<T>(keys as u64, &layout));
                let view = |i: usize, layout| TensorView::new(&data[i], layout).unwrap();
                let options = Options { kv_lens: lens, ..Options::default() };
                let of_v = WIDE_BLOCKS[(i + usize::from(lens.is_some())) % WIDE_BLOCKS.len()];
                let fp8 = Fp8 { q: BLOCKS[i % 5], k: BLOCKS[(i + 1) % 5], v: of_v };
                assert_transposed_bits_of_the_host([view(0, q), view(1, kv), view(2, v)], fp8, i % 2 == 0, &options);
            }
        });
    }
}

#[test]
fn rows_that_are_not_valid_are_zeros_in_transposed_values_whatever_they_are() {
    let layout = Layout::bhsd([3, 1, 200, 32]);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut data = numbers::<f32>(1, &layout);
        let lens = [0, 130, 200];
        for (batch, len) in lens.into_iter().enumerate() {
            data[(batch * 200 + len as usize) * 32..(batch + 1) * 200 * 32].fill(bad);
        }
        let view = TensorView::new(&data, layout).unwrap();
        let options = Options { kv_lens: Some(&lens), ..Options::default() };
        for blocks in WIDE_BLOCKS {
            assert_transposed_bits_of_the_host([view; 3], Fp8::uniform(blocks), true, &options);
        }
    }
}

/// A sector has 32 bytes. A part of it counts as a whole one, and what several blocks read counts for each.
#[test]
fn launches_move_the_bytes_that_the_plan_says() {
    let layout = Layout::bhsd([1, 2, 1024, 64]);
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let data = numbers::<T>(3, &layout);
            let view = TensorView::new(&data, layout).unwrap();
            for blocks in BLOCKS {
                let (fp8, options) = (Fp8::uniform(blocks), Options::default());
                let rows = by_kernels([view; 3], fp8, true, &options);
                let transposed = simulator().quantize_transposed([view; 3], fp8, true, &options).ok();
                assert_eq!(transposed.is_some(), blocks != ScaleBlocks::Rows(64));
                let reports = |of: SimulatedCall| of.reports.into_iter().map(move |report| (of.plan, report));
                for (plan, report) in [Some(rows), transposed].into_iter().flatten().flat_map(reports) {
                    let launches = plan.launches();
                    let entry = launches.map(|launch| launch.entry).find(|entry| entry.to_string() == report.kernel);
                    let bytes = plan.bytes(entry.unwrap());
                    let moved = 32.0 * report.total.sectors_ideal as f64;
                    // Where `quantize` finds the magnitudes itself it reads twice.
                    let finds = report.kernel.starts_with("quantize") && matches!(blocks, ScaleBlocks::Rows(64 | 128));
                    let most = if finds { 2.0 } else { 1.15 };
                    assert!((bytes..most * bytes).contains(&moved), "{} {blocks:?}: {bytes}, {moved}", report.kernel);
                }
            }
        });
    }
}

#[test]
fn a_mean_that_overflows_is_not_subtracted() {
    let data: Vec<f32> = (0..70 * 16).map(|i| if i % 16 == 5 { f32::MAX } else { i as f32 }).collect();
    let view = TensorView::bhsd(&data, [1, 1, 70, 16]).unwrap();
    assert_the_bits_of_the_host([view; 3], Fp8::uniform(ScaleBlocks::Head), true, &Options::default());
    let mean = by_kernels([view; 3], Fp8::uniform(ScaleBlocks::Head), true, &Options::default()).call.k_mean.unwrap();
    assert_eq!(mean.values()[5], 0.0);
    assert_eq!(mean.values()[0], 16.0 * 34.5);
}

#[test]
fn a_scale_of_more_units_than_a_block_has_threads_is_found_in_parts_of_several_units() {
    let layout = Layout::bhsd([1, 2, 64 * 300 - 7, 16]);
    let mut data = vec![bf16::from_f32(0.5); layout.elements()];
    // In the last unit of all, and in one that is in the middle of a part.
    for (place, x) in [(layout.elements() - 3, 3.0), (64 * 16 * 301 + 5, -7.0)] {
        data[place] = bf16::from_f32(x);
    }
    let small = Layout::bhsd([1, 2, 1, 16]);
    let (q, k) = (TensorView::new(&data, small).unwrap(), TensorView::new(&data, layout).unwrap());
    for blocks in [ScaleBlocks::Head, ScaleBlocks::Tensor, ScaleBlocks::Rows(1 << 14)] {
        assert_the_bits_of_the_host([q, k, k], Fp8::uniform(blocks), true, &Options::default());
    }
}

#[test]
fn a_scale_of_few_rows_takes_one_launch_and_a_mean_two_more() {
    for (blocks, mean, launches) in [
        (ScaleBlocks::Rows(64), false, 1),
        (ScaleBlocks::Rows(128), false, 1),
        (ScaleBlocks::Head, false, 2),
        (ScaleBlocks::Rows(64), true, 3),
        (ScaleBlocks::Tensor, true, 4),
    ] {
        let layout = Layout::bhsd([1, 2, 200, 32]);
        let data = numbers::<bf16>(3, &layout);
        let view = TensorView::new(&data, layout).unwrap();
        let simulated = by_kernels([view; 3], Fp8::uniform(blocks), mean, &Options::default());
        assert_eq!(simulated.reports.len(), launches, "{blocks:?} {mean}");
    }
}

#[test]
fn tensors_without_elements_take_no_launch_but_for_a_scale_of_all_of_them() {
    let data = vec![bf16::from_f32(1.0); 2 * 3 * 16];
    for (q_len, kv_len) in [(0, 0), (0, 3), (3, 0)] {
        let view = |len| TensorView::bhsd(&data, [1, 2, len, 16]).unwrap();
        let tensors = [view(q_len), view(kv_len), view(kv_len)];
        for blocks in BLOCKS {
            assert_the_bits_of_the_host(tensors, Fp8::uniform(blocks), true, &Options::default());
            let (_, answer) = attention::<_, bf16>(tensors, blocks, true, &Options::default());
            assert_eq!(answer.output.out, vec![bf16::from_f32(0.0); 2 * q_len * 16]);
        }
        for blocks in WIDE_BLOCKS {
            assert_transposed_bits_of_the_host(tensors, Fp8::uniform(blocks), true, &Options::default());
        }
    }
    let problem = Options::default().problem(
        DType::F16,
        Layout::bhsd([1, 2, 0, 16]),
        Layout::bhsd([1, 2, 0, 16]),
        Layout::bhsd([1, 2, 0, 16]),
    );
    let plan = |blocks| QuantizePlan::new(&problem.clone().unwrap(), Fp8::uniform(blocks), true).unwrap();
    assert!(plan(ScaleBlocks::Head).is_empty() && !plan(ScaleBlocks::Tensor).is_empty());
}

/// Attention that begins with quantising, without defects.
fn attention<T: Element, O: Element>(
    tensors: [TensorView<T>; 3],
    blocks: ScaleBlocks,
    mean: bool,
    options: &Options,
) -> (Call, Simulated<O>) {
    let fp8 = Fp8::uniform(blocks);
    let (quantized, answer) = simulator().quantized_attention::<T, O>(tensors, fp8, mean, options, None).unwrap();
    let reports = quantized.reports.iter().chain([&answer.report]);
    reports.for_each(|report| assert!(report.is_clean(), "{report}"));
    (quantized.call, answer)
}

fn bits<T: Element>(output: &cpu::Output<T>) -> Vec<u32> {
    let out = output.out.iter().map(|x| x.to_f32().to_bits());
    out.chain(output.lse.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn quantised_on_the_way_or_before_the_answer_has_the_same_bits() {
    let causal = Some(Causal::BottomRight);
    with_element!(DType::F16, T => for_each_call::<T>(|tensors, options| {
        for (blocks, mean) in [(ScaleBlocks::Rows(64), false), (ScaleBlocks::Rows(128), true), (ScaleBlocks::Head, true)] {
            let options = Options { causal, ..*options };
            let (call, on_the_way) = attention::<T, bf16>(tensors, blocks, mean, &options);
            let before = simulator().fp8_attention::<bf16>([&call.q, &call.k, &call.v], &options, None).unwrap();
            assert_eq!(bits(&on_the_way.output), bits(&before.output), "{blocks:?}");
        }
    }));
}

/// The kernel of an H200 for transposed values of so many columns.
fn hopper_kernel(head_dim: usize) -> Kernel {
    let takes = |kernel: &&Kernel| {
        let columns = (head_dim as u32).next_multiple_of(64);
        matches!(kernel, Kernel::FwdSm90(c) if c.e4m3 && c.head_dim == columns && c.dtype == DType::Bf16)
    };
    *KERNELS.iter().find(takes).unwrap()
}

/// Values that were quantised in the order of the kernel, or in rows and transposed by the launch ahead of it.
#[test]
fn values_transposed_on_the_way_or_in_a_launch_of_their_own_give_the_same_bits() {
    let lens = [300, 5, 0];
    // One SM takes all tiles, by a counter in a workspace that holds nothing else.
    for (head_dim, kv_lens, sm_count) in [(16, None, 132), (64, Some(&lens[..]), 1), (112, Some(&lens), 132)] {
        let spec = DeviceSpec { sm_count, ..DeviceSpec::H200 };
        let hopper = evo_sdpa::simulator().unwrap().with_spec(spec);
        let [q, kv] = [[3, 4, 70, head_dim], [3, 2, 300, head_dim]].map(Layout::bshd);
        let data = [q, kv, kv].map(|layout| numbers::<half::f16>(head_dim as u64, &layout));
        let view = |i: usize, layout| TensorView::new(&data[i], layout).unwrap();
        let tensors = [view(0, q), view(1, kv), view(2, kv)];
        for (blocks, causal) in [(ScaleBlocks::Head, None), (ScaleBlocks::Rows(128), Some(Causal::BottomRight))] {
            let (fp8, options) = (Fp8::uniform(blocks), Options { kv_lens, causal, ..Options::default() });
            let kernel = Some(hopper_kernel(head_dim));
            let (quantized, on_the_way) =
                hopper.quantized_attention::<_, bf16>(tensors, fp8, true, &options, kernel).unwrap();
            let call = &quantized.call;
            let codes = [&call.q, &call.k, &call.v];
            let before = hopper.fp8_attention::<bf16>(codes, &options, kernel).unwrap();
            quantized.reports.iter().for_each(|report| assert!(report.is_clean(), "{report}"));
            assert!(on_the_way.plan.takes_transposed_values() && on_the_way.plan.ahead().is_none());
            assert!(!before.plan.takes_transposed_values() && before.plan.ahead().is_some());
            assert!(on_the_way.report.is_clean(), "{}", on_the_way.report);
            assert!(bits(&on_the_way.output) == bits(&before.output), "{head_dim} {blocks:?}");
            // For the output alone sums are others.
            let (_, on_the_way) = hopper.quantized_output::<_, bf16>(tensors, fp8, true, &options, kernel).unwrap();
            let before = hopper.fp8_output::<bf16>(codes, &options, kernel).unwrap();
            assert!(on_the_way.report.is_clean(), "{}", on_the_way.report);
            assert!(bits(&on_the_way.output) == bits(&before.output), "the output alone: {head_dim} {blocks:?}");
        }
    }
}

#[test]
fn f32_tensors_have_an_answer_in_a_type_of_16_bits_and_no_other() {
    let layout = Layout::bhsd([1, 1, 70, 32]);
    let data: Vec<f32> = (0..layout.elements()).map(|i| (i as f32 * 0.37).sin()).collect();
    let view = TensorView::new(&data, layout).unwrap();
    let exact = cpu::reference::attention(view, view, view, &Options::default()).unwrap();
    let (_, answer) = attention::<f32, bf16>([view; 3], ScaleBlocks::Rows(64), true, &Options::default());
    for (got, exact) in answer.output.out.iter().zip(&exact.out) {
        assert!((got.to_f64() - exact).abs() < 0.05, "{got} {exact}");
    }
    let fp8 = Fp8::uniform(ScaleBlocks::Head);
    let refused = simulator().quantized_attention::<f32, f32>([view; 3], fp8, false, &Options::default(), None);
    assert!(refused.unwrap_err().to_string().starts_with("dtype: f32 is not supported"));
}

/// Zeros, one-hot rows, constants, an outlier and heads of all kinds: the answer is as near to the exact one as the
/// CPU's prediction of it.
#[test]
fn special_tensors_have_the_answer_that_the_cpu_predicts() {
    for special in Special::ALL {
        let inputs: Inputs<bf16> = special.inputs(1);
        let exact = Unquantized::compute(&inputs).unwrap();
        for (blocks, subtract_mean) in
            [(ScaleBlocks::Tensor, false), (ScaleBlocks::Head, false), (ScaleBlocks::Rows(64), true)]
        {
            let fp8 = Fp8::uniform(blocks);
            let (_, answer) =
                attention::<bf16, bf16>(inputs.views().unwrap(), blocks, subtract_mean, &inputs.options());
            let predicted = exact.predict(&Quantization { fp8, subtract_mean, only: None }).unwrap();
            let out: Vec<f64> = answer.output.out.iter().map(|x| x.to_f64()).collect();
            let found = exact.measure(&predicted, &out);
            assert!(found.within(&predicted), "{special:?} {blocks:?}: {found:?} {predicted:?}");
            // The very same operands: what differs is how probabilities, of other sizes, and the output were rounded.
            // Either rounding costs 2.6e-2, and both together by the root of two as much.
            for (head, deviation) in found.from_prediction.iter().enumerate() {
                assert!(deviation.relative() < 4e-2, "{special:?} {blocks:?} {head}: {deviation:?}");
            }
        }
    }
}

/// NaN in a query spoils its row, NaN in a key or value what sees it; infinity saturates and spoils nothing.
#[test]
fn nan_stays_in_what_it_has_to_do_with_and_infinity_saturates() {
    let shape = [1, 2, 70, 64];
    let normal = numbers_of(1, shape);
    let with = |tensor: usize, x: f32| {
        let mut data = [normal.clone(), normal.clone(), normal.clone()];
        data[tensor][5 * 64 + 7] = bf16::from_f32(x);
        let view = |data| TensorView::bhsd(data, shape).unwrap();
        let [q, k, v] = &data;
        let answer = attention::<bf16, bf16>([view(q), view(k), view(v)], ScaleBlocks::Head, true, &Options::default());
        answer.1.output.out
    };
    let nan_rows = |out: &[bf16]| -> Vec<usize> {
        (0..2 * 70).filter(|row| out[row * 64..][..64].iter().any(|x| x.is_nan())).collect()
    };
    assert_eq!(nan_rows(&with(0, f32::NAN)), [5]);
    for tensor in [1, 2] {
        let rows = nan_rows(&with(tensor, f32::NAN));
        assert_eq!(rows, (0..70).collect::<Vec<_>>(), "the head of the NaN and no other");
    }
    for tensor in 0..3 {
        assert!(with(tensor, f32::INFINITY).iter().all(|x| x.is_finite()), "{tensor}");
    }
}

fn numbers_of(seed: u64, shape: [usize; 4]) -> Vec<bf16> {
    let mut rng = Rng::new(seed);
    (0..shape.iter().product()).map(|_| bf16::from_f32(rng.normal() as f32)).collect()
}
