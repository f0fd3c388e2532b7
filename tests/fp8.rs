//! `fwd_fp8` and `fwd_fp8_sm90` in the simulator: whole calls against an f64 answer to the very numbers that the codes and scales stand for.

use evo_sdpa::quantize::{self, E4m3, Quantized};
use evo_sdpa::sim::Simulated;
use evo_sdpa::verify::{Case, Expected, Inputs, Rng};
use evo_sdpa::{
    Causal, DType, DeviceSpec, Element, Fp8, FwdSm90, KERNELS, Kernel, Layout, Options, Plan, ScaleBlocks, Simulator,
    cpu, half, with_element,
};
use std::sync::OnceLock;

/// Keys of which `fwd_fp8_sm90` puts sums aside twice.
const TWO_RUNS: usize = 2 * FwdSm90::RUN_KEYS as usize + 204;

fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    // It has every kernel.
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap().with_spec(DeviceSpec::H200))
}

/// A tensor, codes by their indices, scales by theirs.
fn tensor(
    layout: Layout,
    blocks: ScaleBlocks,
    mut code: impl FnMut([usize; 4]) -> E4m3,
    scale: impl FnMut(usize) -> f32,
) -> Quantized {
    // Between rows, NaN: what is not part of the tensor must not be read.
    let mut data = vec![E4m3::NAN; layout.extent().unwrap()];
    for index in (0..layout.elements()).map(|i| unravel(i, layout.shape())) {
        data[offset(&layout, index)] = code(index);
    }
    let scales = (0..blocks.scales(layout.shape()).into_iter().product()).map(scale).collect();
    Quantized::new("tensor", data, layout, scales, blocks).unwrap()
}

/// Normal numbers of about this size, with scales from 0.5 to 1.5.
fn normal(rng: &mut Rng, layout: Layout, blocks: ScaleBlocks, size: f64) -> Quantized {
    let mut other = Rng::new(rng.next_u64());
    tensor(layout, blocks, |_| E4m3::from_f32((rng.normal() * size) as f32), |_| 0.5 + other.uniform() as f32)
}

/// An element of a tensor.
fn get(tensor: &Quantized, index: [usize; 4]) -> f64 {
    let [b, h, row, _] = index;
    f64::from(tensor.data()[offset(tensor.layout(), index)].to_f32()) * f64::from(tensor.scale(b, h, row))
}

fn unravel(mut i: usize, shape: [usize; 4]) -> [usize; 4] {
    let mut index = [0; 4];
    for axis in (0..4).rev() {
        index[axis] = i % shape[axis];
        i /= shape[axis];
    }
    index
}

fn offset(layout: &Layout, index: [usize; 4]) -> usize {
    index.iter().zip(layout.strides()).map(|(i, stride)| i * stride).sum()
}

struct Call<'a> {
    q: Quantized,
    k: Quantized,
    v: Quantized,
    options: Options<'a>,
}

/// One row of the exact answer.
struct Row {
    out: Vec<f64>,
    /// Root of the sum of squares of weighted values: what errors of probabilities that know nothing of each other do.
    spread: Vec<f64>,
    lse: f64,
}

