//! The tensors of a quantisation as its kernels see them: units, scales, parts.

use crate::fp8::ScaleBlocks;
use crate::layout::Layout;
use crate::limits;
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::quantize::{Quantize, QuantizedTensor, TokenMeanParams, TokenParts};
use evo_sdpa_kernels::transpose::Transpose;

/// Scales of a tensor.
pub(super) fn scale_count(layout: &Layout, blocks: ScaleBlocks) -> usize {
    blocks.scales(layout.shape()).into_iter().product()
}

/// Bytes of the codes of a tensor.
pub(super) fn code_count(layout: &Layout, transposed: bool) -> usize {
    let [batch, heads, rows, head_dim] = layout.shape();
    // Rows are few enough: a plan is checked.
    let rows = if transposed { Transpose::row_bytes(rows as u32) as usize } else { rows };
    Layout::bhsd([batch, heads, rows, head_dim]).elements()
}

/// A tensor of a launch, without addresses. Its sizes are checked; counts of units that are too large are cut off at
/// `u32::MAX`.
pub(super) fn tensor(layout: &Layout, blocks: ScaleBlocks, dtype: DType, transposed: bool) -> QuantizedTensor {
    let [batch, heads, rows, head_dim] = layout.shape().map(|n| n as u64);
    let slices = batch * heads;
    let sizes = QuantizedTensor {
        stride: limits::strides(layout, dtype.size()),
        rows: rows as u32,
        heads: heads as u32,
        head_dim: head_dim as u32,
        transposed: transposed.into(),
        ..QuantizedTensor::default()
    };
    if slices * rows == 0 {
        // The scale of a whole tensor is there without any row, and has a unit without rows.
        let units = u32::from(blocks == ScaleBlocks::Tensor);
        let one = QuantizedTensor { units_of_head: 1, units_of_scale: 1, units_of_part: 1, parts: 1, ..sizes };
        return QuantizedTensor { rows: 0, heads: 1, unit_rows: Quantize::UNIT_ROWS[0], units, ..one };
    }
    let rows_of_scale = match blocks {
        ScaleBlocks::Rows(rows_of_scale) => rows.min(rows_of_scale.into()),
        ScaleBlocks::Tensor | ScaleBlocks::Head => rows,
    };
    let [less, more] = Quantize::UNIT_ROWS.map(u64::from);
    let unit_rows = if transposed || less < rows_of_scale && rows_of_scale <= more { more } else { less };
    // All scales of a head have equally many units, though the last one may have fewer rows.
    let units_of_head = rows.div_ceil(rows_of_scale) * rows_of_scale.div_ceil(unit_rows);
    let units = slices * units_of_head;
    let units_of_scale = if blocks == ScaleBlocks::Tensor { units } else { rows_of_scale.div_ceil(unit_rows) };
    let units_of_part = units_of_scale.div_ceil(Quantize::MAX_PARTS.into());
    let parts = units_of_scale.div_ceil(units_of_part);
    let all_parts = if units_of_scale == 1 { 0 } else { units / units_of_scale * parts };
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    QuantizedTensor {
        units: number(units),
        unit_rows: unit_rows as u32,
        units_of_head: number(units_of_head),
        units_of_scale: number(units_of_scale),
        units_of_part: number(units_of_part),
        parts: number(parts),
        all_parts: number(all_parts),
        ..sizes
    }
}

/// The mean of the keys, without addresses.
pub(super) fn mean(layout: &Layout, dtype: DType) -> TokenMeanParams {
    let [batch, heads, rows, head_dim] = layout.shape().map(|n| n as u32);
    let part_rows = TokenParts::rows(rows);
    TokenMeanParams {
        stride: limits::strides(layout, dtype.size()),
        rows,
        heads,
        // Without rows there is no mean.
        all_heads: if rows == 0 { 0 } else { batch * heads },
        head_dim,
        part_rows,
        parts: rows.div_ceil(part_rows),
        ..TokenMeanParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_heads_are_one_unit_and_long_ones_have_parts_of_several() {
        let of = |rows, blocks| tensor(&Layout::bhsd([2, 3, rows, 64]), blocks, DType::F16, false);
        for (rows, unit_rows) in [(1, 64), (64, 64), (65, 128), (128, 128)] {
            let tensor = of(rows, ScaleBlocks::Rows(1 << 20));
            assert_eq!((tensor.unit_rows, tensor.units_of_scale, tensor.all_parts), (unit_rows, 1, 0), "{rows}");
        }
        let whole = of(64 * 300, ScaleBlocks::Tensor);
        assert_eq!((whole.units, whole.units_of_part, whole.parts, whole.all_parts), (1800, 8, 225, 225));
        let blocks = of(600, ScaleBlocks::Rows(256));
        assert_eq!((blocks.units, blocks.units_of_head, blocks.units_of_scale, blocks.all_parts), (72, 12, 4, 72));
    }

    #[test]
    fn transposed_tensors_have_units_that_fill_their_rows() {
        let of = |rows, blocks| tensor(&Layout::bhsd([2, 3, rows, 64]), blocks, DType::F16, true);
        for rows in [1, 64, 65, 128, 129, 300, 1000] {
            for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(128), ScaleBlocks::Rows(512)] {
                let tensor = of(rows, blocks);
                assert_eq!((tensor.unit_rows, tensor.transposed), (128, 1));
                assert!(tensor.units_of_head * 128 >= Transpose::row_bytes(rows as u32), "{rows} {blocks:?}");
            }
        }
    }
}
