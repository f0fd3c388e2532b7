//! What the figures of a launch say, in words.

use super::metrics::{
    BANK_CONFLICTS, CYCLES, CYCLES_ACTIVE, DRAM, GRID_SIZE, ISSUE, LIMITS, REGISTERS, SELECTED, SHARED, STALLS, Stall,
    TENSOR, UNITS, Unit, WARPS_ACTIVE, WAVEFRONTS, WAVES, stall,
};
use super::parse::Profile;

/// A unit that is busy for so long limits the launch, percent; NVIDIA's guides draw the lines at the same places.
const LIMITING: f64 = 80.0;
/// Below this no unit does, and what counts is the time that work takes from start to end.
const LATENCY: f64 = 60.0;
/// Shares of time below this are not worth a finding.
const WORTH: f64 = 0.05;
/// Reasons to wait that are named.
const NAMED_STALLS: usize = 3;
/// The line of both gates, percent.
const GATE: f64 = 50.0;

/// One thing that the figures say.
#[derive(Debug, PartialEq)]
pub struct Finding {
    /// What it is about, one word.
    pub kind: &'static str,
    /// Part of the time that it is about, 0 to 1; 1 for the limiter.
    pub share: f64,
    /// The finding with its figures.
    pub text: String,
}

/// A condition on a figure.
#[derive(Debug, PartialEq)]
pub struct Gate {
    /// Which figure.
    pub name: &'static str,
    /// What it has to be, percent.
    pub allowed: &'static str,
    /// What it is, percent, if it was measured.
    pub measured: Option<f64>,
    /// Whether it is as it has to be. What was not measured is not.
    pub passes: bool,
}

/// The limiter, and all else by the share of time that it is about, the largest first. A figure that is missing has no
/// finding.
pub fn findings(profile: &Profile) -> Vec<Finding> {
    let others = [idle_sms(profile), waits(profile), bank_conflicts(profile), occupancy(profile)];
    let mut findings: Vec<_> = [limiter(profile)].into_iter().chain(others).flatten().collect();
    findings.sort_by(|a, b| b.share.total_cmp(&a.share));
    findings
}

/// The conditions of which a launch has to meet one: a kernel either keeps the tensor cores busy or is at least not
/// bound by memory.
pub fn gates(profile: &Profile) -> [Gate; 2] {
    let gate = |name, allowed, measured: Option<f64>, passes: fn(f64) -> bool| Gate {
        name,
        allowed,
        measured,
        passes: measured.is_some_and(passes),
    };
    [
        gate("tensor cores", ">= 50 %", busy(&TENSOR, profile), |busy| busy >= GATE),
        gate("DRAM", "< 50 %", busy(&DRAM, profile), |busy| busy < GATE),
    ]
}

/// How busy a unit was, percent.
pub fn busy(unit: &Unit, profile: &Profile) -> Option<f64> {
    unit.busy(|metric| profile.get(metric))
}

fn limiter(profile: &Profile) -> Option<Finding> {
    let units = UNITS.iter().filter_map(|unit| Some((unit.name, busy(unit, profile)?)));
    let (name, most) = units.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let text = match most {
        LIMITING.. => format!("{name}, busy {most:.1} % of the time"),
        LATENCY.. => format!("{name} for the most part, busy {most:.1} % of the time; the rest is latency"),
        _ => format!("latency: no unit is busy for long, the busiest ({name}) {most:.1} % of the time"),
    };
    let tensor = busy(&TENSOR, profile).filter(|_| name != TENSOR.name);
    let tensor = tensor.map_or(String::new(), |busy| format!("; tensor cores {busy:.1} %"));
    Some(Finding { kind: "limiter", share: 1.0, text: text + &tensor })
}

