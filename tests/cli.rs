//! The program run for real: what it answers, and that whatever it is given it never panics.

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const LAYER_0: &str = "tests/data/minilm-layer0.safetensors";
const LAYER_4: &str = "tests/data/minilm-layer4.safetensors";

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn evo(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_evo-sdpa"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run_cpu(input: &str, more: &[&str]) -> Ran {
    evo(&[&["run", "--device", "cpu", input], more].concat())
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    serde_json::from_str(&ran.stdout).expect("one JSON object")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Exit code 2 and one line that says all of `reasons`.
#[track_caller]
fn assert_refused(ran: &Ran, reasons: &[&str]) {
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    for reason in reasons {
        assert!(ran.stderr.contains(reason), "{:?} lacks {reason:?}", ran.stderr);
    }
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
fn inspect_refuses_what_cannot_be_planned() {
    assert_refused(&evo(&["inspect", "--shape", "1,8,3,512,512,64"]), &["heads_q: 8"]);
    assert_refused(&evo(&["inspect", "--shape", "1,8,8,512,512,65"]), &["head_dim: 65"]);
    assert_eq!(evo(&["inspect", "--shape", "1,8,8"]).code, 2);
    assert_eq!(evo(&["inspect", "--arch", "sm_10"]).code, 2);
}

#[test]
fn verify_checks_what_the_filter_names_and_refuses_to_check_nothing() {
    let ran = evo(&["verify", "--device", "cpu", "--quick", "--filter", "minilm"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 4 answers are right"), "{}", ran.stdout);
    assert_refused(&evo(&["verify", "--device", "cpu", "--quick", "--filter", "no such case"]), &["filter"]);
}

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
    assert_eq!(json(&run_cpu(LAYER_0, &["--json"]))["findings"], Value::Null, "nothing was looked for");
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
    assert!(ran.stdout.contains("1 of 1 answers are WRONG") && ran.stdout.contains("shared-race: "), "{}", ran.stdout);
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
    let kernel = ["--kernel", "fwd_sm80_f16_d64_q64_kv64_w4_s1"];
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
fn every_kernel_is_right_on_the_real_data_in_the_simulator() {
    let ran = evo(&["verify", "--device", "sim", "--arch", "sm_90", "--filter", "minilm"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("all 16 answers are right"), "{}", ran.stdout);
}

/// `profile` on a table of Nsight Compute with these columns and values.
fn profile_table(name: &str, figures: &[(&str, &str)]) -> Ran {
    let cells =
        |cell: fn(&(&str, &str)) -> String| figures.iter().map(|f| format!(",\"{}\"", cell(f))).collect::<String>();
    let text = format!(
        "==PROF== Connected to process 7\n\"ID\",\"Kernel Name\",\"Block Size\",\"Grid Size\",\"CC\"{}\n\
         \"\",\"\",\"\",\"\",\"\"{}\n\"0\",\"fwd_scalar_f32\",\"(128, 1, 1)\",\"(8, 8, 2)\",\"8.9\"{}\n",
        cells(|(name, _)| name.to_string()),
        cells(|_| String::new()),
        cells(|(_, value)| value.to_string()),
    );
    let path = scratch(name);
    std::fs::write(&path, text).expect("the folder can be written");
    evo(&["profile", "--csv", path.to_str().expect("UTF-8")])
}

#[test]
fn a_profile_is_read_without_a_gpu() {
    let file = "tests/data/ncu-sample.csv";
    let object = json(&evo(&["profile", "--csv", file, "--json"]));
    assert_eq!(object["missing"], serde_json::json!([]), "{object}");
    assert_eq!(object["findings"][0]["kind"], "limiter", "{object}");
    let gates = object["gates"].as_array().expect("gates");
    assert_eq!(object["passes"], gates.iter().any(|gate| gate["passes"] == true), "{object}");
    let ran = evo(&["profile", "--csv", file]);
    assert_eq!(ran.code, if object["passes"] == true { 0 } else { 1 }, "{}", ran.stderr);
    let kernel = object["kernel"].as_str().expect("a name");
    for words in [&format!("kernel   {kernel}"), "tensor cores  ", "limiter    ", "gate       DRAM < 50 %: "] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("not measured"), "{}", ran.stdout);
}

#[test]
fn a_launch_that_meets_neither_gate_gives_exit_code_1() {
    let tensor = "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_active";
    let dram = "dram__throughput.avg.pct_of_peak_sustained_elapsed";
    for (tensor_busy, dram_busy, code, words) in [
        ("41.2", "8.1", 0, "gates      passes"),
        ("71.0", "60.0", 0, "gates      passes"),
        ("41.2", "60.0", 1, "gates      FAILS"),
        ("n/a", "60.0", 1, "gate       tensor cores >= 50 %: not measured, FAILS"),
    ] {
        let ran = profile_table("gates.csv", &[(tensor, tensor_busy), (dram, dram_busy)]);
        assert_eq!(ran.code, code, "{tensor_busy} {dram_busy}: {}", ran.stderr);
        assert!(ran.stdout.contains(words), "{}", ran.stdout);
        assert!(ran.stdout.contains("\nnot measured: gpu__time_duration.sum, "), "{}", ran.stdout);
    }
}

#[test]
fn a_profile_that_cannot_be_had_is_refused_with_the_reason() {
    let shape = ["profile", "--shape", "1,8,8,512,512,64"];
    let missing = evo(&[&shape[..], &["--ncu", "/no/such/ncu"]].concat());
    assert_refused(&missing, &["ncu: cannot start `/no/such/ncu`", "NVIDIA Nsight Compute"]);
    #[cfg(not(feature = "gpu"))]
    assert_refused(&evo(&[&shape[..], &["--ncu", "true"]].concat()), &["built without the feature `gpu`", "--csv"]);
    assert_refused(&evo(&["profile", "--csv", "no-such.csv"]), &["csv: no-such.csv"]);
    assert_refused(&evo(&["profile", "--csv", "README.md"]), &["csv: README.md", "no table of Nsight Compute"]);
    assert_refused(&evo(&["profile", "--csv", LAYER_0]), &[LAYER_0, "UTF-8"]);
    assert_eq!(evo(&["profile"]).code, 2, "nothing to profile");
    assert_eq!(evo(&["profile", "--csv", "README.md", "--dtype", "f16"]).code, 2, "the table has its own type");
}

/// Says that it is skipped where there is no GPU or no Nsight Compute that can read its counters.
#[cfg(feature = "gpu")]
#[test]
fn nsight_compute_has_every_figure_that_it_is_asked_for() {
    use std::io::Write;
    let ran = evo(&["profile", "--shape", "1,8,8,512,512,64", "--json"]);
    if ran.code == 2 {
        let usable =
            !["cannot start", "ERR_NVGPUCTRPERM", "no NVIDIA GPU"].iter().any(|words| ran.stderr.contains(words));
        assert!(!usable, "{}", ran.stderr);
        // Not with eprintln, which the test harness keeps to itself when a test passes.
        let _ = std::io::stderr().write_all(format!("\nprofile is SKIPPED: {}", ran.stderr).as_bytes());
        return;
    }
    let object = json(&ran);
    assert_eq!(object["missing"], serde_json::json!([]), "{object}");
    assert!(object["kernel"].as_str().is_some_and(|kernel| kernel.starts_with("fwd_sm80_bf16_d64")), "{object}");
}

/// Without a GPU it says that it is skipped; with EVO_SDPA_REQUIRE_GPU=1 it fails.
#[cfg(feature = "gpu")]
#[test]
fn every_kernel_on_a_gpu_is_right_on_the_real_data() {
    use std::io::Write;
    let ran = evo(&["verify", "--device", "gpu", "--quick", "--filter", "minilm"]);
    let required = std::env::var("EVO_SDPA_REQUIRE_GPU").as_deref() == Ok("1");
    if ran.code == 2 && ran.stderr.contains("no NVIDIA GPU can be used") && !required {
        // Not with eprintln, which the test harness keeps to itself when a test passes.
        let _ = std::io::stderr().write_all(format!("\nGPU test is SKIPPED: {}", ran.stderr).as_bytes());
        return;
    }
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("answers are right"), "{}", ran.stdout);
}

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
}

#[cfg(not(feature = "gpu"))]
#[test]
fn bench_says_what_it_takes_to_time_kernels() {
    assert_refused(&evo(&["bench"]), &["no GPU can be used: built without the feature `gpu`"]);
}

const OUR_RESULTS: &str = "tests/data/results-ours.jsonl";
const PEER_RESULTS: &str = "tests/data/results-peers.jsonl";

/// A results file of the tests, changed.
fn changed(results: &str, name: &str, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(results)).expect("test data");
    assert!(text.contains(from), "{from}");
    let path = scratch(name);
    std::fs::write(&path, text.replace(from, to)).expect("the scratch folder can be written");
    path.to_str().expect("UTF-8").into()
}

#[test]
fn report_joins_our_results_and_the_peers_in_any_order() {
    let ran = evo(&["report", OUR_RESULTS, PEER_RESULTS]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for line in [
        "# Attention on Example GPU",
        "- **2 of 4**: calls on which we are ahead of every peer",
        "| (1,8,512,64) | none | `sm80_d64_q32_kv128_w8_x4_s1` | 5.10 | 10.2 | 8.20 | library B | **0.62** | 105 | - | 13 % |",
        "| (16,32/8,1/8192,128) | none | `sm80_d128_q64_kv64_w4_s2` | 400 | 125 | 100 | library B | 4.00 | 5.37 | 1343 | 34 % |",
        "| evo-sdpa | 2.0 % | bf16 (2,8,2048,64), 2 times | 4.0 % | bf16 (1,8,512,64), 2 times |",
        "| (1,8,512,64) | none | `sm80_d64_q128_kv64_w4_s2` | 8.16 | 1.60 | 8.00 | 128 | 0 | 49152 | 2 | 2.0e-3 |",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "no line {line}:\n{}", ran.stdout);
    }
    // Without an L4, a figure for it is a prediction.
    assert!(ran.stdout.contains("a prediction for an NVIDIA L4, on which nothing here was measured"), "{}", ran.stdout);
    assert_eq!(evo(&["report", PEER_RESULTS, OUR_RESULTS]).stdout, ran.stdout);
}

#[test]
fn the_summary_is_one_table() {
    let summary = "\
| (batch, heads/key heads, length/keys, head dim) | mask | kernel | us | TFLOP/s | best peer | its us | ours / best peer |
|---|---|---|---:|---:|---|---:|---:|
| (1,8,512,64) | none | `sm80_d64_q32_kv128_w8_x4_s1` | 5.10 | 105 | library B | 8.20 | **0.62** |
| (1,8,512,64) | causal | `sm80_d64_q32_kv128_w8_x4_s1` | 6.00 | 44.8 | library A | 10.0 | **0.60** |
| (2,8,2048,64) | none | `sm80_d64_q128_kv64_w4_s2` | 50.5 | 340 | library B | 41.0 | 1.23 |
| (16,32/8,1/8192,128) | none | `sm80_d128_q64_kv64_w4_s2` | 400 | 5.37 | library B | 100 | 4.00 |
";
    let ran = evo(&["report", "--summary", PEER_RESULTS, OUR_RESULTS]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, summary), "{}", ran.stderr);
    assert_refused(&evo(&["report", "--summary", PEER_RESULTS]), &["summary: no time of evo-sdpa"]);
    assert_eq!(evo(&["report", "--summary", "--out", "nowhere", OUR_RESULTS]).code, 2);
}

