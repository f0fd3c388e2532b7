//! The kernels in the simulator: right, and clean under every check, on shapes small enough for a CPU.

use common::{Device, HEAD_DIMS, assert_no_faults, faults, kernels, nasty_cases};
use evo_sdpa::sim::ptx_sim::{self, Arch, Class, Delivery, Mma, Options, Reconvergence, WarpOrder};
use evo_sdpa::sim::{Simulated, work};
use evo_sdpa::verify::{Case, Expected, Inputs, Kind, Storage};
use evo_sdpa::{
    Causal, DType, Decode, DeviceSpec, ENTRIES, Element, Entry, Error, KERNELS, Kernel, MmaRate, PTX, PTX_SM80, Plan,
    Simulator, TensorView, cpu, half, ptx_text, with_element,
};
use launch::launch;
use std::sync::OnceLock;

mod common;
mod launch;

/// The most work of a case; it spares the scalar kernels, which take ten times as long as the others, the large ones.
const MAX_WORK: u64 = 2_500_000;

/// One simulator for all tests, with room for every kernel.
fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap().with_spec(DeviceSpec::H200))
}

fn with_options(options: Options) -> Simulator {
    Simulator::new(PTX).unwrap().with_spec(DeviceSpec::H200).with_options(options)
}

fn simulate<T: Element>(simulator: &Simulator, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Simulated<T> {
    let [q, k, v] = inputs.views().unwrap();
    simulator.attention(q, k, v, &inputs.options(), kernel).unwrap()
}

impl Device for Simulator {
    fn attention<T: Element>(&self, inputs: &Inputs<T>, kernel: Option<Kernel>) -> Result<cpu::Output<T>, String> {
        let Simulated { output, report, .. } = simulate(self, inputs, kernel);
        if report.is_clean() { Ok(output) } else { Err(report.to_string()) }
    }
}

/// A kernel's own head dim, one batch entry, two query heads that share a key head.
fn small_case(kernel: Kernel, q_len: usize, kv_len: usize, causal: Option<Causal>) -> Case {
    let shape = [1, 2, 1, q_len, kv_len, kernel.head_dim() as usize];
    Case { dtype: kernel.dtype(), causal, ..Case::new(shape) }
}

/// The kernels whose inputs have the type of the output; `tests/fp8.rs` has the others.
fn kernels_of_plain_inputs() -> impl Iterator<Item = Kernel> {
    KERNELS.iter().copied().filter(|kernel| !kernel.takes_e4m3())
}

fn affordable(case: &Case, kernel: Kernel) -> bool {
    Plan::with_kernel(&case.problem(), &DeviceSpec::H200, kernel).is_ok_and(|plan| work(&plan) <= MAX_WORK)
}

fn assert_every_kernel_is_right_on_nasty_cases(dtype: DType) {
    for head_dim in HEAD_DIMS {
        let cases = nasty_cases(dtype, head_dim).into_iter();
        assert_no_faults(cases.flat_map(|case| {
            let kernels = kernels(&case, &DeviceSpec::H200).filter(|&kernel| affordable(&case, kernel));
            faults(simulator(), &case, kernels.map(Some))
        }));
    }
}

#[test]
fn every_f16_kernel_is_right_on_nasty_cases() {
    assert_every_kernel_is_right_on_nasty_cases(DType::F16);
}

#[test]
fn every_bf16_kernel_is_right_on_nasty_cases() {
    assert_every_kernel_is_right_on_nasty_cases(DType::Bf16);
}

#[test]
fn every_f32_kernel_is_right_on_nasty_cases() {
    assert_every_kernel_is_right_on_nasty_cases(DType::F32);
}

#[test]
fn no_kernel_on_tensor_cores_is_spared_a_nasty_case() {
    for kernel in kernels_of_plain_inputs() {
        let cases = nasty_cases(kernel.dtype(), kernel.head_dim() as usize);
        let taken = cases.iter().filter(|case| affordable(case, kernel)).count();
        let least = match kernel {
            Kernel::FwdScalar(_) => 5,
            // The one without keys.
            Kernel::FwdSm90(_) => cases.len() - 1,
            Kernel::FwdSm80(_) | Kernel::Decode(_) | Kernel::FwdFp8(_) => cases.len(),
        };
        assert!(taken >= least, "{kernel}: {taken}");
    }
}

#[test]
fn every_mask_is_right_around_the_edges_of_every_tile() {
    for kernel in kernels_of_plain_inputs() {
        let (q, kv) = match kernel {
            Kernel::FwdScalar(_) => (kernel.tile_q() as usize, 32),
            Kernel::FwdSm80(config) => (config.tile_q as usize, config.step() as usize),
            Kernel::FwdSm90(config) => (config.tile_q as usize, config.tile_kv as usize),
            Kernel::Decode(config) => (Decode::ROWS as usize / 2, config.step() as usize),
            Kernel::FwdFp8(config) => (config.tile_q as usize, config.tile_kv as usize),
        };
        let lengths = [(q, kv), (q + 1, kv + 1), (q - 1, kv - 1), (q + 3, 2 * kv - 1)];
        let masks = [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(-2))];
        // Each length with each mask would take four times as long.
        let cases = lengths.into_iter().zip(masks).map(|((q, kv), causal)| small_case(kernel, q, kv, causal));
        assert_no_faults(cases.flat_map(|case| faults(simulator(), &case, [Some(kernel)])));
    }
}

