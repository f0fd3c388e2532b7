//! Where the elements of a tensor lie: shape and strides, apart from any storage.

use crate::error::{Error, Result};
use std::fmt;

/// Axes of every tensor, in the order of [`Layout::shape`].
pub const AXES: [&str; 4] = ["batch", "heads", "seq", "head_dim"];

/// Shape and strides of a tensor with axes \[batch, heads, seq, head_dim\].
///
/// Strides count elements. A stride of zero repeats one slice along its axis, which is fine for an input.
/// Any order of axes in memory is a view: [`Layout::bshd`] describes \[batch, seq, heads, head_dim\] storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    shape: [usize; 4],
    strides: [usize; 4],
}

impl Layout {
    /// Contiguous \[batch, heads, seq, head_dim\] storage.
    pub const fn bhsd(shape: [usize; 4]) -> Self {
        let [_, heads, seq, dim] = shape;
        let row = dim;
        let head = row.saturating_mul(seq);
        Self { shape, strides: [head.saturating_mul(heads), head, row, 1] }
    }

    /// Contiguous \[batch, seq, heads, head_dim\] storage; `shape` is still \[batch, heads, seq, head_dim\].
    pub const fn bshd(shape: [usize; 4]) -> Self {
        let [_, heads, seq, dim] = shape;
        let row = dim.saturating_mul(heads);
        Self { shape, strides: [row.saturating_mul(seq), dim, row, 1] }
    }

    /// Any strides, in elements. Fails unless both slices have four entries.
    pub fn strided(shape: &[usize], strides: &[usize]) -> Result<Self> {
        let rank = |field, got: &[usize]| {
            <[usize; 4]>::try_from(got).map_err(|_| Error::Shape {
                field,
                value: format!("{got:?} of rank {}", got.len()),
                allowed: "rank 4, [batch, heads, seq, head_dim]".into(),
            })
        };
        Ok(Self { shape: rank("shape", shape)?, strides: rank("strides", strides)? })
    }

    /// \[batch, heads, seq, head_dim\].
    pub const fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Elements from one index to the next along each axis.
    pub const fn strides(&self) -> [usize; 4] {
        self.strides
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1usize, |product, &n| product.saturating_mul(n))
    }

    /// Elements of storage that the layout reaches: one more than the offset of its last element, 0 when empty.
    /// `None` when that does not fit in `isize`, the largest extent that memory can have.
    pub fn extent(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut last = 0usize;
        for (n, stride) in self.shape.into_iter().zip(self.strides) {
            last = last.checked_add((n - 1).checked_mul(stride)?)?;
        }
        last.checked_add(1).filter(|&extent| extent <= isize::MAX as usize)
    }

    /// Offset of row (`batch`, `head`, `seq`) in elements. The caller keeps the indices inside the shape and the
    /// layout inside its storage.
    pub const fn row_offset(&self, batch: usize, head: usize, seq: usize) -> usize {
        batch * self.strides[0] + head * self.strides[1] + seq * self.strides[2]
    }

    /// Whether no two elements share their place, for sizes where that can be told axis by axis.
    pub fn is_injective(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let mut axes = [0, 1, 2, 3].map(|axis| (self.strides[axis], self.shape[axis]));
        axes.sort_unstable();
        let mut reach = 0usize;
        for (stride, n) in axes {
            if n == 1 {
                continue;
            }
            if stride <= reach {
                return false;
            }
            reach = reach.saturating_add((n - 1).saturating_mul(stride));
        }
        true
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shape)?;
        if *self != Self::bhsd(self.shape) {
            write!(f, " with strides {:?}", self.strides)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bshd_is_a_view_with_exchanged_axes() {
        let layout = Layout::bshd([2, 3, 5, 8]);
        assert_eq!(layout.row_offset(1, 2, 4), ((5 + 4) * 3 + 2) * 8);
        assert_eq!(layout.extent(), Some(2 * 3 * 5 * 8));
        assert!(layout.is_injective());
    }

    #[test]
    fn wrong_rank_is_named() {
        let error = Layout::strided(&[2, 3, 4], &[12, 4, 1]).unwrap_err().to_string();
        assert!(error.contains("shape: [2, 3, 4] of rank 3"), "{error}");
    }

    #[test]
    fn an_extent_beyond_memory_is_none() {
        let layout = Layout::strided(&[2, 2, 2, 8], &[usize::MAX / 2, 1 << 40, 8, 1]).unwrap();
        assert_eq!(layout.extent(), None);
        assert_eq!(Layout::bhsd([usize::MAX, 2, 3, 4]).extent(), None);
        assert_eq!(Layout::bhsd([0, 2, 3, 4]).extent(), Some(0));
    }

    #[test]
    fn a_repeated_row_is_not_injective() {
        assert!(!Layout::strided(&[1, 2, 3, 8], &[0, 0, 8, 1]).unwrap().is_injective());
        assert!(!Layout::strided(&[1, 1, 3, 8], &[0, 0, 4, 1]).unwrap().is_injective());
    }
}
