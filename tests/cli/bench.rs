//! `evo-sdpa bench`, as far as it goes without a GPU.

use super::{assert_refused, evo, json};
use serde_json::Value;

#[test]
fn bench_lists_what_it_would_time() {
    let calls = |args: &[&str]| -> Vec<Value> {
        let ran = evo(&[&["bench", "--list"], args].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
    };
    let all = calls(&[]);
    assert_eq!(all[0], serde_json::json!({ "dtype": "bf16", "shape": [1, 8, 8, 512, 512, 64], "causal": "none" }));
    assert!(all.len() > evo_sdpa::shapes::ACCEPTANCE.len());
    let two = ["--shape", "1,4,2,7,9,64", "--shape", "2,1,1,8,8,32", "--causal", "-3", "--dtype", "f16"];
    assert_eq!(
        calls(&two),
        [[1, 4, 2, 7, 9, 64], [2, 1, 1, 8, 8, 32]]
            .map(|shape| serde_json::json!({ "dtype": "f16", "shape": shape, "causal": "-3" }))
    );
}

#[test]
fn quantised_calls_are_listed_with_their_output_and_scales() {
    let ran = evo(&["bench", "--list", "--shape", "1,4,2,7,9,64", "--quantize", "e4m3", "--dtype", "f16"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut expected = serde_json::json!({ "dtype": "e4m3", "shape": [1, 4, 2, 7, 9, 64], "causal": "none" });
    expected["out"] = "f16".into();
    expected["scales"] = "head".into();
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).expect("one JSON object"), expected);
    let all = evo(&["bench", "--list", "--quantize", "e4m3", "--scales", "128"]);
    assert_eq!(all.stdout.lines().count(), evo(&["bench", "--list"]).stdout.lines().count());
    assert!(all.stdout.lines().all(|line| line.ends_with(r#""out":"bf16","scales":"128"}"#)), "{}", all.stdout);
}

#[test]
fn calls_that_quantise_are_listed_with_the_type_that_they_begin_with() {
    let args = ["bench", "--list", "--shape", "1,4,2,7,9,64", "--quantize", "e4m3", "--dtype", "f16"];
    let [beforehand, within] = [&[][..], &["--with-quantizing"]].map(|more| json(&evo(&[&args[..], more].concat())));
    assert_eq!(within["from"], "f16");
    let mut without = within;
    without.as_object_mut().expect("an object").remove("from");
    assert_eq!(without, beforehand);
}

#[test]
fn calls_on_transposed_values_are_listed_as_such() {
    let args = ["bench", "--list", "--shape", "1,4,2,7,9,64", "--quantize", "e4m3"];
    let [rows, transposed] = [&[][..], &["--transposed-values"]].map(|more| json(&evo(&[&args[..], more].concat())));
    let mut expected = rows;
    expected["values"] = "transposed".into();
    assert_eq!(transposed, expected);
}

#[test]
fn bench_refuses_what_it_cannot_time() {
    let bench = |args: &[&str]| evo(&[&["bench"], args].concat());
    let refused = |args: &[&str], reason: &str| {
        let ran = bench(args);
        assert_eq!(ran.code, 2, "{}", ran.stdout);
        assert!(ran.stderr.contains(reason), "{:?} lacks {reason:?}", ran.stderr);
    };
    assert_refused(&bench(&["--shape", "1,8,8,512,0,64", "--list"]), &["Skv0", "nothing to compute"]);
    assert_refused(&bench(&["--shape", "1,8,3,512,512,64", "--list"]), &["heads_q: 8"]);
    refused(&["--kernel", "fwd_sm80"], "no kernel `fwd_sm80` ships");
    refused(&["--runs", "0"], "0 is not in 1..=100000");
    refused(&["--shape", "1,2,3"], "six whole numbers");
    refused(&["--ladder", "--shape", "1,8,8,512,512,64"], "cannot be used with");
    refused(&["--tolerance", "5"], "--baseline");
    let quantised = |args: &[&str]| bench(&[&["--list", "--quantize", "e4m3"], args].concat());
    assert_refused(&quantised(&["--dtype", "f32"]), &["dtype: f32", "f16 or bf16"]);
    assert_refused(&quantised(&["--shape", "1,8,8,512,512,72"]), &["head_dim: 72", "multiples of 16"]);
    refused(&["--quantize", "e4m3", "--scales", "65"], "scales: a scale for 65 rows");
    refused(&["--quantize", "e5m2"], "[possible values: e4m3]");
    refused(&["--scales", "64"], "--quantize");
    refused(&["--with-quantizing"], "--quantize");
    refused(&["--quantize", "e4m3", "--with-quantizing", "--dependent"], "cannot be used with");
    refused(&["--transposed-values"], "--quantize");
    refused(&["--quantize", "e4m3", "--with-quantizing", "--transposed-values"], "cannot be used with");
    let transposed = ["--shape", "1,8,8,512,512,192", "--transposed-values"];
    assert_refused(&quantised(&transposed), &["head_dim: 192", "at most 128 where values are transposed"]);
    let transposed = ["--scales", "64", "--transposed-values"];
    assert_refused(
        &quantised(&transposed),
        &["v_scales: a scale for 64 rows", "128 or more where values are transposed"],
    );
    refused(&["--quantize", "e4m3", "--ladder"], "cannot be used with");
}

#[cfg(not(feature = "gpu"))]
#[test]
fn bench_says_what_it_takes_to_time_kernels() {
    assert_refused(&evo(&["bench"]), &["no GPU can be used: built without the feature `gpu`"]);
}
