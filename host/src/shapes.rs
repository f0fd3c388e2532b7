//! The problems that the project is measured by.

use crate::problem::Causal;

/// \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\] and mask.
pub type Shape = ([usize; 6], Option<Causal>);

const CAUSAL: Option<Causal> = Some(Causal::BottomRight);

/// The shapes that every kernel has to be right on and that the project set out to be fast on; the first one is the
/// reason why the project exists.
pub const ACCEPTANCE: [Shape; 7] = [
    ([1, 8, 8, 512, 512, 64], None),
    ([1, 8, 8, 512, 512, 64], CAUSAL),
    ([2, 8, 8, 512, 512, 64], None),
    ([2, 8, 8, 2048, 2048, 64], None),
    ([2, 8, 8, 2048, 2048, 64], CAUSAL),
    ([2, 8, 8, 2048, 2048, 128], None),
    ([2, 8, 8, 2048, 2048, 128], CAUSAL),
];

/// What benchmarks add to [`ACCEPTANCE`]: training and prefill up to 16384 tokens, a wide head, few queries for many keys, and decoding
/// and prefill with grouped heads.
const LARGER: [Shape; 16] = [
    ([16, 32, 32, 1024, 1024, 64], CAUSAL),
    ([4, 32, 32, 4096, 4096, 64], None),
    ([4, 32, 32, 4096, 4096, 64], CAUSAL),
    ([16, 16, 16, 1024, 1024, 128], CAUSAL),
    ([4, 16, 16, 4096, 4096, 128], None),
    ([4, 16, 16, 4096, 4096, 128], CAUSAL),
    ([4, 8, 8, 4096, 4096, 256], None),
    ([1, 16, 16, 16384, 16384, 128], None),
    ([1, 16, 16, 16384, 16384, 128], CAUSAL),
    ([1, 32, 8, 64, 16384, 128], None),
    ([16, 32, 8, 1, 8192, 128], None),
    ([1, 32, 8, 1, 32768, 128], None),
    ([1, 32, 8, 2048, 2048, 128], CAUSAL),
    ([1, 32, 8, 4096, 4096, 128], CAUSAL),
    ([4, 32, 8, 4096, 4096, 128], CAUSAL),
    ([1, 32, 8, 8192, 8192, 128], CAUSAL),
];

/// The shapes that benchmarks time on a CPU, which takes milliseconds for each.
pub const ON_A_CPU: [Shape; 4] = [ACCEPTANCE[0], ACCEPTANCE[3], ACCEPTANCE[6], ([4, 12, 12, 256, 256, 32], None)];

/// Every shape that benchmarks time on a GPU, the acceptance shapes first.
pub fn measured() -> impl Iterator<Item = Shape> + Clone {
    ACCEPTANCE.into_iter().chain(LARGER)
}
