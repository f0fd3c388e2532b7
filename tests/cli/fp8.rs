//! What e4m3 costs: `run --quantize` and `verify --dtype`.

use super::{LAYER_0, LAYER_4, assert_refused, evo, json, scratch};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// The report on a file, in JSON.
fn quantized(input: &str, more: &[&str]) -> Value {
    let ran = evo(&[&["run", input, "--quantize", "e4m3", "--json"], more].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    json(&ran)
}

fn figure(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or_else(|| panic!("{name} in {of}"))
}

/// A scale for each head costs at most 4e-2, and one for each block without the keys' mean 2.5e-2, on layer 4 alone. Layer 0
/// has a head with scores up to 100, which carry the rounding of queries and keys into the weights.
#[test]
fn real_data_costs_two_to_four_and_a_half_percent() {
    const HEAD: &[&str] = &["--scales", "head"];
    const BLOCKS: &[&str] = &["--scales", "64", "--subtract-mean"];
    for (input, more, limit) in
        [(LAYER_4, HEAD, 0.04), (LAYER_4, BLOCKS, 0.025), (LAYER_0, HEAD, 0.045), (LAYER_0, BLOCKS, 0.042)]
    {
        for causal in ["none", "bottom-right"] {
            let object = quantized(input, &[&["--causal", causal], more].concat());
            let (total, heads) = (&object["total"], object["heads"].as_array().unwrap());
            let relative = figure(total, "relative_error");
            assert!((0.02..limit).contains(&relative), "{input} {causal} {more:?}: {relative}");
            assert!(figure(total, "cosine") > 0.999, "{object}");
            assert_eq!(heads.len(), 6);
            assert!(heads.iter().all(|head| figure(head, "relative_error") < 0.075), "{object}");
        }
    }
}

#[test]
fn the_table_has_a_line_for_each_head_and_one_for_all() {
    let ran = evo(&["run", LAYER_4, "--quantize", "e4m3", "--scales", "128", "--subtract-mean"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("a scale for each 128 rows, keys less mean"), "{}", ran.stdout);
    let table: Vec<_> = ran.stdout.lines().skip_while(|line| !line.starts_with("batch")).collect();
    assert_eq!(table.len(), 8, "{}", ran.stdout);
    assert!(table[1].starts_with("0      0 ") && table[6].starts_with("1      2 "), "{}", ran.stdout);
    assert!(table[7].starts_with("all    all"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    let refused = |more: &[&str], reasons: &[&str]| {
        let ran = evo(&[&["run", LAYER_0, "--quantize", "e4m3"], more].concat());
        assert_eq!(ran.code, 2, "{more:?}: {}{}", ran.stdout, ran.stderr);
        reasons.iter().for_each(|reason| assert!(ran.stderr.contains(reason), "{more:?}: {}", ran.stderr));
    };
    refused(&["--scales", "65"], &["scales: a scale for 65 rows", "powers of two from 64"]);
    refused(&["--scales", "rows"], &["`rows`", "tensor, head"]);
    refused(&["--arch", "sm_80", "--device", "sim"], &["device: compute capability 80", "89 or later"]);
    refused(&["--seed", "7"], &["seed: ", "--device sim"]);
    refused(&["--kernel", "fwd_sm80_f16_d32_q64_kv64_w4_s2"], &["kernel: "]);
    refused(&["--out", "answer.safetensors"], &["--out", "--quantize"]);
    for alone in [&["--scales", "64"][..], &["--subtract-mean"]] {
        assert_eq!(evo(&[&["run", LAYER_0], alone].concat()).code, 2, "{alone:?}");
    }
}

#[test]
fn a_number_that_is_not_finite_is_refused_with_its_place() {
    let bytes = std::fs::read(LAYER_0).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    let (_, view) = tensors.iter_mut().find(|(name, _)| name == "k").unwrap();
    let mut data = view.data().to_vec();
    // f16 infinity at column 7 of row 3 of the second head.
    data[((64 + 3) * 32 + 7) * 2..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    *view = TensorView::new(view.dtype(), view.shape().into(), &data).unwrap();
    let path = scratch("infinite-key.safetensors");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let ran = evo(&["run", path.to_str().unwrap(), "--quantize", "e4m3"]);
    assert_refused(&ran, &["k: inf at [0, 1, 3, 7]", "allowed: finite numbers"]);
}

#[test]
fn verify_measures_operands_scales_and_special_tensors() {
    let ran = evo(&["verify", "--dtype", "e4m3", "--quick"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 76 answers are as close as rounding to e4m3 explains"), "{}", ran.stdout);
    for row in
        ["probabilities  head", "all four       64 rows, keys less mean", "all-zero     tensor", "outlier      head"]
    {
        assert!(ran.stdout.contains(row), "{row}: {}", ran.stdout);
    }
    assert_eq!(evo(&["verify", "--dtype", "e4m3", "--filter", "d64"]).code, 2);
}

#[test]
fn on_a_device_every_head_is_measured_too() {
    for arch in ["sm_89", "sm_90"] {
        let more = ["--device", "sim", "--arch", arch, "--scales", "64", "--subtract-mean"];
        let object = quantized(LAYER_4, &more);
        assert_eq!(object["right"], true, "{object}");
        let kernel = object["kernel"].as_str().unwrap();
        assert!(kernel.starts_with("fwd_fp8"), "{kernel}");
        let launches = object["findings"].as_array().unwrap();
        assert_eq!(launches.len(), 4, "two for the mean, one that quantises, and attention");
        let heads = object["heads"].as_array().unwrap();
        for of in heads.iter().chain([&object["total"]]) {
            let [device, predicted] = [figure(&of["device"], "relative_error"), figure(of, "relative_error")];
            assert!((device - predicted).abs() < 2e-3, "{of}");
            assert!(figure(&of["device_from_prediction"], "relative_error") < 2e-2, "{of}");
        }
    }
    let ran = evo(&["run", LAYER_4, "--quantize", "e4m3", "--device", "sim"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    for line in ["device    apart", "verdict  right", "checks   quantize_f16: clean"] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[test]
fn a_quantiser_with_a_defect_gives_a_wrong_answer_and_exit_code_1() {
    let text = std::fs::read_to_string("ptx/sm_89.ptx").unwrap();
    // Scales are half of what they should be: the largest numbers saturate.
    let start = text.find(".entry quantize_f16(").unwrap();
    let divisor = text[start..].find("0f43E00000").unwrap_or_else(|| panic!("no division by 448"));
    let mut broken = text.clone();
    broken.replace_range(start + divisor..start + divisor + 10, "0f44600000");
    let path = scratch("broken-quantiser.ptx");
    std::fs::write(&path, broken).unwrap();
    let ran = evo(&["run", LAYER_4, "--quantize", "e4m3", "--device", "sim", "--ptx", path.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("verdict  WRONG"), "{}", ran.stdout);
}

#[test]
fn verify_measures_a_device_too() {
    let ran = evo(&["verify", "--dtype", "e4m3", "--quick", "--device", "sim"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 48 answers of the device are as close as is predicted"), "{}", ran.stdout);
}