impl Call<'_> {
    fn row(&self, b: usize, h: usize, i: usize) -> Row {
        let [_, heads_q, q_len, head_dim] = self.q.layout().shape();
        let [_, heads_kv, kv_len, _] = self.k.layout().shape();
        let kv = h / (heads_q / heads_kv);
        let scale = self.options.scale.map_or(1.0 / (head_dim as f64).sqrt(), f64::from);
        let valid = self.options.kv_lens.map_or(kv_len, |lens| lens[b] as usize);
        let offset = match self.options.causal {
            None => kv_len as i64,
            Some(Causal::TopLeft) => 0,
            Some(Causal::BottomRight) => kv_len as i64 - q_len as i64,
            Some(Causal::Offset(offset)) => offset,
        };
        let keys: Vec<_> = (0..valid).filter(|&j| j as i64 <= i as i64 + offset).collect();
        let dot =
            |j| (0..head_dim).map(|d| get(&self.q, [b, h, i, d]) * get(&self.k, [b, kv, j, d])).sum::<f64>() * scale;
        let scores: Vec<_> = keys.iter().map(|&j| dot(j)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<_> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |d: usize, power: i32| {
            let weighted =
                keys.iter().zip(&weights).map(|(&j, w)| (w / total * get(&self.v, [b, kv, j, d])).powi(power));
            weighted.sum::<f64>()
        };
        Row {
            out: (0..head_dim).map(|d| column(d, 1)).collect(),
            spread: (0..head_dim).map(|d| column(d, 2).sqrt()).collect(),
            lse: if keys.is_empty() { f64::NEG_INFINITY } else { max + total.ln() },
        }
    }

    /// The kernels that take it, with a tile that is no wider than they need.
    fn kernels(&self) -> Vec<Kernel> {
        let [q, k, v] = [&self.q, &self.k, &self.v];
        let fp8 = Fp8 { q: q.blocks(), k: k.blocks(), v: v.blocks() };
        let takes = |kernel: &Kernel| {
            let problem = self.options.problem(kernel.dtype(), *q.layout(), *k.layout(), *v.layout()).unwrap();
            Plan::with_kernel(&problem.with_fp8(Some(fp8)), simulator().spec(), *kernel).is_ok()
        };
        KERNELS.iter().copied().filter(takes).collect()
    }

    fn hopper_kernels(&self) -> Vec<Kernel> {
        let kernels: Vec<_> =
            self.kernels().into_iter().filter(|kernel| matches!(kernel, Kernel::FwdSm90(_))).collect();
        assert_eq!(kernels.len(), 2, "{kernels:?}");
        kernels
    }

    fn run<T: Element>(&self, kernel: Kernel) -> Simulated<T> {
        self.run_in(simulator(), kernel)
    }

    fn run_in<T: Element>(&self, simulator: &Simulator, kernel: Kernel) -> Simulated<T> {
        simulator.fp8_attention([&self.q, &self.k, &self.v], &self.options, Some(kernel)).unwrap()
    }

    fn run_for_output<T: Element>(&self, simulator: &Simulator, kernel: Kernel) -> Simulated<T> {
        let ran = simulator.fp8_output([&self.q, &self.k, &self.v], &self.options, Some(kernel)).unwrap();
        assert!(ran.output.lse.is_empty());
        ran
    }

    /// What is wrong with the kernel's answer. `exact`: all probabilities are powers of two.
    fn faults<T: Element>(&self, kernel: Kernel, exact: bool) -> Vec<String> {
        self.faults_in::<T>(simulator(), kernel, exact)
    }

    fn faults_in<T: Element>(&self, simulator: &Simulator, kernel: Kernel, exact: bool) -> Vec<String> {
        let mut faults = self.faults_of(&self.run_in::<T>(simulator, kernel), exact);
        if let Kernel::FwdSm90(_) = kernel {
            // Without log-sum-exps, sums are others.
            faults.extend(self.faults_of(&self.run_for_output::<T>(simulator, kernel), exact));
        }
        faults
    }

    fn faults_of<T: Element>(&self, Simulated { output, report, .. }: &Simulated<T>, exact: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if !report.is_clean() {
            faults.push(report.to_string());
        }
        let [batch, heads, q_len, head_dim] = self.q.layout().shape();
        // Half the distance of neighbours, relative.
        let rounding = if T::DTYPE == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
        for [b, h, i, _] in (0..batch * heads * q_len).map(|row| unravel(row, [batch, heads, q_len, 1])) {
            let (row, index) = (self.row(b, h, i), (b * heads + h) * q_len + i);
            let is_wrong =
                |lse: f64| lse != row.lse && (lse - row.lse).abs() > 3e-6 * row.lse.abs().max(8.0) || lse.is_nan();
            if let Some(lse) = output.lse.get(index).copied().map(f64::from).filter(|&lse| is_wrong(lse)) {
                faults.push(format!("lse of {b} {h} {i}: {lse} instead of {}", row.lse));
            }
            for d in 0..head_dim {
                let (found, expected) = (output.out[index * head_dim + d].to_f64(), row.out[d]);
                // A probability is off by 2^-4 of itself at most, by 2^-5 on average; all the same way they move the answer
                // by as much of itself.
                let of_e4m3 = if exact { 0.0 } else { expected.abs() / 16.0 + row.spread[d] / 6.0 };
                let tolerance = of_e4m3 + expected.abs() * (rounding + 1e-5) + 1e-5 * row.spread[d] + 1e-7;
                if (found - expected).abs() > tolerance || found.is_nan() {
                    faults.push(format!("out of {b} {h} {i} {d}: {found} instead of {expected}, +-{tolerance}"));
                }
            }
        }
        faults.truncate(5);
        faults
    }
}

