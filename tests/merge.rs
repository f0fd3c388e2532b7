//! The kernel that merges two results, in the simulator: right, clean under every check, and sound in place.

use evo_sdpa::sim::ptx_sim::{self, Launch, Module};
use evo_sdpa::verify::Rng;
use evo_sdpa::{
    DType, Element, Entry, Error, Layout, MergePlan, MergePointers, PTX_SM80, Simulator, TensorView, cpu, with_element,
};
use std::sync::OnceLock;

const NONE: f32 = f32::NEG_INFINITY;

/// Two results with their log-sum-exps; some rows saw no key on one side or on both.
struct Results<T> {
    outs: [Vec<T>; 2],
    lses: [Vec<f32>; 2],
    layouts: [Layout; 2],
}

impl<T: Element> Results<T> {
    /// What lies between the rows of a layout is NaN.
    fn new(layouts: [Layout; 2]) -> Self {
        let mut rng = Rng::new(layouts[0].elements() as u64);
        let [batch, heads, seq, head_dim] = layouts[0].shape();
        let rows = batch * heads * seq;
        let outs = layouts.map(|layout| {
            let mut data = vec![T::from_f32(f32::NAN); layout.extent().unwrap()];
            for row in 0..rows {
                let start = layout.row_offset(row / seq / heads, row / seq % heads, row % seq);
                data[start..start + head_dim].fill_with(|| T::from_f64(rng.normal()));
            }
            data
        });
        let mut lses = [0, 1].map(|_| (0..rows).map(|_| (3.0 * rng.normal()) as f32).collect::<Vec<_>>());
        for row in (0..rows).step_by(5) {
            lses[row % 2][row] = NONE;
            lses[row / 5 % 2][row] = NONE;
        }
        Self { outs, lses, layouts }
    }

    fn views(&self) -> [TensorView<'_, T>; 2] {
        [0, 1].map(|side| TensorView::new(&self.outs[side], self.layouts[side]).unwrap())
    }

    /// Fails unless an answer is that of exact weights, up to f32 arithmetic and one rounding.
    fn check(&self, got: &cpu::Output<T>) {
        let [a, b] = self.views();
        let exact = cpu::reference::merge_states(a, &self.lses[0], b, &self.lses[1]).unwrap();
        let rounding = match T::DTYPE {
            DType::F16 => 2f64.powi(-11),
            DType::Bf16 => 2f64.powi(-8),
            DType::F32 => 2f64.powi(-24),
        };
        assert_eq!((got.out.len(), got.lse.len()), (exact.out.len(), exact.lse.len()));
        for (got, exact) in got.out.iter().zip(&exact.out) {
            let error = (got.to_f64() - exact).abs();
            assert!(error <= rounding * exact.abs() + 4e-6, "{}: {got:?}, exact {exact}", T::DTYPE);
        }
        for (&got, &exact) in got.lse.iter().zip(&exact.lse) {
            let got = f64::from(got);
            assert!(got == exact || (got - exact).abs() <= 1e-6 + 1e-6 * exact.abs(), "{got}, exact {exact}");
        }
    }
}

/// One simulator for all tests, as reading the text takes longest.
fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap())
}

#[test]
fn results_of_any_size_are_merged_rightly_and_cleanly() {
    let simulator = simulator();
    for shape in [[1, 1, 1, 8], [2, 3, 17, 40], [1, 2, 33, 64], [2, 1, 5, 72], [1, 1, 16, 192], [1, 2, 3, 520]] {
        for dtype in DType::ALL {
            with_element!(dtype, T => {
                let results = Results::<T>::new([Layout::bhsd(shape); 2]);
                let [a, b] = results.views();
                let merged = simulator.merge_states(a, &results.lses[0], b, &results.lses[1]).unwrap();
                assert!(merged.report.is_clean(), "{}", merged.report);
                results.check(&merged.output);
            });
        }
    }
}

#[test]
fn strided_results_are_merged_where_they_lie() {
    let (shape, simulator) = ([2, 3, 19, 48], simulator());
    let padded = Layout::strided(&shape, &[3 * 19 * 64 + 8, 19 * 64, 64, 1]).unwrap();
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let results = Results::<T>::new([Layout::bshd(shape), padded]);
            let [a, b] = results.views();
            let merged = simulator.merge_states(a, &results.lses[0], b, &results.lses[1]).unwrap();
            assert!(merged.report.is_clean(), "{}", merged.report);
            results.check(&merged.output);
        });
    }
}

#[test]
fn a_result_without_keys_leaves_the_bits_of_the_other() {
    let shape = [1, 1, 4, 16];
    let numbers: Vec<f32> = (0..64).map(|i| if i % 7 == 0 { -0.0 } else { (i as f32).sin() * 1e30 }).collect();
    let (nothing, lse) = ([f32::NAN; 64], [0.25, -1e4, f32::MAX, 3.0]);
    let [some, none] = [&numbers[..], &nothing].map(|data| TensorView::bhsd(data, shape).unwrap());
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for [(a, lse_a), (b, lse_b)] in [[(some, lse), (none, [NONE; 4])], [(none, [NONE; 4]), (some, lse)]] {
        let merged = simulator().merge_states(a, &lse_a, b, &lse_b).unwrap().output;
        assert_eq!((bits(&merged.out), bits(&merged.lse)), (bits(&numbers), bits(&lse)));
    }
    let merged = simulator().merge_states(none, &[NONE; 4], none, &[NONE; 4]).unwrap().output;
    assert_eq!(merged, cpu::Output { out: vec![0.0; 64], lse: vec![NONE; 4] });
}

