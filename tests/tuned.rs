//! Measured times go before the model, and a table that is out of date breaks nothing.

use evo_sdpa::{Causal, DType, DeviceSpec, Error, Plan, Problem, Reason, Tuned, TunedKernels, TunedProblem, TunedRow};

const H200: &str = "NVIDIA H200";
/// Takes the problem below, and is not what the model picks.
const SLOW: &str = "fwd_sm80_bf16_d64_q64_kv64_w4_s2";

fn problem() -> Problem {
    Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64])
}

fn row(problem: &Problem, kernel: &str) -> TunedRow {
    TunedRow { problem: TunedProblem::of(problem), kernel: kernel.into(), splits: None, us: 4.5 }
}

fn kernels(row: TunedRow) -> TunedKernels {
    let mut tuned = Tuned::default();
    tuned.set(H200, row);
    tuned.kernels(H200)
}

fn plan(problem: &Problem, tuned: &TunedKernels) -> Plan {
    Plan::tuned(problem, &DeviceSpec::H200, tuned).unwrap()
}

#[test]
fn the_table_goes_before_the_model_and_says_so() {
    let model = Plan::new(&problem(), &DeviceSpec::H200).unwrap();
    let tuned = plan(&problem(), &kernels(row(&problem(), SLOW)));
    assert_ne!(model.kernel.to_string(), SLOW);
    assert_eq!(tuned.kernel.to_string(), SLOW);
    assert_eq!(tuned.reason, Reason::Tuned { us: 4.5 });
    assert!(tuned.to_string().ends_with("(the fastest by the tuned table: 4.50 us measured)"), "{tuned}");
    // All else is as if the caller had asked for the kernel.
    let mut forced = Plan::with_kernel(&problem(), &DeviceSpec::H200, tuned.kernel).unwrap();
    forced.reason = tuned.reason;
    assert_eq!(tuned, forced);
}

#[test]
fn a_problem_that_differs_in_one_size_or_in_its_mask_is_another() {
    let table = kernels(row(&problem(), SLOW));
    for shape in [
        [2, 8, 8, 512, 512, 64],
        [1, 16, 8, 512, 512, 64],
        [1, 8, 4, 512, 512, 64],
        [1, 8, 8, 511, 512, 64],
        [1, 8, 8, 512, 513, 64],
        [1, 8, 8, 512, 512, 56],
    ] {
        let other = Problem::contiguous(DType::Bf16, shape);
        assert_eq!(plan(&other, &table), Plan::new(&other, &DeviceSpec::H200).unwrap(), "{other}");
    }
    for other in [
        Problem::contiguous(DType::F16, [1, 8, 8, 512, 512, 64]),
        problem().with_causal(Some(Causal::BottomRight)),
        problem().with_kv_lens(true),
    ] {
        assert!(!matches!(plan(&other, &table).reason, Reason::Tuned { .. }), "{other}");
    }
    let same = problem().with_lse(true).with_scale(Some(0.5));
    assert!(matches!(plan(&same, &table).reason, Reason::Tuned { .. }));
}

#[test]
fn masks_that_hide_the_same_keys_are_one_problem() {
    let table = kernels(row(&problem().with_causal(Some(Causal::BottomRight)), SLOW));
    for mask in [Causal::BottomRight, Causal::TopLeft, Causal::Offset(0)] {
        assert_eq!(plan(&problem().with_causal(Some(mask)), &table).kernel.to_string(), SLOW, "{mask}");
    }
}

#[test]
fn a_stale_row_is_left_out_and_the_model_plans() {
    let model = Plan::new(&problem(), &DeviceSpec::H200).unwrap();
    let unknown_type = TunedProblem { dtype: "e4m3".into(), ..TunedProblem::of(&problem()) };
    for stale in [
        // Of another version.
        row(&problem(), "fwd_sm80_bf16_d64_q8192_kv64_w4_s2"),
        row(&problem(), "fwd_sm120"),
        // Not a kernel that splits, and no number of parts.
        TunedRow { splits: Some(4), ..row(&problem(), SLOW) },
        TunedRow { splits: Some(0), ..row(&problem(), "decode_bf16_d64_q16_kv16_w4_s4") },
        TunedRow { problem: unknown_type, ..row(&problem(), SLOW) },
    ] {
        assert!(kernels(stale.clone()).is_empty(), "{stale:?}");
        assert_eq!(plan(&problem(), &kernels(stale)), model);
    }
    // A kernel that ships and does not take the problem.
    let table = kernels(row(&problem(), "fwd_sm80_f16_d64_q64_kv64_w4_s2"));
    assert_eq!(table.len(), 1);
    assert_eq!(plan(&problem(), &table), model);
}