fn idle_sms(profile: &Profile) -> Option<Finding> {
    let (active, elapsed) = (profile.get(CYCLES_ACTIVE)?, profile.get(CYCLES)?);
    let share = 1.0 - active / elapsed;
    let grid = match (profile.get(GRID_SIZE), profile.get(WAVES)) {
        (Some(blocks), Some(waves)) => format!("; {blocks} blocks fill the GPU {waves:.2} times"),
        _ => String::new(),
    };
    (share >= WORTH).then(|| Finding {
        kind: "idle",
        share,
        text: format!("an SM has no block {:.1} % of the time, on average{grid}", share * 100.0),
    })
}

fn waits(profile: &Profile) -> Option<Finding> {
    let issuing = profile.get(&stall(SELECTED))?;
    let mut waits: Vec<(&Stall, f64)> =
        STALLS.iter().filter_map(|found| Some((found, profile.get(&stall(found.reason))?))).collect();
    waits.sort_by(|a, b| b.1.total_cmp(&a.1));
    let waiting: f64 = waits.iter().map(|(_, cycles)| cycles).sum();
    let total = issuing + waiting;
    let named = waits.iter().take(NAMED_STALLS).filter(|(_, cycles)| *cycles >= WORTH * total);
    let named: Vec<_> = named.map(|(wait, cycles)| format!("{} {cycles:.1} ({})", wait.what, wait.reason)).collect();
    // A scheduler that issues does not lose what its other warps wait for.
    let lost = 1.0 - busy(&ISSUE, profile).unwrap_or(0.0) / 100.0;
    (total > 0.0 && !named.is_empty()).then(|| Finding {
        kind: "waits",
        share: waiting / total * lost,
        text: format!("of {total:.1} cycles an instruction, a warp waits for {}", named.join(", ")),
    })
}

fn bank_conflicts(profile: &Profile) -> Option<Finding> {
    let (conflicts, wavefronts) = (profile.get(BANK_CONFLICTS)?, profile.get(WAVEFRONTS)?);
    let part = conflicts / wavefronts;
    (part >= WORTH).then(|| Finding {
        kind: "conflicts",
        share: part * busy(&SHARED, profile).unwrap_or(100.0) / 100.0,
        text: format!("bank conflicts: {conflicts} of {wavefronts} wavefronts of shared memory, {:.1} %", part * 100.0),
    })
}

