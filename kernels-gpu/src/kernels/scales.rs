//! The scales of e4m3 operands.

use crate::params::{FwdParams, Scales};
use crate::ptx::ld_st::load_global_4;
use crate::ptx::math::{max, min};

/// Bound of the factor of a score. A score is a sum of up to 256 products of numbers up to 448, below 2^26: scaled it stays
/// finite.
const MAX_FACTOR: f32 = (1u128 << 100) as f32;

/// The scales of rows of queries, and of keys and values.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    k_scales: &'a Scales,
    v_scales: &'a Scales,
    /// Softmax scale times log2(e).
    scale_log2: f32,
    /// Scale of the queries.
    queries: f32,
    /// Number of the first scale of the keys of the head.
    keys: u32,
    /// The same of its values.
    values: u32,
}

impl<'a> Factors<'a> {
    /// Those of query row `row` of the first of `heads` and of the keys and values of the second; `scales` are those of
    /// queries, keys and values.
    ///
    /// # Safety
    /// The parameters are those of a plan, and there are such heads and such a row.
    #[inline(always)]
    pub unsafe fn new(
        params: &FwdParams,
        [q_scales, k_scales, v_scales]: [&'a Scales; 3],
        batch: u32,
        [head, head_kv]: [u32; 2],
        row: u32,
    ) -> Self {
        // SAFETY: the caller's promise.
        let queries = unsafe { load_scale(q_scales, q_scales.first(batch, head), row) };
        Self {
            k_scales,
            v_scales,
            scale_log2: params.scale_log2,
            queries,
            keys: k_scales.first(batch, head_kv),
            values: v_scales.first(batch, head_kv),
        }
    }

    /// What scores of keys with the scale `keys` become logarithms by, to base 2: more than zero, so that -inf stays what it is.
    #[inline(always)]
    pub fn scores(&self, keys: f32) -> f32 {
        max(min(self.scale_log2 * self.queries * keys, MAX_FACTOR), f32::MIN_POSITIVE)
    }

    /// The scale of the keys of a step.
    ///
    /// # Safety
    /// There is a key `first_key`.
    #[inline(always)]
    pub unsafe fn keys(&self, first_key: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { load_scale(self.k_scales, self.keys, first_key) }
    }

    /// Keys with one scale of their own and one of their values, a power of two.
    #[inline(always)]
    pub fn block_keys(&self) -> u32 {
        (1 << self.k_scales.shift).min(1 << self.v_scales.shift)
    }

    /// The scale of the values of a step.
    ///
    /// # Safety
    /// There is a key `first_key`.
    #[inline(always)]
    pub unsafe fn values(&self, first_key: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { load_scale(self.v_scales, self.values, first_key) }
    }
}

/// The scale of row `row` of a head whose first scale is number `first`.
#[inline(always)]
unsafe fn load_scale(scales: &Scales, first: u32, row: u32) -> f32 {
    let index = first + (row >> scales.shift);
    // SAFETY: the caller's promise that there is such a row.
    f32::from_bits(unsafe { load_global_4(scales.address + u64::from(index) * 4) })
}
