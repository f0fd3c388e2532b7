//! The CPU path against the oracle, and what it promises beyond the numbers.

use evo_sdpa_host::compare::{compare_lse, compare_out};
use evo_sdpa_host::cpu::{self, Output, reference};
use evo_sdpa_host::half::{bf16, f16};
use evo_sdpa_host::verify::Rng;
use evo_sdpa_host::{Causal, Element, Layout, Options, TensorView, TensorViewMut};

/// Contiguous tensors of [batch, heads_q, heads_kv, q_len, kv_len, head_dim].
struct Tensors<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    q_shape: [usize; 4],
    kv_shape: [usize; 4],
}

impl<T: Element> Tensors<T> {
    fn normal(shape: [usize; 6]) -> Self {
        Self::scaled(shape, [1.0; 3])
    }

    /// Normal numbers times a factor each for q, k and v.
    fn scaled([batch, heads_q, heads_kv, q_len, kv_len, dim]: [usize; 6], [q, k, v]: [f64; 3]) -> Self {
        let (q_shape, kv_shape) = ([batch, heads_q, q_len, dim], [batch, heads_kv, kv_len, dim]);
        let mut rng = Rng::new(q_len as u64 * 1009 + kv_len as u64);
        let mut make = |shape: [usize; 4], factor: f64| {
            (0..shape.iter().product()).map(|_| T::from_f64(rng.normal() * factor)).collect()
        };
        Self { q: make(q_shape, q), k: make(kv_shape, k), v: make(kv_shape, v), q_shape, kv_shape }
    }

    fn views(&self) -> [TensorView<'_, T>; 3] {
        let view = |data, shape| TensorView::bhsd(data, shape).unwrap();
        [view(&self.q, self.q_shape), view(&self.k, self.kv_shape), view(&self.v, self.kv_shape)]
    }

    fn run(&self, options: &Options) -> Output<T> {
        let [q, k, v] = self.views();
        cpu::attention(q, k, v, options).unwrap()
    }
}

/// Runs the CPU path and fails unless it agrees with the oracle.
fn check<T: Element>(views: [TensorView<T>; 3], options: &Options) {
    let [q, k, v] = views;
    let got = cpu::attention(q, k, v, options).unwrap();
    check_output(&got, views, options);
}

fn check_output<T: Element>(got: &Output<T>, [q, k, v]: [TensorView<T>; 3], options: &Options) {
    let exact = reference::attention(q, k, v, options).unwrap();
    let plain = reference::plain(q, k, v, options).unwrap();
    let [_, _, q_len, dim] = q.layout().shape();
    let (out, lse) = (compare_out(&got.out, &exact.out, &plain, q_len * dim), compare_lse(&got.lse, &exact.lse));
    let at = format!("{} q {} k {} {options:?}", T::DTYPE, q.layout(), k.layout());
    assert!(out.passes(), "{at}: out {out}");
    assert!(lse.passes(), "{at}: lse {lse}");
}

const CAUSAL: [Option<Causal>; 7] = [
    None,
    Some(Causal::BottomRight),
    Some(Causal::TopLeft),
    Some(Causal::Offset(-3)),
    Some(Causal::Offset(40)),
    Some(Causal::Offset(i64::MAX)),
    Some(Causal::Offset(i64::MIN)),
];

fn grid<T: Element>(dims: &[usize]) {
    let lengths = [(1, 1), (1, 131), (3, 0), (0, 4), (33, 129), (70, 257), (40, 24)];
    let heads = [(1, 1), (4, 2), (3, 1), (2, 2)];
    let mut count = 0;
    for &dim in dims {
        for (q_len, kv_len) in lengths {
            for causal in CAUSAL {
                let (heads_q, heads_kv) = heads[count % heads.len()];
                let lens = [kv_len as i32, (kv_len / 2) as i32];
                let kv_lens = (count % 3 == 0).then_some(&lens[..]);
                let options = Options { causal, kv_lens, ..Options::default() };
                check(Tensors::<T>::normal([2, heads_q, heads_kv, q_len, kv_len, dim]).views(), &options);
                count += 1;
            }
        }
    }
}

#[test]
fn f32_matches_the_oracle() {
    grid::<f32>(&[1, 8, 24, 32, 64, 80, 96, 128, 256]);
}

