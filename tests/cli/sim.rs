//! `--device sim` and `inspect --simulate`.

use super::{LAYER_0, LAYER_4, Ran, assert_refused, evo, json, scratch};
use serde_json::Value;
use std::path::PathBuf;

fn simulate(input: &str, more: &[&str]) -> Ran {
    evo(&[&["run", "--device", "sim", input], more].concat())
}

/// The built-in kernels with one change to the text of one of them, in a file.
fn changed_ptx(name: &str, kernel: &str, from: &str, to: &str) -> PathBuf {
    let (before, body) = evo_sdpa::PTX_SM80.split_once(&format!(".entry {kernel}(")).expect("the kernel ships");
    assert!(body.contains(from), "{kernel} has no {from}");
    let path = scratch(name);
    std::fs::write(&path, format!("{before}.entry {kernel}({}", body.replacen(from, to, 1))).unwrap();
    path
}

#[test]
fn the_simulator_gives_the_expected_answers_on_real_data() {
    for (input, more) in [
        (LAYER_0, &["--causal", "none"][..]),
        (LAYER_4, &["--causal", "bottom-right", "--seed", "7"]),
        (LAYER_4, &["--causal", "none", "--arch", "sm_90", "--exact"]),
    ] {
        let ran = simulate(input, more);
        assert_eq!(ran.code, 0, "{more:?}: {}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.stdout.matches(" ok: ").count(), 2, "{}", ran.stdout);
        assert!(ran.stdout.contains("simulated sm_") && ran.stdout.contains("checks   clean"), "{}", ran.stdout);
    }
    let object = json(&simulate(LAYER_0, &["--json", "--kernel", "fwd_scalar_f16"]));
    assert_eq!((&object["right"], &object["findings"]), (&true.into(), &serde_json::json!([])), "{object}");
    assert_eq!(object["kernel"], "fwd_scalar_f16");
    assert_eq!(
        json(&evo(&["run", "--device", "cpu", LAYER_0, "--json"]))["findings"],
        Value::Null,
        "nothing was looked for"
    );
}

#[test]
fn a_missing_barrier_is_found_and_named() {
    let kernel = "fwd_sm80_f16_d32_q64_kv64_w4_s2";
    let ptx = changed_ptx("no-barrier.ptx", kernel, "bar.sync", "// bar.sync");
    let with = ["--kernel", kernel, "--ptx", ptx.to_str().unwrap()];
    let ran = simulate(LAYER_4, &with);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(" DEFECTS\nerror["), "{}", ran.stdout);

    let object = json(&simulate(LAYER_4, &[&with[..], &["--json"]].concat()));
    assert_eq!(object["right"], false, "{object}");
    let finding = &object["findings"][0];
    assert!(
        finding["kind"].as_str().is_some_and(|kind| ["shared-race", "async-in-flight"].contains(&kind)),
        "{finding}"
    );
    let line = finding["at"]["line"].as_u64().unwrap() as usize;
    let text = std::fs::read_to_string(&ptx).unwrap();
    let instruction = finding["at"]["instruction"].as_str().unwrap();
    let operation = instruction.split_whitespace().next().unwrap();
    assert!(text.lines().nth(line - 1).unwrap().contains(operation), "line {line}: {instruction}");

    let verify = ["verify", "--device", "sim", "--quick", "--filter", "minilm-layer4_full"];
    let ran = evo(&[&verify[..], &with].concat());
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let again = format!("again with: --device sim --filter minilm-layer4_full --kernel {kernel}");
    for words in ["1 of 1 answers are WRONG", "shared-race: ", &again] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
}

#[test]
fn ptx_that_cannot_be_read_is_refused_with_its_line() {
    let path = scratch("nonsense.ptx");
    let with = ["--ptx", path.to_str().unwrap()];
    assert_refused(&simulate(LAYER_0, &["--ptx", "no-such-file.ptx"]), &["ptx: no-such-file.ptx"]);
    std::fs::write(&path, ".version 8.4\n.target sm_80\n.address_size 64\nnonsense here;\n").unwrap();
    assert_refused(&simulate(LAYER_0, &with), &["nonsense.ptx", "line 4"]);
    std::fs::write(&path, ".version 8.4\n.target sm_80\n.address_size 64\n").unwrap();
    assert_refused(&simulate(LAYER_0, &with), &["kernel: fwd_sm80_f16_d32", "0 kernels of the PTX text"]);
}

#[test]
fn inspect_counts_what_a_kernel_does() {
    let shape = ["inspect", "--simulate", "--shape", "1,2,1,64,128,64", "--dtype", "f16"];
    let kernel = ["--kernel", "fwd_sm80_f16_d64_q64_kv64_w4_s2"];
    let object = json(&evo(&[&shape[..], &kernel, &["--json"]].concat()));
    let counted = &object["simulation"];
    assert_eq!(counted["matrix_instructions"], 2 * 2 * 64 * 128 * 64 / 2048, "{object}");
    assert_eq!((&counted["findings"], &counted["conflicts"]), (&serde_json::json!([]), &serde_json::json!([])));
    let ran = evo(&[&shape[..], &kernel].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("checks     clean") && ran.stdout.contains(" matrix                       1024"),
        "{}",
        ran.stdout
    );
    let large = ["inspect", "--simulate", "--shape", "64,64,64,100000,100000,128"];
    assert_refused(&evo(&large), &["problem: about", "allowed: at most 1000000000"]);
    assert_eq!(evo(&["inspect", "--simulate"]).code, 2, "nothing to simulate");
}

#[test]
fn inspect_counts_what_quantising_and_attention_on_e4m3_do() {
    for (arch, kernel) in [("sm_89", "fwd_fp8_f16_d64_"), ("sm_90", "fwd_fp8_sm90_f16_d64_")] {
        let args = ["inspect", "--simulate", "--quantize", "e4m3", "--shape", "1,2,1,256,1024,64", "--dtype", "f16"];
        let args = [&args[..], &["--arch", arch]].concat();
        let object = json(&evo(&[&args[..], &["--json"]].concat()));
        let counted = &object["simulation"];
        assert!(counted["kernel"].as_str().unwrap().starts_with(kernel), "{counted}");
        let product = 2 * 256 * 1024 * 64;
        // One has m16n8k32 of a warp, the other m64n128k32 for scores and m64n64k32 for outputs, of four warps.
        match arch {
            "sm_89" => assert_eq!(counted["matrix_instructions"], 2 * product / (16 * 8 * 32), "{counted}"),
            _ => {
                let of_four_warps = product / (64 * 128 * 32) + product / (64 * 64 * 32);
                assert_eq!(counted["warpgroup_matrix_instructions"], 4 * of_four_warps, "{counted}");
            }
        }
        let names = |launches: &Value| -> Vec<Value> {
            launches.as_array().unwrap().iter().map(|launch| launch["kernel"].clone()).collect()
        };
        assert_eq!(names(&counted["quantising"]), names(&object["quantising"]["launches"]), "{object}");
        for launch in counted["quantising"].as_array().unwrap().iter().chain([counted]) {
            assert_eq!(launch["findings"], serde_json::json!([]), "{launch}");
        }
        let ran = evo(&args);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(ran.stdout.matches("checks     clean").count(), 3, "{}", ran.stdout);
    }
}

#[test]
fn every_kernel_is_right_on_the_real_data_in_the_simulator() {
    let ran = evo(&["verify", "--device", "sim", "--arch", "sm_90", "--filter", "minilm"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 20 answers are right"), "{}", ran.stdout);
}
