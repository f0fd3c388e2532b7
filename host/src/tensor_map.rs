//! Tensors as TMA copies them, in plain data: a driver or a simulator makes a tensor map of such a description and an
//! address.

use evo_sdpa_kernels::config::{FwdSm90, Operands};
use evo_sdpa_kernels::params::{FwdParams, STRIDE_UNIT, Strides, TileOrder};
use evo_sdpa_kernels::transpose::Transpose;

/// What a tensor map says of a tensor, but for the address: axes \[column, row, head, batch\], columns contiguous. A copy
/// takes a box of [`TiledTensor::box_columns`] columns and some rows; what of it lies outside is zero when it is loaded, and
/// left out when it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TiledTensor {
    /// Type of the elements.
    pub elements: Operands,
    /// Elements along each axis.
    pub dims: [u64; 4],
    /// Bytes from one row to the next, from one head, and from one sequence; never 0.
    pub strides: [u64; 3],
    /// Rows of a box.
    pub box_rows: u32,
}

impl TiledTensor {
    /// Columns of a box: the 128 bytes of the swizzle.
    pub const fn box_columns(&self) -> u32 {
        FwdSm90::SPAN_BYTES / self.elements.bytes()
    }

    /// Queries, keys, values and output of a launch of `config`. Transposed values have columns for rows, and keys for
    /// columns.
    pub(crate) fn of_launch(config: FwdSm90, params: &FwdParams, tiles: &TileOrder) -> [Self; 4] {
        let heads_q = u64::from(params.heads_q);
        let batch = u64::from(tiles.heads()) / heads_q.max(1);
        let heads_kv = heads_q / u64::from(params.group.max(1));
        let tensor = |elements: Operands, rows: u32, heads: u64, stride: &Strides, box_rows: u32| {
            // A stride of an axis of one element is never taken, and has to be a legal one.
            let row = params.head_dim * elements.bytes();
            let bytes = |unit: u32| u64::from(if unit == 0 { row } else { unit * STRIDE_UNIT });
            Self {
                elements,
                dims: [u64::from(params.head_dim), u64::from(rows), heads, batch],
                strides: [stride.row, stride.head, stride.batch].map(bytes),
                box_rows,
            }
        };
        let FwdParams { q_len, kv_len, q_stride, k_stride, v_stride, out_stride, .. } = params;
        let values = if config.e4m3 {
            let (keys, columns) = (u64::from(Transpose::row_bytes(*kv_len)), u64::from(params.head_dim));
            Self {
                elements: Operands::E4m3,
                dims: [keys, columns, heads_kv, batch],
                strides: [keys, keys * columns, keys * columns * heads_kv],
                box_rows: config.head_dim,
            }
        } else {
            tensor(config.operands(), *kv_len, heads_kv, v_stride, config.part_kv())
        };
        [
            tensor(config.operands(), *q_len, heads_q, q_stride, config.tile_q),
            tensor(config.operands(), *kv_len, heads_kv, k_stride, config.part_kv()),
            values,
            tensor(Operands::of(config.dtype), *q_len, heads_q, out_stride, FwdSm90::GROUP_ROWS),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceSpec;
    use crate::layout::Layout;
    use crate::plan::Plan;
    use crate::problem::Problem;
    use evo_sdpa_kernels::config::{DType, Kernel};
    use evo_sdpa_kernels::instances::KERNELS;

    /// The tensors of a launch of a kernel with tiles of 128 rows and 128 keys.
    fn tensors(problem: &Problem, head_dim: u32) -> [TiledTensor; 4] {
        let is_it = |config: &FwdSm90| {
            (config.operands(), config.head_dim, config.cluster, config.tile_kv) == (Operands::Bf16, head_dim, 1, 128)
        };
        let kernel = *KERNELS.iter().find(|kernel| matches!(kernel, Kernel::FwdSm90(config) if is_it(config))).unwrap();
        Plan::with_kernel(problem, &DeviceSpec::H200, kernel).unwrap().tensors().unwrap()
    }

    fn tensor(dims: [u64; 4], strides: [u64; 3], box_rows: u32) -> TiledTensor {
        TiledTensor { elements: Operands::Bf16, dims, strides, box_rows }
    }

    #[test]
    fn boxes_have_the_rows_of_tiles_and_the_output_those_of_a_warpgroup() {
        let problem = Problem::contiguous(DType::Bf16, [2, 8, 8, 300, 500, 128]);
        let strides = |rows: u64| [256, rows * 256, 8 * rows * 256];
        let [q, k, v, out] = tensors(&problem, 128);
        assert_eq!(q, tensor([128, 300, 8, 2], strides(300), 128));
        assert_eq!(k, tensor([128, 500, 8, 2], strides(500), 128));
        assert_eq!(v, k);
        assert_eq!(out, TiledTensor { box_rows: 64, ..q });
        assert_eq!(q.box_columns(), 64);
    }

    #[test]
    fn heads_between_rows_are_a_matter_of_strides() {
        let contiguous = Problem::contiguous(DType::Bf16, [2, 4, 4, 300, 300, 64]);
        let problem = Problem { q: Layout::bshd(contiguous.q.shape()), ..contiguous };
        let [q, k, ..] = tensors(&problem, 64);
        assert_eq!(q, tensor([64, 300, 4, 2], [4 * 128, 128, 300 * 4 * 128], 128));
        assert_eq!(k.strides, [128, 300 * 128, 4 * 300 * 128]);
    }

    #[test]
    fn keys_have_their_own_heads() {
        let problem = Problem::contiguous(DType::Bf16, [3, 12, 4, 200, 100, 128]);
        let [q, k, ..] = tensors(&problem, 128);
        assert_eq!((q.dims, k.dims), ([128, 200, 12, 3], [128, 100, 4, 3]));
    }

    #[test]
    fn columns_are_those_that_exist() {
        let problem = Problem::contiguous(DType::Bf16, [1, 2, 2, 200, 100, 40]);
        let [q, ..] = tensors(&problem, 64);
        assert_eq!((q.dims, q.strides), ([40, 200, 2, 1], [80, 200 * 80, 80]));
    }

    #[test]
    fn the_stride_of_an_axis_of_one_element_is_a_legal_one_whatever_the_caller_has() {
        let contiguous = Problem::contiguous(DType::Bf16, [1, 1, 1, 200, 100, 128]);
        let q = Layout::strided(&contiguous.q.shape(), &[0, 3, 128, 1]).unwrap();
        let [q, ..] = tensors(&Problem { q, ..contiguous }, 128);
        assert_eq!(q.strides, [256, 256, 256]);
    }
}