#[test]
fn a_row_brings_its_splits_and_without_any_the_plan_has_its_own() {
    let decoding = Problem::contiguous(DType::Bf16, [1, 32, 8, 1, 32768, 128]);
    let row = row(&decoding, "decode_bf16_d128_q16_kv16_w4_s2");
    let split = plan(&decoding, &kernels(TunedRow { splits: Some(12), ..row.clone() }));
    // 512 steps of 64 keys: 43 a part.
    assert_eq!((split.splits.count, split.splits.keys), (12, 43 * 64));
    assert!(split.to_string().ends_with("keys in 12 splits of 2752, as in the tuned table"), "{split}");
    let own = plan(&decoding, &kernels(row));
    assert!(matches!(own.reason, Reason::Tuned { .. }) && own.splits.count == 16, "{own}");
}

#[test]
fn a_row_of_a_problem_that_no_kernel_takes_does_not_get_past_the_checks() {
    let odd = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 60]);
    let error = Plan::tuned(&odd, &DeviceSpec::H200, &kernels(row(&odd, SLOW))).unwrap_err();
    assert_eq!(error, Plan::new(&odd, &DeviceSpec::H200).unwrap_err());
}

#[test]
fn a_table_is_for_the_devices_that_it_names() {
    let mut tuned = Tuned::default();
    assert_eq!(tuned.set(H200, row(&problem(), SLOW)), None);
    assert!(tuned.kernels("NVIDIA L4").is_empty());
    assert_eq!(tuned.kernels(H200).len(), 1);
}

#[test]
fn a_table_is_read_back_as_it_was_written_whatever_the_order_of_its_rows() {
    let rows = [row(&problem(), SLOW), row(&problem().with_causal(Some(Causal::TopLeft)), SLOW)];
    let (mut one, mut other) = (Tuned::default(), Tuned::default());
    rows.iter().for_each(|row| assert_eq!(one.set(H200, row.clone()), None));
    rows.iter().rev().for_each(|row| assert_eq!(other.set(H200, row.clone()), None));
    assert_eq!(one.to_json(), other.to_json());
    assert_eq!(Tuned::parse("a", &one.to_json()).unwrap(), one);
    assert_eq!(one.to_json().lines().count(), 6, "a line for each row:\n{}", one.to_json());
    assert_eq!(Tuned::parse("a", &Tuned::default().to_json()).unwrap(), Tuned::default());
}

#[test]
fn a_later_time_takes_the_place_of_the_earlier_one() {
    let mut tuned = Tuned::default();
    let later = TunedRow { us: 4.25, ..row(&problem(), SLOW) };
    tuned.set(H200, row(&problem(), SLOW));
    assert_eq!(tuned.set(H200, later), Some(row(&problem(), SLOW)));
    assert!(tuned.to_json().contains("4.25") && !tuned.to_json().contains("4.5,"), "{}", tuned.to_json());
}

#[test]
fn what_is_no_table_is_refused_with_its_name() {
    for text in ["", "[]", "{\"NVIDIA H200\": 1}", "{\"NVIDIA H200\": [{\"dtype\": \"bf16\"}]}"] {
        let error = Tuned::parse("mine.json", text).unwrap_err();
        assert!(matches!(error, Error::Tuned { .. }) && error.to_string().contains("mine.json"), "{error}");
    }
    let mut tuned = Tuned::default();
    tuned.set(H200, TunedRow { us: -1.0, ..row(&problem(), SLOW) });
    let error = Tuned::parse("mine.json", &tuned.to_json()).unwrap_err().to_string();
    assert_eq!(error, "tuned: mine.json: us: -1, allowed: numbers above 0");
    assert!(matches!(Tuned::read("no/such/table.json".as_ref()), Err(Error::Tuned { .. })));
}

#[test]
fn every_row_that_travels_along_is_of_a_kernel_that_ships() {
    let tuned = Tuned::parse("tuned.json", evo_sdpa::TUNED).unwrap();
    for (device, rows) in tuned.devices() {
        assert_eq!(tuned.kernels(device).len(), rows.len(), "{device}");
    }
}
