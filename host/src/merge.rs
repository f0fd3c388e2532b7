//! Merging two attention results over disjoint sets of keys: what has to fit, and the launch as plain data.

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::limits::{self, ROW_ALIGNMENT};
use crate::problem::{check_injective, check_rows};
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::merge::{MergeParams, MergeStates};

/// The launch of `merge_states`, complete but for the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// The kernel.
    pub kernel: MergeStates,
    /// Blocks along x (tiles of positions), y (heads) and z (batch). A zero means that there is nothing to merge and
    /// nothing is launched.
    pub grid: [u32; 3],
    /// Parameters, with null addresses: see [`MergePlan::bind`].
    pub params: MergeParams,
}

/// Device addresses of one merge. They are the caller's; nothing is freed.
///
/// `out` may be `out_a` or `out_b`, with the same strides, and `lse` may be `lse_a` or `lse_b`: every lane reads what it
/// is about to overwrite. Tensors that overlap in another way are not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergePointers {
    /// First element of the first result.
    pub out_a: u64,
    /// Its log-sum-exp, f32 \[batch, heads, seq\] contiguous, natural logarithm.
    pub lse_a: u64,
    /// First element of the second result.
    pub out_b: u64,
    /// Its log-sum-exp.
    pub lse_b: u64,
    /// First element of the merged result.
    pub out: u64,
    /// The merged log-sum-exp, null when not wanted.
    pub lse: u64,
}

impl MergePlan {
    /// The merge of results with these layouts, \[batch, heads, seq, head_dim\] each, into `out`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ, [`Error::Unsupported`] for a head dim that is no multiple of 8 or for
    /// sizes beyond the grid, [`Error::Layout`] for rows that are not contiguous or not 16-byte aligned, or when
    /// elements of `out` overlap.
    pub fn new(dtype: DType, out_a: &Layout, out_b: &Layout, out: &Layout) -> Result<Self> {
        validate(dtype, out_a, out_b)?;
        same_shape("out", out, out_a)?;
        check_rows("out", out, dtype.size())?;
        check_injective("out", out)?;
        limits::validate_merge(dtype, [("out_a", out_a), ("out_b", out_b), ("out", out)])?;
        let [batch, heads, seq, head_dim] = out.shape().map(|n| n as u32);
        let params = MergeParams {
            a_stride: limits::strides(out_a, dtype.size()),
            b_stride: limits::strides(out_b, dtype.size()),
            out_stride: limits::strides(out, dtype.size()),
            row_bytes: head_dim * dtype.size(),
            seq,
            heads,
            ..MergeParams::default()
        };
        Ok(Self { kernel: MergeStates { dtype }, grid: [seq.div_ceil(MergeStates::ROWS), heads, batch], params })
    }

    /// Whether there is nothing to merge.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }

    /// The parameter block for these addresses.
    ///
    /// # Errors
    /// [`Error::Layout`] for an address that is null or misaligned, and for an `out` in the place of an input with
    /// other strides.
    pub fn bind(&self, pointers: &MergePointers) -> Result<MergeParams> {
        let MergePointers { out_a, lse_a, out_b, lse_b, out, lse } = *pointers;
        let refused = |field, value, allowed: &str| Err(Error::Layout { field, value, allowed: allowed.into() });
        for (field, address, wanted, alignment) in [
            ("out_a", out_a, true, ROW_ALIGNMENT),
            ("lse_a", lse_a, true, 4),
            ("out_b", out_b, true, ROW_ALIGNMENT),
            ("lse_b", lse_b, true, 4),
            ("out", out, true, ROW_ALIGNMENT),
            ("lse", lse, false, 4),
        ] {
            if address == 0 && wanted && !self.is_empty() {
                return refused(field, "address 0x0".into(), "an address on the device");
            }
            if !address.is_multiple_of(alignment) {
                return refused(field, format!("address {address:#x}"), &format!("a multiple of {alignment} bytes"));
            }
        }
        for (input, strides) in [(out_a, self.params.a_stride), (out_b, self.params.b_stride)] {
            if out == input && strides != self.params.out_stride && !self.is_empty() {
                return refused("out", "the place of an input with other strides".into(), "the strides of that input");
            }
        }
        Ok(MergeParams { out_a, lse_a, out_b, lse_b, out, lse, ..self.params })
    }
}

