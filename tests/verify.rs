//! The correctness grid: the CPU passes it, and it catches answers that are wrong.

use evo_sdpa::verify::{Case, Expected, Inputs, Verdict, cases};
use evo_sdpa::{Element, cpu, with_element};

fn answer<T: Element>(inputs: &Inputs<T>) -> cpu::Output<T> {
    let [q, k, v] = inputs.views().expect("inputs fit their layouts");
    cpu::attention(q, k, v, &inputs.options()).expect("the grid holds valid cases")
}

fn check(case: &Case) -> Verdict {
    with_element!(case.dtype, T => {
        let inputs = Inputs::<T>::generate(case);
        Expected::compute(&inputs).expect("the grid holds valid cases").check(&answer(&inputs))
    })
}

#[test]
fn the_cpu_is_right_on_the_quick_grid() {
    let wrong: Vec<_> = cases(true, 1)
        .iter()
        .map(|case| (case.to_string(), check(case)))
        .filter(|(_, verdict)| !verdict.passes())
        .map(|(name, verdict)| format!("{name}: {verdict}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The verdict on the right answer to `case`, changed by `plant`.
fn check_planted(case: &Case, plant: impl Fn(&mut cpu::Output<f32>)) -> bool {
    let inputs = Inputs::<f32>::generate(case);
    let expected = Expected::compute(&inputs).expect("the case is valid");
    let mut output = answer(&inputs);
    plant(&mut output);
    expected.check(&output).passes()
}

#[test]
fn one_wrong_element_is_caught_whatever_is_wrong_with_it() {
    let case = Case::new([1, 2, 2, 33, 65, 64]);
    assert!(check_planted(&case, |_| {}));
    for place in [0, 2111, 33 * 2 * 64 - 1] {
        for wrong in [f32::NAN, f32::INFINITY, 3.0e3] {
            assert!(!check_planted(&case, |output| output.out[place] = wrong), "{wrong} at {place}");
        }
        assert!(!check_planted(&case, |output| output.out[place] += 0.02), "a small error at {place}");
    }
    for wrong in [f32::NAN, f32::NEG_INFINITY, 0.0] {
        assert!(!check_planted(&case, |output| output.lse[65] = wrong), "lse {wrong}");
    }
}

#[test]
fn missing_elements_are_caught() {
    let case = Case::new([1, 2, 2, 33, 65, 64]);
    assert!(!check_planted(&case, |output| output.out.truncate(4000)));
    assert!(!check_planted(&case, |output| output.lse.truncate(0)));
}

#[test]
fn an_ignored_mask_is_caught() {
    let case = Case { kv_lens: true, ..Case::new([3, 2, 2, 33, 65, 64]) };
    let inputs = Inputs::<f32>::generate(&case);
    let expected = Expected::compute(&inputs).expect("the case is valid");
    let unmasked = answer(&Inputs { kv_lens: None, ..inputs });
    assert!(!expected.check(&unmasked).passes());
}

#[test]
fn of_a_large_problem_every_head_is_checked_in_its_own_rows() {
    let case = Case::new([2, 4, 2, 1024, 1024, 64]);
    let inputs = Inputs::<f32>::generate(&case);
    let expected = Expected::compute(&inputs).expect("the case is valid");
    assert_eq!(expected.checked_part(), 0.125);
    let output = answer(&inputs);
    assert!(expected.check(&output).passes());
    for head in 0..8 {
        let mut wrong = output.clone();
        wrong.out[(head * 1024 + head * 128 + 77) * 64 + 3] += 1.0;
        assert!(!expected.check(&wrong).passes(), "head {head}");
    }
}
