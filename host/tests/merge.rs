//! Merging two results on the CPU, against attention over the joined keys and against exact weights.

use evo_sdpa_host::compare::{compare_lse, compare_out};
use evo_sdpa_host::cpu::{self, Output, reference};
use evo_sdpa_host::half::{bf16, f16};
use evo_sdpa_host::verify::Rng;
use evo_sdpa_host::{Causal, Element, Error, Layout, Options, TensorView};

const NONE: f32 = f32::NEG_INFINITY;

fn normal<T: Element>(rng: &mut Rng, elements: usize) -> Vec<T> {
    (0..elements).map(|_| T::from_f64(rng.normal())).collect()
}

/// The attention over the first `split` keys merged with that over the others, against the attention over all.
fn assert_joined<T: Element>([batch, heads, q_len, kv_len, head_dim]: [usize; 5], split: usize) {
    let mut rng = Rng::new((kv_len * 31 + split) as u64);
    let (queries, keys) = ([batch, heads, q_len, head_dim], [batch, heads, kv_len, head_dim]);
    let [q, k, v] = [queries, keys, keys].map(|shape| normal::<T>(&mut rng, shape.iter().product()));
    let all = |data| TensorView::bhsd(data, keys).unwrap();
    let part = |data, first: usize, keys: usize| {
        let strides = Layout::bhsd([batch, heads, kv_len, head_dim]).strides();
        let layout = Layout::strided(&[batch, heads, keys, head_dim], &strides).unwrap();
        let data: &[T] = data;
        TensorView::new(&data[(first * head_dim).min(data.len())..], layout).unwrap()
    };
    let q = TensorView::bhsd(&q, queries).unwrap();
    let diagonal = (kv_len - q_len) as i64;
    let masked = |offset| Options { causal: Some(Causal::Offset(offset)), ..Options::default() };
    for masks in [[Options::default(); 3], [masked(diagonal), masked(diagonal), masked(diagonal - split as i64)]] {
        let [of_all, of_a, of_b] = masks;
        let a = cpu::attention(q, part(&k, 0, split), part(&v, 0, split), &of_a).unwrap();
        let b = cpu::attention(q, part(&k, split, kv_len - split), part(&v, split, kv_len - split), &of_b).unwrap();
        let [out_a, out_b] = [&a, &b].map(|part| TensorView::bhsd(&part.out, queries).unwrap());
        let merged = cpu::merge_states(out_a, &a.lse, out_b, &b.lse).unwrap();
        let exact = reference::attention(q, all(&k), all(&v), &of_all).unwrap();
        let plain = reference::plain(q, all(&k), all(&v), &of_all).unwrap();
        let out = compare_out(&merged.out, &exact.out, &plain, q_len * head_dim);
        let lse = compare_lse(&merged.lse, &exact.lse);
        assert!(out.passes() && lse.passes(), "{} {kv_len} keys, {split} of them first: {out}; {lse}", T::DTYPE);
    }
}

#[test]
fn merging_the_attention_over_two_parts_of_the_keys_is_the_attention_over_all() {
    for split in [0, 1, 40, 99, 100] {
        let shape = [2, 3, 17, 100, 40];
        assert_joined::<f32>(shape, split);
        assert_joined::<f16>(shape, split);
        assert_joined::<bf16>(shape, split);
    }
}

/// Two rows of four columns.
fn merge_rows<T: Element>(a: [f32; 8], lse_a: [f32; 2], b: [f32; 8], lse_b: [f32; 2]) -> (Vec<f32>, Vec<f32>) {
    let [a, b] = [a, b].map(|values| values.map(T::from_f32));
    let view = |data| TensorView::<T>::bhsd(data, [1, 2, 1, 4]).unwrap();
    let Output { out, lse } = cpu::merge_states(view(&a), &lse_a, view(&b), &lse_b).unwrap();
    (out.into_iter().map(T::to_f32).collect(), lse)
}

#[test]
fn weights_go_with_the_exponentials_of_the_log_sum_exps() {
    // One key with weight 1, three with weight 1 each; and e to the 100 times as much.
    let (out, lse) =
        merge_rows::<f32>([1.0, 2.0, -4.0, 0.0, 8.0, 8.0, 8.0, 8.0], [0.0, 0.0], [5.0; 8], [3f32.ln(), 100.0]);
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(out[..4].iter().zip([4.0, 4.25, 2.75, 3.75]).all(|(&a, b)| close(a, b)), "{out:?}");
    assert!(close(lse[0], 4f32.ln()), "{lse:?}");
    assert_eq!((&out[4..], lse[1]), (&[5.0; 4][..], 100.0));
}

