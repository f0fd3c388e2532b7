//! The tensors and options of one call, and how a case makes them.

use super::cases::{Case, Kind, Storage, subnormal};
use super::rng::Rng;
use crate::error::Result;
use crate::layout::Layout;
use crate::problem::{Causal, Options, Problem};
use crate::quantize::{Call, Quantized};
use crate::tensor::{Element, TensorView};
use rayon::prelude::*;

/// Distance of two rows beyond head_dim in [`Storage::Padded`], elements; it keeps rows aligned for every type.
const ROW_PADDING: usize = 8;
/// What stands in the values of keys that `kv_lens` leaves out: who reads one sees it, also with a probability of 0.
const MASKED_VALUE: f64 = f64::NAN;

/// Owned tensors of one call with its options.
#[derive(Clone, Debug)]
pub struct Inputs<T> {
    /// Storage of the queries.
    pub q: Vec<T>,
    /// Storage of the keys.
    pub k: Vec<T>,
    /// Storage of the values.
    pub v: Vec<T>,
    /// Where queries lie.
    pub q_layout: Layout,
    /// Where keys lie.
    pub k_layout: Layout,
    /// Where values lie.
    pub v_layout: Layout,
    /// Causal mask.
    pub causal: Option<Causal>,
    /// Factor on the scores, or the default.
    pub scale: Option<f32>,
    /// Number of valid keys of each sequence.
    pub kv_lens: Option<Vec<i32>>,
    /// Into how many parts the keys are split between blocks, or the planner's choice.
    pub splits: Option<u32>,
}

impl<T: Element> Inputs<T> {
    /// The inputs of a case, the same ones each time. `T` takes the place of the case's own type.
    pub fn generate(case: &Case) -> Self {
        let [batch, heads_q, heads_kv, q_len, kv_len, head_dim] = case.shape;
        let layout = |shape: [usize; 4]| match case.storage {
            Storage::Bhsd => Layout::bhsd(shape),
            Storage::Bshd => Layout::bshd(shape),
            Storage::Padded => padded(shape),
        };
        let q_layout = layout([batch, heads_q, q_len, head_dim]);
        let kv_layout = layout([batch, heads_kv, kv_len, head_dim]);
        let mut rng = Rng::new(case.seed);
        let kv_lens = case.kv_lens.then(|| {
            let mut len = |b| match b {
                0 => kv_len,
                b if b + 1 == batch => 0,
                _ => rng.below(kv_len + 1),
            };
            (0..batch).map(|b| len(b) as i32).collect::<Vec<_>>()
        });
        let hot = rng.below(kv_len);
        let (smallest, steps) = subnormal::<T>();
        // The upper half of the subnormal range: means of such numbers keep enough digits to be compared.
        let number = |rng: &mut Rng, key: usize, tensor: Tensor| match (case.kind, tensor) {
            (Kind::Normal, _) | (Kind::Large, Tensor::V) => rng.normal(),
            (Kind::Large, _) => 8.0 * rng.normal(),
            (Kind::Constant, Tensor::Q) => 0.5,
            (Kind::Constant, Tensor::K) => -0.75,
            (Kind::Constant, Tensor::V) => 1.5,
            (Kind::Hot, Tensor::Q) => 1.0 + 0.25 * rng.normal(),
            (Kind::Hot, Tensor::K) => rng.normal() + if key == hot { 3.0 } else { 0.0 },
            (Kind::Hot, Tensor::V) => rng.normal() * if key == hot { 16.0 } else { 1.0 },
            (Kind::Denormal, _) => smallest * (steps / 2 + rng.below(steps / 2)) as f64,
        };
        let rng = |tensor: Tensor, row: usize| Rng::stream(case.seed, (row * 3 + tensor as usize) as u64);
        let q = fill(&q_layout, |row| rng(Tensor::Q, row), |rng, at| number(rng, at[2], Tensor::Q));
        let k = fill(&kv_layout, |row| rng(Tensor::K, row), |rng, at| number(rng, at[2], Tensor::K));
        let v = fill(
            &kv_layout,
            |row| rng(Tensor::V, row),
            |rng, at| match &kv_lens {
                Some(lens) if at[2] >= lens[at[0]] as usize => MASKED_VALUE,
                _ => number(rng, at[2], Tensor::V),
            },
        );
        let (k_layout, v_layout) = (kv_layout, kv_layout);
        let Case { causal, scale, splits, .. } = *case;
        Self { q, k, v, q_layout, k_layout, v_layout, causal, scale, kv_lens, splits }
    }