/// Both results have one shape, and rows that can be addressed.
pub(crate) fn validate(dtype: DType, out_a: &Layout, out_b: &Layout) -> Result<()> {
    if out_a.shape()[3] == 0 {
        return Err(Error::Shape { field: "head_dim", value: "0".into(), allowed: "at least 1".into() });
    }
    same_shape("out_b", out_b, out_a)?;
    check_rows("out_a", out_a, dtype.size())?;
    check_rows("out_b", out_b, dtype.size())
}

/// A log-sum-exp of `len` elements has one for each row of `out`.
pub(crate) fn check_lse(field: &'static str, len: usize, out: &Layout) -> Result<()> {
    let rows = out.elements() / out.shape()[3].max(1);
    if len == rows {
        return Ok(());
    }
    let allowed = format!("{rows}, batch * heads * seq");
    Err(Error::Shape { field, value: format!("{len} elements"), allowed })
}

fn same_shape(field: &'static str, layout: &Layout, out_a: &Layout) -> Result<()> {
    if layout.shape() == out_a.shape() {
        return Ok(());
    }
    let allowed = format!("{:?}, the shape of out_a", out_a.shape());
    Err(Error::Shape { field, value: format!("{:?}", layout.shape()), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 33, 64];

    fn refused(out_a: Layout, out_b: Layout, out: Layout) -> String {
        MergePlan::new(DType::F16, &out_a, &out_b, &out).unwrap_err().to_string()
    }

    #[test]
    fn every_row_has_its_lanes() {
        let layout = Layout::bhsd(SHAPE);
        let plan = MergePlan::new(DType::F32, &layout, &Layout::bshd(SHAPE), &layout).unwrap();
        assert_eq!(plan.grid, [3, 3, 2]);
        assert_eq!((plan.params.row_bytes, plan.params.b_stride.row), (256, 3 * 256 / 16));
        let empty = Layout::bhsd([2, 3, 0, 64]);
        assert!(MergePlan::new(DType::F32, &empty, &empty, &empty).unwrap().is_empty());
    }

    #[test]
    fn layouts_that_do_not_fit_are_named_with_what_would() {
        let good = Layout::bhsd(SHAPE);
        let other = Layout::bhsd([2, 3, 32, 64]);
        assert!(refused(good, other, good).starts_with("out_b: [2, 3, 32, 64] does not fit, allowed: [2, 3, 33, 64]"));
        assert!(refused(good, good, other).starts_with("out: [2, 3, 32, 64]"));
        let narrow = Layout::bhsd([2, 3, 33, 12]);
        assert!(refused(narrow, narrow, narrow).starts_with("head_dim: 12 is not supported, allowed: multiples of 8"));
        let strided = |strides: [usize; 4]| Layout::strided(&SHAPE, &strides).unwrap();
        assert!(
            refused(good, strided([6464, 2152, 65, 1]), good).starts_with("out_b: a stride of 130 bytes along seq")
        );
        assert!(refused(strided([12672, 4224, 128, 2]), good, good).starts_with("out_a: stride 2 of head_dim"));
        assert!(refused(good, good, strided([0, 2112, 64, 1])).contains("overlap"));
        let many = Layout::bhsd([1, 70000, 1, 8]);
        assert!(refused(many, many, many).starts_with("heads: 70000 is not supported"));
    }

    #[test]
    fn addresses_must_be_there_and_aligned_and_in_place_means_the_same_strides() {
        let (bhsd, bshd) = (Layout::bhsd(SHAPE), Layout::bshd(SHAPE));
        let plan = MergePlan::new(DType::Bf16, &bhsd, &bshd, &bhsd).unwrap();
        let good = MergePointers { out_a: 256, lse_a: 4, out_b: 512, lse_b: 8, out: 1024, lse: 0 };
        assert_eq!(plan.bind(&good).unwrap().out, 1024);
        assert!(plan.bind(&MergePointers { out: 256, lse: 4, ..good }).is_ok(), "in place of the first result");
        for (pointers, words) in [
            (MergePointers { out_b: 0, ..good }, "out_b: address 0x0"),
            (MergePointers { out: 1032, ..good }, "out: address 0x408 cannot be addressed, allowed: a multiple of 16"),
            (MergePointers { lse_a: 6, ..good }, "lse_a: address 0x6"),
            (MergePointers { out: 512, ..good }, "out: the place of an input with other strides"),
        ] {
            let error = plan.bind(&pointers).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
