//! The grid of cases on which every implementation has to be right.

use crate::problem::{Causal, Problem};
use crate::shapes::ACCEPTANCE;
use crate::tensor::Element;
use evo_sdpa_kernels::config::DType;
use half::{bf16, f16};
use std::fmt;

/// Every mask, with offsets on both sides of the diagonal and one that hides all keys of short problems.
const MASKS: [Option<Causal>; 6] = [
    None,
    Some(Causal::BottomRight),
    Some(Causal::TopLeft),
    Some(Causal::Offset(3)),
    Some(Causal::Offset(-5)),
    Some(Causal::Offset(-1000)),
];
const PLAIN_MASKS: [Option<Causal>; 2] = [None, Some(Causal::BottomRight)];

/// Query and key lengths around the edges of tiles, with one of the two much longer, and without queries or keys.
const LENGTHS: [(usize, usize); 15] = [
    (1, 1),
    (1, 0),
    (5, 0),
    (0, 8),
    (1, 257),
    (64, 64),
    (65, 63),
    (33, 129),
    (127, 128),
    (128, 127),
    (200, 70),
    (70, 200),
    (257, 257),
    (700, 17),
    (17, 700),
];

/// What the numbers of the inputs are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Normal with variance 1.
    Normal,
    /// Queries and keys eight times as large: logits far beyond the range of exp.
    Large,
    /// Each tensor one value throughout: every weight is the same.
    Constant,
    /// One key that every query attends to, with values unlike the others.
    Hot,
    /// Subnormal numbers of the type.
    Denormal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Normal, Kind::Large, Kind::Constant, Kind::Hot, Kind::Denormal];

    /// Name as it stands in a case.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Normal => "normal",
            Kind::Large => "large",
            Kind::Constant => "constant",
            Kind::Hot => "hot",
            Kind::Denormal => "denormal",
        }
    }
}

/// How the input tensors lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Contiguous \[batch, heads, seq, head_dim\].
    Bhsd,
    /// Contiguous \[batch, seq, heads, head_dim\].
    Bshd,
    /// As `Bhsd`, with room between rows that holds NaN.
    Padded,
}

impl Storage {
    /// Every storage.
    pub const ALL: [Storage; 3] = [Storage::Bhsd, Storage::Bshd, Storage::Padded];

    /// Name as it stands in a case.
    pub const fn name(self) -> &'static str {
        match self {
            Storage::Bhsd => "bhsd",
            Storage::Bshd => "bshd",
            Storage::Padded => "padded",
        }
    }
}

/// One case: all that is needed to make its inputs again. `Display` names it, each case differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Type of the tensors.
    pub dtype: DType,
    /// \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\].
    pub shape: [usize; 6],
    /// Causal mask.
    pub causal: Option<Causal>,
    /// Factor on the scores, or the default.
    pub scale: Option<f32>,
    /// Whether sequences have lengths of their own: the first all keys, the last none, those between any number.
    pub kv_lens: bool,
    /// Into how many parts the keys are split between blocks, where a kernel can; or the planner's choice.
    pub splits: Option<u32>,
    /// What the numbers are like.
    pub kind: Kind,
    /// How the tensors lie in memory.
    pub storage: Storage,
    /// Seed of the numbers.
    pub seed: u64,
}

impl Case {
    /// A plain case of this shape: bf16, normal numbers, contiguous, no mask, seed 1.
    pub const fn new(shape: [usize; 6]) -> Self {
        Self {
            dtype: DType::Bf16,
            shape,
            causal: None,
            scale: None,
            kv_lens: false,
            splits: None,
            kind: Kind::Normal,
            storage: Storage::Bhsd,
            seed: 1,
        }
    }

    /// The problem of the case on contiguous tensors.
    pub const fn problem(&self) -> Problem {
        Problem::contiguous(self.dtype, self.shape)
            .with_causal(self.causal)
            .with_scale(self.scale)
            .with_kv_lens(self.kv_lens)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [batch, heads_q, heads_kv, q_len, kv_len, head_dim] = self.shape;
        write!(f, "{}_b{batch}_h{heads_q}x{heads_kv}_q{q_len}_kv{kv_len}_d{head_dim}", self.dtype)?;
        match self.causal {
            None => f.write_str("_full")?,
            Some(causal) => write!(f, "_{causal}")?,
        }
        write!(f, "_{}_{}", self.kind.name(), self.storage.name())?;
        if let Some(scale) = self.scale {
            write!(f, "_scale{scale}")?;
        }
        if self.kv_lens {
            f.write_str("_lens")?;
        }
        if let Some(splits) = self.splits {
            write!(f, "_splits{splits}")?;
        }
        write!(f, "_seed{}", self.seed)
    }
}

