//! What the time model promises, without a GPU.

use evo_sdpa::shapes::{ACCEPTANCE, Shape, measured};
use evo_sdpa::{
    Bound, Causal, DType, DeviceSpec, Fp8, KERNELS, Kernel, MANIFEST, Plan, Prediction, Problem, QuantizePlan, Rates,
    ScaleBlocks,
};
use serde_json::Value;

const DEVICES: [DeviceSpec; 3] = [DeviceSpec::L4, DeviceSpec::H200, DeviceSpec::A100];
const CAUSAL: Option<Causal> = Some(Causal::BottomRight);

/// Our times on one H200, bf16.
const RUN: &str = concat!(
    include_str!("../benches/runs/2026-11-22-h200-7/ours-1.jsonl"),
    include_str!("../benches/runs/2026-11-22-h200-7/shared-heads-1.jsonl"),
);

/// Shape, kernel and microseconds of each time of the run.
fn run() -> impl Iterator<Item = (Shape, String, f64)> {
    let records = RUN.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["kind"] == "time").map(|record| {
        let sizes = serde_json::from_value(record["call"]["shape"].clone()).unwrap();
        let causal = match record["call"]["causal"].as_str() {
            Some("none") => None,
            Some("bottom-right") => CAUSAL,
            other => panic!("{other:?}"),
        };
        let kernel = record["kernel"]["name"].as_str().unwrap().to_owned();
        ((sizes, causal), kernel, record["device_us"]["p50"].as_f64().unwrap())
    })
}

fn bf16((sizes, causal): Shape) -> Problem {
    Problem::contiguous(DType::Bf16, sizes).with_causal(causal)
}

/// The same with e4m3 inputs, a scale for each head.
fn e4m3(shape: Shape) -> Problem {
    bf16(shape).with_fp8(Some(Fp8::uniform(ScaleBlocks::Head)))
}

/// The launches that quantise bf16 tensors so, and the least time of each.
fn quantise(shape: Shape, device: &DeviceSpec) -> (QuantizePlan, Vec<Prediction>) {
    let plan = QuantizePlan::new(&bf16(shape), Fp8::uniform(ScaleBlocks::Head), false).unwrap();
    (plan, Prediction::of_quantize(&plan, device).map(|(_, least)| least).collect())
}

/// The prediction for the planner's choice.
fn predict(problem: &Problem, device: &DeviceSpec) -> Prediction {
    Plan::candidates(problem, device).unwrap()[0].1
}

/// Every prediction for every shape that benchmarks time.
fn all_predictions() -> impl Iterator<Item = (Problem, DeviceSpec, Kernel, Prediction)> {
    DEVICES.into_iter().flat_map(|device| measured().map(move |shape| (device, shape))).flat_map(|(device, shape)| {
        let problem = move |dtype| Problem::contiguous(dtype, shape.0).with_causal(shape.1);
        DType::ALL.into_iter().map(problem).chain([e4m3(shape)]).flat_map(move |problem| {
            let candidates = Plan::candidates(&problem, &device).unwrap();
            candidates.into_iter().map(move |(kernel, prediction)| (problem, device, kernel, prediction))
        })
    })
}

#[test]
fn the_planner_chooses_the_kernels_that_the_readme_measured() {
    assert_eq!(run().map(|(shape, ..)| shape).collect::<Vec<_>>(), measured().collect::<Vec<_>>());
    for (shape, kernel, _) in run() {
        let plan = Plan::new(&bf16(shape), &DeviceSpec::H200).unwrap();
        assert_eq!(plan.kernel.to_string(), kernel, "{}", bf16(shape));
    }
}

#[test]
fn predictions_are_within_10_percent_of_what_was_measured_on_an_h200() {
    for (shape, kernel, time) in run() {
        let kernel = Kernel::parse(&kernel).unwrap();
        let predicted = Prediction::of(kernel, &bf16(shape), &DeviceSpec::H200).unwrap().total();
        assert!((0.9 * time..1.1 * time).contains(&predicted), "{}: {predicted:.2} us, not {time:.2}", bf16(shape));
    }
}

#[test]
fn terms_are_times_and_the_total_is_their_sum() {
    for (problem, _, kernel, prediction) in all_predictions() {
        let times: Vec<f64> = prediction.terms().map(|(_, time)| time).collect();
        assert!(times.iter().all(|time| time.is_finite() && *time >= 0.0), "{problem} {kernel}: {prediction}");
        assert_eq!(times.iter().sum::<f64>(), prediction.total(), "{problem} {kernel}");
        assert!(prediction.bound.is_some(), "{problem} {kernel}");
    }
}