#[test]
fn nan_reaches_the_rows_that_have_it_and_no_others() {
    let shape = [1, 1, 4, 8];
    let mut a = [1.0f32; 32];
    a[9] = f32::NAN;
    let (lse_a, lse_b) = ([0.0, 0.0, f32::NAN, 0.0], [1.0, 1.0, 1.0, f32::NAN]);
    let [a, b] = [&a, &[1.0; 32]].map(|data| TensorView::bhsd(data, shape).unwrap());
    let merged = simulator().merge_states(a, &lse_a, b, &lse_b).unwrap().output;
    let nan: Vec<_> = (0..32).filter(|&i| merged.out[i].is_nan()).collect();
    assert_eq!(nan, std::iter::once(9).chain(16..32).collect::<Vec<_>>());
    assert_eq!(merged.lse.iter().map(|lse| lse.is_nan()).collect::<Vec<_>>(), [false, false, true, true]);
}

/// The launch with the merged result in the place of an input.
fn merge_in_place<T: Element>(results: &Results<T>, into: usize) -> cpu::Output<T> {
    let [a, b] = &results.layouts;
    let plan = MergePlan::new(T::DTYPE, a, b, &results.layouts[into]).unwrap();
    let mut device = ptx_sim::Device::new();
    let bits = |values: &[T]| values.iter().flat_map(|x| to_bytes(*x)).collect::<Vec<_>>();
    let outs = [0, 1].map(|side| device.upload(&bits(&results.outs[side])));
    let lses = [0, 1].map(|side| {
        let bytes: Vec<_> = results.lses[side].iter().flat_map(|lse| lse.to_le_bytes()).collect();
        device.upload(&bytes)
    });
    let [out_a, out_b] = outs.map(|buffer| buffer.address());
    let [lse_a, lse_b] = lses.map(|buffer| buffer.address());
    let (out, lse) = (outs[into].address(), lses[into].address());
    let params = plan.bind(&MergePointers { out_a, lse_a, out_b, lse_b, out, lse }).unwrap();
    let addresses = [params.out_a, params.lse_a, params.out_b, params.lse_b, params.out, params.lse];
    let strides = [params.a_stride, params.b_stride, params.out_stride];
    let numbers = strides.into_iter().flat_map(|stride| [stride.batch, stride.head, stride.row]);
    let numbers = numbers.chain([params.row_bytes, params.seq, params.heads]);
    let params: Vec<u8> =
        addresses.into_iter().flat_map(u64::to_le_bytes).chain(numbers.flat_map(u32::to_le_bytes)).collect();
    let entry = Entry::MergeStates(plan.kernel);
    let launch = Launch {
        entry: &entry.to_string(),
        grid: plan.grid,
        block: [entry.threads(), 1, 1],
        cluster: None,
        shared_bytes: entry.shared_bytes(),
        params: &params,
        options: ptx_sim::Options::default(),
    };
    static MODULE: OnceLock<Module> = OnceLock::new();
    let report = device.launch(MODULE.get_or_init(|| Module::parse(PTX_SM80).unwrap()), &launch).unwrap();
    assert!(report.is_clean(), "{report}");
    let out = device.download(outs[into]).unwrap();
    let lse = device.download(lses[into]).unwrap();
    cpu::Output {
        out: out.chunks_exact(size_of::<T>()).map(from_bytes).collect(),
        lse: lse.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
    }
}

/// An element as it lies in memory, by way of f32, which holds every number of the types exactly.
fn to_bytes<T: Element>(x: T) -> Vec<u8> {
    let x = x.to_f32();
    match T::DTYPE {
        DType::F16 => evo_sdpa::half::f16::from_f32(x).to_le_bytes().to_vec(),
        DType::Bf16 => evo_sdpa::half::bf16::from_f32(x).to_le_bytes().to_vec(),
        DType::F32 => x.to_le_bytes().to_vec(),
    }
}

fn from_bytes<T: Element>(bytes: &[u8]) -> T {
    T::from_f32(match *bytes {
        [a, b] if T::DTYPE == DType::F16 => evo_sdpa::half::f16::from_le_bytes([a, b]).to_f32(),
        [a, b] => evo_sdpa::half::bf16::from_le_bytes([a, b]).to_f32(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => unreachable!("elements have two or four bytes"),
    })
}

#[test]
fn a_merge_in_the_place_of_an_input_is_clean_and_gives_the_same_bits() {
    let shape = [2, 2, 37, 88];
    for dtype in DType::ALL {
        with_element!(dtype, T => {
            let results = Results::<T>::new([Layout::bhsd(shape); 2]);
            let [a, b] = results.views();
            let apart = simulator().merge_states(a, &results.lses[0], b, &results.lses[1]).unwrap().output;
            assert_eq!(merge_in_place(&results, 0), apart);
            assert_eq!(merge_in_place(&results, 1), apart);
        });
    }
}

#[test]
fn merges_that_cannot_be_launched_are_refused() {
    let data = [0.0f32; 96];
    let refused = |shape, lse: &[f32]| {
        let view = TensorView::bhsd(&data, shape).unwrap();
        simulator().merge_states(view, lse, view, lse).unwrap_err()
    };
    let error = refused([1, 2, 4, 12], &[0.0; 8]);
    assert!(matches!(error, Error::Unsupported { field: "head_dim", .. }), "{error}");
    let error = refused([1, 2, 4, 8], &[0.0; 7]);
    assert!(matches!(error, Error::Shape { field: "lse_a", .. }), "{error}");
    let empty = TensorView::bhsd(&data[..0], [1, 2, 0, 8]).unwrap();
    let merged = simulator().merge_states(empty, &[], empty, &[]).unwrap();
    assert!(merged.report.is_clean() && merged.output.out.is_empty());
}
