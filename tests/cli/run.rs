//! `evo-sdpa run`: answers on files, and files that cannot be used.

use super::{LAYER_0, LAYER_4, Ran, assert_refused, evo, json, scratch};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::Value;
use std::collections::HashMap;

fn run_cpu(input: &str, more: &[&str]) -> Ran {
    evo(&[&["run", "--device", "cpu", input], more].concat())
}

/// Tensors to be written to a file: name, type, shape, bytes.
#[derive(Clone)]
struct Tensors(Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    /// q of `q_len` rows, k and v of `kv_len` rows, f32, two heads of eight columns.
    fn new(q_len: usize, kv_len: usize) -> Self {
        let floats = |n: usize| (0..n).flat_map(|i| ((i * 37 % 64) as f32 / 32.0 - 1.0).to_le_bytes()).collect();
        let tensor = |name, len| (name, Dtype::F32, vec![1, 2, len, 8], floats(2 * len * 8));
        Self(vec![tensor("q", q_len), tensor("k", kv_len), tensor("v", kv_len)])
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|tensor| tensor.0 != name);
        self
    }

    fn with(self, name: &'static str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        let mut tensors = self.without(name);
        tensors.0.push((name, dtype, shape.into(), bytes));
        tensors
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("the test's tensors are consistent"))
        });
        serialize(views, None).expect("the test's tensors can be written")
    }

    fn run(&self, name: &str, more: &[&str]) -> Ran {
        run_bytes(name, &self.bytes(), more)
    }
}

fn run_bytes(name: &str, bytes: &[u8], more: &[&str]) -> Ran {
    let path = scratch(name);
    std::fs::write(&path, bytes).expect("the scratch folder can be written");
    run_cpu(path.to_str().expect("UTF-8"), more)
}

fn run_header(name: &str, header: &str, data: usize) -> Ran {
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
    run_bytes(name, &bytes, &[])
}

