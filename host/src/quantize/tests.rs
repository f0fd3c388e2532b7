use super::*;
use crate::verify::{Case, Inputs, Kind, Storage};
use crate::{Causal, Fp8, Options, cpu};
use half::{bf16, f16};

const BLOCKS: [ScaleBlocks; 4] =
    [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(64), ScaleBlocks::Rows(128)];

/// One head of so many rows.
fn head(data: &[f32], rows: usize) -> TensorView<'_, f32> {
    TensorView::bhsd(data, [1, 1, rows, data.len() / rows]).unwrap()
}

#[test]
fn every_element_is_within_half_a_step_of_what_it_stands_for() {
    let inputs = Inputs::<f16>::generate(&Case::new([2, 3, 3, 200, 200, 32]));
    let [view, ..] = inputs.views().unwrap();
    for blocks in BLOCKS {
        let quantized = quantize("q", view, blocks, None).unwrap();
        for (index, x) in quantized.dequantize().into_iter().enumerate() {
            let [b, h, row] = row_of(view.layout().shape(), index / 32);
            let exact = view.at(b, h, row, index % 32).to_f32();
            // Half of the last of three bits, or of the distance of the numbers below 2^-6.
            let step = (exact.abs() / 16.0).max(quantized.scale(b, h, row) / 1024.0);
            assert!((x - exact).abs() <= step * 1.0001, "{blocks:?} {exact} {x}");
        }
    }
}

#[test]
fn the_largest_magnitude_of_a_block_becomes_448() {
    let inputs = Inputs::<bf16>::generate(&Case::new([2, 2, 2, 150, 150, 16]));
    let [view, ..] = inputs.views().unwrap();
    for blocks in BLOCKS {
        let quantized = quantize("q", view, blocks, None).unwrap();
        let mut largest = vec![0.0f32; quantized.scales().len()];
        for (index, x) in quantized.data().iter().enumerate() {
            let of_block =
                &mut largest[place_of_scale(blocks, view.layout().shape(), row_of([2, 2, 150, 16], index / 16))];
            *of_block = of_block.max(x.to_f32().abs());
        }
        assert!(largest.iter().all(|&x| x == E4m3::MAX), "{blocks:?} {largest:?}");
    }
}

#[test]
fn zeros_have_the_scale_one_and_keep_their_sign() {
    let mut data = [0.0f32; 128 * 16];
    data[3] = -0.0;
    data[64 * 16] = 7.0;
    let quantized = quantize("k", head(&data, 128), ScaleBlocks::Rows(64), None).unwrap();
    assert_eq!(quantized.scales(), [1.0, 7.0 / 448.0]);
    assert_eq!([0, 3, 64 * 16].map(|at| quantized.data()[at].to_bits()), [0x00, 0x80, 0x7e]);
    let tensor = quantize("k", head(&[-0.0; 64], 4), ScaleBlocks::Tensor, None).unwrap();
    assert!(tensor.scales() == [1.0] && tensor.data().iter().all(|x| x.to_bits() == 0x80));
}

#[test]
fn magnitudes_at_both_ends_of_f32_have_finite_scales_and_inverses() {
    for amax in [1e-45, f32::MIN_POSITIVE, 448.0 * f32::MIN_POSITIVE, 1.0, f32::MAX] {
        let quantized = quantize("v", head(&[amax, -amax, 0.0, amax / 2.0], 1), ScaleBlocks::Head, None).unwrap();
        let scale = quantized.scales()[0];
        assert!(scale.is_normal() && (1.0 / scale).is_finite(), "{amax:e} {scale:e}");
        let step = (amax / 16.0).max(scale / 1024.0);
        for (x, exact) in quantized.dequantize().into_iter().zip([amax, -amax, 0.0, amax / 2.0]) {
            assert!((x - exact).abs() <= step, "{exact:e} {x:e}");
        }
    }
    let smallest = f32::from(bf16::from_bits(1));
    assert_eq!(quantize("v", head(&[smallest], 1), ScaleBlocks::Head, None).unwrap().scales(), [f32::MIN_POSITIVE]);
}