#[track_caller]
fn assert_right(call: &Call, exact: bool) {
    let taking = call.kernels();
    assert!(taking.iter().any(|kernel| matches!(kernel, Kernel::FwdFp8(_))));
    for kernel in taking {
        let faults = with_element!(kernel.dtype(), T => call.faults::<T>(kernel, exact));
        assert!(faults.is_empty(), "{kernel}:\n{}", faults.join("\n"));
    }
}

/// Layouts of q, k and v of \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\].
fn layouts([batch, heads_q, heads_kv, q_len, kv_len, head_dim]: [usize; 6]) -> [Layout; 3] {
    let kv = Layout::bhsd([batch, heads_kv, kv_len, head_dim]);
    [Layout::bhsd([batch, heads_q, q_len, head_dim]), kv, kv]
}

fn random<'a>(seed: u64, shape: [usize; 6], blocks: ScaleBlocks, options: Options<'a>) -> Call<'a> {
    let mut rng = Rng::new(seed);
    let [q, k, v] = layouts(shape).map(|layout| normal(&mut rng, layout, blocks, 1.0));
    Call { q, k, v, options }
}

const BLOCKS: [ScaleBlocks; 4] =
    [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(64), ScaleBlocks::Rows(128)];

/// Head dims that bring every kernel its own and some padding.
const HEAD_DIMS: [usize; 4] = [64, 112, 192, 256];

#[test]
fn answers_are_those_of_the_numbers_that_codes_and_scales_stand_for() {
    for head_dim in HEAD_DIMS {
        let masks = [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(-2))];
        let shapes = [[1, 2, 1, 65, 64], [1, 2, 2, 130, 195], [2, 4, 2, 77, 95], [1, 1, 1, 33, 300]];
        for (seed, ((mask, [b, hq, hkv, sq, skv]), blocks)) in (1..).zip(masks.into_iter().zip(shapes).zip(BLOCKS)) {
            let options = Options { causal: mask, ..Options::default() };
            assert_right(&random(seed, [b, hq, hkv, sq, skv, head_dim], blocks, options), false);
        }
    }
}

#[test]
fn lengths_of_sequences_and_any_strides_count() {
    let lens = [0, 70, 195];
    let options = Options { kv_lens: Some(&lens), causal: Some(Causal::Offset(60)), ..Options::default() };
    let mut rng = Rng::new(7);
    let [q, kv] = [[3, 4, 33, 80], [3, 2, 195, 80]].map(Layout::bshd);
    let blocks = [ScaleBlocks::Tensor, ScaleBlocks::Rows(64), ScaleBlocks::Head];
    let mut make = |layout, blocks| normal(&mut rng, layout, blocks, 1.0);
    let call = Call { q: make(q, blocks[0]), k: make(kv, blocks[1]), v: make(kv, blocks[2]), options };
    assert_right(&call, false);
}

#[test]
fn queries_of_zeros_give_the_mean_of_the_values_exactly() {
    // All probabilities are equal, and a power of two: what is left is where values and masks are.
    let shapes = [[1, 2, 1, 70, 130, 64], [1, 1, 1, 65, 200, 128], [1, 1, 1, 20, 70, 256]];
    for (shape, causal) in shapes.into_iter().zip([None, Some(Causal::BottomRight), Some(Causal::TopLeft)]) {
        let call = random(11, shape, ScaleBlocks::Rows(64), Options { causal, ..Options::default() });
        let q = tensor(*call.q.layout(), ScaleBlocks::Head, |_| E4m3::default(), |_| 1.0);
        assert_right(&Call { q, ..call }, true);
    }
}

#[test]
fn a_query_that_hits_few_keys_gets_the_mean_of_their_values() {
    for head_dim in [64, 128, 192] {
        let layouts = layouts([1, 1, 1, 64, 150, head_dim]);
        let mut rng = Rng::new(3);
        // Query i and key j have one column each, and a score far above the others where it is the same.
        let hot = |step: usize| {
            move |[_, _, i, d]: [usize; 4]| E4m3::from_f32(if d < 61 && d == i * step % 61 { 64.0 } else { 0.0 })
        };
        let q = tensor(layouts[0], ScaleBlocks::Head, hot(1), |_| 1.0);
        // 150 keys: a column has two or three of them, of which all weigh the same.
        let k = tensor(layouts[1], ScaleBlocks::Rows(64), hot(7), |_| 4.0);
        let v = normal(&mut rng, layouts[2], ScaleBlocks::Rows(64), 1.0);
        assert_right(&Call { q, k, v, options: Options::default() }, true);
    }
}