#[test]
fn the_page_of_a_report_needs_nothing_else_and_runs_nothing() {
    let peers = changed(PEER_RESULTS, "hostile.jsonl", "library B\",\"call", "<script>b('x')</script>|`*\",\"call");
    let folder = scratch("report");
    let ran = evo(&["report", OUR_RESULTS, &peers, "--out", folder.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let read = |name| std::fs::read_to_string(folder.join(name)).expect("the report is written");
    let (markdown, page) = (read("report.md"), read("report.html"));
    assert_eq!(markdown, evo(&["report", OUR_RESULTS, &peers]).stdout);
    assert!(markdown.contains(r"\<script\>b('x')\</script\>\|\`\*") && !markdown.contains(" <script"), "{markdown}");
    assert!(page.contains("&lt;script&gt;b(&#39;x&#39;)&lt;/script&gt;|`*"));
    for name in ["evo-sdpa us", "library A us"] {
        assert!(page.contains(name), "{name}");
    }
    // Ratio, rate by call, rate by length for one family, roofline.
    assert_eq!(page.matches("<svg").count(), 4);
    for resource in ["http", "<script", "<link", "<img", "<iframe", "@import", "url(", "src="] {
        assert!(!page.contains(resource), "{resource}");
    }
}

#[test]
fn results_that_do_not_belong_together_are_refused_with_both_values() {
    let other = changed(PEER_RESULTS, "other-device.jsonl", "Example GPU", "Other GPU");
    let ran = evo(&["report", OUR_RESULTS, &other]);
    assert_refused(&ran, &["results-ours.jsonl", "other-device.jsonl", "`Example GPU`", "`Other GPU`"]);
    let other = changed(OUR_RESULTS, "other-commit.jsonl", "0123456789abcdef", "fedcba9876543210");
    let ran = evo(&["report", OUR_RESULTS, &other]);
    assert_refused(&ran, &["commit of evo-sdpa", "`0123456789abcdef`", "`fedcba9876543210`", "other-commit.jsonl"]);
    let copy = changed(OUR_RESULTS, "copy.jsonl", "{", "{");
    assert_refused(&evo(&["report", OUR_RESULTS, &copy]), &[OUR_RESULTS, "holds the same lines as", "copy.jsonl"]);
    assert_refused(&evo(&["report", OUR_RESULTS, OUR_RESULTS]), &["holds the same lines as", "each file once"]);
}

#[test]
fn results_that_cannot_be_read_are_refused_with_their_line() {
    let cut = changed(OUR_RESULTS, "cut.jsonl", "\"p50\":6.0", "\"p50\":");
    assert_refused(&evo(&["report", PEER_RESULTS, &cut]), &["cut.jsonl, line 4: "]);
    let negative = changed(OUR_RESULTS, "negative.jsonl", "\"min\":4.95", "\"min\":-4.95");
    assert_refused(&evo(&["report", &negative]), &["negative.jsonl, line 2: device_us: -4.95"]);
    assert_refused(&evo(&["report", "no-such-file.jsonl"]), &["no-such-file.jsonl"]);
    assert_eq!(evo(&["report"]).code, 2, "no file");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(OUR_RESULTS)).expect("test data");
    let limits = scratch("limits.jsonl");
    std::fs::write(&limits, text.lines().next().unwrap()).unwrap();
    assert_refused(&evo(&["report", limits.to_str().unwrap()]), &["limits.jsonl: hold no time"]);
}

#[test]
fn figures_beyond_any_device_still_make_a_report() {
    let folder = scratch("extreme");
    for (i, (from, to)) in [
        ("[1,8,8,512,512,64]", "[1,8,8,512,0,64]"),
        ("[16,32,8,1,8192,128]", "[16,32,8,0,8192,128]"),
        ("\"causal\":\"none\"", "\"causal\":\"9000000000000000000\""),
        ("[1,8,8,512,512,64],\"causal\":\"none\"", "[1,1,1,1000000000000000000,2,1],\"causal\":\"999999999999999999\""),
        ("\"min\":4.95,\"p50\":5.0", "\"min\":1e-308,\"p50\":1e-308"),
        ("\"p99\":5.25", "\"p99\":1e308"),
        ("\"copy_gbs\":4000.0", "\"copy_gbs\":1e300"),
        ("\"bf16\":600.0", "\"bf16\":1e-300"),
    ]
    .into_iter()
    .enumerate()
    {
        let ours = changed(OUR_RESULTS, &format!("extreme-{i}.jsonl"), from, to);
        for others in [&[][..], &[PEER_RESULTS]] {
            let ran = evo(&[&["report", &ours, "--out", folder.to_str().unwrap()], others].concat());
            assert_eq!(ran.code, 0, "{to}: {}", ran.stderr);
        }
    }
}