/// Says what bounds the warps of an SM. Few warps cost no time in themselves, so it comes last.
fn occupancy(profile: &Profile) -> Option<Finding> {
    let warps = profile.get(WARPS_ACTIVE)?;
    let limits = || LIMITS.iter().filter_map(|limit| Some((limit.name, profile.get(limit.metric)?)));
    let least = limits().map(|(_, blocks)| blocks).reduce(f64::min)?;
    let names: Vec<_> = limits().filter(|&(_, blocks)| blocks == least).map(|(name, _)| name).collect();
    let registers = profile.get(REGISTERS).map_or(String::new(), |n| format!("; {n} registers a thread"));
    Some(Finding {
        kind: "occupancy",
        share: 0.0,
        text: format!(
            "{warps:.1} % of an SM's warp slots are in use; at most {least} blocks fit, by {}{registers}",
            names.join(" and ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSOR_BUSY: &str = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active";
    const DRAM_BUSY: &str = "dram__throughput.avg.pct_of_peak_sustained_elapsed";
    const ISSUE_BUSY: &str = "smsp__issue_active.avg.pct_of_peak_sustained_active";

    fn profile(figures: &[(&str, f64)]) -> Profile {
        let names: String = figures.iter().map(|(name, _)| format!(",\"{name}\"")).collect();
        let values: String = figures.iter().map(|(_, value)| format!(",\"{value}\"")).collect();
        let units = ",\"\"".repeat(figures.len());
        let about = r#""ID","Kernel Name","Block Size","Grid Size","CC""#;
        let launch = r#""0","fwd","(128, 1, 1)","(8, 8, 2)","9.0""#;
        Profile::parse(&format!("{about}{names}\n\"\",\"\",\"\",\"\",\"\"{units}\n{launch}{values}\n")).unwrap()
    }

    #[track_caller]
    fn finding(figures: &[(&str, f64)], kind: &str) -> Finding {
        let findings = findings(&profile(figures));
        findings.into_iter().find(|finding| finding.kind == kind).expect("a finding of this kind")
    }

    #[test]
    fn a_busy_unit_is_the_limiter_and_otherwise_latency_is() {
        for (tensor, dram, limiter) in [
            (85.0, 12.0, "tensor cores, busy 85.0 %"),
            (65.0, 12.0, "tensor cores for the most part, busy 65.0 %"),
            (10.0, 91.0, "DRAM, busy 91.0 % of the time; tensor cores 10.0 %"),
            (41.0, 3.0, "latency: no unit is busy for long, the busiest (tensor cores) 41.0 %"),
        ] {
            let text = finding(&[(TENSOR_BUSY, tensor), (DRAM_BUSY, dram)], "limiter").text;
            assert!(text.starts_with(limiter), "{text}");
        }
    }

    #[test]
    fn the_newer_count_of_the_tensor_cores_goes_first() {
        let newer = "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_active";
        let profile = profile(&[(TENSOR_BUSY, 20.0), (newer, 60.0)]);
        assert_eq!(gates(&profile)[0].measured, Some(60.0));
    }

    #[test]
    fn a_warp_waits_most_for_what_is_named_first() {
        let figures = [
            (&stall("selected")[..], 1.0),
            (&stall("wait"), 0.2),
            (&stall("barrier"), 0.5),
            (&stall("long_scoreboard"), 2.3),
            (ISSUE_BUSY, 50.0),
        ];
        let Finding { share, text, .. } = finding(&figures, "waits");
        let expected = "of 4.0 cycles an instruction, a warp waits for data from global or local memory 2.3 \
                        (long_scoreboard), other warps at a barrier 0.5 (barrier), the fixed latency of its \
                        instructions 0.2 (wait)";
        assert_eq!(text, expected);
        assert!((share - 0.375).abs() < 1e-12, "three of four cycles, half of them lost: {share}");
    }

    #[test]
    fn findings_come_in_the_order_of_the_time_that_they_are_about() {
        let figures = [
            (TENSOR_BUSY, 30.0),
            (CYCLES, 1000.0),
            (CYCLES_ACTIVE, 700.0),
            (BANK_CONFLICTS, 50.0),
            (WAVEFRONTS, 100.0),
            (WARPS_ACTIVE, 12.5),
            ("launch__occupancy_limit_registers", 2.0),
            ("launch__occupancy_limit_shared_mem", 1.0),
        ];
        let kinds = |figures: &[_]| findings(&profile(figures)).into_iter().map(|found| found.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&figures), ["limiter", "conflicts", "idle", "occupancy"]);
        assert!(finding(&figures, "occupancy").text.contains("at most 1 blocks fit, by shared memory"));
        let quiet = [("l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_active", 10.0)];
        assert_eq!(kinds(&[&figures[..], &quiet].concat()), ["limiter", "idle", "conflicts", "occupancy"]);
    }

    #[test]
    fn what_was_not_measured_has_no_finding_and_passes_no_gate() {
        assert_eq!(findings(&profile(&[])), []);
        assert_eq!(gates(&profile(&[])).map(|gate| (gate.measured, gate.passes)), [(None, false); 2]);
        let without_shared_memory = [(BANK_CONFLICTS, 0.0), (WAVEFRONTS, 0.0), (CYCLES, 0.0), (CYCLES_ACTIVE, 0.0)];
        assert_eq!(findings(&profile(&without_shared_memory)), []);
        assert_eq!(findings(&profile(&[(&stall("selected"), 0.0), (&stall("wait"), 0.0)])), []);
    }

    #[test]
    fn a_gate_passes_on_its_own_side_of_the_line() {
        let passes =
            |tensor, dram| gates(&profile(&[(TENSOR_BUSY, tensor), (DRAM_BUSY, dram)])).map(|gate| gate.passes);
        assert_eq!(passes(50.0, 50.0), [true, false]);
        assert_eq!(passes(49.9, 49.9), [false, true]);
    }
}