/// The grid, for every type and the seeds `1..=seeds`. The quick one leaves out what takes long and thins the rest.
pub fn cases(quick: bool, seeds: u64) -> Vec<Case> {
    let shapes: Vec<Case> = families(quick);
    let mut cases = Vec::with_capacity(shapes.len() * DType::ALL.len() * seeds as usize);
    for dtype in DType::ALL {
        for seed in 1..=seeds {
            cases.extend(shapes.iter().map(|&case| Case { dtype, seed, ..case }));
        }
    }
    cases
}

fn families(quick: bool) -> Vec<Case> {
    let dims: &[usize] = if quick { &[64] } else { &[32, 64, 96, 128, 192, 256] };
    let mut cases = Vec::new();
    for (shape, causal) in ACCEPTANCE {
        if !quick || shape[3] <= 512 {
            cases.push(Case { causal, ..Case::new(shape) });
        }
    }
    for &head_dim in dims {
        for (q_len, kv_len) in LENGTHS {
            let shape = [1, 2, 2, q_len, kv_len, head_dim];
            cases.extend(MASKS.map(|causal| Case { causal, ..Case::new(shape) }));
        }
    }
    for head_dim in (8..=256).step_by(if quick { 24 } else { 8 }) {
        cases.extend(PLAIN_MASKS.map(|causal| Case { causal, ..Case::new([1, 4, 2, 77, 95, head_dim]) }));
    }
    for (heads_q, heads_kv) in [(6, 6), (8, 1), (8, 2), (6, 2), (5, 1), (12, 4)] {
        for storage in Storage::ALL {
            for &head_dim in &dims[..dims.len().min(2)] {
                let shape = [2, heads_q, heads_kv, 50, 90, head_dim];
                cases.extend(PLAIN_MASKS.map(|causal| Case { causal, storage, ..Case::new(shape) }));
            }
        }
    }
    for kind in Kind::ALL {
        for &head_dim in dims {
            let shape = [1, 2, 2, 130, 130, head_dim];
            cases.extend(PLAIN_MASKS.map(|causal| Case { causal, kind, ..Case::new(shape) }));
        }
    }
    for (q_len, kv_len) in [(40, 150), (150, 40)] {
        for &head_dim in dims {
            let shape = [3, 4, 2, q_len, kv_len, head_dim];
            cases.extend(MASKS.map(|causal| Case { causal, kv_lens: true, ..Case::new(shape) }));
        }
    }
    for scale in [0.0, 0.5, 4.0] {
        for &head_dim in dims {
            cases.push(Case { scale: Some(scale), ..Case::new([1, 2, 2, 100, 100, head_dim]) });
        }
    }
    cases
}

/// Smallest subnormal number of a type, and how many steps of it the subnormal range has.
pub(super) fn subnormal<T: Element>() -> (f64, usize) {
    let (smallest, bits) = match T::DTYPE {
        DType::F16 => (f64::from(f16::from_bits(1)), f16::MANTISSA_DIGITS - 1),
        DType::Bf16 => (f64::from(bf16::from_bits(1)), bf16::MANTISSA_DIGITS - 1),
        DType::F32 => (f64::from(f32::from_bits(1)), f32::MANTISSA_DIGITS - 1),
    };
    (smallest, 1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_valid_and_has_a_name_of_its_own() {
        for quick in [true, false] {
            let cases = cases(quick, 2);
            let names: BTreeSet<_> = cases.iter().map(Case::to_string).collect();
            assert_eq!(names.len(), cases.len());
            assert!(cases.iter().all(|case| case.problem().validate().is_ok()));
        }
    }

    #[test]
    fn the_quick_grid_is_part_of_the_whole_one() {
        let whole: BTreeSet<_> = cases(false, 1).iter().map(Case::to_string).collect();
        for case in cases(true, 1) {
            assert!(whole.contains(&case.to_string()), "{case}");
        }
    }
}