#[test]
fn nothing_is_predicted_faster_than_the_device_can_be() {
    for (problem, device, kernel, prediction) in all_predictions() {
        let rates = Rates::of(&device);
        let tensor = match kernel {
            Kernel::FwdSm90(config) => rates.wgmma * 2.0 / f64::from(config.operand_bytes()),
            Kernel::FwdFp8(_) => rates.fp8,
            _ => rates.tensor,
        };
        let products = problem.flops() / (tensor * rates.clock * f64::from(device.sm_count));
        let bytes = problem.bytes();
        // Nothing comes from memory faster than where it is only read.
        let memory = if bytes > rates.l2_capacity { bytes / rates.reads } else { bytes / rates.l2 };
        let least = rates.launch + products.max(memory);
        assert!(prediction.total() >= least, "{problem} {kernel}: {prediction}, not below {least:.2} us");
    }
}

#[test]
fn the_planner_takes_the_least_total() {
    for device in DEVICES {
        for shape in measured() {
            let candidates = Plan::candidates(&bf16(shape), &device).unwrap();
            let plan = Plan::new(&bf16(shape), &device).unwrap();
            let chosen = Prediction::of(plan.kernel, &bf16(shape), &device).unwrap();
            assert!(candidates.iter().all(|(_, other)| chosen.total() <= other.total()), "{plan}");
        }
    }
}

#[test]
fn more_work_takes_longer() {
    let longer = |less: Shape, more: Shape, device: &DeviceSpec| {
        let [less, more] = [less, more].map(|shape| predict(&bf16(shape), device).total());
        assert!(less < more, "{less:.2} us, {more:.2} us");
    };
    for device in &DEVICES {
        for (sizes, causal) in ACCEPTANCE {
            let [batch, heads_q, heads_kv, q_len, kv_len, head_dim] = sizes;
            longer((sizes, causal), ([4 * batch, heads_q, heads_kv, q_len, kv_len, head_dim], causal), device);
            longer((sizes, causal), ([batch, heads_q, heads_kv, q_len, 2 * kv_len, head_dim], causal), device);
        }
        let long = [4, 32, 32, 4096, 4096, 64];
        longer((long, CAUSAL), (long, None), device);
    }
}

#[test]
fn an_l4_is_held_below_what_its_power_limit_sustains() {
    let rates = Rates::of(&DeviceSpec::L4);
    let peak = rates.tensor * rates.clock * f64::from(DeviceSpec::L4.sm_count);
    for sizes in [[4, 32, 32, 4096, 4096, 64], [4, 16, 16, 4096, 4096, 128]] {
        let problem = bf16((sizes, None));
        let prediction = predict(&problem, &DeviceSpec::L4);
        let share = problem.flops() / prediction.total() / peak;
        assert!((0.4..rates.sustained).contains(&share), "{problem}: {share:.2} of the peak, {prediction}");
        assert!(prediction.power > 0.0, "{problem}");
        // An H200 is at its limit with `wgmma` alone.
        for (kernel, prediction) in Plan::candidates(&problem, &DeviceSpec::H200).unwrap() {
            let wgmma = matches!(kernel, Kernel::FwdSm90(_));
            assert!(wgmma || prediction.power == 0.0, "{problem} {kernel}: {prediction}");
        }
    }
}

#[test]
fn the_bound_follows_the_resource_that_is_short() {
    let bound = |sizes, device: &DeviceSpec| predict(&bf16((sizes, None)), device).bound.unwrap();
    assert_eq!(bound([4, 32, 32, 4096, 4096, 64], &DeviceSpec::L4), Bound::TensorCores);
    // Keys and values outgrow L2, and one query a head makes little of them.
    assert_eq!(bound([16, 32, 8, 1, 8192, 128], &DeviceSpec::L4), Bound::Dram);
    // A narrow head has as many exponentials and fewer products.
    assert_eq!(bound([4, 32, 32, 4096, 4096, 32], &DeviceSpec::H200), Bound::Exponentials);
    let f32 = Problem::contiguous(DType::F32, [1, 8, 8, 512, 512, 64]);
    assert_eq!(predict(&f32, &DeviceSpec::L4).bound, Some(Bound::Arithmetic));
}

#[test]
fn nothing_to_compute_takes_no_time_and_no_keys_nearly_none() {
    let shape = |q_len, kv_len| bf16(([1, 2, 2, q_len, kv_len, 64], None));
    assert_eq!(predict(&shape(0, 8), &DeviceSpec::L4), Prediction::default());
    let no_keys = predict(&shape(8, 0), &DeviceSpec::L4);
    assert!((0.5..2.0).contains(&no_keys.total()) && no_keys.steps == 0.0, "{no_keys}");
}

#[test]
fn only_values_that_are_transposed_cost_a_launch_of_their_own() {
    for (problem, device, kernel, prediction) in all_predictions() {
        let transposes = matches!(kernel, Kernel::FwdSm90(config) if config.e4m3);
        assert_eq!(Plan::with_kernel(&problem, &device, kernel).unwrap().ahead().is_some(), transposes, "{kernel}");
        let bytes = 2.0 * problem.v.elements() as f64;
        let rates = Rates::of(&device);
        let least = if transposes { rates.launch + bytes / rates.l2 } else { 0.0 };
        assert!(prediction.transpose >= least && (transposes || least == prediction.transpose), "{kernel}");
    }
}

