//! `evo-sdpa profile`, on tables of Nsight Compute.

use super::{LAYER_0, Ran, assert_refused, evo, json, scratch};

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
    for words in [
        "kernel   fwd_sm80_bf16_d64_q128_kv64_w4_s2",
        "time     56.35 us, 100688 cycles",
        "limiter    latency: no unit is busy for long, the busiest (tensor cores) 50.9 % of the time",
        "an SM has no block 7.0 % of the time, on average; 256 blocks fill the GPU 0.97 times",
        "gate       DRAM < 50 %: 4.7 %, passes",
    ] {
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