#[test]
fn real_data_gets_the_expected_answers_with_and_without_a_mask() {
    for input in [LAYER_0, LAYER_4] {
        for causal in ["none", "bottom-right"] {
            let ran = run_cpu(input, &["--causal", causal]);
            assert_eq!(ran.code, 0, "{input} {causal}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.stdout.matches(" ok: ").count(), 2, "{}", ran.stdout);
            assert!(ran.stdout.contains("(metadata of the file)"), "{}", ran.stdout);
        }
    }
}

#[test]
fn the_diagonal_of_bottom_right_comes_from_the_lengths() {
    // 40 queries, 72 keys.
    assert_eq!(run_cpu(LAYER_4, &["--causal", "32"]).code, 0);
    assert_eq!(run_cpu(LAYER_4, &["--causal", "top-left"]).code, 1);
}

#[test]
fn any_offset_of_the_diagonal_has_an_answer() {
    assert_eq!(run_cpu(LAYER_4, &["--causal", &i64::MAX.to_string()]).code, 1, "out_causal has a mask");
    let ran = run_cpu(LAYER_4, &["--causal", &i64::MIN.to_string(), "--json"]);
    assert_eq!((ran.code, &json(&ran)["right"]), (1, &false.into()));
}

#[test]
fn json_is_one_object_with_the_verdict() {
    let ran = run_cpu(LAYER_0, &["--json"]);
    let object = json(&ran);
    assert_eq!(object["right"], true, "{object}");
    assert_eq!(object["kv_lens"], serde_json::json!([64, 43]));
    assert_eq!(object["scale_source"], "metadata of the file");
    assert!(object["out"]["max_error"].as_f64().is_some_and(|error| error < 1e-2), "{object}");
    assert!(object["device"].as_str().is_some_and(|device| device.starts_with("CPU")), "{object}");
}

#[test]
fn another_scale_is_another_answer() {
    let ran = run_cpu(LAYER_0, &["--scale", "0.5"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("scale    0.5 (--scale)"), "{}", ran.stdout);
}

#[test]
fn a_wrong_expected_answer_gives_exit_code_1() {
    let bytes = std::fs::read(LAYER_0).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["out", "lse"] {
        let mut tensors = file.tensors();
        let (_, view) = tensors.iter_mut().find(|(found, _)| found == name).unwrap();
        let mut data = view.data().to_vec();
        data[400..404].copy_from_slice(&1.0e3f32.to_le_bytes());
        *view = TensorView::new(view.dtype(), view.shape().into(), &data).unwrap();
        let ran = run_bytes(&format!("wrong-{name}.safetensors"), &serialize(tensors, None).unwrap(), &[]);
        assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(&format!("{name}      WRONG: ")), "{}", ran.stdout);
    }
}

#[test]
fn the_answer_file_is_read_back_as_the_expected_answer() {
    let answer = scratch("answer.safetensors");
    let ran = run_cpu(LAYER_4, &["--out", answer.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (input, answer) = (std::fs::read(LAYER_4).unwrap(), std::fs::read(answer).unwrap());
    let (input, answer) = (SafeTensors::deserialize(&input).unwrap(), SafeTensors::deserialize(&answer).unwrap());
    let out = answer.tensor("out").unwrap();
    assert_eq!((out.dtype(), out.shape()), (Dtype::F16, &[2, 3, 40, 32][..]));
    let both: HashMap<_, _> =
        input.tensors().into_iter().map(|(name, view)| (name.clone(), answer.tensor(&name).unwrap_or(view))).collect();
    let ran = run_bytes("answered.safetensors", &serialize(both, None).unwrap(), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn queries_without_keys_get_zeros_and_minus_infinity() {
    let lse = [f32::NEG_INFINITY; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = Tensors::new(3, 0).with("out", Dtype::F32, &[1, 2, 3, 8], vec![0; 4 * 48]);
    let ran = tensors.with("lse", Dtype::F32, &[1, 2, 3], lse).run("no-keys.safetensors", &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.matches(" ok: ").count(), 2, "{}", ran.stdout);
}

#[test]
fn nothing_to_compute_is_no_error() {
    for shape in [[1, 2, 0, 8], [0, 2, 3, 8], [1 << 40, 2, 0, 8]] {
        let empty = |tensors: Tensors, name| tensors.with(name, Dtype::F32, &shape, vec![]);
        let tensors = ["q", "k", "v"].into_iter().fold(Tensors(vec![]), empty);
        let ran = tensors.run(&format!("empty-{}-{}.safetensors", shape[0], shape[2]), &[]);
        assert_eq!(ran.code, 0, "{shape:?}: {}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn inputs_that_are_not_finite_are_counted_and_only_the_expected_answer_judges() {
    let mut tensors = Tensors::new(3, 5);
    tensors.0[0].3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let ran = tensors.run("nan.safetensors", &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let object = json(&ran);
    assert_eq!((&object["non_finite_inputs"], &object["right"]), (&1.into(), &Value::Null));

    let answer = scratch("nan-answer.safetensors");
    tensors.run("nan.safetensors", &["--out", answer.to_str().unwrap()]);
    let answer = std::fs::read(answer).unwrap();
    let out = SafeTensors::deserialize(&answer).unwrap().tensor("out").unwrap().data().to_vec();
    assert!(f32::from_le_bytes(out[..4].try_into().unwrap()).is_nan());
    let agrees = tensors.clone().with("out", Dtype::F32, &[1, 2, 3, 8], out);
    assert_eq!(agrees.run("nan-agrees.safetensors", &[]).code, 0);
    let differs = tensors.with("out", Dtype::F32, &[1, 2, 3, 8], vec![0; 4 * 48]);
    assert_eq!(differs.run("nan-differs.safetensors", &[]).code, 1);
}

#[test]
fn files_that_are_not_safetensors_are_refused() {
    assert_refused(&run_cpu("tests/data/no-such-file", &[]), &["cannot read tests/data/no-such-file"]);
    assert_refused(&run_cpu("tests/data", &[]), &["cannot read tests/data"]);
    assert_refused(&run_bytes("empty.safetensors", b"", &[]), &["not a safetensors file", "too small"]);
    assert_refused(
        &run_bytes("words.safetensors", b"attention please, this is text", &[]),
        &["not a safetensors file"],
    );
    let whole = std::fs::read(LAYER_0).unwrap();
    for len in [3, 8, 100, 700, whole.len() / 2, whole.len() - 1] {
        assert_refused(&run_bytes("truncated.safetensors", &whole[..len], &[]), &["not a safetensors file"]);
    }
    assert_refused(&run_bytes("longer.safetensors", &[&whole[..], b"x"].concat(), &[]), &["not a safetensors file"]);
}

#[test]
fn headers_that_no_file_can_have_are_refused() {
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    assert_refused(&run_bytes("huge-header.safetensors", &huge, &[]), &["header too large"]);
    let far = [&(50u64 << 20).to_le_bytes()[..], b"{}"].concat();
    assert_refused(&run_bytes("far-header.safetensors", &far, &[]), &["invalid header length"]);

    let tensor =
        |shape: &str, from: u64, to: u64| format!(r#"{{"dtype":"F16","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    for (case, shape, from, to) in [
        ("overflow", "[4294967296,4294967296,2,8]", 0, 64),
        ("mismatch", "[1,1,2,8]", 0, 64),
        ("backwards", "[1,1,2,8]", 64, 32),
        ("gap", "[1,1,2,8]", 32, 64),
        ("outside", "[1,1,64,8]", 0, 1024),
        ("negative", "[-1,1,2,8]", 0, 32),
    ] {
        let header = format!(r#"{{"q":{}}}"#, tensor(shape, from, to));
        let ran = run_header(&format!("{case}.safetensors"), &header, 64);
        assert_refused(&ran, &["not a safetensors file"]);
    }
    // Eight tensors whose sizes add up to just below 2^64: what is added to that wraps around.
    let part = (1u64 << 61) - 2;
    let tensors: Vec<_> = (0..9u64)
        .map(|i| {
            let (from, len) = (i * part, if i == 8 { 14 } else { part });
            format!(r#""t{i}":{}"#, tensor(&format!("[{}]", len / 2), from, from + len))
        })
        .collect();
    let ran = run_header("wrap.safetensors", &format!("{{{}}}", tensors.join(",")), 64);
    assert_refused(&ran, &["not a safetensors file"]);
    assert_refused(
        &run_header("newline.safetensors", r#"{"a\nb":{"dtype":"F16","shape":[1],"data_offsets":[1,3]}}"#, 3),
        &[],
    );
    assert_refused(&run_header("no-tensors.safetensors", "{}", 0), &["q: no such tensor"]);
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let zeros = |n: usize| vec![0; n];
    let good = || Tensors::new(3, 5);
    for name in ["q", "k", "v"] {
        let ran = good().without(name).run("missing.safetensors", &[]);
        assert_refused(&ran, &[&format!("{name}: no such tensor, the file holds")]);
    }
    let refused = |tensors: Tensors, reasons: &[&str]| assert_refused(&tensors.run("unfit.safetensors", &[]), reasons);
    refused(good().with("k", Dtype::F32, &[1, 2, 5, 16], zeros(640)), &["head_dim of k: 16", "allowed: 8"]);
    refused(good().with("k", Dtype::F32, &[2, 2, 5, 8], zeros(640)), &["batch of k: 2"]);
    refused(good().with("v", Dtype::F32, &[1, 2, 4, 8], zeros(256)), &["v: [1, 2, 4, 8]", "the shape of k"]);
    refused(good().with("q", Dtype::F32, &[1, 3, 3, 8], zeros(288)), &["heads_q: 3"]);
    refused(good().with("k", Dtype::F16, &[1, 2, 5, 8], zeros(160)), &["k: type F16", "allowed: F32"]);
    refused(good().with("q", Dtype::I32, &[1, 2, 3, 8], zeros(192)), &["q: type I32", "allowed: F16, BF16, F32"]);
    refused(good().with("q", Dtype::F32, &[2, 3, 8], zeros(192)), &["q: [2, 3, 8]", "four axes"]);
    refused(good().with("q", Dtype::F32, &[1, 2, 3, 0], zeros(0)), &["head_dim"]);
    refused(good().with("out", Dtype::F32, &[1, 2, 3, 7], zeros(168)), &["out: [1, 2, 3, 7]"]);
    refused(good().with("out", Dtype::I32, &[1, 2, 3, 8], zeros(192)), &["out: type I32"]);
}

#[test]
fn lengths_of_sequences_are_checked_in_every_type() {
    let with = |dtype, shape: &[usize], bytes: Vec<u8>| {
        Tensors::new(3, 5).with("kv_len", dtype, shape, bytes).run("lengths.safetensors", &[])
    };
    for (dtype, four) in [
        (Dtype::I32, 4i32.to_le_bytes().to_vec()),
        (Dtype::U32, 4u32.to_le_bytes().to_vec()),
        (Dtype::I64, 4i64.to_le_bytes().to_vec()),
    ] {
        let ran = with(dtype, &[1], four);
        assert!(ran.code == 0 && ran.stdout.contains("kv_len   [4]"), "{}{}", ran.stdout, ran.stderr);
    }
    assert_refused(&with(Dtype::I32, &[1], 6i32.to_le_bytes().into()), &["kv_len", "6"]);
    assert_refused(&with(Dtype::I32, &[1], (-1i32).to_le_bytes().into()), &["kv_len", "-1"]);
    assert_refused(&with(Dtype::I64, &[1], (1i64 << 32).to_le_bytes().into()), &["kv_len", "4294967296"]);
    assert_refused(&with(Dtype::U32, &[1], u32::MAX.to_le_bytes().into()), &["kv_len", "4294967295"]);
    assert_refused(&with(Dtype::F32, &[1], vec![0; 4]), &["kv_len: type F32", "allowed: I32, U32, I64"]);
    assert_refused(&with(Dtype::I32, &[2], vec![0; 8]), &["kv_len: [2]", "allowed: [1]"]);
}

#[test]
fn options_that_cannot_be_are_refused() {
    assert_refused(&run_cpu(LAYER_0, &["--scale", "-1"]), &["scale: -1"]);
    assert_refused(&run_cpu(LAYER_0, &["--scale", "nan"]), &["scale: NaN"]);
    assert_refused(&run_cpu(LAYER_0, &["--out", "/no/such/folder/out.safetensors"]), &["cannot write"]);
    assert_refused(&run_cpu(LAYER_0, &["--exact"]), &["exact: ", "--device sim"]);
    let kernel = "fwd_sm80_f16_d32_q64_kv64_w4_s2";
    assert_refused(&run_cpu(LAYER_0, &["--kernel", kernel]), &["kernel: ", "CPU"]);
    assert_refused(&run_cpu(LAYER_0, &["--ptx", "kernels.ptx"]), &["ptx: ", "CPU"]);
    // clap says these, in lines of its own.
    for args in [&["--kernel", "fwd"][..], &["--causal", "lower"], &["--device", "tpu"], &["--scale", "x"]] {
        let ran = run_cpu(LAYER_0, args);
        assert!(ran.code == 2 && ran.stderr.starts_with("error: "), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(evo(&["run", "--causal", "top-left"]).code, 2, "the acceptance shapes have masks of their own");
}

#[test]
fn metadata_that_change_the_meaning_are_read_or_refused() {
    let run = |key: &str, value: &str| {
        let tensors = Tensors::new(3, 5).bytes();
        let file = SafeTensors::deserialize(&tensors).unwrap();
        let metadata = HashMap::from([(key.to_string(), value.to_string())]);
        run_bytes("metadata.safetensors", &serialize(file.tensors(), Some(metadata)).unwrap(), &[])
    };
    assert!(run("scale", "0.25").stdout.contains("scale    0.25 (metadata of the file)"));
    assert!(run("title", "x").stdout.contains("(1/sqrt(head_dim))"));
    assert_refused(&run("scale", "small"), &["metadata scale: `small`"]);
    assert_refused(&run("layout", "BSHD"), &["layout: `BSHD`", "allowed: BHSD"]);
}
