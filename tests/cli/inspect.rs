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
    for args in [&shape[..], &forced] {
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
        assert!(text.contains(&format!("\npredicted  {predicted:.2} us, bound by tensor cores\n")), "{text}");
    }
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
    assert_eq!(evo(&["inspect", "--shape", "1,8,8"]).code, 2);
    assert_eq!(evo(&["inspect", "--arch", "sm_10"]).code, 2);
}