#[test]
fn a_number_that_is_not_finite_is_an_error_that_says_where() {
    let case = Case { storage: Storage::Bshd, ..Case::new([2, 3, 3, 70, 70, 16]) };
    for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut inputs = Inputs::<bf16>::generate(&case);
        let places = [[1, 0, 5, 3], [1, 2, 1, 15], [0, 2, 69, 7]]
            .map(|[b, h, row, column]| inputs.k_layout.row_offset(b, h, row) + column);
        places.into_iter().for_each(|at| inputs.k[at] = bf16::from_f32(bad));
        let [_, k, _] = inputs.views().unwrap();
        let at = [0, 2, 69, 7];
        let error = Error::NotFinite { field: "k", at, value: name.into() };
        assert_eq!(quantize("k", k, ScaleBlocks::Head, None).unwrap_err(), error, "the first in the order of the axes");
        assert_eq!(TokenMean::new("k", k, None).unwrap_err(), error);
        assert!(error.to_string().starts_with(&format!("k: {name} at [0, 2, 69, 7] ")), "{error}");
    }
}

#[test]
fn on_a_device_nan_stays_infinity_saturates_and_neither_decides_a_scale() {
    let data = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.0, -1.0, 0.0, 1e-9];
    let quantized = quantize_as_device("k", head(&data, 1), ScaleBlocks::Tensor, None).unwrap();
    assert_eq!(quantized.scales(), [2.0 / 448.0]);
    let codes: Vec<_> = quantized.data().iter().map(|x| x.to_bits()).collect();
    assert_eq!(codes, [0x7f, 0x7f, 0x7e, 0xfe, 0x7e, 0xf6, 0x00, 0x00]);
    let nothing_finite = quantize_as_device("k", head(&data[..4], 1), ScaleBlocks::Tensor, None).unwrap();
    assert_eq!(nothing_finite.scales(), [1.0]);
}

#[test]
fn on_finite_numbers_both_policies_give_the_same_bits() {
    for kind in Kind::ALL {
        let inputs = Inputs::<f16>::generate(&Case { kind, ..Case::new([1, 2, 2, 100, 130, 32]) });
        for (blocks, view) in BLOCKS.into_iter().flat_map(|blocks| inputs.views().unwrap().map(|view| (blocks, view))) {
            let strict = quantize("k", view, blocks, None).unwrap();
            assert_eq!(strict, quantize_as_device("k", view, blocks, None).unwrap(), "{kind:?} {blocks:?}");
        }
    }
}

#[test]
fn layouts_and_threads_change_no_bit() {
    let inputs = |storage| Inputs::<bf16>::generate(&Case { storage, ..Case::new([2, 4, 2, 130, 90, 24]) });
    let quantized = |storage| quantize("q", inputs(storage).views().unwrap()[0], ScaleBlocks::Rows(64), None).unwrap();
    let plain = quantized(Storage::Bhsd);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| quantized(Storage::Bhsd)), plain);
    for storage in [Storage::Bshd, Storage::Padded] {
        assert_eq!(quantized(storage), plain, "{storage:?}");
    }
}

#[test]
fn tokens_beyond_the_length_of_their_sequence_are_not_looked_at() {
    let mut data = vec![0.5f32; 2 * 100 * 16];
    // The second sequence has 70 tokens.
    data[(100 + 70) * 16..].fill(f32::NAN);
    let view = TensorView::bhsd(&data, [2, 1, 100, 16]).unwrap();
    for blocks in BLOCKS {
        let quantized = quantize("v", view, blocks, Some(&[100, 70])).unwrap();
        assert!(quantized.scales().iter().all(|&scale| scale == 0.5 / 448.0), "{blocks:?}");
        let (valid, rest) = quantized.data().split_at((100 + 70) * 16);
        assert!(valid.iter().all(|x| x.to_bits() == 0x7e) && rest.iter().all(|x| x.to_bits() == 0), "{blocks:?}");
    }
    let no_token = quantize("v", view, ScaleBlocks::Head, Some(&[100, 0])).unwrap();
    assert_eq!(no_token.scales(), [0.5 / 448.0, 1.0]);
    for lens in [&[100][..], &[100, 101], &[-1, 5]] {
        assert!(quantize("v", view, ScaleBlocks::Head, Some(lens)).is_err(), "{lens:?}");
    }
}

