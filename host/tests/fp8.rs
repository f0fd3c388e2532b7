//! What rounding queries, keys, values and probabilities to e4m3 costs.
//!
//! Rounding to three bits of mantissa has a relative error of 2.6e-2 (rms) for numbers of any smooth distribution, and no
//! scale changes that as long as few numbers are below 2^-6 of the scale. Queries and keys move the logarithms of the
//! weights by as much times the spread of the scores, which is 1 for normal numbers; values and probabilities each move a
//! sum of independent errors by the same. Four of them add up to 5.2e-2. A relative error of 4e-2 for a scale for each head,
//! or of 2.5e-2 for one for each block of rows and keys without their mean, is therefore out of reach on normal numbers
//! with these four operands in e4m3, and these tests say what does hold. Under a causal mask the first rows have few keys,
//! and softmax passes on less of what happens to scores.

use evo_sdpa_host::quantize::Deviation;
use evo_sdpa_host::shapes::ACCEPTANCE;
use evo_sdpa_host::verify::{Case, Inputs, Operand, Quantization, Special, Unquantized, within_rounding};
use evo_sdpa_host::{Element, Fp8, ScaleBlocks};
use half::{bf16, f16};

const PER_HEAD: Quantization = Quantization { fp8: Fp8::uniform(ScaleBlocks::Head), subtract_mean: false, only: None };
const PER_BLOCK: Quantization = Quantization { fp8: Fp8::uniform(ScaleBlocks::Rows(64)), ..PER_HEAD };
const WITHOUT_MEAN: Quantization = Quantization { subtract_mean: true, ..PER_BLOCK };
const PER_TENSOR: Quantization = Quantization { fp8: Fp8::uniform(ScaleBlocks::Tensor), ..PER_HEAD };

fn deviations<T: Element>(inputs: &Inputs<T>, quantization: &Quantization) -> Vec<Deviation> {
    Unquantized::compute(inputs).unwrap().predict(quantization).unwrap().heads
}

#[test]
fn normal_numbers_cost_five_percent_on_every_acceptance_shape_whatever_the_scales() {
    for (shape, causal) in ACCEPTANCE {
        for seed in 1..=3 {
            let case = Case { causal, seed, ..Case::new(shape) };
            let inputs = Inputs::<bf16>::generate(&case);
            let exact = Unquantized::compute(&inputs).unwrap();
            for quantization in [PER_HEAD, WITHOUT_MEAN] {
                let heads = exact.predict(&quantization).unwrap().heads;
                let total: Deviation = heads.iter().copied().sum();
                let at = format!("{case} {quantization:?} {}", total.relative());
                assert!(within_rounding(&heads) && total.relative() > 0.043, "{at} {heads:?}");
                assert!(total.cosine() > 0.998, "{at}");
                // A row that sees few keys is as large as a value, whose rounding alone costs up to a sixteenth.
                let outside = if causal.is_some() { 3e-4 } else { 0.0 };
                assert!(total.outside as f64 <= outside * total.elements as f64, "{at}: {} outside", total.outside);
            }
        }
    }
}

#[test]
fn each_operand_alone_costs_half_of_what_all_of_them_do() {
    let inputs = Inputs::<f16>::generate(&Case::new([1, 8, 8, 512, 512, 64]));
    let squares = Operand::ALL.map(|operand| {
        let alone = Quantization { only: Some(operand), ..PER_HEAD };
        let total: Deviation = deviations(&inputs, &alone).into_iter().sum();
        assert!((0.022..0.03).contains(&total.relative()), "{} {}", operand.name(), total.relative());
        total.relative().powi(2)
    });
    let all: Deviation = deviations(&inputs, &PER_HEAD).into_iter().sum();
    let independent = squares.iter().sum::<f64>().sqrt();
    assert!((all.relative() / independent - 1.0).abs() < 0.05, "{} {independent}", all.relative());
}

#[test]
fn zeros_one_hot_rows_and_constants_are_exact() {
    for special in [Special::Zero, Special::OneHot, Special::Constant] {
        for quantization in [PER_TENSOR, PER_HEAD, PER_BLOCK] {
            for head in deviations(&special.inputs(1), &quantization) {
                let at = format!("{} {quantization:?} {}", special.name(), head.max_abs);
                assert!(head.max_abs < 1e-6 && head.cosine() > 1.0 - 1e-12, "{at}");
            }
        }
    }
    for head in deviations(&Special::OneHot.inputs(1), &WITHOUT_MEAN) {
        assert!(head.max_abs < 5e-3, "{}", head.max_abs);
    }
}

#[test]
fn a_huge_outlier_spoils_neither_its_head_nor_another() {
    for seed in 1..=3 {
        let inputs = Special::Outlier.inputs(seed);
        for quantization in [PER_TENSOR, PER_HEAD, PER_BLOCK] {
            for (head, deviation) in deviations(&inputs, &quantization).into_iter().enumerate() {
                assert!(deviation.relative() < 0.09, "head {head} {quantization:?} {}", deviation.relative());
            }
        }
    }
}

#[test]
fn the_mean_of_tokens_with_one_huge_outlier_does_harm() {
    // The other tokens are then 30,000 / 160 away from zero in that column, and lose what they differ by.
    let inputs = Special::Outlier.inputs(1);
    let [with, without] = [WITHOUT_MEAN, PER_BLOCK].map(|quantization| deviations(&inputs, &quantization)[1]);
    assert!(with.relative() > 5.0 * without.relative() && with.max_abs.is_finite());
}

#[test]
fn heads_unlike_each_other_want_scales_of_their_own() {
    let inputs = Special::Mixed.inputs(1);
    for quantization in [PER_HEAD, PER_BLOCK] {
        let heads = deviations(&inputs, &quantization);
        assert_eq!(heads[0].max_abs, 0.0);
        assert!(heads.iter().all(|head| head.relative() < 0.06), "{heads:?}");
    }
    let shared = deviations(&inputs, &PER_TENSOR);
    assert!(shared.iter().all(|head| head.max_abs.is_finite()));
    assert_eq!(shared[3].relative(), 1.0, "values of 1e-3 beside ones of 1e3 are lost");
}

#[test]
fn an_offset_that_all_keys_share_costs_nothing_without_their_mean() {
    let mut inputs = Inputs::<bf16>::generate(&Case::new([1, 2, 2, 256, 256, 64]));
    for (place, x) in inputs.k.iter_mut().enumerate() {
        *x = bf16::from_f32(x.to_f32() + if place % 64 < 16 { 8.0 } else { 0.0 });
    }
    let total = |quantization| deviations(&inputs, &quantization).into_iter().sum::<Deviation>().relative();
    let [with, without] = [PER_BLOCK, WITHOUT_MEAN].map(total);
    assert!(without < 0.056 && with > 1.5 * without, "{with} {without}");
}