#[test]
fn merged_rows_are_those_of_exact_weights() {
    fn check<T: Element>(rounding: f64) {
        let shape = [2, 2, 25, 24];
        let (rows, mut rng) = (2 * 2 * 25, Rng::new(7));
        let [a, b] = [0, 1].map(|_| normal::<T>(&mut rng, rows * shape[3]));
        for scale in [0.1, 3.0, 1e4] {
            let [lse_a, lse_b] = [0, 1].map(|_| (0..rows).map(|_| (rng.normal() * scale) as f32).collect::<Vec<_>>());
            let [a, b] = [&a, &b].map(|data| TensorView::bhsd(data, shape).unwrap());
            let got = cpu::merge_states(a, &lse_a, b, &lse_b).unwrap();
            let exact = reference::merge_states(a, &lse_a, b, &lse_b).unwrap();
            for (got, exact) in got.out.iter().zip(&exact.out) {
                let error = (got.to_f64() - exact).abs();
                assert!(error <= rounding * exact.abs() + 2e-6, "{} {scale}: {got:?}, exact {exact}", T::DTYPE);
            }
            for (got, exact) in got.lse.iter().zip(&exact.lse) {
                assert!((f64::from(*got) - exact).abs() <= 1e-6 + 1e-7 * exact.abs(), "{scale}: {got}, exact {exact}");
            }
        }
    }
    check::<f32>(2f64.powi(-24));
    check::<f16>(2f64.powi(-11));
    check::<bf16>(2f64.powi(-8));
}

#[test]
fn a_result_without_keys_counts_for_nothing_whatever_stands_in_it() {
    let numbers = [0.1f32, -0.0, 65504.0, 3.0, f32::MIN_POSITIVE, -7.0, 1.0, 2.0].map(|x| f16::from_f32(x).to_f32());
    let bits = |(out, lse): (Vec<f32>, Vec<f32>)| out.into_iter().chain(lse).map(f32::to_bits).collect::<Vec<_>>();
    let expected: Vec<_> = numbers.into_iter().chain([0.3, -900.0]).map(f32::to_bits).collect();
    assert_eq!(bits(merge_rows::<f16>(numbers, [0.3, -900.0], [f32::NAN; 8], [NONE; 2])), expected);
    assert_eq!(bits(merge_rows::<f16>([f32::NAN; 8], [NONE; 2], numbers, [0.3, -900.0])), expected);
    assert_eq!(merge_rows::<bf16>([f32::NAN; 8], [NONE; 2], [9.0; 8], [NONE; 2]), (vec![0.0; 8], vec![NONE; 2]));
}

#[test]
fn nan_reaches_the_rows_that_have_it_and_no_others() {
    let mut a = [1.0; 8];
    a[1] = f32::NAN;
    let (out, lse) = merge_rows::<f32>(a, [0.0; 2], [1.0; 8], [0.0; 2]);
    assert!(out[1].is_nan() && out.iter().filter(|x| x.is_nan()).count() == 1, "{out:?}");
    assert!(lse.iter().all(|lse| lse.is_finite()));
    for lse in [[f32::NAN, 0.0], [0.0, f32::NAN]] {
        let [lse_a, lse_b] = lse.map(|first| [first, 1.0]);
        let (out, lse) = merge_rows::<f32>([1.0; 8], lse_a, [1.0; 8], lse_b);
        assert!(out[..4].iter().all(|x| x.is_nan()) && lse[0].is_nan(), "{out:?} {lse:?}");
        assert!(out[4..].iter().all(|&x| x == 1.0) && lse[1].is_finite(), "{out:?} {lse:?}");
    }
}

#[test]
fn results_that_do_not_fit_each_other_are_refused() {
    let (data, lse) = ([0.0f32; 48], [0.0f32; 6]);
    let view = |shape| TensorView::bhsd(&data, shape).unwrap();
    let good = view([1, 2, 3, 8]);
    let refused = |a, lse_a, b, lse_b| cpu::merge_states(a, lse_a, b, lse_b).unwrap_err();
    for (error, words) in [
        (refused(good, &lse[..], view([1, 3, 2, 8]), &lse[..]), "out_b: [1, 3, 2, 8]"),
        (refused(good, &lse[..5], good, &lse[..]), "lse_a: 5 elements does not fit, allowed: 6"),
        (refused(good, &lse[..], good, &[]), "lse_b: 0 elements"),
        (refused(view([1, 2, 3, 0]), &[], view([1, 2, 3, 0]), &[]), "head_dim: 0"),
    ] {
        assert!(matches!(error, Error::Shape { .. }) && error.to_string().starts_with(words), "{error}");
    }
    let columns = Layout::strided(&[1, 2, 3, 4], &[24, 12, 4, 2]).unwrap();
    let error = refused(TensorView::new(&data, columns).unwrap(), &lse, TensorView::new(&data, columns).unwrap(), &lse);
    assert!(matches!(error, Error::Layout { field: "out_a", .. }), "{error}");
    let empty = view([0, 2, 3, 8]);
    assert_eq!(cpu::merge_states(empty, &[], empty, &[]), Ok(Output { out: vec![], lse: vec![] }));
}