#[test]
fn quantising_takes_no_less_than_its_bytes_and_reads_what_does_not_fit_l2_from_dram() {
    for device in DEVICES {
        let rates = Rates::of(&device);
        for (shape, bound) in [(ACCEPTANCE[0], Bound::L2), (([4, 16, 16, 4096, 4096, 128], None), Bound::Dram)] {
            let (plan, least) = quantise(shape, &device);
            let rate = if bound == Bound::L2 { rates.l2 } else { rates.dram };
            assert_eq!(least.len(), 2, "`amax` and `quantize`");
            for (launch, least) in plan.launches().zip(&least) {
                let bytes = plan.bytes(launch.entry) / rate;
                assert!(least.total() >= rates.launch + bytes && least.memory == bytes, "{} {least}", launch.entry);
                assert_eq!(least.bound, Some(bound), "{}", bf16(shape));
            }
        }
    }
}

#[test]
fn a_kernel_that_does_not_take_the_problem_has_no_prediction() {
    let problem = bf16(ACCEPTANCE[0]);
    for (name, field) in [
        ("fwd_sm80_f16_d64_q64_kv64_w4_s2", "dtype: bf16"),
        ("fwd_sm80_bf16_d128_q64_kv64_w4_s2", "head_dim: 64"),
        ("fwd_sm80_bf16_d64_q999999_kv999999_w999999_x999999_s999999", "kernel: "),
    ] {
        let error = Prediction::of(Kernel::parse(name).unwrap(), &problem, &DeviceSpec::L4).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

/// The planner goes by register budgets; this holds it to what ptxas made of the kernels.
#[test]
fn as_many_blocks_fit_an_sm_by_the_registers_that_ptxas_took_as_by_the_budget() {
    let manifest: Value = serde_json::from_str(MANIFEST).unwrap();
    for device in DEVICES {
        let fits = |kernel: &&Kernel| device.runs(**kernel) && kernel.shared_bytes() <= device.shared_per_block;
        for &kernel in KERNELS.iter().filter(fits) {
            let suffix = if matches!(kernel, Kernel::FwdSm90(_)) { "a" } else { "" };
            let arch = format!("sm_{}{suffix}", device.compute_capability);
            let registers = &manifest["entries"][kernel.to_string()]["resources"][&arch]["registers"];
            let registers = registers.as_u64().unwrap_or_else(|| panic!("{kernel}: no registers for {arch}"));
            // An SM has 64 Ki registers and gives them to a warp in units of 256.
            let per_block = (registers * 32).next_multiple_of(256) * u64::from(kernel.threads() / 32);
            let by_shared = u64::from(device.shared_per_sm / (kernel.shared_bytes() + 1024));
            let resident = (65536 / per_block).min(by_shared);
            assert_eq!(
                resident,
                u64::from(device.resident_blocks(kernel)),
                "{kernel} on {arch}: {registers} registers"
            );
        }
    }
}

/// How a row of docs/PERF.md begins: the shape, the mask, and the kernel without `prefix`.
fn row_name(shape: Shape, kernel: Kernel, prefix: &str) -> String {
    let ([batch, heads, _, length, _, head_dim], causal) = shape;
    let mask = if causal.is_some() { "causal" } else { "none" };
    let name = kernel.to_string();
    format!("| ({batch},{heads},{length},{head_dim}) | {mask} | `{}`", name.strip_prefix(prefix).unwrap())
}

#[test]
fn perf_md_quotes_the_model() {
    let text = include_str!("../docs/PERF.md");
    for shape in ACCEPTANCE {
        let (kernel, prediction) = Plan::candidates(&bf16(shape), &DeviceSpec::L4).unwrap()[0];
        let name = row_name(shape, kernel, "fwd_sm80_bf16_");
        let time = prediction.total();
        let time = if time < 100.0 { format!("{time:.1}") } else { format!("{time:.0}") };
        let row = format!("{name} | {time} |");
        assert!(text.contains(&row), "docs/PERF.md has no row\n{row}");
    }
}

#[test]
fn perf_md_quotes_the_terms_of_e4m3() {
    let text = include_str!("../docs/PERF.md");
    let us = |time: f64| if time < 100.0 { format!("{time:.2}") } else { format!("{time:.0}") };
    for shape in ACCEPTANCE {
        let (kernel, prediction) = Plan::candidates(&e4m3(shape), &DeviceSpec::L4).unwrap()[0];
        let name = row_name(shape, kernel, "fwd_fp8_bf16_");
        let Prediction { launch, transpose, start, steps, tail, merge, power, memory, .. } = prediction;
        assert_eq!([transpose, merge, memory], [0.0; 3], "terms that the table leaves out");
        let [launch, start, steps, tail, power, total] =
            [launch, start, steps, tail, power, prediction.total()].map(us);
        let (_, least) = quantise(shape, &DeviceSpec::L4);
        let least = us(least.iter().map(Prediction::total).sum());
        let row = format!("{name} | {launch} | {start} | {steps} | {tail} | {power} | {total} | {least} |");
        assert!(text.contains(&row), "docs/PERF.md has no row\n{row}");
    }
}