#[test]
fn scales_of_any_size_give_numbers() {
    // Scores from next to nothing to far beyond what an exponential can tell apart.
    for (q_scale, k_scale, v_scale) in
        [(1e-38, 1e-38, 1e-30), (1e-30, 1e30, 1.0), (1e3, 1e3, 1e30), (1e18, 1e18, 1.0), (f32::MAX, f32::MAX, 1.0)]
    {
        let layouts = layouts([1, 1, 1, 40, 100, 64]);
        let mut rng = Rng::new(5);
        let mut make = |layout, scale: f32| {
            let code = |_| E4m3::from_f32((rng.normal() * 8.0) as f32);
            tensor(layout, ScaleBlocks::Head, code, |_| scale)
        };
        let call = Call {
            q: make(layouts[0], q_scale),
            k: make(layouts[1], k_scale),
            v: make(layouts[2], v_scale),
            options: Options { causal: Some(Causal::BottomRight), ..Options::default() },
        };
        for kernel in call.kernels().into_iter().filter(|kernel| kernel.dtype() == DType::Bf16) {
            let ran = call.run::<half::bf16>(kernel);
            assert!(ran.report.is_clean(), "{}", ran.report);
            let scale = f64::from(v_scale);
            // Within the values: the largest code is below 64.
            let is_outside = |x: &&half::bf16| x.to_f64().is_nan() || x.to_f64().abs() > 64.0 * scale;
            let outside = ran.output.out.iter().filter(is_outside).count();
            assert_eq!(outside, 0, "{kernel} {q_scale:e} {k_scale:e}");
            assert!(ran.output.lse.iter().all(|lse| !lse.is_nan()));
        }
    }
}

#[test]
fn scores_may_grow_by_any_factor_from_step_to_step() {
    // Keys are walked from the last one. What a step of 128 has in one column, times a scale: some binades more than the step
    // before, more than f32 has, and more than a logarithm has bits for.
    for (levels, scale) in [
        ([9.0, 6.0, 4.0, 2.0, 0.0], 3.0),
        ([448.0, 320.0, 208.0, 96.0, 0.0], 2.0),
        ([448.0, 320.0, 208.0, 96.0, 0.0], 1e5),
    ] {
        for head_dim in [64, 128] {
            let layouts = layouts([1, 1, 1, 70, 640, head_dim]);
            let mut rng = Rng::new(23);
            let q = |[_, _, i, d]: [usize; 4]| match d {
                0 => [1.0, 0.5][i % 2],
                1 => [-1.0, 0.25, 1.0][i % 3],
                _ => 0.0,
            };
            let q = tensor(layouts[0], ScaleBlocks::Head, |index| E4m3::from_f32(q(index)), |_| 1.0);
            let mut k = |[_, _, j, d]: [usize; 4]| match d {
                0 => levels[j / 128],
                1 => rng.uniform() as f32,
                _ => 0.0,
            };
            let k = tensor(layouts[1], ScaleBlocks::Head, |index| E4m3::from_f32(k(index)), |_| 1.0);
            let v = normal(&mut Rng::new(29), layouts[2], ScaleBlocks::Head, 1.0);
            let options = Options { scale: Some(scale), ..Options::default() };
            assert_right(&Call { q, k, v, options }, false);
        }
    }
}