#[test]
fn f16_matches_the_oracle() {
    grid::<f16>(&[1, 24, 64, 80, 128]);
}

#[test]
fn bf16_matches_the_oracle() {
    grid::<bf16>(&[8, 32, 64, 96, 256]);
}

#[test]
fn many_tiles_and_tasks_match_the_oracle() {
    let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
    check(Tensors::<bf16>::normal([1, 6, 2, 300, 700, 64]).views(), &options);
    check(Tensors::<f32>::normal([1, 2, 1, 517, 517, 40]).views(), &Options::default());
}

#[test]
fn large_logits_and_denormals_match_the_oracle() {
    for causal in [None, Some(Causal::TopLeft)] {
        let options = Options { causal, ..Options::default() };
        check(Tensors::<f32>::scaled([1, 2, 2, 40, 300, 64], [8.0, 8.0, 1.0]).views(), &options);
        check(Tensors::<bf16>::scaled([1, 2, 2, 40, 300, 64], [8.0, 8.0, 1.0]).views(), &options);
        check(Tensors::<f16>::scaled([1, 2, 2, 40, 300, 64], [1e-6, 1e-6, 1.0]).views(), &options);
        check(Tensors::<f32>::scaled([1, 2, 2, 40, 300, 64], [1e-40, 1.0, 1e-39]).views(), &options);
    }
}

#[test]
fn bshd_and_broadcast_inputs_are_views() {
    let t = Tensors::<f32>::normal([2, 4, 4, 45, 45, 24]);
    let bshd = |data| TensorView::new(data, Layout::bshd(t.q_shape)).unwrap();
    check([bshd(&t.q), bshd(&t.k), bshd(&t.v)], &Options::default());

    let broadcast = Layout::strided(&[2, 4, 45, 24], &[0, 0, 24, 1]).unwrap();
    let one_row = Layout::strided(&[2, 4, 45, 24], &[24, 0, 0, 1]).unwrap();
    let view = |data, layout| TensorView::new(data, layout).unwrap();
    check([view(&t.q, one_row), view(&t.k, broadcast), view(&t.v, one_row)], &Options::default());
}

#[test]
fn a_strided_output_gets_the_same_values_and_its_gaps_stay() {
    let t = Tensors::<f16>::normal([2, 3, 1, 37, 50, 20]);
    let [q, k, v] = t.views();
    let options = Options { causal: Some(Causal::TopLeft), ..Options::default() };
    let contiguous = t.run(&options);
    let poison = f16::from_f32(-777.0);
    // [seq, batch, heads] order in memory, rows of 20 at a distance of 24.
    let layout = Layout::strided(&t.q_shape, &[3 * 24, 24, 6 * 24, 1]).unwrap();
    let mut data = vec![poison; 37 * 6 * 24];
    cpu::attention_into(q, k, v, &options, &mut TensorViewMut::new(&mut data, layout).unwrap(), None).unwrap();
    for (row, values) in contiguous.out.chunks(20).enumerate() {
        let start = layout.row_offset(row / 37 / 3, row / 37 % 3, row % 37);
        assert_eq!(&data[start..start + 20], values, "row {row}");
        assert_eq!(&data[start + 20..start + 24], [poison; 4], "gap after row {row}");
    }
}

#[test]
fn a_row_without_keys_gives_zeros_and_an_lse_of_minus_infinity() {
    let t = Tensors::<f32>::normal([2, 2, 1, 9, 6, 8]);
    let options = Options { causal: Some(Causal::TopLeft), kv_lens: Some(&[6, 0]), ..Options::default() };
    let got = t.run(&options);
    assert!(got.out[2 * 9 * 8..].iter().all(|&x| x.to_bits() == 0));
    assert!(got.lse[2 * 9..].iter().all(|&x| x == f32::NEG_INFINITY));
    assert!(got.lse[..2 * 9].iter().all(|x| x.is_finite()));
}

