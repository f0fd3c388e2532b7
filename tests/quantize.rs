//! The kernels `amax` and `quantize` in the simulator: bit for bit what the host makes of the same numbers.

use evo_sdpa::half::f16;
use evo_sdpa::quantize::{Quantized, TokenMean, quantize_as_device};
use evo_sdpa::sim::ptx_sim::{Device, Launch, Module, Options};
use evo_sdpa::verify::Rng;
use evo_sdpa::{
    DType, Element, Entry, Layout, PTX_SM89, Quantize, QuantizeParams, ScaleBlocks, Scales, TensorView, with_element,
};
use std::sync::OnceLock;

const BLOCKS: [ScaleBlocks; 4] =
    [ScaleBlocks::Rows(64), ScaleBlocks::Rows(128), ScaleBlocks::Head, ScaleBlocks::Tensor];

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::parse(PTX_SM89).unwrap())
}

/// Codes and bits of scales.
type Bits = (Vec<u8>, Vec<u32>);

fn bits(quantized: &Quantized) -> Bits {
    let codes = quantized.data().iter().map(|x| x.to_bits()).collect();
    (codes, quantized.scales().iter().map(|scale| scale.to_bits()).collect())
}

/// The elements as they lie in memory.
fn bytes<T: Element>(data: &[T]) -> Vec<u8> {
    let of_element = |x: &T| match T::DTYPE {
        DType::F32 => x.to_f32().to_le_bytes().to_vec(),
        DType::Bf16 => x.to_f32().to_le_bytes()[2..].to_vec(),
        DType::F16 => f16::from_f32(x.to_f32()).to_le_bytes().to_vec(),
    };
    data.iter().flat_map(of_element).collect()
}

/// What the kernels make of a tensor.
fn by_kernel<T: Element>(
    view: TensorView<T>,
    blocks: ScaleBlocks,
    lens: Option<&[i32]>,
    mean: Option<&TokenMean>,
) -> Bits {
    let shape = view.layout().shape();
    let [batch, heads, rows, head_dim] = shape.map(|n| n as u32);
    let mut device = Device::new();
    let input = device.upload_read_only(&bytes(&view.data()[..view.layout().extent().unwrap()])).address();
    let words = |data: &[u32]| data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let count: usize = blocks.scales(shape).into_iter().product();
    let (output, scales) = (device.alloc(view.layout().elements()), device.alloc(count * 4));
    // A block with one scale is one of threads, or `amax` comes first.
    let fused = blocks == ScaleBlocks::Rows(Quantize::ROWS);
    let amax = device.alloc(count * 4);
    device.write_start(amax, &vec![0; count * 4]).unwrap();
    let lens = lens.map(|lens| lens.iter().map(|&len| len as u32).collect::<Vec<_>>());
    let lens = lens.map_or(0, |lens| device.upload_read_only(&words(&lens)).address());
    let of_mean = |mean: &TokenMean| words(&mean.values().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    let mean = mean.map_or(0, |mean| device.upload_read_only(&of_mean(mean)).address());
    let unit = |stride: usize| (stride * T::DTYPE.size() as usize / 16) as u32;
    let [of_batch, of_head] = blocks.strides(shape).map(|stride| stride as u32);
    let mut params = QuantizeParams {
        input,
        output: output.address(),
        scales: Scales { address: scales.address(), batch: of_batch, head: of_head, shift: blocks.shift(), pad: 0 },
        amax: if fused { 0 } else { amax.address() },
        mean,
        lens,
        rows,
        heads,
        head_dim,
        ..QuantizeParams::default()
    };
    let strides = view.layout().strides();
    (params.input_stride.batch, params.input_stride.head, params.input_stride.row) =
        (unit(strides[0]), unit(strides[1]), unit(strides[2]));
    let row = head_dim / 16;
    (params.output_stride.batch, params.output_stride.head, params.output_stride.row) =
        (heads * rows * row, rows * row, row);
    // SAFETY: the parameter block has no padding.
    let raw: [u8; size_of::<QuantizeParams>()] = unsafe { std::mem::transmute(params) };
    let config = Quantize { dtype: T::DTYPE };
    let launches = [Entry::Amax(config), Entry::Quantize(config)];
    for entry in &launches[usize::from(fused)..] {
        let launch = Launch {
            entry: &entry.to_string(),
            grid: [rows.div_ceil(Quantize::ROWS), heads, batch],
            block: [entry.threads(), 1, 1],
            cluster: None,
            shared_bytes: entry.shared_bytes(),
            params: &raw,
            options: Options::default(),
        };
        let report = device.launch(module(), &launch).unwrap();
        assert!(report.is_clean(), "{entry}: {report}");
    }
    let scales = device.download(scales).unwrap();
    (device.download(output).unwrap(), scales.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
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

#[test]
fn kernels_give_the_bits_of_the_host() {
    for (seed, dtype) in (1..).zip(DType::ALL) {
        with_element!(dtype, T => {
            for blocks in BLOCKS {
                for (layout, lens) in [
                    (Layout::bhsd([1, 2, 200, 64]), None),
                    (Layout::bshd([2, 2, 130, 80]), Some(&[130, 67][..])),
                    (Layout::bhsd([2, 1, 64, 256]), Some(&[0, 64][..])),
                ] {
                    let data = numbers::<T>(seed, &layout);
                    let view = TensorView::new(&data, layout).unwrap();
                    let expected = quantize_as_device("x", view, blocks, lens).unwrap();
                    assert!(by_kernel(view, blocks, lens, None) == bits(&expected), "{dtype} {blocks:?} {layout}");
                }
            }
        });
    }
}

#[test]
fn a_mean_is_subtracted_before_magnitudes_are_taken() {
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let layout = Layout::bhsd([1, 2, 150, 64]);
            let data: Vec<T> = numbers::<T>(5, &layout).into_iter().map(|x| T::from_f32(x.to_f32() + 3.0)).collect();
            let view = TensorView::new(&data, layout).unwrap();
            let mean = TokenMean::new("x", view, None).unwrap();
            let rest = mean.subtract_from(view);
            for blocks in BLOCKS {
                let expected = quantize_as_device("x", TensorView::new(&rest, layout).unwrap(), blocks, None).unwrap();
                assert!(by_kernel(view, blocks, None, Some(&mean)) == bits(&expected), "{dtype} {blocks:?}");
            }
        });
    }
}

#[test]
fn numbers_that_are_not_finite_decide_no_scale() {
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let layout = Layout::bhsd([1, 1, 70, 64]);
            let mut data = numbers::<T>(6, &layout);
            for (place, x) in [(3, f32::NAN), (64 * 66, f32::INFINITY), (1000, f32::NEG_INFINITY)] {
                data[place] = T::from_f32(x);
            }
            let view = TensorView::new(&data, layout).unwrap();
            for blocks in BLOCKS {
                let expected = quantize_as_device("x", view, blocks, None).unwrap();
                let found = by_kernel(view, blocks, None, None);
                assert!(found == bits(&expected), "{dtype} {blocks:?}");
                assert_eq!([found.0[3], found.0[64 * 66], found.0[1000]], [0x7f, 0x7e, 0xfe]);
            }
        });
    }
}