#[test]
fn a_tensor_without_elements_has_no_elements() {
    for shape in [[0, 2, 3, 16], [2, 0, 3, 16], [2, 3, 0, 16], [1 << 40, 2, 0, 16]] {
        for blocks in BLOCKS {
            let quantized = quantize("q", TensorView::<f32>::bhsd(&[], shape).unwrap(), blocks, None).unwrap();
            assert!(quantized.data().is_empty() && quantized.dequantize().is_empty(), "{shape:?} {blocks:?}");
            assert_eq!(quantized.scales().len(), blocks.scales(shape).into_iter().product::<usize>());
        }
    }
    let error =
        quantize("q", TensorView::<f32>::bhsd(&[], [1, 2, 3, 0]).unwrap(), ScaleBlocks::Head, None).unwrap_err();
    assert!(error.to_string().contains("without columns"), "{error}");
}

#[test]
fn tensors_quantised_elsewhere_are_checked() {
    let new = |len: usize, shape, scales: Vec<f32>, blocks| {
        Quantized::new("k", vec![E4m3::from_f32(2.0); len], Layout::bhsd(shape), scales, blocks)
    };
    let good = new(2 * 70 * 16, [1, 2, 70, 16], vec![0.5, 1.0, 2.0, 0.0], ScaleBlocks::Rows(64)).unwrap();
    assert_eq!([(0, 63), (0, 64), (1, 0), (1, 69)].map(|(h, row)| good.scale(0, h, row)), [0.5, 1.0, 2.0, 0.0]);
    assert_eq!(good.dequantize()[64 * 16], 2.0);
    let refused = |error: Result<Quantized>| error.unwrap_err().to_string();
    let (shape, blocks) = ([1, 2, 70, 16], ScaleBlocks::Head);
    assert!(refused(new(2239, shape, vec![1.0; 2], blocks)).contains("2240 elements"));
    assert!(refused(new(2240, shape, vec![1.0; 3], blocks)).starts_with("k: 3 scales does not fit, allowed: 2"));
    assert!(refused(new(2240, shape, vec![1.0; 2], ScaleBlocks::Rows(70))).contains("a scale for 70 rows"));
    for scale in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(refused(new(2240, shape, vec![1.0, scale], blocks)).contains("a scale of "));
    }
    let strided = Layout::strided(&shape, &[2240, 1120, 16, 2]).unwrap();
    let error = Quantized::new("k", vec![E4m3::default(); 4480], strided, vec![1.0; 2], blocks).unwrap_err();
    assert!(error.to_string().contains("contiguous rows"), "{error}");
}

#[test]
fn strides_of_a_quantised_tensor_are_followed() {
    let shape = [2, 3, 70, 16];
    let data: Vec<_> = (0..Layout::bshd(shape).elements()).map(|i| E4m3::from_f32((i % 29) as f32)).collect();
    let scales = (1..=12).map(|i| i as f32).collect();
    let tensor = Quantized::new("k", data.clone(), Layout::bshd(shape), scales, ScaleBlocks::Rows(64)).unwrap();
    for (index, x) in tensor.dequantize().into_iter().enumerate() {
        let ([b, h, row], column) = (row_of(shape, index / 16), index % 16);
        let scale = ((b * 3 + h) * 2 + row / 64 + 1) as f32;
        assert_eq!(x, data[((b * 70 + row) * 3 + h) * 16 + column].to_f32() * scale, "{b} {h} {row} {column}");
    }
}

