//! `evo-sdpa tune`, and plans by its tables.

use super::{assert_refused, evo, evo_with, json, scratch};
use std::fs;

const PROBLEM: [&str; 5] = ["inspect", "--shape", "1,8,8,512,512,64", "--arch", "sm_90"];
/// Not what the model picks.
const FAST: &str = "fwd_sm80_bf16_d64_q64_kv64_w4_s2";
const CHOSEN: &str = "fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1";

/// A time of a kernel on `PROBLEM`, as `bench` writes it.
fn record(kernel: &str, us: f64, chosen: bool, cold: bool) -> String {
    let text = fs::read_to_string("tests/data/results-ours.jsonl").unwrap();
    let times = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut record = times.into_iter().find(|record| record["kind"] == "time").unwrap();
    record["setup"]["device"] = "NVIDIA H200".into();
    record["call"] = serde_json::json!({ "dtype": "bf16", "shape": [1, 8, 8, 512, 512, 64], "causal": "none" });
    record["method"]["cold"] = cold.into();
    record["device_us"] = serde_json::json!({ "min": us, "p50": us, "p90": us, "p99": us });
    record["kernel"]["name"] = kernel.into();
    record["kernel"]["chosen"] = chosen.into();
    format!("{record}\n")
}

/// The record with e4m3 inputs.
fn of_e4m3(record: &str) -> String {
    let mut record: serde_json::Value = serde_json::from_str(record).unwrap();
    record["call"]["dtype"] = "e4m3".into();
    record["call"]["out"] = "bf16".into();
    record["call"]["scales"] = "head".into();
    format!("{record}\n")
}

/// Runs `tune` on these records, with the table in the file of this name.
fn tune(name: &str, records: &[String]) -> (super::Ran, String) {
    let (results, table) = (scratch(&format!("{name}.jsonl")), scratch(&format!("{name}.json")));
    fs::write(&results, records.concat()).unwrap();
    let table = table.to_str().unwrap().to_owned();
    (evo(&["tune", results.to_str().unwrap(), "--out", &table]), table)
}

#[test]
fn the_fastest_kernel_of_a_benchmark_is_planned_from_then_on() {
    let _ = fs::remove_file(scratch("tuned.json"));
    let records = [
        record(CHOSEN, 5.0, true, false),
        record(FAST, 4.75, false, false),
        // Neither cold caches nor dependent launches say which kernel a plan should have, nor do times of e4m3 inputs.
        record(CHOSEN, 1.0, true, true),
        record(&format!("{CHOSEN} dependent"), 1.0, false, false),
        of_e4m3(&record("fwd_fp8_bf16_d64_q64_kv64_w4_s2", 1.0, false, false)),
        record("fwd_sm80_bf16_d64_q128_kv64_w4_s2", 9.0, false, false),
    ];
    let (ran, table) = tune("tuned", &records);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains(FAST) && ran.stdout.contains("4.75  new"), "{}", ran.stdout);

    let shape = [&PROBLEM[..], &["--json"]].concat();
    assert_eq!(json(&evo(&shape))["kernel"], CHOSEN);
    let plan = json(&evo_with(&shape, &[("EVO_SDPA_TUNED", &table)]));
    assert_eq!(plan["kernel"], FAST);
    assert_eq!(plan["reason"], "the fastest by the tuned table: 4.75 us measured");
    let l4 = ["inspect", "--shape", "1,8,8,512,512,64", "--arch", "sm_89"];
    assert!(!evo_with(&l4, &[("EVO_SDPA_TUNED", &table)]).stdout.contains("tuned"), "a table of another device");
}

#[test]
fn a_row_has_the_splits_of_its_record() {
    let _ = fs::remove_file(scratch("splits.json"));
    let decode = "decode_bf16_d64_q16_kv16_w4_s4";
    let mut split: serde_json::Value = serde_json::from_str(&record(decode, 4.5, false, false)).unwrap();
    split["kernel"]["splits"] = 3.into();
    let (ran, table) = tune("splits", &[record(CHOSEN, 5.0, true, false), format!("{split}\n")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let text = fs::read_to_string(table).unwrap();
    assert!(text.contains(decode) && text.contains("\"splits\":3"), "{text}");
    // A record that does not say leaves it to the plan.
    let (_, table) = tune("splits", &[record(CHOSEN, 5.0, true, false), record(decode, 4.0, false, false)]);
    let text = fs::read_to_string(table).unwrap();
    assert!(text.contains(decode) && !text.contains("splits"), "{text}");
}

#[test]
fn a_table_is_merged_into_the_file_and_what_changed_is_said() {
    let _ = fs::remove_file(scratch("merged.json"));
    tune("merged", &[record(CHOSEN, 5.0, true, false), record(FAST, 4.75, false, false)]);
    let (ran, table) = tune("merged", &[record(CHOSEN, 4.5, true, false), record(FAST, 4.75, false, false)]);
    assert!(ran.stdout.contains(&format!("was {FAST}, 4.75 us")), "{}", ran.stdout);
    let text = fs::read_to_string(table).unwrap();
    assert!(text.contains(CHOSEN) && !text.contains(FAST), "{text}");
}

#[test]
fn times_that_do_not_say_which_kernel_is_the_fastest_make_no_row() {
    for (name, records) in [
        ("alone", vec![record(CHOSEN, 5.0, true, false)]),
        (
            "unchosen",
            vec![record(FAST, 5.0, false, false), record("fwd_sm80_bf16_d64_q128_kv64_w4_s2", 9.0, false, false)],
        ),
    ] {
        let _ = fs::remove_file(scratch(&format!("{name}.json")));
        let (ran, table) = tune(name, &records);
        assert!(ran.stdout.contains("left out"), "{}", ran.stdout);
        assert_eq!(fs::read_to_string(table).unwrap(), "{}\n");
    }
}

#[test]
fn a_table_that_cannot_be_read_is_refused_and_named() {
    let broken = scratch("broken.json");
    fs::write(&broken, "{\"NVIDIA H200\": 1}").unwrap();
    for (table, reason) in [("no/such/table.json", "No such file"), (broken.to_str().unwrap(), "invalid type")] {
        assert_refused(&evo_with(&PROBLEM, &[("EVO_SDPA_TUNED", table)]), &["tuned: ", table, reason]);
    }
    let results = scratch("good.jsonl");
    fs::write(&results, record(CHOSEN, 5.0, true, false)).unwrap();
    let args = ["tune", results.to_str().unwrap(), "--out", broken.to_str().unwrap()];
    assert_refused(&evo(&args), &["tuned: ", "broken.json"]);
    assert_refused(&evo(&["tune", "no/such/results.jsonl"]), &["no/such/results.jsonl"]);
}
