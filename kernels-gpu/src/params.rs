//! The one parameter block that every forward kernel takes by value.

/// Byte distances between neighbours of one tensor with axes \[batch, head, row, column\].
///
/// Columns are contiguous; every distance is a multiple of 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// Bytes from one batch entry to the next.
    pub batch: u64,
    /// Bytes from one head to the next.
    pub head: u64,
    /// Bytes from one row (sequence position) to the next.
    pub row: u64,
}

/// Parameters of a forward kernel, passed by value (`.param` space), 8-byte aligned.
///
/// Addresses are global device addresses. The host fills this in from a validated problem; a kernel trusts it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FwdParams {
    /// Queries, \[batch, heads_q, q_len, head_dim\].
    pub q: u64,
    /// Keys, \[batch, heads_kv, kv_len, head_dim\].
    pub k: u64,
    /// Values, \[batch, heads_kv, kv_len, head_dim\].
    pub v: u64,
    /// Output, \[batch, heads_q, q_len, head_dim\], the type of `q`.
    pub out: u64,
    /// Log-sum-exp, f32 \[batch, heads_q, q_len\] contiguous, natural logarithm; 0 when not wanted.
    pub lse: u64,
    /// Number of valid keys of each sequence, 32-bit \[batch\]; 0 when every key is valid.
    /// A value is clamped to `0..=kv_len`.
    pub kv_lens: u64,
    /// Strides of `q`.
    pub q_stride: Strides,
    /// Strides of `k`.
    pub k_stride: Strides,
    /// Strides of `v`.
    pub v_stride: Strides,
    /// Strides of `out`.
    pub out_stride: Strides,
    /// `2^32 / group` rounded up, where `group = heads_q / heads_kv`: [`kv_head`] turns a query head into its
    /// key head with it, without a division.
    pub kv_head_reciprocal: u64,
    /// Number of query heads.
    pub heads_q: u32,
    /// Number of query rows of a sequence.
    pub q_len: u32,
    /// Number of key rows of a sequence.
    pub kv_len: u32,
    /// Columns of a row that exist, a multiple of 8, at most the kernel's own head dim.
    pub head_dim: u32,
    /// Query row `i` sees keys `j <= i + causal_offset`. Without a causal mask the host passes `kv_len`,
    /// with which the condition always holds.
    pub causal_offset: i32,
    /// Softmax scale times log2(e), positive and finite.
    pub scale_log2: f32,
}

/// The value of [`FwdParams::kv_head_reciprocal`] for `group` query heads per key head.
pub const fn kv_head_reciprocal(group: u32) -> u64 {
    (1u64 << 32).div_ceil(group as u64)
}

/// The key head of query head `head_q`; exact for heads and groups below 2^16.
#[inline(always)]
pub const fn kv_head(head_q: u32, reciprocal: u64) -> u32 {
    ((head_q as u64 * reciprocal) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn parameter_block_has_the_layout_that_the_ptx_reads() {
        assert_eq!((size_of::<FwdParams>(), align_of::<FwdParams>()), (176, 8));
        assert_eq!(offset_of!(FwdParams, q_stride), 48);
        assert_eq!(offset_of!(FwdParams, kv_head_reciprocal), 144);
        assert_eq!(offset_of!(FwdParams, scale_log2), 172);
    }

    #[test]
    fn kv_head_equals_the_division_for_every_head_and_group() {
        for group in (1..=130).chain([255, 256, 1000, 65535]) {
            let reciprocal = kv_head_reciprocal(group);
            for head in 0..=65535 {
                assert_eq!(kv_head(head, reciprocal), head / group);
            }
        }
    }
}
