//! `evo-sdpa inspect`: the kernels, and plans with their predictions.

use super::{assert_refused, evo, json};
use evo_sdpa::Entry;
use evo_sdpa_kernel_builder::expected_step;

#[test]
fn inspect_lists_every_kernel_and_explains_a_plan() {
    for arch in ["sm_80", "sm_89", "sm_90"] {
        let ran = evo(&["inspect", "--arch", arch]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for kernel in evo_sdpa::KERNELS {
            assert!(ran.stdout.contains(&kernel.to_string()), "{kernel}");
        }
        let list = json(&evo(&["inspect", "--arch", arch, "--json"]));
        assert_eq!(list["kernels"].as_array().map(Vec::len), Some(evo_sdpa::KERNELS.len()));
        let shape = ["inspect", "--shape", "1,8,8,512,512,64", "--causal", "bottom-right", "--arch", arch];
        let plan = json(&evo(&[&shape[..], &["--json"]].concat()));
        let chosen = plan["kernel"].as_str().unwrap();
        assert_eq!(plan["candidates"][0]["kernel"], chosen);
        let ran = evo(&shape);
        assert!(ran.stdout.contains(chosen) && ran.stdout.contains("causal bottom-right"), "{}", ran.stdout);
    }
}

#[test]
fn inspect_predicts_the_time_of_the_kernel_term_by_term() {
    let shape = ["inspect", "--shape", "1,8,8,512,512,64", "--arch", "sm_89"];
    let forced = [&shape[..], &["--kernel", "fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1"]].concat();
    let quantized = [&shape[..], &["--quantize", "e4m3", "--causal", "bottom-right"]].concat();
    let slower = [&quantized[..], &["--kernel", "fwd_fp8_bf16_d64_q128_kv32_w4_s2"]].concat();
    for args in [&shape[..], &forced, &quantized, &slower] {
        let plan = json(&evo(&[args, &["--json"]].concat()));
        let predicted = plan["prediction"]["predicted_us"].as_f64().unwrap();
        let terms = plan["prediction"]["terms_us"].as_object().unwrap();
        let sum: f64 = terms.values().map(|time| time.as_f64().unwrap()).sum();
        assert!(predicted > 0.0 && (sum / predicted - 1.0).abs() < 1e-9, "{plan}");
        let candidates = plan["candidates"].as_array().unwrap();
        let own = candidates.iter().find(|candidate| candidate["kernel"] == plan["kernel"]).unwrap();
        assert_eq!(own["predicted_us"], predicted, "{plan}");
        let text = evo(args).stdout;
        let heading = text.find("predicted for the launch").unwrap_or_else(|| panic!("{text}"));
        for name in terms.keys().map(String::as_str).chain(["tensor cores", "candidate"]) {
            assert!(text[heading..].contains(&format!("\n{name} ")), "{name}: {text}");
        }
        let bound = plan["prediction"]["bound"].as_str().unwrap();
        assert!(text.contains(&format!("\npredicted  {predicted:.2} us, bound by {bound}\n")), "{text}");
    }
}

#[test]
fn inspect_plans_for_e4m3_and_says_what_quantising_takes() {
    let shape = ["inspect", "--quantize", "e4m3", "--shape", "2,8,8,2048,2048,128"];
    for (arch, scales, kernel, values) in [
        ("sm_89", "head", "fwd_fp8_bf16_d128_", "rows"),
        ("sm_90", "head", "fwd_fp8_sm90_bf16_d128_", "transposed"),
        ("sm_90", "64", "fwd_fp8_bf16_d128_", "rows"),
    ] {
        let args = [&shape[..], &["--arch", arch, "--scales", scales]].concat();
        let plan = json(&evo(&[&args[..], &["--json"]].concat()));
        assert!(plan["kernel"].as_str().unwrap().starts_with(kernel), "{plan}");
        assert_eq!(plan["values"], values, "{plan}");
        // Quantising leaves them so: no launch of attention does.
        assert_eq!(plan["prediction"]["terms_us"]["transpose"], 0.0, "{plan}");

        let quantising = &plan["quantising"];
        assert_eq!(quantising["from"], "bf16");
        let launches = quantising["launches"].as_array().unwrap();
        let kernels: Vec<_> = launches.iter().map(|launch| launch["kernel"].as_str().unwrap()).collect();
        let expected = if scales == "head" { &["amax_bf16", "quantize_bf16"][..] } else { &["quantize_bf16"] };
        assert_eq!(kernels, expected, "{quantising}");
        let sum: f64 = launches.iter().map(|launch| launch["prediction"]["predicted_us"].as_f64().unwrap()).sum();
        let least = quantising["least_us"].as_f64().unwrap();
        assert!(least > 0.0 && (sum / least - 1.0).abs() < 1e-9, "{quantising}");

        let text = evo(&args).stdout;
        let unit = if scales == "head" { "" } else { " rows" };
        let mut words = vec![
            format!("\nvalues     {values}, as quantising leaves them\n"),
            format!("problem    {},", plan["problem"].as_str().unwrap()),
            format!("e4m3       q, k and v, from bf16; scales: {scales}{unit}\n"),
            format!("quantising {least:.2} us before that, at least\n"),
        ];
        words.extend(kernels.iter().map(|kernel| format!("\n{kernel} ")));
        words.iter().for_each(|words| assert!(text.contains(words), "{words}: {text}"));
    }
    let plain = json(&evo(&["inspect", "--shape", "2,8,8,2048,2048,128", "--arch", "sm_90", "--json"]));
    assert!(plain["quantising"].is_null() && plain["values"].is_null(), "{plain}");
}

#[test]
fn inspect_quantises_by_the_defaults_of_bench() {
    let shape = ["--shape", "1,8,8,512,512,64", "--quantize", "e4m3"];
    let listed = json(&evo(&[&["bench", "--list"], &shape[..]].concat()));
    let plan = json(&evo(&[&["inspect", "--json"], &shape[..]].concat()));
    assert_eq!(plan["quantising"]["scales"], listed["scales"]);
    assert!(plan["problem"].as_str().unwrap().starts_with("e4m3 to bf16 "), "{plan}");
    assert_eq!(listed["out"], "bf16");
    let less_mean = json(&evo(&[&["inspect", "--json", "--subtract-mean"], &shape[..]].concat()));
    assert_eq!(less_mean["quantising"]["launches"].as_array().map(Vec::len), Some(4), "{less_mean}");
}

#[test]
fn inspect_says_why_other_kernels_do_not_take_the_problem() {
    for (args, kernel, why) in [
        (&["--quantize", "e4m3"][..], "fwd_fp8_sm90_bf16_d64_", "device: compute capability 89 is not supported"),
        (
            &["--quantize", "e4m3", "--arch", "sm_90", "--scales", "64"],
            "fwd_fp8_sm90_bf16_d64_",
            "k_scales: a scale for 64",
        ),
        (&[], "fwd_sm90_bf16_d64_", "device: compute capability 89 is not supported"),
    ] {
        let args = [&["inspect", "--shape", "1,8,8,512,512,64"], args].concat();
        let plan = json(&evo(&[&args[..], &["--json"]].concat()));
        let refused = plan["refused"].as_array().unwrap();
        let rows = refused.iter().map(|row| ["kernel", "why"].map(|field| row[field].as_str().unwrap()));
        assert!(rows.clone().any(|[name, reason]| name.starts_with(kernel) && reason.starts_with(why)), "{plan}");
        let text = evo(&args).stdout;
        for [name, reason] in rows {
            assert!(text.lines().any(|line| line.starts_with(name) && line.ends_with(reason)), "{name}: {text}");
            let candidates = plan["candidates"].as_array().unwrap();
            assert!(candidates.iter().all(|candidate| candidate["kernel"] != name), "{name}: {plan}");
        }
    }
    let all = json(&evo(&["inspect", "--shape", "1,8,8,512,512,64", "--arch", "sm_90", "--json"]));
    assert_eq!(all["refused"], serde_json::json!([]));
}

#[test]
fn inspect_says_how_much_of_a_main_loop_is_matrix_products() {
    for arch in ["sm_89", "sm_90"] {
        let list = json(&evo(&["inspect", "--arch", arch, "--json"]));
        let text = evo(&["inspect", "--arch", arch]).stdout;
        for kernel in list["kernels"].as_array().unwrap() {
            let name = kernel["name"].as_str().unwrap();
            let row = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
            let cells: Vec<_> = row.split_whitespace().collect();
            let [total, tensor, percent] = cells[cells.len() - 3..] else { panic!("{row}") };
            let step = expected_step(Entry::parse(name).unwrap());
            let of_hopper = name.contains("_sm90_");
            let foreign = arch == "sm_89" && of_hopper;
            if step.is_none() || foreign {
                assert!(kernel["main_loop"].is_null(), "{name}");
                assert_eq!([total, tensor, percent], ["-"; 3], "{name}");
                continue;
            }
            let count = |class: &str| kernel["main_loop"][class].as_u64().unwrap();
            assert_eq!([total, tensor], [count("total").to_string(), count("tensor").to_string()], "{row}");
            let share = 100.0 * count("tensor") as f64 / count("total") as f64;
            assert!((percent.parse::<f64>().unwrap() - share).abs() < 0.1, "{row}");
            // A GPU of sm_90 has no instruction for products of e4m3 by one warp: it takes two of f16 for each.
            let emulated = arch == "sm_90" && name.starts_with("fwd_fp8") && !of_hopper;
            assert_eq!(count("tensor"), u64::from(step.unwrap().tensor) * if emulated { 2 } else { 1 }, "{row}");
        }
    }
}

#[test]
fn inspect_refuses_what_cannot_be_planned() {
    assert_refused(&evo(&["inspect", "--shape", "1,8,3,512,512,64"]), &["heads_q: 8"]);
    assert_refused(&evo(&["inspect", "--shape", "1,8,8,512,512,65"]), &["head_dim: 65"]);
    let quantized = |more: &[&str]| evo(&[&["inspect", "--quantize", "e4m3", "--shape"], more].concat());
    let shape = "1,8,8,512,512,64";
    assert_refused(&quantized(&[shape, "--arch", "sm_80"]), &["device: compute capability 80", "89 or later"]);
    assert_refused(&quantized(&[shape, "--dtype", "f32"]), &["dtype: f32", "f16 or bf16"]);
    assert_refused(&quantized(&["1,8,8,512,512,72"]), &["head_dim: 72", "multiples of 16"]);
    let other = ["--kernel", "fwd_sm80_bf16_d64_q64_kv64_w4_s2"];
    assert_refused(&quantized(&[&[shape][..], &other].concat()), &["fp8: e4m3 inputs", other[1]]);
    assert_eq!(quantized(&[shape, "--scales", "65"]).code, 2);
    for alone in [&["--quantize", "e4m3"][..], &["--shape", shape, "--scales", "64"]] {
        assert_eq!(evo(&[&["inspect"], alone].concat()).code, 2, "{alone:?}");
    }
    assert_eq!(evo(&["inspect", "--shape", "1,8,8"]).code, 2);
    assert_eq!(evo(&["inspect", "--arch", "sm_10"]).code, 2);
}
