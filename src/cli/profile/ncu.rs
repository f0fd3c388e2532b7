//! Nsight Compute, started on this very program.

use super::metrics;
use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// What the driver says where only administrators may read the counters.
const NO_PERMISSION: &str = "ERR_NVGPUCTRPERM";
/// What Nsight Compute says when nothing was launched under the kernel's name.
const NOTHING_PROFILED: &str = "No kernels were profiled";

/// Fails where Nsight Compute cannot be started.
pub fn check(ncu: &Path) -> Result<()> {
    let started = Command::new(ncu).arg("--version").output();
    let hint = || format!("ncu: cannot start `{}`, allowed: the program of NVIDIA Nsight Compute", ncu.display());
    match started.with_context(hint)?.status {
        status if status.success() => Ok(()),
        status => bail!("ncu: `{} --version` ended with {status}", ncu.display()),
    }
}

/// The arguments of a run that profiles one launch of `kernel` by this program with `launch` as its own arguments, after
/// `skip` launches.
///
/// Clocks stay as they are; Nsight Compute flushes the caches before the launch, its default.
pub fn arguments(kernel: &str, compute_capability: u32, skip: u32, launch: Vec<OsString>) -> Result<Vec<OsString>> {
    let options = [
        ["--page", "raw"],
        ["--print-units", "base"],
        ["--metrics", &metrics::all(compute_capability).join(",")],
        ["--kernel-name", &format!("regex:^{kernel}$")],
        ["--launch-skip", &skip.to_string()],
        ["--launch-count", "1"],
        ["--clock-control", "none"],
        ["--target-processes", "all"],
    ]
    .concat()
    .into_iter()
    .map(OsString::from)
    .collect::<Vec<_>>();
    let program = std::env::current_exe().context("the program's own path")?;
    Ok([vec!["--csv".into()], options, vec![program.into()], launch].concat())
}

/// Runs Nsight Compute and returns what it prints: a table of one launch.
pub fn run(ncu: &Path, arguments: &[OsString]) -> Result<String> {
    // In this locale numbers have commas between thousands, if anything.
    let output = Command::new(ncu).args(arguments).env("LC_ALL", "C").output();
    let output = output.with_context(|| format!("ncu: cannot start `{}`", ncu.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    table(text(&output.stdout), &text(&output.stderr), output.status.success())
}

/// The output of a run that went well, or what went wrong.
fn table(stdout: String, stderr: &str, success: bool) -> Result<String> {
    let lines = || stdout.lines().chain(stderr.lines());
    let says = |words| lines().any(|line| line.contains(words));
    if says(NO_PERMISSION) {
        bail!(
            "ncu: the driver lets only administrators read the GPU's counters ({NO_PERMISSION}), allowed: to run as \
             root, or a driver loaded with NVreg_RestrictProfilingToAdminUsers=0"
        );
    }
    if success && says(NOTHING_PROFILED) {
        bail!("ncu: no launch of the kernel was seen");
    }
    if success {
        return Ok(stdout);
    }
    let errors: Vec<_> =
        lines().filter(|line| line.starts_with("==ERROR==") || line.starts_with("evo-sdpa:")).collect();
    let said = if errors.is_empty() { stderr.lines().last().unwrap_or("nothing") } else { &errors.join("; ") };
    Err(anyhow!("ncu: failed, and said {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(stdout: &str, stderr: &str, success: bool) -> String {
        table(stdout.into(), stderr, success).unwrap_err().to_string()
    }

    #[test]
    fn counters_that_may_not_be_read_are_told_from_other_failures() {
        let words = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance \
                     Counters on the target device 0.";
        for (stdout, stderr) in [(words, ""), ("", words)] {
            for success in [true, false] {
                assert!(refused(stdout, stderr, success).contains("NVreg_RestrictProfilingToAdminUsers=0"));
            }
        }
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_those_who_failed() {
        let stdout = "==PROF== Connected to process 7\n==ERROR== The application returned an error code (2).\n";
        let said = refused(stdout, "evo-sdpa: q_len: too long\nand more\n", false);
        assert!(said.contains("error code (2).; evo-sdpa: q_len: too long") && !said.contains("more"), "{said}");
        assert!(refused("", "ncu: unknown option\n", false).contains("unknown option"));
        assert!(refused("", "", false).contains("nothing"));
    }

    #[test]
    fn a_kernel_that_was_never_launched_is_an_error() {
        let words = "==PROF== Disconnected from process 7\n==WARNING== No kernels were profiled.\n";
        assert!(refused(words, "", true).contains("no launch of the kernel"));
        assert_eq!(table("\"ID\"".into(), "==WARNING== slow\n", true).unwrap(), "\"ID\"");
    }

    #[test]
    fn one_launch_of_one_kernel_is_profiled() {
        let launch = vec!["profile".into(), "--launch".into()];
        let arguments = arguments("fwd_x", 90, 2, launch).unwrap();
        let after = |option: &str| {
            let at = arguments.iter().position(|argument| argument == option).unwrap();
            arguments[at + 1].to_str().unwrap()
        };
        assert_eq!(
            (after("--kernel-name"), after("--launch-skip"), after("--launch-count")),
            ("regex:^fwd_x$", "2", "1")
        );
        assert_eq!(after("--metrics").split(',').count(), metrics::all(90).len());
        assert_eq!(after(std::env::current_exe().unwrap().to_str().unwrap()), "profile");
    }
}