    /// The call as a problem, with the log-sum-exp.
    pub fn problem(&self) -> Problem {
        Problem::new(T::DTYPE, self.q_layout, self.k_layout, self.v_layout)
            .with_causal(self.causal)
            .with_scale(self.scale)
            .with_kv_lens(self.kv_lens.is_some())
            .with_lse(true)
    }

    /// The options of the call.
    pub fn options(&self) -> Options<'_> {
        let kv_lens = self.kv_lens.as_deref();
        Options { causal: self.causal, scale: self.scale, kv_lens, splits: self.splits, ..Options::default() }
    }

    /// The call with the numbers that `call`, to which its tensors were quantised, stands for.
    pub(super) fn dequantized(&self, call: &Call) -> Inputs<f32> {
        let [q, k, v] = [&call.q, &call.k, &call.v].map(Quantized::dequantize);
        let [q_layout, k_layout, v_layout] =
            [&call.q, &call.k, &call.v].map(|tensor| Layout::bhsd(tensor.layout().shape()));
        let Self { causal, scale, ref kv_lens, splits, .. } = *self;
        Inputs { q, k, v, q_layout, k_layout, v_layout, causal, scale, kv_lens: kv_lens.clone(), splits }
    }

    /// Views of q, k and v.
    pub fn views(&self) -> Result<[TensorView<'_, T>; 3]> {
        Ok([
            TensorView::new(&self.q, self.q_layout)?,
            TensorView::new(&self.k, self.k_layout)?,
            TensorView::new(&self.v, self.v_layout)?,
        ])
    }
}

#[derive(Clone, Copy)]
enum Tensor {
    Q,
    K,
    V,
}

fn padded(shape: [usize; 4]) -> Layout {
    let [batch, heads, seq, dim] = shape;
    let wide = Layout::bhsd([batch, heads, seq, dim + ROW_PADDING]);
    Layout::strided(&shape, &wide.strides()).expect("four axes")
}

/// Storage for `layout` with `number` at every element and NaN between them. Each row, counted along \[batch, head, row\],
/// has an `rng` of its own.
fn fill<T: Element>(
    layout: &Layout,
    rng: impl Fn(usize) -> Rng + Sync,
    number: impl Fn(&mut Rng, [usize; 3]) -> f64 + Sync,
) -> Vec<T> {
    let [batch, heads, seq, dim] = layout.shape();
    let place = |row: usize| [row / seq / heads, row / seq % heads, row % seq];
    let mut rows = vec![T::from_f32(f32::NAN); batch * heads * seq * dim];
    rows.par_chunks_mut(dim.max(1)).enumerate().for_each(|(row, places)| {
        let mut rng = rng(row);
        let at = place(row);
        places.fill_with(|| T::from_f64(number(&mut rng, at)));
    });
    if *layout == Layout::bhsd(layout.shape()) {
        return rows;
    }
    let mut data = vec![T::from_f32(f32::NAN); layout.extent().unwrap_or(0)];
    for (row, places) in rows.chunks(dim.max(1)).enumerate() {
        let [b, h, s] = place(row);
        let start = layout.row_offset(b, h, s);
        data[start..start + dim].copy_from_slice(places);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn storage_changes_the_place_of_a_number_and_not_the_number() {
        let case = Case::new([2, 4, 2, 5, 7, 16]);
        let [plain, ..] = Storage::ALL.map(|storage| Inputs::<f16>::generate(&Case { storage, ..case }));
        for storage in Storage::ALL {
            let inputs = Inputs::<f16>::generate(&Case { storage, ..case });
            let (a, b) = (plain.views().unwrap(), inputs.views().unwrap());
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(a.at(1, 1, 4, 15), b.at(1, 1, 4, 15), "{storage:?}");
            }
        }
    }

    #[test]
    fn denormal_inputs_are_subnormal_in_every_type() {
        let case = Case { kind: Kind::Denormal, ..Case::new([1, 1, 1, 3, 3, 8]) };
        assert!(Inputs::<f16>::generate(&case).q.iter().all(|x| x.classify() == std::num::FpCategory::Subnormal));
        assert!(Inputs::<half::bf16>::generate(&case).v.iter().all(|x| !x.is_normal() && x.to_f32() > 0.0));
        assert!(Inputs::<f32>::generate(&case).k.iter().all(|x| x.is_subnormal()));
    }

    #[test]
    fn lengths_reach_from_all_keys_to_none() {
        let case = Case { kv_lens: true, ..Case::new([3, 1, 1, 2, 9, 8]) };
        let lens = Inputs::<f32>::generate(&case).kv_lens.unwrap();
        assert_eq!((lens[0], lens[2]), (9, 0));
        assert!((0..=9).contains(&lens[1]));
    }
}
