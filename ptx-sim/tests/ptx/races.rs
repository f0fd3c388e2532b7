//! Planted races: what the simulator finds, next to what compute-sanitizer's racecheck reported on a GPU.
//!
//! `races/races.ptx` holds the kernels, `races/record.py` runs them on a GPU, `races/racecheck.txt` is what it wrote.

use ptx_sim::{Delivery, Device, Kind, Launch, Module, Options, Report, WarpOrder};

const TEXT: &str = include_str!("../races/races.ptx");
const RECORD: &str = include_str!("../races/racecheck.txt");

/// A kernel with its race, or the same without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    Race,
    Clean,
}

/// Where racecheck and the simulator differ, and why.
const DIFFERENCES: [(&str, Twin, &str); 7] = [
    ("producer_one_step_ahead", Twin::Race, "racecheck takes any barrier for one of the whole block"),
    ("producer_one_step_ahead", Twin::Clean, "racecheck does not see that bar.arrive orders: a false alarm"),
    ("barrier_of_half_the_block", Twin::Race, "racecheck takes any barrier for one of the whole block"),
    ("same_value_from_two_warps", Twin::Race, "racecheck lets writes of the same value pass, PTX does not"),
    ("atomic_next_to_a_read", Twin::Race, "racecheck leaves atomic operations out"),
    ("histogram_that_is_cleared_late", Twin::Race, "racecheck leaves atomic operations out"),
    ("stmatrix_before_the_barrier", Twin::Race, "racecheck leaves stmatrix out"),
];

/// The module with the races, or the one without.
fn twin(twin: Twin) -> Module {
    let other = if twin == Twin::Race { "// clean" } else { "// race" };
    let kept = TEXT.lines().map(|line| if line.ends_with(other) { "" } else { line });
    Module::parse(&kept.collect::<Vec<_>>().join("\n")).unwrap_or_else(|error| panic!("{error}"))
}

fn run(module: &Module, entry: &str, options: Options) -> Report {
    let block = module.entry(entry).and_then(|entry| entry.required_threads).expect("the block is fixed");
    let mut device = Device::new();
    let (out, input) = (device.alloc(1 << 10), device.upload(&[1; 1 << 10]));
    let params: Vec<u8> = [out, input].iter().flat_map(|buffer| buffer.address().to_le_bytes()).collect();
    let launch = Launch { entry, grid: [1; 3], block, cluster: None, shared_bytes: 0, params: &params, options };
    device.launch(module, &launch).unwrap_or_else(|error| panic!("{error}"))
}

/// Each way to schedule a block.
fn schedules() -> impl Iterator<Item = Options> {
    let orders = [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random];
    orders.into_iter().flat_map(|warp_order| {
        [Delivery::Late, Delivery::Immediate].map(|delivery| Options { warp_order, delivery, ..Options::default() })
    })
}

/// Whether racecheck reported hazards.
fn recorded(kernel: &str, twin: Twin) -> bool {
    let start = format!("{kernel} {}: ", if twin == Twin::Race { "race" } else { "clean" });
    let verdict = RECORD.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}?"));
    assert_ne!(verdict, "failed");
    verdict != "clean"
}

#[test]
fn every_planted_race_is_found_whatever_the_schedule() {
    let module = twin(Twin::Race);
    for kernel in module.entries() {
        let kind = match kernel {
            "last_steps_in_a_warp" | "lanes_write_different_values" => Kind::IntraWarpRace,
            "copy_without_its_wait" => Kind::AsyncInFlight,
            _ => Kind::SharedRace,
        };
        for options in schedules() {
            let report = run(&module, kernel, options);
            assert!(report.findings.iter().any(|finding| finding.kind == kind), "{options:?}\n{report}");
        }
    }
}

#[test]
fn nothing_is_found_in_the_twins_without() {
    let module = twin(Twin::Clean);
    for kernel in module.entries() {
        for options in schedules() {
            let report = run(&module, kernel, options);
            assert!(report.is_clean(), "{options:?}\n{report}");
        }
    }
}

#[test]
fn racecheck_agrees_but_for_the_differences_that_are_named() {
    let mut agreed = 0;
    let module = twin(Twin::Race);
    for kernel in module.entries() {
        for which in [Twin::Race, Twin::Clean] {
            let differs = DIFFERENCES.iter().any(|(name, twin, _)| *name == kernel && *twin == which);
            let agrees = recorded(kernel, which) == (which == Twin::Race);
            assert_ne!(agrees, differs, "{kernel} {which:?}");
            agreed += u32::from(agrees && which == Twin::Race);
        }
    }
    assert_eq!((module.entries().count(), agreed), (22, 16));
}