/// Tiles without rows, one round and several, a number of SMs that no clusters fill, heads that share keys and heads that do not;
/// tiles of equal times, with masks, and of lengths of their own, none among them.
#[test]
fn blocks_of_a_cluster_are_right_whatever_tiles_they_have() {
    let mut found = 0;
    for &kernel in KERNELS {
        let Kernel::FwdSm90(config) = kernel else { continue };
        if config.is_alone() {
            continue;
        }
        found += 1;
        let (tile, step, head_dim) = (config.tile_q as usize, config.tile_kv as usize, config.head_dim as usize);
        let end = Some(Causal::BottomRight);
        for (sm_count, [batch, heads_q, heads_kv, q_len, kv_len], storage, causal, kv_lens) in [
            (132, [1, 1, 1, 1, 1], Storage::Bhsd, None, false),
            (1, [2, 2, 1, tile, step + 1], Storage::Bshd, None, false),
            (3, [1, 3, 1, 2 * tile + 1, 3 * step - 7], Storage::Padded, None, false),
            (4, [1, 2, 2, 3 * tile + 2, 5 * step], Storage::Bhsd, end, false),
            (1, [1, 3, 1, 2 * tile, 3 * step - 7], Storage::Bhsd, end, false),
            (2, [1, 4, 2, 2 * tile + 2, step + 3], Storage::Bshd, Some(Causal::TopLeft), false),
            (1, [4, 2, 1, tile + 1, 2 * step + 5], Storage::Bhsd, None, true),
            (4, [4, 1, 1, tile + 1, 2 * step + 5], Storage::Bhsd, end, true),
        ] {
            let spec = DeviceSpec { sm_count, ..DeviceSpec::H200 };
            let shape = [batch, heads_q, heads_kv, q_len, kv_len, head_dim];
            let case = Case { dtype: kernel.dtype(), storage, causal, kv_lens, ..Case::new(shape) };
            let plan = Plan::with_kernel(&case.problem(), &spec, kernel).unwrap();
            assert!(plan.grid[0].is_multiple_of(config.cluster), "{plan}");
            assert_no_faults(
                faults(&evo_sdpa::simulator().unwrap().with_spec(spec), &case, [Some(kernel)]).into_iter(),
            );
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn the_planned_kernel_is_right_on_every_architecture() {
    for spec in [DeviceSpec::A100, DeviceSpec::L4, DeviceSpec::H200] {
        let simulator = evo_sdpa::simulator().unwrap().with_spec(spec);
        for dtype in DType::ALL {
            let case = Case { dtype, storage: Storage::Bshd, ..Case::new([2, 4, 2, 50, 90, 72]) };
            assert_no_faults(faults(&simulator, &case, [None]).into_iter());
        }
    }
}

#[test]
fn imitated_tensor_cores_are_right_on_every_architecture() {
    for arch in [Arch::Sm80, Arch::Sm89, Arch::Sm90] {
        let simulator = with_options(Options { mma: Mma::Exact(arch), jitter: 2, ..Options::default() });
        for dtype in [DType::F16, DType::Bf16] {
            let case = Case { dtype, causal: Some(Causal::BottomRight), ..Case::new([1, 2, 1, 65, 150, 64]) };
            assert_no_faults(faults(&simulator, &case, [None]).into_iter());
        }
    }
}

#[test]
fn no_order_of_events_changes_a_bit() {
    let seeds = (1..=2).map(|seed| Options { warp_order: WarpOrder::Random, seed, ..Options::default() });
    let orders = [
        Options { delivery: Delivery::Immediate, warp_order: WarpOrder::Reverse, ..Options::default() },
        Options { reconvergence: Reconvergence::Late, ..Options::default() },
    ];
    let simulators: Vec<_> = orders.into_iter().chain(seeds).map(with_options).collect();
    for kernel in kernels_of_plain_inputs() {
        let case = small_case(kernel, 40, 300, Some(Causal::BottomRight));
        with_element!(kernel.dtype(), T => {
            let inputs = Inputs::<T>::generate(&case);
            let expected = simulate(simulator(), &inputs, Some(kernel)).output;
            for simulator in &simulators {
                let Simulated { output, report, .. } = simulate(simulator, &inputs, Some(kernel));
                assert!(report.is_clean(), "{:?}\n{report}", simulator.options());
                assert_eq!(output, expected, "{kernel} {:?}", simulator.options());
            }
        });
    }
}

#[test]
fn the_same_call_gives_the_same_answer_and_report() {
    let inputs = Inputs::<half::bf16>::generate(&Case::new([1, 2, 2, 70, 130, 64]));
    assert_eq!(simulate(simulator(), &inputs, None), simulate(simulator(), &inputs, None));
}

#[test]
fn full_tiles_take_the_matrix_instructions_of_their_products_and_no_bank_conflict() {
    for &kernel in KERNELS {
        let Kernel::FwdSm80(config) = kernel else { continue };
        let case = small_case(kernel, config.tile_q as usize, 2 * config.step() as usize, None);
        with_element!(kernel.dtype(), T => {
            let Simulated { plan, report, .. } = simulate(simulator(), &Inputs::<T>::generate(&case), Some(kernel));
            // Two products, each m16n8k16 of it one instruction.
            let [_, heads, _, q_len, kv_len, head_dim] = case.shape;
            let products = 2 * heads * q_len * kv_len * head_dim / (16 * 8 * 16);
            assert_eq!(report.executed(Class::Matrix), products as u64, "{kernel}");
            // What warps merge in the end is padded for its stores, and not in every head dim for its loads.
            let conflicts = report.lines.iter().filter(|line| line.counters.wavefronts > line.counters.wavefronts_ideal);
            let in_tiles: Vec<_> =
                conflicts.filter(|line| config.kv_splits == 1 || line.class != Class::Shared).collect();
            assert!(in_tiles.is_empty(), "{kernel}: {in_tiles:#?}");
            assert!(report.peak_shared <= plan.shared_bytes, "{kernel}: {} B", report.peak_shared);
        });
    }
}

#[test]
fn a_step_that_outgrows_the_base_of_the_softmax_is_taken_again_and_its_keys_are_multiplied_twice() {
    for &kernel in KERNELS {
        let Kernel::FwdSm80(config) = kernel else { continue };
        let full = small_case(kernel, config.tile_q as usize, 2 * config.step() as usize, None);
        let [products, of_large] = [Kind::Normal, Kind::Large].map(|kind| {
            let case = Case { kind, ..full };
            assert_no_faults(faults(simulator(), &case, [Some(kernel)]).into_iter());
            with_element!(kernel.dtype(), T => {
                simulate(simulator(), &Inputs::<T>::generate(&case), Some(kernel)).report.executed(Class::Matrix)
            })
        });
        // Of two steps with two products each, the second finds larger scores in some row of every warp.
        let expected = if config.values_lag() { products / 4 * 5 } else { products };
        assert_eq!(of_large, expected, "{kernel}");
    }
}

#[test]
fn the_measure_of_the_matrix_rate_carries_out_every_product() {
    let module = ptx_sim::Module::parse(PTX_SM80).unwrap();
    let (blocks, warps) = (3, MmaRate::THREADS / 32);
    for entry in ENTRIES.iter().filter(|entry| matches!(entry, Entry::MmaRate(_))) {
        for iterations in [0u32, 1, 100] {
            let mut device = ptx_sim::Device::new();
            let out = device.alloc((blocks * MmaRate::THREADS * 4) as usize);
            let params = [out.address().to_le_bytes().as_slice(), &iterations.to_le_bytes()].concat();
            let launch = ptx_sim::Launch {
                entry: &entry.to_string(),
                grid: [blocks, 1, 1],
                block: [MmaRate::THREADS, 1, 1],
                cluster: None,
                shared_bytes: entry.shared_bytes(),
                params: &params,
                options: Options::default(),
            };
            let report = device.launch(&module, &launch).unwrap();
            assert!(report.is_clean(), "{report}");
            let instructions = report.executed(Class::Matrix);
            assert_eq!(instructions * 2 * 16 * 8 * 16, MmaRate::flops(blocks, iterations), "{entry}");
            let sums = device.download(out).unwrap();
            let sums: Vec<_> = sums.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            let expected: Vec<_> =
                (0..blocks * warps).flat_map(|_| (0..32).map(|lane| mma_rate_sum(lane, iterations))).collect();
            assert_eq!(sums, expected, "{entry} {iterations}");
        }
    }
}

/// What a lane of `mma_rate` stores. With `r` and `c` from 1 to 8, rows `r` and `r + 8` of A hold `r` times 1 and 2 in
/// their first eight columns, times 3 and 4 in the others; column `c` of B holds `c` times 5, then times 6.
fn mma_rate_sum(lane: u32, iterations: u32) -> f32 {
    let r = lane / 4 + 1;
    let products: u32 = [2 * (lane % 4) + 1, 2 * (lane % 4) + 2]
        .map(|c| 8 * r * c * (5 + 3 * 6) + 8 * r * c * (2 * 5 + 4 * 6))
        .iter()
        .sum();
    (0..MmaRate::CHAINS).map(|chain| (4 * chain + iterations * products) as f32).sum()
}

#[test]
fn tensors_without_elements_give_answers_without_elements() {
    for [batch, q_len, kv_len] in [[0, 4, 4], [1, 0, 4], [1, 0, 0]] {
        let empty = [0.0f32; 0];
        let keys = vec![0.0f32; batch * kv_len * 8];
        let q = TensorView::bhsd(&empty, [batch, 1, q_len, 8]).unwrap();
        let k = TensorView::bhsd(&keys, [batch, 1, kv_len, 8]).unwrap();
        let answer = simulator().attention(q, k, k, &evo_sdpa::Options::default(), None).unwrap();
        assert!(answer.plan.is_empty() && answer.report.is_clean() && answer.report.total.instructions == 0);
        assert!(answer.output.out.is_empty() && answer.output.lse.is_empty());
    }
}

#[test]
fn what_a_kernel_does_not_write_is_nan() {
    let body = "(.param .align 8 .b8 params[176])\n{\nret;\n}\n";
    let header = ".version 8.4\n.target sm_80\n.address_size 64\n";
    let simulator = Simulator::new(&[&format!("{header}.visible .entry fwd_scalar_f32{body}")]).unwrap();
    let inputs = Inputs::<f32>::generate(&Case { dtype: DType::F32, ..Case::new([1, 1, 1, 4, 4, 8]) });
    let Simulated { output, report, .. } = simulate(&simulator, &inputs, None);
    assert!(report.is_clean(), "{report}");
    assert!(output.out.iter().chain(&output.lse).all(|x| x.is_nan()), "{output:?}");
}

#[test]
fn a_text_that_is_no_ptx_is_refused_with_its_line() {
    let error = Simulator::new(&[".version 8.4\n.target sm_80\n.address_size 64\nnonsense here;\n"]).unwrap_err();
    assert!(matches!(error, Error::Ptx { line: 4, .. }), "{error}");
}

#[test]
fn a_kernel_that_the_ptx_lacks_is_named() {
    let simulator = Simulator::new(&[".version 8.4\n.target sm_80\n.address_size 64\n"]).unwrap();
    let inputs = Inputs::<f32>::generate(&Case { dtype: DType::F32, ..Case::new([1, 1, 1, 4, 4, 8]) });
    let [q, k, v] = inputs.views().unwrap();
    let error = simulator.attention(q, k, v, &inputs.options(), None).unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported { field: "kernel", value, .. } if value == "fwd_scalar_f32"),
        "{error}"
    );
}

#[test]
fn a_problem_that_would_take_too_long_is_refused_with_the_limit() {
    let simulator = with_options(Options { max_instructions: 50_000, ..Options::default() });
    let inputs = Inputs::<half::f16>::generate(&Case::new([1, 1, 1, 512, 512, 64]));
    let [q, k, v] = inputs.views().unwrap();
    let error = simulator.attention(q, k, v, &inputs.options(), None).unwrap_err();
    assert!(matches!(error, Error::Unsupported { field: "problem", .. }), "{error}");
    assert!(error.to_string().contains("at most 5000"), "{error}");
}

/// Some 29 ms on a 2.5 GHz core. The bound allows for slow and busy machines, not for a simulator that is compiled
/// without optimisation (15 times as slow) or that checks each lane by itself.
#[test]
fn a_head_of_512_queries_and_keys_is_simulated_in_an_instant() {
    let inputs = Inputs::<half::bf16>::generate(&Case { dtype: DType::Bf16, ..Case::new([1, 1, 1, 512, 512, 64]) });
    let run = |_| {
        let start = std::time::Instant::now();
        assert!(simulate(simulator(), &inputs, None).report.is_clean());
        start.elapsed()
    };
    let best = (0..5).map(run).min().unwrap();
    assert!(best.as_millis() < 150, "{best:?}");
}

#[test]
fn no_order_of_blocks_changes_a_bit() {
    let module = ptx_sim::Module::parse(PTX_SM80).unwrap();
    for name in ["fwd_sm80_bf16_d32_q64_kv64_w4_s2", "fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1"] {
        let kernel = Kernel::parse(name).unwrap();
        // Five tiles of queries and a bit more, as many heads as are no power of two.
        let (q_len, causal) = (5 * kernel.tile_q() as usize + 3, Some(Causal::BottomRight));
        let shape = [2, 3, 3, q_len, q_len + 20, kernel.head_dim() as usize];
        let inputs = Inputs::<half::bf16>::generate(&Case { dtype: DType::Bf16, causal, ..Case::new(shape) });
        let mut plan = Plan::with_kernel(&inputs.problem(), &DeviceSpec::H200, kernel).unwrap();
        let expected = Expected::compute(&inputs).unwrap();
        let mut in_order = |wave_order, grid| {
            (plan.params.wave_order, plan.grid) = (wave_order, grid);
            launch(&mut ptx_sim::Device::new(), &module, &plan, &inputs, 0)
        };
        let tile_by_tile = in_order(0, [6, 3, 2]);
        assert!(expected.check(&tile_by_tile).passes(), "{kernel}");
        for wave_order in [1, 2, 3, 4, 17] {
            // All heads side by side, and three groups of one.
            for grid in [[3, 2, 6], [1, 2, 18]] {
                assert!(in_order(wave_order, grid) == tile_by_tile, "{kernel} {wave_order} {grid:?}");
            }
        }
    }
}

#[test]
fn the_dependent_variant_of_a_kernel_gives_the_same_bits() {
    let kernel = Kernel::parse("fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1").unwrap();
    let plain = ptx_text::single_entry(PTX_SM80, &kernel.to_string()).unwrap();
    let dependent = ptx_text::dependent(&plain).unwrap();
    let case = small_case(kernel, 70, 300, Some(Causal::BottomRight));
    let inputs = Inputs::<half::bf16>::generate(&case);
    let [plain, dependent] = [plain, dependent].map(|text| {
        let simulator = Simulator::new(&[&text]).unwrap().with_spec(DeviceSpec::H200);
        let Simulated { output, report, .. } = simulate(&simulator, &inputs, Some(kernel));
        assert!(report.is_clean(), "{report}");
        let out = output.out.iter().map(|x| u32::from(x.to_bits()));
        let bits: Vec<u32> = out.chain(output.lse.iter().map(|x| x.to_bits())).collect();
        (bits, report.total)
    });
    assert_eq!(dependent.0, plain.0);
    assert_ne!(dependent.1, plain.1, "the two instructions are counted");
}
