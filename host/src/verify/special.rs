//! Tensors that a quantiser may get wrong.

use super::cases::Case;
use super::inputs::Inputs;
use half::bf16;

/// \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\]: blocks of 64 rows, the last one not full.
const SHAPE: [usize; 6] = [1, 4, 4, 160, 160, 64];
/// Rows of a tensor.
const ROWS: usize = SHAPE[3];
/// Columns of a row.
const COLUMNS: usize = SHAPE[5];

/// Calls in bf16 of four heads with tensors unlike those of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// Zeros alone: no scale follows from them, and the answer is zero.
    Zero,
    /// Rows with one element that is not zero, each key the answer to the queries that look like it.
    OneHot,
    /// Each tensor one value throughout.
    Constant,
    /// Normal numbers, and among the keys and values of the second head one of 30,000 each.
    Outlier,
    /// A head of zeros, one of one-hot rows, and two of normal numbers, whose values are 1e3 and 1e-3 times as large.
    Mixed,
}

impl Special {
    /// Every one.
    pub const ALL: [Special; 5] = [Special::Zero, Special::OneHot, Special::Constant, Special::Outlier, Special::Mixed];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Special::Zero => "all-zero",
            Special::OneHot => "one-hot",
            Special::Constant => "constant",
            Special::Outlier => "outlier",
            Special::Mixed => "mixed heads",
        }
    }

    /// The call; its normal numbers are those of `seed`.
    pub fn inputs(self, seed: u64) -> Inputs<bf16> {
        let mut inputs = Inputs::generate(&Case { seed, ..Case::new(SHAPE) });
        match self {
            Special::Zero => fill(&mut inputs, 0..4, |_, _, _| 0.0),
            Special::OneHot => fill(&mut inputs, 0..4, one_hot),
            Special::Constant => fill(&mut inputs, 0..4, |tensor, _, _| [0.5, -0.75, 1.5][tensor]),
            Special::Outlier => {
                let head = ROWS * COLUMNS;
                inputs.k[head + 70 * COLUMNS + 5] = bf16::from_f32(30_000.0);
                inputs.v[head + 71 * COLUMNS + 6] = bf16::from_f32(-30_000.0);
            }
            Special::Mixed => {
                fill(&mut inputs, 0..1, |_, _, _| 0.0);
                fill(&mut inputs, 1..2, one_hot);
                for (head, factor) in [(2, 1e3), (3, 1e-3)] {
                    let values = &mut inputs.v[head * ROWS * COLUMNS..][..ROWS * COLUMNS];
                    values.iter_mut().for_each(|x| *x = bf16::from_f32(factor * x.to_f32()));
                }
            }
        }
        inputs
    }
}

/// Rows of queries and keys that are far from all but their like, and values of 1.
fn one_hot(tensor: usize, row: usize, column: usize) -> f32 {
    match (row % COLUMNS == column, tensor) {
        (false, _) => 0.0,
        (true, 2) => 1.0,
        (true, _) => 16.0,
    }
}

/// Sets the elements of some heads: `number` of tensor (0 to 2 for q, k, v), row and column.
fn fill(inputs: &mut Inputs<bf16>, heads: std::ops::Range<usize>, number: impl Fn(usize, usize, usize) -> f32) {
    for (tensor, data) in [&mut inputs.q, &mut inputs.k, &mut inputs.v].into_iter().enumerate() {
        let places = &mut data[heads.start * ROWS * COLUMNS..heads.end * ROWS * COLUMNS];
        for (place, x) in places.iter_mut().enumerate() {
            *x = bf16::from_f32(number(tensor, place / COLUMNS % ROWS, place % COLUMNS));
        }
    }
}
