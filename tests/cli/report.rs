//! `evo-sdpa report`, on results of the tests.

use super::{assert_refused, evo, scratch};
use std::path::Path;

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
| (batch, heads/key heads, length/keys, head dim) | mask | kernel | us | library A | library B | ours / best | TFLOP/s |
|---|---|---|---:|---:|---:|---:|---:|
| (1,8,512,64) | none | `sm80_d64_q32_kv128_w8_x4_s1` | 5.10 | 10.2 | 8.20 | **0.62** | 105 |
| (1,8,512,64) | causal | `sm80_d64_q32_kv128_w8_x4_s1` | 6.00 | 10.0 | - | **0.60** | 44.8 |
| (2,8,2048,64) | none | `sm80_d64_q128_kv64_w4_s2` | 50.5 | 60.3 | 41.0 | 1.23 | 340 |
| (16,32/8,1/8192,128) | none | `sm80_d128_q64_kv64_w4_s2` | 400 | 125 | 100 | 4.00 | 5.37 |
";
    let ran = evo(&["report", "--summary", PEER_RESULTS, OUR_RESULTS]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, summary), "{}", ran.stderr);
    assert_refused(&evo(&["report", "--summary", PEER_RESULTS]), &["summary: no time of evo-sdpa"]);
    assert_eq!(evo(&["report", "--summary", "--out", "nowhere", OUR_RESULTS]).code, 2);
}

/// The first call of our results in e4m3 as well, twice as fast, and 10 us by library A.
#[test]
fn times_of_e4m3_inputs_stand_apart_from_others_from_other_scales_and_from_calls_that_quantise() {
    let e4m3 = |results: &str, name: &str, scales: &str| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(results)).expect("test data");
        let first =
            text.lines().find(|line| line.contains("[1,8,8,512,512,64],\"causal\":\"none\"")).expect("the call");
        let causal = format!("\"causal\":\"none\",\"out\":\"bf16\",\"scales\":\"{scales}\"");
        let line = first.replace("\"dtype\":\"bf16\"", "\"dtype\":\"e4m3\"").replace("\"causal\":\"none\"", &causal);
        // Quantised calls may choose a kernel of their own.
        let kernel = if name.contains("from") {
            "fwd_fp8_sm90_bf16_d64_q128_kv128_s3"
        } else {
            "fwd_fp8_bf16_d64_q64_kv64_w4_s2"
        };
        let line = line.replace("fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1", kernel);
        let line = line
            .replace("\"min\":4.95,\"p50\":5.0", "\"min\":2.4,\"p50\":2.5")
            .replace(&"1".repeat(64), &"9".repeat(64));
        let path = scratch(name);
        std::fs::write(&path, format!("{line}\n")).expect("the scratch folder can be written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let files = [
        e4m3(OUR_RESULTS, "e4m3-head.jsonl", "head"),
        e4m3(OUR_RESULTS, "e4m3-64.jsonl", "64"),
        e4m3(OUR_RESULTS, "e4m3-from.jsonl", "head\",\"from\":\"bf16"),
        e4m3(OUR_RESULTS, "e4m3-transposed.jsonl", "head\",\"values\":\"transposed"),
        e4m3(PEER_RESULTS, "e4m3-peer.jsonl", "head"),
    ];
    let files = files.each_ref().map(String::as_str);
    let ran = evo(&[&["report", OUR_RESULTS, PEER_RESULTS], &files[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for line in [
        "## Times, bf16",
        "## Times, e4m3 to bf16, scales: head",
        "## Times, e4m3 to bf16, scales: 64",
        "## Times, bf16 quantised to e4m3 to bf16, scales: head",
        "## Times, e4m3 to bf16, scales: head, values: transposed",
        "- **3 of 5**: calls on which we are ahead of every peer",
        "| (1,8,512,64) | none | `sm80_d64_q32_kv128_w8_x4_s1` | 5.10 | 10.2 | 8.20 | library B | **0.62** | 105 | - | 13 % |",
        // No rate of e4m3 products was measured, and that of bf16 is none.
        "| (1,8,512,64) | none | `fp8_d64_q64_kv64_w4_s2` | 2.50 | 10.0 | library A | **0.25** | 215 |",
        "| (1,8,512,64) | none | `fp8_d64_q64_kv64_w4_s2` | 2.50 | 215 |",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "no line {line}:\n{}", ran.stdout);
    }
    assert_eq!(ran.stdout.matches("no time is that of quantising").count(), 3, "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("when a call begins, values transposed: ").count(), 1, "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("its time is that of all of its launches").count(), 1, "{}", ran.stdout);
    // Of quantising the model knows a least time alone.
    let model = ran.stdout.split("\n## ").find(|section| section.starts_with("Model")).expect("a section");
    assert!(model.contains("| e4m3 to bf16, scales: head |") && !model.contains("quantised to"), "{model}");
    let summary = evo(&[&["report", "--summary", OUR_RESULTS, PEER_RESULTS], &files[..]].concat());
    assert!(summary.stdout.contains("| none | e4m3 to bf16, scales: 64 | `fp8_d64"), "{}", summary.stdout);
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
    // Ratio, rate by call, time and rate by length for one family, roofline.
    assert_eq!(page.matches("<svg").count(), 5);
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

/// The README names the run in a comment; the table below it is what the program makes of the run's files.
#[test]
fn the_readme_quotes_a_committed_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let (_, after) = readme.split_once("<!-- evo-sdpa report --summary ").expect("the comment");
    let (arguments, after) = after.split_once(" -->\n").expect("the end of the comment");
    let files: Vec<_> = arguments.split(' ').collect();
    assert!(files.iter().all(|file| file.starts_with("benches/runs/")), "{arguments}");
    let ran = evo(&[&["report", "--summary"], &files[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (table, _) = after.split_once("\n\n").expect("the end of the table");
    assert_eq!(table, ran.stdout.trim_end());
}