#[test]
fn sums_of_thousands_of_keys_keep_their_bits() {
    for head_dim in [64, 128] {
        let layouts = layouts([1, 1, 1, 66, TWO_RUNS, head_dim]);
        let zeros = |layout| tensor(layout, ScaleBlocks::Head, |_| E4m3::default(), |_| 1.0);
        let mut rng = Rng::new(31);
        let code = |_| E4m3::from_f32(1.0 + rng.uniform() as f32);
        let v = tensor(layouts[2], ScaleBlocks::Head, code, |_| 1.0);
        let call = Call { q: zeros(layouts[0]), k: zeros(layouts[1]), v, options: Options::default() };
        let exact = call.row(0, 0, 0).out;
        for kernel in call.hopper_kernels().into_iter().filter(|kernel| kernel.dtype() == DType::F16) {
            for ran in [call.run::<half::f16>(kernel), call.run_for_output(simulator(), kernel)] {
                assert!(ran.report.is_clean(), "{}", ran.report);
                // All weights are one power of two: what is lost is lost by sums of 14 bits, at most 2^-8 in a run.
                for (found, d) in ran.output.out.iter().zip((0..head_dim).cycle()) {
                    let error = (found.to_f64() / exact[d] - 1.0).abs();
                    assert!(error < 2f64.powi(-8) + 2f64.powi(-11), "{kernel} {d}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_key_that_comes_late_takes_its_share_of_sums_that_were_put_aside() {
    for head_dim in [64, 128] {
        let layouts = layouts([1, 1, 1, 66, TWO_RUNS, head_dim]);
        let q = tensor(layouts[0], ScaleBlocks::Head, |_| E4m3::from_f32(1.0), |_| 1.0);
        // It has 1 / 11 of all weights.
        let k = |[_, _, j, d]: [usize; 4]| E4m3::from_f32(if j == 130 && d == 0 { 6.0 } else { 0.0 });
        let k = tensor(layouts[1], ScaleBlocks::Head, k, |_| 1.0);
        let code = |[_, _, j, _]: [usize; 4]| E4m3::from_f32(if j == 130 { -8.0 } else { 1.0 });
        let v = tensor(layouts[2], ScaleBlocks::Head, code, |_| 1.0);
        let call = Call { q, k, v, options: Options { scale: Some(1.0), ..Options::default() } };
        for kernel in call.hopper_kernels() {
            let faults = with_element!(kernel.dtype(), T => call.faults::<T>(kernel, false));
            assert!(faults.is_empty(), "{kernel}:\n{}", faults.join("\n"));
        }
    }
}

#[test]
fn scales_of_values_may_differ_from_block_to_block_by_many_orders_of_magnitude() {
    for factors in [[1.0, 2.0, 0.25, 3.0], [1e-3, 1.0, 1e3, 1.0], [1e-27, 1.0, 1e-20, 100.0], [1.0, 1.0, 1.0, 1e-27]] {
        let layouts = layouts([1, 1, 1, 70, 500, 64]);
        let mut rng = Rng::new(37);
        let [q, k] = [layouts[0], layouts[1]].map(|layout| normal(&mut rng, layout, ScaleBlocks::Head, 1.0));
        let mut blocks = factors.into_iter();
        let code = |_| E4m3::from_f32(rng.normal() as f32);
        let v = tensor(layouts[2], ScaleBlocks::Rows(128), code, |_| blocks.next().unwrap());
        assert_right(&Call { q, k, v, options: Options::default() }, false);
    }
}

#[test]
fn tiles_that_a_block_takes_one_after_the_other_do_not_mix() {
    // One SM takes all of them; sequences end in the first step, in the third one, and nowhere.
    let (one_sm, lens) = (DeviceSpec { sm_count: 1, ..DeviceSpec::H200 }, [300, 5, 0]);
    let simulator = evo_sdpa::simulator().unwrap().with_spec(one_sm);
    for head_dim in [64, 112] {
        for causal in [None, Some(Causal::BottomRight)] {
            let options = Options { kv_lens: Some(&lens), causal, ..Options::default() };
            let call = random(17, [3, 4, 2, 150, 300, head_dim], ScaleBlocks::Rows(128), options);
            for kernel in call.hopper_kernels() {
                let faults = with_element!(kernel.dtype(), T => call.faults_in::<T>(&simulator, kernel, false));
                assert!(faults.is_empty(), "{kernel}:\n{}", faults.join("\n"));
            }
        }
    }
}

#[test]
fn rows_and_sequences_without_keys_are_zero() {
    let options = Options { causal: Some(Causal::Offset(-20)), ..Options::default() };
    assert_right(&random(9, [1, 1, 1, 40, 64, 64], ScaleBlocks::Head, options), false);
    let call = random(9, [1, 2, 2, 5, 0, 128], ScaleBlocks::Head, Options::default());
    assert_right(&call, true);
}

#[test]
fn the_same_call_gives_the_same_bits_and_an_outlier_moves_no_other_row() {
    let call = random(13, [1, 1, 1, 70, 200, 64], ScaleBlocks::Rows(64), Options::default());
    let mut loud = call.q.data().to_vec();
    loud[5 * 64..6 * 64].fill(E4m3::from_f32(448.0));
    let q = Quantized::new("q", loud, *call.q.layout(), call.q.scales().to_vec(), call.q.blocks()).unwrap();
    for kernel in call.kernels().into_iter().filter(|kernel| kernel.dtype() == DType::F16) {
        let run = |call: &Call| call.run::<half::f16>(kernel).output.out;
        let out = run(&call);
        assert_eq!(run(&call), out);
        let other = Call { q: q.clone(), k: call.k.clone(), v: call.v.clone(), options: Options::default() };
        let other = run(&other);
        assert_eq!(other[..5 * 64], out[..5 * 64]);
        assert_eq!(other[6 * 64..], out[6 * 64..]);
        assert_ne!(other[5 * 64..6 * 64], out[5 * 64..6 * 64]);
    }
}

/// A call of normal numbers in bf16 quantised, and what its answer has to be.
fn quantized(case: &Case, blocks: ScaleBlocks) -> (quantize::Call, Expected) {
    let inputs = Inputs::<half::bf16>::generate(case);
    let call = quantize::Call::new(inputs.views().unwrap(), Fp8::uniform(blocks), false, &inputs.options()).unwrap();
    let expected = Expected::compute_e4m3(&inputs, &call).unwrap();
    (call, expected)
}

fn answer(case: &Case, call: &quantize::Call, kernel: Kernel) -> cpu::Output<half::bf16> {
    let options = Options { causal: case.causal, ..Options::default() };
    simulator().fp8_attention([&call.q, &call.k, &call.v], &options, Some(kernel)).unwrap().output
}

/// The kernels that take a call.
fn kernels_for(case: &Case, blocks: ScaleBlocks) -> Vec<Kernel> {
    let problem = case.problem().with_fp8(Some(Fp8::uniform(blocks)));
    let candidates = Plan::candidates(&problem, simulator().spec()).unwrap();
    candidates.into_iter().map(|(kernel, _)| kernel).collect()
}

#[test]
fn the_check_of_whole_calls_passes_every_kernel() {
    for (shape, causal) in [
        // Heads of one row have the least errors to be measured by.
        ([4, 16, 16, 1, 1024, 64], None),
        ([1, 2, 2, 130, 130, 64], Some(Causal::BottomRight)),
        ([1, 4, 2, 5, 300, 128], None),
        ([1, 4, 4, 1, 5, 256], None),
    ] {
        for (seed, blocks) in (1..).zip(BLOCKS) {
            let case = Case { causal, seed, ..Case::new(shape) };
            let (call, expected) = quantized(&case, blocks);
            for kernel in kernels_for(&case, blocks) {
                let verdict = expected.check(&answer(&case, &call, kernel));
                assert!(verdict.passes(), "{case} {blocks:?} {kernel}: {verdict}");
            }
        }
    }
}

#[test]
fn the_check_of_whole_calls_fails_wrong_ones() {
    let case = Case { causal: Some(Causal::BottomRight), ..Case::new([1, 4, 2, 40, 300, 64]) };
    let (call, expected) = quantized(&case, ScaleBlocks::Head);
    let kernel = kernels_for(&case, ScaleBlocks::Head)[0];
    let right = answer(&case, &call, kernel);
    assert!(expected.check(&right).passes());
    for wrong in [half::bf16::NAN, half::bf16::from_f32(1.0)] {
        let mut output = right.clone();
        output.out[100] = wrong;
        assert!(!expected.check(&output).passes(), "{wrong}");
    }
    let mut output = right.clone();
    output.lse[7] += 0.01;
    assert!(!expected.check(&output).passes());
    let rescaled = |tensor: &Quantized, head: usize, by: f32| {
        let mut scales = tensor.scales().to_vec();
        scales[head] *= by;
        Quantized::new("tensor", tensor.data().to_vec(), *tensor.layout(), scales, tensor.blocks()).unwrap()
    };
    for other in [
        quantize::Call { q: rescaled(&call.q, 3, 1.1), ..call.clone() },
        quantize::Call { k: rescaled(&call.k, 0, 1.1), ..call.clone() },
        quantize::Call { v: rescaled(&call.v, 1, 1.1), ..call.clone() },
    ] {
        assert!(!expected.check(&answer(&case, &other, kernel)).passes());
    }
    let unmasked = answer(&Case { causal: None, ..case }, &call, kernel);
    assert!(!expected.check(&unmasked).passes());
}