#[test]
fn without_the_mean_of_their_tokens_keys_give_the_same_attention_and_log_sum_exp() {
    let case = Case { kv_lens: true, causal: Some(Causal::TopLeft), ..Case::new([3, 4, 2, 60, 90, 16]) };
    let mut inputs = Inputs::<f32>::generate(&case);
    // Half of the keys' numbers have an offset, as models' keys do.
    inputs.k.iter_mut().enumerate().for_each(|(at, x)| *x += if at % 16 < 8 { 6.0 } else { 0.0 });
    let ([q, k, v], options) = (inputs.views().unwrap(), inputs.options());
    let exact = cpu::reference::attention(q, k, v, &options).unwrap();
    let mean = TokenMean::new("k", k, options.kv_lens).unwrap();
    let rest = mean.subtract_from(k);
    let rest = TensorView::bhsd(&rest, k.layout().shape()).unwrap();
    let mut got = cpu::reference::attention(q, rest, v, &options).unwrap();
    mean.add_to_lse(&mut got.lse, q, inputs.problem().scale());
    for (got, exact) in got.out.iter().chain(&got.lse).zip(exact.out.iter().chain(&exact.lse)) {
        assert!(got == exact || (got - exact).abs() < 1e-5, "{got} {exact}");
    }
    let quantized = |subtract| {
        let call = Call::new([q, k, v], Fp8::uniform(ScaleBlocks::Head), subtract, &options).unwrap();
        Deviation::new(&call.attention(&options).unwrap().out, &exact.out).relative()
    };
    assert!(quantized(true) < 0.6 * quantized(false), "{} {}", quantized(true), quantized(false));
}

#[test]
fn masks_lengths_strides_and_shared_heads_mean_what_they_mean_without_quantisation() {
    for (storage, causal, kv_lens) in [
        (Storage::Bhsd, None, true),
        (Storage::Bshd, Some(Causal::BottomRight), false),
        (Storage::Padded, Some(Causal::Offset(-5)), true),
    ] {
        let case = Case { storage, causal, kv_lens, ..Case::new([3, 4, 2, 70, 90, 32]) };
        let inputs = Inputs::<f16>::generate(&case);
        let (views, options) = (inputs.views().unwrap(), inputs.options());
        let exact = cpu::reference::attention(views[0], views[1], views[2], &options).unwrap();
        let call = Call::new(views, Fp8::uniform(ScaleBlocks::Rows(64)), false, &options).unwrap();
        for answer in [call.attention(&options).unwrap(), call.attention_as_device(&options).unwrap()] {
            let deviation = Deviation::new(&answer.out, &exact.out);
            assert!(deviation.relative() < 0.06 && deviation.max_abs < 0.4, "{case} {deviation:?}");
            for (got, exact) in answer.lse.iter().zip(&exact.lse) {
                assert!(got == exact || (got - exact).abs() < 0.2, "{case} {got} {exact}");
            }
        }
    }
}

#[test]
fn tensors_that_e4m3_holds_exactly_have_the_exact_answer() {
    // Small whole numbers times a power of two, with 448 times it among them.
    let data: Vec<f32> =
        (0..3 * 96 * 16).map(|i| if i % 1536 == 0 { 448.0 } else { (i % 17) as f32 - 8.0 } / 4.0).collect();
    let view = TensorView::bhsd(&data, [1, 3, 96, 16]).unwrap();
    let options = Options { scale: Some(0.0), ..Options::default() };
    let exact = cpu::reference::attention(view, view, view, &options).unwrap();
    let call = Call::new([view; 3], Fp8::uniform(ScaleBlocks::Head), false, &options).unwrap();
    assert_eq!(call.q.dequantize(), data);
    assert_eq!(call.attention(&options).unwrap(), exact);
    // All probabilities are 2^8, which e4m3 holds too.
    assert_eq!(call.attention_as_device(&options).unwrap(), exact);
}

#[test]
fn paged_keys_are_refused() {
    let data = [0.0f32; 2 * 16 * 16];
    let view = TensorView::bhsd(&data, [1, 2, 16, 16]).unwrap();
    let pages = crate::Pages { block_table: &[0], per_sequence: 1 };
    let options = Options { pages: Some(pages), ..Options::default() };
    let error = Call::new([view; 3], Fp8::uniform(ScaleBlocks::Head), false, &options).unwrap_err().to_string();
    assert!(error.starts_with("pages: "), "{error}");
}