#[test]
fn a_nan_query_spoils_its_row_and_no_other() {
    let mut t = Tensors::<f32>::normal([1, 2, 1, 50, 200, 16]);
    let options = Options { causal: Some(Causal::BottomRight), ..Options::default() };
    let clean = t.run(&options);
    let spoiled = 50 + 17;
    t.q[spoiled * 16 + 5] = f32::NAN;
    let got = t.run(&options);
    check_output(&got, t.views(), &options);
    for row in 0..100 {
        let values = &got.out[row * 16..][..16];
        if row == spoiled {
            assert!(values.iter().all(|x| x.is_nan()) && got.lse[row].is_nan());
        } else {
            assert_eq!(values, &clean.out[row * 16..][..16], "row {row}");
            assert_eq!(got.lse[row], clean.lse[row], "row {row}");
        }
    }
}

#[test]
fn what_a_row_does_not_see_never_reaches_it() {
    for wrong in [f32::NAN, f32::INFINITY] {
        let mut t = Tensors::<f32>::normal([1, 1, 1, 60, 60, 16]);
        let options = Options { causal: Some(Causal::BottomRight), kv_lens: Some(&[50]), ..Options::default() };
        let clean = t.run(&options);
        // Key and value 40 are seen by rows from 40 on, those from 50 on by none.
        for key in [40, 50, 51, 59] {
            t.k[key * 16 + 3] = wrong;
            t.v[key * 16 + 7] = wrong;
        }
        let got = t.run(&options);
        assert_eq!(got.out[..40 * 16], clean.out[..40 * 16]);
        assert_eq!(got.lse[..40], clean.lse[..40]);
        assert!(!wrong.is_nan() || got.out[40 * 16..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn a_scale_of_zero_weighs_all_visible_keys_alike() {
    let t = Tensors::<f32>::normal([1, 1, 1, 20, 20, 8]);
    let options = Options { causal: Some(Causal::TopLeft), scale: Some(0.0), ..Options::default() };
    check(t.views(), &options);
    for (row, lse) in t.run(&options).lse.iter().enumerate() {
        assert!((lse - ((row + 1) as f32).ln()).abs() < 1e-6);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let t = Tensors::<bf16>::normal([2, 6, 2, 150, 333, 40]);
    let options = Options { causal: Some(Causal::BottomRight), kv_lens: Some(&[333, 200]), ..Options::default() };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| t.run(&options))
    };
    let one = run(1);
    for threads in [2, 3, 16] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn empty_problems_work() {
    for shape in [[0, 2, 2, 4, 4, 8], [1, 2, 2, 0, 4, 8], [1, 2, 2, 4, 0, 8], [1, 0, 1, 4, 4, 8]] {
        check(Tensors::<f16>::normal(shape).views(), &Options::default());
    }
}

#[test]
fn arguments_that_do_not_fit_are_named() {
    let t = Tensors::<f32>::normal([2, 2, 1, 4, 6, 8]);
    let [q, k, v] = t.views();
    let refused = |options: &Options| {
        let error = cpu::attention(q, k, v, options).unwrap_err();
        assert_eq!(reference::attention(q, k, v, options).unwrap_err(), error);
        assert_eq!(reference::plain(q, k, v, options).unwrap_err(), error);
        error.to_string()
    };
    for kv_lens in [&[6][..], &[6, 6, 6], &[6, 7], &[-1, 6], &[i32::MIN, 6]] {
        let error = refused(&Options { kv_lens: Some(kv_lens), ..Options::default() });
        assert!(error.contains("kv_lens"), "{error}");
    }
    assert!(refused(&Options { scale: Some(f32::NAN), ..Options::default() }).contains("scale"));

    let (mut out, mut lse) = (vec![0.0; 2 * 2 * 4 * 8], vec![0.0; 15]);
    let mut into = |shape, lse: &mut [f32]| {
        let mut view = TensorViewMut::bhsd(&mut out, shape).unwrap();
        cpu::attention_into(q, k, v, &Options::default(), &mut view, Some(lse)).map_err(|error| error.to_string())
    };
    assert!(into([2, 2, 4, 8], &mut lse).unwrap_err().contains("lse: 15 elements"));
    assert!(into([2, 2, 3, 8], &mut lse).unwrap_err().contains("out: [2, 2, 3, 8]"));
    let other = TensorView::bhsd(&t.k, [2, 1, 3, 16]).unwrap();
    assert!(cpu::attention(q, other, v, &Options::default()).unwrap_err().to_string().contains("head_dim of k: 16"));
}
