//! The program run for real: what it answers, and that whatever it is given it never panics.

mod bench;
mod fp8;
mod inspect;
mod profile;
mod report;
mod run;
mod sim;
mod tune;
mod verify;

use serde_json::Value;
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
    evo_with(args, &[])
}

/// With these environment variables.
fn evo_with(args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_evo-sdpa"))
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
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
