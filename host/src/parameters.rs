//! What the kernels of a plan get: its parameters with the addresses of one call.

use crate::error::Result;
use crate::plan::{DevicePointers, Plan};
use crate::tensor_map::TiledTensor;
use evo_sdpa_kernels::params::{
    FwdFp8Params, FwdFp8Sm90Params, FwdParams, FwdSm90Params, Scales, TensorMap, TileOrder, Workspace,
};
use evo_sdpa_kernels::quantize::{QuantizeParams, TokenMeanParams};
use evo_sdpa_kernels::transpose::{Transpose, TransposeParams};

/// The parameters of an attention kernel.
#[derive(Clone, Copy)]
pub(crate) enum Parameters {
    /// Of most kernels.
    Plain(FwdParams),
    /// Of those that TMA copies for.
    Tiled(FwdSm90Params),
    /// Of those with e4m3 inputs.
    Scaled(FwdFp8Params),
    /// Of those with e4m3 inputs that TMA copies.
    TiledScaled(FwdFp8Sm90Params),
}

impl Parameters {
    /// The parameter block as it lies in memory, which is how a driver passes it on.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Parameters::Plain(params) => bytes(params),
            Parameters::Tiled(params) => bytes(params),
            Parameters::Scaled(params) => bytes(params),
            Parameters::TiledScaled(params) => bytes(params),
        }
    }
}

/// A block of parameters, which has no padding.
///
/// # Safety
/// The fields of the type fill it.
pub(crate) unsafe trait Block: Sized {}

// Ten numbers of 8 bytes, four strides of three of 4 bytes, eleven more of 4 bytes and two of 2 bytes.
const _: () = assert!(size_of::<FwdParams>() == 10 * 8 + (4 * 3 + 11) * 4 + 2 * 2);
// SAFETY: see above.
unsafe impl Block for FwdParams {}
// Four maps, the other block, and six numbers of 4 bytes.
const _: () = assert!(size_of::<FwdSm90Params>() == 4 * 128 + size_of::<FwdParams>() + size_of::<TileOrder>());
// SAFETY: see above.
unsafe impl Block for FwdSm90Params {}
// The other block, and three times an address and four numbers of 4 bytes.
const _: () = assert!(size_of::<Scales>() == 8 + 4 * 4 && size_of::<TileOrder>() == 6 * 4);
const _: () = assert!(size_of::<FwdFp8Params>() == size_of::<FwdParams>() + 3 * size_of::<Scales>());
// SAFETY: see above.
unsafe impl Block for FwdFp8Params {}
const _: () = assert!(size_of::<FwdFp8Sm90Params>() == size_of::<FwdSm90Params>() + 3 * size_of::<Scales>());
// SAFETY: see above.
unsafe impl Block for FwdFp8Sm90Params {}
// Three addresses, three strides, and three more numbers of 4 bytes.
const _: () = assert!(size_of::<TransposeParams>() == 3 * 8 + (3 + 3) * 4);
// SAFETY: see above.
unsafe impl Block for TransposeParams {}
// Three times six addresses, a stride of three numbers, and eleven more.
const _: () = assert!(size_of::<QuantizeParams>() == 3 * (6 * 8 + (3 + 11) * 4));
// SAFETY: see above.
unsafe impl Block for QuantizeParams {}
// Four addresses, a stride of three numbers, and seven more.
const _: () = assert!(size_of::<TokenMeanParams>() == 4 * 8 + (3 + 7) * 4);
// SAFETY: see above.
unsafe impl Block for TokenMeanParams {}

/// The bytes of a block of parameters.
pub(crate) fn bytes<T: Block>(params: &T) -> &[u8] {
    // SAFETY: a block has no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(params).cast(), size_of::<T>()) }
}

/// Address of the values that a transposition leaves in a workspace.
fn transposed(workspace: u64) -> u64 {
    workspace.wrapping_add(Workspace::COUNTER_BYTES)
}

impl Plan {
    /// The parameters of the attention kernel: what [`Plan::bind`] gave for these addresses, and the tensor maps that
    /// `encode` makes of tensors and their addresses. Something is launched.
    pub(crate) fn parameters(
        &self,
        fwd: FwdParams,
        pointers: &DevicePointers,
        encode: impl FnOnce([(TiledTensor, u64); 4]) -> Result<[TensorMap; 4]>,
    ) -> Result<Parameters> {
        let at = |scales, address| Scales { address, ..scales };
        let scales =
            self.scales.map(|[q, k, v]| [at(q, pointers.q_scales), at(k, pointers.k_scales), at(v, pointers.v_scales)]);
        let tiled = match (self.tensors(), self.tiles) {
            (Some([q, k, v, out]), Some(tiles)) => {
                let values = if self.ahead().is_some() { transposed(fwd.workspace) } else { fwd.v };
                let [q_map, k_map, v_map, out_map] = encode([(q, fwd.q), (k, fwd.k), (v, values), (out, fwd.out)])?;
                Some(FwdSm90Params { q_map, k_map, v_map, out_map, fwd, tiles })
            }
            _ => None,
        };
        Ok(match (tiled, scales) {
            (None, None) => Parameters::Plain(fwd),
            (Some(params), None) => Parameters::Tiled(params),
            (None, Some([q_scales, k_scales, v_scales])) => {
                Parameters::Scaled(FwdFp8Params { fwd, q_scales, k_scales, v_scales })
            }
            (Some(sm90), Some([q_scales, k_scales, v_scales])) => {
                Parameters::TiledScaled(FwdFp8Sm90Params { sm90, q_scales, k_scales, v_scales })
            }
        })
    }

    /// The grid and the parameters of the transposition that comes before the attention kernel, if there is one. `fwd`
    /// is what [`Plan::bind`] gave.
    pub(crate) fn transposition(&self, fwd: &FwdParams) -> Option<([u32; 3], TransposeParams)> {
        let (Some(_), Some(tiles)) = (self.ahead(), self.tiles) else { return None };
        let heads_q = u32::from(fwd.heads_q);
        let params = TransposeParams {
            input: fwd.v,
            output: transposed(fwd.workspace),
            lens: fwd.kv_lens,
            input_stride: fwd.v_stride,
            keys: fwd.kv_len,
            heads: heads_q / fwd.group.max(1),
            head_dim: fwd.head_dim,
        };
        Some(([Transpose::blocks(&params), params.heads, tiles.heads() / heads_q.max(1)], params))
    }
}
